package certfile

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	keystore "github.com/pavlo-v-chernykh/keystore-go/v4"
	pkcs12 "software.sslmate.com/src/go-pkcs12"
)

// A pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t testing.TB, name string) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &pair{c, key}
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

func pfx(t testing.TB, e *pkcs12.Encoder, p *pair, passphrase string, chain ...*x509.Certificate) []byte {
	t.Helper()
	b, err := e.Encode(p.key, p.cert, chain, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// jks writes a Java key store as an independent library does.
func jks(t testing.TB, passphrase string, entries map[string]*pair) []byte {
	t.Helper()
	ks := keystore.New(keystore.WithMinPasswordLen(0), keystore.WithOrderedAliases())
	for alias, p := range entries {
		if err := ks.SetTrustedCertificateEntry(alias, keystore.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: keystore.Certificate{Type: "X509", Content: p.cert.Raw}}); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := ks.Store(&b, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jksWithKey(t testing.TB, passphrase string, p *pair, chain ...*pair) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		t.Fatal(err)
	}
	entry := keystore.PrivateKeyEntry{CreationTime: time.Now(), PrivateKey: key}
	for _, c := range append([]*pair{p}, chain...) {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X509", Content: c.cert.Raw})
	}
	ks := keystore.New(keystore.WithOrderedAliases())
	if err := ks.SetPrivateKeyEntry("server", entry, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := ks.Store(&b, []byte(passphrase)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestParse reads every form, and says of what it cannot read why: A43 to A45.
func TestParse(t *testing.T) {
	root := issue(t, "CA Root")
	leaf, old := issue(t, "site.example.test"), issue(t, "old.example.test")
	kubeconfig := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters:\n- name: prod\n  cluster:\n    certificate-authority-data: %s\nusers:\n- name: admin\n  user:\n    client-certificate-data: %s\n",
		base64.StdEncoding.EncodeToString([]byte(root.pem())), base64.StdEncoding.EncodeToString([]byte(leaf.pem())))
	trust, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{root.cert, leaf.cert}, "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, passphrase string
		bytes            []byte
		form             string
		count            int
		code             string
	}{
		{"pem", "", []byte(leaf.pem() + root.pem()), "pem", 2, ""},
		{"A45 pem with the key first", "", []byte(leaf.keyPEM(t) + leaf.pem()), "pem", 1, ""},
		{"pem with words around", "", []byte("subject=x\n" + leaf.pem() + "\nend\n"), "pem", 1, ""},
		{"A46 pem cut in the middle", "", []byte(leaf.pem()[:300]), "pem", 0, "bad_pem"},
		{"A46 second block cut", "", []byte(leaf.pem() + root.pem()[:200]), "pem", 1, "bad_pem"},
		{"pem with nonsense inside", "", []byte("-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"), "pem", 0, "bad_pem"},
		{"a key only", "", []byte(leaf.keyPEM(t)), "pem", 0, "no_certificate"},
		{"der", "", leaf.cert.Raw, "der", 1, ""},
		{"der of two", "", append(append([]byte(nil), leaf.cert.Raw...), root.cert.Raw...), "der", 2, ""},
		{"der cut", "", leaf.cert.Raw[:200], "der", 0, "bad_der"},
		{"A43 pkcs12, modern", "secret", pfx(t, pkcs12.Modern2023, leaf, "secret", root.cert), "pkcs12", 2, ""},
		{"pkcs12 of old", "secret", pfx(t, pkcs12.LegacyDES, leaf, "secret", root.cert), "pkcs12", 2, ""},
		{"A43 pkcs12, empty passphrase", "", pfx(t, pkcs12.Modern2023, leaf, ""), "pkcs12", 1, ""},
		{"A43 pkcs12, wrong passphrase", "wrong", pfx(t, pkcs12.Modern2023, leaf, "secret"), "pkcs12", 0, "bad_passphrase"},
		{"pkcs12, trust store", "secret", trust, "pkcs12", 2, ""},
		{"pkcs12 cut", "secret", pfx(t, pkcs12.Modern2023, leaf, "secret")[:400], "der", 0, "bad_der"},
		{"pkcs12 with absurd rounds", "secret", pfx(t, pkcs12.Modern2023.WithIterations(maxRounds+1), leaf, "secret"), "pkcs12", 0, "bad_pkcs12"},
		{"A44 jks with two aliases", "changeit", jks(t, "changeit", map[string]*pair{"new": leaf, "old": old}), "jks", 2, ""},
		{"jks with a key and its chain", "changeit", jksWithKey(t, "changeit", leaf, root), "jks", 2, ""},
		{"jks without a passphrase", "", jks(t, "changeit", map[string]*pair{"new": leaf}), "jks", 1, ""},
		{"jks, wrong passphrase", "wrong", jks(t, "changeit", map[string]*pair{"new": leaf}), "jks", 0, "bad_passphrase"},
		{"jks cut", "", jks(t, "changeit", map[string]*pair{"new": leaf})[:100], "jks", 0, "bad_jks"},
		{"jks with an absurd length", "", append([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01a12345678\xff\xff\xff\xff"), make([]byte, 40)...), "jks", 0, "bad_jks"},
		{"kubeconfig", "", []byte(kubeconfig), "kubeconfig", 2, ""},
		{"kubeconfig that points elsewhere", "", []byte("kind: Config\nclusters: []\nusers: [{name: a, user: {client-certificate: /x.pem}}]\n"), "kubeconfig", 0, "no_certificate"},
		{"kubeconfig, not base64", "", []byte("kind: Config\nusers:\n- name: a\n  user: {client-certificate-data: '%%%'}\n"), "kubeconfig", 0, "bad_kubeconfig"},
		{"empty", "", nil, "pem", 0, "no_certificate"},
		{"something else", "", []byte("hello"), "", 0, "no_certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			form, list, err := Parse(c.bytes, c.passphrase)
			code := codeOf(err)
			if form != c.form || len(list) != c.count || code != c.code {
				t.Errorf("got %s, %d certificates, %v; want %s, %d, %q", form, len(list), err, c.form, c.count, c.code)
			}
		})
	}
}

// TestRead refuses what is no file of a sensible size, by a word of the closed list.
func TestRead(t *testing.T) {
	for code, make := range map[string]func(path string) error{
		"":           func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) },
		"not_found":  func(string) error { return nil },
		"too_large":  func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"unreadable": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		path := filepath.Join(t.TempDir(), "x.pem")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if code == "too_large" {
			if err := os.Truncate(path, MaxBytes+1); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Read(path); codeOf(err) != code {
			t.Errorf("got %v, want %q", err, code)
		}
	}
}

// codeOf is the code of an error; only success is empty.
func codeOf(err error) string {
	if err == nil {
		return ""
	}
	return AsError(err).Code
}

// FuzzParse: whatever a file holds, reading it ends, allocates little, and gives certificates or a reason.
func FuzzParse(f *testing.F) {
	leaf := issue(f, "site.example.test")
	f.Add([]byte(leaf.pem()), "")
	f.Add(leaf.cert.Raw, "")
	f.Add(pfx(f, pkcs12.Modern2023.WithIterations(10), leaf, "x"), "x")
	f.Add(jks(f, "changeit", map[string]*pair{"a": leaf}), "changeit")
	f.Add([]byte("kind: Config\nusers:\n- {name: a, user: {client-certificate-data: QQ==}}\n"), "")
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), "")
	random := make([]byte, 64)
	_, _ = rand.Read(random)
	f.Add(random, "")
	f.Fuzz(func(t *testing.T, b []byte, passphrase string) {
		if len(b) > 64<<10 || pkcs12Rounds(b) > 5000 {
			return
		}
		_, list, err := Parse(b, passphrase)
		if err == nil && len(list) == 0 {
			t.Error("neither certificates nor a reason")
		}
		if err != nil && codeOf(err) == "unreadable" {
			t.Errorf("a reason that is none: %v", err)
		}
		Published(b)
	})
}
