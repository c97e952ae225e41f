package certfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/authvigil/authvigil/probes/evidence"
)

// parsePEM reads the certificates of a PEM file (RFC 7468). A block that is begun and not ended means that somebody is
// writing it; so does one whose inside is cut.
func parsePEM(b []byte) (list []*x509.Certificate, err error) {
	begun := bytes.Count(b, []byte("-----BEGIN "))
	blocks := 0
	for rest := b; len(list) < mostEntries; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks++
		if block.Type != "CERTIFICATE" && block.Type != "TRUSTED CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil && block.Type == "TRUSTED CERTIFICATE" { // OpenSSL appends its trust settings
			c, err = parseFirst(block.Bytes)
		}
		if err != nil {
			return list, failed("bad_pem", "certificate %d cannot be read: %s", len(list)+1, evidence.Clean(err.Error(), 128))
		}
		list = append(list, c)
	}
	switch {
	case blocks < begun && len(list) < mostEntries:
		return list, failed("bad_pem", "has %d PEM blocks, of which %d can be read; is it being written?", begun, blocks)
	case len(list) == 0:
		return nil, failed("no_certificate", "holds no certificate")
	}
	return list, nil
}

func parseFirst(der []byte) (*x509.Certificate, error) {
	first, err := firstElement(der)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(first)
}

func firstElement(der []byte) ([]byte, error) {
	var first cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1Element(&first, asn1.SEQUENCE) {
		return nil, errors.New("not DER")
	}
	return first, nil
}
