// Package certfile reads certificates from what people and programs keep them in: PEM, DER, PKCS #7, PKCS #12, Java key
// stores and kubeconfigs. Private keys are not looked at. Files are read whole or not at all, lengths and rounds that stand
// in them are believed up to a bound, and why a file gives nothing is one of a closed list of words.
package certfile

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const (
	MaxBytes    = 1 << 20 // of a file that is read; the bundle of all public roots has 220 KiB
	mostEntries = 1024    // certificates of one file
)

// An Error says why a file gives no certificates, or not all.
type Error struct {
	Code string // bad_pem, bad_der, bad_pkcs12, bad_jks, bad_kubeconfig, bad_passphrase, permission_denied, not_found, too_large, no_certificate, unreadable
	text string
}

// Error is said of the file: it follows the file's name.
func (e *Error) Error() string { return e.text }

func failed(code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// AsError brings an error of the file system into one of the closed list.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &Error{"not_found", "does not exist"}
	case errors.Is(err, fs.ErrPermission):
		return &Error{"permission_denied", "may not be read by the user that authvigil runs as"}
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path stands in the sentence already
	}
	return &Error{"unreadable", "cannot be read: " + err.Error()}
}

// Read reads a regular file of at most MaxBytes. Its errors are of type *Error.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, AsError(err)
	case !info.Mode().IsRegular():
		return nil, failed("unreadable", "is no regular file")
	case info.Size() > MaxBytes:
		return nil, failed("too_large", "is larger than %d KiB", MaxBytes>>10)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, AsError(err)
	}
	return b, nil
}

// An Entry is a certificate with the name that its file gives it, if any: an alias, a user of a kubeconfig.
type Entry struct {
	Name        string
	Certificate *x509.Certificate
}

// Parse reads the certificates of a file and says its form: pem, der, pkcs7, pkcs12, jks or kubeconfig. It may give some
// certificates together with an *Error. The passphrase opens PKCS #12 and proves that a Java key store is whole.
func Parse(b []byte, passphrase string) (form string, list []Entry, err error) {
	switch {
	case bytes.HasPrefix(b, jksMagic), bytes.HasPrefix(b, jceksMagic):
		list, err = parseJKS(b, passphrase)
		return "jks", list, err
	case bytes.Contains(b, []byte("-----BEGIN ")):
		certs, err := parsePEM(b)
		return "pem", unnamed(certs), err
	case looksLikeKubeconfig(b):
		list, err = parseKubeconfig(b)
		return "kubeconfig", list, err
	case len(b) > 0 && b[0] == 0x30:
		if certs, err := x509.ParseCertificates(b); err == nil {
			return "der", unnamed(certs), nil
		}
		if certs := parsePKCS7(b); len(certs) > 0 {
			return "pkcs7", unnamed(certs), nil
		}
		if looksLikePKCS12(b) {
			list, err = parsePKCS12(b, passphrase)
			return "pkcs12", list, err
		}
		return "der", nil, failed("bad_der", "begins like DER and is neither a certificate nor a PKCS #12 file")
	case len(bytes.TrimSpace(b)) == 0:
		return "pem", nil, failed("no_certificate", "is empty")
	default:
		return "", nil, failed("no_certificate", "holds nothing that is known as a certificate")
	}
}

func unnamed(certs []*x509.Certificate) (list []Entry) {
	for _, c := range certs[:min(len(certs), mostEntries)] {
		list = append(list, Entry{Certificate: c})
	}
	return list
}

// Published reads what an authority lays down at an address: a certificate in DER, in PEM, or a bundle in PKCS #7 (the forms
// of RFC 5280 section 4.2.2.1, and what is seen). Anything else gives none.
func Published(b []byte) []*x509.Certificate {
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	if c, err := x509.ParseCertificate(b); err == nil {
		return []*x509.Certificate{c}
	}
	return parsePKCS7(b)
}
