package probes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/beevik/ntp"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	burstMost       = 4                       // packets to one server in a burst
	packetGap       = 2 * time.Second         // between two packets to one server
	maxRTT          = time.Second             // an answer that is later says too little
	maxRootDistance = 1500 * time.Millisecond // ntp.org's limit; RFC 5905 has 1 s, chrony 3 s
	maxStratum      = 10                      // who is further from the truth is hardly synchronised
	dialMost        = 3 * time.Second         // resolving a name included, which lies outside the library's timeout
	silentMost      = 2                       // unanswered packets end a burst
	retryLater      = 64 * time.Second        // after a burst without a usable answer
	fineEnough      = 10                      // a bound below this part of max_skew ends a burst
)

// What a kiss-o'-death asks for (RFC 5905 section 7.4) and what comes of it.
const (
	kissFactor  = 4                // RATE: how much rarer to ask
	kissRarest  = 68 * time.Minute // RATE: never rarer than this
	kissForget  = 24 * time.Hour   // RATE: how long it is remembered
	kissDeny    = 24 * time.Hour   // DENY, RSTR: how long to stay away
	kissRepeats = 3                // DENY, RSTR without a signature: how often it must be said, because anybody may have said it
)

// A timeServer is one NTP server, whoever asks it: all probes of an agent keep to one pace.
type timeServer struct {
	address string
	turn    chan struct{} // holds one token: who has it owns what follows

	recalled bool
	kiss     kissState
	sent     time.Time // the last packet
	looked   time.Time // the last burst began
	next     time.Time // not before this a burst
	last     evidence.ClockSource
	good     time.Time // the last usable answer
	err      error     // of the last burst
}

// A kissState is what a server asked of us. It outlives restarts, so that days are days.
type kissState struct {
	Until  time.Time `json:"until"`
	Code   string    `json:"code"`
	Factor int       `json:"factor"` // by which the pace is slowed
	Raised time.Time `json:"raised"` // when it was last slowed
	Denied int       `json:"denied"` // unsigned wishes to be left alone, since the last good answer
}

// timeServer finds or makes the server at an address. One that is asked with a key is its probe's own: what it says to another
// key is another voice.
func (s *Shared) timeServer(address, owner string) *timeServer {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := address + " " + owner
	t := s.servers[name]
	if t == nil {
		t = &timeServer{address: address, turn: make(chan struct{}, 1)}
		t.turn <- struct{}{}
		s.servers[name] = t
	}
	return t
}

// A burst is what asking a server brought, beside the source itself.
type burst struct {
	kisses []string // codes, of this run
	good   time.Time
	err    error // for the classification of own distress
}

// ask gives the voice of one server: by a burst of packets, or, where the last one is recent, by what that one found.
func (p *ntpProbe) ask(ctx context.Context, i int) (evidence.ClockSource, burst) {
	t, name := p.places[i], p.Servers[i]
	select {
	case <-t.turn:
		defer func() { t.turn <- struct{}{} }()
	case <-ctx.Done():
		return evidence.ClockSource{Name: name, State: "unreachable", Code: "timeout", Detail: "was being asked by another probe until the time was over"}, burst{err: ctx.Err()}
	}
	p.recallKiss(t)
	now := time.Now()
	var kisses []string
	switch {
	case now.Before(t.kiss.Until):
		state := "suspended"
		if t.kiss.Code == "RATE" {
			state = "kissed"
		}
		t.last = evidence.ClockSource{State: state, Code: t.kiss.Code, Detail: "asked by " + t.kiss.Code + " to be left alone, and is until " + t.kiss.Until.UTC().Format(time.RFC3339)}
	case now.Before(t.next) && p.step(t.looked, now).Abs() <= evidence.ClockStep:
	default:
		kisses = p.burst(ctx, t, name)
	}
	s := t.last
	s.Name = name
	if !s.Measured.IsZero() {
		s.Bound += evidence.Wander(time.Since(s.Measured))
	}
	return s, burst{kisses, t.good, t.err}
}

// An answer is what one packet brought.
type answer struct {
	evidence.ClockSource
	kiss   string // code of a kiss-o'-death
	empty  bool   // it came without a time
	signed bool
	err    error
}

// burst asks up to four times and keeps the answer with the shortest round trip, which is the surest (the clock filter of
// RFC 5905 section 10). It ends as soon as an answer is fine enough for the limit: more would only be a burden.
func (p *ntpProbe) burst(ctx context.Context, t *timeServer, name string) (kisses []string) {
	var best evidence.ClockSource
	worst := answer{ClockSource: evidence.ClockSource{State: "unreachable", Code: "timeout", Detail: "was not asked, because the time was over"}, err: ctx.Err()}
	t.looked = time.Now()
	remote, silent := "", 0
loop:
	for n := 0; n < burstMost && silent < silentMost && p.await(ctx, t, n); n++ {
		var a answer
		a, remote = p.packet(ctx, t, name, remote)
		if a.State != "truechimer" {
			worst = a
		}
		switch {
		case p.step(t.looked, time.Now()).Abs() > evidence.ClockStep:
			best = evidence.ClockSource{}
			worst = answer{ClockSource: evidence.ClockSource{State: "invalid", Code: "local_step", Detail: "was being asked when the local clock was set"}}
			break loop
		case a.kiss != "":
			kisses, best = append(kisses, a.kiss), evidence.ClockSource{}
			p.kissed(t, a)
			break loop
		case a.State == "unreachable":
			silent++
		case a.State == "truechimer":
			if best.State == "" || a.RTT < best.RTT {
				best = a.ClockSource
			}
			if best.Bound <= p.MaxSkew/fineEnough {
				break loop
			}
		case a.Code != "mismatch" && a.Code != "slow": // these say nothing of the server itself
			break loop
		}
	}
	now := time.Now()
	if best.State != "" {
		t.last, t.good, t.err = best, best.Measured, nil
		t.next = now.Add(p.pace(t, now))
		p.heardFrom(t)
		return kisses
	}
	t.last, t.err = worst.ClockSource, worst.err
	t.next = now.Add(min(p.Poll, retryLater))
	if silent > 0 && t.kiss.Denied > 0 {
		p.suspend(t, t.kiss.Code, now) // it said so without a signature, and keeps its word
	}
	return kisses
}

// await waits until the server may be sent a packet, and says whether there is time left for one.
func (p *ntpProbe) await(ctx context.Context, t *timeServer, n int) bool {
	wait := time.Duration(0)
	if !t.sent.IsZero() {
		wait = packetGap - time.Since(t.sent)
	}
	if deadline, ok := ctx.Deadline(); ok && n > 0 && time.Until(deadline) < max(wait, 0)+maxRTT {
		return false
	}
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}

// packet asks once. remote is the address that the name led to before in this burst, or empty; it is given back. Every packet
// leaves from a port of its own, so that an answer that is late meets nobody.
func (p *ntpProbe) packet(ctx context.Context, t *timeServer, name, remote string) (answer, string) {
	a := answer{ClockSource: evidence.ClockSource{State: "unreachable", Code: "timeout", Detail: "gave no answer in time"}}
	auth, err := p.auth(ctx, name)
	if err != nil {
		a.State, a.Code, a.Detail, a.err = "invalid", "no_key", evidence.Clean(err.Error(), 128), err
		return a, remote
	}
	dialling, done := context.WithTimeout(ctx, dialMost)
	conn, _, err := wire.DialAny(dialling, p.env.Net, "udp", cmp.Or(remote, t.address), nil)
	done()
	if err != nil {
		f := wire.Classify(dialling, evidence.StageConnect, err)
		a.Code, a.Detail, a.err = string(f.Symptom), f.Error(), err
		return a, remote
	}
	defer conn.Close()
	if at := conn.RemoteAddr(); at != nil && p.env.Net.Lookup != nil {
		remote = at.String()
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	t.sent = time.Now()
	e := &ear{}
	r, err := ntp.QueryWithOptions("192.0.2.1", ntp.QueryOptions{ // the dialer knows the way
		Timeout: maxRTT, Auth: auth, Extensions: []ntp.Extension{e},
		Dialer: func(string, string) (net.Conn, error) { return conn, nil },
	})
	a.signed = auth.Type != ntp.AuthNone && err == nil
	if a.kiss, a.empty = e.kiss(); a.kiss != "" { // the library takes it for an answer with a nonsense offset, or for an error without the code
		a.State, a.Code, a.Detail = "kissed", a.kiss, "sent a kiss-o'-death "+a.kiss
		return a, remote
	}
	if err != nil {
		a.err = err
		a.State, a.Code, a.Detail = nameNTP(ctx, err, e)
		return a, remote
	}
	return p.weigh(a, r), remote
}

// weigh makes an interval of an answer, or says why it cannot be used.
func (p *ntpProbe) weigh(a answer, r *ntp.Response) answer {
	a.Skew, a.RTT, a.RootDistance, a.Stratum = -r.ClockOffset, r.RTT, r.RootDistance, int(r.Stratum)
	a.Bound = r.RTT/2 + r.RootDelay/2 + r.RootDispersion + r.Precision + time.Microsecond
	a.State = "invalid"
	switch err := r.Validate(); {
	case err != nil:
		_, a.Code, a.Detail = nameNTP(context.Background(), err, nil)
	case r.RootDistance > maxRootDistance:
		a.Code, a.Detail = "distance", fmt.Sprintf("is %s away from its own reference (root distance)", r.RootDistance.Round(time.Millisecond))
	case r.Stratum > maxStratum:
		a.Code, a.Detail = "stratum", fmt.Sprintf("is of stratum %d, too far from a reference", r.Stratum)
	case r.RTT > maxRTT:
		a.Code, a.Detail = "slow", fmt.Sprintf("took %s to answer", r.RTT.Round(time.Millisecond))
	default:
		a.State, a.Code, a.Detail, a.Measured = "truechimer", "", "", time.Now()
		switch r.Leap {
		case ntp.LeapAddSecond:
			a.Leap = 1
		case ntp.LeapDelSecond:
			a.Leap = -1
		}
	}
	if a.State == "invalid" { // what it says of the time is not to be shown
		a.Skew, a.Bound = 0, 0
	}
	return a
}

// An ear hears the packets themselves, because the library loses the code of some kisses. NTS (RFC 8915) would have its
// place here, too: it is an extension of the packet, and a handshake before the burst that yields its keys.
type ear struct{ sent, heard []byte }

// ProcessQuery implements ntp.Extension.
func (e *ear) ProcessQuery(buf *bytes.Buffer) error {
	e.sent = bytes.Clone(buf.Bytes())
	return nil
}

// ProcessResponse implements ntp.Extension.
func (e *ear) ProcessResponse(buf []byte) error {
	e.heard = bytes.Clone(buf[:min(len(buf), 48)])
	return nil
}

// kiss gives the code of a kiss-o'-death, or nothing: one that answers another question than ours is not believed. A code
// that is none is spelt "other". empty: the packet has no transmit time.
func (e *ear) kiss() (code string, empty bool) {
	const origin, transmit = 24, 40
	if len(e.heard) < 48 || e.heard[0]&7 != 4 || e.heard[1] != 0 || !bytes.Equal(e.heard[origin:origin+8], e.sent[transmit:transmit+8]) {
		return "", false
	}
	code = strings.TrimRight(string(e.heard[12:16]), "\x00 ")
	if !slices.Contains(kissCodes, code) {
		code = "other"
	}
	return code, bytes.Equal(e.heard[transmit:], make([]byte, 8))
}

// kissCodes are those that are told apart (RFC 5905 section 7.4). INIT and STEP tell of a server that is not synchronised
// yet, and ask for nothing.
var kissCodes = []string{"RATE", "DENY", "RSTR", "INIT", "STEP", "other"}

// nameNTP says in a state, a closed word and a sentence why there is no usable answer.
func nameNTP(ctx context.Context, err error, e *ear) (state, code, detail string) {
	if _, ok := errors.AsType[net.Error](err); ok || ctx.Err() != nil {
		f := wire.Classify(ctx, evidence.StageNTP, err)
		if f.Symptom == evidence.SymptomTimeout {
			return "unreachable", "timeout", "gave no answer in time"
		}
		return "unreachable", string(f.Symptom), "gave no answer: " + f.Error()
	}
	state = "invalid"
	switch {
	case errors.Is(err, ntp.ErrAuthFailed):
		return state, "auth_failed", "gave an answer that its key did not sign"
	case errors.Is(err, ntp.ErrAuthNAK):
		return state, "crypto_nak", "does not accept the key"
	case errors.Is(err, ntp.ErrInvalidAuthKey):
		return state, "no_key", "cannot be asked: the key is too short or not hexadecimal"
	case errors.Is(err, ntp.ErrServerResponseMismatch):
		return state, "mismatch", "gave an answer to a question that was not ours, as who forges answers does"
	case e != nil && len(e.heard) < 48:
		return state, "short", "gave an answer that is too short"
	case errors.Is(err, ntp.ErrInvalidLeapSecond), errors.Is(err, ntp.ErrInvalidStratum):
		return state, "unsynchronised", "says of itself that it is not synchronised"
	case errors.Is(err, ntp.ErrServerClockFreshness):
		return state, "stale", "has not heard of its own reference for more than a day"
	case errors.Is(err, ntp.ErrInvalidDispersion):
		return state, "distance", "is too far away from its own reference (root distance)"
	default:
		return state, "malformed", "gave an answer that is not valid: " + evidence.Clean(err.Error(), 96)
	}
}

// pace is how long a server is left alone after a good burst.
func (p *ntpProbe) pace(t *timeServer, now time.Time) time.Duration {
	if t.kiss.Factor > 1 && now.Sub(t.kiss.Raised) < kissForget {
		return max(min(p.Poll*time.Duration(t.kiss.Factor), kissRarest), p.Poll)
	}
	return p.Poll
}

// kissed obeys a kiss-o'-death.
func (p *ntpProbe) kissed(t *timeServer, a answer) {
	now := time.Now()
	switch {
	case a.kiss == "RATE" || a.empty && a.kiss == "other": // without a time and a code it may be any kiss
		if now.Sub(t.kiss.Raised) >= kissForget {
			t.kiss.Factor = 1
		}
		t.kiss.Factor, t.kiss.Raised, t.kiss.Code = min(max(t.kiss.Factor, 1)*kissFactor, 1<<10), now, "RATE"
		t.kiss.Until = now.Add(p.pace(t, now))
		p.keepKiss(t)
	case a.kiss == "DENY" || a.kiss == "RSTR":
		t.kiss.Code = a.kiss
		if t.kiss.Denied++; a.signed || t.kiss.Denied >= kissRepeats {
			p.suspend(t, a.kiss, now)
			return
		}
		p.keepKiss(t)
	}
}

// suspend leaves a server alone for a day.
func (p *ntpProbe) suspend(t *timeServer, code string, now time.Time) {
	t.kiss.Code, t.kiss.Until, t.kiss.Denied = code, now.Add(kissDeny), 0
	p.keepKiss(t)
}

// heardFrom forgets what an unsigned packet said, because the server answers well.
func (p *ntpProbe) heardFrom(t *timeServer) {
	if t.kiss.Denied > 0 || t.kiss.Factor > 1 && time.Since(t.kiss.Raised) >= kissForget {
		t.kiss.Denied = 0
		if time.Since(t.kiss.Raised) >= kissForget {
			t.kiss.Factor = 0
		}
		p.keepKiss(t)
	}
}

// recallKiss reads once what the server asked of us before the start. A clock that was wrong then, or is now, does not make
// the wait longer than the longest there is.
func (p *ntpProbe) recallKiss(t *timeServer) {
	if t.recalled || p.env.Store == nil {
		return
	}
	t.recalled = true
	var k kissState
	b, err := p.env.Store.Load("ntp/" + t.address)
	if err != nil || len(b) == 0 || json.Unmarshal(b, &k) != nil {
		return
	}
	if now := time.Now(); k.Until.After(now.Add(kissDeny)) {
		k.Until = now.Add(kissDeny)
	}
	t.kiss = k
}

// keepKiss writes down what the server asked of us. That it cannot be kept fails nothing.
func (p *ntpProbe) keepKiss(t *timeServer) {
	if p.env.Store == nil {
		return
	}
	b, err := json.Marshal(t.kiss)
	if err == nil {
		err = p.env.Store.Save("ntp/"+t.address, b)
	}
	if err != nil {
		p.env.Log.Warn("what a time server asked of us is not kept over a restart", "address", t.address, "error", err)
	}
}
