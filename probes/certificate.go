package probes

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/starttls"
	"github.com/authvigil/authvigil/probes/wire"
)

// certificateProbe looks at the certificates that a server presents, that files hold, or both. It dials without
// verification, keeps what is shown, and judges it afterwards, facet by facet, so that an expired or untrusted certificate
// keeps its series and its name, and no defect hides another. Nothing is sent over the connection but what STARTTLS needs.
type certificateProbe struct {
	Address     string     `koanf:"address" help:"host:port to look at; this or files is required"`
	ServerName  string     `koanf:"server_name" help:"name to ask for (SNI) and to expect; default: the host of the address"`
	STARTTLS    string     `koanf:"starttls" help:"protocol in which the server is asked to begin TLS: smtp, imap, pop3, ftp, ldap, postgres, mysql or xmpp; default: TLS from the first byte"`
	Addresses   string     `koanf:"addresses" help:"all or first: whether every address of the host is looked at, IPv4 and IPv6, up to 16, or only the first that answers; default all"`
	Proxy       string     `koanf:"proxy" help:"URL of an HTTP proxy to connect through, such as http://proxy.example.com:3128; default: none"`
	ALPN        []string   `koanf:"alpn" help:"application protocols to offer, such as h2; default: none"`
	Files       []string   `koanf:"files" help:"files, directories or patterns such as /etc/ssl/site/*.pem: PEM, DER, PKCS #12, JKS or kubeconfig; with an address, what is served is compared with them"`
	Passphrase  secret.Ref `koanf:"passphrase" help:"reference to the passphrase of PKCS #12 and JKS files; default: none"`
	CAFile      string     `koanf:"ca_file" help:"PEM file with the certificate authorities to trust in place of the system's"`
	SystemRoots bool       `koanf:"system_roots" help:"trust the system's authorities beside those of ca_file"`

	Fingerprints []string `koanf:"fingerprints" help:"SHA-256 of a certificate or of its public key (SPKI), in hexadecimal: one of them must match, and then no authority is needed"`
	ExpectIssuer string   `koanf:"expect_issuer" help:"common name or organisation that must occur among the authorities of the chain; tells a proxy that intercepts"`
	Revocation   string   `koanf:"revocation" help:"auto, require or off: whether the authority's revocation list (or OCSP) is asked, and whether not knowing is a fault; default auto"`
	AIA          string   `koanf:"aia" help:"public, any or off: where a missing issuing certificate may be fetched from, by the address in the certificate; default public"`
	ACME         string   `koanf:"acme_directory" help:"directory of the ACME server that issued the certificate, asked when it should be renewed (RFC 9773); it may have a certificate of an authority in ca_file; default: not asked"`

	ClientCertificate string `koanf:"client_certificate" help:"PEM file with the client certificate to show, and its chain"`
	ClientKey         string `koanf:"client_key" help:"PEM file with its private key; default: the file of client_certificate"`

	Renewal  string  `koanf:"renewal" help:"automatic or manual: certificates that people renew warn 30 days and fail 14 days before their end; default automatic"`
	Warn     float64 `koanf:"warn_remaining" help:"share of the certificate's life that should be left, such as 0.2; default: 0.2, at most 30 days; 0.35 for lives up to 10 days"`
	Critical float64 `koanf:"critical_remaining" help:"share of the certificate's life below which it is a fault; default: 0.08, at most 14 days; 0.15 for lives up to 10 days; never less than 12 hours, or a fifth of a life below 2.5 days"`

	env   Env
	net   wire.Net
	roots *x509.CertPool
	pins  []string
	proxy *url.URL
	fetch *fetcher

	served map[string]servedLeaf // last leaf by address; runs do not overlap
	files  map[string]*keptFile  // by path
	turned time.Time             // last rotation that was seen
	window renewalWindow         // of the ACME server, for the leaf in use
}

var (
	certNotAfter   = &evidence.Metric{Name: "certificate_not_after_timestamp_seconds", Help: "End of a presented or stored certificate, also when it is expired or not trusted. Position counts from the leaf; for files it is path#number.", Labels: []string{"probe", "position", "role"}}
	certNotBefore  = &evidence.Metric{Name: "certificate_not_before_timestamp_seconds", Help: "Begin of a presented or stored certificate, also when it is expired or not trusted.", Labels: []string{"probe", "position", "role"}}
	certChainEnd   = &evidence.Metric{Name: "certificate_chain_not_after_timestamp_seconds", Help: "Earliest end in a chain: presented as it was sent, verified the best that can be built (absent when none can).", Labels: []string{"probe", "chain"}}
	certFacet      = &evidence.Metric{Name: "certificate_facet", Help: "Each question about a chain judged by itself: 1 for the state it is in.", Labels: []string{"probe", "facet", "state"}}
	certInfo       = &evidence.Metric{Name: "certificate_info", Help: "Facts of a presented or stored certificate; always 1.", Labels: []string{"probe", "position", "fingerprint", "serial", "issuer_cn", "key_type"}}
	certAddresses  = &evidence.Metric{Name: "certificate_addresses", Help: "Addresses of the host that were looked at, by family and by what came of it: ok, fault, or no_route where this machine has no way into the family.", Labels: []string{"probe", "family", "result"}}
	certLeaves     = &evidence.Metric{Name: "certificate_distinct_leaves", Help: "Different certificates that the addresses of the host present; 1 is healthy.", Labels: []string{"probe"}}
	certRotations  = &evidence.Metric{Name: "certificate_rotations_total", Help: "Times that an address or a file showed another certificate than before.", Counter: true, Labels: []string{"probe"}}
	certLastTurn   = &evidence.Metric{Name: "certificate_last_rotation_timestamp_seconds", Help: "When another certificate was first seen, by the local clock; absent before the first time.", Labels: []string{"probe"}}
	certTLSVersion = &evidence.Metric{Name: "certificate_tls_info", Help: "Protocol version and cipher suite that were agreed upon; always 1.", Labels: []string{"probe", "version", "cipher"}}
)

// day is what thresholds are counted in.
const day = 24 * time.Hour

func newCertificate(decode func(any) error, env Env) (Probe, error) {
	p := &certificateProbe{Addresses: "all", Revocation: "auto", AIA: "public", Renewal: "automatic",
		env: env, net: env.Net, roots: env.Net.Roots, served: map[string]servedLeaf{}, files: map[string]*keptFile{}}
	if err := decode(p); err != nil {
		return nil, err
	}
	errs := p.check()
	var err error
	if p.CAFile != "" {
		if p.roots, err = readRoots(p.CAFile, p.SystemRoots); err != nil {
			errs = append(errs, fmt.Errorf("ca_file: %w", err))
		}
	}
	if p.proxy, err = parseProxy(p.Proxy); err != nil {
		errs = append(errs, fmt.Errorf("proxy: %w", err))
	}
	if p.fetch, err = newFetcher(env, p.roots); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

// check looks at the settings, all of them.
func (p *certificateProbe) check() (errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	host, _, err := net.SplitHostPort(p.Address)
	switch {
	case p.Address == "" && len(p.Files) == 0:
		add("address: is missing; give host:port, or files")
	case p.Address != "" && (err != nil || host == ""):
		add("address: %q is not host:port, such as api.example.com:443", p.Address)
	}
	if p.ServerName == "" {
		p.ServerName = host
	}
	for _, c := range []struct {
		key, value string
		allowed    []string
	}{
		{"addresses", p.Addresses, []string{"all", "first"}},
		{"revocation", p.Revocation, []string{"auto", "require", "off"}},
		{"aia", p.AIA, []string{"public", "any", "off"}},
		{"renewal", p.Renewal, []string{"automatic", "manual"}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			add("%s: %q is none of %s", c.key, c.value, strings.Join(c.allowed, ", "))
		}
	}
	if p.STARTTLS != "" && !slices.Contains(starttls.Protocols(), p.STARTTLS) {
		add("starttls: %q is none of %s", p.STARTTLS, strings.Join(starttls.Protocols(), ", "))
	}
	for _, c := range []struct {
		key   string
		share float64
	}{{"warn_remaining", p.Warn}, {"critical_remaining", p.Critical}} {
		if c.share < 0 || c.share >= 1 {
			add("%s: %v is not a share between 0 and 1", c.key, c.share)
		}
	}
	for _, text := range p.Fingerprints {
		pin := strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(text))
		if len(pin) != 64 || strings.Trim(pin, "0123456789abcdef") != "" {
			add("fingerprints: %q is no SHA-256 in hexadecimal (64 digits)", evidence.Clean(text, 80))
		}
		p.pins = append(p.pins, pin)
	}
	for _, pattern := range p.Files {
		if err := checkPattern(pattern); err != nil {
			add("files: %w", err)
		}
	}
	if p.ACME != "" && !strings.HasPrefix(p.ACME, "https://") {
		add("acme_directory: must begin with https://")
	}
	if p.ClientKey != "" && p.ClientCertificate == "" {
		add("client_key: stands without client_certificate")
	}
	return errs
}

func (p *certificateProbe) About() About {
	if p.Address == "" {
		return About{Endpoint: p.Files[0], Expected: "certificate"}
	}
	return About{Endpoint: p.Address, Origin: "tls://" + p.Address, Expected: "certificate"}
}

func (p *certificateProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	clock := p.env.trueTime(time.Now())
	stored := p.lookAtFiles(ctx, clock)
	var found []judged
	found = append(found, stored.chains...)
	var fault error
	if p.Address != "" {
		var served []judged
		served, fault = p.lookAtServer(ctx, clock, stored, &report)
		found = append(served, found...)
	}
	p.describe(&report, found, stored)
	if fault != nil {
		return report, fault
	}
	if stored.fault != nil {
		return report, stored.fault
	}
	return report, faultOf(report.Chain)
}

// faultOf makes a fault of the facet that weighs most.
func faultOf(chain *evidence.Chain) error {
	if chain == nil {
		return nil
	}
	for _, f := range chain.Facets {
		if f.State != evidence.Fail {
			continue
		}
		fault := &evidence.Fault{Stage: evidence.StageTLS, Symptom: evidence.SymptomBadCertificate, Code: f.Code, Err: errors.New(f.Detail)}
		switch f.Code {
		case "expiring", "client_cert_expiring", "renewal_overdue", "renewal_requested_by_ca":
			fault.Symptom = evidence.SymptomCertificate
		}
		return fault
	}
	return nil
}
