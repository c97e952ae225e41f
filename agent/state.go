package agent

import (
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
)

const (
	// stateFile holds what outlives a restart besides secrets: alerts that fire, and gates that are closed to requests.
	stateFile = "agent.state"
	// saveEvery is how often it is written; a kill loses no more.
	saveEvery = 30 * time.Second
	// saveSoon is how long after news of alerts it is written.
	saveSoon = time.Second
	// stateVersion is that of its form.
	stateVersion = 2
	maxState     = 64 << 20
)

type stored struct {
	Saved  time.Time             `json:"saved"`
	Alerts json.RawMessage       `json:"alerts,omitempty"`
	Gates  map[string]pace.State `json:"gates,omitempty"` // by name, see gateOf
}

// recall takes over what was stored before a restart. What cannot be read is set aside and said, and never keeps the agent
// from starting. The agent's mutex is held.
func (a *Agent) recall() {
	dir := a.world.config.Agent.StateDirectory
	if dir == "" || a.alerts == nil {
		return
	}
	s := readState(dir, a.env.Log.Error)
	if s == nil {
		return
	}
	if len(s.Alerts) > 0 {
		known := func(probe string) bool { return a.world.probes[probe] != nil }
		if err := a.alerts.Restore(s.Alerts, time.Now(), known); err != nil {
			setAside(filepath.Join(dir, stateFile), err, a.env.Log.Error)
		}
	}
	now := time.Now()
	for name, state := range s.Gates {
		g := pace.NewGate(pace.Policy{}, a.env.Jitter)
		g.Restore(state, now)
		a.gates[name] = g
	}
}

// remember writes the state every now and then, soon after an alert fired or ended, and at the end.
func (a *Agent) remember(ctx context.Context) {
	dir := a.current.Load().config.Agent.StateDirectory
	if dir == "" {
		return
	}
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-a.alerts.News():
			select { // more may come
			case <-ctx.Done():
			case <-time.After(saveSoon):
			}
		}
		err := a.save(dir)
		if err != nil && !failing {
			a.env.Log.Error("state cannot be written; a restart would forget what fires", "directory", dir, "error", err)
		}
		failing = err != nil
		if ctx.Err() != nil {
			return
		}
	}
}

func (a *Agent) save(dir string) error {
	alerts, err := a.alerts.Snapshot()
	if err != nil {
		return err
	}
	s := stored{Saved: time.Now().UTC(), Alerts: alerts, Gates: map[string]pace.State{}}
	a.mu.Lock()
	for name, g := range a.gates {
		if state := g.State(); state.Failures > 0 || state.Position != pace.Closed {
			s.Gates[name] = state
		}
	}
	a.mu.Unlock()
	err = writeState(dir, &s)
	a.wroteState(stateFile, err)
	return err
}
