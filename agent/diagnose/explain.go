package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// mostFindings is how many findings a case has at most: what is less likely than the third helps nobody.
const mostFindings = 3

// A candidate is a cause with the weight of its weightiest row, and the words that row rests upon.
type candidate struct {
	cause  Cause
	weight int
	words  string
}

// Explain names what is to blame, best first; nil when the run is healthy and nothing wants attention. It is pure: the same
// case gives the same findings.
func Explain(c Case) []Finding {
	s := &c.Sighting
	if s.Fault == nil {
		return attention(&c)
	}
	if s.Fault.Held() && len(s.Report.Exchanges) == 0 {
		return nil
	}
	f := factsOf(&c)
	candidates := f.weigh()
	best := candidates[0]
	lines := f.because()
	findings := make([]Finding, 0, mostFindings)
	for i, cand := range candidates {
		if i == mostFindings || (i > 0 && (cand.weight < 40 || cand.weight < best.weight-farBehind)) {
			break
		}
		sure := Possible
		if i == 0 {
			sure = f.sureness(candidates)
		}
		finding := Finding{Cause: cand.cause, Culprit: f.culprit(cand.cause), Sure: sure, Because: lines, Remedy: causes[cand.cause].Remedy}
		if cand.words != "" && i == 0 {
			finding.Because = append(slices.Clone(lines), "decided by the words: "+evidence.Clean(evidence.Mask(cand.words), 160))
		}
		if cand.cause == UnknownUnauthorized && i == 0 {
			finding.Because = append(slices.Clone(finding.Because), "what would decide it: the claims of the token, the server's log, or the same request with a fresh credential")
		}
		findings = append(findings, finding)
	}
	return findings
}

// hintDiscount is how much less a sentence of advice weighs than one that says what happened.
const hintDiscount = 12

// farBehind is how much less than the best a cause may weigh and still be worth telling.
const farBehind = 30

// weigh tries all rows, and gives the causes in order of weight; never none.
func (f *facts) weigh() []candidate {
	best := make([]candidate, len(slots), len(slots)+1)
	top := 0
	if codes := f.documented(); codes.cause != "" {
		if slot, known := slots[codes.cause]; known {
			best[slot] = codes
		} else {
			best = append(best, codes)
		}
		top = codes.weight
	}
	for _, r := range ordered {
		if r.weight < top-farBehind {
			break
		}
		if r.weight <= best[r.slot].weight {
			continue
		}
		cl, ok := r.matches(f)
		weight := r.weight
		if cl.hint {
			weight -= hintDiscount
		}
		if ok && weight > best[r.slot].weight {
			best[r.slot] = candidate{r.cause, weight, cl.text}
			top = max(top, weight)
		}
	}
	list := slices.DeleteFunc(best, func(c candidate) bool { return c.cause == "" })
	if i := slices.IndexFunc(list, func(c candidate) bool { return c.cause == ClockSkew }); i >= 0 && f.clockIs(clockExcluded) {
		list[i].weight -= farBehind // the clocks were measured, and are no excuse
	}
	slices.SortFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), strings.Compare(string(a.cause), string(b.cause)))
	})
	return list
}

// sureness is certain only where one cause stands out clearly by something that means nothing else.
func (f *facts) sureness(list []candidate) Sureness {
	best, margin := list[0], 100
	if len(list) > 1 {
		margin = best.weight - list[1].weight
	}
	switch {
	case best.cause == UnknownUnauthorized || best.weight < 55:
		return Possible
	case best.weight >= 90 && margin >= 6 && f.fromClient() && best.words != "" && !ofConnection(best.cause):
		return Likely // a client that tells of its connection in words seldom tells of anything else
	case best.weight >= 90 && margin >= 6:
		return Certain
	case best.weight >= 70:
		return Likely
	default:
		return Possible
	}
}

// ofConnection says whether a cause lies in the connection or in a clock, and not in what was sent over it.
func ofConnection(c Cause) bool {
	switch c {
	case DNSFailure, Timeout, NetworkUnreachable, ProxyAuthRequired, ClockSkew:
		return true
	}
	return strings.HasPrefix(string(c), "tls_")
}

// attention looks at what a good run brought home that wants to be seen to.
func attention(c *Case) []Finding {
	f := &facts{c: c}
	f.readClock()
	var findings []Finding
	for _, family := range [][]row{tlsRows, issuerRows, worldRows, credentialRows, clockRows} {
		for i := range family {
			r := &family[i]
			if r.all|r.any != 0 || slices.ContainsFunc(findings, func(have Finding) bool { return have.Cause == r.cause }) {
				continue
			}
			if _, ok := r.matches(f); ok {
				findings = append(findings, Finding{Cause: r.cause, Culprit: f.culprit(r.cause), Sure: Certain, Because: f.warnings(), Remedy: causes[r.cause].Remedy})
			}
		}
	}
	return findings
}

func (f *facts) warnings() (lines []string) {
	if ch := f.c.Sighting.Report.Chain; ch != nil {
		for _, fc := range ch.Facets {
			if fc.State == evidence.Warn || fc.State == evidence.Fail {
				lines = append(lines, fc.Detail)
			}
		}
	}
	lines = append(lines, f.problems()...)
	for _, n := range f.c.Sighting.Report.Notes {
		lines = append(lines, n.Detail)
	}
	return lines
}

// several is how many others must suffer before their common server is blamed in place of each by itself.
const several = 2

// culprit names the thing to blame: by the cause, and by who else suffers. Different credentials failing at once at one
// server are the server's fault; one failing alone is its own.
func (f *facts) culprit(c Cause) string {
	s, w := &f.c.Sighting, &f.c.World
	kind := causes[c].blame
	switch {
	case kind == blameIdentity && f.ofIssuer() && f.fault != nil && f.fault.Symptom == evidence.SymptomIssuer: // what it signed itself
		kind = blameIssuer
	case f.ofIssuer() && f.fault != nil && f.fault.Code == "endpoint_certificate" && ofServer(c) && s.Report.Chain != nil && s.Report.Chain.Address != "": // another server that its metadata name
		return "endpoint:" + s.Report.Chain.Address
	case (kind == blameIdentity) && f.issuerSuffers():
		kind = blameIssuer
	case kind == blameIdentity && w.SameOrigin.Identities >= several && w.SameOrigin.OK == 0 && refusedAll(w.SameOrigin):
		kind = blameEndpoint
	case (kind == blameEndpoint || kind == blameNetwork) && f.atIssuer && s.Issuer != "":
		kind = blameIssuer
	case c == NTPFalseticker:
		return f.falseticker()
	case (c == DNSFailure || c == NetworkUnreachable || c == Timeout) && w.Everywhere.OK == 0 && w.Everywhere.Failing >= several && unreachableAll(w.Everywhere):
		kind = blameNetwork
		return "network:local"
	}
	switch kind {
	case blameIdentity:
		if f.x != nil && f.x.Identity != "" {
			return "identity:" + f.x.Identity
		}
		if s.Identity == "" {
			return endpointOf(s)
		}
		return "identity:" + s.Identity
	case blameIssuer:
		if s.Issuer != "" {
			return "issuer:" + s.Issuer
		}
		if s.Identity != "" && f.atIssuer {
			return "identity:" + s.Identity
		}
		return endpointOf(s)
	case blameKeySet:
		if s.Issuer == "" && f.token != nil {
			return "keyset:" + f.token.Issuer
		}
		return "keyset:" + s.Issuer
	case blameHost:
		return f.whoseClock(c)
	case blameGateway:
		return "gateway:" + hostOf(s)
	case blameNetwork:
		return "network:" + hostOf(s)
	default:
		if api := f.watchedAPI(); c == RevokedTokenAccepted && api != "" {
			return "endpoint:" + api
		}
		if ofServer(c) {
			return serverOf(s)
		}
		return endpointOf(s)
	}
}

// falseticker names the time server that is contradicted, or this host, where the contradiction comes from it.
func (f *facts) falseticker() string {
	if clock := f.c.Sighting.Report.Clock; clock != nil {
		for _, s := range clock.Sources {
			if s.State == "falseticker" {
				return "network:" + s.Name
			}
		}
	}
	return "host"
}

// ofServer says whether a cause concerns a whole server, whatever the path that was asked.
func ofServer(c Cause) bool {
	switch c {
	case NetworkUnreachable, Timeout, TLSCertExpired, TLSCertNotYetValid, TLSCertExpiring, TLSUntrustedChain, TLSIncompleteChain, TLSNameMismatch, TLSRevoked, TLSWeak, TLSRenewedNotDeployed, TLSCertMalformed, TLSStartTLSUnavailable, TLSStapleUnusable, TLSFleetInconsistent:
		return true
	}
	return false
}

// serverOf names the server as host:port.
func serverOf(s *Sighting) string {
	if _, address, found := strings.Cut(s.Origin, "://"); found {
		return "endpoint:" + address
	}
	return endpointOf(s)
}

func (f *facts) issuerSuffers() bool {
	w := f.c.World.SameIssuer
	worked := !f.c.Sighting.LastOK.IsZero() // a credential that never worked is more likely wrong itself
	return worked && f.atIssuer && f.c.Sighting.Issuer != "" && w.Identities >= several && w.OK == 0
}

// whoseClock names the party whose clock is wrong: ours, unless ours is known to be right and the peer's is not.
func (f *facts) whoseClock(Cause) string {
	if who, _ := f.oddClock(); who != "" {
		return who
	}
	switch {
	case f.skewed():
		return "host"
	case f.noted("assertion_untimely") && f.skewKnown && f.c.Sighting.Issuer != "": // ours is right
		return "issuer:" + f.c.Sighting.Issuer
	case f.bornExpired() && f.c.Sighting.Issuer != "" && (f.clockRight() || !f.skewKnown):
		return "issuer:" + f.c.Sighting.Issuer
	case f.issuerAgrees() && f.freshRefused(): // two against one
		return endpointOf(&f.c.Sighting)
	}
	return "host"
}

func endpointOf(s *Sighting) string {
	if s.Endpoint == "" {
		return "endpoint"
	}
	return "endpoint:" + s.Endpoint
}

func hostOf(s *Sighting) string {
	host, _, _ := strings.Cut(s.Endpoint, "/")
	if host == "" {
		return "unknown"
	}
	return host
}

func refusedAll(t Tally) bool {
	for symptom := range t.Symptoms {
		if symptom != evidence.SymptomUnauthorized && symptom != evidence.SymptomForbidden {
			return false
		}
	}
	return true
}

func unreachableAll(t Tally) bool {
	for symptom := range t.Symptoms {
		switch symptom {
		case evidence.SymptomDNS, evidence.SymptomTimeout, evidence.SymptomUnreachable, evidence.SymptomRefused, evidence.SymptomClockUnknown:
		default:
			return false
		}
	}
	return true
}
