package diagnose

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestPhrase is how many words a phrase of the lexicon has at most.
const longestPhrase = 6

// A clause is a stretch of text that speaks about one thing: a field of a document, or a sentence.
type clause struct {
	text string // normal form
	set  set
	code bool // it is an error code, not prose
	hint bool // it says what to do, not what happened
}

// eastern is where scripts begin that are written without spaces.
const eastern = 0x2e80

// names are words that have a capital letter within.
var names = strings.NewReplacer("OAuth", "Oauth", "OpenID", "Openid", "DPoP", "Dpop", "IdP", "Idp")

// normal gives the normal form of a text: small letters, words separated by single spaces, CamelCase and snake_case taken
// apart, a bar where a sentence ends. Words of one text keep their order.
func normal(text string) string {
	text = names.Replace(text)
	var b strings.Builder
	b.Grow(len(text) + len(text)/4)
	var before rune
	space := true
	put := func(r rune) {
		b.WriteRune(r)
		space = false
	}
	gap := func(r byte) {
		if !space {
			b.WriteByte(r)
			space = true
		}
	}
	for i, r := range text {
		switch {
		case unicode.IsUpper(r):
			next, _ := utf8.DecodeRuneInString(text[i+utf8.RuneLen(r):])
			if unicode.IsLower(before) || (unicode.IsUpper(before) && unicode.IsLower(next) && next != 's') {
				gap(' ')
			}
			put(unicode.ToLower(r))
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			if (r >= eastern) != (before >= eastern) {
				gap(' ')
			}
			put(r)
		case strings.ContainsRune(".;!?\n|", r) && (i+1 == len(text) || !isWord(text[i+1])):
			gap(' ')
			if b.Len() > 1 && !strings.HasSuffix(b.String(), "| ") {
				b.WriteString("| ")
			}
		default:
			gap(' ')
		}
		before = r
	}
	return strings.Trim(b.String(), " |")
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// conceptsOf finds what a text in normal form speaks about. A longer phrase hides the shorter ones in it, so that
// "refresh token" is no token.
func conceptsOf(text string) (s set) {
	var starts [longestPhrase + 1]int
	rest := text
	for rest != "" {
		n := 0
		for i := range rest {
			if rest[i] == ' ' {
				n++
				starts[n] = i
				if n == longestPhrase {
					break
				}
			}
		}
		if n < longestPhrase {
			n++
			starts[n] = len(rest)
		}
		skip, known := starts[1], false
		for k := n; k >= 1 && !known; k-- {
			var found set
			if found, known = lexicon[rest[:starts[k]]]; known {
				s |= found
				skip = starts[k]
			}
		}
		if !known {
			s |= stemOf(rest[:starts[1]])
		}
		rest = strings.TrimPrefix(rest[skip:], " ")
	}
	return s
}
