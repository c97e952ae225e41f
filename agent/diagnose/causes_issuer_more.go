package diagnose

import (
	"maps"
	"slices"

	"github.com/authvigil/authvigil/probes/evidence"
)

// issuerCodes says which cause each problem of an issuer is, by the closed words of the probe of kind issuer.
var issuerCodes = map[Cause][]string{
	JWKSPrivateKey:            {"jwks_private_key"},
	IssuerDrift:               {"issuer_mismatch", "insecure_endpoint", "foreign_endpoint", "resource_mismatch", "resource_unlisted", "lifetime_shrunk", "lifetime_disagreement"},
	IssuerMetadataChanged:     {"metadata_changed"},
	DiscoveryUnusable:         {"metadata_unusable"},
	IDPUnavailable:            {"endpoint_unreachable"},
	JWKSUnusable:              {"jwks_unreachable", "jwks_unusable", "jwks_flapping"},
	JWKSKeyMissing:            {"key_missing"},
	JWKSKeyRemovedEarly:       {"key_removed_early"},
	JWKSKeyReused:             {"key_reused", "key_duplicate"},
	JWKSKeyWeak:               {"key_weak"},
	JWKSKeyUnusable:           {"key_unusable", "key_nameless", "key_certificate"},
	JWKSCacheUnsuitable:       {"jwks_stale", "cache_long", "rotation_fast"},
	TokenSignatureInvalid:     {"token_signature", "token_unsigned"},
	TokenIssuerMismatch:       {"token_issuer"},
	TokenAlgorithmUnsupported: {"token_algorithm"},
	AlgorithmChanged:          {"algorithm_changed"},
	TokenMalformed:            {"token_type"},
}

// issuerRows: what is wrong with an identity provider's documents, by the word that the probe found. What failed the run
// decides; what else was found stands behind it, and wants attention by itself when the run was good.
var issuerRows = func() (rows []row) {
	for _, cause := range slices.Sorted(maps.Keys(issuerCodes)) {
		codes := issuerCodes[cause]
		rows = append(rows,
			row{cause: cause, weight: 99, when: func(f *facts) bool {
				return f.ofIssuer() && f.fault != nil && f.fault.Symptom == evidence.SymptomIssuer && slices.Contains(codes, f.fault.Code)
			}},
			row{cause: cause, weight: 70, when: func(f *facts) bool {
				return f.ofIssuer() && f.fault != nil && f.problem(codes)
			}},
			row{cause: cause, weight: 90, when: func(f *facts) bool { return f.ofIssuer() && f.fault == nil && f.problem(codes) }},
		)
	}
	slices.SortStableFunc(rows, func(a, b row) int { return attentionOrder(a.cause) - attentionOrder(b.cause) })
	return append(rows,
		row{cause: IDPUnavailable, weight: 93, when: func(f *facts) bool {
			return f.ofIssuer() && f.atIssuer && f.fault != nil && f.fault.Symptom == evidence.SymptomServerError
		}},
		row{cause: IDPUnavailable, weight: 99, when: func(f *facts) bool { // it is there for nothing else
			return f.ofIssuer() && f.atIssuer && f.fault != nil && slices.Contains([]evidence.Symptom{evidence.SymptomTimeout, evidence.SymptomRefused, evidence.SymptomClosed, evidence.SymptomUnreachable}, f.fault.Symptom)
		}},
		row{cause: TokenNotYetValid, weight: 92, when: func(f *facts) bool { return f.lifetime("not_yet_valid") && !(f.skewed() && f.skew < 0) }},
		row{cause: ClockSkew, weight: 99, when: func(f *facts) bool { return f.lifetime("not_yet_valid") && f.skewed() && f.skew < 0 }},
		row{cause: TokenExpired, weight: 92, when: func(f *facts) bool { return f.lifetime("expired") && f.skewed() && f.skew < 0 }},
	)
}()

// attentionOrder puts first what should be told first of several things that want attention: an alert names one.
func attentionOrder(c Cause) int {
	order := []Cause{AlgorithmChanged, IssuerMetadataChanged, JWKSCacheUnsuitable, JWKSKeyUnusable}
	if i := slices.Index(order, c); i >= 0 {
		return i
	}
	return len(order)
}

func (f *facts) ofIssuer() bool { return f.c.Sighting.Kind == "issuer" }

func (f *facts) lifetime(code string) bool {
	return f.fault != nil && f.fault.Symptom == evidence.SymptomTokenLifetime && f.fault.Code == code
}

// problem says whether the run found one of some problems with the issuer.
func (f *facts) problem(codes []string) bool {
	i := f.c.Sighting.Report.Issuer
	return i != nil && slices.ContainsFunc(i.Problems, func(n evidence.Note) bool { return slices.Contains(codes, n.Code) })
}

// problems gives the sentences on what is wrong with the issuer, but for the one that is said already.
func (f *facts) problems() (lines []string) {
	if i := f.c.Sighting.Report.Issuer; i != nil {
		for _, n := range i.Problems {
			if f.fault == nil || f.fault.Err == nil || f.fault.Err.Error() != n.Detail {
				lines = append(lines, n.Detail)
			}
		}
	}
	return lines
}
