package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/secret"
)

// EnvPrefix begins the environment variables that override keys: AUTHVIGIL__PROBE__DEVICES__URL is probe.devices.url.
// Two underscores separate, because names hold single ones.
const EnvPrefix = "AUTHVIGIL__"

// Settings is the table [agent]. A reload applies all but state_directory.
type Settings struct {
	StateDirectory string     `koanf:"state_directory" help:"where state that outlives a restart is kept; default: $STATE_DIRECTORY as systemd sets it; empty: nothing is kept"`
	Environment    string     `koanf:"environment" help:"name of this environment, a label of every alert"`
	ExternalURL    string     `koanf:"external_url" help:"address under which people reach the page, for links in alerts"`
	Concurrency    int        `koanf:"concurrency" help:"runs at the same time; default 256"`
	StateKey       secret.Ref `koanf:"state_key" help:"secret that seals what is kept on disk, at least 32 characters; default: credential:authvigil.key where systemd provides it, else a key file that is made in the state directory"`
	StateKeyBefore secret.Ref `koanf:"state_key_before" help:"the state_key before this one, which still opens what it sealed"`
}

// Alerting is the table [alerts]: how long what is wrong must last, and how long it is told. A reload applies it.
type Alerting struct {
	Hold      time.Duration `koanf:"hold" help:"how long something must be wrong before anybody is told, so that the diagnosis settles; default 30s"`
	MinFiring time.Duration `koanf:"min_firing" help:"how long an alert fires at least; more than group_wait and 15s for each Alertmanager of a cluster, or it may never be told; default 5m"`
	Resend    time.Duration `koanf:"resend" help:"how often Alertmanagers, which forget, are told again; they believe it four times as long; default 1m"`
}

// Defaults is the table [defaults]: what probes do that do not say otherwise.
type Defaults struct {
	Every    time.Duration `koanf:"every" help:"time between the starts of two runs of a probe, at least 1s; default 30s"`
	Schedule string        `koanf:"schedule" help:"in place of every: five cron fields, @hourly and its kin, or @every with a duration; CRON_TZ=Zone may stand before"`
	Timeout  time.Duration `koanf:"timeout" help:"time that one run may take; default 10s"`
}

// probeCommon are the keys that every probe understands, whatever its kind.
type probeCommon struct {
	Kind     string            `koanf:"kind" help:"kind of the probe; required"`
	Every    time.Duration     `koanf:"every" help:"time between the starts of two runs; default: that of [defaults]"`
	Schedule string            `koanf:"schedule" help:"in place of every: five cron fields, or @every with a duration"`
	Timeout  time.Duration     `koanf:"timeout" help:"time that one run may take; default: that of [defaults]"`
	Labels   map[string]string `koanf:"labels" help:"further labels for the page and the alerts, such as team or service"`
	Severity string            `koanf:"severity" help:"critical or warning: who is told when the probe fails; default: by cause"`
	Disabled bool              `koanf:"disabled" help:"keep the probe in the file and do not run it"`
}

// named are the keys of sections that have nothing in common but a kind.
type named struct {
	Kind string `koanf:"kind" help:"kind; required"`
}

// A section is one table with a name, such as [probe.devices].
type section struct {
	table, name string
	raw         map[string]any
}

func (s section) path(keys ...string) string {
	return strings.Join(append([]string{s.table, s.name}, keys...), sep)
}

// tables are the tables that hold named sections.
var tables = []string{"identity", "maintenance", "probe", "sink"}

// plain are the tables without names.
var plain = []string{"agent", "alerts", "defaults"}

// A Config is the configuration as it was read, from all its sources. Whether its sections make sense is known when they
// are built, see [Build].
type Config struct {
	Path     string
	Agent    Settings
	Defaults Defaults
	Alerts   Alerting
	Warnings []string

	sections map[string][]section // by table, sorted by name
	raw      map[string]any
	at       map[string]Position
	sources  map[string]*source
}

// newConfig is a configuration in which nothing was set.
func newConfig(path string) *Config {
	return &Config{Path: path, Agent: Settings{Concurrency: 256}, Defaults: Defaults{Every: 30 * time.Second, Timeout: 10 * time.Second},
		Alerts:   Alerting{Hold: 30 * time.Second, MinFiring: alert.DefaultRules.MinFiring, Resend: alert.DefaultRules.Resend},
		sections: map[string][]section{}, at: map[string]Position{}, sources: map[string]*source{}}
}

// Load reads the file, conf.d/*.toml beside it, and the environment. The error joins a *ConfigError for everything that is
// wrong with form, unknown keys and types of the common tables.
func Load(path string, environ []string) (*Config, error) {
	sources, errs := readSources(path)
	c := newConfig(path)
	c.Agent.StateDirectory = os.Getenv("STATE_DIRECTORY")
	layers := koanf.New(sep)
	for _, s := range sources {
		c.sources[s.name] = s
		errs = append(errs, c.refuseTwice(s)...)
		maps.Copy(c.at, s.at)
		if err := layers.Load(confmap.Provider(s.raw, ""), nil); err != nil {
			errs = append(errs, err)
		}
	}
	for _, s := range sources {
		s.raw, s.at = nil, nil // laid over one another; ten thousand probes have thirty thousand keys
	}
	errs = append(errs, c.override(layers, environ)...)
	c.raw = layers.Raw()
	errs = append(errs, c.sort()...)
	return c, errors.Join(errs...)
}

// Parse reads a configuration from memory, for tests and for commands that make their own.
func Parse(name, text string) (*Config, error) {
	s, err := parseSource(name, []byte(text))
	if err != nil {
		return nil, err
	}
	c := newConfig(name)
	c.at, c.sources[name], c.raw = s.at, s, s.raw
	return c, errors.Join(c.sort()...)
}

// refuseTwice sees that no named section stands in two files: the later would silently change the earlier.
func (c *Config) refuseTwice(s *source) (errs []error) {
	for _, table := range tables {
		sections, _ := s.raw[table].(map[string]any)
		for _, name := range sortedKeys(sections) {
			path := table + sep + name
			if first, twice := c.at[path]; twice {
				errs = append(errs, c.errorAt(s.at[path], show(path), fmt.Sprintf("stands in %s already", first), "give it another name, or remove one"))
			}
		}
	}
	return errs
}

// override lays the environment over the files. Names are matched without regard to case, and - and _ are the same,
// because the names of variables have neither small letters nor hyphens.
func (c *Config) override(layers *koanf.Koanf, environ []string) (errs []error) {
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, EnvPrefix)
		if !ours {
			continue
		}
		parts := strings.Split(rest, "__")
		at := layers.Raw()
		for i, part := range parts {
			parts[i] = strings.ToLower(part)
			for key := range at {
				if foldName(key) == foldName(part) {
					parts[i] = key
					break
				}
			}
			at, _ = at[parts[i]].(map[string]any)
		}
		path := strings.Join(parts, sep)
		c.at[path] = Position{File: "environment variable " + name}
		if err := layers.Set(path, envText(value)); err != nil {
			errs = append(errs, c.errorAt(c.at[path], show(path), err.Error(), ""))
		}
	}
	return errs
}

func foldName(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// sort splits the configuration into its tables and decodes those without a kind.
func (c *Config) sort() (errs []error) {
	for _, key := range sortedKeys(c.raw) {
		table, isTable := c.raw[key].(map[string]any)
		switch {
		case !isTable && (slices.Contains(tables, key) || slices.Contains(plain, key)):
			errs = append(errs, c.errorAt(c.at[key], "", fmt.Sprintf("%s: want a table, got %s", key, describe(c.raw[key])), fmt.Sprintf("write [%s]", key)))
		case key == "agent":
			errs = append(errs, c.decodeTable(table, &c.Agent, key)...)
		case key == "alerts":
			errs = append(errs, c.decodeTable(table, &c.Alerts, key)...)
		case key == "defaults":
			errs = append(errs, c.decodeTable(table, &c.Defaults, key)...)
		case slices.Contains(tables, key):
			errs = append(errs, c.takeSections(key, table)...)
		default:
			errs = append(errs, c.errorAt(c.at[key], "", fmt.Sprintf("unknown table %q", key), didYouMean(key, slices.Concat(plain, tables))))
		}
	}
	if _, err := c.Defaults.schedule(); err != nil {
		errs = append(errs, c.errorAt(c.at["defaults"], "defaults", err.Error(), ""))
	}
	if c.Alerts.Resend < time.Second {
		errs = append(errs, c.errorAt(c.at["alerts"+sep+"resend"], "alerts.resend", "must be at least 1s", ""))
	}
	if c.Agent.Concurrency < 1 {
		errs = append(errs, c.errorAt(c.at["agent"+sep+"concurrency"], "agent.concurrency", "must be at least 1", ""))
	}
	return errs
}

func (c *Config) takeSections(table string, named map[string]any) (errs []error) {
	for _, name := range sortedKeys(named) {
		raw, ok := named[name].(map[string]any)
		path := table + sep + name
		switch {
		case !ok:
			errs = append(errs, c.errorAt(c.at[path], show(path), "want a table", fmt.Sprintf("sections have a name: [%s.NAME]", table)))
			continue
		case !goodName(name):
			errs = append(errs, c.errorAt(c.at[path], show(path), "a name has 1 to 64 letters, digits, and . _ -", "rename it"))
			continue
		}
		c.sections[table] = append(c.sections[table], section{table, name, raw})
	}
	return errs
}

func goodName(name string) bool {
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return false
		}
	}
	return name != "" && len(name) <= 64
}

func (c *Config) decodeTable(raw map[string]any, into any, path string) (errs []error) {
	for _, e := range decodeStruct(raw, reflect.ValueOf(into).Elem(), nil, nil) {
		errs = append(errs, c.locate(path, e))
	}
	return errs
}

// locate gives an error of a key its place: that of the key, or of the nearest table around it.
func (c *Config) locate(prefix string, e keyError) error {
	path := strings.Join(append([]string{prefix}, e.path...), sep)
	at, known := c.at[path]
	for around := path; !known && around != ""; {
		i := strings.LastIndex(around, sep)
		if i < 0 {
			break
		}
		around = around[:i]
		at, known = c.at[around]
	}
	return c.errorAt(at, show(prefix), e.what, e.help)
}

func (c *Config) errorAt(at Position, path, what, help string) error {
	e := &ConfigError{At: at, Path: path, What: what, Help: help}
	if at.File == "" {
		e.At.File = c.Path
	}
	if s := c.sources[at.File]; s != nil {
		e.Excerpt = s.excerpt(at)
	}
	return e
}

func show(path string) string { return strings.ReplaceAll(path, sep, ".") }

// schedule makes a schedule of every or schedule, whichever was given.
func (d Defaults) schedule() (schedule, error) {
	if d.Schedule != "" {
		s, err := parseSchedule(d.Schedule)
		if err != nil {
			return s, fmt.Errorf("schedule: %w", err)
		}
		return s, nil
	}
	s, err := every(d.Every)
	if err != nil {
		return s, fmt.Errorf("every: %w", err)
	}
	return s, nil
}

// Names lists the names of a table's sections.
func (c *Config) Names(table string) (names []string) {
	for _, s := range c.sections[table] {
		names = append(names, s.name)
	}
	return names
}
