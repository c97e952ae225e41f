package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
)

// logger makes the logger that the flags describe. For the journal each line begins with its priority and has no time,
// because the journal has one of its own (sd-daemon(3)).
func (a *app) logger() (*slog.Logger, *slog.LevelVar, error) {
	level := new(slog.LevelVar)
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, nil, exit{exitUsage, fmt.Errorf("--log.level: %q is none of debug, info, warn, error", a.logLevel)}
	}
	if a.logFormat != "logfmt" && a.logFormat != "json" {
		return nil, nil, exit{exitUsage, fmt.Errorf("--log.format: %q is neither logfmt nor json", a.logFormat)}
	}
	options := &slog.HandlerOptions{Level: level}
	handler := func(w io.Writer) slog.Handler {
		if a.logFormat == "json" {
			return slog.NewJSONHandler(w, options)
		}
		return slog.NewTextHandler(w, options)
	}
	if !isJournal(a.getenv("JOURNAL_STREAM"), a.stderr) {
		return slog.New(handler(a.stderr)), level, nil
	}
	options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
		if len(groups) == 0 && attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attr
	}
	j := journal{}
	for i, p := range priorities {
		j[i] = handler(prefixed{p.prefix, a.stderr})
	}
	return slog.New(j), level, nil
}

// isJournal says whether w is the stream to the journal that systemd names as device:inode.
func isJournal(stream string, w io.Writer) bool {
	if q, queued := w.(*logQueue); queued {
		w = q.out
	}
	f, ok := w.(*os.File)
	if stream == "" || !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", s.Dev, s.Ino)
}

// priorities are the levels with what the journal calls them, the highest first.
var priorities = []struct {
	level  slog.Level
	prefix string
}{{slog.LevelError, "<3>"}, {slog.LevelWarn, "<4>"}, {slog.LevelInfo, "<6>"}, {slog.LevelDebug - 100, "<7>"}}

// A journal has one handler for each of priorities, whose lines begin with it.
type journal [4]slog.Handler

// Enabled implements slog.Handler.
func (j journal) Enabled(ctx context.Context, level slog.Level) bool { return j[0].Enabled(ctx, level) }

// Handle implements slog.Handler.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	for i, p := range priorities {
		if r.Level >= p.level {
			return j[i].Handle(ctx, r)
		}
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	for i := range j {
		j[i] = j[i].WithAttrs(slices.Clone(attrs))
	}
	return j
}

// WithGroup implements slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	for i := range j {
		j[i] = j[i].WithGroup(name)
	}
	return j
}

// prefixed puts text before each line; slog writes a line at once.
type prefixed struct {
	text string
	w    io.Writer
}

func (p prefixed) Write(line []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.text), line...)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// logging writes an event when a probe's state changes. A failure that goes on is told again after 2, 4, 8 … runs, so that
// it is in the journal of the day and does not fill it.
type logging struct{ log *slog.Logger }

func (l *logging) Observe(ev *agent.Event) {
	attrs := []any{"probe", ev.Probe, "kind", ev.Kind, "endpoint", ev.About.Endpoint}
	if ev.About.Identity != "" {
		attrs = append(attrs, "identity", ev.About.Identity)
	}
	outcome := ev.Outcome()
	again := !ev.Changed && outcome == agent.RunFault && ev.InARow > 1 && bits.OnesCount(uint(ev.InARow)) == 1
	switch {
	case again:
		l.log.Warn("probe still failing", append(l.trouble(attrs, ev), "in_a_row", ev.InARow, "since", ev.Failing.UTC().Format(time.RFC3339))...)
	case !ev.Changed:
		l.log.Debug("run", append(attrs, "outcome", outcome, "took", ev.Took)...)
	case ev.Fault != nil:
		l.log.Warn("probe failing", l.trouble(attrs, ev)...)
	case len(ev.Findings) > 0:
		l.log.Warn("probe wants attention", l.trouble(attrs, ev)...)
	default:
		l.log.Info("probe ok", attrs...)
	}
}

// trouble tells stage, symptom and evidence of a failure, what is to blame, and what to do.
func (l *logging) trouble(attrs []any, ev *agent.Event) []any {
	if f := ev.Fault; f != nil {
		attrs = append(attrs, "stage", f.Stage, "symptom", f.Symptom)
		if f.Code != "" {
			attrs = append(attrs, "code", f.Code)
		}
		attrs = append(attrs, "error", exporters.Show(f.Error()))
	}
	if len(ev.Findings) > 0 {
		f := ev.Findings[0]
		attrs = append(attrs, "cause", f.Cause, "culprit", f.Culprit, "sureness", f.Sure, "remedy", f.Remedy)
	}
	return attrs
}

func (l *logging) Forget(string) {}
