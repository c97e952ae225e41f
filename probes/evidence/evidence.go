// Package evidence is the language that everything in authvigil speaks: what one run of a probe saw.
//
// It holds plain data and the parsers of what servers say about authentication. It depends on nothing else of this
// module, opens no connection and reads no clock, so that evidence can be written down, pasted and replayed.
// Nothing in it may hold a secret: texts that come from servers pass [Clean] and the scrubber of package secret first.
package evidence

import "time"

// A Report is what a run brings home. It may be filled although the run failed: an expired certificate still has dates.
type Report struct {
	Readings  []Reading   // numbers for dashboards
	Exchanges []Exchange  // requests and answers in order; a second try with a fresh grant is the second entry
	Answers   map[int]int // answers seen in bulk, by status (access logs)
	Token     *Token      // facts about the token in use; never the token
	Chain     *Chain      // facts about certificates, kept even when verification failed
	Clock     *Clock      // what is known of the local clock
	Peers     []Peer      // what is known of other clocks
	Issuer    *Issuer     // facts about an identity provider's metadata and keys
	Spikes    []Spike     // unusual rates of refusals, when the run looked at many answers
	Notes     []Note      // what a kind found by itself and a cause can be built upon
}

// A Metric declares one number that a kind of probe can bring home. It is declared next to the code that measures it.
type Metric struct {
	Name    string   // without the prefix authvigil_
	Help    string   // whose clock against whose, unit, what absence means
	Counter bool     // the reading is added to a total; otherwise it replaces the former one
	Labels  []string // in order; probe, kind, endpoint and identity are filled in by the exporter, the others by Reading.Labels
}

// A Reading is one number for a dashboard.
type Reading struct {
	Metric *Metric
	Labels []string // values of those labels of Metric that the exporter does not fill in, in order
	Value  float64
}

// An Exchange is one request and its answer, or the lack of one.
type Exchange struct {
	Stage    Stage
	Purpose  Purpose // why it was asked
	Method   string
	URL      string // without user info and query values
	Scheme   string // how the request proved who asks: none, bearer, basic, api_key, …; what was sent is known, never its text
	Identity string // that asked, where it is not the probe's own; empty: the probe's
	Grant    string // names the grant that was used, so that two exchanges can be compared; not derived from its text in a reversible way
	Started  time.Time
	Took     time.Duration
	Timing   Timing
	Remote   string // address that answered

	Status      int // 0: no answer
	Proto       string
	Header      map[string][]string // canonical names; only those that help, cleaned
	Body        string              // beginning of the body, cleaned; kept for answers that were not expected
	BodyBytes   int64               // how much was read, up to the limit
	BodyCut     bool                // the answer was longer than what was read
	RetryAfter  time.Duration       // from Retry-After (RFC 9110 section 10.2.3); 0: not said
	Fault       *Fault              // why there is no usable answer
	Unencrypted bool                // the request went over plain HTTP
	Recalled    bool                // of an earlier run: nothing was sent in this one, because the answer would be the same
	Date        *ClockSample        // by the Date header; nil: it says nothing of the server's clock now
}

// OK says whether there was an answer with a status of success (2xx).
func (x Exchange) OK() bool { return x.Fault == nil && x.Status/100 == 2 }

// Timing splits an exchange into its stages; zero where a stage did not happen, as on a reused connection.
type Timing struct {
	Resolve, Connect, TLS, FirstByte, Body time.Duration
}

// Purpose says why an exchange took place.
type Purpose string

// The purposes. The first question has none.
const (
	First           Purpose = ""
	WithFreshGrant  Purpose = "fresh_grant"        // the same request with a newly obtained grant
	WithoutGrant    Purpose = "no_credential"      // the same request, nothing to prove who asks
	WithDamaged     Purpose = "damaged_credential" // the same request, signature of the token spoilt
	ProtocolStep    Purpose = "protocol_step"      // asked again because the protocol says so (RFC 9449 section 8, RFC 7616)
	OtherMethod     Purpose = "other_method"       // HEAD or OPTIONS
	Sibling         Purpose = "sibling"            // another endpoint of the same server
	AskIssuer       Purpose = "ask_issuer"         // discovery, key set or introspection
	Obtain          Purpose = "obtain"             // a grant was obtained or refreshed
	Redirected      Purpose = "redirected"         // followed to the same origin
	Revoke          Purpose = "revoke"             // a token was withdrawn (RFC 7009)
	AfterRevocation Purpose = "after_revocation"   // the same request with a token that was withdrawn
	WithNextSecret  Purpose = "next_secret"        // with the secret that will follow the one in use
	MustRefuse      Purpose = "must_refuse"        // a question that has to be refused
)

// Token holds facts about a token. Times are those of the token; zero where it does not say.
type Token struct {
	Name      string // access, refresh, id
	Format    string // jwt, jwe, opaque
	Alg, Kid  string
	Type      string // header typ
	Issuer    string
	Audience  []string
	ClientID  string
	Scopes    []string // scope, scp, roles and permissions together
	Issued    time.Time
	NotBefore time.Time
	Expiry    time.Time     // by claim, or by expires_in where the token is opaque
	ExpiresIn time.Duration // as advertised by the token endpoint; 0: not said
	Obtained  time.Time     // by the local clock
	Signature Signature
	Active    State    // what its server says when it is asked (RFC 7662): ok, fail; empty: not asked
	Bound     string   // cnf confirmation: jkt, x5t#S256
	ID        bool     // an ID token (OpenID Connect Core section 2): it tells a client who logged in, and no API should accept it
	Problems  []string // what is wrong with its form, in words
}

// Signature is what is known about the signature of a token.
type Signature string

// The states of a signature check against the issuer's key set.
const (
	SignatureUnknown    Signature = "" // not checked
	SignatureValid      Signature = "valid"
	SignatureInvalid    Signature = "invalid"
	SignatureKeyMissing Signature = "key_missing" // the kid is not in the key set
	SignatureNone       Signature = "none"        // alg none
)

// Chain holds facts about the certificates that an endpoint presented or a file holds.
type Chain struct {
	Address           string // that was asked, or the path of the file
	ServerName        string
	Certificates      []Certificate // in the order presented
	Facets            []Facet       // each judged by itself
	PresentedNotAfter time.Time     // earliest end of what was presented
	VerifiedNotAfter  time.Time     // best verified chain: its earliest end; zero when none could be built
	TLSVersion        string
	Protocol          string // starttls dialect, or file format
	ClientCertificate *Certificate
	RequestedClient   bool // the server asked for a client certificate
}

// Certificate holds facts about one certificate.
type Certificate struct {
	Role        string // leaf, intermediate, root
	Subject     string
	Issuer      string
	Serial      string // hexadecimal
	Fingerprint string // SHA-256, hexadecimal, first 16 digits
	DNSNames    []string
	NotBefore   time.Time
	NotAfter    time.Time
	KeyType     string // RSA-2048, ECDSA-P-256, Ed25519
	Signature   string
	SelfSigned  bool
}

// A Facet is one question about a chain, judged by itself so that one defect never hides another.
type Facet struct {
	Name   string // time, name, trust, chain_complete, key_usage, strength, revocation, staple, issuer_expected, consistency, deployed, client_certificate
	State  State
	Detail string // one sentence where the state is not ok
	Code   string // closed word for rules: expired, not_yet_valid, expiring, self_signed, unknown_authority, …
	// AtTrueTime is the same judged by the corrected clock, where the local clock is known to be wrong and the verdicts
	// differ; unknown where a lone voice about the time leaves it open; empty: the same, or nothing is known.
	AtTrueTime State
}

// State is the outcome of a single judgement.
type State string

// The states of a facet.
const (
	OK      State = "ok"
	Warn    State = "warn" // acceptable now, wants attention
	Fail    State = "fail"
	Unknown State = "unknown"
)

// Clock is what is known about the local clock. Skew is always local minus reference: positive when we are ahead.
type Clock struct {
	Skew       time.Duration
	Bound      time.Duration // half-width of the interval that holds the true skew
	Confidence Confidence
	Reference  string // whose word that is: consensus (of the time servers), chrony, kernel, peers; empty: nobody's
	Sources    []ClockSource
	Own        []ClockSource // what this machine says of its own clock: chrony, kernel
	Measured   time.Time
	Limit      time.Duration // skew that the operator tolerates, with what a leap second adds to it
}

// Confidence is how far a statement about the local clock can be relied on.
type Confidence string

// The levels of confidence.
const (
	Confident    Confidence = "confident"  // at least three sources, strict majority agrees
	LowConfident Confidence = "low"        // two sources agree
	Unverified   Confidence = "unverified" // one source
	NoConfidence Confidence = "none"       // no answer, or no majority
)

// ClockSource is one voice about the time.
type ClockSource struct {
	Name         string
	State        string        // truechimer, falseticker, unreachable, invalid, kissed, suspended
	Code         string        // why it is not a truechimer, as a closed word: timeout, short, mismatch, auth_failed, RATE, …
	Skew         time.Duration // local minus source
	Bound        time.Duration
	RTT          time.Duration
	RootDistance time.Duration // of the source to its own reference, with the way to it
	Stratum      int
	Leap         int       // seconds that will be inserted at the end of the month; -1: one will be left out
	Measured     time.Time // zero: it gave no usable answer
	Detail       string
}

// Peer is what is known of another party's clock.
type Peer struct {
	Name     string        // origin of the server, or issuer
	Method   string        // http_date, token_iat
	Skew     time.Duration // local minus peer: positive when the peer is behind us
	Bound    time.Duration
	Samples  int           // that the interval rests upon
	Backdate time.Duration // token_iat: how far the issuer dates its tokens back, which is no skew
	Disagree bool          // several servers answer to this name, and their clocks differ
	Measured time.Time
}

// A ClockSample is what one answer says of the clock of who gave it: local minus peer lies between Low and High.
type ClockSample struct {
	Low, High time.Duration
	At        time.Time // local, when the answer came
}

// Issuer holds facts about an identity provider.
type Issuer struct {
	URL        string
	Advertised string // issuer as its metadata says it
	Keys       []Key
	Problems   []Note // in the order of weight
	Changes    []Change
}

// Key is one published key.
type Key struct {
	Kid, Type, Alg, Use string
	Problem             string // why it cannot be used; empty: usable
}

// Note is something a kind established that a cause can rest upon.
type Note struct {
	Code   string // closed word, documented by the kind that writes it
	Detail string // one sentence, cleaned
}

// A Change is something that is not as it was.
type Change struct {
	What string // secret_file, token_kid, certificate, issuer_metadata, jwks, clock_step
	From string
	To   string
	At   time.Time
}

// Spike is a verdict on the rate of refusals at an endpoint (a path pattern, or * for all).
type Spike struct {
	Name        string // AuthFailureSpike, AuthFailureClients, ClientAuthFailing, TrafficAbsent
	Endpoint    string
	Client      string // ClientAuthFailing: whose credential fails, as a name that may be shown
	Severity    string // critical, warning
	Active      bool
	Started     time.Time // when it was decided
	Onset       time.Time // when it is thought to have begun
	Ended       time.Time
	Pattern     string // one_client, many_clients, one_endpoint, all
	Clients     string // who, with shares
	Refused     int
	Requests    int
	Baseline    float64 // usual share of refusals
	Description string
}
