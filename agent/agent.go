// Package agent is the line from schedule to alert, and its wiring.
//
//	watch ──► gate ──► probe.Run ──► judge ──► observers
//	                                   └─────► dispatcher ║ Run ──► sinks
//
// A watch runs its probe when the schedule and the gate allow it, and gets a report. judge adds the report to what is
// known, asks diagnose, and makes one event of it. Every observer sees the event; what must be told to people becomes an
// alert, which a dispatcher sends. Up to the dispatcher all is one goroutine per probe and plain calls.
//
// Goroutines: one per probe ([watch.loop]), one that looks at the wall clock, those of the dispatcher. Locks: the agent's
// own for its set of watches, the court's for all that is known, a gate's for its state; taken in this order.
package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// An Agent runs the probes of a configuration.
type Agent struct {
	env       Env
	alerts    *alert.Dispatcher // nil: nobody is told
	court     *court
	slots     chan struct{}
	panics    atomic.Int64
	steps     atomic.Int64
	looked    atomic.Pointer[time.Time] // last look at the clock
	condition condition

	mu      sync.Mutex // owns what follows
	world   *world
	watches map[string]*watch
	gates   map[string]*pace.Gate // by endpoint and identity, see gateOf
	running context.Context       // that Run was given, while it runs; watches started by Reload live in it
	group   sync.WaitGroup

	current atomic.Pointer[world] // world, for those who must not wait for mu
}

// ErrNoProbes means that a configuration has nothing to do; the operator must add a [probe.NAME].
var ErrNoProbes = errors.New("the configuration has no probe")

// New builds everything that a configuration describes, and starts nothing. The error joins a *ConfigError for everything
// that is wrong.
func New(c *Config, env Env, observers ...Observer) (*Agent, error) {
	env.shared = probes.NewShared()
	a := &Agent{env: env, court: newCourt(observers), slots: make(chan struct{}, c.Agent.Concurrency), watches: map[string]*watch{}, gates: map[string]*pace.Gate{}}
	if env.Store != nil {
		a.env.Store = &heardStore{env.Store, a}
	}
	a.env.peers = a.court.knownPeers
	w, err := build(c, a.env, nil, a.court.localClock)
	if err != nil {
		return nil, err
	}
	a.world = w
	a.current.Store(w)
	a.alerts = alert.NewDispatcher(env.Log)
	a.alerts.SetRules(a.rules(w))
	a.alerts.SetSinks(w.receivers())
	return a, nil
}

// Run runs the probes until ctx ends, and waits for those that are running.
func (a *Agent) Run(ctx context.Context) error {
	if len(a.world.probes) == 0 {
		return ErrNoProbes
	}
	a.mu.Lock()
	a.running = ctx
	a.recall()
	for _, name := range sortedKeys(a.world.probes) {
		a.start(a.world.probes[name])
	}
	a.group.Go(func() { a.lookAtClock(ctx) })
	if a.env.Store != nil {
		a.recallRefusals()
		a.group.Go(func() { a.keepRefusals(ctx) })
	}
	if a.alerts != nil {
		a.group.Go(func() { _ = a.alerts.Run(ctx) })
		a.group.Go(func() { a.remember(ctx) })
	}
	a.mu.Unlock()
	<-ctx.Done()
	a.mu.Lock()
	a.running = nil
	a.mu.Unlock()
	a.group.Wait()
	a.current.Load().close(ctx, nil)
	return nil
}

// closing is what identities get to log out with, all of them together.
const closing = 3 * time.Second

// close ends what identities hold open at servers, but for those that go on in the next world.
func (w *world) close(ctx context.Context, next *world) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	var group sync.WaitGroup
	for name, b := range w.identities {
		if next != nil && next.identities[name] == b {
			continue
		}
		if c, ok := b.Identity.(identity.Closer); ok {
			group.Go(func() { c.Close(ctx) })
		}
	}
	group.Wait()
}

// start begins a watch; the agent's mutex is held.
func (a *Agent) start(b *builtProbe) {
	ctx, stop := context.WithCancel(a.running)
	w := a.watchOf(b)
	w.stop = stop
	a.watches[b.name] = w
	a.group.Go(func() { w.loop(ctx) })
}

// watchOf makes a watch with the gate of its endpoint; the agent's mutex is held.
func (a *Agent) watchOf(b *builtProbe) *watch {
	key := gateOf(b)
	if a.gates[key] == nil {
		a.gates[key] = pace.NewGate(pace.Policy{}, a.env.Jitter)
	}
	w := &watch{builtProbe: b, agent: a, gate: a.gates[key], done: make(chan struct{})}
	if id, ok := a.world.identities[b.about.Identity]; ok {
		w.who = id.Identity
	}
	return w
}

// gateOf names the gate that a probe goes through. It stands before an endpoint as one identity sees it, because a server
// that refuses one credential must not keep the others from being asked with.
func gateOf(b *builtProbe) string {
	return (&Observation{About: b.about}).GateName()
}

// A Diff says what a reload changed.
type Diff struct {
	Added, Changed, Removed, Same []string // probes
}

func (d Diff) String() string {
	return fmt.Sprintf("%d added, %d changed, %d removed, %d as before", len(d.Added), len(d.Changed), len(d.Removed), len(d.Same))
}

// Long names the probes that changed.
func (d Diff) Long() string {
	text := d.String()
	for _, part := range []struct {
		word string
		list []string
	}{{"added", d.Added}, {"changed", d.Changed}, {"removed", d.Removed}} {
		if len(part.list) > 0 {
			text += "\n" + part.word + ": " + strings.Join(part.list, ", ")
		}
	}
	return text
}

// Reload builds the world of another configuration completely, and only when nothing is wrong with it swaps: probes that
// are the same keep running untouched, others are stopped and started. On an error everything stays as it was.
func (a *Agent) Reload(c *Config) (Diff, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, err := a.next(c)
	if err != nil {
		return Diff{}, err
	}
	d := difference(a.world, w)
	a.swap(w, d)
	return d, nil
}

// Compare says what a reload would change, and changes nothing.
func (a *Agent) Compare(c *Config) (Diff, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, err := a.next(c)
	if err != nil {
		return Diff{}, err
	}
	return difference(a.world, w), nil
}

// next builds the world that a reload would swap in; the agent's mutex is held.
func (a *Agent) next(c *Config) (*world, error) {
	w, err := build(c, a.env, a.world, a.court.localClock)
	if err != nil {
		return nil, err
	}
	if len(w.probes) == 0 {
		return nil, ErrNoProbes
	}
	return w, nil
}

func difference(was, now *world) (d Diff) {
	for _, name := range sortedKeys(now.probes) {
		switch before, ok := was.probes[name]; {
		case !ok:
			d.Added = append(d.Added, name)
		case before != now.probes[name]:
			d.Changed = append(d.Changed, name)
		default:
			d.Same = append(d.Same, name)
		}
	}
	for _, name := range sortedKeys(was.probes) {
		if now.probes[name] == nil {
			d.Removed = append(d.Removed, name)
		}
	}
	return d
}

func (a *Agent) swap(w *world, d Diff) {
	leaving := slices.Concat(d.Removed, d.Changed)
	for _, name := range leaving {
		if watch := a.watches[name]; watch != nil {
			watch.stop()
		}
	}
	for _, name := range leaving {
		if watch := a.watches[name]; watch != nil {
			<-watch.done
			delete(a.watches, name)
		}
	}
	for _, name := range d.Removed {
		a.forget(name)
	}
	for _, name := range d.Changed {
		if a.world.probes[name].about.Endpoint != w.probes[name].about.Endpoint || a.world.probes[name].common.Kind != w.probes[name].common.Kind {
			a.forget(name)
		}
	}
	if a.alerts != nil {
		a.alerts.SetRules(a.rules(w))
		a.alerts.SetSinks(w.receivers())
	}
	if a.running != nil {
		a.world.close(a.running, w)
	}
	a.world = w
	a.current.Store(w)
	if a.running != nil {
		for _, name := range slices.Concat(d.Added, d.Changed) {
			a.start(w.probes[name])
		}
	}
	a.condition.unwritten.Clear() // what cannot be written still will be noted again
	used := map[string]bool{}
	for _, b := range w.probes {
		used[gateOf(b)] = true
	}
	maps.DeleteFunc(a.gates, func(key string, _ *pace.Gate) bool { return !used[key] })
}

// forget drops what is known of a probe that is gone, or asks something else now.
func (a *Agent) forget(probe string) {
	if a.alerts != nil {
		a.alerts.Tell(probe, time.Now())
	}
	a.court.forget(probe)
}

// Once runs the named probes, or all, once and at the same time, without asking the gates of endpoints, and gives their
// events in the order of their names. What is found is explained when all have run, so that each knows of the others.
func (a *Agent) Once(ctx context.Context, names []string) ([]Event, error) {
	if len(names) == 0 {
		names = sortedKeys(a.world.probes)
	}
	var watches []*watch
	a.mu.Lock()
	for _, name := range names {
		b := a.world.probes[name]
		if b == nil {
			a.mu.Unlock()
			return nil, fmt.Errorf("there is no [probe.%s]; %s", evidence.Clean(name, 64), didYouMean(name, sortedKeys(a.world.probes)))
		}
		watches = append(watches, a.watchOf(b))
	}
	a.mu.Unlock()
	var group sync.WaitGroup
	for _, w := range watches {
		group.Go(func() {
			defer w.end()
			a.judge(w.once(ctx, 0), w.gate.State(), time.Time{})
		})
	}
	group.Wait()
	a.world.close(ctx, nil)
	return a.court.again(names), ctx.Err()
}

func (a *Agent) identityOf(name string) identity.Identity {
	if b, ok := a.current.Load().identities[name]; ok {
		return b.Identity
	}
	return nil
}

// clockLook is how often the wall clock is compared with the monotonic one.
const clockLook = 5 * time.Second

// lookAtClock notices when the wall clock is set.
func (a *Agent) lookAtClock(ctx context.Context) {
	tick := time.NewTicker(clockLook)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		a.looked.Store(&now)
		if step := evidence.WallStep(before, now); step.Abs() > evidence.ClockStep {
			a.stepped(step, now)
		}
		before = now
		a.lookAtSelf(now)
	}
}

func (a *Agent) stepped(step time.Duration, now time.Time) {
	a.steps.Add(1)
	a.condition.step.Store(&clockStep{step, now})
	a.env.Log.Warn("wall clock stepped", "step", step.String())
	a.court.mu.Lock()
	defer a.court.mu.Unlock()
	clear(a.court.peers) // differences to a clock that was set
	a.court.changes = remember(a.court.changes, evidence.Change{What: "clock_step", To: step.String(), At: now})
}

// Health is how the agent itself fares.
type Health struct {
	Panics       int64
	ClockSteps   int64
	ClockStep    time.Duration // the last one
	LinesDropped int64         // of the log; counted by whoever writes it
	Probes       int
	Alerts       alert.Stats
	Distress     []Distress

	Maintenance []Maintenance
}

// Health tells how the agent itself fares.
func (a *Agent) Health() Health {
	h := Health{Panics: a.panics.Load(), ClockSteps: a.steps.Load(), Probes: len(a.current.Load().probes), Distress: a.distress(), Maintenance: a.Maintenances(time.Now())}
	if s := a.condition.step.Load(); s != nil {
		h.ClockStep = s.by
	}
	if a.alerts != nil {
		h.Alerts = a.alerts.Stats()
	}
	return h
}

// Alerts gives the dispatcher.
func (a *Agent) Alerts() *alert.Dispatcher { return a.alerts }

// Config gives the configuration that is running.
func (a *Agent) Config() *Config { return a.current.Load().config }

// Planned gives what is known of each probe before its first run, by name.
func (a *Agent) Planned() (list []Observation) {
	w := a.current.Load()
	for _, name := range sortedKeys(w.probes) {
		b := w.probes[name]
		list = append(list, Observation{Probe: name, Kind: b.common.Kind, About: b.about, Labels: b.common.Labels})
	}
	return list
}

// Progresses says whether the line moves: the court can be entered, the look at the clock came round lately, and not every
// place to run in is taken by a run that does not end. Servers that hang, sinks that are down and a full disk are no
// reason to say no: starting anew would not help.
func (a *Agent) Progresses() bool {
	if !a.court.mu.TryLock() {
		time.Sleep(10 * time.Millisecond)
		if !a.court.mu.TryLock() {
			return false
		}
	}
	defer a.court.mu.Unlock()
	if int(a.condition.stuck.Load()) >= cap(a.slots) {
		return false
	}
	last := a.looked.Load()
	return last == nil || time.Since(*last) < 4*clockLook
}
