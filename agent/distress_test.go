package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/probes/evidence"
)

type refusing struct{ err error }

func (r *refusing) Send(context.Context, []alert.Notice) error { return r.err }

func suffers(a *Agent) (list []string) {
	for _, d := range a.Health().Distress {
		list = append(list, d.What)
	}
	return list
}

// TestDistress_comesAndGoes: what authvigil itself suffers from is told while it lasts, and not longer.
func TestDistress_comesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := agentOf(10*time.Second, map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) { return answered(503) }}})
		sink := &refusing{errors.New("receiver is down")}
		a.alerts = alert.NewDispatcher(a.env.Log)
		a.alerts.SetSinks(map[string][]*alert.Receiver{"pager": {{Sink: sink}}})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(15 * time.Second)
		if got := suffers(a); len(got) != 0 {
			t.Errorf("at first: %v", got)
		}
		a.wroteState("refresh/x", errors.New("no space left on device"))
		a.wroteState("accesslog/y", nil) // did not change, and was not written
		a.stepped(-time.Hour, time.Now())
		time.Sleep(3 * time.Minute)
		if got := strings.Join(suffers(a), " "); got != "sink state clock" {
			t.Errorf("in trouble: %v", got)
		}
		for _, d := range a.Health().Distress {
			if d.What == "state" && !strings.Contains(d.Text, "no space left") || d.What == "sink" && !strings.Contains(d.Text, "pager") || d.What == "clock" && !strings.Contains(d.Text, "-1h0m0s") {
				t.Errorf("%s: %s", d.What, d.Text)
			}
		}
		a.wroteState("refresh/x", nil)
		sink.err = nil
		time.Sleep(10 * time.Minute)
		if got := suffers(a); len(got) != 0 {
			t.Errorf("when all is well again: %v", got)
		}
		stop()
		<-done
	})
}

// TestDistress_late: runs that wait for a place because others take theirs are late, and said to be.
func TestDistress_late(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) (evidence.Report, error) {
			time.Sleep(8 * time.Second)
			return answered(200)
		}
		a := agentOf(30*time.Second, map[string]*fake{"a": {run: slow}, "b": {run: slow}, "c": {run: slow}, "d": {run: slow}})
		a.slots = make(chan struct{}, 1)
		runFor(t, a, 3*time.Minute)
		if got := suffers(a); len(got) != 1 || got[0] != "late" {
			t.Errorf("got %v", got)
		}
	})
}

// TestProgresses: a line that does not move is noticed; servers that hang are not taken for it.
func TestProgresses(t *testing.T) {
	hangs := func(ctx context.Context) (evidence.Report, error) { <-ctx.Done(); return evidence.Report{}, ctx.Err() }
	for _, c := range []struct {
		name   string
		places int
		lock   bool
		want   bool
	}{
		{"one defect and a server that hangs", 4, false, true},
		{"every place is taken by a run that does not end", 1, false, false},
		{"the court is locked", 4, true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			a := agentOf(10*time.Second, map[string]*fake{"broken": {run: func(context.Context) (evidence.Report, error) { <-release; return evidence.Report{}, nil }}, "hangs": {run: hangs}})
			if a.slots = make(chan struct{}, c.places); c.places == 1 {
				delete(a.world.probes, "hangs")
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			time.Sleep(10 * time.Minute)
			if got := suffers(a); !slices.Contains(got, "stuck") {
				t.Errorf("%s: a run that does not end is not told: %v", c.name, got)
			}
			if c.lock {
				a.court.mu.Lock()
			}
			if got := a.Progresses(); got != c.want {
				t.Errorf("%s: progresses: %v", c.name, got)
			}
			if c.lock {
				a.court.mu.Unlock()
				if !a.Progresses() {
					t.Errorf("%s: it does not recover", c.name)
				}
			}
			close(release)
			stop()
			<-done
		})
	}
}
