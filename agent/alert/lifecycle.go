package alert

import (
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// lasting is how long an alert that may pass must last to fire although nobody looked again.
	lasting = 10 * time.Minute
	// tail is how long a resolution is sent again.
	tail = 15 * time.Minute
	// undelivered is how long a resolution that a receiver did not take is kept.
	undelivered = 24 * time.Hour
	// sharpen is how soon after the last time a sharper cause is sent.
	sharpen = 5 * time.Second
)

// A lifecycle is an alert with its moments and the probes behind it.
type lifecycle struct {
	Alert    Alert           `json:"alert"`
	Behind   set             `json:"behind,omitempty"`   // probes that say so
	Since    time.Time       `json:"since"`              // the hold counts from here: the onset, or the end of a silence
	Seen     time.Time       `json:"seen"`               // when it was last seen to be so
	Look     bool            `json:"look,omitempty"`     // it was silenced: it fires only when it is seen after that
	Fired    time.Time       `json:"fired,omitzero"`     // zero: pending
	Quiet    time.Time       `json:"quiet,omitzero"`     // since when nobody says so any more; zero: somebody does
	Ended    time.Time       `json:"ended,omitzero"`     // zero: not resolved
	Told     map[string]told `json:"told,omitempty"`     // what sinks that remember took, by sink
	Silenced string          `json:"silenced,omitempty"` // why it does not begin
	sent     time.Time
	changed  bool
}

// told is what a sink that remembers took last.
type told struct {
	At       time.Time `json:"at"`
	Resolved bool      `json:"resolved,omitempty"`
}

// A set of probes is a sorted list on disk.
type set map[string]bool

// see takes over what a probe says now.
func (l *lifecycle) see(a Alert, probe string) {
	if l.Alert.Details["cause"] != a.Details["cause"] {
		l.changed = true // a sharper cause is told soon, the rest with the next resend
	}
	l.Alert, l.Seen, l.Quiet = a, a.At, time.Time{}
	l.Behind[probe] = true
}

// leave takes a probe from behind the alert; over means that it never fired and nobody says so any more.
func (l *lifecycle) leave(probe string, now time.Time) (over bool) {
	delete(l.Behind, probe)
	if len(l.Behind) > 0 {
		return false
	}
	if l.Quiet.IsZero() {
		l.Quiet = now
	}
	return l.Fired.IsZero()
}

// silence keeps the alert from beginning. Its hold begins anew when the silence ends, and it must be seen to last.
func (l *lifecycle) silence(by string, now time.Time) {
	l.Silenced = by
	if by != "" {
		l.Since, l.Look = now, true
	}
}

// due is when a pending alert fires if nothing new is seen.
func (l *lifecycle) due() time.Time {
	if (l.Alert.Passing || l.Look) && l.Seen.Before(l.Since.Add(l.Alert.Hold/2)) {
		return l.Since.Add(max(lasting, l.Alert.Hold))
	}
	return l.Since.Add(l.Alert.Hold)
}

// end is when a firing alert that nobody says any more is resolved: one that ends before the receiver's group was flushed
// is never told, and a culprit that alternates does not end each time.
func (l *lifecycle) end(minFiring time.Duration) time.Time {
	end := l.Fired.Add(minFiring)
	if calm := l.Quiet.Add(min(time.Minute, minFiring/5)); calm.After(end) {
		return calm
	}
	return end
}

func (l *lifecycle) firing() bool { return !l.Fired.IsZero() && l.Ended.IsZero() }

// notice is the alert as it is sent now.
func (l *lifecycle) notice(now time.Time, believe time.Duration) Notice {
	n := Notice{Alert: l.Alert, StartsAt: l.Fired, EndsAt: now.Add(believe), Silenced: l.Silenced}
	if !l.Ended.IsZero() {
		n.Resolved, n.EndsAt = true, l.Ended
	}
	if n.Details = maps.Clone(n.Details); n.Details == nil {
		n.Details = map[string]string{}
	}
	if !l.Alert.Onset.IsZero() {
		n.Details["onset"] = l.Alert.Onset.UTC().Format(time.RFC3339)
	}
	if len(l.Behind) > 0 {
		n.Details["probes"] = l.Behind.String()
	}
	return n
}

// String names some of them.
func (s set) String() string {
	const most = 10
	names := slices.Sorted(maps.Keys(s))
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
