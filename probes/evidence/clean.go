package evidence

import (
	"fmt"
	"strings"
	"time"
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

// Span shows a duration as people say it: two units at most.
func Span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	default:
		return d.Round(time.Millisecond).String()
	}
}
