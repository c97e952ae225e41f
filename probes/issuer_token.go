package probes

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// disagreement is how far the life that a token says may be from the life that was promised with it.
const disagreement = time.Minute

// obtain gets the token in use, and asks for another one when that is due: a token endpoint that is down is seen although
// the token in use still works. The identity's gates decide whether anything is sent.
func (p *issuerProbe) obtain(ctx context.Context, l *look) {
	if p.who == nil {
		return
	}
	grant, text, err := p.apply(ctx, l)
	due := !p.asked.IsZero() && p.TokenEvery > 0 && l.now.Sub(p.asked) >= p.TokenEvery && !p.who.Status().Spends
	if p.asked.IsZero() {
		p.asked = l.now
	}
	if err == nil && due && !grant.Fresh && grant.Renewable && grant.Ahead == nil {
		p.who.Settle(grant, identity.Outcome{TooShort: true})
		p.asked = l.now
		grant, text, err = p.apply(ctx, l)
	}
	switch fault := evidence.AsFault(err); {
	case fault != nil && fault.Held():
		l.note("token_held", "no token was asked for: %s", causeOf(fault))
	case fault != nil:
		p.outage = fault
	case grant.Fresh || grant.ID != p.lastID:
		p.outage, p.asked = nil, l.now
	case grant.Ahead != nil && !grant.Ahead.Held():
		p.outage = grant.Ahead
	}
	l.fault = p.outage // also while the gate keeps the next question back
	if err == nil {
		p.lastID, l.token, l.text = grant.ID, grant.Token, text
	}
}

// apply lets the identity prove itself in a request that is never sent, and takes the token out of it.
func (p *issuerProbe) apply(ctx context.Context, l *look) (identity.Grant, string, error) {
	req := &http.Request{Method: http.MethodGet, URL: &url.URL{}, Header: http.Header{}}
	grant, err := p.who.Apply(ctx, req)
	take(l.report, grant)
	_, text, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	return grant, text, err
}

// checkToken checks the token in use as a verifier would (RFC 7519 section 7.2, RFC 9068 section 4).
func (p *issuerProbe) checkToken(ctx context.Context, l *look) {
	t := l.token
	switch {
	case t == nil:
		return
	case t.Format != "jwt":
		l.note("token_opaque", "the token in use is no JWT: only its issuer can say whether it is good")
		return
	}
	if !p.checkAlgorithm(l) {
		p.checkSignature(ctx, l)
	}
	if t.Issuer != p.Issuer {
		hint := ""
		if strings.TrimSuffix(t.Issuer, "/") == strings.TrimSuffix(p.Issuer, "/") {
			hint = "; they differ in the slash at the end"
		}
		l.note("token_issuer", "the token says it comes from %q, not from %q%s", t.Issuer, p.Issuer, hint)
	}
	if short := strings.TrimPrefix(strings.ToLower(t.Type), "application/"); p.TokenType != "" && short != strings.TrimPrefix(strings.ToLower(p.TokenType), "application/") {
		l.note("token_type", "the token is of type %q, not %q", t.Type, p.TokenType)
	}
	if t.ID {
		l.note("token_type", "the token is an ID token, which tells a client who logged in; an API is to be shown an access token")
	}
	if p.Audience != "" && !slices.Contains(t.Audience, p.Audience) && l.fault == nil {
		l.fault = &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomRuleViolated, Code: "audience",
			Err: fmt.Errorf("the token is for audience %s, not for %s", strings.Join(t.Audience, " "), p.Audience)}
	}
	p.checkTimes(l)
	p.checkLife(l)
}

// checkAlgorithm says whether the algorithm is such that the signature cannot be checked.
func (p *issuerProbe) checkAlgorithm(l *look) (hopeless bool) {
	t, m := l.token, p.memory
	switch {
	case t.Signature == evidence.SignatureNone:
		l.note("token_unsigned", "the token has no signature (alg %q): whoever writes one is let in by verifiers that accept it", t.Alg)
		return true
	case strings.HasPrefix(t.Alg, "HS"):
		l.note("token_algorithm", "the token is signed with %s, a shared secret: no published key can verify it", t.Alg)
		return true
	case len(p.Algorithms) > 0 && !slices.Contains(p.Algorithms, t.Alg):
		l.note("token_algorithm", "the token is signed with %s; expected is %s", t.Alg, strings.Join(p.Algorithms, " or "))
	}
	if m.Alg != "" && m.Alg != t.Alg {
		m.AlgBefore, m.AlgChange = m.Alg, l.now.Round(0)
	}
	if m.Alg != t.Alg {
		m.Alg, m.dirty = t.Alg, true
	}
	if m.AlgBefore != "" && m.AlgBefore != m.Alg && l.now.Sub(m.AlgChange) < changeTold {
		l.note("algorithm_changed", "tokens are signed with %s since %s, and were with %s before: verifiers that allow one algorithm refuse them", m.Alg, m.AlgChange.UTC().Format(time.RFC3339), m.AlgBefore)
	}
	return false
}

// checkSignature verifies with the published keys. A key that is missing in a set out of a cache is asked for past the
// cache once: that tells an old copy from an issuer that does not publish.
func (p *issuerProbe) checkSignature(ctx context.Context, l *look) {
	t := l.token
	state, key := verifyWith(l.keys, l.text, t)
	if state == evidence.SignatureKeyMissing && l.cached {
		again := &look{now: l.now, clock: l.clock, report: l.report, seen: &evidence.Issuer{}, doc: l.doc, chains: l.chains}
		if p.fetchKeys(ctx, again, "Cache-Control", "no-cache") == nil {
			if second, _ := verifyWith(again.keys, l.text, t); second == evidence.SignatureValid {
				t.Signature = evidence.SignatureKeyMissing
				l.note("jwks_stale", "a cache on the way serves an old key set without key %q, which the issuer publishes", t.Kid)
				return
			}
		}
	}
	t.Signature = state
	switch state {
	case evidence.SignatureKeyMissing:
		p.missing(l)
	case evidence.SignatureInvalid:
		l.note("token_signature", "the signature of the token is not good by key %q, which the issuer publishes under that name", t.Kid)
	case evidence.SignatureValid:
		p.used(l, key)
	default:
		l.note("token_unverified", "the signature of the token (%s) could not be checked here", t.Alg)
	}
}

// verifyWith tries the key that the token names; where it names none, all (RFC 7515 section 4.1.4).
func verifyWith(keys []publishedKey, text string, t *evidence.Token) (state evidence.Signature, by *publishedKey) {
	state = evidence.SignatureKeyMissing
	for i := range keys {
		k := &keys[i]
		if !k.signs || t.Kid != "" && k.Kid != t.Kid {
			continue
		}
		switch got := verify(text, t.Alg, &k.key); {
		case got == evidence.SignatureValid:
			return got, k
		case state != evidence.SignatureInvalid:
			state = got
		}
	}
	return state, nil
}

// missing says that the key of the token is not published, and what is known of it.
func (p *issuerProbe) missing(l *look) {
	t := l.token
	for _, k := range l.keys {
		if k.Kid == t.Kid && t.Kid != "" {
			why := k.Problem
			if why == "" {
				why = "is not meant for signatures"
			}
			l.note("key_missing", "the key %q that signed the token is published, but %s", t.Kid, why)
			return
		}
	}
	for _, was := range p.memory.Keys {
		if was.Kid == t.Kid && t.Kid != "" && !was.Gone.IsZero() {
			if t.Expiry.After(was.Until) {
				was.Until, p.memory.dirty = t.Expiry, true
			}
			l.note("key_removed_early", "the key %q that signed the token in use was withdrawn at %s", t.Kid, was.Gone.UTC().Format(time.RFC3339))
			return
		}
	}
	l.note("key_missing", "the token is signed with key %q, which is not among the %d that the issuer publishes", t.Kid, len(l.keys))
}

// used notes that a key signs tokens, and how long it was published before.
func (p *issuerProbe) used(l *look, k *publishedKey) {
	if k.Alg != "" && k.Alg != l.token.Alg {
		l.note("token_algorithm", "the token is signed with %s by key %q, which is published for %s", l.token.Alg, k.Kid, k.Alg)
	}
	was := p.memory.Keys[k.thumb]
	if was == nil {
		return
	}
	if was.Used.IsZero() {
		was.Used, p.memory.dirty = l.now.Round(0), true
	}
	if l.token.Expiry.After(was.Until) {
		was.Until, p.memory.dirty = l.token.Expiry, true
	}
	if was.First.IsZero() || l.now.Sub(was.Used) > changeTold {
		return
	}
	overlap := was.Used.Sub(was.First)
	l.report.Readings = append(l.report.Readings, evidence.Reading{Metric: issuerOverlap, Value: overlap.Seconds()})
	if l.cache.known && !l.cache.noStore && overlap < l.cache.maxAge {
		l.note("rotation_fast", "key %q was published %s before it signed, and caches may keep the key set for %s: verifiers that do so refuse good tokens", k.Kid, evidence.Span(overlap), evidence.Span(l.cache.maxAge))
	}
}

// checkTimes compares the claims with the local clock and with true time where that is known: what only looks untimely is
// a matter of the clock, and so is what only looks good.
func (p *issuerProbe) checkTimes(l *look) {
	t, local, truth := l.token, l.now, l.clock.at()
	fault := func(symptom evidence.Symptom, code, format string, args ...any) {
		if l.fault == nil {
			l.fault = &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: code, Err: fmt.Errorf(format, args...)}
		}
	}
	over := func(now time.Time) bool { return !t.Expiry.IsZero() && !now.Before(t.Expiry) }
	early := func(now time.Time) bool { return t.NotBefore.After(now.Add(p.Leeway)) }
	by := ""
	if over(local) != over(truth) || early(local) != early(truth) {
		by = fmt.Sprintf(", by a local clock that is %s", l.clock.off())
	}
	switch {
	case over(local) || over(truth):
		fault(evidence.SymptomTokenLifetime, "expired", "the token ended at %s%s", t.Expiry.UTC().Format(time.RFC3339), by)
	case t.Issued.After(truth.Add(p.Leeway)) && l.clock.sure():
		fault(evidence.SymptomClockSkew, "iat_ahead", "the token was issued %s in the future by true time: the clock of the issuer is ahead", evidence.Span(t.Issued.Sub(truth)))
		l.report.Peers = append(l.report.Peers, evidence.Peer{Name: p.Issuer, Method: "token_iat", Skew: local.Sub(t.Issued), Bound: l.clock.bound + time.Second, Measured: local})
	case early(local) || early(truth):
		fault(evidence.SymptomTokenLifetime, "not_yet_valid", "the token is valid from %s on, in %s%s", t.NotBefore.UTC().Format(time.RFC3339), evidence.Span(t.NotBefore.Sub(local)), by)
	case t.Issued.After(local.Add(p.Leeway)):
		fault(evidence.SymptomTokenLifetime, "not_yet_valid", "the token was issued %s in the future: the clock of the issuer or of this machine is wrong", evidence.Span(t.Issued.Sub(local)))
	}
}

// checkLife compares the life of the token with what was promised, and with what tokens had before.
func (p *issuerProbe) checkLife(l *look) {
	t, m := l.token, p.memory
	if t.Expiry.IsZero() || t.Issued.IsZero() {
		return
	}
	life := t.Expiry.Sub(t.Issued)
	if t.ExpiresIn > 0 && (life-t.ExpiresIn).Abs() > disagreement {
		l.note("lifetime_disagreement", "the token says it lives %s, and the token endpoint promised %s", evidence.Span(life), evidence.Span(t.ExpiresIn))
	}
	if t.Issued.After(m.Token) {
		m.Token, m.dirty = t.Issued, true
		m.Lives = append(m.Lives, life.Seconds())
		m.Lives = m.Lives[max(0, len(m.Lives)-mostLives):]
	}
	if len(m.Lives) > 1 {
		before := slices.Clone(m.Lives[:len(m.Lives)-1])
		slices.Sort(before)
		if usual := before[len(before)/2]; life.Seconds() < usual/2 {
			l.note("lifetime_shrunk", "the token lives %s; tokens lived %s before", evidence.Span(life), evidence.Span(time.Duration(usual*float64(time.Second))))
		}
	}
}
