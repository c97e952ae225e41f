package probes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// tokenProbe looks at what an identity holds: can a token be had, and does it live as long, reach as far and name whom it
// should. It sends nothing but what the identity itself sends to obtain a token.
type tokenProbe struct {
	Identity       string        `koanf:"identity" help:"name of the identity whose token is looked at; required"`
	MinRemaining   time.Duration `koanf:"min_remaining" help:"life that the token must have left, such as the length of the longest job it must outlive"`
	RequiredScopes []string      `koanf:"required_scopes" help:"scopes that the token must have"`
	Audience       string        `koanf:"audience" help:"audience that the token must name"`

	who identity.Identity
}

var tokenRemaining = &evidence.Metric{Name: "token_remaining_seconds", Help: "Life that the token in use has left, by the local clock, when the probe last ran.", Labels: []string{"probe", "identity"}}

func newToken(decode func(any) error, env Env) (Probe, error) {
	p := &tokenProbe{}
	if err := decode(p); err != nil {
		return nil, err
	}
	if p.Identity == "" {
		return nil, errors.New("identity: is missing")
	}
	var err error
	p.who, err = env.as(p.Identity)
	return p, err
}

func (p *tokenProbe) About() About {
	return About{Endpoint: "identity:" + p.Identity, Identity: p.Identity, Expected: "token", RequiredScopes: p.RequiredScopes, Audience: p.Audience}
}

func (p *tokenProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	grant, err := p.look(ctx, &report)
	if err != nil {
		return report, err
	}
	if left, known := remaining(grant.Token); known && left < p.MinRemaining && grant.Renewable && !grant.Fresh {
		p.who.Settle(grant, identity.Outcome{TooShort: true})
		if grant, err = p.look(ctx, &report); err != nil {
			return report, err
		}
	}
	t := grant.Token
	if t == nil {
		return report, nil // a key or password: nothing to be read off it
	}
	left, known := remaining(t)
	if known {
		report.Readings = append(report.Readings, evidence.Reading{Metric: tokenRemaining, Value: left.Seconds()})
	}
	return report, p.judge(t, left, known)
}

func (p *tokenProbe) look(ctx context.Context, report *evidence.Report) (identity.Grant, error) {
	grant, err := p.who.Apply(ctx, &http.Request{Method: http.MethodGet, URL: &url.URL{}, Header: http.Header{}})
	take(report, grant)
	return grant, err
}

func remaining(t *evidence.Token) (time.Duration, bool) {
	if t == nil || t.Expiry.IsZero() {
		return 0, false
	}
	return time.Until(t.Expiry), true
}

func (p *tokenProbe) judge(t *evidence.Token, left time.Duration, known bool) error {
	fault := func(symptom evidence.Symptom, code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: code, Err: fmt.Errorf(format, args...)}
	}
	switch {
	case known && left <= 0:
		return fault(evidence.SymptomTokenLifetime, "expired", "the token ended %s ago", evidence.Span(left))
	case known && left < p.MinRemaining:
		return fault(evidence.SymptomTokenLifetime, "short", "the token has %s left, less than min_remaining %s", evidence.Span(left), evidence.Span(p.MinRemaining))
	case len(t.Problems) > 0:
		return fault(evidence.SymptomBadAnswer, "malformed", "the token is malformed: %s", t.Problems[0])
	}
	if missing := missingScopes(p.RequiredScopes, t.Scopes); len(missing) > 0 {
		return fault(evidence.SymptomScope, "insufficient_scope", "the token lacks the scope %s", strings.Join(missing, " "))
	}
	if p.Audience != "" && t.Format == "jwt" && !slices.Contains(t.Audience, p.Audience) {
		return fault(evidence.SymptomRuleViolated, "audience", "the token is for audience %s, not for %s", strings.Join(t.Audience, " "), p.Audience)
	}
	return nil
}

// missingScopes gives what is required and not granted. A token that names no scope at all says nothing: an opaque one
// may have them all.
func missingScopes(required, granted []string) (missing []string) {
	if len(granted) == 0 {
		return nil
	}
	for _, scope := range required {
		if !slices.Contains(granted, scope) {
			missing = append(missing, scope)
		}
	}
	return missing
}
