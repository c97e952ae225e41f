package probes

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const site = "site.example.test"

// A bench is an authority with an intermediate in a town.
type bench struct {
	*town
	root, mid *pair
}

func newBench(t testing.TB) *bench {
	root := issue(t, "CA Root", nil, nil)
	return &bench{newTown(t, root), root, issue(t, "CA Intermediate", root, nil)}
}

// shows lets the site show a certificate with a chain.
func (b *bench) shows(leaf *pair, chain ...*pair) {
	b.lead(site, "443", secure(b.t, leaf.tls(chain...), nil), false)
}

func until(begin, end time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(begin), time.Now().Add(end) }
}

// TestCertificate_faults walks the cases in which one facet says what is wrong, and the others do not hide behind it.
func TestCertificate_faults(t *testing.T) {
	type want struct {
		fault  string // code; empty: success
		facets map[string]string
		states map[string]evidence.State
	}
	cases := []struct {
		name   string
		build  func(b *bench) map[string]any // settings
		edit   func(*Env)
		want   want
		detail string // in the facet that decides
	}{
		{name: "A1 expired a second ago", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-90*day, -2*time.Second)), b.mid)
			return nil
		}, want: want{fault: "expired", facets: map[string]string{"name": "", "trust": ""}}},
		{name: "A3 not yet valid", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(time.Hour, 90*day)), b.mid)
			return nil
		}, want: want{fault: "not_yet_valid", facets: map[string]string{"trust": ""}}},
		{name: "A4 not yet valid by a slow clock", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(time.Hour, 90*day)), b.mid)
			return nil
		}, edit: wrongClock(-2*time.Hour, evidence.Confident), want: want{fault: "not_yet_valid", states: map[string]evidence.State{"time at true time": evidence.OK}}, detail: "by true time it is good"},
		{name: "A5 expired by a fast clock", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-90*day, -2*day)), b.mid)
			return nil
		}, edit: wrongClock(30*day, evidence.Confident), want: want{fault: "expired", states: map[string]evidence.State{"time at true time": evidence.OK}}},
		{name: "expired, and a slow clock hides it", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-90*day, 10*day)), b.mid)
			return nil
		}, edit: wrongClock(-20*day, evidence.Confident), want: want{fault: "expired", states: map[string]evidence.State{"time at true time": evidence.Fail}}, detail: "hides it"},
		{name: "expired, and one voice alone excuses it", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-90*day, -2*day)), b.mid)
			return nil
		}, edit: wrongClock(30*day, evidence.Unverified), want: want{fault: "expired", states: map[string]evidence.State{"time at true time": evidence.Unknown}}},
		{name: "A6 expired intermediate beside one that lives", build: func(b *bench) map[string]any {
			old := issue(b.t, "CA Intermediate", b.root, func(c *x509.Certificate) { until(-90*day, -day)(c); c.PublicKey = b.mid.key })
			b.shows(issue(b.t, site, b.mid, nil), old, b.mid)
			return nil
		}, want: want{facets: map[string]string{"trust": "", "chain_complete": "expired_certificate"}}},
		{name: "intermediate expired", build: func(b *bench) map[string]any {
			old := issue(b.t, "CA Old", b.root, until(-90*day, -day))
			b.shows(issue(b.t, site, old, nil), old)
			return nil
		}, want: want{fault: "intermediate_expired", facets: map[string]string{"time": ""}}},
		{name: "A7 expired root among what is sent", build: func(b *bench) map[string]any {
			old := issue(b.t, "CA Root", nil, func(c *x509.Certificate) { until(-900*day, -day)(c); c.PublicKey = b.root.key })
			b.shows(issue(b.t, site, b.mid, nil), b.mid, old)
			return nil
		}, want: want{facets: map[string]string{"trust": "", "chain_complete": ""}}},
		{name: "A8 intermediate missing, to be fetched", build: func(b *bench) map[string]any {
			b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) { w.Write(b.mid.cert.Raw) })
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) {
				c.IssuingCertificateURL = []string{"http://pki.example.test/mid.cer"}
			}))
			return nil
		}, want: want{fault: "incomplete_chain", facets: map[string]string{"trust": "", "chain_complete": "incomplete_chain"}}, detail: "pki.example.test/mid.cer"},
		{name: "A9 intermediate missing, 404 where it should be", build: func(b *bench) map[string]any {
			b.web("pki.example.test", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) {
				c.IssuingCertificateURL = []string{"http://pki.example.test/mid.cer"}
			}))
			return nil
		}, want: want{fault: "incomplete_chain"}, detail: "answered 404"},
		{name: "A10 another certificate where the issuer's should be", build: func(b *bench) map[string]any {
			other := issue(b.t, "CA Intermediate", b.root, nil)
			b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) { w.Write(other.cert.Raw) })
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) {
				c.IssuingCertificateURL = []string{"http://pki.example.test/mid.cer"}
			}))
			return nil
		}, want: want{fault: "incomplete_chain"}, detail: "did not sign"},
		{name: "A11 issuer at a private address", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) {
				c.IssuingCertificateURL = []string{"http://169.254.169.254/latest/meta-data"}
			}))
			return nil
		}, want: want{fault: "incomplete_chain"}, detail: "is not public"},
		{name: "A11 issuers in a circle", build: func(b *bench) map[string]any {
			a := issue(b.t, "CA A", nil, nil)
			two := issue(b.t, "CA B", a, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://pki.example.test/a"} })
			one := issue(b.t, "CA A", two, func(c *x509.Certificate) {
				c.PublicKey, c.IssuingCertificateURL = a.key, []string{"http://pki.example.test/b"}
			})
			b.web("pki.example.test", func(w http.ResponseWriter, r *http.Request) {
				w.Write(map[string]*pair{"/a": one, "/b": two}[r.URL.Path].cert.Raw)
			})
			b.shows(issue(b.t, site, one, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://pki.example.test/a"} }))
			return nil
		}, want: want{fault: "unknown_authority"}, detail: "circle"},
		{name: "A12 intermediate of another chain", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), issue(b.t, "CA Stranger", nil, nil))
			return nil
		}, want: want{fault: "wrong_intermediate"}},
		{name: "A12 intermediate of another chain, the right one to be fetched", build: func(b *bench) map[string]any {
			b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) { w.Write(b.mid.cert.Raw) })
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) {
				c.IssuingCertificateURL = []string{"http://pki.example.test/mid.cer"}
			}), issue(b.t, "CA Stranger", nil, nil))
			return nil
		}, want: want{fault: "wrong_intermediate", facets: map[string]string{"trust": ""}}},
		{name: "A13 chain out of order", build: func(b *bench) map[string]any {
			low := issue(b.t, "CA Low", b.mid, nil)
			b.shows(issue(b.t, site, low, nil), b.mid, low)
			return nil
		}, want: want{facets: map[string]string{"trust": "", "chain_complete": "out_of_order"}}},
		{name: "A14 self-signed", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, nil, nil))
			return nil
		}, want: want{fault: "self_signed", facets: map[string]string{"time": "", "name": ""}}},
		{name: "A15 self-signed and pinned", build: func(b *bench) map[string]any {
			leaf := issue(b.t, site, nil, nil)
			b.shows(leaf)
			sum := sha256.Sum256(leaf.cert.Raw)
			return map[string]any{"Fingerprints": []string{hex.EncodeToString(sum[:])}}
		}, want: want{facets: map[string]string{"trust": ""}}},
		{name: "A15 pinned by the key of its authority", build: func(b *bench) map[string]any {
			own := issue(b.t, "CA Own", nil, nil)
			b.shows(issue(b.t, site, own, nil), own)
			sum := sha256.Sum256(own.cert.RawSubjectPublicKeyInfo)
			return map[string]any{"Fingerprints": []string{hex.EncodeToString(sum[:])}}
		}, want: want{facets: map[string]string{"trust": ""}}},
		{name: "pinned authority stands beside a stranger's certificate", build: func(b *bench) map[string]any {
			own := issue(b.t, "CA Own", nil, nil)
			b.shows(issue(b.t, site, nil, nil), own)
			sum := sha256.Sum256(own.cert.RawSubjectPublicKeyInfo)
			return map[string]any{"Fingerprints": []string{hex.EncodeToString(sum[:])}}
		}, want: want{fault: "pin_mismatch"}},
		{name: "A16 private authority without its bundle", build: func(b *bench) map[string]any {
			own := issue(b.t, "CA Own", nil, nil)
			b.shows(issue(b.t, site, own, nil), own)
			return nil
		}, want: want{fault: "unknown_authority"}},
		{name: "A16 private authority with its bundle", build: func(b *bench) map[string]any {
			own := issue(b.t, "CA Own", nil, nil)
			b.shows(issue(b.t, site, own, nil), own)
			return map[string]any{"CAFile": file(b.t, "ca.pem", own.pem())}
		}, want: want{}},
		{name: "A17 name mismatch", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, "other.example.test", b.mid, nil), b.mid)
			return nil
		}, want: want{fault: "name_mismatch", facets: map[string]string{"trust": ""}}, detail: "but for other.example.test"},
		{name: "A18 expired, mismatched and incomplete", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, "other.example.test", b.mid, until(-90*day, -day)))
			return nil
		}, want: want{fault: "expired", facets: map[string]string{"name": "name_mismatch", "trust": "incomplete_chain", "chain_complete": "incomplete_chain"}}},
		{name: "A19 no alternative name", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) { c.DNSNames = nil }), b.mid)
			return nil
		}, want: want{fault: "name_mismatch"}, detail: "no subject alternative name"},
		{name: "A20 wildcard two labels deep", build: func(b *bench) map[string]any {
			b.lead("a.b.example.test", "443", secure(b.t, issue(b.t, "*.example.test", b.mid, nil).tls(b.mid), nil), false)
			return map[string]any{"Address": "a.b.example.test:443"}
		}, want: want{fault: "name_mismatch"}},
		{name: "A21 literal address, certificate for names", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), b.mid)
			return map[string]any{"Address": net.JoinHostPort(b.names[site][0].String(), "443")}
		}, want: want{fault: "name_mismatch"}, detail: "is not for 198.51.100."},
		{name: "A22 not meant for servers", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), b.mid)
			return nil
		}, want: want{fault: "no_server_auth", facets: map[string]string{"trust": ""}}},
		{name: "A33 weak key", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, func(c *x509.Certificate) { c.PublicKey = rsaKey() }), b.mid)
			return nil
		}, want: want{fault: "weak_key", facets: map[string]string{"trust": ""}}},
		{name: "A37 right certificate with SNI", build: func(b *bench) map[string]any {
			right, other := issue(b.t, site, b.mid, nil).tls(b.mid), issue(b.t, "default.example.test", b.mid, nil).tls(b.mid)
			b.lead(site, "443", secure(b.t, other, func(c *tls.Config) {
				c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					if h.ServerName == site {
						return &right, nil
					}
					return &other, nil
				}
			}), false)
			return nil
		}, want: want{}},
		{name: "A37 default certificate under another name", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, "default.example.test", b.mid, nil), b.mid)
			return map[string]any{"ServerName": "default.example.test"}
		}, want: want{}},
		{name: "A38 proxy that intercepts", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), b.mid)
			return map[string]any{"ExpectIssuer": "Let's Encrypt"}
		}, want: want{fault: "unexpected_issuer"}},
		{name: "issuer as expected", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), b.mid)
			return map[string]any{"ExpectIssuer": "ca root"}
		}, want: want{}},
		{name: "A49 six-day certificate, 70 h left", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-90*time.Hour, 70*time.Hour)), b.mid)
			return nil
		}, want: want{facets: map[string]string{"time": ""}}},
		{name: "A49 six-day certificate, 50 h left", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-110*time.Hour, 50*time.Hour)), b.mid)
			return nil
		}, want: want{facets: map[string]string{"time": "expiring"}}},
		{name: "A49 six-day certificate, 20 h left", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-140*time.Hour, 20*time.Hour)), b.mid)
			return nil
		}, want: want{fault: "expiring"}},
		{name: "A50 398-day certificate, 29 d left", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-369*day, 29*day)), b.mid)
			return nil
		}, want: want{facets: map[string]string{"time": "expiring"}}},
		{name: "people renew it, 20 d left", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, until(-70*day, 20*day)), b.mid)
			return map[string]any{"Renewal": "manual"}
		}, want: want{facets: map[string]string{"time": "expiring"}}},
		{name: "A53 the same certificate twice", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), b.mid, b.mid)
			return nil
		}, want: want{facets: map[string]string{"chain_complete": "duplicate_certificate"}}},
		{name: "an extra certificate", build: func(b *bench) map[string]any {
			b.shows(issue(b.t, site, b.mid, nil), b.mid, issue(b.t, "CA Stranger", nil, nil))
			return nil
		}, want: want{facets: map[string]string{"chain_complete": "extra_certificate", "trust": ""}}},
		{name: "authority may not vouch for the name", build: func(b *bench) map[string]any {
			bound := issue(b.t, "CA Bound", b.root, func(c *x509.Certificate) {
				c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"elsewhere.test"}
			})
			b.shows(issue(b.t, site, bound, nil), bound)
			return nil
		}, want: want{fault: "name_constraint"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			values := c.build(b)
			if values == nil {
				values = map[string]any{}
			}
			if c.edit == nil {
				c.edit = func(*Env) {}
			}
			r, fault, _ := b.look(values, c.edit)
			if fault != nil && fault.Stage != evidence.StageTLS {
				t.Errorf("fault at stage %s: %v", fault.Stage, fault)
			}
			if codeOfFault(fault) != c.want.fault {
				t.Fatalf("got fault %v, want code %q; facets %+v", fault, c.want.fault, r.Chain)
			}
			for name, want := range c.want.facets {
				if got := facetOf(r, name); got.Code != want || got.Name == "" {
					t.Errorf("facet %s: got %+v, want code %q", name, got, want)
				}
			}
			if want := c.want.states["time at true time"]; facetOf(r, "time").AtTrueTime != want {
				t.Errorf("time at true time: got %+v, want %q", facetOf(r, "time"), want)
			}
			if c.detail != "" && (fault == nil || !strings.Contains(fault.Error(), c.detail)) {
				t.Errorf("got %v, want %q in it", fault, c.detail)
			}
			if _, ok := reading(r, certNotAfter, "0", "leaf"); !ok {
				t.Error("the certificate has lost its series")
			}
		})
	}
}

// TestJudgeTime_lastSecond is A2: a certificate that ends exactly now is good for one second more.
func TestJudgeTime_lastSecond(t *testing.T) {
	leaf := issue(t, site, nil, nil).cert
	for _, c := range []struct {
		at   time.Time
		want evidence.State
	}{
		{leaf.NotBefore.Add(-1), evidence.Fail}, {leaf.NotBefore, evidence.OK}, {leaf.NotAfter, evidence.OK},
		{leaf.NotAfter.Add(time.Second - 1), evidence.OK}, {leaf.NotAfter.Add(time.Second), evidence.Fail},
	} {
		if f := wire.JudgeTime(leaf, c.at); f.State != c.want {
			t.Errorf("%s after the end: got %+v, want %s", c.at.Sub(leaf.NotAfter), f, c.want)
		}
	}
	root := issue(t, "CA Root", nil, nil)
	last := issue(t, site, root, nil)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	if _, err := wire.Verify([]*x509.Certificate{last.cert}, site, pool, last.cert.NotAfter.Add(900*time.Millisecond)); err != nil {
		t.Errorf("in the last second: %v", err)
	}
	if _, err := wire.Verify([]*x509.Certificate{last.cert}, site, pool, last.cert.NotAfter.Add(time.Second)); err == nil {
		t.Error("after the last second: no error")
	}
}

// TestCertificate_fleet looks at several addresses: A35 and A36.
func TestCertificate_fleet(t *testing.T) {
	t.Run("A35 one address shows the old certificate", func(t *testing.T) {
		b := newBench(t)
		b.shows(issue(t, site, b.mid, until(-2*day, 88*day)), b.mid)
		old := b.lead(site, "443", secure(t, issue(t, site, b.mid, until(-60*day, 30*day)).tls(b.mid), nil), false)
		r, fault, _ := b.look(map[string]any{})
		f := facetOf(r, "consistency")
		if fault != nil || f.Code != "inconsistent_fleet" || !strings.Contains(f.Detail, old.String()+" one that began") {
			t.Errorf("got %v, %+v", fault, f)
		}
		if n, _ := reading(r, certLeaves); n != 2 {
			t.Errorf("%v distinct leaves", n)
		}
	})
	t.Run("one address shows an expired one", func(t *testing.T) {
		b := newBench(t)
		b.shows(issue(t, site, b.mid, nil), b.mid)
		bad := b.lead(site, "443", secure(t, issue(t, site, b.mid, until(-90*day, -day)).tls(b.mid), nil), true)
		r, fault, _ := b.look(map[string]any{})
		if fault == nil || fault.Code != "expired" || !strings.Contains(fault.Error(), bad.String()) {
			t.Errorf("got %v", fault)
		}
		if len(r.Exchanges) != 2 {
			t.Errorf("%d exchanges", len(r.Exchanges))
		}
	})
	t.Run("A36 IPv6 refuses", func(t *testing.T) {
		b := newBench(t)
		b.shows(issue(t, site, b.mid, nil), b.mid)
		six := b.lead(site, "443", "refused", true)
		r, fault, _ := b.look(map[string]any{})
		f := facetOf(r, "consistency")
		if fault != nil || f.State != evidence.Warn || !strings.Contains(f.Detail, six.String()) {
			t.Errorf("got %v, %+v", fault, f)
		}
		if n, _ := reading(r, certAddresses, "ipv6", "fault"); n != 1 {
			t.Errorf("readings %v", r.Readings)
		}
	})
	t.Run("no way into IPv6", func(t *testing.T) {
		b := newBench(t)
		b.shows(issue(t, site, b.mid, nil), b.mid)
		b.lead(site, "443", "noroute", true)
		r, fault, _ := b.look(map[string]any{})
		if f := facetOf(r, "consistency"); fault != nil || f.State != evidence.OK {
			t.Errorf("got %v, %+v", fault, f)
		}
		if n, _ := reading(r, certAddresses, "ipv6", "no_route"); n != 1 {
			t.Errorf("readings %v", r.Readings)
		}
	})
	t.Run("first address only", func(t *testing.T) {
		b := newBench(t)
		b.shows(issue(t, site, b.mid, nil), b.mid)
		b.lead(site, "443", "refused", false)
		if r, fault, _ := b.look(map[string]any{"Addresses": "first"}); fault != nil || len(r.Exchanges) != 1 {
			t.Errorf("got %v, %d exchanges", fault, len(r.Exchanges))
		}
	})
	t.Run("many addresses are bounded", func(t *testing.T) {
		b := newBench(t)
		to := secure(t, issue(t, site, b.mid, nil).tls(b.mid), nil)
		for range 40 {
			b.lead(site, "443", to, false)
		}
		if r, fault, _ := b.look(map[string]any{}); fault != nil || len(r.Exchanges) != mostAddresses {
			t.Errorf("got %v, %d exchanges", fault, len(r.Exchanges))
		}
	})
	t.Run("all refuse", func(t *testing.T) {
		b := newBench(t)
		b.lead(site, "443", "refused", false)
		b.lead(site, "443", "noroute", true)
		if _, fault, _ := b.look(map[string]any{}); fault == nil || fault.Symptom != evidence.SymptomRefused {
			t.Errorf("got %v", fault)
		}
	})
}

// TestCertificate_clients is about certificates that we show: A23 to A26.
func TestCertificate_clients(t *testing.T) {
	demand := func(b *bench, by *pair) {
		pool := x509.NewCertPool()
		pool.AddCert(by.cert)
		b.lead(site, "443", secure(b.t, issue(b.t, site, b.mid, nil).tls(b.mid), func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool }), false)
	}
	forClients := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	for _, c := range []struct {
		name    string
		build   func(b *bench) map[string]any
		code    string
		symptom evidence.Symptom
	}{
		{"A23 lacks clientAuth", func(b *bench) map[string]any {
			own := issue(t, "client", b.mid, nil)
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+b.mid.pem()+own.keyPEM(t))}
		}, "client_cert_usage", evidence.SymptomBadCertificate},
		{"A24 key of another", func(b *bench) map[string]any {
			own, other := issue(t, "client", b.mid, forClients), issue(t, "client", b.mid, forClients)
			for other.key == own.key {
				other = issue(t, "client", b.mid, forClients)
			}
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()), "ClientKey": file(t, "k.pem", other.keyPEM(t))}
		}, "client_key_mismatch", evidence.SymptomBadCertificate},
		{"A25 issuer is not accepted", func(b *bench) map[string]any {
			own := issue(t, "client", issue(t, "CA Elsewhere", nil, nil), forClients)
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+own.keyPEM(t))}
		}, "client_cert_not_accepted", evidence.SymptomBadCertificate},
		{"A26 wanted and none is set", func(b *bench) map[string]any {
			demand(b, b.root)
			return map[string]any{}
		}, "certificate_required", evidence.SymptomTLSAlert},
		{"expired", func(b *bench) map[string]any {
			own := issue(t, "client", b.mid, func(c *x509.Certificate) { forClients(c); until(-90*day, -day)(c) })
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+b.mid.pem()+own.keyPEM(t))}
		}, "client_cert_expired", evidence.SymptomBadCertificate},
		{"ends within a day", func(b *bench) map[string]any {
			own := issue(t, "client", b.mid, func(c *x509.Certificate) { forClients(c); until(-89*day, day)(c) })
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+b.mid.pem()+own.keyPEM(t))}
		}, "client_cert_expiring", evidence.SymptomCertificate},
		{"good", func(b *bench) map[string]any {
			own := issue(t, "client", b.mid, forClients)
			demand(b, b.root)
			return map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+b.mid.pem()+own.keyPEM(t))}
		}, "", ""},
		{"wanted in TLS 1.2", func(b *bench) map[string]any {
			b.lead(site, "443", secure(t, issue(t, site, b.mid, nil).tls(b.mid), func(c *tls.Config) { c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12 }), false)
			return map[string]any{}
		}, "certificate_required", evidence.SymptomTLSAlert},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			r, fault, _ := b.look(c.build(b))
			switch {
			case c.code == "" && fault != nil:
				t.Errorf("got %v", fault)
			case c.code != "" && (fault == nil || fault.Code != c.code || fault.Symptom != c.symptom):
				t.Errorf("got %#v, want %s %s", fault, c.symptom, c.code)
			}
			if _, ok := reading(r, certNotAfter, "0", "leaf"); !ok {
				t.Error("the server's certificate has lost its series")
			}
		})
	}
}

// TestCertificate_clientAuthSunset: a client certificate that a public authority issued for servers works today and will not
// come again; one of a private authority is nobody's concern. The finding says that it ends, not that it was refused.
func TestCertificate_clientAuthSunset(t *testing.T) {
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	validated, err := x509.OIDFromInts([]uint64{2, 23, 140, 1, 2, 1})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		edit  func(*x509.Certificate)
		state evidence.State
		cause diagnose.Cause
	}{
		"of a public authority": {func(c *x509.Certificate) { c.ExtKeyUsage, c.Policies = both, []x509.OID{validated} }, evidence.Warn, diagnose.CredentialExpiring},
		"of a private one":      {func(c *x509.Certificate) { c.ExtKeyUsage = both }, evidence.OK, ""},
		"ends in a fortnight": {func(c *x509.Certificate) {
			c.ExtKeyUsage = both
			until(-76*day, 14*day)(c)
		}, evidence.Warn, diagnose.CredentialExpiring},
	} {
		b := newBench(t)
		b.lead(site, "443", secure(t, issue(t, site, b.mid, nil).tls(b.mid), func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), false)
		own := issue(t, "client", b.mid, c.edit)
		r, fault, p := b.look(map[string]any{"ClientCertificate": file(t, "c.pem", own.pem()+own.keyPEM(t))})
		if f := facetOf(r, "client_certificate"); fault != nil || f.State != c.state {
			t.Errorf("%s: got %v, %+v", name, fault, f)
		}
		findings := diagnose.Explain(diagnose.Case{Now: time.Now(), Sighting: diagnose.Sighting{Probe: "p", Kind: "certificate", Endpoint: p.About().Endpoint, Report: r}})
		if got := append(findings, diagnose.Finding{})[0]; got.Cause != c.cause {
			t.Errorf("%s: got %+v, want %s", name, got, c.cause)
		}
	}
}

// TestCertificate_hostileServers is about servers that are too old, do not parse, or do not answer: A34, A39, A54, A55.
func TestCertificate_hostileServers(t *testing.T) {
	t.Run("A34 certificate that does not parse", func(t *testing.T) {
		b := newBench(t)
		odd := issue(t, "CA Negative", nil, nil)
		der := negativeSerial(t, odd.cert.Raw, odd.cert.SerialNumber)
		leaf := issue(t, site, b.mid, nil)
		c := leaf.tls(b.mid)
		c.Certificate = append(c.Certificate, der)
		b.lead(site, "443", secure(t, c, nil), false)
		r, fault, _ := b.look(map[string]any{})
		if fault == nil || fault.Code != "unparseable_certificate" || fault.Symptom != evidence.SymptomBadCertificate {
			t.Fatalf("got %v", fault)
		}
		if at, _ := reading(r, certNotAfter, "0", "leaf"); at != float64(leaf.cert.NotAfter.Unix()) {
			t.Errorf("the leaf has lost its series: %v", r.Readings)
		}
		if n := len(r.Chain.Certificates); n != 3 || !strings.HasPrefix(r.Chain.Certificates[2].Serial, "-") || r.Chain.Certificates[2].NotAfter.Unix() != odd.cert.NotAfter.Unix() || r.Chain.Certificates[2].Subject != "CA Negative" {
			t.Errorf("the odd one was not read: %+v", r.Chain.Certificates)
		}
	})
	t.Run("A54 nothing newer than TLS 1.0", func(t *testing.T) {
		b := newBench(t)
		b.lead(site, "443", secure(t, issue(t, site, b.mid, nil).tls(b.mid), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 }), false)
		r, fault, _ := b.look(map[string]any{})
		if fault == nil || fault.Code != "protocol_too_old" || facetOf(r, "trust").State != evidence.OK {
			t.Errorf("got %v, %+v", fault, r.Chain)
		}
		if _, ok := reading(r, certNotAfter, "0", "leaf"); !ok {
			t.Error("the certificate has lost its series")
		}
	})
	t.Run("only ciphers of old", func(t *testing.T) {
		b := newBench(t)
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		leaf := issue(t, site, b.mid, func(c *x509.Certificate) { c.PublicKey, c.KeyUsage = key, x509.KeyUsageKeyEncipherment })
		b.lead(site, "443", secure(t, leaf.tls(b.mid), func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}
		}), false)
		r, fault, _ := b.look(map[string]any{})
		if f := facetOf(r, "strength"); fault != nil || f.Code != "weak_cipher" {
			t.Errorf("got %v, %+v", fault, f)
		}
	})
	t.Run("A55 handshake never completes", func(t *testing.T) {
		b := newBench(t)
		b.lead(site, "443", listen(t, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1)) }), false)
		p := makeProbe(t, "certificate", b.env(), map[string]any{"Address": site + ":443"})
		fault := runFor(t, p, 300*time.Millisecond)
		if fault == nil || fault.Symptom != evidence.SymptomTimeout || fault.Stage != evidence.StageTLS {
			t.Errorf("got %v at %v", fault, fault.Stage)
		}
	})
	t.Run("A55 connection never completes", func(t *testing.T) {
		b := newBench(t)
		b.lead(site, "443", "blackhole", false)
		p := makeProbe(t, "certificate", b.env(), map[string]any{"Address": site + ":443"})
		fault := runFor(t, p, 300*time.Millisecond)
		if fault == nil || fault.Symptom != evidence.SymptomTimeout || fault.Stage != evidence.StageConnect {
			t.Errorf("got %v at %v", fault, fault.Stage)
		}
	})
	for name, answer := range map[string]struct{ head, code string }{
		"A39 proxy wants a login": {"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407"},
		"proxy forbids":           {"HTTP/1.1 403 Forbidden\r\n\r\n", "403"},
		"proxy speaks no HTTP":    {"220 mail ESMTP\r\n\r\n", "http"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.lead("proxy.example.test", "3128", listen(t, func(c net.Conn) { c.Read(make([]byte, 4096)); fmt.Fprint(c, answer.head) }), false)
			_, fault, _ := b.look(map[string]any{"Proxy": "http://proxy.example.test:3128"})
			if fault == nil || fault.Symptom != evidence.SymptomProxy || fault.Code != answer.code {
				t.Errorf("got %#v", fault)
			}
		})
	}
	t.Run("through a proxy", func(t *testing.T) {
		b := newBench(t)
		config := &tls.Config{Certificates: []tls.Certificate{issue(t, site, b.mid, nil).tls(b.mid)}}
		b.lead("proxy.example.test", "3128", listen(t, func(c net.Conn) {
			one := make([]byte, 4096)
			n, _ := c.Read(one)
			if !strings.HasPrefix(string(one[:n]), "CONNECT site.example.test:443 HTTP/1.1\r\n") {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			finish(c, config)
		}), false)
		if _, fault, _ := b.look(map[string]any{"Proxy": "http://proxy.example.test:3128"}); fault != nil {
			t.Errorf("got %v", fault)
		}
	})
}

func runFor(t *testing.T, p Probe, d time.Duration) *evidence.Fault {
	t.Helper()
	ctx, cancel := contextFor(t, d)
	defer cancel()
	_, err := p.Run(ctx)
	return evidence.AsFault(err)
}

// negativeSerial makes the serial of a certificate negative, without regard for its signature.
func negativeSerial(t *testing.T, der []byte, serial *big.Int) []byte {
	t.Helper()
	b := serial.Bytes()
	at := strings.Index(string(der), string(append([]byte{2, byte(len(b))}, b...)))
	if at < 0 {
		t.Fatal("serial not found")
	}
	out := append([]byte(nil), der...)
	out[at+2] |= 0x80
	return out
}

// TestCertificate_revocation is about lists, responders and staples: A27 to A32.
func TestCertificate_revocation(t *testing.T) {
	const list, responder = "http://pki.example.test/mid.crl", "http://pki.example.test/ocsp"
	withList := func(c *x509.Certificate) { c.CRLDistributionPoints = []string{list} }
	crl := func(b *bench, by *pair, next time.Duration, revoked ...*pair) []byte {
		l := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: time.Now().Add(-day), NextUpdate: time.Now().Add(next)}
		for _, p := range revoked {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: p.cert.SerialNumber, RevocationTime: time.Now().Add(-time.Hour), ReasonCode: 1})
		}
		der, err := x509.CreateRevocationList(rand.Reader, l, by.cert, by.key)
		if err != nil {
			b.t.Fatal(err)
		}
		return der
	}
	serve := func(b *bench, der []byte) {
		b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) { w.Write(der) })
	}
	staple := func(b *bench, leaf, by *pair, answer ocsp.Response) {
		answer.SerialNumber = leaf.cert.SerialNumber
		if answer.ThisUpdate.IsZero() {
			answer.ThisUpdate, answer.NextUpdate = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		}
		der, err := ocsp.CreateResponse(b.mid.cert, by.cert, answer, by.key)
		if err != nil {
			b.t.Fatal(err)
		}
		c := leaf.tls(b.mid)
		c.OCSPStaple = der
		b.lead(site, "443", secure(b.t, c, nil), false)
	}
	for _, c := range []struct {
		name          string
		build         func(b *bench)
		values        map[string]any
		fault         string
		facet         string
		code, detail  string
		state         evidence.State
		noListReading bool
	}{
		{name: "not revoked", build: func(b *bench) {
			b.shows(issue(t, site, b.mid, withList), b.mid)
			serve(b, crl(b, b.mid, day))
		}, facet: "revocation", state: evidence.OK},
		{name: "A27 on the list", build: func(b *bench) {
			leaf := issue(t, site, b.mid, withList)
			b.shows(leaf, b.mid)
			serve(b, crl(b, b.mid, day, leaf))
		}, fault: "revoked", facet: "revocation", code: "revoked", state: evidence.Fail, detail: "key compromise"},
		{name: "A28 list past its time", build: func(b *bench) {
			b.shows(issue(t, site, b.mid, withList), b.mid)
			serve(b, crl(b, b.mid, -time.Hour))
		}, facet: "revocation", code: "crl_stale", state: evidence.Unknown},
		{name: "A28 revoked on a list past its time", build: func(b *bench) {
			leaf := issue(t, site, b.mid, withList)
			b.shows(leaf, b.mid)
			serve(b, crl(b, b.mid, -time.Hour, leaf))
		}, fault: "revoked", facet: "revocation", code: "revoked", state: evidence.Fail},
		{name: "A29 list of another authority", build: func(b *bench) {
			other := issue(t, "CA Intermediate", b.root, nil)
			for other.key == b.mid.key {
				other = issue(t, "CA Intermediate", b.root, nil)
			}
			b.shows(issue(t, site, b.mid, withList), b.mid)
			serve(b, crl(b, other, day))
		}, facet: "revocation", code: "crl_signature_invalid", state: evidence.Unknown},
		{name: "A30 list of 200 MB", build: func(b *bench) {
			b.shows(issue(t, site, b.mid, withList), b.mid)
			filler := make([]byte, 1<<20)
			b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) {
				for range 200 {
					if _, err := w.Write(filler); err != nil {
						return
					}
				}
			})
		}, facet: "revocation", code: "crl_too_large", state: evidence.Unknown},
		{name: "not a list", build: func(b *bench) {
			b.shows(issue(t, site, b.mid, withList), b.mid)
			serve(b, []byte("<html>moved</html>"))
		}, facet: "revocation", code: "crl_unparseable", state: evidence.Unknown},
		{name: "list is not there", build: func(b *bench) { b.shows(issue(t, site, b.mid, withList), b.mid) }, facet: "revocation", code: "crl_unreachable", state: evidence.Unknown},
		{name: "knowing is required", build: func(b *bench) { b.shows(issue(t, site, b.mid, withList), b.mid) }, values: map[string]any{"Revocation": "require"},
			fault: "crl_unreachable", facet: "revocation", code: "crl_unreachable", state: evidence.Fail},
		{name: "not asked", build: func(b *bench) { b.shows(issue(t, site, b.mid, withList), b.mid) }, values: map[string]any{"Revocation": "off"}, facet: "revocation", code: "not_asked", state: evidence.Unknown},
		{name: "responder says good", build: func(b *bench) {
			leaf := issue(t, site, b.mid, func(c *x509.Certificate) { c.OCSPServer = []string{responder} })
			b.shows(leaf, b.mid)
			b.responder(ocsp.Good)
		}, facet: "revocation", state: evidence.OK},
		{name: "responder says revoked", build: func(b *bench) {
			leaf := issue(t, site, b.mid, func(c *x509.Certificate) { c.OCSPServer = []string{responder} })
			b.shows(leaf, b.mid)
			b.responder(ocsp.Revoked)
		}, fault: "revoked", facet: "revocation", code: "revoked", state: evidence.Fail},
		{name: "A31 staple says revoked", build: func(b *bench) {
			staple(b, issue(t, site, b.mid, nil), b.mid, ocsp.Response{Status: ocsp.Revoked, RevokedAt: time.Now().Add(-time.Hour), RevocationReason: ocsp.Superseded})
		}, fault: "revoked", facet: "revocation", code: "revoked", state: evidence.Fail, detail: "superseded"},
		{name: "A32 staple past its time", build: func(b *bench) {
			staple(b, issue(t, site, b.mid, nil), b.mid, ocsp.Response{Status: ocsp.Good, ThisUpdate: time.Now().Add(-9 * day), NextUpdate: time.Now().Add(-2 * day)})
		}, fault: "staple_stale", facet: "staple", code: "staple_stale", state: evidence.Fail},
		{name: "staple signed by a stranger", build: func(b *bench) {
			other := issue(t, "CA Intermediate", b.root, nil)
			for other.key == b.mid.key {
				other = issue(t, "CA Intermediate", b.root, nil)
			}
			staple(b, issue(t, site, b.mid, nil), other, ocsp.Response{Status: ocsp.Good})
		}, fault: "staple_invalid", facet: "staple", code: "staple_invalid", state: evidence.Fail},
		{name: "good staple", build: func(b *bench) {
			staple(b, issue(t, site, b.mid, nil), b.mid, ocsp.Response{Status: ocsp.Good})
		}, facet: "staple", state: evidence.OK},
		{name: "seven days need no revocation", build: func(b *bench) {
			b.shows(issue(t, site, b.mid, until(-day, 5*day)), b.mid)
		}, facet: "revocation", state: evidence.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			c.build(b)
			if c.values == nil {
				c.values = map[string]any{}
			}
			r, fault, _ := b.look(c.values)
			if code := codeOfFault(fault); code != c.fault {
				t.Errorf("got fault %v, want %q", fault, c.fault)
			}
			f := facetOf(r, c.facet)
			if f.Code != c.code || f.State != c.state || !strings.Contains(f.Detail, c.detail) {
				t.Errorf("got %+v, want %s %s %q", f, c.state, c.code, c.detail)
			}
		})
	}
}

// codeOfFault is the code of a fault, or its symptom where it has none; only success is empty.
func codeOfFault(f *evidence.Fault) string {
	switch {
	case f == nil:
		return ""
	case f.Code == "":
		return string(f.Symptom)
	}
	return f.Code
}

// responder answers OCSP requests with a status.
func (b *bench) responder(status int) {
	b.web("pki.example.test", func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, 4096)
		n, _ := r.Body.Read(body)
		q, err := ocsp.ParseRequest(body[:n])
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := ocsp.Response{Status: status, SerialNumber: q.SerialNumber, ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour), RevokedAt: time.Now().Add(-time.Hour)}
		der, err := ocsp.CreateResponse(b.mid.cert, b.mid.cert, answer, b.mid.key)
		if err != nil {
			b.t.Error(err)
		}
		w.Write(der)
	})
}

// TestCertificate_listIsShared: many certificates of one authority cost one list.
func TestCertificate_listIsShared(t *testing.T) {
	b := newBench(t)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(day)}, b.mid.cert, b.mid.key)
	if err != nil {
		t.Fatal(err)
	}
	b.web("pki.example.test", func(w http.ResponseWriter, _ *http.Request) { w.Write(der) })
	b.shows(issue(t, site, b.mid, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://pki.example.test/mid.crl"} }), b.mid)
	shared := NewShared()
	var group sync.WaitGroup
	for range 20 {
		env := b.env()
		env.Shared = shared
		p := makeProbe(t, "certificate", env, map[string]any{"Address": site + ":443"})
		group.Go(func() {
			if r, fault := run(t, p); fault != nil || facetOf(r, "revocation").State != evidence.OK {
				t.Errorf("got %v, %+v", fault, facetOf(r, "revocation"))
			}
		})
	}
	group.Wait()
	if n := b.count("pki.example.test", "80"); n != 1 {
		t.Errorf("the list was fetched %d times", n)
	}
}

// TestCertificate_rotation notices another certificate, and the way back.
func TestCertificate_rotation(t *testing.T) {
	b := newBench(t)
	old, renewed := issue(t, site, b.mid, until(-60*day, 30*day)), issue(t, site, b.mid, until(-day, 89*day))
	now := old
	b.lead(site, "443", secure(t, tls.Certificate{}, func(c *tls.Config) {
		c.Certificates, c.GetCertificate = nil, func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := now.tls(b.mid)
			return &c, nil
		}
	}), false)
	p := makeProbe(t, "certificate", b.env(), map[string]any{"Address": site + ":443"})
	for i, step := range []struct {
		shows   *pair
		rotated float64
		code    string
	}{{old, 0, ""}, {old, 0, ""}, {renewed, 1, ""}, {renewed, 0, ""}, {old, 1, "rolled_back"}} {
		now = step.shows
		r, fault := run(t, p)
		n, _ := reading(r, certRotations)
		if fault != nil || n != step.rotated || facetOf(r, "deployed").Code != step.code {
			t.Errorf("run %d: got %v, %v rotations, %+v", i, fault, n, facetOf(r, "deployed"))
		}
	}
}

func TestCertificate_settings(t *testing.T) {
	for _, values := range []map[string]any{
		{}, {"Address": "no-port"}, {"Address": ":443"}, {"Address": "a:1", "STARTTLS": "gopher"}, {"Address": "a:1", "Addresses": "some"},
		{"Address": "a:1", "Warn": 1.5}, {"Address": "a:1", "Critical": -0.1}, {"Address": "a:1", "Fingerprints": []string{"abc"}}, {"Address": "a:1", "Proxy": "socks5://x"},
		{"Address": "a:1", "CAFile": "/nowhere.pem"}, {"Files": []string{"[z-a"}}, {"Address": "a:1", "ACME": "http://x"}, {"Address": "a:1", "ClientKey": "k.pem"},
		{"Address": "a:1", "Revocation": "maybe"}, {"Address": "a:1", "AIA": "yes"}, {"Address": "a:1", "Renewal": "never"},
	} {
		if _, err := New("certificate", decodeInto(values), testEnv()); err == nil {
			t.Errorf("%v is taken", values)
		}
	}
}
