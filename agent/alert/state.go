package alert

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// stateVersion is that of what Snapshot writes.
const stateVersion = 2

type snapshot struct {
	Version int          `json:"version"`
	Alerts  []*lifecycle `json:"alerts"`
}

// Snapshot gives what must outlive a restart.
func (d *Dispatcher) Snapshot() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := snapshot{Version: stateVersion}
	for _, key := range slices.Sorted(maps.Keys(d.open)) {
		s.Alerts = append(s.Alerts, d.open[key])
	}
	return json.Marshal(s)
}

// Restore takes over a snapshot. What fired goes on firing until each probe behind it that is still known has told that it
// is over; known says so. Moments that lie in the future, because the clock was set back, become now.
func (d *Dispatcher) Restore(state []byte, now time.Time, known func(probe string) bool) error {
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
		if l == nil || len(d.open) >= maxAlerts {
			continue
		}
		for _, at := range []*time.Time{&l.Since, &l.Seen, &l.Fired, &l.Quiet, &l.Ended} {
			if at.After(now) {
				*at = now
			}
		}
		key := l.Alert.key()
		if l.Behind == nil {
			l.Behind = set{}
		}
		for probe := range l.Behind {
			if !known(probe) {
				delete(l.Behind, probe)
				continue
			}
			if d.behind[probe] == nil {
				d.behind[probe] = set{}
			}
			d.behind[probe][key] = true
		}
		if len(l.Behind) == 0 && l.Quiet.IsZero() {
			l.Quiet = now
		}
		if len(l.Behind) > 0 || !l.Fired.IsZero() {
			d.open[key] = l
		}
	}
	nudge(d.wake)
	return nil
}

// MarshalJSON writes the names in order.
func (s set) MarshalJSON() ([]byte, error) { return json.Marshal(slices.Sorted(maps.Keys(s))) }

// UnmarshalJSON reads a list of names.
func (s *set) UnmarshalJSON(text []byte) error {
	var names []string
	if err := json.Unmarshal(text, &names); err != nil {
		return err
	}
	*s = set{}
	for _, name := range names {
		(*s)[name] = true
	}
	return nil
}
