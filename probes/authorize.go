package probes

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// authorizeProbe asks the authorization endpoint as a browser would at the beginning of a login (RFC 6749 section 4.1), and
// needs no user: with prompt=none, a server says to the client that a login is required (OpenID Connect Core section 3.1.2.6), or
// shows its login page. It also asks what must be refused, above all an answer to an address that is not registered.
type authorizeProbe struct {
	URL           string   `koanf:"url" help:"authorization endpoint; this or issuer is required"`
	Issuer        string   `koanf:"issuer" help:"issuer, whose metadata names the authorization endpoint, and which answers must name (RFC 9207)"`
	ClientID      string   `koanf:"client_id" help:"client id of the application whose login is looked at; required"`
	RedirectURI   string   `koanf:"redirect_uri" help:"redirect URI that is registered for the client; nothing is ever sent there; required"`
	Scopes        []string `koanf:"scopes" help:"scopes that the application asks for; default openid"`
	ResponseType  string   `koanf:"response_type" help:"response type that the application uses; default code"`
	RefuseTypes   []string `koanf:"refuse_response_types" help:"response types that the client is not registered for, and must be refused; default token"`
	PKCE          bool     `koanf:"pkce" help:"a request without code challenge must be refused (RFC 9700 section 2.1.1); default true"`
	Foreign       string   `koanf:"foreign_uri" help:"address that is registered for nobody; default https://unregistered.authvigil.invalid/"`
	wire.Settings `koanf:",squash"`

	client   *wire.Client
	document *issuerDocument
	back     *url.URL
}

var authorizeRefused = &evidence.Metric{Name: "authorize_refused", Help: "1 if the authorization endpoint refused what it must refuse, 0 if it did not: open_redirect, response_type, pkce.", Labels: []string{"probe", "question"}}

func newAuthorize(decode func(any) error, env Env) (Probe, error) {
	p := &authorizeProbe{Scopes: []string{"openid"}, ResponseType: "code", RefuseTypes: []string{"token"}, PKCE: true, Foreign: "https://unregistered.authvigil.invalid/"}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	wrong := func(found bool, text string) {
		if found {
			errs = append(errs, errors.New(text))
		}
	}
	wrong(p.URL == "" && p.Issuer == "", "url: is missing (or give issuer)")
	for key, text := range map[string]string{"url": p.URL, "issuer": p.Issuer} {
		if _, err := parseURL(text); text != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	wrong(p.ClientID == "", "client_id: is missing")
	back, err := url.Parse(p.RedirectURI)
	wrong(p.RedirectURI == "", "redirect_uri: is missing")
	wrong(p.RedirectURI != "" && (err != nil || back.Scheme == "" || back.Fragment != ""), "redirect_uri: is no absolute URI without fragment (RFC 6749 section 3.1.2)")
	foreign, err := url.Parse(p.Foreign)
	wrong(err != nil || foreign.Host == "" || back != nil && foreign.Host == back.Host, "foreign_uri: must be an absolute URL of another host than redirect_uri")
	wrong(slices.Contains(p.RefuseTypes, p.ResponseType), "refuse_response_types: names the response type that the application uses")
	p.back = back
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	p.document = &issuerDocument{issuer: p.Issuer, client: p.client}
	return p, errors.Join(errs...)
}

func (p *authorizeProbe) About() About {
	a := About{Expected: "login"}
	where := p.URL
	if where == "" {
		where = p.Issuer
	}
	if u, err := url.Parse(where); err == nil {
		a.Endpoint, a.Origin = wire.ShowEndpoint(u), wire.Origin(u)
	}
	return a
}

// A landing is where the authorization endpoint sends the browser, or what it shows.
type landing struct {
	status int
	page   bool       // it shows something, or leads to a page of its own
	to     *url.URL   // where a redirect leads; nil: none
	said   url.Values // what it tells the client: from query and fragment
	url    string     // as shown
	wrong  bool       // the page complains about the redirect URI
	nobody bool       // the page says that there is no such client
}

// leadsTo says whether the browser was sent to a URI, as a client recognises it: scheme, host and path.
func (l landing) leadsTo(uri string) bool {
	want, err := url.Parse(uri)
	return err == nil && l.to != nil && strings.EqualFold(l.to.Scheme, want.Scheme) && strings.EqualFold(l.to.Host, want.Host) && l.to.EscapedPath() == want.EscapedPath() && l.to.Opaque == want.Opaque
}

func (p *authorizeProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	meta, err := p.document.get(ctx, &report)
	if err != nil {
		return report, err
	}
	endpoint := p.URL
	if endpoint == "" {
		endpoint = meta.Authorize
	}
	if endpoint == "" {
		return report, &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: evidence.SymptomIssuer, Code: "no_authorization_endpoint", Err: errors.New("the issuer's metadata names no authorization endpoint")}
	}
	form := p.form()
	first, err := p.ask(ctx, endpoint, form, evidence.First, &report)
	if err != nil {
		return report, err
	}
	fault := p.judge(first, form, meta, &report)
	if fault != nil && (fault.Symptom != evidence.SymptomRuleViolated || fault.Code == "redirect_uri") {
		return report, fault // a server that does not let the application in says nothing by refusing others
	}
	worst, err := p.abuse(ctx, endpoint, form, first, &report)
	switch {
	case err != nil:
		return report, err
	case worst != nil && (fault == nil || worst.Symptom == evidence.SymptomGranted):
		return report, worst
	case fault != nil:
		return report, fault
	}
	return report, nil
}

// form makes a request as the application would, with a state that suffers where it is decoded once too often (RFC 6749
// appendix A.5 allows every character that is printed).
func (p *authorizeProbe) form() url.Values {
	verifier := make([]byte, 32)
	rand.Read(verifier)
	sum := sha256.Sum256([]byte(base64.RawURLEncoding.EncodeToString(verifier)))
	return url.Values{
		"client_id": {p.ClientID}, "redirect_uri": {p.RedirectURI}, "response_type": {p.ResponseType}, "scope": {strings.Join(p.Scopes, " ")}, "prompt": {"none"},
		"state": {rand.Text() + "-+%20/=~"}, "nonce": {rand.Text()}, "code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
}

// ask sends one authorization request and reads where it leads. Nothing is followed.
func (p *authorizeProbe) ask(ctx context.Context, endpoint string, form url.Values, purpose evidence.Purpose, report *evidence.Report) (landing, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return landing{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the authorization endpoint is no URL")}
	}
	query := u.Query()
	for name, values := range form {
		query[name] = values
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return landing{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "text/html")
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageToken, Purpose: purpose, Scheme: "none"})
	if answer.Exchange.Status/100 == 3 {
		answer.Exchange.Body = "" // it repeats the address, and a code or token with it
	}
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if answer.Chain != nil {
		report.Chain = answer.Chain
	}
	if err != nil {
		return landing{}, err
	}
	l := landing{status: answer.Exchange.Status, url: answer.Exchange.URL, said: url.Values{}, wrong: complaint.Match(answer.Body), nobody: unknownClient.Match(answer.Body)}
	if l.status/100 == 3 {
		if to, err := u.Parse(answer.Header.Get("Location")); err == nil {
			l.to = to
			l.said = to.Query()
			if more, err := url.ParseQuery(to.EscapedFragment()); err == nil {
				for name, values := range more {
					l.said[name] = values
				}
			}
			for _, name := range []string{"code", "access_token", "id_token"} {
				secret.Remember(l.said.Get(name))
			}
		}
	}
	l.page = l.status == http.StatusOK || l.to != nil && wire.Origin(l.to) == wire.Origin(u) && !l.leadsTo(p.RedirectURI)
	return l, nil
}

// complaint is how pages say that a redirect URI is not registered; some of them have status 200.
var complaint = regexp.MustCompile(`(?i)redirect[_ -]?ur[il]\W[^.<>]{0,80}(mismatch|not (valid|match|registered|allowed)|invalid|does ?n[o']t match)|(invalid|unregistered|mismatching|unknown)[^.<>]{0,40}redirect[_ -]?ur[il]|redirect_uri_mismatch|AADSTS5001[0-9]`)

// unknownClient is how pages say that there is no such client.
var unknownClient = regexp.MustCompile(`(?i)invalid_client|unauthorized_client|(unknown|invalid|unregistered) (client|application)|(client|application)[^.<>]{0,60}(not found|unknown|is invalid|not registered)|AADSTS700016`)

// needsPerson are the errors by which a server says that all is well but for a person (OpenID Connect Core section 3.1.2.6).
var needsPerson = []string{"login_required", "interaction_required", "consent_required", "account_selection_required"}

// judge says whether the application's own request was understood, and answered as the standards want.
func (p *authorizeProbe) judge(l landing, form url.Values, meta metadata, report *evidence.Report) *evidence.Fault {
	fault := func(symptom evidence.Symptom, code, format string, args ...any) *evidence.Fault {
		return &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: code, Err: fmt.Errorf(format, args...)}
	}
	code := evidence.Clean(l.said.Get("error"), 64)
	switch {
	case l.status == http.StatusTooManyRequests:
		return fault(evidence.SymptomThrottled, "429", "GET %s answered 429", l.url)
	case l.status >= 500:
		return fault(evidence.SymptomServerError, fmt.Sprint(l.status), "GET %s answered %d", l.url, l.status)
	case !l.leadsTo(p.RedirectURI) && l.nobody && l.status != http.StatusOK:
		return fault(evidence.SymptomTokenRefused, "invalid_client", "GET %s answered %d: there is no such client", l.url, l.status)
	case !l.leadsTo(p.RedirectURI) && l.wrong:
		return fault(evidence.SymptomRuleViolated, "redirect_uri", "GET %s answered %d and complains about the redirect URI that should be registered", l.url, l.status)
	case !l.leadsTo(p.RedirectURI) && l.page:
		return nil // a login page; whether state comes back is seen after a login only
	case !l.leadsTo(p.RedirectURI) && l.to != nil:
		report.Notes = append(report.Notes, evidence.Note{Code: "login_elsewhere", Detail: "the authorization endpoint leads to a login at " + evidence.Clean(wire.Origin(l.to), 128)})
		return nil
	case !l.leadsTo(p.RedirectURI):
		return fault(evidence.SymptomRuleViolated, "redirect_uri", "GET %s answered %d to the redirect URI that should be registered", l.url, l.status)
	case l.said.Get("code") != "" || l.said.Get("access_token") != "":
		return fault(evidence.SymptomGranted, "without_user", "GET %s let somebody in who did not log in", l.url)
	case !slices.Contains(needsPerson, code):
		why := secret.Scrub(evidence.Clean(l.said.Get("error_description"), 200))
		if code == "invalid_request" && strings.Contains(strings.ReplaceAll(why, " ", "_"), "response_type") {
			code = "unsupported_response_type" // as RFC 6749 section 4.1.2.1 has it
		}
		return fault(evidence.SymptomTokenRefused, code, "GET %s refused the application's own request: %s %s", l.url, code, why)
	case l.said.Get("state") != form.Get("state"):
		how := "changed"
		if !l.said.Has("state") {
			how = "left out"
		}
		return fault(evidence.SymptomRuleViolated, "state", "GET %s %s state (RFC 6749 section 4.1.2.1)", l.url, how)
	case meta.NamesIssuer && !l.said.Has("iss"):
		return fault(evidence.SymptomRuleViolated, "iss", "GET %s left iss out, which its metadata promises (RFC 9207 section 2)", l.url)
	case p.Issuer != "" && l.said.Has("iss") && l.said.Get("iss") != p.Issuer:
		return fault(evidence.SymptomRuleViolated, "iss", "GET %s names another issuer in iss (RFC 9207 section 2.4)", l.url)
	}
	return nil
}

// A trial collects what was asked and should have been refused.
type trial struct {
	report *evidence.Report
	worst  *evidence.Fault // the first that was not refused; they are asked in the order of their weight
}

// found notes how a question ended; several may go by one name, and all have to be refused.
func (t *trial) found(question string, refused bool, symptom evidence.Symptom, format string, args ...any) {
	value := 1.0
	if !refused {
		value = 0
		err := fmt.Errorf(format, args...)
		t.report.Notes = append(t.report.Notes, evidence.Note{Code: question, Detail: evidence.Clean(err.Error(), 256)})
		if t.worst == nil {
			t.worst = &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: question, Err: err}
		}
	}
	for i, r := range t.report.Readings {
		if r.Metric == authorizeRefused && r.Labels[0] == question {
			t.report.Readings[i].Value = min(r.Value, value)
			return
		}
	}
	t.report.Readings = append(t.report.Readings, evidence.Reading{Metric: authorizeRefused, Labels: []string{question}, Value: value})
}

// abuse asks what must be refused, and gives the worst of what was not.
func (p *authorizeProbe) abuse(ctx context.Context, endpoint string, form url.Values, first landing, report *evidence.Report) (*evidence.Fault, error) {
	t := &trial{report: report}
	for _, uri := range p.strangers() {
		l, err := p.ask(ctx, endpoint, with(form, "redirect_uri", uri), evidence.MustRefuse, report)
		if err != nil {
			return t.worst, err
		}
		stranger, _ := url.Parse(uri)
		sent := l.leadsTo(uri) || l.to != nil && stranger.Host != p.back.Host && strings.EqualFold(l.to.Host, stranger.Host)
		t.found("open_redirect", !sent, evidence.SymptomGranted, "GET %s sends browsers to %s, which is not registered (RFC 9700 section 4.1)", l.url, evidence.Clean(stranger.Scheme+"://"+stranger.Host+stranger.Path, 128))
	}
	for _, kind := range p.RefuseTypes {
		l, err := p.ask(ctx, endpoint, with(form, "response_type", kind), evidence.MustRefuse, report)
		if err != nil {
			return t.worst, err
		}
		t.found("response_type", !p.accepted(l, first), evidence.SymptomGranted, "GET %s accepts response_type %s, which the client should not be registered for", l.url, evidence.Clean(kind, 32))
	}
	if p.PKCE {
		l, err := p.ask(ctx, endpoint, without(form, "code_challenge", "code_challenge_method"), evidence.MustRefuse, report)
		if err != nil {
			return t.worst, err
		}
		t.found("pkce", !p.accepted(l, first), evidence.SymptomRuleViolated, "GET %s accepts a request without code challenge, so that a stolen code can be redeemed (RFC 9700 section 2.1.1)", l.url)
	}
	return t.worst, nil
}

// strangers are redirect URIs that are not registered and must not be followed: another host, a host that begins with the
// registered one, and another path.
func (p *authorizeProbe) strangers() []string {
	list := []string{p.Foreign}
	if p.back.Host == "" {
		return list // an app's own scheme has no host to play with
	}
	alike := *p.back
	alike.Host = p.back.Hostname() + ".authvigil.invalid"
	deeper := *p.back
	deeper.Path, deeper.RawPath = strings.TrimSuffix(p.back.Path, "/")+"/authvigil-unregistered", ""
	return append(list, alike.String(), deeper.String())
}

// accepted says whether a request was answered as the application's own one was: by a demand for a person, or by the same
// login.
func (p *authorizeProbe) accepted(l, first landing) bool {
	if l.wrong {
		return false
	}
	if l.leadsTo(p.RedirectURI) {
		return slices.Contains(needsPerson, l.said.Get("error")) || l.said.Has("code") || l.said.Has("access_token") || l.said.Has("id_token")
	}
	if first.leadsTo(p.RedirectURI) || l.status != first.status {
		return false
	}
	return first.to == nil || l.to != nil && l.to.Host == first.to.Host && l.to.Path == first.to.Path && l.said.Get("error") == ""
}

func with(form url.Values, name, value string) url.Values {
	changed := without(form, name)
	changed.Set(name, value)
	return changed
}

func without(form url.Values, names ...string) url.Values {
	changed := url.Values{}
	for name, values := range form {
		if !slices.Contains(names, name) {
			changed[name] = values
		}
	}
	return changed
}
