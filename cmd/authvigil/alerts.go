package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/exporters"
)

func alertsCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "alerts", Short: "Try the sinks"}
	var lasts time.Duration
	test := &cobra.Command{Use: "test NAME", Short: "Send one test alert through a sink, and its resolution", Args: cobra.ExactArgs(1), Example: "  authvigil alerts test pager",
		Long: "Sends one test alert through a sink and says what each of its receivers made of it. A webhook and the journal get the\n" +
			"resolution at once. In an Alertmanager the alert lasts, and ends by itself: one that is over before group_wait is never told.",
		RunE: func(c *cobra.Command, args []string) error { return a.testSink(c.Context(), args[0], lasts) }}
	test.Flags().DurationVar(&lasts, "for", 5*time.Minute, "how `long` the alert lasts in an Alertmanager; more than its group_wait")
	c.AddCommand(test)
	return c
}

func (a *app) testSink(ctx context.Context, name string, lasts time.Duration) error {
	if err := a.checkOutput(); err != nil {
		return err
	}
	if lasts < time.Second {
		return exit{exitUsage, errors.New("--for: want at least 1s")}
	}
	log, _, err := a.logger()
	if err != nil {
		return err
	}
	ag, _, err := a.load(log)
	if err != nil {
		return exit{exitFound, err}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	lines, err := ag.TestSink(ctx, name, lasts)
	if a.output == "text" {
		for _, line := range lines {
			fmt.Fprintln(a.stdout, line)
		}
	}
	if err != nil {
		return exit{exitFound, fmt.Errorf("sink %s: %w", name, err)}
	}
	if a.output != "text" {
		return writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "sink": name, "ok": true, "receivers": lines})
	}
	return nil
}
