package diagnose

import (
	"fmt"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// Facts are a case as the rows look at it.
type facts struct {
	c          *Case
	x          *evidence.Exchange // that decided; nil: none
	fault      *evidence.Fault
	atIssuer   bool // the exchange was with the identity provider: token, discovery or introspection
	status     int
	scheme     string
	signed     bool // the request carries a signature and a timestamp
	words      words
	all        set // of all clauses but those of advice
	challenges []evidence.Challenge
	offered    string // scheme of the only challenge
	bare       bool   // challenge without an error, as for a request without a credential (RFC 6750 section 3.1)
	transport  string // normal form of the error of a connection
	tls        bool   // the error speaks of TLS or certificates
	token      *evidence.Token
	expired    bool // by its claims, by the local clock
	expiredFor time.Duration
	early      time.Duration // until nbf
	ahead      time.Duration // until iat, where that lies in the future
	skew       time.Duration // local minus true time
	skewKnown  bool
	historyRaw string // in normal form
}

const noticeable = 20 * time.Second // of skew: below, it spoils no token but one without any leeway

func factsOf(c *Case) *facts {
	s := &c.Sighting
	f := &facts{c: c, fault: s.Fault, scheme: s.Scheme, token: s.Report.Token}
	f.x = deciding(s)
	if f.x != nil {
		f.status = f.x.Status
		if f.x.Scheme != "" {
			f.scheme = f.x.Scheme
		}
		f.atIssuer = f.x.Stage == evidence.StageToken || f.x.Stage == evidence.StageDiscovery || f.x.Purpose == evidence.AskIssuer
		f.readAnswer()
	} else if f.fault != nil {
		f.atIssuer = f.fault.Stage == evidence.StageToken || f.fault.Stage == evidence.StageDiscovery
	}
	switch f.scheme {
	case "sigv4", "hmac", "shared_key", "http_signature", "oauth1":
		f.signed = true
	}
	switch err := f.transportError(); {
	case err == "":
	case f.plainlyLost():
		f.transport = err // no words are needed, and ten thousand probes may share this fate
	default:
		f.transport = normal(err)
		f.words.add(err, false)
		f.tls = aboutTLS(f.transport)
	}
	var advice set
	for _, cl := range f.words.clauses {
		if cl.hint {
			advice |= cl.set
		} else {
			f.all |= cl.set
		}
	}
	if f.all == 0 {
		f.all = advice
	}
	f.readToken()
	f.readClock()
	for _, h := range s.History {
		f.historyRaw += " | " + normal(h)
	}
	return f
}

// aboutTLS says whether a client speaks of TLS or of certificates.
func aboutTLS(text string) bool {
	for _, mark := range []string{"tls", "x509", "ssl", "certificate", "certpath", "schannel", "trust anchor", "sec e ", "sec error", "leaf signature", "issuer cert"} {
		if strings.Contains(text, mark) {
			return true
		}
	}
	return holdsOne(text, []string{"cert", "certs", "altnames", "hostname doesn", "hostname"}) && !strings.Contains(text, "resolve") && !strings.Contains(text, "could not be found")
}

// plainlyLost says whether the connection failed in a way that the client has a word for.
func (f *facts) plainlyLost() bool {
	if f.fault == nil || f.status != 0 {
		return false
	}
	switch f.fault.Symptom {
	case evidence.SymptomDNS, evidence.SymptomTimeout, evidence.SymptomRefused, evidence.SymptomUnreachable, evidence.SymptomClosed:
		return true
	}
	return false
}

// deciding is the exchange that decided the run: the last one that was not asked for comparison.
func deciding(s *Sighting) *evidence.Exchange {
	list := s.Report.Exchanges
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i].Purpose {
		case evidence.First, evidence.WithFreshGrant, evidence.ProtocolStep, evidence.Obtain, evidence.Redirected:
			return &list[i]
		case evidence.Revoke:
			if s.Fault != nil && s.Fault.Stage == evidence.StageToken {
				return &list[i]
			}
		case evidence.AskIssuer:
			if s.Fault != nil && (s.Fault.Stage == evidence.StageDiscovery || s.Kind == "issuer" && list[i].Fault == s.Fault) {
				return &list[i]
			}
		}
	}
	return nil
}

func (f *facts) readAnswer() {
	h := f.x.Header
	for _, name := range []string{"Www-Authenticate", "Proxy-Authenticate"} {
		f.challenges = append(f.challenges, evidence.ParseChallenges(h[name]...)...)
	}
	f.bare = len(f.challenges) > 0
	for _, c := range f.challenges {
		f.words.challenge(c)
		if c.Parameters["error"] != "" || c.Parameters["error_description"] != "" {
			f.bare = false
		}
		if f.offered == "" {
			f.offered = c.Scheme
		} else if f.offered != c.Scheme {
			f.offered = "several"
		}
	}
	f.words.header(h)
	kind := ""
	if v := h["Content-Type"]; len(v) > 0 {
		kind = v[0]
	}
	f.words.body(f.x.Body, kind, f.status)
	var all set
	for _, cl := range f.words.clauses {
		all |= cl.set
	}
	wrong := negative | of(cExpired, cNotYet, cRevoked, cLocked, cDisabled, cTooMany)
	switch {
	case f.status/100 == 2 && f.words.status != 0 && f.words.failed: // an answer that only looks good
		f.status = f.words.status
	case f.status/100 == 2 && f.words.coded && all.any(wrong):
		f.words.failed = true
	case f.status == 500 && f.words.fault && all.any(wrong) && all.any(of(cToken, cCredential, cPassword, cUser, cKey, cSignature, cSession, cLogin)):
		f.status = 401
	}
}

func (f *facts) transportError() string {
	switch {
	case f.x != nil && f.x.Fault != nil && f.x.Fault.Err != nil:
		return f.x.Fault.Err.Error()
	case f.x == nil && f.fault != nil && f.fault.Err != nil && f.fault.Symptom == evidence.SymptomUnknown:
		return f.fault.Err.Error()
	}
	return ""
}

func (f *facts) readClock() {
	if cl := f.c.World.Clock; cl != nil && cl.Confidence != evidence.NoConfidence {
		f.skew, f.skewKnown = cl.Skew, true
	}
}

func (f *facts) readToken() {
	t := f.token
	if t == nil {
		return
	}
	now := f.c.Now
	if !t.Expiry.IsZero() && !now.Before(t.Expiry) {
		f.expired, f.expiredFor = true, now.Sub(t.Expiry)
	}
	if t.NotBefore.After(now) {
		f.early = t.NotBefore.Sub(now)
	}
	if t.Issued.After(now) {
		f.ahead = t.Issued.Sub(now)
	}
}

// refused says whether the answer is a refusal of whoever asks, as against any other failure.
func (f *facts) refused() bool {
	local := f.transport != "" && f.status == 0 && f.all.any(of(cToken)) && !f.tls // a check of the token before anything was sent
	return f.status == 401 || f.status == 403 || f.status == 498 || f.status == 440 || (f.status == 400 && f.atIssuer) || (f.status/100 == 2 && f.words.failed) || local
}

// clauseWith finds a clause that speaks of what the row asks for; one that says what happened rather than one that gives advice.
func (f *facts) clauseWith(r *row) (found clause, ok bool) {
	for _, cl := range f.words.clauses {
		if !cl.set.has(r.all) || (r.any != 0 && !cl.set.any(r.any)) || cl.set.any(r.not) || (r.prose && cl.code) || !holdsOne(cl.text, r.words) {
			continue
		}
		if !cl.hint {
			return cl, true
		}
		found, ok = cl, true
	}
	return found, ok
}

func holdsOne(text string, words []string) bool {
	for _, w := range words {
		if holdsWords(text, w) {
			return true
		}
	}
	return words == nil
}

// says looks for words, in normal form, anywhere in what the server said.
func (f *facts) says(phrases ...string) bool {
	for _, cl := range f.words.clauses {
		for _, p := range phrases {
			if holdsWords(cl.text, p) {
				return true
			}
		}
	}
	return false
}

// tells looks for words in what the server said of what happened, and not in its advice.
func (f *facts) tells(phrases ...string) bool {
	for _, cl := range f.words.clauses {
		if !cl.hint && holdsOne(cl.text, phrases) {
			return true
		}
	}
	return false
}

func holdsWords(text, phrase string) bool {
	for start := 0; ; {
		i := strings.Index(text[start:], phrase)
		if i < 0 {
			return false
		}
		i += start
		end := i + len(phrase)
		if (i == 0 || text[i-1] == ' ') && (end == len(text) || text[end] == ' ') {
			return true
		}
		start = i + 1
	}
}

// hasCode looks for an error code, in normal form.
func (f *facts) hasCode(codes ...string) bool {
	for _, cl := range f.words.clauses {
		if cl.code {
			for _, c := range codes {
				if cl.text == c {
					return true
				}
			}
		}
	}
	return false
}

// otherClocks gives evidence lines on the clocks of others that are off from ours for certain.
func (f *facts) otherClocks() (lines []string) {
	for _, p := range f.c.World.Peers {
		by := map[string]string{"http_date": "its Date header", "token_iat": "iat of its tokens"}[p.Method]
		switch off := p.Skew.Abs() - p.Bound; {
		case p.Disagree:
			lines = append(lines, fmt.Sprintf("several servers answer as %s, and their clocks differ", p.Name))
		case off > time.Second && p.Skew > 0:
			lines = append(lines, fmt.Sprintf("by %s the clock of %s is %s behind ours (± %s)", by, p.Name, evidence.Span(p.Skew), evidence.Span(p.Bound)))
		case off > time.Second:
			lines = append(lines, fmt.Sprintf("by %s the clock of %s is %s ahead of ours (± %s)", by, p.Name, evidence.Span(p.Skew), evidence.Span(p.Bound)))
		}
	}
	return lines
}

// because makes the evidence lines that hold for every finding of the case.
func (f *facts) because() (lines []string) {
	add := func(format string, args ...any) {
		lines = append(lines, evidence.Clean(evidence.Mask(fmt.Sprintf(format, args...)), 300))
	}
	if f.ofIssuer() && f.fault != nil && f.fault.Err != nil && f.transport == "" && f.status != 0 {
		add("%s", f.fault.Err)
	}
	if f.x != nil {
		switch {
		case f.x.Status != 0 && f.x.URL != "":
			add("%s %s answered %d", f.x.Method, f.x.URL, f.x.Status)
		case f.x.Status != 0:
			add("the answer has status %d", f.x.Status)
		}
		if f.status != f.x.Status && f.status != 0 {
			add("what it says stands for status %d", f.status)
		}
		for _, v := range f.x.Header["Www-Authenticate"] {
			add("WWW-Authenticate: %s", v)
		}
	}
	switch {
	case f.transport != "" && f.ofIssuer() && f.fault.Symptom == evidence.SymptomIssuer: // says what was asked for, too
		add("error: %s", f.fault.Err)
	case f.transport != "":
		add("error: %s", f.transportError())
	}
	if f.x != nil && f.x.Body != "" && f.status != 0 && !f.words.html && !f.words.binary {
		add("body: %s", strings.Join(strings.Fields(f.x.Body), " "))
	}
	if f.words.odd != "" {
		add("%s", f.words.odd)
	}
	if f.x != nil && f.x.BodyCut {
		add("the body is longer than the %d bytes that were read", f.x.BodyBytes)
	}
	for _, c := range f.challenges {
		if c.Parameters["scope"] != "" && f.status == 403 {
			add("the API wants the scope %q", c.Parameters["scope"])
		}
		if c.Parameters["resource_metadata"] != "" { // RFC 9728
			add("the API says where its authorization servers stand: %s", c.Parameters["resource_metadata"])
		}
		if c.Parameters["acr_values"] != "" || c.Parameters["max_age"] != "" { // RFC 9470
			add("the API wants a stronger or newer login: %s", strings.TrimSpace("acr_values "+c.Parameters["acr_values"]+" max_age "+c.Parameters["max_age"]))
		}
	}
	if f.words.html && f.words.title != "" {
		add("the body is an HTML page titled %q", f.words.title)
	}
	if f.fault != nil && f.fault.Err != nil && f.transport == "" && (f.x == nil || f.status/100 <= 3) { // a status says enough where it is one of failure
		add("%s", f.fault.Error())
	}
	if ch := f.c.Sighting.Report.Chain; ch != nil {
		for _, fc := range ch.Facets {
			if fc.State == evidence.Fail && (f.fault == nil || f.fault.Err == nil || f.fault.Err.Error() != fc.Detail) {
				add("%s: %s", fc.Name, fc.Detail)
			}
		}
	}
	if missing := f.missingScopes(); len(missing) > 0 {
		add("the token lacks the scope %s, which the endpoint needs by configuration", strings.Join(missing, " "))
	}
	if f.token != nil && f.token.ID && f.refused() {
		add("the token is an ID token, which tells a client who logged in; an API is to be shown an access token")
	}
	lines = append(lines, f.problems()...)
	for _, n := range f.c.Sighting.Report.Notes {
		add("%s", n.Detail)
	}
	switch {
	case f.expired:
		add("by its claims the token ended %s ago", evidence.Span(f.expiredFor))
	case f.early > 0:
		add("by its claims the token is valid in %s", evidence.Span(f.early))
	case f.token != nil && !f.token.Expiry.IsZero():
		add("by its claims the token is valid for %s more", evidence.Span(f.token.Expiry.Sub(f.c.Now)))
	}
	if f.skewKnown && f.skew.Abs() >= noticeable {
		way := "ahead of"
		if f.skew < 0 {
			way = "behind"
		}
		add("the local clock is %s %s true time", evidence.Span(f.skew.Abs()), way)
	}
	if line := f.clockLine(); line != "" {
		add("%s", line)
	}
	lines = append(lines, f.otherClocks()...)
	lines = append(lines, f.compared()...)
	return append(lines, f.before()...)
}
