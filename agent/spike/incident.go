package spike

import "math"

// Limits of an AuthFailureSpike.
const (
	timesA         = 1.25 // thresholds that stream A must reach: a rotation of keys meets clients whose token has just expired
	pageAfterA     = 30   // seconds that the evidence of stream A must hold before somebody is woken
	pageAfterB     = 10   // the same, stream B: clients that ask several things at once look refused in a row for a moment
	pageAfterPlain = 60   // the same, without identities
	plainTimes     = 2.5  // thresholds that the evidence must reach where clients are not known
	plainLeast     = 5    // refusals in 15 min that it takes there
	busyTimes      = 3    // requests at a busy time, against the average
	rationWindow   = 120  // seconds of a busy time that are counted at once
	rationLeast    = 3    // refusals that always count
	othersLeast    = 2    // evidence that must remain without the client that fails most, for somebody to be woken
	othersFew      = 1.5  // the same where half of those that were active in the last hour fail
	shortest       = 300  // seconds an alert holds at least
	recoveredBy    = 5    // evidence of recovery that ends it
	stillFailing   = 0.25 // odds, against those seen while it held, that recovery is tested against
	noData         = 1800 // seconds without anybody to judge by, after which it ends
	concentrated   = 0.9  // share of the evidence that makes one endpoint the culprit
	mostFailing    = 32   // clients that are told apart in an incident
)

// A failer is a known-good client that took part in an incident.
type failer struct {
	key    uint64
	nA, nB float64  // times it was counted by the streams
	a, b   evidence // what it alone contributed
}

// An incident is the present rise of refusals at an endpoint, from the first evidence on.
type incident struct {
	failers  []failer
	accepted float64  // successes of known-good clients since the score left 0
	refused  float64  // refusals of known-good clients since then
	a, b     evidence // what everybody contributed since then
	epoch    uint32   // how often the score was 0

	level   int // 0: none, 1: warning, 2: somebody was woken
	stream  *stream
	fired   int64
	onset   int64
	heard   int64   // last time there was a known-good client
	usual   float64 // share of failures before
	bad, ok float64 // of the stream, since the onset
	peak    float64 // greatest share of failures
	better  float64 // evidence of recovery
	because []string

	warn, page *Alert
}

// failA counts a refusal of a client for stream A, with what it says; failB for stream B.
func (i *incident) failA(client uint64, v evidence) {
	if f := i.enter(client); f != nil {
		f.nA++
		f.a.add(v)
	}
}

func (i *incident) failB(client uint64, v evidence) {
	if f := i.enter(client); f != nil {
		f.nB++
		f.b.add(v)
	}
}

// enter finds a client among those that failed, or adds it; nil when there are too many to tell apart.
func (i *incident) enter(client uint64) *failer {
	f := i.failer(client)
	if f == nil && len(i.failers) < mostFailing {
		i.failers = append(i.failers, failer{key: client})
		f = &i.failers[len(i.failers)-1]
	}
	return f
}

// pass counts a success of a client at an endpoint, when the client has failed before.
func (i *incident) pass(client uint64, e *endpoint) {
	if f := i.failer(client); f != nil {
		f.a.add(e.a.weigh(0, 1))
		f.b.add(e.b.weigh(0, 1))
	}
}

func (i *incident) failer(client uint64) *failer {
	for k := range i.failers {
		if i.failers[k].key == client {
			return &i.failers[k]
		}
	}
	return nil
}

func (i *incident) gather(a, b evidence) {
	i.a.add(a)
	i.b.add(b)
}

// forget begins anew: the score was 0.
func (i *incident) forget() {
	if len(i.failers) > 0 || i.refused > 0 {
		i.epoch++
	}
	i.failers, i.accepted, i.refused, i.a, i.b = i.failers[:0], 0, 0, evidence{}, evidence{}
}

// others is the evidence that remains without the client that contributes most to it, in both streams: whether the service is at
// fault or one credential.
func (e *endpoint) others(now int64) float64 {
	var nA, nB float64
	for k := range e.spike.failers {
		nA += e.spike.failers[k].nA
		nB += e.spike.failers[k].nB
	}
	least := math.Inf(1)
	for k := range e.spike.failers {
		f := &e.spike.failers[k]
		least = min(least, max(e.a.remains(now, nA-f.nA, e.spike.a, f.a), e.b.remains(now, nB-f.nB, e.spike.b, f.b)))
	}
	if math.IsInf(least, 1) {
		return 0
	}
	return least
}

// remains is what the evidence of all says without that of one, when n refusals are left. It is 0 when they come no more often than
// usual.
func (s *stream) remains(now int64, n float64, all, one evidence) (best float64) {
	if l0, l1 := s.rates(); n*math.Log(l1/l0) <= (l1-l0)*float64(now-s.zero) {
		return 0
	}
	for k := range all {
		best = max(best, all[k]-one[k])
	}
	return best
}

// enough says whether the failures of an endpoint are more than the affair of one client.
func (e *endpoint) enough(now int64) bool {
	i := &e.spike
	if i.stream == &e.plain {
		return true
	}
	n, others := len(i.failers), e.others(now)
	if n >= 2 && others >= othersLeast {
		return true
	}
	return 2*n >= max(e.active[0], e.active[1]) && (n == 1 || others >= othersFew)
}

// strongest is the stream that has evidence for an alert, nil when none has.
func (d *Detector) strongest(e *endpoint) *stream {
	for _, s := range [...]*stream{&e.b, &e.a, &e.plain} {
		if d.has(e, s) && (s != &e.plain || s.recent() >= plainLeast) {
			return s
		}
	}
	return nil
}

// has says whether a stream has the evidence that it needs.
func (d *Detector) has(e *endpoint, s *stream) bool { return s.score() >= d.need(e, s) }

// need is the evidence that a stream needs.
func (d *Detector) need(e *endpoint, s *stream) float64 {
	switch s {
	case &e.a:
		return timesA * d.policy.Threshold
	case &e.plain:
		return plainTimes * d.policy.Threshold
	}
	return d.policy.Threshold
}

// judge decides on the AuthFailureSpike of an endpoint.
func (d *Detector) judge(e *endpoint) {
	i := &e.spike
	if e.ok+e.denied+e.asked > 0 {
		i.heard = d.now
	}
	i.accepted += e.ok + e.asked - e.saidNo
	i.refused += e.denied + e.saidNo
	if i.level == 0 {
		if e.score() == 0 {
			i.forget()
			return
		}
		s := d.strongest(e)
		if s == nil || !e.warm(d.now) || d.elsewhere(e) {
			return
		}
		d.raise(e, s)
	}
	if i.level == 1 && e.enough(d.now) && (e == d.all || d.all.spike.level < 2) {
		lasted := d.now - i.fired
		if d.has(e, &e.b) && lasted >= pageAfterB || d.has(e, &e.a) && lasted >= pageAfterA || i.stream == &e.plain && d.has(e, &e.plain) && lasted >= pageAfterPlain {
			i.level = 2
			i.page = &Alert{Name: AuthFailureSpike, Severity: Critical, Endpoint: e.name, Started: moment(d.now), Onset: moment(i.onset)}
			d.tell(d.describeSpike(e, *i.page))
		}
	}
	d.recover(e)
}

// elsewhere says whether another alert tells of this incident already, or better.
func (d *Detector) elsewhere(e *endpoint) bool {
	if e != d.all {
		return d.all.spike.level > 0
	}
	sum, most := 0.0, &endpoint{}
	for _, o := range d.busy {
		if o.partOf != e.spike.epoch {
			continue
		}
		sum += o.part
		if o.part > most.part {
			most = o
		}
	}
	return sum > 0 && most.part >= concentrated*sum && most.warm(d.now)
}

// raise makes a warning.
func (d *Detector) raise(e *endpoint, s *stream) {
	i := &e.spike
	i.level, i.stream, i.fired, i.onset, i.heard = 1, s, d.now, s.zero, d.now
	i.usual, i.peak, i.better = s.usual(), 0, 0
	i.bad, i.ok = 0, i.accepted
	for _, f := range i.failers {
		i.bad += max(f.nA, f.nB)
	}
	if s == &e.plain {
		i.bad = i.refused
	}
	for _, s := range [...]*stream{&e.a, &e.b, &e.plain, &e.every} {
		s.soil(d.now, i.onset)
	}
	i.because = d.reasons(e, s)
	i.warn = &Alert{Name: AuthFailureSpike, Severity: Warning, Endpoint: e.name, Started: moment(d.now), Onset: moment(i.onset)}
	d.tell(d.describeSpike(e, *i.warn))
}

// recover ends an incident when successes say so: a test of what is usual against a quarter of what was seen. When nobody is
// left to judge by, it ends too, and says so.
func (d *Detector) recover(e *endpoint) {
	i := &e.spike
	bad, ok := e.badA, e.ok
	switch i.stream {
	case &e.b:
		bad = e.badB
	case &e.plain:
		bad, ok = e.saidNo, e.asked-e.saidNo
	}
	i.bad += bad
	i.ok += ok
	i.peak = max(i.peak, i.bad/(i.bad+i.ok+2))
	still := max(shift(i.usual, 2), shift(i.peak, stillFailing))
	i.better = max(0, i.better-likelier(bad, ok, i.usual, still))
	how := ""
	switch {
	case d.now-i.heard > noData:
		how = EndedNoData
	case i.better >= recoveredBy && d.now-i.fired >= shortest && (i.page == nil || d.now-i.page.Started.Unix() >= shortest):
		how = EndedRecovered
	default:
		return
	}
	for _, a := range []*Alert{i.warn, i.page} {
		if a != nil {
			a.Ended, a.How = moment(d.now), how
			d.tell(d.describeSpike(e, *a))
		}
	}
	i.level, i.stream, i.warn, i.page = 0, nil, nil, nil
	i.forget()
	d.calm(e)
}

// calm forgets evidence after an incident: that of the endpoint and that of all together, of which it was the greater part;
// after one of all endpoints, that of each, so that none raises its voice when all is over.
func (d *Detector) calm(e *endpoint) {
	list := []*endpoint{e, d.all}
	if e == d.all {
		list = d.everybody()
	}
	for _, e := range list {
		if e.spike.level == 0 {
			e.spike.forget()
		}
		for _, s := range [...]*stream{&e.a, &e.b, &e.plain} {
			s.reset(d.now)
		}
	}
}
