package logline

import "bytes"

// combined reads what Apache calls common and combined, nginx writes by default, and LiteSpeed, Caddy and Traefik can write:
//
//	[host ]address ident user [time] "request" status bytes ["referer" "agent" …]
//
// What follows the status is not looked at but for the fields that Traefik adds.
type combined struct{ clock timeReader }

func newCombined(Options) (Reader, error) { return &combined{}, nil }

func (f *combined) Read(line []byte, l *Line) error {
	open := bytes.IndexByte(line, '[')
	if open < 6 {
		return errLine
	}
	end := bytes.IndexByte(line[open:], ']')
	if end < 0 || !f.client(line[:open], l) {
		return errLine
	}
	end += open
	at, ok := f.clock.parse(line[open+1 : end])
	if !ok {
		return errLine
	}
	l.At = at
	rest := line[end+1:]
	if len(rest) < 2 || rest[0] != ' ' || rest[1] != '"' {
		return errLine
	}
	request, rest, ok := quoted(rest[1:])
	if !ok {
		return errLine
	}
	l.Target = targetOf(request)
	if len(rest) < 4 || rest[0] != ' ' {
		return errLine
	}
	if l.Status, ok = statusOf(rest[1:min(4, len(rest))]); !ok || len(rest) > 4 && rest[4] != ' ' {
		if rest[1] == '-' || string(rest[1:4]) == "000" {
			return ErrNotRequest
		}
		return errLine
	}
	if l.Status == 401 {
		l.Answered = traefikAnswerer(rest[4:])
	}
	return nil
}

// client reads what stands before the time: the address, perhaps after the name of the host, and the user, in which there
// may be blanks.
func (f *combined) client(b []byte, l *Line) bool {
	first, rest, ok := bytes.Cut(b, space)
	if !ok || len(first) == 0 {
		return false
	}
	second, after, ok := bytes.Cut(rest, space)
	if !ok {
		return false
	}
	if len(second) > 1 && looksLikeAddress(second) && !looksLikeAddress(first) {
		first = second
		if _, after, ok = bytes.Cut(after, space); !ok { // the ident
			return false
		}
	}
	user := bytes.TrimSuffix(after, space)
	l.Who[roleAddress] = first
	if !absent(user) && string(user) != `""` {
		l.Who[roleUser] = bytes.Trim(user, `"`)
	}
	return true
}

// looksLikeAddress tells addresses from names: digits and dots, or colons.
func looksLikeAddress(b []byte) bool {
	dots, colons := 0, 0
	for _, c := range b {
		switch {
		case c == '.':
			dots++
		case c == ':':
			colons++
		case c >= '0' && c <= '9':
		case c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' || c == '[' || c == ']' || c == '%':
			if colons == 0 && c != '[' && !bytes.ContainsRune(b, ':') {
				return false
			}
		default:
			return false
		}
	}
	return dots == 3 || colons >= 2
}

// quoted reads text in quotes, in which quotes are escaped with a backslash, and returns what is between them, as it stands.
func quoted(b []byte) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	for i := 1; ; {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return nil, nil, false
		}
		i += j
		k := i
		for b[k-1] == '\\' {
			k--
		}
		if (i-k)%2 == 0 {
			return b[1:i], b[i+1:], true
		}
		i++
	}
}

// traefikAnswerer looks for the fields that Traefik adds, "router" "service URL" and the time in ms; without a service it
// was Traefik, or one of its middlewares, that answered.
func traefikAnswerer(rest []byte) Answerer {
	if !bytes.HasSuffix(rest, []byte("ms")) {
		return AnsweredUnknown
	}
	end := bytes.LastIndexByte(rest, '"')
	if end < 1 {
		return AnsweredUnknown
	}
	begin := bytes.LastIndexByte(rest[:end], '"')
	switch url := rest[begin+1 : end]; {
	case begin < 0:
		return AnsweredUnknown
	case absent(url):
		return AnsweredProxy
	}
	return AnsweredUpstream
}
