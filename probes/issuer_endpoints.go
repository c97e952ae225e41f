package probes

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	visitEvery  = 10 * time.Minute // how often the certificates of endpoints are looked at while they are good
	visitTime   = 3 * time.Second  // for one server
	mostServers = 8
)

var (
	issuerMatch        = &evidence.Metric{Name: "discovery_issuer_match", Help: "1 where the metadata name the issuer to the letter, 0 where they name another; absent without metadata.", Labels: []string{"probe"}}
	issuerFieldChanges = &evidence.Metric{Name: "discovery_field_changes_total", Help: "Times that a field of the issuer's metadata was not as it was.", Counter: true, Labels: []string{"probe", "field"}}
	issuerKeys         = &evidence.Metric{Name: "jwks_keys", Help: "Published keys by use (sig, enc, none) and by whether they can be used.", Labels: []string{"probe", "use", "state"}}
	issuerKeyChanges   = &evidence.Metric{Name: "jwks_changes_total", Help: "Times that the key set was not as it was.", Counter: true, Labels: []string{"probe"}}
	issuerLastChange   = &evidence.Metric{Name: "jwks_last_change_timestamp_seconds", Help: "When the key set was last seen to change, by the local clock; absent before the first time.", Labels: []string{"probe"}}
	issuerOverlap      = &evidence.Metric{Name: "jwks_overlap_seconds", Help: "How long the key that signs was seen published before its first use; absent where it was there from the start, and a day after.", Labels: []string{"probe"}}
	issuerPublished    = &evidence.Metric{Name: "jwks_signing_key_published", Help: "1 where the key that signed the token in use is in the key set, 0 where it is not; absent without a JWT.", Labels: []string{"probe"}}
	issuerMaxAge       = &evidence.Metric{Name: "jwks_max_age_seconds", Help: "How long caches may keep the key set; 0: not at all; absent: not said.", Labels: []string{"probe"}}
	issuerEndpointEnd  = &evidence.Metric{Name: "issuer_endpoint_certificate_not_after_timestamp_seconds", Help: "End of the certificate of each server that the issuer's metadata name.", Labels: []string{"probe", "server"}}
)

// hostPort is host:port of a URL, the port always written.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80"}[u.Scheme]
	}
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// visitEndpoints looks at the certificates of the servers that the metadata name and that were not asked in this run.
func (p *issuerProbe) visitEndpoints(ctx context.Context, l *look) {
	servers := map[string]*url.URL{}
	for _, at := range l.doc.Endpoints {
		u, err := url.Parse(at)
		if err == nil && u.Scheme == "https" && u.Hostname() != "" && u.User == nil && l.chains[hostPort(u)] == nil && p.expects(u.Hostname()) {
			servers[hostPort(u)] = u
		}
	}
	if len(servers) == 0 || len(p.foul) == 0 && l.now.Sub(p.visited) < visitEvery && !p.visited.IsZero() {
		l.problems = append(l.problems, p.foul...)
		return
	}
	p.visited, p.foul = l.now, nil
	before := len(l.problems)
	names := slices.Sorted(maps.Keys(servers))
	for _, name := range names[:min(len(names), mostServers)] {
		chain, err := p.visit(ctx, servers[name], l)
		if chain != nil {
			chain.Address = name
			l.chains[name] = chain
		}
		switch fault := evidence.AsFault(err); {
		case fault == nil || ctx.Err() != nil:
		case fault.Symptom == evidence.SymptomBadCertificate:
			l.note("endpoint_certificate", "the certificate of %s, which the metadata name, is not acceptable: %s", name, causeOf(fault))
			l.report.Chain = chain
		default:
			l.note("endpoint_unreachable", "%s, which the metadata name, cannot be reached: %s", name, causeOf(fault))
		}
	}
	p.foul = slices.Clone(l.problems[before:])
}

// visit shakes hands with a server and asks it nothing; through a proxy, the client asks for the head of its first page.
func (p *issuerProbe) visit(ctx context.Context, at *url.URL, l *look) (*evidence.Chain, error) {
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	if p.Proxy != "" {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, at.Scheme+"://"+at.Host+"/", nil)
		if err != nil {
			return nil, nil
		}
		a, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, Scheme: "none"})
		return a.Chain, err
	}
	n := p.client.Net()
	conn, _, err := wire.DialAny(ctx, n, "tcp", hostPort(at), p.guardFor(at, l))
	if err != nil {
		return nil, wire.Classify(ctx, evidence.StageConnect, err)
	}
	defer conn.Close()
	var shown tls.ConnectionState
	hands := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: at.Hostname(), InsecureSkipVerify: true, // #nosec G402 -- judged below, and nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error { shown = s; return nil }})
	if err := hands.HandshakeContext(ctx); err != nil && len(shown.PeerCertificates) == 0 { // a server that wants a client certificate has shown its own
		return nil, wire.Classify(ctx, evidence.StageTLS, err)
	}
	chain, err := wire.Verify(shown.PeerCertificates, at.Hostname(), n.Roots, l.clock.at())
	if err != nil {
		return &chain, wire.Classify(ctx, evidence.StageTLS, err)
	}
	return &chain, nil
}

// measure makes the readings of a run that got as far as the metadata.
func (p *issuerProbe) measure(l *look) {
	add := func(m *evidence.Metric, value float64, labels ...string) {
		l.report.Readings = append(l.report.Readings, evidence.Reading{Metric: m, Labels: labels, Value: value})
	}
	truth := map[bool]float64{true: 1}
	add(issuerMatch, truth[l.doc.Issuer == p.Issuer])
	counts := map[[2]string]int{}
	for _, k := range l.keys {
		use, state := "none", "usable"
		if k.Use == "sig" || k.Use == "enc" {
			use = k.Use
		}
		if k.Problem != "" {
			state = "unusable"
		}
		counts[[2]string{use, state}]++
	}
	for labels, n := range counts {
		add(issuerKeys, float64(n), labels[0], labels[1])
	}
	if !p.memory.KeyChange.IsZero() {
		add(issuerLastChange, float64(p.memory.KeyChange.UnixNano())/1e9)
	}
	if t := l.token; t != nil && (t.Signature == evidence.SignatureValid || t.Signature == evidence.SignatureInvalid || t.Signature == evidence.SignatureKeyMissing) {
		add(issuerPublished, truth[t.Signature != evidence.SignatureKeyMissing])
	}
	if l.cache.known {
		add(issuerMaxAge, l.cache.maxAge.Seconds())
	}
	for name, chain := range l.chains {
		if len(chain.Certificates) > 0 {
			add(issuerEndpointEnd, float64(chain.Certificates[0].NotAfter.Unix()), name)
		}
	}
}
