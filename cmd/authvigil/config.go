package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
)

func configCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Check, show or describe the configuration"}
	c.AddCommand(
		&cobra.Command{Use: "check", Short: "Read and build the configuration, and list every error", Args: cobra.NoArgs, Example: "  authvigil config check --config.file ./authvigil.toml", RunE: func(*cobra.Command, []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			log, _, err := a.logger()
			if err != nil {
				return err
			}
			ag, c, err := a.load(log)
			if err != nil {
				return exit{exitFound, err}
			}
			for _, w := range c.Warnings {
				fmt.Fprintf(a.stderr, "warning: %s\n", w)
			}
			if a.output != "text" {
				return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "file": a.configFile, "probes": len(ag.Planned()), "identities": len(c.Names("identity")), "warnings": append([]string{}, c.Warnings...)})
			}
			identities := "1 identity"
			if n := len(c.Names("identity")); n != 1 {
				identities = fmt.Sprintf("%d identities", n)
			}
			fmt.Fprintf(a.stdout, "%s is good: %s, %s\n", a.configFile, plural(len(ag.Planned()), "probe"), identities)
			return nil
		}},
		&cobra.Command{Use: "show", Short: "Show the effective configuration with the origin of each value; secrets are masked", Args: cobra.NoArgs, Example: "  authvigil config show", RunE: func(*cobra.Command, []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			log, _, err := a.logger()
			if err != nil {
				return err
			}
			ag, _, err := a.load(log)
			if err != nil {
				return exit{exitFound, err}
			}
			values := ag.Effective()
			switch a.output {
			case "json":
				return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "values": values})
			case "ndjson":
				for _, v := range values {
					if err := writeJSON(a.stdout, v); err != nil {
						return err
					}
				}
				return nil
			}
			rows := [][]cell{}
			for _, v := range values {
				rows = append(rows, []cell{{v.Path, plain}, {"= " + v.Value, plain}, {"# " + v.Origin, faint}})
			}
			a.paper(a.stdout).table(nil, rows)
			return nil
		}},
		&cobra.Command{Use: "schema", Short: "Write the JSON schema of the configuration, for editors", Args: cobra.NoArgs, Example: "  authvigil config schema > authvigil.schema.json", RunE: func(*cobra.Command, []string) error {
			return writeJSON(a.stdout, agent.Schema())
		}},
	)
	return c
}
