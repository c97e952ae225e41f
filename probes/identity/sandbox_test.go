package identity

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

func inWorld(t *testing.T, f func(t *testing.T, w *sandbox.World, n wire.Net)) {
	synctest.Test(t, func(t *testing.T) {
		w := sandbox.New()
		defer w.Close()
		f(t, w, wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()})
	})
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

func keyFile(t *testing.T) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(sandbox.ClientKey())
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestOAuth2_clientAuthentication goes through every way in which a client proves itself, with a server that verifies it.
func TestOAuth2_clientAuthentication(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		certificate, key := sandbox.PEM(w.ClientCertificate(sandbox.TLSID, sandbox.Certificate{}))
		for _, c := range []struct {
			auth, id string
			set      func(reflect.Value)
		}{
			{"basic", sandbox.ClientID, func(v reflect.Value) { v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.ClientSecret)) }},
			{"post", sandbox.ClientID, func(v reflect.Value) { v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.ClientSecret)) }},
			{"basic", sandbox.SpecialID, func(v reflect.Value) { v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.SpecialSecret)) }},
			{"private_key_jwt", sandbox.KeyID, func(v reflect.Value) { v.FieldByName("PrivateKey").Set(ref(keyFile(t))) }},
			{"tls", sandbox.TLSID, func(v reflect.Value) {
				v.FieldByName("Certificate").Set(ref(file(t, "client.pem", certificate)))
				v.FieldByName("PrivateKey").Set(ref(file(t, "client.key", key)))
			}},
		} {
			id := build(t, "oauth2", n, io.Discard, func(v reflect.Value) {
				v.FieldByName("Issuer").SetString(sandbox.Issuer)
				v.FieldByName("ClientID").SetString(c.id)
				v.FieldByName("ClientAuth").SetString(c.auth)
				c.set(v)
			})
			g, err := id.Apply(t.Context(), request())
			if err != nil || g.Token == nil || g.Token.Format != "jwt" || g.Token.Issuer != sandbox.Issuer {
				t.Errorf("%s as %s: %v, token %+v", c.auth, c.id, err, g.Token)
			}
		}
	})
}

// TestOAuth2_assertionUnderAWrongClock: an issuer whose clock is minutes off refuses our assertion, and its Date tells why.
func TestOAuth2_assertionUnderAWrongClock(t *testing.T) {
	for clock, words := range map[time.Duration]string{2 * time.Minute: "2 min 0 s ahead of ours, the signed assertion had ended", -2 * time.Minute: "2 min 0 s behind ours, the signed assertion was not valid yet"} {
		inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
			w.IdP.Set(func(f *sandbox.IdPFaults) { f.Clock = clock })
			id := build(t, "oauth2", n, io.Discard, func(v reflect.Value) {
				v.FieldByName("Issuer").SetString(sandbox.Issuer)
				v.FieldByName("ClientID").SetString(sandbox.KeyID)
				v.FieldByName("ClientAuth").SetString("private_key_jwt")
				v.FieldByName("PrivateKey").Set(ref(keyFile(t)))
			})
			g, err := id.Apply(t.Context(), request())
			if f := evidence.AsFault(err); f == nil || f.Symptom != evidence.SymptomTokenRefused || f.Code != "invalid_client" {
				t.Fatalf("%s: got %v", clock, err)
			}
			if len(g.Notes) == 0 || g.Notes[0].Code != "assertion_untimely" || !strings.Contains(g.Notes[0].Detail, words) {
				t.Errorf("%s: notes %v, want %s", clock, g.Notes, words)
			}
		})
	}
}

// TestMTLS_showsItsCertificate asks the API that requires one; and not with a key that does not belong to it.
func TestMTLS_showsItsCertificate(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		certificate, key := sandbox.PEM(w.ClientCertificate("device", sandbox.Certificate{}))
		make := func(keyRef string) Identity {
			return build(t, "mtls", n, io.Discard, func(v reflect.Value) {
				v.FieldByName("Certificate").Set(ref(file(t, "client.pem", certificate)))
				v.FieldByName("PrivateKey").Set(ref(keyRef))
			})
		}
		id := make(file(t, "client.key", key))
		client, err := wire.New(n, wire.Settings{})
		if err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequest(http.MethodGet, "https://"+sandbox.MTLSHost+"/mtls", nil)
		g, err := id.Apply(t.Context(), req)
		if err != nil || g.Scheme != "mtls" || len(g.Readings) != 1 {
			t.Fatalf("Apply: %v %+v", err, g)
		}
		a, err := client.Ask(t.Context(), wire.Question{Request: req, Stage: evidence.StageAPI, Certificate: id.ClientCertificate})
		if err != nil || a.Exchange.Status != http.StatusOK {
			t.Errorf("with a certificate: %v, status %d", err, a.Exchange.Status)
		}
		if _, err := client.Ask(t.Context(), wire.Question{Request: req.Clone(t.Context()), Stage: evidence.StageAPI}); err == nil {
			t.Error("without a certificate the server let us in")
		}
		if _, err := make(keyFile(t)).Apply(t.Context(), req); err == nil || evidence.AsFault(err).Code != "certificate" {
			t.Errorf("a key that does not belong to it: %v", err)
		}
	})
}
