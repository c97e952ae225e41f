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
	{cause: TokenRevoked, weight: 88, when: func(f *facts) bool { return faultOf(evidence.SymptomInactive, "inactive")(f) && !f.expired }},
	{cause: TokenExpired, weight: 90, when: func(f *facts) bool {
		return faultOf(evidence.SymptomInactive)(f) && f.expired && !f.skewed()
	}},
	{cause: PermissionDenied, weight: 84, when: faultOf(evidence.SymptomInactive, "unknown_to_server")},
	{cause: WrongEnvironment, weight: 84, when: faultOf(evidence.SymptomRuleViolated, "client_id")},
	{cause: RevokedTokenAccepted, weight: 97, when: faultOf(evidence.SymptomStillAccepted)},
	{cause: IssuerDrift, weight: 88, when: faultOf(evidence.SymptomIssuer, "no_introspection_endpoint", "no_revocation_endpoint", "no_authorization_endpoint")},
	{cause: IDPUnavailable, weight: 86, when: func(f *facts) bool {
		return f.atIssuer && faultOf(evidence.SymptomBadAnswer, "not_json", "no_active")(f)
	}},
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
