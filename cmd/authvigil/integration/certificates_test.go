//go:build integration

package integration

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node is a certificate of a test with its key and who signed it.
type node struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (n *node) pem() string { return block("CERTIFICATE", n.cert.Raw) }

// A pki issues certificates into a directory, good ones unless edit says otherwise.
type pki struct {
	t      testing.TB
	dir    string
	serial int64
}

func (p *pki) issue(name string, by *node, edit func(*x509.Certificate)) *node {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.issueFor(key, name, by, edit)
}

func (p *pki) issueFor(key crypto.Signer, name string, by *node, edit func(*x509.Certificate)) *node {
	p.t.Helper()
	p.serial++
	now := time.Now()
	c := &x509.Certificate{SerialNumber: big.NewInt(p.serial + 0x1000), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(80 * 24 * time.Hour)}
	if strings.HasPrefix(name, "CA ") {
		c.Subject.Organization = []string{"Tests"}
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.NotBefore, c.NotAfter = now.Add(-400*24*time.Hour), now.Add(400*24*time.Hour)
	} else {
		c.DNSNames, c.ExtKeyUsage, c.KeyUsage = []string{name}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, x509.KeyUsageDigitalSignature
	}
	if edit != nil {
		edit(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		p.t.Fatalf("%s: %v", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return &node{cert, key}
}

// save writes NAME.crt with a chain and NAME.key.
func (p *pki) save(name string, chain ...*node) {
	p.t.Helper()
	var text strings.Builder
	for _, n := range chain {
		text.WriteString(n.pem())
	}
	der, err := x509.MarshalPKCS8PrivateKey(chain[0].key)
	if err != nil {
		p.t.Fatal(err)
	}
	write(p.t, filepath.Join(p.dir, name+".crt"), text.String())
	write(p.t, filepath.Join(p.dir, name+".key"), block("PRIVATE KEY", der))
}

func (p *pki) openssl(args ...string) { p.t.Helper(); p.opensslIn(nil, args...) }

func (p *pki) opensslIn(env []string, args ...string) {
	p.t.Helper()
	p.runIn(env, "openssl", args...)
}

// run runs a program to its end in the directory.
func (p *pki) run(name string, args ...string) { p.t.Helper(); p.runIn(nil, name, args...) }

func (p *pki) runIn(env []string, name string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(need(p.t, name), args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// A served case is one fault of a certificate at a real server, with what must be found.
type served struct {
	name    string  // A number of the list, and what it is
	chain   []*node // nil: served elsewhere
	nginx   string  // further directives of its server
	probe   string  // further settings; ADDRESS stands for the server's
	cause   string  // empty: healthy
	word    string  // that stands in the record
	notes   string  // what `inspect cert` tells although it is no fault
	address string
	blind   bool // no certificate is shown
}

// TestCertificates goes through the list of certificate faults against nginx, haproxy and OpenSSL, with a real OCSP responder
// and lists over HTTP.
func TestCertificates(t *testing.T) {
	t.Parallel()
	binary(t) // built, so that the time below is that of the list
	began := time.Now()
	p := &pki{t: t, dir: t.TempDir()}
	all, config := p.serveFaults(t)
	ready := time.Now()
	records := once(t, config)
	took := time.Since(ready)
	for _, c := range all {
		r := records[named(c.name)]
		switch {
		case c.cause == "" && (!r.OK || c.notes == "" && len(r.Findings) > 0):
			t.Errorf("%s: want no fault, got %s", c.name, brief(r.raw))
		case c.cause != "" && (len(r.Findings) == 0 || r.Findings[0].Cause != c.cause):
			t.Errorf("%s: want %s, got %s", c.name, c.cause, brief(r.raw))
		case !strings.Contains(r.raw, c.word):
			t.Errorf("%s: %q is not told: %s", c.name, c.word, brief(r.raw))
		case c.notes != "":
			if told := p.inspect(c.address); !strings.Contains(told, c.notes) {
				t.Errorf("%s: %q is not told: %s", c.name, c.notes, told)
			}
		case !c.blind && !strings.Contains(r.raw, "certificate_not_after_timestamp_seconds"):
			t.Errorf("%s: the certificate has no series: %s", c.name, brief(r.raw))
		}
	}
	t.Logf("%d certificates at real servers: asked and judged in %s, with the making of all in %s", len(all), took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if time.Since(began) > time.Minute {
		t.Errorf("the list takes %s, more than a minute", time.Since(began))
	}
}

// serveFaults starts a server for each fault of the list, and gives what must be found and a configuration with a probe of each.
func (p *pki) serveFaults(t *testing.T) (all []served, settings string) {
	day := 24 * time.Hour
	now := time.Now()
	plain, ocsp := port(t), port(t)
	pkiURL := fmt.Sprintf("http://127.0.0.1:%d", plain)
	until := func(from, to time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(from), now.Add(to) }
	}
	root := p.issue("CA Root", nil, nil)
	mid := p.issue("CA Intermediate", root, nil)
	write(t, filepath.Join(p.dir, "root.pem"), root.pem())
	oldMid := p.issueFor(mid.key, "CA Intermediate", root, until(-300*day, -day))
	oldRoot := p.issueFor(root.key, "CA Root", nil, until(-900*day, -day))
	stranger := p.issue("CA Intermediate", p.issue("CA Elsewhere", nil, nil), nil)
	foreign := p.issue("CA Foreign", nil, nil)
	leaf := func(edit func(*x509.Certificate)) *node { return p.issue("localhost", mid, edit) }
	listed := func(path string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.CRLDistributionPoints = []string{pkiURL + path} }
	}
	fetched := func(path string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.IssuingCertificateURL = []string{pkiURL + path} }
	}
	answered := func(more func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.OCSPServer = []string{fmt.Sprintf("http://127.0.0.1:%d", ocsp)}
			if more != nil {
				more(c)
			}
		}
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024) // #nosec -- weak on purpose
	if err != nil {
		t.Fatal(err)
	}
	sub := p.issue("CA Sub", mid, nil)
	rsaMid := p.issueFor(mustRSA(t), "CA RSA", root, nil)
	circleA := p.issue("CA A", nil, nil)
	circleB := p.issue("CA B", circleA, fetched("/circle-a.crt"))
	circleA = p.issueFor(circleA.key, "CA A", circleB, fetched("/circle-b.crt"))
	site := filepath.Join(p.dir, "site")
	if err := os.Mkdir(site, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]*node{"mid": mid, "stranger": stranger, "circle-a": circleA, "circle-b": circleB} {
		write(t, filepath.Join(site, name+".crt"), string(n.cert.Raw))
	}
	pinned := p.issue("localhost", nil, nil)
	pin := sha256.Sum256(pinned.cert.Raw)
	revoked, unlisted := leaf(listed("/list.crl")), leaf(listed("/list.crl"))
	crl := func(name string, by *node, next time.Time, entries ...*node) {
		list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-10 * day), NextUpdate: next}
		for _, e := range entries {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: e.cert.SerialNumber, RevocationTime: now.Add(-time.Hour), ReasonCode: 1})
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(site, name), string(der))
	}
	crl("list.crl", mid, now.Add(5*day), revoked)
	crl("stale.crl", mid, now.Add(-day))
	crl("forged.crl", p.issueFor(newKey(t), "CA Intermediate", root, nil), now.Add(5*day))
	if err := os.Truncate(mustFile(t, filepath.Join(site, "huge.crl")), 200<<20); err != nil { // holes, not blocks
		t.Fatal(err)
	}
	ocspRevoked, ocspGood := leaf(answered(nil)), leaf(answered(nil))
	mustStaple := func(c *x509.Certificate) { // RFC 7633
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}, Value: []byte{0x30, 3, 2, 1, 5}})
	}
	stapled := leaf(answered(nil))
	p.startOCSP(ocsp, mid, []*node{ocspRevoked}, []*node{ocspGood, stapled})
	for name, n := range map[string]*node{"revoked": ocspRevoked, "good": ocspGood, "stale": stapled} {
		p.staple(name, n, mid, name == "stale")
	}
	served := []served{
		{name: "good", chain: []*node{leaf(nil), mid}},
		{name: "A1 expired", chain: []*node{leaf(until(-30*day, -2*time.Second)), mid}, cause: "tls_cert_expired", word: "expired"},
		{name: "A3 not yet valid", chain: []*node{leaf(until(time.Hour, 30*day)), mid}, cause: "tls_cert_not_yet_valid", word: "not_yet_valid"},
		{name: "A6 expired intermediate beside one that lives", chain: []*node{leaf(nil), oldMid, mid}, notes: "which ended"},
		{name: "A7 expired root is sent", chain: []*node{leaf(nil), mid, oldRoot}},
		{name: "A8 intermediate missing, to be had", chain: []*node{leaf(fetched("/mid.crt"))}, probe: `aia = "any"`, cause: "tls_incomplete_chain", word: "/mid.crt"},
		{name: "A9 intermediate missing, 404", chain: []*node{leaf(fetched("/none.crt"))}, probe: `aia = "any"`, cause: "tls_incomplete_chain", word: "404"},
		{name: "A10 another one lies there", chain: []*node{leaf(fetched("/stranger.crt"))}, probe: `aia = "any"`, cause: "tls_incomplete_chain", word: "did not sign"},
		{name: "A11 at a private address", chain: []*node{leaf(fetched("/mid.crt"))}, cause: "tls_incomplete_chain", word: "not public"},
		{name: "A11 in a circle", chain: []*node{p.issue("localhost", circleA, fetched("/circle-a.crt"))}, probe: `aia = "any"`, cause: "tls_untrusted_chain", word: "circle"},
		{name: "A12 intermediate of others", chain: []*node{leaf(nil), stranger}, cause: "tls_incomplete_chain", word: "wrong_intermediate"},
		{name: "A13 out of order", chain: []*node{p.issue("localhost", sub, nil), mid, sub}, notes: "stands before"},
		{name: "A14 self-signed", chain: []*node{p.issue("localhost", nil, nil)}, cause: "tls_untrusted_chain", word: "self_signed"},
		{name: "A15 self-signed and pinned", chain: []*node{pinned}, probe: fmt.Sprintf("fingerprints = [%q]", hex.EncodeToString(pin[:]))},
		{name: "A16 private authority, not named", chain: []*node{p.issue("localhost", foreign, nil), foreign}, cause: "tls_untrusted_chain", word: "CA Foreign"},
		{name: "A17 another name", chain: []*node{p.issue("other.test", mid, nil), mid}, cause: "tls_name_mismatch", word: "other.test"},
		{name: "A18 three faults at once", chain: []*node{p.issue("other.test", mid, until(-30*day, -day))}, cause: "tls_cert_expired", word: "other.test"},
		{name: "A19 no alternative name", chain: []*node{leaf(func(c *x509.Certificate) { c.DNSNames = nil }), mid}, cause: "tls_name_mismatch", word: "no subject alternative name"},
		{name: "A20 wildcard two labels deep", chain: []*node{p.issue("*.example.test", mid, nil), mid}, probe: `server_name = "a.b.example.test"`, cause: "tls_name_mismatch", word: "*.example.test"},
		{name: "A21 literal address", chain: []*node{leaf(nil), mid}, probe: `server_name = "127.0.0.1"`, cause: "tls_name_mismatch", word: "127.0.0.1"},
		{name: "A22 not for servers", chain: []*node{leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), mid}, cause: "tls_weak", word: "serverAuth"},
		{name: "A27 on the list of revoked ones", chain: []*node{revoked, mid}, cause: "tls_revoked", word: "revoked"},
		{name: "A27 list is good", chain: []*node{unlisted, mid}},
		{name: "A28 list is out of date", chain: []*node{leaf(listed("/stale.crl")), mid}, notes: "to be replaced"},
		{name: "A29 list of another key", chain: []*node{leaf(listed("/forged.crl")), mid}, notes: "signed"},
		{name: "A30 list of 200 MB", chain: []*node{leaf(listed("/huge.crl")), mid}, notes: "longer than"},
		{name: "OCSP responder says revoked", chain: []*node{ocspRevoked, mid}, cause: "tls_revoked", word: "revoked"},
		{name: "OCSP responder says good", chain: []*node{ocspGood, mid}},
		{name: "A30 list that drips", chain: []*node{leaf(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://" + drips(t) + "/list.crl"} }), mid}, probe: `timeout = "3s"`, word: `"subject":"revocation,unknown","value":1`},
		{name: "A31 staple says revoked", chain: []*node{ocspRevoked, mid}, nginx: "ssl_stapling on; ssl_stapling_file revoked.ocsp;", cause: "tls_revoked", word: "revoked"},
		{name: "staple is good", chain: []*node{ocspGood, mid}, nginx: "ssl_stapling on; ssl_stapling_file good.ocsp;"},
		{name: "A32 staple is out of date", chain: []*node{stapled, mid}, nginx: "ssl_stapling on; ssl_stapling_file stale.ocsp;", cause: "tls_staple_unusable", word: "staple_stale"},
		{name: "staple is promised and missing", chain: []*node{leaf(answered(mustStaple)), mid}, cause: "tls_staple_unusable", word: "staple_missing"},
		{name: "A33 RSA 1024", chain: []*node{p.issueFor(weak, "localhost", mid, nil), mid}, nginx: "ssl_ciphers DEFAULT@SECLEVEL=0;", cause: "tls_weak", word: "RSA-1024"},
		{name: "A33 SHA-1", chain: []*node{p.issue("localhost", rsaMid, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }), rsaMid}, nginx: "ssl_ciphers DEFAULT@SECLEVEL=0;", cause: "tls_weak", word: "SHA1-RSA"},
		{name: "A34 negative serial in an extra certificate", chain: []*node{leaf(nil), mid, p.oddSerial("extra", mid)}, cause: "tls_cert_malformed", word: "negative serial"},
		{name: "A34 negative serial of the leaf", chain: []*node{p.oddSerial("localhost", mid), mid}, cause: "tls_cert_malformed", word: `"subject":"0,leaf"`},
		{name: "A38 another authority than expected", chain: []*node{leaf(nil), mid}, probe: `expect_issuer = "Let's Encrypt"`, cause: "tls_untrusted_chain", word: "Let's Encrypt"},
		{name: "A49 six days, 70 h left", chain: []*node{leaf(until(-74*time.Hour, 70*time.Hour)), mid}},
		{name: "A49 six days, 50 h left", chain: []*node{leaf(until(-94*time.Hour, 50*time.Hour)), mid}, cause: "tls_cert_expiring", word: "expiring"},
		{name: "A49 six days, 20 h left", chain: []*node{leaf(until(-124*time.Hour, 20*time.Hour)), mid}, cause: "tls_cert_expiring", word: "expiring"},
		{name: "A50 398 days, 29 left", chain: []*node{leaf(until(-369*day, 29*day)), mid}, cause: "tls_cert_expiring", word: "expiring"},
		{name: "A53 the same twice", chain: []*node{leaf(nil), mid, mid}, notes: "twice"},
	}
	var servers, config strings.Builder
	fmt.Fprintf(&config, "[defaults]\nevery = \"1h\"\ntimeout = \"10s\"\n")
	probe := func(name, address, more string) {
		fmt.Fprintf(&config, "[probe.%s]\nkind = \"certificate\"\naddress = %q\nca_file = \"%s/root.pem\"\n%s\n", named(name), address, p.dir, strings.ReplaceAll(more, "DIR", p.dir))
	}
	for i := range served {
		c := &served[i]
		file, n := fmt.Sprintf("case%d", i), port(t)
		p.save(file, c.chain...)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; %s }\n", n, file, file, c.nginx)
		c.address = fmt.Sprintf("localhost:%d", n)
		probe(c.name, c.address, c.probe)
	}
	more := p.startOthers(t, mid, leaf, probe, &servers)
	serveNginx(t, p.dir, fmt.Sprintf("server { listen 127.0.0.1:%d; root %s; }\n%s", plain, site, servers.String()))
	reachable(t, plain)
	p.renew(mid, leaf) // after nginx has read what it serves
	return append(served, more...), config.String()
}

// named makes the name of a probe of that of a case.
func named(text string) string { return strings.NewReplacer(" ", "-", ",", "", ".", "").Replace(text) }

func brief(raw string) string { return raw[:min(len(raw), 1600)] }

// inspect gives what people are shown of a server.
func (p *pki) inspect(address string) string {
	p.t.Helper()
	out, err := exec.Command(binary(p.t), "inspect", "cert", "--ca-file", filepath.Join(p.dir, "root.pem"), address).CombinedOutput()
	if err != nil {
		p.t.Errorf("inspect cert: %v", err)
	}
	return string(out)
}

// oddSerial has OpenSSL issue a certificate with a negative serial, which crypto/x509 neither writes nor reads.
func (p *pki) oddSerial(name string, by *node) *node {
	p.t.Helper()
	key := newKey(p.t)
	p.save("odd", &node{by.cert, key})
	p.save("by", by)
	p.openssl("req", "-new", "-key", "odd.key", "-subj", "/CN="+name, "-out", "odd.csr")
	p.openssl("x509", "-req", "-in", "odd.csr", "-CA", "by.crt", "-CAkey", "by.key", "-set_serial", "-5", "-days", "60", "-outform", "der", "-out", "odd.der")
	der, err := os.ReadFile(filepath.Join(p.dir, "odd.der"))
	if err != nil {
		p.t.Fatal(err)
	}
	return &node{&x509.Certificate{Raw: der}, key}
}

// drips is a server whose answer never ends, a byte at a time.
func drips(t *testing.T) string {
	return serve(t, func(c net.Conn) {
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
		for range 1000 {
			if _, err := c.Write([]byte{0x30}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

func mustRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustFile(t *testing.T, path string) string {
	t.Helper()
	write(t, path, "")
	return path
}

// startOCSP starts the responder of OpenSSL, by an index of what was revoked and what was not.
func (p *pki) startOCSP(n int, by *node, revoked, good []*node) {
	p.t.Helper()
	p.save("ocsp", p.issue("responder", by, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} }))
	write(p.t, filepath.Join(p.dir, "mid.pem"), by.pem())
	const form = "060102150405Z"
	var index strings.Builder
	for _, c := range revoked {
		fmt.Fprintf(&index, "R\t%s\t%s,keyCompromise\t%X\tunknown\t/CN=localhost\n", c.cert.NotAfter.UTC().Format(form), time.Now().Add(-time.Hour).UTC().Format(form), c.cert.SerialNumber)
	}
	for _, c := range good {
		fmt.Fprintf(&index, "V\t%s\t\t%X\tunknown\t/CN=localhost\n", c.cert.NotAfter.UTC().Format(form), c.cert.SerialNumber)
	}
	write(p.t, filepath.Join(p.dir, "index.txt"), index.String())
	write(p.t, filepath.Join(p.dir, "index.txt.attr"), "unique_subject = no\n")
	start(p.t, "waiting", nil, p.dir, need(p.t, "openssl"), "ocsp", "-index", "index.txt", "-port", fmt.Sprint(n), "-rsigner", "ocsp.crt", "-rkey", "ocsp.key", "-CA", "mid.pem", "-ndays", "1")
}

// staple writes what the responder would answer, today or ten days ago.
func (p *pki) staple(name string, n, by *node, old bool) {
	p.t.Helper()
	write(p.t, filepath.Join(p.dir, name+".pem"), n.pem())
	p.openssl("ocsp", "-issuer", "mid.pem", "-cert", name+".pem", "-no_nonce", "-reqout", name+".req")
	var env []string
	if old {
		env = []string{"FAKETIME=-10d", "LD_PRELOAD=" + faketime(p.t)}
	}
	p.opensslIn(env, "ocsp", "-index", "index.txt", "-CA", "mid.pem", "-rsigner", "ocsp.crt", "-rkey", "ocsp.key", "-reqin", name+".req", "-ndays", "1", "-respout", name+".ocsp")
}

// startOthers starts the servers whose fault is not in the chain, and tells what must be found.
func (p *pki) startOthers(t *testing.T, mid *node, leaf func(func(*x509.Certificate)) *node, probe func(name, address, more string), servers *strings.Builder) []served {
	good := leaf(nil)
	p.save("plaingood", good)
	p.save("good", good, mid)
	p.save("default", p.issue("default.test", mid, nil), mid)
	openssl := func(args ...string) string {
		n := port(t)
		start(t, "ACCEPT", nil, p.dir, need(t, "openssl"), append([]string{"s_server", "-www", "-accept", fmt.Sprintf("127.0.0.1:%d", n), "-cert", "plaingood.crt", "-key", "plaingood.key", "-cert_chain", "mid.pem"}, args...)...)
		return fmt.Sprintf("localhost:%d", n)
	}
	demanding := openssl("-Verify", "2", "-verify_return_error", "-CAfile", "root.pem")
	client := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	p.save("client", p.issue("robot", mid, client), mid)
	p.save("noclient", p.issue("robot", mid, nil), mid)
	p.save("foreign", p.issue("robot", p.issue("CA Foreign", nil, nil), client))
	mine := func(cert, key string) string {
		return fmt.Sprintf("client_certificate = \"DIR/%s.crt\"\nclient_key = \"DIR/%s.key\"", cert, key)
	}
	probe("A26 client certificate wanted, none set", demanding, "")
	probe("client certificate is taken", demanding, mine("client", "client"))
	probe("A23 client certificate not for clients", demanding, mine("noclient", "noclient"))
	probe("A24 key of another", demanding, mine("client", "noclient"))
	probe("A25 client certificate of another authority", demanding, mine("foreign", "foreign"))
	list := []served{
		{name: "A26 client certificate wanted, none set", cause: "tls_client_cert_required"},
		{name: "client certificate is taken"},
		{name: "A23 client certificate not for clients", cause: "tls_client_cert_rejected", word: "client_cert_usage"},
		{name: "A24 key of another", cause: "tls_client_cert_rejected", word: "client_key_mismatch", blind: true},
		{name: "A25 client certificate of another authority", cause: "tls_client_cert_rejected", word: "client_cert_not_accepted"},
	}
	shared := port(t)
	fmt.Fprintf(servers, "server { listen 127.0.0.1:%d ssl default_server; ssl_certificate default.crt; ssl_certificate_key default.key; }\nserver { listen 127.0.0.1:%d ssl; server_name localhost; ssl_certificate good.crt; ssl_certificate_key good.key; }\n", shared, shared)
	probe("A37 with SNI", fmt.Sprintf("localhost:%d", shared), "")
	probe("A37 a name that the server does not know", fmt.Sprintf("localhost:%d", shared), `server_name = "unknown.test"`)
	list = append(list, served{name: "A37 with SNI"}, served{name: "A37 a name that the server does not know", cause: "tls_name_mismatch", word: "default.test"})

	gate := port(t)
	write(t, filepath.Join(p.dir, "haproxy.cfg"), fmt.Sprintf("global\n maxconn 64\ndefaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\nfrontend gate\n bind 127.0.0.1:%d\n http-request return status 407 hdr Proxy-Authenticate 'Basic realm=\"gate\"'\n", gate))
	start(t, "", nil, p.dir, need(t, "haproxy"), "-db", "-f", "haproxy.cfg")
	reachable(t, gate)
	probe("A39 proxy wants credentials", fmt.Sprintf("localhost:%d", shared), fmt.Sprintf("proxy = \"http://127.0.0.1:%d\"", gate))
	list = append(list, served{name: "A39 proxy wants credentials", cause: "proxy_auth_required", blind: true})

	probe("A54 TLS 1.0 only", openssl("-tls1", "-cipher", "ALL:@SECLEVEL=0"), "")
	probe("A55 handshake never completes", localhost(t, silent(t)), `timeout = "2s"`)
	probe("A40 SMTP without STARTTLS", localhost(t, serve(t, func(c net.Conn) {
		fmt.Fprint(c, "220 mx.test ESMTP\r\n")
		c.Read(make([]byte, 512))
		fmt.Fprint(c, "250-mx.test\r\n250 SIZE\r\n")
		c.Read(make([]byte, 512))
	})), `starttls = "smtp"`)
	list = append(list, served{name: "A54 TLS 1.0 only", cause: "tls_weak", word: "protocol_too_old", blind: true},
		served{name: "A55 handshake never completes", cause: "timeout", blind: true},
		served{name: "A40 SMTP without STARTTLS", cause: "tls_starttls_unavailable", word: "starttls_not_offered", blind: true})

	old := port(t)
	p.save("renewed", leaf(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(40 * 24 * time.Hour) }), mid)
	fmt.Fprintf(servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate renewed.crt; ssl_certificate_key renewed.key; }\n", old)
	probe("A48 renewed on disk, the old one served", fmt.Sprintf("localhost:%d", old), `files = ["DIR/renewed.crt"]`)
	return append(list, served{name: "A48 renewed on disk, the old one served", cause: "tls_renewed_not_deployed"})
}

// renew replaces a file that nginx has read already.
func (p *pki) renew(mid *node, leaf func(func(*x509.Certificate)) *node) {
	p.save("renewed", leaf(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(-2 * time.Hour) }), mid)
}

// localhost gives an address by its name.
func localhost(t *testing.T, address string) string {
	t.Helper()
	_, n, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "localhost:" + n
}

// TestCertificates_fleet looks at hosts with an address of each family: one that shows the old certificate, one that refuses,
// one that shows an expired one (A35, A36).
func TestCertificates_fleet(t *testing.T) {
	t.Parallel()
	p := &pki{t: t, dir: t.TempDir()}
	day := 24 * time.Hour
	root := p.issue("CA Root", nil, nil)
	write(t, filepath.Join(p.dir, "root.pem"), root.pem())
	until := func(name string, from, to time.Duration) {
		p.save(name, p.issue("localhost", root, func(c *x509.Certificate) {
			c.DNSNames, c.NotBefore, c.NotAfter = []string{"fleet.test"}, time.Now().Add(from), time.Now().Add(to)
		}), root)
	}
	until("new", -day, 89*day)
	until("old", -60*day, 30*day)
	until("over", -91*day, -day)
	var servers, config strings.Builder
	last := 0
	for _, c := range []struct{ name, four, six, more string }{
		{"same", "new", "new", ""}, {"mixed", "new", "old", ""}, {"refused", "new", "", ""}, {"over", "new", "over", ""}, {"first", "new", "over", `addresses = "first"`},
	} {
		last = port(t)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; }\n", last, c.four, c.four)
		if c.six != "" {
			fmt.Fprintf(&servers, "server { listen [::1]:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; }\n", last, c.six, c.six)
		}
		fmt.Fprintf(&config, "[probe.%s]\nkind = \"certificate\"\naddress = \"fleet.test:%d\"\nca_file = \"%s/root.pem\"\n%s\n", c.name, last, p.dir, c.more)
	}
	serveNginx(t, p.dir, servers.String())
	reachable(t, last)
	records := onceAmong(t, "127.0.0.1 localhost fleet.test\n::1 fleet.test\n", config.String())
	for name, want := range map[string]struct {
		ok          bool
		cause, word string
	}{
		"same":    {true, "", `"subject":"ipv6,ok","value":1`},
		"mixed":   {true, "tls_fleet_inconsistent", "::1 one that began"},
		"refused": {true, "network_unreachable", `"subject":"ipv6,fault","value":1`},
		"over":    {false, "tls_cert_expired", "::1"},
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
	if n := strings.Count(records["first"].raw, `"method":"TLS"`); n != 1 {
		t.Errorf("first: %d addresses were looked at: %s", n, brief(records["first"].raw))
	}
}

// TestCertificates_wrongClock: three time servers say that the local clock is forty days ahead; what looks expired is a
// matter of the clock (A5), and so is what does not live yet by one that is behind (A4).
func TestCertificates_wrongClock(t *testing.T) {
	t.Parallel()
	p := &pki{t: t, dir: t.TempDir()}
	now, day := time.Now(), 24*time.Hour
	root := p.issue("CA Root", nil, nil)
	mid := p.issue("CA Intermediate", root, nil)
	write(t, filepath.Join(p.dir, "root.pem"), root.pem())
	for _, c := range []struct {
		name     string
		offset   int
		from, to time.Duration
	}{
		{"A5", -40 * 86400, -60 * day, -day},
		{"A4", 7200, time.Hour, 30 * day},
	} {
		p.save(c.name, p.issue("localhost", mid, func(x *x509.Certificate) { x.NotBefore, x.NotAfter = now.Add(c.from), now.Add(c.to) }), mid)
		n := port(t)
		start(t, "ACCEPT", nil, p.dir, need(t, "openssl"), "s_server", "-www", "-accept", fmt.Sprintf("127.0.0.1:%d", n), "-cert", c.name+".crt", "-key", c.name+".key", "-cert_chain", c.name+".crt")
		records := once(t, fmt.Sprintf("[probe.clock]\nkind = \"ntp\"\nservers = [%q, %q, %q]\n[probe.cert]\nkind = \"certificate\"\naddress = \"localhost:%d\"\nca_file = \"%s/root.pem\"\n",
			startChrony(t, c.offset), startChrony(t, c.offset), startChrony(t, c.offset), n, p.dir))
		if r := records["cert"]; len(r.Findings) == 0 || r.Findings[0].Cause != "clock_skew" || r.Findings[0].Culprit != "host" {
			t.Errorf("%s: %s", c.name, brief(r.raw))
		}
	}
}
