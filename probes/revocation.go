package probes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// revocation are the keys of an introspect probe that also withdraws the token and watches an API go on accepting it.
type revocation struct {
	Revoke      bool          `koanf:"revoke" help:"revoke the token (RFC 7009) and measure for how long api goes on accepting it; the identity must be declared disposable; default false"`
	RevokeURL   string        `koanf:"revoke_url" help:"revocation endpoint; default: as the issuer's metadata says"`
	RevokeEvery time.Duration `koanf:"revoke_every" help:"time between two revocations, at least 1m; default 1h"`
	API         string        `koanf:"api" help:"address of an API that accepts the token, asked by GET; required with revoke"`
	MaxLag      time.Duration `koanf:"max_lag" help:"how long the API may go on accepting a revoked token; at most 10m, and the timeout of the probe must be longer; default 5s"`

	revoked time.Time // last revocation
}

// lagPolls bounds how often the API is asked about one revoked token.
const lagPolls = 24

var revocationLag = &evidence.Metric{Name: "revocation_lag_seconds", Help: "Time from the revocation of a token (RFC 7009) to the first refusal by the API; where it was not refused, how long that was watched.", Labels: []string{"probe", "identity"}}

func (r *revocation) check(p *introspectProbe) (errs []error) {
	if !r.Revoke {
		return nil
	}
	owner, ok := p.who.(identity.Client)
	if !ok || !owner.Disposable() {
		errs = append(errs, fmt.Errorf("revoke: identity %s is not declared disposable; tokens that others use are not revoked", p.Identity))
	}
	if _, err := parseURL(r.API); err != nil {
		errs = append(errs, fmt.Errorf("api: %w", err))
	}
	if _, err := parseURL(r.RevokeURL); err != nil && (r.RevokeURL != "" || p.Issuer == "") {
		errs = append(errs, fmt.Errorf("revoke_url: %w", err))
	}
	if r.RevokeEvery == 0 {
		r.RevokeEvery = time.Hour
	}
	if r.RevokeEvery < time.Minute {
		errs = append(errs, errors.New("revoke_every: must be at least 1m"))
	}
	if r.MaxLag == 0 {
		r.MaxLag = 5 * time.Second
	}
	if r.MaxLag < 0 || r.MaxLag > 10*time.Minute {
		errs = append(errs, errors.New("max_lag: must be above zero and at most 10m"))
	}
	return errs
}

// measure revokes the token when that is due, and asks the API until it refuses it. It begins with a token that the API
// accepts: a refusal would say nothing otherwise.
func (p *introspectProbe) measure(ctx context.Context, meta metadata, introspection string, held heldToken, report *evidence.Report) error {
	if !p.Revoke || time.Since(p.revoked) < p.RevokeEvery {
		return nil
	}
	endpoint := p.RevokeURL
	if endpoint == "" {
		endpoint = meta.Revocation
	}
	if endpoint == "" {
		return &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: evidence.SymptomIssuer, Code: "no_revocation_endpoint", Err: errors.New("the issuer's metadata names no revocation endpoint")}
	}
	status, err := p.askAPI(ctx, held, evidence.First, report)
	if err != nil {
		return err
	}
	if status/100 != 2 {
		symptom := map[int]evidence.Symptom{http.StatusUnauthorized: evidence.SymptomUnauthorized, http.StatusForbidden: evidence.SymptomForbidden, http.StatusTooManyRequests: evidence.SymptomThrottled}[status]
		if symptom == "" {
			symptom = evidence.SymptomUnexpected
		}
		return &evidence.Fault{Stage: evidence.StageAPI, Symptom: symptom, Code: fmt.Sprint(status), Err: fmt.Errorf("GET %s answered %d to a token that is active, so nothing can be said about revocation", report.Exchanges[len(report.Exchanges)-1].URL, status)}
	}
	p.revoked = time.Now()
	if err := p.withdraw(ctx, endpoint, held, report); err != nil {
		return err
	}
	defer p.who.Settle(held.grant, identity.Outcome{Refused: true, Status: http.StatusUnauthorized}) // it is of no use any more
	return p.watch(ctx, held, time.Now(), report)
}

// withdraw revokes the token, as the client that it was issued to (RFC 7009 section 2.1).
func (p *introspectProbe) withdraw(ctx context.Context, endpoint string, held heldToken, report *evidence.Report) error {
	form := url.Values{"token": {held.text}, "token_type_hint": {"access_token"}}
	answer, err := p.who.(identity.Client).Post(ctx, endpoint, form, wire.Question{Stage: evidence.StageToken, Purpose: evidence.Revoke, Grant: held.grant.ID, Expected: func(status int) bool { return status == http.StatusOK }})
	if answer.Exchange.Method != "" {
		report.Exchanges = append(report.Exchanges, answer.Exchange)
	}
	switch {
	case err != nil:
		return err
	case answer.Exchange.Status != http.StatusOK:
		fault := &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomUnexpected, Code: fmt.Sprint(answer.Exchange.Status), Err: fmt.Errorf("POST %s answered %d, so that the token was not revoked", answer.Exchange.URL, answer.Exchange.Status)}
		if identity.RefusesClient(answer) {
			fault.Symptom, fault.Code = evidence.SymptomTokenRefused, "invalid_client"
		}
		return fault
	}
	return nil
}

// watch asks the API at growing distances until it refuses the token or the time is over.
func (p *introspectProbe) watch(ctx context.Context, held heldToken, since time.Time, report *evidence.Report) error {
	pause := 100 * time.Millisecond
	for range lagPolls {
		status, err := p.askAPI(ctx, held, evidence.AfterRevocation, report)
		if err != nil {
			return err
		}
		lag := time.Since(since)
		if status == http.StatusUnauthorized || status == http.StatusForbidden {
			report.Readings = append(report.Readings, evidence.Reading{Metric: revocationLag, Value: lag.Seconds()})
			if lag > p.MaxLag {
				return &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomStillAccepted, Code: "late", Err: fmt.Errorf("the API went on accepting a revoked token for %s, longer than max_lag %s", evidence.Span(lag), evidence.Span(p.MaxLag))}
			}
			return nil
		}
		if lag > p.MaxLag {
			break
		}
		timer := time.NewTimer(min(pause, p.MaxLag-lag+time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return wire.Classify(ctx, evidence.StageAPI, context.Cause(ctx))
		}
		if pause *= 2; pause > p.MaxLag/8 && p.MaxLag > 8*time.Second {
			pause = p.MaxLag / 8
		}
	}
	watched := time.Since(since)
	report.Readings = append(report.Readings, evidence.Reading{Metric: revocationLag, Value: watched.Seconds()})
	return &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomStillAccepted, Code: "accepted", Err: fmt.Errorf("the API still accepts a token %s after it was revoked", evidence.Span(watched))}
}

// askAPI shows the token to the API once. What it says of a revoked token is no word against the credential.
func (p *introspectProbe) askAPI(ctx context.Context, held heldToken, purpose evidence.Purpose, report *evidence.Report) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.API, nil)
	if err != nil {
		return 0, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
	}
	req.Header.Set("User-Agent", userAgent)
	grant, err := p.who.Apply(ctx, req)
	if err != nil {
		return 0, err
	}
	if grant.ID != held.grant.ID {
		return 0, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Code: "token_replaced", Err: errors.New("the identity replaced its token while it was watched; something else uses it")}
	}
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Purpose: purpose, Scheme: grant.Scheme, Grant: grant.ID, Expected: func(status int) bool { return status/100 == 2 }, Certificate: p.who.ClientCertificate})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	return answer.Exchange.Status, err
}
