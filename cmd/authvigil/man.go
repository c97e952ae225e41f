package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func manCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "man DIR", Short: "Write the manual pages into a directory", Args: cobra.ExactArgs(1), Example: "  authvigil man /usr/local/share/man/man1", RunE: func(c *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return exit{exitFound, err}
		}
		if err := doc.GenManTree(c.Root(), &doc.GenManHeader{Title: "AUTHVIGIL", Section: "1", Source: "authvigil"}, args[0]); err != nil {
			return exit{exitFound, fmt.Errorf("man: %w", err)}
		}
		return nil
	}}
}
