// Package alert keeps the lifecycle of what must be told to people, and delivers it.
//
// What an alert means is decided by the agent; here it becomes pending, firing and resolved, survives restarts, and is
// sent to every sink, again and again while it lasts, because receivers keep alerts in memory only.
package alert

import (
	"context"
	"errors"
	"time"
)

// An Alert is one thing to tell. Its identity is Name, Culprit and Severity: what may change while it lasts stands in
// the other fields, which become annotations.
type Alert struct {
	Name     string // CamelCase, such as AuthvigilCredentialFailing
	Culprit  string // what is to blame: identity:billing, issuer:https://…, host
	Severity Severity
	Labels   map[string]string // further identity: closed words and configured names only
	Summary  string            // one sentence, constant while the cause is the same
	Details  map[string]string // annotations: description, cause, sureness, evidence, remedy, runbook_url, onset, probes …
	Active   bool              // false: it is over
	At       time.Time         // when the state given here was observed
	Hold     time.Duration     // how long it must last before it fires, so that the diagnosis settles
}

// Severity says who is told.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // somebody is woken
	Warning  Severity = "warning"  // somebody looks in the morning
)

// A Sink delivers alerts. Send is never called concurrently for one sink, must end when ctx ends, and returns nil when
// the batch was delivered. Errors that wrap ErrPermanent are not tried again with the same content.
type Sink interface {
	Send(ctx context.Context, batch []Notice) error
}

// A Notice is an alert as it is sent: with the moments of its lifecycle.
type Notice struct {
	Alert
	StartsAt time.Time // when it fired
	EndsAt   time.Time // while firing: until when the receiver should believe it; resolved: when it ended
	Resolved bool
}

// ErrPermanent means that the receiver understood and refused: sending the same again will not help.
var ErrPermanent = errors.New("refused by the receiver")
