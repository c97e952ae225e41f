package diagnose

import "strings"

// Languages say the same thing by denying its opposite: "is not correct", "couldn't be verified", "has never been enabled".
// A denial reaches at most this many words ahead.
const denialReach = 4

// denials are the words that deny what follows. The t is what is left of isn't and doesn't in normal form.
var denials = map[string]bool{"not": true, "t": true, "cannot": true, "never": true, "unable": true, "failed": true, "fails": true, "failure": true, "without": true, "nor": true, "cant": true, "isnt": true, "doesnt": true}

// denied gives what is said by denying a word.
var denied = func() map[string]set {
	m := map[string]set{}
	for c, words := range map[concept]string{
		cInvalid:     "valid correct recognized recognised verified verify validate validated authenticate known verifiable genuine understood",
		cNotFound:    "found exist exists registered locate existing",
		cDenied:      "allowed permitted authorized authorised entitled granted approved eligible whitelisted enough sufficient allow permit grant privileged",
		cDisabled:    "enabled active activated",
		cMissing:     "provided supplied present sent specified given set included include includes contain contains received attached passed detected supply provide specify signed logged authenticated",
		cUnsupported: "supported accepted compatible supports accept",
		cMismatch:    "match matched matching matches equal equals correspond same belong issued meant intended made minted",
		cMalformed:   "parse parsed decode decoded decrypt decrypted formed formatted deserialize decodable parseable read readable",
		cUntrusted:   "trusted trust",
		cUnavailable: "available reachable reach retrieve retrieved fetch fetched load loaded contact contacted",
	} {
		for w := range strings.FieldsSeq(words) {
			m[w] |= of(c)
		}
	}
	return m
}()

// stems are the beginnings of words that mean the same however they end.
var stems = []struct {
	beginning string
	set       set
}{
	{"expir", of(cExpired)}, {"caduc", of(cExpired)}, {"invalid", of(cInvalid)}, {"revok", of(cRevoked)}, {"revoc", of(cRevoked)}, {"malform", of(cMalformed)}, {"unpars", of(cMalformed)}, {"undecod", of(cMalformed)}, {"corrupt", of(cMalformed)},
	{"unauthor", of(cDenied)}, {"forbid", of(cDenied)}, {"suspend", of(cDisabled)}, {"disabl", of(cDisabled)}, {"deactiv", of(cDisabled)}, {"throttl", of(cRate)},
	{"unavailab", of(cUnavailable)}, {"unreachab", of(cUnavailable)}, {"unrecogni", of(cInvalid)}, {"unverif", of(cInvalid)}, {"mismatch", of(cMismatch)}, {"unsupport", of(cUnsupported)},
	{"credential", of(cCredential)}, {"permission", of(cPermission)}, {"privileg", of(cPermission)}, {"audienc", of(cAudience)}, {"signatur", of(cSignature)}, {"certif", of(cCert)},
	{"subscri", of(cSubscription)}, {"exceed", of(cTooMany)}, {"unregister", of(cNotFound)}, {"unconfirm", of(cInteraction)}, {"whitelist", of(cIP)}, {"allowlist", of(cIP)}, {"authori", of(cPermission)},
}

// stemOf looks up a single word by its beginning.
func stemOf(word string) set {
	for i := range stems {
		if strings.HasPrefix(word, stems[i].beginning) {
			return stems[i].set
		}
	}
	return 0
}

// denialsIn finds what a text in normal form says by denying its opposite.
func denialsIn(text string) (s set) {
	reach := 0
	for rest := text; rest != ""; {
		var word string
		word, rest, _ = strings.Cut(rest, " ")
		if denials[word] {
			reach = denialReach
			continue
		}
		if reach > 0 {
			reach--
			if found := denied[word]; found != of(cMissing) || !describes(rest) {
				s |= found
			}
		}
	}
	return s
}

// describes says whether a participle belongs to what follows: "unable to log in with provided credentials" misses nothing.
func describes(rest string) bool {
	next, _, _ := strings.Cut(rest, " ")
	return lexicon[next].any(of(cCredential, cToken, cKey, cPassword, cUser, cSecret))
}

// hints are the beginnings of sentences that give advice, which speak of remedies and not of what is wrong.
var hints = []string{"if you ", "if this ", "if the ", "otherwise ", "see ", "read more", "read the", "visit ", "for more ", "to learn ", "refer to", "contact ", "try ", "you can ", "learn more", "get your ", "to fix ", "to resolve ", "for help", "more information", "you may ", "consider ", "make sure", "please make sure", "please check", "please verify", "please ensure", "check your", "check the", "verify that", "ensure ", "you must be granted", "please contact", "please see", "please refer", "please modify", "please try"}

func isHint(text string) bool {
	for _, h := range hints {
		if strings.HasPrefix(text, h) {
			return true
		}
	}
	return false
}
