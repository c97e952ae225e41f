package exporters

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent"
)

// rowsPerPage is how many probes one page shows.
const rowsPerPage = 1000

// A rowState is how a probe stands, as one word. The worst comes first.
type rowState string

// The states of a row.
const (
	rowFailing   rowState = "failing"
	rowAttention rowState = "attention" // as expected, with a warning
	rowUnknown   rowState = "unknown"
	rowHeld      rowState = "held"
	rowWaiting   rowState = "waiting" // did not run yet
	rowOK        rowState = "ok"
)

var rowStates = []rowState{rowFailing, rowAttention, rowUnknown, rowHeld, rowWaiting, rowOK}

// marks stand beside the words, so that states differ in shape and not in colour alone.
var marks = map[rowState]string{rowFailing: "✕", rowAttention: "▲", rowUnknown: "?", rowHeld: "‖", rowWaiting: "…", rowOK: "●"}

// rowView is one probe in the table.
type rowView struct {
	Root, Probe, Kind, Endpoint, Identity string
	State                                 rowState
	Mark, Since, Why, Cause, Took         string
	Held                                  string // until when a gate keeps questions back, and which
	Next                                  string
	Labels                                []string
	Strip                                 *stripView
}

// stripView is the history of a probe as three strokes: dashes for good runs, high ones for others.
type stripView struct {
	Width               int
	Good, Bad, Doubtful string // paths
	Text                string
}

// filter is what of the probes is shown; it stands in the URL, so that a view can be sent to somebody.
type filter struct {
	State, Kind, Identity, Cause, Culprit, Label, Search string
	From                                                 int
}

func readFilter(q url.Values) filter {
	f := filter{State: q.Get("state"), Kind: q.Get("kind"), Identity: q.Get("identity"), Cause: q.Get("cause"), Culprit: q.Get("culprit"), Label: q.Get("label"), Search: q.Get("q")}
	f.From, _ = strconv.Atoi(q.Get("from"))
	f.From = max(f.From, 0)
	return f
}

func (f filter) active() bool {
	f.From = 0
	return f != filter{}
}

// link is the query of the same filter with another state, and from the first row on.
func (f filter) link(state rowState, from int) string {
	q := url.Values{}
	for name, value := range map[string]string{"state": string(state), "kind": f.Kind, "identity": f.Identity, "cause": f.Cause, "culprit": f.Culprit, "label": f.Label, "q": f.Search} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if from > 0 {
		q.Set("from", strconv.Itoa(from))
	}
	return "?" + q.Encode()
}

// shows says whether a probe passes, the state aside.
func (f filter) shows(ev *agent.Event) bool {
	if (f.Kind != "" && ev.Kind != f.Kind) || (f.Identity != "" && ev.About.Identity != f.Identity) {
		return false
	}
	if f.Cause != "" && (len(ev.Findings) == 0 || string(ev.Findings[0].Cause) != f.Cause) {
		return false
	}
	if f.Culprit != "" && (len(ev.Findings) == 0 || ev.Findings[0].Culprit != f.Culprit) {
		return false
	}
	if f.Label != "" {
		name, value, given := strings.Cut(f.Label, "=")
		if have, ok := ev.Labels[name]; !ok || (given && have != value) {
			return false
		}
	}
	search := strings.ToLower(f.Search)
	return search == "" || strings.Contains(strings.ToLower(ev.Probe+" "+ev.About.Endpoint+" "+ev.About.Identity), search)
}

// stateLink is one state with its number of probes.
type stateLink struct {
	State   rowState
	Mark    string
	Count   int
	Link    string
	Current bool
}

type indexView struct {
	frame
	Notes                              []string
	Headline                           string
	AllGood                            bool
	Blames                             []findingView
	Runways                            runwaysView
	Clocks                             *clocksView
	Filter                             filter
	Filtered                           bool
	States                             []stateLink
	All                                stateLink
	Kinds, Identities, Causes, LabelsA []string
	Rows                               []rowView
	Total                              int
	Earlier, Later                     string
}

// index serves the first page: what is wrong, by culprit; what runs out; clocks; then all probes.
func (w *Web) index(rw http.ResponseWriter, r *http.Request) {
	now, s := time.Now(), w.Status
	v := indexView{frame: w.frame("authvigil", "", ""), Filter: readFilter(r.URL.Query())}
	v.Live, v.Filtered = true, v.Filter.active()
	s.mu.Lock()
	v.Notes = s.notes
	s.mu.Unlock()
	list := s.sorted()
	v.headline(list, s.Blames(), now)
	v.Runways = viewRunways(s.Runways(), now)
	v.Clocks = viewClocks(s.Clocks(), now)
	v.choices(list)
	v.rows(list, now)
	render(rw, http.StatusOK, "index", v)
}

// headline says in one sentence how things stand, and names what is to blame.
func (v *indexView) headline(list []kept, blames []Blame, now time.Time) {
	broken, suffer, held, unknown := 0, 0, 0, 0
	for _, b := range blames {
		one := viewOf(b.Finding, "", b.Since, now, b.Probes, b.Labels)
		one.Held = b.Held
		v.Blames = append(v.Blames, one)
		if !b.Since.IsZero() {
			broken++
		}
	}
	slices.SortStableFunc(v.Blames, func(a, b findingView) int { // what fails before what warns
		rank := map[bool]int{true: 0, false: 1}
		return rank[a.Bad] - rank[b.Bad]
	})
	for i := range list {
		switch list[i].state() {
		case rowFailing:
			suffer++
		case rowHeld:
			held++
		case rowUnknown, rowWaiting:
			unknown++
		}
	}
	switch {
	case suffer > 0:
		v.Headline = fmt.Sprintf("%s broken: %d of %d probes fail", things(broken), suffer, len(list))
		if held > 0 {
			v.Headline += fmt.Sprintf(", %d more are held back", held)
		}
		v.Title, v.Icon = fmt.Sprintf("(%d) authvigil", broken), "bad"
	case unknown+held == len(list):
		v.Headline = "No probe has told anything yet"
	case len(blames) > 0:
		v.Headline = fmt.Sprintf("Nothing fails; %s wants attention", things(len(blames)))
	default:
		v.AllGood = true
		v.Headline = fmt.Sprintf("All is well: %d of %d probes are as expected", len(list)-unknown-held, len(list))
	}
}

func things(n int) string {
	if n == 1 {
		return "1 thing"
	}
	return fmt.Sprintf("%d things", n)
}

// choices fills the lists of the filter with what there is.
func (v *indexView) choices(list []kept) {
	kinds, identities, causes, labels := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	count := map[rowState]int{}
	for i := range list {
		ev := list[i].shown()
		kinds[ev.Kind] = true
		if ev.About.Identity != "" {
			identities[ev.About.Identity] = true
		}
		if len(ev.Findings) > 0 {
			causes[string(ev.Findings[0].Cause)] = true
		}
		for name, value := range ev.Labels {
			labels[name+"="+value] = true
		}
		if v.Filter.shows(&ev) {
			count[list[i].state()]++
			v.All.Count++
		}
	}
	v.Kinds, v.Identities, v.Causes, v.LabelsA = sortedKeys(kinds), sortedKeys(identities), sortedKeys(causes), sortedKeys(labels)
	v.All.Link, v.All.Current = v.Filter.link("", 0), v.Filter.State == ""
	for _, state := range rowStates {
		if count[state] > 0 || v.Filter.State == string(state) {
			v.States = append(v.States, stateLink{state, marks[state], count[state], v.Filter.link(state, 0), v.Filter.State == string(state)})
		}
	}
}

// rows fills the table, the worst first.
func (v *indexView) rows(list []kept, now time.Time) {
	slices.SortStableFunc(list, func(a, b kept) int {
		return cmp.Compare(slices.Index(rowStates, a.state()), slices.Index(rowStates, b.state()))
	})
	for i := range list {
		ev := list[i].shown()
		if !v.Filter.shows(&ev) || (v.Filter.State != "" && v.Filter.State != string(list[i].state())) {
			continue
		}
		if v.Total >= v.Filter.From && len(v.Rows) < rowsPerPage {
			v.Rows = append(v.Rows, list[i].row(&ev, "", now))
		}
		v.Total++
	}
	if v.Filter.From > 0 {
		v.Earlier = v.Filter.link(rowState(v.Filter.State), max(v.Filter.From-rowsPerPage, 0))
	}
	if v.Filter.From+len(v.Rows) < v.Total {
		v.Later = v.Filter.link(rowState(v.Filter.State), v.Filter.From+rowsPerPage)
	}
}

// state says in one word how a probe stands.
func (k *kept) state() rowState {
	if k.last == nil {
		return rowWaiting
	}
	ev := k.asked
	if ev == nil || (k.last.Outcome() == agent.RunHeld && ev.Outcome() == agent.RunOK) { // what was good before the gate closed says nothing of now
		ev = k.last
	}
	switch ev.Outcome() {
	case agent.RunFault:
		return rowFailing
	case agent.RunHeld:
		return rowHeld
	case agent.RunUnknown:
		return rowUnknown
	}
	if len(ev.Findings) > 0 {
		return rowAttention
	}
	return rowOK
}

func (k *kept) row(ev *agent.Event, root string, now time.Time) rowView {
	state := k.state()
	r := rowView{Root: root, Probe: ev.Probe, Kind: ev.Kind, Endpoint: strings.ReplaceAll(ev.About.Endpoint, ",", ", "), Identity: ev.About.Identity, State: state, Mark: marks[state]}
	for _, name := range sortedKeys(ev.Labels) {
		r.Labels = append(r.Labels, name+"="+ev.Labels[name])
	}
	if k.last == nil {
		return r
	}
	r.Took = took(ev.Took)
	if state == rowFailing && !ev.Failing.IsZero() {
		r.Since = "for " + shortSpan(now.Sub(ev.Failing))
	}
	if ev.Fault != nil {
		r.Why = Show(ev.Fault.Error())
	}
	if len(ev.Findings) > 0 {
		r.Cause = string(ev.Findings[0].Cause)
	}
	r.Held = heldUntil(k.last, now)
	if !ev.Next.IsZero() {
		r.Next = "in " + shortSpan(ev.Next.Sub(now))
	}
	r.Strip = strip(k.history)
	return r
}

// heldUntil says which gate keeps questions back, and until when.
func heldUntil(ev *agent.Event, now time.Time) string {
	switch {
	case ev.IdentityGate.Again.After(now):
		return "questions as " + ev.About.Identity + " are held until " + when(ev.IdentityGate.Again, now).Clock
	case ev.Gate.Again.After(now):
		return "questions to this endpoint are held until " + when(ev.Gate.Again, now).Clock
	}
	return ""
}

// strip draws the last runs, oldest left: one stroke for each, short where it was good.
func strip(history []uint8) *stripView {
	if len(history) == 0 {
		return nil
	}
	v := &stripView{Width: historyLength * 5}
	var good, bad, doubtful strings.Builder
	failed := 0
	for i, place := range history {
		x := strconv.Itoa(5*i + 2)
		switch agent.Outcomes[place] {
		case agent.RunOK:
			good.WriteString("M" + x + " 16v-8")
		case agent.RunFault:
			failed++
			bad.WriteString("M" + x + " 16v-16")
		default:
			doubtful.WriteString("M" + x + " 16v-4")
		}
	}
	v.Good, v.Bad, v.Doubtful = good.String(), bad.String(), doubtful.String()
	v.Text = fmt.Sprintf("%d of the last %d runs failed", failed, len(history))
	return v
}

// took shows how long something took, in a unit that needs few digits.
func took(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond || d == 0:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	}
}
