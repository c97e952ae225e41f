//go:build integration

package integration

import (
	"bufio"
	"bytes"
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
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	measure := func(probes int, length time.Duration) (rss, p99, scrape float64) {
		var text strings.Builder
		text.WriteString("[defaults]\nevery = \"10s\"\ntimeout = \"5s\"\n")
		for i := range probes {
			fmt.Fprintf(&text, "[probe.p%d]\nkind = \"http\"\nurl = \"%s/x%d\"\n", i, server.URL, i)
		}
		config := filepath.Join(b.TempDir(), "authvigil.toml")
		if err := os.WriteFile(config, []byte(text.String()), 0o600); err != nil {
			b.Fatal(err)
		}
		cmd := exec.Command(path, "run", "--config.file", config, "--web.listen-address", "127.0.0.1:0")
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
		var buckets [][2]float64
		total := 0.0
		body, err := io.ReadAll(r.Body)
		if err != nil {
			b.Fatal(err)
		}
		scrape = time.Since(start).Seconds()
		metrics := bufio.NewScanner(bytes.NewReader(body))
		metrics.Buffer(nil, 1<<20)
		for metrics.Scan() {
			line := metrics.Text()
			if rest, found := strings.CutPrefix(line, `authvigil_schedule_lateness_seconds_bucket{le="`); found {
				edge, count, _ := strings.Cut(rest, `"} `)
				e, _ := strconv.ParseFloat(edge, 64)
				c, _ := strconv.ParseFloat(count, 64)
				buckets = append(buckets, [2]float64{e, c})
				total = c
			}
		}
		for _, k := range buckets {
			if k[1] >= 0.99*total {
				p99 = k[0]
				break
			}
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
				rss, _ = strconv.ParseFloat(f[1], 64)
			}
		}
		return rss, p99, scrape
	}
	for b.Loop() {
		alone, _, _ := measure(1, 3*time.Second)
		rss, p99, scrape := measure(10_000, 35*time.Second)
		b.ReportMetric((rss-alone)/10_000, "KiB/probe")
		b.ReportMetric(p99*1e3, "ms-late-p99")
		b.ReportMetric(scrape*1e3, "ms/scrape")
	}
}
