package logline

import "bytes"

// haproxy reads the HTTP log of HAProxy, with or without what syslog puts before it. Its state at termination tells who
// refused: P and L are the proxy itself.
type haproxy struct{ clock timeReader }

func newHAProxy(Options) (Reader, error) { return &haproxy{}, nil }

func (f *haproxy) Read(line []byte, l *Line) error {
	open := bytes.Index(line, []byte(" ["))
	for open >= 0 && (len(line) < open+14 || line[open+4] != '/' || line[open+8] != '/') {
		next := bytes.Index(line[open+2:], []byte(" ["))
		if next < 0 {
			return errLine
		}
		open += 2 + next
	}
	if open < 0 {
		return errLine
	}
	end := bytes.IndexByte(line[open:], ']')
	if end < 0 {
		return errLine
	}
	end += open
	var ok bool
	if l.At, ok = f.clock.parse(line[open+2 : end]); !ok {
		return errLine
	}
	client := line[:open]
	client = client[bytes.LastIndexByte(client, ' ')+1:]
	// frontend backend/server timers status bytes cookie cookie state
	var text [8][]byte
	rest := bytes.TrimPrefix(line[end+1:], space)
	for i := range text {
		if text[i], rest, ok = bytes.Cut(rest, space); !ok {
			return errLine
		}
		if i == 0 && bytes.HasSuffix(text[0], []byte(":")) { // frontend/bind: what went wrong with a connection, mostly TLS
			return ErrNotRequest
		}
	}
	slash := bytes.IndexByte(text[1], '/')
	state := text[7]
	if slash < 0 || bytes.IndexByte(text[2], '/') < 0 || len(state) != 4 {
		return errLine
	}
	if l.Status, ok = statusOf(text[3]); !ok {
		if len(text[3]) > 0 && text[3][0] == '-' {
			return ErrNotRequest
		}
		return errLine
	}
	quote := bytes.IndexByte(rest, '"')
	if quote < 0 {
		return errLine
	}
	request := rest[quote+1:]
	if last := bytes.LastIndexByte(request, '"'); last >= 0 {
		request = request[:last]
	}
	l.Target = targetOf(request)
	l.Who[roleAddress] = lastPortOff(client)
	l.Answered = AnsweredUpstream
	if state[0] == 'P' || state[0] == 'L' || bytes.Equal(text[1][slash+1:], []byte("<NOSRV>")) {
		l.Answered = AnsweredProxy
	}
	return nil
}

// lastPortOff takes the port off an address; those of IPv6 stand without brackets.
func lastPortOff(b []byte) []byte {
	if i := bytes.LastIndexByte(b, ':'); i > 0 {
		return bytes.Trim(b[:i], "[]")
	}
	return b
}
