package evidence

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes text that a stranger wrote fit to be shown: no control or bidirectional characters, valid UTF-8, at most
// limit bytes. White space is kept as single spaces unless it separates lines of a body, which stay lines.
func Clean(text string, limit int) string {
	if isPlain(text) && len(text) <= limit {
		return text
	}
	var b strings.Builder
	b.Grow(min(len(text), limit))
	for _, r := range text {
		if b.Len() >= limit {
			break
		}
		switch {
		case r == '\n' || r == '\t':
			b.WriteRune(r)
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs):
			b.WriteByte('?')
		default:
			if b.Len()+utf8.RuneLen(r) > limit {
				return b.String()
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < 0x20 && c != '\n' && c != '\t') || c > 0x7e {
			return false
		}
	}
	return true
}
