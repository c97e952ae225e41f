package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// trace notes how far one question got. The transport's callbacks write it, and may still run in the background when a
// deadline has already ended the question; hence the lock.
type trace struct {
	guard       func(netip.Addr) error
	certificate func(ctx context.Context) (*tls.Certificate, error)

	mu               sync.Mutex
	took             Dialled
	dialled          bool
	tlsStart, tlsEnd time.Time
	remote           string
	chain            *evidence.Chain
	requested        bool
}

func (t *trace) connected(took Dialled, remote string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took, t.remote, t.dialled, t.tlsStart = took, remote, ok, time.Now()
}

func (t *trace) clientCertificate(ctx context.Context) (*tls.Certificate, error) {
	t.mu.Lock()
	t.requested = true
	t.mu.Unlock()
	if t.certificate == nil {
		return &tls.Certificate{}, nil
	}
	c, err := t.certificate(ctx)
	if c == nil && err == nil {
		c = &tls.Certificate{}
	}
	return c, err
}

func (t *trace) verify(s tls.ConnectionState, roots *x509.CertPool) error {
	now := time.Now()
	chain, err := Verify(s.PeerCertificates, s.ServerName, roots, now)
	t.mu.Lock()
	defer t.mu.Unlock()
	chain.Address, chain.TLSVersion, chain.RequestedClient = t.remote, tls.VersionName(s.Version), t.requested
	t.chain, t.tlsEnd = &chain, time.Now()
	return err
}

// fill copies what is known into the exchange and says at which stage a question without an answer ended, and when the
// request went out at the earliest.
func (t *trace) fill(x *evidence.Exchange, first time.Time, secure bool) (*evidence.Chain, evidence.Stage, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x.Remote = t.remote
	x.Timing.Resolve, x.Timing.Connect = t.took.Resolve, t.took.Connect
	sent := x.Started.Add(t.took.Resolve + t.took.Connect)
	if !t.tlsEnd.IsZero() {
		x.Timing.TLS = t.tlsEnd.Sub(t.tlsStart)
		sent = t.tlsEnd
	}
	if x.Status != 0 {
		x.Timing.FirstByte = max(first.Sub(sent), 0)
	}
	var chain *evidence.Chain
	if t.chain != nil {
		c := *t.chain
		chain = &c
	}
	switch {
	case !t.took.Resolved:
		return chain, evidence.StageResolve, sent
	case !t.dialled:
		return chain, evidence.StageConnect, sent
	case secure && t.tlsEnd.IsZero():
		return chain, evidence.StageTLS, sent
	default:
		return chain, x.Stage, sent
	}
}

// A CertificateError says which facets of a chain are not acceptable; the chain itself is in the report.
type CertificateError struct {
	Facet evidence.Facet // the one that weighs most
	All   []evidence.Facet
}

// Error is the detail of the facet that weighs most.
func (e *CertificateError) Error() string { return e.Facet.Detail }

func asCertificateError(err error) *CertificateError {
	e, _ := errors.AsType[*CertificateError](err)
	return e
}
