//go:build integration

package integration

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLogs_liveRotationAndKill: nginx, Apache and haproxy write while their logs are rotated in three ways and the daemon is killed
// and started again. Every request is counted once: what was shown before the kill and what is shown after it are all.
func TestLogs_liveRotationAndKill(t *testing.T) {
	dir := t.TempDir()
	ports := map[string]int{"nginx": port(t), "apache": port(t), "haproxy": port(t)}
	nginx := startLoggingNginx(t, dir, ports["nginx"])
	startLoggingApache(t, dir, ports["apache"])
	config := filepath.Join(dir, "authvigil.toml")
	syslog := port(t) // UDP: of a unix socket the queue is ten messages (net.unix.max_dgram_qlen), and haproxy throws away what does not fit
	write(t, config, fmt.Sprintf(`
[agent]
state_directory = "%[1]s/state"
[defaults]
every = "2s"
[probe.nginx]
kind = "accesslog"
path = "%[1]s/nginx.log"
format = "combined"
[probe.apache]
kind = "accesslog"
path = "%[1]s/apache.log"
format = "log_format"
log_format = '%%h %%l %%u %%t "%%r" %%>s %%b "%%{User-Agent}i" %%D'
[probe.haproxy]
kind = "accesslog"
listen = "udp:127.0.0.1:%[2]d"
inner = "haproxy"
`, dir, syslog))
	n := port(t)
	run := func() *process {
		return start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", config, "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", n))
	}
	daemon := run()
	counted := func(probe string) int { return logLines(t, n, probe) }
	followed := func() bool {
		_, text := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", n))
		return strings.Count(text, "authvigil_probe_last_run_timestamp_seconds{") == 3
	}
	eventually(t, 10*time.Second, "the logs are followed", followed)
	startLoggingHAProxy(t, dir, ports["haproxy"], syslog)

	asked := map[string]int{}
	ask := func(server string, times int) {
		t.Helper()
		for range times {
			asked[server]++
			r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/v2/devices/%d", ports[server], asked[server]))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
		}
	}
	all := func() {
		for server := range ports {
			ask(server, 60)
		}
	}
	all()
	rename(t, dir+"/nginx.log", dir+"/nginx.log.1") // the writer still has the old file …
	ask("nginx", 25)
	nginx.Process.Signal(syscall.SIGUSR1) // … and opens the new one when it is told
	copyTruncate(t, dir+"/apache.log", dir+"/apache.log.1")
	all()

	// Killed when everything was counted and shown, so that what is counted afterwards is what came then.
	for server := range ports {
		eventually(t, 10*time.Second, fmt.Sprintf("all %d requests to %s are counted before the kill", asked[server], server), func() bool { return counted(server) == asked[server] })
	}
	time.Sleep(300 * time.Millisecond)
	shown := map[string]int{"nginx": counted("nginx"), "apache": counted("apache"), "haproxy": counted("haproxy")}
	daemon.kill()

	ask("nginx", 40)
	ask("apache", 40)
	compress(t, dir+"/nginx.log.1")
	rename(t, dir+"/nginx.log", dir+"/nginx.log.1")
	nginx.Process.Signal(syscall.SIGUSR1)
	eventually(t, 5*time.Second, "nginx opens its log anew", func() bool { return exists(dir + "/nginx.log") })
	ask("nginx", 40)
	run()
	eventually(t, 10*time.Second, "the logs are followed again", followed) // what is sent to a socket meanwhile is lost
	ask("haproxy", 40)
	for server := range ports {
		eventually(t, 15*time.Second, fmt.Sprintf("all %d requests to %s are counted", asked[server], server), func() bool {
			return shown[server]+counted(server) >= asked[server]
		})
	}
	time.Sleep(2500 * time.Millisecond) // one run more
	for server := range ports {
		if got := shown[server] + counted(server); got != asked[server] {
			t.Errorf("%s: %d counted before the kill and %d after it, of %d requests", server, shown[server], counted(server), asked[server])
		}
	}
}

var linesCounted = regexp.MustCompile(`(?m)^authvigil_log_lines_total\{([^}]*)\} (\d+)$`)

// logLines is how many requests the daemon says it found in the log of a probe.
func logLines(t *testing.T, port int, probe string) (n int) {
	t.Helper()
	_, text := get(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	for _, m := range linesCounted.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], `probe="`+probe+`"`) && strings.Contains(m[1], `outcome="request"`) {
			n, _ = strconv.Atoi(m[2])
		}
	}
	return n
}

func startLoggingNginx(t *testing.T, dir string, port int) *process {
	t.Helper()
	config := filepath.Join(dir, "nginx.conf")
	write(t, config, fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; events {}
http {
  client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;
  access_log %[1]s/nginx.log combined;
  server { listen 127.0.0.1:%[2]d; location / { return 401; } }
}
`, dir, port))
	p := start(t, "", nil, dir, need(t, "nginx"), "-p", dir, "-c", config, "-e", "stderr")
	reachable(t, port)
	return p
}

func startLoggingApache(t *testing.T, dir string, port int) {
	t.Helper()
	var load strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "alias"} {
		fmt.Fprintf(&load, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	config := filepath.Join(dir, "apache.conf")
	write(t, config, load.String()+fmt.Sprintf(`ServerName localhost
Listen 127.0.0.1:%[2]d
PidFile %[1]s/apache.pid
DefaultRuntimeDir %[1]s
Mutex file:%[1]s default
ErrorLog /dev/stderr
LogFormat "%%h %%l %%u %%t \"%%r\" %%>s %%b \"%%{User-Agent}i\" %%D" own
CustomLog %[1]s/apache.log own
Redirect 401 /
`, dir, port))
	start(t, "", nil, dir, need(t, "apache2"), "-X", "-f", config)
	reachable(t, port)
}

func startLoggingHAProxy(t *testing.T, dir string, port, syslog int) {
	t.Helper()
	config := filepath.Join(dir, "haproxy.cfg")
	write(t, config, fmt.Sprintf(`global
 maxconn 64
 log 127.0.0.1:%[1]d format rfc5424 local0
defaults
 mode http
 log global
 option httplog
 timeout client 5s
 timeout server 5s
 timeout connect 5s
frontend web
 bind 127.0.0.1:%[2]d
 http-request deny deny_status 401
`, syslog, port))
	start(t, "", nil, dir, need(t, "haproxy"), "-db", "-f", config)
	reachableQuietly(t, port)
}

// reachableQuietly waits with requests that the log does not hold: a connection alone would be a line.
func reachableQuietly(t *testing.T, port int) {
	t.Helper()
	at := fmt.Sprintf(":%04X", port)
	eventually(t, 5*time.Second, "haproxy listens", func() bool {
		table, err := os.ReadFile("/proc/net/tcp")
		return err == nil && strings.Contains(string(table), at+" 00000000:0000 0A")
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// copyTruncate rotates as logrotate's copytruncate does.
func copyTruncate(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	write(t, to, string(b))
	if err := os.Truncate(from, 0); err != nil {
		t.Fatal(err)
	}
}

// compress replaces a file by its gzip.
func compress(t *testing.T, path string) {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(path + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	z := gzip.NewWriter(out)
	if _, err := io.Copy(z, in); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
