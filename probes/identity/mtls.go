package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"

	"github.com/authvigil/authvigil/agent/pace"
)

// mutual proves itself by a client certificate in the TLS handshake.
type mutual struct {
	common  `koanf:",squash"`
	keyPair `koanf:",squash"`
	*fixed
}

func newMTLS(decode func(any) error, env Env) (Identity, error) {
	m := &mutual{fixed: newFixed(env, pace.Policy{})}
	if err := decode(m); err != nil {
		return nil, err
	}
	var errs []error
	if m.Certificate.IsZero() {
		errs = append(errs, errors.New("certificate: is missing"))
	}
	if m.PrivateKey.IsZero() {
		errs = append(errs, errors.New("private_key: is missing"))
	}
	return m, errors.Join(errs...)
}

// Apply adds nothing to the request; it sees that there is a certificate to show, and tells how long it lives.
func (m *mutual) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "mtls"}
	if err := m.allows(req); err != nil {
		return g, err
	}
	pair, err := m.load(ctx)
	if err != nil {
		return g, err
	}
	g.Readings, g.Notes = certificateEnd(pair.Leaf)
	if req.URL.Host == "" {
		return g, nil
	}
	g.ID, err = m.admit(string(pair.Leaf.Raw))
	return g, err
}

func (m *mutual) Settle(g Grant, o Outcome) bool { m.settle(g, o); return false }

func (m *mutual) ClientCertificate(ctx context.Context) (*tls.Certificate, error) { return m.load(ctx) }

func (m *mutual) Status() Status {
	return Status{Kind: "mtls", Scheme: "mtls", Gate: m.state(), Origin: m.Origins}
}
