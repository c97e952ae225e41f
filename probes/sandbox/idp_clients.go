package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The clients and users that every World knows. Their secrets are worth nothing elsewhere.
const (
	// ClientID may use all grants and all ways to prove itself by a secret, and may read and write devices.
	ClientID     = "billing"
	ClientSecret = "billing-secret-Zq7vT2mKx9"
	// SpecialID has a secret that must be form-encoded before it goes into basic authentication (RFC 6749 section 2.3.1).
	SpecialID     = "special:client"
	SpecialSecret = "s p+c/i&a%l=ü:secret"
	// GuestID is good, and may do nothing but read a profile: for what must be refused.
	GuestID     = "guest"
	GuestSecret = "guest-secret-Hw3nR8pLq1"
	// KeyID proves itself by a signed assertion only; its key is ClientKey.
	KeyID = "signer"
	// TLSID proves itself by a certificate only, of the World's authority and with this name.
	TLSID = "certified"
	// ResourceID is the API itself, for introspection.
	ResourceID     = "api"
	ResourceSecret = "api-secret-Bd5kW4jNz6"
	// WebID uses the authorization endpoint with RedirectURI.
	WebID       = "web"
	WebSecret   = "web-secret-Ym1cF0sGt8"
	RedirectURI = "https://app.example.test/callback"
	// OrdersID and ReportsID get tokens that live for DemoLifetime only, so that trouble at the issuer is soon felt.
	OrdersID      = "orders"
	OrdersSecret  = "orders-secret-Tx2dVk7hMb"
	ReportsID     = "reports"
	ReportsSecret = "reports-secret-Jr6wQz1yCn"
	DemoLifetime  = 20 * time.Second
	// PartnerID holds a fixed token, see Mint; it cannot ask for one.
	PartnerID = "partner"
	// User and Password are those of a person, for the grant password, the login form, basic and digest authentication.
	User     = "alice"
	Password = "correct horse: bättery & staple"
)

// A Client of the identity provider.
type Client struct {
	ID, Secret   string
	NextSecret   string           // accepted as well, during a rotation
	Key          crypto.PublicKey // for private_key_jwt and the grant jwt-bearer
	Auth         []string         // ways to prove itself; empty: any that fits what is set above
	Grants       []string         // grants it may use; empty: all
	Scopes       []string         // scopes it may ask for; it gets all of them when it asks for none
	Audiences    []string         // audiences it may ask for beside Audience
	RedirectURIs []string         // accepted at the authorization endpoint
	Lifetime     time.Duration    // of its access tokens, when no fault says otherwise; 0: one hour
	Disabled     bool             // switched off
	SecretEnded  bool             // the secret has run out, and the answer says so
	MustUseDPoP  bool             // tokens are bound to a key
}

// clientKey is the private key of KeyID, the same in every World of a process.
var clientKey = newKey()

// ClientKey is the private key of the client KeyID, and of ClientID for the grant jwt-bearer.
func ClientKey() *ecdsa.PrivateKey { return clientKey }

func firstClients() []Client {
	devices := []string{"devices:read", "devices:write", "openid", "offline_access"}
	other := []string{"https://other.example.test"}
	return []Client{
		{ID: ClientID, Secret: ClientSecret, Key: &clientKey.PublicKey, Scopes: devices, Audiences: other, RedirectURIs: []string{RedirectURI}},
		{ID: SpecialID, Secret: SpecialSecret, Scopes: devices},
		{ID: OrdersID, Secret: OrdersSecret, Scopes: []string{"devices:read"}, Lifetime: DemoLifetime},
		{ID: ReportsID, Secret: ReportsSecret, Scopes: []string{"devices:read"}, Lifetime: DemoLifetime},
		{ID: PartnerID, Grants: []string{"none"}, Scopes: []string{"devices:read"}, Lifetime: 30 * 24 * time.Hour},
		{ID: GuestID, Secret: GuestSecret, Scopes: []string{"profile"}, Grants: []string{"client_credentials"}},
		{ID: KeyID, Key: &clientKey.PublicKey, Auth: []string{"private_key_jwt"}, Scopes: devices},
		{ID: TLSID, Auth: []string{"tls_client_auth"}, Scopes: devices},
		{ID: ResourceID, Secret: ResourceSecret, Grants: []string{"none"}},
		{ID: WebID, Secret: WebSecret, Scopes: devices, Grants: []string{"authorization_code", "refresh_token"}, RedirectURIs: []string{RedirectURI}},
	}
}

// Register adds a client, or replaces one of the same ID.
func (i *IdP) Register(c Client) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clients[c.ID] = &c
}

// Change changes a client, such as its secret, or switches it off. Tokens it holds stay as they are.
func (i *IdP) Change(id string, change func(c *Client)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.clients[id]
	if c == nil {
		panic("sandbox: there is no client " + id)
	}
	changed := *c
	change(&changed)
	i.clients[id] = &changed
}

// Delete removes a client.
func (i *IdP) Delete(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.clients, id)
}

// Unlock forgets the failed proofs of a client or user.
func (i *IdP) Unlock(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.failures, name)
}

// TokenRequests says how many token requests named this client, good or bad.
func (i *IdP) TokenRequests(client string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[client]
}

// refusal is an OAuth error (RFC 6749 section 5.2).
type refusal struct {
	status            int
	code, description string
}

func (e *refusal) write(rw http.ResponseWriter) {
	if e.status == http.StatusUnauthorized {
		rw.Header().Set("WWW-Authenticate", `Basic realm="auth"`)
	}
	writeJSON(rw, e.status, map[string]any{"error": e.code, "error_description": e.description})
}

func refuse(code, description string) *refusal {
	return &refusal{http.StatusBadRequest, code, description}
}

var badClient = &refusal{http.StatusUnauthorized, "invalid_client", "Client authentication failed"}

// authenticate finds out which client asks, by the one way it uses to prove itself. The name is given also when the proof
// is bad.
func (i *IdP) authenticate(r *http.Request) (c *Client, name string, bad *refusal) {
	form := r.PostForm
	user, password, basic := r.BasicAuth()
	assertion := form.Get("client_assertion")
	var ways []string
	if basic {
		ways = append(ways, "client_secret_basic")
	}
	if form.Has("client_secret") {
		ways = append(ways, "client_secret_post")
	}
	if assertion != "" {
		ways = append(ways, "assertion")
	}
	if len(ways) > 1 {
		return nil, form.Get("client_id"), refuse("invalid_request", "More than one way of client authentication was used")
	}
	way := ""
	if len(ways) == 1 {
		way = ways[0]
	}
	secret := form.Get("client_secret")
	name = form.Get("client_id")
	var token *jwt
	switch way {
	case "client_secret_basic":
		var err1, err2 error
		name, err1 = url.QueryUnescape(user)
		secret, err2 = url.QueryUnescape(password)
		if err1 != nil || err2 != nil {
			return nil, user, badClient
		}
	case "assertion":
		var err error
		if token, err = parseJWT(assertion); err != nil || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			return nil, name, badClient
		}
		if name = token.claim("sub"); token.text("alg") == "HS256" {
			way = "client_secret_jwt"
		} else {
			way = "private_key_jwt"
		}
	case "":
		way = "none"
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			way = "tls_client_auth"
		}
	}
	known, locked := i.client(name)
	if locked {
		return nil, name, &refusal{http.StatusUnauthorized, "invalid_client", "The account is locked after too many failed attempts"}
	}
	if known == nil {
		i.proof(name, false)
		return nil, name, badClient
	}
	if i.proof(name, i.proves(r, known, way, secret, token)) {
		switch {
		case known.Disabled:
			return nil, name, &refusal{http.StatusBadRequest, "unauthorized_client", "The client is disabled"}
		case known.SecretEnded && strings.HasPrefix(way, "client_secret"):
			return nil, name, &refusal{http.StatusUnauthorized, "invalid_client", "The client secret has expired"}
		}
		return known, name, nil
	}
	return nil, name, badClient
}

func (i *IdP) client(name string) (c *Client, locked bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.clients[name], i.locked(name)
}

// locked is called with i.mu held.
func (i *IdP) locked(name string) bool {
	return i.faults.LockAfter > 0 && i.failures[name] >= i.faults.LockAfter
}

// proof counts failures in a row, and gives good back.
func (i *IdP) proof(name string, good bool) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if good {
		delete(i.failures, name)
	} else {
		i.failures[name]++
	}
	return good
}

func (i *IdP) proves(r *http.Request, c *Client, way, secret string, assertion *jwt) bool {
	if len(c.Auth) > 0 && !slices.Contains(c.Auth, way) {
		return false
	}
	right := func(s string) bool { return s != "" && (s == c.Secret || s == c.NextSecret) }
	switch way {
	case "client_secret_basic", "client_secret_post":
		return right(secret)
	case "client_secret_jwt":
		return (c.Secret != "" && assertion.signedBy([]byte(c.Secret)) || c.NextSecret != "" && assertion.signedBy([]byte(c.NextSecret))) && i.asserts(assertion, c.ID)
	case "private_key_jwt":
		return assertion.signedBy(c.Key) && i.asserts(assertion, c.ID)
	case "tls_client_auth":
		leaf := r.TLS.PeerCertificates[0]
		others := x509.NewCertPool()
		for _, cert := range r.TLS.PeerCertificates[1:] {
			others.AddCert(cert)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: i.host.w.ca.roots(), Intermediates: others, CurrentTime: i.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err == nil && leaf.Subject.CommonName == c.ID && c.Secret == ""
	case "none":
		return c.Secret == "" && c.Key == nil && !slices.Contains(c.Auth, "tls_client_auth")
	}
	return false
}

// assertionLeeway is how wrong a client's clock may be: the limits of an assertion are judged with it.
const assertionLeeway = 30 * time.Second

// asserts judges the claims of an assertion (RFC 7523 section 3) and that it was not used before.
func (i *IdP) asserts(t *jwt, client string) bool {
	now := i.now()
	expires, ok := t.number("exp")
	if !ok || t.claim("iss") != client || t.claim("sub") == "" || !t.holds("aud", Issuer, Issuer+"/token") {
		return false
	}
	at := func(seconds float64) time.Time { return time.Unix(int64(seconds), 0) }
	if now.After(at(expires).Add(assertionLeeway)) || at(expires).After(now.Add(time.Hour)) {
		return false
	}
	for _, name := range []string{"iat", "nbf"} {
		if seconds, ok := t.number(name); ok && at(seconds).After(now.Add(assertionLeeway)) {
			return false
		}
	}
	return i.once(t.claim("jti"))
}

// once says whether a jti is new; it is not, afterwards.
func (i *IdP) once(jti string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if jti == "" || i.used[jti] {
		return false
	}
	i.used[jti] = true
	return true
}
