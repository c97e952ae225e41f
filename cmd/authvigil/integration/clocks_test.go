//go:build integration

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClocks_kiss: an ntpd that sends kiss-o'-death (B11), in a network of its own, is left alone, over a restart too.
func TestClocks_kiss(t *testing.T) {
	t.Parallel()
	root := filepath.Join(filepath.Dir(os.Getenv("AUTHVIGIL_IDP_MODULES")), "ntpsec")
	ntpd := filepath.Join(root, "usr/sbin/ntpd")
	if _, err := os.Stat(ntpd); err != nil {
		t.Fatalf("%v; make integration unpacks ntpsec there", err)
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(need(t, "ip"), args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", strings.Join(args, " "), err, out)
		}
	}
	server, client := fmt.Sprintf("avs%d", os.Getpid()), fmt.Sprintf("avc%d", os.Getpid())
	for _, name := range []string{server, client} {
		run("netns", "add", name)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	}
	run("link", "add", "far", "netns", server, "type", "veth", "peer", "name", "near", "netns", client)
	run("-n", server, "addr", "add", "10.99.0.1/30", "dev", "far")
	run("-n", client, "addr", "add", "10.99.0.2/30", "dev", "near")
	for _, link := range [][2]string{{server, "lo"}, {server, "far"}, {client, "lo"}, {client, "near"}} {
		run("-n", link[0], "link", "set", link[1], "up")
	}
	write(t, filepath.Join(dir, "ntp.conf"), "refclock local stratum 3\nrestrict default limited kod nomodify\nlimit average 0.2 burst 2 kod 1\n")
	start(t, "", nil, dir, "ip", "netns", "exec", server, "setpriv", "--bounding-set", "-sys_time,-sys_nice", "--inh-caps", "-sys_time", ntpd, "-n", "-c", filepath.Join(dir, "ntp.conf"))
	config := filepath.Join(dir, "authvigil.toml")
	write(t, config, fmt.Sprintf("[agent]\nstate_directory = \"%s/state\"\n[defaults]\nevery = \"1s\"\n[probe.clock]\nkind = \"ntp\"\nservers = [\"10.99.0.1\"]\npoll = \"2s\"\nchrony = \"off\"\n", dir))
	watch := func() *process {
		return start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, "ip", "netns", "exec", client, binary(t), "run", "--config.file", config, "--web.listen-address", "127.0.0.1:10401")
	}
	metrics := func() string {
		out, _ := exec.Command("ip", "netns", "exec", client, need(t, "curl"), "-s", "http://127.0.0.1:10401/metrics").Output()
		return string(out)
	}
	daemon := watch()
	eventually(t, 30*time.Second, "the kiss is obeyed", func() bool {
		m := metrics()
		return strings.Contains(m, `authvigil_clock_kiss_total{source="10.99.0.1",code="RATE"} 1`) && strings.Contains(m, `authvigil_clock_source_state{source="10.99.0.1",state="kissed"} 1`)
	})
	packets := func() string {
		out, _ := exec.Command("ip", "netns", "exec", client, "cat", "/sys/class/net/near/statistics/tx_packets").Output()
		return strings.TrimSpace(string(out))
	}
	daemon.kill()
	daemon = watch()
	eventually(t, 5*time.Second, "the kiss is remembered", func() bool {
		return strings.Contains(metrics(), `authvigil_clock_source_state{source="10.99.0.1",state="kissed"} 1`)
	})
	if m := metrics(); !strings.Contains(m, `authvigil_clock_kiss_total{source="10.99.0.1",code="RATE"} 0`) {
		t.Errorf("after the restart the server was asked again (%s packets sent)", packets())
	}
	daemon.stop(t)
}
