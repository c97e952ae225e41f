package alert

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// resend is how often a firing alert is sent again: receivers keep alerts in memory only.
	resend = time.Minute
	// believe is how long a receiver should believe a firing alert that it does not hear of again.
	believe = 4 * resend
	// minFiring is how long an alert fires at least: one that ends before the receiver's group was flushed is never told.
	minFiring = 5 * time.Minute
	// tail is how long a resolution is sent again.
	tail = 15 * time.Minute
	// drain is how long the last words may take at the end.
	drain = 5 * time.Second
	// sendTimeout bounds one delivery.
	sendTimeout = 10 * time.Second
	// batchSize is how many alerts one delivery carries at most.
	batchSize = 64
	// maxAlerts bounds how many alerts are kept; beyond it new ones are counted and dropped.
	maxAlerts = 10_000
)

// A Dispatcher keeps the lifecycle of alerts and sends them. Update may be called by anybody at any time; Run blocks until
// its context ends.
type Dispatcher struct {
	log *slog.Logger

	mu      sync.Mutex // owns what follows
	open    map[string]*lifecycle
	workers []*worker
	dropped int
	wake    chan struct{} // of size 1: something changed
}

// A lifecycle is an alert with its moments.
type lifecycle struct {
	Alert    Alert     `json:"alert"`
	Since    time.Time `json:"since"`              // active since
	Fired    time.Time `json:"fired,omitzero"`     // zero: pending
	Ended    time.Time `json:"ended,omitzero"`     // zero: not resolved
	Quiet    bool      `json:"quiet,omitempty"`    // no longer active, and kept firing for minFiring
	Restored bool      `json:"restored,omitempty"` // from before a restart, and not heard of since
	sent     time.Time
	changed  bool
}

// NewDispatcher makes a dispatcher without sinks.
func NewDispatcher(log *slog.Logger) *Dispatcher {
	return &Dispatcher{log: log, open: map[string]*lifecycle{}, wake: make(chan struct{}, 1)}
}

// key is the identity of an alert.
func (a *Alert) key() string {
	k := a.Name + "\x00" + a.Culprit + "\x00" + string(a.Severity)
	for _, name := range slices.Sorted(maps.Keys(a.Labels)) {
		k += "\x00" + name + "=" + a.Labels[name]
	}
	return k
}

// Update tells what is so now. It never blocks on a sink.
func (d *Dispatcher) Update(alerts ...Alert) {
	if len(alerts) == 0 {
		return
	}
	d.mu.Lock()
	for _, a := range alerts {
		d.update(a)
	}
	d.mu.Unlock()
	d.nudge()
}

func (d *Dispatcher) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Dispatcher) update(a Alert) {
	key := a.key()
	l := d.open[key]
	switch {
	case l == nil && !a.Active:
	case l == nil || (!l.Ended.IsZero() && a.Active):
		if len(d.open) >= maxAlerts && l == nil {
			d.dropped++
			return
		}
		d.open[key] = &lifecycle{Alert: a, Since: a.At}
	case a.Active:
		if l.Alert.Summary != a.Summary || !maps.Equal(l.Alert.Details, a.Details) {
			l.changed = l.Alert.Details["cause"] != a.Details["cause"] // a sharper cause is told at once, the rest with the next resend
		}
		l.Alert, l.Quiet, l.Restored = a, false, false
	case l.Fired.IsZero():
		delete(d.open, key)
	case l.Ended.IsZero():
		l.Quiet, l.Restored = true, false
	}
}

// Settle tells that everything was looked at once since the start: alerts from before it that nobody confirmed are over.
func (d *Dispatcher) Settle() {
	d.mu.Lock()
	for _, l := range d.open {
		if l.Restored {
			l.Restored, l.Quiet = false, true
		}
	}
	d.mu.Unlock()
	d.nudge()
}

// SetSinks replaces the sinks; each gets the newest state of all that fires. It takes effect while Run runs.
func (d *Dispatcher) SetSinks(sinks map[string][]Sink) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.workers {
		w.stop()
	}
	d.workers = nil
	for _, name := range slices.Sorted(maps.Keys(sinks)) {
		for _, s := range sinks[name] {
			d.workers = append(d.workers, newWorker(name, s, d.log))
		}
	}
	for _, l := range d.open {
		l.sent = time.Time{}
	}
	d.nudge()
}

// Run keeps the lifecycles and sends until ctx ends; then what waits is sent for a short while. Alerts that fire are not
// resolved at the end, because a restart would page twice.
func (d *Dispatcher) Run(ctx context.Context) error {
	var group sync.WaitGroup
	started := map[*worker]bool{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		d.mu.Lock()
		for _, w := range d.workers {
			if !started[w] {
				started[w] = true
				group.Go(func() { w.run(ctx) })
			}
		}
		next := d.advance(time.Now())
		d.mu.Unlock()
		timer.Reset(next)
		select {
		case <-ctx.Done():
			d.mu.Lock()
			d.advance(time.Now())
			d.mu.Unlock()
			group.Wait()
			return nil
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// advance moves all lifecycles to now, hands what is due to the workers, and says when to look again.
func (d *Dispatcher) advance(now time.Time) time.Duration {
	next := resend
	soon := func(at time.Time) { next = min(next, max(at.Sub(now), 10*time.Millisecond)) }
	var notices []Notice
	for _, key := range slices.Sorted(maps.Keys(d.open)) {
		l := d.open[key]
		switch {
		case l.Fired.IsZero():
			if due := l.Since.Add(l.Alert.Hold); now.Before(due) {
				soon(due)
				continue
			}
			l.Fired = now
		case l.Quiet && l.Ended.IsZero():
			if due := l.Fired.Add(minFiring); now.Before(due) {
				soon(due)
			} else {
				l.Ended, l.sent = now, time.Time{}
			}
		case !l.Ended.IsZero() && now.Sub(l.Ended) > tail:
			delete(d.open, key)
			continue
		}
		if due := l.sent.Add(resend); !l.sent.IsZero() && now.Before(due) && !l.changed {
			soon(due)
			continue
		}
		l.sent, l.changed = now, false
		soon(now.Add(resend))
		n := Notice{Alert: l.Alert, StartsAt: l.Fired, EndsAt: now.Add(believe)}
		if !l.Ended.IsZero() {
			n.Resolved, n.EndsAt = true, l.Ended
		}
		notices = append(notices, n)
	}
	for _, w := range d.workers {
		w.queue(notices)
	}
	return next
}

// Stats are what a dispatcher shows of itself.
type Stats struct {
	Pending, Firing int
	Dropped         int
	Sinks           []SinkStats
}

// SinkStats are the deliveries of a sink, or of one of its instances.
type SinkStats struct {
	Sink                       string
	Delivered, Failed, Refused int
	Queue                      int
}

// Stats gives a copy.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Dropped: d.dropped}
	for _, l := range d.open {
		switch {
		case l.Fired.IsZero():
			s.Pending++
		case l.Ended.IsZero():
			s.Firing++
		}
	}
	by := map[string]*SinkStats{}
	for _, w := range d.workers {
		w.mu.Lock()
		if by[w.name] == nil {
			by[w.name] = &SinkStats{Sink: w.name}
		}
		b := by[w.name]
		b.Delivered, b.Failed, b.Refused, b.Queue = b.Delivered+w.delivered, b.Failed+w.failed, b.Refused+w.refused, b.Queue+len(w.waiting)
		w.mu.Unlock()
	}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		s.Sinks = append(s.Sinks, *by[name])
	}
	return s
}

// Open lists what is pending or fires, in order of name and culprit.
func (d *Dispatcher) Open() (list []Notice) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.open {
		if l.Ended.IsZero() {
			list = append(list, Notice{Alert: l.Alert, StartsAt: l.Fired})
		}
	}
	slices.SortFunc(list, func(a, b Notice) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Culprit, b.Culprit)) })
	return list
}

// stateVersion is that of what Snapshot writes.
const stateVersion = 1

type snapshot struct {
	Version int          `json:"version"`
	Alerts  []*lifecycle `json:"alerts"`
}

// Snapshot gives what must outlive a restart: what fires, or was resolved lately.
func (d *Dispatcher) Snapshot() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := snapshot{Version: stateVersion}
	for _, key := range slices.Sorted(maps.Keys(d.open)) {
		if l := d.open[key]; !l.Fired.IsZero() {
			s.Alerts = append(s.Alerts, l)
		}
	}
	return json.Marshal(s)
}

// Restore takes over a snapshot. What fired goes on firing until it is confirmed or Settle says that it is over.
func (d *Dispatcher) Restore(state []byte) error {
	var s snapshot
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("state of the alerts: %w", err)
	}
	if s.Version != stateVersion {
		return fmt.Errorf("state of the alerts: version %d is not %d", s.Version, stateVersion)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range s.Alerts {
		if l == nil || l.Fired.IsZero() || len(d.open) >= maxAlerts {
			continue
		}
		l.Restored = l.Ended.IsZero() && !l.Quiet
		d.open[l.Alert.key()] = l
	}
	return nil
}

// A worker sends to one sink, or to one instance of it. Its queue holds the newest state of each alert only, so that after
// an outage of the receiver no old states are told.
type worker struct {
	name string
	sink Sink
	log  *slog.Logger
	wake chan struct{}
	gone chan struct{}
	once sync.Once

	mu                         sync.Mutex // owns what follows
	waiting                    map[string]Notice
	delivered, failed, refused int
	trouble                    string // last error that was logged
}

func newWorker(name string, s Sink, log *slog.Logger) *worker {
	return &worker{name: name, sink: s, log: log, wake: make(chan struct{}, 1), gone: make(chan struct{}), waiting: map[string]Notice{}}
}

func (w *worker) stop() { w.once.Do(func() { close(w.gone) }) }

func (w *worker) queue(notices []Notice) {
	if len(notices) == 0 {
		return
	}
	w.mu.Lock()
	for _, n := range notices {
		w.waiting[n.key()] = n
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run sends until ctx ends, and then what waits, for a short while.
func (w *worker) run(ctx context.Context) {
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
			defer cancel()
			for w.send(last) == nil && w.pending() {
			}
			return
		case <-w.gone:
			return
		case <-w.wake:
		}
		for w.pending() {
			if w.send(ctx) == nil {
				pause = time.Second
				continue
			}
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-w.gone:
			case <-timer.C:
			}
			timer.Stop()
			pause = min(2*pause, resend/2)
			if ctx.Err() != nil {
				break
			}
			select {
			case <-w.gone:
				return
			default:
			}
		}
	}
}

func (w *worker) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting) > 0
}

// send delivers one batch. What could not be delivered waits again, unless a newer state came in the meantime.
func (w *worker) send(ctx context.Context) error {
	w.mu.Lock()
	keys := slices.Sorted(maps.Keys(w.waiting))
	keys = keys[:min(len(keys), batchSize)]
	batch := make([]Notice, len(keys))
	for i, key := range keys {
		batch[i] = w.waiting[key]
		delete(w.waiting, key)
	}
	w.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	err := w.sink.Send(ctx, batch)
	cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.delivered += len(batch)
		if w.trouble != "" {
			w.log.Info("sink delivers again", "sink", w.name)
			w.trouble = ""
		}
		return nil
	case errors.Is(err, ErrPermanent):
		w.refused += len(batch)
	default:
		w.failed += len(batch)
		for i, key := range keys {
			if _, newer := w.waiting[key]; !newer {
				w.waiting[key] = batch[i]
			}
		}
	}
	if text := err.Error(); text != w.trouble {
		w.trouble = text
		w.log.Warn("sink does not deliver", "sink", w.name, "error", text, "alerts", len(batch))
	}
	if errors.Is(err, ErrPermanent) {
		return nil
	}
	return err
}
