package probes

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"

	"github.com/authvigil/authvigil/probes/certfile"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// clientCertificate reads the certificate to show and judges it before anything is dialled: its time, its usage and
// whether the key belongs to it. It is nil when none is configured or it cannot be used.
func (p *certificateProbe) clientCertificate(clock trueTime) (*tls.Certificate, *evidence.Facet) {
	if p.ClientCertificate == "" {
		return nil, nil
	}
	f := &evidence.Facet{Name: "client_certificate", State: evidence.OK}
	fail := func(code, format string, args ...any) (*tls.Certificate, *evidence.Facet) {
		f.State, f.Code, f.Detail = evidence.Fail, code, fmt.Sprintf(format, args...)
		return nil, f
	}
	key := p.ClientKey
	if key == "" {
		key = p.ClientCertificate
	}
	certPEM, err := certfile.Read(p.ClientCertificate)
	if err != nil {
		return fail("client_cert_unreadable", "the client certificate %s %s", p.ClientCertificate, err)
	}
	keyPEM, err := certfile.Read(key)
	if err != nil {
		return fail("client_cert_unreadable", "the client key %s %s", key, err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		if form, list, _ := certfile.Parse(certPEM, ""); form != "pem" || len(list) == 0 {
			return fail("client_cert_unreadable", "%s holds no certificate in PEM form", p.ClientCertificate)
		}
		if bytes.Contains(keyPEM, []byte("PRIVATE KEY-----")) {
			return fail("client_key_mismatch", "the client key does not belong to the client certificate")
		}
		return fail("client_cert_unreadable", "%s holds no private key in PEM form", key)
	}
	leaf := pair.Leaf
	switch t := p.judgeTime(leaf, clock); {
	case t.State == evidence.Fail:
		fail("client_cert_"+t.Code, "of the client: %s", t.Detail)
		f.AtTrueTime = t.AtTrueTime
		return &pair, f // the server may be asked all the same: what it says is evidence
	case t.State == evidence.Warn:
		*f = evidence.Facet{Name: f.Name, State: evidence.Warn, Code: "client_cert_" + t.Code, Detail: "of the client: " + t.Detail}
	}
	if usage := wire.JudgeUsage(leaf, nil, x509.ExtKeyUsageClientAuth); usage.State == evidence.Fail {
		fail("client_cert_usage", "of the client: %s", usage.Detail)
		return &pair, f
	}
	if f.State == evidence.OK && sunset(leaf) {
		f.State, f.Code = evidence.Warn, "client_auth_sunset"
		f.Detail = "the client certificate comes from a public authority, and these stop issuing for clients: its renewal will lack clientAuth"
	}
	return &pair, f
}

// reservedPolicies are those that a public authority must name in certificates for servers (CA/Browser Forum BR section
// 7.1.6.1), and a private one has no reason to: EV, and domain, organisation or individual validated.
var reservedPolicies = []string{"2.23.140.1.1", "2.23.140.1.2.1", "2.23.140.1.2.2", "2.23.140.1.2.3"}

// sunset says whether a certificate for clients is really one for servers from a public authority: the programs of the
// browsers end that double use in 2026 and 2027, and a renewal would silently break mutual TLS.
func sunset(leaf *x509.Certificate) bool {
	return slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) &&
		slices.ContainsFunc(leaf.Policies, func(o x509.OID) bool { return slices.Contains(reservedPolicies, o.String()) })
}

// acceptance adds what the server said to the client certificate: the authorities that it accepts, and its alert.
func acceptance(f *evidence.Facet, client *tls.Certificate, s *shown) *evidence.Facet {
	if f == nil || client == nil || f.State == evidence.Fail || !s.requested || len(s.accepted) == 0 {
		return f
	}
	for _, der := range client.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		for _, name := range s.accepted {
			if bytes.Equal(name, c.RawIssuer) {
				return f
			}
		}
	}
	return &evidence.Facet{Name: f.Name, State: evidence.Fail, Code: "client_cert_not_accepted",
		Detail: fmt.Sprintf("the server accepts client certificates of %d authorities, and %q, which issued ours, is none of them", len(s.accepted), evidence.Clean(client.Leaf.Issuer.CommonName, 128))}
}
