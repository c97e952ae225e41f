//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRules checks the rules for Prometheus and its example, and runs the rules' own tests.
func TestRules(t *testing.T) {
	for _, args := range [][]string{{"check", "config", "prometheus.yml"}, {"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}, {"test", "rules", "rules_days_test.yml"}} {
		cmd := exec.Command(need(t, "promtool"), args...)
		cmd.Dir = filepath.Join(repository, "packaging/prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestAlertmanagerExample: amtool takes the example, alerts go where they should, and a real Alertmanager mutes what follows
// from another alert, and nothing else.
func TestAlertmanagerExample(t *testing.T) {
	file, err := filepath.Abs(filepath.Join(repository, "packaging/prometheus/alertmanager.yml"))
	if err != nil {
		t.Fatal(err)
	}
	amtool := need(t, "amtool")
	if out, err := exec.Command(amtool, "check-config", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for labels, receiver := range map[string]string{
		"alertname=AuthvigilWatchdog severity=none":                                       "watchdog",
		"alertname=AuthvigilTest severity=warning":                                        "tickets",
		"alertname=AuthvigilIssuerFailing severity=critical":                              "on-call",
		"alertname=AuthvigilEndpointFailing severity=critical team=devices":               "devices",
		"alertname=AuthvigilExpiring severity=warning team=devices":                       "tickets",
		"alertname=AuthFailureSpike severity=critical endpoint=/v2/devices":               "on-call",
		"alertname=AuthvigilCredentialFailing severity=critical culprit=identity:billing": "on-call",
	} {
		args := append([]string{"config", "routes", "test", "--config.file=" + file, "--verify.receivers=" + receiver}, strings.Fields(labels)...)
		if out, err := exec.Command(amtool, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: want %s\n%s", labels, receiver, out)
		}
	}
	am := newAlertmanager(t, "http://127.0.0.1:9/")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(am.dir, "am.yml"), string(b))
	am.start()
	type labels = map[string]string
	var post []map[string]any
	muted := map[string]bool{}
	add := func(mute bool, l labels) {
		l["id"] = fmt.Sprint(len(post))
		muted[l["id"]] = mute
		post = append(post, map[string]any{"labels": l})
	}
	add(false, labels{"alertname": "AuthvigilIssuerFailing", "severity": "critical", "issuer": "https://a", "environment": "production"})
	add(true, labels{"alertname": "AuthvigilEndpointFailing", "severity": "critical", "issuer": "https://a", "environment": "production"})
	add(true, labels{"alertname": "AuthvigilCredentialFailing", "severity": "critical", "issuer": "https://a", "environment": "production"})
	add(false, labels{"alertname": "AuthvigilEndpointFailing", "severity": "critical", "issuer": "https://b", "environment": "production"})
	add(false, labels{"alertname": "AuthvigilEndpointFailing", "severity": "critical", "issuer": "https://a", "environment": "staging"})
	add(false, labels{"alertname": "AuthvigilExpiring", "severity": "warning", "issuer": "https://a", "environment": "production"})
	add(false, labels{"alertname": "AuthFailureSpike", "severity": "critical", "endpoint": "/v2", "log": "traffic"})
	add(true, labels{"alertname": "ClientAuthFailing", "severity": "warning", "endpoint": "/v2", "log": "traffic", "client": "c17"})
	add(false, labels{"alertname": "ClientAuthFailing", "severity": "warning", "endpoint": "/v3", "log": "traffic", "client": "c18"})
	add(false, labels{"alertname": "AuthvigilProbeFailing", "severity": "critical", "probe": "p"})
	add(true, labels{"alertname": "AuthvigilBudgetBurnsFast", "severity": "critical", "probe": "p"})
	add(false, labels{"alertname": "AuthvigilBudgetBurnsFast", "severity": "critical", "probe": "q"})
	body, err := json.Marshal(post)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("http://127.0.0.1:%d/api/v2/alerts", am.web)
	r, err := http.Post(address, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	var list []struct {
		Labels labels
		Status struct{ InhibitedBy []string }
	}
	eventually(t, 10*time.Second, "the Alertmanager has looked at its alerts", func() bool {
		_, text := get(t, address)
		inhibited := 0
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			inhibited += len(a.Status.InhibitedBy)
		}
		return len(list) == len(post) && inhibited >= 4
	})
	for _, a := range list {
		if is := len(a.Status.InhibitedBy) > 0; is != muted[a.Labels["id"]] {
			t.Errorf("muted %v: %v", is, a.Labels)
		}
	}
}

// TestGrafana checks the dashboards against Grafana's own types, and asks every question of theirs, and of the rules, of a
// real Prometheus that scrapes the demo and a daemon: each must have an answer. How they look is not checked, because no
// Grafana can be had here.
func TestGrafana(t *testing.T) {
	boards, err := filepath.Glob(filepath.Join(repository, "packaging/grafana/*.json"))
	if err != nil || len(boards) == 0 {
		t.Fatal(err)
	}
	for i, path := range boards {
		if boards[i], err = filepath.Abs(path); err != nil {
			t.Fatal(err)
		}
	}
	checkTypes(t, boards)
	prometheus := scraped(t)
	var questions [][2]string
	for _, path := range boards {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			Templating struct {
				List []struct {
					Name  string
					Query any
				}
			}
			Panels []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		for _, p := range d.Panels {
			for _, q := range p.Targets {
				questions = append(questions, [2]string{filepath.Base(path) + ": " + p.Title, q.Expr})
			}
		}
		for _, v := range d.Templating.List {
			if q, ok := v.Query.(map[string]any); ok {
				inside := strings.TrimSuffix(strings.TrimPrefix(q["query"].(string), "label_values("), ")")
				comma := strings.LastIndex(inside, ", ")
				questions = append(questions, [2]string{filepath.Base(path) + ": variable " + v.Name, "count by (" + inside[comma+2:] + ") (" + inside[:comma] + ")"})
			}
		}
	}
	chosen := strings.NewReplacer("$__rate_interval", "10s", "$__range", "30s", `probe="$probe"`, `probe=~".+"`, "$job", ".*", "$instance", ".*")
	ask := func(expr string) (n int, said string) {
		now := time.Now()
		query := url.Values{"query": {chosen.Replace(expr)}, "start": {fmt.Sprint(now.Add(-2 * time.Minute).Unix())}, "end": {fmt.Sprint(now.Unix())}, "step": {"1"}}
		_, body := get(t, prometheus+"/api/v1/query_range?"+query.Encode())
		var a struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := json.Unmarshal([]byte(body), &a); err != nil {
			t.Fatal(err)
		}
		return len(a.Data.Result), a.Status + " " + a.Error
	}
	if len(questions) < 40 {
		t.Errorf("only %d questions were found", len(questions))
	}
	var silent [][2]string
	eventually(t, 60*time.Second, "every question has an answer", func() bool {
		silent = nil
		for _, q := range questions {
			if n, _ := ask(q[1]); n == 0 {
				silent = append(silent, q)
			}
		}
		return len(silent) == 0
	})
	for _, q := range silent {
		_, said := ask(q[1])
		t.Errorf("%s has no answer to %s: %s", q[0], chosen.Replace(q[1]), said)
	}
	for _, record := range []string{`ALERTS{alertname="AuthvigilWatchdog"}`, "authvigil:probe_success:ratio_rate5m", "authvigil:token_remaining:seconds", "authvigil:credential_remaining:seconds", "authvigil:certificate_remaining:ratio", "authvigil:slo:objective", "authvigil:probe_faults:ratio_rate1h", "authvigil:probe_runs:increase1h"} {
		eventually(t, 20*time.Second, "a record has values: "+record, func() bool { n, _ := ask(record); return n > 0 })
	}
}

// checkTypes runs testdata/dashboards.mjs; integration-deps.sh installed what it needs beside oidc-provider.
func checkTypes(t *testing.T, boards []string) {
	t.Helper()
	modules := os.Getenv("AUTHVIGIL_IDP_MODULES")
	if modules == "" {
		t.Fatal("AUTHVIGIL_IDP_MODULES names no directory with @grafana/schema; run make integration")
	}
	script, err := os.ReadFile("testdata/dashboards.mjs")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(modules, "dashboards.mjs"), string(script))
	wrong := filepath.Join(t.TempDir(), "wrong.json")
	write(t, wrong, `{"uid": "x", "title": "x", "schemaVersion": 39, "panells": []}`)
	for _, c := range []struct {
		files []string
		good  bool
	}{{boards, true}, {[]string{wrong}, false}} {
		cmd := exec.Command(need(t, "node"), append([]string{"dashboards.mjs"}, c.files...)...)
		cmd.Dir = modules
		if out, err := cmd.CombinedOutput(); (err == nil) != c.good {
			t.Errorf("%v: %v\n%s", c.files, err, out)
		}
	}
}

// scraped starts the demo, a daemon with what the demo has not, and a Prometheus with the rules that scrapes both.
func scraped(t *testing.T) (address string) {
	t.Helper()
	dir := t.TempDir()
	demo, daemon, web := port(t), port(t), port(t)
	write(t, filepath.Join(dir, "secret"), "a-secret-from-a-file")
	write(t, filepath.Join(dir, "access.log"), "")
	write(t, filepath.Join(dir, "authvigil.toml"), fmt.Sprintf(`
[defaults]
every = "1s"
[alerts]
hold = "1s"
[identity.file]
kind = "bearer"
token = "file:%[1]s/secret"
[probe.refused]
kind = "http"
url = "http://127.0.0.1:%[2]d/-/healthy"
identity = "file"
[probe.gone]
kind = "http"
url = "http://127.0.0.1:1/"
[probe.log]
kind = "accesslog"
path = "%[1]s/access.log"
format = "combined"
[sink.journal]
kind = "journal"
socket = "%[1]s/none"
[maintenance.now]
from = 2026-01-01T00:00:00Z
until = 2126-01-01T00:00:00Z
probes = ["log"]
`, dir, demo))
	start(t, "", nil, dir, binary(t), "demo", "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", demo))
	start(t, "listening", nil, dir, binary(t), "run", "--config.file", filepath.Join(dir, "authvigil.toml"), "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", daemon))
	rules, err := filepath.Abs(filepath.Join(repository, "packaging/prometheus/rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n- job_name: authvigil\n  static_configs: [{targets: ['127.0.0.1:%d', '127.0.0.1:%d']}]\n", rules, demo, daemon))
	start(t, "", nil, dir, need(t, "prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path="+dir+"/data", fmt.Sprintf("--web.listen-address=127.0.0.1:%d", web), "--log.level=warn")
	reachable(t, web)
	address = fmt.Sprintf("http://127.0.0.1:%d", web)
	eventually(t, 30*time.Second, "Prometheus is ready", func() bool { status, _ := get(t, address+"/-/ready"); return status == http.StatusOK })
	return address
}
