// Package probes holds the kinds of probes: each asks one question and brings home evidence. Who is to blame is decided
// by package diagnose; nothing here judges.
package probes

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// A Probe asks one question. Run stops when ctx ends, may return a report together with an error, does not retry in
// secret, and may be called again after it returned but not concurrently. The probes that New returns fail with an
// *evidence.Fault and nothing else.
type Probe interface {
	Run(ctx context.Context) (evidence.Report, error)
	// About gives what is known of the question without asking it.
	About() About
}

// About is what a probe is about, for labels, gates and diagnosis.
type About struct {
	Endpoint string // as a label: host and path, address, file; no query, no secret
	Origin   string // scheme://host:port, where there is one
	Identity string // name, or empty
	Issuer   string // that the question is about, where it is one; the identity may have another
	Expected string // what the endpoint should answer, in words

	RequiredScopes []string
	Audience       string
	Leeway         time.Duration
	Leeways        *Leeway // of the validator there, by claim; nil: unknown
	Environment    string
}

// Env is everything a probe may touch.
type Env struct {
	Name     string // of the probe
	Net      wire.Net
	Identity func(name string) (identity.Identity, error)
	Store    identity.Store                // state that outlives a restart; nil: none
	Clock    func() (evidence.Clock, bool) // last verdict on the local clock, if any
	Peers    func() []evidence.Peer        // what is known of other clocks; nil: nothing
	Host     Host                          // what this machine says of its own clock
	Shared   *Shared                       // what the probes of one agent have in common; nil: the probe stands alone
	Log      *slog.Logger
	Thorough bool // somebody waits for the answer: every second question is asked at once, and of healthy endpoints too
}

// kinds is the table of probe kinds.
var kinds = map[string]func(decode func(any) error, env Env) (Probe, error){
	"accesslog":   newAccesslog,
	"authorize":   newAuthorize,
	"certificate": newCertificate,
	"credential":  newCredential,
	"http":        newHTTP,
	"introspect":  newIntrospect,
	"issuer":      newIssuer,
	"ntp":         newNTP,
	"prometheus":  newPrometheus,
	"token":       newToken,
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

// New makes a probe of a kind. decode fills the settings struct of the kind strictly. It does no I/O but reading CA files.
func New(kind string, decode func(any) error, env Env) (Probe, error) {
	build, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("unknown kind %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	p, err := build(decode, env)
	if err != nil {
		return nil, err
	}
	return faulty{p}, nil
}

// Close ends what a probe does between its runs, when it is not run any more. Most do nothing.
func Close(p Probe) error {
	if f, ok := p.(faulty); ok {
		p = f.Probe
	}
	if c, ok := p.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// faulty sees to it that only faults leave this package.
type faulty struct{ Probe }

func (f faulty) Run(ctx context.Context) (evidence.Report, error) {
	r, err := f.Probe.Run(ctx)
	if err == nil {
		return r, nil
	}
	return r, wire.Classify(ctx, evidence.StageAPI, err)
}
