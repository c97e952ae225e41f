//go:build integration && peers

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestPeers asks the servers of TestCertificates with authvigil and with other programs, and prints what each says: the raw
// material of docs/comparison.md. It asserts nothing; AUTHVIGIL_PEERS names the program that packaging/peers.sh builds.
func TestPeers(t *testing.T) {
	p := &pki{t: t, dir: t.TempDir()}
	all, config := p.serveFaults(t)
	root := filepath.Join(p.dir, "root.pem")
	n := port(t)
	write(t, filepath.Join(p.dir, "blackbox.yml"), fmt.Sprintf("modules:\n  tls:\n    prober: tcp\n    timeout: 8s\n    tcp:\n      tls: true\n      tls_config:\n        ca_file: %s\n        server_name: localhost\n", root))
	start(t, "", nil, p.dir, need(t, "prometheus-blackbox-exporter"), "--config.file", "blackbox.yml", "--web.listen-address", fmt.Sprintf("127.0.0.1:%d", n))
	reachable(t, n)
	records := once(t, config)
	var addresses []string
	name := map[string]string{}
	for _, c := range all {
		if c.address != "" {
			addresses = append(addresses, c.address)
			name[c.address] = c.name
		}
	}
	say := func(peer, address, what string) {
		fmt.Printf("%s\t%s\t%s\n", name[address], peer, strings.Join(strings.Fields(what), " "))
	}
	for _, at := range addresses {
		r := records[named(name[at])]
		cause := "OK"
		if len(r.Findings) > 0 {
			cause = r.Findings[0].Cause + " " + strings.Join(r.Findings[0].Because, "; ")
		}
		say("authvigil", at, cause)
		_, body := get(t, fmt.Sprintf("http://127.0.0.1:%d/probe?module=tls&debug=true&target=%s", n, at))
		var kept []string
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "probe_success") || strings.HasPrefix(line, "probe_ssl_earliest") || strings.Contains(line, "err=") {
				kept = append(kept, line)
			}
		}
		say("blackbox_exporter", at, strings.Join(kept, " "))
		host, port, _ := strings.Cut(at, ":")
		out, _ := exec.Command("/usr/lib/nagios/plugins/check_http", "-H", host, "-p", port, "--sni", "-C", "20,10").CombinedOutput()
		text, _, _ := strings.Cut(string(out), "|")
		say("check_http", at, text)
	}
	cmd := exec.Command(os.Getenv("AUTHVIGIL_PEERS"), append([]string{root}, addresses...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.SplitN(strings.TrimSpace(line), "\t", 3); len(f) == 3 {
			say(f[0], f[1], f[2])
		}
	}
}
