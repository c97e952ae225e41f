package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// commandKeys are the keys of a token that a program gives.
type commandKeys struct {
	Command     []string      `koanf:"command" help:"program with its arguments that prints a token in place of token: the text alone, JSON with token or access_token, or an ExecCredential of Kubernetes; run without a shell, and again when the token is about to end"`
	CommandTime time.Duration `koanf:"command_timeout" help:"time that command may take; default 10s"`
	CommandLife time.Duration `koanf:"command_every" help:"how long a token of command is used where neither it nor the output says its end; default 5m"`
}

const (
	maxCommandOutput = 256 << 10 // bytes
	maxCommandErrors = 4 << 10   // bytes of its standard error that are kept
)

// commandToken is what programs print: ExecCredential (client.authentication.k8s.io), gcloud, az, and their kin.
type commandToken struct {
	Status struct {
		Token               string    `json:"token"`
		ExpirationTimestamp time.Time `json:"expirationTimestamp"`
	} `json:"status"`
	Token        string          `json:"token"`
	AccessToken  string          `json:"access_token"`
	AccessToken2 string          `json:"accessToken"`
	ExpiresIn    json.RawMessage `json:"expires_in"`
	Expiry       string          `json:"expiry"`     // RFC 3339
	ExpiresOn    json.RawMessage `json:"expires_on"` // seconds since 1970
}

// run runs the program. That it fails is a matter of this host, and says nothing about the server.
func (k commandKeys) run(ctx context.Context) (got obtained, _ []evidence.Exchange, _ *evidence.Chain, _ error) {
	ctx, cancel := context.WithTimeout(ctx, k.CommandTime)
	defer cancel()
	c := exec.CommandContext(ctx, k.Command[0], k.Command[1:]...) // #nosec G204 -- running what the configuration names is its purpose
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // with all that it started
	c.WaitDelay = 200 * time.Millisecond                                             // for what the program left behind and that holds its output
	out, complaint := &capped{limit: maxCommandOutput}, &capped{limit: maxCommandErrors}
	c.Stdout, c.Stderr = out, complaint
	fault := func(code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: code, Err: fmt.Errorf("command "+k.Command[0]+": "+format, args...)}
	}
	err := c.Run()
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	}
	if errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		err = nil
	}
	said := ""
	if text := evidence.Clean(secret.Scrub(string(complaint.kept)), 512); text != "" {
		said = "; it said: " + text
	}
	switch {
	case err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return got, nil, nil, fault("command_timeout", "was not done after %s%s", evidence.Span(k.CommandTime), said)
	case err != nil && ctx.Err() != nil:
		return got, nil, nil, fault("command", "was interrupted")
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return got, nil, nil, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomLocalResources, Code: "command", Err: fmt.Errorf("command %s: %w", k.Command[0], err)}
	case err != nil:
		return got, nil, nil, fault("command", "%v%s", err, said)
	case out.cut:
		return got, nil, nil, fault("command_output", "printed more than %d KiB", maxCommandOutput>>10)
	}
	return k.read(out.kept, time.Now(), fault)
}

func (k commandKeys) read(b []byte, now time.Time, fault func(code, format string, args ...any) error) (got obtained, _ []evidence.Exchange, _ *evidence.Chain, _ error) {
	text, end := strings.TrimSpace(string(b)), time.Time{}
	var t commandToken
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &t); err != nil {
			return got, nil, nil, fault("command_output", "printed JSON that cannot be read")
		}
		text = ""
		for _, candidate := range []string{t.Status.Token, t.Token, t.AccessToken, t.AccessToken2} {
			secret.Remember(candidate)
			if text == "" {
				text = strings.TrimSpace(candidate)
			}
		}
		end = t.Status.ExpirationTimestamp
		if seconds, said, ok := lifetime(t.ExpiresIn); said && ok && seconds > 0 {
			end = now.Add(time.Duration(seconds * float64(time.Second)))
		}
		if seconds, said, ok := epoch(t.ExpiresOn); said && ok {
			end = seconds
		}
		if at, err := time.Parse(time.RFC3339, t.Expiry); err == nil {
			end = at
		}
	}
	switch {
	case text == "":
		return got, nil, nil, fault("command_output", "printed no token")
	case strings.ContainsAny(text, "\r\n"):
		return got, nil, nil, fault("command_output", "printed more than one line and no JSON; only the token may be printed")
	}
	got.text, got.facts = secret.New(text), evidence.DecodeToken(text)
	got.facts.Obtained = now
	got.facts.Problems = append(got.facts.Problems, evidence.LintCredential(text)...)
	if !end.IsZero() {
		got.facts.Expiry = end
	}
	got.use = k.CommandLife
	return got, nil, nil, nil
}

// epoch reads seconds since 1970, as a number or in quotes.
func epoch(raw json.RawMessage) (at time.Time, said, ok bool) {
	text := strings.Trim(string(raw), `" `)
	if text == "" || text == "null" {
		return at, false, true
	}
	var seconds int64
	if _, err := fmt.Sscan(text, &seconds); err != nil || seconds <= 0 || seconds > 1<<40 {
		return at, true, false
	}
	return time.Unix(seconds, 0), true, true
}

// A capped buffer keeps the beginning of what is written to it.
type capped struct {
	kept  []byte
	limit int
	cut   bool
}

func (c *capped) Write(p []byte) (int, error) {
	room := c.limit - len(c.kept)
	if len(p) > room {
		c.cut = true
	}
	c.kept = append(c.kept, p[:min(len(p), room)]...)
	return len(p), nil
}
