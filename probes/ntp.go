package probes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/ntp"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// ntpProbe measures the local clock against several NTP servers (RFC 5905). Each source gives an interval that holds the
// true skew; the verdict is what a strict majority of them agrees on.
type ntpProbe struct {
	Servers []string      `koanf:"servers" help:"NTP servers, host or host:port; three or more of different operators for a verdict that one liar cannot spoil; required"`
	MaxSkew time.Duration `koanf:"max_skew" help:"skew of the local clock that is tolerated; default 500ms"`

	net wire.Net

	mu     sync.Mutex
	kissed map[string]time.Time // until when a server that asked for it is left alone
}

const (
	maxRootDistance = 1500 * time.Millisecond // ntp.org's limit; RFC 5905 has 1 s, chrony 3 s
	maxRTT          = time.Second
	kissRate        = 4 * time.Minute // for RATE: several polls are left out
	kissDeny        = 24 * time.Hour  // for DENY and RSTR
)

var (
	clockSkew        = &evidence.Metric{Name: "clock_skew_seconds", Help: "Local clock minus reference; positive: we are ahead. The opposite of NTP's offset.", Labels: []string{"reference"}}
	clockBound       = &evidence.Metric{Name: "clock_skew_bound_seconds", Help: "Half-width of the interval around clock_skew_seconds that holds the true skew.", Labels: []string{"reference"}}
	clockSourceSkew  = &evidence.Metric{Name: "clock_source_skew_seconds", Help: "Local clock minus the clock of one NTP server; positive: we are ahead.", Labels: []string{"source"}}
	clockSourceBound = &evidence.Metric{Name: "clock_source_bound_seconds", Help: "Half-width of the interval around clock_source_skew_seconds.", Labels: []string{"source"}}
	clockSourceRTT   = &evidence.Metric{Name: "clock_source_round_trip_seconds", Help: "Round trip to an NTP server.", Labels: []string{"source"}}
	clockSourceState = &evidence.Metric{Name: "clock_source_state", Help: "State of an NTP server as a source: 1 for the state it is in.", Labels: []string{"source", "state"}}
)

var sourceStates = []string{"truechimer", "falseticker", "unreachable", "invalid", "kissed"}

func newNTP(decode func(any) error, env Env) (Probe, error) {
	p := &ntpProbe{MaxSkew: 500 * time.Millisecond, net: env.Net, kissed: map[string]time.Time{}}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	if len(p.Servers) == 0 {
		errs = append(errs, errors.New("servers: is missing; name the time servers of your network (pool.ntp.org asks vendors not to use its names)"))
	}
	for i, s := range p.Servers {
		if s == "" || strings.Contains(s, "/") {
			errs = append(errs, fmt.Errorf("servers: %q is neither host nor host:port", s))
		}
		if slices.Contains(p.Servers[:i], s) {
			errs = append(errs, fmt.Errorf("servers: %s stands twice; it would be two voices for one", s))
		}
	}
	if p.MaxSkew <= 0 {
		errs = append(errs, errors.New("max_skew: must be above zero"))
	}
	return p, errors.Join(errs...)
}

func (p *ntpProbe) About() About {
	return About{Endpoint: strings.Join(p.Servers[:min(len(p.Servers), 4)], ","), Expected: "clock"}
}

func (p *ntpProbe) Run(ctx context.Context) (evidence.Report, error) {
	sources := make([]evidence.ClockSource, len(p.Servers))
	faults := make([]error, len(p.Servers))
	var group sync.WaitGroup
	for i, server := range p.Servers {
		group.Go(func() { sources[i], faults[i] = p.query(ctx, server) })
	}
	group.Wait()
	clock := Agree(sources)
	clock.Limit, clock.Measured = p.MaxSkew, time.Now()
	report := evidence.Report{Clock: &clock, Readings: clockReadings(clock)}
	return report, p.judge(ctx, clock, faults)
}

func (p *ntpProbe) judge(ctx context.Context, clock evidence.Clock, faults []error) error {
	if clock.Confidence == evidence.NoConfidence {
		for _, err := range faults {
			if f := wire.Classify(ctx, evidence.StageNTP, err); f != nil && f.Own() {
				return f
			}
		}
		why := "no time server gave a usable answer"
		if slices.ContainsFunc(clock.Sources, func(s evidence.ClockSource) bool { return s.State == "falseticker" }) {
			why = "the time servers disagree, and no majority says the same"
		}
		return &evidence.Fault{Stage: evidence.StageNTP, Symptom: evidence.SymptomClockUnknown, Code: "no_majority", Err: errors.New(why)}
	}
	if clock.Skew.Abs()-clock.Bound > p.MaxSkew {
		way, code := "ahead of", "ahead"
		if clock.Skew < 0 {
			way, code = "behind", "behind"
		}
		return &evidence.Fault{Stage: evidence.StageNTP, Symptom: evidence.SymptomClockSkew, Code: code,
			Err: fmt.Errorf("the local clock is %s %s true time (± %s), more than %s", clock.Skew.Abs().Round(time.Microsecond), way, clock.Bound.Round(time.Microsecond), p.MaxSkew)}
	}
	return nil
}

// query asks one server. Every failure is a state of the source, and an error for the classification of own distress.
func (p *ntpProbe) query(ctx context.Context, server string) (evidence.ClockSource, error) {
	s := evidence.ClockSource{Name: server, State: "unreachable"}
	p.mu.Lock()
	until := p.kissed[server]
	p.mu.Unlock()
	if time.Now().Before(until) {
		s.State, s.Detail = "kissed", "asked us to stay away until "+until.UTC().Format(time.RFC3339)
		return s, nil
	}
	address := server
	if _, _, err := net.SplitHostPort(server); err != nil {
		address = net.JoinHostPort(strings.Trim(server, "[]"), "123")
	}
	conn, _, err := wire.DialAny(ctx, p.net, "udp", address, nil) // resolving and dialling lie outside the library's timeout
	if err != nil {
		s.Detail = wire.Classify(ctx, evidence.StageConnect, err).Error()
		return s, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := ntp.QueryWithOptions(address, ntp.QueryOptions{
		Timeout: p.patience(ctx),
		Dialer:  func(string, string) (net.Conn, error) { return conn, nil },
	})
	if err != nil {
		s.Detail = "gave no answer: " + evidence.Clean(err.Error(), 128)
		if !isNetError(err) {
			s.State, s.Detail = "invalid", "gave an answer that is not valid: "+evidence.Clean(err.Error(), 128)
		}
		return s, err
	}
	return p.weigh(s, r), nil
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

func (p *ntpProbe) patience(ctx context.Context) time.Duration {
	const most = 3 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		return max(min(time.Until(deadline), most), time.Millisecond)
	}
	return most
}

// weigh makes an interval of an answer, or says why it cannot be used. A kiss-o'-death comes as an answer with a nonsense
// offset (RFC 5905 section 7.4), so it is looked for first.
func (p *ntpProbe) weigh(s evidence.ClockSource, r *ntp.Response) evidence.ClockSource {
	if r.Stratum == 0 {
		s.State, s.Detail = "kissed", "sent a kiss-o'-death "+evidence.Clean(r.KissCode, 4)
		wait := map[string]time.Duration{"RATE": kissRate, "DENY": kissDeny, "RSTR": kissDeny}[r.KissCode]
		p.mu.Lock()
		p.kissed[s.Name] = time.Now().Add(wait)
		p.mu.Unlock()
		if wait == 0 {
			s.State = "invalid"
		}
		return s
	}
	s.State = "invalid"
	if err := r.Validate(); err != nil {
		s.Detail = evidence.Clean(err.Error(), 128)
		return s
	}
	s.Skew, s.RTT = -r.ClockOffset, r.RTT
	s.Bound = r.RTT/2 + r.RootDelay/2 + r.RootDispersion + r.Precision + time.Microsecond
	switch {
	case r.RootDistance > maxRootDistance:
		s.Detail = fmt.Sprintf("is %s away from its own reference (root distance)", r.RootDistance.Round(time.Millisecond))
	case r.RTT > maxRTT:
		s.Detail = fmt.Sprintf("took %s to answer", r.RTT.Round(time.Millisecond))
	default:
		s.State = "truechimer"
	}
	return s
}

// Agree finds the skew that a strict majority of the usable sources allows, by intersection of their intervals (the idea
// of RFC 5905 section 11.2.1), and marks the others as falsetickers.
func Agree(sources []evidence.ClockSource) evidence.Clock {
	clock := evidence.Clock{Sources: sources, Confidence: evidence.NoConfidence}
	type edge struct {
		at   time.Duration
		open int
	}
	var edges []edge
	usable := 0
	for _, s := range sources {
		if s.State == "truechimer" {
			usable++
			edges = append(edges, edge{s.Skew - s.Bound, 1}, edge{s.Skew + s.Bound, -1})
		}
	}
	if usable == 0 {
		return clock
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.open, a.open)) })
	best, depth := 0, 0
	var low, high time.Duration
	for i, e := range edges {
		depth += e.open
		if e.open > 0 && depth > best {
			best, low, high = depth, e.at, edges[i+1].at
		}
	}
	if 2*best <= usable {
		for i := range sources {
			if sources[i].State == "truechimer" {
				sources[i].State, sources[i].Detail = "falseticker", "no majority agrees with it"
			}
		}
		return clock
	}
	for i, s := range sources {
		if s.State == "truechimer" && (s.Skew-s.Bound > high || s.Skew+s.Bound < low) {
			sources[i].State, sources[i].Detail = "falseticker", "the majority disagrees"
		}
	}
	clock.Skew, clock.Bound = (low+high)/2, (high-low)/2
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

func clockReadings(c evidence.Clock) (list []evidence.Reading) {
	add := func(m *evidence.Metric, v float64, labels ...string) {
		list = append(list, evidence.Reading{Metric: m, Labels: labels, Value: v})
	}
	if c.Confidence != evidence.NoConfidence {
		add(clockSkew, c.Skew.Seconds(), "consensus")
		add(clockBound, c.Bound.Seconds(), "consensus")
	}
	for _, s := range c.Sources {
		if s.State == "truechimer" || s.State == "falseticker" {
			add(clockSourceSkew, s.Skew.Seconds(), s.Name)
			add(clockSourceBound, s.Bound.Seconds(), s.Name)
			add(clockSourceRTT, s.RTT.Seconds(), s.Name)
		}
		for _, state := range sourceStates {
			value := 0.0
			if s.State == state {
				value = 1
			}
			add(clockSourceState, value, s.Name, state)
		}
	}
	return list
}
