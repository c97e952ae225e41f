package probes

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// maxRounds bounds the key derivation of a PKCS #12 file, whose number of rounds is whatever its writer put there: a
// million takes about a second, four thousand million a day.
const maxRounds = 1_000_000

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

func firstElement(der []byte) ([]byte, error) {
	var first cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1Element(&first, asn1.SEQUENCE) {
		return nil, errors.New("not DER")
	}
	return first, nil
}
