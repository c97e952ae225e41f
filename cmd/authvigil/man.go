package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/authvigil/authvigil/agent"
)

func manCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "man DIR", Short: "Write the manual pages into a directory", Args: cobra.ExactArgs(1), Example: "  authvigil man /usr/local/share/man/man1", RunE: func(c *cobra.Command, args []string) error {
		if err := os.MkdirAll(args[0], 0o755); err != nil {
			return exit{exitFound, err}
		}
		if err := doc.GenManTree(c.Root(), &doc.GenManHeader{Title: "AUTHVIGIL", Section: "1", Source: "authvigil"}, args[0]); err != nil {
			return exit{exitFound, fmt.Errorf("man: %w", err)}
		}
		if err := os.WriteFile(filepath.Join(args[0], "authvigil.toml.5"), configPage(built()), 0o644); err != nil {
			return exit{exitFound, err}
		}
		return nil
	}}
}

// built is the moment that the pages show: $SOURCE_DATE_EPOCH, so that the same source gives the same pages, or now.
func built() time.Time {
	if s, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		return time.Unix(s, 0).UTC()
	}
	return time.Now()
}

// configPage is authvigil.toml(5), made of the schema that the daemon itself decodes by.
func configPage(at time.Time) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH \"AUTHVIGIL.TOML\" \"5\" \"%s\" \"authvigil\" \"\"\n", at.Format("Jan 2006"))
	b.WriteString(`.SH NAME
authvigil.toml \- configuration of authvigil
.SH SYNOPSIS
.I /etc/authvigil/authvigil.toml
.br
.I /etc/authvigil/conf.d/*.toml
.SH DESCRIPTION
The file is TOML. Unknown keys are errors; durations are text with a unit ("30s", "5m", "90d"); secrets are references
("file:/path", "env:NAME", "credential:NAME" for those of systemd).
Every error is listed at once by
.BR "authvigil config check" ;
.B authvigil reload
takes a good file over and leaves everything as it is on a bad one.
A variable AUTHVIGIL__DEFAULTS__EVERY overrides the key every of [defaults].
`)
	root := agent.Schema()["properties"].(map[string]any)
	for _, name := range []string{"agent", "defaults", "alerts"} {
		fmt.Fprintf(&b, ".SH [%s]\n", name)
		keys(&b, root[name].(map[string]any)["properties"].(map[string]any))
	}
	for _, name := range []string{"identity", "probe", "sink"} {
		fmt.Fprintf(&b, ".SH [%s.NAME]\n", name)
		for _, branch := range root[name].(map[string]any)["additionalProperties"].(map[string]any)["oneOf"].([]any) {
			properties := branch.(map[string]any)["properties"].(map[string]any)
			fmt.Fprintf(&b, ".SS kind = \"%s\"\n", roff(fmt.Sprint(properties["kind"].(map[string]any)["const"])))
			keys(&b, properties)
		}
	}
	b.WriteString(".SH [maintenance.NAME]\n")
	keys(&b, root["maintenance"].(map[string]any)["additionalProperties"].(map[string]any)["properties"].(map[string]any))
	b.WriteString(".SH SEE ALSO\n.BR authvigil (1),\n.BR systemd.exec (5)\n")
	return b.Bytes()
}

func keys(b *bytes.Buffer, properties map[string]any) {
	names := make([]string, 0, len(properties))
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		key, _ := properties[name].(map[string]any)
		description, _ := key["description"].(string)
		if description == "" {
			continue
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(name), roff(description))
	}
}

// roff writes text so that no character of it is a command of roff.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "µ", `\(mc`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
