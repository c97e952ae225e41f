package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// call runs one command line in this process.
func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code = execute(ctx, args, strings.NewReader(stdin), &out, &errs, nil)
	return code, out.String(), errs.String()
}

const canary = "canary-of-the-command-0123"

// configOf writes a configuration with a good probe, a bad one and one that is refused.
func configOf(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/refused" {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description="The access token expired"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, "you sent %s", r.Header.Get("Authorization"))
		}
	}))
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	text := fmt.Sprintf(`
[identity.who]
kind = "bearer"
token = "plain:%s"
[probe.good]
kind = "http"
url = "%s/"
identity = "who"
[probe.refused]
kind = "http"
url = "%s/refused?key=%s"
identity = "who"
headers = { X-More = "%s" }
`, canary, server.URL, server.URL, canary, canary)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCommands_exitCodesAndWords walks the commands: what each prints, how it ends, and that no secret shows anywhere.
func TestCommands_exitCodesAndWords(t *testing.T) {
	config := configOf(t)
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("[probe.x]\nkind = \"htp\"\nurll = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  string
		stdin string
		code  int
		words []string // on standard output
		errs  []string // on standard error
	}{
		{"once good", "", 0, []string{"good", "ok"}, nil},
		{"once", "", 1, []string{"refused", "FAIL", "identity:who", "token_expired", "do: obtain a new token"}, nil},
		{"once --output json", "", 1, []string{`"schema_version":1`, `"probe":"refused"`}, nil},
		{"once nobody", "", 2, nil, []string{"there is no [probe.nobody]"}},
		{"once godo", "", 2, nil, []string{`did you mean "good"?`}},
		{"once --output yaml", "", 2, nil, []string{"--output"}},
		{"check good", "", 0, []string{"OK - good is as expected | time="}, nil},
		{"check refused", "", 2, []string{"CRITICAL - identity:who: token_expired"}, nil},
		{"check nobody", "", 3, []string{"UNKNOWN - there is no"}, nil},
		{"check", "", 3, []string{"UNKNOWN - name one probe"}, nil},
		{"config check", "", 0, []string{"is good: 2 probes, 1 identity"}, []string{"the secret stands in the file itself"}},
		{"config check --config.file " + bad, "", 1, nil, []string{"bad.toml:2:1: probe.x: unknown kind \"htp\""}},
		{"config check --config.file /nowhere/x.toml", "", 1, nil, []string{"/nowhere/x.toml: no such file"}},
		{"config show", "", 0, []string{`identity.who.token`, `plain:[secret]`, "authvigil.toml:4:1"}, nil},
		{"config schema", "", 0, []string{`"$schema"`, `"min_remaining"`}, nil},
		{"run --config.file " + bad, "", 78, nil, []string{"unknown kind"}},
		{"diagnose good", "", 0, []string{"STAGE", "healthy"}, nil},
		{"diagnose refused --output ndjson", "", 1, []string{`"cause":"token_expired"`, `"id":"refused"`}, nil},
		{"diagnose", "", 2, nil, []string{"give one of"}},
		{"diagnose --response -", "HTTP/1.1 429 Too Many Requests\n\n", 1, []string{"rate_limited"}, nil},
		{"diagnose --response -", "HTTP/1.1 200 OK\n\n{}", 0, []string{"healthy"}, nil},
		{"diagnose --response -", "nothing", 2, nil, []string{"paste the output of curl"}},
		{"diagnose --evidence - --output ndjson", `{"id":"a","response":{"status":401,"body":"jwt expired"},"request":{"auth_scheme":"bearer"},"stage":"api_call","cause":"x"}` + "\n\n" + `{"id":"b","response":{"status":429}}`, 0, []string{`{"id":"a","findings":[{"cause":"token_expired"`, `{"id":"b","findings":[{"cause":"rate_limited"`}, nil},
		{"diagnose --evidence - --output ndjson", "{\"id\":\"a\",\"response\":7}\nnot json\n", 1, []string{`"id":"a"`, `"id":"2"`}, []string{"line 1: response:", "line 2: is not a JSON object"}},
		{"explain", "", 0, []string{"token_expired", "the token is past its end"}, nil},
		{"explain token_expired", "", 0, []string{"## Fix"}, nil},
		{"explain AuthFailureSpike", "", 0, []string{"clients that had success before"}, nil},
		{"explain token_expird", "", 2, nil, []string{`did you mean "token_expired"?`}},
		{"inspect token -", "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3MDAwMDAwMDB9.c2ln", 1, []string{"ended", "ES256"}, nil},
		{"inspect token -", "opaque-text", 0, []string{"opaque"}, nil},
		{"inspect token eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "", 2, nil, []string{"command line"}},
		{"inspect cert testdata/expired.p12 --passphrase plain:secret", "", 1, []string{"expired.test", "ended"}, nil},
		{"inspect cert testdata/expired.p12 --passphrase plain:wrong", "", 1, []string{"tls_file_unreadable"}, nil},
		{"inspect cert /nowhere", "", 2, nil, []string{"neither host:port nor a file"}},
		{"reload --socket /nowhere/authvigil.sock", "", 1, nil, []string{"no daemon answers"}},
		{"alerts test nobody", "", 1, nil, []string{"there is no [sink.nobody]"}},
		{"version", "", 0, []string{"authvigil "}, nil},
		{"nonsense", "", 2, nil, []string{"unknown command"}},
		{"once --nonsense", "", 2, nil, []string{"unknown flag"}},
		{"once --log.level loud", "", 2, nil, []string{"--log.level"}},
	} {
		args := strings.Fields(c.args)
		if !strings.Contains(c.args, "--config.file") {
			args = append(args, "--config.file", config)
		}
		code, out, errs := call(t, c.stdin, args...)
		if code != c.code {
			t.Errorf("%s: exit %d, want %d\n%s%s", c.args, code, c.code, out, errs)
		}
		for _, w := range c.words {
			if !strings.Contains(out, w) {
				t.Errorf("%s: standard output lacks %q:\n%s", c.args, w, out)
			}
		}
		for _, w := range c.errs {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: standard error lacks %q:\n%s", c.args, w, errs)
			}
		}
		if strings.Contains(out+errs, canary) {
			t.Errorf("%s: a secret is shown", c.args)
		}
	}
}

// TestRecord_hasWhatScriptsRelyOn keeps the fields of the record of one run.
func TestRecord_hasWhatScriptsRelyOn(t *testing.T) {
	_, out, _ := call(t, "", "once", "refused", "--output", "ndjson", "--config.file", configOf(t))
	var r map[string]any
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"probe", "kind", "endpoint", "identity", "ok", "started", "took_seconds", "stage", "symptom", "exchanges", "readings", "findings", "gate"} {
		if _, ok := r[field]; !ok {
			t.Errorf("the record lacks %q", field)
		}
	}
	f := r["findings"].([]any)[0].(map[string]any)
	for _, field := range []string{"cause", "culprit", "sureness", "because", "remedy", "runbook"} {
		if _, ok := f[field]; !ok {
			t.Errorf("a finding lacks %q", field)
		}
	}
}

func TestDemo_findsWhatItBreaks(t *testing.T) {
	code, out, errs := call(t, "", "demo", "--for", "9s", "--fault", "3s", "--web.listen-address", "127.0.0.1:0")
	if code != 0 || !strings.Contains(out, "The page is at http://127.0.0.1:") || !strings.Contains(out, "found:") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if strings.Contains(out, "\n0 of") {
		t.Errorf("nothing was found:\n%s", out)
	}
}
