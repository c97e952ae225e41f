package sandbox

import (
	"crypto/ecdsa"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// What the API accepts beside tokens.
const (
	APIKey     = "key_live_5Jt8Wm2QxR7v" // header X-Api-Key, Authorization: ApiKey, query key, or cookie api_key
	NextAPIKey = "key_live_9Lc3Zp6HdN1s" // accepted as well, as during a rotation
	KeyName    = "probe"                 // id of HMACKey
	HMACKey    = "hmac-key-Kf4uXe9aTo2y" // signs requests to /hmac; see there
	AWSKeyID   = "AKIASANDBOX0EXAMPLE"
	AWSSecret  = "aws/secret+Vn6rQi3bUz8g" // signs requests to /sigv4 for AWSRegion and AWSService
	AWSRegion  = "eu-central-1"
	AWSService = "execute-api"
)

// An API is the resource server at https://api.example.test, and, with the same faults but those of the host, at PartnerHost
// and MTLSHost. Its routes are listed in routes; each wants another proof.
type API struct {
	host *Host
	idp  *IdP

	mu       sync.Mutex                  // owns what follows
	faults   APIFaults                   // without its Faults, which the host keeps
	stale    map[string]*ecdsa.PublicKey // the keys it has not renewed
	sessions map[string]time.Time        // until when, by cookie
	window   time.Time                   // begin of the window of RateLimit
	served   int                         // requests in it
}

// APIFaults are what can go wrong at the API. The zero value is one in good health.
type APIFaults struct {
	Faults

	// Leeway is how much the clocks of issuer and API may differ; 0: 30 seconds, negative: none.
	Leeway time.Duration
	// StaleKeys keeps the key set as it was when this was set.
	StaleKeys bool
	// WantIssuer and WantAudience are expected in tokens in place of Issuer and Audience.
	WantIssuer, WantAudience string
	// WantScope is a further scope that /v2/devices wants, and /v2/orders does not.
	WantScope string
	// DPoPNonce demands this nonce in DPoP proofs (RFC 9449 section 9); empty: none.
	DPoPNonce string
	// Terse answers 401 and 403 without a word on what is wrong.
	Terse bool
	// IgnoreRevocation accepts tokens that were revoked, until they run out, as who only checks signatures does.
	IgnoreRevocation bool
	// StripAuthorization takes the header Authorization away before it is looked at, as some proxies do.
	StripAuthorization bool
	// Open lets everybody in, everywhere.
	Open bool
	// Denied refuses with 403 whoever proved itself: the right on the object is missing.
	Denied bool
	// RetireKey refuses APIKey; NextAPIKey stays good.
	RetireKey bool
	// KeyExpires is told in the header GitHub-Authentication-Token-Expiration, where an API key was used.
	KeyExpires time.Time
	// SessionLifetime of form logins; 0: ten minutes.
	SessionLifetime time.Duration
	// RateLimit is how many requests a minute are answered before 429; 0: no limit, and no RateLimit fields.
	RateLimit int
}

// routes are the paths of the API with the proof that each wants.
var routes = map[string]func(*API, http.ResponseWriter, *http.Request){
	"/v2/health":  (*API).serveOpen,    // none
	"/v2/open":    (*API).serveOpen,    // none, and should want one
	"/v2/devices": (*API).serveDevices, // token with devices:read, or devices:write to POST
	"/v2/orders":  (*API).serveOrders,  // token with devices:read
	"/v2/admin":   (*API).serveAdmin,   // token with admin, which no client has
	"/basic":      (*API).serveBasic,   // basic authentication (RFC 7617)
	"/digest":     (*API).serveDigest,  // digest authentication (RFC 7616)
	"/key":        (*API).serveKey,     // API key
	"/login":      (*API).serveLogin,   // a form with a field csrf
	"/logout":     (*API).serveLogout,  //
	"/session":    (*API).serveSession, // the cookie of a login
	"/mtls":       (*API).serveMTLS,    // a client certificate; only on MTLSHost
	"/hmac":       (*API).serveHMAC,    // a request signed by HMACKey
	"/sigv4":      (*API).serveSigV4,   // a request signed as AWS wants it
}

func newAPI(w *World) *API {
	a := &API{idp: w.IdP, sessions: map[string]time.Time{}}
	h := http.HandlerFunc(a.serveHTTP)
	a.host = w.Serve("https://"+APIHost, h)
	w.Serve("http://"+APIHost, RedirectTo(http.StatusPermanentRedirect, "https://"+APIHost+"/"))
	w.Serve("https://"+PartnerHost, h)
	w.Serve("https://"+MTLSHost, h).asks = tls.RequireAndVerifyClientCert
	return a
}

// Set changes what is wrong with the API.
func (a *API) Set(change func(f *APIFaults)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.host.Set(func(common *Faults) {
		a.faults.Faults = *common
		change(&a.faults)
		*common = a.faults.Faults
	})
	if !a.faults.StaleKeys {
		a.stale = nil
	} else if a.stale == nil {
		a.stale = a.idp.published()
	}
}

// Reset takes all faults away.
func (a *API) Reset() { a.Set(func(f *APIFaults) { *f = APIFaults{} }) }

// Faults gives a copy of what is wrong at present.
func (a *API) Faults() APIFaults {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.faults
	f.Faults = a.host.Faults()
	return f
}

// keys gives the keys that tokens are verified by.
func (a *API) keys() map[string]*ecdsa.PublicKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stale != nil {
		return a.stale
	}
	return a.idp.published()
}

func (a *API) now() time.Time { return a.host.now() }

func (a *API) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	f := a.Faults()
	if !a.withinRate(rw, f.RateLimit) {
		return
	}
	if f.StripAuthorization {
		r.Header.Del("Authorization")
	}
	if r.Header.Get("X-Request-Id") == "" {
		rw.Header().Set("X-Request-Id", "req-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	}
	serve, ok := routes[r.URL.Path]
	switch {
	case !ok:
		writeJSON(rw, http.StatusNotFound, map[string]any{"message": "no such route"})
	case f.Open:
		a.serveOpen(rw, r)
	default:
		serve(a, rw, r)
	}
}

// withinRate counts a request against the budget of the minute, and refuses it when that is used up.
func (a *API) withinRate(rw http.ResponseWriter, limit int) bool {
	if limit <= 0 {
		return true
	}
	now := a.now()
	a.mu.Lock()
	if begin := now.Truncate(time.Minute); begin != a.window {
		a.window, a.served = begin, 0
	}
	a.served++
	left := limit - a.served
	reset := strconv.Itoa(int(a.window.Add(time.Minute).Sub(now).Seconds()) + 1)
	a.mu.Unlock()
	rw.Header().Set("RateLimit-Limit", strconv.Itoa(limit))
	rw.Header().Set("RateLimit-Remaining", strconv.Itoa(max(left, 0)))
	rw.Header().Set("RateLimit-Reset", reset)
	if left >= 0 {
		return true
	}
	rw.Header().Set("Retry-After", reset)
	writeJSON(rw, http.StatusTooManyRequests, map[string]any{"message": "Too many requests"})
	return false
}

// welcome answers who has proved itself.
func (a *API) welcome(rw http.ResponseWriter, who string) {
	proved(rw, who)
	if a.Faults().Denied {
		a.forbid(rw, "", "You do not have permission to access this resource")
		return
	}
	writeJSON(rw, http.StatusOK, map[string]any{"who": who, "devices": []any{map[string]any{"id": "d1", "name": "pump"}}})
}

// forbid answers 403, with a challenge when there is one.
func (a *API) forbid(rw http.ResponseWriter, challenge, message string) {
	if a.Faults().Terse {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	if challenge != "" {
		rw.Header().Set("WWW-Authenticate", challenge)
	}
	writeJSON(rw, http.StatusForbidden, map[string]any{"message": message})
}

// challenge answers 401.
func (a *API) challenge(rw http.ResponseWriter, message string, challenges ...string) {
	if a.Faults().Terse {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	rw.Header()["Www-Authenticate"] = challenges
	writeJSON(rw, http.StatusUnauthorized, map[string]any{"message": message})
}

func (a *API) serveOpen(rw http.ResponseWriter, _ *http.Request) {
	writeJSON(rw, http.StatusOK, map[string]any{"status": "ok"})
}

func (a *API) serveDevices(rw http.ResponseWriter, r *http.Request) {
	scope := "devices:read"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		scope = "devices:write"
	}
	want := []string{scope}
	if further := a.Faults().WantScope; further != "" {
		want = append(want, further)
	}
	a.serveToken(rw, r, want...)
}

func (a *API) serveOrders(rw http.ResponseWriter, r *http.Request) {
	a.serveToken(rw, r, "devices:read")
}

func (a *API) serveAdmin(rw http.ResponseWriter, r *http.Request) { a.serveToken(rw, r, "admin") }

// serveToken lets in who shows a token with the scopes (RFC 6750, RFC 9449).
func (a *API) serveToken(rw http.ResponseWriter, r *http.Request, scopes ...string) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	dpop := strings.EqualFold(scheme, "DPoP")
	if !dpop && !strings.EqualFold(scheme, "Bearer") { // no error code where no token was sent, RFC 6750 section 3.1
		a.challenge(rw, "Unauthorized", `Bearer realm="api"`)
		return
	}
	who, granted, problem := a.judge(text)
	if problem == "" {
		problem = a.judgeBinding(r, text, dpop)
	}
	if problem == "" && dpop && !a.hasNonce(rw, r) {
		a.challenge(rw, "use_dpop_nonce", `DPoP realm="api", error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`)
		return
	}
	if problem != "" {
		a.challenge(rw, problem, fmt.Sprintf(`%s realm="api", error="invalid_token", error_description="%s"`, map[bool]string{true: "DPoP", false: "Bearer"}[dpop], problem))
		return
	}
	if missing := without(scopes, granted); len(missing) > 0 {
		proved(rw, who)
		a.forbid(rw, fmt.Sprintf(`Bearer realm="api", error="insufficient_scope", error_description="The token lacks a scope", scope="%s"`, strings.Join(scopes, " ")), "The token lacks a scope")
		return
	}
	a.welcome(rw, who)
}

// judge gives client and scopes of a token, or what is wrong with it.
func (a *API) judge(text string) (client string, scopes []string, problem string) {
	f, now := a.Faults(), a.now()
	leeway := max(f.Leeway, 0)
	if f.Leeway == 0 {
		leeway = 30 * time.Second
	}
	known := a.idp.find(text)
	if !strings.Contains(text, ".") { // opaque: the issuer is asked
		if known == nil || known.kind != accessToken || !known.live(a.idp.now()) {
			return "", nil, "The access token is not active"
		}
		return known.client, known.scopes, ""
	}
	t, err := parseJWT(text)
	if err != nil {
		return "", nil, "The access token is malformed"
	}
	key := a.keys()[t.text("kid")]
	issuer, audience := Issuer, Audience
	if f.WantIssuer != "" {
		issuer = f.WantIssuer
	}
	if f.WantAudience != "" {
		audience = f.WantAudience
	}
	at := func(claim string) (time.Time, bool) {
		seconds, ok := t.number(claim)
		return time.Unix(int64(seconds), 0), ok
	}
	expires, limited := at("exp")
	begins, later := at("nbf")
	issued, dated := at("iat")
	switch {
	case t.text("alg") != "ES256":
		problem = "The signature algorithm is not supported"
	case key == nil:
		problem = "The signing key is not known: kid " + quotable(t.text("kid"))
	case !t.signedBy(key):
		problem = "The signature is invalid"
	case t.claim("iss") != issuer:
		problem = "The issuer is not trusted"
	case !t.holds("aud", audience):
		problem = "The audience is invalid"
	case !limited || !now.Before(expires.Add(leeway)):
		problem = "The access token expired"
	case later && begins.After(now.Add(leeway)):
		problem = "The access token is not yet valid"
	case dated && issued.After(now.Add(leeway)):
		problem = "The access token was issued in the future"
	case known != nil && known.revoked && !f.IgnoreRevocation:
		problem = "The access token was revoked"
	}
	return t.claim("client_id"), strings.Fields(t.claim("scope")), problem
}

// quotable makes a text of a stranger fit for a quoted string in a header.
func quotable(s string) string {
	keep := func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}
	return strings.Map(keep, s)
}

// judgeBinding says what is wrong with the proof of a token that is bound to a key.
func (a *API) judgeBinding(r *http.Request, text string, dpop bool) string {
	bound := ""
	if known := a.idp.find(text); known != nil {
		bound = known.bound
	}
	if bound == "" && !dpop {
		return ""
	}
	t, key := parseProof(r.Header.Get("DPoP"))
	url := "https://" + r.Host + r.URL.Path
	switch {
	case !dpop:
		return "The access token is bound to a key and needs the scheme DPoP"
	case key == "" || key != bound || t.claim("ath") != hashOf(text) || !a.idp.proofFits(t, r.Method, url, a.now()):
		return "The DPoP proof is not valid"
	}
	return ""
}

// hasNonce sees whether a proof holds the nonce that is demanded, and tells it.
func (a *API) hasNonce(rw http.ResponseWriter, r *http.Request) bool {
	nonce := a.Faults().DPoPNonce
	if nonce == "" {
		return true
	}
	rw.Header().Set("DPoP-Nonce", nonce)
	t, _ := parseProof(r.Header.Get("DPoP"))
	return t.claim("nonce") == nonce
}

// serveKey wants an API key in the header X-Api-Key, as Authorization: ApiKey, as query parameter key, or as cookie api_key.
func (a *API) serveKey(rw http.ResponseWriter, r *http.Request) {
	f := a.Faults()
	var sent []string
	if key := r.Header.Get("X-Api-Key"); key != "" {
		sent = append(sent, key)
	}
	if scheme, key, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "ApiKey") {
		sent = append(sent, key)
	}
	if key := r.URL.Query().Get("key"); key != "" {
		sent = append(sent, key)
	}
	if c, err := r.Cookie("api_key"); err == nil {
		sent = append(sent, c.Value)
	}
	good := []string{NextAPIKey}
	if !f.RetireKey {
		good = append(good, APIKey)
	}
	switch {
	case len(sent) == 0:
		a.challenge(rw, "No API key was sent", `ApiKey realm="api"`)
	case !slices.Contains(good, sent[0]):
		a.challenge(rw, "The API key is invalid", `ApiKey realm="api", error="invalid_key"`)
	default:
		if !f.KeyExpires.IsZero() {
			rw.Header().Set("GitHub-Authentication-Token-Expiration", f.KeyExpires.UTC().Format("2006-01-02 15:04:05 MST"))
		}
		a.welcome(rw, "key")
	}
}

// serveMTLS wants a client certificate, which the handshake has verified on MTLSHost.
func (a *API) serveMTLS(rw http.ResponseWriter, r *http.Request) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		writeJSON(rw, http.StatusForbidden, map[string]any{"message": "No required SSL certificate was sent"})
		return
	}
	a.welcome(rw, r.TLS.PeerCertificates[0].Subject.CommonName)
}
