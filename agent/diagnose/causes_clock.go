package diagnose

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// skewed says whether the local clock is known to be so wrong that it explains what looks expired or too early.
func (f *facts) skewed() bool { return f.skewKnown && f.skew.Abs() >= noticeable }

// skewedFuture says whether the answer is about moments, and the token's moments are near the present, so that malformed
// stands for untimely.
func (f *facts) skewedFuture() bool {
	return f.all.any(of(cNotYet, cExpired)) && f.token != nil && !f.token.Issued.IsZero() && (f.ahead > 0 || f.expired)
}

// peer is what is known of the clock of the endpoint or of the issuer, by the best witness: tokens before Date headers, which
// a proxy may write.
func (f *facts) peer(names ...string) *evidence.Peer {
	for _, method := range []string{"token_iat", "http_date"} {
		for i := range f.c.World.Peers {
			p := &f.c.World.Peers[i]
			if p.Method == method && !p.Disagree && slices.Contains(names, p.Name) {
				return p
			}
		}
	}
	return nil
}

// oddClock names the party whose clock is off for certain, and by how much it is ahead: by the time servers where those are
// relied on, else two against one among us, the endpoint and the issuer. Empty: none stands out.
func (f *facts) oddClock() (culprit string, ahead time.Duration) {
	s := &f.c.Sighting
	api, idp := f.peer(s.Origin), f.peer(s.Issuer, originOf(s.Issuer))
	if originOf(s.Issuer) == s.Origin && f.atIssuer {
		api = nil
	}
	off := func(p *evidence.Peer) (ahead time.Duration, odd bool) {
		ahead = f.skew - p.Skew
		return ahead, ahead.Abs()-p.Bound > noticeable
	}
	var apiAhead, idpAhead time.Duration
	var apiOdd, idpOdd bool
	if api != nil {
		apiAhead, apiOdd = off(api)
	}
	if idp != nil {
		idpAhead, idpOdd = off(idp)
	}
	switch {
	case f.skewed():
		return "", 0
	case apiOdd && idpOdd && !f.skewKnown && (apiAhead-idpAhead).Abs() < noticeable:
		return "host", -apiAhead
	case idpOdd && (f.skewKnown || api != nil && !apiOdd):
		return "issuer:" + s.Issuer, idpAhead
	case apiOdd && (f.skewKnown || idp != nil && !idpOdd):
		return endpointOf(s), apiAhead
	}
	return "", 0
}

// freshUntimely says whether a token that was obtained for this very run, and is timely by our clock, was refused.
func (f *facts) freshUntimely() bool {
	return f.freshRefused() && bearer(f) && f.token != nil && !f.expired && f.early == 0
}

// dateAgrees says whether the endpoint's Date header shows a clock as ours.
func (f *facts) dateAgrees() bool {
	p := f.peer(f.c.Sighting.Origin)
	return p != nil && p.Method == "http_date" && (f.skew-p.Skew).Abs()+p.Bound < noticeable
}

// originOf is scheme://host:port of a URL.
func originOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return strings.ToLower(u.Scheme + "://" + u.Hostname() + ":" + port)
}

// oddClockExplains says whether a clock that is off by so much is a reason for what the server says of moments.
func (f *facts) oddClockExplains() bool {
	who, ahead := f.oddClock()
	if who == "" || !f.refused() || f.signed {
		return false
	}
	early, late := f.all.any(of(cNotYet)), f.all.any(of(cExpired))
	switch atIssuer := strings.HasPrefix(who, "issuer:"); {
	case !early && !late:
		return f.all.any(of(cTime))
	case early: // for a verifier that is behind, or by an issuer that is ahead
		return (ahead > 0) == atIssuer
	default:
		return (ahead < 0) == atIssuer
	}
}

// clockRows: whose clock is wrong.
var clockRows = []row{
	{cause: ClockSkew, weight: 96, when: symptom(evidence.SymptomClockSkew)},
	{cause: NTPUnavailable, weight: 92, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomClockUnknown
	}},
	{cause: NTPFalseticker, weight: 78, when: func(f *facts) bool { return f.noted("ntp_falseticker") || f.noted("clock_voices_differ") }},
	{cause: ClockUnsynchronised, weight: 76, when: func(f *facts) bool { return f.noted("clock_unsynchronised") }},
	{cause: NTPUnavailable, weight: 74, when: func(f *facts) bool { return f.noted("ntp_unavailable") }},
	{cause: ClockSkew, weight: 97, when: func(f *facts) bool { return f.oddClockExplains() && f.skewKnown }},
	{cause: ClockSkew, weight: 89, when: func(f *facts) bool { return f.oddClockExplains() }},
	{cause: ClockSkew, weight: 79, when: func(f *facts) bool { // refused without a word, by a clock that is off beyond the leeway
		_, ahead := f.oddClock()
		return f.refused() && f.status == 401 && f.bare && bearer(f) && ahead.Abs() > max(f.c.Sighting.Leeway, noticeable)
	}},
	{cause: ClockSkew, weight: 80, when: func(f *facts) bool { // nothing is refused yet
		return f.fault == nil && (f.noted("issuer_clock") || f.noted("endpoint_clock"))
	}},
	{cause: ClockSkew, weight: 94, when: func(f *facts) bool { // what looks untimely is explained by the clock
		return f.skewed() && !f.signed && f.refused() && (f.all.any(of(cExpired, cNotYet, cTime)) || f.expired || f.early > 0 || f.ahead > 0)
	}},
	{cause: ClockSkew, weight: 88, when: func(f *facts) bool { // an assertion that we mint by a wrong clock
		return f.skewed() && f.atIssuer && f.refused() && (f.scheme == "jwt_bearer" || f.scheme == "client_credentials" && f.token != nil)
	}},
	{cause: ClockSkew, weight: 86, any: of(cTime), not: of(cMissing), when: func(f *facts) bool {
		return !f.signed && certLess(f) && f.status != 404 && f.all.any(negative|of(cExpired, cNotYet, cLifetime)) && (bearer(f) || f.atIssuer) && f.says("clock", "skew", "timeframe", "server time", "clock skew", "clocks", "time drift")
	}},
	{cause: ClockSkew, weight: 88, when: func(f *facts) bool {
		return !f.signed && certLess(f) && f.tells("time skew", "clock skew", "clock drift", "clocks are", "clock is", "system time", "out of sync") && !f.all.any(of(cAudience, cIssuer))
	}},
	{cause: ClockSkew, weight: 88, all: of(cNotYet), not: of(cMissing, cMalformed), words: []string{"issued in the future", "issued at", "iat", "in the future", "from the future", "used too early", "used before issued", "before issued", "later than now", "is after the current"}, when: func(f *facts) bool {
		return !f.signed && certLess(f) && !f.all.any(of(cAudience, cIssuer)) && !f.says("nbf")
	}},
	{cause: ClockSkew, weight: 91, when: func(f *facts) bool { return f.offByTheClock() }},
	{cause: ClockSkew, weight: 95, when: func(f *facts) bool { // and one of both clocks is known
		return f.atIssuer && f.refused() && f.noted("assertion_untimely") && f.skewKnown
	}},
	{cause: ClockSkew, weight: 84, when: func(f *facts) bool { return f.atIssuer && f.refused() && f.noted("assertion_untimely") }},
	{cause: ClockSkew, weight: 84, when: func(f *facts) bool { return f.ahead > 0 && f.ahead < time.Hour && f.refused() }},
	{cause: ClockSkew, weight: 82, when: func(f *facts) bool {
		return f.atIssuer && f.scheme == "jwt_bearer" && f.says("reasonable timeframe", "too far in the future")
	}},
	{cause: ClockSkew, weight: 84, when: func(f *facts) bool {
		return f.scheme == "jwt_bearer" && f.says("too far in the future", "must be a numeric value representing the future time", "must be an integer representing the time")
	}},
	{cause: TokenNotYetValid, weight: 60, when: func(f *facts) bool { return f.early > 0 && f.refused() }},
}

// offByTheClock says whether the token is untimely by no more than our own clock is wrong, however little that is.
func (f *facts) offByTheClock() bool {
	const slack = 1500 * time.Millisecond // claims are whole seconds
	if !f.skewKnown || f.skew.Abs() < slack || f.signed || !f.refused() {
		return false
	}
	early := max(f.early, f.ahead)
	return early > 0 && early <= f.skew.Abs()+slack || f.expired && f.expiredFor <= f.skew.Abs()+slack
}

// clockExplains says whether a certificate that looks expired or not yet valid does so only by the local clock: ok when it
// is good at the true time, unknown when a lone voice about the time says so, and fail when the clock is no excuse.
func (f *facts) clockExplains() evidence.State {
	ch := f.c.Sighting.Report.Chain
	if ch == nil || len(ch.Certificates) == 0 {
		return evidence.Fail
	}
	for _, fc := range ch.Facets {
		if fc.AtTrueTime != "" { // the probe compared both by itself
			return fc.AtTrueTime
		}
	}
	at, leaf := f.c.Now.Add(-f.skew), ch.Certificates[0]
	switch {
	case !f.skewed() || at.Before(leaf.NotBefore) || at.After(leaf.NotAfter):
		return evidence.Fail
	case f.c.World.Clock.Confidence == evidence.Unverified:
		return evidence.Unknown
	default:
		return evidence.OK
	}
}

// worldRows: what is known only beside the answer, from other questions and other probes.
var worldRows = []row{
	// it worked, then the secret's source was changed, and now it is refused: the new one is not what the server knows
	{cause: ClientCredentialsInvalid, weight: 89, when: func(f *facts) bool { return f.newSecretRefused() && f.atIssuer && f.scheme != "refresh_token" }},
	{cause: APIKeyInvalid, weight: 89, when: func(f *facts) bool {
		return f.newSecretRefused() && !f.atIssuer && (f.scheme == "api_key" || f.scheme == "bearer" && f.token == nil)
	}},
	{cause: BasicCredentialsInvalid, weight: 89, when: func(f *facts) bool {
		return f.newSecretRefused() && !f.atIssuer && (f.scheme == "basic" || f.scheme == "digest")
	}},
	{cause: SecretUnavailable, weight: 95, when: symptom(evidence.SymptomSecret)},
	{cause: TokenExpiring, weight: 92, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomTokenLifetime && f.fault.Code == "short"
	}},
	{cause: TokenExpired, weight: 92, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomTokenLifetime && f.fault.Code == "expired" && !f.skewed()
	}},
	{cause: ClockSkew, weight: 93, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomTokenLifetime && f.skewed() && f.skew > 0
	}},
	{cause: InsufficientScope, weight: 92, when: symptom(evidence.SymptomScope)},
	{cause: TokenAudienceMismatch, weight: 91, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomRuleViolated && f.fault.Code == "audience"
	}},
	{cause: SecretRotationDue, weight: 90, when: func(f *facts) bool { return f.fault == nil && f.noted("secret_rotation_due") }},
	{cause: TokenMalformed, weight: 70, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Code == "malformed" && f.fault.Symptom == evidence.SymptomBadAnswer
	}},
	{cause: IssuerDrift, weight: 86, when: func(f *facts) bool {
		return f.fault != nil && !f.ofIssuer() && f.fault.Symptom == evidence.SymptomIssuer && (f.fault.Code == "issuer_mismatch" || f.fault.Code == "no_token_endpoint" || f.fault.Code == "insecure_endpoint")
	}},
	{cause: IDPUnavailable, weight: 84, when: func(f *facts) bool {
		return f.fault != nil && !f.ofIssuer() && f.fault.Symptom == evidence.SymptomIssuer && f.fault.Code != "issuer_mismatch" && f.fault.Code != "no_token_endpoint" && f.fault.Code != "insecure_endpoint"
	}},
	{cause: IDPUnavailable, weight: 84, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Stage == evidence.StageToken && (f.fault.Symptom == evidence.SymptomBadAnswer && f.fault.Code != "malformed" || f.fault.Symptom == evidence.SymptomRedirected || f.fault.Symptom == evidence.SymptomTooLarge)
	}},
	{cause: IDPUnavailable, weight: 93, when: func(f *facts) bool { // the issuer cannot be reached: an outage of it, for whoever needs a token
		return f.live() && f.atIssuer && f.fault != nil && (f.fault.Symptom == evidence.SymptomTimeout || f.fault.Symptom == evidence.SymptomRefused || f.fault.Symptom == evidence.SymptomClosed || f.fault.Symptom == evidence.SymptomUnreachable)
	}},
}

// newSecretRefused says whether a secret was changed after the last good run, and who shows it is refused since, by words that name no
// other reason.
func (f *facts) newSecretRefused() bool {
	return f.live() && !f.c.Sighting.LastOK.IsZero() && (f.status == 401 || f.atIssuer && f.status == 400) && f.changed("secret_file").What != "" &&
		!f.all.any(of(cExpired, cScope, cGrant, cAudience, cLocked, cDisabled, cRate, cRedirect, cInteraction))
}

// live says whether the case comes from a probe, which knows what it asked, and not from recorded evidence.
func (f *facts) live() bool { return f.c.Sighting.Probe != "" }
