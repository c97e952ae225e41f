package probes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// ntpProbe measures the local clock against several NTP servers (RFC 5905). Each source gives an interval that holds the
// true skew; the verdict is what a strict majority of them agrees on. What this machine says of its own clock, and what the
// clocks of the servers that are asked anyway say, bears witness where there is no majority, and raises doubt where it differs.
type ntpProbe struct {
	Servers []string              `koanf:"servers" help:"NTP servers, host or host:port; three or more of different operators for a verdict that one liar cannot spoil; required, unless chrony is named"`
	MaxSkew time.Duration         `koanf:"max_skew" help:"skew of the local clock that is tolerated; default 500ms"`
	Poll    time.Duration         `koanf:"poll" help:"least time between two bursts of questions to one server, whatever asks; runs in between tell what the last burst found; default 5m, and public servers want no less than 64s"`
	Chrony  string                `koanf:"chrony" help:"where chronyd on this machine is asked for its own view: auto (UDP port 323 of loopback, then /run/chrony/chronyd.sock), host:port, the path of a socket, or off; default auto"`
	Keys    map[string]secret.Ref `koanf:"keys" help:"key of each server that proves who it is, as a line of chrony.keys (number, type, key), such as { \"ntp1.example.com\" = \"file:/etc/authvigil/ntp1.key\" }; default: none"`
	Smeared []string              `koanf:"smeared" help:"servers that smear leap seconds, beside those that are known to; all servers must do so, or none"`

	env    Env
	places []*timeServer // of the servers
	leap   time.Time     // the leap second that is announced, or was last
	step   func(before, now time.Time) time.Duration
}

func newNTP(decode func(any) error, env Env) (Probe, error) {
	p := &ntpProbe{MaxSkew: 500 * time.Millisecond, Poll: 5 * time.Minute, env: env, step: evidence.WallStep}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	if len(p.Servers) == 0 && (p.Chrony == "" || p.Chrony == "off") {
		errs = append(errs, errors.New("servers: is missing; name the time servers of your network (pool.ntp.org asks vendors not to use its names)"))
	}
	shared := env.Shared
	if shared == nil {
		shared = NewShared()
	}
	for i, s := range p.Servers {
		if s == "" || strings.ContainsAny(s, "/ ") {
			errs = append(errs, fmt.Errorf("servers: %q is neither host nor host:port", s))
		}
		if slices.Contains(p.Servers[:i], s) {
			errs = append(errs, fmt.Errorf("servers: %s stands twice; it would be two voices for one", s))
		}
		owner := ""
		if _, keyed := p.Keys[s]; keyed {
			owner = env.Name
		}
		p.places = append(p.places, shared.timeServer(addressOf(s), owner))
	}
	errs = append(errs, p.checkSmear(), p.checkKeys())
	if p.MaxSkew <= 0 {
		errs = append(errs, errors.New("max_skew: must be above zero"))
	}
	if p.Poll < packetGap {
		errs = append(errs, fmt.Errorf("poll: must be at least %s, or servers take it for an attack", packetGap))
	}
	return p, errors.Join(errs...)
}

// addressOf adds the port of NTP where there is none.
func addressOf(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "123")
}

// checkKeys sees that every key is for a server.
func (p *ntpProbe) checkKeys() error {
	var errs []error
	for server := range p.Keys {
		if !slices.Contains(p.Servers, server) {
			errs = append(errs, fmt.Errorf("keys: %s is not among servers", server))
		}
	}
	return errors.Join(errs...)
}

func (p *ntpProbe) About() About {
	names := p.Servers[:min(len(p.Servers), 4)]
	if len(names) == 0 {
		names = []string{"chrony"}
	}
	return About{Endpoint: strings.Join(names, ","), Expected: "clock"}
}

func (p *ntpProbe) Run(ctx context.Context) (evidence.Report, error) {
	sources := make([]evidence.ClockSource, len(p.Servers))
	asked := make([]burst, len(p.Servers))
	var own []evidence.ClockSource
	var group sync.WaitGroup
	for i := range p.Servers {
		group.Go(func() { sources[i], asked[i] = p.ask(ctx, i) })
	}
	group.Go(func() { own = p.askHost(ctx) })
	group.Wait()
	clock := Agree(sources)
	clock.Own, clock.Measured = own, time.Now()
	p.hearOthers(&clock)
	clock.Limit = p.MaxSkew + p.leapTolerance(sources, clock.Measured)
	report := evidence.Report{Clock: &clock, Readings: p.readings(&clock, asked), Notes: notesOn(&clock)}
	return report, p.judge(ctx, &clock, asked)
}

// judge says what the verdict is: only a skew that is over the limit by the whole of its interval is a fault.
func (p *ntpProbe) judge(ctx context.Context, clock *evidence.Clock, asked []burst) error {
	if clock.Confidence == evidence.NoConfidence {
		for _, b := range asked {
			if f := wire.Classify(ctx, evidence.StageNTP, b.err); f != nil && f.Own() {
				return f
			}
		}
		code, why := "no_answer", "no time server gave a usable answer"
		switch {
		case slices.ContainsFunc(clock.Sources, func(s evidence.ClockSource) bool { return s.State == "falseticker" }):
			code, why = "no_majority", "the time servers disagree, and no majority says the same"
		case slices.ContainsFunc(clock.Sources, func(s evidence.ClockSource) bool { return s.Code == "local_step" }):
			code, why = "local_step", "the local clock was set while it was measured"
		}
		for _, s := range slices.Concat(clock.Sources, clock.Own) {
			if s.Detail != "" {
				why += "; " + s.Name + " " + s.Detail
			}
		}
		return &evidence.Fault{Stage: evidence.StageNTP, Symptom: evidence.SymptomClockUnknown, Code: code, Err: errors.New(why)}
	}
	if clock.Skew.Abs()-clock.Bound > clock.Limit {
		way, code := "ahead of", "ahead"
		if clock.Skew < 0 {
			way, code = "behind", "behind"
		}
		return &evidence.Fault{Stage: evidence.StageNTP, Symptom: evidence.SymptomClockSkew, Code: code,
			Err: fmt.Errorf("the local clock is %s %s true time (± %s, by %s), more than %s", clock.Skew.Abs().Round(time.Microsecond), way, clock.Bound.Round(time.Microsecond), byWhom(clock), clock.Limit)}
	}
	return nil
}

// byWhom names in words whose verdict it is.
func byWhom(c *evidence.Clock) string {
	switch c.Reference {
	case "consensus":
		return fmt.Sprintf("time servers, %s", c.Confidence)
	case "peers":
		return "the servers that are watched"
	default:
		return c.Reference
	}
}

// notesOn are what wants attention although there is a verdict.
func notesOn(c *evidence.Clock) (notes []evidence.Note) {
	add := func(code, format string, args ...any) {
		notes = append(notes, evidence.Note{Code: code, Detail: evidence.Clean(fmt.Sprintf(format, args...), 300)})
	}
	for _, s := range c.Sources {
		if s.State == "falseticker" && c.Reference == "consensus" {
			add("ntp_falseticker", "by %s the local clock is %s, and by the majority of the time servers it is %s", s.Name, aheadOrBehind(s.Skew), aheadOrBehind(c.Skew))
		}
	}
	for _, s := range c.Own {
		switch {
		case s.State == "falseticker":
			add("clock_voices_differ", "by %s of this machine the clock is %s (± %s), which is not what %s say: one of them is wrong", s.Name, aheadOrBehind(s.Skew), evidence.Span(s.Bound), byWhom(c))
		case s.Name == "chrony" && s.Code == "unsynchronised":
			add("clock_unsynchronised", "chronyd runs on this machine and follows no source: the clock runs free")
		}
	}
	if len(c.Sources) > 0 && c.Reference != "consensus" && c.Confidence != evidence.NoConfidence {
		add("ntp_unavailable", "no majority of time servers could be heard; what is known of the clock is the word of %s", byWhom(c))
	}
	return notes
}

// aheadOrBehind tells a skew in words.
func aheadOrBehind(skew time.Duration) string {
	if skew < 0 {
		return evidence.Span(skew) + " behind"
	}
	return evidence.Span(skew) + " ahead"
}
