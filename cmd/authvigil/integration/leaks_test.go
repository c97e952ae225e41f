//go:build integration

package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/identity"
)

// leaks are the identities of the test, by kind: every kind must be there, with each secret that it may hold. Words in braces
// are places where a secret of its own is put: {file} by a reference to a file, {env}, {plain}, and {path} the path alone.
var leaks = map[string][]string{
	"none":    {""},
	"bearer":  {"token = `{file}`; next_secret = `plain:{plain}`", "command = [`/bin/cat`, `{path}`]"},
	"api_key": {"key = `{file}`; next_secret = `{file}`", "query = `key`; key = `plain:{plain}`", "cookie = `key`; key = `{env}`"},
	"basic":   {"username = `monitor`; password = `{file}`"},
	"digest":  {"username = `monitor`; password = `{file}`"},
	"hmac":    {"key = `exec:/bin/cat {path}`; sign = `{method} {target}`; headers = { X-Signature = `{signature}` }"},
	"sigv4":   {"access_key_id = `AKIAEXAMPLE`; secret_access_key = `{file}`; session_token = `{file}`; region = `eu-central-1`; service = `execute-api`"},
	"session": {"login_url = `{base}/login`; username = `monitor`; password = `{file}`"},
	"mtls":    {"certificate = `file:{dir}/client.crt`; private_key = `file:{dir}/client.key`"},
	"oauth2": {
		"token_url = `{base}/token`; client_id = `c`; client_secret = `{file}`; next_secret = `{file}`",
		"token_url = `{base}/refuse/token`; client_id = `c`; client_auth = `post`; client_secret = `{file}`; next_secret = `{file}`",
		"token_url = `{base}/token`; client_id = `c`; client_auth = `client_secret_jwt`; client_secret = `plain:{plain}-and-more-characters`",
		"token_url = `{base}/token`; client_id = `c`; client_auth = `private_key_jwt`; private_key = `file:{dir}/client.key`; dpop = true",
		"token_url = `{base}/token`; client_id = `c`; client_auth = `private_key_jwt`; client_assertion = `{file}`",
		"token_url = `{base}/refuse/token`; client_id = `c`; client_secret = `{file}`; grant = `password`; username = `monitor`; password = `{file}`",
		"token_url = `{base}/token`; client_id = `c`; client_secret = `{file}`; grant = `refresh_token`; refresh_token = `{file}`; exclusive = true",
		"token_url = `{base}/refuse/token`; client_id = `c`; client_secret = `{file}`; grant = `jwt_bearer`; assertion = `{file}`",
		"token_url = `{base}/token`; client_id = `c`; client_secret = `{file}`; grant = `token_exchange`; subject_token = `{file}`; actor_token = `{file}`",
	},
}

// leaky is a world where everything that could be said about a secret is said.
type leaky struct {
	dir     string
	secrets []string
}

// canary makes a secret, and a file that holds it.
func (l *leaky) canary(t *testing.T) string {
	t.Helper()
	text := fmt.Sprintf("canary+%02d/of-the-leak-test", len(l.secrets)) // with characters that are spelt differently in URLs
	l.secrets = append(l.secrets, text)
	write(t, filepath.Join(l.dir, fmt.Sprintf("secret%02d", len(l.secrets)-1)), text+"\n")
	return text
}

var places = regexp.MustCompile(`\{(file|env|plain|path|base|dir)\}`)

// fill puts a secret of its own into each place of a stanza.
func (l *leaky) fill(t *testing.T, stanza, base string) string {
	t.Helper()
	filled := places.ReplaceAllStringFunc(stanza, func(place string) string {
		switch place {
		case "{base}":
			return base
		case "{dir}":
			return l.dir
		}
		text, n := l.canary(t), len(l.secrets)-1
		path := fmt.Sprintf("%s/secret%02d", l.dir, n)
		return map[string]string{"{file}": "file:" + path, "{path}": path, "{env}": fmt.Sprintf("env:LEAK_%02d", n), "{plain}": text}[place]
	})
	return strings.NewReplacer("; ", "\n", "`", `"`).Replace(filled)
}

// talkative is a server that repeats all it is told, in every place that a server has, and issues tokens that are secrets.
func (l *leaky) talkative(t *testing.T) *httptest.Server {
	issued := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		said := r.URL.String() + " " + string(body)
		for name, values := range r.Header {
			said += " " + name + ": " + strings.Join(values, " ")
			if name == "Authorization" || strings.HasPrefix(name, "X-") || name == "Cookie" {
				w.Header()["X-Request-Id"] = append(w.Header()["X-Request-Id"], values...)
			}
		}
		quoted, _ := json.Marshal(said)
		switch {
		case r.URL.Path == "/token":
			issued++
			token := l.secrets[issued%3] // secrets of the issuer: those that came first
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"id_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":2,"error_uri":%s}`, token+"-a", token+"-i", token+"-r", quoted)
		case r.URL.Path == "/login" && r.Method == http.MethodGet:
			http.SetCookie(w, &http.Cookie{Name: "before", Value: "login"})
			fmt.Fprint(w, `<form method="post" action="/login"><input name="u"><input type="password" name="p"></form>`)
		case r.URL.Path == "/digest":
			w.Header().Set("WWW-Authenticate", `Digest realm="r", nonce="n", qop="auth", algorithm=SHA-256`)
			w.WriteHeader(http.StatusUnauthorized)
			w.Write([]byte(said))
		case strings.HasPrefix(r.URL.Path, "/good"):
			w.Write([]byte(said))
		default:
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token", error_description=`+string(quoted))
			w.Header().Set("Location", "http://elsewhere.test/?"+said)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":%s,"message":%s}`, quoted, quoted)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

// spellings are the forms of a secret that must not be found.
func spellings(text string) []string {
	forms := []string{text, url.QueryEscape(text), url.PathEscape(text), hex.EncodeToString([]byte(text))}
	for _, before := range []string{"", "c:", "monitor:"} { // as in Basic
		b := base64.StdEncoding.EncodeToString([]byte(before + text))
		forms = append(forms, strings.TrimRight(b, "=")[:len(b)-6])
	}
	return forms
}

// TestLeaks walks every kind of identity through refusals and successes at a server that repeats all it is told, and looks for
// each secret, in all its spellings, in all that the program shows or keeps: every command in every form of output, log and
// page and record and metric of the daemon, the dump of its goroutines, and its state directory.
func TestLeaks(t *testing.T) {
	l := &leaky{dir: t.TempDir()}
	c := newCA(t, l.dir)
	c.clientCertificate(t, "client", "client.test")
	for range 3 {
		l.canary(t)
	}
	server := l.talkative(t)
	state := filepath.Join(l.dir, "state")
	config := fmt.Sprintf("[agent]\nstate_directory = %q\n[defaults]\nevery = \"1s\"\ntimeout = \"5s\"\n[sink.hook]\nkind = \"webhook\"\nurl = \"%s/hook\"\nsigning_key = \"plain:%s\"\n", state, server.URL, l.canary(t))
	names := []string{}
	for _, kind := range identity.Kinds() {
		if len(leaks[kind]) == 0 {
			t.Errorf("kind %s stands under no leak test: give it a stanza in leaks", kind)
		}
		for i, stanza := range leaks[kind] {
			who := fmt.Sprintf("%s%d", strings.ReplaceAll(kind, "_", ""), i)
			config += fmt.Sprintf("[identity.%s]\nkind = %q\n%s\n", who, kind, l.fill(t, stanza, server.URL))
			refused := "/refused"
			if kind == "digest" {
				refused = "/digest"
			}
			for path, name := range map[string]string{"/good?q=" + url.QueryEscape(l.canary(t)): who + "-good", refused: who + "-refused"} {
				names = append(names, name)
				config += fmt.Sprintf("[probe.%s]\nkind = \"http\"\nurl = %q\nidentity = %q\nheaders = { X-Header = %q }\n", name, server.URL+path, who, l.canary(t))
			}
		}
	}
	slices.Sort(names)
	path := filepath.Join(l.dir, "authvigil.toml")
	write(t, path, config)
	key, err := os.ReadFile(filepath.Join(l.dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	var environ []string
	searched := 0
	var forms []string
	for i, text := range l.secrets {
		environ = append(environ, fmt.Sprintf("LEAK_%02d=%s", i, text))
		forms = append(forms, spellings(text)...)
	}
	forms = append(forms, strings.Split(string(key), "\n")[1])
	look := func(where, text string) {
		t.Helper()
		searched += len(text)
		for _, form := range forms {
			if at := strings.Index(text, form); at >= 0 {
				t.Errorf("%s shows a secret: …%q", where, text[max(0, at-80):at+len(form)])
				return
			}
		}
	}

	program := binary(t)
	command := func(args ...string) string {
		cmd := exec.Command(program, append(args, "--config.file", path, "--log.level", "debug")...)
		cmd.Env = append(os.Environ(), environ...)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code < 0 || code > 3 {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		look("authvigil "+strings.Join(args, " "), string(out))
		return string(out)
	}
	if out := command("config", "check"); !strings.Contains(out, "is good") {
		t.Fatal(out)
	}
	command("config", "show")
	command("config", "show", "--output", "json")
	command("alerts", "test", "hook")
	for _, form := range []string{"text", "json", "ndjson"} {
		if out := command("once", "--output", form); !strings.Contains(out, "bearer0-refused") {
			t.Errorf("once --output %s says too little:\n%s", form, out)
		}
	}
	for kind := range leaks { // the first of each kind; once had them all
		name := strings.ReplaceAll(kind, "_", "") + "0-refused"
		command("check", name)
		command("diagnose", name)
	}
	command("diagnose", "bearer0-refused", "--output", "ndjson")
	for _, n := range []int{0, 1} {
		cmd := exec.Command(program, "inspect", "token", fmt.Sprintf("env:LEAK_%02d", n))
		cmd.Env = append(os.Environ(), environ...)
		out, _ := cmd.CombinedOutput()
		look("inspect token", string(out))
	}

	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	daemon := start(t, "listening", append(environ, "RUNTIME_DIRECTORY="+l.dir), l.dir, program, "run", "--config.file", path, "--log.level", "debug", "--web.listen-address", address)
	base := "http://" + address
	eventually(t, 30*time.Second, "every probe was asked or held, and tokens were refreshed", func() bool {
		_, m := get(t, base+"/metrics")
		for _, name := range names {
			if !regexp.MustCompile(`\nauthvigil_runs_total{probe="` + name + `",outcome="[a-z]+"} [1-9]`).MatchString(m) {
				return false
			}
		}
		return regexp.MustCompile(`\nauthvigil_token_refreshes_total{identity="oauth26",outcome="ok"} ([3-9]|\d\d)`).MatchString(m)
	})
	pages := []string{"/", "/metrics", "/api/v1/probes", "/api/v1/findings", "/api/v1/alerts", "/api/v1/runways", "/api/v1/clocks"}
	for _, name := range names {
		pages = append(pages, "/probes/"+name, "/api/v1/probes/"+name)
	}
	for _, page := range pages {
		code, body := get(t, base+page)
		if code != http.StatusOK || body == "" {
			t.Errorf("%s answers %d", page, code)
		}
		look(page, body)
	}
	for _, args := range [][]string{{"status"}, {"status", "--output", "json"}, {"reload", "--dry-run"}, {"reload"}} {
		out, _ := exec.Command(program, append(args, "--socket", filepath.Join(l.dir, "authvigil.sock"))...).CombinedOutput()
		look("authvigil "+strings.Join(args, " "), string(out))
	}
	daemon.Process.Signal(syscall.SIGQUIT) // the runtime writes what a crash would write
	eventually(t, 10*time.Second, "the dump of the goroutines", func() bool { return strings.Contains(daemon.output(), "\ngoroutine 1 ") })
	look("the log and the dump of the daemon", daemon.output())
	kept := 0
	if err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		kept++
		look(path, string(b))
		return err
	}); err != nil || kept < 3 {
		t.Errorf("%d files of state, %v", kept, err)
	}
	t.Logf("%d secrets in %d spellings, %d KiB of %d probes, %d files of state", len(l.secrets), len(forms), searched>>10, len(names), kept)
}
