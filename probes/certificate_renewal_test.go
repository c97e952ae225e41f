package probes

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// acme is an ACME server that gives renewal information for every certificate, over TLS.
func (b *bench) acme(answer http.HandlerFunc) {
	const name = "acme.example.test"
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/directory" {
			_ = json.NewEncoder(w).Encode(map[string]string{"renewalInfo": "https://" + name + "/renewal"})
			return
		}
		answer(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	c := issue(b.t, name, b.mid, nil).tls(b.mid)
	s.TLS = nil
	s.Listener.Close()
	to := httptestTLS(s, c)
	b.t.Cleanup(s.Close)
	b.lead(name, "443", to, false)
}

func window(start, end time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": map[string]time.Time{"start": start, "end": end}})
	}
}

// TestCertificate_renewalInformation asks the authority when a certificate should be renewed: A51 and A52.
func TestCertificate_renewalInformation(t *testing.T) {
	now := time.Now()
	values := func() map[string]any { return map[string]any{"ACME": "https://acme.example.test/directory"} }
	for _, c := range []struct {
		name        string
		begin, end  time.Duration
		answer      http.HandlerFunc
		code, fault string
		state       evidence.State
	}{
		{"in time", -10 * day, 80 * day, window(now.Add(40*day), now.Add(42*day)), "", "", evidence.OK},
		{"due", -61 * day, 29 * day, window(now.Add(-time.Hour), now.Add(day)), "", "", evidence.OK},
		{"overdue", -70 * day, 20 * day, window(now.Add(-12*day), now.Add(-10*day)), "renewal_overdue", "", evidence.Warn},
		{"A51 wanted back early", -10 * day, 80 * day, window(now.Add(-3*day), now.Add(-2*day)), "renewal_requested_by_ca", "renewal_requested_by_ca", evidence.Fail},
		{"no window", -10 * day, 80 * day, window(now, now), "renewal_unknown", "", evidence.Unknown},
		{"A52 too many requests", -10 * day, 80 * day, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "renewal_unknown", "", evidence.Unknown},
		{"not JSON", -10 * day, 80 * day, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "renewal_unknown", "", evidence.Unknown},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.acme(c.answer)
			b.shows(issue(t, site, b.mid, func(x *x509.Certificate) { until(c.begin, c.end)(x); x.AuthorityKeyId = []byte{1, 2} }), b.mid)
			r, fault, p := b.look(values())
			if f := facetOf(r, "renewal"); codeOfFault(fault) != c.fault || f.Code != c.code || f.State != c.state {
				t.Fatalf("got %v, %+v", fault, f)
			}
			asked := b.count("acme.example.test", "443")
			if again, _ := run(t, p); facetOf(again, "renewal").Code != c.code || b.count("acme.example.test", "443") != asked {
				t.Errorf("asked again at once: %+v", facetOf(again, "renewal"))
			}
			inner := p.(faulty).Probe.(*certificateProbe)
			if wait := time.Until(inner.window.ask); c.name == "A52 too many requests" && (wait < 110*time.Minute || wait > 121*time.Minute) {
				t.Errorf("asks again in %s", wait)
			}
		})
	}
	t.Run("A51 window that jumps into the past", func(t *testing.T) {
		b := newBench(t)
		end := now.Add(30 * day)
		b.acme(func(w http.ResponseWriter, r *http.Request) { window(end.Add(-day), end)(w, r) })
		b.shows(issue(t, site, b.mid, until(-50*day, 40*day)), b.mid)
		r, fault, p := b.look(values())
		if fault != nil || facetOf(r, "renewal").State != evidence.OK {
			t.Fatalf("got %v, %+v", fault, facetOf(r, "renewal"))
		}
		end = now.Add(-time.Hour)
		p.(faulty).Probe.(*certificateProbe).window.ask = time.Time{}
		if _, fault = run(t, p); codeOfFault(fault) != "renewal_requested_by_ca" || fault.Symptom != evidence.SymptomCertificate {
			t.Errorf("got %v", fault)
		}
	})
}

// TestCertificate_renewalByAPrivateAuthority: an ACME server within an organisation shows a certificate that only ca_file
// vouches for.
func TestCertificate_renewalByAPrivateAuthority(t *testing.T) {
	b := newBench(t)
	b.roots = x509.NewCertPool() // the system trusts nobody
	b.acme(window(time.Now().Add(40*day), time.Now().Add(42*day)))
	b.shows(issue(t, site, b.mid, nil), b.mid)
	r, fault, _ := b.look(map[string]any{"ACME": "https://acme.example.test/directory", "CAFile": file(t, "ca.pem", b.root.pem()+b.mid.pem())})
	if f := facetOf(r, "renewal"); fault != nil || f.State != evidence.OK {
		t.Errorf("got %v, %+v", fault, f)
	}
}

// TestCertID_ofTheRFC is the example of RFC 9773 section 4.1.
func TestCertID_ofTheRFC(t *testing.T) {
	aki, err := hex.DecodeString(strings.ReplaceAll("69:88:5B:6B:87:46:40:41:E1:B3:7B:84:7B:A0:AE:2C:DE:01:C8:D4", ":", ""))
	if err != nil {
		t.Fatal(err)
	}
	got := certID(&x509.Certificate{AuthorityKeyId: aki, SerialNumber: big.NewInt(0x87654321)})
	if want := "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
