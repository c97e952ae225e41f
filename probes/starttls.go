package probes

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A dialect asks a server, in the server's own protocol, to begin TLS on the connection. It returns when the next byte is
// to be TLS. Its faults have the codes starttls_not_offered, starttls_refused and protocol_violation.
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
	return starttlsFault("protocol_violation", "the server sent "+format, args...)
}

func notOffered(what string) error {
	return starttlsFault("starttls_not_offered", "the server does not offer %s", what)
}

func refusedTLS(answer string) error {
	return starttlsFault("starttls_refused", "the server refused to begin TLS: %s", evidence.Clean(answer, 128))
}

func starttlsFault(code, format string, args ...any) error {
	return &evidence.Fault{Stage: evidence.StageTLS, Symptom: evidence.SymptomTLS, Code: code, Err: fmt.Errorf(format, args...)}
}

// parseProxy reads the URL of an HTTP proxy; none is nil.
func parseProxy(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" || u.User != nil {
		return nil, errors.New("want a URL such as http://proxy.example.com:3128")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "80")
	}
	return u, nil
}

// connectThrough asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6). The proxy's own refusal is told apart from
// anything about the server behind it.
func connectThrough(conn net.Conn, address string) error {
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n\r\n", address, address, userAgent); err != nil {
		return err
	}
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head)), &http.Request{Method: http.MethodConnect})
	if err != nil {
		return &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomProxy, Code: "http", Err: errors.New("the proxy does not answer in HTTP")}
	}
	defer r.Body.Close()
	if r.StatusCode/100 != 2 {
		return &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomProxy, Code: fmt.Sprint(r.StatusCode),
			Err: fmt.Errorf("the proxy answered %d %s to CONNECT", r.StatusCode, evidence.Clean(http.StatusText(r.StatusCode), 64))}
	}
	return nil
}

// readHead reads the head of an HTTP answer byte by byte, so that nothing of what follows is taken.
func readHead(conn net.Conn) (string, error) {
	var head strings.Builder
	one := make([]byte, 1)
	for head.Len() < maxTalk {
		if _, err := conn.Read(one); err != nil {
			return "", err
		}
		head.WriteByte(one[0])
		if one[0] == '\n' && (strings.HasSuffix(head.String(), "\r\n\r\n") || strings.HasSuffix(head.String(), "\n\n")) {
			return head.String(), nil
		}
	}
	return "", &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomTooLarge, Code: "header", Err: errors.New("the proxy's answer has no end")}
}
