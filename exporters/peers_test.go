package exporters

import (
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// TestPrometheus_peers: the clock of a server is on display while a probe knows of it, and goes with the last.
func TestPrometheus_peers(t *testing.T) {
	p := NewPrometheus("v", "r", "go", func() agent.Health { return agent.Health{ClockSteps: 1, ClockStep: 30 * time.Second} })
	see := func(probe string, peers ...evidence.Peer) {
		p.Observe(&agent.Event{Observation: agent.Observation{Probe: probe, Kind: "http", About: probes.About{Endpoint: probe}}, Peers: peers})
	}
	text := func() string {
		var b strings.Builder
		if err := p.writeText(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	idp := evidence.Peer{Name: "https://auth.example.test", Method: "token_iat", Skew: -90 * time.Second, Bound: time.Second / 2, Disagree: true}
	see("a", idp)
	see("b", idp)
	got := text()
	for _, want := range []string{
		`authvigil_clock_peer_skew_seconds{peer="https://auth.example.test",method="token_iat"} -90`,
		`authvigil_clock_peer_bound_seconds{peer="https://auth.example.test",method="token_iat"} 0.5`,
		`authvigil_clock_peer_backends_disagree{peer="https://auth.example.test",method="token_iat"} 1`,
		`authvigil_clock_last_step_seconds 30`, `authvigil_clock_steps_total 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
	see("a")
	if !strings.Contains(text(), "clock_peer_skew_seconds{") {
		t.Error("gone while a probe knows of it")
	}
	p.Forget("b")
	if strings.Contains(text(), "clock_peer_skew_seconds{") {
		t.Error("stays when no probe knows of it any more")
	}
}
