package probes

import (
	"bufio"
	"compress/gzip"
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
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// decodeInto sets fields of a settings struct by their Go names.
func decodeInto(values map[string]any) func(any) error {
	return func(into any) error {
		v := reflect.ValueOf(into).Elem()
		for name, value := range values {
			f := v.FieldByName(name)
			if !f.IsValid() {
				return fmt.Errorf("no field %s", name)
			}
			f.Set(reflect.ValueOf(value))
		}
		return nil
	}
}

// decodeText sets one field of a settings struct from text.
func decodeText(field, text string) func(any) error {
	return func(into any) error {
		return reflect.ValueOf(into).Elem().FieldByName(field).Addr().Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText([]byte(text))
	}
}

func testEnv() Env {
	return Env{Name: "test", Net: wire.System(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Identity: func(string) (identity.Identity, error) { return nil, errors.New("none") }}
}

func makeProbe(t *testing.T, kind string, env Env, values map[string]any) Probe {
	t.Helper()
	p, err := New(kind, decodeInto(values), env)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// raw is a server that answers each connection with what handle writes.
func raw(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				bufio.NewReader(c).ReadString('\n')
				handle(c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String() + "/"
}

// TestHTTP_hostileServers: whatever a server does, the run ends in time with a fault that has its stage, and takes little
// memory; the next run is unaffected.
func TestHTTP_hostileServers(t *testing.T) {
	filler := strings.Repeat("x", 64<<10)
	for _, c := range []struct {
		name    string
		handle  func(net.Conn)
		symptom evidence.Symptom
		stage   evidence.Stage
	}{
		{"never answers", func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1<<16)) }, evidence.SymptomTimeout, evidence.StageAPI},
		{"answers 1 GiB", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
			for range 16384 {
				if _, err := io.WriteString(c, filler); err != nil {
					return
				}
			}
		}, "", ""},
		{"sends 10 MiB of headers", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for i := range 160 {
				if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, filler); err != nil {
					return
				}
			}
			fmt.Fprint(c, "\r\n")
		}, evidence.SymptomTooLarge, evidence.StageAPI},
		{"redirects in circles", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n") }, evidence.SymptomRedirected, evidence.StageAPI},
		{"closes in the middle", func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") }, evidence.SymptomClosed, evidence.StageAPI},
		{"closes at once", func(net.Conn) {}, evidence.SymptomClosed, evidence.StageAPI},
		{"speaks no HTTP", func(c net.Conn) { fmt.Fprint(c, "220 mail.example.test ESMTP\r\n") }, evidence.SymptomBadAnswer, evidence.StageAPI},
		{"drips", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
			for range 100 {
				if _, err := c.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, evidence.SymptomTimeout, evidence.StageAPI},
		{"answers without a length and without an end", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := io.WriteString(c, filler); err != nil {
					return
				}
			}
		}, "", ""},
		{"drips its header", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\n")
			for i := range 100 {
				if _, err := fmt.Fprintf(c, "X-%d: x\r\n", i); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}, evidence.SymptomTimeout, evidence.StageAPI},
		{"resets the connection", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, evidence.SymptomClosed, evidence.StageAPI},
		{"resets it within the body", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			time.Sleep(50 * time.Millisecond)
			c.(*net.TCPConn).SetLinger(0)
		}, evidence.SymptomClosed, evidence.StageAPI},
		{"floods with 1xx", func(c net.Conn) {
			for range 100_000 {
				if _, err := fmt.Fprint(c, "HTTP/1.1 103 Early Hints\r\n\r\n"); err != nil {
					return
				}
			}
		}, "any", evidence.StageAPI},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := makeProbe(t, "http", testEnv(), map[string]any{"URL": raw(t, c.handle)})
			for range 2 {
				ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				report, err := p.Run(ctx)
				took := time.Since(start)
				runtime.ReadMemStats(&after)
				cancel()
				fault := evidence.AsFault(err)
				switch {
				case c.symptom == "":
					if err != nil {
						t.Errorf("got %v, want success", err)
					}
				case fault == nil || (c.symptom != "any" && fault.Symptom != c.symptom) || fault.Stage != c.stage:
					t.Errorf("got %+v, want %s at %s", fault, c.symptom, c.stage)
				}
				if took > 2*time.Second || len(report.Exchanges) != 1 {
					t.Errorf("took %s, %d exchanges", took, len(report.Exchanges))
				}
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
					t.Errorf("allocated %d MiB", grown>>20)
				}
			}
		})
	}
}

// TestHTTP_resetWhileShakingHands: the stage is that of TLS.
func TestHTTP_resetWhileShakingHands(t *testing.T) {
	url := strings.Replace(raw(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }), "http:", "https:", 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := makeProbe(t, "http", testEnv(), map[string]any{"URL": url}).Run(ctx)
	if f := evidence.AsFault(err); f == nil || f.Stage != evidence.StageTLS {
		t.Errorf("got %+v", f)
	}
}

// TestHTTP_headersOfTheConfiguration: what would forge a header is an error of the configuration, and not shown.
func TestHTTP_headersOfTheConfiguration(t *testing.T) {
	for name, value := range map[string]string{"X-A": "a\r\nX-Evil: 1", "X-B": "a\nb", "X-C": "a\x00b", "X D": "a", "": "a"} {
		_, err := New("http", decodeInto(map[string]any{"URL": "https://api.example.test/", "Headers": map[string]string{name: value}}), testEnv())
		if err == nil || !strings.HasPrefix(err.Error(), "headers: ") || strings.Contains(err.Error(), "Evil") {
			t.Errorf("%q: %q: %v", name, value, err)
		}
	}
}

// TestHTTP_hugeCertificates: a certificate with fifty thousand names, a chain of twenty, a key of 16,384 bits and five
// thousand names of others cost little and make short texts.
func TestHTTP_hugeCertificates(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(names int, public any) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		for i := range names {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("host-%06d.example.test", i))
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), 16383)
	modulus.Add(modulus, big.NewInt(12345))
	large := &rsa.PublicKey{N: modulus, E: 65537}
	small := leaf(1, &key.PublicKey)
	for name, c := range map[string]tls.Certificate{
		"50,000 names":          {Certificate: [][]byte{leaf(50_000, &key.PublicKey)}, PrivateKey: key},
		"5,000 names of others": {Certificate: [][]byte{leaf(5_000, &key.PublicKey)}, PrivateKey: key},
		"a chain of twenty":     {Certificate: slices.Repeat([][]byte{small}, 20), PrivateKey: key},
		"a key of 16,384 bits":  {Certificate: [][]byte{leaf(1, large)}, PrivateKey: forger{large}},
	} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{c}})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.(*tls.Conn).Handshake()
				conn.Close()
			}
		}()
		p := makeProbe(t, "http", testEnv(), map[string]any{"URL": "https://" + l.Addr().String() + "/"})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = p.Run(ctx)
		runtime.ReadMemStats(&after)
		cancel()
		l.Close()
		<-done
		f := evidence.AsFault(err)
		if f == nil || f.Stage != evidence.StageTLS || f.Symptom == evidence.SymptomTimeout || len(f.Error()) > 1024 {
			t.Errorf("%s: %d bytes of error: %.300v", name, len(fmt.Sprint(err)), f)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
			t.Errorf("%s: allocated %d MiB", name, grown>>20)
		}
	}
}

// forger shows a key that it does not have.
type forger struct{ public crypto.PublicKey }

func (f forger) Public() crypto.PublicKey { return f.public }

func (f forger) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte("none"), nil
}

func TestHTTP_gzipBombIsHarmless(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		zeros := make([]byte, 1<<20)
		for range 256 {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
		z.Close()
	}))
	defer server.Close()
	p := makeProbe(t, "http", testEnv(), map[string]any{"URL": server.URL})
	report, err := p.Run(t.Context())
	if err != nil || report.Exchanges[0].BodyBytes != wire.DefaultBody || !report.Exchanges[0].BodyCut {
		t.Errorf("got %v and %d bytes, cut %v", err, report.Exchanges[0].BodyBytes, report.Exchanges[0].BodyCut)
	}
}

// TestHTTP_credentialFollowsNoRedirect: neither a bearer token nor a key in a header of its own reaches another host.
func TestHTTP_credentialFollowsNoRedirect(t *testing.T) {
	stolen := make(chan http.Header, 8)
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { stolen <- r.Header }))
	defer evil.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	for _, kind := range []string{"bearer", "api_key", "basic"} {
		env := testEnv()
		env.Identity = func(string) (identity.Identity, error) { return makeIdentity(t, kind, env), nil }
		_, err := makeProbe(t, "http", env, map[string]any{"URL": server.URL, "Identity": "x"}).Run(t.Context())
		if f := evidence.AsFault(err); f == nil || f.Symptom != evidence.SymptomRedirected {
			t.Errorf("%s: got %v, want redirected", kind, err)
		}
	}
	select {
	case h := <-stolen:
		t.Errorf("a redirect was followed, with %d header fields", len(h))
	default:
	}
}

func makeIdentity(t *testing.T, kind string, env Env) identity.Identity {
	t.Helper()
	t.Setenv("AUTHVIGIL_TEST_SECRET", "canary-secret-of-the-test")
	field := map[string]string{"bearer": "Token", "api_key": "Key", "basic": "Password"}[kind]
	id, err := identity.New(kind, func(into any) error {
		v := reflect.ValueOf(into).Elem()
		if u := v.FieldByName("Username"); u.IsValid() {
			u.SetString("monitor")
		}
		return v.FieldByName(field).Addr().Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText([]byte("env:AUTHVIGIL_TEST_SECRET"))
	}, identity.Env{Name: "x", Net: env.Net, Jitter: func() float64 { return 0 }, Log: env.Log})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestHTTP_settingsThatAreRepeated: a server that repeats what it was sent shows no header or query value that may be a
// credential, though none belongs there; ordinary words stay.
func TestHTTP_settingsThatAreRepeated(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "you sent %s %s and %s", r.Header.Get("X-Legacy-Auth"), r.URL, r.Header.Get("Accept"))
	}))
	defer server.Close()
	p := makeProbe(t, "http", testEnv(), map[string]any{"URL": server.URL + "/?state=pending&apikey=in+the/query", "Headers": map[string]string{"X-Legacy-Auth": "in-the-header", "Accept": "application/json"}})
	report, _ := p.Run(t.Context())
	if len(report.Exchanges) == 0 {
		t.Fatal("nothing was asked")
	}
	got := report.Exchanges[0].Body
	for _, secret := range []string{"in-the-header", "in+the/query", "in%20the/query", "in%2Bthe"} {
		if strings.Contains(got, secret) {
			t.Errorf("%q shows %s", got, secret)
		}
	}
	for _, word := range []string{"application/json", "pending"} {
		if !strings.Contains(got, word) {
			t.Errorf("%q lacks %s", got, word)
		}
	}
}

func TestHTTP_untrustedServerGetsNoCredential(t *testing.T) {
	asked := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	defer server.Close()
	env := testEnv()
	env.Identity = func(string) (identity.Identity, error) { return makeIdentity(t, "bearer", env), nil }
	report, err := makeProbe(t, "http", env, map[string]any{"URL": server.URL, "Identity": "x"}).Run(t.Context())
	f := evidence.AsFault(err)
	if f == nil || f.Stage != evidence.StageTLS || f.Symptom != evidence.SymptomBadCertificate || asked {
		t.Errorf("got %+v, asked %v", f, asked)
	}
	if report.Chain == nil || len(report.Chain.Certificates) == 0 || report.Chain.Certificates[0].NotAfter.IsZero() {
		t.Error("the chain of a certificate that is not acceptable is lost")
	}
	// With its CA named, the same server is asked.
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := makeProbe(t, "http", env, map[string]any{"URL": server.URL, "Identity": "x", "Settings": wire.Settings{CAFile: ca}}).Run(t.Context()); err != nil || !asked {
		t.Errorf("with its CA: %v, asked %v", err, asked)
	}
}

func TestHTTP_expectations(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/login":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<form><input type="password"></form>`)
		case "/exhausted":
			w.Header().Set("X-RateLimit-Remaining", "0")
			w.Header().Set("X-RateLimit-Limit", "60")
			w.WriteHeader(http.StatusForbidden)
		case "/denied":
			w.WriteHeader(http.StatusForbidden)
		default:
			fmt.Fprint(w, `{"ok":true}`)
		}
	}))
	defer server.Close()
	for _, c := range []struct {
		path    string
		values  map[string]any
		symptom evidence.Symptom
	}{
		{"/", nil, ""},
		{"/", map[string]any{"ExpectStatus": []int{204}}, evidence.SymptomUnexpected},
		{"/", map[string]any{"ExpectBody": `"ok":true`}, ""},
		{"/", map[string]any{"ExpectBody": `"ok":false`}, evidence.SymptomBadAnswer},
		{"/", map[string]any{"Expect": "deny"}, evidence.SymptomGranted},
		{"/denied", map[string]any{"Expect": "deny"}, ""},
		{"/denied", nil, evidence.SymptomForbidden},
		{"/exhausted", nil, evidence.SymptomThrottled},
		{"/login", nil, evidence.SymptomBadAnswer},
	} {
		values := map[string]any{"URL": server.URL + c.path}
		for k, v := range c.values {
			values[k] = v
		}
		report, err := makeProbe(t, "http", testEnv(), values).Run(t.Context())
		f := evidence.AsFault(err)
		if (f == nil) != (c.symptom == "") || f != nil && f.Symptom != c.symptom {
			t.Errorf("%s %v: got %v, want %q", c.path, c.values, err, c.symptom)
		}
		if c.path == "/exhausted" && len(report.Readings) != 2 {
			t.Errorf("rate limit readings: %v", report.Readings)
		}
	}
}

// TestKinds_conformance asks of every kind what all promise: it ends when its context ends, fails with a fault that has a
// stage, and leaves no goroutine (TestMain sees to that).
func TestKinds_conformance(t *testing.T) {
	blocked := testEnv()
	blocked.Net = wire.Net{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }}
	blocked.Identity = func(string) (identity.Identity, error) { return stuck{}, nil }
	settings := map[string]map[string]any{
		"http":        {"URL": "https://api.example.test/", "Identity": "x"},
		"token":       {"Identity": "x"},
		"credential":  {"URL": "https://api.example.test/self", "Identity": "x"},
		"authorize":   {"URL": "https://auth.example.test/authorize", "ClientID": "x", "RedirectURI": "https://app.example.test/back"},
		"introspect":  {"URL": "https://auth.example.test/introspect", "Identity": "x", "By": "y"},
		"certificate": {"Address": "api.example.test:443"},
		"issuer":      {"Issuer": "https://auth.example.test"},
		"ntp":         {"Servers": []string{"ntp.example.test"}},
		"prometheus":  {"URL": "https://prometheus.example.test", "Requests": "x", "Refused": "y"},
		"accesslog":   {"Path": "/nonexistent/access.log"},
	}
	for _, kind := range Kinds() {
		values, ok := settings[kind]
		if !ok {
			t.Errorf("kind %s stands under no conformance test: give it settings here", kind)
			continue
		}
		p := makeProbe(t, kind, blocked, values)
		if a := p.About(); a.Endpoint == "" || a.Expected == "" {
			t.Errorf("%s: About says too little: %+v", kind, a)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		_, err := p.Run(ctx)
		cancel()
		if f := evidence.AsFault(err); f == nil || f.Stage == "" || f.Symptom == "" || f.Symptom == evidence.SymptomUnknown {
			t.Errorf("%s: got %#v, want a fault with stage and symptom", kind, err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s: took %s after its context had ended", kind, took)
		}
		if _, err := New(kind, func(any) error { return errors.New("unknown key") }, blocked); err == nil {
			t.Errorf("%s: an error of its settings is lost", kind)
		}
	}
}

// stuck is an identity whose issuer never answers.
type stuck struct{ identity.Identity }

func (stuck) Status() identity.Status { return identity.Status{Kind: "bearer", Scheme: "bearer"} }

func (stuck) Apply(ctx context.Context, _ *http.Request) (identity.Grant, error) {
	<-ctx.Done()
	return identity.Grant{}, &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomTimeout, Err: ctx.Err()}
}

// BenchmarkHTTP_freshTLS is a run over a fresh TLS connection, and its floor: a minimal client that makes the same
// request. The ratio of the two is what counts.
func BenchmarkHTTP_freshTLS(b *testing.B) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"ok":true}`) }))
	server.EnableHTTP2 = false
	server.StartTLS()
	defer server.Close()
	roots := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	b.Run("floor", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig.Clone(), DisableKeepAlives: true}}
		for b.Loop() {
			r, err := client.Get(server.URL)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
	})
	b.Run("probe", func(b *testing.B) {
		env := testEnv()
		env.Net.Roots = roots
		p, err := New("http", decodeInto(map[string]any{"URL": server.URL}), env)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := p.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
