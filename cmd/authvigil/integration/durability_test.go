//go:build integration

package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A watched daemon with a state directory: it follows access logs, and so writes its state each second for each of them.
type watched struct {
	t             *testing.T
	config, state string
	address       string
}

func newWatched(t *testing.T, state string, logs int) *watched {
	t.Helper()
	dir := t.TempDir()
	w := &watched{t: t, config: filepath.Join(dir, "authvigil.toml"), state: state, address: fmt.Sprintf("127.0.0.1:%d", port(t))}
	text := fmt.Sprintf("[agent]\nstate_directory = %q\n[defaults]\nevery = \"1s\"\n[probe.self]\nkind = \"http\"\nurl = \"http://%s/-/healthy\"\n[probe.dead]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n", state, w.address)
	for i := range logs {
		path := filepath.Join(dir, fmt.Sprintf("access-%d.log", i))
		write(t, path, line(401))
		text += fmt.Sprintf("[probe.log%d]\nkind = \"accesslog\"\npath = %q\nformat = \"combined\"\n", i, path)
	}
	write(t, w.config, text)
	return w
}

// line is one of an access log, of now.
func line(status int) string {
	return fmt.Sprintf("192.0.2.7 - - [%s] \"GET /v2/devices HTTP/1.1\" %d 12 \"-\" \"curl\"\n", time.Now().Format("02/Jan/2006:15:04:05 -0700"), status)
}

// grow adds a line to each log.
func (w *watched) grow() {
	logs, _ := filepath.Glob(filepath.Join(filepath.Dir(w.config), "access-*.log"))
	for _, path := range logs {
		if f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			fmt.Fprint(f, line(200))
			f.Close()
		}
	}
}

func (w *watched) args() []string {
	return []string{"run", "--config.file", w.config, "--web.listen-address", w.address}
}

func (w *watched) start(prefix ...string) *process {
	w.t.Helper()
	command := append(append(prefix, binary(w.t)), w.args()...)
	return start(w.t, "listening", nil, filepath.Dir(w.config), command[0], command[1:]...)
}

func (w *watched) metrics() string {
	r, err := http.Get("http://" + w.address + "/metrics")
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func (w *watched) distressed() bool {
	return strings.Contains(w.metrics(), "authvigil_distress{what=\"state\"} 1")
}

// TestState_killedAtAnyMoment kills the daemon at moments that nobody chose, while it writes: it starts each time, and
// finds nothing damaged.
func TestState_killedAtAnyMoment(t *testing.T) {
	w := newWatched(t, t.TempDir(), 30)
	for round := range 30 {
		p := w.start()
		w.grow()
		time.Sleep(time.Duration(rand.IntN(900)) * time.Millisecond)
		p.kill()
		if log := p.output(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "set aside") {
			t.Fatalf("round %d:\n%s", round, log)
		}
	}
	p := w.start()
	eventually(t, 10*time.Second, "it watches as before", func() bool { return value(w.metrics(), `authvigil_runs_total{probe="self",outcome="ok"}`) > 1 })
	p.stop(t)
	for _, pattern := range []string{".new-*", "sealed/.new-*", "*corrupt*", "sealed/*damaged*"} {
		if found, _ := filepath.Glob(filepath.Join(w.state, pattern)); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
	}
}

// small mounts a file system of 300 KiB.
func small(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", dir)
	t.Cleanup(func() { run(t, "umount", "-l", dir) })
	return dir
}

// fill takes all space that is left, and gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1024); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { os.Remove(path) }
}

// hashes are those of the files that keep state.
func hashes(dir string) map[string][32]byte {
	list := map[string][32]byte{}
	for _, pattern := range []string{"agent.state", "sealed/*.sealed", "sealed/key"} {
		found, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, path := range found {
			b, _ := os.ReadFile(path)
			list[path] = sha256.Sum256(b)
		}
	}
	return list
}

// TestState_fullDisk: what was stored stays as it was, the watch goes on, it is said, and it mends itself. A second daemon
// on the same state ends with 75 and names the first.
func TestState_fullDisk(t *testing.T) {
	dir := small(t)
	w := newWatched(t, dir, 3)
	p := w.start()
	second := exec.Command(binary(t), append(w.args(), "--web.listen-address", "127.0.0.1:0")...)
	var said strings.Builder
	second.Stderr = &said
	_ = second.Run() // it waits ten seconds, in case that the first is a command that ends
	if code := second.ProcessState.ExitCode(); code != 75 || !strings.Contains(said.String(), fmt.Sprintf("process %d)", p.Process.Pid)) {
		t.Errorf("the second daemon ended with %d: %s", code, said.String())
	}
	eventually(t, 10*time.Second, "state is there", func() bool { return len(hashes(dir)) >= 4 })
	p.stop(t)
	p = w.start()
	free := fill(t, dir)
	before := hashes(dir)
	if len(before) < 5 {
		t.Fatalf("only %d files", len(before))
	}
	eventually(t, 20*time.Second, "the full disk is said", func() bool { w.grow(); return w.distressed() })
	if m := w.metrics(); successes(m) != 4 {
		t.Errorf("with a full disk %d of 4 good probes succeed", successes(m))
	}
	for path, sum := range hashes(dir) {
		if sum != before[path] {
			t.Errorf("%s was changed", path)
		}
	}
	free()
	eventually(t, 20*time.Second, "it mends itself", func() bool { w.grow(); return !w.distressed() })
	p.stop(t)

	free = fill(t, dir) // and a start on a full disk
	p = w.start()
	eventually(t, 20*time.Second, "it starts, and says it", func() bool { w.grow(); return w.distressed() })
	if successes(w.metrics()) != 4 {
		t.Error("it does not watch")
	}
	free()
	p.stop(t)
	for path := range before {
		if hashes(dir)[path] == [32]byte{} {
			t.Errorf("%s is gone", path)
		}
	}
}

// TestState_readOnlyEmptyAndDamaged: nothing in the state directory keeps the daemon from starting, and what it found is named.
func TestState_readOnlyEmptyAndDamaged(t *testing.T) {
	dir := t.TempDir()
	w := newWatched(t, dir, 2)
	p := w.start()
	eventually(t, 10*time.Second, "state is there", func() bool { return len(hashes(dir)) >= 3 })
	p.stop(t)
	good := map[string][]byte{}
	for path := range hashes(dir) {
		good[path], _ = os.ReadFile(path)
	}
	newer := fmt.Sprintf("authvigil state 99 sha256:%x\n{}", sha256.Sum256([]byte("99\n{}")))
	for name, harm := range map[string]func(path string, b []byte) []byte{
		"cut":     func(_ string, b []byte) []byte { return b[:len(b)/2] },
		"zeroed":  func(_ string, b []byte) []byte { return make([]byte, len(b)) },
		"empty":   func(string, []byte) []byte { return nil },
		"flipped": func(_ string, b []byte) []byte { b[len(b)-1] ^= 4; return b },
		"newer":   func(string, []byte) []byte { return []byte(newer) },
	} {
		for path, b := range good {
			write(t, path, string(harm(path, append([]byte(nil), b...))))
			os.Remove(path + ".before")
		}
		p := w.start()
		w.grow()
		eventually(t, 10*time.Second, name+": it watches", func() bool { return successes(w.metrics()) == 3 })
		p.stop(t)
		if log := p.output(); !strings.Contains(log, "agent.state") || !strings.Contains(log, "sealed") && name != "newer" {
			t.Errorf("%s: what was wrong is not named:\n%s", name, log)
		}
		if name == "newer" {
			if b, _ := os.ReadFile(filepath.Join(dir, "agent.state.version-99")); string(b) != newer {
				t.Error("the state of a later version was not kept for its return")
			}
		} else if found, _ := filepath.Glob(filepath.Join(dir, "agent.state.corrupt-*")); len(found) == 0 {
			t.Errorf("%s: nothing was set aside", name)
		}
	}

	run(t, "mount", "--bind", dir, dir)
	t.Cleanup(func() { run(t, "umount", "-l", dir) })
	run(t, "mount", "-o", "remount,bind,ro", dir)
	p = w.start()
	eventually(t, 20*time.Second, "a read-only directory is said", func() bool { w.grow(); return w.distressed() })
	if successes(w.metrics()) != 3 {
		t.Errorf("%d of 3 good probes succeed on a read-only directory", successes(w.metrics()))
	}
	p.stop(t)
}

// TestState_errorsOfTheDisk has the kernel's answers replaced: a failed fsync leaves the file before, and is not repeated on
// the same file. And the directory is synced after each rename, so that a power cut does not undo it.
func TestState_errorsOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	w := newWatched(t, dir, 1)
	trace := filepath.Join(t.TempDir(), "trace")
	traced := func(what string, so func() bool, args ...string) {
		p := w.start(append([]string{need(t, "strace"), "-f", "-qq", "-e", "signal=none", "-o", trace}, args...)...)
		eventually(t, 20*time.Second, what, so)
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", p.Process.Pid, p.Process.Pid))
		run(t, "kill", strings.TrimSpace(string(children))) // strace hands no signal on
		<-p.done
	}
	traced("state is there", func() bool { w.grow(); return len(hashes(dir)) >= 2 }, "-y", "-e", "trace=fsync,renameat,renameat2,rename")
	b, _ := os.ReadFile(trace)
	calls := strings.Split(string(b), "\n")
	renames := 0
	for i, call := range calls {
		if !strings.Contains(call, "rename") || !strings.HasSuffix(call, "= 0") || !strings.Contains(call, ".sealed\"") && !strings.Contains(call, "agent.state\"") {
			continue
		}
		renames++
		synced := false
		for _, later := range calls[i+1 : min(i+8, len(calls))] {
			synced = synced || strings.Contains(later, "fsync(") && (strings.Contains(later, "<"+dir+">") || strings.Contains(later, "<"+dir+"/sealed>"))
		}
		if !synced {
			t.Errorf("no fsync of the directory after: %s", call)
		}
	}
	if renames == 0 {
		t.Errorf("no rename was seen:\n%s", b)
	}

	before := hashes(dir)
	traced("the failing disk is said", func() bool { w.grow(); return w.distressed() }, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
	for path, sum := range before {
		if hashes(dir)[path] != sum {
			t.Errorf("%s was replaced by a file that was not synced", path)
		}
	}
	if stray, _ := filepath.Glob(filepath.Join(dir, "sealed/.new-*")); len(stray) > 0 {
		t.Errorf("left behind: %v", stray)
	}
}

// TestRun_stopAndBlockedLog: nobody reads the log, and the watch goes on; the second signal ends a stop that waits.
func TestRun_stopAndBlockedLog(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	dir := t.TempDir()
	text := "[defaults]\nevery = \"1s\"\n"
	for i := range 300 {
		text += fmt.Sprintf("[probe.p%d]\nkind = \"http\"\nurl = \"%s/%d\"\n", i, server.URL, i)
	}
	w := &watched{t: t, config: filepath.Join(dir, "authvigil.toml"), address: fmt.Sprintf("127.0.0.1:%d", port(t))}
	write(t, w.config, text)
	r, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(binary(t), append(w.args(), "--log.level", "debug")...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	stderr.Close()
	runs := func() float64 { return value(w.metrics(), `authvigil_runs_total{probe="p7",outcome="ok"}`) }
	eventually(t, 30*time.Second, "lines are dropped", func() bool { return value(w.metrics(), "authvigil_log_lines_dropped_total") > 0 })
	before := runs()
	time.Sleep(3 * time.Second)
	if now := runs(); now < before+2 {
		t.Errorf("%v runs, and %v three seconds later: the log holds them up", before, now)
	}

	half, err := net.Dial("tcp", w.address) // a stop waits for its answer, five seconds at most
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	fmt.Fprint(half, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-")
	began := time.Now()
	cmd.Process.Signal(syscall.SIGTERM)
	time.Sleep(500 * time.Millisecond)
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the second signal was obeyed after %s", took)
	}
}
