package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// standIn answers as the documented HTTP API of Vault does (https://developer.hashicorp.com/vault/api-docs). A real one cannot be
// run by these tests.
type standIn struct {
	mu      sync.Mutex
	sealed  bool
	tokens  map[string]bool
	logins  int
	asked   []string
	answers map[string]string // by path below /v1/
	status  map[string]int
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.asked = append(s.asked, r.Method+" "+path)
	fail := func(status int, what string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"errors":[%q]}`, what)
	}
	if s.sealed {
		fail(503, "Vault is sealed")
		return
	}
	if strings.HasPrefix(path, "auth/") {
		b, _ := io.ReadAll(r.Body)
		var in map[string]string
		json.Unmarshal(b, &in)
		if in["secret_id"] != canary && in["jwt"] != canary {
			fail(400, "invalid role or secret ID "+in["secret_id"])
			return
		}
		s.logins++
		token := fmt.Sprintf("hvs.token-of-login-%d", s.logins)
		s.tokens[token] = true
		fmt.Fprintf(w, `{"auth":{"client_token":%q,"lease_duration":3600,"renewable":true}}`, token)
		return
	}
	if !s.tokens[r.Header.Get("X-Vault-Token")] || r.Header.Get("X-Vault-Request") != "true" {
		fail(403, "permission denied")
		return
	}
	if code := s.status[path]; code != 0 {
		w.Header().Set("Location", "https://evil.example.test/v1/"+path)
		fail(code, "secret canary "+canary)
		return
	}
	answer, ok := s.answers[path]
	if !ok {
		fail(404, "")
		return
	}
	if strings.HasPrefix(answer, "404 ") {
		w.WriteHeader(404)
		answer = answer[4:]
	}
	io.WriteString(w, answer)
}

func newStandIn(t *testing.T) (*standIn, string) {
	t.Helper()
	s := &standIn{tokens: map[string]bool{"hvs.right-token-of-the-test": true}, status: map[string]int{}, answers: map[string]string{
		"sys/internal/ui/mounts/secret/billing": `{"data":{"path":"secret/","type":"kv","options":{"version":"2"}}}`,
		"sys/internal/ui/mounts/old/billing":    `{"data":{"path":"old/","type":"kv","options":{"version":"1"}}}`,
		"sys/internal/ui/mounts/deep/kv/a":      `{"data":{"path":"deep/kv/","type":"kv","options":{"version":"2"}}}`,
		"secret/data/billing":                   `{"data":{"data":{"client_secret":"canary-of-version-two","number":7},"metadata":{"created_time":"2026-05-01T10:00:00.5Z","version":3,"deletion_time":"","destroyed":false}}}`,
		"secret/data/gone":                      `404 {"data":{"data":null,"metadata":{"created_time":"2026-05-01T10:00:00Z","version":3,"deletion_time":"2026-06-01T10:00:00Z","destroyed":false}}}`,
		"old/billing":                           `{"lease_duration":60,"data":{"client_secret":"canary-of-version-one"}}`,
		"deep/kv/data/a":                        `{"data":{"data":{"k":"canary-in-a-deep-mount"},"metadata":{"created_time":"2026-05-01T10:00:00Z","version":1}}}`,
	}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Setenv("VAULT_ADDR", server.URL)
	t.Setenv("VAULT_TOKEN", "hvs.right-token-of-the-test")
	return s, server.URL
}

func TestVault_readsBothVersions(t *testing.T) {
	_, address := newStandIn(t)
	for place, want := range map[string]string{
		"secret/billing#client_secret":                         "canary-of-version-two",
		"secret/billing?kv=2#client_secret":                    "canary-of-version-two",
		"old/billing#client_secret":                            "canary-of-version-one",
		"old/billing?kv=1#client_secret":                       "canary-of-version-one",
		"deep/kv/a#k":                                          "canary-in-a-deep-mount",
		"deep/kv/a?kv=2&mount=deep/kv#k":                       "canary-in-a-deep-mount",
		"secret/billing?address=" + address + "#client_secret": "canary-of-version-two",
	} {
		ref, err := Parse("vault:" + place)
		if err != nil {
			t.Errorf("%s: %v", place, err)
			continue
		}
		v, err := ref.Reveal(t.Context())
		if err != nil || v.Expose() != want {
			t.Errorf("%s: %q, %v, want %q", place, v.Expose(), err, want)
		}
		if at, ok := ref.Changed(t.Context()); strings.HasPrefix(place, "secret") && (!ok || at.Year() != 2026) {
			t.Errorf("%s: written at %v, %v", place, at, ok)
		}
	}
}

func TestVault_errorsTellWhatToDo(t *testing.T) {
	s, _ := newStandIn(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for _, c := range []struct {
		name, place string
		before      func()
		words       []string
		is          error
	}{
		{"refused", "secret/billing?kv=2#client_secret", func() { s.status["secret/data/billing"] = 403 }, []string{"403", "secret/data/billing", `capabilities = ["read"]`}, nil},
		{"wrong token", "secret/billing?kv=2#client_secret", func() { t.Setenv("VAULT_TOKEN", "hvs.another") }, []string{"403", "token has ended"}, nil},
		{"no token", "secret/billing?kv=2#client_secret", func() { os.Unsetenv("VAULT_TOKEN") }, []string{"token for vault"}, ErrNotFound},
		{"nothing there", "secret/nothing?kv=2#client_secret", nil, []string{"nothing at secret/data/nothing", "vault kv put"}, ErrNotFound},
		{"no such mount", "nowhere/x#client_secret", nil, []string{"nothing"}, ErrNotFound},
		{"deleted", "secret/gone?kv=2#client_secret", nil, []string{"deleted"}, ErrNotFound},
		{"no such key", "secret/billing?kv=2#other", nil, []string{"no key other", "2 others"}, ErrNotFound},
		{"no text", "secret/billing?kv=2#number", nil, []string{"is no text"}, nil},
		{"sealed", "secret/billing?kv=2#client_secret", func() { s.sealed = true }, []string{"sealed", "unseal"}, ErrAway},
		{"fails", "secret/billing?kv=2#client_secret", func() { s.status["secret/data/billing"] = 500 }, []string{"answered 500"}, ErrAway},
		{"throttled", "secret/billing?kv=2#client_secret", func() { s.status["secret/data/billing"] = 429 }, []string{"429"}, ErrAway},
		{"leads elsewhere", "secret/billing?kv=2#client_secret", func() { s.status["secret/data/billing"] = 307 }, []string{"leading elsewhere"}, nil},
		{"refuses connections", "secret/billing?kv=2&address=http://" + closed.Addr().String() + "#client_secret", nil, []string{"refused"}, ErrAway},
		{"never answers", "secret/billing?kv=2&timeout=200ms&address=http://" + silent.Addr().String() + "#client_secret", nil, []string{"in time"}, ErrAway},
		{"no address", "secret/billing?kv=2#client_secret", func() { os.Unsetenv("VAULT_ADDR") }, []string{"VAULT_ADDR"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, token := os.Getenv("VAULT_ADDR"), os.Getenv("VAULT_TOKEN")
			defer func() {
				os.Setenv("VAULT_ADDR", address) //nolint:usetesting // undone by the test that set it
				os.Setenv("VAULT_TOKEN", token)  //nolint:usetesting // undone by the test that set it
				s.mu.Lock()
				s.sealed, s.status = false, map[string]int{}
				s.mu.Unlock()
			}()
			if c.before != nil {
				c.before()
			}
			ref, err := Parse("vault:" + c.place)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ref.Reveal(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			if errors.Is(err, ErrAway) != (c.is == ErrAway) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v is not %v", err, c.is)
			}
			for _, form := range spellings(canary) {
				if strings.Contains(err.Error(), form) {
					t.Errorf("the answer of the server is repeated: %v", Scrub(err.Error()))
				}
			}
		})
	}
}

// TestVault_logins: references with the same words log in once, a token that ended is replaced, and one that was refused for
// good is not asked for again and again.
func TestVault_logins(t *testing.T) {
	s, _ := newStandIn(t)
	path := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(path, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"auth=approle&role=monitor&secret_id=file:" + path, "auth=kubernetes&role=monitor&jwt=file:" + path} {
		s.logins = 0
		reveal := func(rest string) error {
			ref, err := Parse("vault:secret/billing?kv=2&" + how + rest)
			if err != nil {
				t.Fatal(err)
			}
			_, err = ref.Reveal(t.Context())
			return err
		}
		for range 5 {
			if err := reveal("#client_secret"); err != nil {
				t.Fatal(err)
			}
		}
		if s.logins != 1 {
			t.Errorf("%s: %d logins, want 1", how, s.logins)
		}
		s.tokens = map[string]bool{}
		if err := reveal("#client_secret"); err != nil || s.logins != 2 {
			t.Errorf("%s, after the token ended: %v, %d logins", how, err, s.logins)
		}
		s.status["secret/data/billing"] = 403
		if err := reveal("#client_secret"); err == nil || s.logins != 3 {
			t.Errorf("%s, refused for good: %v, %d logins, want 3", how, err, s.logins)
		}
		delete(s.status, "secret/data/billing")
	}
	os.WriteFile(path, []byte("not-the-secret-id"), 0o600)
	ref, _ := Parse("vault:secret/billing?kv=2&auth=approle&role=another&secret_id=file:" + path + "#client_secret")
	if _, err := ref.Reveal(t.Context()); err == nil || !strings.Contains(err.Error(), "auth/approle/login") || strings.Contains(err.Error(), "not-the-secret-id") {
		t.Errorf("a login that is refused: %v", Scrub(fmt.Sprint(err)))
	}
}

// TestVault_agentSocket: the agent on this host adds its own token; none of ours goes there.
func TestVault_agentSocket(t *testing.T) {
	s, _ := newStandIn(t)
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var sent string
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("X-Vault-Token")
		r.Header.Set("X-Vault-Token", "hvs.right-token-of-the-test")
		s.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	defer func() { server.Close(); <-done }()
	ref, err := Parse("vault:secret/billing?auth=agent&address=unix://" + socket + "#client_secret")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := ref.Reveal(t.Context()); err != nil || v.Expose() != "canary-of-version-two" || sent != "" {
		t.Errorf("%v, %q, sent a token: %v", err, v.Expose(), sent != "")
	}
}

func TestVault_refusesReferences(t *testing.T) {
	for _, place := range []string{
		"secret/billing", "billing#k", "secret/b?kv=3#k", "secret/b?unknown=1#k", "secret/b?kv=1&version=2#k", "secret/b?version=0#k", "secret/b?ttl=5#k",
		"secret/b?auth=ldap#k", "secret/b?auth=approle#k", "secret/b?auth=approle&role=x#k", "secret/b?auth=kubernetes#k", "secret/b?role=x#k",
		"secret/b?token=plain:hunter2hunter2#k", "secret/b?secret_id=file:/x#k", "secret/b?address=ftp://x#k", "secret/b?mount=other#k", "secret/b?ttl=1m&ttl=2m#k",
	} {
		_, err := Parse("vault:" + place)
		if err == nil {
			t.Errorf("vault:%s passed", place)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats what may be a secret: %v", err)
		}
	}
}
