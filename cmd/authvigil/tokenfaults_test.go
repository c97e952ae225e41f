package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestTokenFaults is the list of what token endpoints do wrong (docs/fault-cases-tokens.md), each with its cause. Whatever it is,
// one request is made, and neither the secret nor what the server made of it shows.
func TestTokenFaults(t *testing.T) {
	const secret = "client-secret-of-the-fault-list"
	evil := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the foreign host was asked %s", r.URL) }))
	defer evil.Close()
	jsonType := "application/json"
	cases := []struct {
		row, name string
		status    int
		kind      string // content type
		body      string
		cause     string // empty: all is well
		more      string // settings of the identity or, after |, of the probe
	}{
		{"C1", "wrong client secret", 401, jsonType, `{"error":"invalid_client"}`, "client_credentials_invalid", ""},
		{"C3", "secret expired", 401, jsonType, `{"error":"invalid_client","error_description":"AADSTS7000222: The provided client secret keys for app 'x' are expired."}`, "client_secret_expired", ""},
		{"C4", "grant not allowed", 400, jsonType, `{"error":"unauthorized_client"}`, "grant_not_allowed", ""},
		{"C4", "scope", 400, jsonType, `{"error":"invalid_scope"}`, "invalid_scope", `scopes = ["x"]`},
		{"C4", "grant unknown", 400, jsonType, `{"error":"unsupported_grant_type"}`, "grant_not_allowed", ""},
		{"C5", "wants the secret in the body", 401, jsonType, `{"error":"invalid_client","error_description":"client authentication method client_secret_basic is not allowed, use client_secret_post"}`, "client_credentials_invalid", ""},
		{"C6", "429 in seconds", 429, jsonType, `{}`, "rate_limited", ""},
		{"C6", "429 by date", 429, "date", `{}`, "rate_limited", ""},
		{"C7", "503 with HTML", 503, "text/html", `<html>Service Unavailable ` + secret + `</html>`, "idp_unavailable", ""},
		{"C8", "200 with a login page", 200, "text/html", `<html><form><input type="password"></form></html>`, "login_page_instead_of_api", ""},
		{"C9", "JSON called text", 200, "text/plain", `{"access_token":"token-of-the-fault-list","expires_in":300}`, "", ""},
		{"C10", "200 with an error", 200, jsonType, `{"error":"invalid_client"}`, "client_credentials_invalid", ""},
		{"C11", "no access_token", 200, jsonType, `{"token_type":"Bearer"}`, "idp_unavailable", ""},
		{"C12", "expires_in absent", 200, jsonType, `{"access_token":"token-of-the-fault-list"}`, "", ""},
		{"C12", "expires_in 0", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":0}`, "token_malformed", ""},
		{"C12", "expires_in negative", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":-5}`, "token_malformed", ""},
		{"C12", "expires_in a float", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":300.5}`, "", ""},
		{"C12", "expires_in a string", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":"300"}`, "", ""},
		{"C12", "expires_in huge", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":1e300}`, "", ""},
		{"C15", "8 s of life", 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":8}`, "token_expiring", `|min_remaining = "1m"`},
		{"C16", "answer lost", 0, "", "", "idp_unavailable", ""},
		{"C20", "refresh token reused", 400, jsonType, `{"error":"invalid_grant","error_description":"refresh token reuse detected, grant revoked"}`, "token_revoked", "grant = \"refresh_token\"\nrefresh_token = \"plain:refresh-token-of-the-list\"\nexclusive = true"},
		{"C18", "answer to a refresh lost", 0, "", "", "refresh_token_uncertain|idp_unavailable", "grant = \"refresh_token\"\nrefresh_token = \"plain:refresh-token-of-the-list-2\"\nexclusive = true"},
		{"-", "refresh token expired", 400, jsonType, `{"error":"invalid_grant","error_description":"refresh token is expired"}`, "invalid_grant_refresh_expired", "grant = \"refresh_token\"\nrefresh_token = \"plain:refresh-token-of-the-list-3\"\nexclusive = true"},
		{"C44", "assertion's audience", 401, jsonType, `{"error":"invalid_client","error_description":"client assertion audience must be the issuer identifier"}`, "client_credentials_invalid|token_audience_mismatch", "ASSERTION"},
		{"C46", "assertion lives too long", 401, jsonType, `{"error":"invalid_client","error_description":"client assertion lifetime exceeds the maximum"}`, "client_credentials_invalid|clock_skew", "ASSERTION"},
		{"C47", "assertion's key unknown", 401, jsonType, `{"error":"invalid_client","error_description":"no key with kid k1 found for the client"}`, "client_credentials_invalid|token_signature_invalid", "ASSERTION"},
		{"C57", "account locked", 400, jsonType, `{"error":"invalid_grant","error_description":"AADSTS50053: The account is locked because the user tried to sign in too many times"}`, "account_locked", "grant = \"password\"\nusername = \"u\"\npassword = \"plain:" + secret + "\""},
		{"C58", "password expired", 400, jsonType, `{"error":"invalid_grant","error_description":"AADSTS50055: The password is expired."}`, "mfa_or_interaction_required", "grant = \"password\"\nusername = \"u\"\npassword = \"plain:" + secret + "\""},
		{"C58", "second factor", 400, jsonType, `{"error":"invalid_grant","error_description":"AADSTS50076: you must use multi-factor authentication"}`, "mfa_or_interaction_required", "grant = \"password\"\nusername = \"u\"\npassword = \"plain:" + secret + "\""},
		{"C58", "consent", 400, jsonType, `{"error":"invalid_grant","error_description":"AADSTS65001: The user or administrator has not consented"}`, "mfa_or_interaction_required", "grant = \"password\"\nusername = \"u\"\npassword = \"plain:" + secret + "\""},
		{"C60", "the form is repeated", 400, jsonType, "ECHO", "", ""},
		{"-", "307 to a foreign host", 307, "", "", "idp_unavailable", ""},
		{"-", "5 MiB", 200, jsonType, `{"x":"` + strings.Repeat("y", 5<<20) + `"}`, "idp_unavailable", ""},
		{"-", "never", -1, "", "", "idp_unavailable", ""},
		{"-", "slow", -2, "", "", "", ""},
		{"-", "20 KiB token", 200, jsonType, `{"access_token":"` + strings.Repeat("t", 20<<10) + `","expires_in":300}`, "", ""},
		{"-", "JWT with none", 200, jsonType, `{"access_token":"eyJhbGciOiJub25lIn0.e30.","expires_in":300}`, "", ""},
	}
	var mu sync.Mutex
	asked := map[string]int{}
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		n := 0
		fmt.Sscanf(r.URL.Path, "/%d/token", &n)
		c := cases[n]
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		switch c.status {
		case 0:
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
			return
		case -1:
			<-ended
			return
		case -2:
			time.Sleep(500 * time.Millisecond)
			c.status, c.kind, c.body = 200, jsonType, `{"access_token":"token-of-the-fault-list","expires_in":300}`
		case 429:
			w.Header().Set("Retry-After", "30")
			if c.kind == "date" {
				w.Header().Set("Retry-After", time.Now().Add(30*time.Second).UTC().Format(http.TimeFormat))
			}
		case 307:
			w.Header().Set("Location", evil.URL)
		}
		if c.body == "ECHO" {
			quoted, _ := json.Marshal("you sent " + r.Form.Encode() + " " + r.Header.Get("Authorization") + " " + secret)
			c.body = `{"error":"invalid_request","error_description":` + string(quoted) + `}`
		}
		w.Header().Set("Content-Type", c.kind)
		w.WriteHeader(c.status)
		_, _ = w.Write([]byte(c.body))
	}))
	defer server.Close()
	defer close(ended)
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(key, keyOfTheTest(t), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("[agent]\nstate_directory = %q\n[defaults]\ntimeout = \"2s\"\n", filepath.Join(dir, "state"))
	for n, c := range cases {
		identity, probe, _ := strings.Cut(c.more, "|")
		proof := fmt.Sprintf("client_secret = \"plain:%s\"", secret)
		if identity == "ASSERTION" {
			proof, identity = fmt.Sprintf("client_auth = \"private_key_jwt\"\nprivate_key = \"file:%s\"", key), ""
		}
		text += fmt.Sprintf("[identity.i%02d]\nkind = \"oauth2\"\ntoken_url = \"%s/%d/token\"\nclient_id = \"c\"\n%s\n%s\n[probe.p%02d]\nkind = \"token\"\nidentity = \"i%02d\"\n%s\n", n, server.URL, n, proof, identity, n, n, probe)
	}
	path := filepath.Join(dir, "authvigil.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, errs := call(t, "", "once", "--output", "ndjson", "--config.file", path)
	if strings.Contains(out+errs, secret) || strings.Contains(out+errs, "refresh-token-of-the-list") || strings.Contains(out+errs, "token-of-the-fault-list") {
		t.Error("a secret is shown")
	}
	seen := 0
	for line := range strings.Lines(out) {
		var r struct {
			Probe    string
			OK       bool
			Findings []struct{ Cause string }
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		n := 0
		fmt.Sscanf(r.Probe, "p%d", &n)
		c := cases[n]
		seen++
		got := ""
		if len(r.Findings) > 0 {
			got = r.Findings[0].Cause
		}
		switch {
		case c.row == "C60": // only what shows matters
		case c.cause == "" && !r.OK, c.cause != "" && !strings.Contains("|"+c.cause+"|", "|"+got+"|"):
			t.Errorf("%s %s: got %q, want %q\n%s", c.row, c.name, got, c.cause, line[:min(len(line), 2000)])
		}
		if asks := asked[fmt.Sprintf("/%d/token", n)]; asks != 1 {
			t.Errorf("%s %s: %d requests, want 1", c.row, c.name, asks)
		}
	}
	if seen != len(cases) {
		t.Errorf("%d records of %d\n%s", seen, len(cases), errs)
	}
}

// keyOfTheTest makes a private key in PEM.
func keyOfTheTest(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
