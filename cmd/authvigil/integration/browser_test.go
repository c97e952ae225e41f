//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostileAnswers are what a server may say so that a page of ours does what it wants.
var hostileAnswers = []string{
	`<script>window.pwned=1</script><img src=x onerror="window.pwned=2">`,
	`"><svg onload=window.pwned=3><script>window.pwned=4</script>`,
	"</title></style></pre><script>window.pwned=5</script>\u202ereversed\u2066 \x1b[31mred",
	`<script>window.pwned=6</script><a href="javascript:window.pwned=7">x</a><iframe src="javascript:alert(1)"></iframe><base href="//evil.example">`,
}

// watching starts the daemon on a configuration, and gives the address of its page when every probe has run.
func watching(t *testing.T, config string) (page string) {
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	write(t, path, config)
	n := port(t)
	page = fmt.Sprintf("http://127.0.0.1:%d", n)
	start(t, "", []string{"RUNTIME_DIRECTORY=" + t.TempDir(), "TOKEN=a-token-of-a-thousand"}, "", binary(t), "run", "--config.file", path, "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", n), "--log.level", "error")
	reachable(t, n)
	eventually(t, 60*time.Second, "every probe has run", func() bool {
		_, text := get(t, page+"/?state=waiting")
		return strings.Contains(text, "No probe is like that")
	})
	return page
}

// manyProbes are a thousand probes of a server that refuses every tenth.
func manyProbes(t *testing.T) (page string) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "0") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="api", error="invalid_token", error_description="The access token expired"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(api.Close)
	var b strings.Builder
	b.WriteString("[defaults]\nevery = \"20s\"\n")
	for i := range 10 {
		fmt.Fprintf(&b, "[identity.client-%d]\nkind = \"bearer\"\ntoken = \"env:TOKEN\"\n", i)
	}
	for i := range 1000 {
		fmt.Fprintf(&b, "[probe.p%04d]\nkind = \"http\"\nurl = \"%s/v2/things/%d\"\nidentity = \"client-%d\"\nlabels = { owner = \"team-%d\" }\n", i, api.URL, i, i%10, i%7)
	}
	return watching(t, b.String())
}

// hostileProbes ask a server that is hostile, and have labels that are. It gives their names, too.
func hostileProbes(t *testing.T) (page string, names []string) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscanf(r.URL.Path, "/hostile/%d", &n)
		text := hostileAnswers[n]
		w.Header()["Www-Authenticate"] = []string{"Bearer realm=\"" + strings.ReplaceAll(strings.ReplaceAll(text, `"`, `\"`), "\x1b", "") + "\", error=\"invalid_token\""}
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, text)
	}))
	t.Cleanup(api.Close)
	var b strings.Builder
	b.WriteString("[defaults]\nevery = \"2s\"\n")
	for i, text := range hostileAnswers {
		names = append(names, fmt.Sprintf("hostile-%d", i))
		fmt.Fprintf(&b, "[probe.hostile-%d]\nkind = \"http\"\nurl = \"%s/hostile/%d\"\nlabels = { note = %q }\n", i, api.URL, i, "<script>window.pwned=8</script>"+text[:10])
	}
	return watching(t, b.String()), names
}

// TestBrowser looks at the pages in chromium: what axe says of them, in light and dark, on a desk and a phone; keyboard,
// print, without JavaScript, with a hostile server, with a thousand probes. AUTHVIGIL_SCREENSHOTS names a directory for
// pictures.
func TestBrowser(t *testing.T) {
	modules := os.Getenv("AUTHVIGIL_IDP_MODULES")
	if modules == "" {
		t.Fatal("AUTHVIGIL_IDP_MODULES names no directory with playwright-core; run make integration")
	}
	healthy, failing := nightPages(t)
	live := manyProbes(t)
	evil, hostile := hostileProbes(t)
	sites := map[string]string{"healthy": serveSaved(t, healthy), "failing": serveSaved(t, failing)}
	paths := map[string][]string{"healthy": {"/", "/probes/partner-certificate", "/runbooks/", "/runbooks/idp_unavailable"}, "failing": {"/", "/probes/orders", "/probes/devices", "/probes/clock"}}
	type picture struct {
		Name   string `json:"name"`
		URL    string `json:"url"`
		Width  int    `json:"width"`
		Height int    `json:"height"`
		Dark   bool   `json:"dark"`
		Full   bool   `json:"full"`
	}
	var pictures []picture
	if dir := os.Getenv("AUTHVIGIL_SCREENSHOTS"); dir != "" {
		for _, p := range []picture{
			{"failing.png", sites["failing"] + "/", 1280, 1000, false, false},
			{"failing-dark.png", sites["failing"] + "/", 1280, 1000, true, false},
			{"failing-phone.png", sites["failing"] + "/", 390, 844, false, false},
			{"healthy.png", sites["healthy"] + "/", 1280, 1000, false, false},
			{"probe.png", sites["failing"] + "/probes/orders", 1280, 1000, false, false},
			{"thousand.png", live + "/", 1280, 1000, false, false},
		} {
			p.Name = filepath.Join(dir, p.Name)
			pictures = append(pictures, p)
		}
	}
	job, err := json.Marshal(map[string]any{"chromium": need(t, "chromium"), "sites": sites, "paths": paths, "live": live, "evil": evil, "hostile": hostile, "pictures": pictures})
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/browser.mjs")
	if err != nil {
		t.Fatal(err)
	}
	path, jobFile := filepath.Join(modules, "browser.mjs"), filepath.Join(t.TempDir(), "job.json")
	write(t, path, string(script))
	write(t, jobFile, string(job))
	out, err := exec.CommandContext(t.Context(), need(t, "node"), path, jobFile).CombinedOutput()
	if err != nil {
		t.Fatalf("browser.mjs: %v\n%s", err, out)
	}
	asked := 0
	for line := range strings.Lines(string(out)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "ok":
			asked++
		case "FAIL":
			asked++
			t.Error(rest)
		default:
			t.Log(strings.TrimSpace(line))
		}
	}
	want := 6
	for _, list := range slices.Collect(maps.Values(paths)) {
		want += 3 * len(list)
	}
	if asked != want {
		t.Errorf("%d questions were asked, want %d:\n%s", asked, want, out)
	}
}
