//go:build integration

package integration

import (
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A newcomer has a fresh checkout, an API, an issuer, time servers, and nothing else.
type newcomer struct {
	checkout, etc, bin string
	api, issuer        string // origins
	clocks             []string
	env                []string
	names              *strings.Replacer // what the README names, as it is here
}

func startNewcomer(t *testing.T) *newcomer {
	modules := os.Getenv("AUTHVIGIL_IDP_MODULES")
	if modules == "" {
		t.Fatal("AUTHVIGIL_IDP_MODULES names no directory with oidc-provider; run make integration")
	}
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	script, err := os.ReadFile("testdata/styles.mjs")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(modules, "styles.mjs")
	write(t, path, string(script))
	n := port(t)
	start(t, "ready", []string{fmt.Sprintf("PORT=%d", n), "CERT=" + filepath.Join(dir, "good.crt"), "KEY=" + filepath.Join(dir, "good.key")}, modules, need(t, "node"), path)
	web := startNginx(t, c)
	p := &newcomer{checkout: filepath.Join(dir, "checkout"), etc: filepath.Join(dir, "etc"), bin: filepath.Join(dir, "bin"),
		api: fmt.Sprintf("https://localhost:%d", web.port["good"]), issuer: fmt.Sprintf("https://localhost:%d", n)}
	for range 3 {
		p.clocks = append(p.clocks, startChrony(t, 0))
	}
	if out, err := exec.Command("git", "clone", "-q", "../../..", p.checkout).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	for _, dir := range []string{p.etc, p.bin} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	host := strings.TrimPrefix(p.api, "https://")
	p.env = append(os.Environ(), "PATH="+p.bin+":"+os.Getenv("PATH"), "SSL_CERT_FILE="+c.file, "CURL_CA_BUNDLE="+c.file, "SECRET=secret-of-the-client-0123456789", "RUNTIME_DIRECTORY="+p.bin, "NTP="+strings.Join(p.clocks, ","))
	p.names = strings.NewReplacer("https://api.example.com/v2/devices", p.api+"/things", "api.example.com:443", host, "https://auth.example.com", p.issuer+"/realms/demo",
		"ntp1.example.com", p.clocks[0], "ntp2.example.com", p.clocks[1], "ntp3.example.com", p.clocks[2], "/etc/authvigil", p.etc, "/usr/local/bin/", p.bin+"/", "sudo ", "")
	return p
}

// does runs a line as the newcomer types it, and gives what it said and its exit code.
func (p *newcomer) does(t *testing.T, line string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute) // a first build on a busy machine
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", p.names.Replace(line))
	cmd.Dir, cmd.Env = p.checkout, p.env
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", line, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// begins starts a line that does not end by itself, until the test does.
func (p *newcomer) begins(t *testing.T, line string) *process {
	t.Helper()
	return start(t, "", p.env, p.checkout, "bash", "-c", "exec "+p.names.Replace(line))
}

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	tomlBlock  = regexp.MustCompile("(?s)```toml\n(.*?)```")
)

// TestReadme types every command of the README, in order, on a fresh checkout, against an API of nginx, an issuer of
// oidc-provider that is like Keycloak, and time servers of chrony. Names are those of here. `make test` is
// not run again within the tests.
func TestReadme(t *testing.T) {
	p := startNewcomer(t)
	page, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(p.etc, "token"), "an-opaque-token-0123456789")
	write(t, filepath.Join(p.etc, "billing.secret"), "secret-of-the-client-0123456789")
	zipped(t, filepath.Join(p.checkout, "access.log.1.gz"), `10.0.0.1 - a [05/Jan/2026:00:00:00 +0000] "GET /v2/devices HTTP/1.1" 200 12 "-" "-"`+"\n")
	seen := 0
	for _, block := range shellBlock.FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(strings.ReplaceAll(block[1], "\\\n", " ")) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
			line = strings.TrimSpace(line)
			seen++
			want := 0
			switch {
			case line == "make run":
				if out, code := p.does(t, "make build"); code != 0 { // may take longer than a server to start
					t.Fatalf("make build: exit %d\n%s", code, out)
				}
				p.makeRun(t)
				continue
			case line == "make test":
				line = "make -n test"
			case strings.HasPrefix(line, "./authvigil run"):
				n := port(t)
				daemon := p.begins(t, line+fmt.Sprintf(" --web.listen-address 127.0.0.1:%d", n))
				reachable(t, n)
				if code := daemon.stop(t); code != 0 {
					t.Errorf("%s: exit %d\n%s", line, code, daemon.output())
				}
				continue
			case line == "authvigil status":
				p.installed(t, tomlBlock.FindStringSubmatch(string(page))[1])
			case line == "authvigil diagnose devices":
				want = 1 // nginx looks at no signature, and diagnose finds that out: authorization_too_open
			case strings.HasPrefix(line, "authvigil diagnose https://"), strings.HasPrefix(line, "curl "):
				want = 1
			}
			if out, code := p.does(t, line); code != want {
				t.Errorf("%s: exit %d, want %d\n%s", line, code, want, out)
			}
		}
	}
	if seen < 25 {
		t.Errorf("%d commands were found in the README", seen)
	}
}

// makeRun starts the demo in a network of its own, because the port is that of everybody, and ends it by Ctrl-C.
func (p *newcomer) makeRun(t *testing.T) {
	t.Helper()
	demo := start(t, "The page is at http://127.0.0.1:10401/", p.env, p.checkout, need(t, "unshare"), "-n", "sh", "-c", need(t, "ip")+" link set lo up && exec make run")
	time.Sleep(2 * time.Second)
	children, err := exec.Command("pgrep", "-P", fmt.Sprint(demo.Process.Pid)).Output()
	if err != nil {
		t.Fatalf("make run has no child: %v\n%s", err, demo.output())
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGINT)
	select {
	case <-demo.done:
	case <-time.After(20 * time.Second):
		t.Error("Ctrl-C does not end the demo")
	}
}

// installed puts a configuration where commands expect it, starts the daemon on it and waits until every probe has run.
func (p *newcomer) installed(t *testing.T, config string) {
	t.Helper()
	file := filepath.Join(p.etc, "authvigil.toml")
	write(t, file, p.names.Replace(config))
	if err := os.Rename(filepath.Join(p.bin, "authvigil"), filepath.Join(p.bin, "authvigil.real")); err != nil {
		t.Fatalf("the README did not install the program: %v", err)
	}
	write(t, filepath.Join(p.bin, "authvigil"), fmt.Sprintf("#!/bin/sh\nexec %s/authvigil.real --config.file %s \"$@\"\n", p.bin, file))
	if err := os.Chmod(filepath.Join(p.bin, "authvigil"), 0o755); err != nil {
		t.Fatal(err)
	}
	n := port(t)
	daemon := p.begins(t, fmt.Sprintf("authvigil run --web.listen-address 127.0.0.1:%d", n))
	reachable(t, n)
	eventually(t, 60*time.Second, "every probe is ok", func() bool {
		out, code := p.does(t, "authvigil status")
		return code == 0 && strings.Contains(out, "4 of 4 probes are as expected")
	})
	if t.Failed() {
		t.Log(daemon.output())
	}
}

// TestFirstSteps follows the table of the README for the four kinds of APIs that newcomers have: init, the secret where the
// configuration says, config check, once, and every probe is ok.
func TestFirstSteps(t *testing.T) {
	p := startNewcomer(t)
	if out, code := p.does(t, "make build"); code != 0 {
		t.Fatalf("make build: exit %d\n%s", code, out)
	}
	for _, style := range []struct{ name, init, secret, value string }{
		{"auth0", "https://api.example.com/v2/devices --issuer " + p.issuer + "/ --client-id machine --audience https://api.test", "api.secret", "secret-of-the-client-0123456789"},
		{"keycloak", "https://api.example.com/v2/devices --issuer https://auth.example.com --client-id billing --scope devices:read", "api.secret", "secret-of-the-client-0123456789"},
		{"api key", p.api + "/keyed --identity api_key", "api.key", "good-key-of-the-test"},
		{"basic", p.api + "/basic --client-id monitor", "api.password", "right-password"},
	} {
		t.Run(style.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "authvigil.toml")
			out, code := p.does(t, "./authvigil init "+style.init+" --ntp $NTP --config.file "+file)
			if code != 0 || !strings.Contains(out, filepath.Join(dir, style.secret)) {
				t.Fatalf("init: exit %d, or it does not say where the secret belongs\n%s", code, out)
			}
			if err := os.WriteFile(filepath.Join(dir, style.secret), []byte(style.value), 0o600); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s\n%s", out, text)
			for _, step := range []string{"config check", "once"} {
				out, code := p.does(t, "./authvigil "+step+" --config.file "+file)
				t.Logf("%s\n%s", step, out)
				if code != 0 {
					t.Errorf("%s: exit %d", step, code)
				}
			}
		})
	}
}

func zipped(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := gzip.NewWriter(f)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
}
