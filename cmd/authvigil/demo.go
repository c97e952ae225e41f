package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// demoConfig is what the demo watches: names below example.test that only the sandbox knows.
const demoConfig = `
[defaults]
every = "2s"
timeout = "3s"

[identity.billing]
kind = "oauth2"
issuer = "https://auth.example.test"
client_id = "billing"
client_secret = "plain:` + sandbox.ClientSecret + `"
audience = "https://api.example.test"

[identity.partner]
kind = "api_key"
key = "plain:` + sandbox.APIKey + `"

[identity.person]
kind = "basic"
username = "` + sandbox.User + `"
password = "plain:` + sandbox.Password + `"

[probe.devices]
kind = "http"
url = "https://api.example.test/v2/devices"
identity = "billing"

[probe.partner]
kind = "http"
url = "https://api.example.test/key"
identity = "partner"

[probe.legacy]
kind = "http"
url = "https://api.example.test/basic"
identity = "person"

[probe.stranger]
kind = "http"
url = "https://api.example.test/v2/devices"
expect = "deny"

[probe.token]
kind = "token"
identity = "billing"
min_remaining = "1s"

[probe.certificate]
kind = "certificate"
address = "api.example.test:443"

[probe.clock]
kind = "ntp"
servers = ["ntp1.example.test", "ntp2.example.test", "ntp3.example.test"]
`

// A stunt is a fault on the timetable of the demo: what is broken, and which cause must be found.
type stunt struct {
	what  string
	cause diagnose.Cause
	times int // how many times as long as the others it lasts; 0: once
	start func(*sandbox.World)
}

var timetable = []stunt{
	{"the API refuses whatever lacks a scope that nobody granted", diagnose.InsufficientScope, 0, func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.WantScope = "devices:own" }) }},
	{"the API's certificate ends in two days", diagnose.TLSCertExpiring, 0, func(w *sandbox.World) {
		w.API.Set(func(f *sandbox.APIFaults) {
			f.Certificate.NotAfter = time.Now().Add(48 * time.Hour)
			f.Certificate.NotBefore = time.Now().AddDate(0, 0, -88)
		})
	}},
	{"all time servers say that this machine is 40 s behind", diagnose.ClockSkew, 0, func(w *sandbox.World) {
		for _, name := range []string{sandbox.NTPHost1, sandbox.NTPHost2, sandbox.NTPHost3} {
			w.NTP(name).Set(func(f *sandbox.NTPFaults) { f.Clock = 40 * time.Second })
		}
	}},
	{"a firewall blocks the API", diagnose.BlockedByGateway, 0, func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.Answer = sandbox.BlockPage() }) }},
	{"the API lets strangers in", diagnose.AuthorizationTooOpen, 0, func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.Open = true }) }},
	{"the API's certificate expired yesterday", diagnose.TLSCertExpired, 0, func(w *sandbox.World) {
		w.API.Set(func(f *sandbox.APIFaults) {
			f.Certificate.NotAfter = time.Now().Add(-24 * time.Hour)
			f.Certificate.NotBefore = time.Now().AddDate(0, 0, -91)
		})
	}},
	{"the identity provider is down, and the tokens run out", diagnose.IDPUnavailable, 2, func(w *sandbox.World) {
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer = sandbox.Status(503) })
	}},
}

func demoCommand(a *app) *cobra.Command {
	var (
		length, each time.Duration
		l            = &listen{}
	)
	c := &cobra.Command{
		Use: "demo", Short: "Run the daemon against a sandbox of its own, with faults on a timetable", Args: cobra.NoArgs,
		Long:    "demo needs no configuration and no network: identity provider, API, certificates and time servers are its own, on loopback. It breaks one thing after the other and prints what the daemon finds.",
		Example: "  authvigil demo\n  authvigil demo --for 1m",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if length > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, length)
				defer cancel()
			}
			return a.demo(ctx, l, each)
		},
	}
	l.flags(c)
	c.Flags().DurationVar(&length, "for", 0, "end after this time; 0: at Ctrl-C")
	c.Flags().DurationVar(&each, "fault", 12*time.Second, "how long each fault lasts")
	return c
}

// demo runs the daemon in a world of its own.
func (a *app) demo(ctx context.Context, l *listen, each time.Duration) error {
	log, level, err := a.logger()
	if err != nil {
		return err
	}
	if a.logLevel == "info" {
		level.Set(8) // the demo tells its story itself
	}
	world := sandbox.New()
	defer world.Close()
	if err := world.Listen(); err != nil {
		return exit{exitFound, fmt.Errorf("the sandbox cannot listen on loopback: %w", err)}
	}
	world.IdP.Set(func(f *sandbox.IdPFaults) { f.Lifetime = 15 * time.Second })
	c, err := agent.Parse("demo", demoConfig)
	if err != nil {
		return exit{exitFound, err}
	}
	c.Warnings = nil
	env := a.env(log)
	env.Net = wire.Net{Lookup: world.Lookup, Dial: world.Dial, Roots: world.Roots()}
	d := &service{app: a, log: log, ready: make(chan struct{})}
	voice := &teller{app: a, since: time.Now()}
	d.observers = append(d.observers, voice)
	if err := d.build(c, env); err != nil {
		return exit{exitFound, err}
	}
	d.status.SetNotes([]string{"This is a demo: everything that is watched here is a sandbox on loopback, and breaks on a timetable."})
	d.listening = func(at net.Addr) {
		fmt.Fprintf(a.stdout, "The page is at http://%s/, the metrics at http://%s/metrics. Ctrl-C ends the demo.\n\n", at, at)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.run(ctx, l) })
	group.Go(func() error { return voice.perform(ctx, world, each) })
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	found, shown := voice.result()
	fmt.Fprintf(a.stdout, "\n%d of %d injected faults were found by their cause.\n", found, shown)
	return nil
}

// A teller prints what is broken and what is found. It is an agent.Observer.
type teller struct {
	app   *app
	since time.Time

	mu     sync.Mutex // owns what follows
	said   map[string]bool
	wanted diagnose.Cause
	hit    bool
	found  int
	shown  int
}

func (t *teller) Observe(ev *agent.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(ev.Findings) == 0 {
		return
	}
	f := ev.Findings[0]
	key := string(f.Cause) + " " + f.Culprit
	if t.said[key] || t.said == nil {
		return
	}
	t.said[key] = true
	fmt.Fprintf(t.app.stdout, "%6s  found: %s %s (%s), seen by probe %s\n", t.at(), f.Culprit, f.Cause, f.Sure, ev.Probe)
	for i, line := range f.Because {
		if i < 2 {
			fmt.Fprintf(t.app.stdout, "        because: %s\n", exporters.Show(line))
		}
	}
	fmt.Fprintf(t.app.stdout, "        do: %s\n", f.Remedy)
	if f.Cause == t.wanted && !t.hit {
		t.hit = true
		t.found++
	}
}

func (t *teller) Forget(string) {}

func (t *teller) at() string { return fmt.Sprintf("%.0f s", time.Since(t.since).Seconds()) }

// perform breaks one thing after the other.
func (t *teller) perform(ctx context.Context, w *sandbox.World, each time.Duration) error {
	pause := func(d time.Duration) bool {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		}
	}
	fmt.Fprintf(t.app.stdout, "%6s  all is well: seven probes watch an identity provider, an API, a certificate and three clocks\n", t.at())
	for pause(3 * time.Second) {
		for _, s := range timetable {
			t.mu.Lock()
			t.said, t.wanted, t.hit = map[string]bool{}, s.cause, false
			t.shown++
			fmt.Fprintf(t.app.stdout, "\n%6s  broken: %s\n", t.at(), s.what)
			t.mu.Unlock()
			s.start(w)
			if !pause(each * time.Duration(max(s.times, 1))) {
				return nil
			}
			w.API.Reset()
			w.IdP.Reset()
			w.IdP.Set(func(f *sandbox.IdPFaults) { f.Lifetime = 15 * time.Second })
			for _, name := range []string{sandbox.NTPHost1, sandbox.NTPHost2, sandbox.NTPHost3} {
				w.NTP(name).Reset()
			}
			t.mu.Lock()
			t.said = nil // what is still told of the fault before is no news
			fmt.Fprintf(t.app.stdout, "%6s  mended\n", t.at())
			t.mu.Unlock()
			if !pause(each / 3) {
				return nil
			}
		}
	}
	return nil
}

func (t *teller) result() (found, shown int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.found, t.shown
}
