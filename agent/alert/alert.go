// Package alert keeps the lifecycle of what must be told to people, and delivers it.
//
// What an alert means is decided by the agent; here it becomes pending, firing and resolved, survives restarts, and is
// delivered by sinks. A receiver that forgets, such as Alertmanager, is told again and again; one that remembers is told
// the beginning and the end.
package alert

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// An Alert is one thing to tell. Its identity is Name, Culprit, Severity and Labels: what may change while it lasts stands
// in the other fields, some of which become annotations.
type Alert struct {
	Name     string            `json:"name"`    // CamelCase, such as AuthvigilCredentialFailing
	Culprit  string            `json:"culprit"` // what is to blame: identity:billing, issuer:https://…, host
	Severity Severity          `json:"severity"`
	Labels   map[string]string `json:"labels,omitempty"`  // further identity: closed words and configured names only
	Summary  string            `json:"summary"`           // one sentence, constant while the cause is the same
	Details  map[string]string `json:"details,omitempty"` // annotations: description, cause, sureness, remedy, runbook_url …
	At       time.Time         `json:"at"`                // when it was seen to be so
	Onset    time.Time         `json:"onset,omitzero"`    // when the trouble began; the hold counts from it. Zero: At
	Hold     time.Duration     `json:"hold"`              // how long it must last before it fires, so that the diagnosis settles
	Passing  bool              `json:"passing,omitempty"` // it may pass by itself: it fires when it was seen again, or has lasted long
	Root     bool              `json:"root,omitempty"`    // others follow from it
	Follows  []string          `json:"follows,omitempty"` // culprits of roots that explain this one
}

// key is the identity of an alert.
func (a *Alert) key() string {
	k := a.Name + "\x00" + a.Culprit + "\x00" + string(a.Severity)
	for _, name := range slices.Sorted(maps.Keys(a.Labels)) {
		k += "\x00" + name + "=" + a.Labels[name]
	}
	return k
}

// Severity says who is told.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // somebody is woken
	Warning  Severity = "warning"  // somebody looks in the morning
)

// A Sink delivers alerts. Send is never called concurrently for one sink, must end when ctx ends, and returns nil when
// the batch was delivered. Errors that wrap ErrPermanent are not tried again with the same content, those that wrap
// ErrTooLarge are in smaller batches. A sink that holds something open is also an io.Closer.
type Sink interface {
	Send(ctx context.Context, batch []Notice) error
}

// A Notice is an alert as it is sent: with the moments of its lifecycle.
type Notice struct {
	Alert
	StartsAt time.Time // when it fired; zero: it is pending
	EndsAt   time.Time // while firing: until when the receiver should believe it; resolved: when it ended
	Resolved bool
	Silenced string // pending, and why it does not begin: maintenance, or what it follows from; empty: it is not kept back
}

var (
	// ErrPermanent means that the receiver understood and refused: sending the same again will not help.
	ErrPermanent = errors.New("refused by the receiver")
	// ErrTooLarge means that the receiver takes no batch of this size: fewer at a time may pass.
	ErrTooLarge = errors.New("too large for the receiver")
)

// A Receiver is a sink, or one instance of it, and how it wants to be told.
type Receiver struct {
	Sink
	Name   string        // of the instance: host and port, or what the kind is
	News   bool          // it remembers: tell it the beginning and the end, not every minute
	Repeat time.Duration // with News: tell what still fires again after this time; 0: never
}
