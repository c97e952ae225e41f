package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// refreshGrant are the keys of the grant refresh_token (RFC 6749 section 6).
//
// Where an issuer rotates refresh tokens (RFC 9700 section 4.14.2), using one twice revokes the whole grant. So a token is
// spent only when that was written down before, the new one is on disk before its access token is used, and a token whose
// fate is not known is not touched again.
type refreshGrant struct {
	RefreshToken secret.Ref    `koanf:"refresh_token" help:"for grant refresh_token: the first refresh token; later ones are kept in the state directory. Another text here begins anew"`
	Exclusive    bool          `koanf:"exclusive" help:"for grant refresh_token, required: true says that nobody but this monitor uses the grant, because using a refresh token may take it from everybody else"`
	ReuseLeeway  time.Duration `koanf:"reuse_leeway" help:"for grant refresh_token: how long the issuer is documented to accept a used refresh token once more (Okta's grace period, Auth0's reuse interval); within it a lost answer is asked for again; default 0: never"`
}

func checkRefresh(o *oauth) (errs []error) {
	if o.RefreshToken.IsZero() {
		errs = append(errs, errors.New("refresh_token: is missing; grant refresh_token needs the first one"))
	}
	if !o.Exclusive {
		errs = append(errs, errors.New("exclusive: must be true for grant refresh_token, and the grant must be this monitor's own: using a refresh token may make it worthless for everybody else"))
	}
	if o.ReuseLeeway < 0 {
		errs = append(errs, errors.New("reuse_leeway: is below zero"))
	}
	return errs
}

// The token that is spent stands in the context of its one request.
type spending struct{}

func fillRefresh(ctx context.Context, _ *oauth, form url.Values, _ string) error {
	token, _ := ctx.Value(spending{}).(secret.Value)
	form.Set("refresh_token", token.Expose())
	return nil
}

// spendTime is what one token request may take. It does not end with the run of a probe, or with the daemon: an answer that
// nobody waits for is a refresh token lost.
const spendTime = 20 * time.Second

// A phase says what is known of a refresh token.
type phase string

const (
	ready   phase = "ready"   // it was not used
	spent   phase = "spent"   // it is being used, or was and no answer came
	refused phase = "refused" // the issuer said that it is not valid
	lost    phase = "lost"    // what was kept cannot be read: the first one was used long ago, and the last one is not known
)

// A refreshRecord is what outlives the process, sealed.
type refreshRecord struct {
	Seed    string             `json:"seed"` // of the configured token, by its hash
	Token   string             `json:"token,omitempty"`
	Phase   phase              `json:"phase"`
	At      time.Time          `json:"at"`                // of the phase
	Rotates *bool              `json:"rotates,omitempty"` // whether the issuer gave a new one for a used one; nil: never seen
	Expiry  time.Time          `json:"expiry,omitzero"`   // of the token, where the issuer says
	Fixed   bool               `json:"fixed,omitempty"`   // the last use did not put that end off
	Answer  *evidence.Exchange `json:"answer,omitempty"`  // by which the issuer refused
}

// refreshing asks by a refresh token, and takes care that none is burnt.
type refreshing struct {
	o     *oauth
	store Store
	log   *slog.Logger

	mu      sync.Mutex // held during a request: there is one refresh token
	record  *refreshRecord
	unsaved bool // the record is newer than what is on disk
}

func askRefreshing(o *oauth, env Env) ask {
	r := &refreshing{o: o, store: env.Store, log: env.Log}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	return r.ask
}

// ask spends the refresh token: the intent is written, then the token is spent, then the new one is written, then used.
func (r *refreshing) ask(ctx context.Context) (got obtained, exchanges []evidence.Exchange, chain *evidence.Chain, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seed, first, err := r.seed(ctx)
	if err != nil {
		return got, nil, nil, err
	}
	defer alone(seed)()
	if err := r.load(seed, first); err != nil {
		return got, nil, nil, err
	}
	if err := r.usable(time.Now()); err != nil {
		if r.record.Phase == refused && r.record.Answer != nil {
			exchanges = append(exchanges, *r.record.Answer)
		}
		return got, exchanges, nil, err
	}
	before := *r.record
	if r.record.Phase != spent {
		r.record.Phase, r.record.At = spent, time.Now().UTC()
	}
	if err := r.save(); err != nil {
		r.record = &before
		return got, nil, nil, r.notKept(err)
	}
	unhurried, cancel := context.WithTimeout(context.WithoutCancel(ctx), spendTime)
	defer cancel()
	got, exchanges, chain, err = r.o.obtain(context.WithValue(unhurried, spending{}, secret.New(r.record.Token)))
	r.settle(before, got, exchanges, err)
	got.refreshEnd, got.endFixed = r.record.Expiry, r.record.Fixed
	switch saveErr := r.save(); {
	case saveErr == nil:
	case err == nil: // it is in memory, and written as soon as that works; it is not spent before
		r.log.Error("a new refresh token is not on disk; if the daemon ends now, it is lost", "error", saveErr)
		got.notes = append(got.notes, evidence.Note{Code: "refresh_token_not_kept", Detail: "the new refresh token is in memory only: " + evidence.Clean(saveErr.Error(), 200)})
	default:
		r.log.Warn("what became of the refresh token is not on disk", "error", saveErr)
	}
	if err != nil && r.record.Phase == spent && r.record.mayBeGone() {
		r.log.Error("a refresh token may or may not have been spent; it is not used again", "error", err)
	}
	return got, exchanges, chain, err
}

// settle makes the next record of what came of a request.
func (r *refreshing) settle(before refreshRecord, got obtained, exchanges []evidence.Exchange, err error) {
	now := time.Now().UTC()
	rec := r.record
	switch fault := evidence.AsFault(err); {
	case fault == nil:
		rec.Phase, rec.At = ready, now
		rotated := !got.refresh.IsZero() && got.refresh.Expose() != rec.Token
		if rotated || rec.Rotates == nil {
			rec.Rotates = &rotated
		}
		end := got.refreshEnd.UTC()
		if !got.refreshEnd.IsZero() {
			rec.Fixed = !rec.Expiry.IsZero() && end.Sub(rec.Expiry) < now.Sub(before.At)/2
			rec.Expiry = end
		} else if rotated {
			rec.Expiry, rec.Fixed = time.Time{}, false
		}
		if rotated {
			rec.Token = got.refresh.Expose()
		}
	case fault.Code == "invalid_grant" && fault.Symptom == evidence.SymptomTokenRefused:
		rec.Phase, rec.At = refused, now
		if n := len(exchanges); n > 0 {
			answer := exchanges[n-1]
			answer.Fault, answer.Recalled = nil, true
			rec.Answer = &answer
		}
	case unspent(fault, exchanges):
		*rec = before
	}
}

// unspent says whether a request that failed has surely not used the refresh token: it was never sent, or the issuer
// answered it with a refusal of something else. A gateway that answers 502 or 504 does not know what the issuer did, and an
// issuer that answers 500 may have done half of it.
func unspent(fault *evidence.Fault, exchanges []evidence.Exchange) bool {
	switch fault.Stage {
	case evidence.StageConfig, evidence.StageResolve, evidence.StageConnect, evidence.StageTLS, evidence.StageDiscovery:
		return true
	}
	if len(exchanges) == 0 {
		return true
	}
	switch last := exchanges[len(exchanges)-1]; {
	case last.Purpose != evidence.Obtain:
		return true
	case fault.Code == "server_error":
		return false
	case last.Status == http.StatusServiceUnavailable, fault.Symptom == evidence.SymptomTokenRefused:
		return true
	default:
		return last.Status >= 300 && last.Status < 500
	}
}

// mayBeGone says whether using the token may have made it worthless.
func (rec *refreshRecord) mayBeGone() bool { return rec.Rotates == nil || *rec.Rotates }

// usable says why the token must not be used, if so.
func (r *refreshing) usable(now time.Time) error {
	rec := r.record
	fault := func(symptom evidence.Symptom, code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageToken, Symptom: symptom, Code: code, Err: fmt.Errorf(format+"; a new one in %s begins anew", append(args, r.o.RefreshToken)...)}
	}
	switch {
	case rec.Phase == refused:
		return fault(evidence.SymptomTokenRefused, "invalid_grant", "the issuer refused the refresh token on %s and it is not sent again", rec.At.Format(time.RFC3339))
	case rec.Phase == lost:
		return fault(evidence.SymptomIndeterminate, "state_lost", "the refresh token in use was in a state file that cannot be read, and older ones are not sent, because that would revoke the grant")
	case rec.Phase == spent && rec.mayBeGone() && now.Sub(rec.At) >= r.o.ReuseLeeway:
		return fault(evidence.SymptomIndeterminate, "answer_lost", "a request of %s with the refresh token got no answer; whether the token is spent is not known, and using it twice would revoke the grant", rec.At.Format(time.RFC3339))
	}
	return nil
}

// grantsInUse are the grants of this process by their first refresh token: two identities with the same one take turns.
var grantsInUse sync.Map // of *sync.Mutex

// alone waits until nobody else in this process spends a refresh token of the same grant.
func alone(seed string) (done func()) {
	lock, _ := grantsInUse.LoadOrStore(seed, &sync.Mutex{})
	lock.(*sync.Mutex).Lock()
	return lock.(*sync.Mutex).Unlock
}

// seed gives the name of the grant: the hash of its first refresh token. While that cannot be read, the one before holds.
func (r *refreshing) seed(ctx context.Context) (seed string, first secret.Value, err error) {
	first, err = reveal(ctx, "refresh_token", r.o.RefreshToken)
	if err != nil && r.record != nil {
		return r.record.Seed, first, nil
	}
	sum := sha256.Sum256([]byte(first.Expose()))
	return hex.EncodeToString(sum[:]), first, err
}

// load finds the record of a grant: on disk, where another identity or a run before this one left it, or a new one. It stands
// under the name of the grant and not of the identity, so that an identity with another name does not begin with a token
// that was spent long ago.
func (r *refreshing) load(seed string, first secret.Value) error {
	if r.store == nil {
		return r.notKept(errors.New("no state_directory is set, or another authvigil uses it"))
	}
	if r.unsaved && r.record.Seed == seed { // a new token that could not be written; it is not spent before it was
		if err := r.save(); err != nil {
			return r.notKept(err)
		}
		return nil
	}
	b, err := r.store.Load(r.key(seed))
	rec := refreshRecord{Seed: seed, Token: first.Expose(), Phase: ready, At: time.Now().UTC()}
	read := func() error {
		rec = refreshRecord{}
		err := json.Unmarshal(b, &rec)
		secret.Remember(rec.Token)
		return err
	}
	switch {
	case err == nil && len(b) == 0:
		if first.IsZero() {
			return r.notKept(errors.New("the record of the grant is gone"))
		}
	case err == nil:
		if err := read(); err != nil {
			return r.notKept(err)
		}
	case errors.Is(err, ErrOlder): // its token was used by a later one, where the issuer rotates them
		if read() != nil || rec.mayBeGone() {
			rec = refreshRecord{Seed: seed, Phase: lost, At: time.Now().UTC()}
		}
	case errors.Is(err, ErrDamaged):
		rec = refreshRecord{Seed: seed, Phase: lost, At: time.Now().UTC()}
	default:
		return r.notKept(err)
	}
	r.record = &rec
	if err != nil {
		if err := r.save(); err != nil {
			return r.notKept(err)
		}
	}
	return nil
}

// key is where the record of a grant is kept.
func (r *refreshing) key(seed string) string { return "refresh/" + seed[:32] }

func (r *refreshing) save() error {
	r.unsaved = true
	b, err := json.Marshal(r.record)
	if err != nil {
		return err
	}
	if err := r.store.Save(r.key(r.record.Seed), b); err != nil {
		return err
	}
	r.unsaved = false
	return nil
}

// notKept says that the token was not spent because that could not be written down: a distress of our own.
func (r *refreshing) notKept(err error) error {
	return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomLocalResources, Code: "state", Err: fmt.Errorf("the refresh token was not spent, because what becomes of it cannot be kept: %w", err)}
}
