package spike

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// An outcome is how the detector did on one labelled event.
type outcome struct {
	label
	found bool // an alert began in time, a page where a page is expected
	any   bool
	paged bool
	named bool // the culprit is in the alerts
	delay float64
}

// A tally is how it did on one trace, or on several.
type tally struct {
	events []outcome
	pages  []string // false ones
	weeks  float64
}

// feed runs lines through a detector and returns the alerts that began.
func feed(d *Detector, lines []line, identities bool) []Alert {
	var began []Alert
	for _, l := range lines {
		r := Request{At: time.UnixMilli(int64(l.at * 1000)), Status: l.status, Endpoint: []byte(l.endpoint)}
		if identities {
			r.Client = []byte(l.client)
		}
		d.Add(r)
		if d.Changed() {
			for _, a := range d.Changes() {
				if a.Ended.IsZero() {
					began = append(began, a)
				}
			}
		}
	}
	return began
}

// score compares alerts with labels. An event is found when an alert begins between its onset and five minutes after its end;
// a page beyond half an hour after any event is a false one, and those closer than a quarter of an hour are one.
func score(w world, labels []label, alerts []Alert) tally {
	start := genesis + w.train*86400
	t := tally{weeks: (w.days - w.train) / 7}
	alerts = slices.DeleteFunc(slices.Clone(alerts), func(a Alert) bool { return float64(a.Started.Unix()) < start })
	for _, e := range labels {
		o := outcome{label: e, delay: -1}
		var text strings.Builder
		for _, a := range alerts {
			at := float64(a.Started.Unix())
			if at < e.onset-1 || at > e.end+300 {
				continue
			}
			page := a.Severity == Critical
			o.any, o.paged = true, o.paged || page
			fmt.Fprintln(&text, a.Endpoint, a.Client, a.Endpoints, a.Clients)
			if (page || e.class != "page") && !o.found {
				o.found, o.delay = true, at-e.onset
			}
		}
		o.named = true
		for _, want := range append(slices.Clone(e.endpoints), e.clients...) {
			o.named = o.named && strings.Contains(text.String(), want)
		}
		t.events = append(t.events, o)
	}
	last := 0.0
	for _, a := range alerts {
		at := float64(a.Started.Unix())
		expected := slices.ContainsFunc(labels, func(e label) bool { return e.class != "silent" && at >= e.onset-60 && at <= e.end+1800 })
		if a.Severity != Critical || expected {
			continue
		}
		if at-last > 900 {
			t.pages = append(t.pages, fmt.Sprintf("%s at %s %s: %s", w.name, a.Started.Format(time.DateTime), a.Endpoint, a.Description))
		}
		last = at
	}
	return t
}

// figures are what the package promises.
type figures struct {
	recall     float64 // of events with at least ten 401s too many, bursts of a minute left out
	delay      float64 // median of those found, in seconds
	falsePages float64 // a week
	attacks    float64 // share of attacks that paged
	named      float64 // share of those alerted whose culprit was named
	kinds      map[string][2]int
}

func (t tally) figures() figures {
	var big, found, attacks, paged, named, toName float64
	var delays []float64
	f := figures{kinds: map[string][2]int{}}
	for _, o := range t.events {
		if o.class == "page" && o.excess >= 10 && o.kind != "burst60" {
			big++
			if o.found {
				found++
				delays = append(delays, o.delay)
			}
		}
		if o.class == "ticket" {
			attacks++
			if o.paged {
				paged++
			}
		}
		if len(o.endpoints)+len(o.clients) > 0 && o.any {
			toName++
			if o.named {
				named++
			}
		}
		k := f.kinds[o.kind]
		k[1]++
		if o.found {
			k[0]++
		}
		f.kinds[o.kind] = k
	}
	slices.Sort(delays)
	f.recall, f.falsePages, f.attacks, f.named = found/big, float64(len(t.pages))/t.weeks, paged/max(attacks, 1), named/max(toName, 1)
	if len(delays) > 0 {
		f.delay = delays[len(delays)/2]
	}
	return f
}

func (f figures) String() string {
	s := fmt.Sprintf("recall %.2f, median delay %.0f s, %.2f false pages a week, %.3f of attacks paged, %.2f named;", f.recall, f.delay, f.falsePages, f.attacks, f.named)
	for _, k := range slices.SortedFunc(maps.Keys(f.kinds), cmp.Compare) {
		s += fmt.Sprintf(" %s %d/%d", k, f.kinds[k][0], f.kinds[k][1])
	}
	return s
}

func suite(seeds []uint64, identities bool) tally {
	var sum tally
	for _, seed := range seeds {
		for _, w := range worlds(seed) {
			lines, labels := w.make()
			one := score(w, labels, feed(New(Policy{Seed: seed}), lines, identities))
			sum.events = append(sum.events, one.events...)
			sum.pages = append(sum.pages, one.pages...)
			sum.weeks += one.weeks
		}
	}
	return sum
}

// TestScore_knownGoodClients holds the detector to its promise on seeds that played no part in choosing its constants.
func TestScore_knownGoodClients(t *testing.T) {
	sum := suite([]uint64{101, 102}, true)
	f := sum.figures()
	t.Log(f)
	for _, p := range sum.pages {
		t.Log("false page:", p)
	}
	if f.recall < 0.85 || f.delay > 400 || f.falsePages > 0.3 || f.attacks > 0.05 || f.named < 0.95 {
		t.Errorf("got %v; want recall >= 0.85, median delay <= 400 s, false pages <= 0.3 a week, attacks paged <= 0.05, named >= 0.95", f)
	}
}

// TestScore_countersOnly holds the weaker test to a weaker promise: without identities attacks look like outages.
func TestScore_countersOnly(t *testing.T) {
	sum := suite([]uint64{101, 102}, false)
	f := sum.figures()
	t.Log(f)
	for _, p := range sum.pages {
		t.Log("false page:", p)
	}
	if f.recall < 0.65 || f.falsePages > 1.5 {
		t.Errorf("got %v; want recall >= 0.65, false pages <= 1.5 a week", f)
	}
}
