package identity

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
)

func openStore(t *testing.T, dir string, keys ...string) *SealedStore {
	t.Helper()
	var list []secret.Value
	for _, k := range keys {
		list = append(list, secret.New(k))
	}
	s, err := OpenStore(dir, list, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore_keepsOverRestarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sealed")
	s := openStore(t, dir)
	if v, err := s.Load("refresh/none"); v != nil || err != nil {
		t.Fatalf("missing key: %q, %v", v, err)
	}
	long := "accesslog/" + strings.Repeat("ü/../", 90)
	for _, key := range []string{"refresh/billing", "../../etc/passwd", long} {
		if err := s.Save(key, []byte("value of "+key)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = openStore(t, dir)
	for _, key := range []string{"refresh/billing", "../../etc/passwd", long} {
		if v, err := s.Load(key); string(v) != "value of "+key || err != nil {
			t.Errorf("%.20s: %q, %v", key, v, err)
		}
	}
	if list, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), "*")); len(list) != 1 {
		t.Errorf("a key wrote outside the directory: %v", list)
	}
	_ = filepath.Walk(dir, func(path string, info os.FileInfo, _ error) error {
		if b, _ := os.ReadFile(path); bytes.Contains(b, []byte("value of")) {
			t.Errorf("%s is not sealed", path)
		}
		if !info.IsDir() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
}

func TestStore_isOfOneProcess(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	if _, err := OpenStore(dir, nil, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d)", os.Getpid())) {
		t.Errorf("second opening: %v", err)
	}
}

func TestStore_keyRing(t *testing.T) {
	dir := t.TempDir()
	older, newer := strings.Repeat("old-", 10), strings.Repeat("new-", 10)
	s := openStore(t, dir, older)
	_ = s.Save("a", []byte("1"))
	_ = s.Save("b", []byte("2"))
	s.Close()
	s = openStore(t, dir, newer, older)
	if v, err := s.Load("a"); string(v) != "1" || err != nil {
		t.Fatalf("old key no longer opens: %q, %v", v, err)
	}
	_ = s.Save("a", []byte("3"))
	s.Close()
	s = openStore(t, dir, newer)
	if v, err := s.Load("a"); string(v) != "3" || err != nil {
		t.Errorf("sealed with the new key: %q, %v", v, err)
	}
	if _, err := s.Load("b"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "state_key_before") {
		t.Errorf("sealed with a key that is gone: %v", err)
	}
	if _, err := OpenStore(t.TempDir(), []secret.Value{secret.New("short")}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "head -c 32") {
		t.Errorf("short key: %v", err)
	}
}

// TestStore_ownKeyDamaged: a key file that was cut keeps nobody from storing what comes.
func TestStore_ownKeyDamaged(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	_ = s.Save("a", []byte("1"))
	s.Close()
	write(t, filepath.Join(dir, ownKeyFile), nil)
	s = openStore(t, dir)
	if _, err := s.Load("a"); !errors.Is(err, ErrDamaged) {
		t.Errorf("what the old key sealed: %v", err)
	}
	if err := s.Save("a", []byte("2")); err != nil {
		t.Errorf("what comes: %v", err)
	}
	s.Close()
	s = openStore(t, dir)
	if v, err := s.Load("a"); string(v) != "2" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	for _, pattern := range []string{"key.damaged-*", "a.sealed.damaged-*"} {
		if kept, _ := filepath.Glob(filepath.Join(dir, pattern)); len(kept) != 1 {
			t.Errorf("%s: %v", pattern, kept)
		}
	}
}

// Whatever happens to the last file, the start goes on, the one before is found, and nothing is thrown away.
func TestStore_damage(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, path string){
		"flipped": func(t *testing.T, path string) {
			b, _ := os.ReadFile(path)
			b[len(b)-20] ^= 1
			write(t, path, b)
		},
		"cut":   func(t *testing.T, path string) { b, _ := os.ReadFile(path); write(t, path, b[:30]) },
		"empty": func(t *testing.T, path string) { write(t, path, nil) },
		"newer": func(t *testing.T, path string) { write(t, path, []byte("authvigil sealed 2\nwhatever")) },
		"swapped": func(t *testing.T, path string) {
			b, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "other.sealed"))
			write(t, path, b)
		},
		"gone":     func(t *testing.T, path string) { os.Remove(path) },
		"a folder": func(t *testing.T, path string) { os.Remove(path); os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			for _, v := range []string{"first", "second"} {
				if err := s.Save("k", []byte(v)); err != nil {
					t.Fatal(err)
				}
			}
			_ = s.Save("other", []byte("other"))
			s.Close()
			path := filepath.Join(dir, "k.sealed")
			harm(t, path)
			harmed, _ := os.ReadFile(path)
			s = openStore(t, dir)
			if v, err := s.Load("k"); string(v) != "first" || !errors.Is(err, ErrOlder) {
				t.Fatalf("got %q, %v; want the value before", v, err)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, harmed) {
				t.Error("Load changed the file")
			}
			if name == "a folder" {
				return
			}
			if err := s.Save("k", []byte("third")); err != nil {
				t.Fatal(err)
			}
			aside, _ := filepath.Glob(path + ".damaged-*")
			if name != "gone" {
				if len(aside) != 1 {
					t.Fatalf("not set aside: %v", aside)
				}
				if kept, _ := os.ReadFile(aside[0]); !bytes.Equal(kept, harmed) {
					t.Error("what was set aside is not what was there")
				}
			}
			s.Close()
			s = openStore(t, dir)
			if v, err := s.Load("k"); string(v) != "third" || err != nil {
				t.Errorf("after the next save: %q, %v", v, err)
			}
		})
	}
}

func TestStore_nothingReadable(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	_ = s.Save("k", []byte("only"))
	s.Close()
	write(t, filepath.Join(dir, "k.sealed"), []byte("x"))
	s = openStore(t, dir)
	if v, err := s.Load("k"); v != nil || !errors.Is(err, ErrDamaged) {
		t.Errorf("%q, %v", v, err)
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A file system that takes no more bytes keeps what was there, and the store goes on when there is room again.
func TestStore_diskFull(t *testing.T) {
	if dir := os.Getenv("STORE_LIMITED"); dir != "" {
		s := openStore(t, dir)
		fmt.Println("saved:", s.Save("k", bytes.Repeat([]byte("x"), 1<<20)) == nil)
		v, err := s.Load("k")
		fmt.Printf("kept: %s %v\n", v, err)
		fmt.Println("small:", s.Save("k", []byte("third")))
		return
	}
	dir := t.TempDir()
	s := openStore(t, dir)
	_ = s.Save("k", []byte("first"))
	s.Close()
	c := exec.Command("/bin/sh", "-c", `trap '' XFSZ; ulimit -f 64; exec "$0" -test.run '^TestStore_diskFull$'`, os.Args[0])
	c.Env = append(os.Environ(), "STORE_LIMITED="+dir)
	out, err := c.CombinedOutput()
	for _, want := range []string{"saved: false", "kept: first <nil>", "small: <nil>"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("want %q: %v\n%s", want, err, out)
		}
	}
	if stray, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(stray) > 0 {
		t.Errorf("left behind: %v", stray)
	}
}

// A process that is killed at any moment leaves the last value that Save returned for, or the one that it was writing.
func TestStore_killed(t *testing.T) {
	if dir := os.Getenv("STORE_WRITER"); dir != "" {
		s := openStore(t, dir)
		for i := 0; ; i++ {
			if err := s.Save("k", fmt.Appendf(nil, "%08d%s", i, strings.Repeat("x", i%5000))); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println(i)
		}
	}
	dir := t.TempDir()
	for round := range 12 {
		c := exec.Command(os.Args[0], "-test.run", "^TestStore_killed$")
		c.Env = append(os.Environ(), "STORE_WRITER="+dir)
		var out bytes.Buffer
		c.Stdout = &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(60+7*round) * time.Millisecond)
		_ = c.Process.Signal(syscall.SIGKILL)
		_ = c.Wait()
		last := -1
		for line := range strings.Lines(out.String()) {
			if strings.HasSuffix(line, "\n") {
				_, _ = fmt.Sscan(line, &last)
			}
		}
		s := openStore(t, dir)
		v, err := s.Load("k")
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if last >= 0 {
			var got int
			if _, err := fmt.Sscanf(string(v[:8]), "%d", &got); err != nil || got < last || got > last+1 || len(v) != 8+got%5000 {
				t.Fatalf("round %d: %d was saved, %.8s is there (%d bytes)", round, last, v, len(v))
			}
		}
		s.Close()
	}
	if stray, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(stray) > 0 {
		t.Errorf("left behind: %v", stray)
	}
}
