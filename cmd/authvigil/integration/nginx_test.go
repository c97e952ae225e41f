//go:build integration

package integration

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nginx is a real resource server with a port for each state of TLS, and paths for each way of asking for a credential.
type nginx struct {
	port map[string]int // by name of the certificate; plain for http
	*process
}

func startNginx(t *testing.T, c *ca) *nginx {
	t.Helper()
	now, day := time.Now(), 24*time.Hour
	c.leaf(t, "expired", "localhost", now.Add(-30*day), now.Add(-day), true)
	c.leaf(t, "notyet", "localhost", now.Add(day), now.Add(30*day), true)
	c.leaf(t, "otherhost", "other.test", now.Add(-day), now.Add(60*day), true)
	c.leaf(t, "selfsigned", "localhost", now.Add(-day), now.Add(60*day), false)
	c.leaf(t, "incomplete", "localhost", now.Add(-day), now.Add(60*day), false)
	c.leaf(t, "ending", "localhost", now.Add(-88*day), now.Add(2*day), true)
	n := &nginx{port: map[string]int{}}
	var servers strings.Builder
	for _, name := range []string{"good", "expired", "notyet", "otherhost", "selfsigned", "incomplete", "ending"} {
		n.port[name] = port(t)
		fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate %s.crt; ssl_certificate_key %s.key; include paths.conf; }\n", n.port[name], name, name)
	}
	n.port["mutual"] = port(t)
	fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d ssl; ssl_certificate good.crt; ssl_certificate_key good.key; ssl_client_certificate root.pem; ssl_verify_client on; location / { return 200 hello; } }\n", n.port["mutual"])
	n.port["plain"] = port(t)
	fmt.Fprintf(&servers, "server { listen 127.0.0.1:%d; include paths.conf; }\n", n.port["plain"])
	out, err := exec.Command(need(t, "openssl"), "passwd", "-apr1", "right-password").Output()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.dir, "users"), "monitor:"+string(out))
	write(t, filepath.Join(c.dir, "paths.conf"), paths)
	n.process = serveNginx(t, c.dir, fmt.Sprintf(`
  limit_req_zone $server_port zone=few:1m rate=1r/m; limit_req_status 429;
  map $http_authorization $token { default 0; "Bearer good-token-of-the-test" 1; "~^Bearer ey" 1; }
  map $http_x_api_key $key { default 0; "good-key-of-the-test" 1; }
%s`, servers.String()))
	reachable(t, n.port["plain"])
	return n
}

// serveNginx starts nginx in a directory with what stands in its block http.
func serveNginx(t testing.TB, dir, http string) *process {
	t.Helper()
	path := filepath.Join(dir, "nginx.conf")
	write(t, path, fmt.Sprintf("daemon off; master_process off; pid %s/nginx.pid; events {}\nhttp { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;\n%s}", dir, http))
	return start(t, "", nil, dir, need(t, "nginx"), "-p", dir, "-c", path, "-e", "stderr")
}

const paths = `
location = /open { default_type text/plain; return 200 "open"; }
location = /things { default_type application/json; if ($token = 0) { rewrite ^ /refuse last; } return 200 '{"things":[]}'; }
location = /refuse { internal; default_type application/json; add_header WWW-Authenticate 'Bearer realm="things", error="invalid_token", error_description="The access token expired"' always; return 401 '{"error":"invalid_token"}'; }
location = /keyed { default_type application/json; if ($key = 0) { return 401 '{"message":"Invalid API key"}'; } return 200 '{}'; }
location = /basic { auth_basic "things"; auth_basic_user_file users; try_files /nothing @ok; }
location @ok { return 200 "ok"; }
location = /scope { default_type application/json; add_header WWW-Authenticate 'Bearer realm="things", error="insufficient_scope", scope="things:write"' always; return 403 '{"error":"insufficient_scope"}'; }
location = /audience { default_type application/json; add_header WWW-Authenticate 'Bearer error="invalid_token", error_description="audience is not accepted"' always; return 401 '{}'; }
location = /signature { default_type application/json; add_header WWW-Authenticate 'Bearer error="invalid_token", error_description="signature verification failed"' always; return 401 '{}'; }
location = /issuer { default_type application/json; add_header WWW-Authenticate 'Bearer error="invalid_token", error_description="unexpected issuer"' always; return 401 '{}'; }
location = /locked { default_type application/json; return 403 '{"error":"account locked after too many failed attempts"}'; }
location = /waf { default_type text/html; return 403 '<html><title>Access denied</title><body>Request blocked by the web application firewall. Incident ID: 7</body></html>'; }
location = /few { limit_req zone=few; default_type text/plain; try_files /nothing @ok; }
location = /login { default_type text/html; return 200 '<html><title>Sign in</title><form><input name=u><input type="password" name=p></form></html>'; }
location = /moved { return 302 /login; }
location = /broken { return 500; }
location = /away { return 404; }
location = /proxy { return 407; }
location = /admin { return 200 "admin"; }
`
