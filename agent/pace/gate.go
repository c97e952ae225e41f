// Package pace decides whether and when to ask again: backoff and circuit breaker of one thing, an endpoint or an
// identity. It reads no clock, opens no connection and does not know the name of what it guards.
package pace

import (
	"sync"
	"time"
)

// A Policy says how patient a gate is. The zero value of a field means the default of [NewGate].
type Policy struct {
	Failures int           // failures in a row that open the gate; default 3
	Base     time.Duration // upper bound of the first backoff; doubles with each failure; default 5 s
	Open     time.Duration // how long the gate stays open the first time; doubles with each trip; default 30 s
	MaxOpen  time.Duration // longest time that it stays open; default 5 min
	Trial    time.Duration // after which an unanswered trial counts as lost; default 2 min
}

func (p Policy) withDefaults() Policy {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	if p.Failures <= 0 {
		p.Failures = 3
	}
	set(&p.Base, 5*time.Second)
	set(&p.Open, 30*time.Second)
	set(&p.MaxOpen, 5*time.Minute)
	set(&p.Trial, 2*time.Minute)
	p.MaxOpen = max(p.MaxOpen, p.Open)
	return p
}

// Position is the state of the breaker.
type Position string

// The positions. As with a circuit, closed lets requests through.
const (
	Closed   Position = "closed"
	Open     Position = "open"
	HalfOpen Position = "half_open"
)

// Positions lists all positions.
var Positions = []Position{Closed, Open, HalfOpen}

// A State is a gate as it can be shown and stored.
type State struct {
	Position Position  `json:"state"`
	Failures int       `json:"failures,omitempty"` // in a row
	Again    time.Time `json:"again,omitzero"`     // before which nothing is let through
	Trips    int       `json:"trips,omitempty"`    // openings since the last success
	Total    int       `json:"total,omitempty"`    // openings since the start
	Trial    time.Time `json:"-"`                  // when the one trial of a half-open gate began
}

// An Outcome is what came of a request that was let through.
type Outcome struct {
	OK         bool
	RetryAfter time.Duration // what the server asked for; obeyed as a floor, up to a day
	Permanent  bool          // asking again will not help and may harm: opens at once
	Ignore     bool          // says nothing about the thing: own distress, nothing was sent
}

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = 24 * time.Hour

// A Gate decides whether and when to ask again. It may be used concurrently and never reads a clock: instants come as
// arguments and are compared by their monotonic part, where they have one.
type Gate struct {
	policy Policy
	jitter func() float64

	mu    sync.Mutex // owns state
	state State
}

// NewGate makes a closed gate. jitter gives numbers in [0, 1).
func NewGate(p Policy, jitter func() float64) *Gate {
	return &Gate{policy: p.withDefaults(), jitter: jitter, state: State{Position: Closed}}
}

// Admit says whether to ask now; if not, again is when to try. A half-open gate admits one at a time. Who is admitted
// must call Done.
func (g *Gate) Admit(now time.Time) (again time.Time, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.state
	if now.Before(s.Again) {
		return s.Again, false
	}
	switch s.Position {
	case Open:
		s.Position, s.Trial = HalfOpen, now
	case HalfOpen:
		if lost := s.Trial.Add(g.policy.Trial); !s.Trial.IsZero() && now.Before(lost) {
			return now.Add(min(lost.Sub(now), time.Second)), false
		}
		s.Trial = now
	}
	return now, true
}

// Done tells what came of it.
func (g *Gate) Done(now time.Time, o Outcome) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.state
	floor := now.Add(min(max(o.RetryAfter, 0), maxRetryAfter))
	switch {
	case o.Ignore:
		if s.Position == HalfOpen {
			s.Trial = time.Time{}
		}
		return
	case o.OK:
		*s = State{Position: Closed, Total: s.Total}
		if o.RetryAfter > 0 {
			s.Again = floor
		}
		return
	}
	s.Failures++
	if s.Position == HalfOpen || s.Failures >= g.policy.Failures || o.Permanent {
		if s.Position != Open {
			s.Trips++
			s.Total++
		}
		s.Position, s.Trial = Open, time.Time{}
		open := grow(g.policy.Open, s.Trips-1, g.policy.MaxOpen)
		s.Again = later(now.Add(open/2+time.Duration(g.jitter()*float64(open/2))), floor)
		return
	}
	// Full jitter: anywhere between now and the bound.
	bound := grow(g.policy.Base, s.Failures-1, g.policy.MaxOpen)
	s.Again = later(now.Add(time.Duration(g.jitter()*float64(bound))), floor)
}

// State gives a copy.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.state
}

// Restore takes over a state that was stored before a restart. An opening that lies further ahead than the gate could
// have decided, because a clock was wrong, is cut to the longest one.
func (g *Gate) Restore(s State, now time.Time) {
	if s.Position != Open && s.Position != HalfOpen {
		s.Position = Closed
	}
	if s.Position == HalfOpen {
		s.Position = Open
	}
	s.Failures, s.Trips, s.Total = max(s.Failures, 0), max(s.Trips, 0), max(s.Total, 0)
	if limit := now.Add(maxRetryAfter); s.Again.After(limit) {
		s.Again = now.Add(g.policy.MaxOpen)
	}
	// Re-based on the reading of now, so that from here on only monotonic time counts.
	if ahead := s.Again.Sub(now); ahead > 0 {
		s.Again = now.Add(ahead)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = s
}

func grow(base time.Duration, doublings int, limit time.Duration) time.Duration {
	for ; doublings > 0 && base < limit; doublings-- {
		base *= 2
	}
	return min(base, limit)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
