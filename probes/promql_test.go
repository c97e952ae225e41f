package probes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A countersServer speaks enough of Prometheus' API: two counters of one route, which grow with time.
type countersServer struct {
	begun  time.Time
	outage func(at time.Time) bool
	asked  []string
}

// at gives the counters at a moment: 20 requests in half a minute, of which three quarters are refused in an outage.
func (s *countersServer) at(t time.Time) (requests, refused float64) {
	for at := s.begun; at.Before(t); at = at.Add(30 * time.Second) {
		requests += 20
		if s.outage(at) {
			refused += 15
		}
	}
	return requests, refused
}

func (s *countersServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.URL.Path)
	query := r.FormValue("query")
	value := func(at time.Time) []any {
		requests, refused := s.at(at)
		if strings.Contains(query, "401") {
			requests = refused
		}
		return []any{float64(at.UnixMilli()) / 1000, strconv.FormatFloat(requests, 'g', -1, 64)}
	}
	moment := func(name string) time.Time {
		f, _ := strconv.ParseFloat(r.FormValue(name), 64)
		return time.UnixMilli(int64(f * 1000))
	}
	series := map[string]any{"metric": map[string]string{"__name__": "http_requests_total", "route": "/v1/things"}}
	kind := "vector"
	if r.URL.Path == "/api/v1/query_range" {
		kind = "matrix"
		step, _ := strconv.Atoi(r.FormValue("step"))
		var values []any
		for at := moment("start"); !at.After(moment("end")); at = at.Add(time.Duration(step) * time.Second) {
			values = append(values, value(at))
		}
		series["values"] = values
	} else {
		series["value"] = value(moment("time"))
	}
	json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": kind, "result": []any{series}}})
}

func countersProbe(t *testing.T, url string, store memory) Probe {
	t.Helper()
	env := testEnv()
	env.Name = "counters"
	if store != nil {
		env.Store = store
	}
	return makeProbe(t, "prometheus", env, map[string]any{"URL": url, "Requests": "sum by (route) (http_requests_total)", "Refused": `sum by (route) (http_requests_total{code="401"})`})
}

func TestPrometheus_pagesOnCountersAndSaysHowWeakThatIs(t *testing.T) {
	now := time.Now()
	s := &countersServer{begun: now.Add(-30 * time.Hour), outage: func(at time.Time) bool { return at.After(now.Add(-20 * time.Minute)) }}
	server := httptest.NewServer(s)
	defer server.Close()
	store := memory{}
	p := countersProbe(t, server.URL, store)
	r, err := p.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var page *evidence.Spike
	for i := range r.Spikes {
		if r.Spikes[i].Severity == "critical" {
			page = &r.Spikes[i]
		}
	}
	if page == nil || page.Endpoint != "/v1/things" || !strings.Contains(page.Description, "it may be an attack") {
		t.Fatalf("got %+v, want the outage that goes on, learnt from history", r.Spikes)
	}
	if len(r.Answers) != 0 && r.Answers[401] > 200 {
		t.Errorf("history was counted: %v", r.Answers)
	}
	if err := Close(p); err != nil {
		t.Fatal(err)
	}
	s.asked = nil
	again := countersProbe(t, server.URL, store)
	if r, err = again.Run(t.Context()); err != nil || len(r.Spikes) == 0 {
		t.Errorf("after a restart: %v, %+v", err, r.Spikes)
	}
	if strings.Contains(fmt.Sprint(s.asked), "query_range") {
		t.Errorf("a short restart asked for the past: %v", s.asked)
	}
}

func TestPrometheus_countersThatBeginAnewAreNoRefusals(t *testing.T) {
	p := &prometheusProbe{}
	p.restore()
	at := time.Now()
	var r evidence.Report
	p.grow(at, map[string]counters{"/x": {1000, 500}}, &r)
	p.grow(at.Add(time.Minute), map[string]counters{"/x": {10, 2}, "/new": {7, 7}}, &r)
	p.grow(at.Add(2*time.Minute), map[string]counters{"/x": {20, 5}, "/new": {7, 7}}, &r)
	if r.Answers[401] != 3 {
		t.Errorf("%d refusals, want the 3 after the counters began anew", r.Answers[401])
	}
}

func TestPrometheus_strangeAnswersAreFaults(t *testing.T) {
	for answer, want := range map[string]string{
		`{"status":"error","errorType":"bad_data","error":"parse error at char 3"}`: "parse error at char 3",
		`<html>login</html>`: "not that of Prometheus",
		`{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}`: "gives a scalar",
		`{"status":"success","data":{"resultType":"vector","result":{}}}`:      "not that of Prometheus",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) }))
		_, err := countersProbe(t, server.URL, nil).Run(t.Context())
		if f := evidence.AsFault(err); f == nil || f.Stage != evidence.StageLog || f.Symptom != evidence.SymptomSource || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", answer, err, want)
		}
		server.Close()
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }))
	defer server.Close()
	if _, err := countersProbe(t, server.URL, nil).Run(t.Context()); evidence.AsFault(err).Symptom != evidence.SymptomUnauthorized {
		t.Errorf("got %v, want that Prometheus refuses", err)
	}
}

func TestPromSeries_endpoint(t *testing.T) {
	for want, metric := range map[string]map[string]string{
		"/x":     {"__name__": "n", "route": "/x"},
		"GET /x": {"a_method": "GET", "route": "/x"},
		"-":      {},
	} {
		if got := (&promSeries{Metric: metric}).endpoint(); got != want {
			t.Errorf("%v: got %q, want %q", metric, got, want)
		}
	}
}

// TestAccesslog_silenceIsSeen lets an hour pass after the last line, in virtual time.
func TestAccesslog_silenceIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDiary(t)
		d.write(5)
		d.run()
		before := d.probe.feed.detector.Now()
		time.Sleep(30 * time.Minute)
		d.run()
		if passed := d.probe.feed.detector.Now().Sub(before); passed < 29*time.Minute || passed > 31*time.Minute {
			t.Errorf("%v passed for the detector, want 30 min", passed)
		}
		d.probe.Close()
	})
}
