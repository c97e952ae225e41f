package alert

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

const (
	// drain is how long the last words may take at the end.
	drain = 5 * time.Second
	// sendTimeout bounds one delivery.
	sendTimeout = 10 * time.Second
	// batchSize is how many alerts one delivery carries at most.
	batchSize = 64
	// firstPause and lastPause bound how long a receiver that fails is left alone.
	firstPause, lastPause = time.Second, 30 * time.Second
)

// A sender delivers to one receiver. Its queue holds the newest state of each alert only, so that it is bounded, and no old
// states are told after an outage of the receiver. What cannot be delivered goes to the end of the queue and is tried again
// in smaller batches, so that one alert that the receiver chokes on does not keep the others waiting.
type sender struct {
	*Receiver
	sink    string
	d       *Dispatcher
	wake    chan struct{}
	gone    chan struct{}
	once    sync.Once
	started bool // owned by the dispatcher

	mu                                  sync.Mutex // owns what follows
	waiting                             map[string]Notice
	order                               []string // of the keys that wait
	size                                int      // of the next batch
	delivered, failed, refused, dropped int
	trouble, refusal                    string // what was logged last; trouble empty: the last delivery succeeded
}

func newSender(sink string, r *Receiver, d *Dispatcher) *sender {
	return &sender{Receiver: r, sink: sink, d: d, wake: make(chan struct{}, 1), gone: make(chan struct{}), waiting: map[string]Notice{}, size: batchSize}
}

func (s *sender) stop() { s.once.Do(func() { close(s.gone) }) }

// queue replaces what waits of an alert by its newest state. When there is no room, the oldest resolution makes it.
func (s *sender) queue(key string, n Notice) {
	s.mu.Lock()
	if _, waits := s.waiting[key]; !waits {
		if len(s.waiting) >= maxAlerts {
			s.makeRoom()
		}
		s.order = append(s.order, key)
	}
	s.waiting[key] = n
	s.mu.Unlock()
	nudge(s.wake)
}

// makeRoom drops one that waits; the mutex is held.
func (s *sender) makeRoom() {
	at := 0
	for i, key := range s.order {
		if s.waiting[key].Resolved {
			at = i
			break
		}
	}
	delete(s.waiting, s.order[at])
	s.order = append(s.order[:at], s.order[at+1:]...)
	s.dropped++
}

func (s *sender) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.waiting[key]
	return ok
}

func (s *sender) length() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// run sends until ctx ends, and then what waits, for a short while.
func (s *sender) run(ctx context.Context) {
	if c, ok := s.Sink.(io.Closer); ok {
		defer c.Close() //nolint:errcheck // nothing more is sent
	}
	pause := time.Duration(0)
	for {
		if s.length() == 0 {
			select {
			case <-ctx.Done():
				return
			case <-s.gone:
				return
			case <-s.wake:
			}
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			s.lastWords(ctx)
			return
		case <-s.gone:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := s.send(ctx); err == nil {
			pause = 0
		} else {
			pause = max(min(max(2*pause, firstPause), lastPause), askedPause(err))
		}
	}
}

// lastWords tries everything that waits once.
func (s *sender) lastWords(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	for left := s.length(); left > 0 && ctx.Err() == nil; {
		left -= max(s.nextSize(), 1)
		_ = s.send(ctx) // noted; a restart sends it again
	}
}

func (s *sender) nextSize() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.size, len(s.waiting))
}

// take removes the next batch from the queue.
func (s *sender) take() (keys []string, batch []Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys = append(keys, s.order[:min(s.size, len(s.order))]...)
	s.order = s.order[len(keys):]
	for _, key := range keys {
		batch = append(batch, s.waiting[key])
		delete(s.waiting, key)
	}
	return keys, batch
}

func (s *sender) putBack(keys []string, batch []Notice) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.again(keys, batch)
}

// again puts what was not delivered to the end of the queue, unless a newer state came in the meantime; the mutex is held.
func (s *sender) again(keys []string, batch []Notice) {
	for i, key := range keys {
		if _, newer := s.waiting[key]; !newer {
			s.waiting[key] = batch[i]
			s.order = append(s.order, key)
		}
	}
}

// send delivers one batch. What could not be delivered waits again.
func (s *sender) send(ctx context.Context) error {
	keys, batch := s.take()
	if len(batch) == 0 {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, sendTimeout)
	err := s.Send(bounded, batch)
	cancel()
	if err != nil && ctx.Err() != nil { // the end came in between; the last words say it again
		s.putBack(keys, batch)
		return err
	}
	if len(batch) == 1 && errors.Is(err, ErrTooLarge) {
		err = errors.Join(err, ErrPermanent)
	}
	permanent := errors.Is(err, ErrPermanent)
	if err == nil || permanent {
		done := make(map[string]Notice, len(keys))
		for i, key := range keys {
			done[key] = batch[i]
		}
		s.d.took(s, done)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.delivered += len(batch)
		s.size = min(2*s.size, batchSize)
		if s.trouble != "" {
			s.d.log.Info("sink delivers again", "sink", s.sink, "receiver", s.Name)
			s.trouble = ""
		}
		return nil
	case permanent:
		s.refused += len(batch)
		if text := err.Error(); text != s.refusal {
			s.refusal = text
			s.d.log.Error("sink refuses alerts; they are not tried again as they are", "sink", s.sink, "receiver", s.Name, "error", text, "alerts", len(batch), "first", batch[0].Name+" "+batch[0].Culprit)
		}
		return nil
	}
	s.failed += len(batch)
	s.size = max(len(batch)/2, 1)
	s.again(keys, batch)
	if text := err.Error(); text != s.trouble {
		s.trouble = text
		s.d.log.Warn("sink does not deliver", "sink", s.sink, "receiver", s.Name, "error", text, "alerts", len(s.waiting))
	}
	return err
}

// addTo adds what the sender did to that of its sink.
func (s *sender) addTo(sum *SinkStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Delivered += s.delivered
	sum.Failed += s.failed
	sum.Refused += s.refused
	sum.Dropped += s.dropped
	sum.Queue += len(s.waiting)
	sum.Receivers = append(sum.Receivers, ReceiverStats{s.Name, s.trouble != ""})
}
