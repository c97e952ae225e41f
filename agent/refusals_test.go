package agent

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// TestRefusals_comingAndGoingIsAWarning: a server that refuses every fourth request for an hour fails no probe for long, and
// each run asks again with success; the detector that watches real traffic tells of it.
func TestRefusals_comingAndGoingIsAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, n := time.Now(), 0
		sick := func() bool { d := time.Since(begin); return d > 10*time.Hour && d < 11*time.Hour }
		list := map[string]*fake{"a": {about: probes.About{Endpoint: "api.example.test/", Identity: "one"}, run: func(context.Context) (evidence.Report, error) {
			n++
			if sick() && n%4 == 0 {
				return answered(401)
			}
			return answered(200)
		}}}
		a := agentOf(30*time.Second, list)
		a.env.Store = &shelf{}
		m := &mailbox{}
		withSink(a, m)
		runFor(t, a, 13*time.Hour)
		var spikes []string
		for _, one := range m.got {
			if one.Name == "AuthFailureSpike" {
				spikes = append(spikes, string(one.Severity))
				if after := one.StartsAt.Sub(begin) - 10*time.Hour; after < 0 || after > 20*time.Minute {
					t.Errorf("told %v after it began", after)
				}
			}
		}
		if len(spikes) == 0 || strings.Contains(strings.Join(spikes, " "), "critical") {
			t.Fatalf("got %v of %d alerts, want warnings", spikes, len(m.got))
		}
		if !m.got[len(m.got)-1].Resolved {
			t.Error("it is not over")
		}

		// The next process knows what is usual: its eight hours of learning are behind it.
		b := agentOf(30*time.Second, list)
		b.env.Store = a.env.Store
		b.recallRefusals()
		if e := b.court.refusals.detector.Stats().Endpoints; e != 1 {
			t.Errorf("%d endpoints after a restart, want 1", e)
		}
	})
}

// A shelf is a store in memory.
type shelf struct{ values map[string][]byte }

func (s *shelf) Load(key string) ([]byte, error) { return s.values[key], nil }

func (s *shelf) Save(key string, value []byte) error {
	s.values = map[string][]byte{key: value}
	return nil
}
