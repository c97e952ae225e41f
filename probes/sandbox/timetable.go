package sandbox

import (
	"context"
	"net/http"
	"slices"
	"time"
)

// A Timetable says which faults come and go, and when, in rounds that repeat.
type Timetable struct {
	Round   time.Duration // length of a round
	Entries []Entry
}

// An Entry is one fault of a Timetable.
type Entry struct {
	Name  string        // a few words, such as "certificate expired"
	Story string        // what is broken, to be read after "broken: "
	Cause string        // id of the cause that should be found
	At    time.Duration // when it comes, since the beginning of the round
	For   time.Duration // how long it stays
	Begin func(w *World)
	End   func(w *World)
}

// Run plays the timetable, round after round, until ctx ends; faults that are in force then are taken back. tell, which may
// be nil, is told of each fault as it comes (begins) and goes.
func (t Timetable) Run(ctx context.Context, w *World, tell func(e Entry, begins bool)) {
	if tell == nil {
		tell = func(Entry, bool) {}
	}
	type change struct {
		at     time.Duration
		entry  int
		begins bool
	}
	var changes []change
	for n, e := range t.Entries {
		changes = append(changes, change{e.At, n, true}, change{e.At + e.For, n, false})
	}
	slices.SortStableFunc(changes, func(a, b change) int { return int(a.at - b.at) })
	inForce := map[int]bool{}
	defer func() {
		for n := range inForce {
			t.Entries[n].End(w)
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for round := time.Now(); ; round = round.Add(t.Round) {
		for _, c := range append(changes, change{at: t.Round, entry: -1}) {
			timer.Reset(time.Until(round.Add(c.at)))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			switch {
			case c.entry < 0:
			case c.begins:
				inForce[c.entry] = true
				t.Entries[c.entry].Begin(w)
				tell(t.Entries[c.entry], true)
			default:
				delete(inForce, c.entry)
				t.Entries[c.entry].End(w)
				tell(t.Entries[c.entry], false)
			}
		}
	}
}

// Demo is the timetable of the newcomer's first minutes: one fault after the other, each in force for so long, and a third of
// that in between. Each strikes another endpoint or identity than the one before, so that no patience of a gate hides it. The
// token of PartnerID is one that was got by Mint. Tokens at issue must live no longer than DemoLifetime for a fault of the
// issuer to be felt in time; those of OrdersID and ReportsID do.
func Demo(each time.Duration) Timetable {
	api := func(set func(f *APIFaults)) func(*World) { return func(w *World) { w.API.Set(set) } }
	partner := func(set func(f *Faults)) func(*World) { return func(w *World) { w.Host(PartnerHost).Set(set) } }
	clocks := func(by time.Duration) func(*World) {
		return func(w *World) {
			for _, name := range []string{NTPHost1, NTPHost2, NTPHost3} {
				w.NTP(name).Set(func(f *NTPFaults) { f.Clock = by })
			}
		}
	}
	secret := func(is string) func(*World) {
		return func(w *World) { w.IdP.Change(OrdersID, func(c *Client) { c.Secret = is }) }
	}
	token := func(answer http.Handler, only ...string) func(*World) {
		return func(w *World) { w.IdP.Set(func(f *IdPFaults) { f.Answer, f.Only = answer, only }) }
	}
	return inTurn(each, []Entry{
		{
			Name: "scope missing", Cause: "insufficient_scope",
			Story: "the API wants a scope for /v2/devices that nobody granted",
			Begin: api(func(f *APIFaults) { f.WantScope = "devices:own" }),
			End:   api(func(f *APIFaults) { f.WantScope = "" }),
		},
		{
			Name: "certificate ends soon", Cause: "tls_cert_expiring",
			Story: "the certificate of " + PartnerHost + " ends in two days",
			Begin: partner(func(f *Faults) { f.Certificate = ending(48 * time.Hour) }),
			End:   partner(func(f *Faults) { f.Certificate = Certificate{Edition: 2} }),
		},
		{
			Name: "clock wrong", Cause: "clock_skew",
			Story: "all time servers say that this machine is 40 s behind",
			Begin: clocks(40 * time.Second), End: clocks(0),
		},
		{
			Name: "gateway blocks", Cause: "blocked_by_gateway",
			Story: "a firewall blocks /v2/health, whoever asks",
			Begin: api(func(f *APIFaults) { f.Answer, f.Only = BlockPage(), []string{"/v2/health"} }),
			End:   api(func(f *APIFaults) { f.Answer, f.Only = nil, nil }),
		},
		{
			Name: "strangers let in", Cause: "authorization_too_open",
			Story: "the API lets strangers in",
			Begin: api(func(f *APIFaults) { f.Open = true }),
			End:   api(func(f *APIFaults) { f.Open = false }),
		},
		{
			Name: "token revoked", Cause: "token_revoked",
			Story: "the fixed token of " + PartnerID + " is revoked, long before its end",
			Begin: func(w *World) { w.IdP.Revoke(PartnerID) },
			End:   func(w *World) { w.IdP.Reinstate(PartnerID) },
		},
		{
			Name: "certificate expired", Cause: "tls_cert_expired",
			Story: "the certificate of " + PartnerHost + " expired yesterday",
			Begin: partner(func(f *Faults) { f.Certificate = ending(-24 * time.Hour) }),
			End:   partner(func(f *Faults) { f.Certificate = Certificate{Edition: 3} }),
		},
		{
			Name: "key retired", Cause: "api_key_invalid",
			Story: "the API key in use is retired, and only its successor is accepted",
			Begin: api(func(f *APIFaults) { f.RetireKey = true }),
			End:   api(func(f *APIFaults) { f.RetireKey = false }),
		},
		{
			Name: "secret changed", Cause: "client_credentials_invalid", For: 2 * each,
			Story: "the secret of client " + OrdersID + " is changed at the identity provider and not here, and its tokens run out",
			Begin: secret("changed-" + OrdersSecret), End: secret(OrdersSecret),
		},
		{
			Name: "name gone", Cause: "dns_failure",
			Story: "the name " + PartnerHost + " does not resolve any more",
			Begin: partner(func(f *Faults) { f.Line = NoSuchName }),
			End:   partner(func(f *Faults) { f.Line = Open }),
		},
		{
			Name: "identity provider down", Cause: "idp_unavailable", For: 2 * each,
			Story: "the token endpoint is down, and the tokens run out",
			Begin: token(Status(http.StatusServiceUnavailable), "/token"), End: token(nil),
		},
	})
}

// ending is a certificate of 90 days that ends so long from now.
func ending(in time.Duration) Certificate {
	end := time.Now().Add(in)
	return Certificate{NotBefore: end.Add(-leafLife), NotAfter: end}
}

// inTurn puts entries one after the other. Those without a length get each.
func inTurn(each time.Duration, list []Entry) Timetable {
	at := 3 * time.Second
	for n := range list {
		e := &list[n]
		if e.For == 0 {
			e.For = each
		}
		e.At = at
		at += e.For + each/3
	}
	return Timetable{Round: at, Entries: list}
}
