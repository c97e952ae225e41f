package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
)

func explainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain [CAUSE]", Short: "Show the runbook of a cause, or list the causes", Args: cobra.MaximumNArgs(1),
		Example: "  authvigil explain token_expired",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				text, ok := diagnose.Runbook(diagnose.Cause(args[0]))
				if !ok {
					return exit{exitUsage, fmt.Errorf("there is no cause %q; %s", args[0], agent.DidYouMean(args[0], causeNames()))}
				}
				fmt.Fprint(a.stdout, text)
				return nil
			}
			w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
			for _, c := range diagnose.Causes() {
				about, _ := diagnose.Describe(c)
				fmt.Fprintf(w, "%s\t%s\n", c, about.Title)
			}
			return w.Flush()
		},
	}
}

func causeNames() (names []string) {
	for _, c := range diagnose.Causes() {
		names = append(names, string(c))
	}
	return names
}
