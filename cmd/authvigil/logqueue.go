package main

import (
	"bytes"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queuedLines is how many lines of the log wait for whoever reads it.
	queuedLines = 1024
	// lastLines is how long the end of the process waits for them to be read.
	lastLines = time.Second
)

// A logQueue hands lines on to a writer that may block, as a pipe does whose reader hangs and a journal whose disk does.
// Whoever writes never waits: the log is written where probes are judged, and a stuck reader must not stop the watch.
// What does not fit is dropped and counted, and the count is written when the reader is back.
type logQueue struct {
	out     io.Writer
	log     *slog.Logger // writes to out at once
	lines   chan []byte
	dropped atomic.Int64
	done    chan struct{}
	once    sync.Once
}

func newLogQueue(out io.Writer, log *slog.Logger) *logQueue {
	q := &logQueue{out: out, log: log, lines: make(chan []byte, queuedLines), done: make(chan struct{})}
	go q.run()
	return q
}

// Write implements io.Writer. It is not called after close.
func (q *logQueue) Write(p []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(p):
	default:
		q.dropped.Add(1)
	}
	return len(p), nil
}

func (q *logQueue) run() {
	defer close(q.done)
	var told int64
	for line := range q.lines {
		_, _ = q.out.Write(line) // there is nowhere else to say that it failed
		if n := q.dropped.Load(); n > told && len(q.lines) == 0 {
			q.log.Warn("lines of the log were dropped, because nobody read it", "lines", n-told)
			told = n
		}
	}
}

// close writes what waits, for a second at most.
func (q *logQueue) close() {
	q.once.Do(func() { close(q.lines) })
	select {
	case <-q.done:
	case <-time.After(lastLines):
	}
}
