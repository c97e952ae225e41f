package probes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// introspectProbe asks the authorization server about the token of an identity (RFC 7662): is it active, and does it reach as
// far, live as long and belong to whom it should. With revoke it also measures for how long an API goes on accepting a
// token that was withdrawn, see revocation.go.
type introspectProbe struct {
	URL            string        `koanf:"url" help:"introspection endpoint; this or issuer is required"`
	Issuer         string        `koanf:"issuer" help:"issuer, whose metadata names the introspection endpoint"`
	Identity       string        `koanf:"identity" help:"name of the identity whose token is looked at; required"`
	By             string        `koanf:"by" help:"name of the identity that asks: an oauth2 one asks with its client credential, any other with what it sends; default: the identity itself"`
	RequiredScopes []string      `koanf:"required_scopes" help:"scopes that the server must say the token has"`
	Audience       string        `koanf:"audience" help:"audience that the server must say the token is for"`
	ClientID       string        `koanf:"client_id" help:"client that the server must say the token was issued to"`
	MinRemaining   time.Duration `koanf:"min_remaining" help:"life that the token must have left"`
	revocation     `koanf:",squash"`
	wire.Settings  `koanf:",squash"`

	client   *wire.Client
	document *issuerDocument
	who, by  identity.Identity
}

var (
	introspectionActive = &evidence.Metric{Name: "introspection_active", Help: "1 if the authorization server says that the token in use is active (RFC 7662), 0 if it says that it is not.", Labels: []string{"probe", "identity"}}
	introspectedExpiry  = &evidence.Metric{Name: "introspection_expiry_timestamp_seconds", Help: "End of the token in use as the authorization server knows it; absent where it does not say.", Labels: []string{"probe", "identity"}}
)

func newIntrospect(decode func(any) error, env Env) (Probe, error) {
	p := &introspectProbe{}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	switch {
	case p.URL == "" && p.Issuer == "":
		errs = append(errs, errors.New("url: is missing (or give issuer)"))
	case p.URL != "" && p.Issuer != "":
		errs = append(errs, errors.New("url: give either url or issuer"))
	}
	for key, text := range map[string]string{"url": p.URL, "issuer": p.Issuer} {
		if _, err := parseURL(text); text != "" && err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if p.Identity == "" {
		return nil, errors.Join(append(errs, errors.New("identity: is missing"))...)
	}
	var err error
	if p.who, err = env.as(p.Identity); err != nil {
		errs = append(errs, err)
	}
	if p.by = p.who; p.By != "" {
		if p.by, err = env.as(p.By); err != nil {
			errs = append(errs, fmt.Errorf("by: %w", err))
		}
	}
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	p.document = &issuerDocument{issuer: p.Issuer, client: p.client}
	if len(errs) == 0 {
		errs = append(errs, p.checkRoles()...)
		errs = append(errs, p.revocation.check(p)...)
	}
	return p, errors.Join(errs...)
}

// checkRoles sees that there is a token, and somebody who may ask about it.
func (p *introspectProbe) checkRoles() (errs []error) {
	switch scheme := p.who.Status().Scheme; scheme {
	case "bearer", "dpop":
	default:
		errs = append(errs, fmt.Errorf("identity: %s holds no token that could be looked at", p.Identity))
	}
	if _, ok := p.by.(identity.Client); !ok && p.By == "" {
		errs = append(errs, errors.New("by: is missing; only an identity of kind oauth2 can ask about its own token"))
	}
	return errs
}

func (p *introspectProbe) About() About {
	a := About{Identity: p.Identity, Expected: "active", RequiredScopes: p.RequiredScopes, Audience: p.Audience}
	where := p.URL
	if where == "" {
		where = p.Issuer
	}
	if u, err := url.Parse(where); err == nil {
		a.Endpoint, a.Origin = wire.ShowEndpoint(u), wire.Origin(u)
	}
	return a
}

// introspected is what the server says of a token (RFC 7662 section 2.2).
type introspected struct {
	Active   *bool           `json:"active"`
	Scope    string          `json:"scope"`
	ClientID string          `json:"client_id"`
	Audience json.RawMessage `json:"aud"`
	Expiry   json.Number     `json:"exp"`
}

func (p *introspectProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	meta, err := p.document.get(ctx, &report)
	if err != nil {
		return report, err
	}
	endpoint := p.URL
	if endpoint == "" {
		endpoint = meta.Introspection
	}
	if endpoint == "" {
		return report, &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: evidence.SymptomIssuer, Code: "no_introspection_endpoint", Err: errors.New("the issuer's metadata names no introspection endpoint")}
	}
	held, err := p.take(ctx, endpoint, &report)
	if err != nil {
		return report, err
	}
	said, err := p.ask(ctx, endpoint, held, evidence.First, &report)
	if err != nil {
		return report, err
	}
	if !*said.Active && held.grant.Renewable && !held.grant.Fresh {
		// A token that was good once may have been withdrawn; whether a new one is active tells that from a server which does
		// not know the token, or keeps its knowledge from whoever asks.
		p.who.Settle(held.grant, identity.Outcome{Refused: true, Status: http.StatusUnauthorized})
		fresh, err := p.take(ctx, endpoint, &report)
		if err != nil {
			return report, err
		}
		if fresh.grant.ID != held.grant.ID {
			held = fresh
			if said, err = p.ask(ctx, endpoint, held, evidence.WithFreshGrant, &report); err != nil {
				return report, err
			}
			if *said.Active {
				report.Notes = append(report.Notes, evidence.Note{Code: "token_withdrawn", Detail: "the server had withdrawn the token before its end; a new one is active"})
			}
		}
	}
	if err := p.judge(said, held.grant, &report); err != nil {
		return report, err
	}
	return report, p.measure(ctx, meta, endpoint, held, &report)
}

// A heldToken is the text of a token, for as long as a run lasts, and its grant.
type heldToken struct {
	text  string
	grant identity.Grant
}

// take obtains the token of the identity, as for a request to the endpoint, so that its origins hold here too.
func (p *introspectProbe) take(ctx context.Context, endpoint string, report *evidence.Report) (heldToken, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return heldToken{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the introspection endpoint is no URL")}
	}
	req := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{}}
	grant, err := p.who.Apply(ctx, req)
	take(report, grant)
	if err != nil {
		return heldToken{}, err
	}
	_, text, found := strings.Cut(req.Header.Get("Authorization"), " ")
	if !found {
		return heldToken{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: "token", Err: errors.New("the identity holds no token that could be looked at")}
	}
	return heldToken{text, grant}, nil
}

// ask asks about a token once.
func (p *introspectProbe) ask(ctx context.Context, endpoint string, held heldToken, purpose evidence.Purpose, report *evidence.Report) (said introspected, err error) {
	form := url.Values{"token": {held.text}, "token_type_hint": {"access_token"}}
	answer, err := p.post(ctx, endpoint, form, wire.Question{Stage: evidence.StageToken, Purpose: purpose, Grant: held.grant.ID, Expected: func(status int) bool { return status == http.StatusOK }}, report)
	if err != nil {
		return said, err
	}
	status := answer.Exchange.Status
	fault := &evidence.Fault{Stage: evidence.StageToken, Code: fmt.Sprint(status), Err: fmt.Errorf("POST %s answered %d", answer.Exchange.URL, status)}
	switch {
	case status == http.StatusTooManyRequests:
		fault.Symptom = evidence.SymptomThrottled
	case status >= 500:
		fault.Symptom = evidence.SymptomServerError
	case identity.RefusesClient(answer):
		fault.Symptom, fault.Code = evidence.SymptomTokenRefused, "invalid_client"
		fault.Err = fmt.Errorf("POST %s answered %d: it refuses who asks, and says nothing of the token", answer.Exchange.URL, status)
	case status == http.StatusForbidden:
		fault.Symptom = evidence.SymptomForbidden
	case status/100 == 3:
		fault.Symptom = evidence.SymptomRedirected
	case status != http.StatusOK:
		fault.Symptom = evidence.SymptomUnexpected
	case json.Unmarshal(answer.Body, &said) != nil:
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "not_json", fmt.Errorf("POST %s answered 200 with no JSON document", answer.Exchange.URL)
	case said.Active == nil:
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "no_active", fmt.Errorf("POST %s answered 200 without active, which RFC 7662 section 2.2 demands", answer.Exchange.URL)
	default:
		return said, nil
	}
	return said, fault
}

// post sends a form as whoever asks: with a client credential, or with what the identity sends.
func (p *introspectProbe) post(ctx context.Context, endpoint string, form url.Values, q wire.Question, report *evidence.Report) (answer wire.Answer, err error) {
	if client, ok := p.by.(identity.Client); ok {
		answer, err = client.Post(ctx, endpoint, form, q)
	} else {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode())); err != nil {
			return answer, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", "application/json")
		grant, err := p.by.Apply(ctx, req)
		report.Exchanges, report.Notes = append(report.Exchanges, grant.Exchanges...), append(report.Notes, grant.Notes...)
		if err != nil {
			return answer, err
		}
		q.Request, q.Scheme, q.Certificate = req, grant.Scheme, p.by.ClientCertificate
		answer, err = p.client.Ask(ctx, q)
		if err == nil {
			status := answer.Exchange.Status
			p.by.Settle(grant, identity.Outcome{Accepted: status/100 == 2, Refused: status == http.StatusUnauthorized, Status: status, Header: answer.Header})
		}
	}
	if answer.Exchange.Method != "" {
		answer.Exchange.Identity = p.By
		report.Exchanges = append(report.Exchanges, answer.Exchange)
	}
	if answer.Chain != nil {
		report.Chain = answer.Chain
	}
	return answer, err
}

// judge compares what the server said with what it should say.
func (p *introspectProbe) judge(said introspected, grant identity.Grant, report *evidence.Report) error {
	active := 0.0
	if *said.Active {
		active = 1
	}
	report.Readings = append(report.Readings, evidence.Reading{Metric: introspectionActive, Value: active})
	fault := func(symptom evidence.Symptom, code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: code, Err: fmt.Errorf(format, args...)}
	}
	if !*said.Active {
		if grant.Fresh {
			return fault(evidence.SymptomInactive, "unknown_to_server", "the server says that a token which it issued just now is not active: whoever asks may not look at it, or asks another server than the one that issued it")
		}
		return fault(evidence.SymptomInactive, "inactive", "the server says that the token is not active")
	}
	p.who.Settle(grant, identity.Outcome{Accepted: true, Status: http.StatusOK})
	t := evidence.Token{Name: "access", Format: "opaque"}
	if report.Token != nil {
		t = *report.Token
	}
	if scopes := strings.Fields(evidence.Clean(said.Scope, 4096)); len(scopes) > 0 {
		t.Scopes = scopes
	}
	if id := evidence.Clean(said.ClientID, 128); id != "" {
		t.ClientID = id
	}
	if aud := audiences(said.Audience); len(aud) > 0 {
		t.Audience = aud
	}
	if seconds, err := said.Expiry.Float64(); err == nil && seconds > 0 && seconds < 1e11 {
		end := time.Unix(int64(seconds), 0).UTC()
		report.Readings = append(report.Readings, evidence.Reading{Metric: introspectedExpiry, Value: seconds})
		if !t.Expiry.IsZero() && t.Expiry.Sub(end).Abs() > time.Minute {
			report.Notes = append(report.Notes, evidence.Note{Code: "expiry_disagrees", Detail: fmt.Sprintf("by introspection the token ends %s %s than it was thought to", evidence.Span(t.Expiry.Sub(end)), earlier(end, t.Expiry))})
		}
		t.Expiry = end
	}
	report.Token = &t
	missing := missingScopes(p.RequiredScopes, t.Scopes)
	if len(t.Scopes) == 0 {
		missing = p.RequiredScopes // here the server has said what there is
	}
	left, known := remaining(&t)
	switch {
	case known && left <= 0:
		return fault(evidence.SymptomTokenLifetime, "expired", "the server says that the token is active, and that it ended %s ago", evidence.Span(left))
	case known && left < p.MinRemaining:
		return fault(evidence.SymptomTokenLifetime, "short", "the token has %s left, less than min_remaining %s", evidence.Span(left), evidence.Span(p.MinRemaining))
	case len(missing) > 0:
		return fault(evidence.SymptomScope, "insufficient_scope", "by introspection the token lacks the scope %s", strings.Join(missing, " "))
	case p.Audience != "" && !slices.Contains(t.Audience, p.Audience):
		return fault(evidence.SymptomRuleViolated, "audience", "by introspection the token is for audience %s, not for %s", strings.Join(t.Audience, " "), p.Audience)
	case p.ClientID != "" && t.ClientID != p.ClientID:
		return fault(evidence.SymptomRuleViolated, "client_id", "by introspection the token was issued to client %s, not to %s", t.ClientID, p.ClientID)
	}
	return nil
}

func earlier(a, b time.Time) string {
	if a.Before(b) {
		return "earlier"
	}
	return "later"
}

// audiences reads aud, a text or a list of texts (RFC 7519 section 4.1.3).
func audiences(raw json.RawMessage) []string {
	var one string
	var several []string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		several = []string{one}
	} else if json.Unmarshal(raw, &several) != nil {
		return nil
	}
	for i, name := range several {
		several[i] = evidence.Clean(name, 256)
	}
	return several[:min(len(several), 16)]
}
