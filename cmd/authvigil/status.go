package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
)

// A view is what a running daemon tells of itself.
type view struct {
	Version  int                    `json:"schema_version"`
	At       time.Time              `json:"at"`
	Probes   []exporters.Record     `json:"probes"`
	Findings []exporters.Blame      `json:"findings"`
	Runways  []exporters.Runway     `json:"runways"`
	Clocks   exporters.ClocksRecord `json:"clocks"`
}

// A daemonClient is a running authvigil as other commands reach it: over its unix socket, or over HTTP.
type daemonClient struct {
	client *http.Client
	base   string
	where  string // as shown to people
}

// defaultPage is where a daemon serves its page unless it is told otherwise.
const defaultPage = "http://127.0.0.1:10401"

// connect finds the daemon: from names a socket or a URL; empty: the socket where it lies, else the page's default address.
func connect(from string) *daemonClient {
	if from == "" {
		from = defaultPage
		if _, err := os.Stat(socketPath()); err == nil {
			from = socketPath()
		}
	}
	d := &daemonClient{base: strings.TrimRight(from, "/"), where: from, client: &http.Client{Timeout: 10 * time.Second}}
	if !strings.Contains(from, "://") {
		d.base = "http://daemon"
		d.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", from)
		}, MaxIdleConnsPerHost: 1}
	}
	return d
}

// maxAnswer bounds what a daemon may answer: the records of ten thousand probes are some ten megabytes.
const maxAnswer = 256 << 20

func (d *daemonClient) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+path, nil)
	if err != nil {
		return err
	}
	r, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("no daemon answers at %s\n  help: start it with authvigil run, or name its socket or page with --from", d.where)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s to %s\n  help: name the socket or the page of a daemon with --from", d.where, r.Status, path)
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("%s answers %s with what is no record: %w", d.where, path, err)
	}
	return nil
}

// look asks for all that is shown.
func (d *daemonClient) look(ctx context.Context) (*view, error) {
	v := &view{At: time.Now().UTC()}
	return v, errors.Join(d.get(ctx, "/api/v1/probes", v), d.get(ctx, "/api/v1/findings", v), d.get(ctx, "/api/v1/runways", v), d.get(ctx, "/api/v1/clocks", v))
}

func statusCommand(a *app) *cobra.Command {
	var from string
	c := &cobra.Command{
		Use: "status [NAME…]", Short: "Show how the probes of a running daemon stand, the worst first",
		Example: "  authvigil status\n  authvigil status --from http://127.0.0.1:10401 --output ndjson",
		RunE: func(c *cobra.Command, names []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			v, err := connect(from).look(c.Context())
			if err != nil {
				return exit{exitUsage, firstError(err)}
			}
			if err := v.only(names); err != nil {
				return exit{exitUsage, err}
			}
			return a.showStatus(v)
		},
	}
	c.Flags().StringVar(&from, "from", "", "unix `socket` or address of the page of the daemon; default: its socket, else "+defaultPage)
	return c
}

// firstError gives one of several that say the same.
func firstError(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok && len(joined.Unwrap()) > 0 {
		return joined.Unwrap()[0]
	}
	return err
}

// only leaves the named probes.
func (v *view) only(names []string) error {
	if len(names) == 0 {
		return nil
	}
	var known []string
	for i := range v.Probes {
		known = append(known, v.Probes[i].Probe)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("there is no probe %q; %s", name, agent.DidYouMean(name, known))
		}
	}
	touches := func(probes []string) bool {
		return slices.ContainsFunc(probes, func(p string) bool { return slices.Contains(names, p) })
	}
	v.Probes = slices.DeleteFunc(v.Probes, func(r exporters.Record) bool { return !slices.Contains(names, r.Probe) })
	v.Findings = slices.DeleteFunc(v.Findings, func(b exporters.Blame) bool { return !touches(b.Probes) })
	v.Runways = slices.DeleteFunc(v.Runways, func(r exporters.Runway) bool { return !touches(r.Probes) })
	return nil
}

// showStatus writes a view, and gives the exit code: 1 where a probe fails.
func (a *app) showStatus(v *view) error {
	switch a.output {
	case "json":
		v.Version = exporters.SchemaVersion
		if err := writeJSON(a.stdout, v); err != nil {
			return err
		}
	case "ndjson":
		for i := range v.Probes {
			if err := writeJSON(a.stdout, v.Probes[i]); err != nil {
				return err
			}
		}
	default:
		a.paper(a.stdout).status(v)
	}
	if slices.ContainsFunc(v.Probes, func(r exporters.Record) bool { return r.Outcome == agent.RunFault }) {
		return exit{code: exitFound}
	}
	return nil
}

// status tells a view: the sentence, what is to blame, what runs out, the clock, and every probe, the worst first.
func (p *paper) status(v *view) {
	word, c, rest := v.headline()
	p.say(p.in(c, word), rest)
	for i := range v.Findings {
		b := &v.Findings[i]
		since := ""
		if !b.Since.IsZero() {
			since = b.Since.UTC().Format(time.RFC3339) + " (" + away(b.Since, v.At) + ")"
		}
		p.finding(b.Finding, b.Title, since, b.Probes)
	}
	p.say()
	p.runways(v, 5)
	p.table([]string{"PROBE", "STATE", "TOOK", "NEXT", "ENDPOINT", "WHY"}, v.rows())
}

// runways shows what ends next and the local clock.
func (p *paper) runways(v *view, most int) {
	rows := [][]cell{}
	for i, r := range v.Runways {
		if i == most {
			break
		}
		c, word := green, "holds"
		switch left := r.Ends.Sub(v.At); {
		case left <= 0:
			c, word = red, "over"
		case r.Renewed:
			word = "renewed by itself"
		case left < 7*24*time.Hour:
			c, word = amber, "soon"
		}
		rows = append(rows, []cell{{away(r.Ends, v.At), c}, {word, c}, {r.What + " of " + r.Whose, plain}})
	}
	if k := v.Clocks.Local; k != nil {
		seconds := func(s float64) time.Duration { return time.Duration(s * 1e9) }
		rows = append(rows, []cell{{signedSpan(seconds(k.Skew)) + " ± " + span(seconds(k.Bound)), plain}, {k.State, plain}, {"local clock minus true time", plain}})
	}
	if len(rows) > 0 {
		p.table([]string{"ENDS", "STATE", "WHAT"}, rows)
		p.say()
	}
}

func signedSpan(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	return "+" + span(d)
}

// headline says in one sentence how things stand.
func (v *view) headline() (word string, c paint, rest string) {
	failing, held, good := 0, 0, 0
	for i := range v.Probes {
		switch r := &v.Probes[i]; {
		case r.Outcome == agent.RunFault:
			failing++
		case r.Held:
			held++
		case r.Outcome == agent.RunOK:
			good++
		}
	}
	switch {
	case failing > 0 && held > 0:
		return "FAIL", red, fmt.Sprintf(": %d of %d probes fail, %d more are held back", failing, len(v.Probes), held)
	case failing > 0:
		return "FAIL", red, fmt.Sprintf(": %d of %d probes fail", failing, len(v.Probes))
	case len(v.Probes) == 0:
		return "unknown", amber, ": no probe has told anything yet"
	case len(v.Findings) > 0:
		return "attention", amber, fmt.Sprintf(": nothing fails, %s", plural(len(v.Findings), "finding"))
	default:
		return "ok", green, fmt.Sprintf(": %d of %d probes are as expected", good, len(v.Probes))
	}
}

var outcomeRank = map[agent.Outcome]int{agent.RunFault: 0, agent.RunUnknown: 1, agent.RunHeld: 2, agent.RunOK: 3}

// rows gives one row for each probe, the worst first.
func (v *view) rows() (rows [][]cell) {
	rank := func(r *exporters.Record) int {
		if r.Held && r.Outcome == agent.RunOK {
			return outcomeRank[agent.RunHeld]
		}
		return outcomeRank[r.Outcome]
	}
	slices.SortStableFunc(v.Probes, func(a, b exporters.Record) int { return rank(&a) - rank(&b) })
	for i := range v.Probes {
		r := &v.Probes[i]
		word, c, why := "ok", green, ""
		switch {
		case r.Outcome == agent.RunOK && r.Held:
			word, c, why = "held", amber, "a gate keeps it from asking; it was ok before"
		case r.Outcome == agent.RunOK:
		case r.Outcome == agent.RunFault:
			word, c, why = "FAIL", red, r.Error
			if r.Failing != nil {
				word += " " + strings.TrimSuffix(away(*r.Failing, v.At), " ago")
			}
		default:
			word, c, why = string(r.Outcome), amber, r.Error
		}
		if r.OK && !r.Held && len(r.Findings) > 0 {
			word, c, why = "attention", amber, string(r.Findings[0].Cause)
		}
		if r.Gate.Again != nil && r.Gate.Again.After(v.At) {
			why += "; held until " + r.Gate.Again.UTC().Format("15:04:05")
		}
		next := ""
		if r.Next != nil {
			next = strings.TrimSuffix(away(*r.Next, v.At), " ago")
		}
		rows = append(rows, []cell{{r.Probe, plain}, {word, c}, {span(time.Duration(r.Took * 1e9)), plain}, {next, faint}, {r.Endpoint, plain}, {why, plain}})
	}
	return rows
}
