// Package packaging holds what is shipped beside the program. Its tests see that rules and dashboards are complete; promtool,
// amtool, a Prometheus and Grafana's own types judge them in the integration tests.
package packaging

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/agent/alert"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRules_areCompleteAndTested: every alert has a severity, a page of its own that is there, and a test in which it fires
// and one in which it does not.
func TestRules_areCompleteAndTested(t *testing.T) {
	blocks := strings.Split(read(t, "prometheus/rules.yml"), "- alert: ")[1:]
	fires, rests := map[string]bool{}, map[string]bool{"AuthvigilWatchdog": true} // which never rests
	for _, c := range strings.Split(read(t, "prometheus/rules_test.yml")+read(t, "prometheus/rules_days_test.yml"), "- name: ")[1:] {
		if !strings.Contains(c, "alertname: ") {
			continue
		}
		name := regexp.MustCompile(`alertname: (\w+)`).FindStringSubmatch(c)[1]
		if strings.Contains(c, "exp_alerts: []") {
			rests[name] = true
		} else {
			fires[name] = true
		}
	}
	if len(blocks) < 20 {
		t.Errorf("%d alerts", len(blocks))
	}
	for _, block := range blocks {
		name, body, _ := strings.Cut(block, "\n")
		if !regexp.MustCompile(`labels: \{severity: (critical|warning|none)\}`).MatchString(body) {
			t.Errorf("%s has no severity", name)
		}
		if text, ok := alert.Runbook(name); !ok || !strings.HasPrefix(text, "# "+name+": ") || !strings.Contains(body, "/agent/alert/runbooks/"+name+".md") {
			t.Errorf("%s has no runbook, or does not lead to it", name)
		}
		if !fires[name] || !rests[name] {
			t.Errorf("%s: tested firing %v, not firing %v", name, fires[name], rests[name])
		}
	}
}

// TestRunbooks_ofAlerts are complete.
func TestRunbooks_ofAlerts(t *testing.T) {
	files, err := filepath.Glob("../agent/alert/runbooks/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".md")
		text, _ := alert.Runbook(name)
		for _, part := range []string{"# " + name + ": ", "## What it means", "## Confirm", "## Fix"} {
			if !strings.Contains(text, part) {
				t.Errorf("the runbook of %s lacks %q", name, part)
			}
		}
	}
}

type dashboard struct {
	UID, Title string
	ID         *int
	Tags       []string
	Templating struct {
		List []struct {
			Name, Type string
			Datasource struct{ UID string }
		}
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		Expr       string
		Datasource struct{ UID string }
	}
	FieldConfig struct{ Defaults struct{ Unit string } }
}

// TestDashboards: ids are unique, panels lie beside each other and not on one another, every data source is the variable, and
// every question is limited to the jobs and instances that were chosen.
func TestDashboards(t *testing.T) {
	files, err := filepath.Glob("grafana/*.json")
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	uids := map[string]bool{}
	for _, file := range files {
		var d dashboard
		if err := json.Unmarshal([]byte(read(t, file)), &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if d.UID == "" || uids[d.UID] || d.ID != nil || !slices.Contains(d.Tags, "authvigil") {
			t.Errorf("%s: uid %q, id %v, tags %v", file, d.UID, d.ID, d.Tags)
		}
		uids[d.UID] = true
		if v := d.Templating.List[0]; v.Name != "datasource" || v.Type != "datasource" {
			t.Errorf("%s: the first variable is %v", file, v)
		}
		for _, v := range d.Templating.List[1:] {
			if v.Datasource.UID != "${datasource}" {
				t.Errorf("%s: variable %s asks %q", file, v.Name, v.Datasource.UID)
			}
		}
		ids := map[int]bool{}
		for i, p := range d.Panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("%s: two panels have the id %d", file, p.ID)
			}
			ids[p.ID] = true
			if g := p.GridPos; g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
				t.Errorf("%s: %s lies at %+v", file, p.Title, g)
			}
			for _, q := range d.Panels[:i] {
				if overlap(p, q) {
					t.Errorf("%s: %s lies on %s", file, p.Title, q.Title)
				}
			}
			if p.Type == "row" {
				continue
			}
			if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %d: title %q, description %q, unit %q, data source %q", file, p.ID, p.Title, p.Description, p.FieldConfig.Defaults.Unit, p.Datasource.UID)
			}
			for _, q := range p.Targets {
				if q.Datasource.UID != "${datasource}" || strings.Count(q.Expr, `job=~"$job", instance=~"$instance"`) != strings.Count(q.Expr, "authvigil_") {
					t.Errorf("%s: %s asks %s", file, p.Title, q.Expr)
				}
			}
		}
	}
}

func overlap(p, q panel) bool {
	a, b := p.GridPos, q.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}
