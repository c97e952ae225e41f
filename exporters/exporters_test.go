package exporters

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

func event(name string, fault *evidence.Fault) *agent.Event {
	ev := &agent.Event{Observation: agent.Observation{Probe: name, Kind: "http", About: probes.About{Endpoint: name + ".example.test/x", Identity: "who", Origin: "https://" + name + ".example.test:443"}, Started: time.Now(), Took: 20 * time.Millisecond, Fault: fault},
		Gate: pace.State{Position: pace.Closed}, IdentityGate: pace.State{Position: pace.Closed}}
	x := evidence.Exchange{Stage: evidence.StageAPI, Method: "GET", URL: "https://" + name + ".example.test/x", Status: 200, Took: 10 * time.Millisecond}
	if fault != nil {
		x.Status, x.Body = 401, `<script>alert(1)</script>`+"\x1b[31m"
		x.Header = map[string][]string{"Www-Authenticate": {`Bearer error="<img src=x onerror=alert(1)>"`}}
		ev.Findings = []diagnose.Finding{{Cause: diagnose.TokenExpired, Culprit: "identity:who", Sure: diagnose.Likely, Because: []string{"<b>because</b>"}, Remedy: "obtain a new token"}}
		ev.Failing, ev.InARow = ev.Started, 1
	}
	ev.Report.Exchanges = []evidence.Exchange{x}
	return ev
}

func refused() *evidence.Fault {
	return &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Code: "401", Err: errors.New("answered 401")}
}

func scrape(t *testing.T, p *Prometheus, accept string) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("/metrics answered %d", w.Code)
	}
	return w.Body.String()
}

func newPrometheus() *Prometheus {
	return NewPrometheus("test", "", "", func() agent.Health { return agent.Health{} })
}

func TestPrometheus_seriesComeAndGo(t *testing.T) {
	p := newPrometheus()
	p.Start([]agent.Observation{event("a", nil).Observation})
	before := scrape(t, p, "")
	for _, want := range []string{
		`authvigil_runs_total{probe="a",outcome="ok"} 0`, `authvigil_runs_total{probe="a",outcome="held"} 0`, `authvigil_findings_total{cause="token_expired"} 0`,
		`authvigil_gate_state{scope="endpoint",name="a.example.test/x as who",state="closed"} 1`, `authvigil_refused_total{source="probe",endpoint="a.example.test/x",code="401"} 0`,
	} {
		if !strings.Contains(before, want+"\n") {
			t.Errorf("before the first run there is no %s", want)
		}
	}
	if strings.Contains(before, "authvigil_probe_success{") {
		t.Error("probe_success is there before anything is known")
	}
	p.Observe(event("a", nil))
	p.Observe(event("b", refused()))
	for range 2 { // the same finding again is no new one
		p.Observe(event("a", refused()))
	}
	held := event("a", &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomHeld})
	p.Observe(held)
	text := scrape(t, p, "")
	for _, want := range []string{
		`authvigil_probe_success{probe="a",kind="http",endpoint="a.example.test/x",identity="who"} 0`, `authvigil_runs_total{probe="a",outcome="fault"} 2`, `authvigil_runs_total{probe="a",outcome="held"} 1`,
		`authvigil_probe_cause{probe="a",cause="token_expired",culprit="identity:who",sureness="likely"} 1`, `authvigil_findings_total{cause="token_expired"} 2`,
		`authvigil_exchanges_total{probe="a",stage="api",code="401"} 2`, `authvigil_refused_total{source="probe",endpoint="a.example.test/x",code="401"} 2`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	p.Observe(event("a", nil))
	if text := scrape(t, p, ""); strings.Contains(text, `authvigil_probe_cause{probe="a"`) || !strings.Contains(text, `authvigil_probe_success{probe="a",kind="http",endpoint="a.example.test/x",identity="who"} 1`) {
		t.Error("the cause outlives its fault")
	}
	own := event("a", &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomLocalResources})
	p.Observe(own)
	if strings.Contains(scrape(t, p, ""), `authvigil_probe_success{probe="a"`) {
		t.Error("own distress is shown as success or failure")
	}
	p.Forget("a")
	p.Forget("b")
	for line := range strings.Lines(scrape(t, p, "")) {
		if strings.Contains(line, `probe="`) || strings.Contains(line, "example.test") {
			t.Errorf("left behind: %s", line)
		}
	}
}

// TestPrometheus_threeFormatsSayTheSame: text from the lines that are kept, OpenMetrics and protobuf from messages.
func TestPrometheus_threeFormatsSayTheSame(t *testing.T) {
	p := newPrometheus()
	ev := event(`we"ird`, refused())
	ev.About.Endpoint = "x\\y\n\"z\""
	p.Observe(ev)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(scrape(t, p, "text/plain")))
	if err != nil {
		t.Fatal(err)
	}
	gathered, err := p.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range gathered {
		if !strings.HasPrefix(want.GetName(), "authvigil_probe_") && !strings.HasPrefix(want.GetName(), "authvigil_gate_") {
			continue
		}
		got := families[want.GetName()]
		if got == nil || len(got.Metric) != len(want.Metric) {
			t.Errorf("%s: text and messages differ", want.GetName())
			continue
		}
		for i, m := range want.Metric {
			slices.SortFunc(got.Metric[i].Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
			if fmt.Sprint(m.Label) != fmt.Sprint(got.Metric[i].Label) {
				t.Errorf("%s: labels\n text     %v\n messages %v", want.GetName(), got.Metric[i].Label, m.Label)
			}
		}
	}
	if text := scrape(t, p, "application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(text, "# EOF\n") {
		t.Error("OpenMetrics does not end as it should")
	}
}

func TestPrometheus_reloadsLeaveNoSeries(t *testing.T) {
	p := newPrometheus()
	var first int
	for i := range 1000 {
		p.Observe(event("a", refused()))
		if i == 0 {
			first = strings.Count(scrape(t, p, ""), "\n")
		}
		p.Forget("a")
	}
	p.Observe(event("a", refused()))
	if now := strings.Count(scrape(t, p, ""), "\n"); now != first {
		t.Errorf("%d lines after a thousand reloads, %d before", now, first)
	}
}

func web(t *testing.T) (*Web, func(path, host string) (int, string, string)) {
	t.Helper()
	w := &Web{Status: NewStatus(time.Now()), Prometheus: newPrometheus(), Version: "test", Hosts: []string{"authvigil.example.com"}, Ready: func() bool { return true }}
	h := w.Handler()
	return w, func(path, host string) (int, string, string) {
		r := httptest.NewRequest("GET", path, nil)
		r.Host = host
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code, rec.Body.String(), rec.Header().Get("Content-Security-Policy")
	}
}

func TestWeb_hosts(t *testing.T) {
	_, get := web(t)
	for host, want := range map[string]int{"127.0.0.1:10401": 200, "[::1]:10401": 200, "localhost": 200, "authvigil.example.com": 200, "AUTHVIGIL.example.com:443": 200, "evil.example.net": 421} {
		if code, _, _ := get("/-/healthy", host); code != want {
			t.Errorf("host %s: %d, want %d", host, code, want)
		}
	}
}

func TestStatus_blamesOnceForManyProbes(t *testing.T) {
	s := NewStatus(time.Now())
	for i := range 40 {
		s.Observe(event(fmt.Sprintf("p%d", i), refused()))
	}
	if b := s.Blames(); len(b) != 1 || len(b[0].Probes) != 40 {
		t.Errorf("forty probes with one culprit make %d rows", len(b))
	}
}

// BenchmarkScrape_10000 is a scrape of ten thousand probes.
func BenchmarkScrape_10000(b *testing.B) {
	p := newPrometheus()
	for i := range 10_000 {
		p.Observe(event(fmt.Sprintf("p%d", i), nil))
	}
	h := p.Handler()
	r := httptest.NewRequest("GET", "/metrics", nil)
	b.ResetTimer()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
}

// BenchmarkPage_1000 is the first page with a thousand failing probes, each with a full history; the goal is 200 ms.
func BenchmarkPage_1000(b *testing.B) {
	w := &Web{Status: NewStatus(time.Now()), Prometheus: newPrometheus(), Ready: func() bool { return true }}
	for i := range 1000 {
		for range historyLength {
			w.Status.Observe(event(fmt.Sprintf("p%d", i), refused()))
		}
	}
	h := w.Handler()
	r := httptest.NewRequest("GET", "/", nil)
	r.Host = "localhost"
	for b.Loop() {
		rec := httptest.NewRecorder()
		if h.ServeHTTP(rec, r); rec.Code != 200 {
			b.Fatal(rec.Code)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N)/200, "of-goal")
}
