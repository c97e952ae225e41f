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
	"syscall"
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

func startAlertmanager(t *testing.T, hook string, web, cluster, peer int) *process {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "am.yml"), fmt.Sprintf("route: {receiver: hook, group_by: [alertname, culprit], group_wait: 1s, group_interval: 2s, repeat_interval: 4h}\nreceivers:\n- name: hook\n  webhook_configs: [{url: %q, send_resolved: true}]\n", hook))
	args := []string{"--config.file=am.yml", "--storage.path=" + dir, fmt.Sprintf("--web.listen-address=127.0.0.1:%d", web), fmt.Sprintf("--cluster.listen-address=127.0.0.1:%d", cluster), "--cluster.settle-timeout=1s", "--cluster.peer-timeout=3s"}
	if peer != 0 {
		args = append(args, fmt.Sprintf("--cluster.peer=127.0.0.1:%d", peer))
	}
	p := start(t, "", nil, dir, need(t, "prometheus-alertmanager"), args...)
	reachable(t, web)
	return p
}

// TestAlerts is the way to people: a real pair of Alertmanagers, one of them killed, the daemon killed and started again while
// the alert fires: one notification, and none that says falsely that it is over.
func TestAlerts(t *testing.T) {
	p := &pager{}
	hook := httptest.NewServer(p)
	defer hook.Close()
	web, cluster := []int{port(t), port(t)}, []int{port(t), port(t)}
	first := startAlertmanager(t, hook.URL, web[0], cluster[0], 0)
	startAlertmanager(t, hook.URL, web[1], cluster[1], cluster[0])
	dir := t.TempDir()
	config := filepath.Join(dir, "authvigil.toml")
	write(t, config, fmt.Sprintf(`
[agent]
state_directory = %q
[defaults]
every = "2s"
[probe.gone]
kind = "http"
url = "http://127.0.0.1:%d/"
[sink.pager]
kind = "alertmanager"
urls = ["http://127.0.0.1:%d", "http://127.0.0.1:%d"]
`, dir, port(t), web[0], web[1]))
	if out, err := exec.Command(binary(t), "alerts", "test", "pager", "--config.file", config).CombinedOutput(); err != nil {
		t.Fatalf("alerts test: %v\n%s", err, out)
	}
	run := func() *process {
		return start(t, "listening", nil, dir, binary(t), "run", "--config.file", config, "--web.listen-address", "127.0.0.1:0")
	}
	daemon := run()
	fires := func() (n int) {
		for _, s := range p.all() {
			if strings.HasPrefix(s, "firing AuthvigilEndpointFailing endpoint:127.0.0.1:") && strings.HasSuffix(s, "network_unreachable") {
				n++
			}
		}
		return n
	}
	eventually(t, 50*time.Second, "the alert is told", func() bool { return fires() > 0 })
	time.Sleep(32 * time.Second) // the state is on disk, and everybody had the time to say it twice
	first.Process.Signal(syscall.SIGKILL)
	daemon.Process.Signal(syscall.SIGKILL)
	daemon.Wait()
	daemon = run()
	time.Sleep(15 * time.Second)
	told := p.all()
	if n := fires(); n != 1 {
		t.Errorf("told %d times: %q", n, told)
	}
	for _, s := range told {
		if strings.HasPrefix(s, "resolved AuthvigilEndpointFailing") {
			t.Errorf("falsely resolved: %q", told)
		}
	}
	if strings.Contains(daemon.output(), "set aside") {
		t.Errorf("the state could not be used:\n%s", daemon.output())
	}
	if code := daemon.stop(t); code != 0 {
		t.Errorf("the stop ended with %d", code)
	}
}
