package agent

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// A faraway is a server whose clock is ahead of ours, in virtual time of the test's own.
type faraway struct {
	ahead  time.Duration
	stale  time.Duration // by which its Date header is late
	header http.Header
	status int
	remote string
	url    string
}

// exchange is one question to the server, of a round trip of 80 ms.
func (f faraway) exchange(at time.Time) evidence.Exchange {
	const trip = 80 * time.Millisecond
	h := http.Header{"Date": {at.Add(trip / 2).Add(f.ahead - f.stale).UTC().Format(http.TimeFormat)}}
	for k, v := range f.header {
		h[k] = v
	}
	if f.status == 0 {
		f.status = 200
	}
	if f.url == "" {
		f.url = "https://api.example.test/things"
	}
	x := evidence.Exchange{Stage: evidence.StageAPI, Method: "GET", URL: f.url, Status: f.status, Remote: f.remote, Started: at, Took: trip, Scheme: "bearer"}
	x.Date = evidence.SampleDate(f.status, h, at, at.Add(trip))
	return x
}

// seen lets a court see a server n times, every 29.7 seconds, and gives what is known of its clock.
func seen(n int, servers ...faraway) (evidence.Peer, bool) {
	p, now := peerClocks{}, time.Unix(1_800_000_000, 123_000_000)
	for i := range n {
		f := servers[i%len(servers)]
		p.learn(&Observation{Report: evidence.Report{Exchanges: []evidence.Exchange{f.exchange(now)}}})
		now = now.Add(29_700 * time.Millisecond)
	}
	list := p.of(now, "https://api.example.test:443")
	if len(list) != 1 {
		return evidence.Peer{}, false
	}
	return list[0], true
}

// TestPeerClocks_date: ordinary answers tell the clock of a server, and what is no word of its clock is left out.
func TestPeerClocks_date(t *testing.T) {
	for name, c := range map[string]struct {
		n       int
		servers []faraway
		known   bool
		off     time.Duration // local minus peer
		bound   time.Duration
	}{
		"one answer":                   {1, []faraway{{}}, true, 0, 1100 * time.Millisecond},
		"twelve answers":               {12, []faraway{{}}, true, 0, 800 * time.Millisecond},
		"B28 90 s ahead":               {12, []faraway{{ahead: 90 * time.Second}}, true, -90 * time.Second, 800 * time.Millisecond},
		"B29 70 s behind":              {12, []faraway{{ahead: -70 * time.Second}}, true, 70 * time.Second, 800 * time.Millisecond},
		"B31 from a cache by Age":      {5, []faraway{{ahead: -5 * time.Minute, header: http.Header{"Age": {"300"}}}}, false, 0, 0},
		"B31 from a cache by its word": {5, []faraway{{ahead: -5 * time.Minute, header: http.Header{"Cf-Cache-Status": {"HIT"}}}}, false, 0, 0},
		"B31 not modified":             {5, []faraway{{ahead: -5 * time.Minute, status: 304}}, false, 0, 0},
		"B32 no Date":                  {5, []faraway{{header: http.Header{"Date": nil}}}, false, 0, 0},
		"no clock at all":              {5, []faraway{{ahead: -40 * 365 * 24 * time.Hour}}, false, 0, 0},
		"B33 late by 0.9 s":            {48, []faraway{{stale: 900 * time.Millisecond}}, true, 0, 1200 * time.Millisecond},
		"B39 RFC 850":                  {1, []faraway{{header: http.Header{"Date": {time.Unix(1_800_000_000, 0).UTC().Format("Monday, 02-Jan-06 15:04:05 GMT")}}}}, true, 0, 1100 * time.Millisecond},
		"B39 asctime":                  {1, []faraway{{header: http.Header{"Date": {time.Unix(1_800_000_000, 0).UTC().Format(time.ANSIC)}}}}, true, 0, 1100 * time.Millisecond},
		"B40 refused":                  {5, []faraway{{status: 401}}, true, 0, 1100 * time.Millisecond},
		"fresh after many":             {70, []faraway{{}}, true, 0, 350 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			p, known := seen(c.n, c.servers...)
			if known != c.known || known && ((p.Skew-c.off).Abs() > p.Bound || p.Bound > c.bound || p.Disagree) {
				t.Errorf("got %+v, %v", p, known)
			}
		})
	}
}

// TestPeerClocks_backends: B34, two servers behind one name, by address or behind one; and one whose clock was set.
func TestPeerClocks_backends(t *testing.T) {
	for name, servers := range map[string][]faraway{
		"two addresses": {{remote: "192.0.2.1:443"}, {remote: "192.0.2.2:443", ahead: 3 * time.Second}},
		"one address":   {{}, {ahead: 3 * time.Second}},
	} {
		p, _ := seen(8, servers...)
		if !p.Disagree || p.Skew-p.Bound > -3*time.Second || p.Skew+p.Bound < 0 {
			t.Errorf("%s: got %+v", name, p)
		}
	}
	if p, _ := seen(8, faraway{remote: "192.0.2.1:443"}, faraway{remote: "192.0.2.2:443", ahead: 20 * time.Millisecond}); p.Disagree || p.Samples != 8 {
		t.Errorf("two addresses of one clock: %+v", p)
	}
	p, now := peerClocks{}, time.Unix(1_800_000_000, 0)
	for i := range 12 {
		f := faraway{}
		if i >= 6 {
			f.ahead = 10 * time.Second
		}
		p.learn(&Observation{Report: evidence.Report{Exchanges: []evidence.Exchange{f.exchange(now)}}})
		now = now.Add(30 * time.Second)
	}
	if got := p.of(now, "https://api.example.test:443")[0]; got.Disagree || (got.Skew+10*time.Second).Abs() > got.Bound {
		t.Errorf("a clock that was set: %+v", got)
	}
	if got := p.of(now.Add(time.Hour), "https://api.example.test:443"); got != nil {
		t.Errorf("remembered for an hour: %+v", got)
	}
}

// TestPeerClocks_bounded: strangers' names cannot fill the memory.
func TestPeerClocks_bounded(t *testing.T) {
	p, now := peerClocks{}, time.Unix(1_800_000_000, 0)
	for i := range 2 * mostPeers {
		f := faraway{url: fmt.Sprintf("https://h%d.example.test/", i), ahead: time.Duration(i) * time.Second}
		p.learn(&Observation{Report: evidence.Report{Exchanges: []evidence.Exchange{f.exchange(now)}}})
	}
	for i := range 100 {
		f := faraway{ahead: time.Duration(i*10) * time.Second, url: "https://h0.example.test/"}
		p.learn(&Observation{Report: evidence.Report{Exchanges: []evidence.Exchange{f.exchange(now)}}})
	}
	if len(p) > mostPeers || len(p[peerKey{"https://h0.example.test:443", "http_date"}].groups) > mostClocks {
		t.Errorf("%d peers", len(p))
	}
}

// stamped is the observation of a run that obtained a token from an issuer whose clock is ahead and that dates tokens back.
func stamped(at time.Time, ahead, back, expiresIn time.Duration, date bool) *Observation {
	f := faraway{ahead: ahead, url: "https://auth.example.test/token"}
	x := f.exchange(at)
	x.Stage, x.Purpose = evidence.StageToken, evidence.Obtain
	if !date {
		x.Date = nil
	}
	moment := at.Add(40 * time.Millisecond).Add(ahead).Truncate(time.Second)
	t := &evidence.Token{Format: "jwt", Issued: moment.Add(-back), Expiry: moment.Add(time.Hour), ExpiresIn: expiresIn, Obtained: at.Add(x.Took)}
	return &Observation{Issuer: "https://auth.example.test", Report: evidence.Report{Token: t, Exchanges: []evidence.Exchange{x}}}
}

// TestPeerClocks_token: the moment of issue tells the issuer's clock, and a constant backdate is no skew (B28, B37).
func TestPeerClocks_token(t *testing.T) {
	for name, c := range map[string]struct {
		ahead, back, expiresIn time.Duration
		date                   bool
		known                  bool
		learnt                 time.Duration
	}{
		"right":                                   {0, 0, time.Hour, false, true, 0},
		"B28 90 s ahead":                          {90 * time.Second, 0, time.Hour, false, true, 0},
		"B37 300 s back by its life":              {0, 5 * time.Minute, time.Hour, false, true, 5 * time.Minute},
		"B37 300 s back by its Date":              {0, 5 * time.Minute, 0, true, true, 5 * time.Minute},
		"B37 looks dated back and cannot be told": {0, 5 * time.Minute, 0, false, false, 0},
		"dated back and ahead":                    {90 * time.Second, time.Minute, time.Hour, false, true, time.Minute},
		"37 s behind":                             {-37 * time.Second, 0, 0, false, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p, now := peerClocks{}, time.Unix(1_800_000_000, 0)
			for range 3 {
				p.learn(stamped(now, c.ahead, c.back, c.expiresIn, c.date))
				now = now.Add(400 * time.Second)
			}
			list := p.of(now, "https://auth.example.test")
			if (len(list) == 1) != c.known {
				t.Fatalf("got %+v", list)
			}
			if c.known && ((list[0].Skew+c.ahead).Abs() > list[0].Bound || list[0].Bound > time.Second || list[0].Backdate != c.learnt || list[0].Method != "token_iat") {
				t.Errorf("got %+v", list[0])
			}
		})
	}
	late := stamped(time.Unix(1_800_000_000, 0), 0, 0, 0, false)
	late.Report.Token.Obtained = late.Report.Token.Obtained.Add(-time.Hour)
	p := peerClocks{}
	if p.learn(late); len(p) != 0 {
		t.Error("a token of an earlier run counts as one of this")
	}
}

// judged lets a court judge runs of one probe and gives the last event.
func judged(t *testing.T, clock *evidence.Clock, leeways *probes.Leeway, observations ...*Observation) *Event {
	t.Helper()
	c := newCourt(nil)
	if clock != nil {
		clock.Measured = observations[len(observations)-1].Started
		c.clocks["clock"] = clock
	}
	a := agentOf(time.Minute, nil)
	var ev *Event
	for _, o := range observations {
		o.Probe, o.Kind, o.Scheme, o.Issuer = "things", "http", "bearer", "https://auth.example.test"
		o.About = probes.About{Endpoint: "api.example.test/things", Origin: "https://api.example.test:443", Identity: "client", Leeways: leeways}
		if leeways != nil {
			o.About.Leeway = leeways.NotBefore
		}
		ev = c.conclude(*o, pace.State{}, time.Time{}, a)
	}
	return ev
}

// asks are runs that obtained a token and asked an API with it; refused is the last answer.
func asks(idp, api time.Duration, refused string) (list []*Observation) {
	now := time.Now().Add(-10 * time.Minute)
	for i := range 8 {
		o := stamped(now, idp, 0, time.Hour, true)
		o.Started, o.Took = now, 200*time.Millisecond
		x := faraway{ahead: api}.exchange(now.Add(100 * time.Millisecond))
		if i == 7 && refused != "" {
			x.Status, x.Header = 401, map[string][]string{"Www-Authenticate": {refused}}
			o.Fault = &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Code: "401"}
		}
		o.Report.Exchanges = append(o.Report.Exchanges, x)
		list = append(list, o)
		now = now.Add(67_300 * time.Millisecond)
	}
	return list
}

// TestJudge_whoseClock: what is refused or about to be is put down to the clock that is wrong, whoever looks.
func TestJudge_whoseClock(t *testing.T) {
	right := func() *evidence.Clock {
		return &evidence.Clock{Confidence: evidence.Confident, Bound: 10 * time.Millisecond}
	}
	const early, plain = `Bearer error="invalid_token", error_description="The token is not active yet (nbf)"`, `Bearer`
	const late = `Bearer error="invalid_token", error_description="The token is expired"`
	minute := &probes.Leeway{Expiry: time.Minute, NotBefore: time.Minute, Issued: time.Minute}
	for name, c := range map[string]struct {
		clock    *evidence.Clock
		idp, api time.Duration
		refused  string
		culprit  string
		sure     diagnose.Sureness
	}{
		"B28 the issuer is ahead, nothing refused":   {right(), 90 * time.Second, 0, "", "issuer:https://auth.example.test", diagnose.Certain},
		"B28 the issuer is ahead, refused":           {right(), 90 * time.Second, 0, early, "issuer:https://auth.example.test", diagnose.Certain},
		"B29 the API is behind":                      {right(), 0, -70 * time.Second, early, "endpoint:api.example.test/things", diagnose.Certain},
		"B29 the API is behind, no time servers":     {nil, 0, -70 * time.Second, early, "endpoint:api.example.test/things", ""},
		"the API is ahead":                           {right(), 0, 2 * time.Hour, late, "endpoint:api.example.test/things", diagnose.Certain},
		"the API is behind, and says nothing of why": {right(), 0, -70 * time.Second, plain, "endpoint:api.example.test/things", diagnose.Likely},
	} {
		t.Run(name, func(t *testing.T) {
			ev := judged(t, c.clock, minute, asks(c.idp, c.api, c.refused)...)
			if len(ev.Findings) == 0 || ev.Findings[0].Cause != diagnose.ClockSkew || ev.Findings[0].Culprit != c.culprit || c.sure != "" && ev.Findings[0].Sure != c.sure {
				t.Errorf("got %+v\npeers %+v", ev.Findings, ev.Peers)
			}
		})
	}
	for _, off := range []time.Duration{2 * time.Minute, -2 * time.Minute} {
		t.Run("ours is wrong, and nobody here reads it", func(t *testing.T) {
			clock := &evidence.Clock{Skew: -off, Confidence: evidence.Confident}
			ev := judged(t, clock, minute, asks(off, off, early)...)
			if len(ev.Findings) == 0 || ev.Findings[0].Cause == diagnose.ClockSkew {
				t.Errorf("got %+v: the issuer wrote the token and the API judged it, and their clocks agree", ev.Findings)
			}
		})
	}
	t.Run("all clocks are right", func(t *testing.T) {
		if ev := judged(t, right(), minute, asks(0, 0, "")...); len(ev.Findings) != 0 {
			t.Errorf("got %+v", ev.Findings)
		}
	})
	t.Run("B30 a proxy writes the Date", func(t *testing.T) {
		ev := judged(t, right(), minute, asks(0, 0, early)...)
		if len(ev.Findings) == 0 || ev.Findings[0].Sure == diagnose.Certain && ev.Findings[0].Cause == diagnose.ClockSkew {
			t.Errorf("got %+v: what the Date contradicts may be suspected, not certain", ev.Findings)
		}
	})
}

// TestJudge_margin: how much of the validator's leeway is left (B35, B36).
func TestJudge_margin(t *testing.T) {
	sample := func(ahead time.Duration) span { return span{-ahead, -ahead} }
	for name, c := range map[string]struct {
		leeway, idp, api, back time.Duration
		want                   map[string]time.Duration
	}{
		"B35 40 ms and no leeway":         {0, 40 * time.Millisecond, 0, 0, map[string]time.Duration{"exp": 0, "nbf": -40 * time.Millisecond, "iat": -40 * time.Millisecond}},
		"B36 4 s and a minute":            {time.Minute, 4 * time.Second, 0, 0, map[string]time.Duration{"exp": time.Minute, "nbf": 56 * time.Second, "iat": 56 * time.Second}},
		"the API is ahead":                {time.Minute, 0, 90 * time.Second, 0, map[string]time.Duration{"exp": -30 * time.Second, "nbf": time.Minute, "iat": time.Minute}},
		"B35 40 ms and tokens dated back": {0, 40 * time.Millisecond, 0, 10 * time.Second, map[string]time.Duration{"exp": 0, "nbf": 0, "iat": 0}},
	} {
		l := &probes.Leeway{Expiry: c.leeway, NotBefore: c.leeway, Issued: c.leeway}
		got := map[string]time.Duration{}
		for _, m := range margins(l, "bearer", sample(c.api), true, sample(c.idp), true, c.back) {
			got[m.claim] = m.left
		}
		for claim, want := range c.want {
			if got[claim] != want {
				t.Errorf("%s: %s: got %s, want %s", name, claim, got[claim], want)
			}
		}
	}
	if m := margins(&probes.Leeway{Issued: 5 * time.Minute}, "sigv4", sample(20*time.Minute), true, span{}, false, 0); len(m) != 1 || m[0].left != -15*time.Minute {
		t.Errorf("B41: what we sign ourselves: %+v", m)
	}
	ev := judged(t, nil, &probes.Leeway{Expiry: 0, NotBefore: 5 * time.Minute, Issued: -1}, asks(0, 0, "")...)
	claims := map[string]float64{}
	for _, r := range ev.Report.Readings {
		if r.Metric == leewayMargin {
			claims[r.Labels[0]] = r.Value
		}
	}
	if len(claims) != 2 || claims["exp"] >= 0 || claims["exp"] < -3 || claims["nbf"] < 297 {
		t.Errorf("go-oidc: %v", claims)
	}
}

// TestCourt_clocks: the surest verdict on our clock counts, and none that is old, over a step, or of a probe that is gone.
func TestCourt_clocks(t *testing.T) {
	c, now := newCourt(nil), time.Now()
	c.clocks["one"] = &evidence.Clock{Skew: time.Second, Confidence: evidence.Unverified, Measured: now}
	c.clocks["two"] = &evidence.Clock{Skew: 2 * time.Second, Confidence: evidence.Confident, Measured: now}
	c.clocks["none"] = &evidence.Clock{Confidence: evidence.NoConfidence, Measured: now}
	if k := c.bestClock(now.Add(10 * time.Minute)); k == nil || k.Skew != 2*time.Second || k.Bound < 100*time.Millisecond {
		t.Errorf("got %+v", k)
	}
	if k := c.bestClock(now.Add(2 * time.Hour)); k != nil {
		t.Errorf("two hours later: %+v", k)
	}
	if k := c.bestClock(now.Round(0).Add(time.Second)); k == nil {
		t.Error("nothing")
	}
	c.records["two"] = &record{}
	c.forget("two")
	if k := c.bestClock(now); k == nil || k.Skew != time.Second {
		t.Errorf("after the probe is gone: %+v", k)
	}
	a := agentOf(time.Minute, nil)
	a.court.peers.learn(&Observation{Report: evidence.Report{Exchanges: []evidence.Exchange{faraway{}.exchange(now)}}})
	if a.stepped(30*time.Second, now); len(a.court.peers) != 0 || a.Health().ClockSteps != 1 || a.Health().ClockStep != 30*time.Second {
		t.Errorf("after a step: %d peers, %+v", len(a.court.peers), a.Health())
	}
}
