package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
)

func aState(failures int) *stored {
	return &stored{Saved: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), Alerts: []byte(`{"version":1}`), Gates: map[string]pace.State{"api.test/": {Failures: failures}}}
}

// told collects what is said about files.
type sayings []string

func (l *sayings) tell(msg string, args ...any) { *l = append(*l, msg+" "+fmt.Sprint(args...)) }

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// TestState_everyFlippedByteAndEveryLength: a file that was damaged anywhere is never taken for good.
func TestState_everyFlippedByteAndEveryLength(t *testing.T) {
	dir := t.TempDir()
	if err := writeState(dir, aState(2)); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err := parseState(good); err != nil || s.Gates["api.test/"].Failures != 2 {
		t.Fatalf("a good file: %+v %v", s, err)
	}
	for i := range good {
		if s, _, err := parseState(good[:i]); err == nil {
			t.Errorf("cut to %d bytes it gives %+v", i, s)
		}
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[i] ^= 1 << bit
			if s, _, err := parseState(bad); err == nil {
				t.Errorf("with bit %d of byte %d flipped it gives %+v", bit, i, s)
			}
		}
	}
}

// TestState_damagedFileGivesTheOneBefore: it is named, kept for a look, and what was saved before it is used.
func TestState_damagedFileGivesTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		if err := writeState(dir, aState(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, stateFile)
	for _, damage := range []string{"", "authvigil state 2 sha256:00\n{}", strings.Repeat("x", 100)} {
		if err := os.WriteFile(path, []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		var said sayings
		s := readState(dir, said.tell)
		if s == nil || s.Gates["api.test/"].Failures != 1 {
			t.Errorf("%q: got %+v, want the one before", damage, s)
		}
		if len(said) != 1 || !strings.Contains(said[0], path) || !strings.Contains(said[0], "set aside") {
			t.Errorf("%q: said %v", damage, said)
		}
		time.Sleep(2 * time.Millisecond) // the names of what is set aside hold milliseconds
	}
	for range 4 {
		os.WriteFile(path, nil, 0o600)
		readState(dir, func(string, ...any) {})
		time.Sleep(2 * time.Millisecond)
	}
	if corrupt, _ := filepath.Glob(path + ".corrupt-*"); len(corrupt) != keptCorrupt {
		t.Errorf("%d damaged files are kept, want %d", len(corrupt), keptCorrupt)
	}
}

// TestState_laterVersionIsKept: after a downgrade the file of the later version waits for its return.
func TestState_laterVersionIsKept(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, stateFile)
	text := fmt.Sprintf(stateMagic, stateVersion+1, sumOf(stateVersion+1, []byte("{}"))) + "{}"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said sayings
	if s := readState(dir, said.tell); s != nil {
		t.Errorf("got %+v", s)
	}
	if len(said) != 1 || !strings.Contains(said[0], "later version") {
		t.Errorf("said %v", said)
	}
	if b, err := os.ReadFile(fmt.Sprintf("%s.version-%d", path, stateVersion+1)); err != nil || string(b) != text {
		t.Errorf("it is not kept: %v, %q; there is %v", err, b, names(t, dir))
	}
}

// TestState_laterVersionReturns: after a downgrade and an upgrade, what the later version had stored is there again, unless
// something newer is.
func TestState_laterVersionReturns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, stateFile)
	if err := writeState(dir, aState(7)); err != nil {
		t.Fatal(err)
	}
	waiting := fmt.Sprintf("%s.version-%d", path, stateVersion)
	if err := os.Rename(path, waiting); err != nil {
		t.Fatal(err)
	}
	// what the earlier version wrote meanwhile is in its own form
	earlier := fmt.Sprintf(stateMagic, stateVersion-1, sumOf(stateVersion-1, []byte("{}"))) + "{}"
	if err := os.WriteFile(path, []byte(earlier), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := readState(dir, func(string, ...any) {}); s == nil || s.Gates["api.test/"].Failures != 7 {
		t.Errorf("got %+v", s)
	}
	if _, err := os.Stat(waiting); err == nil {
		t.Error("it would be read once more, when it is old")
	}
}

// TestState_leftoversGo: what a killed process was writing is removed at the next start.
func TestState_leftoversGo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".new-123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeState(dir, aState(1)); err != nil {
		t.Fatal(err)
	}
	if readState(dir, func(string, ...any) {}) == nil {
		t.Error("nothing was read")
	}
	if got := names(t, dir); !slices.Equal(got, []string{stateFile}) {
		t.Errorf("there is %v", got)
	}
}

func FuzzParseState(f *testing.F) {
	dir := f.TempDir()
	if err := writeState(dir, aState(1)); err != nil {
		f.Fatal(err)
	}
	good, _ := os.ReadFile(filepath.Join(dir, stateFile))
	f.Add(good)
	f.Add([]byte("authvigil state 2 sha256:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, version, err := parseState(b); err == nil && (s == nil || version != stateVersion) {
			t.Errorf("%+v of version %d without an error", s, version)
		}
	})
}
