package identity

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// fingerprintKey makes the names of grants useless outside this process.
var fingerprintKey = func() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}()

// fingerprint names a credential so that two uses can be compared, and nothing can be learnt from it.
func fingerprint(text string) string {
	mac := hmac.New(sha256.New, fingerprintKey)
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil)[:6])
}

// common are the keys of every identity.
type common struct {
	Origins []string `koanf:"origins" help:"scheme://host:port of the servers that the credential may be sent to; default: those that probes with this identity are configured to ask"`
}

// allows refuses to put a credential into a request to another origin than it is bound to.
func (c common) allows(req *http.Request) error {
	if len(c.Origins) == 0 || req.URL.Host == "" || slices.Contains(c.Origins, wire.Origin(req.URL)) {
		return nil
	}
	return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: "origin", Err: fmt.Errorf("the identity may not be used for %s; its origins do not name it", wire.Origin(req.URL))}
}

// reveal reads a secret; its absence is a fault before anything was sent.
func reveal(ctx context.Context, key string, ref secret.Ref) (secret.Value, error) {
	v, err := ref.Reveal(ctx)
	if err != nil {
		symptom := evidence.SymptomSecret
		if errors.Is(err, secret.ErrAway) {
			symptom = evidence.SymptomSecretAway
		}
		return v, &evidence.Fault{Stage: evidence.StageConfig, Symptom: symptom, Code: key, Err: fmt.Errorf("%s: %w", key, err)}
	}
	return v, nil
}

// heldFault says that a gate is closed and nothing was sent.
func heldFault(again, now time.Time, why string) error {
	return &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomHeld, Code: "identity",
		Err: fmt.Errorf("%w for %s more, %s", ErrHeld, again.Sub(now).Round(time.Second), why)}
}

// A fixed credential is one that is read and sent as it is: a token, a key, a password. Its gate closes when servers keep
// refusing it, and opens at once when the secret was changed.
type fixed struct {
	*credentialGate

	now sync.Mutex // owns id and at
	id  string
	at  *pace.Gate
}

func newFixed(env Env, policy pace.Policy) *fixed {
	return &fixed{credentialGate: newCredentialGate(env, policy)}
}

// admit asks the gate, for the credential with this text.
func (f *fixed) admit(text string) (id string, err error) {
	id, now := fingerprint(text), time.Now()
	gate := f.of(text)
	f.now.Lock()
	f.id, f.at = id, gate
	f.now.Unlock()
	if again, ok := gate.Admit(now); !ok {
		return id, heldFault(again, now, "because servers refused the credential")
	}
	return id, nil
}

func (f *fixed) settle(g Grant, o Outcome) {
	f.now.Lock()
	gate, same := f.at, g.ID == f.id
	f.now.Unlock()
	if !same || gate == nil {
		return
	}
	out := pace.Outcome{OK: o.Accepted, Ignore: !o.Accepted && !o.Refused}
	if o.Status == http.StatusLocked { // RFC 4918 section 11.3
		out = pace.Outcome{Permanent: true}
	}
	if o.Status == http.StatusTooManyRequests {
		out = pace.Outcome{Ignore: true}
	}
	f.done(gate, time.Now(), out)
}

// obtained is a token as an issuer gave it.
type obtained struct {
	text       secret.Value
	kind       string        // token_type, as the issuer says
	use        time.Duration // how long it is used when nothing says its end; 0: unknownLife
	facts      evidence.Token
	refresh    secret.Value    // the refresh token beside it; zero: none
	refreshEnd time.Time       // of the refresh token, where the issuer says
	endFixed   bool            // using the refresh token does not put its end off
	id         *evidence.Token // facts about the ID token beside it; nil: none
	notes      []evidence.Note // what the caller should know
}

// An ask for a token: one request, its exchange, and the facts of what came.
type ask func(ctx context.Context) (obtained, []evidence.Exchange, *evidence.Chain, error)

const (
	// refreshAhead is how long before its end a token is replaced; a fifth of its life where that is shorter.
	refreshAhead = 5 * time.Minute
	// unknownLife is how long a token is used whose life nobody says (RFC 6749 section 5.1 leaves expires_in out at will).
	unknownLife = 5 * time.Minute
	// grantEndsSoon is when the end of a grant is near that using its refresh token does not put off: time for a person.
	grantEndsSoon = 24 * time.Hour
	// firstRenewal and lastRenewal bound how often a refusal by an API makes a new token be asked for.
	firstRenewal, lastRenewal = time.Minute, time.Hour
)

// A shared token is obtained once for all probes of an identity: one asks, the others wait for its answer.
type shared struct {
	env    Env
	ask    ask
	ahead  time.Duration                    // before the end; 0: refreshAhead
	local  bool                             // ask sends nothing itself; that it fails closes the gate all the same
	login  *credentialGate                  // closed by refusals of the issuer
	server *pace.Gate                       // of the issuer: closed when it does not answer
	proof  func(ctx context.Context) string // text of what proves the client, to see that it was changed; nil: it never is

	mu       sync.Mutex // owns what follows; not held while asking
	now      *obtained
	id       string
	until    time.Time // when the token is not to be used any more
	renew    time.Time // when it is due to be replaced
	flight   *flight
	renewals int       // by refusal, since a server last accepted
	renewed  time.Time // last of them
	lives    lives
}

type flight struct{ done chan struct{} }

func newShared(env Env, ask ask) *shared {
	return &shared{env: env, ask: ask, login: newCredentialGate(env, lockout), server: pace.NewGate(pace.Policy{}, env.Jitter)}
}

// get gives the token in use, or obtains one. The grant is filled as far as things got.
func (s *shared) get(ctx context.Context) (obtained, Grant, error) {
	proof, known := "", s.proof == nil
	for {
		s.mu.Lock()
		now := time.Now()
		if s.now != nil && now.Before(s.renew) {
			defer s.mu.Unlock()
			return s.held(now)
		}
		if f := s.flight; f != nil {
			if s.now != nil && now.Before(s.until) { // being replaced ahead of time: go on with what is there
				defer s.mu.Unlock()
				return s.held(now)
			}
			s.mu.Unlock()
			select {
			case <-f.done:
				if err := s.stillHeld(); err != nil {
					return obtained{}, Grant{}, err
				}
				continue
			case <-ctx.Done():
				return obtained{}, Grant{}, wire.Classify(ctx, evidence.StageToken, context.Cause(ctx))
			}
		}
		if !known { // not under the mutex, because a secret may be far away
			s.mu.Unlock()
			proof, known = s.proof(ctx), true
			continue
		}
		login, err := s.admit(now, proof)
		if err != nil {
			defer s.mu.Unlock()
			if s.now != nil && now.Before(s.until) {
				return s.held(now)
			}
			return obtained{}, Grant{}, err
		}
		f := &flight{make(chan struct{})}
		s.flight = f
		s.mu.Unlock()
		return s.fly(ctx, f, login)
	}
}

// admit asks both gates, and gives that of the credential; the mutex is held.
func (s *shared) admit(now time.Time, proof string) (*pace.Gate, error) {
	login := s.login.of(proof)
	if again, ok := login.Admit(now); !ok {
		return nil, heldFault(again, now, "because the issuer refused the credential")
	}
	if again, ok := s.server.Admit(now); !ok {
		login.Done(now, pace.Outcome{Ignore: true})
		if s.local {
			return nil, heldFault(again, now, "because the command failed")
		}
		return nil, heldFault(again, now, "because the issuer does not answer")
	}
	return login, nil
}

// stillHeld keeps those who waited for a failed request from asking one after the other.
func (s *shared) stillHeld() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.now != nil && now.Before(s.until) {
		return nil
	}
	for _, state := range []pace.State{s.login.state(), s.server.State()} {
		if state.Failures > 0 {
			return heldFault(later(state.Again, now), now, "because the issuer just failed another probe's request")
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// fly asks, and takes what came over.
func (s *shared) fly(ctx context.Context, f *flight, gate *pace.Gate) (obtained, Grant, error) {
	var (
		got       obtained
		exchanges []evidence.Exchange
		chain     *evidence.Chain
		err       error = &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomPanic}
	)
	defer func() { // also when ask panics
		s.mu.Lock()
		s.flight = nil
		s.mu.Unlock()
		close(f.done)
	}()
	got, exchanges, chain, err = s.ask(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.settleGates(ctx, gate, now, exchanges, err)
	outcome := "ok"
	if err != nil {
		outcome = "fault"
	} else {
		s.take(got, now)
	}
	if s.now == nil || !now.Before(s.until) {
		g := Grant{Exchanges: exchanges, Chain: chain, Notes: got.notes, Readings: []evidence.Reading{{Metric: Refreshes, Labels: []string{outcome}, Value: 1}}}
		if err == nil {
			err = &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomTokenLifetime, Code: "expired", Err: errors.New("the issuer gave a token that is over already")}
			g.Token = &got.facts
		}
		return obtained{}, g, err
	}
	o, g, _ := s.held(now)
	g.Fresh, g.Exchanges, g.Chain, g.Notes = err == nil, exchanges, chain, append(g.Notes, got.notes...)
	g.Readings = append(g.Readings, evidence.Reading{Metric: Refreshes, Labels: []string{outcome}, Value: 1})
	if err != nil { // replaced ahead of time, in vain: the token in use still holds
		g.Ahead = evidence.AsFault(err)
		g.Notes = append(g.Notes, evidence.Note{Code: "refresh_failed", Detail: evidence.Clean(err.Error(), 256)})
	}
	return o, g, nil
}

// settleGates tells the gates what came of a request; the mutex is held.
func (s *shared) settleGates(ctx context.Context, gate *pace.Gate, now time.Time, exchanges []evidence.Exchange, err error) {
	login, server := pace.Outcome{OK: err == nil}, pace.Outcome{OK: err == nil}
	if n := len(exchanges); n > 0 {
		server.RetryAfter = exchanges[n-1].RetryAfter
	}
	fault := evidence.AsFault(err)
	switch {
	case fault == nil:
	case s.local && !fault.Own() && !errors.Is(ctx.Err(), context.Canceled):
		login = pace.Outcome{Ignore: true}
	case !slices.ContainsFunc(exchanges, func(x evidence.Exchange) bool { return !x.Recalled }): // nothing was sent
		login, server = pace.Outcome{Ignore: true}, pace.Outcome{Ignore: true}
	case errors.Is(ctx.Err(), context.Canceled), fault.Own(), fault.Stage == evidence.StageConfig:
		login, server = pace.Outcome{Ignore: true}, pace.Outcome{Ignore: true}
	case fault.Symptom == evidence.SymptomTokenRefused:
		server = pace.Outcome{OK: true}
		login.Permanent = saysLocked(exchanges[len(exchanges)-1])
	default:
		login = pace.Outcome{Ignore: true}
	}
	s.login.done(gate, now, login)
	s.server.Done(now, server)
}

// take makes a token the one in use; the mutex is held.
func (s *shared) take(got obtained, now time.Time) {
	s.now, s.id = &got, fingerprint(got.text.Expose())
	s.lives.add(&got.facts)
	end := got.facts.Expiry
	if life := got.facts.ExpiresIn; life > 0 { // by our own clock from the moment of receipt: a wrong local clock does not spoil it
		if claimed := claimedLife(&got.facts); claimed > 0 {
			life = min(life, claimed)
		}
		end = now.Add(life)
	}
	if end.IsZero() {
		end = now.Add(cmp.Or(got.use, unknownLife))
	}
	life := end.Sub(now)
	ahead := s.ahead
	if ahead == 0 {
		ahead = refreshAhead
	}
	if ahead > life/5 {
		ahead = life / 5
	}
	s.until = end.Add(-min(time.Second, life/20))
	ahead += time.Duration(s.env.Jitter() * float64(ahead) / 10) // so that several agents do not renew at the same moment
	s.renew = end.Add(-ahead)
	if r := got.refreshEnd; !r.IsZero() && !got.endFixed && r.After(now) { // it is used before it ends for want of use
		if at := r.Add(-min(refreshAhead, r.Sub(now)/5)); at.Before(s.renew) {
			s.renew = at
		}
	}
}

// held gives the token in use; the mutex is held.
func (s *shared) held(now time.Time) (obtained, Grant, error) {
	facts := s.now.facts
	g := Grant{ID: s.id, Renewable: true, Token: &facts, Readings: runway(&facts)}
	if s.now.id != nil {
		g.Readings = append(g.Readings, runway(s.now.id)...)
	}
	if end := s.now.refreshEnd; !end.IsZero() {
		refresh := evidence.Token{Name: "refresh", Obtained: facts.Obtained, Expiry: end}
		g.Readings = append(g.Readings, runway(&refresh)...)
		if s.now.endFixed && end.Sub(now) < grantEndsSoon {
			g.Notes = append(g.Notes, evidence.Note{Code: "refresh_token_expiring", Detail: fmt.Sprintf("the grant behind the refresh token ends in %s, %s, and using it does not put that off", evidence.Span(end.Sub(now)), end.UTC().Format(time.RFC3339))})
		}
	}
	readings, notes := s.lives.tell(&facts)
	g.Readings, g.Notes = append(g.Readings, readings...), append(g.Notes, notes...)
	return *s.now, g, nil
}

// settle drops a token that was refused, by its name, so that a late refusal of an old one does not drop a newer one; and
// not again and again, because a server that refuses every token is at fault itself.
func (s *shared) settle(g Grant, o Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil || g.ID != s.id {
		return
	}
	now := time.Now()
	switch {
	case o.Accepted:
		s.renewals = 0
		s.lives.accepted()
	case o.TooShort:
		s.renew = now
	case o.Refused:
		wait := firstRenewal
		for i := 1; i < s.renewals && wait < lastRenewal; i++ {
			wait *= 2
		}
		if s.renewals == 0 || now.Sub(s.renewed) >= min(wait, lastRenewal) {
			s.renewals++
			s.renewed = now
			if got := s.now.facts.Obtained; !got.IsZero() {
				s.lives.refused = now.Sub(got)
			}
			s.now, s.id = nil, ""
		}
	}
}

// holds says whether a grant is the one in use.
func (s *shared) holds(g Grant) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now != nil && s.id == g.ID
}

// state is that of the gate which is closed to requests, if one is.
func (s *shared) state() pace.State {
	if state := s.login.state(); state.Position != pace.Closed || state.Failures > 0 {
		return state
	}
	return s.server.State()
}
