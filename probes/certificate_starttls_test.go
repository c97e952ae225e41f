package probes

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/starttls"
)

// TestCertificate_starttls: the certificate behind STARTTLS is judged like any other, and what a server does against its
// protocol is a fault of its TLS. The dialects are tested where they are.
func TestCertificate_starttls(t *testing.T) {
	for offer, want := range map[string]string{"STARTTLS": "", "SIZE": "starttls_not_offered"} {
		b := newBench(t)
		config := &tls.Config{Certificates: []tls.Certificate{issue(t, site, b.mid, nil).tls(b.mid)}}
		b.lead(site, "25", listen(t, func(c net.Conn) {
			in := make([]byte, 512)
			for _, say := range []string{"220 mx\r\n", "250-mx\r\n250 " + offer + "\r\n", "220 go ahead\r\n"} {
				if _, err := io.WriteString(c, say); err != nil || strings.HasPrefix(say, "220 go") {
					break
				}
				if _, err := c.Read(in); err != nil {
					return
				}
			}
			finish(c, config)
		}), false)
		r, fault, _ := b.look(map[string]any{"Address": site + ":25", "STARTTLS": "smtp"})
		switch {
		case codeOfFault(fault) != want:
			t.Errorf("got %v, want %q", fault, want)
		case fault != nil && (fault.Stage != evidence.StageTLS || fault.Symptom != evidence.SymptomTLS):
			t.Errorf("got %s at %s", fault.Symptom, fault.Stage)
		case fault == nil && (r.Chain.Protocol != "smtp" || facetOf(r, "trust").State != evidence.OK):
			t.Errorf("chain %+v", r.Chain)
		}
	}
}

// TestCertificate_starttlsSilence: a server that says nothing, or drips, costs no more than the run's time.
func TestCertificate_starttlsSilence(t *testing.T) {
	for _, name := range starttls.Protocols() {
		b := newBench(t)
		b.lead(site, "25", listen(t, func(c net.Conn) { c.Read(make([]byte, 1)); io.Copy(io.Discard, c) }), false)
		p := makeProbe(t, "certificate", b.env(), map[string]any{"Address": site + ":25", "STARTTLS": name})
		start := time.Now()
		if fault := runFor(t, p, 100*time.Millisecond); fault == nil || fault.Symptom != evidence.SymptomTimeout {
			t.Errorf("%s: got %v", name, fault)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: took %s", name, took)
		}
	}
}
