package probes

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	revocationTime = 5 * time.Second
	maxOCSP        = 64 << 10
	shortLife      = 7 * day // certificates that live no longer need no revocation (CA/Browser Forum BR section 4.9.7)
)

var (
	certListNext   = &evidence.Metric{Name: "certificate_revocation_list_next_update_timestamp_seconds", Help: "When the authority's revocation list must be replaced; absent when no list could be had.", Labels: []string{"probe", "issuer"}}
	certListThis   = &evidence.Metric{Name: "certificate_revocation_list_this_update_timestamp_seconds", Help: "When the authority's revocation list was made.", Labels: []string{"probe", "issuer"}}
	certStapleNext = &evidence.Metric{Name: "certificate_ocsp_staple_next_update_timestamp_seconds", Help: "When the stapled OCSP answer must be replaced; absent when there is no staple.", Labels: []string{"probe"}}
)

// judgeRevocation says whether the certificate was revoked: by the answer that the server staples, by the authority's list,
// or by its responder where there is no list. What cannot be known stays unknown: neither revoked nor good. Only the
// addresses of certificates whose chain is trusted are asked.
func (p *certificateProbe) judgeRevocation(ctx context.Context, s *shown, chains [][]*x509.Certificate, now time.Time) (facets []evidence.Facet, readings []evidence.Reading) {
	leaf := s.certs[0]
	issuer := issuerOf(s.certs, chains)
	staple, said := judgeStaple(s.state.OCSPResponse, leaf, issuer, now)
	if said != nil && !said.NextUpdate.IsZero() {
		readings = append(readings, evidence.Reading{Metric: certStapleNext, Value: unixSeconds(said.NextUpdate)})
	}
	revocation := evidence.Facet{Name: "revocation", State: evidence.Unknown, Code: "no_revocation_source"}
	switch {
	case said != nil && said.Status == ocsp.Revoked:
		revocation = revokedFacet(said.RevokedAt, said.RevocationReason)
	case p.Revocation == "off":
		revocation.Code = "not_asked"
	case len(chains) == 0 || issuer == nil:
		revocation.Code = "not_trusted"
	case said != nil:
		revocation = evidence.Facet{Name: "revocation", State: evidence.OK}
	default:
		var more []evidence.Reading
		revocation, more = p.askAuthority(ctx, leaf, issuer, now)
		readings = append(readings, more...)
	}
	if p.Revocation == "require" && revocation.State == evidence.Unknown && revocation.Code != "not_trusted" {
		revocation.State = evidence.Fail
		if revocation.Detail == "" {
			revocation.Detail = "the certificate names no place where its revocation would be published"
		}
	}
	facets = append(facets, revocation)
	if staple != nil {
		facets = append(facets, *staple)
	}
	return facets, readings
}

// askAuthority asks the authority's list, or its responder where it has none.
func (p *certificateProbe) askAuthority(ctx context.Context, leaf, issuer *x509.Certificate, now time.Time) (revocation evidence.Facet, readings []evidence.Reading) {
	revocation = evidence.Facet{Name: "revocation", State: evidence.Unknown, Code: "no_revocation_source"}
	ctx, cancel := someOf(ctx, revocationTime)
	defer cancel()
	switch list, responder := firstHTTP(leaf.CRLDistributionPoints), firstHTTP(leaf.OCSPServer); {
	case list != "":
		return p.askList(ctx, list, leaf, issuer, now)
	case responder != "":
		revocation = p.askResponder(ctx, responder, leaf, issuer, now)
	case leaf.NotAfter.Sub(leaf.NotBefore) <= shortLife:
		revocation = evidence.Facet{Name: "revocation", State: evidence.OK}
	}
	return revocation, nil
}

// someOf leaves some of the run's time for the rest of it.
func someOf(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)*2/3)
	}
	return context.WithTimeout(ctx, most)
}

func revokedFacet(at time.Time, reason int) evidence.Facet {
	return evidence.Facet{Name: "revocation", State: evidence.Fail, Code: "revoked",
		Detail: fmt.Sprintf("the certificate was revoked at %s, reason %s", at.UTC().Format(time.RFC3339), reasonName(reason))}
}

// reasonName is the reason of a revocation (RFC 5280 section 5.3.1).
func reasonName(code int) string {
	names := map[int]string{1: "key compromise", 2: "authority compromise", 3: "affiliation changed", 4: "superseded", 5: "cessation of operation", 6: "certificate hold", 8: "removed from list", 9: "privilege withdrawn", 10: "attribute authority compromise"}
	if name, ok := names[code]; ok {
		return name
	}
	return "unspecified"
}

// issuerOf finds the certificate that signed the leaf.
func issuerOf(certs []*x509.Certificate, chains [][]*x509.Certificate) *x509.Certificate {
	for _, chain := range chains {
		if len(chain) > 1 {
			return chain[1]
		}
	}
	return signerOf(certs[1:], certs[0])
}

// mustStaple is the TLS feature extension with status_request (RFC 7633).
var mustStaple = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// judgeStaple judges the stapled OCSP answer (RFC 6066 section 8); no facet when there is none and none is promised. The
// answer is given where it is authentic and its time has not run out.
func judgeStaple(der []byte, leaf, issuer *x509.Certificate, now time.Time) (*evidence.Facet, *ocsp.Response) {
	f := &evidence.Facet{Name: "staple", State: evidence.OK}
	fail := func(state evidence.State, code, format string, args ...any) (*evidence.Facet, *ocsp.Response) {
		f.State, f.Code, f.Detail = state, code, fmt.Sprintf(format, args...)
		return f, nil
	}
	if len(der) == 0 {
		for _, e := range leaf.Extensions {
			if e.Id.Equal(mustStaple) && bytes.Contains(e.Value, []byte{2, 1, 5}) {
				return fail(evidence.Fail, "staple_missing", "the certificate promises a stapled OCSP answer (RFC 7633), and the server sends none")
			}
		}
		return nil, nil
	}
	if issuer == nil {
		return fail(evidence.Unknown, "staple_unverified", "the stapled OCSP answer cannot be verified without the issuing certificate")
	}
	r, err := parseOCSP(der, leaf, issuer)
	switch {
	case err != nil:
		return fail(evidence.Fail, "staple_invalid", "the stapled OCSP answer is not valid: %s", evidence.Clean(err.Error(), 160))
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		return fail(evidence.Fail, "staple_stale", "the stapled OCSP answer was to be replaced by %s", r.NextUpdate.UTC().Format(time.RFC3339))
	case now.Add(5 * time.Minute).Before(r.ThisUpdate):
		return fail(evidence.Warn, "staple_stale", "the stapled OCSP answer begins %s, in the future", r.ThisUpdate.UTC().Format(time.RFC3339))
	case r.Status == ocsp.Unknown:
		return fail(evidence.Warn, "staple_unknown", "the stapled OCSP answer does not know the certificate")
	}
	return f, r
}

// parseOCSP reads an answer, checks its signature, and that whoever signed it may (RFC 6960 section 4.2.2.2).
func parseOCSP(der []byte, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	r, err := ocsp.ParseResponseForCert(der, leaf, issuer)
	if err != nil {
		return nil, err
	}
	if by := r.Certificate; by != nil && !by.Equal(issuer) && !maySignOCSP(by) {
		return nil, fmt.Errorf("it is signed by %q, which may not sign OCSP answers", evidence.Clean(by.Subject.CommonName, 128))
	}
	return r, nil
}

func maySignOCSP(c *x509.Certificate) bool {
	for _, usage := range c.ExtKeyUsage {
		if usage == x509.ExtKeyUsageOCSPSigning {
			return true
		}
	}
	return false
}

// askResponder asks the authority's OCSP responder (RFC 6960 appendix A).
func (p *certificateProbe) askResponder(ctx context.Context, at string, leaf, issuer *x509.Certificate, now time.Time) evidence.Facet {
	f := evidence.Facet{Name: "revocation", State: evidence.Unknown}
	unknown := func(code, format string, args ...any) evidence.Facet {
		f.Code, f.Detail = code, fmt.Sprintf(format, args...)
		return f
	}
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return unknown("ocsp_unreachable", "the OCSP request cannot be made")
	}
	req, err := http.NewRequest(http.MethodPost, at, bytes.NewReader(question))
	if err != nil {
		return unknown("ocsp_unreachable", "the address of the OCSP responder is not valid")
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	a, err := p.fetch.get(ctx, req, maxOCSP, p.authorityGuard())
	if err != nil {
		return unknown("ocsp_unreachable", "the OCSP responder %s could not be asked: %s", shownAddress(at), evidence.Clean(err.Error(), 160))
	}
	r, err := parseOCSP(a.Body, leaf, issuer)
	switch {
	case err != nil:
		return unknown("ocsp_invalid", "the answer of the OCSP responder is not valid: %s", evidence.Clean(err.Error(), 160))
	case r.Status == ocsp.Revoked:
		return revokedFacet(r.RevokedAt, r.RevocationReason)
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		return unknown("ocsp_stale", "the answer of the OCSP responder was to be replaced by %s", r.NextUpdate.UTC().Format(time.RFC3339))
	case r.Status != ocsp.Good:
		return unknown("ocsp_unknown", "the OCSP responder does not know the certificate")
	}
	return evidence.Facet{Name: "revocation", State: evidence.OK}
}

// authorityGuard says where the addresses of a trusted certificate may lead. An authority that the operator named may
// point into the operator's own network; a public one may not. Cloud metadata is out of bounds for both.
func (p *certificateProbe) authorityGuard() func(netip.Addr) error {
	if p.CAFile == "" {
		return wire.Public
	}
	return func(ip netip.Addr) error {
		if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return wire.Public(ip)
		}
		return nil
	}
}
