//go:build integration

package integration

import (
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSTARTTLS asks for TLS in each dialect at the servers that people run: Exim, Dovecot, vsftpd, OpenLDAP, PostgreSQL,
// MariaDB and Prosody. Those that are set up without TLS say so, each in its way.
func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "starttls") // the servers give up root, and must read it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &pki{t: t, dir: dir}
	root := p.issue("CA Root", nil, nil)
	mid := p.issueFor(mustRSA(t), "CA Intermediate", root, nil)
	write(t, filepath.Join(dir, "root.pem"), root.pem())
	p.save("good", p.issueFor(mustRSA(t), "localhost", mid, nil), mid) // RSA: GnuTLS and vsftpd take anything, but not from everybody
	p.save("expired", p.issueFor(mustRSA(t), "localhost", mid, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), mid)
	s := &dialectServers{pki: p}
	s.exim("smtp", true)
	s.exim("smtp-plain", false)
	s.dovecot("imap", "pop3")
	s.vsftpd("ftp")
	s.slapd("ldap", true)
	s.slapd("ldap-plain", false)
	s.postgres("postgres")
	s.mariadb("mysql")
	s.prosody("xmpp")
	for _, n := range s.ports {
		reachable(t, n)
	}
	binary(t) // built, so that the time below is that of asking
	began := time.Now()
	records := once(t, s.config.String())
	for name, want := range map[string]struct{ cause, word string }{
		"smtp": {"", ""}, "imap": {"", ""}, "ftp": {"", ""}, "ldap": {"", ""}, "postgres": {"", ""}, "mysql": {"", ""}, "xmpp": {"", ""},
		"pop3":       {"tls_cert_expired", "ended"},
		"smtp-plain": {"tls_starttls_unavailable", "starttls_not_offered"},
		"ldap-plain": {"tls_starttls_unavailable", "starttls_refused"},
	} {
		r := records[name]
		switch {
		case want.cause == "" && (!r.OK || len(r.Findings) > 0 || !strings.Contains(r.raw, "certificate_not_after_timestamp_seconds")):
			t.Errorf("%s: %s", name, brief(r.raw))
		case want.cause != "" && (len(r.Findings) == 0 || r.Findings[0].Cause != want.cause || !strings.Contains(r.raw, want.word)):
			t.Errorf("%s: want %s, got %s", name, want.cause, brief(r.raw))
		}
	}
	t.Logf("%d servers: asked and judged in %s", len(records), time.Since(began).Round(time.Millisecond))
}

// dialectServers starts real servers in the directory of a pki, and writes a probe for each.
type dialectServers struct {
	*pki
	ports  []int
	config strings.Builder
}

// probe gives the port at which a probe of a name asks; what stands before a hyphen in it is the dialect.
func (s *dialectServers) probe(name string) int {
	n := port(s.t)
	dialect, _, _ := strings.Cut(name, "-")
	fmt.Fprintf(&s.config, "[probe.%s]\nkind = \"certificate\"\naddress = \"localhost:%d\"\nstarttls = %q\nca_file = \"%s/root.pem\"\n", name, n, dialect, s.dir)
	s.ports = append(s.ports, n)
	return n
}

// file writes a configuration in which DIR stands for the directory, and gives its path.
func (s *dialectServers) file(name, text string, args ...any) string {
	path := filepath.Join(s.dir, name)
	write(s.t, path, strings.ReplaceAll(fmt.Sprintf(text, args...), "DIR", s.dir))
	return path
}

// folder makes a directory that every server may write to.
func (s *dialectServers) folder(name string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // Mkdir obeys the umask
		s.t.Fatal(err)
	}
	return path
}

func (s *dialectServers) exim(name string, secure bool) {
	tls := "tls_advertise_hosts =\n"
	if secure {
		tls = "tls_advertise_hosts = *\ntls_certificate = DIR/good.crt\ntls_privatekey = DIR/good.key\n"
	}
	s.folder(name)
	config := s.file(name+".conf", "primary_hostname = localhost\nspool_directory = DIR/%s\nlog_file_path = DIR/%s/%%slog\nlocal_interfaces = 127.0.0.1\ndaemon_smtp_ports = %d\nkeep_environment =\n%s", name, name, s.probe(name), tls)
	start(s.t, "", nil, s.dir, need(s.t, "exim4"), "-C", config, "-bdf")
}

func (s *dialectServers) dovecot(imap, pop3 string) {
	config := s.file("dovecot.conf", `base_dir = DIR/dovecot
state_dir = DIR/dovecot
log_path = /dev/stderr
listen = 127.0.0.1
protocols = imap pop3
ssl_cert = <DIR/good.crt
ssl_key = <DIR/good.key
protocol pop3 {
  ssl_cert = <DIR/expired.crt
  ssl_key = <DIR/expired.key
}
service imap-login {
  inet_listener imap {
    port = %d
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = %d
  }
  inet_listener pop3s {
    port = 0
  }
}
passdb {
  driver = static
  args = password=x
}
`, s.probe(imap), s.probe(pop3))
	start(s.t, "", nil, s.dir, need(s.t, "dovecot"), "-F", "-c", config)
}

func (s *dialectServers) vsftpd(name string) {
	if err := os.Mkdir(filepath.Join(s.dir, "empty"), 0o755); err != nil { // it wants one that nobody can write to
		s.t.Fatal(err)
	}
	config := s.file("vsftpd.conf", "listen=YES\nlisten_address=127.0.0.1\nlisten_port=%d\nbackground=NO\nsecure_chroot_dir=DIR/empty\nssl_enable=YES\nallow_anon_ssl=YES\nrsa_cert_file=DIR/good.crt\nrsa_private_key_file=DIR/good.key\n", s.probe(name))
	start(s.t, "", nil, s.dir, need(s.t, "vsftpd"), config)
}

func (s *dialectServers) slapd(name string, secure bool) {
	tls := ""
	if secure {
		tls = "TLSCertificateFile DIR/good.crt\nTLSCertificateKeyFile DIR/good.key\n"
	}
	config := s.file(name+".conf", "include /etc/ldap/schema/core.schema\npidfile DIR/%s.pid\n%s", name, tls)
	start(s.t, "", nil, s.dir, need(s.t, "slapd"), "-d", "0", "-f", config, "-h", fmt.Sprintf("ldap://127.0.0.1:%d", s.probe(name)))
}

func (s *dialectServers) postgres(name string) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		s.t.Fatal("PostgreSQL is not installed; make integration installs it")
	}
	bin, data := filepath.Dir(found[0]), filepath.Join(s.folder("postgres"), "data")
	s.run("runuser", "-u", "postgres", "--", bin+"/initdb", "-D", data, "--no-sync", "-A", "reject", "--locale", "C")
	s.run("install", "-o", "postgres", "-m", "600", "good.key", "postgres/good.key")
	start(s.t, "ready to accept connections", nil, s.dir, "runuser", "-u", "postgres", "--", bin+"/postgres", "-D", data, "-p", fmt.Sprint(s.probe(name)), "-c", "fsync=off",
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "ssl=on", "-c", "ssl_cert_file="+s.dir+"/good.crt", "-c", "ssl_key_file="+s.dir+"/postgres/good.key")
}

func (s *dialectServers) mariadb(name string) {
	data := s.folder("mariadb")
	start(s.t, "", nil, s.dir, need(s.t, "mariadbd"), "--no-defaults", "--user=root", "--datadir="+data, "--socket="+data+"/socket", "--pid-file="+data+"/pid", "--skip-grant-tables", "--skip-log-bin",
		"--innodb-log-file-size=4M", "--bind-address=127.0.0.1", fmt.Sprintf("--port=%d", s.probe(name)), "--ssl-cert="+s.dir+"/good.crt", "--ssl-key="+s.dir+"/good.key")
}

func (s *dialectServers) prosody(name string) {
	s.folder("prosody")
	config := s.file("prosody.cfg.lua", `run_as_root = true
pidfile = "DIR/prosody/pid"
data_path = "DIR/prosody"
log = { info = "*stdout" }
modules_enabled = { "tls", "saslauth" }
modules_disabled = { "s2s" }
c2s_interfaces = { "127.0.0.1" }
c2s_ports = { %d }
c2s_direct_tls_ports = { }
VirtualHost "localhost"
  ssl = { certificate = "DIR/good.crt", key = "DIR/good.key" }
`, s.probe(name))
	start(s.t, "", nil, s.dir, need(s.t, "prosody"), "-F", "--config", config)
}
