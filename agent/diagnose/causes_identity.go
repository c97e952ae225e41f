package diagnose

import (
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

func scheme(names ...string) func(*facts) bool {
	return func(f *facts) bool {
		for _, n := range names {
			if f.scheme == n {
				return true
			}
		}
		return false
	}
}

func unsent(f *facts) bool { return f.scheme == "none" || f.scheme == "" }

// protocolRows: error codes of the standards, each with what its standard says of it.
var protocolRows = []row{
	// RFC 6749 section 5.2
	{cause: ClientCredentialsInvalid, weight: 78, when: func(f *facts) bool { return f.hasCode("invalid client") }},
	{cause: GrantNotAllowed, weight: 72, when: func(f *facts) bool { return f.hasCode("unauthorized client") }},
	{cause: GrantNotAllowed, weight: 90, when: func(f *facts) bool { return f.hasCode("unsupported grant type", "unsupported response type") }},
	{cause: InvalidScope, weight: 90, when: func(f *facts) bool { return f.hasCode("invalid scope") }},
	{cause: InvalidGrantExpired, weight: 72, when: func(f *facts) bool {
		return f.hasCode("invalid grant") && f.scheme != "basic" && f.scheme != "password" && f.scheme != "jwt_bearer"
	}},
	{cause: BasicCredentialsInvalid, weight: 70, when: func(f *facts) bool {
		return f.hasCode("invalid grant") && (f.scheme == "basic" || f.scheme == "password")
	}},
	// RFC 6749 section 5.2 and RFC 7521 section 4.1: what was shown is at fault (code, token, assertion, password), and not
	// the right to show it, whatever else the sentence says.
	{cause: ClientCredentialsInvalid, weight: 87, when: badGrant("jwt_bearer")},
	{cause: InvalidGrantExpired, weight: 87, when: badGrant("refresh_token", "authorization_code")},
	{cause: BasicCredentialsInvalid, weight: 87, when: badGrant("password")},
	{cause: BasicCredentialsInvalid, weight: 93, when: func(f *facts) bool { // a login that leads back to the login form
		return f.scheme == "session" && faultCode(evidence.SymptomTokenRefused, "login_again", "no_cookie", "401", "403")(f)
	}},
	{cause: UnknownUnauthorized, weight: 50, when: func(f *facts) bool { return f.hasCode("invalid grant") && f.scheme == "jwt_bearer" }},
	{cause: IDPUnavailable, weight: 86, when: func(f *facts) bool { return f.hasCode("temporarily unavailable", "server error") && issuer(f) }},
	{cause: PermissionDenied, weight: 62, when: func(f *facts) bool { return f.hasCode("access denied") }},
	{cause: RateLimited, weight: 88, when: func(f *facts) bool { return f.hasCode("slow down") }},
	{cause: ClientCredentialsInvalid, weight: 64, when: func(f *facts) bool {
		return f.hasCode("access denied") && issuer(f) && f.scheme == "client_credentials" && f.status == 401
	}},
	{cause: InteractionRequired, weight: 92, when: func(f *facts) bool { // OpenID Connect Core section 3.1.2.6, RFC 9470
		return f.hasCode("interaction required", "consent required", "mfa required", "account selection required", "insufficient user authentication", "authorization pending") || f.hasCode("login required") && issuer(f)
	}},
	{cause: InteractionRequired, weight: 94, when: func(f *facts) bool { // RFC 9470: the token is good, the login behind it too weak or too old
		return f.words.fields["step_up"] == "true" && (f.status == 401 || f.status == 403)
	}},
	// RFC 7616 section 3.3: name and password are right, the nonce is too old, again and again
	{cause: ServerError, weight: 78, when: func(f *facts) bool {
		return f.words.fields["stale"] == "true" && f.status == 401 && f.scheme == "digest"
	}},
	// beyond the standards: IIS 440 Login Time-out, ArcGIS 498 invalid token and 499 token required, Laravel 419 page expired
	{cause: TokenExpired, weight: 62, when: func(f *facts) bool { return f.status == 440 || f.status == 498 }},
	{cause: MissingCredentials, weight: 62, when: func(f *facts) bool { return f.status == 499 }},
	{cause: BlockedByGateway, weight: 88, when: func(f *facts) bool {
		return f.status == 419 && !f.all.any(of(cToken, cSession)) || f.says("page expired")
	}},
	// RFC 6585 section 6
	{cause: LoginPage, weight: 92, when: func(f *facts) bool { return f.status == 511 }},
	// RFC 6750 section 3.1
	{cause: InsufficientScope, weight: 94, when: func(f *facts) bool { return f.hasCode("insufficient scope") }},
	{cause: UnknownUnauthorized, weight: 45, when: func(f *facts) bool { return f.hasCode("invalid token") }},
	// RFC 9449
	{cause: RequestSignatureInvalid, weight: 90, when: func(f *facts) bool { return f.hasCode("use dpop nonce", "invalid dpop proof") }},
	// RFC 8628, RFC 7521
	{cause: TokenExpired, weight: 86, when: func(f *facts) bool {
		return f.hasCode("expired token", "token expired", "jwt expired", "access token expired") && f.scheme != "refresh_token"
	}},
	{cause: RedirectURIMismatch, weight: 93, when: func(f *facts) bool { return f.hasCode("redirect uri mismatch", "invalid redirect uri") }},
}

// badGrant is invalid_grant without a reason, for a grant of one of these types.
func badGrant(schemes ...string) func(*facts) bool {
	return func(f *facts) bool {
		return scheme(schemes...)(f) && issuer(f) && f.hasCode("invalid grant") && f.says("grant request is invalid")
	}
}

// identityRows: who asks, and what it may.
var identityRows = []row{
	{cause: MissingCredentials, weight: 91, when: func(f *facts) bool { return f.live() && f.scheme == "none" && f.status == 401 && !f.atIssuer }}, // whatever it says: nothing was sent
	{cause: MissingCredentials, weight: 88, when: func(f *facts) bool { return f.scheme == "none" && f.status == 401 && !f.atIssuer }},
	{cause: MissingCredentials, weight: 82, when: func(f *facts) bool { return f.scheme == "none" && f.status == 401 }},
	{cause: MissingCredentials, weight: 70, when: func(f *facts) bool {
		return f.scheme == "none" && f.status == 403 && !f.all.any(of(cGateway, cCSRF, cIP, cRate))
	}},
	{cause: MissingCredentials, weight: 85, when: func(f *facts) bool {
		return f.scheme == "none" && (f.status == 401 || f.status == 403) && f.says("login required", "log in", "sign in", "login", "authenticate", "authenticated", "logged in") && !f.words.html
	}},
	{cause: UnknownUnauthorized, weight: 63, any: of(cDenied), when: func(f *facts) bool { return bearer(f) && f.deniesWho() }},
	{cause: MissingCredentials, weight: 84, all: of(cMissing), any: of(cToken, cHeader, cCredential, cKey, cSession, cUser), not: of(cPermission, cScope, cExpired, cIssuer, cAudience, cAlgorithm, cCert, cClient, cTime, cSignature, cGrant, cInvalid, cRate, cRedirect, cRevoked, cInteraction, cNotFound, cCode, cIP), when: func(f *facts) bool {
		return certLess(f) && f.scheme != "refresh_token" && !f.insideToken() && !f.saysInvalid()
	}},
	{cause: MissingCredentials, weight: 66, all: of(cMissing), any: of(cToken, cHeader, cCredential, cKey), not: of(cPermission, cScope, cExpired, cIssuer, cAudience, cCert, cInteraction), when: func(f *facts) bool { return certLess(f) && unsent(f) }},
	{cause: MissingCredentials, weight: 84, any: of(cAnonymous), when: func(f *facts) bool {
		return certLess(f) && f.scheme != "basic" && (unsent(f) || f.says("anonymous", "without authentication", "callers")) && !f.words.html
	}},
	{cause: MissingCredentials, weight: 80, all: of(cNotFound), any: of(cHeader), when: certLess},
	{cause: MissingCredentials, weight: 73, all: of(cMissing), any: of(cRefresh, cCode, cPassword, cSecret), not: of(cExpired, cInvalid, cClient), when: issuer},
	{cause: MissingCredentials, weight: 74, all: of(cNotFound), any: of(cToken), not: of(cUser, cRefresh, cCode, cClient), when: func(f *facts) bool { return unsent(f) && f.status != 404 }},
	{cause: MissingCredentials, weight: 76, all: of(cMissing), any: of(cSecret, cKey), not: of(cExpired, cPermission, cScope), when: func(f *facts) bool { return api(f) && certLess(f) && !f.signed && !f.saysInvalid() }},
	{cause: MissingCredentials, weight: 68, when: func(f *facts) bool {
		return f.status == 403 && f.tells("requires authentication", "require authentication", "authentication is required", "authentication required", "must be authenticated")
	}},
	{cause: MissingCredentials, weight: 75, all: of(cNotFound), words: []string{"jwt"}, not: of(cKid, cUser, cSignature), when: api}, // a token that carries everything is not looked up
	{cause: MissingCredentials, weight: 66, when: func(f *facts) bool {
		return f.status == 401 && f.bare && (f.scheme == "bearer" && f.offered == "bearer") && !f.expired && !f.all.any(negative|of(cExpired, cRevoked))
	}},
	{cause: WrongAuthScheme, weight: 72, when: func(f *facts) bool {
		return f.status == 401 && f.offered != "" && f.offered != "several" && !sameScheme(f.scheme, f.offered) && !unsent(f) && !f.signed && f.bare
	}},
	{cause: WrongAuthScheme, weight: 82, all: of(cBasic, cMissing), when: func(f *facts) bool { return f.scheme != "basic" && !unsent(f) && f.status == 401 }},
	{cause: WrongAuthScheme, weight: 86, when: func(f *facts) bool { // it offers one scheme, which another than what was sent can never satisfy
		return f.status == 401 && (f.offered == "digest" || f.offered == "negotiate" || f.offered == "ntlm" || f.offered == "basic") && (f.scheme == "basic" || f.scheme == "bearer" || f.scheme == "digest") && !sameScheme(f.scheme, f.offered)
	}},
	{cause: WrongAuthScheme, weight: 84, all: of(cScheme), any: negative, not: of(cGrant, cClient, cSignature), when: noTLS},
	{cause: WrongAuthScheme, weight: 70, any: of(cToken, cRefresh, cCredential, cScheme), words: []string{"only"}, not: of(cScope, cExpired, cUser, cResource), when: func(f *facts) bool { return api(f) && f.says("allowed", "accepted", "supported", "can be used") }},
	{cause: WrongAuthScheme, weight: 74, any: of(cCredential, cHeader, cClient, cPermission, cToken), when: func(f *facts) bool { // RFC 6749 section 5.2, RFC 6750 section 2: one way only
		return f.status == 400 && f.says("more than one", "multiple", "both", "body and headers", "headers and body", "header and body", "body and header", "two ways", "several ways")
	}},
	{cause: WrongAuthScheme, weight: 80, when: func(f *facts) bool {
		return f.scheme == "basic" && f.all.any(of(cUnsupported)) && f.all.any(of(cPassword, cBasic)) && !f.says("not accepted")
	}},
	{cause: WrongAuthScheme, weight: 79, all: of(cHeader, cMalformed), when: func(f *facts) bool { return f.scheme == "api_key" }},
	{cause: WrongAuthScheme, weight: 81, all: of(cBearer, cMalformed), when: func(f *facts) bool { return f.scheme == "bearer" && f.status == 400 }},
	{cause: WrongAuthScheme, weight: 72, all: of(cUnsupported), any: of(cToken, cCredential, cKey), not: of(cAlgorithm, cGrant, cAudience, cIssuer, cExpired, cNotYet, cRefresh, cScope), when: func(f *facts) bool { return api(f) && sure(f) }},

	{cause: APIKeyInvalid, weight: 83, all: of(cKey), any: of(cInvalid, cNotFound, cMismatch), not: of(cKid, cSignature, cMissing, cTime, cAlgorithm, cSecret), when: noTLS},
	{cause: APIKeyInvalid, weight: 76, all: of(cKey), any: of(cInvalid, cNotFound), when: func(f *facts) bool { return noTLS(f) && !f.signed && f.scheme == "api_key" }},
	{cause: APIKeyInvalid, weight: 74, any: of(cInvalid, cNotFound), not: of(cPermission, cScope, cRegion, cCSRF, cIP, cMissing, cHeader), when: func(f *facts) bool { return f.scheme == "api_key" && f.refused() && sure(f) }},
	{cause: APIKeyInvalid, weight: 75, all: of(cKey, cSecret), any: of(cInvalid, cNotFound, cMismatch), not: of(cMissing, cExpired), when: func(f *facts) bool { return api(f) && noTLS(f) }},
	{cause: APIKeyInvalid, weight: 78, all: of(cKey, cMissing, cInvalid), not: of(cSignature, cTime, cScope, cPermission), when: func(f *facts) bool { return api(f) && certLess(f) && !unsent(f) && !bearer(f) && !f.signed }}, // missing or invalid: it was sent
	{cause: APIKeyInvalid, weight: 56, when: func(f *facts) bool { return f.scheme == "api_key" && f.status == 401 }},
	{cause: APIKeyInvalid, weight: 80, when: func(f *facts) bool {
		return f.says("invalid client token id", "invalid access key id", "security token included in the request is invalid", "unrecognized client", "acl not found")
	}},
	{cause: APIKeyInvalid, weight: 58, all: of(cCredential), any: of(cInvalid), when: func(f *facts) bool { return f.scheme == "bearer" && api(f) && sure(f) }},

	{cause: BasicCredentialsInvalid, weight: 83, all: of(cPassword), any: of(cInvalid, cMismatch), when: func(f *facts) bool { return noTLS(f) && f.scheme != "mtls" }},
	{cause: BasicCredentialsInvalid, weight: 78, all: of(cCredential), any: of(cInvalid), when: scheme("basic", "digest", "session")},
	{cause: BasicCredentialsInvalid, weight: 77, all: of(cUser), any: of(cInvalid, cNotFound), not: of(cPermission, cDisabled, cLocked, cResource), when: scheme("basic", "digest", "session")},
	{cause: BasicCredentialsInvalid, weight: 60, when: func(f *facts) bool {
		return (f.scheme == "basic" || f.scheme == "digest") && f.status == 401
	}},
	{cause: BasicCredentialsInvalid, weight: 64, any: of(cInvalid), not: of(cKey), when: func(f *facts) bool {
		return (f.scheme == "basic" || f.scheme == "digest") && (f.status == 401 || issuer(f) && (f.status == 400 || f.words.failed)) && f.all.any(of(cUser, cCredential, cLogin, cPassword))
	}},

	{cause: ClientCredentialsInvalid, weight: 83, all: of(cSecret), any: of(cInvalid, cMismatch), not: of(cExpired)},
	{cause: ClientCredentialsInvalid, weight: 83, all: of(cSecret, cMissing), not: of(cExpired), when: issuer},
	{cause: ClientCredentialsInvalid, weight: 82, all: of(cClient), any: of(cInvalid, cNotFound, cMismatch), not: of(cGrant, cRedirect, cScope, cPermission, cResource, cUnsupported, cExpired, cTooMany), when: func(f *facts) bool { return issuer(f) && noTLS(f) }},
	{cause: ClientCredentialsInvalid, weight: 80, all: of(cCredential), any: of(cInvalid), when: func(f *facts) bool { return f.scheme == "client_credentials" || f.atIssuer && f.scheme == "mtls" }},
	{cause: ClientCredentialsInvalid, weight: 74, all: of(cClient), any: of(cInvalid, cNotFound, cMismatch), not: of(cPermission, cResource, cCert), when: func(f *facts) bool {
		return !f.signed && noTLS(f) && f.scheme != "mtls" && !(bearer(f) && api(f) && f.all.any(of(cToken)) && !f.all.any(of(cMismatch)))
	}},
	{cause: ClientCredentialsInvalid, weight: 55, when: func(f *facts) bool { return f.scheme == "client_credentials" && f.status == 401 }},
	{cause: ClientCredentialsInvalid, weight: 62, all: of(cPermission, cNotFound), when: issuer},
	{cause: ClientCredentialsInvalid, weight: 88, all: of(cNonce), any: of(cUsed), when: issuer},
	{cause: ClientSecretExpired, weight: 91, all: of(cSecret, cExpired), when: noTLS},

	{cause: ClientDisabled, weight: 85, all: of(cDisabled), any: of(cUser, cClient, cSubscription, cKey, cCredential), not: of(cGrant, cResource, cIP, cPassword), when: noTLS},
	{cause: ClientDisabled, weight: 74, all: of(cDisabled), not: of(cGrant, cToken, cScope, cIP, cUsed, cPassword), when: func(f *facts) bool { return noTLS(f) && f.refused() }},
	{cause: ClientDisabled, weight: 80, all: of(cSubscription), any: of(cExpired, cMissing, cInvalid, cDenied), when: func(f *facts) bool { return noTLS(f) && (!f.all.any(of(cKey)) || f.all.any(of(cExpired))) }},
	{cause: ClientDisabled, weight: 60, when: func(f *facts) bool { return f.status == 402 }},
	{cause: ClientDisabled, weight: 88, all: of(cUser), words: []string{"blocked", "banned", "barred"}, not: of(cIP, cRequest, cTooMany, cLocked), when: noTLS},
	{cause: ClientDisabled, weight: 88, all: of(cClient, cRevoked), not: of(cRefresh, cCode, cExpired, cUser, cPermission), when: noTLS},
	{cause: ClientDisabled, weight: 86, when: func(f *facts) bool {
		return f.hasCode("account inactive", "deleted client", "disabled client", "account disabled", "user disabled", "client disabled")
	}},
	{cause: AccountLocked, weight: 88, any: of(cLocked), when: noTLS},
	{cause: AccountLocked, weight: 79, when: func(f *facts) bool {
		return f.says("suspended") && f.all.any(of(cUser)) && f.scheme != "client_credentials"
	}},
	{cause: AccountLocked, weight: 78, when: func(f *facts) bool {
		return f.says("captcha challenge", "authentication denied") && f.scheme == "basic"
	}},

	{cause: GrantNotAllowed, weight: 85, all: of(cGrant), any: of(cUnsupported, cDenied, cDisabled, cInvalid, cMissing), not: of(cCode, cExpired, cRevoked), when: func(f *facts) bool { return issuer(f) && !f.hasOnlyCode("invalid grant") }},
	{cause: GrantNotAllowed, weight: 84, all: of(cClient), any: of(cUnsupported, cDenied), not: of(cInvalid, cCredential, cSecret, cScope, cRedirect, cNotFound, cResource), when: func(f *facts) bool { return issuer(f) && len(f.words.clauses) > 1 }},
	{cause: GrantNotAllowed, weight: 84, when: func(f *facts) bool {
		return issuer(f) && f.says("not approved this", "hasn t approved", "not approved", "has not been approved", "not authorized to use this")
	}},
	{cause: InvalidGrantExpired, weight: 87, all: of(cRefresh), any: of(cExpired, cInvalid, cRevoked, cUsed, cNotFound, cDisabled), not: of(cRevoked), when: func(f *facts) bool { return noTLS(f) && (issuer(f) || f.scheme == "refresh_token") }},
	{cause: InvalidGrantExpired, weight: 88, all: of(cCode), any: of(cExpired, cInvalid, cUsed, cNotFound, cMismatch), not: of(cRedirect, cClient), when: func(f *facts) bool { return noTLS(f) && issuer(f) }},
	{cause: InvalidGrantExpired, weight: 80, any: of(cExpired, cInvalid, cUsed, cDisabled, cNotFound), not: of(cClient, cSecret, cRedirect, cScope, cUser), when: func(f *facts) bool { // at a token endpoint the code is the authorization code
		return issuer(f) && f.scheme != "basic" && f.says("code", "auth code", "code parameter") && !f.says("status code", "error code", "country code")
	}},
	{cause: InvalidGrantExpired, weight: 84, all: of(cUsed), any: of(cToken, cCode, cGrant), when: issuer},
	{cause: InvalidGrantExpired, weight: 86, any: of(cExpired, cDisabled), when: func(f *facts) bool {
		return f.scheme == "refresh_token" && issuer(f) && !f.all.any(of(cUser, cClient, cSecret))
	}},
	{cause: InvalidGrantExpired, weight: 75, when: func(f *facts) bool { return f.scheme == "refresh_token" && issuer(f) && f.hasCode("invalid grant") }},

	{cause: InvalidScope, weight: 86, all: of(cScope), any: negative | of(cTooMany), when: func(f *facts) bool { return issuer(f) }},
	{cause: InsufficientScope, weight: 86, all: of(cScope), any: negative, when: func(f *facts) bool { return api(f) }},
	{cause: InsufficientScope, weight: 82, all: of(cMissing, cResource), words: []string{"claim", "claims", "claim s"}, when: func(f *facts) bool { return api(f) && bearer(f) }}, // a claim that the operation needs is a right
	{cause: InsufficientScope, weight: 72, all: of(cToken, cPermission), any: of(cMissing, cDenied), words: []string{"permission", "permissions", "privilege", "privileges", "capability"}, when: func(f *facts) bool { return api(f) && bearer(f) }},
	{cause: InsufficientScope, weight: 76, when: func(f *facts) bool {
		return api(f) && (f.status == 403 || f.status == 401) && len(f.missingScopes()) > 0
	}},
	{cause: PermissionDenied, weight: 74, all: of(cPermission), any: of(cDenied, cMissing, cInvalid), not: of(cScope, cIP, cGrant, cCredential, cHeader, cToken), when: func(f *facts) bool { return f.scheme != "none" && noTLS(f) && certLess(f) && !f.deniesWho() }},
	{cause: PermissionDenied, weight: 73, all: of(cPermission, cDenied, cGrant), not: of(cScope, cIP, cCredential, cHeader), when: func(f *facts) bool { return api(f) && f.scheme != "none" && !f.deniesWho() }},
	{cause: PermissionDenied, weight: 70, all: of(cPermission, cDenied), not: of(cScope, cIP, cGrant), when: func(f *facts) bool {
		return f.scheme != "none" && noTLS(f) && (f.status == 403 || f.status == 401 || f.status == 400) && api(f) && !f.deniesWho()
	}},
	{cause: PermissionDenied, weight: 73, all: of(cResource), any: of(cDenied, cDisabled, cNotFound), not: of(cScope, cIP, cGrant, cMissing), when: func(f *facts) bool { return f.status == 403 && f.scheme != "none" }},
	{cause: PermissionDenied, weight: 66, all: of(cDenied), any: of(cUser, cResource, cClient, cPermission), not: of(cScope, cIP, cGrant, cRate, cQuota, cGateway, cKey, cLogin), when: func(f *facts) bool {
		return !unsent(f) && !f.signed && noTLS(f) && f.refused() && api(f) && !f.deniesWho()
	}},
	{cause: PermissionDenied, weight: 60, any: of(cDenied), not: of(cScope, cIP, cGrant, cRate, cQuota, cGateway, cKey, cLogin, cToken), when: func(f *facts) bool { // under a status of success
		return f.status/100 == 2 && f.words.failed && api(f) && !unsent(f) && noTLS(f)
	}},
	{cause: PermissionDenied, weight: 52, when: func(f *facts) bool { return f.status == 403 && !unsent(f) && !f.words.html && !f.signed }},
	{cause: PermissionDenied, weight: 66, when: func(f *facts) bool {
		return f.signed && f.status == 403 && f.all.any(of(cDenied)) && !f.all.any(of(cSignature, cTime, cInvalid, cKey))
	}},
	{cause: InteractionRequired, weight: 83, any: of(cInteraction), not: of(cDisabled), when: func(f *facts) bool {
		return noTLS(f) && !f.words.html && f.status != 404 && !f.hasCode("insufficient scope")
	}},
	{cause: RedirectURIMismatch, weight: 92, all: of(cRedirect), any: negative | of(cUnsupported), when: func(f *facts) bool { return noTLS(f) && !f.fromClient() }},

	{cause: WrongEnvironment, weight: 85, all: of(cRegion), any: of(cInvalid, cMismatch, cUnsupported, cMissing, cDenied), not: of(cKey, cGateway, cSession), when: func(f *facts) bool { return noTLS(f) && !f.words.html }},
	{cause: WrongEnvironment, weight: 84, all: of(cRegion), any: of(cInvalid, cUnavailable, cUnsupported, cDenied), words: []string{"environment", "environments", "sandbox", "test mode", "live mode", "testmode", "livemode"}, not: of(cGateway, cSession), when: func(f *facts) bool { return noTLS(f) && !f.words.html }},
	{cause: WrongEnvironment, weight: 86, all: of(cRegion, cMismatch), not: of(cGateway, cSession), when: func(f *facts) bool { return noTLS(f) && !f.words.html }},
	{cause: WrongEnvironment, weight: 86, when: func(f *facts) bool { // one clause names both sides
		for _, cl := range f.words.clauses {
			if holdsOne(cl.text, []string{"test", "sandbox", "staging", "development"}) && holdsOne(cl.text, []string{"live", "production", "prod"}) {
				return f.status/100 == 4 || f.words.failed
			}
		}
		return false
	}},
	{cause: WrongEnvironment, weight: 78, all: of(cRegion, cKey), any: of(cInvalid, cMismatch), when: func(f *facts) bool {
		return f.says("test mode", "live mode", "test key", "live key", "sandbox", "production")
	}},
	{cause: WrongEnvironment, weight: 84, when: func(f *facts) bool {
		return f.says("sender id mismatch", "wrong region", "different region", "region mismatch", "other region", "wrong data center", "wrong datacenter", "different environment", "wrong environment", "another tenant", "different tenant", "tenant not found")
	}},
	{cause: WrongEnvironment, weight: 85, when: func(f *facts) bool { return f.refused() && f.noted("wrong_environment") }},
}

// saysInvalid says whether a sentence calls the credential wrong, so that another which says what must be sent is advice.
func (f *facts) saysInvalid() bool {
	for _, cl := range f.words.clauses {
		if cl.set.has(of(cInvalid)) && cl.set.any(of(cKey, cToken, cCredential, cPassword, cSecret)) && !cl.set.any(of(cMissing)) && !cl.code {
			return true
		}
	}
	return false
}

// deniesWho says whether a 401 speaks of who asks and names no right that is missed: "not authorized" then says no more than the status.
func (f *facts) deniesWho() bool {
	return f.status == 401 && api(f) && (f.offered == "" || f.offered == "several" || sameScheme(f.scheme, f.offered)) && !f.all.any(of(cResource, cScope, cDisabled, cRegion)) &&
		!f.says("permission", "permissions", "role", "roles", "privilege", "privileges", "right", "rights", "access to", "authorized to access", "admin", "administrator", "not have access", "acl", "policy", "owner", "member", "allowed to", "permitted")
}

func sameScheme(sent, offered string) bool {
	switch offered {
	case "":
		return true
	case "apikey", "api-key", "key", "token", "azureapimanagementkey", "api_key", "x-api-key", "apitoken", "xapikey":
		return sent == "api_key" || sent == "bearer"
	case "digest":
		return sent == "digest"
	case "basic":
		return sent == "basic" || sent == "api_key"
	case "bearer", "oauth", "jwt":
		return sent == "bearer" || sent == "jwt_bearer" || sent == "dpop" || sent == "api_key" && offered != "bearer"
	case "dpop":
		return sent == "dpop" || sent == "bearer"
	case "aws4-hmac-sha256", "aws4-ecdsa-p256-sha256":
		return sent == "sigv4"
	case "signature", "hmac", "hmac-sha256", "acs-hmac-sha256", "sharedkey", "hawk":
		return sent == "http_signature" || sent == "hmac" || sent == "shared_key"
	case "negotiate", "ntlm", "kerberos":
		return sent == "negotiate"
	}
	return sent != "basic" && sent != "bearer" || strings.HasPrefix(offered, sent)
}
