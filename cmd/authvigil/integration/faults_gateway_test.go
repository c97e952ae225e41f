//go:build integration

package integration

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestFaults_gateways injects faults into what verifies real tokens of a real issuer: haproxy and Apache's mod_auth_openidc; into the
// way between, and into clocks. It prints the matrix.
func TestFaults_gateways(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	provider := startIDP(t, c)
	late := startLateIDP(t, c)
	keys(t, provider, filepath.Join(dir, "issuer.pem"))
	keys(t, late, filepath.Join(dir, "late.pem"))
	strange := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(&strange.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "old.pem"), block("PUBLIC KEY", der))
	h := startHAProxy(t, dir, provider.issuer)
	a := startApache(t, dir, c, provider.issuer)
	backend := fmt.Sprintf("127.0.0.1:%d", h["good"])
	forged := forge(t, strange, provider.issuer)

	at := func(gate, who, more string) string {
		return fmt.Sprintf("kind = \"http\"\nurl = \"http://localhost:%d/\"\nidentity = %q\nca_file = %q\n%s", h[gate], who, c.file, more)
	}
	apache := func(path, who string) string {
		return fmt.Sprintf("kind = \"http\"\nurl = \"http://localhost:%d%s\"\nidentity = %q\nca_file = %q", a, path, who, c.file)
	}
	line := func(address, more string) string {
		return fmt.Sprintf("kind = \"http\"\nurl = \"http://%s/\"\nidentity = \"good\"\nca_file = %q\n%s", address, c.file, more)
	}
	faults := []fault{
		{"haproxy verifies with an old key", at("old", "good", ""), "stale_jwks_at_api", "endpoint:", nil},
		{"token signed with a key that is not published", at("good", "forged", ""), "jwks_key_missing", "keyset:", nil},
		{"haproxy expects another issuer", at("issuer", "good", ""), "token_issuer_mismatch", "identity:good", nil},
		{"haproxy accepts another algorithm only", at("algorithm", "good", ""), "token_algorithm_unsupported", "", nil},
		{"haproxy's clock is an hour ahead", fmt.Sprintf("kind = \"http\"\nurl = \"http://localhost:%d/\"\nidentity = \"good\"\nca_file = %q", h["ahead"], c.file), "clock_skew", "endpoint:", nil},
		{"haproxy drops the header", at("strips", "good", ""), "header_stripped", "gateway:", nil},
		{"haproxy limits", at("limits", "good", ""), "rate_limited", "", nil},
		{"haproxy has no server behind it", at("empty", "good", ""), "server_error", "endpoint:", nil},
		{"haproxy's server does not answer", at("waits", "good", ""), "server_error", "endpoint:", []string{"timeout"}},
		{"haproxy refuses all of a path", at("denies", "good", ""), "blocked_by_gateway", "gateway:", []string{"permission_denied"}},
		{"API checks no signature", at("blind", "good", "check_signature = true"), "authorization_too_open", "endpoint:", nil},
		{"opaque token where a JWT is wanted", apache("/jwt", "opaque"), "unknown_unauthorized", "", []string{"token_malformed", "token_signature_invalid"}},
		{"Apache wants another audience", apache("/jwt-other", "good") + "\naudience = \"https://other.test\"", "token_audience_mismatch", "", []string{"insufficient_scope", "permission_denied"}},
		{"token that introspection does not know", apache("/intro", "opaque"), "unknown_unauthorized", "", []string{"token_revoked", "token_expired", "token_malformed", "api_key_invalid"}},
		{"Apache wants digest, basic is sent", apache("/digest", "user"), "wrong_auth_scheme", "identity:user", nil},
		{"Apache: wrong password", apache("/basic", "user"), "basic_credentials_invalid", "identity:user", nil},
		{"Apache: nothing is sent", strings.Replace(apache("/basic", "x"), "identity = \"x\"\n", "", 1), "missing_credentials", "endpoint:", nil},
		{"Apache: closed to everybody", apache("/closed", "good"), "blocked_by_gateway", "", []string{"permission_denied"}},
		{"Apache: no such page", apache("/nowhere", "good"), "endpoint_not_found", "endpoint:", nil},
		{"answers come too late", line(between(t, backend, func(c net.Conn) { time.Sleep(9 * time.Second) }, 0), "timeout = \"4s\""), "timeout", "endpoint:", nil},
		{"answers are cut", line(between(t, backend, nil, 40), ""), "network_unreachable", "endpoint:", []string{"server_error", "unexpected_answer"}},
		{"connections are reset", line(between(t, backend, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() }, 0), ""), "network_unreachable", "endpoint:", nil},
		{"issuer hands out tokens that are past their end", "kind = \"token\"\nidentity = \"late\"", "clock_skew", "issuer:", nil},
	}
	config := "[defaults]\ntimeout = \"5s\"\n"
	oauth := func(name string, from *idp, more string) {
		config += fmt.Sprintf("[identity.%s]\nkind = \"oauth2\"\nissuer = %q\nclient_id = \"in-header\"\nclient_secret = \"plain:header-secret-1\"\nca_file = %q\n%s\n", name, from.issuer, c.file, more)
	}
	const resource = "resource = [\"https://things.test\"]\nscopes = [\"things:read\"]"
	oauth("late", late, resource)
	for i, f := range faults {
		for _, who := range []string{"good", "opaque", "user", "forged"} { // each fault has an identity of its own: refusals close its gate
			name := fmt.Sprintf("identity = %q", who)
			if !strings.Contains(f.probe, name) {
				continue
			}
			own := fmt.Sprintf("%s-%02d", who, i)
			switch who {
			case "good":
				oauth(own, provider, resource)
			case "opaque":
				oauth(own, provider, "")
			case "user":
				config += fmt.Sprintf("[identity.%s]\nkind = \"basic\"\nusername = \"monitor\"\npassword = \"plain:wrong-password\"\n", own)
			case "forged":
				config += fmt.Sprintf("[identity.%s]\nkind = \"bearer\"\ntoken = \"plain:%s\"\n", own, forged)
			}
			f.probe = strings.ReplaceAll(f.probe, name, fmt.Sprintf("identity = %q", own))
		}
		config += fmt.Sprintf("[probe.f%02d]\n%s\n", i, f.probe)
	}
	oauth("control", provider, resource)
	config += fmt.Sprintf("[probe.control]\n%s\n[probe.control-apache]\n%s\n", at("good", "control", "check_signature = true"), apache("/jwt", "control"))
	got := once(t, config)
	for _, name := range []string{"control", "control-apache"} {
		if !got[name].OK {
			t.Errorf("without a fault: %s", got[name].raw)
		}
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 4, 2, ' ', 0)
	wrong, lies := 0, 0
	for i, f := range faults {
		r := got[fmt.Sprintf("f%02d", i)]
		if len(r.Findings) == 0 {
			wrong++
			t.Errorf("%s: no finding: %s", f.name, r.raw)
			continue
		}
		first := r.Findings[0]
		mark := "right"
		if (first.Cause != f.cause && !slices.Contains(f.accept, first.Cause)) || !strings.HasPrefix(first.Culprit, f.culprit) {
			mark, wrong = "WRONG", wrong+1
			t.Errorf("%s: want %s of %s…, got %s of %s: %q", f.name, f.cause, f.culprit, first.Cause, first.Culprit, first.Because)
			if first.Sure == "certain" {
				lies++
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.name, f.cause, first.Cause, first.Sure, first.Culprit, mark)
	}
	w.Flush()
	t.Logf("%d faults, %d wrong, %d of them certain\n%s", len(faults), wrong, lies, table.String())
	for _, r := range got {
		for _, secret := range []string{"header-secret-1", "wrong-password", forged[len(forged)-40:]} {
			if strings.Contains(r.raw, secret) {
				t.Errorf("the record of %s shows a secret", r.Probe)
			}
		}
	}
}

// startLateIDP starts a provider whose clock is an hour slow.
func startLateIDP(t *testing.T, c *ca) *idp {
	t.Helper()
	c.leaf(t, "good", "localhost", time.Now().Add(-3*time.Hour), time.Now().Add(60*24*time.Hour), true)
	t.Setenv("FAKETIME", "-3600s")
	t.Setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
	t.Setenv("LD_PRELOAD", faketime(t))
	p := startIDP(t, c)
	for _, name := range []string{"FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC", "LD_PRELOAD"} {
		t.Setenv(name, "")
	}
	return p
}

// keys writes the issuer's key as PEM.
func keys(t *testing.T, p *idp, path string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.cert)
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Time: func() time.Time { return time.Now() }}}}
	defer client.CloseIdleConnections()
	r, err := client.Get(p.issuer + "/jwks")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("%v in %s", err, body)
	}
	der, err := x509.MarshalPKIXPublicKey(set.Keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, block("PUBLIC KEY", der))
}

// forge signs a token that looks like one of the issuer's, with a key of our own.
func forge(t *testing.T, key *ecdsa.PrivateKey, issuer string) string {
	t.Helper()
	e := base64.RawURLEncoding
	now := time.Now().Unix()
	text := e.EncodeToString([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"retired"}`)) + "." + e.EncodeToString(fmt.Appendf(nil, `{"iss":%q,"aud":"https://things.test","sub":"x","iat":%d,"exp":%d}`, issuer, now, now+600))
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + e.EncodeToString(signature)
}

// startHAProxy starts a gateway that verifies ES256 tokens, with a port for each fault.
func startHAProxy(t *testing.T, dir, issuer string) map[string]int {
	t.Helper()
	type gate struct{ key, issuer, alg, before, after, backend string }
	good := gate{key: "issuer.pem", issuer: issuer, alg: "ES256"}
	gates := map[string]gate{"good": good, "ahead": good}
	for name, change := range map[string]func(g *gate){
		"old":       func(g *gate) { g.key = "old.pem" },
		"issuer":    func(g *gate) { g.issuer = "https://somebody-else.test" },
		"algorithm": func(g *gate) { g.alg = "RS256" },
		"strips":    func(g *gate) { g.before = "http-request del-header Authorization" },
		"limits":    func(g *gate) { g.after = "http-request return status 429 hdr Retry-After 30" },
		"denies":    func(g *gate) { g.before = "http-request deny" },
		"empty":     func(g *gate) { g.backend = "empty" },
		"waits":     func(g *gate) { g.backend = "waits" },
		"blind":     func(g *gate) { g.key = "" },
	} {
		g := good
		change(&g)
		gates[name] = g
	}
	ports := map[string]int{}
	front := func(name string, g gate) string {
		ports[name] = port(t)
		s := fmt.Sprintf("frontend %s\n  bind 127.0.0.1:%d\n", name, ports[name])
		add := func(format string, args ...any) { s += "  " + fmt.Sprintf(format, args...) + "\n" }
		if g.before != "" {
			add("%s", g.before)
		}
		add("http-request set-var(txn.bearer) http_auth_bearer")
		for name, query := range map[string]string{"alg": "jwt_header_query('$.alg')", "iss": "jwt_payload_query('$.iss')", "exp": "jwt_payload_query('$.exp','int')"} {
			add("http-request set-var(txn.%s) var(txn.bearer),%s", name, query)
		}
		add("http-request set-var(txn.now) date()")
		refuse := func(text string) string {
			return fmt.Sprintf(`http-request return status 401 hdr WWW-Authenticate 'Bearer realm="api", error="invalid_token", error_description="%s"'`, text)
		}
		add(`http-request return status 401 hdr WWW-Authenticate 'Bearer realm="api"' unless { var(txn.bearer) -m found }`)
		add("%s unless { var(txn.alg) -m str %s }", refuse("algorithm not accepted"), g.alg)
		if g.key != "" {
			add("%s unless { var(txn.bearer),jwt_verify(txn.alg,\"%s\") 1 }", refuse("signature does not verify"), filepath.Join(dir, g.key))
		}
		add("%s unless { var(txn.iss) -m str \"%s\" }", refuse("wrong issuer"), g.issuer)
		add("%s if { var(txn.exp),sub(txn.now) -m int lt 0 }", refuse("token is expired"))
		if g.after != "" {
			add("%s", g.after)
		}
		if g.backend != "" {
			add("default_backend %s", g.backend)
		} else {
			add(`http-request return status 200 content-type application/json string '{"ok":true}'`)
		}
		return s
	}
	const head = "global\n  log stdout format raw local0\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 1s\n  log global\n"
	run := func(name, text string, env ...string) {
		config := filepath.Join(dir, name+".cfg")
		write(t, config, text)
		if out, err := exec.Command(need(t, "haproxy"), "-c", "-f", config).CombinedOutput(); err != nil {
			t.Fatalf("haproxy: %v\n%s", err, out)
		}
		start(t, "", env, dir, need(t, "haproxy"), "-db", "-f", config)
	}
	text := head
	for name, g := range gates {
		if name != "ahead" {
			text += front(name, g)
		}
	}
	run("haproxy", text+fmt.Sprintf("backend empty\nbackend waits\n  server s %s\n", silent(t)))
	run("ahead", head+front("ahead", gates["ahead"]), "FAKETIME=+3600s", "LD_PRELOAD="+faketime(t))
	for _, p := range ports {
		reachable(t, p)
	}
	return ports
}

// startApache starts Apache with mod_auth_openidc, and gives its port.
func startApache(t *testing.T, dir string, c *ca, issuer string) int {
	t.Helper()
	n := port(t)
	out, err := exec.Command(need(t, "openssl"), "passwd", "-apr1", "right-password").Output()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write(t, filepath.Join(root, "users"), "monitor:"+string(out))
	write(t, filepath.Join(root, "digest"), "monitor:api:00000000000000000000000000000000\n")
	var modules strings.Builder
	for _, m := range []string{"mpm_event", "authz_core", "authz_user", "authn_core", "authn_file", "auth_basic", "auth_digest", "auth_openidc", "dir", "alias"} {
		fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	for _, path := range []string{"jwt", "jwt-other", "intro", "digest", "basic", "closed"} {
		write(t, filepath.Join(root, path), path)
	}
	config := filepath.Join(root, "httpd.conf")
	write(t, config, fmt.Sprintf(`ServerName localhost
Listen 127.0.0.1:%[1]d
PidFile %[2]s/apache.pid
DefaultRuntimeDir %[2]s
Mutex file:%[2]s default
%[3]sDocumentRoot %[2]s
ErrorLog /dev/stderr
LogLevel warn
OIDCCABundlePath %[4]s
OIDCCryptoPassphrase test-only
OIDCOAuthVerifyJwksUri %[5]s/jwks
<Location /jwt>
  AuthType oauth20
  Require claim iss:%[5]s
</Location>
<Location /jwt-other>
  AuthType oauth20
  Require claim aud:https://other.test
</Location>
<Location /intro>
  AuthType oauth20
  Require valid-user
</Location>
<Location /digest>
  AuthType Digest
  AuthName api
  AuthUserFile %[2]s/digest
  Require valid-user
</Location>
<Location /basic>
  AuthType Basic
  AuthName api
  AuthUserFile %[2]s/users
  Require valid-user
</Location>
<Location /closed>
  Require all denied
</Location>
`, n, root, modules.String(), c.file, issuer))
	start(t, "", nil, root, need(t, "apache2"), "-d", root, "-f", config, "-DFOREGROUND")
	reachable(t, n)
	return n
}

// between listens, and passes on to a server what comes, after what do does to the connection; a limit cuts the answer after so many bytes.
func between(t *testing.T, server string, do func(net.Conn), limit int64) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if do != nil {
					do(conn)
				}
				up, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer up.Close()
				go func() { _, _ = io.Copy(up, conn) }()
				if limit > 0 {
					_, _ = io.CopyN(conn, up, limit)
					return
				}
				_, _ = io.Copy(conn, up)
			}()
		}
	}()
	return l.Addr().String()
}
