// Package diagnose goes from evidence to blame: it names the cause, the culprit and the remedy of a failing run, with
// the evidence that shows it.
//
// It is pure: no network, no clock, no file, the same answer for the same case whatever the order of what is given. It
// never sees a secret. Questions that must be asked of servers are asked by probes and arrive here as exchanges.
package diagnose

import (
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A Case is one run to be explained, with what the agent knows beside it.
type Case struct {
	Now      time.Time // local clock, when the run ended
	Sighting Sighting
	World    World
}

// A Sighting is what is known of one probe: its last run and what came before.
type Sighting struct {
	Probe    string
	Kind     string
	Endpoint string // address that was asked, as shown to people
	Origin   string // scheme://host:port of the endpoint, or empty
	Identity string // name, or empty
	Scheme   string // how the identity proves itself: bearer, basic, api_key, …
	Issuer   string // the issuer or token endpoint of the identity, or empty
	Report   evidence.Report
	Fault    *evidence.Fault // nil: the run succeeded

	RequiredScopes []string      // that the endpoint needs, by configuration
	Audience       string        // that the endpoint expects, by configuration
	Leeway         time.Duration // of the endpoint's validator; 0: unknown
	Expected       string        // what was expected: a list of status, or deny
	Environment    string        // live, test, … by configuration

	LastOK   time.Time // end of the last good run; zero: none seen
	Failing  time.Time // start of the first run of the present series of failures; zero: not failing before
	InARow   int       // failing runs in a row, this one included
	History  []string  // short statements on what was seen before or next to this failure, from people or recorded evidence
	Changes  []evidence.Change
	Provider string // who is known to answer; empty: unknown (only recorded evidence says so)
}

// A World is what the agent knows beside a run. It is made of counts and last verdicts, so that it costs the same
// whatever the number of probes.
type World struct {
	Clock        *evidence.Clock // last verdict on the local clock; nil: none
	Peers        []evidence.Peer // clocks of the servers concerned: the endpoint's, the issuer's
	SameIdentity Tally           // other probes that use the same identity
	SameOrigin   Tally           // other probes that ask the same server
	SameIssuer   Tally           // other probes whose identity has the same issuer
	Everywhere   Tally           // all other probes
	IssuerKeys   *evidence.Issuer
}

// A Tally counts the last runs of other probes.
type Tally struct {
	OK         int
	Failing    int
	Identities int // distinct identities among the failing
	Symptoms   map[evidence.Symptom]int
}

// A Finding is a cause with its culprit, the evidence and what to do.
type Finding struct {
	Cause   Cause    `json:"cause"`
	Culprit string   `json:"culprit"` // endpoint:…, identity:…, issuer:…, keyset:…, host, network:…, gateway:…, client:…
	Sure    Sureness `json:"sureness"`
	Because []string `json:"because"` // evidence lines, cleaned
	Remedy  string   `json:"remedy"`
}

// Cause is a stable id, documented by a runbook; once published it stays.
type Cause string

// Sureness says how far a finding can be relied on.
type Sureness string

// The levels of sureness.
const (
	Certain  Sureness = "certain"  // wrong less than once in a hundred
	Likely   Sureness = "likely"   // the best explanation of several
	Possible Sureness = "possible" // what would decide it stands among the evidence
)
