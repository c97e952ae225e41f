package probes

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/probes/certfile"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	mostHops    = 4        // issuing certificates that are fetched for one chain
	maxIssuer   = 64 << 10 // bytes of one
	issuerTime  = 3 * time.Second
	issuerLife  = 24 * time.Hour
	issuerRetry = 10 * time.Minute // after a failure
	maxKept     = 4096             // documents that are kept
)

// A fetcher gets documents from addresses that certificates name: strangers wrote these, so it goes only to public
// addresses unless told otherwise, follows no redirect, reads little, and remembers what it got.
type fetcher struct {
	client *wire.Client
	kept   *Shared
}

// Shared is what the probes of one agent have in common: documents of certificate authorities, so that a thousand
// certificates cost one revocation list. It is safe for concurrent use.
type Shared struct {
	mu      sync.Mutex // owns what follows
	issuers map[string]keptIssuer
	lists   map[string]*keptList
	servers map[string]*timeServer
}

// NewShared makes an empty one.
func NewShared() *Shared {
	return &Shared{issuers: map[string]keptIssuer{}, lists: map[string]*keptList{}, servers: map[string]*timeServer{}}
}

type keptIssuer struct {
	certs []*x509.Certificate
	why   string
	until time.Time
}

// newFetcher makes one that trusts roots where it speaks TLS, which is to ACME servers only: one within an organisation has
// its own certificate from the authority that it speaks for.
func newFetcher(env Env, roots *x509.CertPool) (*fetcher, error) {
	n := env.Net
	n.Roots = roots
	client, err := wire.New(n, wire.Settings{})
	if err != nil {
		return nil, err
	}
	kept := env.Shared
	if kept == nil {
		kept = NewShared()
	}
	return &fetcher{client: client, kept: kept}, nil
}

// anywhere lets a document be fetched from any address.
func anywhere(netip.Addr) error { return nil }

// get asks for a document. The error is one sentence for a detail.
func (f *fetcher) get(ctx context.Context, req *http.Request, most int64, guard func(netip.Addr) error) (wire.Answer, error) {
	req.Header.Set("User-Agent", userAgent)
	a, err := f.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, MaxBody: most, Guard: guard, Expected: func(status int) bool { return status == http.StatusOK }})
	switch {
	case err != nil:
		var fault *evidence.Fault
		if errors.As(err, &fault) && fault.Err != nil {
			return a, fault.Err
		}
		return a, err
	case a.Exchange.Status != http.StatusOK:
		return a, fmt.Errorf("it answered %d", a.Exchange.Status)
	case a.Exchange.BodyCut:
		return a, fmt.Errorf("it is longer than %d KiB", most>>10)
	}
	return a, nil
}

// fetchIssuers fetches the certificates that are missing between what was presented and a root, from the leaf upward (RFC
// 5280 section 4.2.2.1). why says in words what stood in the way, if anything.
func (p *certificateProbe) fetchIssuers(ctx context.Context, certs []*x509.Certificate) (more []*x509.Certificate, why string) {
	top := topOf(certs)
	seen := map[string]bool{}
	for range mostHops {
		if string(top.RawSubject) == string(top.RawIssuer) {
			return more, ""
		}
		at := firstHTTP(top.IssuingCertificateURL)
		if at == "" {
			if len(more) > 0 {
				return more, ""
			}
			return nil, "no address is given to fetch it from"
		}
		if seen[at] {
			return more, "the addresses of issuing certificates lead in a circle"
		}
		seen[at] = true
		got := p.fetchIssuer(ctx, at)
		if got.why != "" {
			return more, got.why
		}
		next := signerOf(got.certs, top)
		if next == nil {
			return more, "what lies at " + shownAddress(at) + " did not sign the certificate"
		}
		more = append(more, next)
		top = next
	}
	return more, ""
}

// topOf is the last certificate of the chain that can be followed from the leaf.
func topOf(certs []*x509.Certificate) *x509.Certificate {
	top := certs[0]
	for range certs {
		next := signerOf(certs, top)
		if next == nil || next.Equal(top) {
			return top
		}
		top = next
	}
	return top
}

// signerOf finds the certificate whose key has signed cert.
func signerOf(list []*x509.Certificate, cert *x509.Certificate) *x509.Certificate {
	for _, c := range list {
		if string(c.RawSubject) == string(cert.RawIssuer) && wire.Signed(c, cert) {
			return c
		}
	}
	return nil
}

func (p *certificateProbe) fetchIssuer(ctx context.Context, at string) keptIssuer {
	kept, now := p.fetch.kept, time.Now()
	key := p.AIA + " " + at
	kept.mu.Lock()
	got, ok := kept.issuers[key]
	kept.mu.Unlock()
	if ok && now.Before(got.until) {
		return got
	}
	guard := wire.Public
	if p.AIA == "any" {
		guard = anywhere
	}
	ctx, cancel := context.WithTimeout(ctx, issuerTime)
	defer cancel()
	got = keptIssuer{until: now.Add(issuerLife)}
	req, err := http.NewRequest(http.MethodGet, at, nil)
	if err == nil {
		var a wire.Answer
		if a, err = p.fetch.get(ctx, req, maxIssuer, guard); err == nil {
			got.certs = certfile.Published(a.Body)
		}
	}
	switch {
	case err != nil:
		got.why = "the issuing certificate could not be fetched from " + shownAddress(at) + ": " + evidence.Clean(err.Error(), 160)
		got.until = now.Add(issuerRetry)
	case len(got.certs) == 0:
		got.why = "what lies at " + shownAddress(at) + " is no certificate"
		got.until = now.Add(issuerRetry)
	}
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if len(kept.issuers) >= maxKept {
		clear(kept.issuers)
	}
	kept.issuers[key] = got
	return got
}

// firstHTTP is the first address over plain HTTP: TLS would need certificates to look at certificates.
func firstHTTP(urls []string) string {
	for _, u := range urls {
		if parsed, err := url.Parse(u); err == nil && strings.EqualFold(parsed.Scheme, "http") && parsed.Host != "" && parsed.User == nil && len(u) < 1024 {
			return u
		}
	}
	return ""
}

func shownAddress(at string) string {
	u, err := url.Parse(at)
	if err != nil {
		return "an address"
	}
	return wire.ShowURL(u)
}

func issuerAddress(certs []*x509.Certificate) string {
	return shownAddress(firstHTTP(topOf(certs).IssuingCertificateURL))
}

// nameOf names a chain, for what is the same from several addresses.
func nameOf(certs []*x509.Certificate) [sha256.Size]byte {
	h := sha256.New()
	for _, c := range certs {
		h.Write(c.Raw)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// readRoots reads the authorities of a file, beside those of the system where that is wanted.
func readRoots(path string, system bool) (*x509.CertPool, error) {
	if !system {
		return wire.ReadRoots(path)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's authorities cannot be read: %w", err)
	}
	b, err := certfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	return pool, nil
}
