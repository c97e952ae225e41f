//go:build integration

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestListener is the listener with TLS and passwords as strangers see it: no old TLS, nobody without a password, a renewed
// certificate without a restart, bounds for whoever drips, floods or sends too much, and a scrape that comes through.
func TestListener(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	renew := func() { c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour), true) }
	renew()
	hash := strings.TrimSpace(strings.TrimPrefix(run(t, "htpasswd", "-nbBC", "4", "x", "let-me-scrape-1"), "x:"))
	write(t, filepath.Join(dir, "web.yml"), fmt.Sprintf("tls_server_config: {cert_file: %s/good.crt, key_file: %s/good.key}\nbasic_auth_users: {prometheus: %s}\n", dir, dir, hash))
	config := filepath.Join(dir, "authvigil.toml")
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	write(t, config, fmt.Sprintf("[probe.p]\nkind = \"http\"\nevery = \"1s\"\nurl = \"https://localhost:%s/-/healthy\"\nca_file = %q\n", address[len("127.0.0.1:"):], c.file))
	daemon := start(t, "listening", nil, dir, binary(t), "run", "--config.file", config, "--web.listen-address", address, "--web.config.file", filepath.Join(dir, "web.yml"))
	reachable(t, mustPort(address))

	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	shake := func(config *tls.Config) (*tls.Conn, error) {
		config.RootCAs, config.ServerName = pool, "localhost"
		return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, config)
	}
	if conn, err := shake(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
	serial := func() string {
		conn, err := shake(&tls.Config{MaxVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := serial()
	renew()
	if serial() == first {
		t.Error("a renewed certificate is not shown without a restart")
	}

	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"}, MaxIdleConnsPerHost: 64}}
	ask := func(path, password string, change func(*http.Request)) (int, string) {
		r, err := http.NewRequest(http.MethodGet, "https://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			r.SetBasicAuth("prometheus", password)
		}
		if change != nil {
			change(r)
		}
		answer, err := client.Do(r)
		if err != nil {
			return 0, err.Error()
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(b)
	}
	const password = "let-me-scrape-1"
	for _, c := range []struct {
		what, path, password string
		change               func(*http.Request)
		want                 int
	}{
		{"nobody", "/metrics", "", nil, 401},
		{"a wrong password", "/metrics", "let-me-scrape-2", nil, 401},
		{"nobody at the health", "/-/healthy", "", nil, 401},
		{"the scraper", "/metrics", password, nil, 200},
		{"another host name", "/", password, func(r *http.Request) { r.Host = "evil.test" }, 421},
		{"a name rebound", "/", password, func(r *http.Request) { r.Host = "evil.test"; r.Header.Set("X-Forwarded-Host", "localhost") }, 421},
		{"a header of 64 KiB", "/", password, func(r *http.Request) { r.Header.Set("X-Large", strings.Repeat("x", 64<<10)) }, 431},
		{"a query of 64 KiB", "/?q=" + strings.Repeat("x", 64<<10), password, nil, 431},
		{"a profile", "/debug/pprof/heap", password, nil, 404},
		{"a POST", "/metrics", password, func(r *http.Request) { r.Method = http.MethodPost }, 405},
		{"a reload", "/reload", password, func(r *http.Request) { r.Method = http.MethodPost }, 404},
	} {
		if got, body := ask(c.path, c.password, c.change); got != c.want {
			t.Errorf("%s: %d, want %d: %.200s", c.what, got, c.want, body)
		}
	}

	// five hundred who send half a header, and one who scrapes
	var slow []net.Conn
	for range 500 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("\x16\x03\x01"))
		slow = append(slow, conn)
	}
	began := time.Now()
	if code, body := ask("/metrics", password, nil); code != 200 || time.Since(began) > 3*time.Second {
		t.Errorf("a scrape beside 500 slow clients: %d after %s: %.100s", code, time.Since(began), body)
	}
	slow[0].SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.Copy(io.Discard, slow[0]); err != nil {
		t.Errorf("a client that never ends its header is still connected after 20 s: %v", err)
	}
	for _, conn := range slow {
		conn.Close()
	}

	// a storm of scrapes: some are told to come later, all are answered
	var group sync.WaitGroup
	codes := make(chan int, 200)
	for range 200 {
		group.Go(func() { code, _ := ask("/metrics", password, nil); codes <- code })
	}
	group.Wait()
	close(codes)
	count := map[int]int{}
	for code := range codes {
		count[code]++
	}
	if count[200] == 0 || count[200]+count[503] != 200 {
		t.Errorf("a storm of scrapes: %v", count)
	}
	if strings.Contains(daemon.output(), password) {
		t.Error("the log shows a password")
	}
	if strings.Contains(daemon.output(), "whoever reaches") {
		t.Error("it warns of a listener with TLS on loopback")
	}
	open := start(t, "whoever reaches this address", nil, dir, binary(t), "run", "--config.file", config, "--web.listen-address", "0.0.0.0:0")
	open.stop(t)
}

func mustPort(address string) (n int) {
	fmt.Sscanf(address[strings.LastIndex(address, ":")+1:], "%d", &n)
	return n
}

// TestDaemon_showsNoSecret: a server that sends back whatever it is shown, in every place of an answer; a password, a token
// and a key in all their spellings are then in no log, page, metric, record, state file, argument, and in no profile's text.
func TestDaemon_showsNoSecret(t *testing.T) {
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown := strings.Join(append(r.Header.Values("Authorization"), r.Header.Get("X-Api-Key"), r.URL.RawQuery), " ")
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="bad `+shown+`"`)
		w.Header().Set("X-Error", shown)
		w.Header().Set("Location", "/next?"+shown)
		w.Header().Set("Set-Cookie", "echo="+url.QueryEscape(shown))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(map[string]int{"/302": 302, "/403": 403}[r.URL.Path] + map[bool]int{true: 401}[r.URL.Path != "/302" && r.URL.Path != "/403"])
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, `{"error":"%s","hex":"%x","base64":"%s","body":"%s"}`, shown, shown, base64.StdEncoding.EncodeToString([]byte(shown)), b)
	}))
	defer echo.Close()
	dir := t.TempDir()
	secrets := map[string]string{"bearer": "canary-bearer-7f3a", "basic": "canary-password-9c1e", "api_key": "canary-key-44d0", "oauth2": "canary-client-b6e2"}
	text := fmt.Sprintf("[agent]\nstate_directory = \"%s/state\"\n[defaults]\nevery = \"1s\"\n", dir)
	for kind, value := range secrets {
		write(t, filepath.Join(dir, kind), value+"\n")
		settings := map[string]string{"bearer": "token = %q", "basic": "username = \"monitor\"\npassword = %q", "api_key": "query = \"api_key\"\nkey = %q", "oauth2": "client_id = \"c\"\nclient_auth = \"post\"\ntoken_url = \"" + echo.URL + "/token\"\nclient_secret = %q"}[kind]
		text += fmt.Sprintf("[identity.%s]\nkind = %q\n"+settings+"\n", kind, kind, "file:"+filepath.Join(dir, kind))
		for _, path := range []string{"401", "403", "302"} {
			text += fmt.Sprintf("[probe.%s-%s]\nkind = \"http\"\nurl = \"%s/%s\"\nidentity = %q\n", kind, path, echo.URL, path, kind)
		}
	}
	config := filepath.Join(dir, "authvigil.toml")
	write(t, config, text)
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	daemon := start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--log.level", "debug", "--config.file", config, "--web.listen-address", address)
	ran := regexp.MustCompile(`authvigil_runs_total\{probe="([^"]+)",outcome="[a-z]+"\} [1-9]`)
	eventually(t, 20*time.Second, "every probe ran, or was held because its identity was refused already", func() bool {
		_, m := get(t, "http://"+address+"/metrics")
		names := map[string]bool{}
		for _, line := range ran.FindAllStringSubmatch(m, -1) {
			names[line[1]] = true
		}
		return len(names) == 12
	})
	time.Sleep(2 * time.Second)
	var shown strings.Builder
	for _, path := range []string{"/", "/metrics", "/api/v1/probes", "/api/v1/findings", "/api/v1/alerts", "/api/v1/runways", "/probes/bearer-401", "/probes/basic-403", "/probes/api_key-302", "/probes/oauth2-401"} {
		_, body := get(t, "http://"+address+path)
		shown.WriteString(body)
	}
	unix := &http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) { return net.Dial("unix", filepath.Join(dir, "authvigil.sock")) }}}
	if r, err := unix.Get("http://daemon/debug/pprof/goroutine?debug=2"); err != nil {
		t.Error(err)
	} else {
		b, _ := io.ReadAll(r.Body)
		shown.Write(b)
	}
	for _, file := range []string{"cmdline", "environ"} {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", daemon.Process.Pid, file))
		shown.Write(b)
	}
	daemon.stop(t)
	shown.WriteString(daemon.output())
	for _, args := range [][]string{{"once"}, {"once", "--output", "json"}, {"check", "bearer-401"}, {"diagnose", "api_key-403"}, {"diagnose", "oauth2-401"}, {"config", "show"}, {"config", "check"}} {
		out, _ := exec.Command(binary(t), append(args, "--config.file", config)...).CombinedOutput()
		shown.Write(out)
	}
	filepath.Walk(filepath.Join(dir, "state"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			b, _ := os.ReadFile(path)
			shown.Write(b)
		}
		return nil
	})
	all := shown.String()
	for kind, value := range secrets {
		for _, form := range []string{value, url.QueryEscape(value), hex.EncodeToString([]byte(value)), base64.RawStdEncoding.EncodeToString([]byte(value))} {
			if i := strings.Index(all, form); i >= 0 {
				t.Errorf("the secret of %s is shown: …%s…", kind, all[max(i-120, 0):min(i+60, len(all))])
			}
		}
		if i := strings.Index(all, value[:len(value)-3]); i >= 0 {
			t.Errorf("most of the secret of %s is shown: …%s…", kind, all[max(i-120, 0):min(i+60, len(all))])
		}
	}
	if len(all) < 20_000 {
		t.Errorf("only %d bytes were looked through", len(all))
	}
}
