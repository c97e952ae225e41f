package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// logKeys are the keys that events of the log may have. People search for them: one that changes is a [CHANGE].
var logKeys = []string{
	"probe", "kind", "endpoint", "identity", "sink", "stage", "symptom", "code", "error", "cause", "culprit", "sureness", "remedy", "outcome", "took", "in_a_row", "since",
	"address", "path", "directory", "warning", "what", "text", "help", "step", "alerts", "added", "changed", "removed", "same", "panic", "stack", "bad", "good", "shape",
	"receiver", "first", "lines", "aside",
}

// TestLog_keysAreFixed reads every call of a logger in the program: its message is constant, and its keys are known.
func TestLog_keysAreFixed(t *testing.T) {
	calls := 0
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files := token.NewFileSet()
		tree, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Debug", "Info", "Warn", "Error", "With"}, sel.Sel.Name) || !isLogger(sel.X) || len(call.Args) == 0 {
				return true
			}
			calls++
			args := call.Args
			if sel.Sel.Name != "With" {
				if _, ok := args[0].(*ast.BasicLit); !ok {
					t.Errorf("%s: the message is not constant", files.Position(call.Pos()))
				}
				args = args[1:]
			}
			for _, key := range keysIn(args) {
				if !slices.Contains(logKeys, key) {
					t.Errorf("%s: the key %q is not among those that are fixed", files.Position(call.Pos()), key)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || calls < 20 {
		t.Errorf("%d calls were read: %v", calls, err)
	}
}

func isLogger(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return strings.EqualFold(x.Name, "log")
	case *ast.SelectorExpr:
		return strings.EqualFold(x.Sel.Name, "log")
	}
	return false
}

// keysIn are the literal keys among arguments, also of those that are appended.
func keysIn(args []ast.Expr) (keys []string) {
	for i := 0; i < len(args); i++ {
		switch x := args[i].(type) {
		case *ast.BasicLit:
			keys = append(keys, strings.Trim(x.Value, `"`))
			i++ // its value
		case *ast.CallExpr:
			if name, ok := x.Fun.(*ast.Ident); ok && name.Name == "append" {
				keys = append(keys, keysIn(x.Args[1:])...)
			}
		}
	}
	return keys
}

// TestLog_lastingFailureIsThinned: a failure is told when it begins, after 2, 4, 8 … runs, and when it ends, with what is to
// blame and what to do.
func TestLog_lastingFailureIsThinned(t *testing.T) {
	var b bytes.Buffer
	l := &logging{slog.New(slog.NewTextHandler(&b, nil))}
	fault := &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Err: errors.New("answered 401")}
	for n := 1; n <= 1000; n++ {
		l.Observe(&agent.Event{Observation: agent.Observation{Probe: "devices", Kind: "http", About: probes.About{Endpoint: "e", Identity: "billing"}, Fault: fault}, Changed: n == 1, InARow: n, Failing: time.Unix(0, 0),
			Findings: []diagnose.Finding{{Cause: diagnose.TokenExpired, Culprit: "identity:billing", Sure: diagnose.Certain, Remedy: "obtain a new token"}}})
	}
	l.Observe(&agent.Event{Observation: agent.Observation{Probe: "devices"}, Changed: true})
	text := b.String()
	if lines := strings.Count(text, "\n"); lines != 11 { // begin, 2 … 512, end
		t.Errorf("a thousand failing runs make %d lines:\n%s", lines, text)
	}
	for _, want := range []string{`level=WARN msg="probe failing" probe=devices kind=http endpoint=e identity=billing stage=api symptom=unauthorized error="api: answered 401" cause=token_expired culprit=identity:billing sureness=certain remedy="obtain a new token"`,
		"in_a_row=512 since=1970-01-01T00:00:00Z", `level=INFO msg="probe ok"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

// TestLog_journalHasPriorities: where standard error leads to the journal, lines begin with their priority and have no time.
func TestLog_journalHasPriorities(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	s := info.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]string{
		fmt.Sprintf("%d:%d", s.Dev, s.Ino): "<7>level=DEBUG msg=a x=1 n=1\n<6>level=INFO msg=b x=1\n<4>level=WARN msg=c x=1\n<3>level=ERROR msg=d x=1\n",
		"1:1":                              "",
	} {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, _ = f.Seek(0, 0)
		a := &app{stderr: f, environ: []string{"JOURNAL_STREAM=" + stream}, logLevel: "debug", logFormat: "logfmt"}
		log, _, err := a.logger()
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("x", 1)
		log.Debug("a", "n", 1)
		log.Info("b")
		log.Warn("c")
		log.Error("d")
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			if !strings.HasPrefix(string(text), "time=") {
				t.Errorf("a stream that is not the journal's gets\n%s", text)
			}
		} else if string(text) != want {
			t.Errorf("got\n%s\nwant\n%s", text, want)
		}
	}
}
