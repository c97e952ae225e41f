package probes

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/authvigil/authvigil/probes/evidence"
)

// memory is a store for tests.
type memory map[string][]byte

func (m memory) Load(key string) ([]byte, error) { return m[key], nil }

func (m memory) Save(key string, value []byte) error {
	m[key] = bytes.Clone(value)
	return nil
}

// A diary is a log file and what was written to it.
type diary struct {
	t       *testing.T
	path    string
	file    *os.File
	store   memory
	probe   *accesslogProbe
	n       int
	half    []byte // of a line that was begun
	wrote   [1000]int
	counted [1000]int
	rotated int
}

var epoch0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newDiary(t *testing.T) *diary {
	d := &diary{t: t, path: filepath.Join(t.TempDir(), "access.log"), store: memory{}}
	d.create()
	d.start()
	d.run() // from now on everything counts
	return d
}

func (d *diary) create() {
	file, err := os.OpenFile(d.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	d.file = file
}

func accesslogFor(t *testing.T, store memory, set func(*accesslogProbe)) *accesslogProbe {
	t.Helper()
	env := Env{Name: "traffic", Log: slog.New(slog.DiscardHandler)}
	if store != nil {
		env.Store = store
	}
	p, err := newAccesslog(func(v any) error { set(v.(*accesslogProbe)); return nil }, env)
	if err != nil {
		t.Fatal(err)
	}
	return p.(*accesslogProbe)
}

func (d *diary) start() {
	d.probe = accesslogFor(d.t, d.store, func(p *accesslogProbe) { p.Path, p.Format = d.path, "combined" })
}

func (d *diary) line() []byte {
	d.n++
	status := 100 + d.n%900
	d.wrote[status]++
	at := epoch0.Add(time.Duration(d.n) * time.Second).Format("02/Jan/2006:15:04:05 -0700")
	return fmt.Appendf(nil, "203.0.113.%d - - [%s] \"GET /v2/x%d HTTP/1.1\" %d 12 \"-\" \"agent %d\"\n", d.n%250, at, d.n%7, status, d.n)
}

func (d *diary) write(n int) {
	for range n {
		line := d.line()
		if d.half != nil {
			d.put(d.half)
			d.half = nil
		}
		d.put(line)
	}
}

// begin writes a part of a line; the rest follows later.
func (d *diary) begin() {
	if d.half != nil {
		return
	}
	line := d.line()
	cut := 1 + d.n%(len(line)-2)
	d.put(line[:cut])
	d.half = line[cut:]
}

func (d *diary) put(b []byte) {
	if _, err := d.file.Write(b); err != nil {
		d.t.Fatal(err)
	}
}

func (d *diary) run() evidence.Report {
	r, err := d.probe.Run(d.t.Context())
	if err != nil {
		d.t.Fatalf("after %d lines: %v", d.n, err)
	}
	for status, n := range r.Answers {
		d.counted[status] += n
	}
	return r
}

// rename is what logrotate does; the writer still has the old file for some lines.
func (d *diary) rename(later int) string {
	d.rotated++
	name := fmt.Sprintf("%s.%d", d.path, d.rotated)
	if err := os.Rename(d.path, name); err != nil {
		d.t.Fatal(err)
	}
	d.write(later)
	if d.half != nil {
		d.put(d.half)
		d.half = nil
	}
	d.file.Close()
	d.create()
	return name
}

// copytruncate is what logrotate does with programs that do not reopen.
func (d *diary) copytruncate() {
	if d.half != nil {
		d.put(d.half)
		d.half = nil
	}
	d.rotated++
	text, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(fmt.Sprintf("%s.%d", d.path, d.rotated), text, 0o600), os.Truncate(d.path, 0)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *diary) zip(name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		d.t.Fatal(err)
	}
	info, _ := os.Stat(name)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(text)
	z.Close()
	if err := errors.Join(os.WriteFile(name+".gz", b.Bytes(), 0o600), os.Chtimes(name+".gz", info.ModTime(), info.ModTime()), os.Remove(name)); err != nil {
		d.t.Fatal(err)
	}
}

// crash is kill -9: nothing is saved but what the last run saved.
func (d *diary) crash() {
	for _, f := range d.probe.files {
		f.close()
	}
	d.start()
}

func (d *diary) check(story string) {
	d.t.Helper()
	if d.half != nil {
		d.put(d.half)
		d.half = nil
	}
	d.run()
	d.run()
	if d.counted != d.wrote {
		wrote, counted := 0, 0
		for i := range d.wrote {
			wrote, counted = wrote+d.wrote[i], counted+d.counted[i]
		}
		d.t.Errorf("%s: %d lines were written, %d counted, %d bad (%s)", story, wrote, counted, d.probe.feed.Counts.Bad, d.probe.feed.Sample())
	}
}

func TestAccesslog_nothingIsLostOrCountedTwice(t *testing.T) {
	for _, c := range []struct {
		story string
		live  func(d *diary)
	}{
		{"appended", func(d *diary) { d.write(10); d.run(); d.write(5) }},
		{"half lines", func(d *diary) { d.begin(); d.run(); d.write(1); d.begin(); d.run() }},
		{"renamed", func(d *diary) { d.write(10); d.run(); d.write(3); d.rename(0); d.write(4) }},
		{"renamed, written on, in the middle of a line", func(d *diary) {
			d.write(10)
			d.begin()
			d.run()
			d.rename(5)
			d.run()
			d.write(4)
		}},
		{"copied and truncated", func(d *diary) { d.write(10); d.run(); d.write(3); d.copytruncate(); d.write(2) }},
		{"copied, truncated and grown again", func(d *diary) { d.write(10); d.run(); d.write(3); d.copytruncate(); d.write(40) }},
		{"restarted", func(d *diary) {
			d.write(10)
			d.run()
			d.probe.Close()
			d.write(5)
			d.start()
			d.run()
		}},
		{"crashed", func(d *diary) { d.write(10); d.run(); d.write(5); d.crash(); d.run() }},
		{"renamed while away", func(d *diary) {
			d.write(10)
			d.run()
			d.probe.Close()
			d.write(5)
			d.rename(2)
			d.write(3)
			d.start()
		}},
		{"renamed twice and compressed while away", func(d *diary) {
			d.write(10)
			d.run()
			d.probe.Close()
			d.write(5)
			d.zip(d.rename(2))
			d.write(6)
			time.Sleep(20 * time.Millisecond) // files are ordered by the time of their last change
			d.rename(0)
			d.write(3)
			d.start()
		}},
		{"empty at first, rotated, and compressed without its time and rotated again while away", func(d *diary) {
			d.run()
			d.write(40) // more than what a file is known by
			d.run()
			old := d.rename(2)
			d.write(40)
			d.run()
			d.crash()
			d.write(6)
			time.Sleep(20 * time.Millisecond) // files are ordered by the time of their last change
			d.zip(old)
			now := time.Now()
			os.Chtimes(old+".gz", now, now)
			d.rename(0) // the new file may get the inode of the one that was compressed
			d.write(5)
		}},
		{"copied and truncated while away", func(d *diary) {
			d.write(10)
			d.run()
			d.probe.Close()
			d.write(5)
			d.copytruncate()
			d.write(3)
			d.start()
		}},
		{"missing for a while", func(d *diary) {
			d.write(10)
			d.run()
			os.Rename(d.path, d.path+".1")
			d.write(2)
			d.run()
			d.file.Close()
			d.create()
			d.write(2)
		}},
		{"a symbolic link is turned", func(d *diary) {
			d.write(3)
			d.run()
			d.file.Close()
			first, second := d.path+"-a", d.path+"-b"
			os.Rename(d.path, first)
			os.Symlink(first, d.path)
			d.create()
			d.write(4)
			d.run()
			d.write(2)
			d.file.Close()
			os.WriteFile(second, nil, 0o600)
			os.Symlink(second, d.path+".tmp")
			os.Rename(d.path+".tmp", d.path)
			d.create()
			d.write(5)
		}},
	} {
		t.Run(c.story, func(t *testing.T) {
			d := newDiary(t)
			c.live(d)
			d.check(c.story)
		})
	}
}

// TestAccesslog_anyOrder lives through seeded lives of a log.
func TestAccesslog_anyOrder(t *testing.T) {
	for seed := range uint64(60) {
		d := newDiary(t)
		r := rand.New(rand.NewPCG(seed, 6))
		var story []string
		for range 25 {
			var what string
			switch r.IntN(9) {
			case 0, 1, 2:
				what = "write"
				d.write(1 + r.IntN(30))
			case 3:
				what = "half"
				d.begin()
			case 4:
				what = "rename"
				d.rename(r.IntN(4))
			case 5:
				what = "truncate"
				d.run() // between this and the copy nothing but the copy can save what was written
				d.write(r.IntN(20))
				d.copytruncate()
			case 6:
				what = "restart"
				d.run()
				d.probe.Close()
				d.start()
				d.run()
			case 7:
				what = "crash"
				d.run()
				d.crash()
				d.run()
			default:
				what = "run"
				d.run()
			}
			story = append(story, what)
		}
		d.check(fmt.Sprintf("seed %d: %s", seed, strings.Join(story, " ")))
		d.probe.Close()
		if t.Failed() {
			return
		}
	}
}

func TestAccesslog_historyTeachesButDoesNotCount(t *testing.T) {
	d := &diary{t: t, path: filepath.Join(t.TempDir(), "access.log"), store: memory{}}
	d.create()
	d.write(5000)
	d.start()
	if r := d.run(); len(r.Answers) != 0 || len(r.Spikes) != 0 {
		t.Errorf("history was counted: %v %v", r.Answers, r.Spikes)
	}
	if s := d.probe.feed.detector.Stats(); s.Clients == 0 {
		t.Error("nothing was learnt")
	}
	d.wrote = [1000]int{}
	d.write(7)
	d.check("after history")
}

func TestAccesslog_globAndMissing(t *testing.T) {
	dir := t.TempDir()
	p := accesslogFor(t, nil, func(p *accesslogProbe) { p.Path = filepath.Join(dir, "*.log") })
	run := func() (evidence.Report, error) { return p.Run(t.Context()) }
	if _, err := run(); err == nil || !strings.Contains(err.Error(), "no file matches") || evidence.AsFault(err).Symptom != evidence.SymptomSource {
		t.Errorf("got %v, want that no file matches", err)
	}
	line := "203.0.113.9 - - [02/Jan/2026:15:04:05 +0000] \"GET /x HTTP/1.1\" 401 12 \"-\" \"-\"\n"
	for i, name := range []string{"a.log", "b.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat(line, i+1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := run()
	if err != nil || r.Answers[401] != 3 {
		t.Errorf("got %v, %v; files that appear while we watch count from their beginning", r.Answers, err)
	}
	single := accesslogFor(t, nil, func(p *accesslogProbe) { p.Path = filepath.Join(dir, "none") })
	if _, err := single.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "does not exist (yet)") {
		t.Errorf("got %v", err)
	}
	p.Close()
}

func TestAccesslog_badInput(t *testing.T) {
	d := newDiary(t)
	d.put(bytes.Repeat([]byte{0, 1, 2, 0xff, '\n'}, 5))
	d.put(append(bytes.Repeat([]byte("x"), 10<<20), '\n'))
	d.write(30)
	r := d.run()
	if d.probe.feed.Counts.Bad != 6 || len(r.Answers) == 0 {
		t.Errorf("%d bad lines, want 6 (five of binary, one of 10 MiB); answers %v", d.probe.feed.Counts.Bad, r.Answers)
	}
	d.check("after bad input")

	d.put([]byte(strings.Repeat("level=info msg=hello user=alice@example.com n=42\n", 50)))
	_, err := d.probe.Run(t.Context())
	if f := evidence.AsFault(err); f == nil || f.Code != "format" || !strings.Contains(err.Error(), "50 of 50 new lines are not of format combined") {
		t.Errorf("got %v, want that the format is another one", err)
	}
	if err != nil && strings.Contains(err.Error(), "alice") {
		t.Errorf("the message carries what the log says: %v", err)
	}
	d.probe.Close()
}

func TestAccesslog_whatStrangersAskForIsPresentable(t *testing.T) {
	d := newDiary(t)
	for i, path := range []string{"/\xff\xfe", "/a\x1b[31m", "/caf\xc3\xa9", "/\u202egpj.exe"} {
		d.put(fmt.Appendf(nil, "203.0.113.%d - - [02/Jan/2026:15:04:05 +0000] \"GET %s HTTP/1.1\" 401 12\n", i, path))
	}
	r := d.run()
	n := 0
	for _, x := range r.Readings {
		if x.Metric == refusedLog {
			n++
			if e := x.Labels[1]; !utf8.ValidString(e) || strings.ContainsAny(e, "\x1b\u202e") {
				t.Errorf("label %q", e)
			}
		}
	}
	if n != 4 {
		t.Errorf("%d endpoints, want 4", n)
	}
	d.probe.Close()
}

func TestAccesslog_aPipeOrDirectoryDoesNotBlock(t *testing.T) {
	dir := t.TempDir()
	p := accesslogFor(t, nil, func(p *accesslogProbe) { p.Path = dir })
	if _, err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	p = accesslogFor(t, nil, func(p *accesslogProbe) { p.Path = pipe })
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(w, "203.0.113.9 - - [02/Jan/2026:15:04:05 +0000] \"GET /x HT")
	fmt.Fprint(w, "TP/1.1\" 401 12 \"-\" \"-\"\n")
	w.Close()
	if got := await(t, p); got[401] != 1 {
		t.Errorf("got %v", got)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// await runs a probe until it has seen an answer.
func await(t *testing.T, p *accesslogProbe) map[int]int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		r, err := p.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Answers) > 0 {
			return r.Answers
		}
	}
	t.Fatal("nothing came within 10 s")
	return nil
}

func TestAccesslog_syslogSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log.sock")
	line := `<190>1 2026-01-02T15:04:05.003Z web1 nginx 815 - - 203.0.113.9 - bob [02/Jan/2026:15:04:05 +0000] "GET /v2/x HTTP/1.1" 401 12 "-" "curl"`
	for _, c := range []struct{ listen, network string }{{"unixgram:" + path, "unixgram"}, {"udp:127.0.0.1:0", "udp"}} {
		p := accesslogFor(t, nil, func(p *accesslogProbe) { p.Listen = c.listen })
		if _, err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		address := p.stream.from.(datagrams).LocalAddr().String()
		conn, err := net.Dial(c.network, address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, line); err != nil {
			t.Fatal(err)
		}
		if got := await(t, p); got[401] != 1 {
			t.Errorf("%s: got %v", c.listen, got)
		}
		conn.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket was left behind: %v", err)
	}
}

func TestAccesslog_stopsWithItsContext(t *testing.T) {
	d := newDiary(t)
	d.write(200_000)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := d.probe.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for status, k := range r.Answers {
		n += k
		d.counted[status] += k
	}
	if n > 5000 {
		t.Errorf("read %d lines after the end of its context", n)
	}
	for range 3 {
		d.run()
	}
	d.check("the rest comes with the next runs")
	d.probe.Close()
}

func TestAccesslog_outageIsReportedWithoutNamingAnybody(t *testing.T) {
	var b bytes.Buffer
	at := epoch0
	for i := range 40_000 {
		at = at.Add(2 * time.Second)
		status := 200
		if i > 39_000 {
			status = 401
		}
		fmt.Fprintf(&b, "10.0.0.1 - user%d [%s] \"GET /v2/devices/%d HTTP/1.1\" %d 1 \"-\" \"-\"\n", i%30, at.Format("02/Jan/2006:15:04:05 -0700"), i, status)
	}
	dir := t.TempDir()
	p := accesslogFor(t, memory{}, func(p *accesslogProbe) { p.Path = filepath.Join(dir, "*.log") })
	p.Run(t.Context())
	if err := os.WriteFile(filepath.Join(dir, "a.log"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
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
	if page == nil || !page.Active || page.Endpoint != "/v2/devices/{id}" || page.Refused == 0 {
		t.Fatalf("got %+v, want a page for the endpoint", r.Spikes)
	}
	if strings.Contains(fmt.Sprint(r.Spikes), "user1") {
		t.Errorf("clients are named in clear: %+v", page)
	}
	refused := 0.0
	for _, x := range r.Readings {
		if x.Metric == refusedLog && x.Labels[1] == "/v2/devices/{id}" && x.Labels[2] == "401" {
			refused += x.Value
		}
	}
	if refused != 999 {
		t.Errorf("%v refusals in the readings, want 999", refused)
	}
	p.Close()
}

func TestNewAccesslog_saysWhatIsWrong(t *testing.T) {
	for want, set := range map[string]func(*accesslogProbe){
		"path: is missing":          func(*accesslogProbe) {},
		"one of them is the source": func(p *accesslogProbe) { p.Path, p.Listen = "/x", "udp:127.0.0.1:1" },
		"is neither udp":            func(p *accesslogProbe) { p.Listen = "tcp:127.0.0.1:1" },
		"must be absolute":          func(p *accesslogProbe) { p.Listen = "unixgram:x" },
		"unknown format":            func(p *accesslogProbe) { p.Path, p.Format = "/x", "nginx" },
		`client: "ip" is none of`:   func(p *accesslogProbe) { p.Path, p.Client = "/x", []string{"ip"} },
		"does not begin with /":     func(p *accesslogProbe) { p.Path, p.Routes = "/x", []string{"v2"} },
		"neither hashed nor clear":  func(p *accesslogProbe) { p.Path, p.Clients = "/x", "plain" },
		"is no pattern":             func(p *accesslogProbe) { p.Path = "/x[" },
	} {
		_, err := newAccesslog(func(v any) error { set(v.(*accesslogProbe)); return nil }, Env{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
