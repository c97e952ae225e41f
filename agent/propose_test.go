package agent

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// TestPropose_worksWithItsSecret: for each kind of API, what is proposed passes as a configuration, and is healthy as soon
// as the secret lies where it says. All that is left out is the client id or the user name.
func TestPropose_worksWithItsSecret(t *testing.T) {
	w := sandbox.New()
	t.Cleanup(w.Close)
	n := wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
	for _, c := range []struct {
		name   string
		wish   Wish
		file   string // of the secret
		secret string
		probes []string
		words  []string
	}{
		{"issuer named", Wish{URL: "https://api.example.test/v2/devices", Issuer: "https://auth.example.test", ClientID: sandbox.ClientID}, "api.secret", sandbox.ClientSecret,
			[]string{"api", "api-certificate", "api-refuses-strangers", "clock", "issuer", "issuer-certificate", "token"}, []string{`kind = "oauth2"`}},
		{"only the issuer", Wish{Issuer: "https://auth.example.test", ClientID: sandbox.ClientID}, "client.secret", sandbox.ClientSecret,
			[]string{"clock", "issuer", "issuer-certificate", "token"}, nil},
		{"basic", Wish{URL: "https://api.example.test/basic", ClientID: sandbox.User}, "api.password", sandbox.Password,
			[]string{"api", "api-certificate", "api-refuses-strangers", "clock"}, []string{`kind = "basic"`}},
		{"digest", Wish{URL: "https://api.example.test/digest", ClientID: sandbox.User}, "api.password", sandbox.Password,
			[]string{"api", "api-certificate", "api-refuses-strangers", "clock"}, []string{`kind = "digest"`}},
		{"api key", Wish{URL: "https://api.example.test/key"}, "api.key", sandbox.APIKey,
			[]string{"api", "api-certificate", "api-refuses-strangers", "clock"}, []string{`kind = "api_key"`, `header = "X-Api-Key"`}},
		{"open", Wish{URL: "https://api.example.test/v2/health"}, "", "", []string{"api", "api-certificate", "clock"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.wish.Secrets = t.TempDir()
			c.wish.Servers = []string{"ntp1.example.test", "ntp2.example.test", "ntp3.example.test"}
			p, err := Propose(t.Context(), n, c.wish)
			if err != nil {
				t.Fatal(err)
			}
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(c.wish.Secrets, c.file), []byte(c.secret+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			config, err := Parse("proposal", p.Text)
			if err != nil {
				t.Fatalf("%v\n%s", err, p.Text)
			}
			env := testEnv()
			env.Net = n
			a, err := New(config, env)
			if err != nil {
				t.Fatalf("%v\n%s", err, p.Text)
			}
			events, err := a.Once(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for i := range events {
				names = append(names, events[i].Probe)
				if events[i].Fault != nil {
					t.Errorf("%s: %v\n%s", events[i].Probe, events[i].Fault, p.Text)
				}
			}
			if !slices.Equal(names, c.probes) {
				t.Errorf("probes %v, want %v", names, c.probes)
			}
			for _, word := range c.words {
				if !strings.Contains(p.Text, word) {
					t.Errorf("lacks %q:\n%s", word, p.Text)
				}
			}
			if c.file != "" && !strings.Contains(strings.Join(p.Todo, "\n"), c.file) {
				t.Errorf("it does not say where the secret goes: %q", p.Todo)
			}
		})
	}
}

// TestPropose_readsChallenges: what servers of the wild say, and what is made of it.
func TestPropose_readsChallenges(t *testing.T) {
	var issuer *httptest.Server
	issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/realms/shop/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":"%s/realms/shop","token_endpoint":"%s/t","token_endpoint_auth_methods_supported":["private_key_jwt","client_secret_post"],"grant_types_supported":["authorization_code"]}`, issuer.URL, issuer.URL)
		case "/.well-known/oauth-authorization-server/plain":
			fmt.Fprintf(w, `{"issuer":"%s/plain","token_endpoint":"%s/t"}`, issuer.URL, issuer.URL)
		case "/.well-known/oauth-protected-resource":
			fmt.Fprintf(w, `{"resource":"x","authorization_servers":["%s/plain"]}`, issuer.URL)
		case "/api":
			w.Header().Set("WWW-Authenticate", strings.ReplaceAll(r.URL.Query().Get("say"), "ISSUER", issuer.URL))
			w.WriteHeader(401)
			fmt.Fprint(w, r.URL.Query().Get("body"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(issuer.Close)
	for _, c := range []struct {
		say, body string
		words     []string
		todo      string
	}{
		{`Bearer realm="ISSUER/realms/shop"`, "", []string{`kind = "oauth2"`, `/realms/shop"`, `client_auth = "post"`}, "client_credentials to everybody"},
		{`Bearer resource_metadata="ISSUER/.well-known/oauth-protected-resource"`, "", []string{`kind = "oauth2"`, `/plain"`, `client_auth = "basic"`}, "register a client"},
		{`Bearer error="invalid_token"`, "", []string{`kind = "bearer"`, "api.token"}, "put the token"},
		{`Bearer realm="https://127.0.0.1:1/nowhere"`, "", []string{`kind = "bearer"`}, ""},
		{``, `{"message":"No API key found in request"}`, []string{`kind = "api_key"`, `header = "X-Api-Key"`}, "api.key"},
		{``, `{"message":"missing header Ocp-Apim-Subscription-Key"}`, []string{`kind = "bearer"`}, ""},
		{``, `Access denied due to missing subscription key. Send Ocp-Apim-Subscription-Key`, []string{`kind = "api_key"`, `header = "Ocp-Apim-Subscription-Key"`}, ""},
		{`Token realm="x"`, "", []string{`kind = "api_key"`, `prefix = "Token "`}, ""},
		{"Basic realm=\"a\\\"]\nb\"", "", []string{`kind = "basic"`}, ""},
	} {
		address := issuer.URL + "/api?say=" + strings.NewReplacer(" ", "%20", `"`, "%22", "\n", "%0a", "\\", "%5c").Replace(c.say) + "&body=" + strings.ReplaceAll(c.body, " ", "%20")
		p, err := Propose(t.Context(), wire.System(), Wish{URL: address, Secrets: "/etc/authvigil"})
		if err != nil {
			t.Errorf("%s: %v", c.say, err)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(p.Text, word) {
				t.Errorf("%s %s: lacks %q:\n%s", c.say, c.body, word, p.Text)
			}
		}
		if !strings.Contains(strings.Join(p.Todo, "\n"), c.todo) {
			t.Errorf("%s: to do %q lacks %q", c.say, p.Todo, c.todo)
		}
		if _, err := Parse("proposal", p.Text); err != nil {
			t.Errorf("%s: %v", c.say, err)
		}
	}
	for _, bad := range []Wish{{URL: "api.example.com"}, {URL: "ftp://x/"}, {URL: "https://user:pass@x/"}, {Issuer: issuer.URL + "/nothing"}, {URL: "http://127.0.0.1:1/"}, {URL: issuer.URL, Kind: "sigv4"}} {
		if _, err := Propose(t.Context(), wire.System(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// TestShipped_noPublicPool: nothing that is shipped points at the public pool of time servers, which asks vendors not to.
func TestShipped_noPublicPool(t *testing.T) {
	named := regexp.MustCompile(`["'=\s][0-9a-z.-]*pool\.ntp\.org["'\s]`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, "/.git") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		switch filepath.Ext(path) {
		case ".go", ".toml", ".example", ".md", ".yml", ".yaml", ".conf", ".sh":
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(b)) {
				if named.MatchString(line) && !strings.Contains(line, "asks vendors") {
					t.Errorf("%s: %s", path, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
