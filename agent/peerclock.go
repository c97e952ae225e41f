package agent

import (
	"cmp"
	"net/url"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	dateMemory  = 15 * time.Minute // how long a Date header says something of a clock
	tokenMemory = 2 * time.Hour    // the same of iat: tokens are seldom obtained
	dateSlack   = time.Second      // by which servers may write the Date late: some renew it once a second
	freshAfter  = 50               // answers in a row that needed no slack: the server needs none
	mostSamples = 12               // of one clock
	mostClocks  = 8                // behind one name
	mostPeers   = 1024
)

// peerClocks knows the clocks of those who are asked anyway. Every ordinary answer gives an interval that holds the
// difference to ours, to about a second; what many of them have in common is much narrower. Nobody is asked for it.
type peerClocks map[peerKey]*peerClock

type peerKey struct{ name, method string }

// A peerClock is what answers to one name. Where several servers with different clocks do, there are several groups of
// samples that do not meet.
type peerClock struct {
	groups   []*sampleGroup
	fresh    int           // answers in a row that needed no slack
	backdate time.Duration // of tokens
}

// A sampleGroup holds samples that agree: one clock, as far as can be told.
type sampleGroup struct {
	remote     string
	samples    []evidence.ClockSample
	born, last time.Time
}

// span is an interval of local minus peer.
type span struct{ low, high time.Duration }

func (s span) empty() bool { return s.low > s.high }

func (s span) meet(o span) span { return span{max(s.low, o.low), min(s.high, o.high)} }

// at is what the samples have in common, each less sure with its age.
func (g *sampleGroup) at(now time.Time, slack time.Duration) span {
	s := span{-1 << 62, 1 << 62}
	for _, one := range g.samples {
		wander := evidence.Wander(now.Sub(one.At))
		s = s.meet(span{one.Low - slack - wander, one.High + wander})
	}
	return s
}

// learn takes what the exchanges of a run say of clocks.
func (p peerClocks) learn(o *Observation) {
	var obtained *evidence.Exchange
	for i := range o.Report.Exchanges {
		x := &o.Report.Exchanges[i]
		if x.Recalled || x.Status == 0 {
			continue
		}
		if x.Date != nil {
			p.add(peerKey{originOf(x.URL), "http_date"}, x.Remote, *x.Date, dateSlack)
		}
		if x.Purpose == evidence.Obtain && x.OK() {
			obtained = x
		}
	}
	if t := o.Report.Token; t != nil && obtained != nil && t.Format == "jwt" {
		p.learnToken(peerKey{cmp.Or(o.Issuer, originOf(obtained.URL)), "token_iat"}, t, obtained)
	}
}

// learnToken takes the moment of issue of a token that was obtained in this run: it was stamped by the very clock that stamps
// nbf and exp, which a Date that a proxy writes was not.
func (p peerClocks) learnToken(key peerKey, t *evidence.Token, x *evidence.Exchange) {
	sent := x.Started.Add(x.Timing.Resolve + x.Timing.Connect + x.Timing.TLS)
	bare := evidence.SampleIssued(t, sent, x.Started.Add(x.Took), 0)
	if bare == nil {
		return
	}
	backdate, known := backdateOf(t, x, bare)
	if !known {
		return
	}
	if s := evidence.SampleIssued(t, sent, x.Started.Add(x.Took), backdate); s != nil {
		if c := p.add(key, "", *s, 0); c != nil {
			c.backdate = backdate
		}
	}
}

// backdates are how far issuers date tokens back on purpose, so that a verifier whose clock is late accepts them.
var backdates = []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute}

// backdateOf finds how far the issuer dated a token back: by the life that it promises beside it, or by the Date of the same
// answer. Without either, a token that looks dated back by a usual amount says nothing of the clock.
func backdateOf(t *evidence.Token, x *evidence.Exchange, bare *evidence.ClockSample) (back time.Duration, known bool) {
	usual := func(d time.Duration) (time.Duration, bool) {
		for _, b := range backdates {
			if (d - b).Abs() < 2*time.Second {
				return b, true
			}
		}
		return 0, false
	}
	if t.ExpiresIn > 0 && !t.Expiry.IsZero() {
		if b, ok := usual(t.Expiry.Add(-t.ExpiresIn).Sub(t.Issued)); ok {
			return b, true
		}
	}
	if x.Date != nil {
		b, _ := usual((bare.Low+bare.High)/2 - (x.Date.Low+x.Date.High)/2)
		return b, true
	}
	_, looks := usual((bare.Low + bare.High) / 2)
	return 0, !looks
}

// add takes one sample. It joins the group that it agrees with, and begins one where it agrees with none.
func (p peerClocks) add(key peerKey, remote string, s evidence.ClockSample, slack time.Duration) *peerClock {
	if key.name == "" || s.Low > s.High {
		return nil
	}
	c := p[key]
	if c == nil {
		if len(p) >= mostPeers {
			return nil
		}
		c = &peerClock{}
		p[key] = c
	}
	c.forget(s.At, memoryOf(key.method))
	for _, g := range c.groups {
		mine := span{s.Low - slack, s.High}
		if g.remote != remote || g.at(s.At, slack).meet(mine).empty() {
			continue
		}
		if c.fresh++; g.at(s.At, 0).meet(span{s.Low, s.High}).empty() {
			c.fresh = 0
		}
		g.samples, g.last = append(g.samples, s), s.At
		g.samples = g.samples[max(0, len(g.samples)-mostSamples):]
		return c
	}
	c.groups = append(c.groups, &sampleGroup{remote: remote, samples: []evidence.ClockSample{s}, born: s.At, last: s.At})
	c.groups = c.groups[max(0, len(c.groups)-mostClocks):]
	return c
}

func memoryOf(method string) time.Duration {
	if method == "token_iat" {
		return tokenMemory
	}
	return dateMemory
}

// forget drops what is too old.
func (c *peerClock) forget(now time.Time, memory time.Duration) {
	for _, g := range c.groups {
		g.samples = slices.DeleteFunc(g.samples, func(s evidence.ClockSample) bool { return now.Sub(s.At) > memory })
	}
	c.groups = slices.DeleteFunc(c.groups, func(g *sampleGroup) bool { return len(g.samples) == 0 })
}

// peer is what is known of one clock now.
func (c *peerClock) peer(key peerKey, now time.Time) (evidence.Peer, bool) {
	c.forget(now, memoryOf(key.method))
	if len(c.groups) == 0 {
		return evidence.Peer{}, false
	}
	slack := time.Duration(0)
	if key.method == "http_date" && c.fresh < freshAfter {
		slack = dateSlack
	}
	newest := slices.MaxFunc(c.groups, func(a, b *sampleGroup) int { return a.last.Compare(b.last) })
	known, n, disagree := newest.at(now, slack), len(newest.samples), false
	for _, g := range c.groups {
		other := g.at(now, slack)
		switch both := known.meet(other); {
		case g == newest:
		case !both.empty():
			known, n = both, n+len(g.samples)
		case inTurn(g, newest):
			disagree = true
			known = span{min(known.low, other.low), max(known.high, other.high)}
		}
	}
	if known.empty() { // the clock was set, or slews faster than clocks wander: only the last answer counts
		last := newest.samples[len(newest.samples)-1]
		newest.samples = []evidence.ClockSample{last}
		known, n = newest.at(now, slack), 1
	}
	return evidence.Peer{Name: key.name, Method: key.method, Skew: (known.low + known.high) / 2, Bound: (known.high - known.low) / 2, Samples: n, Backdate: c.backdate, Disagree: disagree, Measured: newest.last}, true
}

// inTurn says whether two groups were heard alternately: two servers, and not one whose clock was set.
func inTurn(a, b *sampleGroup) bool {
	return len(a.samples) > 1 && len(b.samples) > 1 && a.last.After(b.born) && b.last.After(a.born)
}

// of gives what is known of the clocks behind some names, in order of name and method.
func (p peerClocks) of(now time.Time, names ...string) (list []evidence.Peer) {
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		for _, method := range []string{"http_date", "token_iat"} {
			key := peerKey{name, method}
			c := p[key]
			if c == nil {
				continue
			}
			if peer, ok := c.peer(key, now); ok {
				list = append(list, peer)
			} else {
				delete(p, key)
			}
		}
	}
	return list
}

// originOf is the origin of a URL as a report shows it.
func originOf(shown string) string {
	u, err := url.Parse(shown)
	if err != nil {
		return ""
	}
	return wire.Origin(u)
}
