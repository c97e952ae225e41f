package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// Env is what the agent may touch besides its configuration.
type Env struct {
	Net    wire.Net
	Jitter func() float64 // in [0, 1)
	Store  identity.Store // nil: nothing outlives the process
	Log    *slog.Logger
	Host   probes.Host // what this machine says of its own clock; zero: nothing
	// Thorough has probes ask all that helps to tell causes apart at once, also where nothing fails.
	Thorough bool

	shared *probes.Shared         // made by New
	peers  func() []evidence.Peer // clocks of others; made by New
}

// A world is everything that a configuration describes, built and ready to run.
type world struct {
	config      *Config
	identities  map[string]*builtIdentity
	probes      map[string]*builtProbe
	sinks       map[string]*builtSink
	maintenance []*maintenance
	issuers     map[string]string // by origin: of the identities that ask there; empty where they have several
}

type builtSink struct {
	raw       map[string]any
	uses      []string // identities
	receivers []*alert.Receiver
}

type builtIdentity struct {
	name string
	raw  map[string]any
	kind string
	identity.Identity
	settings any
}

type builtProbe struct {
	name     string
	raw      map[string]any
	common   probeCommon
	plan     schedule
	timeout  time.Duration
	about    probes.About
	uses     []string // identities
	probe    probes.Probe
	settings any
}

// build makes everything a configuration describes. The error joins a *ConfigError for everything that is wrong. What is
// the same in old, another world, is taken over from it as it runs. clock gives the last verdict on the local clock.
func build(c *Config, env Env, old *world, clock func() (evidence.Clock, bool)) (*world, error) {
	w := &world{config: c, identities: map[string]*builtIdentity{}, probes: map[string]*builtProbe{}, sinks: map[string]*builtSink{}, issuers: map[string]string{}}
	var errs []error
	for _, s := range c.sections["identity"] {
		b, err := w.buildIdentity(s, env, old)
		errs = append(errs, err...)
		if b != nil {
			w.identities[s.name] = b
		}
	}
	for _, s := range c.sections["probe"] {
		b, err := w.buildProbe(s, env, old, clock)
		errs = append(errs, err...)
		if b != nil {
			w.probes[s.name] = b
		}
	}
	for _, s := range c.sections["sink"] {
		b, err := w.buildSink(s, env, old)
		errs = append(errs, err...)
		w.sinks[s.name] = b
	}
	for _, s := range c.sections["maintenance"] {
		m, err := w.buildMaintenance(s)
		errs = append(errs, err...)
		w.maintenance = append(w.maintenance, m)
	}
	for _, name := range sortedKeys(w.probes) {
		w.noteIssuer(w.probes[name])
	}
	return w, errors.Join(errs...)
}

// noteIssuer notes whose tokens an origin takes.
func (w *world) noteIssuer(b *builtProbe) {
	id := w.identities[b.about.Identity]
	if id == nil || b.about.Origin == "" {
		return
	}
	issuer := id.Status().Issuer
	if before, known := w.issuers[b.about.Origin]; known && before != issuer {
		issuer = ""
	}
	w.issuers[b.about.Origin] = issuer
}

func (w *world) buildSink(s section, env Env, old *world) (*builtSink, []error) {
	if old != nil {
		if same := old.sinks[s.name]; same != nil && reflect.DeepEqual(same.raw, s.raw) && w.sameIdentities(same.uses, old) {
			return same, nil
		}
	}
	o := open(w.config, s, &named{})
	kind := o.common.(*named).Kind
	if wrong := o.wrongKind(kind, alert.Kinds()); wrong != nil {
		return nil, append(o.errs, wrong)
	}
	b := &builtSink{raw: s.raw}
	var err error
	b.receivers, err = alert.NewSink(kind, o.decode, alert.Env{Dial: env.Net.Dial, Roots: env.Net.Roots, Proof: func(name string) (alert.Proof, error) {
		id, err := w.identity(name)
		if err != nil {
			return nil, err
		}
		b.uses = append(b.uses, name)
		return proof{id}, nil
	}})
	w.config.warnOfLiterals(o)
	return b, o.collect(err)
}

// identity finds one that was built.
func (w *world) identity(name string) (identity.Identity, error) {
	id, ok := w.identities[name]
	switch {
	case ok:
		return id.Identity, nil
	case slices.Contains(w.config.Names("identity"), name):
		return nil, fmt.Errorf("%q has an error of its own", name)
	default:
		return nil, fmt.Errorf("there is no [identity.%s]; %s", name, didYouMean(name, w.config.Names("identity")))
	}
}

// sameIdentities says whether identities are those of another world.
func (w *world) sameIdentities(names []string, old *world) bool {
	for _, name := range names {
		if w.identities[name] == nil || w.identities[name] != old.identities[name] {
			return false
		}
	}
	return true
}

// receivers gives those of all sinks.
func (w *world) receivers() map[string][]*alert.Receiver {
	all := map[string][]*alert.Receiver{}
	for name, b := range w.sinks {
		all[name] = b.receivers
	}
	return all
}

// A proof is an identity as sinks use it.
type proof struct{ identity.Identity }

// Apply implements [alert.Proof].
func (p proof) Apply(ctx context.Context, req *http.Request) (func(int, http.Header) bool, error) {
	g, err := p.Identity.Apply(ctx, req)
	if err != nil {
		return nil, err
	}
	return func(status int, header http.Header) bool {
		return p.Settle(g, identity.Outcome{Accepted: status/100 == 2, Refused: status == http.StatusUnauthorized, Status: status, Header: header})
	}, nil
}

func (w *world) buildIdentity(s section, env Env, old *world) (*builtIdentity, []error) {
	if old != nil {
		if same, ok := old.identities[s.name]; ok && reflect.DeepEqual(same.raw, s.raw) {
			return same, nil
		}
	}
	o := open(w.config, s, &named{})
	common := o.common.(*named)
	if wrong := o.wrongKind(common.Kind, identity.Kinds()); wrong != nil {
		return nil, append(o.errs, wrong)
	}
	id, err := identity.New(common.Kind, o.decode, identity.Env{Name: s.name, Net: env.Net, Store: env.Store, Jitter: env.Jitter, Log: env.Log.With("identity", s.name), Environment: w.config.Agent.Environment})
	if errs := o.collect(err); len(errs) > 0 {
		return nil, errs
	}
	w.config.warnOfLiterals(o)
	w.config.warnOfForm(o, id)
	return &builtIdentity{s.name, s.raw, common.Kind, id, o.target}, nil
}

func (w *world) buildProbe(s section, env Env, old *world, clock func() (evidence.Clock, bool)) (*builtProbe, []error) {
	o := open(w.config, s, &probeCommon{})
	common := *o.common.(*probeCommon)
	b := &builtProbe{name: s.name, raw: s.raw, common: common, timeout: common.Timeout}
	if b.timeout == 0 {
		b.timeout = w.config.Defaults.Timeout
	}
	plan := Defaults{Every: common.Every, Schedule: common.Schedule}
	if plan.Every == 0 && plan.Schedule == "" {
		plan = w.config.Defaults
	}
	var err error
	if b.plan, err = plan.schedule(); err != nil {
		o.fail(err)
	}
	if common.Severity != "" && common.Severity != "critical" && common.Severity != "warning" {
		o.fail(fmt.Errorf("severity: %q is neither critical nor warning", common.Severity))
	}
	o.fail(goodLabels(common.Labels))
	if wrong := o.wrongKind(common.Kind, probes.Kinds()); wrong != nil {
		return nil, append(o.errs, wrong)
	}
	if common.Disabled {
		return nil, o.errs
	}
	if same := w.unchanged(b, old); same != nil && len(o.errs) == 0 {
		return same, nil
	}
	find := func(name string) (identity.Identity, error) {
		id, err := w.identity(name)
		if err == nil {
			b.uses = append(b.uses, name)
		}
		return id, err
	}
	b.probe, err = probes.New(common.Kind, o.decode, probes.Env{Name: s.name, Net: env.Net, Identity: find, Store: env.Store, Clock: clock, Peers: env.peers, Host: env.Host, Shared: env.shared, Log: env.Log.With("probe", s.name), Thorough: env.Thorough})
	if errs := o.collect(err); len(errs) > 0 {
		return nil, errs
	}
	b.settings = o.target
	b.about = b.probe.About()
	w.config.warnOfLiterals(o)
	return b, nil
}

// unchanged finds the same probe in another world: equal settings, equal times, the same identities.
func (w *world) unchanged(b *builtProbe, old *world) *builtProbe {
	if old == nil {
		return nil
	}
	same, ok := old.probes[b.name]
	if !ok || !reflect.DeepEqual(same.raw, b.raw) || same.timeout != b.timeout || !reflect.DeepEqual(same.plan, b.plan) {
		return nil
	}
	if !w.sameIdentities(same.uses, old) {
		return nil
	}
	return same
}

// opened is a section while it is being built: it decodes for the kind, and gives errors their place.
type opened struct {
	config *Config
	section
	common any
	known  []string
	target any
	errs   []error
}

// errDecoded tells a constructor that its settings are wrong; what is wrong is noted already.
var errDecoded = errors.New("the settings are wrong")

func open(c *Config, s section, common any) *opened {
	o := &opened{config: c, section: s, common: common}
	v := reflect.ValueOf(common).Elem()
	mine := map[string]any{}
	for _, f := range fieldsOf(v) {
		o.known = append(o.known, f.name)
		if value, ok := s.raw[f.name]; ok {
			mine[f.name] = value
		}
	}
	for _, e := range decodeStruct(mine, v, nil, nil) {
		o.errs = append(o.errs, c.locate(o.path(), e))
	}
	return o
}

// decode fills the settings of the kind with all keys that are not common ones.
func (o *opened) decode(into any) error {
	o.target = into
	v := reflect.ValueOf(into).Elem()
	wrong := decodeStruct(o.raw, v, o.known, nil)
	for _, e := range wrong {
		o.errs = append(o.errs, o.config.locate(o.path(), e))
	}
	for _, f := range fieldsOf(v) {
		o.known = append(o.known, f.name)
	}
	if len(wrong) > 0 {
		return errDecoded
	}
	return nil
}

// collect gives the errors of a constructor their places; by convention each begins with the key it is about.
func (o *opened) collect(err error) []error {
	for _, e := range flatten(err) {
		if !errors.Is(e, errDecoded) {
			o.fail(e)
		}
	}
	return o.errs
}

func (o *opened) fail(err error) {
	if err == nil {
		return
	}
	what := err.Error()
	e := keyError{what: what}
	if key, _, found := strings.Cut(what, ":"); found && slices.Contains(o.known, key) {
		e.path = []string{key}
	}
	o.errs = append(o.errs, o.config.locate(o.path(), e))
}

// wrongKind says what is wrong with the kind of a section, if anything is.
func (o *opened) wrongKind(kind string, kinds []string) error {
	list := strings.Join(kinds, ", ")
	switch {
	case kind == "":
		return o.config.locate(o.path(), keyError{what: "kind is missing", help: "one of " + list})
	case !slices.Contains(kinds, kind):
		help := didYouMean(kind, slices.Clone(kinds))
		if strings.HasSuffix(help, "?") {
			help += " There are " + list
		}
		return o.config.locate(o.path(), keyError{path: []string{"kind"}, what: fmt.Sprintf("unknown kind %q", kind), help: help})
	}
	return nil
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var list []error
		for _, e := range joined.Unwrap() {
			list = append(list, flatten(e)...)
		}
		return list
	}
	return []error{err}
}

// warnOfForm notes what is wrong with secrets that lie on this machine, before a server is asked with them.
func (c *Config) warnOfForm(o *opened, id identity.Identity) {
	l, ok := id.(identity.Linter)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lintTime)
	defer cancel()
	for _, n := range l.Lint(ctx) {
		c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s: %s", c.at[o.path("kind")], show(o.path()), n.Detail))
	}
	slices.Sort(c.Warnings)
}

// lintTime bounds reading one secret while a configuration is built: a file, on a disk that may hang.
const lintTime = 2 * time.Second

// warnOfLiterals notes secrets that stand in the file itself.
func (c *Config) warnOfLiterals(o *opened) {
	for key, value := range o.raw {
		text, _ := value.(string)
		if strings.HasPrefix(text, "plain:") {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s: the secret stands in the file itself; file:, credential: or env: keep it out of backups and version control", c.at[o.path(key)], show(o.path(key))))
		}
		if name := credentialInQuery(text); name != "" {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: %s: parameter %s looks like a credential; an identity of kind api_key with query = %q keeps it out of the file", c.at[o.path(key)], show(o.path(key)), name, name))
		}
	}
	slices.Sort(c.Warnings)
}

// credentialInQuery names a parameter of a URL that looks like a credential.
func credentialInQuery(text string) string {
	_, query, ok := strings.Cut(text, "?")
	if !ok || !strings.Contains(text, "://") {
		return ""
	}
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		for _, word := range []string{"key", "token", "secret", "passw", "signature"} {
			if value != "" && strings.Contains(strings.ToLower(name), word) {
				return evidence.Clean(name, 64)
			}
		}
	}
	return ""
}
