//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// asked gives how many token requests the provider saw.
func (i *idp) asked(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(i.read(t, "/_asked")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTokens_oneForFifty: fifty probes share an identity. The provider sees one token request at the start, one more when all of
// them are refused at once, and one for each life of a token.
func TestTokens_oneForFifty(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	var mu sync.Mutex
	var seen, dead = map[string]bool{}, map[string]bool{}
	var refused atomic.Int64
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		mu.Lock()
		seen[token] = true
		gone := token == "" || dead[token]
		mu.Unlock()
		if gone {
			time.Sleep(time.Second) // so that many are refused at once
			refused.Add(1)
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer api.Close()
	config := fmt.Sprintf("[defaults]\nevery = \"1s\"\ntimeout = \"10s\"\n[identity.machine]\nkind = \"oauth2\"\nissuer = %q\nclient_id = \"in-header\"\nclient_secret = \"plain:header-secret-1\"\nca_file = %q\n", provider.issuer, c.file)
	for n := range 50 {
		config += fmt.Sprintf("[probe.p%02d]\nkind = \"http\"\nurl = \"%s/p%d\"\nidentity = \"machine\"\n", n, api.URL, n)
	}
	path := filepath.Join(dir, "authvigil.toml")
	write(t, path, config)
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", path, "--web.listen-address", address)
	well := func() int {
		_, m := get(t, "http://"+address+"/metrics")
		n := 0
		for line := range strings.Lines(m) {
			if strings.HasPrefix(line, "authvigil_probe_success{") && strings.HasSuffix(strings.TrimSpace(line), " 1") {
				n++
			}
		}
		return n
	}
	eventually(t, 30*time.Second, "all are well", func() bool { return well() == 50 })
	if n := provider.asked(t); n != 1 {
		t.Errorf("%d token requests at the start, want 1", n)
	}
	mu.Lock()
	for token := range seen {
		dead[token] = true
	}
	mu.Unlock()
	eventually(t, 30*time.Second, "the token was refused and replaced, and all are well", func() bool {
		mu.Lock()
		replaced := len(seen) > 1
		mu.Unlock()
		return replaced && refused.Load() > 0 && well() == 50
	})
	if n := provider.asked(t); n != 2 {
		t.Errorf("%d token requests after all were refused at once, want 2", n)
	}
	t.Logf("%d refusals of the API, %d tokens", refused.Load(), len(seen))
}

// TestTokens_assertionAndAWrongClock: private_key_jwt against a provider whose clock is two minutes from ours, which time servers
// vouch for. The clock is blamed, and not the key.
func TestTokens_assertionAndAWrongClock(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	right := startIDP(t, c)
	clocks := []string{startChrony(t, 0), startChrony(t, 0), startChrony(t, 0)}
	providers := map[string]string{"right": right.issuer}
	config := fmt.Sprintf("[defaults]\ntimeout = \"10s\"\n[probe.aclock]\nkind = \"ntp\"\nservers = [%q, %q, %q]\n", clocks[0], clocks[1], clocks[2])
	for name, offset := range map[string]string{"ahead": "+120s", "behind": "-120s"} {
		providers[name] = right.twin(t, "FAKETIME="+offset, "LD_PRELOAD="+faketime(t)).issuer
	}
	for name, issuer := range providers {
		config += fmt.Sprintf("[identity.%s]\nkind = \"oauth2\"\nissuer = %q\nclient_id = \"signer\"\nclient_auth = \"private_key_jwt\"\nkey_id = \"client-key\"\nprivate_key = \"file:%s/signer.key\"\nca_file = %q\n[probe.%s]\nkind = \"token\"\nidentity = %q\n", name, issuer, dir, c.file, name, name)
	}
	got := once(t, config)
	if r := got["right"]; r.Outcome != "ok" {
		t.Errorf("a provider with the right time: %s", r.raw)
	}
	for _, name := range []string{"ahead", "behind"} {
		r := got[name]
		if len(r.Findings) == 0 || r.Findings[0].Cause != "clock_skew" || r.Findings[0].Culprit != "issuer:"+providers[name] {
			t.Errorf("a provider whose clock is %s: %s", name, r.raw)
		}
	}
}
