// Package identity is who a probe says it is: it holds credentials, obtains and refreshes tokens, and puts what proves
// them into requests. However many probes share an identity, it obtains one token for all of them.
//
// It must be the last to leak or burn a credential: no request is repeated in secret, a refusal by the identity provider
// closes the gate of the identity before an account is locked, and what was sent is named, never shown.
package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// An Identity proves who is asking. All methods may be called concurrently.
type Identity interface {
	// Apply adds what proves the identity to the request, after it obtained or refreshed it when that was due. It fails
	// with an *evidence.Fault; symptom held, wrapping ErrHeld, means that its gate is closed and nothing was sent. The
	// grant is filled as far as things got, also when there is an error. A request must be complete but for the proof,
	// because some identities sign it. A request to no host (an empty URL) is never sent: applying it shows the grant.
	Apply(ctx context.Context, req *http.Request) (Grant, error)
	// Settle tells what the server said to a grant, so that it is dropped or the gate opens. again means that the answer
	// was a step of the protocol (a DPoP nonce, a digest challenge) and the same request should be applied and sent once
	// more.
	Settle(g Grant, o Outcome) (again bool)
	// ClientCertificate gives the certificate to show in a TLS handshake; nil for most kinds.
	ClientCertificate(ctx context.Context) (*tls.Certificate, error)
	// Status gives what is known without any I/O.
	Status() Status
}

// A Closer is an identity with something to end: a session is logged out. Close is called once, after the last request.
type Closer interface{ Close(ctx context.Context) }

// A Linter is an identity that can look at the form of a secret which lies on this machine, without sending anything.
type Linter interface {
	// Lint says what is wrong with it, or that it cannot be read.
	Lint(ctx context.Context) []evidence.Note
}

// A Grant is what an identity used for one request, never its text.
type Grant struct {
	ID        string // distinguishes grants of one identity; not derived from the text in a reversible way
	Scheme    string // none, bearer, dpop, basic, digest, api_key, session, sigv4, hmac, mtls
	Fresh     bool   // obtained for this very request
	Renewable bool   // another one can be obtained by asking the issuer, or by reading the secret again
	Exchanges []evidence.Exchange
	Token     *evidence.Token // facts about the token; nil where there is none
	Readings  []evidence.Reading
	Chain     *evidence.Chain // of the issuer, when its certificate was not acceptable
	origin    string          // that it was applied for, where a nonce belongs to it
	proved    bool            // the request held a proof, and not only a question for the challenge
	Ahead     *evidence.Fault // why the token could not be replaced ahead of time; the one in use still holds
	Notes     []evidence.Note // what lint found: white space, a second "Bearer ", a placeholder, …
}

// An Outcome is what a server said to a grant.
type Outcome struct {
	Accepted bool // the request was let in
	Refused  bool // the credential was refused (401, or a login page); neither: the answer says nothing about it
	TooShort bool // nobody refused it, but too little of its life is left for the caller: obtain another if that is possible
	Status   int
	Header   http.Header
}

// A Status is what is known about an identity without asking anybody.
type Status struct {
	Kind   string
	Scheme string     // as in Grant
	Issuer string     // issuer or token endpoint, as shown; empty: none
	Gate   pace.State // of the credential
	Spends bool       // obtaining uses something up, such as a rotating refresh token: nobody should ask without need
	Origin []string   // scheme://host:port that the credential may be sent to; empty: wherever a probe is configured to ask
}

// ErrHeld means that the gate of the identity is closed and nothing was sent; the caller waits for the gate.
var ErrHeld = errors.New("the gate of the identity is closed")

// Env is everything an identity may touch.
type Env struct {
	Name   string // of the identity, for messages and keys in Store
	Net    wire.Net
	Store  Store // nil: nothing is kept, and what must be kept before use is refused
	Jitter func() float64
	Log    *slog.Logger
	// Environment names where all this runs, such as production; keys that are marked for another one are noted.
	Environment string
}

// kinds is the table of identity kinds.
var kinds = map[string]func(decode func(any) error, env Env) (Identity, error){
	"api_key": newAPIKey,
	"basic":   newBasic,
	"bearer":  newBearer,
	"digest":  newDigest,
	"hmac":    newSigned,
	"mtls":    newMTLS,
	"none":    newNone,
	"oauth2":  newOAuth2,
	"session": newSession,
	"sigv4":   newSigV4,
}

// Kinds lists the kinds, sorted.
func Kinds() []string {
	var names []string
	for name := range kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New makes an identity of a kind. decode fills the settings struct of the kind strictly. New does no I/O but reading
// CA files, so that making every identity of a configuration is how the configuration is validated.
func New(kind string, decode func(any) error, env Env) (Identity, error) {
	build, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	return build(decode, env)
}

// Metrics that identities bring home in Grant.Readings. The label identity is filled in by the exporter.
var (
	TokenExpiry   = &evidence.Metric{Name: "token_expiry_timestamp_seconds", Help: "End of the token in use, by its own claim or by expires_in and the local clock.", Labels: []string{"identity", "token"}}
	TokenIssued   = &evidence.Metric{Name: "token_issued_timestamp_seconds", Help: "When the token in use was issued, by its own claim, else when it was received by the local clock.", Labels: []string{"identity", "token"}}
	TokenLifetime = &evidence.Metric{Name: "token_lifetime_seconds", Help: "Whole life of the token in use, from issue to end.", Labels: []string{"identity", "token"}}
	SecretAge     = &evidence.Metric{Name: "secret_age_seconds", Help: "Time since the secret's source was last changed, by the local clock.", Labels: []string{"identity", "origin"}}
	SecretDue     = &evidence.Metric{Name: "secret_rotation_due_timestamp_seconds", Help: "When the secret will be as old as rotate_every allows.", Labels: []string{"identity", "origin"}}
	CredentialEnd = &evidence.Metric{Name: "credential_expiry_timestamp_seconds", Help: "When the credential itself ends, by where that is known from: its certificate, the claims of a token, a declared date, a response header, the server that issued it.", Labels: []string{"identity", "origin"}}
	Refreshes     = &evidence.Metric{Name: "token_refreshes_total", Help: "Requests for a token by outcome.", Counter: true, Labels: []string{"identity", "outcome"}}
)

// none proves nothing: the endpoint is asked as a stranger.
type none struct{}

func newNone(decode func(any) error, _ Env) (Identity, error) {
	return none{}, decode(&struct{}{})
}

func (none) Apply(context.Context, *http.Request) (Grant, error) { return Grant{Scheme: "none"}, nil }
func (none) Settle(Grant, Outcome) bool                          { return false }
func (none) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (none) Status() Status {
	return Status{Kind: "none", Scheme: "none", Gate: pace.State{Position: pace.Closed}}
}

// unix gives a moment as a reading.
func unix(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
