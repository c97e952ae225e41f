package diagnose

import (
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// faultOf looks for a fault of a symptom, with one of these codes where there are any.
func faultOf(symptom evidence.Symptom, codes ...string) func(*facts) bool {
	return func(f *facts) bool {
		if f.fault == nil || f.fault.Symptom != symptom {
			return false
		}
		for _, code := range codes {
			if f.fault.Code == code {
				return true
			}
		}
		return len(codes) == 0
	}
}

// notes looks for something that a run noted, whether it was good or not.
func notes(codes ...string) func(*facts) bool {
	return func(f *facts) bool {
		for _, code := range codes {
			if f.noted(code) {
				return true
			}
		}
		return false
	}
}

// credentialRows: what an authorization server says of a token or of a client, and what is known of the end of a credential.
var credentialRows = []row{
	{cause: CredentialExpiring, weight: 90, when: func(f *facts) bool {
		return f.fault == nil && notes("credential_expiring", "credential_expired", "refresh_token_expiring")(f)
	}},
	{cause: TokenLifetimeDisagreement, weight: 90, when: func(f *facts) bool { return f.fault == nil && f.noted("lifetime_disagreement") }},
	{cause: TokenLifetimeShrunk, weight: 90, when: func(f *facts) bool { return f.fault == nil && f.noted("lifetime_shrunk") }},
	{cause: NextSecretRefused, weight: 90, when: func(f *facts) bool { return f.fault == nil && f.noted("next_secret_refused") }},
	{cause: SecretSuperseded, weight: 98, when: func(f *facts) bool { return f.refused() && f.noted("next_secret_accepted") }},
	{cause: ClientSecretExpired, weight: 91, when: func(f *facts) bool { // refused, and past its declared end
		return f.atIssuer && f.refused() && f.hasCode("invalid client") && f.noted("credential_expired")
	}},
	{cause: TokenMalformed, weight: 86, when: func(f *facts) bool { // refused, and it cannot be right as it is written
		return api(f) && f.status == 401 && (bearer(f) || f.scheme == "api_key") && f.noted("credential_malformed")
	}},
	{cause: TokenRevoked, weight: 88, when: func(f *facts) bool { return faultOf(evidence.SymptomInactive, "inactive")(f) && !f.expired }},
	{cause: TokenExpired, weight: 90, when: func(f *facts) bool {
		return faultOf(evidence.SymptomInactive)(f) && f.expired && !f.skewed()
	}},
	{cause: PermissionDenied, weight: 84, when: faultOf(evidence.SymptomInactive, "unknown_to_server")},
	{cause: WrongEnvironment, weight: 84, when: faultOf(evidence.SymptomRuleViolated, "client_id")},
	{cause: RevokedTokenAccepted, weight: 97, when: faultOf(evidence.SymptomStillAccepted)},
	{cause: IssuerDrift, weight: 88, when: faultOf(evidence.SymptomIssuer, "no_introspection_endpoint", "no_revocation_endpoint", "no_authorization_endpoint")},
	{cause: SecretStoreUnavailable, weight: 97, when: faultOf(evidence.SymptomSecretAway)},
	{cause: StateNotPreserved, weight: 96, when: faultOf(evidence.SymptomRuleViolated, "state")},
	{cause: IssuerDrift, weight: 92, when: faultOf(evidence.SymptomRuleViolated, "iss")},
	{cause: RedirectURIMismatch, weight: 96, when: faultOf(evidence.SymptomRuleViolated, "redirect_uri")},
	{cause: PKCENotEnforced, weight: 96, when: faultOf(evidence.SymptomRuleViolated, "pkce")},
	{cause: GrantNotAllowed, weight: 90, when: sentBack("unauthorized_client", "unsupported_response_type")},
	{cause: InvalidScope, weight: 92, when: sentBack("invalid_scope")},
	{cause: PermissionDenied, weight: 88, when: sentBack("access_denied")},
	{cause: IDPUnavailable, weight: 90, when: sentBack("server_error", "temporarily_unavailable")},
	{cause: UnexpectedAnswer, weight: 86, when: sentBack()},
	{cause: ClientCredentialsInvalid, weight: 90, when: func(f *facts) bool {
		return f.c.Sighting.Kind == "authorize" && faultOf(evidence.SymptomTokenRefused, "invalid_client")(f)
	}},
	{cause: IDPUnavailable, weight: 86, when: func(f *facts) bool {
		return f.atIssuer && faultOf(evidence.SymptomBadAnswer, "not_json", "no_active")(f)
	}},
}

// sentBack looks for an error that the authorization endpoint gave to the client by way of the browser (RFC 6749 section
// 4.1.2.1); the words of it stand in an address, which is not kept.
func sentBack(codes ...string) func(*facts) bool {
	return func(f *facts) bool {
		return f.c.Sighting.Kind == "authorize" && f.status/100 == 3 && faultOf(evidence.SymptomTokenRefused, codes...)(f)
	}
}

// watchedAPI names the API that went on accepting a token, which is another than the one that the probe asks first.
func (f *facts) watchedAPI() string {
	for i := len(f.c.Sighting.Report.Exchanges) - 1; i >= 0; i-- {
		if x := &f.c.Sighting.Report.Exchanges[i]; x.Purpose == evidence.AfterRevocation {
			_, address, _ := strings.Cut(x.URL, "://")
			address, _, _ = strings.Cut(address, "?")
			return address
		}
	}
	return ""
}
