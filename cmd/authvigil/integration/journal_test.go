//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inJournal runs in a mount namespace of its own: $1 is a directory for what a journal writes, $2 authvigil, $3 its configuration.
const inJournal = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
mount -t tmpfs tmpfs /var/log
/lib/systemd/systemd-journald >"$1/journald.log" 2>&1 &
journald=$!
trap 'kill $journald' EXIT
for try in $(seq 100); do [ ! -S /run/systemd/journal/socket ] || break; sleep 0.1; done
"$2" alerts test journal --config.file "$3"
for try in $(seq 100); do
  journalctl -D /run/log/journal SYSLOG_IDENTIFIER=authvigil -o json >"$1/entries" 2>/dev/null || true
  [ "$(wc -l <"$1/entries")" -lt 2 ] || break
  sleep 0.1
done
`

// TestJournal: a real journald, apart from the one of this machine, takes alerts as entries whose fields can be searched.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "authvigil.toml")
	write(t, config, "[probe.x]\nkind = \"http\"\nurl = \"http://127.0.0.1:1/\"\n[sink.journal]\nkind = \"journal\"\n")
	if out, err := exec.Command(need(t, "unshare"), "-m", "--propagation", "private", "sh", "-c", inJournal, "sh", dir, binary(t), config).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "entries"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e["AUTHVIGIL_ALERTNAME"] != "AuthvigilTest" || e["AUTHVIGIL_CULPRIT"] != "sink:journal" || e["_TRANSPORT"] != "journal" {
			t.Errorf("entry: %v", e)
		}
		got = append(got, e["AUTHVIGIL_STATE"].(string)+" "+e["PRIORITY"].(string))
	}
	if strings.Join(got, ", ") != "firing 4, resolved 5" {
		t.Errorf("got %v", got)
	}
}
