package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/evidence"
)

// A diagnosis is the record of one diagnosis.
type diagnosis struct {
	ID       string             `json:"id"`
	Findings []diagnose.Finding `json:"findings"`
	Error    string             `json:"error,omitempty"`
}

func diagnoseCommand(a *app) *cobra.Command {
	var evidenceFile, responseFile string
	c := &cobra.Command{
		Use: "diagnose [NAME|URL]", Short: "Ask, explain, and say what to do; or explain recorded evidence",
		Args:    cobra.MaximumNArgs(1),
		Example: "  authvigil diagnose devices\n  authvigil diagnose https://api.example.com/v2/devices\n  curl -si https://api.example.com/ | authvigil diagnose --response -\n  authvigil diagnose --evidence cases.jsonl --output ndjson",
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			switch {
			case evidenceFile != "" && responseFile == "" && len(args) == 0:
				return a.withFile(evidenceFile, a.diagnoseEvidence)
			case responseFile != "" && evidenceFile == "" && len(args) == 0:
				return a.withFile(responseFile, a.diagnoseResponse)
			case len(args) == 1 && evidenceFile == "" && responseFile == "":
				return a.diagnoseLive(c.Context(), args[0])
			}
			return exit{exitUsage, errors.New("give one of: the name of a probe, a URL, --evidence FILE, --response FILE")}
		},
	}
	c.Flags().StringVar(&evidenceFile, "evidence", "", "`FILE` with recorded evidence, one JSON object a line; - is standard input")
	c.Flags().StringVar(&responseFile, "response", "", "`FILE` with the output of curl -i or curl -v; - is standard input")
	return c
}

func (a *app) withFile(name string, read func(io.Reader) error) error {
	if name == "-" {
		return read(a.stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return exit{exitUsage, err}
	}
	defer f.Close()
	return read(f)
}

// maxRecord is the longest line of recorded evidence.
const maxRecord = 4 << 20

// diagnoseEvidence explains each line, in order. A line that cannot be read gives a record that says so, and an exit code.
func (a *app) diagnoseEvidence(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	out := bufio.NewWriter(a.stdout)
	defer out.Flush()
	var all []diagnosis
	bad := 0
	for n := 1; ; n++ {
		line, err := readLine(in)
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return exit{exitFound, fmt.Errorf("line %d: %w", n, err)}
		}
		if len(strings.TrimSpace(string(line))) > 0 {
			d := diagnoseLine(line, n)
			if d.Error != "" {
				bad++
				fmt.Fprintf(a.stderr, "line %d: %s\n", n, d.Error)
			}
			switch a.output {
			case "ndjson":
				if err := writeJSON(out, d); err != nil {
					return err
				}
			case "json":
				all = append(all, d)
			default:
				fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", d.ID, d.Findings[0].Cause, d.Findings[0].Sure, d.Findings[0].Remedy)
			}
		}
		if err == io.EOF {
			break
		}
	}
	if a.output == "json" {
		if err := writeJSON(out, map[string]any{"schema_version": exporters.SchemaVersion, "diagnoses": all}); err != nil {
			return err
		}
	}
	if bad > 0 {
		return exit{code: exitFound}
	}
	return nil
}

// readLine reads one line of any length up to maxRecord; what is beyond is dropped, so that the line fails alone.
func readLine(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line) < maxRecord {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

func diagnoseLine(line []byte, n int) diagnosis {
	r, err := diagnose.ReadRecord(line)
	d := diagnosis{ID: exporters.Show(evidence.Clean(r.ID, 256))}
	if d.ID == "" {
		d.ID = fmt.Sprint(n)
	}
	if err != nil {
		d.Error = evidence.Clean(err.Error(), 256)
		d.Findings = []diagnose.Finding{{Cause: diagnose.UnknownUnauthorized, Culprit: "endpoint", Sure: diagnose.Possible, Because: []string{"the line cannot be read: " + d.Error}, Remedy: "correct the line"}}
		return d
	}
	d.Findings = diagnose.Explain(r.Case(time.Now()))
	return d
}

// diagnoseResponse explains a pasted transcript.
func (a *app) diagnoseResponse(r io.Reader) error {
	c, err := diagnose.ReadTranscript(r, time.Now())
	if err != nil {
		return exit{exitUsage, err}
	}
	findings := diagnose.Explain(c)
	return a.tell(diagnosis{ID: c.Sighting.Endpoint, Findings: findings})
}

// tell writes one diagnosis and gives the exit code.
func (a *app) tell(d diagnosis) error {
	if d.Findings == nil {
		d.Findings = []diagnose.Finding{}
	}
	if a.output != "text" {
		if err := writeJSON(a.stdout, d); err != nil {
			return err
		}
	} else {
		a.findings(d.Findings)
	}
	if len(d.Findings) > 0 {
		return exit{code: exitFound}
	}
	return nil
}

// diagnoseLive runs a probe with all second questions, or asks a URL as a stranger, and tells the story: stages, findings, evidence, remedy.
func (a *app) diagnoseLive(ctx context.Context, what string) error {
	a.thorough = true
	log, _, err := a.logger()
	if err != nil {
		return err
	}
	var ag *agent.Agent
	names := []string{what}
	if u, err := url.Parse(what); err == nil && (u.Scheme == "http" || u.Scheme == "https") {
		if ag, err = agentForURL(a, u); err != nil {
			return exit{exitUsage, err}
		}
		names = nil
	} else if ag, _, err = a.load(log); err != nil {
		return exit{exitUsage, err}
	}
	events, err := ag.Once(ctx, names)
	if err != nil {
		return exit{exitUsage, err}
	}
	ev := &events[0]
	if a.output == "text" {
		a.story(ev)
	}
	return a.tell(diagnosis{ID: what, Findings: ev.Findings})
}

// agentForURL makes an agent with one probe, which asks a URL as a stranger.
func agentForURL(a *app, u *url.URL) (*agent.Agent, error) {
	log, _, err := a.logger()
	if err != nil {
		return nil, err
	}
	c, err := agent.Parse("command line", fmt.Sprintf("[probe.url]\nkind = \"http\"\nurl = %q\n", u.String()))
	if err != nil {
		return nil, err
	}
	return agent.New(c, a.env(log))
}
