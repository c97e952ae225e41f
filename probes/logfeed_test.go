package probes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
)

func combinedLog(n int) []byte {
	var b bytes.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		status := 200
		if r.IntN(50) == 0 {
			status = 401
		}
		client := int(r.ExpFloat64() * 2000)
		fmt.Fprintf(&b, "10.0.%d.%d - user%d [%s] \"GET /v2/devices/%d/state?verbose=1 HTTP/1.1\" %d %d \"https://app.example.com/\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"\n",
			client/256, client%256, client, epoch0.Add(time.Duration(i)*20*time.Millisecond).Format("02/Jan/2006:15:04:05 -0700"), r.IntN(100000), status, r.IntN(10000))
	}
	return b.Bytes()
}

func jsonOf(combined []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(combined) {
		f := strings.Fields(string(line))
		fmt.Fprintf(&b, "{\"time_local\":\"%s %s\",\"remote_addr\":\"%s\",\"remote_user\":\"%s\",\"request\":\"GET %s HTTP/1.1\",\"status\":\"%s\",\"body_bytes_sent\":\"%s\",\"http_referer\":\"https://app.example.com/\",\"http_user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\",\"request_time\":\"0.012\",\"upstream_status\":\"%s\"}\n",
			f[3][1:], strings.TrimSuffix(f[4], "]"), f[0], f[2], f[6], f[8], f[9], f[8])
	}
	return b.Bytes()
}

// chunks reads in pieces of odd sizes, as pipes give them.
type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	c.n = c.n*31%8191 + 1
	n := copy(p[:min(len(p), c.n)], c.b)
	c.b = c.b[n:]
	return n, nil
}

func TestLogFeed_mergesLogsByTimeWhateverThePieces(t *testing.T) {
	whole := combinedLog(20_000)
	var even, odd bytes.Buffer
	i := 0
	for line := range bytes.Lines(whole) {
		if i++; i%3 == 0 {
			odd.Write(line)
		} else {
			even.Write(line)
		}
	}
	counts := func(from ...io.Reader) (LogCounts, spike.Stats) {
		f, err := NewLogFeed(LogSettings{Format: "combined"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Replay(from, func() {}); err != nil {
			t.Fatal(err)
		}
		return f.Counts, f.Detector().Stats()
	}
	one, stats := counts(bytes.NewReader(whole))
	for name, from := range map[string][]io.Reader{
		"pieces":          {&chunks{b: whole, n: 7}},
		"two logs":        {bytes.NewReader(even.Bytes()), bytes.NewReader(odd.Bytes())},
		"and an empty":    {&chunks{b: even.Bytes(), n: 3}, bytes.NewReader(nil), &chunks{b: odd.Bytes(), n: 5}},
		"without newline": {bytes.NewReader(bytes.TrimSuffix(whole, []byte("\n")))},
	} {
		if got, s := counts(from...); got != one || s != stats {
			t.Errorf("%s: %d requests, %+v; want %d, %+v", name, got.Requests, s, one.Requests, stats)
		}
	}
	if one.Requests != 20_000 || stats.Late != 0 {
		t.Errorf("%d requests, %d late", one.Requests, stats.Late)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestLogFeed_errorsOfReadersAreTold(t *testing.T) {
	f, err := NewLogFeed(LogSettings{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wrong := errors.New("disk on fire")
	if err := f.Replay([]io.Reader{io.MultiReader(bytes.NewReader(combinedLog(10)), failingReader{wrong})}, func() {}); !errors.Is(err, wrong) || f.Counts.Requests != 10 {
		t.Errorf("got %v after %d requests", err, f.Counts.Requests)
	}
}

// BenchmarkLogFeed is the whole path of a line: reader, parser, endpoint, detector.
func BenchmarkLogFeed(b *testing.B) {
	const lines = 100_000
	combined := combinedLog(lines)
	for _, c := range []struct {
		format string
		log    []byte
	}{{"combined", combined}, {"json", jsonOf(combined)}, {"auto", combined}} {
		b.Run(c.format, func(b *testing.B) {
			f, err := NewLogFeed(LogSettings{Format: c.format}, nil)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(c.log)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if err := f.Replay([]io.Reader{bytes.NewReader(c.log)}, func() {}); err != nil {
					b.Fatal(err)
				}
				n += lines
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "lines/s")
			if f.Counts.Requests != n {
				b.Fatalf("%d of %d lines were read", f.Counts.Requests, n)
			}
		})
	}
}
