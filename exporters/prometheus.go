package exporters

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
)

// prefix begins the name of every metric.
const prefix = "authvigil_"

// Prometheus shows events as metrics. It is an agent.Observer; what a scrape reads is a copy.
type Prometheus struct {
	table    *table
	own      *prometheus.Registry
	runs     *prometheus.HistogramVec
	lateness prometheus.Histogram
	probes   map[string]*shown // by probe; owned by table.mu
	gates    map[string]int    // how many probes stand behind the gate of an endpoint or identity
}

// shown is what one probe has on display.
type shown struct {
	labels   []label
	owned    map[owned]bool // series that go when the probe goes
	readings map[owned]bool // series of the last report
	causes   []owned
	present  []agentCause
	gates    [2]string // endpoint, identity
	kind     string
}

type agentCause struct{ cause, culprit string }

type owned struct{ family, key string }

// NewPrometheus makes the exporter. version is shown in build_info; health is asked at each scrape.
func NewPrometheus(version, revision, goVersion string, health func() agent.Health) *Prometheus {
	p := &Prometheus{table: newTable(), own: prometheus.NewRegistry(), probes: map[string]*shown{}, gates: map[string]int{}}
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour}
	}
	p.runs = prometheus.NewHistogramVec(histogram("run_duration_seconds", "Duration of runs by kind of probe."), []string{"kind"})
	p.lateness = prometheus.NewHistogram(histogram("schedule_lateness_seconds", "How much later than planned runs began."))
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "Version of the program; always 1.", ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion}})
	info.Set(1)
	counter := func(name, help string, get func(agent.Health) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: prefix + name, Help: help}, func() float64 { return float64(get(health())) })
	}
	p.own.MustRegister(p.runs, p.lateness, info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		counter("clock_steps_total", "Steps of the local wall clock against the monotonic clock.", func(h agent.Health) int64 { return h.ClockSteps }),
		counter("probe_panics_total", "Panics inside probes, which are defects of the program.", func(h agent.Health) int64 { return h.Panics }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "probes", Help: "Probes that are configured."}, func() float64 { return float64(health().Probes) }))
	for name, m := range declared {
		p.table.declare(prefix+name, m.help, m.counter)
	}
	findings := p.table.families[prefix+"findings_total"]
	for _, c := range diagnose.Causes() {
		findings.set([]label{{"cause", string(c)}}, 0)
	}
	return p
}

// declared are the metrics that come from events. Those of single kinds are declared beside the kind.
var declared = map[string]struct {
	help    string
	counter bool
}{
	"probe_success":                                {"1: the last run was as expected; 0: it was not; absent: unknown, because nothing was asked yet or authvigil's own machine is in trouble.", false},
	"probe_duration_seconds":                       {"Duration of the last run by stage; total is the whole run.", false},
	"runs_total":                                   {"Runs by outcome. A held run asked nothing, because a gate was closed.", true},
	"probe_last_run_timestamp_seconds":             {"Start of the last run that asked.", false},
	"probe_last_success_timestamp_seconds":         {"End of the last good run.", false},
	"exchanges_total":                              {"Requests on the wire by status; code none: no answer.", true},
	"probe_cause":                                  {"Why a probe fails; always 1, and only there while it holds.", false},
	"findings_total":                               {"Findings by cause, counted when they appear.", true},
	"gate_state":                                   {"State of a gate: 1 for the state it is in. Closed lets requests through.", false},
	"gate_retry_timestamp_seconds":                 {"Until when a gate lets nothing through; 0: it does.", false},
	"gate_trips_total":                             {"Openings of a gate.", true},
	"refused_total":                                {"Answers that refused, 401 or 403, by where they were seen.", true},
	"auth_retries_total":                           {"Second requests with a fresh grant after a 401, by outcome.", true},
	"config_last_reload_successful":                {"1: the configuration that was last read is the one that runs.", false},
	"config_last_reload_success_timestamp_seconds": {"When the running configuration was taken over.", false},
}

func (p *Prometheus) family(name string) *family { return p.table.families[prefix+name] }

// Start makes the series of a probe before its first run, so that nothing is absent that is known. names gives kind,
// endpoint and identity of each probe.
func (p *Prometheus) Start(probes []agent.Observation) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	for i := range probes {
		p.shownFor(&agent.Event{Observation: probes[i]})
	}
}

// Reloaded shows how the last reading of the configuration ended.
func (p *Prometheus) Reloaded(ok bool, at time.Time) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	v := 0.0
	if ok {
		v = 1
		p.family("config_last_reload_success_timestamp_seconds").set(nil, float64(at.Unix()))
	}
	p.family("config_last_reload_successful").set(nil, v)
}

// shownFor finds or makes what a probe has on display; table.mu is held.
func (p *Prometheus) shownFor(ev *agent.Event) *shown {
	s := p.probes[ev.Probe]
	if s == nil || s.kind != ev.Kind || s.labels[2].value != ev.About.Endpoint || s.labels[3].value != ev.About.Identity {
		if s != nil {
			p.drop(s)
		}
		s = &shown{labels: []label{{"probe", ev.Probe}, {"kind", ev.Kind}, {"endpoint", ev.About.Endpoint}, {"identity", ev.About.Identity}},
			owned: map[owned]bool{}, readings: map[owned]bool{}, kind: ev.Kind}
		p.probes[ev.Probe] = s
		for _, o := range agent.Outcomes {
			p.keep(s, "runs_total", 0, true, s.labels[0], label{"outcome", string(o)})
		}
		for _, outcome := range []string{"accepted", "refused"} {
			p.keep(s, "auth_retries_total", 0, true, s.labels[0], label{"outcome", outcome})
		}
		for i, name := range []string{ev.GateName(), ev.About.Identity} {
			if name != "" {
				s.gates[i] = name
				p.gates[scopes[i]+name]++
			}
		}
		p.runs.WithLabelValues(ev.Kind)
		if ev.About.Origin != "" && ev.Kind == "http" {
			for _, code := range []string{"401", "403"} {
				p.keep(s, "refused_total", 0, true, label{"source", "probe"}, s.labels[2], label{"code", code})
			}
		}
	}
	return s
}

var scopes = [2]string{"endpoint", "identity"}

// keep sets or adds to a series that goes when the probe goes.
func (p *Prometheus) keep(s *shown, name string, v float64, add bool, labels ...label) {
	f := p.family(name)
	var key string
	if add {
		key = f.add(labels, v)
	} else {
		key = f.set(labels, v)
	}
	s.owned[owned{f.name, key}] = true
}

// Observe implements agent.Observer.
func (p *Prometheus) Observe(ev agent.Event) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	s := p.shownFor(&ev)
	outcome := ev.Outcome()
	probe := s.labels[0]
	p.keep(s, "runs_total", 1, true, probe, label{"outcome", string(outcome)})
	p.showGates(s, &ev)
	if outcome == agent.RunHeld {
		return
	}
	p.runs.WithLabelValues(ev.Kind).Observe(ev.Took.Seconds())
	p.lateness.Observe(ev.Late.Seconds())
	p.keep(s, "probe_last_run_timestamp_seconds", seconds(ev.Started), false, probe)
	switch outcome {
	case agent.RunOK:
		p.keep(s, "probe_success", 1, false, s.labels...)
		p.keep(s, "probe_last_success_timestamp_seconds", seconds(ev.LastOK), false, probe)
	case agent.RunFault:
		p.keep(s, "probe_success", 0, false, s.labels...)
	default:
		f := p.family("probe_success")
		f.remove(keyOf(s.labels))
	}
	p.showExchanges(s, &ev)
	p.showReadings(s, &ev)
	p.showCauses(s, &ev)
}

func (p *Prometheus) showExchanges(s *shown, ev *agent.Event) {
	probe := s.labels[0]
	var resolve, connect, tls, token, api time.Duration
	for i := range ev.Report.Exchanges {
		x := &ev.Report.Exchanges[i]
		code := "none"
		if x.Status != 0 {
			code = strconv.Itoa(x.Status)
		}
		p.keep(s, "exchanges_total", 1, true, probe, label{"stage", string(x.Stage)}, label{"code", code})
		resolve, connect, tls = resolve+x.Timing.Resolve, connect+x.Timing.Connect, tls+x.Timing.TLS
		switch x.Stage {
		case evidence.StageToken, evidence.StageDiscovery:
			token += x.Took
		case evidence.StageAPI:
			api += max(x.Took-x.Timing.Resolve-x.Timing.Connect-x.Timing.TLS, 0)
			if x.Status == http.StatusUnauthorized || x.Status == http.StatusForbidden {
				p.keep(s, "refused_total", 1, true, label{"source", "probe"}, s.labels[2], label{"code", code})
			}
		}
		if x.Purpose == evidence.WithFreshGrant {
			outcome := "refused"
			if x.Status/100 == 2 {
				outcome = "accepted"
			}
			p.keep(s, "auth_retries_total", 1, true, probe, label{"outcome", outcome})
		}
	}
	stage := func(name string, d time.Duration) {
		p.keep(s, "probe_duration_seconds", d.Seconds(), false, probe, label{"stage", name})
	}
	stage("total", ev.Took)
	if len(ev.Report.Exchanges) > 0 {
		stage("resolve", resolve)
		stage("connect", connect)
		stage("tls", tls)
		if ev.Kind == "http" {
			stage("api", api)
		}
		if ev.About.Identity != "" {
			stage("token", token)
		}
	}
}

// showReadings replaces the readings of the run before; counters stay.
func (p *Prometheus) showReadings(s *shown, ev *agent.Event) {
	now := make(map[owned]bool, len(ev.Report.Readings))
	for i := range ev.Report.Readings {
		r := &ev.Report.Readings[i]
		f := p.table.declare(prefix+r.Metric.Name, r.Metric.Help, r.Metric.Counter)
		labels, rest := make([]label, 0, len(r.Metric.Labels)), r.Labels
		for _, name := range r.Metric.Labels {
			l := label{name: name}
			if at := slices.IndexFunc(s.labels, func(have label) bool { return have.name == name }); at >= 0 {
				l.value = s.labels[at].value
			} else if len(rest) > 0 {
				l.value, rest = rest[0], rest[1:]
			}
			labels = append(labels, l)
		}
		if r.Metric.Counter {
			s.owned[owned{f.name, f.add(labels, r.Value)}] = true
			continue
		}
		now[owned{f.name, f.set(labels, r.Value)}] = true
	}
	if ev.Fault != nil && len(ev.Report.Readings) == 0 {
		return // a run that brought nothing home leaves the last word standing, as the timestamps say
	}
	for o := range s.readings {
		if !now[o] {
			p.table.families[o.family].remove(o.key)
		}
	}
	s.readings = now
}

func (p *Prometheus) showCauses(s *shown, ev *agent.Event) {
	f := p.family("probe_cause")
	before := s.present
	for _, o := range s.causes {
		f.remove(o.key)
	}
	s.causes, s.present = s.causes[:0], nil
	for i, finding := range ev.Findings {
		at := agentCause{string(finding.Cause), finding.Culprit}
		if i > 0 && finding.Sure == diagnose.Possible {
			continue // a lesser explanation is for the page, not for a series
		}
		key := f.set([]label{s.labels[0], {"cause", at.cause}, {"culprit", at.culprit}, {"sureness", string(finding.Sure)}}, 1)
		s.causes = append(s.causes, owned{f.name, key})
		s.present = append(s.present, at)
		if !slices.Contains(before, at) {
			p.family("findings_total").add([]label{{"cause", at.cause}}, 1)
		}
	}
}

func (p *Prometheus) showGates(s *shown, ev *agent.Event) {
	for i, state := range []pace.State{ev.Gate, ev.IdentityGate} {
		if s.gates[i] == "" {
			continue
		}
		scope, name := label{"scope", scopes[i]}, label{"name", s.gates[i]}
		for _, position := range pace.Positions {
			v := 0.0
			if state.Position == position {
				v = 1
			}
			p.family("gate_state").set([]label{scope, name, {"state", string(position)}}, v)
		}
		again := 0.0
		if state.Again.After(ev.Started) {
			again = seconds(state.Again)
		}
		p.family("gate_retry_timestamp_seconds").set([]label{scope, name}, again)
		p.family("gate_trips_total").set([]label{scope, name}, float64(state.Total))
	}
}

// Forget implements agent.Observer.
func (p *Prometheus) Forget(probe string) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if s := p.probes[probe]; s != nil {
		p.drop(s)
		delete(p.probes, probe)
	}
}

// drop removes all series of a probe, and those of gates that nobody stands behind any more.
func (p *Prometheus) drop(s *shown) {
	for _, set := range []map[owned]bool{s.owned, s.readings} {
		for o := range set {
			p.table.families[o.family].remove(o.key)
		}
	}
	for _, o := range s.causes {
		p.table.families[o.family].remove(o.key)
	}
	for i, name := range s.gates {
		if name == "" {
			continue
		}
		key := scopes[i] + name
		if p.gates[key]--; p.gates[key] > 0 {
			continue
		}
		delete(p.gates, key)
		scope, name := label{"scope", scopes[i]}, label{"name", name}
		for _, position := range pace.Positions {
			p.family("gate_state").remove(keyOf([]label{scope, name, {"state", string(position)}}))
		}
		p.family("gate_retry_timestamp_seconds").remove(keyOf([]label{scope, name}))
		p.family("gate_trips_total").remove(keyOf([]label{scope, name}))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// Gather implements prometheus.Gatherer.
func (p *Prometheus) Gather() ([]*dto.MetricFamily, error) {
	list, err := p.own.Gather()
	list = append(list, p.table.gather()...)
	slices.SortFunc(list, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list, err
}

// Handler serves the metrics, as text, OpenMetrics or protobuf with native histograms, compressed where asked for.
func (p *Prometheus) Handler() http.Handler {
	return promhttp.HandlerFor(p, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true, OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip}})
}
