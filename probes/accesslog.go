package probes

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

// accesslogProbe watches what users meet: it follows access logs and tells when refusals of clients that had success before
// become unusual. Each run reads what was written since the last one.
type accesslogProbe struct {
	Path        string `koanf:"path" help:"log file, pattern (/var/log/nginx/*access.log), named pipe, or - for standard input; rotation is followed"`
	Listen      string `koanf:"listen" help:"instead of path: where syslog is received, udp:127.0.0.1:5514 or unixgram:/run/authvigil/log.sock"`
	History     bool   `koanf:"history" help:"whether a log that is there at the first start (its last 64 MiB) is read to learn what is usual, without counting it; default true"`
	LogSettings `koanf:",squash"`

	name  string
	store identity.Store
	log   *slog.Logger

	mu      sync.Mutex // over all that follows: lines may come in between runs
	feed    *LogFeed
	begun   bool
	files   map[string]*follower
	stream  *logStream
	saved   time.Time
	picked  map[string]pickedUp // by path: where a process before this one stopped
	heard   time.Time           // when the newest line was read
	newest  time.Time           // its time
	before  LogCounts           // as of the last report
	warned  time.Time
	failing bool // the state could not be saved
}

// stateEvery is how often what was learnt is saved; where reading stopped is saved after each run.
const stateEvery = 5 * time.Minute

func newAccesslog(decode func(any) error, env Env) (Probe, error) {
	p := &accesslogProbe{History: true, name: env.Name, store: env.Store, log: cmp.Or(env.Log, slog.New(slog.DiscardHandler)), files: map[string]*follower{}}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	switch {
	case p.Path == "" && p.Listen == "":
		errs = append(errs, errors.New("path: is missing; name the log file, or listen for syslog"))
	case p.Path != "" && p.Listen != "":
		errs = append(errs, errors.New("listen: stands beside path; one of them is the source"))
	case p.Listen != "":
		if _, _, err := splitListen(p.Listen); err != nil {
			errs = append(errs, fmt.Errorf("listen: %w", err))
		}
		if p.Format == "" {
			p.Format = "syslog"
		}
	default:
		if _, err := filepath.Match(p.Path, ""); err != nil {
			errs = append(errs, fmt.Errorf("path: %q is no pattern: %w", p.Path, err))
		}
	}
	if _, err := NewLogFeed(p.LogSettings, nil); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

func (p *accesslogProbe) About() About {
	return About{Endpoint: "log:" + cmp.Or(p.Path, p.Listen), Expected: "log"}
}

// Run reads what is new and reports what holds now.
func (p *accesslogProbe) Run(ctx context.Context) (evidence.Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.begun {
		if err := p.start(); err != nil {
			return evidence.Report{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSource, Err: err}
		}
		p.begun = true
	}
	var err error
	if p.isStream() {
		err = p.receive()
	} else {
		err = p.read(ctx, now)
	}
	p.elapse(time.Now())
	before := p.before
	report := p.report()
	p.save(now, false)
	if err == nil {
		err = p.understood(before)
	}
	return report, err
}

// start makes the detector, from its state where there is one.
func (p *accesslogProbe) start() error {
	feed, err := NewLogFeed(p.LogSettings, p.key())
	if err != nil {
		return err
	}
	p.feed = feed
	p.restore()
	return nil
}

// key is what clients are hashed with. Without a store it lasts as long as the process.
func (p *accesslogProbe) key() []byte {
	const name = "accesslog/key"
	if p.store != nil {
		if key, err := p.store.Load(name); err == nil && len(key) == 32 {
			return key
		}
	}
	key := make([]byte, 32)
	rand.Read(key) // never fails
	if p.store != nil {
		if err := p.store.Save(name, key); err != nil {
			p.log.Warn("key of client names not saved: they change with the next start", "error", err)
		}
	}
	return key
}

// read follows the files.
func (p *accesslogProbe) read(ctx context.Context, now time.Time) error {
	errs := p.find(now)
	var sources []*logSource
	var tails []*tail
	for _, path := range slices.Sorted(maps.Keys(p.files)) {
		for _, t := range p.files[path].tails {
			sources, tails = append(sources, t.logSource), append(tails, t)
		}
	}
	if len(sources) == 0 {
		if len(errs) == 0 {
			errs = append(errs, fmt.Errorf("no file matches %s", p.Path))
		}
		return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Err: errors.Join(errs...)}
	}
	places := make([]int64, len(tails))
	learning := false
	for i, t := range tails {
		places[i] = t.next
		learning = learning || t.at < t.quiet
	}
	stop := now.Add(20 * time.Second)
	if deadline, ok := ctx.Deadline(); ok {
		stop = now.Add(time.Until(deadline) * 8 / 10)
	}
	_, err := p.feed.pump(sources, func() bool { return ctx.Err() != nil || time.Now().After(stop) })
	if learning {
		p.feed.detector.Changes() // what began and ended in the past is nobody's concern
	}
	for i, t := range tails {
		if t.next != places[i] {
			t.grew = time.Now()
		}
	}
	if err = errors.Join(append(errs, err)...); err != nil {
		return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Err: err}
	}
	return nil
}

// find looks which files there are and what became of those that are known.
func (p *accesslogProbe) find(now time.Time) (errs []error) {
	paths := []string{p.Path}
	if pattern := hasMeta(p.Path); pattern {
		matches, _ := filepath.Glob(p.Path) // the pattern was checked
		if len(matches) > maxFollowed {
			errs = append(errs, fmt.Errorf("%d files match %s; the first %d are followed", len(matches), p.Path, maxFollowed))
			matches = matches[:maxFollowed]
		}
		paths = slices.DeleteFunc(matches, func(path string) bool { return filepath.Ext(path) == ".gz" })
	}
	for path := range p.files {
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		f := p.files[path]
		if f == nil {
			f = &follower{feed: p.feed, path: path}
			if err := p.enter(f); err != nil {
				f.close()
				errs = append(errs, explainOpen(path, err))
				continue
			}
			f.look()
			p.files[path] = f
		} else if err := f.refresh(now); err != nil {
			errs = append(errs, explainOpen(path, err))
		}
		if f.lost != "" {
			p.log.Warn("lines of the log may be missing", "path", path, "text", f.lost)
			f.lost = ""
		}
		if len(f.tails) == 0 {
			delete(p.files, path)
		}
	}
	return errs
}

// enter opens a path for the first time: where it comes from the state, at the beginning when it appeared while we watched,
// otherwise at its end.
func (p *accesslogProbe) enter(f *follower) error {
	if up, ok := p.picked[f.path]; ok {
		err := f.pickUp(up, time.Now())
		if err == nil {
			delete(p.picked, f.path)
		}
		return err
	}
	if !p.saved.IsZero() {
		return f.begin(0, true)
	}
	history := int64(0)
	if p.History {
		history = maxHistory
	}
	return f.begin(history, false)
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist (yet)", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s may not be read: let the user of authvigil be in the group of the log (often adm)", path)
	}
	return err
}

// elapse tells the detector how late it is by the log's own clock: as much later than the newest line as has passed since it
// was read. Neither a log in another zone nor one that is written late confuses it.
func (p *accesslogProbe) elapse(now time.Time) {
	if newest := p.feed.newest; newest.After(p.newest) {
		p.newest, p.heard = newest, now
	}
	if !p.heard.IsZero() {
		p.feed.detector.Advance(p.newest.Add(now.Sub(p.heard)))
	}
}

// understood says when most lines are not: the format is another one.
func (p *accesslogProbe) understood(before LogCounts) error {
	c := &p.feed.Counts
	good, bad := c.Requests-before.Requests, c.Bad-before.Bad
	if bad == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(p.warned) > 10*time.Minute {
		p.warned = now
		p.log.Warn("lines of the log not understood", "bad", bad, "good", good, "shape", p.feed.Sample())
	}
	if bad < 20 || bad < good {
		return nil
	}
	return &evidence.Fault{Stage: evidence.StageLog, Symptom: evidence.SymptomSource, Code: "format",
		Err: fmt.Errorf("%d of %d new lines are not of format %s; the last looks like %q (a for letters, 9 for digits)", bad, good+bad, cmp.Or(p.Format, "auto"), p.feed.Sample())}
}

// Close ends what goes on between runs, and saves what was learnt.
func (p *accesslogProbe) Close() error {
	if p.stream != nil {
		p.stream.close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stream = nil
	if p.begun {
		p.save(time.Now(), true)
	}
	for _, f := range p.files {
		f.close()
	}
	clear(p.files)
	return nil
}

func hasMeta(path string) bool {
	for _, c := range path {
		if c == '*' || c == '?' || c == '[' {
			return true
		}
	}
	return false
}

// isStream says whether lines come by themselves: from a socket or a pipe.
func (p *accesslogProbe) isStream() bool {
	if p.stream != nil || p.Listen != "" || p.Path == "-" {
		return true
	}
	info, err := os.Stat(p.Path)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}
