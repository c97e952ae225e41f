package alert

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// maxAlerts bounds how many alerts are kept; beyond it new ones are counted and dropped.
const maxAlerts = 10_000

// silenceLook is how often it is looked whether a silence is over.
const silenceLook = 5 * time.Second

// idleShare is how much longer the dispatcher rests than it takes for one round.
const idleShare = 20

// Rules are what an operator may set.
type Rules struct {
	MinFiring time.Duration                          // how long an alert fires at least
	Resend    time.Duration                          // how often receivers that forget are told again; they believe it four times as long
	Silence   func(a *Alert, probes []string) string // why an alert of these probes does not begin now; empty: it may. It must not block
}

// DefaultRules hold where the operator sets nothing.
var DefaultRules = Rules{MinFiring: 5 * time.Minute, Resend: time.Minute}

// A Dispatcher keeps the lifecycle of alerts and sends them. Tell and its kin may be called by anybody at any time; Run
// blocks until its context ends.
type Dispatcher struct {
	log  *slog.Logger
	wake chan struct{} // of size 1: something is to be done
	news chan struct{} // of size 1: an alert fired or ended

	mu      sync.Mutex // owns what follows
	rules   Rules
	open    map[string]*lifecycle
	behind  map[string]set // keys of the alerts that each probe stands behind
	senders []*sender
	dropped int
}

// NewDispatcher makes a dispatcher without sinks.
func NewDispatcher(log *slog.Logger) *Dispatcher {
	return &Dispatcher{log: log, rules: DefaultRules, open: map[string]*lifecycle{}, behind: map[string]set{}, wake: make(chan struct{}, 1), news: make(chan struct{}, 1)}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// News wakes whoever keeps the state: an alert fired or ended.
func (d *Dispatcher) News() <-chan struct{} { return d.news }

// SetRules replaces the rules.
func (d *Dispatcher) SetRules(r Rules) {
	d.mu.Lock()
	d.rules = r
	d.mu.Unlock()
	nudge(d.wake)
}

// Tell says what a probe stands behind now, and nothing else any more: an alert is over when nobody stands behind it. It
// never waits for a sink. A probe that could not look does not tell.
func (d *Dispatcher) Tell(probe string, now time.Time, alerts ...Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.behind[probe]
	if len(left) == 0 && len(alerts) == 0 {
		return
	}
	keys := set{}
	for _, a := range alerts {
		if key := a.key(); d.add(key, a, probe) {
			keys[key] = true
		}
	}
	for key := range left {
		if l := d.open[key]; l != nil && !keys[key] && l.leave(probe, now) {
			delete(d.open, key)
		}
	}
	if d.behind[probe] = keys; len(keys) == 0 {
		delete(d.behind, probe)
	}
	nudge(d.wake)
}

// Add says what a probe stands behind besides what it told before, which it could not look at.
func (d *Dispatcher) Add(probe string, alerts ...Alert) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range alerts {
		if key := a.key(); d.add(key, a, probe) {
			if d.behind[probe] == nil {
				d.behind[probe] = set{}
			}
			d.behind[probe][key] = true
			nudge(d.wake)
		}
	}
}

// add puts a probe behind an alert; the mutex is held.
func (d *Dispatcher) add(key string, a Alert, probe string) bool {
	l := d.open[key]
	if l != nil && l.Ended.IsZero() {
		l.see(a, probe)
		return true
	}
	if l == nil && len(d.open) >= maxAlerts {
		d.dropped++
		return false
	}
	since := a.At
	if !a.Onset.IsZero() && a.Onset.Before(since) {
		since = a.Onset
	}
	if l != nil && since.Before(l.Ended) {
		since = l.Ended // it began again after it had ended
	}
	d.open[key] = &lifecycle{Alert: a, Since: since, Seen: a.At, Behind: set{probe: true}}
	return true
}

// SetSinks replaces the sinks; a receiver that is there already goes on with its queue, and a new one gets the newest state
// of all that fires. It takes effect while Run runs.
func (d *Dispatcher) SetSinks(sinks map[string][]*Receiver) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := map[*Receiver]*sender{}
	for _, s := range d.senders {
		before[s.Receiver] = s
	}
	d.senders = nil
	for _, name := range slices.Sorted(maps.Keys(sinks)) {
		for _, r := range sinks[name] {
			s := before[r]
			if delete(before, r); s == nil {
				s = newSender(name, r, d)
				for _, l := range d.open {
					l.sent = time.Time{}
				}
			}
			d.senders = append(d.senders, s)
		}
	}
	for _, s := range before {
		s.stop()
	}
	for _, l := range d.open { // a sink of the same name that comes later is told anew
		maps.DeleteFunc(l.Told, func(name string, _ told) bool { return sinks[name] == nil })
	}
	nudge(d.wake)
}

// Run keeps the lifecycles and sends until ctx ends; then what waits is sent for a short while. Alerts that fire are not
// resolved at the end, because a restart would page twice.
func (d *Dispatcher) Run(ctx context.Context) error {
	var group sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		d.mu.Lock()
		for _, s := range d.senders {
			if !s.started {
				s.started = true
				group.Go(func() { s.run(ctx) })
			}
		}
		began := time.Now()
		next := d.advance(began)
		d.mu.Unlock()
		if ctx.Err() != nil {
			group.Wait()
			return nil
		}
		timer.Reset(time.Since(began) * idleShare) // ten thousand alerts that flap must not take a whole processor
		select {
		case <-ctx.Done():
			continue
		case <-timer.C:
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// advance moves all lifecycles to now, hands what is due to the senders, and says when to look again.
func (d *Dispatcher) advance(now time.Time) time.Duration {
	next := d.rules.Resend
	soon := func(at time.Time) { next = min(next, max(at.Sub(now), 10*time.Millisecond)) }
	roots := d.roots()
	for _, key := range slices.Sorted(maps.Keys(d.open)) {
		l := d.open[key]
		switch {
		case l.Fired.IsZero():
			l.silence(d.silencedBy(l, roots), now)
			if l.Silenced != "" {
				soon(now.Add(silenceLook))
				continue
			}
			if due := l.due(); now.Before(due) {
				soon(due)
				continue
			}
			l.Fired = now
			nudge(d.news)
		case !l.Ended.IsZero():
			if age := now.Sub(l.Ended); age > undelivered || age > tail && !l.sent.IsZero() && !d.waits(key) {
				delete(d.open, key)
				continue
			}
		case !l.Quiet.IsZero():
			if end := l.end(d.rules.MinFiring); now.Before(end) {
				soon(end)
			} else {
				l.Ended, l.sent = now, time.Time{}
				nudge(d.news)
			}
		}
		if due := l.nextSend(d.rules.Resend); now.Before(due) {
			soon(due)
			continue
		}
		l.sent, l.changed = now, false
		soon(now.Add(d.rules.Resend))
		d.hand(key, l, now)
	}
	return next
}

// nextSend is when an alert is due to be sent.
func (l *lifecycle) nextSend(resend time.Duration) time.Time {
	switch {
	case l.sent.IsZero():
		return time.Time{}
	case l.changed:
		return l.sent.Add(min(sharpen, resend))
	default:
		return l.sent.Add(resend)
	}
}

// hand gives an alert to the senders of those who want to be told of it now.
func (d *Dispatcher) hand(key string, l *lifecycle, now time.Time) {
	n := l.notice(now, 4*d.rules.Resend)
	for _, s := range d.senders {
		if t, ok := l.Told[s.sink]; s.News && ok && t.Resolved == n.Resolved && (n.Resolved || s.Repeat == 0 || now.Sub(t.At) < s.Repeat) {
			continue
		}
		s.queue(key, n)
	}
}

// took notes what a sink that remembers was told.
func (d *Dispatcher) took(s *sender, batch map[string]Notice) {
	if !s.News {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, n := range batch {
		l := d.open[key]
		if l == nil || !l.Fired.Equal(n.StartsAt) {
			continue
		}
		if l.Told == nil {
			l.Told = map[string]told{}
		}
		l.Told[s.sink] = told{time.Now(), n.Resolved}
	}
	nudge(d.news)
}

// waits says whether a sender still has an alert to deliver.
func (d *Dispatcher) waits(key string) bool {
	return slices.ContainsFunc(d.senders, func(s *sender) bool { return s.has(key) })
}

// roots are the culprits that others follow from.
func (d *Dispatcher) roots() map[string]bool {
	roots := map[string]bool{}
	for _, l := range d.open {
		if l.Alert.Root && l.Quiet.IsZero() {
			roots[l.Alert.Culprit] = true
		}
	}
	return roots
}

// silencedBy says why an alert does not begin. One that was told of goes on: a receiver would take silence for the end.
func (d *Dispatcher) silencedBy(l *lifecycle, roots map[string]bool) string {
	for _, root := range l.Alert.Follows {
		if roots[root] && root != l.Alert.Culprit {
			return "follows from " + root
		}
	}
	if d.rules.Silence == nil {
		return ""
	}
	return d.rules.Silence(&l.Alert, slices.Collect(maps.Keys(l.Behind)))
}

// Open lists what is pending or fires, in order of name and culprit.
func (d *Dispatcher) Open() (list []Notice) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.open {
		if l.Ended.IsZero() {
			list = append(list, l.notice(time.Now(), 0))
		}
	}
	slices.SortFunc(list, func(a, b Notice) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Culprit, b.Culprit)) })
	return list
}
