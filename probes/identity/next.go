package identity

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// nextKeys are the keys of a rotation in which servers accept two secrets for a while.
type nextKeys struct {
	NextSecret secret.Ref `koanf:"next_secret" help:"the secret that will follow, while two are accepted: tried once an hour beside the one in use, so that you know that it is accepted before the old one goes, and how long both are"`

	next *Successor // nil: none is configured
}

// Successor implements Rotating.
func (k *nextKeys) Successor() *Successor { return k.next }

// follow says which secret the next one follows, and how it is shown.
func (k *nextKeys) follow(used secret.Ref, scheme string, env Env, allows func(*http.Request) error, put func(*http.Request, string)) {
	if !k.NextSecret.IsZero() {
		k.next = &Successor{env: env, used: used, next: k.NextSecret, scheme: scheme, allows: allows, put: put}
	}
}

// A Rotating identity is shown by a secret that may have a successor.
type Rotating interface {
	// Successor gives the secret that will follow; nil: there is none, or the identity tries it by itself.
	Successor() *Successor
}

// Metrics of a rotation.
var (
	NextAccepted = &evidence.Metric{Name: "next_secret_accepted", Help: "1: next_secret was accepted when it was last tried; 0: it was refused; absent: it was not tried, or is in use already.", Labels: []string{"identity"}}
	NextOverlap  = &evidence.Metric{Name: "next_secret_overlap_seconds", Help: "How long both secrets have been accepted: from the first time that next_secret was to the last time that the secret in use was.", Labels: []string{"identity"}}
)

const (
	// tryEvery is how often the next secret is tried. With what the gate lets through of the one in use, that stays below what
	// locks a client.
	tryEvery = time.Hour
	// tryAgain is the same when the secret in use was just refused and the next one was accepted before.
	tryAgain = 5 * time.Minute
)

// A Successor is the secret that will follow the one in use, and what servers said to it. It outlives a restart, so that a
// daemon that is started again and again does not show a wrong one each time.
type Successor struct {
	env        Env
	used, next secret.Ref
	scheme     string
	allows     func(*http.Request) error            // where it may be shown
	put        func(req *http.Request, text string) // shows it

	mu     sync.Mutex // owns what follows
	loaded bool
	trial
}

// A trial is what is kept of a successor.
type trial struct {
	Secret   string    `json:"secret"` // by its hash
	Tried    time.Time `json:"tried"`
	Known    bool      `json:"known"` // a server said yes or no
	Accepted bool      `json:"accepted"`
	Both     time.Time `json:"both,omitzero"` // since when both are accepted
	Last     time.Time `json:"last,omitzero"` // when both were last seen to be
}

// Next gives an identity that shows the secret, when it is due to be tried; nil: it is not. refused says that the one in use
// was just refused. What is said to the grant of the identity is remembered by its Settle.
func (s *Successor) Next(ctx context.Context, refused bool) Identity {
	if s == nil || !s.due(ctx, refused) {
		return nil
	}
	return successor{s}
}

// due says whether to try the secret now, and counts it as tried.
func (s *Successor) due(ctx context.Context, refused bool) bool {
	next, err := s.next.Reveal(ctx)
	if err != nil {
		return false // not made yet
	}
	used, _ := s.used.Reveal(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load()
	if print := sealedPrint(next.Expose()); print != s.Secret {
		s.trial = trial{Secret: print}
	}
	if next.Expose() == used.Expose() { // it took over
		s.trial = trial{Secret: s.Secret}
		return false
	}
	every := tryEvery
	if refused && s.Accepted {
		every = tryAgain
	}
	now := time.Now()
	if since := now.Sub(s.Tried); since >= 0 && since < every {
		return false
	}
	s.Tried = now.UTC()
	s.save()
	return true
}

// told notes what a server said to the secret.
func (s *Successor) told(accepted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Known, s.Accepted = true, accepted
	s.save()
}

// Tell says how the rotation stands, without asking anybody. refused says that the secret in use was just refused.
func (s *Successor) Tell(refused bool) (readings []evidence.Reading, notes []evidence.Note) {
	if s == nil {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.Known {
		return nil, nil
	}
	accepted, when := 1.0, " when it was tried at "+s.Tried.Format(time.RFC3339)
	switch now := time.Now().UTC(); {
	case !s.Accepted:
		accepted = 0
		notes = append(notes, evidence.Note{Code: "next_secret_refused", Detail: "next_secret was refused" + when})
	case refused:
		notes = append(notes, evidence.Note{Code: "next_secret_accepted", Detail: "next_secret was accepted" + when})
	default:
		if s.Both.IsZero() {
			s.Both = now
		}
		s.Last = now
	}
	readings = append(readings, evidence.Reading{Metric: NextAccepted, Value: accepted})
	if !s.Both.IsZero() {
		readings = append(readings, evidence.Reading{Metric: NextOverlap, Value: s.Last.Sub(s.Both).Seconds()})
	}
	return readings, notes
}

// load takes over what was kept; the mutex is held.
func (s *Successor) load() {
	if s.loaded || s.env.Store == nil {
		return
	}
	s.loaded = true
	if b, err := s.env.Store.Load(s.key()); err == nil && len(b) > 0 {
		_ = json.Unmarshal(b, &s.trial) // what cannot be read is as if it had never been tried
	}
}

// save keeps what is known; the mutex is held.
func (s *Successor) save() {
	if s.env.Store == nil {
		return
	}
	b, err := json.Marshal(s.trial)
	if err == nil {
		err = s.env.Store.Save(s.key(), b)
	}
	if err != nil && s.env.Log != nil {
		s.env.Log.Warn("when the next secret was tried is not on disk; it is tried again after a restart", "error", err)
	}
}

func (s *Successor) key() string { return "next/" + s.env.Name }

// successor is the identity that shows the secret which will follow.
type successor struct{ *Successor }

func (s successor) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: s.scheme}
	if err := s.allows(req); err != nil {
		return g, err
	}
	v, err := reveal(ctx, "next_secret", s.next)
	if err != nil {
		return g, err
	}
	g.ID = fingerprint(v.Expose())
	s.put(req, v.Expose())
	return g, nil
}

func (s successor) Settle(_ Grant, o Outcome) bool {
	if o.Accepted || o.Refused {
		s.told(o.Accepted)
	}
	return false
}

func (successor) ClientCertificate(context.Context) (*tls.Certificate, error) { return nil, nil }

func (s successor) Status() Status { return Status{Kind: s.scheme, Scheme: s.scheme} }

// trying stands in the context of a token request by which the client proves itself with its next secret.
type trying struct{}

// secretOf gives the client secret for a request: the one in use, or the next one where that is tried.
func (o *oauth) secretOf(ctx context.Context) (secret.Value, error) {
	if ctx.Value(trying{}) != nil {
		return reveal(ctx, "next_secret", o.NextSecret)
	}
	return reveal(ctx, "client_secret", o.ClientSecret)
}

func (o *oauth) checkNext() []error {
	switch {
	case o.NextSecret.IsZero():
	case !o.usesSecret():
		return []error{errors.New("next_secret: goes with client_auth basic, post and client_secret_jwt")}
	case o.Grant == "refresh_token":
		return []error{errors.New("next_secret: is not tried with grant refresh_token, because that would spend a refresh token")}
	}
	return nil
}

// Successor implements Rotating: the issuer is shown the next secret, and no API.
func (o *oauth) Successor() *Successor { return nil }

// tryNext asks for a token by the next secret, where that is due, and tells how the rotation stands. The token is dropped. err
// is what came of asking by the secret in use.
func (o *oauth) tryNext(ctx context.Context, g *Grant, err error) {
	if o.next == nil {
		return
	}
	fault := evidence.AsFault(err)
	refused := fault != nil && fault.Symptom == evidence.SymptomTokenRefused
	busy := o.tokens.server.State().Again.After(time.Now())
	if (fault == nil || refused) && !busy && o.next.due(ctx, refused) {
		_, exchanges, _, err := o.obtain(context.WithValue(ctx, trying{}, true))
		for _, x := range exchanges {
			x.Purpose = evidence.WithNextSecret
			g.Exchanges = append(g.Exchanges, x)
		}
		if f := evidence.AsFault(err); f == nil || f.Symptom == evidence.SymptomTokenRefused {
			o.next.told(f == nil)
		}
	}
	readings, notes := o.next.Tell(refused)
	g.Readings, g.Notes = append(g.Readings, readings...), append(g.Notes, notes...)
}
