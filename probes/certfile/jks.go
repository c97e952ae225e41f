package certfile

import (
	"crypto/sha1" // #nosec G505 -- the form's own checksum
	"crypto/x509"
	"encoding/binary"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"

	"github.com/authvigil/authvigil/probes/evidence"
)

var (
	jksMagic   = []byte{0xfe, 0xed, 0xfe, 0xed}
	jceksMagic = []byte{0xce, 0xce, 0xce, 0xce}
)

// A Java key store is a list of entries and a checksum that its passphrase seasons. Certificates lie in it in clear.
const (
	jksPrivateKey = 1
	jksTrusted    = 2
	jksChecksum   = sha1.Size
)

// parseJKS reads the certificates of a Java key store, of form JKS or JCEKS. The passphrase only shows that the file is
// whole; without one it is read all the same. Libraries believe the lengths in the file and allocate them.
func parseJKS(b []byte, passphrase string) (list []Entry, err error) {
	cut := failed("bad_jks", "is a key store that is cut off or damaged")
	if len(b) < 12+jksChecksum {
		return nil, cut
	}
	s := cryptobyte.String(b[4 : len(b)-jksChecksum])
	var version, entries uint32
	if !s.ReadUint32(&version) || !s.ReadUint32(&entries) || (version != 1 && version != 2) {
		return nil, cut
	}
	if passphrase != "" && jksSum(b[:len(b)-jksChecksum], passphrase) != [jksChecksum]byte(b[len(b)-jksChecksum:]) {
		return nil, failed("bad_passphrase", "does not open with the passphrase")
	}
	for range entries {
		var tag, certs uint32
		var alias, key cryptobyte.String
		if !s.ReadUint32(&tag) || !s.ReadUint16LengthPrefixed(&alias) || !s.Skip(8) {
			return list, cut
		}
		switch tag {
		case jksPrivateKey:
			if !readLong(&s, &key) || !s.ReadUint32(&certs) {
				return list, cut
			}
		case jksTrusted:
			certs = 1
		default:
			return list, failed("bad_jks", "holds a secret key under %q, behind which nothing can be read", evidence.Clean(string(alias), 64))
		}
		for range certs {
			var kind, der cryptobyte.String
			if version == 2 && !s.ReadUint16LengthPrefixed(&kind) || !readLong(&s, &der) {
				return list, cut
			}
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return list, failed("bad_jks", "has a certificate under %q that cannot be read: %s", evidence.Clean(string(alias), 64), evidence.Clean(err.Error(), 128))
			}
			if len(list) < mostEntries {
				list = append(list, Entry{evidence.Clean(string(alias), 64), c})
			}
		}
	}
	if len(list) == 0 {
		return nil, failed("no_certificate", "holds no certificate")
	}
	return list, nil
}

// readLong reads bytes after their length in four bytes.
func readLong(s, into *cryptobyte.String) bool {
	var n uint32
	if !s.ReadUint32(&n) || uint64(n) > uint64(len(*s)) {
		return false
	}
	return s.ReadBytes((*[]byte)(into), int(n))
}

func jksSum(b []byte, passphrase string) [jksChecksum]byte {
	h := sha1.New() // #nosec G401 -- the form's own checksum
	for _, c := range utf16.Encode([]rune(passphrase)) {
		_ = binary.Write(h, binary.BigEndian, c)
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(b)
	return [jksChecksum]byte(h.Sum(nil))
}
