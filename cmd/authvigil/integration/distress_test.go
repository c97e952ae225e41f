//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOwnDistress takes the file descriptors away: what is probed is unknown then, and not down.
func TestOwnDistress(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	config := filepath.Join(t.TempDir(), "authvigil.toml")
	var text strings.Builder
	for i := range 40 {
		fmt.Fprintf(&text, "[probe.p%d]\nkind = \"http\"\nurl = %q\n", i, server.URL)
	}
	write(t, config, text.String())
	cmd := exec.Command("sh", "-c", fmt.Sprintf("exec 3>&- 4>&- 5>&-; ulimit -n 8; exec %s once --output ndjson --config.file %s", binary(t), config))
	out, _ := cmd.Output()
	unknown, fault := 0, 0
	for line := range strings.Lines(string(out)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		switch r.Outcome {
		case "unknown":
			unknown++
			if len(r.Findings) == 0 || r.Findings[0].Cause != "local_resources" || r.Findings[0].Culprit != "host" {
				t.Errorf("blamed on %v", r.Findings)
			}
		case "fault":
			fault++
			t.Errorf("called down: %s", line)
		}
	}
	if unknown == 0 {
		t.Errorf("nobody ran out of files:\n%s", out)
	}
	t.Logf("%d unknown, %d called down", unknown, fault)
}
