package diagnose

import (
	"fmt"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A clockVerdict says whether the difference of two clocks can be why something is untimely.
type clockVerdict string

// The verdicts: the whole interval that holds the difference is beyond what is tolerated, or a part of it, or nothing.
const (
	clockUnknown   clockVerdict = ""
	clockConfirmed clockVerdict = "confirmed"
	clockSuspected clockVerdict = "suspected"
	clockExcluded  clockVerdict = "excluded"
)

// Where the leeway of a validator is not known it is none at the least, and at the most five minutes, the greatest default of the
// libraries in use (that of .NET).
const (
	leastLeeway = 0
	mostLeeway  = 5 * time.Minute
)

// judgeClocks compares the difference of two clocks, give or take bound, with a leeway; 0: not known.
func judgeClocks(difference, bound, leeway time.Duration) clockVerdict {
	least, most := leeway, leeway
	if leeway == 0 {
		least, most = leastLeeway, mostLeeway
	}
	switch {
	case difference.Abs()-bound > most:
		return clockConfirmed
	case difference.Abs()+bound <= least+time.Second: // claims are whole seconds
		return clockExcluded
	default:
		return clockSuspected
	}
}

// A clockPair is two clocks that an exchange depends on: one that writes moments and one that judges them.
type clockPair struct {
	writer, judge string
	ahead, bound  time.Duration // of the writer
	verdict       clockVerdict
}

// clocks gives the pair that matters for the deciding exchange: what the issuer wrote is judged by the API, whatever our own clock says;
// what we write ourselves is judged by whom we send it to. ok: both are measured.
func (f *facts) clocks() (p clockPair, ok bool) {
	s := &f.c.Sighting
	var issuer, api *evidence.Peer
	for i := range f.c.World.Peers {
		switch peer := &f.c.World.Peers[i]; {
		case peer.Disagree: // several clocks
		case peer.Name == s.Issuer && s.Issuer != "" && (issuer == nil || peer.Bound < issuer.Bound):
			issuer = peer
		case peer.Name == s.Origin && s.Origin != "" && (api == nil || peer.Bound < api.Bound):
			api = peer
		}
	}
	switch {
	case (f.signed || f.scheme == "dpop" && !f.atIssuer) && api != nil:
		p = clockPair{"the local clock", "that of the API", api.Skew, api.Bound, ""}
	case f.atIssuer && f.scheme == "jwt_bearer" && issuer != nil:
		p = clockPair{"the local clock", "that of the issuer", issuer.Skew, issuer.Bound, ""}
	case !f.atIssuer && bearer(f) && issuer != nil && api != nil:
		p = clockPair{"the issuer's clock", "that of the API", api.Skew - issuer.Skew, api.Bound + issuer.Bound, ""}
	default:
		return p, false
	}
	p.verdict = judgeClocks(p.ahead, p.bound, s.Leeway)
	return p, true
}

// clockLine says who is wrong against whom, by how much, and what that means for the validator's leeway.
func (f *facts) clockLine() string {
	p, ok := f.clocks()
	if !ok || !f.untimely() {
		return ""
	}
	way := "ahead of"
	if p.ahead < 0 {
		way = "behind"
	}
	leeway := "a leeway that is not known (at most " + evidence.Span(mostLeeway) + " in common libraries)"
	if f.c.Sighting.Leeway > 0 {
		leeway = "the leeway of " + evidence.Span(f.c.Sighting.Leeway)
	}
	return fmt.Sprintf("%s is %s %s %s, give or take %s; against %s a wrong clock is %s", p.writer, evidence.Span(p.ahead.Abs()), way, p.judge, evidence.Span(p.bound), leeway, p.verdict)
}

// untimely says whether the failure has to do with moments at all.
func (f *facts) untimely() bool {
	return f.refused() && (f.all.any(of(cExpired, cNotYet, cTime, cLifetime)) || f.expired || f.early > 0 || f.ahead > 0)
}

// clockIs says whether the clocks that matter were compared with this outcome.
func (f *facts) clockIs(v clockVerdict) bool {
	p, ok := f.clocks()
	return ok && f.untimely() && p.verdict == v
}
