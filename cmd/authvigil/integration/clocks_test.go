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

// chronyd starts one with a configuration of its own, never touching the clock of this machine.
func chronyd(t *testing.T, settings string) *process {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "chrony.conf")
	write(t, config, settings+fmt.Sprintf("\npidfile %s/pid\nuser root\n", dir))
	return start(t, "chronyd version", nil, dir, need(t, "chronyd"), "-x", "-d", "-f", config)
}

// TestClocks_timeServers asks chronyd in every state that it has (B3, B8, B9, B10, B16, B23).
func TestClocks_timeServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "keys"), "10 SHA256 HEX:0123456789abcdef0123456789abcdef\n11 AES128 HEX:00112233445566778899aabbccddeeff\n")
	signed, unsynced, followed, own, lost := port(t), port(t), port(t), port(t), port(t)
	chronyd(t, fmt.Sprintf("port %d\nbindaddress 127.0.0.1\nallow 127.0.0.0/8\nlocal stratum 3\nkeyfile %s/keys\ncmdport 0\nbindcmdaddress /", signed, dir))
	chronyd(t, fmt.Sprintf("port %d\nbindaddress 127.0.0.1\nallow 127.0.0.0/8\ncmdport 0\nbindcmdaddress /", unsynced))
	chronyd(t, fmt.Sprintf("port %d\nbindaddress 127.0.0.1\nallow 127.0.0.0/8\nlocal stratum 3\ncmdport 0\nbindcmdaddress /", followed))
	sockets := filepath.Join(dir, "run")
	if err := os.MkdirAll(sockets, 0o750); err != nil {
		t.Fatal(err)
	}
	chronyd(t, fmt.Sprintf("server 127.0.0.1 port %d iburst minpoll 0 maxpoll 0\nport 0\ncmdport %d\nbindcmdaddress 127.0.0.1\nbindcmdaddress %s/chronyd.sock", followed, own, sockets))
	chronyd(t, fmt.Sprintf("server 127.0.0.1 port %d\nport 0\ncmdport %d\nbindcmdaddress 127.0.0.1\nbindcmdaddress /", port(t), lost))
	liar, closed := startChrony(t, 5), fmt.Sprintf("127.0.0.1:%d", port(t))
	eventually(t, 15*time.Second, "chronyd follows its server", func() bool {
		out, _ := exec.Command(need(t, "chronyc"), "-h", "127.0.0.1", "-p", fmt.Sprint(own), "tracking").Output()
		return strings.Contains(string(out), "Leap status     : Normal")
	})
	at := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", n) }
	config := "[defaults]\ntimeout = \"10s\"\n"
	probe := func(name, servers, more string) {
		config += fmt.Sprintf("[probe.%s]\nkind = \"ntp\"\nservers = [%s]\npoll = \"2s\"\n%s\n", name, servers, more)
	}
	list := func(servers ...string) string { return `"` + strings.Join(servers, `", "`) + `"` }
	keyed := func(key string) string {
		return fmt.Sprintf("keys = { %q = \"plain:%s\" }\nchrony = \"off\"", at(signed), key)
	}
	probe("signed", list(at(signed)), keyed("10 SHA256 HEX:0123456789abcdef0123456789abcdef"))
	probe("cmac", list(at(signed)), keyed("11 AES128 HEX:00112233445566778899aabbccddeeff"))
	probe("forged", list(at(signed)), keyed("10 SHA256 HEX:fedcba9876543210fedcba9876543210"))
	probe("unsynchronised", list(at(unsynced)), "chrony = \"off\"")
	probe("port", list(at(followed)), fmt.Sprintf("chrony = %q", at(own)))
	probe("socket", list(closed), fmt.Sprintf("chrony = \"%s/chronyd.sock\"", sockets))
	probe("lost", list(at(followed)), fmt.Sprintf("chrony = %q", at(lost)))
	probe("liar", list(at(signed), at(followed), liar), "chrony = \"off\"")
	got := once(t, config)
	for name, want := range map[string][]string{
		"signed":         {`"ok":true`, `"subject":"` + at(signed) + `,truechimer","value":1`},
		"cmac":           {`"ok":true`},
		"forged":         {`"cause":"ntp_unavailable"`, "gave no answer in time"},
		"unsynchronised": {`"cause":"ntp_unavailable"`, "kiss-o'-death"},
		"port":           {`"ok":true`, `"subject":"chrony,truechimer","value":1`, `"subject":"low","value":1`},
		"socket":         {`"ok":true`, `"name":"clock_skew_seconds","subject":"chrony"`, `"cause":"ntp_unavailable"`, "is the word of chrony"},
		"lost":           {`"ok":true`, `"cause":"clock_unsynchronised","culprit":"host"`},
		"liar":           {`"ok":true`, `"cause":"ntp_falseticker","culprit":"network:` + liar + `"`},
	} {
		for _, text := range want {
			if !strings.Contains(got[name].raw, text) {
				t.Errorf("%s: want %s in %s", name, text, brief(got[name].raw))
			}
		}
		if strings.Contains(got[name].raw, "0123456789abcdef") {
			t.Errorf("%s: shows a key", name)
		}
	}

	// B9: whoever may not use the socket is told so, and asks the kernel.
	write(t, filepath.Join(dir, "denied.toml"), fmt.Sprintf("[probe.denied]\nkind = \"ntp\"\nservers = [%q]\nchrony = \"%s/chronyd.sock\"\n", at(followed), sockets))
	for path := dir; path != "/" && path != "/tmp"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(dir, "authvigil")
	if out, err := exec.Command("cp", binary(t), copied).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	out, _ := exec.Command(need(t, "setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", copied, "once", "--output", "json", "--log.level", "error", "--config.file", filepath.Join(dir, "denied.toml")).CombinedOutput()
	if text := string(out); !strings.Contains(text, `chrony,unreachable`) || strings.Contains(text, `"ok": false`) || strings.Contains(text, `"ok":false`) {
		t.Errorf("denied: %s", brief(text))
	}
}

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

// TestClocks_whose runs issuer, API and time servers by clocks of their own: whose clock is wrong is told, and what only looks
// expired by ours is put down to it (B28, B29, and the whole of a machine whose clock is two hours ahead).
func TestClocks_whose(t *testing.T) {
	t.Parallel()
	modules := os.Getenv("AUTHVIGIL_IDP_MODULES")
	dir := t.TempDir()
	c := newCA(t, dir)
	day := 24 * time.Hour
	c.leaf(t, "good", "localhost", time.Now().Add(-day), time.Now().Add(60*day), true)
	c.leaf(t, "ended", "localhost", time.Now().Add(-30*day), time.Now().Add(-time.Hour), true) // an hour ago by our clock
	right := startIDP(t, c)
	shifted := func(by string) []string { return []string{"FAKETIME=" + by, "LD_PRELOAD=" + faketime(t)} }
	provider := func(by string) string {
		n := port(t)
		env := append(shifted(by), fmt.Sprintf("PORT=%d", n), "CA="+c.file, "CLIENT_PUBLIC="+filepath.Join(dir, "signer.pub"), "CERT="+filepath.Join(dir, "good.crt"), "KEY="+filepath.Join(dir, "good.key"))
		start(t, "ready", env, modules, need(t, "node"), filepath.Join(modules, "idp.mjs"))
		return fmt.Sprintf("https://localhost:%d", n)
	}
	api := func(name string, env []string) (good, ended int) {
		good, ended = port(t), port(t)
		home := filepath.Join(dir, name)
		if err := os.MkdirAll(home, 0o755); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(home, "nginx.conf")
		write(t, config, fmt.Sprintf(`env FAKETIME; daemon off; master_process off; pid %[1]s/pid; events {}
http { access_log off; client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
server { listen 127.0.0.1:%[3]d ssl; ssl_certificate %[2]s/good.crt; ssl_certificate_key %[2]s/good.key;
  location = /things { default_type application/json; return 200 '{"things":[]}'; }
  location = /early { default_type application/json; add_header WWW-Authenticate 'Bearer error="invalid_token", error_description="token is not active yet (nbf)"' always; return 401 '{}'; } }
server { listen 127.0.0.1:%[4]d ssl; ssl_certificate %[2]s/ended.crt; ssl_certificate_key %[2]s/ended.key; } }
`, home, dir, good, ended))
		start(t, "", env, home, need(t, "nginx"), "-p", home, "-c", config, "-e", "stderr")
		reachable(t, good)
		return good, ended
	}
	ahead, past := provider("+90s"), provider("-2h")
	good, ended := api("right", nil)
	late, _ := api("late", shifted("-70s"))
	past1, past2 := api("past", shifted("-2h"))
	clocks := func(by int) string {
		return fmt.Sprintf("[defaults]\ntimeout = \"8s\"\n[probe.clock]\nkind = \"ntp\"\nservers = [%q, %q, %q]\nchrony = \"off\"\n", startChrony(t, by), startChrony(t, by), startChrony(t, by))
	}
	client := func(name, issuer string) string {
		return fmt.Sprintf("[identity.%s]\nkind = \"oauth2\"\nissuer = %q\nclient_id = \"in-header\"\nclient_secret = \"plain:header-secret-1\"\nresource = [\"https://things.test\"]\nscopes = [\"things:read\"]\nca_file = %q\n", name, issuer, c.file)
	}
	asks := func(name string, n int, path, who string) string {
		return fmt.Sprintf("[probe.%s]\nkind = \"http\"\nurl = \"https://localhost:%d%s\"\nidentity = %q\nleeway = \"60s\"\nca_file = %q\n", name, n, path, who, c.file)
	}
	truth := clocks(0)
	got := once(t, truth+client("right", right.issuer)+client("ahead", ahead)+asks("well", good, "/things", "right")+asks("issuer", good, "/things", "ahead")+asks("api", late, "/early", "right"))
	blames := func(name, cause, culprit string) {
		t.Helper()
		r := got[name]
		if len(r.Findings) == 0 || r.Findings[0].Cause != cause || !strings.HasPrefix(r.Findings[0].Culprit, culprit) {
			t.Errorf("%s: want %s of %s, got %s", name, cause, culprit, brief(r.raw))
		}
	}
	if r := got["well"]; !r.OK || len(r.Findings) != 0 {
		t.Errorf("all is right, and: %s", brief(r.raw))
	}
	blames("issuer", "clock_skew", "issuer:"+ahead)
	blames("api", "clock_skew", fmt.Sprintf("endpoint:localhost:%d/early", late))
	if !strings.Contains(got["well"].raw, `"name":"clock_leeway_margin_seconds","subject":"nbf"`) {
		t.Errorf("no margin: %s", brief(got["well"].raw))
	}

	// Ours is two hours ahead of everybody's: nothing is expired, and only the clock is wrong.
	got = once(t, clocks(-7200)+client("past", past)+asks("things", past1, "/things", "past")+
		"[probe.token]\nkind = \"token\"\nidentity = \"past\"\n"+
		fmt.Sprintf("[probe.certificate]\nkind = \"certificate\"\naddress = \"localhost:%d\"\nca_file = %q\n", past2, c.file)+
		fmt.Sprintf("[probe.issuer]\nkind = \"issuer\"\nissuer = %q\nidentity = \"past\"\nca_file = %q\n", past, c.file))
	for _, name := range []string{"clock", "token", "certificate", "issuer"} {
		blames(name, "clock_skew", "host")
	}
	// And the same certificate, by a clock that is right, is expired.
	got = once(t, truth+fmt.Sprintf("[probe.certificate]\nkind = \"certificate\"\naddress = \"localhost:%d\"\nca_file = %q\n", ended, c.file))
	blames("certificate", "tls_cert_expired", "endpoint:")
}
