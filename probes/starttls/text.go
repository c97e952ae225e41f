package starttls

import (
	"encoding/xml"
	"io"
	"strings"
)

// reply reads an answer in the form of SMTP and FTP: lines of three digits and a hyphen, the last with a space (RFC 5321
// section 4.2.1). All lines must have the same code.
func (t *talk) reply() (code string, lines []string, err error) {
	for len(lines) < maxLines {
		line, err := t.line()
		if err != nil {
			return "", nil, err
		}
		if len(line) < 3 || strings.Trim(line[:3], "0123456789") != "" || (code != "" && line[:3] != code) || (len(line) > 3 && line[3] != ' ' && line[3] != '-') {
			return "", nil, violated("a line that is no reply")
		}
		code = line[:3]
		if len(line) > 4 {
			lines = append(lines, line[4:])
		} else {
			lines = append(lines, "")
		}
		if len(line) == 3 || line[3] == ' ' {
			return code, lines, nil
		}
	}
	return "", nil, violated("a reply of more than %d lines", maxLines)
}

// askSMTP follows RFC 3207.
func askSMTP(t *talk, _ string) error {
	code, lines, err := t.reply()
	if err != nil {
		return err
	}
	if code != "220" {
		return refused(code + " " + lines[0])
	}
	if err := t.say("EHLO authvigil.invalid\r\n"); err != nil {
		return err
	}
	if code, lines, err = t.reply(); err != nil {
		return err
	}
	offered := false
	for i, line := range lines {
		word, _, _ := strings.Cut(line, " ")
		offered = offered || i > 0 && strings.EqualFold(word, "STARTTLS") // the first line is the server's name
	}
	if code != "250" || !offered {
		return notOffered("STARTTLS")
	}
	return t.command("STARTTLS\r\n", "220")
}

// askFTP follows RFC 4217.
func askFTP(t *talk, _ string) error {
	code, lines, err := t.reply()
	if err != nil {
		return err
	}
	if code != "220" {
		return refused(code + " " + lines[0])
	}
	return t.command("AUTH TLS\r\n", "234")
}

// command says a line and wants a code; 500 to 504 mean that the command is not known.
func (t *talk) command(line, want string) error {
	if err := t.say("%s", line); err != nil {
		return err
	}
	code, lines, err := t.reply()
	switch {
	case err != nil:
		return err
	case code == want:
		return nil
	case code >= "500" && code <= "504":
		return notOffered(strings.TrimSpace(line))
	default:
		return refused(code + " " + lines[0])
	}
}

// askIMAP follows RFC 9051 section 6.2.1.
func askIMAP(t *talk, _ string) error {
	greeting, err := t.line()
	if err != nil {
		return err
	}
	upper := strings.ToUpper(greeting)
	switch {
	case strings.HasPrefix(upper, "* PREAUTH"):
		return notOffered("STARTTLS, because the connection is authenticated already (PREAUTH)")
	case strings.HasPrefix(upper, "* BYE"):
		return refused(greeting)
	case !strings.HasPrefix(upper, "* OK"):
		return violated("a greeting that is not IMAP")
	}
	capable := false
	err = t.tagged("a1", "CAPABILITY", func(line string) {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) > 1 && words[0] == "*" && words[1] == "CAPABILITY" {
			for _, w := range words[2:] {
				capable = capable || w == "STARTTLS"
			}
		}
	})
	if err != nil {
		return err
	}
	if !capable {
		return notOffered("STARTTLS")
	}
	return t.tagged("a2", "STARTTLS", func(string) {})
}

// tagged says a command of IMAP and reads up to the line with its tag, which must be OK.
func (t *talk) tagged(tag, command string, untagged func(line string)) error {
	if err := t.say("%s %s\r\n", tag, command); err != nil {
		return err
	}
	for range maxLines {
		line, err := t.line()
		if err != nil {
			return err
		}
		switch rest, ours := strings.CutPrefix(line, tag+" "); {
		case ours && (strings.EqualFold(rest, "OK") || len(rest) > 2 && strings.EqualFold(rest[:3], "OK ")):
			return nil
		case ours:
			return refused(rest)
		case strings.HasPrefix(line, "* "):
			untagged(line)
		default:
			return violated("a line that is neither tagged nor untagged")
		}
	}
	return violated("an answer of more than %d lines", maxLines)
}

// askPOP3 follows RFC 2595 section 4. A server without CAPA is asked all the same.
func askPOP3(t *talk, _ string) error {
	greeting, err := t.line()
	if err != nil {
		return err
	}
	if !positive(greeting) {
		return refused(greeting)
	}
	if err := t.say("CAPA\r\n"); err != nil {
		return err
	}
	answer, err := t.line()
	if err != nil {
		return err
	}
	if positive(answer) {
		offered := false
		for n := 0; ; n++ {
			line, err := t.line()
			if err != nil {
				return err
			}
			if line == "." {
				break
			}
			if n == maxLines {
				return violated("an answer of more than %d lines", maxLines)
			}
			offered = offered || strings.EqualFold(line, "STLS")
		}
		if !offered {
			return notOffered("STLS")
		}
	}
	if err := t.say("STLS\r\n"); err != nil {
		return err
	}
	if answer, err = t.line(); err != nil {
		return err
	}
	if !positive(answer) {
		return refused(answer)
	}
	return nil
}

func positive(line string) bool { return line == "+OK" || strings.HasPrefix(line, "+OK ") }

const (
	xmppStream = "http://etherx.jabber.org/streams"
	xmppTLS    = "urn:ietf:params:xml:ns:xmpp-tls"
)

// askXMPP follows RFC 6120 section 5.
func askXMPP(t *talk, name string) error {
	var to strings.Builder
	if err := xml.EscapeText(&to, []byte(name)); err != nil {
		return err
	}
	if err := t.say("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='%s' to='%s' version='1.0'>", xmppStream, to.String()); err != nil {
		return err
	}
	d := xml.NewDecoder(t.reader()) // reads byte by byte, as a bufio.Reader lets it
	d.Strict, d.Entity = true, map[string]string{}
	opened, offered := false, false
	for range maxLines * 4 {
		token, err := d.Token()
		if err != nil {
			return t.xmlError(err)
		}
		switch e := token.(type) {
		case xml.Directive:
			return violated("a document type declaration, which XMPP forbids")
		case xml.StartElement:
			switch {
			case !opened && e.Name == (xml.Name{Space: xmppStream, Local: "stream"}):
				opened = true
			case !opened:
				return violated("an answer that is no XMPP stream")
			case e.Name == (xml.Name{Space: xmppTLS, Local: "starttls"}):
				offered = true
			case e.Name == (xml.Name{Space: xmppTLS, Local: "proceed"}):
				return d.Skip()
			case e.Name == (xml.Name{Space: xmppTLS, Local: "failure"}), e.Name == (xml.Name{Space: xmppStream, Local: "error"}):
				return refused(e.Name.Local)
			}
		case xml.EndElement:
			if e.Name == (xml.Name{Space: xmppStream, Local: "features"}) {
				if !offered {
					return notOffered("starttls")
				}
				if err := t.say("<starttls xmlns='%s'/>", xmppTLS); err != nil {
					return err
				}
			}
		}
	}
	return violated("more than %d elements before TLS", maxLines*4)
}

// xmlError tells a connection that ended from a document that is not well-formed.
func (t *talk) xmlError(err error) error {
	if _, ok := err.(*xml.SyntaxError); ok { //nolint:errorlint // the decoder gives it bare
		if t.left.N <= 0 {
			return violated("more than %d KiB before TLS", maxTalk>>10)
		}
		return violated("an answer that is not well-formed XML")
	}
	if err == io.EOF { //nolint:errorlint // the decoder gives it bare
		return io.ErrUnexpectedEOF
	}
	return err
}
