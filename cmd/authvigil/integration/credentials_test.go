//go:build integration

package integration

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// gateway is an API that asks the provider about each token (RFC 7662) and remembers the answer for a while, as gateways do.
func gateway(t *testing.T, c *ca, provider *idp, remember time.Duration) string {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	var mu sync.Mutex
	known := map[string]time.Time{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		mu.Lock()
		defer mu.Unlock()
		if until, ok := known[token]; !ok || time.Now().After(until) {
			delete(known, token)
			req, _ := http.NewRequest(http.MethodPost, provider.issuer+"/token/introspection", strings.NewReader(url.Values{"token": {token}}.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth("in-header", "header-secret-1")
			var said struct{ Active bool }
			if answer, err := client.Do(req); err == nil {
				body, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				json.Unmarshal(body, &said)
			}
			if !said.Active {
				w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			known[token] = time.Now().Add(remember)
		}
		fmt.Fprint(w, "ok")
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestCredentials asks a real provider about tokens, withdraws them, and begins logins.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	web := startNginx(t, c)
	config := "[defaults]\ntimeout = \"10s\"\n"
	for _, name := range []string{"machine", "throwaway", "throwaway-slow", "throwaway-never", "mistaken"} {
		secret := "header-secret-1"
		if name == "mistaken" {
			secret = "not-the-secret"
		}
		config += fmt.Sprintf("[identity.%s]\nkind = \"oauth2\"\ntoken_url = \"%s/token\"\nclient_id = \"in-header\"\nclient_secret = \"plain:%s\"\nca_file = %q\ndisposable = %v\n", name, provider.issuer, secret, c.file, strings.HasPrefix(name, "throwaway"))
	}
	var want []fault
	add := func(kind, probe, cause, culprit string) {
		want = append(want, fault{name: fmt.Sprintf("p%02d", len(want)), probe: probe, cause: cause, culprit: culprit})
		if kind != "http" {
			probe += fmt.Sprintf("\nissuer = %q", provider.issuer)
		}
		config += fmt.Sprintf("[probe.p%02d]\nkind = %q\nca_file = %q\n%s\n", len(want)-1, kind, c.file, probe)
	}
	config += fmt.Sprintf("[identity.reader]\nkind = \"oauth2\"\ntoken_url = \"%s/token\"\nclient_id = \"in-header\"\nclient_secret = \"plain:header-secret-1\"\nresource = [\"https://things.test\"]\nscopes = [\"things:read\"]\nca_file = %q\n", provider.issuer, c.file)
	config += "[identity.anybody]\nkind = \"none\"\n[identity.stale]\nkind = \"bearer\"\ntoken = \"plain:stale-token-of-the-test\"\n"
	guarded := func(path, more string) string {
		return fmt.Sprintf("url = \"https://localhost:%d%s\"\nidentity = \"reader\"\n%s", web.port["good"], path, more)
	}
	add("http", guarded("/things", "must_refuse = [\"anybody\", \"stale\"]\nrequired_scopes = [\"things:read\"]"), "", "")
	add("http", guarded("/open", "must_refuse = [\"anybody\"]"), "authorization_too_open", "endpoint:localhost")
	add("http", guarded("/scope", "required_scopes = [\"things:read\", \"things:write\"]"), "insufficient_scope", "identity:reader")
	add("introspect", "identity = \"machine\"\nclient_id = \"in-header\"\nmin_remaining = \"1m\"", "", "")
	add("introspect", "identity = \"machine\"\nby = \"mistaken\"", "client_credentials_invalid", "identity:mistaken")
	add("introspect", "identity = \"machine\"\nrequired_scopes = [\"things:read\"]", "insufficient_scope", "identity:machine")
	add("introspect", "identity = \"machine\"\nclient_id = \"another\"", "wrong_environment", "identity:machine")
	add("introspect", "identity = \"machine\"\nmin_remaining = \"1h\"", "token_expiring", "identity:machine")
	revoke := func(who string, remember time.Duration, lag string) string {
		return fmt.Sprintf("identity = %q\nrevoke = true\nmax_lag = %q\napi = \"%s/things\"", who, lag, gateway(t, c, provider, remember))
	}
	add("introspect", revoke("throwaway", 0, "1s"), "", "")
	add("introspect", revoke("throwaway-slow", 2*time.Second, "4s"), "", "")
	add("introspect", revoke("throwaway-never", time.Minute, "1s"), "revoked_token_accepted", "endpoint:127.0.0.1")
	login := "redirect_uri = \"https://app.test/back\"\n"
	add("authorize", login+"client_id = \"public\"", "", "")
	add("authorize", login+"client_id = \"person\"\npkce = false", "", "")
	add("authorize", "client_id = \"public\"\nredirect_uri = \"https://app.test/other\"", "redirect_uri_mismatch", "endpoint:")
	add("authorize", login+"client_id = \"nobody\"", "client_credentials_invalid", "endpoint:")
	add("authorize", login+"client_id = \"public\"\nresponse_type = \"id_token\"", "grant_not_allowed", "endpoint:")
	got := once(t, config)
	for _, f := range want {
		r := got[f.name]
		switch {
		case f.cause == "" && !r.OK:
			t.Errorf("%s\n%s\n%s", f.probe, r.Error, r.raw)
		case f.cause != "" && (len(r.Findings) == 0 || r.Findings[0].Cause != f.cause || !strings.HasPrefix(r.Findings[0].Culprit, f.culprit)):
			t.Errorf("want %s of %s\n%s\n%s", f.cause, f.culprit, f.probe, r.raw)
		}
		for _, secret := range []string{"header-secret-1", "not-the-secret"} {
			if strings.Contains(r.raw, secret) {
				t.Errorf("the record of %s shows a secret", f.name)
			}
		}
	}
}
