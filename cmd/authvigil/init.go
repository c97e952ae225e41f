package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
)

func initCommand(a *app) *cobra.Command {
	var w agent.Wish
	var show, force bool
	c := &cobra.Command{
		Use: "init [URL]", Short: "Write a configuration for an API, by asking it and its issuer", Args: cobra.MaximumNArgs(1),
		Long: `init asks the API once as a stranger, reads from its challenge how it wants to be proved to, asks the issuer for its
metadata, and writes a configuration with probes for the API, that it refuses strangers, its certificate, the issuer, the
token and the clock. It sends no credential. What is left to do is listed.`,
		Example: "  authvigil init https://api.example.com/v2/devices --print\n  authvigil init https://api.example.com/v2/devices --issuer https://auth.example.com --config.file ./authvigil.toml",
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			if len(args) == 1 {
				w.URL = args[0]
			}
			if w.URL == "" && w.Issuer == "" {
				return exit{exitUsage, errors.New("init: name the API, or its issuer\n  help: authvigil init https://api.example.com/v2/devices, or authvigil init --issuer https://auth.example.com")}
			}
			return a.initialize(c.Context(), w, show, force)
		},
	}
	f := c.Flags()
	f.StringVar(&w.Issuer, "issuer", "", "`URL` of the issuer; default: the one that the API names")
	f.StringVar(&w.Kind, "identity", "", "`kind` of the identity: none, bearer, basic, digest, api_key or oauth2; default: what the API asks for")
	f.StringVar(&w.ClientID, "client-id", "", "client `id` or user name")
	f.StringVar(&w.Audience, "audience", "", "`audience` of the token, where the issuer wants one")
	f.StringSliceVar(&w.Scopes, "scope", nil, "`scopes` to ask for")
	f.StringVar(&w.CAFile, "ca-file", "", "PEM `file` with the authorities to trust in place of the system's")
	f.StringSliceVar(&w.Servers, "ntp", nil, "time `servers` of your network; default: the clock is left out")
	f.BoolVar(&show, "print", false, "print the configuration and write no file")
	f.BoolVar(&force, "force", false, "replace a file that is there")
	return c
}

// initialize proposes a configuration, sees that it holds together, and writes it.
func (a *app) initialize(ctx context.Context, w agent.Wish, show, force bool) error {
	log, _, err := a.logger()
	if err != nil {
		return err
	}
	path, err := filepath.Abs(a.configFile)
	if err != nil {
		return exit{exitUsage, err}
	}
	if w.Secrets = filepath.Dir(path); w.CAFile != "" {
		if w.CAFile, err = filepath.Abs(w.CAFile); err != nil {
			return exit{exitUsage, err}
		}
	}
	if _, err := os.Stat(path); err == nil && !show && !force {
		return exit{exitUsage, fmt.Errorf("%s is there already\n  help: --print shows what would be written, --config.file names another file, --force replaces it", path)}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	p, err := agent.Propose(ctx, a.env(log).Net, w)
	if err != nil {
		return exit{exitFound, errors.New(tameLines(err.Error()))}
	}
	c, err := agent.Parse(path, p.Text)
	if err == nil {
		_, err = agent.New(c, a.env(log))
	}
	if err != nil {
		return exit{exitFound, fmt.Errorf("what init would write does not pass config check, which is a defect of authvigil: %w", err)}
	}
	if a.output != "text" {
		if err := writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "config": p.Text, "seen": append([]string{}, p.Seen...), "todo": append([]string{}, p.Todo...)}); err != nil {
			return err
		}
	} else if show {
		fmt.Fprint(a.stdout, p.Text)
	}
	if !show {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return exit{exitFound, err}
		}
		if err := os.WriteFile(path, []byte(p.Text), 0o640); err != nil {
			return exit{exitFound, err}
		}
		if err := writeSchema(filepath.Join(filepath.Dir(path), "authvigil.schema.json")); err != nil {
			return exit{exitFound, err}
		}
	}
	out := a.paper(a.stderr)
	for _, line := range p.Seen {
		out.wrapped("seen: ", plain, line)
	}
	if !show {
		out.wrapped("written: ", green, path)
	}
	for i, line := range p.Todo {
		out.wrapped(fmt.Sprintf("to do %d: ", i+1), bold, line)
	}
	out.wrapped("then: ", plain, fmt.Sprintf("%s config check --config.file %s && %[1]s once --config.file %[2]s", os.Args[0], a.configFile)) // as it was called: a newcomer has not installed it
	return nil
}

// writeSchema writes the schema that the first line of the configuration names, for editors.
func writeSchema(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(writeJSON(f, agent.Schema()), f.Close())
}

// tameLines makes an error fit for a terminal and keeps its lines.
func tameLines(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = tame(lines[i])
	}
	return strings.Join(lines, "\n")
}
