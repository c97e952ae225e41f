package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/exporters"
)

func explainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain [CAUSE]", Short: "Show the runbook of a cause or of an alert, or list the causes", Args: cobra.MaximumNArgs(1),
		Example: "  authvigil explain token_expired",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			if len(args) == 1 {
				text, ok := diagnose.Runbook(diagnose.Cause(args[0]))
				if !ok {
					text, ok = alert.Runbook(args[0])
				}
				if !ok {
					return exit{exitUsage, fmt.Errorf("there is no cause %q; %s", args[0], agent.DidYouMean(args[0], causeNames()))}
				}
				if a.output != "text" {
					about, _ := diagnose.Describe(diagnose.Cause(args[0]))
					return writeJSON(a.stdout, causeRecord{diagnose.Cause(args[0]), about.Title, about.Remedy, text})
				}
				fmt.Fprint(a.stdout, text)
				return nil
			}
			rows, records := [][]cell{}, []causeRecord{}
			for _, c := range diagnose.Causes() {
				about, _ := diagnose.Describe(c)
				rows = append(rows, []cell{{string(c), bold}, {about.Title, plain}})
				records = append(records, causeRecord{Cause: c, Title: about.Title, Remedy: about.Remedy})
			}
			switch a.output {
			case "json":
				return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "causes": records})
			case "ndjson":
				for _, r := range records {
					if err := writeJSON(a.stdout, r); err != nil {
						return err
					}
				}
			default:
				a.paper(a.stdout).table(nil, rows)
			}
			return nil
		},
	}
}

type causeRecord struct {
	Cause   diagnose.Cause `json:"cause"`
	Title   string         `json:"title"`
	Remedy  string         `json:"remedy"`
	Runbook string         `json:"runbook,omitempty"` // Markdown
}

func causeNames() (names []string) {
	for _, c := range diagnose.Causes() {
		names = append(names, string(c))
	}
	return names
}
