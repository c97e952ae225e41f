package logline

import (
	"bytes"
	"fmt"
)

// enveloped reads lines that something put into an envelope: syslog (RFC 5424, RFC 3164), or the runtime of a container.
type enveloped struct {
	open  func(line []byte) (message []byte, ok bool)
	inner Reader
}

func newSyslog(o Options) (Reader, error) {
	inner, err := innerFormat(o)
	return &enveloped{openSyslog, inner}, err
}

func newDocker(o Options) (Reader, error) {
	inner, err := innerFormat(o)
	d := &docker{}
	return &enveloped{d.open, inner}, err
}

func innerFormat(o Options) (Reader, error) {
	name := o.Inner
	if name == "" {
		name = "auto"
	}
	build, ok := o.table[name]
	if !ok || name == "syslog" || name == "docker" {
		return nil, fmt.Errorf("inner: %q is no format that can stand in an envelope", name)
	}
	return build(o)
}

func (f *enveloped) Read(line []byte, l *Line) error {
	message, ok := f.open(line)
	if !ok {
		return errLine
	}
	return f.inner.Read(message, l)
}

// openSyslog takes the message out of a line of syslog. What stands in the header is not believed: the line itself has a
// time, and headers are written by whoever sends.
func openSyslog(b []byte) ([]byte, bool) {
	framed := false
	if len(b) > 0 && b[0] == '<' {
		end := bytes.IndexByte(b, '>')
		if end < 2 || end > 4 {
			return nil, false
		}
		if _, ok := digits(b[1:end]); !ok {
			return nil, false
		}
		b, framed = b[end+1:], true
	}
	if framed && bytes.HasPrefix(b, []byte("1 ")) { // RFC 5424: version timestamp host app procid msgid structured-data message
		b = b[2:]
		for range 5 {
			_, rest, ok := bytes.Cut(b, space)
			if !ok {
				return nil, false
			}
			b = rest
		}
		b, ok := structuredData(b)
		return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), ok
	}
	switch { // RFC 3164 and what rsyslog writes into files
	case len(b) >= 16 && monthOf(b[:3]) != 0 && b[3] == ' ' && b[9] == ':' && b[12] == ':':
		b = b[16:]
	case len(b) >= 20 && b[4] == '-' && b[10] == 'T':
		_, rest, ok := bytes.Cut(b, space)
		if !ok {
			return nil, false
		}
		b = rest
	default:
		return nil, false
	}
	for range 2 { // the host is often left out
		tag, rest, ok := bytes.Cut(b, space)
		if !ok {
			return nil, false
		}
		if n := len(tag) - 1; n > 0 && n <= 64 && tag[n] == ':' {
			return rest, true
		}
		b = rest
	}
	return nil, false
}

// structuredData passes over [id name="value" …] or -, RFC 5424 section 6.3.
func structuredData(b []byte) ([]byte, bool) {
	if len(b) > 0 && b[0] == '-' {
		return bytes.TrimPrefix(b[1:], space), true
	}
	for len(b) > 0 && b[0] == '[' {
		inQuotes := false
		i := 1
		for ; i < len(b); i++ {
			if b[i] == '\\' && inQuotes {
				i++
			} else if b[i] == '"' {
				inQuotes = !inQuotes
			} else if b[i] == ']' && !inQuotes {
				break
			}
		}
		if i >= len(b) {
			return nil, false
		}
		b = b[i+1:]
	}
	return bytes.TrimPrefix(b, space), true
}

// docker reads what container runtimes write: CRI (time stream F message), and Docker's {"log":"message\n",…}.
type docker struct{ text jsonLog }

func (d *docker) open(b []byte) ([]byte, bool) {
	if len(b) > 0 && b[0] == '{' {
		rest, ok := bytes.CutPrefix(b, []byte(`{"log":`))
		if !ok {
			return nil, false
		}
		message, _, ok := quoted(blank(rest))
		if !ok {
			return nil, false
		}
		d.text.text = d.text.text[:0]
		return bytes.TrimRight(d.text.unescape(message), "\n"), true
	}
	at, rest, ok := bytes.Cut(b, space)
	if !ok || len(at) < 20 || at[4] != '-' || at[10] != 'T' {
		return nil, false
	}
	stream, rest, ok := bytes.Cut(rest, space)
	if !ok || string(stream) != "stdout" && string(stream) != "stderr" {
		return nil, false
	}
	flag, rest, ok := bytes.Cut(rest, space)
	if !ok || string(flag) != "F" { // P: a part of a line that was too long for the runtime
		return nil, false
	}
	return rest, true
}
