package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/identity"
)

// stateKeyCredential is the systemd credential (LoadCredential=) that seals the state where the configuration names none.
const stateKeyCredential = "authvigil.key"

// A lazyStore opens the sealed store when it is first needed, so that a command that only looks makes nothing on disk. That
// the store cannot be opened is said at each use, and keeps nothing from starting.
type lazyStore struct {
	settings agent.Settings
	log      *slog.Logger
	only     []string // prefixes of keys; what else a probe keeps belongs to the daemon; nil: all

	once  sync.Once
	store *identity.SealedStore
	err   error
}

// ofIdentities are the keys that commands beside the daemon use, so that they burn no refresh token, lock no account, and leave
// time servers alone that asked for it.
var ofIdentities = []string{"refresh/", "gate/", "next/", "ntp/"}

// withStore adds the store of a configuration, where something is to be kept.
func withStore(env agent.Env, c *agent.Config, only []string) (agent.Env, *lazyStore) {
	if c == nil || c.Agent.StateDirectory == "" {
		return env, nil
	}
	l := &lazyStore{settings: c.Agent, log: env.Log, only: only}
	env.Store = l
	return env, l
}

func (l *lazyStore) open() error { return l.openAlone(0) }

// openAlone opens the store, and waits while another process has it.
func (l *lazyStore) openAlone(patience time.Duration) error {
	l.once.Do(func() {
		keys, err := stateKeys(l.settings)
		if err == nil {
			l.store, err = identity.OpenStore(filepath.Join(l.settings.StateDirectory, "sealed"), keys, l.log)
		}
		for began := time.Now(); errors.Is(err, identity.ErrInUse) && time.Since(began) < patience; {
			time.Sleep(100 * time.Millisecond)
			l.store, err = identity.OpenStore(filepath.Join(l.settings.StateDirectory, "sealed"), keys, l.log)
		}
		if l.err = err; err != nil && (l.only == nil || !errors.Is(err, identity.ErrInUse)) {
			l.log.Error("nothing is kept over restarts but alerts", "error", err, "help", "make the directory writable, stop the other authvigil, or mend state_key")
		}
	})
	return l.err
}

// stateKeys reads the keys that seal the state; none means that the store makes its own.
func stateKeys(s agent.Settings) (keys []secret.Value, err error) {
	refs := []secret.Ref{s.StateKey, s.StateKeyBefore}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); s.StateKey.IsZero() && dir != "" {
		if _, err := os.Stat(filepath.Join(dir, stateKeyCredential)); err == nil {
			if refs[0], err = secret.Parse("credential:" + stateKeyCredential); err != nil {
				return nil, err
			}
		}
	}
	for _, ref := range refs {
		if ref.IsZero() {
			continue
		}
		v, err := ref.Reveal(context.Background())
		if err != nil {
			return nil, err
		}
		keys = append(keys, v)
	}
	return keys, nil
}

func (l *lazyStore) serves(key string) bool {
	for _, prefix := range l.only {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return len(l.only) == 0
}

func (l *lazyStore) Load(key string) ([]byte, error) {
	if !l.serves(key) {
		return nil, nil
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l.store.Load(key)
}

func (l *lazyStore) Save(key string, value []byte) error {
	if !l.serves(key) {
		return nil
	}
	if err := l.open(); err != nil {
		return err
	}
	return l.store.Save(key, value)
}

// close lets another process have the store.
func (l *lazyStore) close() {
	if l == nil {
		return
	}
	l.once.Do(func() { l.err = errors.New("closed") })
	if l.store != nil {
		l.store.Close()
	}
}
