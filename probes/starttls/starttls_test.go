package starttls

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A line of a script is what the server expects to read and then says. An empty expectation waits for nothing; a number of
// bytes is written as "#8".
type scripted struct{ expects, says string }

// play runs a script and says whether all went as written. It reads no byte more than it expects: what follows may be TLS.
func play(c net.Conn, script []scripted) bool {
	for _, s := range script {
		n := len(s.expects)
		anything := false
		if _, err := fmt.Sscanf(s.expects, "#%d", &n); err == nil {
			anything = true
		}
		got := make([]byte, n)
		if _, err := io.ReadFull(c, got); err != nil || !anything && string(got) != s.expects {
			return false
		}
		if _, err := io.WriteString(c, s.says); err != nil {
			return false
		}
	}
	return true
}

const (
	site      = "site.example.test"
	xmppHello = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='site.example.test' version='1.0'>"
	xmppOpen  = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' id='1' from='site.example.test' version='1.0'>"
)

var mysqlHello = "\x4a\x00\x00\x00" + "\x0a" + "8.0.36\x00" + "\x01\x00\x00\x00" + "12345678\x00" + "\xff\xff" + "\x2d" + "\x02\x00" + "\xff\xdf" + "\x15" + strings.Repeat("\x00", 10) + "123456789012\x00" + "caching_sha2_password\x00"

// ldapYes is an extended response without and with the long lengths of Active Directory.
const (
	ldapYes  = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
	ldapLong = "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"
	ldapNo53 = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x35\x04\x00\x04\x00"
)

// TestBegin speaks with well-meaning servers in each dialect and with others that do not: A40 to A42.
func TestBegin(t *testing.T) {
	long := strings.Repeat("x", maxTalkLine+1)
	for _, c := range []struct {
		name, protocol string
		script         []scripted
		code           string // empty: TLS begins
	}{
		{"smtp", "smtp", []scripted{{"", "220-welcome\r\n220 mx ESMTP\r\n"}, {"EHLO authvigil.invalid\r\n", "250-mx\r\n250-SIZE 1000\r\n250 STARTTLS\r\n"}, {"STARTTLS\r\n", "220 go ahead\r\n"}}, ""},
		{"A40 smtp without the capability", "smtp", []scripted{{"", "220 mx\r\n"}, {"EHLO authvigil.invalid\r\n", "250-mx STARTTLS\r\n250-XSTARTTLSX\r\n250 SIZE\r\n"}}, "starttls_not_offered"},
		{"smtp refuses", "smtp", []scripted{{"", "220 mx\r\n"}, {"EHLO authvigil.invalid\r\n", "250-mx\r\n250 STARTTLS\r\n"}, {"STARTTLS\r\n", "454 TLS not available\r\n"}}, "starttls_refused"},
		{"smtp is not for us", "smtp", []scripted{{"", "554 go away\r\n"}}, "starttls_refused"},
		{"A41 smtp injects after its leave", "smtp", []scripted{{"", "220 mx\r\n"}, {"EHLO authvigil.invalid\r\n", "250-mx\r\n250 STARTTLS\r\n"}, {"STARTTLS\r\n", "220 go ahead\r\n250 injected\r\n"}}, "protocol_violation"},
		{"smtp changes its mind within a reply", "smtp", []scripted{{"", "220-a\r\n250 b\r\n"}}, "protocol_violation"},
		{"smtp with an endless line", "smtp", []scripted{{"", "220 " + long + "\r\n"}}, "protocol_violation"},
		{"smtp with an endless reply", "smtp", []scripted{{"", strings.Repeat("220-x\r\n", maxLines+1)}}, "protocol_violation"},
		{"not smtp", "smtp", []scripted{{"", "SSH-2.0-OpenSSH_9.2\r\n"}}, "protocol_violation"},
		{"smtp hangs up", "smtp", []scripted{{"", "220 mx\r\n"}}, "eof"},
		{"ftp", "ftp", []scripted{{"", "220 ftp\r\n"}, {"AUTH TLS\r\n", "234 ok\r\n"}}, ""},
		{"ftp knows no AUTH", "ftp", []scripted{{"", "220 ftp\r\n"}, {"AUTH TLS\r\n", "502 what\r\n"}}, "starttls_not_offered"},
		{"imap", "imap", []scripted{{"", "* OK [CAPABILITY IMAP4rev1] ready\r\n"}, {"a1 CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK done\r\n"}, {"a2 STARTTLS\r\n", "a2 OK begin\r\n"}}, ""},
		{"imap does not offer it", "imap", []scripted{{"", "* OK ready\r\n"}, {"a1 CAPABILITY\r\n", "* CAPABILITY IMAP4rev1 XSTARTTLS\r\na1 OK done\r\n"}}, "starttls_not_offered"},
		{"imap says so only in passing", "imap", []scripted{{"", "* OK ready STARTTLS\r\n"}, {"a1 CAPABILITY\r\n", "* OK STARTTLS would be nice\r\na1 OK STARTTLS\r\n"}}, "starttls_not_offered"},
		{"imap is authenticated already", "imap", []scripted{{"", "* PREAUTH hello\r\n"}}, "starttls_not_offered"},
		{"imap refuses", "imap", []scripted{{"", "* OK\r\n"}, {"a1 CAPABILITY\r\n", "* CAPABILITY STARTTLS\r\na1 OK\r\n"}, {"a2 STARTTLS\r\n", "a2 NO not now\r\n"}}, "starttls_refused"},
		{"imap injects", "imap", []scripted{{"", "* OK\r\n"}, {"a1 CAPABILITY\r\n", "* CAPABILITY STARTTLS\r\na1 OK\r\n"}, {"a2 STARTTLS\r\n", "a2 OK\r\n* OK injected\r\n"}}, "protocol_violation"},
		{"pop3", "pop3", []scripted{{"", "+OK\r\n"}, {"CAPA\r\n", "+OK\r\nUSER\r\nSTLS\r\n.\r\n"}, {"STLS\r\n", "+OK go\r\n"}}, ""},
		{"pop3 without CAPA", "pop3", []scripted{{"", "+OK hi\r\n"}, {"CAPA\r\n", "-ERR what\r\n"}, {"STLS\r\n", "+OK go\r\n"}}, ""},
		{"pop3 does not offer it", "pop3", []scripted{{"", "+OK\r\n"}, {"CAPA\r\n", "+OK\r\nUSER\r\n.\r\n"}}, "starttls_not_offered"},
		{"pop3 refuses", "pop3", []scripted{{"", "+OK\r\n"}, {"CAPA\r\n", "+OK\r\nSTLS\r\n.\r\n"}, {"STLS\r\n", "-ERR no\r\n"}}, "starttls_refused"},
		{"pop3 that is something else", "pop3", []scripted{{"", "+OKAY\r\n"}}, "starttls_refused"},
		{"postgres", "postgres", []scripted{{"#8", "S"}}, ""},
		{"postgres says no", "postgres", []scripted{{"#8", "N"}}, "starttls_not_offered"},
		{"postgres fails", "postgres", []scripted{{"#8", "E"}}, "starttls_refused"},
		{"postgres injects", "postgres", []scripted{{"#8", "SE injected"}}, "protocol_violation"},
		{"not postgres", "postgres", []scripted{{"#8", "H"}}, "protocol_violation"},
		{"postgres hangs up", "postgres", []scripted{{"#8", ""}}, "eof"},
		{"mysql", "mysql", []scripted{{"", mysqlHello}, {"#36", ""}}, ""},
		{"mysql without TLS", "mysql", []scripted{{"", strings.Replace(mysqlHello, "\xff\xff\x2d", "\xff\xf7\x2d", 1)}}, "starttls_not_offered"},
		{"mysql blocks us", "mysql", []scripted{{"", "\x17\x00\x00\x00\xff\x69\x04Host is blocked now."}}, "starttls_refused"},
		{"mysql of another protocol", "mysql", []scripted{{"", "\x0a\x00\x00\x00\x09" + "5.0\x00abcde"}}, "protocol_violation"},
		{"mysql with an absurd length", "mysql", []scripted{{"", "\xff\xff\xff\x00"}}, "protocol_violation"},
		{"ldap", "ldap", []scripted{{"#31", ldapYes}}, ""},
		{"ldap with long lengths", "ldap", []scripted{{"#31", ldapLong}}, ""},
		{"A42 ldap result code 53", "ldap", []scripted{{"#31", ldapNo53}}, "starttls_refused"},
		{"ldap of endless length", "ldap", []scripted{{"#31", "\x30\x84\x7f\xff\xff\xff"}}, "protocol_violation"},
		{"not ldap", "ldap", []scripted{{"#31", "HTTP/1.1 400 Bad Request\r\n\r\n"}}, "protocol_violation"},
		{"ldap answers another message", "ldap", []scripted{{"#31", strings.Replace(ldapYes, "\x02\x01\x01", "\x02\x01\x07", 1)}}, "protocol_violation"},
		{"xmpp", "xmpp", []scripted{{xmppHello, xmppOpen + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"},
			{"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"}}, ""},
		{"xmpp does not offer it", "xmpp", []scripted{{xmppHello, xmppOpen + "<stream:features><mechanisms/></stream:features>"}}, "starttls_not_offered"},
		{"xmpp refuses", "xmpp", []scripted{{xmppHello, xmppOpen + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"},
			{"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"}}, "starttls_refused"},
		{"xmpp injects", "xmpp", []scripted{{xmppHello, xmppOpen + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features>"},
			{"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><success/>"}}, "protocol_violation"},
		{"xmpp with a document type", "xmpp", []scripted{{xmppHello, "<!DOCTYPE x [<!ENTITY a 'b'>]><stream:stream xmlns:stream='http://etherx.jabber.org/streams'>"}}, "protocol_violation"},
		{"not xmpp", "xmpp", []scripted{{xmppHello, "<html><body>hello</body></html>"}}, "protocol_violation"},
		{"xmpp without an end", "xmpp", []scripted{{xmppHello, xmppOpen + strings.Repeat("<a b='"+strings.Repeat("x", 900)+"'/>", 60)}}, "protocol_violation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := listen(t, func(conn net.Conn) {
				if play(conn, c.script) && c.code == "" {
					play(conn, []scripted{{"client hello", "server hello"}})
				}
			})
			err := Begin(conn, c.protocol, site)
			if got := codeOf(err); got != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if c.code == "" && !play(conn, []scripted{{"", "client hello"}, {"server hello", ""}}) {
				t.Error("what follows does not come as it was sent")
			}
		})
	}
	if err := Begin(nil, "gopher", site); err == nil {
		t.Error("a protocol that nobody speaks is begun")
	}
}

// codeOf is the code of a fault; how the end of a connection arrives, the kernel decides.
func codeOf(err error) string {
	f, ok := errors.AsType[*evidence.Fault](err)
	switch {
	case err == nil:
		return ""
	case ok && f.Stage == evidence.StageTLS && f.Symptom == evidence.SymptomTLS:
		return f.Code
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "eof"
	}
	return "other: " + err.Error()
}

// listen serves one connection to loopback with handle.
func listen(t *testing.T, handle func(net.Conn)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		if c, err := l.Accept(); err == nil {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			handle(c)
		}
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	t.Cleanup(func() { conn.Close(); l.Close(); group.Wait() })
	return conn
}

// FuzzBegin: whatever a server says, the conversation ends, and begins TLS only by the dialect's own leave.
func FuzzBegin(f *testing.F) {
	for i, said := range []string{"220 ftp\r\n234 ok\r\n", "* OK\r\n* CAPABILITY STARTTLS\r\na1 OK\r\na2 OK\r\n", ldapLong, mysqlHello, "+OK\r\n+OK\r\nSTLS\r\n.\r\n+OK\r\n", "S",
		"220 mx\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n", xmppOpen + "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:features><proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"} {
		f.Add(uint8(i), []byte(said))
	}
	f.Fuzz(func(t *testing.T, which uint8, said []byte) {
		c := &oneWay{from: strings.NewReader(string(said))}
		err := Begin(c, Protocols()[int(which)%len(dialects)], site)
		if left := c.from.Len(); err == nil && left > 0 && c.read > maxTalk {
			t.Errorf("read %d bytes", c.read)
		}
		if fault, ok := errors.AsType[*evidence.Fault](err); ok && fault.Err == nil {
			t.Errorf("a fault without words: %+v", fault)
		}
	})
}

// oneWay is a connection whose other side has said all already.
type oneWay struct {
	net.Conn
	from *strings.Reader
	read int
}

func (o *oneWay) Read(b []byte) (int, error) {
	n, err := o.from.Read(b)
	o.read += n
	return n, err
}
func (o *oneWay) Write(b []byte) (int, error) { return len(b), nil }
