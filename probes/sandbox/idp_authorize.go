package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"html"
	"net/http"
	"net/url"
	"slices"
	"time"
)

const sessionCookie = "idp_session"

// serveAuthorize is the authorization endpoint (RFC 6749 section 4.1.1, RFC 7636, RFC 9207). Without a session it sends people
// to the login page, and, with prompt=none, back to the client with login_required.
func (i *IdP) serveAuthorize(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := i.Faults()
	page := func(text string) {
		HTML(http.StatusBadRequest, "<!DOCTYPE html><title>Error</title><h1>Error</h1><p>"+html.EscapeString(text)+"</p>\n").ServeHTTP(rw, r)
	}
	c, _ := i.client(q.Get("client_id"))
	if c == nil {
		page("invalid_client: unknown client")
		return
	}
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || redirect.Host == "" || !f.AnyRedirect && !slices.Contains(c.RedirectURIs, q.Get("redirect_uri")) {
		page("redirect_uri_mismatch: The redirect URI does not match one that is registered for the client")
		return
	}
	back := func(pairs ...string) {
		v := redirect.Query()
		for n := 0; n < len(pairs); n += 2 {
			v.Set(pairs[n], pairs[n+1])
		}
		v.Set("iss", Issuer)
		if state := q.Get("state"); state != "" && !f.LoseState {
			if f.ChangeState {
				state += "x"
			}
			v.Set("state", state)
		}
		redirect.RawQuery = v.Encode()
		rw.Header().Set("Location", redirect.String())
		rw.WriteHeader(http.StatusFound)
	}
	scopes, bad := i.scopes(c, q.Get("scope"))
	switch {
	case q.Get("response_type") != "code":
		back("error", "unsupported_response_type")
		return
	case bad != nil:
		back("error", bad.code, "error_description", bad.description)
		return
	case !f.WithoutPKCE && (q.Get("code_challenge") == "" || q.Get("code_challenge_method") != "S256"):
		back("error", "invalid_request", "error_description", "A code challenge with method S256 is required")
		return
	}
	session, err := r.Cookie(sessionCookie)
	if err != nil || session.Value != i.session() {
		if q.Get("prompt") == "none" {
			back("error", "login_required")
			return
		}
		rw.Header().Set("Location", "/login?return="+url.QueryEscape(r.URL.RequestURI()))
		rw.WriteHeader(http.StatusFound)
		return
	}
	t := &token{
		kind: authCode, text: "code-" + rand.Text(), client: c.ID, subject: User, scopes: scopes, audience: []string{Audience},
		expires: i.now().Add(time.Minute), redirect: q.Get("redirect_uri"), verifier: q.Get("code_challenge"), family: rand.Text(),
	}
	i.remember(t.text, t)
	back("code", t.text)
}

// session is the value of the cookie of whoever logged in.
func (i *IdP) session() string { return "session-of-" + User }

// serveLogin takes the login form, and sends the person back to where they came from.
func (i *IdP) serveLogin(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		LoginPage().ServeHTTP(rw, r)
		return
	}
	if bad := i.checkPassword(r.PostFormValue("username"), r.PostFormValue("password")); bad != nil {
		HTML(http.StatusUnauthorized, "<!DOCTYPE html><title>Sign in</title><p>Invalid username or password</p>\n").ServeHTTP(rw, r)
		return
	}
	http.SetCookie(rw, &http.Cookie{Name: sessionCookie, Value: i.session(), Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
	to := r.URL.Query().Get("return")
	if to == "" || to[0] != '/' {
		to = "/"
	}
	rw.Header().Set("Location", to)
	rw.WriteHeader(http.StatusSeeOther)
}

// spendCode uses an authorization code up. One that was used before takes the tokens of its grant with it (RFC 6749 section
// 4.1.2).
func (i *IdP) spendCode(form url.Values, t *token) *refusal {
	now := i.now()
	i.mu.Lock()
	defer i.mu.Unlock()
	code := i.tokens[form.Get("code")]
	if code == nil || code.kind != authCode || code.client != t.client || code.revoked || !now.Before(code.expires) {
		return refuse("invalid_grant", "The authorization code is not valid or has expired")
	}
	if code.used {
		for _, other := range i.tokens {
			if other.family == code.family {
				other.revoked = true
			}
		}
		return refuse("invalid_grant", "The authorization code was used before")
	}
	digest := sha256.Sum256([]byte(form.Get("code_verifier")))
	switch {
	case form.Get("redirect_uri") != code.redirect:
		return refuse("invalid_grant", "The redirect URI is not that of the authorization request")
	case code.verifier != b64(digest[:]) && (code.verifier != "" || !i.faults.WithoutPKCE):
		return refuse("invalid_grant", "The code verifier does not fit the code challenge")
	}
	code.used = true
	t.subject, t.scopes, t.audience, t.family = code.subject, code.scopes, code.audience, code.family
	return nil
}
