//go:build ignore

// Peers asks servers with the checks of three other programs, as libraries: Telegraf's x509_cert, Tailscale's prober and
// Boulder's observer. `peers ROOT.pem HOST:PORT…` prints one line for each check and server: name, address, what was said.
// peers.sh builds it.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"time"

	boulder "github.com/letsencrypt/boulder/observer/probers/tls"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/plugins/inputs/x509_cert"
	"github.com/prometheus/client_golang/prometheus"
	"tailscale.com/prober"
)

func main() {
	root := os.Args[1]
	os.Setenv("SSL_CERT_FILE", root) // the system's authorities, for those that know no others
	for _, address := range os.Args[2:] {
		say("telegraf x509_cert", address, askTelegraf(root, address))
		say("tailscale prober", address, askTailscale(address))
		say("boulder observer", address, askBoulder(address))
	}
}

func say(peer, address, what string) {
	fmt.Printf("%s\t%s\t%s\n", peer, address, strings.ReplaceAll(what, "\n", " "))
}

func askTailscale(address string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := prober.TLS(address, &tls.Config{ServerName: "localhost"}).Probe(ctx); err != nil {
		return "FAIL " + err.Error()
	}
	return "OK"
}

func askBoulder(address string) string {
	collectors := boulder.TLSConf{}.Instrument()
	p, err := boulder.TLSConf{Hostname: address, RootCN: "CA Root", RootOrg: "Tests", Response: "valid"}.MakeProber(collectors)
	if err != nil {
		return "FAIL " + err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ok := p.Probe(ctx)
	said := []string{"OK"}
	if ok != nil {
		said[0] = fmt.Sprint("FAIL ", ok)
	}
	registry := prometheus.NewRegistry()
	for _, c := range collectors {
		registry.MustRegister(c)
	}
	families, _ := registry.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				if l.GetName() != "hostname" {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			said = append(said, f.GetName()+"{"+strings.Join(labels, ",")+"}")
		}
	}
	return strings.Join(said, " ")
}

func askTelegraf(root, address string) string {
	c := &x509_cert.X509Cert{Sources: []string{"tcp://" + address}, Timeout: config.Duration(10 * time.Second), Log: quiet{}}
	c.TLSCA = root
	if err := c.Init(); err != nil {
		return "FAIL " + err.Error()
	}
	var a collected
	if err := c.Gather(&a); err != nil {
		return "FAIL " + err.Error()
	}
	return strings.Join(a.said, " ")
}

// collected is an accumulator of Telegraf.
type collected struct {
	telegraf.Accumulator
	said []string
}

func (c *collected) AddFields(_ string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	c.said = append(c.said, fmt.Sprintf("%s verification=%s error=%v expiry=%v", tags["common_name"], tags["verification"], fields["verification_error"], fields["expiry"]))
}

func (c *collected) AddError(err error) {
	if err != nil {
		c.said = append(c.said, "ERROR "+err.Error())
	}
}

type quiet struct{ telegraf.Logger }

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Error(...any)          {}
func (quiet) Warn(...any)           {}
