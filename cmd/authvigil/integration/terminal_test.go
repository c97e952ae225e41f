//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A terminal is a pane of tmux.
type terminal struct {
	t    *testing.T
	tmux string
	name string
}

func openTerminal(t *testing.T, width, height int, command string) *terminal {
	t.Helper()
	p := &terminal{t, need(t, "tmux"), fmt.Sprintf("authvigil-%d", time.Now().UnixNano())}
	p.do("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(width), "-y", fmt.Sprint(height), command)
	t.Cleanup(func() { _ = exec.Command(p.tmux, "-L", p.name, "kill-server").Run() }) // it may have ended by itself
	return p
}

func (p *terminal) do(args ...string) string {
	p.t.Helper()
	out, err := exec.Command(p.tmux, append([]string{"-L", p.name}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// shows waits until the screen shows all words, and gives it.
func (p *terminal) shows(words ...string) (screen string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		screen = p.do("capture-pane", "-p")
		missing := false
		for _, word := range words {
			missing = missing || !strings.Contains(screen, word)
		}
		if !missing {
			return screen
		}
	}
	p.t.Fatalf("the screen does not show %q:\n%s", words, screen)
	return ""
}

// TestTerminal looks at what a terminal shows: once while it runs, and top with its keys, wide and narrow.
func TestTerminal(t *testing.T) {
	release := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			select {
			case <-release:
			case <-r.Context().Done():
			}
		case "/refused":
			w.Header().Set("WWW-Authenticate", "Bearer error=\"invalid_token\", error_description=\"The access token expired \x1b[31m\"")
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	config := filepath.Join(dir, "authvigil.toml")
	text := "[defaults]\nevery = \"1s\"\ntimeout = \"60s\"\n"
	for _, name := range []string{"good", "refused", "slow"} {
		text += fmt.Sprintf("[probe.%s]\nkind = \"http\"\nurl = \"%s/%s\"\n", name, api.URL, name)
	}
	write(t, config, text)
	program := binary(t)

	p := openTerminal(t, 100, 30, fmt.Sprintf("sh -c '%s once --config.file %s; echo ended with $?; sleep 60'", program, config))
	p.shows("2 of 3 probes have answered, waiting for slow")
	close(release)
	screen := p.shows("PROBE", "refused", "FAIL: 2 of 3 probes are as expected", "ended with 1")
	if strings.Contains(screen, "have answered") {
		t.Errorf("the progress stands between the results:\n%s", screen)
	}

	n := port(t)
	page := fmt.Sprintf("http://127.0.0.1:%d", n)
	start(t, "", []string{"RUNTIME_DIRECTORY=" + dir}, "", program, "run", "--config.file", config, "--web.listen-address", strings.TrimPrefix(page, "http://"))
	reachable(t, n)
	p = openTerminal(t, 110, 30, fmt.Sprintf("sh -c '%s top --from %s --every 200ms; echo ended with $?; sleep 60'", program, page))
	screen = p.shows("authvigil "+page, "FAIL: 1 of 3 probes fail", "q ends, p pauses", "PROBE", "good", "refused", "  do: ")
	if strings.Index(screen, "\nrefused") > strings.Index(screen, "\ngood") {
		t.Errorf("what fails does not stand first:\n%s", screen)
	}
	p.do("send-keys", "f")
	eventually(t, 10*time.Second, "f shows only what is not as expected", func() bool {
		return !strings.Contains(p.do("capture-pane", "-p"), "\ngood")
	})
	p.do("send-keys", "f")
	p.shows("\ngood")
	p.do("send-keys", "p")
	p.shows("paused; p goes on, q ends")
	p.do("send-keys", "p")
	p.shows("q ends, p pauses")
	p.do("resize-window", "-x", "60", "-y", "20")
	eventually(t, 10*time.Second, "every line fits a narrow terminal", func() bool {
		screen := p.do("capture-pane", "-p")
		for line := range strings.Lines(screen) {
			if utf8.RuneCountInString(strings.TrimRight(line, "\n")) > 60 {
				return false
			}
		}
		return strings.Contains(screen, "PROBE")
	})
	p.do("send-keys", "q")
	if screen := p.shows("ended with 0"); strings.Contains(screen, "q ends") {
		t.Errorf("top leaves its view behind:\n%s", screen)
	}
}
