package diagnose

import (
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

// clockRows: whose clock is wrong.
var clockRows = []row{
	{cause: ClockSkew, weight: 96, when: symptom(evidence.SymptomClockSkew)},
	{cause: NTPUnavailable, weight: 92, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomClockUnknown
	}},
	{cause: NTPFalseticker, weight: 78, when: func(f *facts) bool { return f.noted("ntp_falseticker") || f.noted("clock_voices_differ") }},
	{cause: ClockUnsynchronised, weight: 76, when: func(f *facts) bool { return f.noted("clock_unsynchronised") }},
	{cause: NTPUnavailable, weight: 74, when: func(f *facts) bool { return f.noted("ntp_unavailable") }},
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
