package diagnose

import (
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestJudgeClocks walks the verdict rule: beyond the leeway with the whole interval, with a part of it, with nothing.
func TestJudgeClocks(t *testing.T) {
	for _, c := range []struct {
		difference, bound, leeway time.Duration
		want                      clockVerdict
	}{
		{95 * time.Second, time.Second, time.Minute, clockConfirmed},
		{-95 * time.Second, time.Second, time.Minute, clockConfirmed},
		{62 * time.Second, 3 * time.Second, time.Minute, clockSuspected},
		{58 * time.Second, 4 * time.Second, time.Minute, clockSuspected},
		{30 * time.Second, time.Second, time.Minute, clockExcluded},
		{-30 * time.Second, time.Second, time.Minute, clockExcluded},
		{6 * time.Minute, time.Second, 0, clockConfirmed},
		{30 * time.Second, time.Second, 0, clockSuspected},
		{0, 500 * time.Millisecond, 0, clockExcluded},
	} {
		if got := judgeClocks(c.difference, c.bound, c.leeway); got != c.want {
			t.Errorf("%v ± %v against %v: %s, want %s", c.difference, c.bound, c.leeway, got, c.want)
		}
	}
}

// TestExplain_whoseClock: what the issuer writes is judged by the API, whatever our own clock says.
func TestExplain_whoseClock(t *testing.T) {
	peers := func(issuerSkew, apiSkew time.Duration) []evidence.Peer {
		return []evidence.Peer{{Name: "https://auth.example.test", Method: "token_iat", Skew: issuerSkew, Bound: time.Second}, {Name: "https://api.example.test:443", Method: "http_date", Skew: apiSkew, Bound: time.Second}}
	}
	c := live(401, "bearer", `Bearer error="invalid_token", error_description="The token is not valid yet"`, "")
	c.Sighting.Leeway = time.Minute
	for _, want := range []struct {
		issuer, api time.Duration
		line        string
		clock       bool
	}{
		{-95 * time.Second, 0, "the issuer's clock is 1 min 35 s ahead of that of the API", true},
		{0, 95 * time.Second, "the issuer's clock is 1 min 35 s ahead of that of the API", true},
		{0, 10 * time.Second, "is excluded", false},
	} {
		c.World.Peers = peers(want.issuer, want.api)
		f := Explain(c)[0]
		if !strings.Contains(strings.Join(f.Because, "\n"), want.line) || (f.Cause == ClockSkew) != want.clock {
			t.Errorf("issuer %v, API %v: %s (%s) %q", want.issuer, want.api, f.Cause, f.Sure, f.Because)
		}
	}
}
