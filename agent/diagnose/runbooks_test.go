package diagnose

import (
	"strings"
	"testing"
)

// TestRunbooks_agreeWithTheTable keeps table and folder the same, and each runbook complete.
func TestRunbooks_agreeWithTheTable(t *testing.T) {
	files, err := runbooks.ReadDir("runbooks")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, ok := causes[Cause(strings.TrimSuffix(f.Name(), ".md"))]; !ok {
			t.Errorf("runbooks/%s belongs to no cause", f.Name())
		}
	}
	for cause, about := range causes {
		text, ok := Runbook(cause)
		if !ok {
			t.Errorf("%s has no runbook", cause)
			continue
		}
		for _, part := range []string{"# " + string(cause) + ": " + about.Title, "## What it means", "## Confirm", "## Fix"} {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s lacks %q", cause, part)
			}
		}
	}
}
