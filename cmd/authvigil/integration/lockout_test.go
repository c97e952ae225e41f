//go:build integration

package integration

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLockout is an hour of invalid_client in half a minute: ten probes share a wrong secret, the daemon is killed in the
// middle, and the provider sees at most eight token requests.
func TestLockout(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	config := fmt.Sprintf(`
[agent]
state_directory = "%s/state"
[defaults]
every = "1s"
timeout = "900ms"
[identity.wrong]
kind = "oauth2"
issuer = %q
client_id = "in-header"
client_secret = "plain:not-the-secret"
ca_file = %q
hold_for = "2.5s" # a 120th of five minutes, as half a minute is of an hour
max_hold = "30s"
`, dir, provider.issuer, c.file)
	for i := range 10 {
		config += fmt.Sprintf("[probe.p%d]\nkind = \"token\"\nidentity = \"wrong\"\n", i)
	}
	path := filepath.Join(dir, "authvigil.toml")
	write(t, path, config)
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	run := func() *process {
		return start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", path, "--web.listen-address", address)
	}
	daemon := run()
	time.Sleep(15 * time.Second)
	daemon.kill()
	run()
	time.Sleep(15 * time.Second)
	asked, err := strconv.Atoi(strings.TrimSpace(provider.read(t, "/_asked")))
	if err != nil || asked < 2 || asked > 8 {
		t.Errorf("the provider saw %d token requests (%v), want at most 8", asked, err)
	}
	t.Logf("%d token requests", asked)
}
