package diagnose

import (
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// comparisonRows: several pieces of evidence, each of another kind, that agree. Only they and the codes of standards make a
// finding certain: what a server says in words is right 96 times in a hundred (testdata/README.md), and no more.
var comparisonRows = []row{
	// the server's words and the token's own claims, by a clock that is known to be right
	{cause: TokenExpired, weight: 95, any: of(cExpired), not: of(cRefresh, cCode, cSecret, cCert), when: func(f *facts) bool {
		return f.expired && f.clockRight() && f.refused() && api(f) && certLess(f)
	}},
	{cause: TokenNotYetValid, weight: 95, any: of(cNotYet), not: of(cCert), when: func(f *facts) bool { return f.early > noticeable && f.clockRight() && f.refused() && api(f) }},
	{cause: InsufficientScope, weight: 95, any: of(cScope, cPermission, cDenied), when: func(f *facts) bool { return api(f) && f.status == 403 && len(f.missingScopes()) > 0 }},
	{cause: InsufficientScope, weight: 91, when: func(f *facts) bool { return f.acceptedScopes() }},
	{cause: TokenAudienceMismatch, weight: 95, any: of(cAudience), when: func(f *facts) bool { return f.refused() && f.otherAudience() }},
	{cause: TokenAudienceMismatch, weight: 87, when: func(f *facts) bool {
		return f.status == 401 && f.otherAudience() && !f.expired && !f.all.any(of(cExpired, cSignature, cKid, cIssuer, cRevoked, cMalformed))
	}},

	// what the server says of the signature, and the issuer's own keys
	{cause: JWKSKeyMissing, weight: 93, when: func(f *facts) bool {
		yes, known := f.published()
		return known && !yes && f.status == 401 && bearer(f) && !f.expired
	}},
	{cause: TokenSignatureInvalid, weight: 96, when: func(f *facts) bool {
		return f.status == 401 && f.token != nil && f.token.Signature == evidence.SignatureInvalid
	}},
	{cause: TokenSignatureInvalid, weight: 94, when: func(f *facts) bool {
		return f.status == 401 && f.token != nil && f.token.Format == "jwt" && f.token.Signature == evidence.SignatureNone
	}},
	{cause: StaleJWKSAtAPI, weight: 95, any: of(cSignature, cKid), when: func(f *facts) bool { return f.goodByItsIssuer() }},
	{cause: StaleJWKSAtAPI, weight: 80, when: func(f *facts) bool { // a terse refusal of a token that is good by its issuer, after the keys changed
		return f.goodByItsIssuer() && f.changed("token_kid", "jwks").What != "" && !f.all.any(of(cAudience, cIssuer, cExpired, cScope, cRevoked, cUser, cClient))
	}},
	{cause: StaleJWKSAtAPI, weight: 92, any: of(cKid, cSignature), when: func(f *facts) bool { // never verified by us, but it worked with the key before
		yes, known := f.published()
		return known && yes && f.status == 401 && bearer(f) && f.blameless() && f.changed("token_kid", "jwks").What != ""
	}},
	{cause: TokenRevoked, weight: 94, when: func(f *facts) bool { // its own server says that it is no longer active, and it is not past its end
		return f.status == 401 && bearer(f) && f.token != nil && f.token.Active == evidence.Fail && !f.expired && f.early == 0
	}},
	{cause: TokenRevoked, weight: 72, when: func(f *facts) bool { // good by all we can check, and the fresh one is let in
		return f.goodByItsIssuer() && f.asked(evidence.WithFreshGrant) != nil && !f.freshRefused()
	}},

	// the clocks: a token fresh from the issuer that is untimely for the API
	{cause: ClockSkew, weight: 92, any: of(cExpired, cNotYet), not: of(cRefresh, cCode, cSecret, cCert, cAudience, cIssuer), when: func(f *facts) bool {
		return f.freshUntimely() && !f.dateAgrees()
	}},
	{cause: ClockSkew, weight: 86, any: of(cExpired, cNotYet), not: of(cRefresh, cCode, cSecret, cCert, cAudience, cIssuer), when: func(f *facts) bool {
		return f.freshUntimely() // and its Date is right: a proxy may write that, so that the clock behind it is suspected only
	}},

	{cause: ClockSkew, weight: 95, when: func(f *facts) bool { return f.bornExpired() && !f.skewed() }},
	{cause: ClockSkew, weight: 97, when: func(f *facts) bool { return f.clockIs(clockConfirmed) && !f.signed && !f.expired }},
	{cause: ClockSkew, weight: 85, when: func(f *facts) bool { return f.clockIs(clockSuspected) && !f.signed && !f.expired }},
	{cause: RequestTimestampSkew, weight: 96, when: func(f *facts) bool { return f.clockIs(clockConfirmed) && f.signed }},

	// what was answered to who had nothing to show
	{cause: HeaderStripped, weight: 86, when: func(f *facts) bool { return f.sameWithout() }},
	{cause: HeaderStripped, weight: 91, when: func(f *facts) bool { // it says that nothing came, and says the same when nothing came
		return f.status == 401 && bearer(f) && (f.offered == "" || f.offered == "bearer") && f.saysNothingCame() && sameAnswer(f.x, f.asked(evidence.WithoutGrant))
	}},
	{cause: BlockedByGateway, weight: 91, when: func(f *facts) bool { // whoever asks, for whatever
		return f.status == 403 && f.everywhere() && sameAnswer(f.x, f.asked(evidence.WithoutGrant))
	}},
	{cause: BlockedByGateway, weight: 84, when: func(f *facts) bool { return f.status == 403 && f.everywhere() }},
	{cause: PermissionDenied, weight: 80, when: func(f *facts) bool { // known, and not allowed: a stranger is told to log in
		w := f.asked(evidence.WithoutGrant)
		return f.status == 403 && w != nil && w.Status == 401 && !f.all.any(of(cScope, cCSRF, cIP))
	}},
	{cause: EndpointNotFound, weight: 91, when: func(f *facts) bool { return f.status == 404 && f.everywhere() }},
	{cause: EndpointNotFound, weight: 91, when: func(f *facts) bool { return f.status == 405 && f.methodMissing() }},

	// who sent nothing is asked for something
	{cause: MissingCredentials, weight: 93, any: of(cMissing, cAnonymous), not: of(cGateway, cCSRF, cIP, cRate, cCert, cClientCert), when: func(f *facts) bool {
		return f.scheme == "none" && f.status == 401 && !f.atIssuer && f.all.any(of(cToken, cHeader, cCredential, cKey, cAnonymous, cUser))
	}},
	// too many, and it says when to come back
	{cause: RateLimited, weight: 97, when: func(f *facts) bool {
		return f.status == 429 && f.x != nil && (f.x.RetryAfter > 0 || len(f.x.Header["Retry-After"]) > 0) && !f.all.any(of(cLocked, cPassword, cLogin))
	}},
}

// goodByItsIssuer says whether the API refused a token whose signature is good by the key that its issuer publishes now, and
// with which nothing else is wrong that we could see.
func (f *facts) goodByItsIssuer() bool {
	return f.status == 401 && bearer(f) && f.blameless() && f.token.Signature == evidence.SignatureValid
}

// acceptedScopes says whether the server names scopes that it accepts and the token has none of them (GitHub: X-OAuth-Scopes).
func (f *facts) acceptedScopes() bool {
	if f.x == nil || (f.status != 403 && f.status != 404) || len(f.x.Header["X-Accepted-Oauth-Scopes"]) == 0 || len(f.x.Header["X-Oauth-Scopes"]) == 0 {
		return false
	}
	has := strings.Split(f.x.Header["X-Oauth-Scopes"][0], ",")
	wants := false
	for want := range strings.SplitSeq(f.x.Header["X-Accepted-Oauth-Scopes"][0], ",") {
		if want = strings.TrimSpace(want); want == "" {
			continue
		}
		wants = true
		for _, h := range has {
			if strings.TrimSpace(h) == want {
				return false
			}
		}
	}
	return wants
}

// methodMissing says whether the server names the methods that it allows, and the one that was used is not among them.
func (f *facts) methodMissing() bool {
	for _, x := range []*evidence.Exchange{f.x, f.asked(evidence.OtherMethod)} {
		if x == nil || len(x.Header["Allow"]) == 0 {
			continue
		}
		for m := range strings.SplitSeq(x.Header["Allow"][0], ",") {
			if strings.TrimSpace(m) == f.x.Method {
				return false
			}
		}
		return true
	}
	return false
}
