package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

func testEnv() Env {
	return Env{Net: wire.System(), Jitter: func() float64 { return 0 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func noClock() (evidence.Clock, bool) { return evidence.Clock{}, false }

// TestExample_isStrictlyGoodAndHoldsEveryKind keeps the example true.
func TestExample_isStrictlyGoodAndHoldsEveryKind(t *testing.T) {
	c, err := Load("../config.toml.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := build(c, testEnv(), nil, noClock)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, b := range w.identities {
		have["identity "+b.kind] = true
	}
	for _, b := range w.probes {
		have["probe "+b.common.Kind] = true
	}
	for _, s := range c.sections["sink"] {
		have["sink "+s.raw["kind"].(string)] = true
	}
	for _, kind := range alert.Kinds() {
		if !have["sink "+kind] {
			t.Errorf("the example has no sink of kind %s", kind)
		}
	}
	for _, kind := range identity.Kinds() {
		if !have["identity "+kind] {
			t.Errorf("the example has no identity of kind %s", kind)
		}
	}
	for _, kind := range probes.Kinds() {
		if !have["probe "+kind] {
			t.Errorf("the example has no probe of kind %s", kind)
		}
	}
}

// problems builds a configuration and gives the lines of all errors.
func problems(t *testing.T, text string) string {
	t.Helper()
	c, wrong := Parse("authvigil.toml", text)
	if c == nil {
		return wrong.Error()
	}
	_, err := build(c, testEnv(), nil, noClock)
	if err = errors.Join(wrong, err); err == nil {
		return ""
	}
	return err.Error()
}

func TestConfig_everyErrorAtOnceWithItsPlace(t *testing.T) {
	got := problems(t, `[agent]
concurency = 5
[defaults]
every = 5
timeout = "10"
[identity.a]
kind = "oauth2"
token_url = "https://auth.example.test/token"
client_id = "x"
client_secret = "hunter2hunter2"
[identity.b]
kind = "bearer"
[probe.one]
kind = "http"
url = "htp://x"
expect = "maybe"
[probe.two]
kind = "http"
url = "https://user:pass@x/"
identity = "nobody"
[probe.three]
kind = "htpp"
[probe.four]
url = "https://x/"
[probe.five]
kind = "ntp"
servers = "one"
schedule = "0 0 30 2 *"
[probes.six]
kind = "http"
`)
	for _, want := range []string{
		"authvigil.toml:2:1: agent: unknown key \"concurency\"", "did you mean \"concurrency\"?",
		"authvigil.toml:4:1: defaults: every: want a duration as text with a unit, got the number 5",
		"authvigil.toml:5:1: defaults: timeout: \"10\" is no duration",
		"authvigil.toml:10:1: identity.a: client_secret: a secret is given by reference",
		"identity.b: token: is missing",
		"authvigil.toml:15:1: probe.one: url: must begin with https://",
		"authvigil.toml:16:1: probe.one: expect: \"maybe\" is neither grant nor deny",
		"authvigil.toml:19:1: probe.two: url: must not hold a user name",
		"authvigil.toml:20:1: probe.two: identity: there is no [identity.nobody]",
		"probe.three: unknown kind \"htpp\"",
		"probe.four: kind is missing",
		"authvigil.toml:27:1: probe.five: servers: want a list, got text",
		"authvigil.toml:28:1: probe.five: schedule: never comes",
		"unknown table \"probes\"", "did you mean \"probe\"?",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s", want)
		}
	}
	for _, secret := range []string{"hunter2", "user:pass"} {
		if strings.Contains(got, secret) {
			t.Errorf("the errors repeat what may be a secret (%q)", secret)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestBuild_lintsSecretsAtLoad: what is wrong with the form of a secret is said when the configuration is read, and what is
// declared of it is shown; a date may stand without quotes.
func TestBuild_lintsSecretsAtLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authvigil.toml")
	if err := os.WriteFile(path, []byte(`[agent]
environment = "production"
[identity.pasted]
kind = "bearer"
token = "plain:Bearer eyJhbGciOiJFUzI1NiJ9.eyJ"
[identity.trial]
kind = "api_key"
key = "plain:sk_test_abcdef"
pattern = "sk_"
expires = 2027-03-31
[identity.missing]
kind = "basic"
username = "u"
password = "file:/nowhere/password"
`), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := build(c, testEnv(), nil, noClock)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(c.Warnings, "\n")
	for _, want := range []string{"authvigil.toml:4:1: identity.pasted: the token begins with the name of a scheme", "authvigil.toml:7:1: identity.trial: the key is marked test, and this is production", "identity.missing: the password cannot be read: file:/nowhere/password: no such file"} {
		if !strings.Contains(got, want) {
			t.Errorf("missing: %s\n%s", want, got)
		}
	}
	a := &Agent{}
	a.current.Store(w)
	shown := fmt.Sprint(a.Effective())
	if !strings.Contains(shown, `{identity.trial.expires "2027-04-01T00:00:00Z"`) || !strings.Contains(shown, `{identity.trial.pattern "sk_"`) {
		t.Errorf("config show lacks what is declared: %s", shown)
	}
	if strings.Contains(got+shown, "abcdef") {
		t.Error("a secret is shown")
	}
}

func TestConfig_durations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90d": 90 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "250ms": 250 * time.Millisecond} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "-5s", "d", "1.2.3d", "5 s", "1dd", "1e3d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestLoad_mergesConfdAndEnvironment(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file("authvigil.toml", "[defaults]\nevery = \"10s\"\n[probe.my-api]\nkind = \"http\"\nurl = \"https://a.example.test/\"\n")
	file("conf.d/b.toml", "[probe.b]\nkind = \"http\"\nurl = \"https://b.example.test/\"\n")
	c, err := Load(filepath.Join(dir, "authvigil.toml"), []string{"AUTHVIGIL__DEFAULTS__EVERY=1m", "AUTHVIGIL__PROBE__MY_API__EXPECT_STATUS=[204]", "AUTHVIGIL__PROBE__MY_API__URL=https://c.example.test/", "HOME=/"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := build(c, testEnv(), nil, noClock)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(w.probes)); !slices.Equal(got, []string{"b", "my-api"}) || w.probes["my-api"].about.Endpoint != "c.example.test/" || w.probes["my-api"].about.Expected != "204" || w.probes["b"].plan.every != time.Minute {
		t.Errorf("got %v, %+v, every %s", got, w.probes["my-api"].about, w.probes["b"].plan.every)
	}
	a := &Agent{}
	a.current.Store(w)
	shown := ""
	for _, v := range a.Effective() {
		shown += v.Path + " = " + v.Value + " # " + v.Origin + "\n"
	}
	if !strings.Contains(shown, "probe.my-api.url = \"https://c.example.test/\" # environment variable AUTHVIGIL__PROBE__MY_API__URL") || !strings.Contains(shown, "probe.b.url = \"https://b.example.test/\" # "+filepath.Join(dir, "conf.d/b.toml")+":3:1") {
		t.Errorf("config show does not say where values come from:\n%s", shown)
	}
	file("conf.d/c.toml", "[probe.b]\nkind = \"http\"\nurl = \"https://c.example.test/\"\n")
	if _, err := Load(filepath.Join(dir, "authvigil.toml"), nil); err == nil || !strings.Contains(err.Error(), "conf.d/c.toml:1:2: probe.b: stands in") {
		t.Errorf("a name that stands twice: got %v", err)
	}
	if _, err := Load(filepath.Join(dir, "authvigil.toml"), []string{"AUTHVIGIL__PROBE__MY_API__URLL=x"}); err == nil {
		c, _ := Load(filepath.Join(dir, "authvigil.toml"), []string{"AUTHVIGIL__PROBE__MY_API__URLL=x"})
		if _, err := build(c, testEnv(), nil, noClock); err == nil || !strings.Contains(err.Error(), "environment variable AUTHVIGIL__PROBE__MY_API__URLL") {
			t.Errorf("an unknown key from the environment: got %v", err)
		}
	}
}

func TestSchema_describesEveryKey(t *testing.T) {
	s := Schema()
	identities := s["properties"].(map[string]any)["identity"].(map[string]any)["additionalProperties"].(map[string]any)["oneOf"].([]any)
	if len(identities) != len(identity.Kinds()) {
		t.Errorf("the schema has %d kinds of identities, there are %d", len(identities), len(identity.Kinds()))
	}
	for _, kind := range []string{"agent", "alerts", "defaults"} {
		for name, p := range s["properties"].(map[string]any)[kind].(map[string]any)["properties"].(map[string]any) {
			if p.(map[string]any)["description"] == nil {
				t.Errorf("[%s]: key %s has no help", kind, name)
			}
		}
	}
	for i, kind := range probes.Kinds() {
		branch := s["properties"].(map[string]any)["probe"].(map[string]any)["additionalProperties"].(map[string]any)["oneOf"].([]any)[i].(map[string]any)["properties"].(map[string]any)
		for name, p := range branch {
			if p.(map[string]any)["description"] == nil && name != "kind" {
				t.Errorf("probe kind %s: key %s has no help", kind, name)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../config.toml.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("[probe.x]\nkind = \"http\"\nurl = \"\xff\"")
	f.Add("[probe]\nx = 1\n[[probe.y]]\n[identity.z.kind]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("authvigil.toml", text)
		if c == nil {
			if err == nil {
				t.Error("neither a configuration nor an error")
			}
			return
		}
		_, _ = build(c, testEnv(), nil, noClock)
	})
}

// TestConfig_warnsOfCredentialsInURLs: a key in a URL is warned of, with its place and without its value.
func TestConfig_warnsOfCredentialsInURLs(t *testing.T) {
	c, err := Parse("a.toml", "[probe.p]\nkind = \"http\"\nurl = \"https://api.example.test/x?page=1&Api_Key=hunter2-hunter2\"\n[probe.q]\nkind = \"http\"\nurl = \"https://api.example.test/?keyword=&page=2\"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := build(c, testEnv(), nil, noClock); err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "a.toml:3:1: probe.p.url") || !strings.Contains(c.Warnings[0], "Api_Key") || strings.Contains(c.Warnings[0], "hunter2") {
		t.Errorf("warnings: %q", c.Warnings)
	}
}
