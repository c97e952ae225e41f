package probes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// credentialProbe asks the server that issued a key or token what it knows of it: does it hold, when does it end, what may
// it do. GitLab, Vault, Cloudflare and their kin have an address for that. It only asks: nothing is renewed, rotated or
// revoked, because a server may withdraw a whole family of tokens when one is rotated twice.
type credentialProbe struct {
	URL            string   `koanf:"url" help:"address where the server tells what it knows of the credential that asks, such as https://gitlab.example.com/api/v4/personal_access_tokens/self, …/v1/auth/token/lookup-self (Vault), …/client/v4/user/tokens/verify (Cloudflare), https://api.github.com/rate_limit; asked with GET; required"`
	Identity       string   `koanf:"identity" help:"name of the identity whose credential is looked at; required"`
	RequiredScopes []string `koanf:"required_scopes" help:"scopes that the credential must have"`
	wire.Settings  `koanf:",squash"`

	url    *url.URL
	client *wire.Client
	who    identity.Identity
}

// changing are last parts of addresses that change a credential. Some servers take GET for it.
var changing = []string{"rotate", "renew", "renew-self", "revoke", "revoke-self", "regenerate", "roll", "delete"}

func newCredential(decode func(any) error, env Env) (Probe, error) {
	p := &credentialProbe{}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	u, err := parseURL(p.URL)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("url: %w", err))
	case slices.Contains(changing, strings.ToLower(path.Base(u.Path))):
		errs = append(errs, fmt.Errorf("url: …/%s changes the credential; name an address that only tells of it", path.Base(u.Path)))
	}
	p.url = u
	if p.Identity == "" {
		errs = append(errs, errors.New("identity: is missing"))
	}
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	if p.who, err = env.as(p.Identity); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

func (p *credentialProbe) About() About {
	return About{Endpoint: wire.ShowEndpoint(p.url), Origin: wire.Origin(p.url), Identity: p.Identity, Expected: "credential", RequiredScopes: p.RequiredScopes}
}

func (p *credentialProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String(), nil)
	if err != nil {
		return report, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "application/json")
	grant, err := p.who.Apply(ctx, req)
	take(&report, grant)
	if err != nil {
		return report, err
	}
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Scheme: grant.Scheme, Grant: grant.ID, Certificate: p.who.ClientCertificate,
		Expected: func(status int) bool { return status == http.StatusOK }})
	report.Exchanges, report.Chain = append(report.Exchanges, answer.Exchange), answer.Chain
	if err != nil {
		return report, err
	}
	status := answer.Exchange.Status
	p.who.Settle(grant, identity.Outcome{Accepted: status == http.StatusOK, Refused: status == http.StatusUnauthorized, Status: status, Header: answer.Header})
	fault := &evidence.Fault{Stage: evidence.StageAPI, Code: fmt.Sprint(status), Err: fmt.Errorf("GET %s answered %d", answer.Exchange.URL, status)}
	if status != http.StatusOK {
		fault.Symptom = symptomOf(status, answer.Header)
		return report, fault
	}
	tellHeader(answer.Header, &report)
	said, ok := readCredential(answer.Body)
	if !ok {
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "not_json", fmt.Errorf("GET %s answered no JSON object", answer.Exchange.URL)
		keepBody(&report, answer)
		return report, fault
	}
	return report, p.judge(said, &report)
}

func (p *credentialProbe) judge(c saidOfCredential, report *evidence.Report) error {
	fault := func(symptom evidence.Symptom, code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageAPI, Symptom: symptom, Code: code, Err: fmt.Errorf(format, args...)}
	}
	if !c.end.IsZero() {
		report.Readings = append(report.Readings, evidence.Reading{Metric: identity.CredentialEnd, Labels: []string{"server"}, Value: float64(c.end.UnixNano()) / 1e9})
		report.Notes = append(report.Notes, identity.Ending("the credential, by the word of its server,", c.begin, c.end)...)
	}
	switch left := time.Until(c.end); {
	case c.unreadable != "":
		report.Notes = append(report.Notes, evidence.Note{Code: "expiry_unreadable", Detail: "the server gives an end of the credential that cannot be read: " + c.unreadable})
	case !c.end.IsZero() && left <= 0:
		return fault(evidence.SymptomTokenLifetime, "expired", "the credential ended %s ago", evidence.Span(-left))
	case c.inactive != "":
		return fault(evidence.SymptomInactive, "inactive", "the server says that the credential is %s", c.inactive)
	}
	if missing := missingScopes(p.RequiredScopes, c.scopes); len(missing) > 0 {
		return fault(evidence.SymptomScope, "insufficient_scope", "the credential lacks the scope %s", strings.Join(missing, " "))
	}
	return nil
}

// saidOfCredential is what a server tells of a credential.
type saidOfCredential struct {
	begin, end time.Time
	unreadable string // an end in a form that is not known
	inactive   string // a word for why it does not hold; empty: it does, or nothing is said
	scopes     []string
}

// readCredential reads the forms of GitLab, Vault, Cloudflare and their kin: members of an object, or of one within it.
func readCredential(body []byte) (c saidOfCredential, ok bool) {
	var all map[string]any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if d.Decode(&all) != nil || all == nil {
		return c, false
	}
	for _, name := range []string{"data", "result"} { // Vault, Cloudflare
		if inner, is := all[name].(map[string]any); is {
			all = inner
		}
	}
	c.begin, _ = firstMoment(all, "created_at", "issue_time", "issued_on", "creation_time")
	c.end, c.unreadable = firstMoment(all, "expires_at", "expire_time", "expires_on", "expiration", "expires")
	if revoked, _ := all["revoked"].(bool); revoked {
		c.inactive = "revoked"
	} else if active, said := all["active"].(bool); said && !active {
		c.inactive = "not active"
	} else if status, _ := all["status"].(string); status != "" && !strings.EqualFold(status, "active") {
		c.inactive = evidence.Clean(status, 32)
	}
	list, _ := all["scopes"].([]any)
	for _, v := range list[:min(len(list), 64)] {
		if s, is := v.(string); is {
			c.scopes = append(c.scopes, evidence.Clean(s, 128))
		}
	}
	return c, true
}

// firstMoment reads the first member that is there: RFC 3339, a day (GitLab: the token ends when that day begins in UTC), or
// seconds since 1970.
func firstMoment(all map[string]any, names ...string) (at time.Time, unreadable string) {
	for _, name := range names {
		switch v := all[name].(type) {
		case string:
			for _, form := range []string{time.RFC3339, time.DateOnly} {
				if at, err := time.Parse(form, v); err == nil {
					return at, ""
				}
			}
			if v != "" {
				return at, name + " is " + evidence.Clean(v, 64)
			}
		case json.Number:
			if seconds, err := v.Int64(); err == nil && seconds > 0 && seconds < 1<<40 {
				return time.Unix(seconds, 0), ""
			}
		}
	}
	return at, ""
}

// headerEnd is the header by which GitHub tells when the token ends that asked; without it, the token has no end or is of
// another sort.
const headerEnd = "Github-Authentication-Token-Expiration"

// tellHeader adds the end that an answer tells of the credential that asked.
func tellHeader(h http.Header, report *evidence.Report) {
	text := h.Get(headerEnd)
	if text == "" {
		return
	}
	for _, form := range []string{"2006-01-02 15:04:05 MST", "2006-01-02 15:04:05 -0700", time.RFC3339} {
		if end, err := time.Parse(form, text); err == nil {
			report.Readings = append(report.Readings, evidence.Reading{Metric: identity.CredentialEnd, Labels: []string{"header"}, Value: float64(end.Unix())})
			report.Notes = append(report.Notes, identity.Ending("the token, by the server's header,", time.Time{}, end)...)
			return
		}
	}
	report.Notes = append(report.Notes, evidence.Note{Code: "expiry_unreadable", Detail: "the server gives an end of the token that cannot be read: " + evidence.Clean(text, 64)})
}
