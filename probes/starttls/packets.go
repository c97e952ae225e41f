package starttls

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// askPostgres sends an SSLRequest (PostgreSQL protocol 3.0, section 54.2.11); the answer is one byte.
func askPostgres(t *talk, _ string) error {
	if err := t.write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if err := t.read(answer); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return notOffered("TLS (SSLRequest answered with N)")
	case 'E':
		return refused("error answer")
	default:
		return violated("an answer to SSLRequest that is neither S nor N")
	}
}

const (
	mysqlSSL      = 0x0800 // CLIENT_SSL
	mysql41       = 0x0200 // CLIENT_PROTOCOL_41
	mysqlSecure   = 0x8000 // CLIENT_SECURE_CONNECTION
	mysqlMaxHello = 1 << 10
)

// askMySQL reads the server's handshake packet (protocol 10) and answers with an SSLRequest.
func askMySQL(t *talk, _ string) error {
	head := make([]byte, 4)
	if err := t.read(head); err != nil {
		return err
	}
	size := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if size < 1 || size > mysqlMaxHello || head[3] != 0 {
		return violated("a packet that is no MySQL greeting")
	}
	hello := make([]byte, size)
	if err := t.read(hello); err != nil {
		return err
	}
	s := cryptobyte.String(hello)
	var version uint8
	s.ReadUint8(&version)
	if version == 0xff { // error packet, such as "host is blocked"
		return refused("error packet in place of a greeting")
	}
	var c uint8
	for ok := true; ok; ok = c != 0 { // server version, ended by zero
		if !s.ReadUint8(&c) {
			return violated("a MySQL greeting that is cut off")
		}
	}
	var low []byte
	if version != 10 || !s.Skip(4+8+1) || !s.ReadBytes(&low, 2) {
		return violated("a MySQL greeting that is not of protocol 10")
	}
	if binary.LittleEndian.Uint16(low)&mysqlSSL == 0 {
		return notOffered("TLS (capability CLIENT_SSL)")
	}
	request := make([]byte, 4+32)
	request[0], request[3] = 32, head[3]+1
	binary.LittleEndian.PutUint32(request[4:], mysqlSSL|mysql41|mysqlSecure)
	binary.LittleEndian.PutUint32(request[8:], 1<<24)
	request[12] = 45 // utf8mb4_general_ci
	return t.write(request)
}

// startTLSOID is that of the extended operation (RFC 4511 section 4.14).
const startTLSOID = "1.3.6.1.4.1.1466.20037"

// maxLDAP bounds one LDAP message before TLS.
const maxLDAP = 4 << 10

// askLDAP sends the extended operation StartTLS and reads its result.
func askLDAP(t *talk, _ string) error {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(asn1.Tag(23|0x60), func(b *cryptobyte.Builder) { // [APPLICATION 23] ExtendedRequest
			b.AddASN1(asn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(startTLSOID)) })
		})
	})
	request, err := b.Bytes()
	if err != nil {
		return err
	}
	if err := t.write(request); err != nil {
		return err
	}
	message, err := t.ber()
	if err != nil {
		return err
	}
	var answer, operation cryptobyte.String
	var id, code int
	s := cryptobyte.String(message)
	if !s.ReadASN1(&answer, asn1.SEQUENCE) || !answer.ReadASN1Integer(&id) || !answer.ReadASN1(&operation, asn1.Tag(24|0x60)) || !operation.ReadASN1Enum(&code) {
		return violated("an answer to StartTLS that is no extended response of LDAP")
	}
	switch {
	case id != 1 && id != 0:
		return violated("an answer to another LDAP message")
	case code == 0 && id == 1:
		return nil
	case code == 2 || code == 12 || code == 53: // protocolError, unavailableCriticalExtension, unwillingToPerform
		return refused(fmt.Sprintf("LDAP result code %d; StartTLS is not supported or not allowed", code))
	default:
		return refused(fmt.Sprintf("LDAP result code %d", code))
	}
}

// ber reads one element in the basic encoding, with a definite length, and gives it in the distinguished one.
func (t *talk) ber() ([]byte, error) {
	head := make([]byte, 2)
	if err := t.read(head); err != nil {
		return nil, err
	}
	if head[0] != 0x30 {
		return nil, violated("an answer that is no LDAP message")
	}
	size := int(head[1])
	if size&0x80 != 0 {
		n := size & 0x7f
		if n == 0 || n > 4 { // servers such as Active Directory write all lengths in four bytes
			return nil, violated("an LDAP message of an indefinite or absurd length")
		}
		more := make([]byte, n)
		if err := t.read(more); err != nil {
			return nil, err
		}
		size = 0
		for _, c := range more {
			size = size<<8 | int(c)
		}
	}
	if size > maxLDAP || size < 0 {
		return nil, violated("an LDAP message of more than %d KiB", maxLDAP>>10)
	}
	body := make([]byte, size)
	if err := t.read(body); err != nil {
		return nil, err
	}
	return shorten(body), nil
}

// shorten writes an element whose inner lengths may be longer than need be (BER) in the way that cryptobyte reads (DER).
// It goes three levels deep, as far as is looked.
func shorten(body []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { shortenInto(b, body, 2) })
	out, err := b.Bytes()
	if err != nil {
		return nil
	}
	return out
}

func shortenInto(b *cryptobyte.Builder, body []byte, depth int) {
	for len(body) >= 2 {
		tag, size, from := body[0], int(body[1]), 2
		if size&0x80 != 0 {
			n := size & 0x7f
			if n == 0 || n > 4 || len(body) < 2+n {
				return
			}
			size = 0
			for _, c := range body[2 : 2+n] {
				size = size<<8 | int(c)
			}
			from += n
		}
		if size > len(body)-from {
			return
		}
		inner := body[from : from+size]
		b.AddASN1(asn1.Tag(tag), func(b *cryptobyte.Builder) {
			if tag&0x20 != 0 && depth > 0 {
				shortenInto(b, inner, depth-1)
				return
			}
			b.AddBytes(inner)
		})
		body = body[from+size:]
	}
}
