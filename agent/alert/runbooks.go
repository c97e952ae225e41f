package alert

import "embed"

//go:embed runbooks/*.md
var runbooks embed.FS

// Runbook gives the runbook of an alert that is named by itself and not by a cause, as Markdown: those of the detector, of
// the rules for Prometheus, and the test alert.
func Runbook(name string) (string, bool) {
	text, err := runbooks.ReadFile("runbooks/" + name + ".md")
	return string(text), err == nil
}
