package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"sync"
	"time"
)

// A Certificate says how the certificate of a host, or of a client, differs from a good one. The zero value is a good one:
// for the host's own name, valid from an hour ago for 90 days, with the intermediate that leads to Roots.
type Certificate struct {
	NotBefore, NotAfter time.Time // zero: good ones
	For                 string    // another name than the host's own
	Chain               Chain     // how it is vouched for
	Revoked             bool      // listed in the CRL and by the OCSP responder of PKIHost
	Staple              Staple    // what the host says of it by itself
	WeakKey             bool      // RSA of 1024 bits
	Edition             int       // another number makes another certificate, such as after a renewal
}

// A Chain is how a certificate is vouched for.
type Chain int

// Ways to vouch, of which only the first is good.
const (
	WholeChain          Chain = iota
	WithoutIntermediate       // the leaf alone, as after a forgotten "fullchain"
	SelfSigned                // by itself
	UnknownRoot               // a whole chain to a root that is not among Roots
	ExpiredIntermediate       // the intermediate ran out yesterday
)

const leafLife = 90 * 24 * time.Hour

// An authority issues the certificates of a World, with times around its making, so that they fit a bubble's clock too.
type authority struct {
	root, intermediate, stale, foreignRoot, foreign *signer
	made                                            time.Time // the moment around which certificates are good
	local                                           bool      // leaves hold 127.0.0.1 and localhost, too

	mu      sync.Mutex // owns what follows
	serial  int64
	revoked []x509.RevocationListEntry
}

type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(now time.Time) *authority {
	a := &authority{made: now, serial: now.UnixNano() / 1000}
	const year = 365 * 24 * time.Hour
	authority := func(name string, by *signer, until time.Time) *signer {
		return a.sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: name, Organization: []string{"Sandbox"}}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: now.Add(-year), NotAfter: until, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}, newKey(), by)
	}
	a.root = authority("Sandbox Root", nil, now.Add(10*year))
	a.intermediate = authority("Sandbox Intermediate", a.root, now.Add(5*year))
	a.stale = &signer{key: a.intermediate.key}
	old := *a.intermediate.cert
	old.NotAfter = now.Add(-24 * time.Hour)
	a.stale.cert = a.reissue(&old, a.root)
	a.foreignRoot = authority("Stranger Root", nil, now.Add(10*year))
	a.foreign = authority("Stranger Intermediate", a.foreignRoot, now.Add(5*year))
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

// weakKey is made once per process: RSA takes its time.
var weakKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 1024) // #nosec G403 -- weak on purpose
	if err != nil {
		panic(err)
	}
	return key
})

// sign issues a certificate; without by it is signed by itself.
func (a *authority) sign(template *x509.Certificate, key crypto.Signer, by *signer) *signer {
	a.mu.Lock()
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	a.mu.Unlock()
	template.PublicKey = key.Public()
	s := &signer{cert: template, key: key}
	if by == nil {
		by = s
	}
	s.cert = a.reissue(template, by)
	return s
}

func (a *authority) reissue(template *x509.Certificate, by *signer) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, template.PublicKey, by.key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root.cert)
	return pool
}

// issue makes the certificate of a host or a client.
func (a *authority) issue(name string, c Certificate, client bool) tls.Certificate {
	if c.For != "" {
		name = c.For
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		DNSNames:              []string{name},
		NotBefore:             a.made.Add(-time.Hour),
		NotAfter:              a.made.Add(leafLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		OCSPServer:            []string{"http://" + PKIHost + "/ocsp"},
		CRLDistributionPoints: []string{"http://" + PKIHost + "/intermediate.crl"},
		IssuingCertificateURL: []string{"http://" + PKIHost + "/intermediate.cer"},
	}
	if client {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else if a.local && c.For == "" {
		template.DNSNames = append(template.DNSNames, "localhost")
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	if !c.NotAfter.IsZero() {
		template.NotAfter = c.NotAfter
		if c.NotAfter.Before(template.NotBefore) {
			template.NotBefore = c.NotAfter.Add(-leafLife)
		}
	}
	if !c.NotBefore.IsZero() {
		template.NotBefore = c.NotBefore
		if c.NotAfter.IsZero() {
			template.NotAfter = c.NotBefore.Add(leafLife)
		}
	}
	var key crypto.Signer = newKey()
	if c.WeakKey {
		key = weakKey()
	}
	by, chain := a.intermediate, [][]byte{a.intermediate.cert.Raw}
	switch c.Chain {
	case WithoutIntermediate:
		chain = nil
	case SelfSigned:
		by, chain = nil, nil
	case UnknownRoot:
		by, chain = a.foreign, [][]byte{a.foreign.cert.Raw, a.foreignRoot.cert.Raw}
	case ExpiredIntermediate:
		chain = [][]byte{a.stale.cert.Raw}
	}
	leaf := a.sign(template, key, by)
	if c.Revoked {
		a.revoke(leaf.cert.SerialNumber)
	}
	made := tls.Certificate{Certificate: append([][]byte{leaf.cert.Raw}, chain...), PrivateKey: key, Leaf: leaf.cert}
	if c.Staple != NoStaple {
		made.OCSPStaple = a.ocspAnswer(leaf.cert.SerialNumber, c.Staple == StaleStaple)
	}
	return made
}

// ClientCertificate issues a certificate for a client of this name.
func (w *World) ClientCertificate(name string, c Certificate) tls.Certificate {
	return w.ca.issue(name, c, true)
}

// PEM gives a certificate with its chain, and its private key in PKCS #8, as files hold them.
func PEM(c tls.Certificate) (certificate, key []byte) {
	for _, der := range c.Certificate {
		certificate = append(certificate, pemOf("CERTIFICATE", der)...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		panic(err)
	}
	return certificate, pemOf("PRIVATE KEY", der)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
