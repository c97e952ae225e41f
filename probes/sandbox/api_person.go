package sandbox

import (
	"crypto/hmac"
	"crypto/md5" // #nosec G501 -- RFC 7616 has it
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveBasic wants User and Password in UTF-8 (RFC 7617 section 2.1).
func (a *API) serveBasic(rw http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if !ok {
		a.challenge(rw, "Unauthorized", `Basic realm="api", charset="UTF-8"`)
		return
	}
	if user != User || password != Password {
		a.challenge(rw, "Invalid username or password", `Basic realm="api", charset="UTF-8"`)
		return
	}
	a.welcome(rw, user)
}

const (
	digestRealm = "api"
	digestLife  = 5 * time.Minute
	digestKey   = "nonces of the sandbox"
)

var digestAlgorithms = map[string]func() hash.Hash{"SHA-256": sha256.New, "MD5": md5.New}

// serveDigest wants User and Password proved by a digest with qop=auth (RFC 7616).
func (a *API) serveDigest(rw http.ResponseWriter, r *http.Request) {
	now := a.now()
	challenge := func(message, more string) {
		nonce := digestNonce(strconv.FormatInt(now.Unix(), 10))
		var list []string
		for _, algorithm := range []string{"SHA-256", "MD5"} { // the preferred one first, section 3.7
			list = append(list, fmt.Sprintf(`Digest realm="%s", qop="auth", algorithm=%s, nonce="%s", opaque="sandbox", charset=UTF-8%s`, digestRealm, algorithm, nonce, more))
		}
		a.challenge(rw, message, list...)
	}
	scheme, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Digest") {
		challenge("Unauthorized", "")
		return
	}
	p := parseParameters(rest)
	algorithm := p["algorithm"]
	if algorithm == "" {
		algorithm = "MD5"
	}
	newHash := digestAlgorithms[algorithm]
	made, _, _ := strings.Cut(p["nonce"], ".")
	seconds, err := strconv.ParseInt(made, 10, 64)
	if newHash == nil || err != nil || p["nonce"] != digestNonce(made) || p["uri"] != r.URL.RequestURI() || p["qop"] != "auth" {
		challenge("The digest cannot be used", "")
		return
	}
	h := func(parts ...string) string {
		sum := newHash()
		sum.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(sum.Sum(nil))
	}
	want := h(h(User, digestRealm, Password), p["nonce"], p["nc"], p["cnonce"], "auth", h(r.Method, p["uri"]))
	if p["username"] != User || p["nc"] == "" || p["cnonce"] == "" || subtle.ConstantTimeCompare([]byte(want), []byte(p["response"])) != 1 {
		challenge("Invalid username or password", "")
		return
	}
	if now.Sub(time.Unix(seconds, 0)) > digestLife {
		challenge("The nonce is stale", ", stale=true")
		return
	}
	a.welcome(rw, User)
}

func digestNonce(made string) string {
	mac := hmac.New(sha256.New, []byte(digestKey))
	mac.Write([]byte(made))
	return made + "." + hex.EncodeToString(mac.Sum(nil)[:8])
}

// parseParameters reads name=value and name="value", separated by commas.
func parseParameters(s string) map[string]string {
	p := map[string]string{}
	for s = strings.TrimLeft(s, ", "); s != ""; s = strings.TrimLeft(s, ", ") {
		name, rest, ok := strings.Cut(s, "=")
		if !ok {
			break
		}
		var value strings.Builder
		if strings.HasPrefix(rest, `"`) {
			rest = rest[1:]
			for rest != "" && rest[0] != '"' {
				if rest[0] == '\\' && len(rest) > 1 {
					rest = rest[1:]
				}
				value.WriteByte(rest[0])
				rest = rest[1:]
			}
			s = strings.TrimPrefix(rest, `"`)
		} else {
			plain, after, _ := strings.Cut(rest, ",")
			value.WriteString(strings.TrimSpace(plain))
			s = after
		}
		p[strings.ToLower(strings.TrimSpace(name))] = value.String()
	}
	return p
}

const (
	loginCookie = "api_session"
	csrfCookie  = "api_csrf"
)

// serveLogin shows a form whose hidden field csrf goes with a cookie, and opens a session for User and Password.
func (a *API) serveLogin(rw http.ResponseWriter, r *http.Request) {
	page := func(status int, note string) {
		csrf := rand.Text()
		http.SetCookie(rw, &http.Cookie{Name: csrfCookie, Value: csrf, Path: "/login", HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
		HTML(status, `<!DOCTYPE html>
<html><head><title>Sign in</title></head><body><h1>Sign in</h1><p>`+note+`</p>
<form method="post" action="/login"><input type="hidden" name="csrf" value="`+csrf+`">
<input name="username"><input type="password" name="password"><button>Sign in</button></form></body></html>
`).ServeHTTP(rw, r)
	}
	if r.Method != http.MethodPost {
		page(http.StatusOK, "")
		return
	}
	c, err := r.Cookie(csrfCookie)
	if err != nil || c.Value == "" || r.PostFormValue("csrf") != c.Value {
		page(http.StatusForbidden, "CSRF token missing or incorrect")
		return
	}
	if r.PostFormValue("username") != User || r.PostFormValue("password") != Password {
		page(http.StatusUnauthorized, "Invalid username or password")
		return
	}
	life := a.Faults().SessionLifetime
	if life == 0 {
		life = 10 * time.Minute
	}
	id := rand.Text()
	a.mu.Lock()
	a.sessions[id] = time.Now().Add(life)
	a.mu.Unlock()
	proved(rw, User)
	http.SetCookie(rw, &http.Cookie{Name: loginCookie, Value: id, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
	rw.Header().Set("Location", "/session")
	rw.WriteHeader(http.StatusSeeOther)
}

func (a *API) inSession(r *http.Request) bool {
	c, err := r.Cookie(loginCookie)
	if err != nil {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.sessions[c.Value])
}

// serveSession wants the cookie of a login, and sends everybody else to the login form.
func (a *API) serveSession(rw http.ResponseWriter, r *http.Request) {
	if !a.inSession(r) {
		rw.Header().Set("Location", "/login")
		rw.WriteHeader(http.StatusFound)
		return
	}
	a.welcome(rw, User)
}

// serveLogout ends a session.
func (a *API) serveLogout(rw http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(loginCookie); err == nil {
		a.mu.Lock()
		delete(a.sessions, c.Value)
		a.mu.Unlock()
	}
	http.SetCookie(rw, &http.Cookie{Name: loginCookie, Path: "/", MaxAge: -1, HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode})
	rw.WriteHeader(http.StatusNoContent)
}

// Sessions says how many form logins are open.
func (a *API) Sessions() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, until := range a.sessions {
		if time.Now().Before(until) {
			n++
		}
	}
	return n
}

// EndSessions ends all form logins, as a restart of a server does that keeps them in memory.
func (a *API) EndSessions() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.sessions)
}
