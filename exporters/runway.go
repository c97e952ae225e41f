package exporters

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/probes/evidence"
)

// A Runway is how long something still holds: a token, a credential, a certificate.
type Runway struct {
	What    string    `json:"what"`  // access token, refresh token, credential, secret, certificate, intermediate certificate
	Whose   string    `json:"whose"` // identity:NAME, or the address of the certificate
	Begins  time.Time `json:"begins,omitzero"`
	Ends    time.Time `json:"ends"`
	Renewed bool      `json:"renewed"` // authvigil obtains a new one by itself
	Probes  []string  `json:"probes"`  // that use it
}

// Runways lists what runs out, next first. What authvigil renews by itself stands last: its end is no news.
func (s *Status) Runways() []Runway {
	type key struct{ what, whose string }
	found := map[key]*Runway{}
	newest := map[key]time.Time{}
	add := func(ev *agent.Event, r Runway) {
		k := key{r.What, r.Whose}
		have := found[k]
		if have == nil {
			found[k], newest[k], r.Probes = &r, ev.Started, []string{ev.Probe}
			return
		}
		if !slices.Contains(have.Probes, ev.Probe) {
			have.Probes = append(have.Probes, ev.Probe)
		}
		if ev.Started.After(newest[k]) {
			newest[k], r.Probes = ev.Started, have.Probes
			*have = r
		}
	}
	for _, k := range s.sorted() {
		if k.last == nil {
			continue
		}
		ev := k.shown()
		for _, r := range runwaysOf(&ev) {
			add(&ev, r)
		}
	}
	list := make([]Runway, 0, len(found))
	for _, r := range found {
		list = append(list, *r)
	}
	rank := func(r Runway) int {
		if r.Renewed {
			return 1
		}
		return 0
	}
	slices.SortFunc(list, func(a, b Runway) int {
		return cmp.Or(rank(a)-rank(b), a.Ends.Compare(b.Ends), cmp.Compare(a.Whose, b.Whose), cmp.Compare(a.What, b.What))
	})
	return list
}

// runwaysOf finds what a run says of ends: in its readings, and in the chain it saw.
func runwaysOf(ev *agent.Event) (list []Runway) {
	issued, renewed := map[string]time.Time{}, map[string]bool{}
	for i := range ev.Report.Readings {
		rd := &ev.Report.Readings[i]
		switch rd.Metric.Name {
		case "token_issued_timestamp_seconds":
			issued[lastLabel(rd)] = at(rd.Value)
		case "token_lifetime_seconds":
			renewed[lastLabel(rd)] = true // only tokens that an identity obtains have a life that is known from the start
		}
	}
	for _, n := range ev.Report.Notes {
		if n.Code == "refresh_token_expiring" {
			renewed["refresh"] = false
		}
	}
	whose := "identity:" + ev.About.Identity
	for i := range ev.Report.Readings {
		rd := &ev.Report.Readings[i]
		name := lastLabel(rd)
		switch rd.Metric.Name {
		case "token_expiry_timestamp_seconds":
			list = append(list, Runway{What: name + " token", Whose: whose, Begins: issued[name], Ends: at(rd.Value), Renewed: renewed[name]})
		case "credential_expiry_timestamp_seconds":
			if name == "token" {
				continue // said as access token
			}
			switch name {
			case "certificate":
				name = "client certificate"
			case "declared", "header", "server":
				name = "credential"
			}
			list = append(list, Runway{What: name, Whose: whose, Ends: at(rd.Value)})
		case "secret_rotation_due_timestamp_seconds":
			list = append(list, Runway{What: "rotation of " + name, Whose: whose, Ends: at(rd.Value)})
		}
	}
	address := ""
	if ev.Report.Chain != nil {
		address = ev.Report.Chain.Address
		if _, host, ok := strings.Cut(ev.About.Origin, "://"); ok {
			address = host // the name that was asked; the chain has the address that answered
		}
	}
	return append(list, chainRunways(ev.Report.Chain, address)...)
}

// chainRunways gives the leaf, and what above it ends before the leaf does.
func chainRunways(c *evidence.Chain, address string) (list []Runway) {
	if c == nil {
		return nil
	}
	var leaf, above *evidence.Certificate
	for i := range c.Certificates {
		switch cert := &c.Certificates[i]; {
		case cert.Role == "leaf":
			if leaf == nil || cert.NotAfter.Before(leaf.NotAfter) {
				leaf = cert
			}
		case cert.Role == "intermediate" && (above == nil || cert.NotAfter.Before(above.NotAfter)):
			above = cert
		}
	}
	if leaf != nil {
		list = append(list, Runway{What: "certificate", Whose: address, Begins: leaf.NotBefore, Ends: leaf.NotAfter})
	}
	if above != nil && (leaf == nil || above.NotAfter.Before(leaf.NotAfter)) {
		list = append(list, Runway{What: "intermediate certificate", Whose: address, Begins: above.NotBefore, Ends: above.NotAfter})
	}
	return list
}

// lastLabel is that label of a reading which tells several of one identity apart.
func lastLabel(r *evidence.Reading) string {
	if len(r.Labels) == 0 {
		return ""
	}
	return r.Labels[len(r.Labels)-1]
}

func at(unix float64) time.Time {
	seconds := int64(unix)
	return time.Unix(seconds, int64((unix-float64(seconds))*1e9)).UTC()
}

// Clocks is what is known of clocks: ours by time servers, and those of the servers that are asked.
type Clocks struct {
	Local *evidence.Clock
	Peers []evidence.Peer // the last word of each, by name
}

// Clocks gathers the last words about clocks from all probes.
func (s *Status) Clocks() Clocks {
	c := Clocks{Peers: []evidence.Peer{}}
	peers := map[string]evidence.Peer{}
	for _, k := range s.sorted() {
		if k.last == nil {
			continue
		}
		ev := k.shown()
		if own := ev.Report.Clock; own != nil && (c.Local == nil || own.Measured.After(c.Local.Measured)) {
			c.Local = own
		}
		for _, p := range slices.Concat(ev.Report.Peers, ev.Peers) {
			if have, ok := peers[p.Name+" "+p.Method]; !ok || p.Measured.After(have.Measured) {
				peers[p.Name+" "+p.Method] = p
			}
		}
	}
	for _, p := range peers {
		c.Peers = append(c.Peers, p)
	}
	slices.SortFunc(c.Peers, func(a, b evidence.Peer) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Method, b.Method))
	})
	return c
}
