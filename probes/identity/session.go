package identity

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// session logs in as a person does, and sends the cookies of the session. One session serves all probes, until the server
// ends it or it is old; the one before is logged out.
type session struct {
	LoginURL       string            `koanf:"login_url" help:"page with the login form, or address that a login is posted to; required"`
	Format         string            `koanf:"format" help:"form: read the page, fill the form with the password field, send it with its hidden fields; json: post a JSON object; default form"`
	Username       string            `koanf:"username" help:"user name; required"`
	Password       secret.Ref        `koanf:"password" help:"password; required"`
	UsernameField  string            `koanf:"username_field" help:"name of the field for the user name; default: the text field before the password field, or username"`
	PasswordField  string            `koanf:"password_field" help:"name of the field for the password; default: the field of type password, or password"`
	Fields         map[string]string `koanf:"fields" help:"further fields to send, such as a tenant"`
	Cookie         string            `koanf:"cookie" help:"cookie that a login sets when it succeeded; default: any new cookie, and no login form in the answer"`
	CSRFCookie     string            `koanf:"csrf_cookie" help:"cookie whose value goes back in the header csrf_header, such as XSRF-TOKEN"`
	CSRFHeader     string            `koanf:"csrf_header" help:"header for the value of csrf_cookie; default X-XSRF-TOKEN"`
	LogoutURL      string            `koanf:"logout_url" help:"address that ends a session; asked when another one begins and when the daemon ends; default: sessions are left to run out"`
	LogoutMethod   string            `koanf:"logout_method" help:"method for logout_url; default POST"`
	Life           time.Duration     `koanf:"session_life" help:"age at which a session is replaced where its cookie does not say; default 10m"`
	credentialKeys `koanf:",squash"`
	lockoutKeys    `koanf:",squash"`
	common         `koanf:",squash"`
	wire.Settings  `koanf:",squash"`

	login  *url.URL
	client *wire.Client
	tokens *shared

	mu   sync.Mutex // owns open
	open http.CookieJar
}

// maxLoginPage is how much of a login page is read, in bytes.
const maxLoginPage = 512 << 10

func newSession(decode func(any) error, env Env) (Identity, error) {
	s := &session{Format: "form", CSRFHeader: "X-XSRF-TOKEN", LogoutMethod: http.MethodPost, Life: 10 * time.Minute}
	if err := decode(s); err != nil {
		return nil, err
	}
	s.of("password", s.Password, env)
	var errs []error
	wrong := func(found bool, format string, args ...any) {
		if found {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(s.LoginURL == "", "login_url: is missing")
	wrong(s.LoginURL != "" && !goodURL(s.LoginURL), "login_url: is no http or https URL without user name")
	wrong(s.LogoutURL != "" && !goodURL(s.LogoutURL), "logout_url: is no http or https URL without user name")
	wrong(s.LogoutURL != "" && goodURL(s.LogoutURL) && originOf(s.LogoutURL) != originOf(s.LoginURL), "logout_url: is on another origin than login_url, which must not see the session")
	wrong(s.Format != "form" && s.Format != "json", "format: %q is none of form, json", s.Format)
	wrong(s.Username == "", "username: is missing")
	wrong(s.Password.IsZero(), "password: is missing")
	wrong(s.Life < time.Minute, "session_life: is below one minute; each login is a chance to lock the account")
	s.login, _ = url.Parse(s.LoginURL)
	if len(s.Origins) == 0 && s.login != nil { // cookies go where they come from (RFC 6265 section 5.4)
		s.Origins = []string{wire.Origin(s.login)}
	}
	client, err := wire.New(env.Net, s.Settings)
	if err != nil {
		errs = append(errs, err)
	}
	s.client = client
	s.tokens = newShared(env, s.obtain)
	s.tokens.ahead = time.Second // a session is not replaced long before its end: each login is a request with a password
	errs = append(errs, s.limit(s.tokens.login)...)
	s.tokens.proof = func(ctx context.Context) string {
		v, err := s.Password.Reveal(ctx)
		if err != nil {
			return s.Username
		}
		return s.Username + "\x00" + v.Expose()
	}
	return s, errors.Join(errs...)
}

func (s *session) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	if err := s.allows(req); err != nil {
		return Grant{Scheme: "session"}, err
	}
	_, g, err := s.tokens.get(ctx)
	g.Scheme = "session"
	v, _ := s.Password.Reveal(ctx) // that it cannot be had was said when it was needed
	readings, notes := s.about(ctx, v)
	g.Readings, g.Notes = append(g.Readings, readings...), append(g.Notes, notes...)
	if err != nil || req.URL.Host == "" {
		return g, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open != nil {
		s.present(s.open, req)
	}
	return g, nil
}

// present puts the cookies of a session into a request, with the token against forged requests where there is one.
func (s *session) present(jar http.CookieJar, req *http.Request) {
	for _, c := range jar.Cookies(req.URL) {
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value, Quoted: c.Quoted})
		if s.CSRFCookie != "" && c.Name == s.CSRFCookie {
			value := c.Value
			if plain, err := url.QueryUnescape(value); err == nil {
				value = plain
			}
			req.Header.Set(s.CSRFHeader, value)
		}
	}
}

// Settle drops a session that the server does not know any more: it answered 401, or sent us to the login page. The request
// goes again with another session, once, because sessions end in the normal course of things.
func (s *session) Settle(g Grant, o Outcome) (again bool) {
	if o.Status/100 == 3 && s.leadsToLogin(o.Header.Get("Location")) {
		o.Refused, o.Accepted = true, false
		s.tokens.settle(g, o)
		return !g.Fresh && !s.tokens.holds(g)
	}
	s.tokens.settle(g, o)
	return false
}

func (s *session) leadsToLogin(location string) bool {
	if location == "" {
		return false
	}
	u, err := s.login.Parse(location)
	return err == nil && wire.Origin(u) == wire.Origin(s.login) && strings.TrimSuffix(u.Path, "/") == strings.TrimSuffix(s.login.Path, "/")
}

func (s *session) ClientCertificate(context.Context) (*tls.Certificate, error) { return nil, nil }

func (s *session) Status() Status {
	return Status{Kind: "session", Scheme: "session", Issuer: wire.ShowURL(s.login), Gate: s.tokens.state(), Origin: s.Origins}
}

// Close logs the session out.
func (s *session) Close(ctx context.Context) {
	s.mu.Lock()
	jar := s.open
	s.open = nil
	s.mu.Unlock()
	if jar != nil {
		_, _ = s.logout(ctx, jar)
	}
}

func (s *session) logout(ctx context.Context, jar http.CookieJar) (x evidence.Exchange, asked bool) {
	if s.LogoutURL == "" {
		return x, false
	}
	req, err := http.NewRequestWithContext(ctx, s.LogoutMethod, s.LogoutURL, nil)
	if err != nil {
		return x, false
	}
	s.present(jar, req)
	answer, _ := s.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageToken, Purpose: evidence.ProtocolStep, Scheme: "session", MaxBody: 4 << 10, Expected: func(int) bool { return true }})
	return answer.Exchange, true
}

// obtain logs in: the page with the form, and the form. There is one request with the password.
func (s *session) obtain(ctx context.Context) (got obtained, exchanges []evidence.Exchange, chain *evidence.Chain, err error) {
	jar, _ := cookiejar.New(nil)
	ask := func(req *http.Request, purpose evidence.Purpose) (wire.Answer, error) {
		s.present(jar, req)
		a, err := s.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageToken, Purpose: purpose, Scheme: "session", MaxBody: maxLoginPage, Expected: func(status int) bool { return status < 400 }})
		for _, c := range cookiesOf(a.Header) {
			secret.Remember(c.Value)
			jar.SetCookies(req.URL, []*http.Cookie{c})
		}
		exchanges = append(exchanges, a.Exchange)
		if a.Chain != nil && len(a.Chain.Facets) > 0 {
			chain = a.Chain
		}
		return a, err
	}
	f := &loginForm{action: s.login, username: "username", password: "password", fields: url.Values{}}
	if s.Format == "form" || s.CSRFCookie != "" {
		req, reqErr := http.NewRequestWithContext(ctx, http.MethodGet, s.LoginURL, nil)
		if reqErr != nil {
			return got, nil, nil, configFault("login_url", "cannot be asked")
		}
		page, err := ask(req, evidence.ProtocolStep)
		if err != nil {
			return got, exchanges, chain, err
		}
		if s.Format == "form" {
			if f, err = s.findForm(page); err != nil {
				return got, exchanges, chain, err
			}
		}
	}
	req, err := s.fill(ctx, f)
	if err != nil {
		return got, exchanges, chain, err
	}
	had := len(jar.Cookies(s.login))
	answer, err := ask(req, evidence.Obtain)
	if err != nil {
		return got, exchanges, chain, err
	}
	if err := s.judge(answer, had < len(jar.Cookies(s.login)) || len(cookiesOf(answer.Header)) > 0); err != nil {
		return got, exchanges, chain, err
	}
	s.mu.Lock()
	before := s.open
	s.open = jar
	s.mu.Unlock()
	if before != nil {
		if x, asked := s.logout(ctx, before); asked {
			exchanges = append(exchanges, x)
		}
	}
	now := time.Now()
	got.facts = evidence.Token{Name: "session", Format: "opaque", Obtained: now, ExpiresIn: s.lifeOf(answer.Header, now)}
	got.facts.Expiry = now.Add(got.facts.ExpiresIn)
	var names []string
	for _, c := range jar.Cookies(s.login) {
		names = append(names, c.Name+"="+c.Value)
	}
	got.text = secret.New(strings.Join(names, "; "))
	return got, exchanges, chain, nil
}

func cookiesOf(h http.Header) []*http.Cookie {
	return (&http.Response{Header: h}).Cookies()
}

// lifeOf is how long a session is used: what its cookie says, and at most session_life.
func (s *session) lifeOf(h http.Header, now time.Time) time.Duration {
	life := s.Life
	for _, c := range cookiesOf(h) {
		if s.Cookie != "" && c.Name != s.Cookie {
			continue
		}
		if c.MaxAge > 0 {
			life = min(life, time.Duration(c.MaxAge)*time.Second)
		} else if left := c.Expires.Sub(now); !c.Expires.IsZero() && left > 0 {
			life = min(life, left)
		}
	}
	return life
}

// fill makes the request with the password.
func (s *session) fill(ctx context.Context, f *loginForm) (*http.Request, error) {
	password, err := reveal(ctx, "password", s.Password)
	if err != nil {
		return nil, err
	}
	fields := f.fields
	for name, value := range s.Fields {
		fields.Set(name, value)
	}
	fields.Set(cmp.Or(s.UsernameField, f.username), s.Username)
	fields.Set(cmp.Or(s.PasswordField, f.password), password.Expose())
	body, kind := []byte(fields.Encode()), "application/x-www-form-urlencoded"
	if s.Format == "json" {
		object := map[string]string{}
		for name := range fields {
			object[name] = fields.Get(name)
		}
		if body, err = json.Marshal(object); err != nil {
			return nil, configFault("fields", "cannot be written as JSON")
		}
		kind = "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.action.String(), bytes.NewReader(body))
	if err != nil {
		return nil, configFault("login_url", "cannot be asked")
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Origin", wire.Origin(f.action)) // what servers compare that have no hidden field
	req.Header.Set("Referer", s.login.String())
	return req, nil
}

func configFault(key, what string) error {
	return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Code: key, Err: fmt.Errorf("%s: %s", key, what)}
}

// judge says whether a login succeeded.
func (s *session) judge(a wire.Answer, cookie bool) error {
	fault := &evidence.Fault{Stage: evidence.StageToken, Code: fmt.Sprint(a.Exchange.Status)}
	status, where := a.Exchange.Status, a.Exchange.Method+" "+a.Exchange.URL
	switch {
	case status == http.StatusTooManyRequests:
		fault.Symptom, fault.Err = evidence.SymptomThrottled, fmt.Errorf("%s answered 429", where)
	case status >= 500:
		fault.Symptom, fault.Err = evidence.SymptomServerError, fmt.Errorf("%s answered %d", where, status)
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusBadRequest, status == http.StatusUnprocessableEntity, status == http.StatusLocked:
		fault.Symptom, fault.Err = evidence.SymptomTokenRefused, fmt.Errorf("%s answered %d to the login", where, status)
	case status >= 400:
		fault.Symptom, fault.Err = evidence.SymptomUnexpected, fmt.Errorf("%s answered %d", where, status)
	case status/100 == 3 && s.leadsToLogin(a.Header.Get("Location")):
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomTokenRefused, "login_again", fmt.Errorf("%s sent the login back to the login page", where)
	case s.Cookie != "" && !slices.ContainsFunc(cookiesOf(a.Header), func(c *http.Cookie) bool { return c.Name == s.Cookie && c.Value != "" && c.MaxAge >= 0 }):
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomTokenRefused, "no_cookie", fmt.Errorf("%s answered %d without the cookie %s", where, status, s.Cookie)
	case s.Cookie == "" && !cookie:
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "no_cookie", fmt.Errorf("%s answered %d and set no cookie", where, status)
	case s.Format == "form" && status == http.StatusOK && hasPasswordField(a.Body):
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomTokenRefused, "login_again", fmt.Errorf("%s answered with the login form again", where)
	default:
		return nil
	}
	return fault
}
