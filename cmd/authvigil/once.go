package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

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
			ag, _, err := a.load(log)
			if err != nil {
				return exit{exitUsage, err}
			}
			events, err := ag.Once(c.Context(), names)
			if err != nil {
				return exit{exitUsage, err}
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

// table shows the events to people: one line each, and beneath what is to blame.
func (a *app) table(events []agent.Event) {
	w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "PROBE\tSTATE\tTOOK\tENDPOINT\tWHY")
	for i := range events {
		ev := &events[i]
		why := ""
		if ev.Fault != nil {
			why = exporters.Show(ev.Fault.Error())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", ev.Probe, state(ev), ev.Took.Round(time.Millisecond), ev.About.Endpoint, why)
	}
	w.Flush()
	for _, f := range findings(events) {
		a.finding(f.Finding, f.probes)
	}
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

// finding tells one finding.
func (a *app) finding(f diagnose.Finding, probes []string) {
	about, _ := diagnose.Describe(f.Cause)
	fmt.Fprintf(a.stdout, "\n%s: %s (%s, %s)\n", f.Culprit, about.Title, f.Cause, f.Sure)
	if len(probes) > 0 {
		fmt.Fprintf(a.stdout, "  seen by: %s\n", strings.Join(probes, ", "))
	}
	for _, line := range f.Because {
		fmt.Fprintf(a.stdout, "  because: %s\n", exporters.Show(line))
	}
	fmt.Fprintf(a.stdout, "  do: %s\n  more: authvigil explain %s\n", f.Remedy, f.Cause)
}

func state(ev *agent.Event) string {
	switch ev.Outcome() {
	case agent.RunOK:
		return "ok"
	case agent.RunFault:
		return "FAIL"
	default:
		return string(ev.Outcome())
	}
}

func checkCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check NAME", Short: "Run one probe as a Nagios or Icinga plugin",
		Example: "  authvigil check devices",
		RunE: func(c *cobra.Command, names []string) error {
			unknown := func(err error) error {
				first, _, _ := strings.Cut(err.Error(), "\n")
				fmt.Fprintf(a.stdout, "UNKNOWN - %s\n", strings.ReplaceAll(first, "|", "/"))
				return exit{code: exitUnknown}
			}
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
}

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
		text = exporters.Show(ev.Fault.Error())
	}
	if len(ev.Findings) > 0 {
		f := ev.Findings[0]
		text = fmt.Sprintf("%s: %s (%s, %s)", f.Culprit, f.Cause, f.Sure, text)
	}
	perf := fmt.Sprintf("time=%.6fs", ev.Took.Seconds())
	for _, r := range ev.Report.Readings {
		if len(r.Labels) == 0 && !r.Metric.Counter {
			perf += fmt.Sprintf(" %s=%g", r.Metric.Name, r.Value)
		}
	}
	fmt.Fprintf(a.stdout, "%s - %s | %s\n", word, strings.ReplaceAll(strings.ReplaceAll(text, "|", "/"), "\n", " "), perf)
	if code == exitOK {
		return nil
	}
	return exit{code: code}
}
