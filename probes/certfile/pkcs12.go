package certfile

import (
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/authvigil/authvigil/probes/evidence"
)

// maxRounds bounds the key derivation of a PKCS #12 file, whose number of rounds is whatever its writer put there: a
// million takes about a second, four thousand million a day.
const maxRounds = 1_000_000

// parsePKCS12 reads a PKCS #12 file (RFC 7292): a key with its chain, or a trust store.
func parsePKCS12(b []byte, passphrase string) ([]Entry, error) {
	if rounds := pkcs12Rounds(b); rounds > maxRounds {
		return nil, failed("bad_pkcs12", "wants %d rounds of key derivation, more than %d", rounds, maxRounds)
	}
	_, leaf, rest, err := pkcs12.DecodeChain(b, passphrase)
	if err == nil {
		return unnamed(append([]*x509.Certificate{leaf}, rest...)), nil
	}
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, failed("bad_passphrase", "does not open with the passphrase")
	}
	if certs, trustErr := pkcs12.DecodeTrustStore(b, passphrase); trustErr == nil {
		return unnamed(certs), nil
	}
	//lint:ignore SA1019 it reads what DecodeChain refuses, such as several keys
	if blocks, pemErr := pkcs12.ToPEM(b, passphrase); pemErr == nil {
		var list []*x509.Certificate
		for _, block := range blocks {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
				list = append(list, c)
			}
		}
		if len(list) > 0 {
			return unnamed(list), nil
		}
	}
	return nil, failed("bad_pkcs12", "is a PKCS #12 file that cannot be read: %s", evidence.Clean(err.Error(), 128))
}

// looksLikePKCS12 says whether a file begins as a PFX: version 3 and a ContentInfo of data or signed data.
func looksLikePKCS12(b []byte) bool {
	var pfx, content cryptobyte.String
	var version int
	s := cryptobyte.String(b)
	return s.ReadASN1(&pfx, asn1.SEQUENCE) && pfx.ReadASN1Integer(&version) && version == 3 && pfx.ReadASN1(&content, asn1.SEQUENCE)
}

// pkcs12Rounds gives the largest number that stands where a number of rounds may stand: every integer next to an octet
// string (salt and iterations, RFC 8018 appendix A and RFC 7292 section 4) of the parts that are not encrypted.
func pkcs12Rounds(b []byte) int {
	most := 0
	var walk func(s cryptobyte.String, depth int)
	walk = func(s cryptobyte.String, depth int) {
		salted := false
		for !s.Empty() {
			var value cryptobyte.String
			var tag asn1.Tag
			if !s.ReadAnyASN1(&value, &tag) {
				return
			}
			switch {
			case tag == asn1.OCTET_STRING:
				salted = true
				if depth > 0 {
					walk(value, depth-1) // safes lie in octet strings
				}
			case tag == asn1.INTEGER && salted:
				most = max(most, intOf(value))
			case tag&0x20 != 0 && depth > 0:
				walk(value, depth-1)
			}
		}
	}
	walk(cryptobyte.String(b), 16)
	return most
}

// intOf reads a positive integer; a long one counts as the largest.
func intOf(b cryptobyte.String) int {
	n := 0
	for _, c := range b {
		if n > 1<<40 {
			return n
		}
		n = n<<8 | int(c)
	}
	return n
}
