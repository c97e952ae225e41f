package agent

import (
	"fmt"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// bestClock is the verdict on the local clock that can be relied on most, with the doubt that its age adds; nil: none holds.
// The court's mutex is held.
func (c *court) bestClock(now time.Time) *evidence.Clock {
	var best *evidence.Clock
	for _, name := range sortedKeys(c.clocks) {
		k, ok := c.clocks[name].At(now)
		if ok && (best == nil || slices.Index(confidences, k.Confidence) < slices.Index(confidences, best.Confidence)) {
			best = &k
		}
	}
	return best
}

// confidences are in order, the surest first.
var confidences = []evidence.Confidence{evidence.Confident, evidence.LowConfident, evidence.Unverified}

// localClock is the last verdict on the local clock, as it was measured.
func (c *court) localClock() (evidence.Clock, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best evidence.Clock
	for _, name := range sortedKeys(c.clocks) {
		k := *c.clocks[name]
		if _, ok := k.At(time.Now()); ok && (best.Confidence == "" || slices.Index(confidences, k.Confidence) < slices.Index(confidences, best.Confidence)) {
			best = k
		}
	}
	return best, best.Confidence != ""
}

// knownPeers is what is known of the clocks of all servers that are asked.
func (c *court) knownPeers() []evidence.Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for key := range c.peers {
		names = append(names, key.name)
	}
	return c.peers.of(time.Now(), names...)
}

// peersOf is what is known of the clocks of the endpoint and of the issuer; the court's mutex is held.
func (c *court) peersOf(o *Observation, issuer string, now time.Time) []evidence.Peer {
	list := c.peers.of(now, o.About.Origin, issuer, originOf(issuer))
	for _, p := range o.Report.Peers {
		if !slices.ContainsFunc(list, func(have evidence.Peer) bool { return have.Name == p.Name && have.Method == p.Method }) {
			list = append(list, p)
		}
	}
	return list
}

// spanOf is the interval of local minus peer that the best witness gives: tokens before Date headers, which a proxy may write.
func spanOf(peers []evidence.Peer, names ...string) (s span, p evidence.Peer, ok bool) {
	for _, method := range []string{"token_iat", "http_date"} {
		for _, one := range peers {
			if one.Method == method && !one.Disagree && slices.Contains(names, one.Name) {
				return span{one.Skew - one.Bound, one.Skew + one.Bound}, one, true
			}
		}
	}
	return s, p, false
}

var leewayMargin = &evidence.Metric{Name: "clock_leeway_margin_seconds", Help: "Leeway of the endpoint's validator minus the worst difference of the clocks concerned in the harmful direction, by claim; negative: tokens may be refused. It compares the issuer's clock with the endpoint's, or ours for what we sign ourselves.", Labels: []string{"probe", "claim"}}

// signsItself are the schemes whose requests carry a moment of our own clock.
var signsItself = []string{"dpop", "sigv4", "hmac", "shared_key", "http_signature"}

// judgeClocks adds to a report what follows from the clocks of endpoint and issuer: how much of the validator's leeway is
// left, and whose clock is wrong for certain.
func (c *court) judgeClocks(o *Observation, issuer string, peers []evidence.Peer, now time.Time) {
	readings := without(o.Report.Readings, func(r evidence.Reading) bool { return r.Metric == leewayMargin })
	notes := without(o.Report.Notes, func(n evidence.Note) bool { return slices.Contains(clockNotes, n.Code) })
	api, apiPeer, apiKnown := spanOf(peers, o.About.Origin)
	idp, idpPeer, idpKnown := spanOf(peers, issuer, originOf(issuer))
	if idpKnown && apiKnown && originOf(issuer) == o.About.Origin { // one server
		idp, idpPeer, idpKnown = span{}, evidence.Peer{}, false
	}
	if l := o.About.Leeways; l != nil {
		for _, m := range margins(l, o.Scheme, api, apiKnown, idp, idpKnown, idpPeer.Backdate) {
			readings = append(readings, evidence.Reading{Metric: leewayMargin, Labels: []string{m.claim}, Value: m.left.Seconds()})
		}
	}
	if truth := c.bestClock(now); truth != nil && truth.Sure() {
		add := func(code, whose string, p evidence.Peer) {
			// local minus peer, less local minus true, is true minus peer
			if off, bound := truth.Skew-p.Skew, truth.Bound+p.Bound; off.Abs()-bound > tolerated(o) {
				way := "ahead of"
				if off < 0 {
					way = "behind"
				}
				notes = append(notes, evidence.Note{Code: code, Detail: fmt.Sprintf("the clock of %s %s is %s %s true time (± %s, %s)", whose, p.Name, evidence.Span(off), way, evidence.Span(bound), seenBy[p.Method])})
			}
		}
		if idpKnown {
			add("issuer_clock", "the issuer", idpPeer)
		}
		if apiKnown {
			add("endpoint_clock", "the server", apiPeer)
		}
	}
	for _, p := range peers {
		if p.Disagree {
			notes = append(notes, evidence.Note{Code: "backends_disagree", Detail: fmt.Sprintf("several servers answer as %s, and their clocks differ by up to %s", p.Name, evidence.Span(2*p.Bound))})
		}
	}
	o.Report.Readings, o.Report.Notes = readings, notes
}

// clockNotes are the notes that judgeClocks writes; a run may be judged again.
var clockNotes = []string{"issuer_clock", "endpoint_clock", "backends_disagree"}

// without is a list without some; the list itself is shared and stays as it is.
func without[T any](list []T, drop func(T) bool) []T {
	if !slices.ContainsFunc(list, drop) {
		return slices.Clip(list)
	}
	return slices.DeleteFunc(slices.Clone(list), drop)
}

var seenBy = map[string]string{"http_date": "by its Date header", "token_iat": "by iat of its tokens"}

// suspicious is a difference of clocks that is worth telling where no leeway is configured.
const suspicious = 20 * time.Second

// tolerated is how far another clock may be off before it is told.
func tolerated(o *Observation) time.Duration {
	if l := o.About.Leeways; l != nil {
		return max(l.Expiry, l.NotBefore, l.Issued, time.Second)
	}
	return suspicious
}

type margin struct {
	claim string
	left  time.Duration
}

// margins says how much leeway is left for each claim that the validator looks at. A token of the issuer expires early for an
// endpoint whose clock is ahead of the issuer's, and is not valid yet for one whose clock is behind; how wrong ours is does not
// matter to it.
func margins(l *probes.Leeway, scheme string, api span, apiKnown bool, idp span, idpKnown bool, backdate time.Duration) (list []margin) {
	if !apiKnown {
		return nil
	}
	if slices.Contains(signsItself, scheme) { // our clock against the endpoint's, in both directions
		return append(list, margin{"iat", max(l.Issued, l.NotBefore, l.Expiry) - max(api.high, -api.low, 0)})
	}
	if !idpKnown {
		return nil
	}
	ahead, behind := idp.high-api.low, api.high-idp.low // endpoint minus issuer, issuer minus endpoint, at worst
	for _, m := range []struct {
		claim  string
		leeway time.Duration
		worst  time.Duration
	}{{"exp", l.Expiry, ahead}, {"nbf", l.NotBefore, behind - backdate}, {"iat", l.Issued, behind - backdate}} {
		if m.leeway >= 0 {
			list = append(list, margin{m.claim, m.leeway - max(m.worst, 0)})
		}
	}
	return list
}
