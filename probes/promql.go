package probes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/logline"
	"github.com/authvigil/authvigil/probes/wire"
)

// prometheusProbe watches real traffic where no log is at hand: it asks a Prometheus for counters of requests and refusals
// and puts their growth to the same test. Counters do not tell clients apart, so it cannot tell an attack, or a rotation of
// keys, from an outage: its alerts say so.
type prometheusProbe struct {
	URL           string `koanf:"url" help:"address of Prometheus, or of what speaks its API, such as http://127.0.0.1:9090; required"`
	Identity      string `koanf:"identity" help:"name of the identity to ask as; default: none"`
	Requests      string `koanf:"requests" help:"PromQL for the counter of requests, by endpoint: sum by (route) (http_requests_total); required"`
	Refused       string `koanf:"refused" help:"PromQL for the counter of refusals with the same labels: sum by (route) (http_requests_total{code=\"401\"}); required"`
	wire.Settings `koanf:",squash"`

	name   string
	url    *url.URL
	client *wire.Client
	who    identity.Identity
	store  identity.Store
	log    *slog.Logger

	detector *spike.Detector
	before   map[string]counters // by endpoint, as of the last run
	asked    time.Time           // when the counters were read last
	saved    time.Time
}

// counters are the totals of one endpoint.
type counters struct{ requests, refused float64 }

const (
	maxPromBody   = 32 << 20
	maxPromSeries = 1000
	pastHours     = 24              // of history that a new probe learns from
	pastStep      = 5 * time.Minute // between its points
	catchUpStep   = time.Minute     // between points after a pause
)

func newPrometheus(decode func(any) error, env Env) (Probe, error) {
	p := &prometheusProbe{name: env.Name, store: env.Store, log: cmp.Or(env.Log, slog.New(slog.DiscardHandler))}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	var err error
	if p.url, err = parseURL(p.URL); err != nil {
		errs = append(errs, fmt.Errorf("url: %w", err))
	}
	for key, expression := range map[string]string{"requests": p.Requests, "refused": p.Refused} {
		if strings.TrimSpace(expression) == "" {
			errs = append(errs, fmt.Errorf("%s: is missing; it takes the PromQL of a counter by endpoint", key))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	if p.who, err = env.as(p.Identity); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

func (p *prometheusProbe) About() About {
	return About{Endpoint: wire.ShowEndpoint(p.url), Origin: wire.Origin(p.url), Identity: p.Identity, Expected: "log"}
}

// Run reads the counters and reports what holds now.
func (p *prometheusProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	now := time.Now()
	if p.detector == nil {
		p.restore()
	}
	if p.asked.IsZero() || now.Sub(p.asked) > 5*catchUpStep {
		if err := p.past(ctx, &report, now); err != nil {
			return report, err
		}
	}
	present, err := p.read(ctx, &report, "query", url.Values{"time": {unixText(now)}})
	if err != nil {
		return report, err
	}
	for _, at := range present {
		p.grow(now, at.values, &report)
	}
	p.asked = now
	p.detector.Advance(now)
	report.Readings = append(report.Readings, levels(p.detector)...)
	report.Spikes = spikes(p.detector)
	p.save(now)
	return report, nil
}

// past learns from what Prometheus remembers, and catches up after a pause.
func (p *prometheusProbe) past(ctx context.Context, report *evidence.Report, now time.Time) error {
	from, step, quiet := p.asked, catchUpStep, false
	if from.IsZero() || now.Sub(from) > pastHours*time.Hour {
		from, step, quiet = now.Add(-pastHours*time.Hour), pastStep, true
	}
	points, err := p.read(ctx, report, "query_range", url.Values{"start": {unixText(from)}, "end": {unixText(now.Add(-step))}, "step": {strconv.Itoa(int(step.Seconds()))}})
	if err != nil {
		return err
	}
	for _, at := range points {
		if quiet {
			p.grow(at.at, at.values, nil)
		} else {
			p.grow(at.at, at.values, report)
		}
	}
	if quiet {
		p.detector.Changes() // what began and ended in the past is nobody's concern
	}
	return nil
}

// grow gives the detector what was added to the counters. A counter that fell began anew; of sums it cannot be said what is
// missing, so that the interval is left out.
func (p *prometheusProbe) grow(at time.Time, now map[string]counters, report *evidence.Report) {
	for endpoint, c := range now {
		b, known := p.before[endpoint]
		requests, refused := c.requests-b.requests, c.refused-b.refused
		if !known || requests < 0 || refused < 0 || requests > 1e9 {
			continue
		}
		p.detector.AddCounts(at, endpoint, int(math.Round(requests)), int(math.Round(refused)))
		if report == nil {
			continue
		}
		if n := int(math.Round(refused)); n > 0 {
			report.Readings = append(report.Readings, evidence.Reading{Metric: refusedLog, Labels: []string{"log", endpoint, "401"}, Value: float64(n)})
			if report.Answers == nil {
				report.Answers = map[int]int{}
			}
			report.Answers[http.StatusUnauthorized] += n
		}
	}
	p.before = now
}

// A promPoint is what the counters were at one moment.
type promPoint struct {
	at     time.Time
	values map[string]counters
}

// read asks for both counters and puts them together by endpoint and time.
func (p *prometheusProbe) read(ctx context.Context, report *evidence.Report, path string, when url.Values) ([]promPoint, error) {
	byTime := map[int64]map[string]counters{}
	for i, expression := range []string{p.Requests, p.Refused} {
		when.Set("query", expression)
		result, err := p.ask(ctx, report, path, when)
		if err != nil {
			return nil, err
		}
		if len(result) > maxPromSeries {
			return nil, sourceFault("too_many_series", fmt.Errorf("%d series; sum by an endpoint with fewer values, at most %d", len(result), maxPromSeries))
		}
		for _, s := range result {
			endpoint := s.endpoint()
			for _, v := range s.samples() {
				values := byTime[v.at]
				if values == nil {
					values = map[string]counters{}
					byTime[v.at] = values
				}
				c := values[endpoint]
				if i == 0 {
					c.requests += v.value
				} else {
					c.refused += v.value
				}
				values[endpoint] = c
			}
		}
	}
	points := make([]promPoint, 0, len(byTime))
	for at, values := range byTime {
		points = append(points, promPoint{time.UnixMilli(at), values})
	}
	slices.SortFunc(points, func(a, b promPoint) int { return a.at.Compare(b.at) })
	return points, nil
}

// promSeries is one series of an answer (Prometheus HTTP API, expression query result formats).
type promSeries struct {
	Metric map[string]string
	Value  promSample
	Values []promSample
}

// promSample is a pair of a time and a number as text.
type promSample [2]json.RawMessage

type sample struct {
	at    int64 // milliseconds
	value float64
}

func (s *promSeries) samples() (list []sample) {
	raw := s.Values
	if raw == nil {
		raw = []promSample{s.Value}
	}
	for _, r := range raw {
		at, err1 := strconv.ParseFloat(string(r[0]), 64)
		value, err2 := strconv.ParseFloat(strings.Trim(string(r[1]), `"`), 64)
		if err1 == nil && err2 == nil && at > 0 && at < 1e11 && value >= 0 && !math.IsInf(value, 0) {
			list = append(list, sample{int64(at * 1000), value})
		}
	}
	return list
}

// endpoint is what tells a series from the others: the values of its labels.
func (s *promSeries) endpoint() string {
	var values []string
	for name, value := range s.Metric {
		if name != "__name__" {
			values = append(values, name+"\x00"+value)
		}
	}
	slices.Sort(values)
	for i, v := range values {
		_, values[i], _ = strings.Cut(v, "\x00")
	}
	if len(values) == 0 {
		return "-"
	}
	return evidence.Clean(strings.Join(values, " "), logline.MaxEndpoint)
}

// ask makes one query.
func (p *prometheusProbe) ask(ctx context.Context, report *evidence.Report, path string, form url.Values) ([]promSeries, error) {
	body := form.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.JoinPath("api/v1", path).String(), strings.NewReader(body))
	if err != nil {
		return nil, sourceFault("", errors.New("the request cannot be built"))
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	grant, err := p.who.Apply(ctx, req)
	take(report, grant)
	if err != nil {
		return nil, err
	}
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageAPI, Scheme: grant.Scheme, Grant: grant.ID, MaxBody: maxPromBody, Certificate: p.who.ClientCertificate})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if answer.Chain != nil {
		report.Chain = answer.Chain
	}
	if err != nil {
		return nil, err
	}
	status := answer.Exchange.Status
	p.who.Settle(grant, identity.Outcome{Accepted: status/100 == 2, Refused: status == http.StatusUnauthorized, Status: status, Header: answer.Header})
	switch status {
	case http.StatusUnauthorized:
		return nil, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Code: "401", Err: errors.New("the Prometheus server refuses to be asked")}
	case http.StatusForbidden:
		return nil, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomForbidden, Code: "403", Err: errors.New("the Prometheus server refuses to be asked")}
	}
	var said struct {
		Status, ErrorType, Error string
		Data                     struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.Unmarshal(answer.Body, &said); err != nil {
		return nil, sourceFault("bad_answer", fmt.Errorf("the answer (%d) is not that of Prometheus", status))
	}
	if said.Status != "success" {
		return nil, sourceFault(evidence.Clean(said.ErrorType, 32), fmt.Errorf("the Prometheus server says: %s", evidence.Clean(said.Error, 300)))
	}
	var result []promSeries
	if said.Data.ResultType != "vector" && said.Data.ResultType != "matrix" {
		return nil, sourceFault("bad_answer", fmt.Errorf("the expression gives a %s; it must give counters, with or without labels", evidence.Clean(said.Data.ResultType, 32)))
	}
	if err := json.Unmarshal(said.Data.Result, &result); err != nil {
		return nil, sourceFault("bad_answer", errors.New("the result is not that of Prometheus"))
	}
	return result, nil
}

func sourceFault(code string, err error) *evidence.Fault {
	return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Code: code, Err: err}
}

func unixText(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// promState is what outlives a restart.
type promState struct {
	Detector []byte
	Asked    time.Time
	Requests map[string]float64
	Refused  map[string]float64
}

func (p *prometheusProbe) key() string { return "prometheus/" + p.name + "/learnt" }

// restore takes over what a process before this one knew.
func (p *prometheusProbe) restore() {
	p.detector, p.before = spike.New(spike.Policy{}), map[string]counters{}
	if p.store == nil {
		return
	}
	b, err := p.store.Load(p.key())
	if len(b) == 0 { // one that is older is as good
		if err != nil {
			p.log.Warn("what was usual has to be learnt again", "error", err)
		}
		return
	}
	var s promState
	d, err := p.detector, json.Unmarshal(b, &s)
	if err == nil {
		d, err = spike.Restore(spike.Policy{}, s.Detector)
	}
	if err != nil {
		p.log.Warn("what was usual has to be learnt again", "error", err)
		return
	}
	p.detector, p.asked = d, s.Asked
	for endpoint, n := range s.Requests {
		p.before[endpoint] = counters{n, s.Refused[endpoint]}
	}
}

func (p *prometheusProbe) save(now time.Time) {
	if p.store == nil || now.Sub(p.saved) < stateEvery {
		return
	}
	p.saved = now
	s := promState{Asked: p.asked, Requests: map[string]float64{}, Refused: map[string]float64{}}
	for endpoint, c := range p.before {
		s.Requests[endpoint], s.Refused[endpoint] = c.requests, c.refused
	}
	var err error
	if s.Detector, err = p.detector.Save(); err == nil {
		var b []byte
		if b, err = json.Marshal(s); err == nil {
			err = p.store.Save(p.key(), b)
		}
	}
	if err != nil {
		p.log.Warn("what was learnt is not saved", "error", err)
	}
}

// Close saves what was learnt.
func (p *prometheusProbe) Close() error {
	if p.detector != nil {
		p.saved = time.Time{}
		p.save(time.Now())
	}
	return nil
}
