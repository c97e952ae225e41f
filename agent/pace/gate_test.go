package pace

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func half() float64 { return 0.5 }

func TestGate_opensAfterThreeFailuresAndAdmitsOne(t *testing.T) {
	g := NewGate(Policy{}, half)
	now := t0
	for i := range 3 {
		again, ok := g.Admit(now)
		if !ok {
			now = again
			if _, ok = g.Admit(now); !ok {
				t.Fatalf("failure %d: not admitted at the moment that was named", i)
			}
		}
		g.Done(now, Outcome{})
	}
	if s := g.State(); s.Position != Open || s.Trips != 1 {
		t.Fatalf("after three failures: got %+v, want open", s)
	}
	again, ok := g.Admit(now)
	if ok || again.Sub(now) < 15*time.Second || again.Sub(now) > 30*time.Second {
		t.Fatalf("open gate: admitted %v, again in %s", ok, again.Sub(now))
	}
	now = again
	if _, ok := g.Admit(now); !ok {
		t.Fatal("half-open gate admits nobody")
	}
	if _, ok := g.Admit(now); ok {
		t.Fatal("half-open gate admits a second")
	}
	g.Done(now, Outcome{OK: true})
	if _, ok := g.Admit(now); !ok || g.State().Position != Closed {
		t.Errorf("after a good trial: %+v", g.State())
	}
}

func TestGate_obeysRetryAfterAndForgetsLostTrials(t *testing.T) {
	g := NewGate(Policy{}, half)
	g.Admit(t0)
	g.Done(t0, Outcome{RetryAfter: 10 * time.Minute})
	if again, ok := g.Admit(t0.Add(9 * time.Minute)); ok || !again.Equal(t0.Add(10*time.Minute)) {
		t.Errorf("Retry-After of 10 min: admitted %v, again %s", ok, again.Sub(t0))
	}
	g = NewGate(Policy{Failures: 1}, half)
	g.Admit(t0)
	g.Done(t0, Outcome{})
	at, _ := g.Admit(t0)
	if _, ok := g.Admit(at); !ok {
		t.Fatal("no trial")
	}
	if _, ok := g.Admit(at.Add(time.Minute)); ok {
		t.Error("a second trial while the first may still end")
	}
	if _, ok := g.Admit(at.Add(3 * time.Minute)); !ok {
		t.Error("a trial that never ended keeps the gate closed for ever")
	}
}

func TestGate_restoreCutsAnOpeningFromAWrongClock(t *testing.T) {
	g := NewGate(Policy{}, half)
	g.Restore(State{Position: Open, Again: t0.Add(40 * 24 * time.Hour)}, t0)
	if again, ok := g.Admit(t0); ok || again.Sub(t0) > 5*time.Minute {
		t.Errorf("admitted %v, again in %s", ok, again.Sub(t0))
	}
}

// TestGate_properties: whatever happens, a half-open gate never has two trials at once, what is not admitted names a later
// moment, and the gate never stays closed longer than a day.
func TestGate_properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := NewGate(Policy{}, func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "jitter") })
		now, trial := t0, false
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "wait")))
			again, ok := g.Admit(now)
			if !ok {
				if !again.After(now) || again.Sub(now) > 24*time.Hour+time.Second {
					t.Fatalf("not admitted, again in %s", again.Sub(now))
				}
				continue
			}
			if g.State().Position == HalfOpen {
				if trial {
					t.Fatal("two trials at once")
				}
				trial = true
				if _, second := g.Admit(now); second {
					t.Fatal("two trials at once")
				}
			}
			g.Done(now, Outcome{OK: rapid.Bool().Draw(t, "ok"), Ignore: rapid.Bool().Draw(t, "ignore"), RetryAfter: time.Duration(rapid.Int64Range(-int64(time.Hour), int64(72*time.Hour)).Draw(t, "after"))})
			trial = false
		}
	})
}
