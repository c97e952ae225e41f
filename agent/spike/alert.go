package spike

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Names of the alerts.
const (
	AuthFailureSpike   = "AuthFailureSpike"   // known-good clients are refused
	AuthFailureClients = "AuthFailureClients" // others are: guessing, scanning
	ClientAuthFailing  = "ClientAuthFailing"  // one known-good client fails all the time
	TrafficAbsent      = "TrafficAbsent"      // far fewer requests than usual
)

// Severities of alerts.
const (
	Critical = "critical" // wakes somebody
	Warning  = "warning"  // is a ticket
)

// Patterns of who is hit.
const (
	OneClient    = "one_client"
	ManyClients  = "many_clients"
	OneEndpoint  = "one_endpoint"
	AllEndpoints = "all"
)

// How an alert ended.
const (
	EndedRecovered = "recovered" // requests succeed again
	EndedNoData    = "no data"   // nobody was left to judge by
)

// An Alert is something that people should know of. Name, Severity, Endpoint and Client identify it.
type Alert struct {
	Name, Severity, Endpoint string
	Client                   string // ClientAuthFailing: whose credential fails

	Started time.Time // when it was decided
	Onset   time.Time // when it is thought to have begun
	Ended   time.Time // zero: it holds
	How     string    // it ended

	Pattern     string
	Endpoints   string  // of an alert of all endpoints: where most of it is, with shares
	Clients     string  // those concerned most, with their shares
	Refused     int     // since the onset: refusals of those concerned (known-good clients; others)
	Requests    int     // and all their requests
	Baseline    float64 // usual share of refusals; TrafficAbsent: usual requests in ten minutes
	Reason      string  // most frequent error of the challenges
	Issuer      string  // who refused: proxy, upstream, both; empty: not known
	Description string
	Because     []string // what the decision rests on
}

func (d *Detector) tell(a Alert) { d.changes = append(d.changes, a) }

func because(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// describeSpike fills in what is known now.
func (d *Detector) describeSpike(e *endpoint, a Alert) Alert {
	i := &e.spike
	a.Refused, a.Requests, a.Baseline = int(i.refused), int(i.refused+i.accepted), i.usual
	a.Because = i.because
	plain := i.stream == &e.plain
	switch {
	case !plain && (len(i.failers) == 1 || e.others(d.now) < othersLeast):
		a.Pattern = OneClient
	case e == d.all:
		a.Pattern = AllEndpoints
	case d.all.spike.level == 0:
		a.Pattern = OneEndpoint
	default:
		a.Pattern = ManyClients
	}
	where := "at " + e.name
	if e == d.all {
		where = "at all endpoints"
	}
	if e.top != nil {
		a.Clients = d.who(e.top, true)
		a.Reason, a.Issuer = e.top.why(), e.top.issued()
	}
	whose := "clients that had success before"
	if plain {
		whose = "clients (not told apart: it may be an attack)"
	}
	a.Description = fmt.Sprintf("%d of %d requests of %s were refused %s in %s, usually %s", a.Refused, a.Requests, whose, where, span(a.Onset, moment(d.now)), percent(a.Baseline))
	if e == d.all {
		a.Endpoints = d.leading()
		a.Description += ", most of them at " + a.Endpoints
	}
	if a.Pattern == OneClient {
		a.Description += "; only one client is concerned"
	}
	if a.Reason != "" {
		a.Description += "; the server says " + a.Reason
	}
	if a.Issuer == "proxy" {
		a.Description += "; the proxy itself refuses"
	}
	if a.How == EndedNoData {
		a.Description += "; ended because nobody asks any more, not because it was seen to recover"
	} else if a.Ended.IsZero() && i.level > 0 && d.now-i.heard > 300 {
		a.Description += fmt.Sprintf("; nobody asked for %s", span(moment(i.heard), moment(d.now)))
	}
	return a
}

func (d *Detector) describeTicket(e *endpoint, a Alert) Alert {
	i := &e.ticket
	a.Refused, a.Requests, a.Baseline, a.Because = int(i.refused), int(i.asked), e.raw.usual(), i.because
	if e.top == nil {
		return a
	}
	a.Clients = d.who(e.top, false)
	a.Reason, a.Issuer = e.top.why(), e.top.issued()
	a.Pattern = ManyClients
	what := "many clients that never had success are refused, as when lists of passwords are tried"
	if e.top.first(false) >= 0.5 {
		a.Pattern = OneClient
		what = "one client that never had success is refused again and again, as when passwords are guessed"
	}
	a.Description = fmt.Sprintf("%s: %s (%d refusals, about %d clients)", e.name, what, a.Refused, e.top.distinct())
	return a
}

func describeFailing(a *Alert) string {
	s := fmt.Sprintf("client %s, which had success before, was refused %d times in a row since %s: its credential is probably dead", a.Client, a.Refused, a.Onset.Format(time.RFC3339))
	switch a.How {
	case EndedRecovered:
		s += "; it has success again"
	case EndedNoData:
		s += "; it stopped asking"
	}
	return s
}

func describeAbsence(a *Alert) string {
	return fmt.Sprintf("%d requests in ten minutes, usually %.0f", a.Requests, a.Baseline)
}

// leading lists the endpoints that have most of the evidence.
func (d *Detector) leading() string {
	var list []*endpoint
	sum := 0.0
	for _, e := range d.busy {
		if e.partOf == d.all.spike.epoch && e.part > 0 {
			list = append(list, e)
			sum += e.part
		}
	}
	slices.SortStableFunc(list, func(a, b *endpoint) int { return cmp.Compare(b.part, a.part) })
	var b strings.Builder
	for i, e := range list[:min(3, len(list))] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%.0f %%)", e.name, 100*e.part/sum)
	}
	return b.String()
}

// reasons says what a decision rests on.
func (d *Detector) reasons(e *endpoint, s *stream) []string {
	i := &e.spike
	name := "requests and refusals, clients not told apart"
	switch s {
	case &e.a:
		name = "stream A, refusals of a known-good client that are not its first in half an hour"
	case &e.b:
		name = "stream B, refusals of a known-good client in a row"
	}
	l0, _ := s.rates()
	out := []string{
		name,
		because("since %s: %.0f counted, %.0f accepted; usual share %.5f, usual rate %.2f an hour", moment(i.onset).Format(time.RFC3339), i.bad, i.accepted, s.usual(), l0*3600),
		because("evidence: share somewhat higher %.1f, share much higher %.1f, rate higher %.1f; needed %.0f of one of the first two and of the third", s.small, s.large, s.rateCounts*s.rate, d.need(e, s)),
	}
	if s != &e.plain {
		out = append(out, because("%d known-good clients fail, %d were active in this hour or the last; evidence without the one that contributes most %.1f, %d wakes somebody",
			len(i.failers), max(e.active[0], e.active[1]), e.others(d.now), othersLeast))
	}
	return out
}

// who lists the clients that were refused most, known-good ones or the others.
func (d *Detector) who(t *top, good bool) string {
	t.decay(d.now)
	order := make([]*slot, 0, topSlots)
	sum := 0.0
	for i := range t.slots[:t.used] {
		if s := &t.slots[i]; s.good == good && s.weight > 0.01 {
			order = append(order, s)
			sum += s.weight
		}
	}
	slices.SortStableFunc(order, func(a, b *slot) int { return cmp.Compare(b.weight, a.weight) })
	var b strings.Builder
	for i, s := range order {
		if i == 3 {
			fmt.Fprintf(&b, ", %d more", len(order)-3)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (%.0f %%)", d.name(s.key, s.name[:s.length]), 100*s.weight/sum)
	}
	return b.String()
}

// first is the share of the client that was refused most.
func (t *top) first(good bool) float64 {
	sum, most := 0.0, 0.0
	for i := range t.slots[:t.used] {
		if s := &t.slots[i]; s.good == good {
			sum += s.weight
			most = max(most, s.weight)
		}
	}
	if sum == 0 {
		return 0
	}
	return most / sum
}

func percent(p float64) string {
	if p < 0.0001 {
		return "below 0.01 %"
	}
	return fmt.Sprintf("%.*f %%", max(0, 1-int(math.Floor(math.Log10(100*p)))), 100*p)
}

// span is the time between two moments in words.
func span(from, to time.Time) string {
	d := to.Sub(from).Round(time.Second)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}
