//go:build integration

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRefreshTokens: the daemon lives on rotating refresh tokens of a real provider, which revokes the whole grant when one
// comes twice. It is killed again and again, loses an answer, and gets a new consent while it runs.
func TestRefreshTokens(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	consent := func() string { return provider.read(t, "/_consent") }
	seed := consent()
	write(t, filepath.Join(dir, "refresh"), seed)
	provider.knob(t, "seconds=3")
	config := filepath.Join(dir, "authvigil.toml")
	write(t, config, fmt.Sprintf(`
[agent]
state_directory = "%s/state"
[defaults]
every = "1s"
timeout = "5s"
[identity.robot]
kind = "oauth2"
grant = "refresh_token"
issuer = %q
client_id = "robot"
client_secret = "plain:robot-secret-1"
refresh_token = "file:%s/refresh"
exclusive = true
ca_file = %q
[probe.token]
kind = "token"
identity = "robot"
`, dir, provider.issuer, dir, c.file))
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	metric := func(line string) bool {
		_, body := get(t, "http://"+address+"/metrics")
		return strings.Contains(body, "\n"+line)
	}
	run := func() *process {
		p := start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", config, "--web.listen-address", address)
		return p
	}
	ok := `authvigil_token_refreshes_total{identity="robot",outcome="ok"} `
	var daemon *process
	for round := range 3 {
		daemon = run()
		eventually(t, 20*time.Second, fmt.Sprintf("round %d: tokens were refreshed", round), func() bool { return metric(ok+"2") || metric(ok+"3") })
		if round < 2 {
			daemon.kill()
		}
	}
	provider.knob(t, "seconds=3&lose")
	eventually(t, 20*time.Second, "the loss is named", func() bool {
		return metric(`authvigil_probe_cause{probe="token",cause="refresh_token_uncertain",culprit="identity:robot"`)
	})
	provider.knob(t, "seconds=3")
	time.Sleep(3 * time.Second)
	if !metric(`authvigil_probe_cause{probe="token",cause="refresh_token_uncertain",culprit="identity:robot"`) {
		t.Error("the lost token was sent again, or the cause was forgotten")
	}
	daemon.kill()
	daemon = run()
	eventually(t, 20*time.Second, "the loss is named after a restart", func() bool {
		return metric(`authvigil_probe_cause{probe="token",cause="refresh_token_uncertain",culprit="identity:robot"`)
	})
	write(t, filepath.Join(dir, "refresh"), consent())
	eventually(t, 20*time.Second, "a new consent heals it", func() bool { return metric(`authvigil_probe_success{`) && metric(ok+"1") })

	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && filepath.Base(path) != "refresh" {
			if b, _ := os.ReadFile(path); strings.Contains(string(b), seed) {
				t.Errorf("%s shows a refresh token", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if strings.Contains(daemon.output(), seed) {
		t.Error("the log shows a refresh token")
	}
}
