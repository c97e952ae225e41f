package diagnose

import "embed"

//go:embed runbooks/*.md
var runbooks embed.FS

// Runbook gives the runbook of a cause, as Markdown.
func Runbook(c Cause) (string, bool) {
	text, err := runbooks.ReadFile("runbooks/" + string(c) + ".md")
	return string(text), err == nil
}
