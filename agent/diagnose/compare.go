package diagnose

import (
	"fmt"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// asked finds the last exchange of a purpose; nil: none that was answered.
func (f *facts) asked(purpose evidence.Purpose) *evidence.Exchange {
	list := f.c.Sighting.Report.Exchanges
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Purpose == purpose && list[i].Status != 0 {
			return &list[i]
		}
	}
	return nil
}

// sameAnswer says whether two answers are word for word the same in what speaks about authentication.
func sameAnswer(a, b *evidence.Exchange) bool {
	return a != nil && b != nil && a.Status == b.Status && a.Body == b.Body && slices.Equal(a.Header["Www-Authenticate"], b.Header["Www-Authenticate"])
}

// sameWithout says whether the server answered the request with a token as it answers one without anything, and as if there
// had been none (RFC 6750 section 3.1: a challenge without an error code).
func (f *facts) sameWithout() bool {
	return f.status == 401 && f.bare && f.offered == "bearer" && (f.scheme == "bearer" || f.scheme == "dpop") && sameAnswer(f.x, f.asked(evidence.WithoutGrant))
}

// saysNothingCame says whether the server speaks of no credential at all, in its words or by a bare challenge.
func (f *facts) saysNothingCame() bool {
	for _, cl := range f.words.clauses {
		if cl.set.any(of(cMissing, cAnonymous)) && cl.set.any(of(cToken, cHeader, cCredential, cAnonymous)) && !cl.set.any(of(cInvalid, cExpired, cScope, cIssuer, cAudience, cMalformed)) && !f.insideToken() {
			return true
		}
	}
	return false
}

// freshRefused says whether a token that was obtained for this very run was refused.
func (f *facts) freshRefused() bool {
	if fresh := f.asked(evidence.WithFreshGrant); fresh != nil {
		return fresh.Status == 401 || fresh.Status == 403
	}
	return f.obtained() && f.x != nil && f.x.Purpose == evidence.First && (f.status == 401 || f.status == 403)
}

// obtained says whether the token was obtained in this run.
func (f *facts) obtained() bool {
	x := f.asked(evidence.Obtain)
	return x != nil && x.Status/100 == 2 && f.token != nil
}

// issuerAgrees says whether the issuer's clock, by the moment it wrote into a token that was obtained in this run, is ours.
func (f *facts) issuerAgrees() bool {
	return f.obtained() && !f.token.Issued.IsZero() && f.c.Now.Sub(f.token.Issued).Abs() < noticeable
}

// bornExpired says whether a token was past its end when it was handed out, by our clock: one of the two clocks is wrong.
func (f *facts) bornExpired() bool {
	return f.obtained() && f.expired && (f.token.ExpiresIn > 0 || f.token.Expiry.Sub(f.token.Issued) > noticeable)
}

// everywhere says whether the server answers a page that cannot exist in the same way: it is not about this path, nor about who asks.
func (f *facts) everywhere() bool {
	other := f.asked(evidence.Sibling)
	return other != nil && f.x != nil && other.Status == f.status && (sameAnswer(f.x, other) || sameTitle(f.x, other))
}

func sameTitle(a, b *evidence.Exchange) bool {
	var one, two words
	one.body(a.Body, "text/html", a.Status)
	two.body(b.Body, "text/html", b.Status)
	return one.title != "" && one.title == two.title
}

// keys gives what is known of the issuer's keys, from this run or from another probe.
func (f *facts) keys() *evidence.Issuer {
	for _, i := range []*evidence.Issuer{f.c.Sighting.Report.Issuer, f.c.World.IssuerKeys} {
		if i != nil && len(i.Keys) > 0 {
			return i
		}
	}
	return nil
}

// published says whether the key that the token names is among the issuer's; known: there is something to compare.
func (f *facts) published() (yes, known bool) {
	i := f.keys()
	if i == nil || f.token == nil || f.token.Kid == "" {
		return false, false
	}
	return slices.ContainsFunc(i.Keys, func(k evidence.Key) bool { return k.Kid == f.token.Kid && k.Problem == "" }), true
}

// clockRight says whether the local clock is known to be right, so that arithmetic on claims can be relied on.
func (f *facts) clockRight() bool { return f.skewKnown && f.skew.Abs() < noticeable }

// blameless says whether nothing is wrong with the token as far as we can tell: its time, and what the endpoint is configured to want.
func (f *facts) blameless() bool {
	return f.token != nil && !f.expired && f.early == 0 && f.ahead < noticeable && len(f.missingScopes()) == 0 && !f.otherAudience() && len(f.token.Problems) == 0
}

// otherAudience says whether the token lacks the audience that the endpoint is configured to want.
func (f *facts) otherAudience() bool {
	want := f.c.Sighting.Audience
	return want != "" && f.token != nil && f.token.Format == "jwt" && !slices.Contains(f.token.Audience, want)
}

// changed finds the last change of a kind since the run was good; zero: none.
func (f *facts) changed(what ...string) evidence.Change {
	s := &f.c.Sighting
	for _, c := range slices.Backward(s.Changes) {
		if slices.Contains(what, c.What) && (s.LastOK.IsZero() || c.At.After(s.LastOK.Add(-time.Minute))) {
			return c
		}
	}
	return evidence.Change{}
}

// compared gives evidence lines on the second questions.
func (f *facts) compared() (lines []string) {
	if f.x == nil {
		return nil
	}
	add := func(format string, args ...any) {
		lines = append(lines, evidence.Clean(fmt.Sprintf(format, args...), 300))
	}
	if w := f.asked(evidence.WithoutGrant); w != nil {
		switch {
		case sameAnswer(f.x, w):
			add("without any credential it answers %d, word for word the same", w.Status)
		case w.Status/100 == 2:
			add("without any credential it answers %d: the path is open to everybody", w.Status)
		default:
			add("without any credential it answers %d, in other words", w.Status)
		}
	}
	if f.freshRefused() {
		add("the token was obtained for this very run")
	}
	if w := f.asked(evidence.WithDamaged); w != nil {
		add("with a spoilt signature it answers %d", w.Status)
	}
	if w := f.asked(evidence.Sibling); w != nil && w != f.x {
		if f.everywhere() {
			add("a page that cannot exist gets the same answer %d", w.Status)
		} else {
			add("a page that cannot exist is answered %d", w.Status)
		}
	}
	if w := f.asked(evidence.OtherMethod); w != nil {
		if allow := w.Header["Allow"]; len(allow) > 0 {
			add("%s answers %d; allowed are %s", w.Method, w.Status, allow[0])
		} else {
			add("%s answers %d", w.Method, w.Status)
		}
	}
	if f.token != nil {
		switch f.token.Active {
		case evidence.OK:
			add("asked about the token, its authorization server says that it is active")
		case evidence.Fail:
			add("asked about the token, its authorization server says that it is not active")
		}
	}
	if yes, known := f.published(); known {
		switch {
		case !yes:
			add("the key %q of the token is not among the %d that the issuer publishes", f.token.Kid, len(f.keys().Keys))
		case f.token.Signature == evidence.SignatureValid:
			add("the token's signature is good by the key %q that the issuer publishes now", f.token.Kid)
		case f.token.Signature == evidence.SignatureInvalid:
			add("the token's signature is not good by the key %q that the issuer publishes", f.token.Kid)
		}
	}
	return lines
}

// before gives evidence lines on what was before this run and what changed.
func (f *facts) before() (lines []string) {
	s := &f.c.Sighting
	add := func(format string, args ...any) {
		lines = append(lines, evidence.Clean(fmt.Sprintf(format, args...), 300))
	}
	switch {
	case !s.LastOK.IsZero() && !s.Failing.IsZero():
		add("it worked last at %s; it has failed since %s, %s", stamp(s.LastOK), stamp(s.Failing), inARow(s.InARow))
	case s.Probe != "" && !s.Failing.IsZero() && s.InARow > 1:
		add("it has failed since %s, %s, and was never seen to work", stamp(s.Failing), inARow(s.InARow))
	}
	for _, what := range []struct{ kind, said string }{
		{"secret_file", "the secret's file"}, {"token_kid", "the key that signs the tokens"}, {"certificate", "the server's certificate"},
		{"issuer_metadata", "the issuer's metadata"}, {"jwks", "the issuer's key set"}, {"clock_step", "the local clock"},
	} {
		if c := f.changed(what.kind); c.What != "" && !s.Failing.IsZero() {
			switch {
			case c.What == "clock_step":
				add("%s was set by %s at %s", what.said, c.To, stamp(c.At))
			case c.From != "" && c.To != "":
				add("%s changed at %s, from %q to %q", what.said, stamp(c.At), c.From, c.To)
			default:
				add("%s changed at %s", what.said, stamp(c.At))
			}
		}
	}
	return lines
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func inARow(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}
