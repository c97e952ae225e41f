package spike

import "unsafe"

// An endpoint is what is known of one pattern of paths, or of all together.
type endpoint struct {
	name    string
	id      uint64
	first   int64 // first request
	last    int64 // last request
	refuses bool  // it is known to answer 401
	busy    bool  // in Detector.busy

	// Of the present tick.
	ok            float64 // requests of known-good clients that were accepted
	badA, badB    float64 // and refused, as streams A and B count
	allA, allB    float64 // the same, as they count for all endpoints together
	denied        float64 // all refusals of known-good clients
	strangers     float64 // refusals of others
	success       float64 // successes of everybody
	asked, saidNo float64 // requests and refusals of nobody in particular

	a, b, raw, plain stream
	every            stream // all refusals of known-good clients: learnt, not tested
	active           [2]int // known-good clients seen in this hour and in the one before
	top              *top   // who was refused; nil: nobody yet
	spike            incident
	ticket           ticket
	part             float64 // of the evidence for all endpoints, since their score left 0
	partOf           uint32  // incident.epoch that part belongs to
	rationed         float64 // refusals of nobody in particular that still count
	rationedAt       int64
}

const (
	endpointBytes = int(unsafe.Sizeof(endpoint{}))
	topBytes      = int(unsafe.Sizeof(top{}))
)

func newEndpoint(name string, now int64) *endpoint {
	e := &endpoint{name: name, id: hash(0, []byte(name)), first: now}
	e.a.prior, e.b.prior, e.raw.prior, e.plain.prior, e.every.prior = 300, 500, 100, 100, 20
	e.a.points, e.b.points, e.raw.points, e.plain.points = pointsA, pointsB, pointsRaw, pointsA
	e.a.rateCounts, e.b.rateCounts, e.raw.rateCounts, e.plain.rateCounts = knownRate, knownRate, 1, 1
	return e
}

func (e *endpoint) streams() [5]*stream { return [...]*stream{&e.a, &e.b, &e.raw, &e.plain, &e.every} }

func (e *endpoint) score() float64 { return max(e.a.score(), e.b.score(), e.plain.score()) }

// warm says whether the endpoint was watched for long enough to know what is usual.
func (e *endpoint) warm(now int64) bool { return e.first != 0 && now-e.first >= warmUp }

// usualOf picks the stream that people are told about.
func (e *endpoint) baseline() float64 {
	if e.plain.n > 0 {
		return e.plain.usual()
	}
	return max(e.a.usual(), e.b.usual())
}

func (e *endpoint) ratio() float64 {
	s := &e.a
	if e.plain.n > 0 {
		s = &e.plain
	}
	bad, ok := s.blocks[0].bad+s.blocks[1].bad, s.blocks[0].ok+s.blocks[1].ok
	if s == &e.a {
		bad = max(bad, e.b.blocks[0].bad+e.b.blocks[1].bad)
	}
	if bad+ok == 0 {
		return 0
	}
	return bad / (bad + ok)
}

// everybody is all endpoints, All first.
func (d *Detector) everybody() []*endpoint { return append([]*endpoint{d.all}, d.others...) }

// endpoint finds the endpoint of a request. A new one is made only by an answer that shows that it exists; nil: the request
// does not count.
func (d *Detector) endpoint(name []byte, status int) *endpoint {
	if e := d.byName[string(name)]; e != nil {
		return e
	}
	switch {
	case status == 401 && len(d.others) < d.policy.Endpoints/2:
	case status/100 == 2 && len(d.others) < d.policy.Endpoints-1:
	case status == 401 || status/100 == 2:
		d.stats.Folded++
		if e := d.byName[Other]; e != nil {
			return e
		}
		name = []byte(Other)
	default:
		return nil
	}
	e := newEndpoint(string(name), d.now)
	d.byName[e.name] = e
	d.others = append(d.others, e)
	return e
}

// wake puts an endpoint among those that are weighed at the end of the tick.
func (e *endpoint) wake(d *Detector) {
	e.busy = true
	d.busy = append(d.busy, e)
	for _, s := range e.streams() {
		if s.score() == 0 {
			s.zero = d.now
		}
	}
}

// sweep drops endpoints that nobody asked for in a week, and when the table is full those idle for an hour that never
// refused.
func (d *Detector) sweep() {
	full := len(d.others) >= d.policy.Endpoints-1
	kept := d.others[:0]
	for _, e := range d.others {
		idle := d.now - e.last
		if !e.busy && e.spike.level == 0 && !e.ticket.active && (idle > week || full && idle > 3600 && !e.refuses) {
			delete(d.byName, e.name)
			continue
		}
		kept = append(kept, e)
	}
	clear(d.others[len(kept):])
	d.others = kept
}
