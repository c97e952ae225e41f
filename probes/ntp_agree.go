package probes

import (
	"cmp"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// Agree finds the skew that a strict majority of the usable sources allows, by intersection of their intervals (the idea
// of RFC 5905 section 11.2.1), and marks the others as falsetickers.
func Agree(sources []evidence.ClockSource) evidence.Clock {
	clock := evidence.Clock{Sources: sources, Confidence: evidence.NoConfidence}
	usable := 0
	for _, s := range sources {
		if s.State == "truechimer" {
			usable++
		}
	}
	low, high, best := intersect(sources)
	if 2*best <= usable {
		for i := range sources {
			if sources[i].State == "truechimer" {
				sources[i].State, sources[i].Code, sources[i].Detail = "falseticker", "no_majority", "is contradicted, and no majority agrees with it"
			}
		}
		return clock
	}
	for i, s := range sources {
		if s.State == "truechimer" && apart(s, low, high) {
			sources[i].State, sources[i].Code, sources[i].Detail = "falseticker", "contradicted", "is contradicted by the majority"
		}
	}
	clock.Skew, clock.Bound, clock.Reference = (low+high)/2, (high-low)/2, "consensus"
	switch {
	case best >= 3:
		clock.Confidence = evidence.Confident
	case best == 2:
		clock.Confidence = evidence.LowConfident
	default:
		clock.Confidence = evidence.Unverified
	}
	return clock
}

// intersect finds the interval that lies in as many of the sources' intervals as possible, and in how many.
func intersect(sources []evidence.ClockSource) (low, high time.Duration, best int) {
	type edge struct {
		at   time.Duration
		open int
	}
	var edges []edge
	for _, s := range sources {
		if s.State == "truechimer" {
			edges = append(edges, edge{s.Skew - s.Bound, 1}, edge{s.Skew + s.Bound, -1})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.open, a.open)) })
	depth := 0
	for i, e := range edges {
		depth += e.open
		if e.open > 0 && depth > best {
			best, low, high = depth, e.at, edges[i+1].at
		}
	}
	return low, high, best
}

// apart says whether a source's interval does not meet another.
func apart(s evidence.ClockSource, low, high time.Duration) bool {
	return s.Skew-s.Bound > high || s.Skew+s.Bound < low
}

// hearOthers compares the verdict of the time servers with what this machine says of its own clock, or, where there is no
// verdict, takes the best word there is: chronyd's, the kernel's, or that of the servers that are watched anyway.
func (p *ntpProbe) hearOthers(c *evidence.Clock) {
	if c.Reference == "consensus" {
		agrees := false
		for i, s := range c.Own {
			switch {
			case s.State != "truechimer":
			case apart(s, c.Skew-c.Bound, c.Skew+c.Bound):
				c.Own[i].State, c.Own[i].Code, c.Own[i].Detail = "falseticker", "contradicted", "is contradicted by the time servers"
				c.Confidence = lower(c.Confidence)
			case s.Name == "chrony":
				agrees = true
			}
		}
		if agrees && c.Confidence == evidence.Unverified {
			c.Confidence = evidence.LowConfident
		}
		return
	}
	for _, s := range c.Own {
		if s.State == "truechimer" {
			c.Skew, c.Bound, c.Reference, c.Confidence = s.Skew, s.Bound, s.Name, evidence.Unverified
			return
		}
	}
	p.hearPeers(c)
}

// hearPeers takes what the clocks of the servers that are watched agree upon. None of them is a reference, and it takes
// three of different names for their word to be worth something.
func (p *ntpProbe) hearPeers(c *evidence.Clock) {
	if p.env.Peers == nil {
		return
	}
	byName := map[string]evidence.ClockSource{}
	for _, peer := range p.env.Peers() {
		if have, ok := byName[peer.Name]; !peer.Disagree && (!ok || peer.Bound < have.Bound) {
			byName[peer.Name] = evidence.ClockSource{Name: peer.Name, State: "truechimer", Skew: peer.Skew, Bound: peer.Bound}
		}
	}
	var voices []evidence.ClockSource
	for _, v := range byName {
		voices = append(voices, v)
	}
	low, high, best := intersect(voices)
	if best < peersEnough || 2*best <= len(voices) {
		return
	}
	c.Skew, c.Bound, c.Reference, c.Confidence = (low+high)/2, (high-low)/2, "peers", evidence.LowConfident
}

const peersEnough = 3

func lower(c evidence.Confidence) evidence.Confidence {
	switch c {
	case evidence.Confident:
		return evidence.LowConfident
	default:
		return evidence.Unverified
	}
}
