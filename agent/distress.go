package agent

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/probes/identity"
)

// A Distress is something that authvigil itself suffers from, so that what it says of others may be late, lost or wrong.
type Distress struct {
	What string // one of Distresses
	Text string // a sentence for people
}

// Distresses lists what there may be.
var Distresses = []string{"late", "stuck", "sink", "state", "clock", "files"}

const (
	lateLimit   = 5 * time.Second  // a run that begins later than this after its time was kept waiting
	lateShown   = 2 * time.Minute  // how long that is said
	clockShown  = 10 * time.Minute // how long a step of the clock is said
	stuckAfter  = time.Minute      // beyond its timeout, a run does not end any more
	filesShare  = 0.9              // of the limit of open files
	sinkPatient = time.Minute      // how long a sink may take nothing
)

// condition is what distress is told by. What is written while probes run is atomic; the rest belongs to lookAtSelf.
type condition struct {
	late      atomic.Pointer[lateness] // the last run that began too late
	step      atomic.Pointer[clockStep]
	unwritten sync.Map     // why a piece of state could not be written, by its name
	stuck     atomic.Int64 // runs that do not end
	sinks     map[string]sinkCondition
	now       atomic.Pointer[[]Distress]
}

type lateness struct {
	by time.Duration
	at time.Time
}

type clockStep struct {
	by time.Duration
	at time.Time
}

type sinkCondition struct {
	delivered, failed int
	since             time.Time // of the first failure that no delivery followed; zero: it takes what it is given
}

// lookAtSelf finds out what authvigil suffers from, and writes what changed into the log.
func (a *Agent) lookAtSelf(now time.Time) {
	before := a.distress()
	var list []Distress
	add := func(what, format string, args ...any) {
		list = append(list, Distress{what, fmt.Sprintf(format, args...)})
	}
	if l := a.condition.late.Load(); l != nil && now.Sub(l.at) < lateShown {
		add("late", "Runs begin up to %s after their time: this machine, or agent.concurrency, is too small for the probes.", l.by.Round(time.Second))
	}
	if n := a.overrunning(now); n > 0 {
		add("stuck", "%d runs do not end although their time is over; this is a defect of authvigil.", n)
	}
	for _, name := range a.failingSinks(now) {
		add("sink", "Sink %s has taken no alert for %s; what fires is kept and sent again.", name, sinkPatient)
	}
	a.condition.unwritten.Range(func(_, why any) bool {
		add("state", "State cannot be written, and a restart would forget what is newer: %s.", why)
		return false // one stands for all
	})
	if s := a.condition.step.Load(); s != nil && now.Sub(s.at) < clockShown {
		add("clock", "The clock of this machine was set by %s at %s; ages and expiries around it may be wrong.", s.by.Round(time.Millisecond), s.at.UTC().Format(time.RFC3339))
	}
	if text := openFiles(); text != "" {
		add("files", "%s", text)
	}
	a.condition.now.Store(&list)
	for _, d := range list {
		if !has(before, d.What) {
			a.env.Log.Warn("own distress", "what", d.What, "text", d.Text)
		}
	}
	for _, d := range before {
		if !has(list, d.What) {
			a.env.Log.Info("own distress is over", "what", d.What)
		}
	}
}

func has(list []Distress, what string) bool {
	for _, d := range list {
		if d.What == what {
			return true
		}
	}
	return false
}

func (a *Agent) distress() []Distress {
	if list := a.condition.now.Load(); list != nil {
		return *list
	}
	return nil
}

// overrunning counts the runs that go on although their time was over long ago.
func (a *Agent) overrunning(now time.Time) (n int64) {
	if !a.mu.TryLock() {
		return a.condition.stuck.Load() // a reload is under way
	}
	defer a.mu.Unlock()
	for _, w := range a.watches {
		if began := w.began.Load(); began != nil && now.Sub(*began) > w.timeout+stuckAfter {
			n++
		}
	}
	a.condition.stuck.Store(n)
	return n
}

// failingSinks names the sinks that were given alerts and took none for a while.
func (a *Agent) failingSinks(now time.Time) (names []string) {
	if a.alerts == nil {
		return nil
	}
	next := map[string]sinkCondition{}
	for _, s := range a.alerts.Stats().Sinks {
		was := a.condition.sinks[s.Sink]
		c := sinkCondition{s.Delivered, s.Failed, was.since}
		switch {
		case s.Delivered > was.delivered:
			c.since = time.Time{}
		case s.Failed > was.failed && was.since.IsZero():
			c.since = now
		}
		next[s.Sink] = c
		if !c.since.IsZero() && now.Sub(c.since) >= sinkPatient {
			names = append(names, s.Sink)
		}
	}
	a.condition.sinks = next
	return names
}

// openFiles says when there are hardly any file descriptors left.
func openFiles() string {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return ""
	}
	list, err := os.ReadDir("/proc/self/fd")
	switch {
	case err != nil && (os.IsNotExist(err) || os.IsPermission(err)):
		return "" // no /proc
	case err != nil:
		return fmt.Sprintf("Files cannot be opened (%v): raise LimitNOFILE= of the unit.", err)
	case float64(len(list)) > filesShare*float64(limit.Cur):
		return fmt.Sprintf("%d of %d files are open: raise LimitNOFILE= of the unit.", len(list), limit.Cur)
	}
	return ""
}

// wroteState notes how writing of a piece of state ended. Each is noted for itself, because one that did not change is not
// written, and says nothing of the disk.
func (a *Agent) wroteState(what string, err error) {
	if err == nil {
		a.condition.unwritten.Delete(what)
		return
	}
	a.condition.unwritten.Store(what, strings.TrimRight(err.Error(), "."))
}

// A heardStore is the store with an ear for whether it can be written.
type heardStore struct {
	identity.Store
	agent *Agent
}

func (h *heardStore) Save(key string, value []byte) error {
	err := h.Store.Save(key, value)
	h.agent.wroteState(key, err)
	return err
}
