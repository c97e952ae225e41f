package probes

import (
	"context"
	"net/http"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// questionEvery is how often a probe that keeps failing asks its second questions: with the first failure, and then with
// every twentieth.
const questionEvery = 20

// secondQuestions asks what helps to tell causes apart, once a refusal was seen. Each is one request without any credential,
// so that it can lock nobody out, and stands in the report as a further exchange. The verdict comes from the comparison.
func (p *httpProbe) secondQuestions(ctx context.Context, grant identity.Grant, status int, report *evidence.Report) {
	if status != http.StatusUnauthorized || p.Expect != "grant" || grant.Scheme == "none" || (p.Method != http.MethodGet && p.Method != http.MethodHead) {
		p.refusals = 0
		return
	}
	p.refusals++
	if p.refusals%questionEvery != 1 {
		return
	}
	req, err := p.request(ctx)
	if err != nil {
		return
	}
	// An answer that does not come is no finding: the first question decided.
	answer, _ := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Purpose: evidence.WithoutGrant, Scheme: "none"})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
}
