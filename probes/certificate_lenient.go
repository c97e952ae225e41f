package probes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"net"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// maxFlight bounds what is kept of a server's first flight.
const maxFlight = 128 << 10

// lookLeniently finds the dates of certificates that crypto/x509 refuses to read (a negative serial, a broken extension).
// In TLS 1.2 they cross the line in clear, so a second handshake is listened to.
func (p *certificateProbe) lookLeniently(ctx context.Context, s *shown) {
	again := &shown{ip: s.ip}
	conn, err := p.connect(ctx, again)
	if err != nil {
		return
	}
	defer conn.Close()
	ear := &listener{Conn: conn}
	c := modern(nil, again)
	c.MaxVersion, c.ServerName = tls.VersionTLS12, p.ServerName
	_ = tls.Client(ear, c).HandshakeContext(ctx) // fails as before; what was heard counts
	for i, der := range certificatesOf(ear.heard.Bytes()) {
		if cert, err := x509.ParseCertificate(der); err == nil {
			s.odd = append(s.odd, wire.DescribeCertificate(cert, i == 0))
		} else if d, ok := readLeniently(der, i == 0); ok {
			s.odd = append(s.odd, d)
		}
		if len(s.odd) == 8 {
			return
		}
	}
}

// A listener keeps what comes over a connection.
type listener struct {
	net.Conn
	heard bytes.Buffer
}

func (l *listener) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if room := maxFlight - l.heard.Len(); room > 0 {
		l.heard.Write(b[:min(n, room)])
	}
	return n, err
}

// certificatesOf finds the Certificate message (RFC 5246 section 7.4.2) in what a server sent.
func certificatesOf(flight []byte) (list [][]byte) {
	var messages []byte
	for s := cryptobyte.String(flight); !s.Empty(); { // records
		var kind uint8
		var version uint16
		var body cryptobyte.String
		if !s.ReadUint8(&kind) || !s.ReadUint16(&version) || !s.ReadUint16LengthPrefixed(&body) {
			break
		}
		if kind == 22 {
			messages = append(messages, body...)
		}
	}
	for s := cryptobyte.String(messages); !s.Empty(); {
		var kind uint8
		var body, all cryptobyte.String
		if !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&body) {
			break
		}
		if kind != 11 || !body.ReadUint24LengthPrefixed(&all) {
			continue
		}
		for !all.Empty() {
			var der cryptobyte.String
			if !all.ReadUint24LengthPrefixed(&der) {
				return list
			}
			list = append(list, der)
		}
		return list
	}
	return nil
}

// readLeniently reads what can be read of a certificate: serial, dates, common names. It checks nothing.
func readLeniently(der []byte, leaf bool) (d evidence.Certificate, ok bool) {
	sum := sha256.Sum256(der)
	d = evidence.Certificate{Role: "intermediate", Fingerprint: hex.EncodeToString(sum[:8]), KeyType: "unknown", Signature: "unknown"}
	if leaf {
		d.Role = "leaf"
	}
	var cert, tbs, algorithm, issuer, validity, subject, serial cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&cert, asn1.SEQUENCE) || !cert.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.SkipOptionalASN1(asn1.Tag(0).Constructed().ContextSpecific()) || !tbs.ReadASN1(&serial, asn1.INTEGER) ||
		!tbs.ReadASN1(&algorithm, asn1.SEQUENCE) || !tbs.ReadASN1(&issuer, asn1.SEQUENCE) || !tbs.ReadASN1(&validity, asn1.SEQUENCE) || !tbs.ReadASN1(&subject, asn1.SEQUENCE) {
		return d, false
	}
	d.Serial = twosComplement(serial).Text(16)
	var fine bool
	if d.NotBefore, fine = readTime(&validity); !fine {
		return d, false
	}
	if d.NotAfter, fine = readTime(&validity); !fine {
		return d, false
	}
	d.Issuer, d.Subject = commonName(issuer), commonName(subject)
	return d, true
}

func twosComplement(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b[:min(len(b), 32)])
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(min(len(b), 32)*8)))
	}
	return n
}

func readTime(s *cryptobyte.String) (t time.Time, ok bool) {
	if s.PeekASN1Tag(asn1.UTCTime) {
		ok = s.ReadASN1UTCTime(&t)
		return t, ok
	}
	ok = s.ReadASN1GeneralizedTime(&t)
	return t, ok
}

// commonName finds the common name (2.5.4.3) in a distinguished name.
func commonName(name cryptobyte.String) string {
	for !name.Empty() {
		var set, pair, oid, value cryptobyte.String
		var tag asn1.Tag
		if !name.ReadASN1(&set, asn1.SET) || !set.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !pair.ReadAnyASN1(&value, &tag) {
			return ""
		}
		if bytes.Equal(oid, []byte{0x55, 0x04, 0x03}) {
			return evidence.Clean(string(value), 128)
		}
	}
	return ""
}
