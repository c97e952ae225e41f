package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/authvigil/authvigil/probes/sandbox"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"authvigil": main})
}

// TestScripts plays testdata/script/*.txtar: one story for each command, with each of its exit codes. The servers are a sandbox
// on loopback, made anew for each story. Its API is at $API, the issuer at $AUTH, the authority in $CA, time servers at
// $NTP1 to $NTP3, and what takes alerts at $HOOK.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup:               setUpStory,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":  exitsCommand,
			"until":  untilCommand,
			"break":  breakCommand,
			"expand": expandCommand,
		},
	})
}

type worldKey struct{}

func setUpStory(env *testscript.Env) error {
	world := sandbox.New()
	env.Defer(world.Close)
	if err := world.Listen(); err != nil {
		return err
	}
	var alerts atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusForbidden)
		}
		alerts.Add(1)
	}))
	env.Defer(hook.Close)
	env.Values[worldKey{}] = world
	ca := filepath.Join(env.WorkDir, "ca.pem")
	env.Setenv("API", "https://"+world.Address(sandbox.APIHost+":443"))
	env.Setenv("API_ADDRESS", world.Address(sandbox.APIHost+":443"))
	env.Setenv("AUTH", "https://"+world.Address(sandbox.AuthHost+":443"))
	env.Setenv("HOOK", hook.URL)
	env.Setenv("CA", ca)
	env.Setenv("SECRET", sandbox.ClientSecret)
	env.Setenv("RUNTIME_DIRECTORY", env.WorkDir)
	for i, name := range []string{sandbox.NTPHost1, sandbox.NTPHost2, sandbox.NTPHost3} {
		env.Setenv(fmt.Sprintf("NTP%d", i+1), world.Address(name+":123"))
	}
	return os.WriteFile(ca, world.RootsPEM(), 0o600)
}

// exitsCommand runs a command and compares its exit code: exits CODE authvigil ARGS…
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGS…")
	}
	if got := exitCode(ts, args[1:]); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

func exitCode(ts *testscript.TestScript, args []string) int {
	err := ts.Exec(args[0], args[1:]...)
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return failed.ExitCode()
	}
	ts.Check(err)
	return 0
}

// untilCommand runs a command again and again until it ends with a code: until CODE authvigil ARGS…
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until CODE COMMAND ARGS…")
	}
	for end := time.Now().Add(20 * time.Second); strconv.Itoa(exitCode(ts, args[1:])) != args[0]; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s does not end with %s in 20 s", strings.Join(args[1:], " "), args[0])
		}
	}
}

// breakCommand breaks something in the sandbox, or mends everything: break scope|block|expiring|nothing.
func breakCommand(ts *testscript.TestScript, _ bool, args []string) {
	world := ts.Value(worldKey{}).(*sandbox.World)
	switch strings.Join(args, " ") {
	case "scope":
		world.API.Set(func(f *sandbox.APIFaults) { f.WantScope = "devices:own" })
	case "block":
		world.API.Set(func(f *sandbox.APIFaults) { f.Answer = sandbox.BlockPage() })
	case "expiring":
		world.Host(sandbox.APIHost).Set(func(f *sandbox.Faults) {
			f.Certificate = sandbox.Certificate{NotBefore: time.Now().Add(-88 * 24 * time.Hour), NotAfter: time.Now().Add(40 * time.Hour)}
		})
	case "nothing":
		world.API.Reset()
		world.Host(sandbox.APIHost).Reset()
	default:
		ts.Fatalf("usage: break scope|block|expiring|nothing")
	}
}

// expandCommand puts the variables of the story into files: expand FILE…
func expandCommand(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		path := ts.MkAbs(name)
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(path, []byte(text), 0o600))
	}
}
