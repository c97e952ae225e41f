package secret

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const canary = "s3cr3t canary/+="

// TestValue_cannotBePrinted tries what a careless programmer would: every verb, on the value, its pointer and structs
// that hold it in exported and unexported fields, JSON, and both handlers of slog.
func TestValue_cannotBePrinted(t *testing.T) {
	v := New(canary)
	ref, err := Parse("plain:" + canary)
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		Open   Value
		closed Value
		ref    Ref
		list   []Value
		m      map[string]Value
	}
	h := holder{v, v, ref, []Value{v}, map[string]Value{"k": v}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T"} {
		for _, x := range []any{v, &v, h, &h, ref, &ref} {
			fmt.Fprintf(&out, verb+"\n", x)
		}
	}
	for _, x := range []any{v, h, ref} {
		if err := json.NewEncoder(&out).Encode(x); err != nil {
			t.Fatal(err)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v, "h", h, "ref", ref)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v, "h", h, "ref", ref)
	for line := range strings.Lines(out.String()) {
		for i, form := range spellings(canary) {
			if strings.Contains(line, form) {
				t.Errorf("spelling %d of the secret is shown in: %s", i, Scrub(line))
			}
		}
	}
}

func TestScrub_allSpellings(t *testing.T) {
	New(canary)
	for _, form := range spellings(canary) {
		if got := Scrub("before " + form + " after"); strings.Contains(got, form) || !strings.Contains(got, Mask) {
			t.Errorf("Scrub left %q: %q", form, got)
		}
	}
	if got := Scrub("nothing to hide"); got != "nothing to hide" {
		t.Errorf("Scrub changed a harmless text: %q", got)
	}
	New("secret") // a word of the mask
	if got := Scrub(Scrub("key=secret") + "&secret"); got != "key="+Mask+"&"+Mask {
		t.Errorf("Scrub takes its own mask for a secret: %q", got)
	}
}

func TestFile_readsWhatIsThereNow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	ref, err := Parse("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ref.Reveal(context.Background()); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing file: got %v, want ErrNotFound", err)
	}
	for _, content := range []string{"first-one", "second-one\n", "third-one\r\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := ref.Reveal(context.Background())
		if err != nil || v.Expose() != strings.TrimSpace(content) {
			t.Errorf("content %q: got %q, %v", content, v.Expose(), err)
		}
	}
	bad := map[string]string{"": "empty", "one\ntwo": "line break", strings.Repeat("x", maxBytes+1): "longer"}
	for content, word := range bad {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ref.Reveal(context.Background()); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("content of %d bytes: got error %v, want one about %q", len(content), err, word)
		}
	}
}

func TestParse_refuses(t *testing.T) {
	for _, text := range []string{"", "hunter2-without-scheme", "fil:/etc/x", "file:", "file:relative", "credential:../x"} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("Parse(%q) passed", text)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats what may be a secret: %v", err)
		}
	}
}

// TestFile_refuses: what is in the place of a secret and cannot be one, or can be changed by everybody, is not read, and
// nothing blocks.
func TestFile_refuses(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, mode := range map[string]os.FileMode{"private": 0o600, "of the group": 0o640, "written by everybody": 0o666} {
		if err := os.WriteFile(path(name), []byte("open-sesame"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Symlink(path("loop"), path("loop"))
	os.WriteFile(path("huge"), bytes.Repeat([]byte("x"), 10<<20), 0o600)
	for name, word := range map[string]string{"private": "", "of the group": "", "written by everybody": "chmod", "fifo": "regular", ".": "regular", "loop": "symbolic links", "huge": "longer"} {
		ref, err := Parse("file:" + path(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = ref.Reveal(t.Context()); (err == nil) != (word == "") || err != nil && !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want %q", name, err, word)
		}
	}
}
