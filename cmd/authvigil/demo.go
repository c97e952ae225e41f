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
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// demoConfig is what the demo watches: names below example.test that only the sandbox knows. The %s is the fixed token
// of a partner.
const demoConfig = `
[defaults]
every = "2s"
timeout = "3s"

[identity.billing]
kind = "oauth2"
issuer = "https://auth.example.test"
client_id = "` + sandbox.ClientID + `"
client_secret = "plain:` + sandbox.ClientSecret + `"
audience = "https://api.example.test"

[identity.orders]
kind = "oauth2"
token_url = "https://auth.example.test/token"
client_id = "` + sandbox.OrdersID + `"
client_secret = "plain:` + sandbox.OrdersSecret + `"

[identity.reports]
kind = "oauth2"
token_url = "https://auth.example.test/token"
client_id = "` + sandbox.ReportsID + `"
client_secret = "plain:` + sandbox.ReportsSecret + `"

[identity.partner]
kind = "bearer"
token = "plain:%s"

[identity.key]
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

[probe.orders]
kind = "http"
url = "https://api.example.test/v2/orders"
identity = "orders"

[probe.partner]
kind = "http"
url = "https://api.example.test/v2/orders"
identity = "partner"

[probe.key]
kind = "http"
url = "https://api.example.test/key"
identity = "key"

[probe.legacy]
kind = "http"
url = "https://api.example.test/basic"
identity = "person"

[probe.health]
kind = "http"
url = "https://api.example.test/v2/health"

[probe.stranger]
kind = "http"
url = "https://api.example.test/v2/devices"
expect = "deny"

[probe.token]
kind = "token"
identity = "reports"

[probe.certificate]
kind = "certificate"
address = "partner.example.test:443"

[probe.clock]
kind = "ntp"
servers = ["ntp1.example.test", "ntp2.example.test", "ntp3.example.test"]
poll = "2s"
`

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
	c, err := agent.Parse("demo", fmt.Sprintf(demoConfig, world.IdP.Mint(sandbox.PartnerID, nil)))
	if err != nil {
		return exit{exitFound, err}
	}
	c.Warnings = nil
	env := a.env(log)
	env.Host = probes.Host{} // the clock of the demo is the sandbox's
	env.Net = wire.Net{Lookup: world.Lookup, Dial: world.Dial, Roots: world.Roots()}
	d := &service{app: a, log: log, ready: make(chan struct{})}
	voice := &teller{app: a, since: time.Now()}
	d.observers = append(d.observers, voice)
	if err := d.build(c, env); err != nil {
		return exit{exitFound, err}
	}
	d.note("This is a demo: everything that is watched here is a sandbox on loopback, and breaks on a timetable.")
	d.listening = func(at net.Addr) {
		fmt.Fprintf(a.stdout, "The page is at http://%s/, the metrics at http://%s/metrics. Ctrl-C ends the demo.\n\n", at, at)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.run(ctx, l) })
	group.Go(func() error {
		fmt.Fprintf(a.stdout, "%6s  all is well: ten probes watch an identity provider, an API, a certificate and three clocks\n", voice.at())
		sandbox.Demo(each).Run(ctx, world, voice.tell)
		return nil
	})
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

// tell says what is broken, and when it is mended.
func (t *teller) tell(e sandbox.Entry, begins bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !begins {
		t.said = nil // what is still told of the fault before is no news
		fmt.Fprintf(t.app.stdout, "%6s  mended\n", t.at())
		return
	}
	t.said, t.wanted, t.hit = map[string]bool{}, diagnose.Cause(e.Cause), false
	t.shown++
	fmt.Fprintf(t.app.stdout, "\n%6s  broken: %s\n", t.at(), e.Story)
}

func (t *teller) result() (found, shown int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.found, t.shown
}
