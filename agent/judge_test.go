package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestCourt_learnsWhatChanged: what is another than in the run before is remembered, whichever of the five it is, and nothing is noted
// at the first sight of a thing.
func TestCourt_learnsWhatChanged(t *testing.T) {
	age := &evidence.Metric{Name: secretAge, Labels: []string{"identity", "origin"}}
	run := func(kid, leaf string, secretAge time.Duration, at time.Time, issuer ...evidence.Change) *Observation {
		o := &Observation{Started: at}
		o.Report.Token = &evidence.Token{Kid: kid}
		o.Report.Chain = &evidence.Chain{Certificates: []evidence.Certificate{{Fingerprint: leaf}}}
		o.Report.Readings = []evidence.Reading{{Metric: age, Labels: []string{"file"}, Value: secretAge.Seconds()}}
		o.Report.Issuer = &evidence.Issuer{URL: "https://auth.example.test", Changes: issuer}
		return o
	}
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	c, r := newCourt(nil), &record{}
	c.learn(r, run("k1", "aa", time.Hour, noon))
	c.learn(r, run("k1", "aa", time.Hour+30*time.Second, noon.Add(30*time.Second)))
	if len(r.changes) != 0 {
		t.Fatalf("nothing changed, and noted is %v", r.changes)
	}
	later := noon.Add(time.Minute)
	c.learn(r, run("k2", "bb", 10*time.Second, later, evidence.Change{What: "issuer_metadata", At: later}, evidence.Change{What: "jwks", At: later}))
	for _, want := range []string{"token_kid", "certificate", "secret_file", "issuer_metadata", "jwks"} {
		if !slices.ContainsFunc(r.changes, func(got evidence.Change) bool { return got.What == want }) {
			t.Errorf("%s is not among the changes %v", want, r.changes)
		}
	}
	i := slices.IndexFunc(r.changes, func(got evidence.Change) bool { return got.What == "secret_file" })
	if i >= 0 && !r.changes[i].At.Equal(later.Add(-10*time.Second)) {
		t.Errorf("the secret was changed at %s, noted is %s", later.Add(-10*time.Second), r.changes[i].At)
	}
}
