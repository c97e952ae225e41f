package agent

import (
	"time"

	"github.com/authvigil/authvigil/agent/pace"
)

func gateMap() map[string]*pace.Gate { return map[string]*pace.Gate{} }

// closedGate is one that lets nothing through for a while.
func closedGate(now time.Time, d time.Duration) *pace.Gate {
	g := pace.NewGate(pace.Policy{}, func() float64 { return 0 })
	if d > 0 {
		g.Restore(pace.State{Position: pace.Open, Again: now.Add(d)}, now)
	}
	return g
}
