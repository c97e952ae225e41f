package secret

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// program is a command that prints a secret, such as those of password managers: exec:/usr/bin/pass show api/key, or, where an
// argument holds a space, exec:["/usr/bin/op","read","op://vault/my item"]. No shell is involved. Before the program may stand
// ttl=5m, how long its output is used, and timeout=5s.
type program struct {
	*kept
	argv []string
}

const (
	programTTL   = 5 * time.Minute
	programLimit = 5 * time.Second
	// complaintBytes is how much of the standard error of a program is shown.
	complaintBytes = 256
)

func newExec(place string) (Source, error) {
	ttl, limit, rest := programTTL, programLimit, strings.TrimSpace(place)
	for {
		word, more, _ := strings.Cut(rest, " ")
		name, value, option := strings.Cut(word, "=")
		if !option || (name != "ttl" && name != "timeout") {
			break
		}
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 {
			return nil, fmt.Errorf("%s: want a time such as 30s", name)
		}
		if name == "ttl" {
			ttl = d
		} else {
			limit = d
		}
		rest = strings.TrimSpace(more)
	}
	p := &program{argv: strings.Fields(rest)}
	if strings.HasPrefix(rest, "[") {
		p.argv = nil
		if json.Unmarshal([]byte(rest), &p.argv) != nil {
			return nil, errors.New(`is no JSON list of texts, such as ["/usr/bin/pass","show","api/key"]`)
		}
	}
	if len(p.argv) == 0 || !filepath.IsAbs(p.argv[0]) {
		return nil, errors.New("names no program by an absolute path")
	}
	p.kept = newKept(ttl, limit, p.run)
	return p, nil
}

// shown leaves the arguments out: people put secrets there.
func (p *program) shown() string {
	if len(p.argv) > 1 {
		return p.argv[0] + " …"
	}
	return p.argv[0]
}

func (p *program) run(ctx context.Context) (got fetched, err error) {
	c := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...) // #nosec G204 -- running what the configuration names is its purpose
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // with all that it started
	c.WaitDelay = 200 * time.Millisecond                                             // for what it left behind and that holds its output
	out, complaint := &head{limit: maxBytes + 1}, &head{limit: complaintBytes}
	c.Stdout, c.Stderr = out, complaint
	err = c.Run()
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	}
	said := ""
	if words := strings.Join(strings.Fields(Scrub(printable(string(complaint.kept)))), " "); words != "" {
		said = ": " + words
	}
	switch {
	case ctx.Err() != nil:
		return got, fmt.Errorf("%w: the program was not done in time", ErrAway)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return got, fmt.Errorf("the program cannot be run: %w", err)
	case errors.Is(err, exec.ErrWaitDelay), err == nil:
		got.value, err = text(out.kept)
		return got, err
	default:
		return got, fmt.Errorf("%w: the program ended with %w%s", ErrAway, err, said)
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	kept  []byte
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), h.limit-len(h.kept))]...)
	return len(p), nil
}

// printable leaves out what has no place on a line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s)
}
