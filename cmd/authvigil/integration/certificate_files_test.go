//go:build integration

package integration

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCertificates_files reads what OpenSSL writes (A43, A45, A53), and lets the daemon watch files that are swapped by symlinks
// (A47) and one that is half written for a while (A46).
func TestCertificates_files(t *testing.T) {
	t.Parallel()
	p := &pki{t: t, dir: t.TempDir()}
	root := p.issue("CA Root", nil, nil)
	good := p.issue("localhost", root, nil)
	p.save("good", good, root)
	p.save("over", p.issue("localhost", root, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), root)
	path := func(name string) string { return filepath.Join(p.dir, name) }
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	export := func(name, passphrase string, more ...string) {
		p.openssl(append([]string{"pkcs12", "-export", "-in", "good.crt", "-inkey", "good.key", "-passout", "pass:" + passphrase, "-out", name}, more...)...)
	}
	export("modern.p12", "secret")
	export("legacy.p12", "secret", "-legacy")
	export("empty.p12", "")
	p.openssl("crl2pkcs7", "-nocrl", "-certfile", "good.crt", "-outform", "DER", "-out", "bundle.p7b")
	p.openssl("x509", "-in", "good.crt", "-outform", "DER", "-out", "one.der")
	write(t, path("key-first.pem"), read("good.key")+read("good.crt"))
	write(t, path("twice.pem"), read("good.crt")+read("good.crt"))
	write(t, path("half.pem"), read("good.crt")[:300])
	for _, dir := range []string{"many", "mount", "mount/..one", "mount/..two"} {
		if err := os.Mkdir(path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path("many/a.crt"), read("good.crt"))
	write(t, path("many/b.crt"), read("over.crt"))
	write(t, path("many/README"), "no certificate")

	var config strings.Builder
	cases := []struct{ name, files, passphrase, cause, word string }{
		{"modern", "modern.p12", "secret", "", "modern.p12#1,root"},
		{"legacy", "legacy.p12", "secret", "", "legacy.p12#0,leaf"},
		{"empty", "empty.p12", "", "", "empty.p12#0,leaf"},
		{"wrong", "modern.p12", "another", "tls_file_unreadable", "bad_passphrase"},
		{"bundle", "bundle.p7b", "", "", "bundle.p7b#1,root"},
		{"one", "one.der", "", "", "one.der#0,leaf"},
		{"key-first", "key-first.pem", "", "", "key-first.pem#0,leaf"},
		{"twice", "twice.pem", "", "", "twice.pem#3,root"},
		{"half", "half.pem", "", "tls_file_unreadable", "is it being written?"},
		{"many", "many", "", "tls_cert_expired", "many/a.crt#0,leaf"},
		{"pattern", "many/a*.crt", "", "", "many/a.crt#0,leaf"},
	}
	for _, c := range cases {
		fmt.Fprintf(&config, "[probe.%s]\nkind = \"certificate\"\nfiles = [%q]\n", c.name, path(c.files))
		if c.passphrase != "" {
			fmt.Fprintf(&config, "passphrase = \"plain:%s\"\n", c.passphrase)
		}
	}
	records := once(t, config.String())
	for _, c := range cases {
		r := records[c.name]
		cause := ""
		if len(r.Findings) > 0 {
			cause = r.Findings[0].Cause
		}
		if cause != c.cause || r.OK != (c.cause == "") || !strings.Contains(r.raw, c.word) {
			t.Errorf("%s: want %q with %q, got %s", c.name, c.cause, c.word, brief(r.raw))
		}
	}

	renewed := p.issue("localhost", root, nil)
	p.save("renewed", renewed, root)
	link := func(to string) {
		t.Helper()
		if err := os.Symlink(to, path("mount/..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path("mount/..tmp"), path("mount/..data")); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path("mount/..one/tls.crt"), read("good.crt"))
	write(t, path("mount/..two/tls.crt"), read("renewed.crt"))
	link("..one")
	if err := os.Symlink("..data/tls.crt", path("mount/tls.crt")); err != nil {
		t.Fatal(err)
	}
	write(t, path("half.pem"), read("good.crt"))
	write(t, path("authvigil.toml"), fmt.Sprintf("[agent]\nstate_directory = %q\n[defaults]\nevery = \"1s\"\n[probe.mount]\nkind = \"certificate\"\nfiles = [%q]\n[probe.half]\nkind = \"certificate\"\nfiles = [%q]\n", path("state"), path("mount"), path("half.pem")))
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	start(t, "listening", []string{"RUNTIME_DIRECTORY=" + p.dir}, p.dir, binary(t), "run", "--config.file", path("authvigil.toml"), "--web.listen-address", address)
	metric := func(line string) func() bool {
		return func() bool {
			_, body := get(t, "http://"+address+"/metrics")
			return strings.Contains(body, "\n"+line)
		}
	}
	end := func(n *node) func() bool {
		return metric(fmt.Sprintf("authvigil_certificate_info{probe=\"mount\",position=\"%s#0\",fingerprint=%q", path("mount/tls.crt"), fingerprint(n)))
	}
	eventually(t, 20*time.Second, "the first file is read", end(good))
	link("..two")
	eventually(t, 10*time.Second, "the file behind the link is another", end(renewed))
	write(t, path("half.pem"), read("good.crt")[:300])
	eventually(t, 10*time.Second, "the half-written file is told", metric(`authvigil_probe_cause{probe="half",cause="tls_file_unreadable"`))
	write(t, path("half.pem"), read("renewed.crt"))
	eventually(t, 10*time.Second, "the file is whole again", func() bool { return !metric(`authvigil_probe_cause{probe="half"`)() })
	for _, probe := range []string{"mount", "half"} {
		if !metric(fmt.Sprintf("authvigil_certificate_rotations_total{probe=%q} 1\n", probe))() {
			t.Errorf("%s: not one rotation", probe)
		}
	}
}

// fingerprint is a certificate's as it stands in labels.
func fingerprint(n *node) string {
	return fmt.Sprintf("%x", sha256.Sum256(n.cert.Raw))[:16]
}
