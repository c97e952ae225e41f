//go:build integration

package integration

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestIssuer_realProvider watches oidc-provider through rotations, an outage of its token endpoint alone, its death and a
// wrong clock.
func TestIssuer_realProvider(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	provider.knob(t, "seconds=1000")
	servers := fmt.Sprintf("%q, %q, %q", startChrony(t, 0), startChrony(t, 0), startChrony(t, 0))
	config := filepath.Join(dir, "authvigil.toml")
	settings := func(issuer string) string {
		return fmt.Sprintf(`
[agent]
state_directory = "%s/state"
[defaults]
every = "1s"
timeout = "4s"
[identity.machine]
kind = "oauth2"
issuer = %q
client_id = "in-header"
client_secret = "plain:header-secret-1"
resource = ["urn:things"]
ca_file = %q
[probe.clock]
kind = "ntp"
servers = [%s]
[probe.idp]
kind = "issuer"
issuer = %q
identity = "machine"
audience = "urn:things"
token_type = "at+jwt"
token_every = "1m"
ca_file = %q
`, dir, issuer, c.file, servers, issuer, c.file)
	}
	write(t, config, settings(provider.issuer))
	address := fmt.Sprintf("127.0.0.1:%d", port(t))
	run := func() *process {
		return start(t, "listening", []string{"RUNTIME_DIRECTORY=" + dir}, dir, binary(t), "run", "--config.file", config, "--web.listen-address", address)
	}
	metric := func(line string) bool {
		_, body := get(t, "http://"+address+"/metrics")
		return strings.Contains(body, "\n"+line)
	}
	cause := func(word, culprit string) bool {
		return metric(fmt.Sprintf("authvigil_probe_cause{probe=\"idp\",cause=%q,culprit=%q", word, culprit))
	}
	well := func() bool {
		_, body := get(t, "http://"+address+"/metrics")
		return strings.Contains(body, `authvigil_probe_success{probe="idp"`) && strings.Contains(body, "} 1") && !strings.Contains(body, `authvigil_probe_cause{probe="idp"`)
	}
	daemon := run()
	eventually(t, 20*time.Second, "the provider is well, its token verified", func() bool {
		return well() && metric(`authvigil_jwks_signing_key_published{probe="idp"`)
	})

	// A rotation that keeps the old key is a change and no fault; one that does not leaves the token in use without its key.
	provider.read(t, "/_rotate?kid=second&keep")
	eventually(t, 10*time.Second, "the new key is noticed", func() bool { return metric(`authvigil_jwks_changes_total{probe="idp"`) })
	if !well() {
		t.Error("a rotation with overlap is taken for a fault")
	}
	provider.read(t, "/_rotate?kid=third")
	eventually(t, 10*time.Second, "the key of the token in use is gone", func() bool { return cause("jwks_key_removed_early", "keyset:"+provider.issuer) })
	daemon.stop(t)
	daemon = run() // the new process has a new token, and remembers that the old one lives
	eventually(t, 10*time.Second, "it is known after a restart", func() bool { return cause("jwks_key_removed_early", "keyset:"+provider.issuer) })
	daemon.kill()
	if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	daemon = run()
	eventually(t, 10*time.Second, "well with nothing remembered", well)

	// Its token endpoint alone is down: the token in use works for a quarter of an hour, and the outage is seen after a minute.
	provider.knob(t, "seconds=1000&status=503")
	if !well() {
		t.Error("the token in use does not work any more")
	}
	eventually(t, 75*time.Second, "the outage is seen although the token in use works", func() bool { return cause("idp_unavailable", "issuer:"+provider.issuer) })
	provider.knob(t, "seconds=1000")

	// The issuer dies, and comes back.
	provider.kill()
	eventually(t, 10*time.Second, "the outage is named", func() bool { return cause("idp_unavailable", "issuer:"+provider.issuer) })
	daemon.kill()

	// One whose clock is two hours ahead of ours, which is right.
	ahead := provider.twin(t, "FAKETIME=+7200s", "LD_PRELOAD="+faketime(t)).issuer
	write(t, config, settings(ahead))
	run()
	eventually(t, 20*time.Second, "the issuer's clock is blamed", func() bool { return cause("clock_skew", "issuer:"+ahead) })
}

// TestIssuer_tampered serves metadata and key sets with one fault each from nginx.
func TestIssuer_tampered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	c.leaf(t, "expired", "localhost", time.Now().Add(-9*24*time.Hour), time.Now().Add(-24*time.Hour), true)
	good, bad := port(t), port(t)
	key := newKey(t)
	jwk := func(more map[string]any) map[string]any {
		b, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k := map[string]any{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256", "use": "sig", "x": base64.RawURLEncoding.EncodeToString(b[1:33]), "y": base64.RawURLEncoding.EncodeToString(b[33:])}
		maps.Copy(k, more)
		return k
	}
	base := fmt.Sprintf("https://localhost:%d", good)
	site := filepath.Join(dir, "site")
	put := func(path string, v any) {
		t.Helper()
		path = filepath.Join(site, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text, isText := v.(string)
		if !isText {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		write(t, path, text)
	}
	issuer := func(name string) string { return base + "/" + name }
	type m = map[string]any
	cases := []struct {
		name     string
		metadata any // members that differ, or the whole text
		keys     any
		claims   m // of the token that is checked, and members of its header as "typ of header"; nil: none
		cause    string
		culprit  string
		word     string
	}{
		{"healthy", nil, nil, m{}, "", "", ""},
		{"other-issuer", m{"issuer": issuer("other-issuer") + "/"}, nil, nil, "issuer_drift", "issuer", "slash"},
		{"html", "<html><title>Sign in</title></html>", nil, nil, "discovery_unusable", "issuer", "HTML"},
		{"no-keys-named", m{"jwks_uri": nil}, nil, nil, "discovery_unusable", "issuer", "jwks_uri"},
		{"plain-endpoint", m{"token_endpoint": "http://localhost/token"}, nil, nil, "issuer_drift", "issuer", "without TLS"},
		{"bad-endpoint", m{"userinfo_endpoint": fmt.Sprintf("https://localhost:%d/userinfo", bad)}, nil, nil, "tls_cert_expired", fmt.Sprintf("endpoint:localhost:%d", bad), "ended"},
		{"dead-endpoint", m{"userinfo_endpoint": fmt.Sprintf("https://localhost:%d/userinfo", port(t))}, nil, nil, "idp_unavailable", "issuer", "cannot be reached"},
		{"keys-absent", m{"jwks_uri": base + "/nowhere"}, nil, nil, "jwks_unusable", "keyset", "404"},
		{"keys-empty", nil, m{"keys": []any{}}, nil, "jwks_unusable", "keyset", "no key"},
		{"keys-html", nil, "<html></html>", nil, "jwks_unusable", "keyset", "HTML"},
		{"keys-5mib", nil, `{"keys":["` + strings.Repeat("a", 5<<20) + `"]}`, nil, "jwks_unusable", "keyset", "longer than"},
		{"key-broken-beside", nil, m{"keys": []any{m{"kty": "RSA", "kid": "broken", "n": "=", "e": "AQAB"}, jwk(nil)}}, m{}, "jwks_key_unusable", "keyset", `"broken"`},
		{"key-weak", nil, m{"keys": []any{m{"kty": "RSA", "kid": "weak", "use": "sig", "alg": "RS256", "n": strings.Repeat("_", 172), "e": "AQAB"}, jwk(nil)}}, m{}, "jwks_key_weak", "keyset", "1032 bits"},
		{"key-private", nil, m{"keys": []any{jwk(m{"d": base64.RawURLEncoding.EncodeToString(key.X.Bytes())})}}, m{}, "jwks_private_key_published", "keyset", "(d)"},
		{"key-name-twice", nil, m{"keys": []any{jwk(nil), jwk(jwkOf(t, newKey(t)))}}, nil, "jwks_key_reused", "keyset", "two different keys"},
		{"key-missing", nil, m{"keys": []any{jwk(m{"kid": "two"})}}, m{}, "jwks_key_missing", "keyset", `"one"`},
		{"signature", nil, m{"keys": []any{jwk(jwkOf(t, newKey(t)))}}, m{}, "token_signature_invalid", "issuer", "not good"},
		{"token-issuer", nil, nil, m{"iss": "https://localhost"}, "token_issuer_mismatch", "issuer", "https://localhost"},
		{"token-audience", nil, nil, m{"aud": "urn:other"}, "token_audience_mismatch", "identity:token-audience", "urn:other"},
		{"token-expired", nil, nil, m{"exp": time.Now().Add(-time.Hour).Unix()}, "token_expired", "identity:token-expired", "ended"},
		{"token-early", nil, nil, m{"nbf": time.Now().Add(10 * time.Minute).Unix()}, "token_not_yet_valid", "issuer", "is valid from"},
		{"token-alg-none", nil, nil, m{"alg of header": "none"}, "token_signature_invalid", "issuer", "no signature"},
		{"token-alg-hs256", nil, nil, m{"alg of header": "HS256"}, "token_algorithm_unsupported", "issuer", "shared secret"},
		{"token-typ", nil, nil, m{"typ of header": "JWT"}, "token_malformed", "issuer", `"JWT"`},
		{"token-of-login", nil, nil, m{"at_hash": "x"}, "token_malformed", "issuer", "ID token"},
		{"key-for-few", nil, m{"keys": []any{m{"kty": "EC", "crv": "secp256k1", "kid": "few", "x": "AAAA", "y": "AAAA"}, m{"kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AAAA"}, jwk(nil)}}, m{}, "", "", ""},
		{"keys-slow", m{"jwks_uri": "https://" + localhost(t, silent(t)) + "/keys"}, nil, nil, "jwks_unusable", "keyset", "cannot be had"},
		{"cached-too-long", nil, nil, nil, "jwks_cache_unsuitable", "keyset", "max_cache"},
	}
	var config strings.Builder
	fmt.Fprintf(&config, "[defaults]\nevery = \"1m\"\ntimeout = \"5s\"\n")
	for _, k := range cases {
		doc := any(m{"issuer": issuer(k.name), "jwks_uri": issuer(k.name) + "/keys", "token_endpoint": issuer(k.name) + "/token", "authorization_endpoint": issuer(k.name) + "/authorize"})
		switch change := k.metadata.(type) {
		case string:
			doc = change
		case m:
			maps.Copy(doc.(m), change)
			maps.DeleteFunc(doc.(m), func(_ string, v any) bool { return v == nil })
		}
		put(k.name+"/.well-known/openid-configuration", doc)
		if k.keys == nil {
			k.keys = m{"keys": []any{jwk(nil)}}
		}
		put(k.name+"/keys", k.keys)
		fmt.Fprintf(&config, "[probe.%s]\nkind = \"issuer\"\nissuer = %q\nca_file = %q\n", k.name, issuer(k.name), c.file)
		if k.claims != nil {
			claims, header := m{"iss": issuer(k.name), "aud": "urn:things", "iat": time.Now().Add(-time.Minute).Unix(), "exp": time.Now().Add(time.Hour).Unix()}, m{"alg": "ES256", "kid": "one", "typ": "at+jwt"}
			for name, value := range k.claims {
				if name, ok := strings.CutSuffix(name, " of header"); ok {
					header[name] = value
				} else {
					claims[name] = value
				}
			}
			write(t, filepath.Join(dir, k.name+".token"), signed(t, key, header, claims))
			fmt.Fprintf(&config, "identity = %q\naudience = \"urn:things\"\ntoken_type = \"at+jwt\"\n[identity.%s]\nkind = \"bearer\"\ntoken = \"file:%s/%s.token\"\n", k.name, k.name, dir, k.name)
		}
	}
	// Resources that name this issuer, another one, and nobody (RFC 9728).
	for name, servers := range map[string][]string{"ours": {issuer("healthy")}, "theirs": {"https://other.test"}} {
		put(".well-known/oauth-protected-resource/"+name, m{"resource": base + "/" + name, "authorization_servers": servers})
	}
	for _, name := range []string{"ours", "theirs", "mute"} {
		fmt.Fprintf(&config, "[probe.resource-%s]\nkind = \"issuer\"\nissuer = %q\nca_file = %q\nresource = \"%s/%s\"\n", name, issuer("healthy"), c.file, base, name)
	}
	put(".well-known/oauth-authorization-server/by-8414", m{"issuer": issuer("by-8414"), "jwks_uri": issuer("healthy") + "/keys", "token_endpoint": base + "/token"})
	fmt.Fprintf(&config, "[probe.by-8414]\nkind = \"issuer\"\nissuer = %q\nca_file = %q\n", issuer("by-8414"), c.file)
	server := func(n int, name string) string {
		return fmt.Sprintf("server { listen 127.0.0.1:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; root %s; default_type application/json; location /cached-too-long/keys { add_header Cache-Control 'public, max-age=604800'; } }\n", n, name, name, site)
	}
	serveNginx(t, dir, server(good, "good")+server(bad, "expired"))
	reachable(t, good)
	records := once(t, config.String())
	if r := records["by-8414"]; !r.OK || len(r.Findings) > 0 {
		t.Errorf("metadata by the rule of RFC 8414: %s", r.raw)
	}
	for name, word := range map[string]string{"ours": "", "theirs": "other.test", "mute": "404"} {
		r := records["resource-"+name]
		if word == "" && (!r.OK || len(r.Findings) > 0) || word != "" && (len(r.Findings) == 0 || r.Findings[0].Cause != "issuer_drift" || !strings.Contains(r.raw, word)) {
			t.Errorf("resource %s: %s", name, r.raw)
		}
	}
	for _, k := range cases {
		r := records[k.name]
		culprit := k.culprit
		if culprit == "issuer" || culprit == "keyset" {
			culprit += ":" + issuer(k.name)
		}
		switch {
		case k.cause == "":
			if !r.OK || len(r.Findings) > 0 {
				t.Errorf("%s: %s", k.name, r.raw)
			}
		case len(r.Findings) == 0 || r.Findings[0].Cause != k.cause || r.Findings[0].Culprit != culprit || !strings.Contains(strings.Join(r.Findings[0].Because, "\n"), k.word):
			t.Errorf("%s: want %s %s with %q, got %s", k.name, k.cause, culprit, k.word, r.raw)
		}
	}
}

func jwkOf(t *testing.T, key *ecdsa.PrivateKey) map[string]any {
	t.Helper()
	b, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"x": base64.RawURLEncoding.EncodeToString(b[1:33]), "y": base64.RawURLEncoding.EncodeToString(b[33:])}
}

// signed makes a JWT (ES256).
func signed(t *testing.T, key *ecdsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}
