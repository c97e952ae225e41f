// Package starttls asks servers, in their own protocols, to begin TLS: mail, directories, databases, chat. A server may say
// little before it does, and nothing after it gave leave. What is asked over TLS is no matter of this package.
package starttls

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A dialect asks in one protocol. It returns when the next byte is to be TLS.
type dialect func(t *talk, name string) error

// dialects is the table of protocols that can begin TLS on demand.
var dialects = map[string]dialect{
	"ftp":      askFTP,
	"imap":     askIMAP,
	"ldap":     askLDAP,
	"mysql":    askMySQL,
	"pop3":     askPOP3,
	"postgres": askPostgres,
	"smtp":     askSMTP,
	"xmpp":     askXMPP,
}

// Protocols lists those that are spoken, sorted.
func Protocols() []string { return slices.Sorted(maps.Keys(dialects)) }

// Begin asks the server on a connection to begin TLS; the next byte is then to be TLS. name is what the server is called. The
// caller sets the connection's deadline. A server that does not do as its protocol says makes an *evidence.Fault with code
// starttls_not_offered, starttls_refused or protocol_violation; other errors are the connection's.
func Begin(conn net.Conn, protocol, name string) error {
	ask, ok := dialects[protocol]
	if !ok {
		return fmt.Errorf("%q is none of %s", protocol, strings.Join(Protocols(), ", "))
	}
	t := &talk{conn: conn}
	if err := ask(t, name); err != nil {
		return err
	}
	return t.quiet()
}

const (
	maxTalkLine = 2 << 10  // bytes of one line; SMTP allows 512 (RFC 5321 section 4.5.3.1.5), others a little more
	maxLines    = 64       // of one answer
	maxTalk     = 32 << 10 // bytes that a server may say before TLS
)

// A talk is a conversation before TLS, with limits on what the server may say.
type talk struct {
	conn net.Conn
	in   *bufio.Reader
	left io.LimitedReader
}

func (t *talk) reader() *bufio.Reader {
	if t.in == nil {
		t.left = io.LimitedReader{R: t.conn, N: maxTalk}
		t.in = bufio.NewReaderSize(&t.left, maxTalkLine)
	}
	return t.in
}

// line reads one line, without its end, which must be CR LF or LF.
func (t *talk) line() (string, error) {
	b, err := t.reader().ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return "", violated("a line of more than %d bytes", maxTalkLine)
	case errors.Is(err, io.EOF) && t.left.N <= 0:
		return "", violated("more than %d KiB before TLS", maxTalk>>10)
	case errors.Is(err, io.EOF):
		return "", io.ErrUnexpectedEOF
	case err != nil:
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}

// read reads exactly as many bytes as b holds.
func (t *talk) read(b []byte) error {
	_, err := io.ReadFull(t.reader(), b)
	if errors.Is(err, io.EOF) && t.left.N > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (t *talk) say(format string, args ...any) error {
	return t.write(fmt.Appendf(nil, format, args...))
}

func (t *talk) write(b []byte) error {
	_, err := t.conn.Write(b)
	return err
}

// quiet fails when the server said more than its leave to begin: what is injected there in clear would be taken for
// protected (CVE-2011-0411 and its kin).
func (t *talk) quiet() error {
	if t.in != nil && t.in.Buffered() > 0 {
		return violated("text in clear after the server's leave to begin TLS")
	}
	return nil
}

func violated(format string, args ...any) error {
	return fault("protocol_violation", "the server sent "+format, args...)
}

func notOffered(what string) error {
	return fault("starttls_not_offered", "the server does not offer %s", what)
}

func refused(answer string) error {
	return fault("starttls_refused", "the server refused to begin TLS: %s", evidence.Clean(answer, 128))
}

func fault(code, format string, args ...any) error {
	return &evidence.Fault{Stage: evidence.StageTLS, Symptom: evidence.SymptomTLS, Code: code, Err: fmt.Errorf(format, args...)}
}
