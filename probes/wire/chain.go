package wire

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// maxCertificates bounds how many certificates of a chain are kept and judged.
const maxCertificates = 16

// Verify judges a presented chain as a client would at now. A good chain costs one verification; of a bad one each facet
// is judged by itself, the trust at a time inside the leaf's own life, so that no defect hides another. The error is a
// *CertificateError.
func Verify(presented []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) (evidence.Chain, error) {
	chain := Describe(presented, name)
	if len(presented) == 0 {
		f := evidence.Facet{Name: "trust", State: evidence.Fail, Code: "no_certificate", Detail: "the server showed no certificate"}
		chain.Facets = []evidence.Facet{f}
		return chain, &CertificateError{Facet: f, All: chain.Facets}
	}
	options := x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: now, Intermediates: pool(presented[1:])}
	chains, err := presented[0].Verify(options)
	if err == nil {
		chain.VerifiedNotAfter = BestEnd(chains)
		return chain, nil
	}
	chain.Facets = Facets(presented, name, roots, now, &chain.VerifiedNotAfter)
	for _, f := range chain.Facets {
		if f.State == evidence.Fail {
			return chain, &CertificateError{Facet: f, All: chain.Facets}
		}
	}
	if now.After(presented[0].NotAfter) { // the last second of its life, which crypto/x509 does not grant
		return chain, nil
	}
	f := evidence.Facet{Name: "trust", State: evidence.Fail, Code: "unverified", Detail: evidence.Clean(err.Error(), 256)}
	chain.Facets = append(chain.Facets, f)
	return chain, &CertificateError{Facet: f, All: chain.Facets}
}

// Facets judges time, name, trust and usage of a chain by themselves, in the order of their weight. verifiedEnd, if not
// nil, receives the end of the best chain that can be built.
func Facets(presented []*x509.Certificate, name string, roots *x509.CertPool, now time.Time, verifiedEnd *time.Time) []evidence.Facet {
	leaf := presented[0]
	chains, err := BuildChains(presented, nil, roots, now)
	if err == nil && verifiedEnd != nil {
		*verifiedEnd = BestEnd(chains)
	}
	trust := JudgeTrust(presented, err)
	if trust.State == evidence.OK {
		if usage := JudgeUsage(leaf, chains, x509.ExtKeyUsageServerAuth); usage.State != evidence.OK {
			trust = usage
		}
	}
	return []evidence.Facet{JudgeTime(leaf, now), JudgeName(leaf, name), trust}
}

// JudgeTime says whether a certificate is alive at now. Its end is inclusive and has a resolution of one second (RFC 5280
// section 4.1.2.5), so it lives until a second later.
func JudgeTime(leaf *x509.Certificate, now time.Time) evidence.Facet {
	f := evidence.Facet{Name: "time", State: evidence.OK}
	switch {
	case now.Before(leaf.NotBefore):
		f.State, f.Code = evidence.Fail, "not_yet_valid"
		f.Detail = fmt.Sprintf("the certificate begins %s, in %s", leaf.NotBefore.UTC().Format(time.RFC3339), evidence.Span(leaf.NotBefore.Sub(now)))
	case !now.Before(leaf.NotAfter.Add(time.Second)):
		f.State, f.Code = evidence.Fail, "expired"
		f.Detail = fmt.Sprintf("the certificate ended %s, %s ago", leaf.NotAfter.UTC().Format(time.RFC3339), evidence.Span(now.Sub(leaf.NotAfter)))
	}
	return f
}

// JudgeName says whether a certificate is for a name or, where the name is a literal, for an address. The subject's common
// name counts for nothing (RFC 9525 section 2). An empty name is not judged.
func JudgeName(leaf *x509.Certificate, name string) evidence.Facet {
	f := evidence.Facet{Name: "name", State: evidence.OK}
	if name == "" || leaf.VerifyHostname(name) == nil {
		return f
	}
	f.State, f.Code = evidence.Fail, "name_mismatch"
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	switch {
	case len(names) == 0:
		f.Detail = fmt.Sprintf("the certificate holds no subject alternative name, so it is for nobody and not for %s", evidence.Clean(name, 128))
	default:
		f.Detail = fmt.Sprintf("the certificate is not for %s but for %s", evidence.Clean(name, 128), someNames(names))
	}
	return f
}

// BuildChains builds the chains from the leaf to a root, for any usage, with what was presented and more beside it. The
// leaf's own dates do not count: a copy that lives now takes its place, so that its time does not hide its trust. The
// certificates that vouch for it are judged at now.
func BuildChains(presented, more []*x509.Certificate, roots *x509.CertPool, now time.Time) ([][]*x509.Certificate, error) {
	living := *presented[0]
	living.NotBefore, living.NotAfter = now.Add(-time.Minute), now.Add(time.Minute)
	between := pool(presented[1:])
	for _, c := range more {
		between.AddCert(c)
	}
	chains, err := living.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	for _, chain := range chains {
		chain[0] = presented[0]
	}
	return chains, err
}

// JudgeTrust makes a facet of what BuildChains said.
func JudgeTrust(presented []*x509.Certificate, err error) evidence.Facet {
	f := evidence.Facet{Name: "trust", State: evidence.OK}
	if err == nil {
		return f
	}
	f.State = evidence.Fail
	leaf := presented[0]
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		f.Code = "intermediate_expired"
		f.Detail = "an issuing certificate is outside its validity: " + evidence.Clean(invalid.Cert.Subject.CommonName, 128)
	case errors.As(err, &invalid) && (invalid.Reason == x509.CANotAuthorizedForThisName || invalid.Reason == x509.NameConstraintsWithoutSANs):
		f.Code = "name_constraint"
		f.Detail = "an issuing certificate may not vouch for this name: " + evidence.Clean(invalid.Cert.Subject.CommonName, 128)
	case outworn(presented) != nil:
		c := outworn(presented)
		f.Code = "weak_signature"
		f.Detail = fmt.Sprintf("the certificate of %q is signed with %s, which no client trusts any more", evidence.Clean(shownName(c), 128), c.SignatureAlgorithm)
	case SelfSigned(leaf):
		f.Code, f.Detail = "self_signed", "the certificate is signed by itself and not trusted"
	case len(presented) == 1 && !leaf.IsCA:
		f.Code = "incomplete_chain"
		f.Detail = fmt.Sprintf("the server sends only its own certificate; that of its issuer %q is missing or not trusted", evidence.Clean(leaf.Issuer.CommonName, 128))
	case !vouches(presented[1:], leaf):
		f.Code = "wrong_intermediate"
		f.Detail = fmt.Sprintf("none of the %d other certificates that the server sends has signed its own; that of its issuer %q is missing or not trusted", len(presented)-1, evidence.Clean(leaf.Issuer.CommonName, 128))
	default:
		last := presented[len(presented)-1]
		f.Code = "unknown_authority"
		f.Detail = fmt.Sprintf("the chain ends at %q, issued by %q, which is not trusted", evidence.Clean(last.Subject.CommonName, 128), evidence.Clean(last.Issuer.CommonName, 128))
	}
	return f
}

// outworn finds a certificate whose issuer is there and whose signature counts for nothing, because of its algorithm (MD5,
// SHA-1); nil: none.
func outworn(presented []*x509.Certificate) *x509.Certificate {
	for i, c := range presented[:min(len(presented), maxCertificates)] {
		switch c.SignatureAlgorithm {
		case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
			if slices.ContainsFunc(presented, func(by *x509.Certificate) bool {
				return by != presented[i] && string(by.RawSubject) == string(c.RawIssuer)
			}) {
				return c
			}
		}
	}
	return nil
}

// vouches says whether one of the certificates has signed the leaf.
func vouches(list []*x509.Certificate, leaf *x509.Certificate) bool {
	for _, c := range list[:min(len(list), maxCertificates)] {
		if string(c.RawSubject) == string(leaf.RawIssuer) && Signed(c, leaf) {
			return true
		}
	}
	return false
}

// Signed says whether issuer's key has signed cert, whatever else speaks for or against either.
func Signed(issuer, cert *x509.Certificate) bool {
	return issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// JudgeUsage says whether a leaf is meant for servers or for clients, and one of its chains allows it (RFC 5280 section
// 4.2.1.12). No extended key usage means any.
func JudgeUsage(leaf *x509.Certificate, chains [][]*x509.Certificate, usage x509.ExtKeyUsage) evidence.Facet {
	f := evidence.Facet{Name: "key_usage", State: evidence.OK}
	allows := func(c *x509.Certificate) bool {
		return len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 || slices.Contains(c.ExtKeyUsage, usage) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
	}
	fail := func(code, detail string) evidence.Facet {
		f.State, f.Code, f.Detail = evidence.Fail, code, detail
		return f
	}
	code, who := "no_server_auth", "servers (extended key usage lacks serverAuth)"
	if usage == x509.ExtKeyUsageClientAuth {
		code, who = "no_client_auth", "clients (extended key usage lacks clientAuth)"
	}
	switch {
	case !allows(leaf):
		return fail(code, "the certificate is not meant for "+who)
	case usage == x509.ExtKeyUsageServerAuth && leaf.KeyUsage != 0 && leaf.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		return fail("key_usage", "the certificate may be used neither for signatures nor for key exchange (key usage), so not for TLS")
	case len(chains) > 0 && !slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		return !slices.ContainsFunc(chain[:len(chain)-1], func(c *x509.Certificate) bool { return !allows(c) }) // a root's limits are those of its store
	}):
		return fail(code, "an issuing certificate is not meant for "+who)
	}
	return f
}

// Describe gives the facts of a presented chain without judging it.
func Describe(presented []*x509.Certificate, name string) evidence.Chain {
	c := evidence.Chain{ServerName: name}
	for i, cert := range presented[:min(len(presented), maxCertificates)] {
		c.Certificates = append(c.Certificates, DescribeCertificate(cert, i == 0))
		if i == 0 || cert.NotAfter.Before(c.PresentedNotAfter) {
			c.PresentedNotAfter = cert.NotAfter
		}
	}
	return c
}

// DescribeCertificate gives the facts of one certificate.
func DescribeCertificate(cert *x509.Certificate, leaf bool) evidence.Certificate {
	sum := sha256.Sum256(cert.Raw)
	role := "intermediate"
	switch {
	case leaf:
		role = "leaf"
	case SelfSigned(cert):
		role = "root"
	}
	d := evidence.Certificate{
		Role: role, Subject: shownName(cert), Issuer: evidence.Clean(cert.Issuer.CommonName, 128),
		Fingerprint: hex.EncodeToString(sum[:8]),
		NotBefore:   cert.NotBefore, NotAfter: cert.NotAfter, KeyType: KeyType(cert), Signature: cert.SignatureAlgorithm.String(), SelfSigned: SelfSigned(cert),
	}
	if cert.SerialNumber != nil {
		d.Serial = cert.SerialNumber.Text(16)
	}
	for _, n := range cert.DNSNames[:min(len(cert.DNSNames), 8)] {
		d.DNSNames = append(d.DNSNames, evidence.Clean(n, 128))
	}
	return d
}

// KeyType names the public key of a certificate, such as RSA-2048.
func KeyType(cert *x509.Certificate) string {
	switch k := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA-" + k.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	default:
		return cert.PublicKeyAlgorithm.String()
	}
}

func shownName(cert *x509.Certificate) string {
	switch {
	case cert.Subject.CommonName != "":
		return evidence.Clean(cert.Subject.CommonName, 128)
	case len(cert.DNSNames) > 0:
		return evidence.Clean(cert.DNSNames[0], 128)
	default:
		return evidence.Clean(cert.Subject.String(), 128)
	}
}

// SelfSigned says whether a certificate is signed by its own key.
func SelfSigned(cert *x509.Certificate) bool {
	return string(cert.RawSubject) == string(cert.RawIssuer) && Signed(cert, cert)
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs[:min(len(certs), maxCertificates)] {
		p.AddCert(c)
	}
	return p
}

// BestEnd is the end of the chain that lives longest, where a chain ends with its shortest-lived certificate.
func BestEnd(chains [][]*x509.Certificate) (best time.Time) {
	for _, chain := range chains {
		end := chain[0].NotAfter
		for _, c := range chain {
			if c.NotAfter.Before(end) {
				end = c.NotAfter
			}
		}
		if end.After(best) {
			best = end
		}
	}
	return best
}

func someNames(names []string) string {
	const most = 5
	var shown []string
	for _, n := range names[:min(len(names), most)] {
		if net.ParseIP(n) == nil {
			n = evidence.Clean(n, 128)
		}
		shown = append(shown, n)
	}
	text := strings.Join(shown, ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	return text
}
