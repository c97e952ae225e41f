//go:build integration

package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRules checks the Prometheus rules and runs their own tests.
func TestRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.Command(need(t, "promtool"), args...)
		cmd.Dir = "../../../packaging/prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestUnit asks systemd whether the unit is right, and how exposed it is: 1.3 at most, where 10 is everything.
func TestUnit(t *testing.T) {
	b, err := os.ReadFile("../../../systemd/authvigil.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "authvigil.service")
	write(t, unit, strings.ReplaceAll(string(b), "/usr/bin/authvigil", binary(t)))
	analyze := need(t, "systemd-analyze")
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=13", unit).CombinedOutput(); err != nil {
		t.Errorf("exposure above 1.3: %v\n%s", err, out[max(len(out)-200, 0):])
	}
}
