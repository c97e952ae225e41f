package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	_ "time/tzdata" // zones of CRON_TZ= where the machine has none, as in an image made of nothing else

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/exporter-toolkit/web"
	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/identity"
)

// listen are the flags of the listener, as all exporters of the Prometheus family have them.
type listen struct {
	addresses  []string
	configFile string
	socket     bool
}

func (l *listen) flags(c *cobra.Command) {
	c.Flags().StringSliceVar(&l.addresses, "web.listen-address", []string{"127.0.0.1:10401"}, "`address` to serve page and metrics on; may be repeated")
	c.Flags().StringVar(&l.configFile, "web.config.file", "", "`file` with TLS and basic authentication of the listener (exporter-toolkit)")
	c.Flags().BoolVar(&l.socket, "web.systemd-socket", false, "take the listener from systemd")
}

// gcPercent makes the collector run more often than by default: a daemon that sleeps most of the time has the CPU, and the
// stacks of ten thousand sleeping watches shrink only when it runs. GOGC overrides it.
const gcPercent = 40

func runCommand(a *app) *cobra.Command {
	l := &listen{}
	c := &cobra.Command{
		Use: "run", Short: "Run the daemon", Args: cobra.NoArgs,
		Example: "  authvigil run --config.file /etc/authvigil/authvigil.toml",
		RunE: func(c *cobra.Command, _ []string) error {
			direct, _, err := a.logger()
			if err != nil {
				return err
			}
			queue := newLogQueue(a.stderr, direct)
			defer queue.close()
			queued := *a
			queued.stderr = queue
			log, _, err := queued.logger()
			if err != nil {
				return err
			}
			if os.Getenv("GOGC") == "" {
				debug.SetGCPercent(gcPercent)
			}
			d, err := a.newDaemon(log)
			if err != nil {
				return err
			}
			d.linesDropped = queue.dropped.Load
			return d.run(c.Context(), l)
		},
	}
	l.flags(c)
	return c
}

// A service is the agent with everything around it that `run` and `demo` have.
type service struct {
	app        *app
	log        *slog.Logger
	agent      *agent.Agent
	config     *agent.Config
	status     *exporters.Status
	prometheus *exporters.Prometheus
	page       http.Handler // what the listener serves; the socket serves it too
	ready      chan struct{}
	listening  func(net.Addr)
	reload     func() error
	observers  []agent.Observer
	store      *lazyStore
	reloading  sync.Mutex // one reload at a time

	linesDropped func() int64 // of the log; nil: none can be

	noting     sync.Mutex // owns what follows
	notes      []string   // of the configuration, for the page
	statusLine string     // that systemd was told last
}

// lockPatience is how long a starting daemon waits for the store, which a command beside it may hold for a moment.
const lockPatience = 10 * time.Second

// newDaemon reads the configuration and builds all of it; nothing is started when anything is wrong.
func (a *app) newDaemon(log *slog.Logger) (*service, error) {
	d := &service{app: a, log: log, ready: make(chan struct{})}
	c, wrong := agent.Load(a.configFile, a.environ)
	env, store := withStore(a.env(log), c, nil)
	if d.store = store; wrong == nil && store != nil {
		if err := store.openAlone(lockPatience); errors.Is(err, identity.ErrInUse) { // anything else is said, and keeps nothing from starting
			return nil, exit{exitTryAgain, fmt.Errorf("%w; stop it, or give this one another state_directory", err)}
		}
	}
	if err := agent.InOrder(errors.Join(wrong, d.build(c, env))); err != nil {
		store.close()
		return nil, exit{exitConfig, err}
	}
	d.reload = func() error { return d.reloadFile() }
	return d, nil
}

func (d *service) build(c *agent.Config, env agent.Env) (err error) {
	v, revision, goVersion := version()
	d.status = exporters.NewStatus(time.Now())
	d.prometheus = exporters.NewPrometheus(v, revision, goVersion, d.health)
	d.agent, err = agent.New(c, env, append([]agent.Observer{d.status, d.prometheus, &logging{d.log}}, d.observers...)...)
	if err != nil {
		return err
	}
	d.config = c
	d.prometheus.Start(d.agent.Planned())
	d.status.Start(d.agent.Planned())
	d.prometheus.Reloaded(true, time.Now())
	d.note(c.Warnings...)
	for _, w := range c.Warnings {
		d.log.Warn("configuration", "warning", w)
	}
	return nil
}

// health is how the daemon fares: the agent, and the log.
func (d *service) health() agent.Health {
	h := d.agent.Health()
	if d.linesDropped != nil {
		h.LinesDropped = d.linesDropped()
	}
	return h
}

// run runs agent and listener until ctx ends.
func (d *service) run(ctx context.Context, l *listen) error {
	defer d.store.close()
	v, _, _ := version()
	server := &exporters.Web{Status: d.status, Prometheus: d.prometheus, Version: v, Hosts: exporters.HostsOf(d.config.Agent.ExternalURL), Alerts: d.agent.Alerts().Open, Ready: func() bool {
		select {
		case <-d.ready:
			return true
		default:
			return false
		}
	}}
	if err := web.Validate(l.configFile); err != nil {
		return exit{exitConfig, fmt.Errorf("--web.config.file: %w", err)}
	}
	d.page = server.Handler()
	listeners, err := l.open(ctx)
	if err != nil {
		return exit{exitFound, err}
	}
	for _, listener := range listeners {
		if d.listening != nil {
			d.listening(listener.Addr())
		}
		d.log.Info("listening", "address", listener.Addr().String())
		if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && l.configFile == "" {
			d.log.Warn("whoever reaches this address can read the page and the metrics; --web.config.file asks for TLS and a password", "address", tcp.String())
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	s := server.Server()
	group.Go(func() error {
		err := web.ServeMultiple(listeners, s, &web.FlagConfig{WebListenAddresses: &l.addresses, WebSystemdSocket: new(bool), WebConfigFile: &l.configFile}, d.log)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("listener: %w", err)
	})
	group.Go(func() error {
		close(d.ready)
		d.notify(daemon.SdNotifyReady)
		return d.agent.Run(ctx)
	})
	group.Go(func() error { return d.signals(ctx) })
	group.Go(func() error { return d.watchdog(ctx) })
	group.Go(func() error { return d.showDistress(ctx) })
	if d.reload != nil {
		group.Go(func() error { return d.serveSocket(ctx, socketPath()) })
	}
	group.Go(func() error {
		<-ctx.Done()
		d.notify(daemon.SdNotifyStopping)
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return s.Shutdown(stop)
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return exit{exitFound, err}
	}
	d.log.Info("stopped")
	return nil
}

// maxConnections is how many connections a listener serves at the same time; whoever comes later waits for one to end.
const maxConnections = 512

// open listens, or takes the listeners that systemd opened, so that a port that is taken is known before anything runs.
func (l *listen) open(ctx context.Context) (list []net.Listener, err error) {
	if l.socket {
		list, err := activation.Listeners()
		if err == nil && len(list) == 0 {
			err = errors.New("systemd handed over none; start authvigil.socket, or leave the flag out")
		}
		if err != nil {
			return nil, fmt.Errorf("--web.systemd-socket: %w", err)
		}
		for i, listener := range list {
			if listener == nil {
				return nil, fmt.Errorf("--web.systemd-socket: socket %d is no stream", i+1)
			}
			list[i] = netutil.LimitListener(listener, maxConnections)
		}
		return list, nil
	}
	var lc net.ListenConfig
	for _, address := range l.addresses {
		listener, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			for _, other := range list {
				other.Close()
			}
			return nil, fmt.Errorf("--web.listen-address: %w", err)
		}
		list = append(list, netutil.LimitListener(listener, maxConnections))
	}
	return list, nil
}

// signals reloads on SIGHUP.
func (d *service) signals(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
		}
		if d.reload == nil {
			continue
		}
		d.notify(daemon.SdNotifyReloading + fmt.Sprintf("\nMONOTONIC_USEC=%d", monotonicMicroseconds()))
		_ = d.reload() // what was wrong is said in the log, the metrics and on the page
		d.notify(daemon.SdNotifyReady)
	}
}

// reloadFile reads the configuration again. A bad one changes nothing, and is said on the page, in the metrics and the log.
func (d *service) reloadFile() error {
	_, err := d.reloadText(false)
	return err
}

// reloadText reads the configuration again, and says what changed; dry, what would.
func (d *service) reloadText(dry bool) (string, error) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	var diff agent.Diff
	c, err := agent.Load(d.app.configFile, d.app.environ)
	switch {
	case err != nil:
		_, more := d.agent.Compare(c) // every error at once, and nothing changed
		err = errors.Join(err, more)
	case dry:
		diff, err = d.agent.Compare(c)
	default:
		diff, err = d.agent.Reload(c)
	}
	if dry {
		return "would change: " + diff.Long(), err
	}
	d.prometheus.Reloaded(err == nil, time.Now())
	if err = agent.InOrder(err); err != nil {
		d.note("The configuration on disk has errors; the one before stays in use. authvigil config check lists them.")
		d.log.Error("reload refused; the configuration before stays", "error", err)
		return "", err
	}
	d.prometheus.Start(d.agent.Planned())
	d.status.Start(d.agent.Planned())
	later := d.laterKeys(c)
	d.note(append(slices.Clone(c.Warnings), later...)...)
	d.log.Info("configuration reloaded", "added", len(diff.Added), "changed", len(diff.Changed), "removed", len(diff.Removed), "same", len(diff.Same))
	return strings.Join(append([]string{"changed: " + diff.Long()}, later...), "\n"), nil
}

// laterKeys says which settings of a configuration take effect only when the daemon starts.
func (d *service) laterKeys(c *agent.Config) (list []string) {
	was, now := d.config.Agent, c.Agent
	for _, key := range []struct {
		name    string
		changed bool
	}{
		{"agent.state_directory", was.StateDirectory != now.StateDirectory},
		{"agent.state_key", was.StateKey.String() != now.StateKey.String()},
		{"agent.concurrency", was.Concurrency != now.Concurrency},
		{"agent.external_url", was.ExternalURL != now.ExternalURL},
	} {
		if key.changed {
			list = append(list, key.name+" takes effect when the service is restarted.")
		}
	}
	return list
}

// note replaces what the page says of the configuration; what authvigil suffers from stands after it.
func (d *service) note(notes ...string) {
	d.noting.Lock()
	defer d.noting.Unlock()
	d.notes = notes
	d.show()
}

// show puts all notes on the page, and the first into the status that systemctl shows.
func (d *service) show() {
	all := slices.Clone(d.notes)
	health := d.agent.Health()
	for _, distress := range health.Distress {
		all = append(all, distress.Text)
	}
	for _, m := range health.Maintenance {
		if m.Active {
			all = append(all, strings.TrimRight("Maintenance "+m.Name+" until "+m.Until.Format("15:04 MST on 2 January")+": alerts of its probes do not begin. "+m.Comment, " "))
		}
	}
	d.status.SetNotes(all)
	line := fmt.Sprintf("watching with %d probes", health.Probes)
	if len(all) > 0 {
		line += "; " + all[0]
	}
	if line != d.statusLine {
		d.statusLine = line
		d.notify("STATUS=" + line)
	}
}

// selfLook is how often the page learns how authvigil itself fares.
const selfLook = 5 * time.Second

// showDistress keeps the page's notes up to date until ctx ends.
func (d *service) showDistress(ctx context.Context) error {
	tick := time.NewTicker(selfLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.noting.Lock()
			d.show()
			d.noting.Unlock()
		}
	}
}

func (d *service) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("systemd was not told", "error", err)
	}
}

// watchdog tells systemd that the scheduler progresses; when it does not, systemd is not told, and restarts the service.
func (d *service) watchdog(ctx context.Context) error {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return nil //nolint:nilerr // no watchdog is asked for
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if d.agent.Progresses() {
				d.notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}
