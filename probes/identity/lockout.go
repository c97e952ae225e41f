package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
)

// lockout is how patient the gate of a credential is: an identity provider that said three times that the credential is
// wrong is left alone for five minutes, then for up to an hour, or the account would be locked.
var lockout = pace.Policy{Failures: 3, Open: 5 * time.Minute, MaxOpen: time.Hour}

// lockoutKeys are the keys of identities whose accounts servers lock.
type lockoutKeys struct {
	HoldAfter int           `koanf:"hold_after" help:"refusals in a row after which the credential is held; stay below what locks the account; default 3"`
	HoldFor   time.Duration `koanf:"hold_for" help:"how long it is held the first time; doubles with each refusal; default 5m"`
	MaxHold   time.Duration `koanf:"max_hold" help:"longest time that it is held; default 1h"`
}

// lockedWords are how servers say that an account is locked: Microsoft's code, and what the others have in common.
var lockedWords = regexp.MustCompile(`(?i)AADSTS50053|\b(account|user|client)\b[^.]{0,40}\b(is|has been|was|temporarily)?\s*(locked|blocked)\b|lockout|too many (failed|unsuccessful|invalid)`)

// saysLocked says whether a refusal says that the account is locked, so that asking twice more before the gate closes would
// only keep it so (RFC 4918 section 11.3 for the status).
func saysLocked(x evidence.Exchange) bool {
	return x.Status == http.StatusLocked || lockedWords.MatchString(x.Body)
}

// limit sets how patient a gate is.
func (k lockoutKeys) limit(c *credentialGate) (errs []error) {
	if k.HoldAfter < 0 || k.HoldAfter > 100 {
		errs = append(errs, errors.New("hold_after: must lie between 1 and 100"))
	}
	if k.HoldFor < 0 || k.MaxHold < 0 || k.MaxHold > 0 && k.MaxHold < k.HoldFor {
		errs = append(errs, errors.New("hold_for: must not be below zero, and not above max_hold"))
	}
	c.policy.Failures = cmp.Or(k.HoldAfter, c.policy.Failures)
	c.policy.Open = cmp.Or(k.HoldFor, c.policy.Open)
	c.policy.MaxOpen = cmp.Or(k.MaxHold, max(c.policy.MaxOpen, c.policy.Open))
	c.gate = pace.NewGate(c.policy, c.env.Jitter)
	return errs
}

// A credentialGate is the gate of one credential. It outlives a restart, so that a daemon that is started again and again
// does not lock an account; and it gives way to a new gate at once when the credential was changed.
type credentialGate struct {
	env    Env
	policy pace.Policy
	key    string // in the store

	mu     sync.Mutex // owns what follows
	print  string     // of the credential, see sealedPrint
	gate   *pace.Gate
	loaded bool
}

// keptGate is a gate in the store.
type keptGate struct {
	Credential string     `json:"credential"`
	State      pace.State `json:"state"`
}

func newCredentialGate(env Env, policy pace.Policy) *credentialGate {
	return &credentialGate{env: env, policy: policy, key: "gate/" + env.Name, gate: pace.NewGate(policy, env.Jitter)}
}

// sealedPrint tells whether a credential is still the same after a restart. It is kept sealed and never shown, because a
// password can be guessed from its hash.
func sealedPrint(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// of gives the gate for the credential with this text.
func (c *credentialGate) of(text string) *pace.Gate {
	print := sealedPrint(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.loaded {
		c.loaded = true
		if kept, ok := c.load(); ok && kept.Credential == print {
			c.gate.Restore(kept.State, time.Now())
		}
	} else if c.print != print {
		c.gate = pace.NewGate(c.policy, c.env.Jitter)
	}
	c.print = print
	return c.gate
}

func (c *credentialGate) load() (kept keptGate, ok bool) {
	if c.env.Store == nil {
		return kept, false
	}
	b, err := c.env.Store.Load(c.key) // one that is older is as good
	if len(b) == 0 {
		return kept, false
	}
	if json.Unmarshal(b, &kept) != nil {
		return kept, false
	}
	_ = err
	return kept, true
}

// done tells the gate what came of a request, and keeps it when that changed it.
func (c *credentialGate) done(gate *pace.Gate, now time.Time, o pace.Outcome) {
	before := gate.State()
	gate.Done(now, o)
	after := gate.State()
	c.mu.Lock()
	kept, current := keptGate{c.print, after}, c.gate == gate
	c.mu.Unlock()
	if c.env.Store == nil || !current || before.Failures == after.Failures && before.Position == after.Position {
		return
	}
	b, err := json.Marshal(kept)
	if err == nil {
		err = c.env.Store.Save(c.key, b)
	}
	if err != nil && c.env.Log != nil {
		c.env.Log.LogAttrs(context.Background(), slog.LevelWarn, "how often a credential was refused is not on disk; a restart would begin to count anew", slog.Any("error", err))
	}
}

func (c *credentialGate) state() pace.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gate.State()
}
