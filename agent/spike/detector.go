// Package spike tells whether refusals (401) in real traffic are unusual, and whom they hit.
//
// It rests on clients that are known to be good: those that got a success, within a week, from an endpoint that is known to
// refuse. Attackers, scanners and dead clients are never known-good, so that they cannot page; an outage of
// authentication is precisely known-good clients being refused. What is counted, per endpoint and over all of them, goes
// through sequential tests against a baseline that is learnt with a lag, so that no minimum volume has to be configured.
// Challenges by design, expired tokens and rotations of keys cost a client one refusal and are not evidence.
//
// The package is pure: it opens nothing, reads no clock and knows no log format. Time comes with the requests. It keeps a
// bounded memory whatever the number of clients and endpoints (see [Policy]) and does not allocate per request.
//
// A Detector is fed with [Detector.Add] and [Detector.Advance] and tells with [Detector.Changes] which alerts began and
// ended. It must not be used by several goroutines at once.
package spike

import (
	"slices"
	"time"
)

// Policy bounds and tunes a detector. The zero value is meant to be used.
type Policy struct {
	// Seed is mixed into the hashes of clients, so that nobody outside can choose collisions. It must stay the same for
	// a state to be read again.
	Seed uint64
	// Name makes the name that people see of the hash of a client; nil: clients are named as they are, and those that are
	// refused are kept in memory so.
	Name func(hash uint64) string
	// Trails is how many pairs of client and endpoint are remembered; a client as a whole takes one more. Rounded down
	// to a power of two. 0: 1048576, which is 36 MiB when all are in use.
	Trails int
	// Endpoints is how many endpoints are watched by themselves; what comes after them is counted as [Other].
	// 0: 512, which is at most 5 MiB.
	Endpoints int
	// Threshold is the evidence that raises an alert, as a natural logarithm of odds. 0: 8. From 6 to 12 the detector
	// finds about the same incidents; higher is later and quieter.
	Threshold float64
}

// Names of the endpoints that are none.
const (
	All   = "*"     // all endpoints together
	Other = "other" // those beyond Policy.Endpoints
)

// A Request is one answered request.
type Request struct {
	At       time.Time // when it was answered
	Status   int
	Endpoint []byte // pattern of the path; must not grow with the number of objects behind it
	Client   []byte // who asked: subject, client id, user, address; empty: not known, only counted
	Reason   []byte // error of the challenge where it is logged: invalid_token, …
	ByProxy  bool   // the answer came from the proxy itself, not from what is behind it
}

// A Detector watches a stream of requests. Make one with [New].
type Detector struct {
	policy Policy

	now   int64 // start of the present tick, Unix seconds; 0: nothing seen yet
	block int64 // start of the present block
	ahead int64 // time of a line far in the future that waits for a second one
	hour  uint16

	trails  trails
	byName  map[string]*endpoint
	all     *endpoint
	others  []*endpoint
	busy    []*endpoint // those with something to weigh
	failing []failing   // known-good clients that are refused again and again
	season  season
	changes []Alert
	stats   Stats
}

// Stats says how full a detector is and what it had to drop.
type Stats struct {
	Clients   int    // trails in use: pairs of client and endpoint, and clients
	Endpoints int    // without All
	Evicted   uint64 // trails that gave way to others
	Folded    uint64 // requests counted as Other
	Late      uint64 // requests that were older than the clock of the detector
	Bytes     int    // memory of the tables
}

// New makes a detector that knows nothing yet. It raises no alert before it has seen eight hours.
func New(p Policy) *Detector {
	if p.Trails <= 0 {
		p.Trails = 1 << 20
	}
	if p.Endpoints <= 0 {
		p.Endpoints = 512
	}
	if p.Threshold <= 0 {
		p.Threshold = 8
	}
	d := &Detector{policy: p, trails: newTrails(p.Trails), byName: make(map[string]*endpoint)}
	d.all = newEndpoint(All, 0)
	d.all.top = &top{}
	return d
}

// Policy is the policy that the detector was made with, what it leaves open filled in.
func (d *Detector) Policy() Policy { return d.policy }

// Stats says how full the detector is.
func (d *Detector) Stats() Stats {
	s := d.stats
	s.Clients, s.Evicted, s.Endpoints = d.trails.used, d.trails.evicted, len(d.others)
	s.Bytes = len(d.trails.buckets)*bucketBytes + endpointBytes
	for _, e := range d.others {
		s.Bytes += endpointBytes + len(e.name)
		if e.top != nil {
			s.Bytes += topBytes
		}
	}
	return s
}

// Now is the time up to which the detector has judged.
func (d *Detector) Now() time.Time { return moment(d.now) }

// Add takes one request. It allocates only for endpoints and clients that are new.
func (d *Detector) Add(r Request) {
	now := d.clock(r.At.Unix())
	e := d.endpoint(r.Endpoint, r.Status)
	if e == nil {
		return
	}
	if !e.busy {
		e.wake(d)
	}
	e.last = now
	d.season.count(now)
	if len(r.Client) == 0 {
		d.anonymous(e, r, 1)
		return
	}
	client := hash(d.policy.Seed, r.Client) &^ 1
	pair := mix(client, e.id) | 1
	switch {
	case r.Status == 401:
		d.refused(e, client, pair, uint32(now), r)
	case r.Status/100 == 2 || r.Status == 304:
		d.accepted(e, client, pair, uint32(now))
	case r.Status < 500 && r.Status != 429 && r.Status != 407:
		// An answer that says nothing of authentication, but that is no refusal: the run of refusals ends.
		if p := d.trails.find(pair); p != nil {
			p.run = 0
		}
	}
}

// accepted counts a success.
func (d *Detector) accepted(e *endpoint, client, pair uint64, now uint32) {
	p := d.trails.find(pair)
	c := d.trails.find(client)
	good := e.refuses && (c.knownGood(now) || p.knownGood(now))
	if p == nil {
		p = d.trails.keep(pair)
		p.since = now
		c = d.trails.find(client) // it may have moved
	}
	p.good, p.seen, p.run = now, now, 0
	e.success++
	if !e.refuses {
		return
	}
	if c == nil {
		since := p.since
		c = d.trails.keep(client) // p may have moved
		c.since = since
	}
	if c.run >= runAlarmed {
		d.recovered(client, int64(now))
	}
	c.good, c.seen, c.run = now, now, 0
	if !good {
		return
	}
	e.ok++
	e.spike.pass(client, e)
	d.all.spike.pass(client, e)
	d.present(e, c, d.trails.find(pair))
}

// refused counts a 401.
func (d *Detector) refused(e *endpoint, client, pair uint64, now uint32, r Request) {
	e.refuses = true
	p := d.trails.find(pair)
	c := d.trails.find(client)
	good := c.knownGood(now) || p.knownGood(now)
	if e.top == nil {
		e.top = &top{}
	}
	name := r.Client
	if d.policy.Name != nil {
		name = nil // who it is is not kept
	}
	e.top.add(int64(now), client, name, good, r.ByProxy, r.Reason)
	d.all.top.add(int64(now), client, name, good, r.ByProxy, r.Reason)
	if !good {
		e.strangers++
		return
	}
	e.denied++
	if p == nil {
		p = d.trails.keep(pair)
		c = d.trails.find(client)
	}
	if c == nil {
		was := *p
		c = d.trails.keep(client)
		c.good, c.since = was.good, was.since
		if p = d.trails.find(pair); p == nil { // the smallest of tables can drop it
			return
		}
	}
	if now-p.refused > runOut {
		p.run = 0
	}
	p.run = min(p.run+1, runAlarmed-1)
	again := p.refused != 0 && now-p.refused <= grace
	p.refused, p.seen = now, now
	d.present(e, c, p)
	d.persist(e, c, client, now, r.Client)

	d.evidence(e, c, p, client, uint16(now/onePer), again)
}

// evidence counts a refusal for the streams that it is evidence for, once per client and ten seconds.
func (d *Detector) evidence(e *endpoint, c, p *trail, client uint64, slot uint16, again bool) {
	if again {
		v := e.a.weigh(1, 0)
		if p.countA != slot {
			p.countA = slot
			e.badA++
			e.spike.failA(client, v)
		}
		if c.countA != slot {
			c.countA = slot
			e.allA++
			d.all.spike.failA(client, v)
		}
	}
	if p.run >= 2 {
		v := e.b.weigh(1, 0)
		if p.countB != slot {
			p.countB = slot
			e.badB++
			e.spike.failB(client, v)
		}
		if c.countB != slot {
			c.countB = slot
			e.allB++
			d.all.spike.failB(client, v)
		}
	}
}

// name is how people know a client.
func (d *Detector) name(hash uint64, client []byte) string {
	if d.policy.Name != nil {
		return d.policy.Name(hash)
	}
	return string(client[:min(len(client), topName)])
}

// present counts a known-good client as active in this hour.
func (d *Detector) present(e *endpoint, c, p *trail) {
	if c.hour != d.hour {
		c.hour = d.hour
		d.all.active[0]++
	}
	if p != nil && p.hour != d.hour {
		p.hour = d.hour
		e.active[0]++
	}
}

// Advance tells the detector that time has come to now, so that silence is noticed too.
func (d *Detector) Advance(now time.Time) {
	d.ahead = 0
	d.forward(now.Unix())
}

// Changes hands out what began and ended since the last call: an alert whose Ended is zero began.
func (d *Detector) Changes() []Alert {
	out := d.changes
	d.changes = nil
	return out
}

// Changed says whether Changes has something to tell.
func (d *Detector) Changed() bool { return len(d.changes) > 0 }

// Active lists the alerts that hold, oldest first, with what is known of them now.
func (d *Detector) Active() []Alert {
	var out []Alert
	for _, e := range append([]*endpoint{d.all}, d.others...) {
		for _, a := range []*Alert{e.spike.warn, e.spike.page} {
			if a != nil {
				out = append(out, d.describeSpike(e, *a))
			}
		}
		if a := e.ticket.alert; a != nil {
			out = append(out, d.describeTicket(e, *a))
		}
	}
	for i := range d.failing {
		if f := &d.failing[i]; f.alert != nil {
			out = append(out, *f.alert)
		}
	}
	if d.season.alert != nil {
		out = append(out, *d.season.alert)
	}
	slices.SortStableFunc(out, func(a, b Alert) int { return a.Started.Compare(b.Started) })
	return out
}

// A Level is how an endpoint stands.
type Level struct {
	Endpoint string
	Active   bool    // an AuthFailureSpike holds
	Ratio    float64 // share of requests of known-good clients that were refused in the last five to ten minutes
	Baseline float64 // its usual value
	Score    float64 // evidence; Policy.Threshold raises an alert
}

// Levels lists how the endpoints stand, All first.
func (d *Detector) Levels() []Level {
	out := make([]Level, 0, len(d.others)+1)
	for _, e := range append([]*endpoint{d.all}, d.others...) {
		out = append(out, Level{Endpoint: e.name, Active: e.spike.level > 0, Ratio: e.ratio(), Baseline: e.baseline(), Score: e.score()})
	}
	return out
}

func moment(sec int64) time.Time {
	if sec == 0 {
		return time.Time{}
	}
	return time.Unix(sec, 0).UTC()
}
