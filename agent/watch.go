package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// A watch runs one probe, when its schedule and the gate of its endpoint allow it. Everything from here to the observers
// is one goroutine and plain calls.
type watch struct {
	*builtProbe
	agent *Agent
	gate  *pace.Gate
	who   identity.Identity // that the probe asks as; nil: nobody
	stop  context.CancelFunc
	done  chan struct{}
	began atomic.Pointer[time.Time] // start of the run that goes on; nil: none does
}

// loop runs the probe until ctx ends. Periods are counted on the monotonic clock from the first run, so that neither a
// slow run nor a wall clock that jumps shifts them, silences the probe or makes up for what was missed.
func (w *watch) loop(ctx context.Context) {
	defer close(w.done)
	defer w.end()
	plan := time.Now().Add(w.plan.spread(w.name))
	if w.plan.every == 0 {
		plan = w.plan.calendar.Next(time.Now())
	}
	for w.sleep(ctx, plan) {
		now := time.Now()
		late := now.Sub(plan)
		again, ok := w.gate.Admit(now)
		if !ok {
			plan = w.next(plan, now, again)
			w.agent.judge(w.held(now, again), w.gate.State(), plan)
			continue
		}
		o := w.once(ctx, max(late, 0))
		if ctx.Err() != nil {
			w.gate.Done(time.Now(), pace.Outcome{Ignore: true})
			return
		}
		now = time.Now()
		w.gate.Done(now, outcomeFor(&o))
		gate := w.gate.State()
		plan = w.next(plan, now, w.again(&o, gate))
		w.agent.judge(o, gate, plan)
	}
}

// end lets go of what the probe holds between its runs.
func (w *watch) end() {
	if err := probes.Close(w.probe); err != nil {
		w.agent.env.Log.Warn("probe not closed", "probe", w.name, "error", err)
	}
}

// again is the moment before which asking would be held.
func (w *watch) again(o *Observation, gate pace.State) time.Time {
	if w.who != nil && o.Fault != nil && o.Fault.Held() {
		if s := w.who.Status().Gate; s.Again.After(gate.Again) {
			return s.Again
		}
	}
	return gate.Again
}

// next is the first moment of the plan that lies after now and not before again.
func (w *watch) next(plan, now, again time.Time) time.Time {
	earliest := now
	if again.After(now) {
		earliest = again
	}
	if w.plan.every == 0 {
		return w.plan.calendar.Next(earliest)
	}
	plan = plan.Add(w.plan.every)
	if behind := earliest.Sub(plan); behind > 0 {
		plan = plan.Add((behind + w.plan.every - 1) / w.plan.every * w.plan.every)
	}
	return plan
}

// maxSleep is how long a wait for a moment of the calendar lasts before the wall clock is looked at again.
const maxSleep = time.Minute

// sleep waits for a moment and says whether to go on. A moment of the calendar is found anew when the wall clock jumped
// during the wait.
func (w *watch) sleep(ctx context.Context, until time.Time) bool {
	for {
		wait := time.Until(until)
		if w.plan.every == 0 {
			wait = min(wait, maxSleep)
		}
		timer := time.NewTimer(max(wait, 0))
		before := time.Now()
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
		if w.plan.every > 0 {
			return true
		}
		now := time.Now()
		if step := evidence.WallStep(before, now); step.Abs() > 2*time.Second {
			until = w.plan.calendar.Next(now)
			continue
		}
		if !now.Round(0).Before(until.Round(0)) {
			return true
		}
	}
}

// once runs the probe within its time, with a slot, and survives its panic.
func (w *watch) once(ctx context.Context, late time.Duration) (o Observation) {
	o = w.observation(late)
	due := o.Started
	select {
	case w.agent.slots <- struct{}{}:
		defer func() { <-w.agent.slots }()
	case <-ctx.Done():
		return o
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	o.Started = time.Now()
	began := o.Started
	w.began.Store(&began)
	defer w.began.Store(nil)
	if o.Late += began.Sub(due); o.Late > lateLimit {
		w.agent.condition.late.Store(&lateness{o.Late, began})
	}
	defer func() {
		o.Took = time.Since(o.Started)
		if cause := recover(); cause != nil {
			o.Fault = &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomPanic, Err: errors.New("authvigil has a defect: the probe panicked; the log has the stack")}
			w.agent.env.Log.Error("probe panicked", "probe", w.name, "kind", w.common.Kind, "panic", fmt.Sprint(cause), "stack", firstLines(debug.Stack(), 24))
			w.agent.panics.Add(1)
		}
	}()
	report, err := w.probe.Run(ctx)
	o.Report, o.Fault = report, evidence.AsFault(err)
	return o
}

func (w *watch) observation(late time.Duration) Observation {
	o := Observation{Probe: w.name, Kind: w.common.Kind, About: w.about, Labels: w.common.Labels, Severity: w.common.Severity, Late: late, Started: time.Now()}
	if w.who != nil {
		s := w.who.Status()
		o.Scheme, o.Issuer = s.Scheme, s.Issuer
	}
	return o
}

// held is the observation of a run that was due and did not take place.
func (w *watch) held(now, again time.Time) Observation {
	o := w.observation(0)
	o.Started = now
	o.Fault = &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomHeld, Code: "endpoint",
		Err: fmt.Errorf("the gate of the endpoint is closed for %s more, because it kept failing", again.Sub(now).Round(time.Second))}
	return o
}

// outcomeFor says what a run means for the gate of the endpoint. What was held or is our own distress means nothing, and
// neither does a credential's trouble at the token endpoint, which has a gate of its own.
func outcomeFor(o *Observation) pace.Outcome {
	out := pace.Outcome{OK: o.Fault == nil, Ignore: o.Fault != nil && (o.Fault.Own() || o.Fault.Held() || o.Fault.Symptom == evidence.SymptomSource)}
	if o.Fault != nil && o.Fault.Stage == evidence.StageToken {
		out.Ignore = true
	}
	if n := len(o.Report.Exchanges); n > 0 {
		out.RetryAfter = o.Report.Exchanges[n-1].RetryAfter
	}
	return out
}

func firstLines(text []byte, n int) string {
	lines := strings.SplitN(string(text), "\n", n+1)
	return strings.Join(lines[:min(len(lines), n)], "\n")
}
