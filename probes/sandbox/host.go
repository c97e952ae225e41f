package sandbox

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A Host is one name of the World, with an address, a certificate and servers on its ports.
type Host struct {
	Name string
	IP   netip.Addr // within 192.0.2.0/24 (RFC 5737)
	w    *World

	mu       sync.Mutex // owns what follows
	faults   Faults
	services map[string]*service // by "tcp/443"
	asks     tls.ClientAuthType  // for a client certificate, when no fault says otherwise
	leaf     *tls.Certificate    // made for leafOf
	leafOf   Certificate
}

// A service answers on one port, in one of three ways.
type service struct {
	host    *Host
	address string // on the loopback interface
	tls     bool
	handler http.Handler
	raw     func(ctx context.Context, c net.Conn)
	packets func(packet []byte) []byte // nil: silence
}

// Faults are what can go wrong at any host. The zero value is a host in good health.
type Faults struct {
	// Line is what is wrong with the way there, for new connections.
	Line Line
	// Certificate is what the host shows in new TLS handshakes.
	Certificate Certificate
	// OldTLS makes it speak TLS 1.0 and nothing newer.
	OldTLS bool
	// RequireClientCertificate refuses TLS clients without a certificate of the World's authority.
	RequireClientCertificate bool
	// Clock is by how much the host's clock is ahead of true time. Its Date header, the tokens it issues and all that it
	// judges by time follow it; for a time server it is the error of the time it tells.
	Clock time.Duration
	// Delay is how long every answer is held back.
	Delay time.Duration
	// Answer takes the place of the host's own answer; see Status, RetryLater, LoginPage and their kin. Nil: its own.
	Answer http.Handler
	// Times heals Answer by itself after so many answers; 0: never.
	Times int
	// Only narrows Delay and Answer to paths that begin with one of these; empty: all paths.
	Only []string
}

// A Line is the way to a host.
type Line int

// What can be wrong with a line.
const (
	Open             Line = iota
	NoSuchName            // the name does not resolve (NXDOMAIN)
	NameServerDown        // the name server answers with an error (SERVFAIL)
	NameServerSilent      // the name server does not answer
	Refused               // nothing listens there
	Unreachable           // there is no route
	BlackHole             // packets vanish on the way
	AcceptsOnly           // connections are accepted, and never a byte comes
	HangsUp               // connections are accepted and closed
	Resets                // connections are accepted and reset
	SpeaksOther           // the server greets in another protocol, without TLS
)

// Faults gives a copy of what is wrong at present.
func (h *Host) Faults() Faults {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults
}

// Set changes what is wrong. The change holds for what begins afterwards. Slices are to be replaced, not written into.
func (h *Host) Set(change func(f *Faults)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.faults)
}

// Reset takes all faults away.
func (h *Host) Reset() { h.Set(func(f *Faults) { *f = Faults{} }) }

// now is the time by the host's own clock.
func (h *Host) now() time.Time { return time.Now().Add(h.Faults().Clock) }

// offerClientCertificates makes the host ask TLS clients for a certificate, and take any or none.
func (h *Host) offerClientCertificates() { h.asks = tls.RequestClientCert }

func (h *Host) service(port string) *service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.services[port]
}

// answer takes the next answer that is not the host's own.
func (h *Host) answer(path string) (held time.Duration, answer http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := &h.faults
	if !f.concerns(path) {
		return 0, nil
	}
	answer = f.Answer
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			f.Answer = nil
		}
	}
	return f.Delay, answer
}

// concerns says whether Delay and Answer hold for a path.
func (f *Faults) concerns(path string) bool {
	for _, begin := range f.Only {
		if strings.HasPrefix(path, begin) {
			return true
		}
	}
	return len(f.Only) == 0
}

// tlsConfig gives the settings of one handshake, so that a fault takes effect with the next connection.
func (h *Host) tlsConfig(*tls.ClientHelloInfo) (*tls.Config, error) {
	f := h.Faults()
	leaf := h.certificate(f.Certificate)
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &tls.Config{
		Certificates:           []tls.Certificate{*leaf},
		ClientAuth:             h.asks,
		ClientCAs:              h.w.ca.roots(),
		MinVersion:             tls.VersionTLS12,
		CurvePreferences:       []tls.CurveID{tls.X25519}, // the quickest: tests shake hands a thousand times
		SessionTicketsDisabled: true,                      // a resumed session would not show a changed certificate
		Time:                   func() time.Time { return time.Now().Add(f.Clock) },
	}
	if f.RequireClientCertificate {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if f.OldTLS {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	}
	return c, nil
}

func (h *Host) certificate(c Certificate) *tls.Certificate {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leaf == nil || h.leafOf != c {
		leaf := h.w.ca.issue(h.Name, c, false)
		h.leaf, h.leafOf = &leaf, c
	}
	return h.leaf
}
