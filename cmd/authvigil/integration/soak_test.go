//go:build integration && soak

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// toxics are what toxiproxy does to a connection, in turn.
var toxics = []string{
	`{"type":"latency","attributes":{"latency":300,"jitter":200}}`,
	`{"type":"reset_peer","attributes":{"timeout":10}}`,
	`{"type":"timeout","attributes":{"timeout":0}}`,
	`{"type":"slow_close","attributes":{"delay":2000}}`,
	`{"type":"limit_data","attributes":{"bytes":40}}`,
	`{"type":"bandwidth","attributes":{"rate":1}}`,
}

const (
	soakProbes  = 1000
	soakEvery   = 5 * time.Second // 200 runs a second: six times the pace of the default
	soakProxies = 4
)

// A sampled is what must not grow.
type sampled struct{ rss, goroutines, files, series float64 }

// TestSoak: a thousand probes at six times their pace, behind toxiproxy whose faults come and go, with a reload every few
// seconds and a log that grows. It lasts as long as $AUTHVIGIL_SOAK says (make soak: a day at the default pace is four
// hours here), a minute otherwise. In the last third there is no more of anything than in the second.
func TestSoak(t *testing.T) {
	last := time.Minute
	if text := os.Getenv("AUTHVIGIL_SOAK"); text != "" {
		var err error
		if last, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch k := n.Add(1); { // one in ten is refused, each in its own words
		case k%10 == 0:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer error="invalid_token", error_description="token %d expired"`, k))
			w.WriteHeader(http.StatusUnauthorized)
		case k%97 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprintf(w, `{"request":%d}`, k)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	control, proxies := startToxiproxy(t, dir, strings.TrimPrefix(server.URL, "http://"))
	access := filepath.Join(dir, "access.log")
	write(t, access, line(200))
	config := func(round int) string {
		text := fmt.Sprintf("[agent]\nstate_directory = \"%s/state\"\n[defaults]\nevery = %q\ntimeout = \"2s\"\n[identity.who]\nkind = \"bearer\"\ntoken = \"plain:soak-token-of-the-test\"\n[probe.log]\nkind = \"accesslog\"\npath = %q\nformat = \"combined\"\n", dir, soakEvery, access)
		for i := range soakProbes {
			text += fmt.Sprintf("[probe.p%d]\nkind = \"http\"\nurl = \"http://%s/%d\"\n", i, proxies[i%soakProxies], i)
			if i%3 == 0 {
				text += "identity = \"who\"\n"
			}
		}
		return text + fmt.Sprintf("[probe.round%d]\nkind = \"http\"\nurl = \"%s/round\"\n", round%2, server.URL)
	}
	w := &watched{t: t, config: filepath.Join(dir, "authvigil.toml"), address: fmt.Sprintf("127.0.0.1:%d", port(t))}
	write(t, w.config, config(0))
	daemon := w.start()
	began := time.Now()
	var samples []sampled
	for round := 1; time.Since(began) < last; round++ {
		trouble(t, control, round)
		f, err := os.OpenFile(access, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString(strings.Repeat(line(200), 200) + strings.Repeat(line(401), 3))
		f.Close()
		if round%3 == 0 {
			write(t, w.config, config(round))
			daemon.Process.Signal(syscall.SIGHUP)
		}
		time.Sleep(2 * time.Second)
		m := w.metrics()
		if m == "" {
			t.Fatalf("no answer after %s:\n%s", time.Since(began), tail(daemon.output()))
		}
		samples = append(samples, sampled{value(m, "process_resident_memory_bytes"), value(m, "go_goroutines"), value(m, "process_open_fds"), float64(strings.Count(m, "\nauthvigil_"))})
	}
	m := w.metrics()
	runs := 0.0
	for _, outcome := range []string{"ok", "fault", "unknown"} {
		for i := range soakProbes {
			runs += value(m, fmt.Sprintf(`authvigil_runs_total{probe="p%d",outcome=%q}`, i, outcome))
		}
	}
	if panics := value(m, "authvigil_probe_panics_total"); panics > 0 || runs < soakProbes {
		t.Errorf("%v panics in %v runs", panics, runs)
	}
	third := len(samples) / 3
	before, after := typical(samples[third:2*third]), typical(samples[2*third:])
	t.Logf("%s, %d samples, %.0f runs; middle: %.0f MiB, %.0f goroutines, %.0f files, %.0f series; end: %.0f MiB, %.0f goroutines, %.0f files, %.0f series", time.Since(began).Round(time.Second), len(samples), runs,
		before.rss/(1<<20), before.goroutines, before.files, before.series, after.rss/(1<<20), after.goroutines, after.files, after.series)
	for what, pair := range map[string][3]float64{ // before, after, slack
		"memory": {before.rss, after.rss, 0.1*before.rss + 8<<20}, "goroutines": {before.goroutines, after.goroutines, 0.1 * before.goroutines},
		"files": {before.files, after.files, 100}, "series": {before.series, after.series, 0.02*before.series + 50},
	} {
		if pair[1] > pair[0]+pair[2] {
			t.Errorf("%s grew from %.0f to %.0f", what, pair[0], pair[1])
		}
	}
	if after.rss > 512<<20 {
		t.Errorf("%.0f MiB for %d probes", after.rss/(1<<20), soakProbes)
	}
	if code := daemon.stop(t); code != 0 {
		t.Errorf("the stop ended with %d", code)
	}
}

func tail(text string) string { return text[max(len(text)-2000, 0):] }

// typical is the median of each.
func typical(list []sampled) sampled {
	middle := func(of func(sampled) float64) float64 {
		var values []float64
		for _, s := range list {
			values = append(values, of(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return sampled{middle(func(s sampled) float64 { return s.rss }), middle(func(s sampled) float64 { return s.goroutines }), middle(func(s sampled) float64 { return s.files }), middle(func(s sampled) float64 { return s.series })}
}

// startToxiproxy starts toxiproxy with proxies before an address, and gives its control and theirs.
func startToxiproxy(t *testing.T, dir, upstream string) (control string, proxies []string) {
	t.Helper()
	path := filepath.Join(dir, "toxiproxy")
	build := exec.Command("go", "build", "-modfile=packaging/tools.mod", "-o", path, "github.com/Shopify/toxiproxy/v2/cmd/server")
	build.Dir = repository
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("toxiproxy: %v\n%s", err, out)
	}
	n := port(t)
	start(t, "", []string{"LOG_LEVEL=error"}, dir, path, "-host", "127.0.0.1", "-port", fmt.Sprint(n))
	reachable(t, n)
	control = fmt.Sprintf("http://127.0.0.1:%d", n)
	for i := range soakProxies {
		listen := fmt.Sprintf("127.0.0.1:%d", port(t))
		toxiproxy(t, http.MethodPost, control+"/proxies", fmt.Sprintf(`{"name":"p%d","listen":%q,"upstream":%q,"enabled":true}`, i, listen, upstream))
		proxies = append(proxies, listen)
	}
	return control, proxies
}

// trouble takes one toxic away and puts another into its place, at another proxy each round; every seventh round a proxy is
// down altogether.
func trouble(t *testing.T, control string, round int) {
	t.Helper()
	name := fmt.Sprintf("%s/proxies/p%d", control, round%soakProxies)
	var was struct{ Toxics []struct{ Name string } }
	json.Unmarshal(toxiproxy(t, http.MethodGet, name, ""), &was)
	for _, toxic := range was.Toxics {
		toxiproxy(t, http.MethodDelete, name+"/toxics/"+toxic.Name, "")
	}
	toxiproxy(t, http.MethodPost, name, fmt.Sprintf(`{"enabled":%v}`, round%7 != 0))
	if round%3 != 0 {
		toxiproxy(t, http.MethodPost, name+"/toxics", toxics[round%len(toxics)])
	}
}

func toxiproxy(t *testing.T, method, url, body string) []byte {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var b bytes.Buffer
	b.ReadFrom(answer.Body)
	if answer.StatusCode >= 300 {
		t.Fatalf("%s %s %s: %s %s", method, url, body, answer.Status, b.String())
	}
	return b.Bytes()
}
