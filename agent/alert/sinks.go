package alert

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Env is what a sink may touch.
type Env struct {
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	Roots *x509.CertPool                   // nil: the system's
	Proof func(name string) (Proof, error) // an identity of the configuration
}

// A Proof shows who sends. It is an identity of the configuration, with its gates: a sink does not lock an account.
type Proof interface {
	// Apply adds the proof to a request. settle, if not nil, tells what the server said; again means that the request is to
	// be applied and sent once more, as a step of the protocol.
	Apply(ctx context.Context, req *http.Request) (settle func(status int, header http.Header) (again bool), err error)
	// ClientCertificate gives the certificate to show in a TLS handshake; nil for most kinds.
	ClientCertificate(ctx context.Context) (*tls.Certificate, error)
}

// sinks is the table of kinds. A kind gives one receiver for each instance: all are told, each at its own pace.
var sinks = map[string]func(decode func(any) error, env Env) ([]*Receiver, error){
	"alertmanager": newAlertmanager,
	"journal":      newJournal,
	"webhook":      newWebhook,
}

// Kinds lists the kinds of sinks, sorted.
func Kinds() []string {
	var names []string
	for name := range sinks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// NewSink makes the receivers of a section. It does no I/O but reading a CA file.
func NewSink(kind string, decode func(any) error, env Env) ([]*Receiver, error) {
	build, ok := sinks[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	return build(decode, env)
}
