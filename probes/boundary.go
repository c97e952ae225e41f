package probes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// boundary are the keys of an http probe that also asks as those who must be refused: only an endpoint that lets the right one
// in says something by refusing the others.
type boundary struct {
	MustRefuse []string `koanf:"must_refuse" help:"names of further identities that the endpoint must refuse (401, 403 or 404); asked once the first one was let in; being let in is the fault"`

	others []other
}

type other struct {
	name string
	who  identity.Identity
}

var boundaryHolds = &evidence.Metric{Name: "boundary_refused", Help: "1 if the endpoint refused an identity that it must refuse, 0 if it let it in; absent while it could not be asked.", Labels: []string{"probe", "refused"}}

// missingScopesMetric counts what the operator said that the endpoint needs, and the token does not have.
var missingScopesMetric = &evidence.Metric{Name: "scopes_missing", Help: "Scopes of required_scopes that the token in use does not have, by scope, scp, roles and permissions; absent where the token names none.", Labels: []string{"probe", "identity"}}

func (p *httpProbe) findOthers(env Env) (errs []error) {
	if len(p.MustRefuse) > 0 && p.Expect == "deny" {
		errs = append(errs, errors.New("must_refuse: goes with expect grant; only who sees the endpoint let somebody in knows that it refuses the others"))
	}
	for _, name := range p.MustRefuse {
		who, err := env.as(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("must_refuse: %w", err))
			continue
		}
		if name == p.Identity {
			errs = append(errs, fmt.Errorf("must_refuse: %s is the identity that must be let in", name))
		}
		p.others = append(p.others, other{name, who})
	}
	return errs
}

// askOthers asks as those who must be refused, one request each. A refusal is what is expected and no word against their
// credentials.
func (p *httpProbe) askOthers(ctx context.Context, report *evidence.Report) error {
	var open []string
	status := 0
	for _, o := range p.others {
		answered, err := p.askAs(ctx, o, report)
		fault := evidence.AsFault(err)
		switch {
		case fault != nil && fault.Held():
			report.Notes = append(report.Notes, evidence.Note{Code: "boundary_untested", Detail: "identity " + o.name + " is held back, so that its refusal was not tested"})
			continue
		case fault != nil:
			return err
		}
		refused := 1.0
		switch answered {
		case http.StatusUnauthorized:
			if o.who.Status().Scheme != "none" {
				report.Notes = append(report.Notes, evidence.Note{Code: "refused_as_unknown", Detail: "identity " + o.name + " was refused with 401: its credential counts for nothing here, which says little of its rights"})
			}
		case http.StatusForbidden, http.StatusNotFound:
		default:
			if answered/100 != 2 {
				continue // neither let in nor refused
			}
			open, status, refused = append(open, o.name), answered, 0
		}
		report.Readings = append(report.Readings, evidence.Reading{Metric: boundaryHolds, Labels: []string{o.name}, Value: refused})
	}
	if len(open) == 0 {
		return nil
	}
	return &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomGranted, Code: fmt.Sprint(status),
		Err: fmt.Errorf("%s %s answered %d to %s, which must be refused", p.Method, wire.ShowURL(p.url), status, strings.Join(open, " and "))}
}

// askAs asks once as another identity. What it brings along stays apart from what the probe's own identity did.
func (p *httpProbe) askAs(ctx context.Context, o other, report *evidence.Report) (status int, err error) {
	req, err := p.request(ctx)
	if err != nil {
		return 0, err
	}
	grant, err := o.who.Apply(ctx, req)
	for _, x := range grant.Exchanges {
		x.Identity = o.name
		report.Exchanges = append(report.Exchanges, x)
	}
	if err != nil {
		return 0, err
	}
	answer, err := p.client.Ask(ctx, wire.Question{
		Request: req, Stage: evidence.StageAPI, Purpose: evidence.MustRefuse, Scheme: grant.Scheme, Grant: grant.ID, Certificate: o.who.ClientCertificate,
		Expected: func(status int) bool { return status == http.StatusForbidden || status == http.StatusUnauthorized },
	})
	answer.Exchange.Identity = o.name
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if err != nil {
		return 0, err
	}
	status = answer.Exchange.Status
	o.who.Settle(grant, identity.Outcome{Accepted: status/100 == 2, Status: status, Header: answer.Header})
	return status, nil
}

// compareScopes says before the call what the token lacks of what the endpoint needs.
func (p *httpProbe) compareScopes(grant identity.Grant, report *evidence.Report) {
	if len(p.RequiredScopes) == 0 || grant.Token == nil || len(grant.Token.Scopes) == 0 {
		return
	}
	missing := missingScopes(p.RequiredScopes, grant.Token.Scopes)
	reading := evidence.Reading{Metric: missingScopesMetric, Value: float64(len(missing))}
	for i := range report.Readings {
		if report.Readings[i].Metric == missingScopesMetric { // of the grant before
			report.Readings[i] = reading
			return
		}
	}
	report.Readings = append(report.Readings, reading)
	if len(missing) > 0 {
		report.Notes = append(report.Notes, evidence.Note{Code: "insufficient_scope", Detail: "before the call: the token lacks the scope " + strings.Join(missing, " ")})
	}
}

// notEnforced says after the call that the endpoint did not ask for what it is said to need.
func (p *httpProbe) notEnforced(grant identity.Grant, report *evidence.Report) {
	if grant.Token == nil {
		return
	}
	if missing := missingScopes(p.RequiredScopes, grant.Token.Scopes); len(missing) > 0 {
		report.Notes = append(report.Notes, evidence.Note{Code: "scope_not_enforced", Detail: "after the call: the endpoint let in a token without the scope " + strings.Join(missing, " ")})
	}
}
