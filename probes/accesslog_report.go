package probes

import (
	"maps"
	"slices"
	"strconv"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/evidence"
)

var (
	logLines    = &evidence.Metric{Name: "log_lines_total", Help: "Lines of access logs by outcome: request; ignored, a comment or a request without an answer; bad, not understood.", Counter: true, Labels: []string{"probe", "outcome"}}
	logBehind   = &evidence.Metric{Name: "log_behind_bytes", Help: "Bytes of the log that are not read yet.", Labels: []string{"probe"}}
	logNewest   = &evidence.Metric{Name: "log_newest_line_timestamp_seconds", Help: "Time of the newest line, by the clock of the log.", Labels: []string{"probe"}}
	logClients  = &evidence.Metric{Name: "log_trails", Help: "Pairs of client and endpoint that the detector of spikes remembers.", Labels: []string{"probe"}}
	refusedLog  = &evidence.Metric{Name: "refused_total", Help: "Answers that refused, 401 or 403, by where they were seen.", Counter: true, Labels: []string{"source", "endpoint", "code"}}
	spikeActive = &evidence.Metric{Name: "spike_active", Help: "1: refusals of clients that had success before are unusual at the endpoint; * is all endpoints.", Labels: []string{"endpoint"}}
	spikeRatio  = &evidence.Metric{Name: "spike_ratio", Help: "Share of the requests of clients that had success before which was refused in the last minutes.", Labels: []string{"endpoint"}}
)

// report tells what happened since the last report, and what holds.
func (p *accesslogProbe) report() evidence.Report {
	c := &p.feed.Counts
	r := evidence.Report{Answers: map[int]int{}}
	for status := range c.Status {
		if n := c.Status[status] - p.before.Status[status]; n > 0 {
			r.Answers[status] = n
		}
	}
	one := func(m *evidence.Metric, v float64, labels ...string) {
		r.Readings = append(r.Readings, evidence.Reading{Metric: m, Labels: labels, Value: v})
	}
	one(logLines, float64(c.Requests-p.before.Requests), "request")
	one(logLines, float64(c.Ignored-p.before.Ignored), "ignored")
	one(logLines, float64(c.Bad-p.before.Bad), "bad")
	if !p.newest.IsZero() {
		one(logNewest, float64(p.newest.UnixMilli())/1000)
	}
	behind := int64(0)
	for _, f := range p.files {
		behind += f.behind()
	}
	if !p.isStream() {
		one(logBehind, float64(behind))
	}
	one(logClients, float64(p.feed.detector.Stats().Clients))
	r.Readings = append(r.Readings, p.feed.refusals()...)
	r.Readings = append(r.Readings, levels(p.feed.detector)...)
	r.Spikes = spikes(p.feed.detector)
	p.before = *c
	return r
}

// refusals hands out what was refused since the last call.
func (f *LogFeed) refusals() (list []evidence.Reading) {
	for _, endpoint := range slices.Sorted(maps.Keys(f.refused)) {
		n := f.refused[endpoint]
		for i, code := range []int{401, 403} {
			if n[i] > 0 {
				list = append(list, evidence.Reading{Metric: refusedLog, Labels: []string{"log", endpoint, strconv.Itoa(code)}, Value: float64(n[i])})
				n[i] = 0
			}
		}
	}
	return list
}

// mostLevels is how many endpoints have gauges of their own.
const mostLevels = 64

// levels shows how endpoints stand: all together, those with an alert, and then the others.
func levels(d *spike.Detector) (list []evidence.Reading) {
	all := d.Levels()
	slices.SortStableFunc(all[1:], func(a, b spike.Level) int {
		switch {
		case a.Active == b.Active:
			return 0
		case a.Active:
			return -1
		}
		return 1
	})
	for _, l := range all[:min(len(all), mostLevels)] {
		active := 0.0
		if l.Active {
			active = 1
		}
		list = append(list,
			evidence.Reading{Metric: spikeActive, Labels: []string{l.Endpoint}, Value: active},
			evidence.Reading{Metric: spikeRatio, Labels: []string{l.Endpoint}, Value: l.Ratio})
	}
	return list
}

// spikes tells which alerts hold, and which ended since the last call.
func spikes(d *spike.Detector) (list []evidence.Spike) {
	for _, a := range d.Changes() {
		if !a.Ended.IsZero() {
			list = append(list, spikeOf(a))
		}
	}
	for _, a := range d.Active() {
		list = append(list, spikeOf(a))
	}
	return list
}

func spikeOf(a spike.Alert) evidence.Spike {
	const text = 512 // bytes that what comes from a log may have
	return evidence.Spike{Name: a.Name, Endpoint: a.Endpoint, Client: evidence.Clean(a.Client, text), Severity: a.Severity, Active: a.Ended.IsZero(), Started: a.Started, Onset: a.Onset, Ended: a.Ended,
		Pattern: a.Pattern, Clients: evidence.Clean(a.Clients, text), Refused: a.Refused, Requests: a.Requests, Baseline: a.Baseline, Description: evidence.Clean(a.Description, text)}
}
