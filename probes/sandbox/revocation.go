package sandbox

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A Staple is what a host shows of an OCSP answer in the handshake (RFC 6066 section 8).
type Staple int

// What may be stapled.
const (
	NoStaple    Staple = iota
	FreshStaple        // the answer of now, made when the certificate was
	StaleStaple        // one whose time is over
)

const keyCompromise = 1 // reason of a revocation, RFC 5280 section 5.3.1

func (a *authority) revoke(serial *big.Int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revoked = append(a.revoked, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: time.Now(), ReasonCode: keyCompromise})
}

// ocspAnswer says whether a certificate of the intermediate was revoked (RFC 6960).
func (a *authority) ocspAnswer(serial *big.Int, stale bool) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if stale {
		now = now.Add(-30 * 24 * time.Hour)
	}
	answer := ocsp.Response{Status: ocsp.Good, SerialNumber: serial, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour)}
	at := slices.IndexFunc(a.revoked, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
	if at >= 0 {
		answer.Status, answer.RevokedAt, answer.RevocationReason = ocsp.Revoked, a.revoked[at].RevocationTime, keyCompromise
	}
	by := a.intermediate
	der, err := ocsp.CreateResponse(by.cert, by.cert, answer, by.key)
	if err != nil {
		panic(err)
	}
	return der
}

// revocationList is the CRL of the intermediate (RFC 5280 section 5).
func (a *authority) revocationList() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(24 * time.Hour), RevokedCertificateEntries: a.revoked}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.intermediate.cert, a.intermediate.key)
	if err != nil {
		panic(err)
	}
	return der
}

// servePKI answers as an authority's web server does: issuer certificate, CRL, and OCSP by POST or GET.
func (w *World) servePKI(rw http.ResponseWriter, r *http.Request) {
	send := func(kind string, der []byte) {
		rw.Header().Set("Content-Type", "application/"+kind)
		_, _ = rw.Write(der)
	}
	asked, isGet := strings.CutPrefix(r.URL.Path, "/ocsp/")
	switch {
	case r.URL.Path == "/intermediate.cer":
		send("pkix-cert", w.ca.intermediate.cert.Raw)
	case r.URL.Path == "/intermediate.crl":
		send("pkix-crl", w.ca.revocationList())
	case r.URL.Path == "/ocsp" || isGet:
		der, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if isGet { // RFC 6960 appendix A.1
			der, err = base64.StdEncoding.DecodeString(asked)
		}
		q, bad := ocsp.ParseRequest(der)
		if err != nil || bad != nil {
			send("ocsp-response", ocsp.MalformedRequestErrorResponse)
			return
		}
		send("ocsp-response", w.ca.ocspAnswer(q.SerialNumber, false))
	default:
		http.NotFound(rw, r)
	}
}
