package secret

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrAway means that the place where a secret is kept cannot be asked at present. Nothing is known of the secret: whoever
// needed it cannot say that anything is wrong with what it is for. It is worth asking again later.
var ErrAway = errors.New("the place of the secret cannot be asked")

const (
	// staleFor is how long a value outlives its time while its place cannot be asked: a restart of a secret store is no
	// reason to stop watching everything else.
	staleFor = time.Hour
	// askAgain is how long a failure is believed, so that a thousand probes with one secret ask once; refusedAgain is how long a
	// refusal is, which an operator has to do something about.
	askAgain, refusedAgain = 10 * time.Second, time.Minute
)

// fetched is a secret as a distant place gave it.
type fetched struct {
	value   Value
	life    time.Duration // how long the place says it is good; 0: it does not say
	changed time.Time     // when it was written there; zero: not said
}

// kept is a source that asks a distant place, and keeps what it got for a while.
type kept struct {
	fetch func(ctx context.Context) (fetched, error)
	ttl   time.Duration // longest time that a value is used without asking again
	limit time.Duration // of one question

	turn chan struct{} // holds one: only one asks, the others wait for its answer

	mu    sync.Mutex // owns what follows
	have  *fetched
	until time.Time // of have
	err   error     // of the last question
	again time.Time // when there may be another one after err
}

func newKept(ttl, limit time.Duration, fetch func(ctx context.Context) (fetched, error)) *kept {
	return &kept{fetch: fetch, ttl: ttl, limit: limit, turn: make(chan struct{}, 1)}
}

// Reveal gives the value that was fetched not longer than ttl ago, or fetches it. While the place cannot be asked, a value
// is good for an hour more.
func (k *kept) Reveal(ctx context.Context) (Value, error) {
	if v, ok, err := k.ready(time.Now()); ok {
		return v, err
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return k.otherwise(fmt.Errorf("%w: no answer in time", ErrAway))
	}
	if v, ok, err := k.ready(time.Now()); ok {
		return v, err
	}
	limited, cancel := context.WithTimeout(ctx, k.limit)
	defer cancel()
	got, err := k.fetch(limited)
	now := time.Now()
	if err != nil {
		if limited.Err() != nil && !errors.Is(err, ErrAway) {
			err = fmt.Errorf("%w: no answer in time", ErrAway)
		}
		k.mu.Lock()
		if ctx.Err() == nil { // else it was the caller who had no time
			k.err, k.again = err, now.Add(askAgain)
		}
		if !errors.Is(err, ErrAway) {
			k.have, k.again = nil, now.Add(refusedAgain) // it is not there any more, or not for us
		}
		k.mu.Unlock()
		return k.otherwise(err)
	}
	life := k.ttl
	if got.life > 0 && got.life < life {
		life = got.life
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.have, k.until, k.err = &got, now.Add(life), nil
	return got.value, nil
}

// ready gives what can be said without asking.
func (k *kept) ready(now time.Time) (v Value, ok bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.have != nil && now.Before(k.until):
		return k.have.value, true, nil
	case k.err == nil || !now.Before(k.again):
		return v, false, nil
	case k.stale(now):
		return k.have.value, true, nil
	default:
		return v, true, k.err
	}
}

// stale says whether the last value is still good enough while its place cannot be asked; the mutex is held.
func (k *kept) stale(now time.Time) bool {
	return k.have != nil && now.Before(k.until.Add(staleFor))
}

func (k *kept) otherwise(err error) (Value, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if errors.Is(err, ErrAway) && k.stale(time.Now()) {
		return k.have.value, nil
	}
	return Value{}, err
}

// Changed says when the value in hand was written, where its place said so. It asks nobody.
func (k *kept) Changed(context.Context) (time.Time, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.have == nil {
		return time.Time{}, ErrNotFound
	}
	return k.have.changed, nil
}
