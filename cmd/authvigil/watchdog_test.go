package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent"
)

// aBrake is an observer that stops the line while it is held: everything waits for it, as it would for a deadlock.
type aBrake struct{ sync.Mutex }

func (b *aBrake) Observe(*agent.Event) {
	b.Lock()
	defer b.Unlock()
}

func (b *aBrake) Forget(string) {}

// manager stands in for systemd at the other end of $NOTIFY_SOCKET.
type manager struct {
	mu   sync.Mutex
	said []string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	m := &manager{}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, string(b[:n]))
			m.mu.Unlock()
		}
	}()
	return m
}

// count says how often a message that begins so came.
func (m *manager) count(prefix string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.said {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

func (m *manager) wait(t *testing.T, prefix string, beyond int) {
	t.Helper()
	for range 500 {
		if m.count(prefix) > beyond {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	t.Fatalf("%q did not come more than %d times: %q", prefix, beyond, m.said)
}

// TestRun_systemdIsToldTheTruth: ready when it listens, fed while the line moves and not while it stands, reloading with
// the moment of it, what is wrong as the status, and stopping.
func TestRun_systemdIsToldTheTruth(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "authvigil.toml")
	good := fmt.Sprintf("[probe.p]\nkind = \"http\"\nurl = %q\nevery = \"1s\"\n", server.URL)
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "300000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	a := &app{stdout: io.Discard, stderr: io.Discard, configFile: config}
	d := &service{app: a, log: slog.New(slog.NewTextHandler(io.Discard, nil)), ready: make(chan struct{})}
	brake := &aBrake{}
	d.observers = []agent.Observer{brake}
	c, err := agent.Load(config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.build(c, a.env(d.log)); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx, &listen{addresses: []string{"127.0.0.1:0"}}) }()
	m.wait(t, "READY=1", 0)
	m.wait(t, "STATUS=watching with 1 probes", 0)
	m.wait(t, "WATCHDOG=1", 3)

	brake.Lock()
	time.Sleep(1500 * time.Millisecond) // the probe runs each second, and stops at the brake
	before := m.count("WATCHDOG=1")
	time.Sleep(time.Second)
	if after := m.count("WATCHDOG=1"); after > before {
		t.Errorf("fed %d times while the line stood", after-before)
	}
	brake.Unlock()
	m.wait(t, "WATCHDOG=1", before+2)

	write("[probe.p]\nkind = \"htp\"\n")
	if err := d.reloadFile(); err == nil {
		t.Error("a bad configuration was taken over")
	}
	m.wait(t, "STATUS=watching with 1 probes; The configuration on disk has errors", 0)
	write(good)
	if err := d.reloadFile(); err != nil {
		t.Errorf("a good one was not: %v", err)
	}
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	if err := d.reloadFile(); err == nil || !strings.Contains(err.Error(), "no such file") || d.agent.Health().Probes != 1 {
		t.Errorf("a configuration that is gone: %v, %d probes run", err, d.agent.Health().Probes)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	m.wait(t, "STOPPING=1", 0)
}
