package exporters

import (
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

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
	peers    map[peerName]*peerShown
}

// shown is what one probe has on display.
type shown struct {
	labels   []label
	owned    []*series // that go when the probe goes
	readings []*series // of the last report
	causes   []*series
	present  []agentCause
	gates    [2]string // endpoint, identity
	peers    []peerName
	kind     string

	success          *series // nil while unknown
	lastRun, lastOK  *series
	runs             [4]*series // by place in agent.Outcomes
	stages           [6]*series // by place in stageNames
	endpoint, client [5]*series // of the gates: positions, retry, trips
}

type agentCause struct{ cause, culprit string }

// NewPrometheus makes the exporter. version is shown in build_info; health is asked at each scrape.
func NewPrometheus(version, revision, goVersion string, health func() agent.Health) *Prometheus {
	p := &Prometheus{table: newTable(), own: prometheus.NewRegistry(), probes: map[string]*shown{}, gates: map[string]int{}, peers: map[peerName]*peerShown{}}
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
		counter("log_lines_dropped_total", "Lines of the log that were dropped because nobody read it.", func(h agent.Health) int64 { return h.LinesDropped }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "clock_last_step_seconds", Help: "The last step of the local wall clock against the monotonic clock, positive: forward. A machine that slept looks the same; 0: none was seen."}, func() float64 { return health().ClockStep.Seconds() }),
		counter("probe_panics_total", "Panics inside probes, which are defects of the program.", func(h agent.Health) int64 { return h.Panics }),
		&distressCollector{health, prometheus.NewDesc(prefix+"distress", "1: authvigil itself suffers from what the label says; 0: it does not.", []string{"what"}, nil)},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + "probes", Help: "Probes that are configured."}, func() float64 { return float64(health().Probes) }))
	p.own.MustRegister(newAlertCollector(health))
	for name, m := range declared {
		p.table.declare(prefix+name, m.help, m.counter)
	}
	findings := p.table.families[prefix+"findings_total"]
	for _, c := range diagnose.Causes() {
		p.table.series(findings, label{"cause", string(c)})
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
	"clock_peer_skew_seconds":                      {"Local clock minus the clock of a server that is watched, or of an issuer; positive: we are ahead. Method: Date header of ordinary answers, or iat of tokens.", false},
	"clock_peer_bound_seconds":                     {"Half-width of the interval around clock_peer_skew_seconds that holds the true difference.", false},
	"clock_peer_backends_disagree":                 {"1: several servers answer to this name, and their clocks differ.", false},
	"config_last_reload_successful":                {"1: the configuration that was last read is the one that runs.", false},
	"config_last_reload_success_timestamp_seconds": {"When the running configuration was taken over.", false},
}

// Start makes the series of a probe before its first run, so that nothing is absent that is known. names gives kind,
// endpoint and identity of each probe.
func (p *Prometheus) Start(probes []agent.Observation) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	for i := range probes {
		p.shownFor(&probes[i])
	}
}

// Reloaded shows how the last reading of the configuration ended.
func (p *Prometheus) Reloaded(ok bool, at time.Time) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	v := 0.0
	if ok {
		v = 1
		p.series("config_last_reload_success_timestamp_seconds").value = float64(at.Unix())
	}
	p.series("config_last_reload_successful").value = v
}

func (p *Prometheus) series(name string, labels ...label) *series {
	return p.table.series(p.table.families[prefix+name], labels...)
}

// owns finds or makes a series that goes when the probe goes.
func (p *Prometheus) owns(s *shown, name string, labels ...label) *series {
	f := p.table.families[prefix+name]
	before := len(f.list)
	r := p.table.series(f, labels...)
	if len(f.list) > before {
		s.owned = append(s.owned, r)
	}
	return r
}

// shownFor finds or makes what a probe has on display; the table's mutex is held.
func (p *Prometheus) shownFor(o *agent.Observation) *shown {
	s := p.probes[o.Probe]
	if s != nil && s.kind == o.Kind && s.labels[2].value == o.About.Endpoint && s.labels[3].value == o.About.Identity {
		return s
	}
	if s != nil {
		p.drop(s)
		p.dropPeers(o.Probe, s.peers, nil)
	}
	s = &shown{labels: []label{{"probe", o.Probe}, {"kind", o.Kind}, {"endpoint", o.About.Endpoint}, {"identity", o.About.Identity}}, kind: o.Kind}
	p.probes[o.Probe] = s
	probe := s.labels[0]
	for i, outcome := range agent.Outcomes {
		s.runs[i] = p.owns(s, "runs_total", probe, label{"outcome", string(outcome)})
	}
	if o.Kind == "http" {
		for _, code := range []string{"401", "403"} {
			p.owns(s, "refused_total", label{"source", "probe"}, s.labels[2], label{"code", code})
		}
		if o.About.Identity != "" {
			for _, outcome := range []string{"accepted", "refused"} {
				p.owns(s, "auth_retries_total", probe, label{"outcome", outcome})
			}
		}
	}
	for i, name := range []string{o.GateName(), o.About.Identity} {
		if name == "" {
			continue
		}
		s.gates[i] = name
		p.gates[scopes[i]+name]++
		into := [2]*[5]*series{&s.endpoint, &s.client}[i]
		scope, of := label{"scope", scopes[i]}, label{"name", name}
		for k, position := range pace.Positions {
			into[k] = p.series("gate_state", scope, of, label{"state", string(position)})
		}
		into[0].value = 1
		into[3], into[4] = p.series("gate_retry_timestamp_seconds", scope, of), p.series("gate_trips_total", scope, of)
	}
	p.runs.WithLabelValues(o.Kind)
	return s
}

var scopes = [2]string{"endpoint", "identity"}

// Observe implements agent.Observer.
func (p *Prometheus) Observe(ev *agent.Event) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	s := p.shownFor(&ev.Observation)
	outcome := ev.Outcome()
	s.runs[slices.Index(agent.Outcomes, outcome)].value++
	showGate(&s.endpoint, ev.Gate, ev.Started)
	showGate(&s.client, ev.IdentityGate, ev.Started)
	if outcome == agent.RunHeld {
		return
	}
	p.runs.WithLabelValues(ev.Kind).Observe(ev.Took.Seconds())
	p.lateness.Observe(ev.Late.Seconds())
	if s.lastRun == nil {
		s.lastRun = p.owns(s, "probe_last_run_timestamp_seconds", s.labels[0])
	}
	s.lastRun.value = seconds(ev.Started)
	p.showSuccess(s, ev, outcome)
	p.showExchanges(s, ev)
	p.showReadings(s, ev)
	p.showPeers(s, ev)
	p.showCauses(s, ev)
}

func (p *Prometheus) showSuccess(s *shown, ev *agent.Event, outcome agent.Outcome) {
	if outcome == agent.RunUnknown {
		if s.success != nil {
			s.success.remove()
			s.success = nil
		}
		return
	}
	if s.success == nil {
		s.success = p.series("probe_success", s.labels...)
	}
	s.success.value = 0
	if outcome == agent.RunOK {
		s.success.value = 1
		if s.lastOK == nil {
			s.lastOK = p.owns(s, "probe_last_success_timestamp_seconds", s.labels[0])
		}
		s.lastOK.value = seconds(ev.LastOK)
	}
}

func (p *Prometheus) showExchanges(s *shown, ev *agent.Event) {
	probe := s.labels[0]
	var resolve, connect, tls, token, api time.Duration
	for i := range ev.Report.Exchanges {
		x := &ev.Report.Exchanges[i]
		if x.Recalled {
			continue
		}
		code := "none"
		if x.Status != 0 {
			code = strconv.Itoa(x.Status)
		}
		p.owns(s, "exchanges_total", probe, label{"stage", string(x.Stage)}, label{"code", code}).value++
		resolve, connect, tls = resolve+x.Timing.Resolve, connect+x.Timing.Connect, tls+x.Timing.TLS
		switch x.Stage {
		case evidence.StageToken, evidence.StageDiscovery:
			token += x.Took
		case evidence.StageAPI:
			api += max(x.Took-x.Timing.Resolve-x.Timing.Connect-x.Timing.TLS, 0)
			if (x.Status == http.StatusUnauthorized || x.Status == http.StatusForbidden) && x.Purpose != evidence.WithoutGrant && x.Purpose != evidence.WithNextSecret {
				p.owns(s, "refused_total", label{"source", "probe"}, s.labels[2], label{"code", code}).value++
			}
		}
		if x.Purpose == evidence.WithFreshGrant {
			outcome := "refused"
			if x.Status/100 == 2 {
				outcome = "accepted"
			}
			p.owns(s, "auth_retries_total", probe, label{"outcome", outcome}).value++
		}
	}
	took := [6]time.Duration{ev.Took, resolve, connect, tls, api, token}
	there := [6]bool{true}
	if len(ev.Report.Exchanges) > 0 {
		there = [6]bool{true, true, true, true, ev.Kind == "http", ev.About.Identity != ""}
	}
	for i, name := range stageNames {
		if !there[i] {
			continue
		}
		if s.stages[i] == nil {
			s.stages[i] = p.owns(s, "probe_duration_seconds", probe, label{"stage", name})
		}
		s.stages[i].value = took[i].Seconds()
	}
}

// stageNames are the stages of a run as the metric names them.
var stageNames = [6]string{"total", "resolve", "connect", "tls", "api", "token"}

// showReadings replaces the readings of the run before; counters stay.
func (p *Prometheus) showReadings(s *shown, ev *agent.Event) {
	if len(ev.Report.Readings) == 0 && (len(s.readings) == 0 || ev.Fault != nil) {
		return // a run that brought nothing home leaves the last word standing, as the timestamps say
	}
	now := make([]*series, 0, len(ev.Report.Readings))
	for i := range ev.Report.Readings {
		r := &ev.Report.Readings[i]
		f := p.table.declare(prefix+r.Metric.Name, r.Metric.Help, r.Metric.Counter)
		labels, rest := make([]label, 0, len(r.Metric.Labels)), r.Labels
		own := len(rest) == len(r.Metric.Labels) // such as endpoints found in a log: none of the labels is the probe's
		for _, name := range r.Metric.Labels {
			l := label{name: name}
			if own {
				l.value, rest = rest[0], rest[1:]
			} else if at := slices.IndexFunc(s.labels, func(have label) bool { return have.name == name }); at >= 0 {
				l.value = s.labels[at].value
			} else if len(rest) > 0 {
				l.value, rest = rest[0], rest[1:]
			}
			labels = append(labels, l)
		}
		if r.Metric.Counter {
			p.owns(s, r.Metric.Name, labels...).value += r.Value
			continue
		}
		one := p.table.series(f, labels...)
		one.value = r.Value
		now = append(now, one)
	}
	for _, before := range s.readings {
		if !slices.Contains(now, before) {
			before.remove()
		}
	}
	s.readings = now
}

func (p *Prometheus) showCauses(s *shown, ev *agent.Event) {
	if len(s.causes) == 0 && len(ev.Findings) == 0 {
		return
	}
	before := s.present
	for _, c := range s.causes {
		c.remove()
	}
	s.causes, s.present = s.causes[:0], nil
	for i, finding := range ev.Findings {
		at := agentCause{string(finding.Cause), finding.Culprit}
		if i > 0 && finding.Sure == diagnose.Possible {
			continue // a lesser explanation is for the page, not for a series
		}
		one := p.series("probe_cause", s.labels[0], label{"cause", at.cause}, label{"culprit", at.culprit}, label{"sureness", string(finding.Sure)})
		one.value = 1
		s.causes = append(s.causes, one)
		s.present = append(s.present, at)
		if !slices.Contains(before, at) {
			p.series("findings_total", label{"cause", at.cause}).value++
		}
	}
}

func showGate(into *[5]*series, state pace.State, now time.Time) {
	if into[0] == nil || state.Position == "" {
		return
	}
	for k, position := range pace.Positions {
		into[k].value = 0
		if state.Position == position {
			into[k].value = 1
		}
	}
	into[3].value, into[4].value = 0, float64(state.Total)
	if state.Again.After(now) {
		into[3].value = seconds(state.Again)
	}
}

// Forget implements agent.Observer.
func (p *Prometheus) Forget(probe string) {
	p.table.mu.Lock()
	defer p.table.mu.Unlock()
	if s := p.probes[probe]; s != nil {
		p.drop(s)
		p.dropPeers(probe, s.peers, nil)
		delete(p.probes, probe)
	}
}

// drop removes all series of a probe, and those of gates that nobody stands behind any more.
func (p *Prometheus) drop(s *shown) {
	for _, list := range [][]*series{s.owned, s.readings, s.causes} {
		for _, one := range list {
			one.remove()
		}
	}
	if s.success != nil {
		s.success.remove()
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
		for _, one := range [2]*[5]*series{&s.endpoint, &s.client}[i] {
			one.remove()
		}
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

// Handler serves the metrics: as text from the lines that are kept ready, as OpenMetrics or protobuf with native histograms
// for scrapers that ask for it; compressed where asked for.
func (p *Prometheus) Handler() http.Handler {
	options := promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true, OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip}}
	full := promhttp.HandlerFor(p, options)
	inFlight := make(chan struct{}, 4)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if accept := r.Header.Get("Accept"); strings.Contains(accept, "protobuf") || strings.Contains(accept, "openmetrics") && !strings.Contains(accept, "text/plain") {
			full.ServeHTTP(w, r)
			return
		}
		select {
		case inFlight <- struct{}{}:
			defer func() { <-inFlight }()
		default:
			http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
		w.Header().Set("Vary", "Accept, Accept-Encoding")
		var out io.Writer = w
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
			if err != nil {
				http.Error(w, "no compression", http.StatusInternalServerError)
				return
			}
			defer z.Close()
			out = z
		}
		if err := p.writeText(out); err != nil {
			return // the scraper is gone; nobody is there to be told
		}
	})
}

// writeText writes all metrics in the text format.
func (p *Prometheus) writeText(out io.Writer) error {
	own, err := p.own.Gather()
	if err != nil {
		return err
	}
	encoder := expfmt.NewEncoder(out, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range own {
		if err := encoder.Encode(f); err != nil {
			return err
		}
	}
	return p.table.write(out)
}
