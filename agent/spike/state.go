package spike

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

const (
	stateMagic   = "AVspike"
	stateVersion = 1
	maxState     = 16 << 20
	savedTrails  = 200_000 // clients that are kept over a restart, those seen last
)

// ErrState is wrapped by what Restore returns. The detector is then as if it were new; the caller says so and goes on.
var ErrState = errors.New("state of the spike detector cannot be used")

// saved is the state that is written down. What is not in it is learnt anew within minutes: attribution, evidence that
// has not led to an alert, and the pairs of client and endpoint.
type saved struct {
	Seed      uint64
	Now       int64
	Endpoints []savedEndpoint // All first
	Clients   []savedClient
	Season    savedSeason
}

type savedEndpoint struct {
	Name        string
	First, Last int64
	Refuses     bool
	Streams     [5]savedStream
	Active      [2]int
	Incident    *savedIncident
}

type savedStream struct{ N, K, Seconds, Phi float64 }

type savedIncident struct {
	Stream                    int
	Fired, Onset, Heard       int64
	Usual, Bad, OK, Peak      float64
	Better, Accepted, Refused float64
	Warn, Page                *Alert
	Because                   []string
	Small, Large, Rate        float64
}

type savedClient struct {
	Key         uint64
	Good, Since uint32
	Seen        uint32
}

type savedSeason struct {
	Mean, Seen [hoursOfWeek]float64
	Phi        float64
}

// Save writes down what has been learnt and what is alerted, as a few hundred kilobytes at most for most services.
func (d *Detector) Save() ([]byte, error) {
	s := saved{Seed: d.policy.Seed, Now: d.now}
	for _, e := range d.everybody() {
		x := savedEndpoint{Name: e.name, First: e.first, Last: e.last, Refuses: e.refuses, Active: e.active}
		for i, st := range e.streams() {
			x.Streams[i] = savedStream{st.n, st.k, st.seconds, st.phi}
			if i := &e.spike; i.level > 0 && i.stream == st {
				x.Incident = &savedIncident{Fired: i.fired, Onset: i.onset, Heard: i.heard, Usual: i.usual, Bad: i.bad, OK: i.ok, Peak: i.peak,
					Better: i.better, Accepted: i.accepted, Refused: i.refused, Warn: i.warn, Page: i.page, Because: i.because, Small: st.small, Large: st.large, Rate: st.rate}
			}
		}
		if x.Incident != nil {
			x.Incident.Stream = slices.Index(streamsOf(e), e.spike.stream)
		}
		s.Endpoints = append(s.Endpoints, x)
	}
	s.Clients = d.trails.save()
	s.Season = savedSeason{Phi: d.season.phi}
	for i, h := range d.season.hours {
		s.Season.Mean[i], s.Season.Seen[i] = h.mean, h.seen
	}
	var b bytes.Buffer
	b.WriteString(stateMagic)
	b.WriteByte(stateVersion)
	b.Write(make([]byte, 4))
	if err := gob.NewEncoder(&b).Encode(&s); err != nil {
		return nil, fmt.Errorf("state of the spike detector: %w", err)
	}
	out := b.Bytes()
	head := len(stateMagic) + 1
	binary.LittleEndian.PutUint32(out[head:], crc32.ChecksumIEEE(out[head+4:]))
	return out, nil
}

func streamsOf(e *endpoint) []*stream { s := e.streams(); return s[:] }

// save lists the clients that were good, those seen last first.
func (t *trails) save() []savedClient {
	var list []savedClient
	for i := range t.buckets {
		b := &t.buckets[i]
		for j, key := range b.keys {
			if tr := &b.trails[j]; key != 0 && key&1 == 0 && tr.good != 0 {
				list = append(list, savedClient{key, tr.good, tr.since, tr.seen})
			}
		}
	}
	slices.SortFunc(list, func(a, b savedClient) int { return cmp.Or(cmp.Compare(b.Seen, a.Seen), cmp.Compare(a.Key, b.Key)) })
	return list[:min(len(list), savedTrails)]
}

// Restore makes a detector from what Save wrote. Its error wraps ErrState; the detector it returns can be used in any case.
func Restore(p Policy, state []byte) (*Detector, error) {
	d := New(p)
	s, err := decode(state)
	if err == nil && s.Seed != d.policy.Seed {
		err = errors.New("written with another seed")
	}
	if err != nil {
		return d, fmt.Errorf("%w: %w", ErrState, err)
	}
	d.now, d.block, d.hour = s.Now, s.Now-s.Now%blockSeconds, uint16(s.Now/3600)
	for i, x := range s.Endpoints {
		e := d.all
		if i > 0 {
			if len(d.others) >= d.policy.Endpoints {
				break
			}
			e = newEndpoint(x.Name, x.First)
			d.byName[x.Name] = e
			d.others = append(d.others, e)
		}
		e.restore(d, x)
	}
	for _, c := range s.Clients {
		t := d.trails.keep(max(c.Key&^1, 2))
		t.good, t.since, t.seen = c.Good, c.Since, c.Seen
	}
	d.season.phi = s.Season.Phi
	for i := range d.season.hours {
		d.season.hours[i] = usualHour{s.Season.Mean[i], s.Season.Seen[i]}
	}
	d.season.begin(s.Now)
	return d, nil
}

func decode(state []byte) (s saved, err error) {
	head := len(stateMagic) + 1
	switch {
	case len(state) < head+4 || string(state[:len(stateMagic)]) != stateMagic:
		return s, errors.New("not a state of the spike detector")
	case len(state) > maxState:
		return s, fmt.Errorf("%d bytes, at most %d are read", len(state), maxState)
	case state[head-1] != stateVersion:
		return s, fmt.Errorf("written by another version (%d, this is %d)", state[head-1], stateVersion)
	case crc32.ChecksumIEEE(state[head+4:]) != binary.LittleEndian.Uint32(state[head:]):
		return s, errors.New("damaged")
	}
	if err := gob.NewDecoder(bytes.NewReader(state[head+4:])).Decode(&s); err != nil {
		return s, err
	}
	if len(s.Endpoints) == 0 || s.Endpoints[0].Name != All || s.Now < 0 {
		return s, errors.New("incomplete")
	}
	return s, nil
}

func (e *endpoint) restore(d *Detector, x savedEndpoint) {
	e.first, e.last, e.refuses, e.active = x.First, x.Last, x.Refuses, x.Active
	for i, st := range e.streams() {
		y := x.Streams[i]
		st.n, st.k, st.seconds, st.phi, st.zero = y.N, y.K, y.Seconds, y.Phi, d.now
	}
	if e != d.all {
		e.a.floor = repeated(e.every.usual())
	}
	if e.refuses && e.top == nil {
		e.top = &top{}
	}
	y := x.Incident
	if y == nil || y.Stream < 0 || y.Stream >= len(e.streams()) || y.Warn == nil {
		return
	}
	st := e.streams()[y.Stream]
	st.small, st.large, st.rate = y.Small, y.Large, y.Rate
	i := &e.spike
	i.level, i.stream, i.fired, i.onset, i.heard = 1, st, y.Fired, y.Onset, y.Heard
	i.usual, i.bad, i.ok, i.peak, i.better, i.accepted, i.refused = y.Usual, y.Bad, y.OK, y.Peak, y.Better, y.Accepted, y.Refused
	i.warn, i.page, i.because = y.Warn, y.Page, y.Because
	if y.Page != nil {
		i.level = 2
	}
	if e != d.all {
		e.wake(d)
	}
}
