package logline

import (
	"bytes"
	"unicode/utf8"
)

const jsonDepth = 8 // levels of objects that are looked into

// jsonLog reads one JSON object per line, as nginx, Caddy, Traefik, Envoy and many applications write it. Fields are found by
// name, in nested objects by a path with dots; of a list the first element counts.
type jsonLog struct {
	clock  timeReader
	named  []named
	values values
	text   []byte // unescaped strings of the present line
	path   [jsonDepth]span
	memo   []remembered
	keys   int // of the present line, so far
}

// remembered is what a key meant on the line before. Lines of one log have the same keys in the same order, so that the names
// need not be looked through; as long as all keys were the same, so is where they stand.
type remembered struct {
	key   []byte
	depth int
	found bool
	named named
}

func newJSON(o Options) (Reader, error) { return &jsonLog{named: namedFields(o)}, nil }

func (f *jsonLog) Read(line []byte, l *Line) error {
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || line[0] != '{' {
		return errLine
	}
	f.values.reset()
	f.text, f.keys = f.text[:0], 0
	if _, ok := f.object(line, 0, f.path[:0]); !ok {
		return errLine
	}
	return f.values.into(l, &f.clock)
}

// object reads an object and returns what follows it. path is the keys it stands under.
func (f *jsonLog) object(b []byte, depth int, path []span) ([]byte, bool) {
	b = blank(b[1:])
	if len(b) > 0 && b[0] == '}' {
		return b[1:], true
	}
	for {
		if len(b) == 0 || b[0] != '"' {
			return nil, false
		}
		key, rest, ok := quoted(b)
		if !ok {
			return nil, false
		}
		if b = blank(rest); len(b) == 0 || b[0] != ':' {
			return nil, false
		}
		if b, ok = f.value(blank(b[1:]), key, depth, path); !ok {
			return nil, false
		}
		if b = blank(b); len(b) == 0 {
			return nil, false
		}
		switch b[0] {
		case ',':
			b = blank(b[1:])
		case '}':
			return b[1:], true
		default:
			return nil, false
		}
	}
}

// A span is a key on the way to a value.
type span []byte

// value reads a value and keeps it when its name is looked for.
func (f *jsonLog) value(b []byte, key []byte, depth int, path []span) ([]byte, bool) {
	if len(b) == 0 {
		return nil, false
	}
	n, found := f.lookup(path, key)
	switch b[0] {
	case '"':
		text, rest, ok := quoted(b)
		if ok && found {
			f.values.set(n, f.unescape(text))
		}
		return rest, ok
	case '{':
		if depth+1 >= jsonDepth {
			return skipJSON(b)
		}
		return f.object(b, depth+1, append(path, key))
	case '[':
		if rest := blank(b[1:]); found && len(rest) > 0 && rest[0] == '"' {
			if text, _, ok := quoted(rest); ok {
				f.values.set(n, f.unescape(text))
			}
		}
		return skipJSON(b)
	}
	end := 0
	for end < len(b) && b[end] != ',' && b[end] != '}' && b[end] != ']' && b[end] > ' ' {
		end++
	}
	switch text := b[:end]; {
	case end == 0:
		return nil, false
	case string(text) == "null":
		if found && n.is == fieldUpstream {
			f.values.set(n, nothing)
		}
	case text[0] == '-' || text[0] >= '0' && text[0] <= '9' || string(text) == "true" || string(text) == "false":
		if found {
			f.values.set(n, text)
		}
	default:
		return nil, false
	}
	return b[end:], true
}

var nothing = []byte("-")

// lookup finds the field of a name.
func (f *jsonLog) lookup(path []span, key []byte) (named, bool) {
	n := f.keys
	f.keys++
	if n < len(f.memo) {
		if m := &f.memo[n]; m.depth == len(path) && bytes.Equal(m.key, key) {
			return m.named, m.found
		}
		f.memo = f.memo[:n]
	}
	m := remembered{depth: len(path)}
	for i := range f.named {
		if matches(f.named[i].name, path, key) {
			m.named, m.found = f.named[i], true
			break
		}
	}
	if n == len(f.memo) && n < maxRemembered {
		m.key = bytes.Clone(key)
		f.memo = append(f.memo, m)
	}
	return m.named, m.found
}

const maxRemembered = 256

// matches compares a.b.c with the keys a, b and c.
func matches(name string, path []span, key []byte) bool {
	for _, p := range path {
		if len(name) <= len(p) || name[len(p)] != '.' || name[:len(p)] != string(p) {
			return false
		}
		name = name[len(p)+1:]
	}
	return name == string(key)
}

// unescape resolves escapes into memory of the reader; most strings have none and are used where they are.
func (f *jsonLog) unescape(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	begin := len(f.text)
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '\\' || i+1 == len(b) {
			f.text = append(f.text, c)
			continue
		}
		i++
		switch b[i] {
		case 'n':
			f.text = append(f.text, '\n')
		case 't':
			f.text = append(f.text, '\t')
		case 'r':
			f.text = append(f.text, '\r')
		case 'b', 'f':
			f.text = append(f.text, ' ')
		case 'u':
			r, ok := hex4(b[i+1:])
			if !ok {
				r = utf8.RuneError
			} else {
				i += 4
			}
			f.text = utf8.AppendRune(f.text, r)
		default:
			f.text = append(f.text, b[i])
		}
	}
	return f.text[begin:]
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		r <<= 4
		switch {
		case c >= '0' && c <= '9':
			r |= rune(c - '0')
		case c >= 'a' && c <= 'f':
			r |= rune(c-'a') + 10
		case c >= 'A' && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}

// skipJSON passes over an object or a list.
func skipJSON(b []byte) ([]byte, bool) {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return b[i+1:], true
			}
		case '"':
			_, rest, ok := quoted(b[i:])
			if !ok {
				return nil, false
			}
			i = len(b) - len(rest) - 1
		}
	}
	return nil, false
}

func blank(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return b
}
