package probes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// certificateProbe looks at the certificates that an address presents. It dials without verification, keeps what is
// shown, and judges it afterwards, so that an expired or untrusted certificate keeps its series and its name. Nothing is
// sent over the connection.
type certificateProbe struct {
	Address    string  `koanf:"address" help:"host:port to look at; required"`
	ServerName string  `koanf:"server_name" help:"name to ask for (SNI) and to expect; default: the host of the address"`
	CAFile     string  `koanf:"ca_file" help:"PEM file with the certificate authorities to trust in place of the system's"`
	Warn       float64 `koanf:"warn_remaining" help:"share of the certificate's life that should be left, such as 0.2; default: 0.2, at most 30 days; 0.35 for lives up to 10 days"`
	Critical   float64 `koanf:"critical_remaining" help:"share of the certificate's life below which it is a fault; default: 0.08, at most 14 days; 0.15 for lives up to 10 days"`

	net   wire.Net
	roots *x509.CertPool
}

var (
	certNotAfter  = &evidence.Metric{Name: "certificate_not_after_timestamp_seconds", Help: "End of a presented certificate, also when it is expired or not trusted.", Labels: []string{"probe", "position", "role"}}
	certNotBefore = &evidence.Metric{Name: "certificate_not_before_timestamp_seconds", Help: "Begin of a presented certificate, also when it is expired or not trusted.", Labels: []string{"probe", "position", "role"}}
	certChainEnd  = &evidence.Metric{Name: "certificate_chain_not_after_timestamp_seconds", Help: "Earliest end in a chain: presented as it was sent, verified the best that can be built (absent when none can).", Labels: []string{"probe", "chain"}}
	certFacet     = &evidence.Metric{Name: "certificate_facet", Help: "Each question about a chain judged by itself: 1 for the state it is in.", Labels: []string{"probe", "facet", "state"}}
	certInfo      = &evidence.Metric{Name: "certificate_info", Help: "Facts of a presented certificate; always 1.", Labels: []string{"probe", "position", "fingerprint", "serial", "issuer_cn", "key_type"}}
)

func newCertificate(decode func(any) error, env Env) (Probe, error) {
	p := &certificateProbe{net: env.Net, roots: env.Net.Roots}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	host, _, err := net.SplitHostPort(p.Address)
	switch {
	case p.Address == "":
		errs = append(errs, errors.New("address: is missing"))
	case err != nil || host == "":
		errs = append(errs, fmt.Errorf("address: %q is not host:port, such as api.example.com:443", p.Address))
	}
	if p.ServerName == "" {
		p.ServerName = host
	}
	for key, share := range map[string]float64{"warn_remaining": p.Warn, "critical_remaining": p.Critical} {
		if share < 0 || share >= 1 {
			errs = append(errs, fmt.Errorf("%s: %v is not a share between 0 and 1", key, share))
		}
	}
	if p.CAFile != "" {
		if p.roots, err = wire.ReadRoots(p.CAFile); err != nil {
			errs = append(errs, fmt.Errorf("ca_file: %w", err))
		}
	}
	return p, errors.Join(errs...)
}

func (p *certificateProbe) About() About {
	return About{Endpoint: p.Address, Origin: "tls://" + p.Address, Expected: "certificate"}
}

func (p *certificateProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	x := evidence.Exchange{Stage: evidence.StageTLS, Method: "TLS", URL: "tls://" + p.Address, Started: time.Now()}
	presented, state, err := p.handshake(ctx, &x)
	x.Took = time.Since(x.Started)
	if len(presented) > 0 {
		p.describe(&report, presented, state)
	}
	if err != nil {
		x.Fault = wire.Classify(ctx, x.Stage, err)
		report.Exchanges = append(report.Exchanges, x)
		return report, x.Fault
	}
	report.Exchanges = append(report.Exchanges, x)
	return report, judgeChain(report.Chain)
}

// handshake dials and shakes hands. The certificates are given also when the server ends the handshake afterwards,
// because it wants a client certificate.
func (p *certificateProbe) handshake(ctx context.Context, x *evidence.Exchange) (presented []*x509.Certificate, state tls.ConnectionState, err error) {
	conn, took, err := wire.DialAny(ctx, p.net, "tcp", p.Address, nil)
	x.Timing.Resolve, x.Timing.Connect = took.Resolve, took.Connect
	if err != nil {
		x.Stage = evidence.StageConnect
		if !took.Resolved {
			x.Stage = evidence.StageResolve
		}
		return nil, state, err
	}
	defer conn.Close()
	x.Remote = conn.RemoteAddr().String()
	start := time.Now()
	secure := tls.Client(conn, &tls.Config{
		ServerName:         p.ServerName,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // G402: the chain is judged afterwards, and nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error {
			presented, state = s.PeerCertificates, s
			return nil
		},
	})
	err = secure.HandshakeContext(ctx)
	x.Timing.TLS = time.Since(start)
	return presented, state, err
}

func (p *certificateProbe) describe(report *evidence.Report, presented []*x509.Certificate, state tls.ConnectionState) {
	now := time.Now()
	chain := wire.Describe(presented, p.ServerName)
	chain.Address, chain.TLSVersion = p.Address, tls.VersionName(state.Version)
	chain.Facets = wire.Facets(presented, p.ServerName, p.roots, now, &chain.VerifiedNotAfter)
	if chain.Facets[0].State == evidence.OK {
		chain.Facets[0] = p.judgeRest(presented[0], now)
	}
	report.Chain = &chain
	add := func(m *evidence.Metric, v float64, labels ...string) {
		report.Readings = append(report.Readings, evidence.Reading{Metric: m, Labels: labels, Value: v})
	}
	for i, c := range chain.Certificates {
		position := strconv.Itoa(i)
		add(certNotAfter, float64(c.NotAfter.Unix()), position, c.Role)
		add(certNotBefore, float64(c.NotBefore.Unix()), position, c.Role)
		add(certInfo, 1, position, c.Fingerprint, c.Serial, c.Issuer, c.KeyType)
	}
	add(certChainEnd, float64(chain.PresentedNotAfter.Unix()), "presented")
	if !chain.VerifiedNotAfter.IsZero() {
		add(certChainEnd, float64(chain.VerifiedNotAfter.Unix()), "verified")
	}
	for _, f := range chain.Facets {
		for _, state := range []evidence.State{evidence.OK, evidence.Fail, evidence.Unknown} {
			value := 0.0
			if f.State == state || f.State == evidence.Warn && state == evidence.OK {
				value = 1
			}
			add(certFacet, value, f.Name, string(state))
		}
	}
}

// judgeRest compares what is left of a certificate with its life, because 14 days are late for one of 90 days and never
// come for one of six.
func (p *certificateProbe) judgeRest(leaf *x509.Certificate, now time.Time) evidence.Facet {
	const day = 24 * time.Hour
	life, left := leaf.NotAfter.Sub(leaf.NotBefore), leaf.NotAfter.Sub(now)
	share := func(set, long, short float64, most time.Duration) time.Duration {
		if set > 0 {
			return time.Duration(set * float64(life))
		}
		if life <= 10*day {
			return time.Duration(short * float64(life))
		}
		return min(time.Duration(long*float64(life)), most)
	}
	warn, critical := share(p.Warn, 0.20, 0.35, 30*day), share(p.Critical, 0.08, 0.15, 14*day)
	f := evidence.Facet{Name: "time", State: evidence.OK}
	what := fmt.Sprintf("the certificate ends %s, in %s, of a life of %s", leaf.NotAfter.UTC().Format(time.RFC3339), evidence.Span(left), evidence.Span(life))
	switch {
	case left < critical:
		f.State, f.Code, f.Detail = evidence.Fail, "expiring", what
	case left < warn:
		f.State, f.Code, f.Detail = evidence.Warn, "expiring", what
	}
	return f
}

// judgeChain makes a fault of the facet that weighs most.
func judgeChain(chain *evidence.Chain) error {
	for _, f := range chain.Facets {
		if f.State != evidence.Fail {
			continue
		}
		fault := &evidence.Fault{Stage: evidence.StageTLS, Symptom: evidence.SymptomBadCertificate, Code: f.Code, Err: errors.New(f.Detail)}
		if f.Code == "expiring" {
			fault.Symptom = evidence.SymptomCertificate
		}
		return fault
	}
	return nil
}
