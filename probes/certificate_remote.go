package probes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/starttls"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	mostAddresses = 16 // of one host that are looked at
	addressesOnce = 4  // at the same time
	resolveTime   = 2 * time.Second
	connectTime   = 5 * time.Second
	addressTime   = 10 * time.Second       // connection, STARTTLS and handshake together
	alertPatience = 300 * time.Millisecond // for the alert of a server that wanted a client certificate (RFC 8446 section 4.4.2.4)
)

// shown is what one address showed.
type shown struct {
	ip        netip.Addr // not valid where names are handed to Dial as they are
	certs     []*x509.Certificate
	odd       []evidence.Certificate // those that crypto/x509 refuses to read, in place of certs
	state     tls.ConnectionState
	requested bool     // a client certificate was asked for
	accepted  [][]byte // names of the authorities that it may come from
	exchange  evidence.Exchange
	fault     *evidence.Fault
	legacy    bool // only old protocols or ciphers were had
}

// name is how the address stands in sentences.
func (s *shown) name(fallback string) string {
	if s.ip.IsValid() {
		return s.ip.String()
	}
	return fallback
}

// addresses resolves the host. A host without a resolver, or behind a proxy, is one address without a number.
func (p *certificateProbe) addresses(ctx context.Context) ([]netip.Addr, time.Duration, error) {
	host, _, _ := net.SplitHostPort(p.Address)
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{ip.Unmap()}, 0, nil
	}
	if p.net.Lookup == nil || p.proxy != nil {
		return []netip.Addr{{}}, 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	start := time.Now()
	found, err := p.net.Lookup(ctx, host)
	took := time.Since(start)
	if err != nil {
		return nil, took, err
	}
	seen := map[netip.Addr]bool{}
	var list []netip.Addr
	for _, ip := range found {
		if ip = ip.Unmap(); !seen[ip] && len(list) < mostAddresses {
			seen[ip] = true
			list = append(list, ip)
		}
	}
	if len(list) == 0 {
		return nil, took, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return list, took, nil
}

// lookAt looks at all addresses, or in turn until one answers.
func (p *certificateProbe) lookAt(ctx context.Context, list []netip.Addr, client *tls.Certificate) []*shown {
	if p.Addresses == "first" {
		var all []*shown
		for _, ip := range list {
			s := p.lookAtOne(ctx, ip, client)
			if all = append(all, s); len(s.certs)+len(s.odd) > 0 || ctx.Err() != nil {
				return []*shown{s}
			}
		}
		return all
	}
	all := make([]*shown, len(list))
	slots := make(chan struct{}, addressesOnce)
	var group sync.WaitGroup
	for i, ip := range list {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all[i] = p.lookAtOne(ctx, ip, client)
		})
	}
	group.Wait()
	return all
}

// lookAtOne shakes hands with one address. When that fails because the server is too old or its certificate cannot be
// read, a second handshake finds out more; both are evidence, and neither sends anything.
func (p *certificateProbe) lookAtOne(ctx context.Context, ip netip.Addr, client *tls.Certificate) *shown {
	ctx, cancel := context.WithTimeout(ctx, addressTime)
	defer cancel()
	s := &shown{ip: ip}
	s.exchange = evidence.Exchange{Stage: evidence.StageConnect, Method: "TLS", URL: "tls://" + p.Address, Started: time.Now()}
	err := p.handshake(ctx, s, modern(client, s))
	s.exchange.Took = time.Since(s.exchange.Started)
	if err == nil {
		return s
	}
	s.fault = wire.Classify(ctx, s.exchange.Stage, err)
	if s.fault.Symptom == evidence.SymptomTLSAlert && s.requested && client == nil && (s.fault.Code == "handshake_failure" || s.fault.Code == "bad_certificate") {
		s.fault.Code = "certificate_required" // TLS 1.2 has no alert of its own for it (RFC 5246 section 7.4.6)
	}
	switch {
	case s.fault.Code == "unparseable_certificate":
		p.lookLeniently(ctx, s)
	case len(s.certs) == 0 && tooOld(s.fault):
		again := &shown{ip: ip, exchange: s.exchange, legacy: true}
		if p.handshake(ctx, again, ancient(modern(client, again))) == nil {
			again.exchange.Took = time.Since(s.exchange.Started)
			return again
		}
	}
	s.exchange.Fault = s.fault
	return s
}

// tooOld says whether a handshake may have failed because the server speaks nothing that is offered today.
func tooOld(f *evidence.Fault) bool {
	switch f.Code {
	case "protocol_too_old", "protocol_version_not_supported", "handshake_failure", "insufficient_security_level":
		return true
	}
	return false
}

// modern is how clients of today shake hands, but for the verification, which comes later.
func modern(client *tls.Certificate, s *shown) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // #nosec G402 -- the chain is judged afterwards, and nothing is sent
		VerifyConnection: func(state tls.ConnectionState) error {
			s.certs, s.state = state.PeerCertificates, state
			return nil
		},
		GetClientCertificate: func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s.requested, s.accepted = true, info.AcceptableCAs
			if client == nil {
				return &tls.Certificate{}, nil
			}
			return client, nil
		},
	}
}

// ancient offers everything that this program can speak, to see what an old server shows.
func ancient(c *tls.Config) *tls.Config {
	c.MinVersion = tls.VersionTLS10
	for _, list := range [][]*tls.CipherSuite{tls.CipherSuites(), tls.InsecureCipherSuites()} {
		for _, suite := range list {
			c.CipherSuites = append(c.CipherSuites, suite.ID)
		}
	}
	return c
}

// handshake connects, asks for TLS where that must be asked for, and shakes hands. What was shown is kept also when the
// server ends the handshake afterwards, because it wants a client certificate.
func (p *certificateProbe) handshake(ctx context.Context, s *shown, config *tls.Config) error {
	x := &s.exchange
	conn, err := p.connect(ctx, s)
	if err != nil {
		return err
	}
	defer conn.Close()
	x.Stage = evidence.StageTLS
	config.ServerName, config.NextProtos = p.ServerName, p.ALPN
	start := time.Now()
	secure := tls.Client(conn, config)
	err = secure.HandshakeContext(ctx)
	x.Timing.TLS = time.Since(start)
	if err == nil && s.requested && s.state.Version >= tls.VersionTLS13 {
		err = lateAlert(secure)
	}
	return err
}

// connect dials one address, through the proxy where there is one, and speaks the protocol that leads to TLS.
func (p *certificateProbe) connect(ctx context.Context, s *shown) (net.Conn, error) {
	x := &s.exchange
	_, port, _ := net.SplitHostPort(p.Address)
	address := p.Address
	switch {
	case p.proxy != nil:
		address = p.proxy.Host
	case s.ip.IsValid():
		address = net.JoinHostPort(s.ip.String(), port)
	}
	dialling, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, took, err := wire.DialAny(dialling, p.net, "tcp", address, nil)
	x.Timing.Resolve, x.Timing.Connect = x.Timing.Resolve+took.Resolve, took.Connect
	if err != nil {
		if !took.Resolved {
			x.Stage = evidence.StageResolve
		}
		return nil, wire.Classify(dialling, x.Stage, err)
	}
	if at := conn.RemoteAddr(); at != nil {
		x.Remote = at.String()
	}
	err = p.prepare(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// prepare brings a connection to where TLS begins.
func (p *certificateProbe) prepare(ctx context.Context, conn net.Conn) error {
	if p.proxy == nil && p.STARTTLS == "" {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if p.proxy != nil {
		if err := connectThrough(conn, p.Address); err != nil {
			return wire.Classify(ctx, evidence.StageConnect, err)
		}
	}
	if p.STARTTLS != "" {
		if err := starttls.Begin(conn, p.STARTTLS, p.ServerName); err != nil {
			return wire.Classify(ctx, evidence.StageTLS, err)
		}
	}
	return nil
}

// lateAlert waits a moment for the alert of a server that did not like the client's certificate, or the lack of one: in
// TLS 1.3 it comes when the client is done already.
func lateAlert(conn *tls.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(alertPatience))
	_, err := conn.Read(make([]byte, 1))
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return err
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return err
	}
	return nil
}

// noRoute says whether this machine has no way into the family of an address, which is no fault of the server.
func noRoute(f *evidence.Fault) bool {
	return errors.Is(f, syscall.ENETUNREACH) || errors.Is(f, syscall.EADDRNOTAVAIL) || errors.Is(f, syscall.EAFNOSUPPORT)
}

func family(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "any"
	case ip.Is4():
		return "ipv4"
	default:
		return "ipv6"
	}
}
