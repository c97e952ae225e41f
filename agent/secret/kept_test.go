package secret

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestKept_oneQuestionForAll: many readers cost one question in each ttl, a shorter lease is respected, and a failure is not
// asked for again and again.
func TestKept_oneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, life := 0, time.Duration(0)
		var fail error
		k := newKept(5*time.Minute, 5*time.Second, func(context.Context) (fetched, error) {
			time.Sleep(time.Second)
			asked++
			return fetched{value: New(fmt.Sprintf("value-number-%d", asked)), life: life}, fail
		})
		all := func(want int, what string) {
			t.Helper()
			var group sync.WaitGroup
			for range 50 {
				group.Go(func() {
					if _, err := k.Reveal(t.Context()); err != nil && !errors.Is(err, fail) {
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			group.Wait()
			if asked != want {
				t.Errorf("%s: asked %d times, want %d", what, asked, want)
			}
		}
		all(1, "at the start")
		time.Sleep(4 * time.Minute)
		all(1, "within ttl")
		life = time.Minute
		time.Sleep(2 * time.Minute)
		all(2, "after ttl")
		time.Sleep(time.Minute)
		all(3, "after the lease")

		fail = ErrAway
		time.Sleep(time.Minute)
		all(4, "while it is away")
		if v, err := k.Reveal(t.Context()); err != nil || v.Expose() != "value-number-3" {
			t.Errorf("while it is away: %v, want the last value", err)
		}
		time.Sleep(59 * time.Minute)
		if _, err := k.Reveal(t.Context()); err != nil {
			t.Errorf("just before an hour: %v", err)
		}
		time.Sleep(5 * time.Minute)
		if _, err := k.Reveal(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("after an hour: %v, want ErrAway", err)
		}
		fail = errors.New("refused")
		time.Sleep(time.Minute)
		before := asked
		all(before+1, "refused")
		time.Sleep(30 * time.Second)
		all(before+1, "refused half a minute ago")
		fail = nil
		time.Sleep(time.Minute)
		all(before+2, "allowed again")
	})
}

// TestKept_waitsNoLongerThanItMay: a place that never answers holds nobody up beyond the limit, and the caller's own haste is
// not held against it.
func TestKept_waitsNoLongerThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		k := newKept(time.Minute, 5*time.Second, func(ctx context.Context) (fetched, error) {
			asked++
			<-ctx.Done()
			return fetched{}, ctx.Err()
		})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := k.Reveal(short); !errors.Is(err, ErrAway) || time.Since(start) != time.Second {
			t.Errorf("%v after %s, want ErrAway after 1s", err, time.Since(start))
		}
		start = time.Now()
		if _, err := k.Reveal(t.Context()); !errors.Is(err, ErrAway) || time.Since(start) != 5*time.Second || asked != 2 {
			t.Errorf("%v after %s, asked %d times, want ErrAway after 5s and 2", err, time.Since(start), asked)
		}
	})
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	return path
}

func TestExec_output(t *testing.T) {
	for _, c := range []struct {
		name, place, want, words string
		away                     bool
	}{
		{"one line", script(t, "echo canary-from-a-program"), "canary-from-a-program", "", false},
		{"arguments", script(t, `printf '%s-%s' "$1" "$2"`) + " show key", "show-key", "", false},
		{"no shell", script(t, `printf '%s' "$1"`) + " $(id);ls", "$(id);ls", "", false},
		{"arguments with spaces", fmt.Sprintf(`[%q, "my item"]`, script(t, `printf '%s' "$1"`)), "my item", "", false},
		{"options", "ttl=1m timeout=2s " + script(t, "echo canary-with-options"), "canary-with-options", "", false},
		{"fails", script(t, "echo 'vault is locked' >&2; exit 3"), "", "exit status 3: vault is locked", true},
		{"takes too long", "timeout=200ms " + script(t, "sleep 30"), "", "in time", true},
		{"prints nothing", script(t, "true"), "", "is empty", false},
		{"prints two lines", script(t, "echo one; echo two"), "", "line break", false},
		{"prints too much", script(t, "head -c 200000 /dev/zero | tr '\\0' x"), "", "longer than", false},
		{"is not there", "/nonexistent/program", "", "cannot be run", false},
		{"leaves a child behind", script(t, "sleep 30 & echo canary-with-a-child"), "canary-with-a-child", "", false},
	} {
		ref, err := Parse("exec:" + c.place)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		start := time.Now()
		v, err := ref.Reveal(t.Context())
		if v.Expose() != c.want || (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) || errors.Is(err, ErrAway) != c.away {
			t.Errorf("%s: got %q, %v; want %q and %q, away %v", c.name, v.Expose(), err, c.want, c.words, c.away)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %s", c.name, took)
		}
	}
}

func TestExec_showsNoArguments(t *testing.T) {
	ref, err := Parse("exec:/usr/bin/tool --password=" + canary)
	if err != nil {
		t.Fatal(err)
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", ref, struct{ r Ref }{ref}, ref, ref); strings.Contains(shown, "password=") {
		t.Errorf("an argument is shown: %s", shown)
	}
	for _, bad := range []string{"relative/program", "ttl=1x /usr/bin/tool", "timeout=0s /usr/bin/tool", "ttl=1m", `["a`} {
		if _, err := Parse("exec:" + bad); err == nil {
			t.Errorf("exec:%s passed", bad)
		}
	}
}
