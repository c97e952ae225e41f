//go:build integration

// Package integration runs the built program against real servers: oidc-provider, nginx, chronyd, Prometheus. What is
// missing fails the tests; nothing is skipped. `make integration` installs what is needed.
package integration

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// program is the binary under test, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "authvigil")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "authvigil")
	build := exec.Command("go", "build", "-o", path, "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func binary(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// need finds a program that a test cannot do without.
func need(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
				return filepath.Join(dir, name)
			}
		}
		t.Fatalf("%s is not installed; make integration installs it", name)
	}
	return path
}

// given are the ports that tests were given already: the kernel forgets them as soon as they are free, and gives some twice.
var given sync.Map

// port finds a free port of loopback, each time another.
func port(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if _, taken := given.LoadOrStore(n, true); !taken {
			return n
		}
	}
}

// A process is a server of a test, ended with it.
type process struct {
	*exec.Cmd
	log  *strings.Builder
	mu   sync.Mutex
	done chan struct{}
}

// start runs a program until the test ends. ready, if not empty, is a word of its output to wait for.
func start(t testing.TB, ready string, env []string, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), log: &strings.Builder{}, done: make(chan struct{})}
	p.Dir, p.Env = dir, append(os.Environ(), env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout, p.Stderr = w, w
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	seen := make(chan struct{})
	go func() {
		defer close(p.done)
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 1<<20)
		found := false
		for lines.Scan() {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			if !found && ready != "" && strings.Contains(lines.Text(), ready) {
				found = true
				close(seen)
			}
		}
	}()
	t.Cleanup(func() { p.stop(t) })
	if ready != "" {
		select {
		case <-seen:
		case <-p.done:
			t.Fatalf("%s ended before it was ready:\n%s", name, p.output())
		case <-time.After(time.Minute): // of a machine that does other things too
			t.Fatalf("%s was not ready in a minute:\n%s", name, p.output())
		}
	}
	return p
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// kill ends the process as kill -9 does.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
	<-p.done
}

// stop ends the process by SIGTERM and gives its exit code.
func (p *process) stop(t testing.TB) int {
	t.Helper()
	if p.ProcessState == nil {
		p.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { p.Process.Kill() })
		p.Wait()
		kill.Stop()
		<-p.done
	}
	return p.ProcessState.ExitCode()
}

// reachable waits until something listens.
func reachable(t testing.TB, port int) {
	t.Helper()
	for range 1200 { // half a minute, on a busy machine
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("nothing listens on port %d", port)
}

// A ca issues the certificates of a test.
type ca struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM of the root
	mid  *x509.Certificate
	midK *ecdsa.PrivateKey
	n    int64
}

func newCA(t *testing.T, dir string) *ca {
	t.Helper()
	c := &ca{dir: dir, file: filepath.Join(dir, "root.pem")}
	year := 365 * 24 * time.Hour
	c.key, c.midK = newKey(t), newKey(t)
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "integration root"}, NotBefore: time.Now().Add(-2 * year), NotAfter: time.Now().Add(2 * year), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.cert = sign(t, root, root, &c.key.PublicKey, c.key)
	mid := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "integration intermediate"}, NotBefore: time.Now().Add(-2 * year), NotAfter: time.Now().Add(2 * year), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.mid = sign(t, mid, c.cert, &c.midK.PublicKey, c.key)
	write(t, c.file, block("CERTIFICATE", c.cert.Raw))
	c.n = 10
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf writes NAME.crt (with the intermediate where chain is set) and NAME.key.
func (c *ca) leaf(t *testing.T, name, host string, from, to time.Time, chain bool) {
	t.Helper()
	c.n++
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(c.n), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: from, NotAfter: to, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	cert := sign(t, template, c.mid, &key.PublicKey, c.midK)
	if name == "selfsigned" {
		cert = sign(t, template, template, &key.PublicKey, key)
		chain = false
	}
	text := block("CERTIFICATE", cert.Raw)
	if chain {
		text += block("CERTIFICATE", c.mid.Raw)
	}
	write(t, filepath.Join(c.dir, name+".crt"), text)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.dir, name+".key"), block("PRIVATE KEY", der))
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// idp starts oidc-provider; make integration installed it into $AUTHVIGIL_IDP_MODULES.
type idp struct {
	issuer string
	ca     *ca
	*process
}

func startIDP(t *testing.T, c *ca) *idp {
	t.Helper()
	modules := os.Getenv("AUTHVIGIL_IDP_MODULES")
	if modules == "" {
		t.Fatal("AUTHVIGIL_IDP_MODULES names no directory with oidc-provider; run make integration")
	}
	script, err := os.ReadFile("testdata/idp.mjs")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(modules, "idp.mjs")
	write(t, path, string(script))
	key := newKey(t)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.dir, "signer.pub"), block("PUBLIC KEY", public))
	write(t, filepath.Join(c.dir, "signer.key"), block("PRIVATE KEY", private)) // of the client signer
	return (&idp{ca: c}).twin(t)
}

// twin starts another provider with the same clients, in another environment, such as one whose clock is wrong.
func (i *idp) twin(t *testing.T, env ...string) *idp {
	t.Helper()
	modules, n := os.Getenv("AUTHVIGIL_IDP_MODULES"), port(t)
	in := func(name string) string { return filepath.Join(i.ca.dir, name) }
	env = append(env, fmt.Sprintf("PORT=%d", n), "CA="+i.ca.file, "CLIENT_PUBLIC="+in("signer.pub"), "CERT="+in("good.crt"), "KEY="+in("good.key"))
	return &idp{issuer: fmt.Sprintf("https://localhost:%d", n), ca: i.ca, process: start(t, "ready", env, modules, need(t, "node"), filepath.Join(modules, "idp.mjs"))}
}

// knob turns the provider's knobs; an empty query resets them.
func (i *idp) knob(t *testing.T, query string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(i.ca.cert)
	if out, err := exec.Command(need(t, "curl"), "-sS", "--cacert", i.ca.file, i.issuer+"/_knob?"+query).CombinedOutput(); err != nil || string(out) != "ok" {
		t.Fatalf("knob %s: %v %s", query, err, out)
	}
}

// read gives what the provider answers to a question of the tests.
func (i *idp) read(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command(need(t, "curl"), "-sSf", "--cacert", i.ca.file, i.issuer+path).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v %s", path, err, out)
	}
	return string(out)
}

// startChrony starts a time server that is off by offset seconds (whole ones, by libfaketime), and gives its address.
func startChrony(t *testing.T, offset int) string {
	t.Helper()
	dir := t.TempDir()
	n := port(t)
	config := filepath.Join(dir, "chrony.conf")
	write(t, config, fmt.Sprintf("port %d\nbindaddress 127.0.0.1\nallow 127.0.0.0/8\nlocal stratum 3\ncmdport 0\nbindcmdaddress /\npidfile %s/pid\nuser root\n", n, dir))
	var env []string
	if offset != 0 {
		env = append(env, fmt.Sprintf("FAKETIME=%+ds", offset), "LD_PRELOAD="+faketime(t))
	}
	start(t, "", env, dir, need(t, "chronyd"), "-x", "-d", "-f", config) // -x: never touches the clock of this machine
	time.Sleep(300 * time.Millisecond)
	return fmt.Sprintf("127.0.0.1:%d", n)
}

func faketime(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		t.Fatal("libfaketime is not installed; make integration installs it")
	}
	return found[0]
}

// once runs the program once on a configuration and gives the record of each probe.
func once(t *testing.T, config string, names ...string) map[string]record {
	t.Helper()
	return onceBy(t, nil, config, names...)
}

// onceAmong does so on a machine whose file of hosts is another.
func onceAmong(t *testing.T, hosts, config string) map[string]record {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	write(t, path, hosts)
	return onceBy(t, []string{need(t, "unshare"), "--mount", "--map-root-user", "sh", "-c", `mount --bind "$0" /etc/hosts && exec "$@"`, path}, config)
}

func onceBy(t *testing.T, before []string, config string, names ...string) map[string]record {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	write(t, path, config)
	args := slices.Concat(before, []string{binary(t), "once", "--output", "ndjson", "--log.level", "error", "--config.file", path}, names)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // not of building the program
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code < 0 || code > 1 {
		t.Fatalf("once: %v\n%s", err, stderr.String())
	}
	records := map[string]record{}
	for line := range strings.Lines(string(out)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		r.raw = line
		records[r.Probe] = r
	}
	return records
}

type record struct {
	Probe    string `json:"probe"`
	OK       bool   `json:"ok"`
	Outcome  string `json:"outcome"`
	Error    string `json:"error"`
	Findings []struct {
		Cause   string   `json:"cause"`
		Culprit string   `json:"culprit"`
		Sure    string   `json:"sureness"`
		Because []string `json:"because"`
	} `json:"findings"`
	raw string
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// eventually tries until it is so, or the time is over.
func eventually(t *testing.T, within time.Duration, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Errorf("not within %s: %s", within, what)
}

// value is the value of a series in the text format; 0 when there is none.
func value(metrics, series string) (v float64) {
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			fmt.Sscan(rest, &v)
		}
	}
	return v
}

// successes counts the probes that succeed.
func successes(metrics string) (n int) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "authvigil_probe_success{") && strings.HasSuffix(line, " 1\n") {
			n++
		}
	}
	return n
}
