package identity

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// noteCodes gives the codes of notes, sorted and once each.
func noteCodes(notes []evidence.Note) string {
	var codes []string
	for _, n := range notes {
		codes = append(codes, n.Code)
	}
	slices.Sort(codes)
	return strings.Join(slices.Compact(codes), " ")
}

// valueOf finds a reading by metric and its own label.
func valueOf(list []evidence.Reading, metric *evidence.Metric, label string) (float64, bool) {
	for _, r := range list {
		if r.Metric == metric && (len(r.Labels) == 0 || r.Labels[0] == label) {
			return r.Value, true
		}
	}
	return 0, false
}

// TestCredential_whatIsKnown: age, end, environment and form of a secret, at use and when the configuration is loaded.
func TestCredential_whatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		day := func(d int) Moment { return Moment{now.Add(time.Duration(d) * 24 * time.Hour)} }
		for _, c := range []struct {
			name, key   string
			environment string
			days        int // since the file was changed
			set         func(v reflect.Value)
			notes       string
		}{
			{"a good key", "sk_live_abcdef", "production", 1, nil, ""},
			{"older than it may be", "sk_live_abcdef", "", 91, func(v reflect.Value) { v.FieldByName("RotateEvery").SetInt(int64(90 * 24 * time.Hour)) }, "secret_rotation_due"},
			{"just young enough", "sk_live_abcdef", "", 89, func(v reflect.Value) { v.FieldByName("RotateEvery").SetInt(int64(90 * 24 * time.Hour)) }, ""},
			{"ends by declaration in ten days", "sk_live_abcdef", "", 1, func(v reflect.Value) { v.FieldByName("Expires").Set(reflect.ValueOf(day(10))) }, "credential_expiring"},
			{"ends by declaration in a month", "sk_live_abcdef", "", 1, func(v reflect.Value) { v.FieldByName("Expires").Set(reflect.ValueOf(day(30))) }, ""},
			{"ended by declaration", "sk_live_abcdef", "", 1, func(v reflect.Value) { v.FieldByName("Expires").Set(reflect.ValueOf(day(-1))) }, "credential_expired"},
			{"of another environment by its mark", "sk_test_abcdef", "production", 1, nil, "wrong_environment"},
			{"of another environment by pattern", "pk_live_abcdef", "", 1, func(v reflect.Value) { v.FieldByName("Pattern").Set(patternOf("sk_(live|prod)_")) }, "wrong_environment"},
			{"as the pattern wants", "sk_live_abcdef", "", 1, func(v reflect.Value) { v.FieldByName("Pattern").Set(patternOf("sk_(live|prod)_")) }, ""},
			{"a scheme before it", "Bearer abcdef", "", 1, nil, "credential_malformed"},
			{"a placeholder", "<your key>", "", 1, nil, "credential_malformed"},
		} {
			path := filepath.Join(t.TempDir(), "key")
			write(t, path, []byte(c.key+"\n"))
			changed := now.Add(-time.Duration(c.days) * 24 * time.Hour)
			if err := os.Chtimes(path, changed, changed); err != nil {
				t.Fatal(err)
			}
			id, err := New("api_key", func(into any) error {
				v := reflect.ValueOf(into).Elem()
				v.FieldByName("Key").Set(ref("file:" + path))
				if c.set != nil {
					c.set(v)
				}
				return nil
			}, Env{Name: "x", Jitter: func() float64 { return 0.5 }, Environment: c.environment})
			if err != nil {
				t.Fatal(err)
			}
			g, err := id.Apply(t.Context(), request())
			if err != nil || noteCodes(g.Notes) != c.notes {
				t.Errorf("%s: %v, notes %v, want %s", c.name, err, g.Notes, c.notes)
			}
			if got := noteCodes(id.(Linter).Lint(t.Context())); got != c.notes {
				t.Errorf("%s: at load %s, want %s", c.name, got, c.notes)
			}
			if age, ok := valueOf(g.Readings, SecretAge, "key"); !ok || age != (time.Duration(c.days)*24*time.Hour).Seconds() {
				t.Errorf("%s: age %v", c.name, age)
			}
			if strings.Contains(fmt.Sprint(g.Notes), "abcdef") {
				t.Errorf("%s: the notes show the key", c.name)
			}
		}
	})
}

func patternOf(text string) reflect.Value {
	var p Pattern
	if err := p.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return reflect.ValueOf(p)
}

// TestCredential_everyKindIsLinted: whatever proves a kind, a placeholder in its place is told before it is sent.
func TestCredential_everyKindIsLinted(t *testing.T) {
	field := map[string]string{"api_key": "Key", "basic": "Password", "bearer": "Token", "digest": "Password", "hmac": "Key", "oauth2": "ClientSecret", "session": "Password", "sigv4": "SecretKey"}
	for _, kind := range Kinds() {
		if kind == "none" || kind == "mtls" { // nothing, and a file that a library reads
			continue
		}
		if field[kind] == "" {
			t.Errorf("kind %s is under no lint: name the field of its secret here", kind)
			continue
		}
		id, err := New(kind, func(into any) error {
			v := reflect.ValueOf(into).Elem()
			for name, value := range map[string]string{"Username": "u", "LoginURL": "http://auth.example.test/", "TokenURL": "http://auth.example.test/", "ClientID": "c", "AccessKeyID": "a", "Region": "r", "Service": "s", "Sign": "{path}"} {
				if f := v.FieldByName(name); f.IsValid() {
					f.SetString(value)
				}
			}
			if f := v.FieldByName("Headers"); f.IsValid() {
				f.Set(reflect.ValueOf(map[string]string{"X": "{signature}"}))
			}
			v.FieldByName(field[kind]).Set(ref("plain:<put the secret here>"))
			return nil
		}, Env{Name: "x", Jitter: func() float64 { return 0.5 }})
		if err != nil {
			t.Fatal(kind, err)
		}
		if got := noteCodes(id.(Linter).Lint(t.Context())); got != "credential_malformed" {
			t.Errorf("%s: %q", kind, got)
		}
	}
}

// TestCredential_certificateOfAClient: a client certificate that proves an OAuth client has a runway, too.
func TestCredential_certificateOfAClient(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		now := time.Now()
		certificate, key := sandbox.PEM(w.ClientCertificate(sandbox.TLSID, sandbox.Certificate{NotBefore: now.Add(-95 * time.Hour), NotAfter: now.Add(5 * time.Hour)}))
		id := build(t, "oauth2", n, io.Discard, func(v reflect.Value) {
			v.FieldByName("Issuer").SetString(sandbox.Issuer)
			v.FieldByName("ClientID").SetString(sandbox.TLSID)
			v.FieldByName("ClientAuth").SetString("tls")
			v.FieldByName("Certificate").Set(ref(file(t, "client.pem", certificate)))
			v.FieldByName("PrivateKey").Set(ref(file(t, "client.key", key)))
		})
		g, err := id.Apply(t.Context(), request())
		if end, ok := valueOf(g.Readings, CredentialEnd, "certificate"); err != nil || !ok || end != unix(now.Add(5*time.Hour).Truncate(time.Second)) || noteCodes(g.Notes) != "credential_expiring" {
			t.Errorf("%v, end %v, notes %v", err, end, g.Notes)
		}
	})
}

func TestMoment_andPattern(t *testing.T) {
	var m Moment
	if err := m.UnmarshalText([]byte("2027-03-31")); err != nil || !m.Equal(time.Date(2027, 4, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("a day: %v %v", m, err)
	}
	if err := m.UnmarshalText([]byte("2027-03-31T12:00:00+02:00")); err != nil || !m.Equal(time.Date(2027, 3, 31, 10, 0, 0, 0, time.UTC)) {
		t.Errorf("a moment: %v %v", m, err)
	}
	if err := m.UnmarshalText([]byte("31.3.2027")); err == nil {
		t.Error("31.3.2027 was read")
	}
	var p Pattern
	if err := p.UnmarshalText([]byte("a(")); err == nil {
		t.Error("a( was read")
	}
	if _ = p.UnmarshalText([]byte("a|b")); p.String() != "a|b" || !p.matches("bc") || p.matches("cb") {
		t.Errorf("a|b: %s", p)
	}
}
