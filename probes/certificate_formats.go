package probes

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/authvigil/authvigil/probes/evidence"
)

const (
	maxFile    = 1 << 20 // bytes of a file that is read; the bundle of all public roots has 220 KiB
	mostStored = 1024    // certificates of one file
)

// A loadError says why a file gives no certificates, by a closed word.
type loadError struct {
	code string // bad_pem, bad_der, bad_pkcs12, bad_jks, bad_kubeconfig, bad_passphrase, permission_denied, not_found, too_large, no_certificate, unreadable
	text string
}

func (e *loadError) Error() string { return e.text }

var errTooLarge = &loadError{"too_large", fmt.Sprintf("is larger than %d KiB", maxFile>>10)}

func loadFailed(code, format string, args ...any) error {
	return &loadError{code, fmt.Sprintf(format, args...)}
}

// A stored certificate has a name where its file gives it one: an alias, a user of a kubeconfig.
type stored struct {
	name string
	cert *x509.Certificate
}

// parseStore reads the certificates of a file, whatever its form. Private keys are not looked at.
func parseStore(b []byte, passphrase string) (form string, list []stored, err error) {
	switch {
	case bytes.HasPrefix(b, jksMagic), bytes.HasPrefix(b, jceksMagic):
		list, err = parseJKS(b, passphrase)
		return "jks", list, err
	case bytes.Contains(b, []byte("-----BEGIN ")):
		list, err = storedPEM(b)
		return "pem", list, err
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
		return "der", nil, loadFailed("bad_der", "begins like DER and is neither a certificate nor a PKCS #12 file")
	case len(bytes.TrimSpace(b)) == 0:
		return "pem", nil, loadFailed("no_certificate", "is empty")
	default:
		return "", nil, loadFailed("no_certificate", "holds nothing that is known as a certificate")
	}
}

func unnamed(certs []*x509.Certificate) (list []stored) {
	for _, c := range certs[:min(len(certs), mostStored)] {
		list = append(list, stored{cert: c})
	}
	return list
}

func storedPEM(b []byte) ([]stored, error) {
	certs, err := parsePEM(b)
	return unnamed(certs), err
}

// parsePEM reads the certificates of a PEM file (RFC 7468). A block that is begun and not ended means that somebody is
// writing it; so does one whose inside is cut.
func parsePEM(b []byte) (list []*x509.Certificate, err error) {
	begun := bytes.Count(b, []byte("-----BEGIN "))
	blocks := 0
	for rest := b; len(list) < mostStored; {
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
			return list, loadFailed("bad_pem", "certificate %d cannot be read: %s", len(list)+1, evidence.Clean(err.Error(), 128))
		}
		list = append(list, c)
	}
	switch {
	case blocks < begun && len(list) < mostStored:
		return list, loadFailed("bad_pem", "has %d PEM blocks, of which %d can be read; is it being written?", begun, blocks)
	case len(list) == 0:
		return nil, loadFailed("no_certificate", "holds no certificate")
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

// parsePKCS12 reads a PKCS #12 file (RFC 7292): a key with its chain, or a trust store.
func parsePKCS12(b []byte, passphrase string) ([]stored, error) {
	if rounds := pkcs12Rounds(b); rounds > maxRounds {
		return nil, loadFailed("bad_pkcs12", "wants %d rounds of key derivation, more than %d", rounds, maxRounds)
	}
	_, leaf, rest, err := pkcs12.DecodeChain(b, passphrase)
	if err == nil {
		return unnamed(append([]*x509.Certificate{leaf}, rest...)), nil
	}
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, loadFailed("bad_passphrase", "does not open with the passphrase")
	}
	if certs, trustErr := pkcs12.DecodeTrustStore(b, passphrase); trustErr == nil {
		return unnamed(certs), nil
	}
	if blocks, pemErr := pkcs12.ToPEM(b, passphrase); pemErr == nil { //nolint:staticcheck // SA1019: reads what DecodeChain refuses, such as several keys
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
	return nil, loadFailed("bad_pkcs12", "is a PKCS #12 file that cannot be read: %s", evidence.Clean(err.Error(), 128))
}

func looksLikeKubeconfig(b []byte) bool {
	head := b[:min(len(b), 64<<10)]
	return bytes.Contains(head, []byte("certificate-authority-data")) || bytes.Contains(head, []byte("client-certificate-data")) ||
		bytes.Contains(head, []byte("kind: Config")) || bytes.Contains(head, []byte(`"kind":"Config"`))
}

// parseKubeconfig reads the certificates that stand in a kubeconfig itself.
func parseKubeconfig(b []byte) (list []stored, err error) {
	var config struct {
		Clusters []struct {
			Name    string
			Cluster struct {
				Data string `yaml:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Data string `yaml:"client-certificate-data"`
			}
		}
	}
	if err := yaml.Unmarshal(b, &config); err != nil {
		return nil, loadFailed("bad_kubeconfig", "is no YAML document")
	}
	add := func(name, data string) error {
		if data == "" || len(list) >= mostStored {
			return nil
		}
		der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(data))
		if err != nil {
			return loadFailed("bad_kubeconfig", "has data of %q that is not base64", evidence.Clean(name, 64))
		}
		certs, err := parsePEM(der)
		if err != nil {
			return loadFailed("bad_kubeconfig", "has data of %q that cannot be read: %s", evidence.Clean(name, 64), err.Error())
		}
		for _, c := range certs {
			list = append(list, stored{evidence.Clean(name, 64), c})
		}
		return nil
	}
	for _, u := range config.Users {
		if err := add("user "+u.Name, u.User.Data); err != nil {
			return list, err
		}
	}
	for _, c := range config.Clusters {
		if err := add("cluster "+c.Name, c.Cluster.Data); err != nil {
			return list, err
		}
	}
	if len(list) == 0 {
		return nil, loadFailed("no_certificate", "holds no certificate in itself; name the files that it points to")
	}
	return list, nil
}
