package exporters

import (
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
)

//go:embed page
var pageFiles embed.FS

var pages = template.Must(template.ParseFS(pageFiles, "page/index.html"))

// frame is what every page has.
type frame struct {
	Title, Crumb, Root, Now, Version string
}

type findingView struct {
	Root, Title, Culprit string
	Cause                diagnose.Cause
	Sure                 diagnose.Sureness
	Since                string
	Probes, Because      []string
	Remedy               string
}

type rowView struct {
	Root, Probe, Kind, State, Class, Why, Endpoint, Identity, Took, Next, StripText string
	StripWidth                                                                      int
	Strip                                                                           []barView
}

type barView struct {
	Class               string
	X, Y, Width, Height int
	Opacity             string
	Name                string
}

type exchangeView struct {
	ExchangeRecord
	Millis   float64
	Fall     []barView
	FallText string
}

func (s *Status) frame(title, crumb, root, version string) frame {
	return frame{title, crumb, root, time.Now().UTC().Format(time.RFC3339), version}
}

// index serves the first page: what is wrong, by culprit; then all probes.
func (s *Status) index(w http.ResponseWriter, version string) {
	view := struct {
		frame
		Notes   []string
		Blames  []findingView
		Summary string
		Rows    []rowView
	}{frame: s.frame("authvigil", "", "", version)}
	s.mu.Lock()
	view.Notes = s.notes
	s.mu.Unlock()
	for _, b := range s.Blames() {
		view.Blames = append(view.Blames, findingView{"", b.Title, b.Culprit, b.Cause, b.Sure, ago(b.Since), b.Probes, b.Because, b.Remedy})
	}
	list := s.sorted()
	good := 0
	for i := range list {
		view.Rows = append(view.Rows, list[i].row(""))
		if list[i].asked != nil && list[i].asked.Fault == nil {
			good++
		}
	}
	view.Summary = fmt.Sprintf("%d of %d probes are as expected", good, len(list))
	if good < len(list) {
		view.Summary += ", the others have not told yet"
	}
	render(w, "index", view)
}

// probe serves the page of one probe, with the exchanges of its last run.
func (s *Status) probe(w http.ResponseWriter, name, version string) {
	s.mu.Lock()
	found := s.probes[name]
	var k kept
	if found != nil {
		k = *found
		k.history = slices.Clone(found.history)
	}
	s.mu.Unlock()
	if found == nil {
		http.Error(w, "there is no such probe", http.StatusNotFound)
		return
	}
	r := NewRecord(k.shown())
	view := struct {
		frame
		Row       rowView
		Findings  []findingView
		Exchanges []exchangeView
		Readings  []ReadingRecord
	}{frame: s.frame(name+" - authvigil", name, "../", version), Row: k.row("../"), Readings: r.Readings}
	for _, f := range r.Findings {
		about, _ := diagnose.Describe(f.Cause)
		since := ""
		if r.Failing != nil {
			since = ago(*r.Failing)
		}
		view.Findings = append(view.Findings, findingView{"../", about.Title, f.Culprit, f.Cause, f.Sure, since, nil, f.Because, f.Remedy})
	}
	for _, x := range r.Exchanges {
		view.Exchanges = append(view.Exchanges, waterfall(x))
	}
	render(w, "probe", view)
}

// runbook serves the runbook of a cause.
func (s *Status) runbook(w http.ResponseWriter, cause, version string) {
	text, ok := diagnose.Runbook(diagnose.Cause(cause))
	if !ok {
		http.Error(w, "there is no such cause", http.StatusNotFound)
		return
	}
	render(w, "runbook", struct {
		frame
		Text string
	}{s.frame(cause+" - authvigil", cause, "../", version), text})
}

func render(w http.ResponseWriter, name string, view any) {
	var b strings.Builder
	if err := pages.ExecuteTemplate(&b, name, view); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, b.String())
}

func (k *kept) row(root string) rowView {
	ev := k.shown()
	r := rowView{Root: root, Probe: ev.Probe, Kind: ev.Kind, Endpoint: ev.About.Endpoint, Identity: ev.About.Identity, Took: fmt.Sprintf("%.0f ms", float64(ev.Took.Microseconds())/1e3), StripWidth: historyLength * 5}
	switch ev.Outcome() {
	case agent.RunOK:
		r.State, r.Class = "ok", "ok"
	case agent.RunFault:
		r.State, r.Class = "failing for "+shortSpan(time.Since(ev.Failing)), "bad"
	case agent.RunHeld:
		r.State, r.Class = "held", "warn"
	default:
		r.State, r.Class = "unknown", "warn"
	}
	if ev.Fault != nil {
		r.Why = Show(ev.Fault.Error())
	}
	if k.last.Gate.Again.After(time.Now()) {
		r.Why += "; the gate of the endpoint is closed until " + k.last.Gate.Again.UTC().Format("15:04:05")
	}
	if !k.last.Next.IsZero() {
		r.Next = "in " + shortSpan(time.Until(k.last.Next))
	}
	failed := 0
	for i, place := range k.history {
		o, height := agent.Outcomes[place], 8
		if o == agent.RunFault {
			height, failed = 16, failed+1
		}
		r.Strip = append(r.Strip, barView{Class: string(o), X: 5 * i, Y: 16 - height, Height: height})
	}
	r.StripText = fmt.Sprintf("%d of the last %d runs failed", failed, len(k.history))
	return r
}

// waterfall draws the stages of an exchange on one line.
func waterfall(x ExchangeRecord) exchangeView {
	v := exchangeView{ExchangeRecord: x, Millis: x.Took * 1e3}
	if x.Took <= 0 {
		return v
	}
	at := 0.0
	var parts []string
	for i, name := range []string{"resolve", "connect", "tls", "first_byte", "body"} {
		took := x.Timing[name]
		if took <= 0 {
			continue
		}
		v.Fall = append(v.Fall, barView{X: int(at / x.Took * 600), Width: max(int(took/x.Took*600), 1), Opacity: fmt.Sprintf("0.%d", 2+i), Name: name})
		at += took
		parts = append(parts, fmt.Sprintf("%s %.1f ms", strings.ReplaceAll(name, "_", " "), took*1e3))
	}
	v.FallText = strings.Join(parts, ", ")
	return v
}

func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return shortSpan(time.Since(t)) + " ago"
}

func shortSpan(d time.Duration) string {
	switch d = max(d, 0); {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d d", int(d.Hours()/24))
	case d >= time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	default:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
}
