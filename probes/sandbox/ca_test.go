package sandbox

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

func TestCertificate_faults(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		now := time.Now()
		invalid := func(reason x509.InvalidReason) func(error) bool {
			return func(err error) bool {
				e, ok := errors.AsType[x509.CertificateInvalidError](err)
				return ok && e.Reason == reason
			}
		}
		unknown := func(err error) bool { _, ok := errors.AsType[x509.UnknownAuthorityError](err); return ok }
		for what, c := range map[string]struct {
			c  Certificate
			is func(error) bool
		}{
			"expired":              {Certificate{NotAfter: now.Add(-time.Minute)}, invalid(x509.Expired)},
			"not yet valid":        {Certificate{NotBefore: now.Add(time.Hour)}, invalid(x509.Expired)},
			"wrong host":           {Certificate{For: "other.example.test"}, func(err error) bool { _, ok := errors.AsType[x509.HostnameError](err); return ok }},
			"self-signed":          {Certificate{Chain: SelfSigned}, unknown},
			"incomplete":           {Certificate{Chain: WithoutIntermediate}, unknown},
			"unknown root":         {Certificate{Chain: UnknownRoot}, unknown},
			"expired intermediate": {Certificate{Chain: ExpiredIntermediate}, func(err error) bool { return err != nil }},
		} {
			w.API.Set(func(f *APIFaults) { f.Certificate = c.c })
			if r := v.get(Audience + "/v2/health"); r.err == nil || !c.is(r.err) {
				t.Errorf("%s: %d, %v", what, r.status, r.err)
			}
		}
		w.API.Reset()
		want(t, v.get(Audience+"/v2/health"), 200, "ok")
	})
}

// leafOf shakes hands and gives what was shown.
func leafOf(t *testing.T, w *World, host string) *x509.Certificate {
	t.Helper()
	c, err := w.Dial(t.Context(), "tcp", host+":443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := tls.Client(c, &tls.Config{ServerName: host, RootCAs: w.Roots()})
	if err := s.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.ConnectionState().PeerCertificates[0]
}

func TestCertificate_goodOnesThatDiffer(t *testing.T) {
	w, _ := world(t)
	soon := time.Now().Add(10 * time.Minute)
	before := leafOf(t, w, APIHost)
	if again := leafOf(t, w, APIHost); !again.Equal(before) {
		t.Error("the certificate changes without a fault")
	}
	w.API.Set(func(f *APIFaults) { f.Certificate = Certificate{NotAfter: soon} })
	if c := leafOf(t, w, APIHost); c.NotAfter.Unix() != soon.Unix() {
		t.Errorf("expires at %s, want %s", c.NotAfter, soon)
	}
	w.API.Set(func(f *APIFaults) { f.Certificate = Certificate{Edition: 2} })
	if c := leafOf(t, w, APIHost); c.SerialNumber.Cmp(before.SerialNumber) == 0 {
		t.Error("another edition is the same certificate")
	}
	w.API.Set(func(f *APIFaults) { f.Certificate = Certificate{WeakKey: true} })
	if key, ok := leafOf(t, w, APIHost).PublicKey.(*rsa.PublicKey); !ok || key.Size() != 128 {
		t.Error("the key is not weak")
	}

}

func TestCertificate_revoked(t *testing.T) {
	w, v := world(t)
	good := leafOf(t, w, AuthHost)
	w.API.Set(func(f *APIFaults) { f.Certificate = Certificate{Revoked: true} })
	c := leafOf(t, w, APIHost)
	r := v.get(c.CRLDistributionPoints[0])
	list, err := x509.ParseRevocationList([]byte(r.body))
	if err != nil || !slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 }) {
		t.Errorf("the list does not hold the certificate: %v", err)
	}
	issuer, err := x509.ParseCertificate([]byte(v.get(c.IssuingCertificateURL[0]).body))
	if err != nil || c.CheckSignatureFrom(issuer) != nil || list.CheckSignatureFrom(issuer) != nil {
		t.Errorf("the issuer at PKIHost is not the issuer: %v", err)
	}
	for cert, status := range map[*x509.Certificate]int{c: ocsp.Revoked, good: ocsp.Good} {
		q, err := ocsp.CreateRequest(cert, issuer, nil)
		if err != nil {
			t.Fatal(err)
		}
		by := map[string]reply{
			"POST": v.do(request(t, "POST", cert.OCSPServer[0], string(q))),
			"GET":  v.get(cert.OCSPServer[0] + "/" + url.PathEscape(base64.StdEncoding.EncodeToString(q))),
		}
		for method, r := range by {
			if a, err := ocsp.ParseResponseForCert([]byte(r.body), cert, issuer); err != nil || a.Status != status {
				t.Errorf("OCSP by %s: %+v, %v; want status %d", method, a, err, status)
			}
		}
	}
	for staple, fresh := range map[Staple]bool{FreshStaple: true, StaleStaple: false} {
		made := w.ca.issue(APIHost, Certificate{Revoked: true, Staple: staple}, false)
		a, err := ocsp.ParseResponse(made.OCSPStaple, issuer)
		if err != nil || a.Status != ocsp.Revoked || a.NextUpdate.After(time.Now()) != fresh {
			t.Errorf("staple %d: %+v, %v", staple, a, err)
		}
	}
}

func TestHost_oldTLS(t *testing.T) {
	w, v := world(t)
	w.API.Set(func(f *APIFaults) { f.OldTLS = true })
	if r := v.get(Audience + "/v2/health"); r.err == nil || !strings.Contains(r.err.Error(), "protocol version") {
		t.Errorf("%d, %v", r.status, r.err)
	}
	c, err := w.Dial(t.Context(), "tcp", APIHost+":443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	old := tls.Client(c, &tls.Config{ServerName: APIHost, RootCAs: w.Roots(), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10})
	if err := old.HandshakeContext(t.Context()); err != nil {
		t.Errorf("with TLS 1.0: %v", err)
	}
}

func TestHost_clientCertificates(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		at := "https://" + MTLSHost + "/mtls"
		if r := v.get(at); r.err == nil || !strings.Contains(r.err.Error(), "certificate required") {
			t.Errorf("without a certificate: %d, %v", r.status, r.err)
		}
		want(t, newVisitor(t, w, w.ClientCertificate("robot", Certificate{})).get(at), 200, "robot")
		for what, c := range map[string]Certificate{
			"expired": {NotAfter: time.Now().Add(-time.Hour)},
			"foreign": {Chain: UnknownRoot},
		} {
			if r := newVisitor(t, w, w.ClientCertificate("robot", c)).get(at); r.err == nil {
				t.Errorf("%s: %d", what, r.status)
			}
		}
		w.API.Set(func(f *APIFaults) { f.RequireClientCertificate = true })
		if r := v.get(Audience + "/v2/health"); r.err == nil {
			t.Errorf("required at the API: %d", r.status)
		}
		cert, key := PEM(w.ClientCertificate("robot", Certificate{}))
		if _, err := tls.X509KeyPair(cert, key); err != nil {
			t.Error(err)
		}
	})
}
