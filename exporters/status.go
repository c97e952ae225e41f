package exporters

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
)

// historyLength is how many runs the strip of a probe shows.
const historyLength = 30

// Status keeps the last event of each probe for the page and the records. It is an agent.Observer.
type Status struct {
	mu      sync.Mutex // owns what follows
	probes  map[string]*kept
	planned []agent.Observation // probes of the configuration, as known before they run
	notes   []string            // what the operator should know of authvigil itself
	started time.Time
}

// kept is what is kept of one probe: the last run, the last that asked, the last that failed and the last that was good, and
// how the runs before ended.
type kept struct {
	last    *agent.Event
	asked   *agent.Event       // last run that asked; nil: none yet
	bad     *agent.Event       // last run that failed; nil: none since the start
	good    *agent.Event       // last run that was as expected; nil: none since the start
	plan    *agent.Observation // what is known before the first run, when there was none
	history []uint8            // places in agent.Outcomes
}

// NewStatus makes an empty status.
func NewStatus(started time.Time) *Status {
	return &Status{probes: map[string]*kept{}, started: started}
}

// Observe implements agent.Observer.
func (s *Status) Observe(ev *agent.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.probes[ev.Probe]
	if k == nil {
		k = &kept{}
		s.probes[ev.Probe] = k
	}
	k.last = ev
	if k.history == nil {
		k.history = make([]uint8, 0, historyLength)
	}
	if len(k.history) == historyLength {
		copy(k.history, k.history[1:])
		k.history = k.history[:historyLength-1]
	}
	k.history = append(k.history, uint8(slices.Index(agent.Outcomes, ev.Outcome())))
	switch ev.Outcome() {
	case agent.RunHeld:
		return
	case agent.RunOK:
		k.good = ev
	case agent.RunFault:
		k.bad = ev
	}
	k.asked = ev
}

// Start tells which probes there are, so that those which did not run yet are shown as waiting.
func (s *Status) Start(planned []agent.Observation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planned = planned
}

// Forget implements agent.Observer.
func (s *Status) Forget(probe string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.probes, probe)
}

// SetNotes replaces what the operator should know: a failed reload, warnings of the configuration.
func (s *Status) SetNotes(notes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = slices.Clone(notes)
}

// Records gives the record of each probe's last run, by name. A probe that is held shows its last run that asked.
func (s *Status) Records() []Record {
	list := []Record{}
	for _, k := range s.sorted() {
		if k.last != nil {
			list = append(list, k.record())
		}
	}
	return list
}

// Record gives the record of one probe.
func (s *Status) Record(probe string) (Record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.probes[probe]
	if k == nil {
		return Record{}, false
	}
	return k.record(), true
}

// kept gives a copy of what is kept of one probe, also of one that did not run yet.
func (s *Status) kept(probe string) (kept, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.probes[probe]; k != nil {
		c := *k
		c.history = slices.Clone(k.history)
		return c, true
	}
	for i := range s.planned {
		if s.planned[i].Probe == probe {
			return kept{plan: &s.planned[i]}, true
		}
	}
	return kept{}, false
}

// shown is the event to show: the last that asked, with the gates as they are now.
func (k *kept) shown() agent.Event {
	if k.last == nil {
		return agent.Event{Observation: *k.plan}
	}
	if k.asked == nil {
		return *k.last
	}
	ev := *k.asked
	ev.Gate, ev.IdentityGate, ev.Next = k.last.Gate, k.last.IdentityGate, k.last.Next
	return ev
}

func (k *kept) record() Record {
	r := NewRecord(k.shown())
	r.Held = k.last.Outcome() == agent.RunHeld
	return r
}

// sorted gives a copy of what is kept, by name; probes that did not run yet have only their plan.
func (s *Status) sorted() []kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]kept, 0, max(len(s.probes), len(s.planned)))
	for _, k := range s.probes {
		c := *k
		c.history = slices.Clone(k.history)
		list = append(list, c)
	}
	for i := range s.planned {
		if s.probes[s.planned[i].Probe] == nil {
			list = append(list, kept{plan: &s.planned[i]})
		}
	}
	slices.SortFunc(list, func(a, b kept) int { return cmp.Compare(a.name(), b.name()) })
	return list
}

func (k *kept) name() string {
	if k.last == nil {
		return k.plan.Probe
	}
	return k.last.Probe
}

// A Blame is a culprit with a cause, and the probes that suffer: one broken issuer is one row, whatever the number of
// probes behind it.
type Blame struct {
	diagnose.Finding
	Title  string            `json:"title"`
	Since  time.Time         `json:"since,omitzero"` // start of the first failing run; zero: nothing fails yet
	Probes []string          `json:"probes"`
	Held   int               `json:"held,omitempty"`   // probes among them that did not ask, because a gate is closed for this cause
	Labels map[string]string `json:"labels,omitempty"` // that all its probes have
}

// take adds a probe that suffers.
func (b *Blame) take(ev *agent.Event) {
	maps.DeleteFunc(b.Labels, func(name, value string) bool { return ev.Labels[name] != value })
	b.Probes = append(b.Probes, ev.Probe)
}

// Blames groups the first findings of all probes by culprit and cause; those that most probes suffer from first.
func (s *Status) Blames() []Blame {
	type key struct {
		cause   diagnose.Cause
		culprit string
	}
	found := map[key]*Blame{}
	closed := map[string]*Blame{} // by gate: why it is closed
	var held []*agent.Event
	for _, k := range s.sorted() {
		ev := k.shown()
		if len(ev.Findings) == 0 {
			if k.state() == rowHeld {
				held = append(held, k.last)
			}
			continue
		}
		f := ev.Findings[0]
		b := found[key{f.Cause, f.Culprit}]
		if b == nil {
			about, _ := diagnose.Describe(f.Cause)
			b = &Blame{Finding: f, Title: about.Title, Since: ev.Failing, Labels: maps.Clone(ev.Labels)}
			found[key{f.Cause, f.Culprit}] = b
		}
		b.take(&ev)
		if !ev.Failing.IsZero() && (b.Since.IsZero() || ev.Failing.Before(b.Since)) {
			b.Since = ev.Failing
		}
		if gate := closedGate(&ev); gate != "" && ev.Fault != nil {
			closed[gate] = b
		}
	}
	for _, ev := range held {
		if b := closed[closedGate(ev)]; b != nil {
			b.take(ev)
			b.Held++
		}
	}
	list := make([]Blame, 0, len(found))
	for _, b := range found {
		slices.Sort(b.Probes)
		list = append(list, *b)
	}
	slices.SortFunc(list, func(a, b Blame) int {
		return cmp.Or(cmp.Compare(len(b.Probes), len(a.Probes)), cmp.Compare(a.Culprit, b.Culprit), cmp.Compare(a.Cause, b.Cause))
	})
	return list
}

// closedGate names the gate that keeps questions back, that of the identity first; empty: none does.
func closedGate(ev *agent.Event) string {
	switch {
	case !ev.IdentityGate.Again.IsZero():
		return "identity " + ev.About.Identity
	case !ev.Gate.Again.IsZero():
		return ev.GateName()
	}
	return ""
}
