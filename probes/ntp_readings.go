package probes

import (
	"github.com/authvigil/authvigil/probes/evidence"
)

var (
	clockSkew         = &evidence.Metric{Name: "clock_skew_seconds", Help: "Local clock minus reference; positive: we are ahead. The opposite of NTP's offset. Reference: consensus of the time servers, chrony or kernel of this machine, peers (the servers that are watched, only where nothing better is to be had).", Labels: []string{"reference"}}
	clockBound        = &evidence.Metric{Name: "clock_skew_bound_seconds", Help: "Half-width of the interval around clock_skew_seconds that holds the true skew.", Labels: []string{"reference"}}
	clockConfidence   = &evidence.Metric{Name: "clock_confidence", Help: "How far the verdict on the local clock can be relied on: 1 for the level it has. Confident: three sources or more agree; low: two; unverified: one; none: no verdict.", Labels: []string{"level"}}
	clockSourceSkew   = &evidence.Metric{Name: "clock_source_skew_seconds", Help: "Local clock minus the clock of one NTP server; positive: we are ahead.", Labels: []string{"source"}}
	clockSourceBound  = &evidence.Metric{Name: "clock_source_bound_seconds", Help: "Half-width of the interval around clock_source_skew_seconds.", Labels: []string{"source"}}
	clockSourceRTT    = &evidence.Metric{Name: "clock_source_round_trip_seconds", Help: "Shortest round trip to an NTP server in the last burst.", Labels: []string{"source"}}
	clockSourceRoot   = &evidence.Metric{Name: "clock_source_root_distance_seconds", Help: "Distance of an NTP server to its own reference, with the way to it; above 1.5 s it is not used.", Labels: []string{"source"}}
	clockSourceLayer  = &evidence.Metric{Name: "clock_source_stratum", Help: "Stratum of an NTP server.", Labels: []string{"source"}}
	clockSourceState  = &evidence.Metric{Name: "clock_source_state", Help: "State of an NTP server, or of chrony and kernel of this machine, as a source: 1 for the state it is in.", Labels: []string{"source", "state"}}
	clockSourceGood   = &evidence.Metric{Name: "clock_source_last_success_timestamp_seconds", Help: "When an NTP server last gave a usable answer, by the local clock; absent before the first.", Labels: []string{"source"}}
	clockKisses       = &evidence.Metric{Name: "clock_kiss_total", Help: "Kiss-o'-death packets of an NTP server by code.", Counter: true, Labels: []string{"source", "code"}}
	clockKernelInSync = &evidence.Metric{Name: "clock_kernel_synchronized", Help: "1: the kernel holds that its clock is disciplined (adjtimex; chrony tells it only with rtcsync); absent: it may not be asked."}
	clockKernelMax    = &evidence.Metric{Name: "clock_kernel_max_error_seconds", Help: "How far off its clock is at most, as the kernel reckons (adjtimex)."}
)

var sourceStates = []string{"truechimer", "falseticker", "unreachable", "invalid", "kissed", "suspended"}

var confidences = []evidence.Confidence{evidence.Confident, evidence.LowConfident, evidence.Unverified, evidence.NoConfidence}

// readings are the numbers of a run. A source that gave no usable answer has a state and no number.
func (p *ntpProbe) readings(c *evidence.Clock, asked []burst) (list []evidence.Reading) {
	add := func(m *evidence.Metric, v float64, labels ...string) {
		list = append(list, evidence.Reading{Metric: m, Labels: labels, Value: v})
	}
	if c.Reference == "consensus" || c.Reference == "peers" {
		add(clockSkew, c.Skew.Seconds(), c.Reference)
		add(clockBound, c.Bound.Seconds(), c.Reference)
	}
	for _, level := range confidences {
		add(clockConfidence, truth(c.Confidence == level), string(level))
	}
	for i, s := range c.Sources {
		if !s.Measured.IsZero() {
			add(clockSourceSkew, s.Skew.Seconds(), s.Name)
			add(clockSourceBound, s.Bound.Seconds(), s.Name)
		}
		if s.Stratum > 0 {
			add(clockSourceRTT, s.RTT.Seconds(), s.Name)
			add(clockSourceRoot, s.RootDistance.Seconds(), s.Name)
			add(clockSourceLayer, float64(s.Stratum), s.Name)
		}
		if good := asked[i].good; !good.IsZero() {
			add(clockSourceGood, float64(good.UnixMilli())/1e3, s.Name)
		}
		for _, code := range kissCodes {
			n := 0
			for _, k := range asked[i].kisses {
				if k == code {
					n++
				}
			}
			add(clockKisses, float64(n), s.Name, code)
		}
	}
	for _, s := range c.Own {
		if !s.Measured.IsZero() {
			add(clockSkew, s.Skew.Seconds(), s.Name)
			add(clockBound, s.Bound.Seconds(), s.Name)
		}
		if s.Name == "kernel" && s.State != "unreachable" {
			add(clockKernelInSync, truth(s.Code != "unsynchronised"))
			add(clockKernelMax, s.RootDistance.Seconds())
		}
	}
	for _, list := range [][]evidence.ClockSource{c.Sources, c.Own} {
		for _, s := range list {
			for _, state := range sourceStates {
				add(clockSourceState, truth(s.State == state), s.Name, state)
			}
		}
	}
	return list
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
