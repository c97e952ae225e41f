package evidence

import "strings"

// Mask takes out of a text what looks like a credential: JSON Web Tokens, and what follows the name of an authentication scheme. Some
// servers repeat in their answer what they were sent.
func Mask(text string) string {
	if !strings.Contains(text, "eyJ") && !hasScheme(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && isToken(text[end]) {
			end++
		}
		word := text[i:end]
		switch {
		case end == i:
			b.WriteByte(text[i])
			i++
			continue
		case strings.HasPrefix(word, "eyJ") && len(word) >= 20, len(word) >= 16 && schemeBefore(b.String()):
			b.WriteString("…")
		default:
			b.WriteString(word)
		}
		i = end
	}
	return b.String()
}

// isToken says whether a character can stand in a token68 (RFC 9110 section 11.2).
func isToken(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~+/=", c) >= 0
}

var schemes = []string{"bearer ", "basic ", "dpop ", "apikey ", "negotiate ", "token "}

func hasScheme(text string) bool {
	lower := strings.ToLower(text)
	for _, s := range schemes {
		if strings.Contains(lower, s) {
			return true
		}
	}
	return false
}

func schemeBefore(text string) bool {
	lower := strings.ToLower(text[max(0, len(text)-16):])
	for _, s := range schemes {
		if strings.HasSuffix(lower, s) {
			return true
		}
	}
	return false
}
