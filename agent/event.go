package agent

import (
	"time"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// An Observation is what one run was and brought home.
type Observation struct {
	Probe    string
	Kind     string
	About    probes.About
	Scheme   string            // how the identity proves itself
	Issuer   string            // of the identity
	Labels   map[string]string // from the configuration
	Severity string            // from the configuration; empty: by cause
	Started  time.Time
	Took     time.Duration
	Late     time.Duration // start against plan
	Report   evidence.Report
	Fault    *evidence.Fault // nil: all is as expected
}

// GateName names the gate of the endpoint that the probe goes through.
func (o *Observation) GateName() string {
	if o.About.Identity == "" {
		return o.About.Endpoint
	}
	return o.About.Endpoint + " as " + o.About.Identity
}

// Outcome is what a run counts as.
type Outcome string

// The outcomes. Only ok and fault say something about what was probed.
const (
	RunOK      Outcome = "ok"
	RunFault   Outcome = "fault"
	RunHeld    Outcome = "held"    // a gate was closed; nothing was asked
	RunUnknown Outcome = "unknown" // own distress, or a clock or source that could not be read
)

// Outcomes lists all outcomes.
var Outcomes = []Outcome{RunOK, RunFault, RunHeld, RunUnknown}

// Outcome says what the run counts as.
func (o *Observation) Outcome() Outcome {
	switch {
	case o.Fault == nil:
		return RunOK
	case o.Fault.Held():
		return RunHeld
	case o.Fault.Own():
		return RunUnknown
	default:
		return RunFault
	}
}

// An Event is an observation with what is concluded from it. It is shared by all observers and must not be changed.
type Event struct {
	Observation
	Gate         pace.State // of the endpoint
	IdentityGate pace.State
	Findings     []diagnose.Finding // ranked; of a held run: those of the last run that asked
	LastOK       time.Time          // end of the last good run; zero: none yet
	Failing      time.Time          // start of the first run of the present failures; zero: not failing
	InARow       int                // failing runs in a row
	Next         time.Time          // when the next run is planned
	Changed      bool               // the outcome or the first finding is another than after the run before
	Peers        []evidence.Peer    // clocks of others, as known after this run
}

// An Observer sees every event. It keeps what it needs and returns: no I/O, no call back into the agent. It is called in
// order and never concurrently. The event is shared by all observers and must not be changed; it may be kept.
type Observer interface {
	Observe(*Event)
	// Forget tells that a probe is gone, so that its series vanish.
	Forget(probe string)
}
