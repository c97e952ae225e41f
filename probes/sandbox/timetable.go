package sandbox

import (
	"context"
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
	Story string        // one sentence for the reader: what was done to the World
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

// Demo is the timetable of the newcomer's first minutes. Each fault strikes another endpoint or identity, so that each can
// be seen by itself; the first comes after a few seconds. The token of PartnerID is one that was got by Mint.
func Demo() Timetable {
	const s = time.Second
	return Timetable{Round: 180 * s, Entries: []Entry{
		{
			Name: "scope missing", At: 3 * s, For: 25 * s, Cause: "insufficient_scope",
			Story: "The API was changed: /v2/devices now wants the scope devices:list, which the tokens of client " + ClientID + " do not have.",
			Begin: func(w *World) { w.API.Set(func(f *APIFaults) { f.WantScope = "devices:list" }) },
			End:   func(w *World) { w.API.Set(func(f *APIFaults) { f.WantScope = "" }) },
		},
		{
			Name: "certificate expired", At: 10 * s, For: 25 * s, Cause: "tls_cert_expired",
			Story: "Nobody renewed the certificate of " + PartnerHost + ": it ran out a minute ago.",
			Begin: func(w *World) {
				w.Host(PartnerHost).Set(func(f *Faults) { f.Certificate = Certificate{NotAfter: time.Now().Add(-time.Minute)} })
			},
			End: func(w *World) { w.Host(PartnerHost).Set(func(f *Faults) { f.Certificate = Certificate{Edition: 2} }) },
		},
		{
			Name: "secret changed", At: 18 * s, For: 30 * s, Cause: "client_credentials_invalid",
			Story: "The secret of client " + OrdersID + " was changed at the identity provider, and not here; the token in use runs out within seconds. A refused secret is asked for again only after minutes, lest the client be locked out.",
			Begin: func(w *World) { w.IdP.Change(OrdersID, func(c *Client) { c.Secret = "changed-" + OrdersSecret }) },
			End:   func(w *World) { w.IdP.Change(OrdersID, func(c *Client) { c.Secret = OrdersSecret }) },
		},
		{
			Name: "token revoked", At: 30 * s, For: 25 * s, Cause: "token_revoked",
			Story: "The fixed token of " + PartnerID + " was revoked long before its end.",
			Begin: func(w *World) { w.IdP.Revoke(PartnerID) },
			End:   func(w *World) { w.IdP.Reinstate(PartnerID) },
		},
		{
			Name: "gateway blocks", At: 42 * s, For: 20 * s, Cause: "blocked_by_gateway",
			Story: "A web application firewall before /v2/health refuses every request, whoever asks.",
			Begin: func(w *World) {
				w.API.Set(func(f *APIFaults) { f.Answer, f.Only = BlockPage(), []string{"/v2/health"} })
			},
			End: func(w *World) { w.API.Set(func(f *APIFaults) { f.Answer, f.Only = nil, nil }) },
		},
		{
			Name: "identity provider down", At: 55 * s, For: 30 * s, Cause: "idp_unavailable",
			Story: "The token endpoint answers 503; clients whose tokens live for seconds are the first to suffer.",
			Begin: func(w *World) { w.IdP.Set(func(f *IdPFaults) { f.Answer, f.Only = Status(503), []string{"/token"} }) },
			End:   func(w *World) { w.IdP.Set(func(f *IdPFaults) { f.Answer, f.Only = nil, nil }) },
		},
		{
			Name: "key retired", At: 70 * s, For: 25 * s, Cause: "api_key_invalid",
			Story: "The API key in use was retired; only its successor is accepted.",
			Begin: func(w *World) { w.API.Set(func(f *APIFaults) { f.RetireKey = true }) },
			End:   func(w *World) { w.API.Set(func(f *APIFaults) { f.RetireKey = false }) },
		},
		{
			Name: "name gone", At: 85 * s, For: 20 * s, Cause: "dns_failure",
			Story: "The name " + PartnerHost + " does not resolve any more.",
			Begin: func(w *World) { w.Host(PartnerHost).Set(func(f *Faults) { f.Line = NoSuchName }) },
			End:   func(w *World) { w.Host(PartnerHost).Set(func(f *Faults) { f.Line = Open }) },
		},
		{
			Name: "clock wrong", At: 105 * s, For: 20 * s, Cause: "clock_skew",
			Story: "The three time servers agree that the clock of this machine is 90 seconds ahead (it is they who are behind, but who would know).",
			Begin: func(w *World) { skewTimeServers(w, -90*time.Second) },
			End:   func(w *World) { skewTimeServers(w, 0) },
		},
	}}
}

func skewTimeServers(w *World, by time.Duration) {
	for _, name := range []string{NTPHost1, NTPHost2, NTPHost3} {
		w.NTP(name).Set(func(f *NTPFaults) { f.Clock = by })
	}
}
