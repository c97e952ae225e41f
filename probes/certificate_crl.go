package probes

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cryptoasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/authvigil/authvigil/probes/evidence"
)

const (
	maxList   = 10 << 20 // bytes of a revocation list; Let's Encrypt's are below 1 MiB
	listLife  = 6 * time.Hour
	listRetry = 10 * time.Minute
)

// A keptList is a revocation list as far as it is needed: whether a serial stands in it.
type keptList struct {
	mu    sync.Mutex // held while it is fetched, so that it is fetched once
	until time.Time
	code  string // why there is none; empty: there is one
	why   string

	this, next time.Time
	wrongScope string         // why it does not speak of this certificate
	revoked    []revokedEntry // sorted by hash
}

// A revokedEntry takes 24 bytes where crypto/x509 takes some 150: lists have hundreds of thousands.
type revokedEntry struct {
	hash   uint64 // of the serial
	at     int64
	reason int8
}

func hashSerial(n *big.Int) uint64 {
	sum := sha256.Sum256(n.Bytes())
	return binary.BigEndian.Uint64(sum[:])
}

// askList looks a certificate up in its authority's revocation list (RFC 5280 section 5).
func (p *certificateProbe) askList(ctx context.Context, at string, leaf, issuer *x509.Certificate, now time.Time) (evidence.Facet, []evidence.Reading) {
	l := p.list(ctx, at, leaf, issuer, now)
	l.mu.Lock()
	defer l.mu.Unlock()
	var readings []evidence.Reading
	unknown := func(code, format string, args ...any) (evidence.Facet, []evidence.Reading) {
		return evidence.Facet{Name: "revocation", State: evidence.Unknown, Code: code, Detail: fmt.Sprintf(format, args...)}, readings
	}
	if l.code == "" {
		name := evidence.Clean(issuer.Subject.CommonName, 128)
		readings = append(readings, evidence.Reading{Metric: certListThis, Labels: []string{name}, Value: unixSeconds(l.this)})
		if !l.next.IsZero() {
			readings = append(readings, evidence.Reading{Metric: certListNext, Labels: []string{name}, Value: unixSeconds(l.next)})
		}
	}
	switch {
	case l.code != "":
		return unknown(l.code, "%s", l.why)
	case l.wrongScope != "":
		return unknown("crl_wrong_scope", "the revocation list at %s %s", shownAddress(at), l.wrongScope)
	}
	hash := hashSerial(leaf.SerialNumber)
	if i, found := slices.BinarySearchFunc(l.revoked, hash, func(e revokedEntry, h uint64) int { return cmp.Compare(e.hash, h) }); found {
		return revokedFacet(time.Unix(l.revoked[i].at, 0), int(l.revoked[i].reason)), readings
	}
	if !l.next.IsZero() && now.After(l.next) {
		return unknown("crl_stale", "the revocation list was to be replaced by %s", l.next.UTC().Format(time.RFC3339))
	}
	return evidence.Facet{Name: "revocation", State: evidence.OK}, readings
}

// list gives the revocation list at an address as a given authority signed it, fetched when that is due.
func (p *certificateProbe) list(ctx context.Context, at string, leaf, issuer *x509.Certificate, now time.Time) *keptList {
	key := at + " " + string(issuer.RawSubjectPublicKeyInfo)
	kept := p.fetch.kept
	kept.mu.Lock()
	l := kept.lists[key]
	if l == nil {
		if len(kept.lists) >= maxKept {
			clear(kept.lists)
		}
		l = &keptList{}
		kept.lists[key] = l
	}
	kept.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	local := time.Now()
	if local.Before(l.until) {
		return l
	}
	code, err := p.fetchList(ctx, l, at, leaf, issuer)
	if err != nil {
		if l.code == "" && now.Before(l.next) { // the one at hand is good until then
			l.until = local.Add(listRetry)
			return l
		}
		l.code, l.why, l.until, l.revoked = code, err.Error(), local.Add(listRetry), nil
		return l
	}
	l.code, l.why, l.until = "", "", local.Add(listLife)
	if left := l.next.Sub(now); !l.next.IsZero() && left < listLife {
		l.until = local.Add(max(left, listRetry))
	}
	return l
}

func (p *certificateProbe) fetchList(ctx context.Context, l *keptList, at string, leaf, issuer *x509.Certificate) (code string, err error) {
	req, err := http.NewRequest(http.MethodGet, at, nil)
	if err != nil {
		return "crl_unreachable", errors.New("the address of the revocation list is not valid")
	}
	a, err := p.fetch.get(ctx, req, maxList, p.authorityGuard())
	switch {
	case a.Exchange.BodyCut:
		return "crl_too_large", fmt.Errorf("the revocation list at %s is longer than %d MiB", shownAddress(at), maxList>>20)
	case err != nil:
		return "crl_unreachable", fmt.Errorf("the revocation list could not be fetched from %s: %s", shownAddress(at), evidence.Clean(err.Error(), 160))
	}
	der := a.Body
	if block, _ := pem.Decode(der); block != nil {
		der = block.Bytes
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return "crl_unparseable", fmt.Errorf("what lies at %s is no revocation list: %s", shownAddress(at), evidence.Clean(err.Error(), 160))
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return "crl_signature_invalid", fmt.Errorf("the revocation list at %s is not signed by %q", shownAddress(at), evidence.Clean(issuer.Subject.CommonName, 128))
	}
	l.this, l.next, l.wrongScope = list.ThisUpdate, list.NextUpdate, scopeProblem(list, leaf, at)
	l.revoked = make([]revokedEntry, 0, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		l.revoked = append(l.revoked, revokedEntry{hashSerial(e.SerialNumber), e.RevocationTime.Unix(), int8(e.ReasonCode)}) // #nosec G115 -- ten reasons
	}
	slices.SortFunc(l.revoked, func(a, b revokedEntry) int { return cmp.Compare(a.hash, b.hash) })
	return "", nil
}

var (
	oidDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidDeltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
)

// scopeProblem says why a list does not speak of a certificate: a partition for others put in its place (RFC 5280 section
// 5.2.5) would make a revoked one look good.
func scopeProblem(list *x509.RevocationList, leaf *x509.Certificate, at string) string {
	for _, e := range list.Extensions {
		if e.Id.Equal(oidDeltaIndicator) {
			return "holds changes only (a delta list)"
		}
		if !e.Id.Equal(oidDistributionPoint) {
			continue
		}
		var point, names, whole, uri cryptobyte.String
		s := cryptobyte.String(e.Value)
		if !s.ReadASN1(&point, cryptoasn1.SEQUENCE) {
			return "has a scope that cannot be read"
		}
		if tag := cryptoasn1.Tag(0).Constructed().ContextSpecific(); point.PeekASN1Tag(tag) {
			matches, named := false, false
			if point.ReadASN1(&names, tag) && names.ReadASN1(&whole, tag) {
				for !whole.Empty() {
					var kind cryptoasn1.Tag
					if !whole.ReadAnyASN1(&uri, &kind) {
						break
					}
					if kind == cryptoasn1.Tag(6).ContextSpecific() {
						named = true
						matches = matches || string(uri) == at || slices.Contains(leaf.CRLDistributionPoints, string(uri))
					}
				}
			}
			if named && !matches {
				return "says that it belongs at another address (" + evidence.Clean(strings.ToValidUTF8(string(uri), "?"), 160) + ")"
			}
		}
		for !point.Empty() {
			var kind cryptoasn1.Tag
			var value cryptobyte.String
			if !point.ReadAnyASN1(&value, &kind) {
				return "has a scope that cannot be read"
			}
			flag := bytes.Equal(value, []byte{0xff})
			switch {
			case kind == cryptoasn1.Tag(1).ContextSpecific() && flag && leaf.IsCA:
				return "is for certificates of end users only"
			case kind == cryptoasn1.Tag(2).ContextSpecific() && flag && !leaf.IsCA:
				return "is for certificates of authorities only"
			case kind == cryptoasn1.Tag(5).ContextSpecific() && flag:
				return "is for attribute certificates only"
			}
		}
	}
	return ""
}
