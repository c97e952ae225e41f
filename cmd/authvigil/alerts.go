package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/exporters"
)

func alertsCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "alerts", Short: "Try the sinks"}
	c.AddCommand(&cobra.Command{Use: "test NAME", Short: "Send one test alert through a sink, and its resolution", Args: cobra.ExactArgs(1), Example: "  authvigil alerts test pager", RunE: func(c *cobra.Command, args []string) error {
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
		ctx, cancel := context.WithTimeout(c.Context(), 30*time.Second)
		defer cancel()
		if err := ag.TestSink(ctx, args[0]); err != nil {
			return exit{exitFound, fmt.Errorf("sink %s: %w", args[0], err)}
		}
		if a.output != "text" {
			return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "sink": args[0], "ok": true})
		}
		fmt.Fprintf(a.stdout, "sink %s took a test alert and its resolution\n", args[0])
		return nil
	}})
	return c
}
