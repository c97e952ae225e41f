package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func alertsCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "alerts", Short: "Try the sinks"}
	c.AddCommand(&cobra.Command{Use: "test NAME", Short: "Send one test alert through a sink, and its resolution", Args: cobra.ExactArgs(1), Example: "  authvigil alerts test pager", RunE: func(c *cobra.Command, args []string) error {
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
		fmt.Fprintf(a.stdout, "sink %s took a test alert and its resolution\n", args[0])
		return nil
	}})
	return c
}
