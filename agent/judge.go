package agent

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
)

// maxChanges is how many changes of a probe's surroundings are remembered.
const maxChanges = 8

// A court holds what is known of all probes and makes an event of each observation. It owns all state between the runs
// and the dispatcher of alerts, under one mutex.
type court struct {
	mu        sync.Mutex
	records   map[string]*record
	everybody *tally
	identity  map[string]*tally
	origin    map[string]*tally
	issuer    map[string]*tally
	clocks    map[string]*evidence.Clock // verdicts on the local clock, by probe
	peers     peerClocks
	issuers   map[string]*evidence.Issuer
	observers []Observer
	changes   []evidence.Change // of this host
	refusals  *refusals
}

func newCourt(observers []Observer) *court {
	return &court{records: map[string]*record{}, everybody: &tally{}, identity: map[string]*tally{}, origin: map[string]*tally{}, issuer: map[string]*tally{},
		clocks: map[string]*evidence.Clock{}, peers: peerClocks{}, issuers: map[string]*evidence.Issuer{}, observers: observers, refusals: newRefusals()}
}

// A record is what is known of one probe.
type record struct {
	last    *Event // nil: none yet
	asked   bool   // at least one run told something
	lastOK  time.Time
	failing time.Time
	inARow  int
	counted bool // in the tallies
	symptom evidence.Symptom
	kid     string
	leaf    string
	secrets map[string]time.Time // when a secret was last changed, by where it is kept; nil: not known
	changes []evidence.Change
}

// judge adds an observation to what is known, explains it, and lets the observers see the event.
func (a *Agent) judge(o Observation, gate pace.State, next time.Time) {
	c := a.court
	c.mu.Lock()
	defer c.mu.Unlock()
	ev := c.conclude(o, gate, next, a)
	if a.alerts != nil {
		a.tell(ev)
	}
	for _, observer := range c.observers {
		observer.Observe(ev)
	}
}

func (c *court) conclude(o Observation, gate pace.State, next time.Time, a *Agent) *Event {
	r := c.records[o.Probe]
	if r == nil {
		r = &record{}
		c.records[o.Probe] = r
	}
	ev := &Event{Observation: o, Gate: gate, Next: next}
	if id := a.identityOf(o.About.Identity); id != nil {
		ev.IdentityGate = id.Status().Gate
	}
	outcome := o.Outcome()
	issuer, now := cmp.Or(o.About.Issuer, o.Issuer), o.Started.Add(o.Took)
	if outcome != RunHeld {
		c.learn(r, &o)
		ev.Peers = c.peersOf(&o, issuer, now)
		c.judgeClocks(&o, issuer, ev.Peers, now)
		ev.Report = o.Report
	}
	switch outcome {
	case RunOK:
		r.lastOK, r.failing, r.inARow = o.Started.Add(o.Took), time.Time{}, 0
		c.count(r, &o, "")
	case RunFault:
		if r.failing.IsZero() {
			r.failing = o.Started
		}
		r.inARow++
		c.count(r, &o, o.Fault.Symptom)
	}
	ev.LastOK, ev.Failing, ev.InARow = r.lastOK, r.failing, r.inARow
	switch {
	case outcome == RunHeld:
		if r.asked {
			ev.Findings = r.last.Findings
		}
	case outcome == RunOK && quiet(&o.Report):
	default:
		ev.Findings = diagnose.Explain(c.caseOf(r, &o))
	}
	if outcome != RunHeld {
		ev.Report.Spikes = append(ev.Report.Spikes, c.refusals.weigh(&o, r.inARow)...)
	}
	ev.Changed = outcome != RunHeld && (!r.asked || r.last.Outcome() != outcome || first(r.last.Findings) != first(ev.Findings))
	if outcome != RunHeld || r.last == nil {
		r.last, r.asked = ev, outcome != RunHeld
	}
	return ev
}

// quiet says whether a good run brought home nothing that wants an explanation.
func quiet(r *evidence.Report) bool {
	if len(r.Notes) > 0 || len(r.Spikes) > 0 || (r.Issuer != nil && len(r.Issuer.Problems) > 0) {
		return false
	}
	if r.Chain != nil {
		for _, f := range r.Chain.Facets {
			if f.State == evidence.Fail || f.State == evidence.Warn {
				return false
			}
		}
	}
	return true
}

type causeAndCulprit struct {
	cause   diagnose.Cause
	culprit string
}

func first(findings []diagnose.Finding) causeAndCulprit {
	if len(findings) == 0 {
		return causeAndCulprit{}
	}
	return causeAndCulprit{findings[0].Cause, findings[0].Culprit}
}

// learn takes facts out of a report that matter to other probes, and notes what changed.
func (c *court) learn(r *record, o *Observation) {
	if o.Report.Clock != nil {
		c.clocks[o.Probe] = o.Report.Clock
	}
	c.peers.learn(o)
	if i := o.Report.Issuer; i != nil {
		c.issuers[i.URL] = i
		r.changes = remember(r.changes, i.Changes...)
	}
	if t := o.Report.Token; t != nil {
		if r.kid != "" && t.Kid != r.kid {
			r.changes = remember(r.changes, evidence.Change{What: "token_kid", From: r.kid, To: t.Kid, At: o.Started})
		}
		r.kid = t.Kid
	}
	if ch := o.Report.Chain; ch != nil && len(ch.Certificates) > 0 {
		leaf := ch.Certificates[0].Fingerprint
		if r.leaf != "" && leaf != r.leaf {
			r.changes = remember(r.changes, evidence.Change{What: "certificate", From: r.leaf, To: leaf, At: o.Started})
		}
		r.leaf = leaf
	}
	for i := range o.Report.Readings {
		if rd := &o.Report.Readings[i]; rd.Metric.Name == secretAge {
			r.learnSecret(rd, o.Started)
		}
	}
}

// secretAge is the reading that tells when a secret was last changed.
const secretAge = "secret_age_seconds"

// learnSecret notes that a secret was changed, by the age of its source, which is told to the moment of the run.
func (r *record) learnSecret(rd *evidence.Reading, now time.Time) {
	const slack = 2 * time.Second // between the reading of the age and the start of the run
	where := strings.Join(rd.Labels, " ")
	at := now.Add(-time.Duration(rd.Value * float64(time.Second)))
	if was, ok := r.secrets[where]; ok && at.Sub(was) > slack {
		r.changes = remember(r.changes, evidence.Change{What: "secret_file", At: at})
	}
	if r.secrets == nil {
		r.secrets = map[string]time.Time{}
	}
	r.secrets[where] = at
}

func remember(list []evidence.Change, more ...evidence.Change) []evidence.Change {
	list = append(list, more...)
	if len(list) > maxChanges {
		list = slices.Clone(list[len(list)-maxChanges:])
	}
	return list
}

func (c *court) caseOf(r *record, o *Observation) diagnose.Case {
	s := diagnose.Sighting{
		Probe: o.Probe, Kind: o.Kind, Endpoint: o.About.Endpoint, Origin: o.About.Origin, Identity: o.About.Identity,
		Scheme: o.Scheme, Issuer: cmp.Or(o.About.Issuer, o.Issuer), Report: o.Report, Fault: o.Fault,
		RequiredScopes: o.About.RequiredScopes, Audience: o.About.Audience, Leeway: o.About.Leeway, Expected: o.About.Expected, Environment: o.About.Environment,
		LastOK: r.lastOK, Failing: r.failing, InARow: r.inARow, Changes: r.changes,
	}
	if len(c.changes) > 0 {
		s.Changes = append(slices.Clone(c.changes), r.changes...)
	}
	now := o.Started.Add(o.Took)
	w := diagnose.World{Clock: c.bestClock(now), Peers: c.peersOf(o, s.Issuer, now), Everywhere: c.everybody.without(r, o)}
	w.SameIdentity = c.identity[o.About.Identity].without(r, o)
	w.SameOrigin = c.origin[o.About.Origin].without(r, o)
	w.SameIssuer = c.issuer[o.Issuer].without(r, o)
	w.IssuerKeys = c.issuers[o.Issuer]
	return diagnose.Case{Now: now, Sighting: s, World: w}
}

// A tally counts the last runs of the probes that have something in common.
type tally struct {
	ok, failing int
	symptoms    map[evidence.Symptom]int
	identities  map[string]int // of the failing
}

// count moves a probe in the tallies from how its run before ended to how this one did. Empty symptom: it succeeded.
func (c *court) count(r *record, o *Observation, symptom evidence.Symptom) {
	if r.counted && r.symptom == symptom {
		return
	}
	for _, t := range c.talliesOf(o) {
		if r.counted {
			t.add(r.symptom, o.About.Identity, -1)
		}
		t.add(symptom, o.About.Identity, 1)
	}
	r.counted, r.symptom = true, symptom
}

func (c *court) talliesOf(o *Observation) []*tally {
	list := []*tally{c.everybody}
	for _, by := range []struct {
		m   map[string]*tally
		key string
	}{{c.identity, o.About.Identity}, {c.origin, o.About.Origin}, {c.issuer, o.Issuer}} {
		if by.key == "" {
			continue
		}
		if by.m[by.key] == nil {
			by.m[by.key] = &tally{}
		}
		list = append(list, by.m[by.key])
	}
	return list
}

func (t *tally) add(symptom evidence.Symptom, identity string, n int) {
	if symptom == "" {
		t.ok += n
		return
	}
	t.failing += n
	if t.symptoms == nil {
		t.symptoms, t.identities = map[evidence.Symptom]int{}, map[string]int{}
	}
	if t.symptoms[symptom] += n; t.symptoms[symptom] <= 0 {
		delete(t.symptoms, symptom)
	}
	if t.identities[identity] += n; t.identities[identity] <= 0 {
		delete(t.identities, identity)
	}
}

// without is the tally of the others.
func (t *tally) without(r *record, o *Observation) diagnose.Tally {
	if t == nil {
		return diagnose.Tally{}
	}
	d := diagnose.Tally{OK: t.ok, Failing: t.failing, Identities: len(t.identities), Symptoms: make(map[evidence.Symptom]int, len(t.symptoms))}
	for symptom, n := range t.symptoms {
		d.Symptoms[symptom] = n
	}
	switch {
	case !r.counted:
	case r.symptom == "":
		d.OK--
	default:
		d.Failing--
		if d.Symptoms[r.symptom]--; d.Symptoms[r.symptom] == 0 {
			delete(d.Symptoms, r.symptom)
		}
		if t.identities[o.About.Identity] == 1 {
			d.Identities--
		}
	}
	return d
}

// forget drops a probe that is gone.
func (c *court) forget(probe string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.records[probe]
	if r == nil {
		return
	}
	if r.counted && r.last != nil {
		for _, t := range c.talliesOf(&r.last.Observation) {
			t.add(r.symptom, r.last.About.Identity, -1)
		}
	}
	delete(c.records, probe)
	delete(c.clocks, probe)
	for _, m := range []map[string]*tally{c.identity, c.origin, c.issuer} {
		for key, t := range m {
			if t.ok+t.failing == 0 {
				delete(m, key)
			}
		}
	}
	for _, observer := range c.observers {
		observer.Forget(probe)
	}
}

// again explains the last runs of the named probes anew, with what is known now.
func (c *court) again(names []string) []Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := make([]Event, 0, len(names))
	for _, name := range names {
		r := c.records[name]
		if r == nil || r.last == nil {
			continue
		}
		ev := *r.last
		issuer, now := cmp.Or(ev.About.Issuer, ev.Issuer), ev.Started.Add(ev.Took)
		ev.Peers = c.peersOf(&ev.Observation, issuer, now)
		c.judgeClocks(&ev.Observation, issuer, ev.Peers, now)
		if ev.Fault != nil || !quiet(&ev.Report) {
			ev.Findings = diagnose.Explain(c.caseOf(r, &ev.Observation))
		}
		events = append(events, ev)
	}
	return events
}
