package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/wire"
)

// TestReload_thousandTimes: probes come, change and go a thousand times while they run. Nothing is left of those that went,
// and those that stayed were not touched.
func TestReload_thousandTimes(t *testing.T) {
	text := func(i int) string {
		s := "[defaults]\nevery = \"10s\"\n[identity.who]\nkind = \"bearer\"\ntoken = \"plain:a-token-of-the-test\"\n"
		for n := range 5 {
			s += fmt.Sprintf("[probe.stays%d]\nkind = \"http\"\nurl = \"http://stays.example.test/%d\"\nidentity = \"who\"\n", n, n)
		}
		for n := range i % 4 {
			s += fmt.Sprintf("[probe.goes%d]\nkind = \"http\"\nurl = \"http://goes.example.test/%d/%d\"\n", n, n, i)
		}
		return s
	}
	synctest.Test(t, func(t *testing.T) {
		refused := wire.Net{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("connection refused") }}
		load := func(i int) *Config {
			c, err := Parse("authvigil.toml", text(i))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		a, err := New(load(0), Env{Net: refused, Jitter: func() float64 { return 0 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(time.Minute)
		stays, gate := a.watches["stays1"], a.gates[gateOf(a.world.probes["stays1"])]
		goroutines := runtime.NumGoroutine()
		for i := range 1001 {
			if _, err := a.Reload(load(i)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		if _, err := a.Reload(load(0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if now := runtime.NumGoroutine(); now > goroutines {
			t.Errorf("%d goroutines, %d before", now, goroutines)
		}
		if a.watches["stays1"] != stays || a.gates[gateOf(a.world.probes["stays1"])] != gate {
			t.Error("a probe that is the same was started anew, or lost its gate")
		}
		if len(a.watches) != 5 || len(a.gates) != 5 || len(a.court.records) != 5 || len(a.court.origin) != 1 {
			t.Errorf("left: %d watches, %d gates, %d records, %d origins", len(a.watches), len(a.gates), len(a.court.records), len(a.court.origin))
		}
		stop()
		<-done
	})
}

var exampleKey = regexp.MustCompile(`^([a-z][a-z0-9_]*) = (.*)$`)

// TestExample_everyMutationIsAnError: a misspelt key, a value of another type and a unit that is missing are errors at their
// line, whatever the key.
func TestExample_everyMutationIsAnError(t *testing.T) {
	b, err := os.ReadFile("../config.toml.example")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	tried := 0
	for i, line := range lines {
		m := exampleKey.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		value, _, _ := strings.Cut(m[2], "  #")
		mutations := []string{"x" + m[1] + " = " + value, m[1] + " = [[[1]]]"}
		if strings.HasPrefix(strings.TrimSpace(value), `"`) && regexp.MustCompile(`^"\d+(ms|s|m|h|d)"\s*$`).MatchString(value) {
			mutations = append(mutations, m[1]+" = 5", m[1]+` = "5"`, m[1]+` = "-5s"`)
		}
		for _, mutation := range mutations {
			changed := append(append(append([]string{}, lines[:i]...), mutation), lines[i+1:]...)
			if err := os.WriteFile(path, []byte(strings.Join(changed, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			c, err := Load(path, nil)
			if c != nil {
				_, more := build(c, testEnv(), nil, noClock)
				err = errors.Join(err, more)
			}
			tried++
			if err == nil {
				t.Errorf("line %d of the example: %q passes for %q", i+1, mutation, line)
			} else if at := fmt.Sprintf("authvigil.toml:%d:", i+1); !strings.Contains(err.Error(), at) && (m[1] != "kind" || !strings.Contains(err.Error(), "kind is missing")) {
				t.Errorf("line %d: %q: the error has another place: %.300v", i+1, mutation, err)
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d mutations", tried)
	}
}
