//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pager receives what Alertmanagers notify.
type pager struct {
	mu   sync.Mutex
	told []string // status alertname culprit
}

func (p *pager) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	var m struct {
		Alerts []struct {
			Status      string
			Labels      map[string]string
			Annotations map[string]string
		}
	}
	json.Unmarshal(b, &m)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range m.Alerts {
		p.told = append(p.told, a.Status+" "+a.Labels["alertname"]+" "+a.Labels["culprit"]+" "+a.Annotations["cause"])
	}
}

func (p *pager) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.told...)
}

// count counts what was told of an alert.
func (p *pager) count(status, name string) (n int) {
	for _, s := range p.all() {
		if strings.HasPrefix(s, status+" "+name+" ") {
			n++
		}
	}
	return n
}

// An alertmanager is one instance of a cluster, which can be killed and brought back.
type alertmanager struct {
	*process
	t            *testing.T
	dir          string
	web, cluster int
	peers        []int
}

func newAlertmanager(t *testing.T, hook string) *alertmanager {
	t.Helper()
	am := &alertmanager{t: t, dir: t.TempDir(), web: port(t), cluster: port(t)}
	write(t, filepath.Join(am.dir, "am.yml"), fmt.Sprintf("route: {receiver: hook, group_by: [alertname, culprit], group_wait: 1s, group_interval: 2s, repeat_interval: 4h}\nreceivers:\n- name: hook\n  webhook_configs: [{url: %q, send_resolved: true}]\n", hook))
	return am
}

func (am *alertmanager) start(more ...string) {
	am.t.Helper()
	args := []string{"--config.file=am.yml", "--storage.path=" + am.dir, fmt.Sprintf("--web.listen-address=127.0.0.1:%d", am.web), fmt.Sprintf("--cluster.listen-address=127.0.0.1:%d", am.cluster), "--cluster.settle-timeout=1s", "--cluster.peer-timeout=2s", "--cluster.reconnect-interval=1s"}
	for _, peer := range am.peers {
		args = append(args, fmt.Sprintf("--cluster.peer=127.0.0.1:%d", peer))
	}
	am.process = start(am.t, "", nil, am.dir, need(am.t, "prometheus-alertmanager"), append(args, more...)...)
	reachable(am.t, am.web)
}

// together waits until a cluster has found its members.
func (am *alertmanager) together(n int) {
	am.t.Helper()
	eventually(am.t, 15*time.Second, "the Alertmanagers find each other", func() bool {
		_, body := get(am.t, fmt.Sprintf("http://127.0.0.1:%d/api/v2/status", am.web))
		var s struct {
			Cluster struct {
				Status string
				Peers  []struct{}
			}
		}
		return json.Unmarshal([]byte(body), &s) == nil && s.Cluster.Status == "ready" && len(s.Cluster.Peers) == n
	})
}

// TestAlerts is the way to people: a real pair of Alertmanagers, and a webhook beside them. While
// the alert fires one Alertmanager is killed and brought back, and the daemon is killed and started again. Everybody is told
// once that it fires and once that it is over, and nobody is told either falsely.
func TestAlerts(t *testing.T) {
	p, direct := &pager{}, &pager{}
	hook, own := httptest.NewServer(p), httptest.NewServer(direct)
	defer hook.Close()
	defer own.Close()
	one, two := newAlertmanager(t, hook.URL), newAlertmanager(t, hook.URL)
	one.peers, two.peers = []int{two.cluster}, []int{one.cluster}
	one.start()
	two.start()
	one.together(2)
	dir := t.TempDir()
	config := filepath.Join(dir, "authvigil.toml")
	c := newCA(t, t.TempDir())
	watched := filepath.Join(c.dir, "served.crt") // not there yet; a file, because the gate of a server would rest for minutes
	write(t, config, fmt.Sprintf(`
[agent]
state_directory = %q
[defaults]
every = "1s"
[alerts]
hold = "2s"
min_firing = "10s"
resend = "2s"
[probe.gone]
kind = "certificate"
files = [%q]
ca_file = %q
labels = { team = "devices" }
[probe.planned]
kind = "http"
url = "http://127.0.0.1:%d/"
[maintenance.now]
from = 2026-01-01T00:00:00Z
until = 2126-01-01T00:00:00Z
probes = ["planned"]
[sink.pager]
kind = "alertmanager"
urls = ["http://127.0.0.1:%d", "http://127.0.0.1:%d"]
[sink.direct]
kind = "webhook"
url = %q
`, dir, watched, c.file, port(t), one.web, two.web, own.URL))
	run := func() *process {
		return start(t, "listening", nil, dir, binary(t), "run", "--config.file", config, "--web.listen-address", "127.0.0.1:0")
	}
	const name = "AuthvigilEndpointFailing"
	daemon := run()
	eventually(t, 20*time.Second, "the alert is told", func() bool { return p.count("firing", name) > 0 && direct.count("firing", name) > 0 })
	time.Sleep(5 * time.Second) // everybody had the time to say it twice, and the state is on disk

	first := one // the one that told it, or not: both are equal
	first.kill()
	time.Sleep(3 * time.Second)
	daemon.kill()
	daemon = run()
	time.Sleep(3 * time.Second)
	first.start()
	first.together(2)
	time.Sleep(8 * time.Second)
	for _, of := range []*pager{p, direct} {
		if of.count("firing", name) != 1 || of.count("resolved", name) != 0 {
			t.Errorf("after the restarts, told: %q", of.all())
		}
	}
	if strings.Contains(daemon.output(), "set aside") {
		t.Errorf("the state could not be used:\n%s", daemon.output())
	}
	if !strings.Contains(daemon.output(), "sink does not deliver") || !strings.Contains(daemon.output(), "sink delivers again") {
		t.Errorf("the log does not tell of the Alertmanager that was away:\n%s", daemon.output())
	}

	c.leaf(t, "served", "localhost", time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour), true)
	eventually(t, 30*time.Second, "the end is told", func() bool { return p.count("resolved", name) > 0 && direct.count("resolved", name) > 0 })
	time.Sleep(6 * time.Second)
	for _, of := range []*pager{p, direct} {
		if of.count("firing", name) != 1 || of.count("resolved", name) != 1 || len(of.all()) != 2 {
			t.Errorf("in all, told: %q", of.all())
		}
	}
	if !strings.HasSuffix(p.all()[0], "tls_file_unreadable") {
		t.Errorf("told: %q", p.all())
	}
	if code := daemon.stop(t); code != 0 {
		t.Errorf("the stop ended with %d", code)
	}
}

// TestAlertsTest_reachesPeople: `alerts test` is told although the Alertmanager waits for its group, over TLS and with a
// password; and says what is wrong when it is.
func TestAlertsTest_reachesPeople(t *testing.T) {
	p := &pager{}
	hook := httptest.NewServer(p)
	defer hook.Close()
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "am", "localhost", time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true)
	hash, err := exec.Command(need(t, "htpasswd"), "-nbBC", "4", "monitor", "let-me-tell").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, hashed, _ := strings.Cut(strings.TrimSpace(string(hash)), ":")
	web := filepath.Join(dir, "web.yml")
	write(t, web, fmt.Sprintf("tls_server_config: {cert_file: %s/am.crt, key_file: %s/am.key}\nbasic_auth_users: {monitor: %q}\n", dir, dir, hashed))
	am := newAlertmanager(t, hook.URL)
	am.start("--web.config.file=" + web)
	test := func(password string) (string, int) {
		config := filepath.Join(t.TempDir(), "authvigil.toml")
		write(t, config, fmt.Sprintf("[probe.x]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n[sink.pager]\nkind = \"alertmanager\"\nurls = [\"https://localhost:%d\"]\nca_file = %q\nusername = \"monitor\"\npassword = \"plain:%s\"\n", am.web, c.file, password))
		cmd := exec.Command(binary(t), "alerts", "test", "pager", "--for", "4s", "--config.file", config)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := test("wrong-wrong"); code != 1 || !strings.Contains(out, "answered 401") {
		t.Errorf("with a wrong password: %d %s", code, out)
	}
	if out, code := test("let-me-tell"); code != 0 || !strings.Contains(out, "goes to hook when group_wait is over") {
		t.Errorf("%d %s", code, out)
	}
	eventually(t, 20*time.Second, "the test alert is told, and its end", func() bool {
		return p.count("firing", "AuthvigilTest") == 1 && p.count("resolved", "AuthvigilTest") == 1
	})
}
