package exporters

import (
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/diagnose"
)

//go:embed page
var pageFiles embed.FS

// pages are the templates: html/template escapes whatever a server said, wherever it stands.
var pages = template.Must(template.ParseFS(pageFiles, "page/*.html"))

// assets are what the pages refer to.
var assets = map[string]string{"page.css": "text/css; charset=utf-8", "refresh.js": "text/javascript; charset=utf-8", "good.svg": "image/svg+xml", "bad.svg": "image/svg+xml"}

// frame is what every page has.
type frame struct {
	Title, Crumb, Root, Version string
	Icon                        string // good or bad: what the tab of the browser shows
	Now                         whenView
	Live                        bool // the page is fetched again by itself
}

// whenView is a moment as the page shows it: for machines, in UTC for people, and how far away.
type whenView struct {
	Machine, Clock, Away string
}

// when shows a moment. The date is left out where it is today's.
func when(t, now time.Time) whenView {
	if t.IsZero() {
		return whenView{}
	}
	t = t.UTC()
	v := whenView{Machine: t.Format(time.RFC3339), Clock: t.Format("15:04:05 UTC")}
	if t.Format(time.DateOnly) != now.UTC().Format(time.DateOnly) {
		v.Clock = t.Format("2006-01-02 15:04 UTC")
	}
	if t.After(now) {
		v.Away = "in " + shortSpan(t.Sub(now))
	} else {
		v.Away = shortSpan(now.Sub(t)) + " ago"
	}
	return v
}

// findingView is a finding with who suffers and who owns it.
type findingView struct {
	Root, Title, Culprit string
	Cause                diagnose.Cause
	Sure                 diagnose.Sureness
	Since                whenView
	Count, Held          int      // probes behind it, and those of them that a gate keeps from asking
	Probes               []string // the first of them
	More                 int      // probes that are not named
	Labels               []string // name=value, of all its probes
	Because, Further     []string // evidence: what is shown at once, and the rest
	Remedy               string
	Bad                  bool // probes fail; otherwise it is an early warning
}

// Bounds of what one finding shows.
const (
	probesNamed   = 6
	evidenceShown = 3
)

func viewOf(f diagnose.Finding, root string, since time.Time, now time.Time, probes []string, labels map[string]string) findingView {
	about, _ := diagnose.Describe(f.Cause)
	v := findingView{Root: root, Title: about.Title, Culprit: f.Culprit, Cause: f.Cause, Sure: f.Sure, Since: when(since, now), Count: len(probes), Remedy: f.Remedy, Bad: !since.IsZero()}
	v.Probes = probes[:min(len(probes), probesNamed)]
	v.More = len(probes) - len(v.Probes)
	for _, name := range sortedKeys(labels) {
		v.Labels = append(v.Labels, name+"="+labels[name])
	}
	for _, line := range f.Because {
		v.Because = append(v.Because, Show(line))
	}
	if len(v.Because) > evidenceShown {
		v.Because, v.Further = v.Because[:evidenceShown], v.Because[evidenceShown:]
	}
	return v
}

func (w *Web) frame(title, crumb, root string) frame {
	return frame{Title: title, Crumb: crumb, Root: root, Version: w.Version, Icon: "good", Now: when(time.Now(), time.Now())}
}

// runbook serves the runbook of a cause, or of an alert that is named by itself.
func (w *Web) runbook(rw http.ResponseWriter, r *http.Request) {
	cause := r.PathValue("cause")
	text, ok := diagnose.Runbook(diagnose.Cause(cause))
	if !ok {
		text, ok = alert.Runbook(cause)
	}
	if !ok {
		w.missing(rw, "There is no runbook "+cause+".", "The causes that there are stand in the list of runbooks.")
		return
	}
	render(rw, http.StatusOK, "runbook", struct {
		frame
		Blocks []block
	}{w.frame(cause, cause, "../"), markdown(text)})
}

// runbooks lists the causes with their runbooks.
func (w *Web) runbooks(rw http.ResponseWriter, _ *http.Request) {
	type cause struct {
		Cause         diagnose.Cause
		Title, Remedy string
	}
	var list []cause
	for _, c := range diagnose.Causes() {
		about, _ := diagnose.Describe(c)
		list = append(list, cause{c, about.Title, about.Remedy})
	}
	render(rw, http.StatusOK, "runbooks", struct {
		frame
		Causes []cause
	}{w.frame("Runbooks - authvigil", "runbooks", "../"), list})
}

// missing serves a page that says what there is not, and what to do.
func (w *Web) missing(rw http.ResponseWriter, what, help string) {
	render(rw, http.StatusNotFound, "missing", struct {
		frame
		What, Help string
	}{w.frame("Not here", "", "../"), Show(what), help})
}

func render(w http.ResponseWriter, status int, name string, view any) {
	var b strings.Builder
	if err := pages.ExecuteTemplate(&b, name, view); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprint(w, strings.Map(harmless, b.String()))
}

// harmless replaces what commands a terminal or reorders letters, wherever in a page it came from.
func harmless(r rune) rune {
	switch {
	case r < 0x7f && r >= ' ', r == '\n', r == '\t':
		return r
	case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
		return '?'
	default:
		return r
	}
}

// asset serves a file that the pages refer to.
func asset(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	body, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", assets[name])
	_, _ = w.Write(body) // the connection is gone; nobody is there to be told
}

// shortSpan shows a duration as people say it.
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

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
