package exporters

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// hostile are texts that want to be more than text: in HTML, in attributes, in SVG, in a terminal, in the order of letters.
var hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</title></style><svg onload=alert(1)>`, `javascript:alert(1)`,
	"\x1b[31mred\x1b[0m", "a\u202eb\u2066c", "\x00\x07\r\nX: y", `]]><b>`, `{{.Title}}`, `<a href="//evil.example">x</a>`, "\xff\xfe",
}

// hostileEvent puts a text in every place that strangers or configurations can write to.
func hostileEvent(name, text string) *agent.Event {
	now := time.Now()
	clean := evidence.Clean(text, 512)
	ev := event(name, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Code: clean, Err: errors.New(clean)})
	ev.Labels = map[string]string{"owner": text}
	ev.About.Endpoint, ev.About.Identity = text, text
	ev.Findings = []diagnose.Finding{{Cause: diagnose.TokenExpired, Culprit: "identity:" + text, Sure: diagnose.Likely, Because: []string{clean, clean, clean, clean}, Remedy: clean}}
	x := &ev.Report.Exchanges[0]
	x.URL, x.Body, x.Header, x.Fault = clean, clean, map[string][]string{"Www-Authenticate": {clean}}, ev.Fault
	ev.Report.Token = &evidence.Token{Format: "jwt", Alg: clean, Issuer: clean, Audience: []string{clean}, Scopes: []string{clean}, Problems: []string{clean}}
	ev.Report.Chain = &evidence.Chain{Address: clean, Certificates: []evidence.Certificate{{Role: "leaf", Subject: clean, Issuer: clean, NotAfter: now.Add(time.Hour)}}, Facets: []evidence.Facet{{Name: "name", State: evidence.Fail, Detail: clean}}}
	ev.Report.Clock = &evidence.Clock{Confidence: evidence.Confident, Measured: now, Sources: []evidence.ClockSource{{Name: clean, State: "truechimer", Detail: clean}}}
	ev.Report.Peers = []evidence.Peer{{Name: clean, Method: "http_date", Measured: now}}
	ev.Report.Readings = []evidence.Reading{{Metric: identity.TokenExpiry, Labels: []string{clean}, Value: float64(now.Unix())}}
	return ev
}

// inventory counts what elements and attributes a page has, and fails on what a page of ours never has.
func inventory(t *testing.T, where, page string) map[string]int {
	t.Helper()
	count := map[string]int{}
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		count[n.Data]++
		for _, a := range n.Attr {
			count[n.Data+" "+a.Key]++
			if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
				t.Errorf("%s: <%s> has the attribute %s", where, n.Data, a.Key)
			}
			if (a.Key == "href" || a.Key == "src") && (strings.Contains(a.Val, "javascript:") && !strings.HasPrefix(a.Val, "?") && !strings.HasPrefix(a.Val, "../?") || strings.HasPrefix(a.Val, "//") || strings.Contains(a.Val, "://")) {
				t.Errorf("%s: <%s> leads to %q", where, n.Data, a.Val)
			}
		}
		if n.Data == "script" && n.FirstChild != nil {
			t.Errorf("%s: a script stands in the page", where)
		}
	}
	return count
}

// TestPage_hostileTextStaysText compares the elements of every page with hostile evidence to those of the same page with
// harmless evidence: a text may not add one, nor an attribute, nor leave a character that reorders or commands.
func TestPage_hostileTextStaysText(t *testing.T) {
	paths := []string{"/", "/probes/a", "/?state=failing", "/?cause=token_expired", "/runbooks/token_expired", "/probes/nobody"}
	pages := func(text string) map[string]string {
		w, get := web(t)
		w.Status.Start([]agent.Observation{{Probe: "later", Kind: "http"}})
		w.Status.Observe(hostileEvent("a", text))
		w.Status.SetNotes([]string{text})
		found := map[string]string{}
		for _, path := range paths {
			_, found[path], _ = get(path, "localhost")
		}
		return found
	}
	harmless := map[string]map[string]int{}
	for path, page := range pages("harmless") {
		harmless[path] = inventory(t, path, page)
	}
	for _, text := range hostile {
		for path, page := range pages(text) {
			where := fmt.Sprintf("%s with %q", path, text)
			if got := inventory(t, where, page); fmt.Sprint(got) != fmt.Sprint(harmless[path]) {
				t.Errorf("%s: other elements than with harmless text:\n%v\n%v", where, got, harmless[path])
			}
			if i := strings.IndexFunc(page, func(r rune) bool {
				return (r < ' ' && r != '\n' && r != '\t') || (r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069')
			}); i >= 0 {
				t.Errorf("%s: a character that commands: %q", where, page[max(i-40, 0):min(i+10, len(page))])
			}
		}
	}
}

// TestWeb_everyPathHasThePolicy walks all paths, those that do not exist too.
func TestWeb_everyPathHasThePolicy(t *testing.T) {
	w, get := web(t)
	w.Status.Observe(event("a", refused()))
	w.Status.Observe(event("b", nil))
	for path, want := range map[string]int{"/": 200, "/probes/a": 200, "/probes/b": 200, "/runbooks/token_expired": 200, "/runbooks/AuthFailureSpike": 200, "/api/v1/probes": 200, "/api/v1/probes/a": 200, "/api/v1/findings": 200, "/api/v1/alerts": 200, "/api/v1/runways": 200, "/api/v1/clocks": 200,
		"/metrics": 200, "/page.css": 200, "/refresh.js": 200, "/good.svg": 200, "/bad.svg": 200, "/-/healthy": 200, "/-/ready": 200,
		"/probes/nobody": 404, "/runbooks/nothing": 404, "/runbooks/..%2f..%2fsecret": 404, "/nowhere": 404, "/-/reload": 404, "/page/index.html": 404, "/index.html": 404} {
		code, body, policy := get(path, "127.0.0.1:10401")
		if code != want {
			t.Errorf("%s answered %d, want %d", path, code, want)
		}
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		if strings.Contains(path, ".") && want == 200 && body == "" {
			t.Errorf("%s is empty", path)
		}
	}
	if _, body, _ := get("/", "localhost"); !strings.Contains(body, "identity:who") || !strings.Contains(body, "obtain a new token") {
		t.Error("the first page does not say who is to blame and what to do")
	}
}

// TestPage_tellsTheNightShift reads the first page as somebody on call would: what, who, since when, whose, what to do.
func TestPage_tellsTheNightShift(t *testing.T) {
	w, get := web(t)
	for i := range 40 {
		ev := event(fmt.Sprintf("p%02d", i), refused())
		ev.Labels = map[string]string{"owner": "payments", "n": fmt.Sprint(i)}
		ev.Failing = time.Now().Add(-12 * time.Minute)
		w.Status.Observe(ev)
	}
	w.Status.Observe(event("fine", nil))
	w.Status.Start([]agent.Observation{{Probe: "later", Kind: "http"}})
	_, page, _ := get("/", "localhost")
	for _, want := range []string{"1 thing broken: 40 of 42 probes fail", "<title>(1) authvigil</title>", "identity:who", "12 min ago", "40 probes:", "and 34 more", "owner=payments", "obtain a new token", "runbooks/token_expired", "waiting 1"} {
		if !strings.Contains(page, want) {
			t.Errorf("the first page lacks %q", want)
		}
	}
	if strings.Count(page, "<article") != 1 {
		t.Errorf("one culprit has %d cards", strings.Count(page, "<article"))
	}
	if at, fine := strings.Index(page, `href="probes/p00"`), strings.Index(page, `href="probes/fine"`); at < 0 || fine < at {
		t.Error("what fails does not stand before what is fine")
	}
}

// TestPage_filters asks with every parameter; what is shown stands in the URL.
func TestPage_filters(t *testing.T) {
	w, get := web(t)
	bad, good, token := event("bad", refused()), event("good", nil), event("token", nil)
	bad.Labels = map[string]string{"team": "red"}
	good.Labels = map[string]string{"team": "blue"}
	token.Kind, token.About.Identity = "token", "other"
	for _, ev := range []*agent.Event{bad, good, token} {
		w.Status.Observe(ev)
	}
	for query, want := range map[string][]string{
		"": {"bad", "good", "token"}, "state=failing": {"bad"}, "state=ok": {"good", "token"}, "state=held": nil, "kind=token": {"token"}, "identity=who": {"bad", "good"}, "identity=other": {"token"},
		"cause=token_expired": {"bad"}, "label=team%3Dblue": {"good"}, "label=team": {"bad", "good"}, "q=GOO": {"good"}, "q=other": {"token"}, "culprit=identity:who": {"bad"}, "kind=http&state=ok": {"good"}, "from=1": {"good", "token"}, "from=-7": {"bad", "good", "token"}, "from=x": {"bad", "good", "token"},
	} {
		_, page, _ := get("/?"+query, "localhost")
		_, table, _ := strings.Cut(page, `<table class="probes">`)
		var got []string
		for _, name := range []string{"bad", "good", "token"} {
			if strings.Contains(table, `href="probes/`+name+`"`) {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("?%s shows %v, want %v", query, got, want)
		}
	}
}

// TestRunways_nextFirst: what authvigil renews by itself does not stand before what somebody must see to.
func TestRunways_nextFirst(t *testing.T) {
	s, now := NewStatus(time.Now()), time.Now()
	a, b, c := event("a", nil), event("b", nil), event("c", nil)
	unix := func(d time.Duration) float64 { return float64(now.Add(d).Unix()) }
	a.About.Identity = "renewed"
	a.Report.Readings = []evidence.Reading{{Metric: identity.TokenExpiry, Labels: []string{"access"}, Value: unix(time.Minute)}, {Metric: identity.TokenLifetime, Labels: []string{"access"}, Value: 60}}
	b.About.Identity = "fixed"
	b.Report.Readings = []evidence.Reading{{Metric: identity.TokenExpiry, Labels: []string{"access"}, Value: unix(time.Hour)}}
	c.Kind, c.About.Origin = "certificate", ""
	c.Report.Chain = &evidence.Chain{Address: "api.example.test:443", Certificates: []evidence.Certificate{{Role: "leaf", NotAfter: now.Add(48 * time.Hour)}, {Role: "intermediate", NotAfter: now.Add(2 * time.Hour)}}}
	for _, ev := range []*agent.Event{a, b, c} {
		s.Observe(ev)
	}
	var got []string
	for _, r := range s.Runways() {
		got = append(got, r.What+" of "+r.Whose)
	}
	want := []string{"access token of identity:fixed", "intermediate certificate of api.example.test:443", "certificate of api.example.test:443", "access token of identity:renewed"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if v := viewRunways(s.Runways(), now); v.Headline != "Next: access token of identity:fixed ends in 59 min" {
		t.Errorf("headline %q", v.Headline)
	}
}

func TestRunwayX_isMonotone(t *testing.T) {
	last := -1
	for _, d := range []time.Duration{-time.Hour, 0, time.Minute, time.Hour, 23 * time.Hour, 24 * time.Hour, 8 * 24 * time.Hour, 400 * 24 * time.Hour, 9000 * 24 * time.Hour} {
		x := runwayX(d)
		if x < last || x > tickWidth*(len(runwayTicks)-1) {
			t.Errorf("%s lies at %d after %d", d, x, last)
		}
		last = x
	}
}

func TestClocks_inWords(t *testing.T) {
	c := Clocks{Local: &evidence.Clock{Skew: -2 * time.Second, Bound: 5 * time.Millisecond, Confidence: evidence.Confident, Limit: 500 * time.Millisecond}, Peers: []evidence.Peer{{Name: "https://api.example.test", Method: "http_date", Skew: time.Minute, Bound: time.Second}}}
	v := viewClocks(c, time.Now())
	if v.Headline != "This host's clock is behind true time by 2.0 s ± 5.0 ms" || v.Class != "bad" || v.Scale != "10m0s" {
		t.Errorf("%q %s %s", v.Headline, v.Class, v.Scale)
	}
	if v.Rows[1].State != "differs" || v.Rows[1].X <= clockHalf {
		t.Errorf("the peer that is behind us lies at %+v", v.Rows[1])
	}
	if got := difference(time.Millisecond, 4*time.Millisecond, "true time"); got != "agrees with true time to ± 5.0 ms" {
		t.Error(got)
	}
}

// TestProbePage_failingBesideGood: the last failing and the last good run stand on one scale.
func TestProbePage_failingBesideGood(t *testing.T) {
	w, get := web(t)
	good := event("a", nil)
	good.Report.Exchanges[0].Timing = evidence.Timing{Resolve: time.Millisecond, Connect: 2 * time.Millisecond, TLS: 3 * time.Millisecond, FirstByte: 4 * time.Millisecond}
	w.Status.Observe(good)
	bad := event("a", refused())
	bad.Gate = pace.State{Position: pace.Open, Again: time.Now().Add(time.Minute), Failures: 3}
	w.Status.Observe(bad)
	_, page, _ := get("/probes/a", "localhost")
	failing, fine := strings.Index(page, "Last failing run"), strings.Index(page, "Last good run")
	if failing < 0 || fine < failing {
		t.Error("the failing run does not stand before the good one")
	}
	for _, want := range []string{"resolve 1.0 ms, connect 2.0 ms, TLS 3.0 ms, first byte 4.0 ms", `class="tls" x="300" width="300"`, "What it means", "holds questions until", "after 3 failures in a row", "401 Unauthorized"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page of the probe lacks %q", want)
		}
	}
}

func TestMarkdown(t *testing.T) {
	got := fmt.Sprint(markdown("# a: `b`\n\ntext that\ngoes on\n## Fix\n- one `x`\n  and more\n- two\n\n    code\n\n```\n- raw\n```\n"))
	want := "[{h2 [[{false a: } {true b}]]} {p [[{false text that goes on}]]} {h3 [[{false Fix}]]} {ul [[{false one } {true x} {false  and more}] [{false two}]]} {pre [[{false code\n}]]} {pre [[{false - raw\n}]]}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestPage_thousandProbes(t *testing.T) {
	w, page := web(t)
	for i := range 1000 {
		w.Status.Observe(event(fmt.Sprintf("p%d", i), refused()))
	}
	code, body, _ := page("/", "localhost")
	if n := strings.Count(body, `href="probes/`); code != 200 || n < 1000 {
		t.Errorf("answered %d with %d bytes and %d probes", code, len(body), n)
	}
}

// TestPage_heldProbesStandBehindTheirCulprit: a probe that a gate keeps from asking was good before, and is not said to be
// good now; it counts among those who suffer from what closed the gate.
func TestPage_heldProbesStandBehindTheirCulprit(t *testing.T) {
	w, get := web(t)
	closed := pace.State{Position: pace.Open, Again: time.Now().Add(time.Minute), Failures: 3}
	bad := event("bad", refused())
	bad.IdentityGate, bad.Failing = closed, time.Now().Add(-time.Minute)
	w.Status.Observe(bad)
	for _, who := range []string{"who", "somebody else"} {
		good := event("of "+who, nil)
		good.About.Identity = who
		w.Status.Observe(good)
		held := event("of "+who, &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomHeld, Err: errors.New("held")})
		held.About.Identity, held.IdentityGate = who, closed
		w.Status.Observe(held)
	}
	_, page, _ := get("/", "localhost")
	for _, want := range []string{"1 thing broken: 1 of 3 probes fail, 2 more are held back", "2 probes:", "(1 held back by a gate)", "questions as somebody else are held until"} {
		if !strings.Contains(page, want) {
			t.Errorf("the first page lacks %q", want)
		}
	}
	if record, _ := w.Status.Record("of who"); !record.Held || !record.OK {
		t.Errorf("the record of a held probe: held %v, ok %v", record.Held, record.OK)
	}
}
