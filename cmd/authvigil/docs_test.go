package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

var update = flag.Bool("update", false, "write the pages that are made from the code")

// root is where the pages for users lie.
const root = "../.."

// current compares a page with what the code says, or writes it.
func current(t *testing.T, path, want string) {
	t.Helper()
	path = filepath.Join(root, path)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s is not what the code says; make docs writes it (%v)", path, err)
	}
}

// cellText makes text fit for a cell of a table.
func cellText(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// TestDocs_configuration: docs/configuration.md has every key of every kind, from the structs that are decoded.
func TestDocs_configuration(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Configuration

This page is made from the code by ` + "`make docs`" + `. [config.toml.example](../config.toml.example) shows every kind at work;
` + "`authvigil config schema`" + ` writes the same as a JSON schema for editors, and ` + "`man authvigil.toml`" + ` as a manual page.

The file is TOML, by default /etc/authvigil/authvigil.toml; files in conf.d/*.toml beside it are read too, and may not say anything twice.
Unknown keys are errors. Durations are text with a unit: ` + "`\"30s\"`, `\"5m\"`, `\"90d\"`" + `. Secrets are [references](secrets.md). A variable of the
environment overrides a key: ` + "`AUTHVIGIL__DEFAULTS__EVERY=1m`" + ` is ` + "`every`" + ` of ` + "`[defaults]`" + `. ` + "`authvigil config check`" + ` lists every error with file, line,
column and what to do; ` + "`authvigil config show`" + ` tells where each value comes from.

`)
	properties := agent.Schema()["properties"].(map[string]any)
	table := func(p map[string]any, without map[string]any) {
		b.WriteString("| key | type | meaning |\n|---|---|---|\n")
		for _, name := range slices.Sorted(maps.Keys(p)) {
			key := p[name].(map[string]any)
			if without[name] != nil || key["const"] != nil {
				continue
			}
			help, _ := key["description"].(string)
			if help == "" {
				t.Errorf("the key %s has no help", name)
			}
			if key["default"] != nil && !strings.Contains(help, "default") {
				help += fmt.Sprintf("; default %v", key["default"])
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, typeName(key), cellText(help))
		}
		b.WriteString("\n")
	}
	for _, name := range []string{"agent", "defaults", "alerts"} {
		fmt.Fprintf(&b, "## [%s]\n\n", name)
		table(properties[name].(map[string]any)["properties"].(map[string]any), nil)
	}
	for _, section := range []struct{ name, intro string }{
		{"identity", "Who asks. A probe names its identity; however many probes share one, it obtains one token for all of them."},
		{"probe", "What is asked. The first table has the keys of every kind."},
		{"sink", "Who is told."},
	} {
		fmt.Fprintf(&b, "## [%s.NAME]\n\n%s\n\n", section.name, section.intro)
		branches := properties[section.name].(map[string]any)["additionalProperties"].(map[string]any)["oneOf"].([]any)
		common := map[string]any{}
		if section.name == "probe" {
			first := branches[0].(map[string]any)["properties"].(map[string]any)
			for _, name := range []string{"disabled", "every", "labels", "schedule", "severity", "timeout"} {
				common[name] = first[name]
			}
			table(common, nil)
		}
		for _, branch := range branches {
			p := branch.(map[string]any)["properties"].(map[string]any)
			fmt.Fprintf(&b, "### kind = %q\n\n", p["kind"].(map[string]any)["const"])
			if len(p) == len(common)+1 {
				b.WriteString("It has no keys of its own.\n\n")
				continue
			}
			table(p, common)
		}
	}
	b.WriteString("## [maintenance.NAME]\n\nWhen something is being done to what is watched, and nobody is to be told.\n\n")
	table(properties["maintenance"].(map[string]any)["additionalProperties"].(map[string]any)["properties"].(map[string]any), nil)
	if len(properties) != 7 {
		t.Errorf("the configuration has %d tables; name the new one here", len(properties))
	}
	current(t, "docs/configuration.md", strings.TrimRight(b.String(), "\n")+"\n")
}

// typeName says in a word what a key takes.
func typeName(key map[string]any) string {
	switch key["type"] {
	case "string":
		if key["pattern"] != nil {
			return "duration"
		}
		return "text"
	case "array":
		return "list"
	case "object":
		return "table"
	case "boolean":
		return "true, false"
	}
	return fmt.Sprint(key["type"])
}

// A metricRow is one line of docs/metrics.md.
type metricRow struct{ name, kind, labels, help string }

// declaredMetrics reads the metrics that kinds of probes and identities declare beside their code.
func declaredMetrics(t *testing.T) map[string][]metricRow {
	rows := map[string][]metricRow{}
	var files []string
	for _, dir := range []string{"probes", "agent"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ os.DirEntry, err error) error {
			if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		subject := subjectOf(file)
		ast.Inspect(tree, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok {
				return true
			}
			if of, ok := lit.Type.(*ast.SelectorExpr); !ok || of.Sel.Name != "Metric" {
				return true
			}
			m := metricRow{kind: "gauge"}
			for _, e := range lit.Elts {
				pair := e.(*ast.KeyValueExpr)
				switch pair.Key.(*ast.Ident).Name {
				case "Name":
					m.name = text(t, pair.Value)
				case "Help":
					m.help = text(t, pair.Value)
				case "Counter":
					m.kind = "counter"
				case "Labels":
					var labels []string
					for _, l := range pair.Value.(*ast.CompositeLit).Elts {
						labels = append(labels, text(t, l))
					}
					m.labels = strings.Join(labels, ", ")
				}
			}
			rows[subject] = append(rows[subject], m)
			return true
		})
	}
	return rows
}

// subjectOf says whose metrics a file declares: those of a kind, of identities, or of probes that ask over HTTP.
func subjectOf(file string) string {
	subject, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".go"), "_")
	switch {
	case strings.Contains(file, "/identity/"):
		return "identity"
	case slices.Contains(probes.Kinds(), subject):
		return subject
	case slices.Contains(probes.Kinds(), filepath.Base(filepath.Dir(file))):
		return filepath.Base(filepath.Dir(file))
	}
	return "http"
}

func text(t *testing.T, e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		t.Fatalf("a metric is not declared by a literal: %v", e)
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// exportedMetrics scrapes an exporter that has seen a probe fail, so that every series of its own is there.
func exportedMetrics(t *testing.T) []metricRow {
	p := exporters.NewPrometheus("1.0.0", "abc", "go", func() agent.Health { return agent.Health{Alerts: alert.Stats{Sinks: []alert.SinkStats{{Sink: "s"}}}} })
	now := time.Now()
	closed := pace.State{Position: pace.Open, Again: now.Add(time.Minute)}
	fault := &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Err: errors.New("answered 401")}
	ev := &agent.Event{Observation: agent.Observation{Probe: "p", Kind: "http", About: probes.About{Endpoint: "e", Identity: "i"}, Started: now, Fault: fault}, Gate: closed, IdentityGate: closed, LastOK: now, Failing: now,
		Findings: []diagnose.Finding{{Cause: diagnose.TokenExpired, Culprit: "identity:i", Sure: diagnose.Certain}}}
	ev.Report.Exchanges = []evidence.Exchange{{Stage: evidence.StageAPI, Status: 401}, {Stage: evidence.StageAPI, Status: 401, Purpose: evidence.WithFreshGrant}}
	p.Start([]agent.Observation{ev.Observation})
	p.Observe(ev)
	p.Reloaded(true, now)
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var rows []metricRow
	help := map[string]string{}
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, "# HELP authvigil_"); ok {
			name, text, _ := strings.Cut(strings.TrimSpace(rest), " ")
			help[name] = text
		}
		if rest, ok := strings.CutPrefix(line, "# TYPE authvigil_"); ok {
			f := strings.Fields(rest)
			rows = append(rows, metricRow{name: f[0], kind: f[1], help: help[f[0]]})
			continue
		}
		if n := len(rows); n > 0 && rows[n-1].labels == "" && strings.HasPrefix(line, "authvigil_"+rows[n-1].name) {
			name, _, _ := strings.Cut(line, " ")
			var labels []string
			for _, m := range label.FindAllStringSubmatch(name, -1) {
				if m[1] != "le" {
					labels = append(labels, m[1])
				}
			}
			rows[n-1].labels = strings.Join(labels, ", ")
			if len(labels) == 0 {
				rows[n-1].labels = "-"
			}
		}
	}
	for i := range rows {
		if rows[i].labels == "" {
			t.Errorf("%s has no series although a probe failed", rows[i].name)
		}
	}
	return rows
}

// TestDocs_metrics: docs/metrics.md has every metric, from the exporter itself and from what kinds declare.
func TestDocs_metrics(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Metrics

This page is made from the code by ` + "`make docs`" + `. Every name begins with ` + "`authvigil_`" + `. Moments are Unix times in seconds, so that
` + "`… - time()`" + ` is what is left. Series that are known exist from the start with 0; series of things that vanish are deleted. No label holds a
token, a user, an address of a client or the text of an error.

`)
	table := func(rows []metricRow) {
		b.WriteString("| name | type | labels | meaning |\n|---|---|---|---|\n")
		slices.SortFunc(rows, func(a, b metricRow) int { return strings.Compare(a.name, b.name) })
		for _, m := range rows {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, cellText(m.help))
		}
		b.WriteString("\n")
	}
	declared := declaredMetrics(t)
	of := map[string]bool{}
	for _, rows := range declared {
		for _, m := range rows {
			of[m.name] = true
		}
	}
	b.WriteString("## Of every probe, and of authvigil itself\n\n")
	exported := slices.DeleteFunc(exportedMetrics(t), func(m metricRow) bool { return of[m.name] && m.name != "refused_total" })
	table(exported)
	b.WriteString("## Of identities\n\nWherever a probe asks as an identity.\n\n")
	table(declared["identity"])
	for _, kind := range probes.Kinds() {
		if rows := slices.DeleteFunc(declared[kind], func(m metricRow) bool { return m.name == "refused_total" }); len(rows) > 0 {
			fmt.Fprintf(&b, "## Of probes of kind %s\n\n", kind)
			table(rows)
		}
	}
	current(t, "docs/metrics.md", strings.TrimRight(b.String(), "\n")+"\n")
}

// between replaces what stands between two marks of a page.
func between(t *testing.T, page, name, text string) string {
	t.Helper()
	begin, end := "<!-- "+name+": made by make docs -->\n", "<!-- end of "+name+" -->"
	before, rest, ok := strings.Cut(page, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("the page has no part %q", name)
	}
	return before + begin + text + end + after
}

// TestDocs_readme: the table of causes in the README is that of the code, and every kind is named.
func TestDocs_readme(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("| cause | what it means | what to do |\n|---|---|---|\n")
	for _, c := range diagnose.Causes() {
		about, _ := diagnose.Describe(c)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", c, cellText(about.Title), cellText(about.Remedy))
	}
	current(t, "README.md", between(t, string(page), "causes", b.String()))
	for what, names := range map[string][]string{"kind of probe": probes.Kinds(), "kind of identity": identity.Kinds()} {
		for _, name := range names {
			if !bytes.Contains(page, []byte("`"+name+"`")) {
				t.Errorf("README.md does not name the %s %s", what, name)
			}
		}
	}
}

// TestDocs_links: what the README and the pages refer to is there.
func TestDocs_links(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s refers to %s, which is not there", page, m[1])
			}
		}
	}
}
