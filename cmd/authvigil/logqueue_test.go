package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestLogQueue_neverBlocks: a reader that hangs costs lines, which are counted, and nobody's time.
func TestLogQueue_neverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		q := newLogQueue(w, slog.New(slog.NewTextHandler(w, nil)))
		began := time.Now()
		for i := range 3 * queuedLines {
			if n, err := fmt.Fprintf(q, "line %d\n", i); err != nil || n == 0 {
				t.Fatal(n, err)
			}
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it waited %s", waited)
		}
		if n := q.dropped.Load(); n < queuedLines || n > 2*queuedLines {
			t.Errorf("%d lines dropped", n)
		}
		q.close() // gives up after a second
		if waited := time.Since(began); waited != lastLines {
			t.Errorf("the end waited %s", waited)
		}
		r.Close()
		<-q.done
	})
	var out bytes.Buffer
	gate := make(chan struct{})
	slow := writerFunc(func(p []byte) (int, error) { <-gate; return out.Write(p) })
	q := newLogQueue(slow, slog.New(slog.NewTextHandler(slow, nil)))
	for i := range 2 * queuedLines {
		fmt.Fprintf(q, "line %d\n", i)
	}
	close(gate)
	q.close()
	text := out.String()
	if !strings.HasPrefix(text, "line 0\nline 1\n") || !strings.Contains(text, fmt.Sprintf("lines=%d\n", q.dropped.Load())) || strings.Count(text, "\n") < queuedLines {
		t.Errorf("%d dropped, %d lines: …%s", q.dropped.Load(), strings.Count(text, "\n"), text[max(len(text)-200, 0):])
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
