package agent

import (
	"context"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/evidence"
)

// refusals weighs the 401s that probes themselves get, with the detector that weighs those of users. What is refused all the time
// has an alert by its cause. This finds what comes and goes, a twentieth of all requests, say, which no single run shows. The
// court's mutex guards it.
type refusals struct {
	detector *spike.Detector
	active   map[string]spike.Alert // by endpoint
}

const (
	refusalsKey   = "spike/probes"
	refusalsEvery = 5 * time.Minute // what was learnt is saved
	lastingRun    = 3               // refusals in a row that have an alert by their cause
)

// refusalsPolicy is small: the clients are the identities of the configuration.
var refusalsPolicy = spike.Policy{Trails: 1 << 15}

func newRefusals() *refusals {
	return &refusals{detector: spike.New(refusalsPolicy), active: map[string]spike.Alert{}}
}

// weigh adds the answers of a run and gives the rises of refusals that concern its endpoint. They are warnings: whom to wake is
// decided by causes.
func (r *refusals) weigh(o *Observation, inARow int) []evidence.Spike {
	if o.About.Identity == "" || o.About.Expected == "deny" {
		return nil
	}
	for i := range o.Report.Exchanges {
		x := &o.Report.Exchanges[i]
		if x.Stage == evidence.StageAPI && !x.Recalled && (x.Purpose == evidence.First || x.Purpose == evidence.WithFreshGrant) {
			r.detector.Add(spike.Request{At: o.Started, Status: x.Status, Endpoint: []byte(o.About.Endpoint), Client: []byte(o.About.Identity)})
		}
	}
	r.detector.Advance(o.Started.Add(o.Took))
	for _, a := range r.detector.Changes() {
		switch {
		case a.Name != spike.AuthFailureSpike || a.Severity != spike.Warning:
		case a.Ended.IsZero():
			r.active[a.Endpoint] = a
		default:
			delete(r.active, a.Endpoint)
		}
	}
	if inARow >= lastingRun {
		return nil
	}
	var list []evidence.Spike
	for _, endpoint := range []string{o.About.Endpoint, spike.All} {
		if a, ok := r.active[endpoint]; ok {
			list = append(list, evidence.Spike{Name: a.Name, Endpoint: a.Endpoint, Severity: a.Severity, Active: true, Started: a.Started, Onset: a.Onset, Pattern: a.Pattern,
				Clients: a.Clients, Refused: a.Refused, Requests: a.Requests, Baseline: a.Baseline, Description: a.Description})
		}
	}
	return list
}

// keepRefusals carries over restarts what is usual.
func (a *Agent) keepRefusals(ctx context.Context) {
	tick := time.NewTicker(refusalsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		a.court.mu.Lock()
		state, err := a.court.refusals.detector.Save()
		a.court.mu.Unlock()
		if err == nil {
			err = a.env.Store.Save(refusalsKey, state)
		}
		if err != nil {
			a.env.Log.Warn("usual share of refusals not saved: it has to be learnt again after a restart", "error", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// recallRefusals takes over what was usual before a restart.
func (a *Agent) recallRefusals() {
	state, err := a.env.Store.Load(refusalsKey)
	if err != nil || len(state) == 0 {
		return
	}
	d, err := spike.Restore(refusalsPolicy, state)
	if err != nil {
		a.env.Log.Warn("usual share of refusals has to be learnt again", "error", err)
	}
	a.court.mu.Lock()
	defer a.court.mu.Unlock()
	a.court.refusals.detector = d
	for _, alert := range d.Active() {
		if alert.Name == spike.AuthFailureSpike && alert.Severity == spike.Warning {
			a.court.refusals.active[alert.Endpoint] = alert
		}
	}
}
