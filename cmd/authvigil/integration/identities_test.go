//go:build integration

package integration

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// startApacheAlone is a server that verifies digests, passwords in UTF-8, and a form login with a session.
func startApacheAlone(t *testing.T, c *ca) (int, *process) {
	t.Helper()
	dir, n := t.TempDir(), port(t)
	modules, err := filepath.Glob("/usr/lib/apache2/modules/mod_auth_digest.so")
	if err != nil || len(modules) == 0 {
		t.Fatal("apache2 is not installed; make integration installs it")
	}
	const realm = "integration"
	for file, args := range map[string][]string{"users": {"-cbB", filepath.Join(dir, "users"), "mönitor", "pässword: 1&2"}} {
		if out, err := exec.Command(need(t, "htpasswd"), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", file, err, out)
		}
	}
	sum, err := exec.Command("/bin/sh", "-c", `printf '%s' 'monitor:`+realm+`:digest-password' | md5sum | cut -d' ' -f1`).Output()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "digests"), "monitor:"+realm+":"+string(sum))
	write(t, filepath.Join(dir, "login.html"), `<!DOCTYPE html><html><body><form method="post" action="/dologin">
<input type="hidden" name="httpd_location" value="/session/"><input type="text" name="httpd_username"><input type="password" name="httpd_password"><input type="submit"></form></body></html>`)
	for _, folder := range []string{"digest", "basic", "session"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, folder, "index.html"), "let in\n")
	}
	var load strings.Builder
	for _, m := range strings.Fields("mpm_event authn_core authz_core authz_user authn_file auth_basic auth_digest auth_form session session_cookie request dir ssl socache_shmcb mime") {
		fmt.Fprintf(&load, "LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", m, m)
	}
	config := filepath.Join(dir, "apache.conf")
	write(t, config, load.String()+fmt.Sprintf(`
ServerName localhost
Listen 127.0.0.1:%d
PidFile %[2]s/pid
DefaultRuntimeDir %[2]s
Mutex sem
ErrorLog /dev/stderr
DocumentRoot %[2]s
TypesConfig /dev/null
AddType text/html .html
DirectoryIndex index.html
SSLEngine on
SSLCertificateFile %[3]s/good.crt
SSLCertificateKeyFile %[3]s/good.key
<Location /digest/>
  AuthType Digest
  AuthName %[4]s
  AuthDigestProvider file
  AuthUserFile %[2]s/digests
  AuthDigestNonceLifetime 1
  Require valid-user
</Location>
<Location /basic/>
  AuthType Basic
  AuthName %[4]s
  AuthUserFile %[2]s/users
  Require valid-user
</Location>
<Location /session/>
  AuthType Form
  AuthName %[4]s
  AuthFormProvider file
  AuthUserFile %[2]s/users
  AuthFormLoginRequiredLocation "https://localhost:%[1]d/login.html"
  Session On
  SessionCookieName session path=/;httponly;secure
  SessionMaxAge 2
  Require valid-user
</Location>
<Location /dologin>
  SetHandler form-login-handler
  AuthType Form
  AuthName %[4]s
  AuthFormProvider file
  AuthUserFile %[2]s/users
  AuthFormLoginRequiredLocation "https://localhost:%[1]d/login.html"
  AuthFormLoginSuccessLocation "https://localhost:%[1]d/session/"
  Session On
  SessionCookieName session path=/;httponly;secure
  Require all granted
</Location>
`, n, dir, c.dir, realm))
	p := start(t, "", []string{"APACHE_RUN_DIR=" + dir}, dir, need(t, "apache2"), "-d", dir, "-f", config, "-X")
	reachable(t, n)
	return n, p
}

// startSignatures is an haproxy that verifies an HMAC over method, target and timestamp.
func startSignatures(t *testing.T) int {
	t.Helper()
	dir, n := t.TempDir(), port(t)
	config := filepath.Join(dir, "haproxy.cfg")
	write(t, config, fmt.Sprintf(`
global
  log stdout format raw local0
defaults
  mode http
  timeout connect 5s
  timeout client 5s
  timeout server 5s
frontend signed
  bind 127.0.0.1:%d
  http-request set-var-fmt(txn.text) "%%[method] %%[pathq] %%[req.hdr(X-Timestamp)]"
  http-request set-var(txn.want) "var(txn.text),hmac(sha256,c2VjcmV0LWtleS1vZi10aGUtdGVzdA==),hex,lower"
  http-request set-var-fmt(txn.sent) "%%[req.hdr(X-Signature)]"
  acl signed var(txn.want),strcmp(txn.sent) eq 0
  http-request return status 401 content-type application/json string "{\"error\":\"signature does not match\"}" unless signed
  http-request return status 200 content-type text/plain string "let in"
`, n))
	start(t, "", nil, dir, need(t, "haproxy"), "-f", config)
	reachable(t, n)
	return n
}

// clientCertificate writes NAME.crt and NAME.key of a client.
func (c *ca) clientCertificate(t *testing.T, name, host string) {
	t.Helper()
	c.n++
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(c.n), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	cert := sign(t, template, c.cert, &key.PublicKey, c.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.dir, name+".crt"), block("CERTIFICATE", cert.Raw))
	write(t, filepath.Join(c.dir, name+".key"), block("PRIVATE KEY", der))
}

// TestIdentities lets every kind of identity prove itself to a real server, and then with something wrong.
func TestIdentities(t *testing.T) {
	dir := t.TempDir()
	c := newCA(t, dir)
	c.leaf(t, "good", "localhost", time.Now().Add(-time.Hour), time.Now().Add(60*24*time.Hour), true)
	c.clientCertificate(t, "client", "client.test")
	c.clientCertificate(t, "stranger", "stranger.test")
	c.leaf(t, "other", "localhost", time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true) // its key is nobody's
	provider, signatures := startIDP(t, c), startSignatures(t)
	apache, apacheLog := startApacheAlone(t, c)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the provider says:\n%s\nApache says:\n%s", provider.output(), apacheLog.output())
		}
	})
	web := startNginx(t, c)
	write(t, filepath.Join(dir, "consent"), provider.read(t, "/_consent"))
	subject, err := exec.Command(need(t, "curl"), "-sSf", "--cacert", c.file, "-u", "in-header:header-secret-1", "-d", "grant_type=client_credentials", provider.issuer+"/token").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, token, _ := strings.Cut(string(subject), `"access_token":"`)
	token, _, _ = strings.Cut(token, `"`)
	write(t, filepath.Join(dir, "subject"), token)

	oauth := func(client, more string) string {
		return fmt.Sprintf("kind = \"oauth2\"\nissuer = %q\nclient_id = %q\nca_file = %q\n%s", provider.issuer, client, c.file, more)
	}
	at := func(port int, path string) string {
		return fmt.Sprintf("kind = \"http\"\nurl = \"https://localhost:%d%s\"\nca_file = %q\n", port, path, c.file)
	}
	const seen = "kind = \"token\"\n"
	me := fmt.Sprintf("kind = \"http\"\nurl = \"%s/me\"\nca_file = %q\n", provider.issuer, c.file)
	signed := fmt.Sprintf("kind = \"http\"\nurl = \"http://127.0.0.1:%d/orders?page=2\"\n", signatures)
	session := func(password string) string {
		return fmt.Sprintf("kind = \"session\"\nlogin_url = \"https://localhost:%d/login.html\"\nusername = \"mönitor\"\npassword = %q\ncookie = \"session\"\nca_file = %q\n", apache, "plain:"+password, c.file)
	}
	hmac := func(key string) string {
		return fmt.Sprintf("kind = \"hmac\"\nkey = \"plain:%s\"\nsign = \"{method} {target} {timestamp}\"\nheaders = { X-Timestamp = \"{timestamp}\", X-Signature = \"{signature}\" }\n", key)
	}
	key := func(name string) string { return fmt.Sprintf("private_key = \"file:%s/%s.key\"\n", dir, name) }
	certificate := func(name string) string {
		return fmt.Sprintf("certificate = \"file:%s/%s.crt\"\n", dir, name) + key(name)
	}
	cases := []struct{ name, identity, probe, cause string }{
		{"secret in header", oauth("in-header", `client_secret = "plain:header-secret-1"`), seen, ""},
		{"secret in body", oauth("in-body", "client_auth = \"post\"\nclient_secret = \"plain:body-secret-1\""), seen, ""},
		{"client_secret_jwt", oauth("in-assertion", "client_auth = \"client_secret_jwt\"\nclient_secret = \"plain:assertion-secret-of-32-characters\""), seen, ""},
		{"private_key_jwt", oauth("signer", "client_auth = \"private_key_jwt\"\nkey_id = \"client-key\"\n"+key("signer")), seen, ""},
		{"private_key_jwt, wrong key", oauth("signer", "client_auth = \"private_key_jwt\"\nkey_id = \"client-key\"\n"+key("other")), seen, "client_credentials_invalid"},
		{"tls_client_auth", oauth("by-certificate", "client_auth = \"tls\"\n"+certificate("client")), seen, ""},
		{"tls_client_auth, wrong certificate", oauth("by-certificate", "client_auth = \"tls\"\n"+certificate("stranger")), seen, "client_credentials_invalid"},
		{"jwt_bearer", oauth("exchanger", "grant = \"jwt_bearer\"\nassertion_issuer = \"workload@test\"\nassertion_subject = \"somebody@test\"\nclient_secret = \"plain:exchange-secret-1\"\n"+key("signer")), seen, ""},
		{"jwt_bearer, wrong key", oauth("exchanger", "grant = \"jwt_bearer\"\nassertion_issuer = \"workload@test\"\nassertion_subject = \"somebody@test\"\nclient_secret = \"plain:exchange-secret-1\"\n"+key("other")), seen, "client_credentials_invalid"},
		{"token_exchange", oauth("exchanger", "grant = \"token_exchange\"\nclient_secret = \"plain:exchange-secret-1\"\nsubject_token = \"file:"+dir+"/subject\""), seen, ""},
		{"refresh_token with DPoP, at an API", oauth("robot", "grant = \"refresh_token\"\nexclusive = true\nclient_secret = \"plain:robot-secret-1\"\nrefresh_token = \"file:"+dir+"/consent\"\ndpop = true\ndpop_key = \"file:"+dir+"/signer.key\""), me, ""},
		{"client_credentials with DPoP", oauth("in-header", "client_secret = \"plain:header-secret-1\"\ndpop = true"), seen, ""},
		{"mtls", "kind = \"mtls\"\n" + certificate("client"), at(web.port["mutual"], "/"), ""},
		{"basic in UTF-8", "kind = \"basic\"\nusername = \"mönitor\"\npassword = \"plain:pässword: 1&2\"", at(apache, "/basic/"), ""},
		{"basic, wrong password", "kind = \"basic\"\nusername = \"mönitor\"\npassword = \"plain:password\"", at(apache, "/basic/"), "basic_credentials_invalid"},
		{"digest", "kind = \"digest\"\nusername = \"monitor\"\npassword = \"plain:digest-password\"", at(apache, "/digest/"), ""},
		{"digest, wrong password", "kind = \"digest\"\nusername = \"monitor\"\npassword = \"plain:other-password\"", at(apache, "/digest/"), "basic_credentials_invalid"},
		{"session", session("pässword: 1&2"), at(apache, "/session/"), ""},
		{"session, wrong password", session("password"), at(apache, "/session/"), "basic_credentials_invalid"},
		{"hmac", hmac("secret-key-of-the-test"), signed, ""},
		{"hmac, wrong key", hmac("another-key-of-the-test"), signed, "request_signature_invalid"},
		{"bearer of a program", "kind = \"bearer\"\ncommand = [\"/bin/echo\", \"good-token-of-the-test\"]", at(web.port["good"], "/things"), ""},
		{"bearer of a program that fails", "kind = \"bearer\"\ncommand = [\"/bin/false\"]", at(web.port["good"], "/things"), "secret_unavailable"},
	}
	for _, nonce := range []bool{false, true} {
		config := "[agent]\nstate_directory = \"" + dir + "/state\"\n"
		for i, c := range cases {
			if nonce && c.cause != "" {
				continue // its gate is closed by now
			}
			config += fmt.Sprintf("[identity.i%d]\n%s\n[probe.p%02d]\n%s\nidentity = \"i%d\"\n", i, c.identity, i, c.probe, i)
		}
		if nonce {
			provider.knob(t, "nonce")
		}
		records := once(t, config)
		table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		for i, c := range cases {
			if nonce && c.cause != "" {
				continue
			}
			r := records[fmt.Sprintf("p%02d", i)]
			got := ""
			if len(r.Findings) > 0 {
				got = r.Findings[0].Cause
			}
			if c.cause != got || (got == "") != (r.Outcome == "ok") {
				t.Errorf("%s (nonce %v): %s %q, want %q\n%s", c.name, nonce, r.Outcome, got, c.cause, r.raw)
			}
			fmt.Fprintf(table, "%s\t%s\t%s\n", c.name, r.Outcome, got)
		}
		table.Flush()
	}
}
