package probes

import (
	"context"
	//lint:ignore SA1019 such keys are recognised, and never used
	"crypto/dsa"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// judged is a chain with what was found out about it.
type judged struct {
	where  string // address or file
	certs  []*x509.Certificate
	chain  evidence.Chain
	stored bool // in a file

	readings []evidence.Reading // beside those that every chain has
}

// judgeServed judges what a server presented, facet by facet, in the order of their weight.
func (p *certificateProbe) judgeServed(ctx context.Context, s *shown, clock trueTime) judged {
	j := judged{where: s.name(p.Address), certs: s.certs, chain: wire.Describe(s.certs, p.ServerName)}
	j.chain.Address, j.chain.TLSVersion, j.chain.RequestedClient, j.chain.Protocol = p.Address, tls.VersionName(s.state.Version), s.requested, p.STARTTLS
	leaf := s.certs[0]
	trust, complete, chains := p.judgeTrust(ctx, s.certs, clock.at())
	j.chain.VerifiedNotAfter = wire.BestEnd(chains)
	facets := []evidence.Facet{p.judgeTime(leaf, clock), wire.JudgeName(leaf, p.ServerName), trust, complete,
		wire.JudgeUsage(leaf, chains, x509.ExtKeyUsageServerAuth), judgeStrength(s)}
	revocation, readings := p.judgeRevocation(ctx, s, chains, clock.at())
	facets, j.readings = append(facets, revocation...), readings
	if p.ExpectIssuer != "" {
		facets = append(facets, p.judgeIssuer(s.certs, chains))
	}
	j.chain.Facets = facets
	return j
}

// judgeTrust says whether a chain leads to a trusted root and whether the server sends all of it. Where an issuing
// certificate is missing, it is fetched from where the certificate below says, so that a server that sends too little is
// told from an authority that is not trusted.
func (p *certificateProbe) judgeTrust(ctx context.Context, certs []*x509.Certificate, now time.Time) (trust, complete evidence.Facet, chains [][]*x509.Certificate) {
	complete = judgeOrder(certs, now)
	if len(p.pins) > 0 {
		trust = p.judgePins(certs)
		chains, _ = wire.BuildChains(certs, nil, p.roots, now)
		if complete.Code == "" && chains == nil {
			complete.State = evidence.OK
		}
		return trust, complete, chains
	}
	chains, err := wire.BuildChains(certs, nil, p.roots, now)
	trust = wire.JudgeTrust(certs, err)
	if err == nil {
		return trust, complete, chains
	}
	switch trust.Code {
	case "incomplete_chain", "wrong_intermediate", "unknown_authority":
	default:
		return trust, complete, nil
	}
	if p.AIA == "off" {
		return trust, moveIncomplete(trust, complete), nil
	}
	more, why := p.fetchIssuers(ctx, certs)
	if len(more) == 0 {
		if why != "" {
			trust.Detail += "; " + why
		}
		return trust, moveIncomplete(trust, complete), nil
	}
	chains, err = wire.BuildChains(certs, more, p.roots, now)
	missing := fmt.Sprintf("the server does not send the certificate of its issuer %q; it was fetched from %s, as browsers do and most programs do not",
		evidence.Clean(more[0].Subject.CommonName, 128), issuerAddress(certs))
	complete = evidence.Facet{Name: "chain_complete", State: evidence.Fail, Code: "incomplete_chain", Detail: missing}
	if trust.Code == "wrong_intermediate" {
		complete.Code, complete.Detail = "wrong_intermediate", missing+"; what it sends in its place belongs to another chain"
	}
	if err == nil {
		return evidence.Facet{Name: "trust", State: evidence.OK}, complete, chains
	}
	trust = wire.JudgeTrust(append(slices.Clone(certs), more...), err)
	if why != "" && trust.Code != "intermediate_expired" {
		trust.Detail += "; " + why
	}
	return trust, complete, nil
}

// moveIncomplete lets the facet of completeness say what it can: not known where trust is what fails.
func moveIncomplete(trust, complete evidence.Facet) evidence.Facet {
	if trust.Code == "incomplete_chain" || trust.Code == "wrong_intermediate" {
		return evidence.Facet{Name: complete.Name, State: evidence.Fail, Code: trust.Code, Detail: trust.Detail}
	}
	return evidence.Facet{Name: complete.Name, State: evidence.Unknown}
}

// judgeOrder looks at what stands in a chain beside what is needed: clients forgive it, and it is a sign of handwork.
func judgeOrder(certs []*x509.Certificate, now time.Time) evidence.Facet {
	f := evidence.Facet{Name: "chain_complete", State: evidence.OK}
	warn := func(code, format string, args ...any) evidence.Facet {
		f.State, f.Code, f.Detail = evidence.Warn, code, fmt.Sprintf(format, args...)
		return f
	}
	issues := func(c *x509.Certificate) func(*x509.Certificate) bool {
		return func(below *x509.Certificate) bool {
			return !below.Equal(c) && string(below.RawIssuer) == string(c.RawSubject)
		}
	}
	for i, c := range certs {
		name := evidence.Clean(c.Subject.CommonName, 128)
		switch {
		case i == 0:
		case slices.ContainsFunc(certs[:i], c.Equal):
			return warn("duplicate_certificate", "the server sends the certificate of %q twice", name)
		case slices.ContainsFunc(certs[:i], issues(c)):
			if now.After(c.NotAfter) && string(c.RawSubject) != string(c.RawIssuer) { // roots are trusted or not, whatever their dates
				return warn("expired_certificate", "the server still sends the certificate of %q, which ended %s", name, c.NotAfter.UTC().Format(time.RFC3339))
			}
		case slices.ContainsFunc(certs[i:], issues(c)):
			return warn("out_of_order", "the certificate of %q stands before the one that it vouches for", name)
		default:
			return warn("extra_certificate", "the server sends the certificate of %q, which has nothing to do with the chain", name)
		}
	}
	return f
}

// judgePins wants one certificate or public key of the chain to be as configured; then no authority is needed.
func (p *certificateProbe) judgePins(certs []*x509.Certificate) evidence.Facet {
	f := evidence.Facet{Name: "trust", State: evidence.OK}
	for i, c := range certs {
		whole, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
		for _, sum := range [][]byte{whole[:], key[:]} {
			if slices.Contains(p.pins, hex.EncodeToString(sum)) && (i == 0 || leadsTo(certs, i)) {
				return f
			}
		}
	}
	f.State, f.Code = evidence.Fail, "pin_mismatch"
	f.Detail = fmt.Sprintf("neither the certificate nor its key is one of the %d that are expected", len(p.pins))
	return f
}

// leadsTo says whether each certificate up to the one at a place is signed by the next: a pinned authority that merely
// stands in the list vouches for nothing.
func leadsTo(certs []*x509.Certificate, place int) bool {
	for i := range place {
		if !wire.Signed(certs[i+1], certs[i]) {
			return false
		}
	}
	return true
}

// judgeIssuer wants a name among the authorities of the chain. Another is a sign of a proxy that opens connections.
func (p *certificateProbe) judgeIssuer(certs []*x509.Certificate, chains [][]*x509.Certificate) evidence.Facet {
	f := evidence.Facet{Name: "issuer_expected", State: evidence.OK}
	var authorities []*x509.Certificate
	if len(certs) > 1 {
		authorities = append(authorities, certs[1:]...)
	}
	for _, chain := range chains {
		authorities = append(authorities, chain[1:]...)
	}
	leaf := certs[0]
	names := append([]string{leaf.Issuer.CommonName}, leaf.Issuer.Organization...)
	for _, c := range authorities {
		names = append(append(names, c.Subject.CommonName, c.Issuer.CommonName), append(c.Subject.Organization, c.Issuer.Organization...)...)
	}
	if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, p.ExpectIssuer) }) {
		return f
	}
	f.State, f.Code = evidence.Fail, "unexpected_issuer"
	f.Detail = fmt.Sprintf("the certificate comes from %q and not from %q; is there a proxy that opens connections on the way?", evidence.Clean(leaf.Issuer.CommonName, 128), p.ExpectIssuer)
	return f
}

// judgeStrength looks at protocol, keys and signatures. A root's own signature is worth nothing to anybody and is not
// looked at.
func judgeStrength(s *shown) evidence.Facet {
	f := evidence.Facet{Name: "strength", State: evidence.OK}
	fail := func(code, format string, args ...any) evidence.Facet {
		f.State, f.Code, f.Detail = evidence.Fail, code, fmt.Sprintf(format, args...)
		return f
	}
	if s.state.Version != 0 && s.state.Version < tls.VersionTLS12 {
		return fail("protocol_too_old", "the server speaks nothing newer than %s (RFC 8996)", tls.VersionName(s.state.Version))
	}
	for _, c := range s.certs {
		if weak := weakKey(c); weak != "" {
			return fail("weak_key", "the key of %q is too weak: %s", evidence.Clean(c.Subject.CommonName, 128), weak)
		}
		if weakSignature(c.SignatureAlgorithm) && !wire.SelfSigned(c) && string(c.RawIssuer) != string(c.RawSubject) {
			return fail("weak_signature", "the certificate of %q is signed with %s", evidence.Clean(c.Subject.CommonName, 128), c.SignatureAlgorithm)
		}
	}
	if s.legacy {
		f.State, f.Code = evidence.Warn, "weak_cipher"
		f.Detail = "the server accepts nothing better than " + tls.CipherSuiteName(s.state.CipherSuite) + ", which clients of today do not offer"
	}
	return f
}

func weakKey(c *x509.Certificate) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return wire.KeyType(c)
		}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return wire.KeyType(c)
		}
	case *dsa.PublicKey:
		return "DSA"
	}
	return ""
}

func weakSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1, x509.DSAWithSHA256:
		return true
	}
	return false
}
