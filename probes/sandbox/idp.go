package sandbox

import (
	"crypto/ecdsa"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Issuer is the identity provider's name, and Audience that of the API, as they stand in tokens.
const (
	Issuer   = "https://" + AuthHost
	Audience = "https://" + APIHost
)

// An IdP is an OpenID provider and OAuth authorization server at Issuer: discovery (OpenID Connect Discovery and RFC 8414),
// /jwks, /token, /introspect (RFC 7662), /revoke (RFC 7009), /authorize and /userinfo.
type IdP struct {
	host *Host

	mu       sync.Mutex // owns what follows
	faults   IdPFaults  // without its Faults, which the host keeps
	clients  map[string]*Client
	keys     []signingKey      // the last one signs
	tokens   map[string]*token // access tokens by jti, or by text when opaque; refresh tokens and codes by text
	families map[string]bool   // refresh token families that were revoked
	used     map[string]bool   // jti of client assertions and DPoP proofs
	asked    map[string]int    // token requests by client
	failures map[string]int    // failed proofs of a client or a user, since the last good one
	serial   int
}

type signingKey struct {
	kid string
	key *ecdsa.PrivateKey
}

// IdPFaults are what can go wrong at the identity provider. The zero value is one in good health.
type IdPFaults struct {
	Faults

	// Lifetime of access tokens; 0: that of the client, which is mostly one hour.
	Lifetime time.Duration
	// RefreshLifetime of refresh tokens; 0: 30 days.
	RefreshLifetime time.Duration
	// ExpiresIn is written in place of the number of seconds: JSON, such as `0`, `3599.5`, `"3600"` or `"soon"`; "-" leaves
	// it out.
	ExpiresIn string
	// TokenType is written in place of Bearer; "-" leaves it out.
	TokenType string
	// Opaque makes access tokens that say nothing to who reads them.
	Opaque bool
	// Padding makes JWT access tokens longer by so many bytes.
	Padding int

	// TokenIssuer, TokenAudience, TokenKid and TokenAlg are written into tokens in place of the right ones.
	TokenIssuer, TokenAudience, TokenKid, TokenAlg string
	// NotBefore moves nbf of tokens so far into the future.
	NotBefore time.Duration
	// Withhold are scopes that are not granted, although they were asked for.
	Withhold []string

	// MetadataIssuer stands in the metadata in place of Issuer, and TokenEndpoint in place of the token endpoint.
	MetadataIssuer, TokenEndpoint string
	// Metadata are members that take the place of those of the metadata; nil leaves one out.
	Metadata map[string]any
	// TokenTyp stands in the header of access tokens in place of their typ.
	TokenTyp string
	// KeySetHeader are further fields of the answer with the key set, such as Cache-Control and Age; with OldKeySet it is
	// that of before the last rotation, unless Cache-Control of the request says no-cache.
	KeySetHeader http.Header
	OldKeySet    bool
	// WithholdKey keeps the newest signing key, which signs, out of the key set.
	WithholdKey bool
	// KeySet is served as the key set in place of the real one.
	KeySet string

	// LoseAnswer does all that a token request asks for, and cuts the connection in place of an answer.
	LoseAnswer bool
	// KeepRefresh gives no new refresh token for a used one.
	KeepRefresh bool
	// LockAfter locks a client or a user after so many failed proofs in a row; 0: never.
	LockAfter int
	// DPoPNonce demands a nonce in every DPoP proof (RFC 9449 section 8).
	DPoPNonce bool

	// AnyRedirect accepts redirect URIs that are not registered.
	AnyRedirect bool
	// LoseState leaves state out of answers of the authorization endpoint; ChangeState changes it.
	LoseState, ChangeState bool
	// WithoutPKCE accepts authorization requests without a code challenge, and code requests without a verifier.
	WithoutPKCE bool
}

func newIdP(w *World) *IdP {
	i := &IdP{
		clients: map[string]*Client{}, tokens: map[string]*token{}, families: map[string]bool{},
		used: map[string]bool{}, asked: map[string]int{}, failures: map[string]int{},
	}
	i.newKey()
	for _, c := range firstClients() {
		i.clients[c.ID] = &c
	}
	i.host = w.Serve(Issuer, http.HandlerFunc(i.serveHTTP))
	i.host.offerClientCertificates()
	return i
}

// Set changes what is wrong with the identity provider.
func (i *IdP) Set(change func(f *IdPFaults)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.host.Set(func(common *Faults) {
		i.faults.Faults = *common
		change(&i.faults)
		*common = i.faults.Faults
	})
}

// Reset takes all faults away. Clients, keys and tokens stay as they are.
func (i *IdP) Reset() { i.Set(func(f *IdPFaults) { *f = IdPFaults{} }) }

// Faults gives a copy of what is wrong at present.
func (i *IdP) Faults() IdPFaults {
	i.mu.Lock()
	defer i.mu.Unlock()
	f := i.faults
	f.Faults = i.host.Faults()
	return f
}

func (i *IdP) now() time.Time { return i.host.now() }

// Rotate makes a new signing key. The old one stays in the key set if keepOld says so.
func (i *IdP) Rotate(keepOld bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !keepOld {
		i.keys = nil
	}
	i.newKey()
}

func (i *IdP) newKey() {
	i.serial++
	i.keys = append(i.keys, signingKey{kid: "key-" + strconv.Itoa(i.serial), key: newKey()})
}

// published gives the keys of the key set by their kid.
func (i *IdP) published() map[string]*ecdsa.PublicKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	set := map[string]*ecdsa.PublicKey{}
	for n, k := range i.keys {
		if n < len(i.keys)-1 || !i.faults.WithholdKey {
			set[k.kid] = &k.key.PublicKey
		}
	}
	return set
}

// idpRoutes are the paths of the identity provider with the method that each wants.
var idpRoutes = map[string]struct {
	method string
	serve  func(*IdP, http.ResponseWriter, *http.Request)
}{
	"/.well-known/openid-configuration":       {http.MethodGet, (*IdP).serveMetadata},
	"/.well-known/oauth-authorization-server": {http.MethodGet, (*IdP).serveMetadata},
	"/jwks":       {http.MethodGet, (*IdP).serveKeys},
	"/token":      {http.MethodPost, (*IdP).serveToken},
	"/introspect": {http.MethodPost, (*IdP).serveIntrospect},
	"/revoke":     {http.MethodPost, (*IdP).serveRevoke},
	"/authorize":  {http.MethodGet, (*IdP).serveAuthorize},
	"/login":      {"", (*IdP).serveLogin},
	"/userinfo":   {http.MethodGet, (*IdP).serveUserinfo},
}

func (i *IdP) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	route, ok := idpRoutes[r.URL.Path]
	switch {
	case !ok:
		http.NotFound(rw, r)
	case route.method != "" && r.Method != route.method:
		rw.Header().Set("Allow", route.method)
		http.Error(rw, "method not allowed", http.StatusMethodNotAllowed)
	default:
		route.serve(i, rw, r)
	}
}

func (i *IdP) serveMetadata(rw http.ResponseWriter, _ *http.Request) {
	f := i.Faults()
	issuer, endpoint := Issuer, Issuer+"/token"
	if f.MetadataIssuer != "" {
		issuer = f.MetadataIssuer
	}
	if f.TokenEndpoint != "" {
		endpoint = f.TokenEndpoint
	}
	methods := []string{"client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt", "tls_client_auth", "none"}
	doc := map[string]any{
		"issuer":                                           issuer,
		"authorization_endpoint":                           Issuer + "/authorize",
		"token_endpoint":                                   endpoint,
		"jwks_uri":                                         Issuer + "/jwks",
		"introspection_endpoint":                           Issuer + "/introspect",
		"revocation_endpoint":                              Issuer + "/revoke",
		"userinfo_endpoint":                                Issuer + "/userinfo",
		"response_types_supported":                         []string{"code"},
		"response_modes_supported":                         []string{"query"},
		"grant_types_supported":                            grantTypes,
		"subject_types_supported":                          []string{"public"},
		"id_token_signing_alg_values_supported":            []string{"ES256"},
		"scopes_supported":                                 []string{"openid", "offline_access", "devices:read", "devices:write", "admin", "profile"},
		"code_challenge_methods_supported":                 []string{"S256"},
		"token_endpoint_auth_methods_supported":            methods,
		"token_endpoint_auth_signing_alg_values_supported": []string{"HS256", "ES256", "RS256", "PS256", "EdDSA"},
		"dpop_signing_alg_values_supported":                []string{"ES256"},
		"authorization_response_iss_parameter_supported":   true,
	}
	for name, value := range f.Metadata {
		if doc[name] = value; value == nil {
			delete(doc, name)
		}
	}
	writeJSON(rw, http.StatusOK, doc)
}

func (i *IdP) serveKeys(rw http.ResponseWriter, r *http.Request) {
	f := i.Faults()
	for name, values := range f.KeySetHeader {
		rw.Header()[name] = values
	}
	if f.KeySet != "" {
		rw.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = rw.Write([]byte(f.KeySet))
		return
	}
	list := []any{}
	set := i.published()
	names := sortedKeys(set)
	if f.OldKeySet && len(names) > 1 && r.Header.Get("Cache-Control") != "no-cache" {
		names = names[:len(names)-1]
	}
	for _, kid := range names {
		list = append(list, jwk(set[kid], kid))
	}
	writeJSON(rw, http.StatusOK, map[string]any{"keys": list})
}

func sortedKeys[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// without gives the words of list that are not among others.
func without(list, others []string) []string {
	var left []string
	for _, word := range list {
		if !slices.Contains(others, word) {
			left = append(left, word)
		}
	}
	return left
}

func (i *IdP) serveUserinfo(rw http.ResponseWriter, r *http.Request) {
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	t := i.find(text)
	if !strings.EqualFold(scheme, "Bearer") || t == nil || t.kind != accessToken || !t.live(i.now()) {
		rw.Header().Set("WWW-Authenticate", `Bearer realm="auth", error="invalid_token", error_description="The access token is not active"`)
		writeJSON(rw, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	proved(rw, t.client)
	writeJSON(rw, http.StatusOK, map[string]any{"sub": t.subject})
}
