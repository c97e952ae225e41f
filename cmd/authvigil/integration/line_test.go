//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLine is the main job on real input: the daemon probes an OpenID provider, a resource server over TLS and time
// servers, and a Prometheus that scrapes it answers queries about it.
func TestLine(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	web := startNginx(t, c)
	clocks := []string{startChrony(t, 0), startChrony(t, 0), startChrony(t, 0)}
	write(t, filepath.Join(dir, "secret"), "header-secret-1\n")
	config := filepath.Join(dir, "authvigil.toml")
	text := fmt.Sprintf(`
[defaults]
every = "1s"
timeout = "5s"

[identity.machine]
kind = "oauth2"
issuer = %q
client_id = "in-header"
client_secret = "file:%s/secret"
resource = ["https://things.test"]
scopes = ["things:read"]
ca_file = %q

[probe.things]
kind = "http"
url = "https://localhost:%d/things"
identity = "machine"
ca_file = %q

[probe.token]
kind = "token"
identity = "machine"
min_remaining = "1m"
required_scopes = ["things:read"]

[probe.certificate]
kind = "certificate"
address = "localhost:%d"
ca_file = %q

[probe.clock]
kind = "ntp"
servers = [%q, %q, %q]
`, provider.issuer, dir, c.file, web.port["good"], c.file, web.port["good"], c.file, clocks[0], clocks[1], clocks[2])
	write(t, config, text)
	n := port(t)
	address := fmt.Sprintf("127.0.0.1:%d", n)
	daemon := start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", config, "--web.listen-address", address)
	base := "http://" + address
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the daemon:\n%s", daemon.output())
		}
	})

	eventually(t, 5*time.Second, "/-/ready says so", func() bool {
		code, _ := get(t, base+"/-/ready")
		return code == 200
	})
	prometheus := startPrometheus(t, address)
	eventually(t, 30*time.Second, "all four probes are a success in Prometheus", func() bool {
		got := prometheus.query(t, `sum(authvigil_probe_success)`)
		return len(got) == 1 && got[0].value == "4"
	})
	for query, want := range map[string]int{
		`authvigil_probe_success`: 4,
		`authvigil_token_expiry_timestamp_seconds{identity="machine"} > time()`:   1,
		`authvigil_certificate_not_after_timestamp_seconds{role="leaf"} > time()`: 1,
		`abs(authvigil_clock_skew_seconds) < 0.1`:                                 1,
		`authvigil_token_refreshes_total{outcome="ok"} == 1`:                      1, // one token for all probes
		`count(authvigil_findings_total)`:                                         1,
		`authvigil_gate_state{state="closed"} == 1`:                               5,
		`sum by (stage) (authvigil_probe_duration_seconds{probe="things"}) >= 0`:  6,
	} {
		if got := prometheus.query(t, query); len(got) != want {
			t.Errorf("%s: got %v, want %d series", query, got, want)
		}
	}
	_, metrics := get(t, base+"/metrics")
	lint := exec.Command(need(t, "promtool"), "check", "metrics")
	lint.Stdin = strings.NewReader(metrics)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}

	// A fault comes and goes: the page, the records and the metrics name it.
	provider.knob(t, "seconds=1&status=503")
	eventually(t, 30*time.Second, "no fault while the token in use holds", func() bool {
		return len(prometheus.query(t, `authvigil_probe_success{probe="things"} == 1`)) == 1
	})

	// A bad reload keeps what runs, a good one changes it.
	write(t, config, strings.Replace(text, `kind = "ntp"`, `kind = "npt"`, 1))
	daemon.Process.Signal(syscall.SIGHUP)
	eventually(t, 10*time.Second, "the bad reload is said", func() bool {
		_, m := get(t, base+"/metrics")
		return strings.Contains(m, "authvigil_config_last_reload_successful 0") && strings.Contains(daemon.output(), `unknown kind`)
	})
	if _, page := get(t, base+"/"); !strings.Contains(page, "has errors") {
		t.Error("the page does not say that the configuration has errors")
	}
	reload := func(args ...string) (string, error) {
		out, err := exec.Command(binary(t), append([]string{"reload", "--socket", filepath.Join(dir, "authvigil.sock")}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := reload(); err == nil || !strings.Contains(out, "unknown kind") {
		t.Errorf("reload of a bad configuration: %v\n%s", err, out)
	}
	write(t, config, strings.Replace(text, "[probe.clock]", "[probe.time]", 1))
	if out, err := reload("--dry-run"); err != nil || !strings.Contains(out, "would change: 1 added, 0 changed, 1 removed, 3 as before") {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if out, err := reload(); err != nil || !strings.Contains(out, "added: time") || !strings.Contains(out, "removed: clock") {
		t.Errorf("reload: %v\n%s", err, out)
	}
	eventually(t, 10*time.Second, "the good reload is taken over", func() bool {
		_, m := get(t, base+"/metrics")
		return strings.Contains(m, `probe="time"`) && !strings.Contains(m, `probe="clock"`)
	})

	code, body := get(t, base+"/api/v1/probes/things")
	var r record
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != 200 || !r.OK {
		t.Errorf("/api/v1/probes/things: %d %v %s", code, err, body)
	}
	for _, path := range []string{"/", "/probes/things", "/metrics", "/api/v1/probes", "/runbooks/token_expired"} {
		code, body := get(t, base+path)
		if code != 200 {
			t.Errorf("%s answered %d", path, code)
		}
		if strings.Contains(body, "header-secret-1") {
			t.Errorf("%s shows the secret", path)
		}
	}
	if strings.Contains(daemon.output(), "header-secret-1") {
		t.Error("the log shows the secret")
	}
	if code := daemon.stop(t); code != 0 {
		t.Errorf("a clean stop ended with %d:\n%s", code, daemon.output())
	}
}

// TestRun_badConfiguration: nothing is started, and the unit is told not to try again.
func TestRun_badConfiguration(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	write(t, path, "[probe.a]\nkind = \"http\"\nurl = \"htp://x\"\n[probe.b]\nkind = \"htp\"\n")
	cmd := exec.Command(binary(t), "run", "--config.file", path)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 78 || !strings.Contains(string(out), "probe.a: url:") || !strings.Contains(string(out), "probe.b: unknown kind") {
		t.Errorf("exit %d, output:\n%s", code, out)
	}
}

type prometheus struct{ base string }

type sample struct {
	labels map[string]string
	value  string
}

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir := t.TempDir()
	n := port(t)
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: authvigil\n  static_configs: [{targets: [%q]}]\n", target))
	start(t, "ready to receive", nil, dir, need(t, "prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path="+filepath.Join(dir, "data"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", n))
	return &prometheus{fmt.Sprintf("http://127.0.0.1:%d", n)}
}

func (p *prometheus) query(t *testing.T, q string) (list []sample) {
	t.Helper()
	_, body := get(t, p.base+"/api/v1/query?query="+url.QueryEscape(q))
	var answer struct {
		Status string
		Data   struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
		Error string
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %v %s", q, err, body)
	}
	for _, r := range answer.Data.Result {
		list = append(list, sample{r.Metric, fmt.Sprint(r.Value[1])})
	}
	return list
}
