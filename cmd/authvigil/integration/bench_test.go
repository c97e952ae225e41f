//go:build integration

package integration

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkDaemon_10000 runs ten thousand http probes every ten seconds for half a minute, and reports how late they begin
// (p99, upper edge of the bucket), how much memory each takes beyond a daemon with one probe, and how long a scrape takes.
func BenchmarkDaemon_10000(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	measure := func(probes int, length time.Duration) usage {
		var text strings.Builder
		text.WriteString("[defaults]\nevery = \"10s\"\ntimeout = \"5s\"\n")
		for i := range probes {
			fmt.Fprintf(&text, "[probe.p%d]\nkind = \"http\"\nurl = \"%s/x%d\"\n", i, server.URL, i)
		}
		return sampleDaemon(b, text.String(), length)
	}
	for b.Loop() {
		alone, s := measure(1, 3*time.Second), measure(10_000, 35*time.Second)
		b.ReportMetric((s.rss-alone.rss)/10_000, "KiB/probe")
		b.ReportMetric(s.quantile("authvigil_schedule_lateness_seconds", 0.99)*1e3, "ms-late-p99")
		b.ReportMetric(s.scrape*1e3, "ms/scrape")
	}
}

// BenchmarkDaemon_1000certificates looks at a thousand certificates at nginx, each by its own name over a connection of its own,
// every ten seconds for half a minute, and reports what a check takes: processor time of authvigil alone, and memory beyond a
// daemon with one probe.
func BenchmarkDaemon_1000certificates(b *testing.B) {
	p := &pki{t: b, dir: b.TempDir()}
	root := p.issue("CA Root", nil, nil)
	mid := p.issue("CA Intermediate", root, nil)
	write(b, filepath.Join(p.dir, "root.pem"), root.pem())
	n := port(b)
	var servers strings.Builder
	servers.WriteString("server_names_hash_max_size 8192;\n")
	for i := range 1000 {
		name := fmt.Sprintf("c%d.test", i)
		p.save(name, p.issue(name, mid, nil), mid)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; server_name %s; ssl_certificate %s.crt; ssl_certificate_key %s.key; }\n", n, name, name, name)
	}
	serveNginx(b, p.dir, servers.String())
	reachable(b, n)
	measure := func(probes int, length time.Duration) usage {
		var text strings.Builder
		text.WriteString("[defaults]\nevery = \"10s\"\ntimeout = \"5s\"\n")
		for i := range probes {
			fmt.Fprintf(&text, "[probe.p%d]\nkind = \"certificate\"\naddress = \"127.0.0.1:%d\"\nserver_name = \"c%d.test\"\nca_file = \"%s/root.pem\"\n", i, n, i, p.dir)
		}
		return sampleDaemon(b, text.String(), length)
	}
	for b.Loop() {
		alone, s := measure(1, 3*time.Second), measure(1000, 35*time.Second)
		ok := s.sum(`authvigil_runs_total{`, `outcome="ok"`)
		if all := s.sum(`authvigil_runs_total{`, ""); ok < 2000 || ok != all {
			b.Errorf("of %v runs %v were good", all, ok)
		}
		b.ReportMetric((s.cpu-alone.cpu)/ok*1e3, "ms-cpu/check")
		b.ReportMetric((s.rss-alone.rss)/1000, "KiB/probe")
		b.ReportMetric(s.quantile("authvigil_schedule_lateness_seconds", 0.99)*1e3, "ms-late-p99")
	}
}

// A usage is what a daemon took: memory in KiB, processor time and the length of a scrape in seconds, and its metrics.
type usage struct {
	rss, cpu, scrape float64
	metrics          string
}

// sampleDaemon runs a daemon on a configuration for a while.
func sampleDaemon(b *testing.B, config string, length time.Duration) (s usage) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "authvigil.toml")
	write(b, path, config)
	cmd := exec.Command(binary(b), "run", "--config.file", path, "--web.listen-address", "127.0.0.1:0")
	out, err := cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	address := ""
	lines := bufio.NewScanner(out)
	for address == "" && lines.Scan() {
		if _, rest, found := strings.Cut(lines.Text(), "msg=listening address="); found {
			address = rest
		}
	}
	go func() {
		for lines.Scan() {
		}
	}()
	time.Sleep(length)
	start := time.Now()
	r, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	s.scrape, s.metrics = time.Since(start).Seconds(), string(body)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			s.rss, _ = strconv.ParseFloat(f[1], 64)
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	for _, ticks := range strings.Fields(rest)[11:13] { // utime and stime, in hundredths of a second
		n, _ := strconv.ParseFloat(ticks, 64)
		s.cpu += n / 100
	}
	return s
}

// sum adds the values of the series that begin with a text and hold another.
func (s usage) sum(begins, holds string) (total float64) {
	for line := range strings.Lines(s.metrics) {
		if strings.HasPrefix(line, begins) && strings.Contains(line, holds) {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			total += v
		}
	}
	return total
}

// quantile is the upper edge of the bucket of a histogram in which a share of all lies.
func (s usage) quantile(name string, share float64) float64 {
	var buckets [][2]float64
	for line := range strings.Lines(s.metrics) {
		if rest, found := strings.CutPrefix(line, name+`_bucket{le="`); found {
			edge, count, _ := strings.Cut(rest, `"} `)
			e, _ := strconv.ParseFloat(edge, 64)
			c, _ := strconv.ParseFloat(strings.TrimSpace(count), 64)
			buckets = append(buckets, [2]float64{e, c})
		}
	}
	for _, k := range buckets {
		if k[1] >= share*buckets[len(buckets)-1][1] {
			return k[0]
		}
	}
	return 0
}
