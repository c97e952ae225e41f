package probes

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// A pair is a certificate with its key, and those that vouch for it.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serials atomic.Int64

// keys are made once for all tests: RSA takes its time.
var (
	ecKeys  [8]*ecdsa.PrivateKey
	rsaKey  = sync.OnceValue(func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 1024); return k }) // #nosec -- weak on purpose
	keyOnce sync.Once
	keyNext atomic.Int64
)

func someKey() *ecdsa.PrivateKey {
	keyOnce.Do(func() {
		for i := range ecKeys {
			ecKeys[i], _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
	})
	return ecKeys[keyNext.Add(1)%int64(len(ecKeys))]
}

// issue makes a certificate; by nil signs it by itself. edit changes what a good one has.
func issue(t testing.TB, name string, by *pair, edit func(*x509.Certificate)) *pair {
	t.Helper()
	p := &pair{key: someKey()}
	for by != nil && p.key == by.key {
		p.key = someKey()
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + serials.Add(1)), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-30 * day), NotAfter: now.Add(60 * day),
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if strings.HasPrefix(name, "CA ") {
		c.DNSNames, c.ExtKeyUsage, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = nil, nil, true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.NotBefore, c.NotAfter = now.Add(-1000*day), now.Add(1000*day)
	}
	if edit != nil {
		edit(c)
	}
	if c.PublicKey == nil {
		c.PublicKey = p.key.Public()
	} else if s, ok := c.PublicKey.(crypto.Signer); ok {
		p.key, c.PublicKey = s, s.Public()
	}
	parent, signer := c, p.key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, c.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *pair) tls(chain ...*pair) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
	for _, above := range chain {
		c.Certificate = append(c.Certificate, above.cert.Raw)
	}
	return c
}

func (p *pair) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

func (p *pair) keyPEM(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A town is a network of invented names and public addresses that all lead to listeners on loopback.
type town struct {
	t     testing.TB
	mu    sync.Mutex
	names map[string][]netip.Addr
	at    map[string]string // ip:port to where it listens; "refused", "noroute" or "blackhole"
	asked map[string]int
	roots *x509.CertPool
	last  int
}

func newTown(t testing.TB, roots ...*pair) *town {
	w := &town{t: t, names: map[string][]netip.Addr{}, at: map[string]string{}, asked: map[string]int{}, roots: x509.NewCertPool()}
	for _, r := range roots {
		w.roots.AddCert(r.cert)
	}
	return w
}

func (w *town) env() Env {
	e := testEnv()
	e.Net = wire.Net{Roots: w.roots,
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if list := w.names[host]; len(list) > 0 {
				return list, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			w.mu.Lock()
			to := w.at[address]
			w.asked[address]++
			w.mu.Unlock()
			fail := func(errno syscall.Errno) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", errno)}
			}
			switch to {
			case "refused":
				return fail(syscall.ECONNREFUSED)
			case "", "noroute":
				return fail(syscall.ENETUNREACH)
			case "blackhole":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			var d net.Dialer
			return d.DialContext(ctx, "tcp", to)
		}}
	return e
}

// address gives a name one more address, of documentation networks (RFC 5737, RFC 3849).
func (w *town) address(name string, six bool) netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	ip := netip.AddrFrom4([4]byte{198, 51, 100, byte(w.last)})
	if six {
		ip = netip.MustParseAddr("2001:db8::1:" + big.NewInt(int64(w.last)).Text(16))
	}
	w.names[name] = append(w.names[name], ip)
	return ip
}

func (w *town) lead(name, port, to string, six bool) netip.Addr {
	ip := w.address(name, six)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[net.JoinHostPort(ip.String(), port)] = to
	return ip
}

func (w *town) count(name, port string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ip := range w.names[name] {
		n += w.asked[net.JoinHostPort(ip.String(), port)]
	}
	return n
}

// listen serves each connection of a listener on loopback with handle.
func listen(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
	return l.Addr().String()
}

// secure is a TLS server that shakes hands and waits for the other side to go.
func secure(t testing.TB, c tls.Certificate, edit func(*tls.Config)) string {
	config := &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12}
	if edit != nil {
		edit(config)
	}
	return listen(t, func(conn net.Conn) { finish(conn, config) })
}

func finish(conn net.Conn, config *tls.Config) {
	s := tls.Server(conn, config)
	if s.Handshake() == nil {
		_, _ = s.Read(make([]byte, 1))
	}
}

// web is a web server under an invented name.
func (w *town) web(name string, h http.HandlerFunc) {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	w.t.Cleanup(s.Close)
	w.lead(name, "80", s.Listener.Addr().String(), false)
}

// look runs a certificate probe once against a name of the town.
func (w *town) look(values map[string]any, edit ...func(*Env)) (evidence.Report, *evidence.Fault, Probe) {
	w.t.Helper()
	env := w.env()
	for _, e := range edit {
		e(&env)
	}
	if _, ok := values["Address"]; !ok && values["Files"] == nil {
		values["Address"] = "site.example.test:443"
	}
	p, err := New("certificate", decodeInto(values), env)
	if err != nil {
		w.t.Fatal(err)
	}
	r, fault := run(w.t, p)
	return r, fault, p
}

func run(t testing.TB, p Probe) (evidence.Report, *evidence.Fault) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := p.Run(ctx)
	return r, evidence.AsFault(err)
}

func contextFor(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// facetOf finds a facet of a report.
func facetOf(r evidence.Report, name string) evidence.Facet {
	if r.Chain != nil {
		for _, f := range r.Chain.Facets {
			if f.Name == name {
				return f
			}
		}
	}
	return evidence.Facet{}
}

// reading finds a number of a report; labels as they follow after those that the exporter fills in.
func reading(r evidence.Report, m *evidence.Metric, labels ...string) (float64, bool) {
	for _, have := range r.Readings {
		if have.Metric == m && strings.Join(have.Labels, "|") == strings.Join(labels, "|") {
			return have.Value, true
		}
	}
	return 0, false
}

// wrongClock lets the probe know of a verdict on the local clock.
func wrongClock(skew time.Duration, confidence evidence.Confidence) func(*Env) {
	measured := time.Now()
	return func(e *Env) {
		e.Clock = func() (evidence.Clock, bool) {
			return evidence.Clock{Skew: skew, Bound: 10 * time.Millisecond, Confidence: confidence, Measured: measured}, true
		}
	}
}

// httptestTLS starts a server over TLS with a certificate.
func httptestTLS(s *httptest.Server, c tls.Certificate) string {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c}})
	if err != nil {
		panic(err)
	}
	s.Listener = l
	s.Start()
	return l.Addr().String()
}
