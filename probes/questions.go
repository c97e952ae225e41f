package probes

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	// questionEvery is how often a probe that keeps failing asks its second questions: with the first failure, and then with
	// every twentieth.
	questionEvery = 20
	// damagedEvery is how often a healthy probe asks with a spoilt signature, where that is wanted.
	damagedEvery = 24 * time.Hour
	// nowhere is a path that no server has, to see what it answers to anything at all.
	nowhere = "/authvigil-asks-for-a-page-that-is-not-there"
)

// A curious keeps in mind when second questions were asked. A probe does not run concurrently.
type curious struct {
	failures int       // in a row
	damaged  time.Time // when a spoilt signature was shown last; zero: not yet
}

// secondQuestions asks what helps to tell causes apart, once the first answer was not the right one. Each is one request with
// nothing in it that could lock an account, and stands in the report as a further exchange: the verdict comes from the
// comparison. An answer that does not come is no finding: the first question decided.
func (p *httpProbe) secondQuestions(ctx context.Context, a asked, report *evidence.Report) {
	if p.Expect != "grant" || p.right(a.answer.Exchange.Status) {
		p.curious.failures = 0
		return
	}
	p.curious.failures++
	if p.curious.failures%questionEvery != 1 && !p.thorough {
		return
	}
	switch status := a.answer.Exchange.Status; status {
	case http.StatusUnauthorized:
		if p.safe() && a.grant.Scheme != "none" {
			p.stranger(ctx, evidence.WithoutGrant, p.Method, "", report)
		}
		p.askIssuer(ctx, a, report)
		p.askAboutToken(ctx, a, report)
	case http.StatusForbidden:
		if p.safe() && a.grant.Scheme != "none" {
			p.stranger(ctx, evidence.WithoutGrant, p.Method, "", report)
		}
		p.stranger(ctx, evidence.Sibling, http.MethodGet, nowhere, report)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		p.stranger(ctx, evidence.OtherMethod, http.MethodOptions, "", report)
		p.stranger(ctx, evidence.Sibling, http.MethodGet, nowhere, report)
	}
}

// safe says whether the request changes nothing at the server (RFC 9110 section 9.2.1), so that it may be sent once more.
func (p *httpProbe) safe() bool { return p.Method == http.MethodGet || p.Method == http.MethodHead }

// stranger asks without any credential, at the probe's own path or another of the same server.
func (p *httpProbe) stranger(ctx context.Context, purpose evidence.Purpose, method, path string, report *evidence.Report) {
	req, err := p.request(ctx)
	if err != nil {
		return
	}
	req.Method = method
	if path != "" {
		req.URL.Path, req.URL.RawPath, req.URL.RawQuery = path, "", ""
	}
	if path != "" || method == http.MethodOptions {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	}
	answer, _ := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Purpose: purpose, Scheme: "none"})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
}

// askDamaged asks once more with the signature of the token spoilt, where the setting wants it and the last time is long ago:
// a server that lets that in checks no signatures, and whoever writes a token gets in.
func (p *httpProbe) askDamaged(ctx context.Context, a asked, report *evidence.Report) error {
	if !(p.CheckSignature || p.thorough) || !p.safe() || p.Expect != "grant" || a.grant.Token == nil || a.grant.Token.Format != "jwt" || a.grant.Scheme != "bearer" ||
		(!p.curious.damaged.IsZero() && time.Since(p.curious.damaged) < damagedEvery) {
		return nil
	}
	spoilt, ok := damage(a.proof)
	if !ok {
		return nil
	}
	req, err := p.request(ctx)
	if err != nil {
		return nil
	}
	p.curious.damaged = time.Now()
	secret.Remember(strings.TrimPrefix(spoilt, "Bearer "))
	req.Header.Set("Authorization", spoilt)
	answer, _ := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Purpose: evidence.WithDamaged, Scheme: "bearer", Certificate: p.who.ClientCertificate})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if status := answer.Exchange.Status; status/100 == 2 {
		return &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomGranted, Code: "damaged",
			Err: fmt.Errorf("%s %s answered %d to a token with a spoilt signature", p.Method, answer.Exchange.URL, status)}
	}
	return nil
}

// damage changes one character in the middle of the signature of a JWT, so that its form stays right.
func damage(proof string) (string, bool) {
	token, ok := strings.CutPrefix(proof, "Bearer ")
	i := strings.LastIndexByte(token, '.')
	if !ok || strings.Count(token, ".") != 2 || len(token)-i < 16 {
		return "", false
	}
	at := i + (len(token)-i)/2
	other := byte('A')
	if token[at] == other {
		other = 'B'
	}
	return "Bearer " + token[:at] + string(other) + token[at+1:], true
}

// An asked is one question with what it was asked with. The proof is the text of the credential: it lives for one run, and only
// where second questions need it.
type asked struct {
	grant  identity.Grant
	answer wire.Answer
	proof  string // of the header Authorization
}
