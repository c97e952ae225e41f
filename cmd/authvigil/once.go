package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/exporters"
)

func onceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "once [NAME…]", Short: "Run every probe, or the named ones, once, and report",
		Example: "  authvigil once\n  authvigil once devices --output ndjson",
		RunE: func(c *cobra.Command, names []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			log, _, err := a.logger()
			if err != nil {
				return err
			}
			var observers []agent.Observer
			var shows *progress
			if p := a.paper(a.stderr); p.width > 0 && isTerminal(a.stderr) {
				shows = &progress{p: p, done: map[string]bool{}}
				observers = append(observers, shows)
			}
			ag, _, err := a.load(log, observers...)
			if err != nil {
				return exit{exitUsage, err}
			}
			if shows != nil {
				if shows.names = names; len(names) == 0 {
					for _, o := range ag.Planned() {
						shows.names = append(shows.names, o.Probe)
					}
				}
				shows.show()
			}
			events, err := ag.Once(c.Context(), names)
			if err != nil {
				return exit{exitUsage, err}
			}
			if shows != nil {
				shows.clear()
			}
			return a.report(events)
		},
	}
}

// report writes the events in the form that was asked for, and gives the exit code.
func (a *app) report(events []agent.Event) error {
	failed := 0
	for i := range events {
		if events[i].Fault != nil {
			failed++
		}
	}
	switch a.output {
	case "ndjson":
		for i := range events {
			if err := writeJSON(a.stdout, exporters.NewRecord(events[i])); err != nil {
				return err
			}
		}
	case "json":
		records := make([]exporters.Record, len(events))
		for i := range events {
			records[i] = exporters.NewRecord(events[i])
		}
		if err := writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "probes": records}); err != nil {
			return err
		}
	default:
		a.table(events)
	}
	if failed > 0 {
		return exit{code: exitFound}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table shows the events to people: one line each, beneath what is to blame, and last how many are as expected.
func (a *app) table(events []agent.Event) {
	p := a.paper(a.stdout)
	rows, good := [][]cell{}, 0
	for i := range events {
		ev := &events[i]
		word, c := state(ev)
		why := ""
		if ev.Fault != nil {
			why = ev.Fault.Error()
		} else {
			good++
		}
		rows = append(rows, []cell{{ev.Probe, plain}, {word, c}, {span(ev.Took), plain}, {ev.About.Endpoint, plain}, {why, plain}})
	}
	p.table([]string{"PROBE", "STATE", "TOOK", "ENDPOINT", "WHY"}, rows)
	found := findings(events)
	for _, f := range found {
		a.finding(f.Finding, f.probes)
	}
	p.say()
	if good == len(events) {
		p.say(p.in(green, "ok"), fmt.Sprintf(": %d of %d probes are as expected", good, len(events)))
		return
	}
	p.say(p.in(red, "FAIL"), fmt.Sprintf(": %d of %d probes are as expected, the others have %s", good, len(events), plural(len(found), "cause")))
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

type shared struct {
	diagnose.Finding
	probes []string
}

// findings are the first findings of all events, each once.
func findings(events []agent.Event) (list []shared) {
	for i := range events {
		ev := &events[i]
		if len(ev.Findings) == 0 {
			continue
		}
		f, found := ev.Findings[0], false
		for j := range list {
			if list[j].Cause == f.Cause && list[j].Culprit == f.Culprit {
				list[j].probes = append(list[j].probes, ev.Probe)
				found = true
			}
		}
		if !found {
			list = append(list, shared{f, []string{ev.Probe}})
		}
	}
	return list
}

func state(ev *agent.Event) (string, paint) {
	switch ev.Outcome() {
	case agent.RunOK:
		return "ok", green
	case agent.RunFault:
		return "FAIL", red
	default:
		return string(ev.Outcome()), amber
	}
}

// A progress says on a terminal how many probes have answered, and which are waited for. It is an agent.Observer.
type progress struct {
	p     *paper
	done  map[string]bool
	names []string
}

func (o *progress) Observe(ev *agent.Event) {
	o.done[ev.Probe] = true
	o.show()
}

func (o *progress) Forget(string) {}

func (o *progress) show() {
	var waiting []string
	for _, name := range o.names {
		if !o.done[name] {
			waiting = append(waiting, name)
		}
	}
	text := fmt.Sprintf("%d of %d probes have answered", len(o.done), len(o.names))
	if n := len(waiting); n > 0 {
		text += ", waiting for " + strings.Join(waiting[:min(n, 4)], ", ")
		if n > 4 {
			text += fmt.Sprintf(" and %d more", n-4)
		}
	}
	fmt.Fprint(o.p.w, "\r\x1b[K"+o.p.in(faint, cut(tame(text), o.p.width-1)))
}

// clear takes the line away, so that it does not stand between the results.
func (o *progress) clear() { fmt.Fprint(o.p.w, "\r\x1b[K") }

func checkCommand(a *app) *cobra.Command {
	unknown := func(err error) error {
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Fprintf(a.stdout, "UNKNOWN - %s\n", strings.ReplaceAll(tame(first), "|", "/"))
		return exit{code: exitUnknown}
	}
	c := &cobra.Command{
		Use: "check NAME", Short: "Run one probe as a Nagios or Icinga plugin",
		Long:    "check runs one probe and writes one line with performance data. Exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, which is also that of wrong usage and of a defect of authvigil: nobody is woken by those.",
		Example: "  authvigil check devices",
		RunE: func(c *cobra.Command, names []string) (err error) {
			defer func() {
				if cause := recover(); cause != nil {
					err = unknown(fmt.Errorf("a defect of authvigil: %v", cause))
				}
			}()
			if len(names) != 1 {
				return unknown(errors.New("name one probe"))
			}
			log, _, err := a.logger()
			if err != nil {
				return unknown(err)
			}
			ag, _, err := a.load(log)
			if err != nil {
				return unknown(err)
			}
			events, err := ag.Once(c.Context(), names)
			if err != nil {
				return unknown(err)
			}
			return a.plugin(&events[0])
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unknown(err) })
	return c
}

// perfdata are the numbers of a run as the plugin convention writes them: label=value, the unit, no exponent. Labels of
// readings become part of the name, because the convention has none.
func perfdata(ev *agent.Event) string {
	list := []string{"time=" + strconv.FormatFloat(ev.Took.Seconds(), 'f', 6, 64) + "s;;;0"}
	for i := range ev.Report.Readings {
		r := &ev.Report.Readings[i]
		name, unit := r.Metric.Name, ""
		switch {
		case strings.HasSuffix(name, "_info"), math.IsNaN(r.Value), math.IsInf(r.Value, 0):
			continue
		case r.Metric.Counter:
			unit = "c"
		case strings.HasSuffix(name, "_seconds") && !strings.HasSuffix(name, "_timestamp_seconds"):
			unit = "s"
		}
		for _, l := range r.Labels {
			name += "_" + l
		}
		list = append(list, "'"+perfLabel.ReplaceAllString(tame(name), "_")+"'="+strconv.FormatFloat(r.Value, 'f', -1, 64)+unit)
	}
	return strings.Join(list, " ")
}

// perfLabel are the characters that a label may not have.
var perfLabel = regexp.MustCompile(`[^A-Za-z0-9_.:#/-]+`)

// plugin writes the one line of the plugin convention, with performance data.
func (a *app) plugin(ev *agent.Event) error {
	word, code := "OK", exitOK
	switch {
	case ev.Outcome() == agent.RunUnknown || ev.Outcome() == agent.RunHeld:
		word, code = "UNKNOWN", exitUnknown
	case ev.Outcome() == agent.RunFault && ev.Severity == "warning":
		word, code = "WARNING", 1
	case ev.Outcome() == agent.RunFault:
		word, code = "CRITICAL", 2
	case len(ev.Findings) > 0:
		word, code = "WARNING", 1
	}
	text := ev.Probe + " is as expected"
	if ev.Fault != nil {
		text = ev.Fault.Error()
	}
	if len(ev.Findings) > 0 {
		f := ev.Findings[0]
		text = fmt.Sprintf("%s: %s (%s, %s)", f.Culprit, f.Cause, f.Sure, text)
	}
	fmt.Fprintf(a.stdout, "%s - %s | %s\n", word, strings.ReplaceAll(tame(text), "|", "/"), perfdata(ev))
	if code == exitOK {
		return nil
	}
	return exit{code: code}
}
