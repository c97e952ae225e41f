package diagnose

import "time"

var negative = of(cInvalid, cMismatch, cDenied, cNotFound, cUnsupported, cMissing, cMalformed)

// doubt are clauses that name several causes at once ("invalid, expired or revoked"), and so none.
func doubtful(f *facts) bool {
	for _, cl := range f.words.clauses {
		n := 0
		for _, c := range []concept{cExpired, cRevoked, cInvalid, cMissing, cMalformed} {
			if cl.set.has(of(c)) {
				n++
			}
		}
		if n >= 2 && cl.set.any(of(cInvalid, cMissing)) && !cl.set.has(of(cInvalid, cMalformed)) && !(n == 2 && (cl.set.has(of(cMissing, cMalformed)) || cl.set.has(of(cRevoked)) && holdsWords(cl.text, "because"))) && holdsWords(cl.text, "or") && cl.set.any(of(cCredential, cHeader, cToken, cKey)) {
			return true
		}
		if n >= 2 && cl.set.has(of(cExpired)) && (cl.set.any(of(cInvalid, cRevoked))) && (holdsWords(cl.text, "or") || n >= 3) && !cl.set.any(of(cRefresh, cCode)) {
			return true
		}
	}
	return false
}

func api(f *facts) bool    { return !f.atIssuer }
func issuer(f *facts) bool { return f.atIssuer }
func bearer(f *facts) bool {
	return f.scheme == "bearer" || f.scheme == "dpop" || f.scheme == "jwt_bearer"
}
func sure(f *facts) bool     { return !doubtful(f) }
func noTLS(f *facts) bool    { return !f.tls }
func certLess(f *facts) bool { return !f.tls && !f.all.any(of(cClientCert)) }

// answered says whether the words are about what was sent, and not about a connection that failed.
func answered(f *facts) bool {
	return noTLS(f) && !(f.fromClient() && f.all.any(of(cRefusedConn, cTimeout, cNoHost, cReset)))
}

// tokenRows: what is wrong with a token.
var tokenRows = []row{
	{cause: TokenExpired, weight: 84, all: of(cExpired), any: of(cToken, cSession, cKey, cCredential), not: of(cRefresh, cCode, cSecret, cCert, cSubscription, cPassword, cNotYet, cTime, cMissing), when: func(f *facts) bool { return sure(f) && noTLS(f) && !f.signed }},
	{cause: TokenExpired, weight: 86, all: of(cExpired, cToken), not: of(cRefresh, cCode, cSecret, cSubscription, cPassword, cMalformed, cMissing), when: func(f *facts) bool { return sure(f) && certLess(f) && !f.skewed() }},
	{cause: TokenExpired, weight: 78, all: of(cKey, cExpired), not: of(cRefresh, cSubscription, cMissing, cSignature), when: func(f *facts) bool { return sure(f) && certLess(f) && api(f) && !f.signed && f.refused() }},
	{cause: TokenExpired, weight: 70, all: of(cExpired), not: of(cRefresh, cCode, cSecret, cCert, cSubscription, cPassword, cNotYet, cTime, cUser, cTimeout), when: func(f *facts) bool {
		return sure(f) && certLess(f) && api(f) && !f.signed && f.status < 502
	}},
	{cause: TokenExpired, weight: 88, when: func(f *facts) bool {
		return f.expired && (bearer(f) || f.scheme == "") && f.refused() && api(f) && !f.all.any(of(cAudience, cIssuer, cAlgorithm, cScope)) && !f.skewed()
	}},
	{cause: TokenExpired, weight: 83, all: of(cExpired), any: of(cTime, cToken), not: of(cRefresh, cCode, cSecret), when: func(f *facts) bool {
		return issuer(f) && sure(f) && (f.scheme == "client_credentials" || f.scheme == "jwt_bearer") && !f.skewed()
	}},
	{cause: TokenExpired, weight: 72, all: of(cSession), any: of(cExpired, cInvalid), not: of(cMissing), when: func(f *facts) bool { return api(f) && sure(f) }},
	{cause: TokenExpired, weight: 88, all: of(cExpired, cSignature), not: of(cRefresh, cCode, cSecret, cCert), when: func(f *facts) bool { return !f.signed && certLess(f) && api(f) && !f.skewed() }}, // "Signature has expired": PyJWT, ruby-jwt
	{cause: TokenExpired, weight: 85, any: of(cInvalid, cExpired), words: []string{"exp claim", "claim exp", "exp check", "exp claim timestamp"}, not: of(cMissing, cMalformed, cLifetime), when: func(f *facts) bool { return !f.skewed() && f.token == nil || f.expired }},
	{cause: TokenMalformed, weight: 87, all: of(cMissing), when: func(f *facts) bool { return bearer(f) && api(f) && f.insideToken() }},
	{cause: TokenMalformed, weight: 82, all: of(cMalformed), when: func(f *facts) bool { return bearer(f) && api(f) && f.says("claim", "claims", "payload") }},
	{cause: TokenSignatureInvalid, weight: 80, all: of(cSignature), any: of(cMissing, cInvalid, cNotFound), when: func(f *facts) bool { return issuer(f) && f.scheme == "jwt_bearer" }},
	{cause: TokenNotYetValid, weight: 80, all: of(cNotYet), any: of(cToken, cInvalid, cTime, cDenied), not: of(cMalformed), when: func(f *facts) bool {
		return certLess(f) && !f.signed && !f.skewed() && !f.says("iat", "issued at", "issued in the future")
	}},
	{cause: TokenNotYetValid, weight: 78, when: func(f *facts) bool { return f.early > 5*time.Minute && f.refused() && !f.skewed() }},
	{cause: TokenAudienceMismatch, weight: 88, all: of(cAudience), any: negative | of(cTooMany, cExpired), not: of(cCert), when: noTLS},
	{cause: TokenAudienceMismatch, weight: 80, all: of(cToken), any: of(cMismatch), not: of(cUser, cRefresh, cCode, cSignature, cIssuer, cTime, cRegion, cScheme), when: func(f *facts) bool {
		return f.says("not for this", "intended for", "not issued for", "not meant", "meant for", "not made for", "issued for", "not intended", "for another", "not for", "minted for", "different client")
	}},
	{cause: TokenAudienceMismatch, weight: 86, when: func(f *facts) bool { return f.says("invalid target", "intended for", "not intended for") }},
	{cause: TokenAudienceMismatch, weight: 75, all: of(cResource, cNotFound), when: func(f *facts) bool { return issuer(f) && f.scheme == "client_credentials" && f.status != 404 }},
	{cause: TokenIssuerMismatch, weight: 88, all: of(cIssuer), any: negative, not: of(cCert, cMissing, cUntrusted, cSelfSigned), when: answered},
	{cause: TokenIssuerMismatch, weight: 86, all: of(cIssuer, cNotFound), not: of(cCert), when: answered},
	{cause: TokenIssuerMismatch, weight: 82, all: of(cIssuer), any: of(cUntrusted), when: answered},
	{cause: TokenAlgorithmUnsupported, weight: 86, all: of(cAlgorithm), any: of(cInvalid, cUnsupported, cMismatch, cDenied), not: of(cKid, cCert, cMalformed), when: noTLS},
	{cause: TokenSignatureInvalid, weight: 86, all: of(cSignature), any: of(cInvalid, cMismatch, cNotFound, cUntrusted), not: of(cAlgorithm, cCert, cClient), when: func(f *facts) bool {
		return !f.signed && noTLS(f) && (bearer(f) || f.scheme == "" || f.all.any(of(cToken))) && !f.says("in the form of")
	}},
	{cause: TokenSignatureInvalid, weight: 87, all: of(cKid), any: of(cInvalid, cNotFound, cMismatch, cMissing, cUnsupported), not: of(cProvider, cUnavailable), when: func(f *facts) bool {
		return bearer(f) && noTLS(f) && !f.all.any(of(cUnavailable)) && !f.says("api key")
	}},
	{cause: TokenSignatureInvalid, weight: 74, when: func(f *facts) bool {
		return bearer(f) && (f.says("jwt verification fails", "jws error", "could not verify jwt", "verification of the token", "failed to verify the token", "wrong key type", "token verification failed", "jwt verification failed", "invalid jwt signature") && !f.all.any(of(cExpired, cAudience, cIssuer)))
	}},
	{cause: TokenMalformed, weight: 80, all: of(cMalformed), any: of(cToken, cCredential, cHeader, cExpired, cNotYet, cIssuer, cAudience), not: of(cScheme, cCert, cRequest), when: func(f *facts) bool { return noTLS(f) && f.scheme != "api_key" && !f.skewedFuture() }},
	{cause: TokenMalformed, weight: 64, all: of(cMalformed), not: of(cCert, cRequest, cScheme), when: func(f *facts) bool {
		return noTLS(f) && bearer(f) && (f.refused() || f.status == 400 || f.status == 422)
	}},
	{cause: TokenMalformed, weight: 83, all: of(cMissing), any: of(cIssuer, cExpired, cNotYet, cAlgorithm, cKid), not: of(cProvider, cCert, cHeader, cNotFound), when: func(f *facts) bool { return bearer(f) && noTLS(f) }},
	{cause: TokenExpired, weight: 84, all: of(cLifetime, cTooMany), not: of(cRefresh, cCode), when: func(f *facts) bool {
		return bearer(f) && noTLS(f) && api(f) && !f.skewed() && (f.token == nil || f.expired)
	}},
	{cause: TokenMalformed, weight: 86, any: of(cLifetime, cTooMany), words: []string{"exp", "expiration", "lifetime"}, when: func(f *facts) bool {
		return bearer(f) && f.token != nil && f.token.Expiry.After(f.c.Now) && f.says("maximum", "exceeds", "too long", "too far", "longer than")
	}}, // it lasts longer than is allowed
	{cause: TokenNotYetValid, weight: 86, any: of(cNotYet, cExpired, cInvalid), words: []string{"nbf"}, not: of(cMissing, cMalformed), when: func(f *facts) bool { return bearer(f) && !f.skewed() }},
	{cause: TokenMalformed, weight: 85, all: of(cLifetime), not: of(cRefresh, cTime, cExpired, cTooMany, cMismatch), when: func(f *facts) bool { return !f.all.any(of(cExpired, cNotYet)) && bearer(f) && noTLS(f) && api(f) }},
	{cause: TokenMalformed, weight: 88, when: func(f *facts) bool {
		return f.says("token has no expiration", "no expiration", "claim is missing", "missing claim", "missing required claim", "claims are missing", "lacks claim", "required claim")
	}},
	{cause: TokenMalformed, weight: 86, when: func(f *facts) bool { return bearer(f) && f.claimMissing() }},
	{cause: TokenMalformed, weight: 60, all: of(cHeader, cInvalid), not: of(cExpired), when: func(f *facts) bool { return bearer(f) && api(f) && f.status != 200 }},
	{cause: TokenRevoked, weight: 76, all: of(cUser, cNotFound), not: of(cPermission, cResource), when: func(f *facts) bool { return bearer(f) && api(f) && noTLS(f) && (f.status == 401 || f.status == 403) }},
	{cause: TokenRevoked, weight: 87, all: of(cRevoked), not: of(cClient, cCert, cSubscription), when: func(f *facts) bool { return noTLS(f) && sure(f) }},
	{cause: TokenExpired, weight: 87, all: of(cSession, cExpired), not: of(cMissing, cRefresh), words: []string{"or"}, when: api},                                             // "session expired or invalid": sessions end by themselves
	{cause: TokenRevoked, weight: 84, all: of(cRevoked, cUser), not: of(cCert, cSubscription, cResource), when: func(f *facts) bool { return api(f) && noTLS(f) && sure(f) }}, // the user took it back from the client
	{cause: TokenRevoked, weight: 80, all: of(cToken, cDisabled), not: of(cUser, cClient, cSubscription, cScope, cPermission, cResource, cMissing), when: func(f *facts) bool { return bearer(f) && api(f) && noTLS(f) && sure(f) }},
	{cause: TokenRevoked, weight: 85, when: func(f *facts) bool { return f.hasCode("token revoked", "revoked token", "session revoked") }},
	{cause: TokenMalformed, weight: 66, when: func(f *facts) bool {
		return f.token != nil && (len(f.token.Problems) > 0 || f.token.ID) && f.refused() && api(f)
	}},
	{cause: UnknownUnauthorized, weight: 71, prose: true, all: of(cToken, cInvalid), not: of(cHeader, cExpired, cRevoked, cMalformed, cAudience, cIssuer, cSignature, cKey, cScope, cMissing), when: func(f *facts) bool { // it says that the token is bad, and no more
		return (bearer(f) || f.scheme == "session") && api(f) && noTLS(f) && (f.status == 401 || f.status >= 500) && !f.all.any(of(cExpired, cRevoked, cMalformed, cAudience, cIssuer, cSignature, cKid))
	}},
	{cause: TokenExpired, weight: 82, any: negative | of(cNotYet), words: []string{"exp"}, not: of(cMissing, cMalformed), when: func(f *facts) bool { return bearer(f) && api(f) && !f.skewed() }},
	{cause: UnknownUnauthorized, weight: 63, all: of(cToken, cInvalid), not: of(cHeader, cExpired, cRevoked, cMalformed, cAudience, cIssuer, cSignature, cKey), when: func(f *facts) bool { return bearer(f) && api(f) && noTLS(f) }},
	{cause: TokenRevoked, weight: 74, when: func(f *facts) bool { return f.words.fields["active"] == "false" && !f.expired }},
	{cause: TokenExpired, weight: 84, when: func(f *facts) bool { return f.words.fields["active"] == "false" && f.expired && !f.skewed() }},
	{cause: UnknownUnauthorized, weight: 86, when: func(f *facts) bool {
		return doubtful(f) && !f.expired && (bearer(f) || f.scheme == "api_key") && api(f)
	}},
}

// insideToken says whether something is missed within the token, so that the token came.
func (f *facts) insideToken() bool {
	for _, cl := range f.words.clauses {
		if !cl.set.has(of(cMissing)) || cl.set.any(of(cScope, cPermission)) {
			continue
		}
		for _, place := range []string{"in jwt", "in the jwt", "in token", "in the token", "in access token", "in the access token", "in payload", "in claims", "from token", "from the token", "from jwt", "in assertion", "in the assertion"} {
			if holdsWords(cl.text, place) {
				return true
			}
		}
	}
	return false
}

// claimMissing says whether the server misses a claim of the token.
func (f *facts) claimMissing() bool {
	for _, cl := range f.words.clauses {
		if cl.set.has(of(cMissing)) && (holdsWords(cl.text, "claim") || holdsWords(cl.text, "claims")) && !cl.set.any(of(cScope, cPermission, cResource)) {
			return true
		}
	}
	return false
}
