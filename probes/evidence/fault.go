package evidence

import (
	"errors"
	"fmt"
)

// Stage is where in a run something happened.
type Stage string

// The stages of a run, in order.
const (
	StageConfig    Stage = "config" // before anything was sent: a secret that cannot be read, a held gate
	StageResolve   Stage = "resolve"
	StageConnect   Stage = "connect"
	StageTLS       Stage = "tls"
	StageDiscovery Stage = "discovery"
	StageToken     Stage = "token"
	StageAPI       Stage = "api"
	StageNTP       Stage = "ntp"
	StageLog       Stage = "log"
)

// Stages lists all stages.
var Stages = []Stage{StageConfig, StageResolve, StageConnect, StageTLS, StageDiscovery, StageToken, StageAPI, StageNTP, StageLog}

// Symptom is what was seen; what is to blame is decided elsewhere. The list is closed and append-only.
type Symptom string

// The symptoms.
const (
	SymptomUnauthorized   Symptom = "unauthorized"     // 401
	SymptomForbidden      Symptom = "forbidden"        // 403
	SymptomThrottled      Symptom = "throttled"        // 429, or a refusal that carries rate limit headers
	SymptomUnexpected     Symptom = "unexpected"       // an answer with another status than expected
	SymptomServerError    Symptom = "server_error"     // 5xx
	SymptomRedirected     Symptom = "redirected"       // 3xx where an answer was expected
	SymptomGranted        Symptom = "granted"          // access that should have been refused
	SymptomBadAnswer      Symptom = "bad_answer"       // an answer that cannot be understood
	SymptomTooLarge       Symptom = "too_large"        // an answer over a limit
	SymptomTokenRefused   Symptom = "token_refused"    // the token endpoint said no; Code is its error
	SymptomTokenLifetime  Symptom = "token_lifetime"   // too little of a token's life is left
	SymptomDNS            Symptom = "dns"              // the name does not resolve
	SymptomRefused        Symptom = "refused"          // connection refused
	SymptomUnreachable    Symptom = "unreachable"      // no route
	SymptomClosed         Symptom = "closed"           // connection reset or closed without an answer
	SymptomTimeout        Symptom = "timeout"          // no answer in time
	SymptomProxy          Symptom = "proxy"            // the proxy on the way refused
	SymptomBadCertificate Symptom = "bad_certificate"  // the server's certificate is not acceptable; Code is the reason
	SymptomTLSAlert       Symptom = "tls_alert"        // the handshake ended by an alert of the server
	SymptomTLS            Symptom = "tls"              // the handshake failed otherwise
	SymptomCertificate    Symptom = "certificate_soon" // a certificate wants attention
	SymptomClockSkew      Symptom = "clock_skew"       // the local clock is off
	SymptomClockUnknown   Symptom = "clock_unknown"    // no reliable answer about the time
	SymptomIssuer         Symptom = "issuer"           // metadata or keys of an issuer are wrong
	SymptomScope          Symptom = "scope"            // the token lacks a scope that is required
	SymptomInactive       Symptom = "inactive"         // introspection says the token is not active
	SymptomSpike          Symptom = "spike"            // unusual rate of refusals in real traffic
	SymptomSource         Symptom = "source"           // a log or file cannot be read
	SymptomSecret         Symptom = "secret"           // a secret cannot be had or is malformed
	SymptomHeld           Symptom = "held"             // a gate kept the question back; nothing was sent
	SymptomLocalResources Symptom = "local_resources"  // this machine: no file descriptors, no memory, no resolver
	SymptomPanic          Symptom = "panic"            // a defect of authvigil
	SymptomUnknown        Symptom = "unknown"          // not classified
	SymptomIndeterminate  Symptom = "indeterminate"    // a refresh token may or may not have been spent
	SymptomRuleViolated   Symptom = "rule_violated"    // a protocol rule that the probe checks was broken; Code names it
	SymptomCredentialSoon Symptom = "credential_soon"  // a secret is due for rotation or about to expire
	SymptomSecretAway     Symptom = "secret_away"      // the place where a secret is kept cannot be asked
	SymptomStillAccepted  Symptom = "still_accepted"   // a revoked token is still accepted
)

// A Fault is an error that knows where and what. It is the only error that leaves package probes.
type Fault struct {
	Stage   Stage
	Symptom Symptom
	Code    string // the protocol's own word: invalid_client, 429, expired, …
	Err     error
}

// Error is one sentence: stage, the protocol's word, and what happened.
func (f *Fault) Error() string {
	switch {
	case f.Err == nil && f.Code == "":
		return fmt.Sprintf("%s: %s", f.Stage, f.Symptom)
	case f.Err == nil:
		return fmt.Sprintf("%s: %s (%s)", f.Stage, f.Symptom, f.Code)
	default:
		return fmt.Sprintf("%s: %v", f.Stage, f.Err)
	}
}

// Unwrap gives the error beneath.
func (f *Fault) Unwrap() error { return f.Err }

// Own says whether the fault lies with authvigil or its machine, so that nothing can be said about what was probed.
func (f *Fault) Own() bool {
	switch f.Symptom {
	case SymptomLocalResources, SymptomPanic, SymptomSecretAway:
		return true
	default:
		return false
	}
}

// Held says whether nothing was sent because a gate was closed to it.
func (f *Fault) Held() bool { return f.Symptom == SymptomHeld }

// AsFault finds the fault in err. An error without one becomes a fault of unknown symptom.
func AsFault(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Stage: StageAPI, Symptom: SymptomUnknown, Err: err}
}
