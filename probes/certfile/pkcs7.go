package certfile

import (
	"crypto/x509"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// parsePKCS7 finds the certificates of a SignedData without signatures (RFC 2315 section 9), in which authorities serve
// several issuing certificates at one address.
func parsePKCS7(b []byte) (list []*x509.Certificate) {
	var info, oid, wrapped, signed, skipped, certs cryptobyte.String
	s := cryptobyte.String(b)
	if !s.ReadASN1(&info, asn1.SEQUENCE) || !info.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || !info.ReadASN1(&wrapped, asn1.Tag(0).Constructed().ContextSpecific()) ||
		!wrapped.ReadASN1(&signed, asn1.SEQUENCE) || !signed.ReadASN1(&skipped, asn1.INTEGER) || !signed.ReadASN1(&skipped, asn1.SET) || !signed.ReadASN1(&skipped, asn1.SEQUENCE) ||
		!signed.ReadASN1(&certs, asn1.Tag(0).Constructed().ContextSpecific()) {
		return nil
	}
	for !certs.Empty() && len(list) < mostEntries {
		var der cryptobyte.String
		if !certs.ReadASN1Element(&der, asn1.SEQUENCE) {
			return list
		}
		if c, err := x509.ParseCertificate(der); err == nil {
			list = append(list, c)
		}
	}
	return list
}
