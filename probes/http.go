package probes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// httpProbe is the synthetic request: it asks an API as a client would, with the credential of an identity, and compares
// the answer with what is expected. On a 401 it asks once more with a fresh grant, which is evidence, not repair.
type httpProbe struct {
	URL            string            `koanf:"url" help:"address to ask, https://host/path; required"`
	Method         string            `koanf:"method" help:"HTTP method; default GET"`
	Identity       string            `koanf:"identity" help:"name of the identity to ask as; default: none, a stranger"`
	ExpectStatus   []int             `koanf:"expect_status" help:"status codes that are right; default: any 2xx"`
	Expect         string            `koanf:"expect" help:"grant or deny: deny means that this identity must be refused (401 or 403), and that being let in is the fault; default grant"`
	ExpectBody     string            `koanf:"expect_body" help:"regular expression that the beginning of the body (64 KiB) must match"`
	Headers        map[string]string `koanf:"headers" help:"further request headers; credentials belong into an identity"`
	Body           string            `koanf:"body" help:"request body"`
	RequiredScopes []string          `koanf:"required_scopes" help:"scopes that the endpoint needs; compared with those of the token"`
	Audience       string            `koanf:"audience" help:"audience that the endpoint expects; compared with that of the token"`
	CheckSignature bool              `koanf:"check_signature" help:"once a day, ask with the signature of the token spoilt as well, where it is a JWT; being let in is the fault; default false"`
	IntrospectURL  string            `koanf:"introspection_url" help:"where the identity, which must be of kind oauth2, may ask about its own token (RFC 7662) when the endpoint refuses it; default: it is not asked"`
	Environment    string            `koanf:"environment" help:"environment the endpoint belongs to, such as live or test"`
	leewaySettings `koanf:",squash"`
	boundary       `koanf:",squash"`
	wire.Settings  `koanf:",squash"`

	url    *url.URL
	want   *regexp.Regexp
	client *wire.Client
	who    identity.Identity

	leeways  *Leeway
	curious  curious
	thorough bool
}

func newHTTP(decode func(any) error, env Env) (Probe, error) {
	p := &httpProbe{Method: http.MethodGet, Expect: "grant", thorough: env.Thorough}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	u, err := parseURL(p.URL)
	if err != nil {
		errs = append(errs, fmt.Errorf("url: %w", err))
	}
	p.url = u
	if p.Expect != "grant" && p.Expect != "deny" {
		errs = append(errs, fmt.Errorf("expect: %q is neither grant nor deny", p.Expect))
	}
	for _, code := range p.ExpectStatus {
		if code < 100 || code > 599 {
			errs = append(errs, fmt.Errorf("expect_status: %d is no HTTP status", code))
		}
	}
	if p.ExpectBody != "" {
		if p.want, err = regexp.Compile(p.ExpectBody); err != nil {
			errs = append(errs, fmt.Errorf("expect_body: %w", err))
		}
	}
	for name, value := range p.Headers {
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			errs = append(errs, fmt.Errorf("headers: %q holds a character that no header may hold, such as a line break", name))
		}
	}
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	if _, err := http.NewRequest(p.Method, "http://x", nil); err != nil {
		errs = append(errs, fmt.Errorf("method: %q is no HTTP method", p.Method))
	}
	if p.who, err = env.as(p.Identity); err != nil {
		errs = append(errs, err)
	}
	if p.IntrospectURL != "" {
		if _, err := parseURL(p.IntrospectURL); err != nil {
			errs = append(errs, fmt.Errorf("introspection_url: %w", err))
		}
		if _, ok := p.who.(identity.Client); !ok && p.who != nil {
			errs = append(errs, errors.New("introspection_url: only an identity of kind oauth2 can ask about its own token"))
		}
	}
	if p.leeways, err = p.leeway(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, p.findOthers(env)...)
	p.remember()
	return p, errors.Join(errs...)
}

var (
	// plainHeaders are request headers whose values are no credentials.
	plainHeaders = regexp.MustCompile(`(?i)^(accept.*|cache-control|connection|content-.*|host|if-.*|origin|prefer|referer|te|user-agent|x-requested-with)$`)
	// secretNames are names of query parameters whose values may be.
	secretNames = regexp.MustCompile(`(?i)key|token|secret|sig|pass|auth|code|cred`)
)

// remember keeps what may be a credential among the settings, though it should not stand there, from being shown when a
// server repeats it: values of headers, and of query parameters that are named or look like one.
func (p *httpProbe) remember() {
	for name, value := range p.Headers {
		if !plainHeaders.MatchString(name) {
			secret.Remember(value)
		}
	}
	if p.url == nil {
		return
	}
	const longWord = 20 // characters that no ordinary word has
	for part := range strings.SplitSeq(p.url.RawQuery, "&") {
		name, raw, _ := strings.Cut(part, "=")
		value, err := url.QueryUnescape(raw)
		if err == nil && (secretNames.MatchString(name) || len(value) >= longWord && !strings.ContainsAny(value, " :")) {
			secret.Remember(value)
			secret.Remember(raw) // servers repeat it as it came
		}
	}
}

// as gives the identity of a name; without a name, a stranger.
func (e Env) as(name string) (identity.Identity, error) {
	if name == "" {
		return identity.New("none", func(any) error { return nil }, identity.Env{})
	}
	who, err := e.Identity(name)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return who, nil
}

// parseURL reads an absolute http or https URL.
func parseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("is missing")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL") // the error of net/url repeats the text, which may hold a password
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must begin with https:// or http://")
	case u.Hostname() == "":
		return nil, errors.New("names no host")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password; use an identity of kind basic")
	}
	return u, nil
}

func (p *httpProbe) About() About {
	a := About{Endpoint: wire.ShowEndpoint(p.url), Origin: wire.Origin(p.url), Identity: p.Identity, RequiredScopes: p.RequiredScopes,
		Audience: p.Audience, Leeways: p.leeways, Environment: p.Environment}
	if p.leeways != nil {
		a.Leeway = max(p.leeways.Expiry, p.leeways.NotBefore, p.leeways.Issued)
	}
	switch {
	case p.Expect == "deny":
		a.Expected = "deny"
	case len(p.ExpectStatus) > 0:
		a.Expected = strings.Trim(fmt.Sprint(p.ExpectStatus), "[]")
	default:
		a.Expected = "2xx"
	}
	return a
}

func (p *httpProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	a, err := p.ask(ctx, evidence.First, "", &report)
	if err != nil {
		return report, err
	}
	if a.answer.Exchange.Status == http.StatusUnauthorized && p.Expect == "grant" && a.grant.Renewable && !a.grant.Fresh {
		fresh, err := p.ask(ctx, evidence.WithFreshGrant, a.grant.ID, &report)
		if err != nil {
			return report, err
		}
		if fresh.grant.ID != a.grant.ID {
			a = fresh
		}
	}
	p.askNext(ctx, a.answer.Exchange.Status, &report)
	report.Readings = append(report.Readings, rateLimits(a.answer)...)
	tellHeader(a.answer.Header, &report)
	if fault := p.judge(a.answer, &report); fault != nil {
		p.secondQuestions(ctx, a, &report)
		return report, fault
	}
	p.curious.failures = 0
	p.notEnforced(a.grant, &report)
	if p.thorough && a.grant.Scheme != "none" && p.Expect == "grant" && p.safe() {
		p.stranger(ctx, evidence.WithoutGrant, p.Method, "", &report)
	}
	if err := p.askDamaged(ctx, a, &report); err != nil {
		return report, err
	}
	return report, p.askOthers(ctx, &report)
}

// ask sends the request once, and once more where the protocol wants a second step. It does not send the grant that was
// refused already: an identity may have nothing better.
func (p *httpProbe) ask(ctx context.Context, purpose evidence.Purpose, refused string, report *evidence.Report) (asked, error) {
	for {
		req, err := p.request(ctx)
		if err != nil {
			return asked{}, err
		}
		grant, err := p.who.Apply(ctx, req)
		take(report, grant)
		a := asked{grant: grant, proof: req.Header.Get("Authorization")}
		if err != nil || (refused != "" && grant.ID == refused) {
			return a, err
		}
		p.compareScopes(grant, report)
		a.answer, err = p.client.Ask(ctx, wire.Question{
			Request: req, Stage: evidence.StageAPI, Purpose: purpose, Scheme: grant.Scheme, Grant: grant.ID,
			Expected: p.right, Certificate: p.who.ClientCertificate,
		})
		report.Exchanges = append(report.Exchanges, a.answer.Exchange)
		if a.answer.Chain != nil {
			report.Chain = a.answer.Chain
		}
		if err != nil {
			return a, err
		}
		status := a.answer.Exchange.Status
		again := p.who.Settle(grant, identity.Outcome{
			Accepted: status/100 == 2, Refused: status == http.StatusUnauthorized && p.Expect == "grant", Status: status, Header: a.answer.Header,
		})
		if !again || purpose == evidence.ProtocolStep {
			return a, nil
		}
		purpose = evidence.ProtocolStep
	}
}

func (p *httpProbe) request(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, p.Method, p.url.String(), strings.NewReader(p.Body))
	if err != nil {
		return nil, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
	}
	if p.Body == "" {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	req.Header.Set("User-Agent", userAgent)
	for name, value := range p.Headers {
		if strings.EqualFold(name, "Host") {
			req.Host = value
			continue
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// userAgent names the product to the operators of what is probed.
const userAgent = "authvigil (+https://github.com/authvigil/authvigil)"

// take adds what a grant brought along to the report.
func take(report *evidence.Report, g identity.Grant) {
	report.Exchanges = append(report.Exchanges, g.Exchanges...)
	report.Readings = append(report.Readings, g.Readings...)
	report.Notes = append(report.Notes, g.Notes...)
	if g.Token != nil {
		report.Token = g.Token
	}
	if g.Chain != nil {
		report.Chain = g.Chain
	}
}

// askNext asks with the secret that will follow the one in use, where the identity knows one and it is due, and tells how the
// rotation stands. What the endpoint says to it decides nothing about the run.
func (p *httpProbe) askNext(ctx context.Context, status int, report *evidence.Report) {
	who, ok := p.who.(identity.Rotating)
	if !ok || p.Expect != "grant" || status/100 != 2 && status != http.StatusUnauthorized {
		return
	}
	refused := status == http.StatusUnauthorized
	if next := who.Successor().Next(ctx, refused); next != nil {
		p.askWithNext(ctx, next, report)
	}
	readings, notes := who.Successor().Tell(refused)
	report.Readings, report.Notes = append(report.Readings, readings...), append(report.Notes, notes...)
}

func (p *httpProbe) askWithNext(ctx context.Context, next identity.Identity, report *evidence.Report) {
	req, err := p.request(ctx)
	if err != nil {
		return
	}
	grant, err := next.Apply(ctx, req)
	if err != nil {
		return
	}
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Purpose: evidence.WithNextSecret, Scheme: grant.Scheme, Grant: grant.ID, Expected: p.right})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if err != nil {
		return
	}
	status := answer.Exchange.Status
	next.Settle(grant, identity.Outcome{Accepted: status/100 == 2, Refused: status == http.StatusUnauthorized, Status: status, Header: answer.Header})
}

// right says whether a status is the one that is expected.
func (p *httpProbe) right(status int) bool {
	switch {
	case p.Expect == "deny" && len(p.ExpectStatus) == 0:
		return status == http.StatusUnauthorized || status == http.StatusForbidden
	case len(p.ExpectStatus) > 0:
		return slices.Contains(p.ExpectStatus, status)
	default:
		return status/100 == 2
	}
}

func (p *httpProbe) judge(a wire.Answer, report *evidence.Report) error {
	status := a.Exchange.Status
	fault := &evidence.Fault{Stage: evidence.StageAPI, Code: fmt.Sprint(status), Err: fmt.Errorf("%s %s answered %d", p.Method, a.Exchange.URL, status)}
	if p.right(status) {
		switch {
		case p.Expect == "deny":
			return nil
		case looksLikeLogin(a):
			fault.Symptom, fault.Code = evidence.SymptomBadAnswer, "login_page"
			fault.Err = fmt.Errorf("%s %s answered %d with a login page", p.Method, a.Exchange.URL, status)
		case p.want != nil && !p.want.Match(a.Body):
			fault.Symptom, fault.Code = evidence.SymptomBadAnswer, "body"
			fault.Err = fmt.Errorf("%s %s answered %d, but not what expect_body wants", p.Method, a.Exchange.URL, status)
		default:
			return nil
		}
		keepBody(report, a)
		return fault
	}
	switch {
	case p.Expect == "deny" && status/100 == 2:
		fault.Symptom = evidence.SymptomGranted
		fault.Err = fmt.Errorf("%s %s answered %d to an identity that must be refused", p.Method, a.Exchange.URL, status)
	default:
		fault.Symptom = symptomOf(status, a.Header)
	}
	return fault
}

// symptomOf names what a status says that was not expected.
func symptomOf(status int, h http.Header) evidence.Symptom {
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusForbidden && exhausted(h):
		return evidence.SymptomThrottled
	case status == http.StatusUnauthorized:
		return evidence.SymptomUnauthorized
	case status == http.StatusForbidden:
		return evidence.SymptomForbidden
	case status == http.StatusProxyAuthRequired:
		return evidence.SymptomProxy
	case status >= 500:
		return evidence.SymptomServerError
	case status/100 == 3:
		return evidence.SymptomRedirected
	default:
		return evidence.SymptomUnexpected
	}
}

// loginForm is the mark of a page that asks a person for a password.
var loginForm = regexp.MustCompile(`(?i)<input[^>]+type\s*=\s*["']?password`)

func looksLikeLogin(a wire.Answer) bool {
	kind := a.Header.Get("Content-Type")
	return (kind == "" || strings.Contains(kind, "html")) && loginForm.Match(a.Body)
}

// keepBody keeps the beginning of a body that had a status that was expected, and still was not right.
func keepBody(report *evidence.Report, a wire.Answer) {
	if n := len(report.Exchanges); n > 0 && report.Exchanges[n-1].Body == "" {
		report.Exchanges[n-1].Body, report.Exchanges[n-1].Header = wire.ShowBody(a.Body), wire.KeepHeader(a.Header)
	}
}
