package sandbox

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Grants of the token endpoint.
const (
	grantClient   = "client_credentials"
	grantRefresh  = "refresh_token"
	grantPassword = "password"
	grantCode     = "authorization_code"
	grantJWT      = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
)

var grantTypes = []string{grantClient, grantRefresh, grantPassword, grantCode, grantJWT, grantExchange}

// Kinds of tokens.
const (
	accessToken = iota
	refreshToken
	authCode
)

// A token is what the identity provider remembers of one it issued.
type token struct {
	kind     int
	text     string
	client   string
	subject  string
	scopes   []string
	audience []string
	issued   time.Time
	expires  time.Time
	revoked  bool
	used     bool   // a refresh token or code that was spent
	family   string // of refresh tokens
	bound    string // thumbprint of the DPoP key it is bound to
	redirect string // of a code
	verifier string // S256 challenge of a code
}

func (t *token) live(now time.Time) bool { return !t.revoked && !t.used && now.Before(t.expires) }

func (i *IdP) serveToken(rw http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(rw, r.Body, 1<<20)
	if r.ParseForm() != nil {
		refuse("invalid_request", "The form cannot be read").write(rw)
		return
	}
	c, name, bad := i.authenticate(r)
	i.mu.Lock()
	i.asked[name]++
	i.mu.Unlock()
	var answer map[string]any
	if bad == nil {
		proved(rw, c.ID)
		answer, bad = i.grant(rw, r, c)
	}
	if i.Faults().LoseAnswer {
		abort(hijack(rw))
		return
	}
	if bad != nil {
		bad.write(rw)
		return
	}
	writeJSON(rw, http.StatusOK, answer)
}

// grant does what a token request asks for.
func (i *IdP) grant(rw http.ResponseWriter, r *http.Request, c *Client) (map[string]any, *refusal) {
	form := r.PostForm
	kind := form.Get("grant_type")
	switch {
	case kind == "":
		return nil, refuse("invalid_request", "The parameter grant_type is missing")
	case !slices.Contains(grantTypes, kind):
		return nil, refuse("unsupported_grant_type", "The grant type is not supported")
	case len(c.Grants) > 0 && !slices.Contains(c.Grants, kind):
		return nil, refuse("unauthorized_client", "The client is not authorized to use this grant type")
	}
	bound, bad := i.provesKey(rw, r, c)
	if bad != nil {
		return nil, bad
	}
	t := &token{client: c.ID, subject: c.ID, bound: bound}
	if t.scopes, bad = i.scopes(c, form.Get("scope")); bad != nil {
		return nil, bad
	}
	if t.audience, bad = audiences(c, append(form["audience"], form["resource"]...)); bad != nil {
		return nil, bad
	}
	extra := map[string]any{}
	refreshable := false
	switch kind {
	case grantPassword:
		bad = i.checkPassword(form.Get("username"), form.Get("password"))
		t.subject, refreshable = form.Get("username"), true
	case grantRefresh:
		bad = i.spendRefresh(form.Get("refresh_token"), t, form.Has("scope"))
		refreshable = !i.Faults().KeepRefresh
	case grantCode:
		bad = i.spendCode(form, t)
		refreshable = slices.Contains(t.scopes, "offline_access")
	case grantJWT:
		a, err := parseJWT(form.Get("assertion"))
		if err != nil || c.Key == nil || !a.signedBy(c.Key) || !i.asserts(a, a.claim("iss")) || a.claim("iss") != c.ID {
			return nil, refuse("invalid_grant", "The assertion is not valid")
		}
		t.subject = a.claim("sub")
	case grantExchange:
		subject := i.find(form.Get("subject_token"))
		if subject == nil || subject.kind != accessToken || !subject.live(i.now()) || form.Get("subject_token_type") == "" {
			return nil, refuse("invalid_request", "The subject token is not valid")
		}
		t.subject = subject.subject
		extra["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
	}
	if bad != nil {
		return nil, bad
	}
	if refreshable {
		extra["refresh_token"] = i.issueRefresh(t)
	}
	return i.issue(t, extra), nil
}

func (i *IdP) scopes(c *Client, asked string) ([]string, *refusal) {
	list := strings.Fields(asked)
	if len(list) == 0 {
		list = c.Scopes
	}
	for _, s := range list {
		if !slices.Contains(c.Scopes, s) {
			return nil, refuse("invalid_scope", "The requested scope is invalid, unknown, or not allowed for this client: "+s)
		}
	}
	return without(list, i.Faults().Withhold), nil
}

func audiences(c *Client, asked []string) ([]string, *refusal) {
	for _, a := range asked {
		if a != Audience && !slices.Contains(c.Audiences, a) {
			return nil, refuse("invalid_target", "The requested resource is unknown: "+a) // RFC 8707 section 2
		}
	}
	if len(asked) == 0 {
		asked = []string{Audience}
	}
	return asked, nil
}

func (i *IdP) checkPassword(user, password string) *refusal {
	i.mu.Lock()
	locked := i.locked(user)
	i.mu.Unlock()
	if locked {
		return refuse("invalid_grant", "The account is locked after too many failed attempts")
	}
	if !i.proof(user, user == User && password == Password) {
		return refuse("invalid_grant", "Invalid user credentials")
	}
	return nil
}

// spendRefresh uses a refresh token up. One that was used before takes its whole family with it (RFC 9700 section 2.2.2).
func (i *IdP) spendRefresh(text string, t *token, narrowed bool) *refusal {
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.tokens[text]
	switch {
	case old == nil || old.kind != refreshToken || old.client != t.client || old.revoked || i.families[old.family]:
		return refuse("invalid_grant", "The refresh token is not valid")
	case old.used:
		i.families[old.family] = true
		for _, other := range i.tokens {
			if other.family == old.family {
				other.revoked = true
			}
		}
		return refuse("invalid_grant", "The refresh token was used before; the grant is revoked")
	case !now.Before(old.expires):
		return refuse("invalid_grant", "The refresh token has expired")
	}
	old.used = !i.faults.KeepRefresh
	t.subject, t.audience, t.family = old.subject, old.audience, old.family
	if !narrowed {
		t.scopes = without(old.scopes, i.faults.Withhold)
	}
	return nil
}

func (i *IdP) issueRefresh(t *token) string {
	life := i.Faults().RefreshLifetime
	if life == 0 {
		life = 30 * 24 * time.Hour
	}
	if t.family == "" {
		t.family = rand.Text()
	}
	now := i.now()
	r := *t
	r.kind, r.text, r.issued, r.expires = refreshToken, "rt-"+rand.Text(), now, now.Add(life)
	i.remember(r.text, &r)
	return r.text
}

// issue makes an access token and the answer that carries it.
func (i *IdP) issue(t *token, answer map[string]any) map[string]any {
	f := i.Faults()
	text := i.mint(t, nil)
	answer["access_token"] = text
	answer["scope"] = strings.Join(t.scopes, " ")
	answer["token_type"] = "Bearer"
	if t.bound != "" {
		answer["token_type"] = "DPoP"
	}
	switch f.TokenType {
	case "":
	case "-":
		delete(answer, "token_type")
	default:
		answer["token_type"] = f.TokenType
	}
	switch f.ExpiresIn {
	case "":
		answer["expires_in"] = int(t.expires.Sub(t.issued).Seconds())
	case "-":
	default:
		answer["expires_in"] = json.RawMessage(f.ExpiresIn)
	}
	return answer
}

// mint makes the text of an access token and remembers it. change may spoil its claims.
func (i *IdP) mint(t *token, change func(claims map[string]any)) string {
	f := i.Faults()
	life := f.Lifetime
	if c, _ := i.client(t.client); c != nil && life == 0 {
		life = c.Lifetime
	}
	if life == 0 {
		life = time.Hour
	}
	t.kind, t.issued = accessToken, i.now()
	t.expires = t.issued.Add(life)
	id := rand.Text()
	if f.Opaque && change == nil {
		t.text = "at-" + id
		i.remember(t.text, t)
		return t.text
	}
	claims := map[string]any{
		"iss": Issuer, "sub": t.subject, "client_id": t.client, "jti": id, "scope": strings.Join(t.scopes, " "),
		"iat": t.issued.Unix(), "nbf": t.issued.Add(f.NotBefore).Unix(), "exp": t.expires.Unix(), "aud": t.audience,
	}
	if len(t.audience) == 1 {
		claims["aud"] = t.audience[0]
	}
	if t.bound != "" {
		claims["cnf"] = map[string]any{"jkt": t.bound}
	}
	if f.TokenIssuer != "" {
		claims["iss"] = f.TokenIssuer
	}
	if f.TokenAudience != "" {
		claims["aud"] = f.TokenAudience
	}
	if f.Padding > 0 {
		claims["groups"] = strings.Repeat("g", f.Padding)
	}
	if change != nil {
		change(claims)
	}
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	header := map[string]any{"typ": "at+jwt", "alg": "ES256", "kid": key.kid} // RFC 9068
	if f.TokenKid != "" {
		header["kid"] = f.TokenKid
	}
	if f.TokenAlg != "" {
		header["alg"] = f.TokenAlg
	}
	if f.TokenTyp != "" {
		header["typ"] = f.TokenTyp
	}
	t.text = signES256(key.key, header, claims)
	if f.TokenAlg == "none" {
		t.text = t.text[:strings.LastIndex(t.text, ".")+1]
	}
	i.remember(id, t)
	return t.text
}

// Mint gives an access token of a client, as the token endpoint would, whose claims change may spoil before it is signed;
// nil leaves them. The client need not exist.
func (i *IdP) Mint(client string, change func(claims map[string]any)) string {
	t := &token{client: client, subject: client, audience: []string{Audience}}
	i.mu.Lock()
	if c := i.clients[client]; c != nil {
		t.scopes = without(c.Scopes, i.faults.Withhold)
	}
	i.mu.Unlock()
	return i.mint(t, change)
}

// Consent gives a refresh token of a client, as if User had agreed in a browser.
func (i *IdP) Consent(client string) string {
	c, _ := i.client(client)
	if c == nil {
		panic("sandbox: there is no client " + client)
	}
	return i.issueRefresh(&token{client: client, subject: User, scopes: c.Scopes, audience: []string{Audience}})
}

// Revoke withdraws all tokens of a client: access tokens, refresh tokens and codes.
func (i *IdP) Revoke(client string) { i.setRevoked(client, true) }

// Reinstate takes Revoke back, which no real issuer does.
func (i *IdP) Reinstate(client string) { i.setRevoked(client, false) }

func (i *IdP) setRevoked(client string, revoked bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, t := range i.tokens {
		if t.client == client {
			t.revoked = revoked
		}
	}
}

// remembered is how many tokens are kept before those that have run out are forgotten.
const remembered = 10000

func (i *IdP) remember(id string, t *token) {
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.tokens) >= remembered && len(i.tokens)%1000 == 0 {
		for id, old := range i.tokens {
			if now.After(old.expires.Add(time.Hour)) {
				delete(i.tokens, id)
			}
		}
	}
	i.tokens[id] = t
}

// find gives a copy of what is known of a token, by its text; nil: nothing.
func (i *IdP) find(text string) *token {
	id := text
	if t, err := parseJWT(text); err == nil {
		id = t.claim("jti")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	t := i.tokens[id]
	if t == nil || t.text != text {
		return nil
	}
	found := *t
	return &found
}

func (i *IdP) serveIntrospect(rw http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil {
		refuse("invalid_request", "The form cannot be read").write(rw)
		return
	}
	c, _, bad := i.authenticate(r)
	if bad != nil {
		bad.write(rw)
		return
	}
	proved(rw, c.ID)
	t := i.find(r.PostForm.Get("token"))
	if t == nil || !t.live(i.now()) || t.kind == authCode {
		writeJSON(rw, http.StatusOK, map[string]any{"active": false})
		return
	}
	writeJSON(rw, http.StatusOK, map[string]any{
		"active": true, "scope": strings.Join(t.scopes, " "), "client_id": t.client, "sub": t.subject, "aud": t.audience,
		"iss": Issuer, "iat": t.issued.Unix(), "exp": t.expires.Unix(), "token_type": "Bearer",
	})
}

func (i *IdP) serveRevoke(rw http.ResponseWriter, r *http.Request) {
	if r.ParseForm() != nil {
		refuse("invalid_request", "The form cannot be read").write(rw)
		return
	}
	c, _, bad := i.authenticate(r)
	if bad != nil {
		bad.write(rw)
		return
	}
	proved(rw, c.ID)
	if t := i.find(r.PostForm.Get("token")); t != nil && t.client == c.ID {
		i.mu.Lock()
		for _, other := range i.tokens {
			if other.text == t.text || t.kind == refreshToken && other.family == t.family {
				other.revoked = true
			}
		}
		i.mu.Unlock()
	}
	rw.WriteHeader(http.StatusOK) // also for tokens that are unknown, RFC 7009 section 2.2
}
