package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/identity"
)

const (
	// stateFile holds what outlives a restart besides secrets: alerts that fire, and gates that are closed to requests.
	stateFile = "state.json"
	// saveEvery is how often it is written; a kill loses no more.
	saveEvery = 30 * time.Second
	// stateVersion is that of its form. A newer one is left alone.
	stateVersion = 1
	maxState     = 64 << 20
)

type stored struct {
	Version int                   `json:"version"`
	Saved   time.Time             `json:"saved"`
	Alerts  json.RawMessage       `json:"alerts,omitempty"`
	Gates   map[string]pace.State `json:"gates,omitempty"` // by name, see gateOf
}

// recall takes over what was stored before a restart. What cannot be read is set aside and said, and never keeps the agent
// from starting. The agent's mutex is held.
func (a *Agent) recall() {
	dir := a.world.config.Agent.StateDirectory
	if dir == "" || a.alerts == nil {
		return
	}
	path := filepath.Join(dir, stateFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var s stored
	if err == nil {
		err = s.read(b)
	}
	if err == nil && len(s.Alerts) > 0 {
		err = a.alerts.Restore(s.Alerts)
	}
	if err != nil {
		aside := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405")
		moved := os.Rename(path, aside)
		a.env.Log.Error("state cannot be used and was set aside; going on without it", "file", path, "error", err, "aside", aside, "moved", moved == nil)
		return
	}
	now := time.Now()
	for name, state := range s.Gates {
		g := pace.NewGate(pace.Policy{}, a.env.Jitter)
		g.Restore(state, now)
		a.gates[name] = g
	}
	a.court.mu.Lock()
	a.court.unasked = map[string]bool{}
	for name := range a.world.probes {
		a.court.unasked[name] = true
	}
	a.court.mu.Unlock()
}

func (s *stored) read(b []byte) error {
	if len(b) > maxState {
		return fmt.Errorf("is larger than %d MiB", maxState>>20)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return err
	}
	if s.Version != stateVersion {
		return fmt.Errorf("version %d is not %d", s.Version, stateVersion)
	}
	return nil
}

// remember writes the state every now and then, and at the end.
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
	s := stored{Version: stateVersion, Saved: time.Now().UTC(), Alerts: alerts, Gates: map[string]pace.State{}}
	a.mu.Lock()
	for name, g := range a.gates {
		if state := g.State(); state.Failures > 0 || state.Position != pace.Closed {
			s.Gates[name] = state
		}
	}
	a.mu.Unlock()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return identity.ReplaceFile(filepath.Join(dir, stateFile), "", b)
}
