//go:build integration

package integration

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// TestCertificates_renewal asks real ACME servers when a certificate should be renewed (RFC 9773): Pebble, which issued it,
// wants it back early and revokes it (A51); nginx stands in for one that is asked too much (A52) and for one whose window has
// passed.
func TestCertificates_renewal(t *testing.T) {
	t.Parallel()
	p := &ordered{pki: pki{t: t, dir: t.TempDir()}}
	root := p.issue("CA Root", nil, nil)
	p.save("acme", p.issue("localhost", root, nil), root)
	trusted := x509.NewCertPool()
	trusted.AddCert(root.cert)
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}, DisableKeepAlives: true}}
	pebble, manage := p.startPebble()
	p.order("kept")
	early, revoked := p.order("early"), p.order("revoked")
	window := func(from, to time.Duration) string {
		b, _ := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": time.Now().Add(from), "end": time.Now().Add(to)}})
		return string(b)
	}
	p.ask(manage+"/set-renewal-info/", map[string]string{"certificate": block("CERTIFICATE", early[0]), "ARIResponse": window(-3*time.Hour, -2*time.Hour)})
	if err := p.acme.RevokeCert(t.Context(), nil, revoked[0], acme.CRLReasonKeyCompromise); err != nil {
		t.Fatal(err)
	}
	roots := root.pem()
	for _, c := range []string{"/roots/0", "/intermediates/0"} {
		roots += p.ask(manage+c, nil)
	}
	write(t, filepath.Join(p.dir, "roots.pem"), roots)

	day := 24 * time.Hour
	late := p.issue("localhost", root, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-70*day), time.Now().Add(20*day)
	})
	p.save("late", late, root)
	id := base64.RawURLEncoding.EncodeToString(late.cert.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(late.cert.SerialNumber.Bytes())
	stand, busy := port(t), port(t)
	base := func(n int) string { return fmt.Sprintf("https://localhost:%d", n) }
	for n, name := range map[int]string{stand: "stand", busy: "busy"} {
		write(t, filepath.Join(p.dir, name+".json"), fmt.Sprintf(`{"renewalInfo":"%s/renewal"}`, base(n)))
	}
	write(t, filepath.Join(p.dir, "window.json"), window(-12*day, -10*day))
	var servers, config strings.Builder
	fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate acme.crt; ssl_certificate_key acme.key; location = /dir { default_type application/json; alias %s/stand.json; } location = /renewal/%s { default_type application/json; alias %s/window.json; } }\n", stand, p.dir, id, p.dir)
	fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate acme.crt; ssl_certificate_key acme.key; location = /dir { default_type application/json; alias %s/busy.json; } location / { add_header Retry-After 7200 always; return 429; } }\n", busy, p.dir)
	probe := func(name, file, directory string) {
		n := port(t)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; }\n", n, file, file)
		fmt.Fprintf(&config, "[probe.%s]\nkind = \"certificate\"\naddress = \"localhost:%d\"\nca_file = \"%s/roots.pem\"\nacme_directory = \"%s/dir\"\n", name, n, p.dir, directory)
	}
	probe("kept", "kept", pebble)
	probe("early", "early", pebble)
	probe("revoked", "revoked", pebble)
	probe("unknown", "late", pebble) // Pebble did not issue it
	probe("overdue", "late", base(stand))
	probe("busy", "late", base(busy))
	serveNginx(t, p.dir, servers.String())
	reachable(t, busy)
	records := once(t, config.String())
	for name, want := range map[string]struct {
		cause, word string
		ok          bool
	}{
		"kept":    {"", "certificate_renewal_window_end_timestamp_seconds", true},
		"early":   {"tls_cert_expiring", "wants the certificate replaced at once", false},
		"revoked": {"tls_cert_expiring", "wants the certificate replaced at once", false},
		"overdue": {"tls_cert_expiring", "should have been renewed by", true},
		"unknown": {"", "", true},
		"busy":    {"", "", true},
	} {
		r := records[name]
		cause := ""
		if len(r.Findings) > 0 {
			cause = r.Findings[0].Cause
		}
		if r.OK != want.ok || cause != want.cause || !strings.Contains(r.raw, want.word) {
			t.Errorf("%s: want %q, ok %v, with %q; got %s", name, want.cause, want.ok, want.word, brief(r.raw))
		}
	}
}

// An ordered pki also gets certificates from an ACME server.
type ordered struct {
	pki
	client *http.Client // trusts the server
	acme   *acme.Client
}

// startPebble builds and starts the ACME server that Let's Encrypt tests with, and gives its address and that for its keepers.
func (p *ordered) startPebble() (address, manage string) {
	p.t.Helper()
	path := filepath.Join(p.dir, "pebble")
	build := exec.Command("go", "build", "-modfile=../../../packaging/tools.mod", "-o", path, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	if out, err := build.CombinedOutput(); err != nil {
		p.t.Fatalf("go build: %v\n%s", err, out)
	}
	n, m := port(p.t), port(p.t)
	write(p.t, filepath.Join(p.dir, "pebble.json"), fmt.Sprintf(`{"pebble":{"listenAddress":"127.0.0.1:%d","managementListenAddress":"127.0.0.1:%d","certificate":"acme.crt","privateKey":"acme.key",
		"httpPort":1,"tlsPort":1,"keyAlgorithm":"ecdsa","profiles":{"default":{"description":"of the test","validityPeriod":7776000}}}}`, n, m))
	start(p.t, "Listening on", []string{"PEBBLE_VA_ALWAYS_VALID=1", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0"}, p.dir, path, "-config", "pebble.json")
	reachable(p.t, n)
	reachable(p.t, m)
	address, manage = fmt.Sprintf("https://localhost:%d", n), fmt.Sprintf("https://localhost:%d", m)
	p.acme = &acme.Client{Key: newKey(p.t), DirectoryURL: address + "/dir", HTTPClient: p.client}
	if _, err := p.acme.Register(p.t.Context(), &acme.Account{}, acme.AcceptTOS); err != nil {
		p.t.Fatal(err)
	}
	return address, manage
}

// order has the ACME server issue a certificate for localhost, saves it with its chain and key, and gives the chain.
func (p *ordered) order(name string) [][]byte {
	p.t.Helper()
	fail := func(err error) {
		p.t.Helper()
		if err != nil {
			p.t.Fatal(err)
		}
	}
	ctx, c := p.t.Context(), p.acme
	order, err := c.AuthorizeOrder(ctx, acme.DomainIDs("localhost"))
	fail(err)
	for _, at := range order.AuthzURLs {
		a, err := c.GetAuthorization(ctx, at)
		fail(err)
		if a.Status == acme.StatusValid {
			continue
		}
		_, err = c.Accept(ctx, a.Challenges[0])
		fail(err)
		_, err = c.WaitAuthorization(ctx, at)
		fail(err)
	}
	key := newKey(p.t)
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}}, key)
	fail(err)
	_, _, _ = c.CreateOrderCert(ctx, order.FinalizeURL, request, true) // Pebble does not say again where the order is, so it is looked at below
	done, err := c.WaitOrder(ctx, order.URI)
	fail(err)
	chain, err := c.FetchCert(ctx, done.CertURL, true)
	fail(err)
	nodes := []*node{{key: key}}
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		fail(err)
		if i > 0 {
			nodes = append(nodes, &node{})
		}
		nodes[i].cert = cert
	}
	p.save(name, nodes...)
	return chain
}

// ask gives what the server's keepers are answered; a body is posted in JSON.
func (p *ordered) ask(at string, body any) string {
	p.t.Helper()
	method, b := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPost
		var err error
		if b, err = json.Marshal(body); err != nil {
			p.t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(p.t.Context(), method, at, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s %v %s", at, r.Status, err, text)
	}
	return string(text)
}
