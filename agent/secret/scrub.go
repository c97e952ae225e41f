package secret

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"sync"
)

// minScrub is the shortest text that is searched for: shorter ones would blank out ordinary words, and protect nothing.
const minScrub = 6

// maxRemembered bounds how many texts are remembered; the oldest are forgotten first. Each takes part in every Scrub.
const maxRemembered = 4096

// remembered is the one piece of state that the process shares: whatever was a secret once must not be shown by anybody.
var remembered struct {
	sync.RWMutex
	forms map[string][]string // by text
	order []string
}

// Remember adds a text to those that [Scrub] removes: tokens that servers issue are secrets too.
func Remember(text string) {
	if len(text) < minScrub {
		return
	}
	remembered.RLock()
	_, known := remembered.forms[text]
	remembered.RUnlock()
	if known {
		return
	}
	forms := spellings(text)
	remembered.Lock()
	defer remembered.Unlock()
	if remembered.forms == nil {
		remembered.forms = map[string][]string{}
	}
	if _, known := remembered.forms[text]; known {
		return
	}
	remembered.forms[text] = forms
	remembered.order = append(remembered.order, text)
	if len(remembered.order) > maxRemembered {
		delete(remembered.forms, remembered.order[0])
		remembered.order = remembered.order[1:]
	}
}

// masked stands for the mask while a text is searched, so that the mask itself is never taken for a secret: somebody's
// password is "secret". It is no character (Unicode, section 23.7).
const masked = "\U0010ffff"

// Scrub replaces every remembered secret in text, also in URL, base64, hexadecimal and JSON spelling. Doing it twice is
// doing it once.
func Scrub(text string) string {
	if len(text) < minScrub {
		return text
	}
	remembered.RLock()
	defer remembered.RUnlock()
	text = strings.ReplaceAll(text, Mask, masked)
	for _, forms := range remembered.forms {
		for _, form := range forms {
			if strings.Contains(text, form) {
				text = strings.ReplaceAll(text, form, masked)
			}
		}
	}
	return strings.ReplaceAll(text, masked, Mask)
}

func spellings(s string) []string {
	forms := []string{s}
	add := func(f string) {
		if len(f) < minScrub {
			return
		}
		for _, have := range forms {
			if have == f {
				return
			}
		}
		forms = append(forms, f)
	}
	add(url.QueryEscape(s))
	add(url.PathEscape(s))
	add(hex.EncodeToString([]byte(s)))
	add(strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s)), "="))
	add(strings.TrimRight(base64.URLEncoding.EncodeToString([]byte(s)), "="))
	if quoted, err := json.Marshal(s); err == nil {
		add(string(quoted[1 : len(quoted)-1]))
	}
	return forms
}
