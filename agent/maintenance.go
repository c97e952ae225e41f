package agent

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
)

// A window is the table [maintenance.NAME]: times of planned work, in which alerts of the probes it is about do not begin.
// Probes go on, and an alert that was told of before goes on. What lasts longer than the window is told afterwards.
type window struct {
	Schedule string            `koanf:"schedule" help:"when it begins, again and again: five cron fields; CRON_TZ=Zone may stand before, else it is this machine's zone"`
	Duration time.Duration     `koanf:"duration" help:"how long it lasts after each beginning"`
	From     time.Time         `koanf:"from" help:"in place of schedule: when it begins, once, such as 2026-12-24T22:00:00+01:00"`
	Until    time.Time         `koanf:"until" help:"when it ends, with from"`
	Probes   []string          `koanf:"probes" help:"names of probes, * for any text; default: all"`
	Labels   map[string]string `koanf:"labels" help:"labels that the probes must have; default: any"`
	Comment  string            `koanf:"comment" help:"what is being done, for the page"`
}

// maintenance is a window that was read.
type maintenance struct {
	name string
	window
	begins schedule // with Schedule
}

func (w *world) buildMaintenance(s section) (*maintenance, []error) {
	m := &maintenance{name: s.name}
	o := open(w.config, s, &m.window)
	_ = o.decode(&struct{}{}) // notes unknown keys
	if err := m.check(); err != nil && len(o.errs) == 0 {
		o.fail(err)
	}
	for _, pattern := range m.Probes {
		if _, err := path.Match(pattern, ""); err != nil {
			o.fail(fmt.Errorf("probes: %q is no pattern", pattern))
		} else if !slices.ContainsFunc(w.config.Names("probe"), func(name string) bool { ok, _ := path.Match(pattern, name); return ok }) {
			o.fail(fmt.Errorf("probes: there is no [probe.%s]; %s", pattern, didYouMean(pattern, w.config.Names("probe"))))
		}
	}
	return m, o.errs
}

func (m *maintenance) check() (err error) {
	once, again := !m.From.IsZero() || !m.Until.IsZero(), m.Schedule != "" || m.Duration != 0
	switch {
	case once && again:
		return errors.New("from: give from and until, or schedule and duration")
	case once && (m.From.IsZero() || !m.Until.After(m.From)):
		return errors.New("until: want from, and until after it")
	case once:
		return nil
	case m.Schedule == "":
		return errors.New("schedule: is missing; give schedule and duration, or from and until")
	}
	if m.begins, err = parseSchedule(m.Schedule); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	if m.begins.every != 0 {
		return errors.New("schedule: want five cron fields such as 0 2 * * SUN, because a period has no beginning")
	}
	if m.Duration < time.Minute || m.Duration > 366*24*time.Hour {
		return errors.New("duration: want between 1m and 366d")
	}
	return nil
}

// end gives the end of the window that now lies in; ok is false outside.
func (m *maintenance) end(now time.Time) (end time.Time, ok bool) {
	if m.Schedule == "" {
		return m.Until, !now.Before(m.From) && now.Before(m.Until)
	}
	begin := m.begins.calendar.Next(now.Add(-m.Duration))
	return begin.Add(m.Duration), !begin.IsZero() && !begin.After(now)
}

// covers says whether the window is about a probe.
func (m *maintenance) covers(probe string, labels map[string]string) bool {
	for name, value := range m.Labels {
		if labels[name] != value {
			return false
		}
	}
	return len(m.Probes) == 0 || slices.ContainsFunc(m.Probes, func(pattern string) bool { ok, _ := path.Match(pattern, probe); return ok })
}

// silence says why an alert does not begin now: all probes behind it are being worked at.
func (w *world) silence(now time.Time, names []string) string {
	var by []string
	for _, m := range w.maintenance {
		if _, ok := m.end(now); ok {
			by = append(by, m.name)
		}
	}
	if len(by) == 0 {
		return ""
	}
	for _, name := range names {
		if b := w.probes[name]; b == nil || !slices.ContainsFunc(w.maintenance, func(m *maintenance) bool {
			return slices.Contains(by, m.name) && m.covers(name, b.common.Labels)
		}) {
			return ""
		}
	}
	return "maintenance " + strings.Join(by, ", ")
}

// A Maintenance is a window of the configuration, for exporters.
type Maintenance struct {
	Name, Comment string
	Active        bool
	Until         time.Time // end of the window that is open
}

// Maintenances lists the windows of the configuration.
func (a *Agent) Maintenances(now time.Time) (list []Maintenance) {
	for _, m := range a.current.Load().maintenance {
		end, ok := m.end(now)
		if !ok {
			end = time.Time{}
		}
		list = append(list, Maintenance{m.name, m.Comment, ok, end})
	}
	return list
}

// rules are what the configuration says of alerts.
func (a *Agent) rules(w *world) alert.Rules {
	r := alert.Rules{MinFiring: w.config.Alerts.MinFiring, Resend: w.config.Alerts.Resend}
	if len(w.maintenance) > 0 {
		r.Silence = func(_ *alert.Alert, names []string) string { return w.silence(time.Now(), names) }
	}
	return r
}

// reserved are labels that alerts have anyway.
var reserved = []string{"alertname", "client", "culprit", "endpoint", "environment", "issuer", "log", "severity"}

// goodLabels refuses labels that no alert can carry.
func goodLabels(labels map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		switch {
		case name == "" || strings.HasPrefix(name, "__") || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" || name[0] >= '0' && name[0] <= '9':
			return fmt.Errorf("labels: %q is no name of a label; want letters, digits and _", name)
		case slices.Contains(reserved, name):
			return fmt.Errorf("labels: alerts have a label %s of their own", name)
		case len(labels[name]) > 256:
			return fmt.Errorf("labels: the value of %s is longer than 256 bytes", name)
		}
	}
	return nil
}
