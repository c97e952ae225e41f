package probes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	keystore "github.com/pavlo-v-chernykh/keystore-go/v4"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/certfile"
	"github.com/authvigil/authvigil/probes/evidence"
)

func put(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
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

// TestCertificate_files looks at files by themselves: A44, A46, A47, A53.
func TestCertificate_files(t *testing.T) {
	root := issue(t, "CA Root", nil, nil)
	good, old := issue(t, site, root, nil), issue(t, site, root, until(-90*day, -day))
	t.Run("A44 two aliases, one expired", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.jks")
		put(t, path, jks(t, "changeit", map[string]*pair{"new": good, "old": old}))
		var ref secret.Ref
		if err := ref.UnmarshalText([]byte("plain:changeit")); err != nil {
			t.Fatal(err)
		}
		r, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}, "Passphrase": ref})
		if codeOfFault(fault) != "expired" || !strings.Contains(fault.Error(), "(old)") {
			t.Errorf("got %v", fault)
		}
		for i, p := range []*pair{good, old} {
			if at, ok := reading(r, certNotAfter, fmt.Sprintf("%s#%d", path, i), "leaf"); !ok || at != float64(p.cert.NotAfter.Unix()) {
				t.Errorf("certificate %d has no series: %v", i, r.Readings)
			}
		}
	})
	t.Run("A46 half-written during a rotation", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "cert.pem")
		put(t, path, []byte(good.pem()))
		p := makeProbe(t, "certificate", testEnv(), map[string]any{"Files": []string{path}})
		renewed := issue(t, site, root, nil)
		for i, step := range []struct {
			text    string
			code    string
			stands  string
			series  bool
			rotated float64
		}{{good.pem(), "", "", true, 0}, {renewed.pem()[:200], "", "being_written", true, 0}, {renewed.pem()[:200], "bad_pem", "", false, 0}, {renewed.pem(), "", "", true, 1}, {renewed.pem(), "", "", true, 0}} {
			put(t, path, []byte(step.text))
			r, fault := run(t, p)
			_, series := reading(r, certNotAfter, path+"#0", "leaf")
			n, _ := reading(r, certRotations)
			if codeOfFault(fault) != step.code || series != step.series || facetOf(r, "stored").Code != step.stands || n != step.rotated {
				t.Errorf("step %d: got %v, series %v, %+v, %v rotations", i, fault, series, facetOf(r, "stored"), n)
			}
		}
	})
	t.Run("A47 a swapped link counts once", func(t *testing.T) {
		dir := t.TempDir()
		renewed := issue(t, site, root, nil)
		for name, p := range map[string]*pair{"..one": good, "..two": renewed} {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, name, "tls.crt"), []byte(p.pem()))
		}
		link := func(to string) {
			tmp := filepath.Join(dir, "..tmp")
			if err := os.Symlink(to, tmp); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(tmp, filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		link("..one")
		if err := os.Symlink("..data/tls.crt", filepath.Join(dir, "tls.crt")); err != nil {
			t.Fatal(err)
		}
		p := makeProbe(t, "certificate", testEnv(), map[string]any{"Files": []string{dir}})
		total := 0.0
		for i := range 6 {
			if i == 3 {
				link("..two")
			}
			r, fault := run(t, p)
			if fault != nil {
				t.Fatal(fault)
			}
			n, _ := reading(r, certRotations)
			total += n
			if files, _ := reading(r, certFiles); files != 1 {
				t.Errorf("%v files", files)
			}
		}
		if total != 1 {
			t.Errorf("%v rotations", total)
		}
	})
	t.Run("A53 duplicates in a bundle", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "b.pem")
		put(t, path, []byte(good.pem()+good.pem()))
		r, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}})
		seen := map[string]bool{}
		for _, rd := range r.Readings {
			key := rd.Metric.Name + strings.Join(rd.Labels, "|")
			if seen[key] {
				t.Errorf("%s twice", key)
			}
			seen[key] = true
		}
		if fault != nil {
			t.Error(fault)
		}
	})
	t.Run("bundle of roots with an old one", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "roots.pem")
		put(t, path, []byte(root.pem()+issue(t, "CA Old", nil, until(-90*day, -day)).pem()))
		r, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}})
		if f := facetOf(r, "time"); fault != nil || f.State != evidence.Warn {
			t.Errorf("got %v, %+v", fault, f)
		}
	})
	t.Run("authority that ended", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "ca.pem")
		put(t, path, []byte(issue(t, "CA Old", nil, until(-90*day, -day)).pem()))
		if _, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}}); codeOfFault(fault) != "expired" {
			t.Errorf("got %v", fault)
		}
	})
	t.Run("would be served incomplete", func(t *testing.T) {
		mid := issue(t, "CA Mid", root, nil)
		path := filepath.Join(t.TempDir(), "leaf.pem")
		put(t, path, []byte(issue(t, site, mid, nil).pem()))
		_, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}, "CAFile": file(t, "ca.pem", root.pem())})
		if codeOfFault(fault) != "incomplete_chain" {
			t.Errorf("got %v", fault)
		}
	})
	t.Run("one bad file hides no other", func(t *testing.T) {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "a.pem"), []byte("-----BEGIN CERTIFICATE-----\n"))
		put(t, filepath.Join(dir, "b.pem"), []byte(good.pem()))
		put(t, filepath.Join(dir, "readme.txt"), []byte("x"))
		r, fault, _ := newTown(t).look(map[string]any{"Files": []string{dir}})
		if codeOfFault(fault) != "bad_pem" || fault.Symptom != evidence.SymptomSource {
			t.Errorf("got %v", fault)
		}
		if _, ok := reading(r, certNotAfter, filepath.Join(dir, "b.pem")+"#0", "leaf"); !ok {
			t.Errorf("readings %v", r.Readings)
		}
		if n, _ := reading(r, certLoadFailures, "bad_pem"); n != 1 {
			t.Errorf("readings %v", r.Readings)
		}
	})
	for name, c := range map[string]struct {
		make func(path string)
		code string
	}{
		"not there": {func(string) {}, "not_found"},
		"too large": {func(path string) { put(t, path, make([]byte, certfile.MaxBytes+1)) }, "too_large"},
		"directory": {func(path string) { _ = os.Mkdir(path, 0o700) }, "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.pem")
			c.make(path)
			if _, fault, _ := newTown(t).look(map[string]any{"Files": []string{path}}); codeOfFault(fault) != c.code {
				t.Errorf("got %v, want %s", fault, c.code)
			}
		})
	}
}

// TestCertificate_renewedNotDeployed is A48: the file is newer than what is served.
func TestCertificate_renewedNotDeployed(t *testing.T) {
	b := newBench(t)
	old, renewed := issue(t, site, b.mid, until(-60*day, 30*day)), issue(t, site, b.mid, until(-time.Hour, 90*day))
	b.shows(old, b.mid)
	path := filepath.Join(t.TempDir(), "fullchain.pem")
	put(t, path, []byte(renewed.pem()+b.mid.pem()))
	r, fault, _ := b.look(map[string]any{"Address": site + ":443", "Files": []string{path}})
	if codeOfFault(fault) != "renewed_not_deployed" || !strings.Contains(fault.Error(), path) {
		t.Errorf("got %v, %+v", fault, facetOf(r, "deployed"))
	}
	put(t, path, []byte(old.pem()))
	if r, fault, _ := b.look(map[string]any{"Address": site + ":443", "Files": []string{path}}); fault != nil || facetOf(r, "deployed").State != evidence.OK {
		t.Errorf("deployed: got %v, %+v", fault, facetOf(r, "deployed"))
	}
	put(t, path, []byte(issue(t, "other.example.test", b.mid, nil).pem()))
	if r, fault, _ := b.look(map[string]any{"Address": site + ":443", "Files": []string{path}}); fault != nil || facetOf(r, "deployed").Code != "nothing_stored" {
		t.Errorf("another name: got %v, %+v", fault, facetOf(r, "deployed"))
	}
}

// FuzzReadLeniently: a damaged certificate is read as far as it goes.
func FuzzReadLeniently(f *testing.F) {
	f.Add(issue(f, site, nil, nil).cert.Raw)
	f.Add([]byte{0x30, 0x82})
	f.Fuzz(func(_ *testing.T, b []byte) {
		readLeniently(b, true)
		certificatesOf(b)
	})
}
