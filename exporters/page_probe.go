package exporters

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/probes/evidence"
)

// waterfallWidth is the width of the drawing of a run.
const waterfallWidth = 1000

// A runView is one run on the page of its probe: when, how it ended, and its exchanges as a waterfall.
type runView struct {
	Name, Took string // what run it is: the last that failed, the last good one
	Started    whenView
	Bad        bool
	Why        string
	Exchanges  []exchangeView
	Scale      string // how long the whole width is
	Facts      []fact
}

type exchangeView struct {
	Stage, Purpose, Method, URL, Answer, Error, Class string
	Took, Stages                                      string // in all, and by stage in words
	Bars                                              []barView
	Header                                            []fact
	Body                                              string
}

// barView is one stage of an exchange in the drawing.
type barView struct {
	Class    string
	X, Width int
	Name     string
}

type fact struct{ Name, Value string }

type probeView struct {
	frame
	Row       rowView
	LastOK    whenView
	NextAt    whenView
	InARow    int
	Findings  []findingView
	Runs      []runView
	Readings  []readingView
	Runbook   []block
	Endpoint  string
	GateFacts []fact
}

type readingView struct{ Name, Subject, Value string }

// probe serves the page of one probe: what is wrong, the last failing and the last good run beside each other, the runbook.
func (w *Web) probe(rw http.ResponseWriter, r *http.Request) {
	name, now := r.PathValue("name"), time.Now()
	k, found := w.Status.kept(name)
	if !found {
		w.missing(rw, "There is no probe "+name+".", "The probes that there are stand on the first page.")
		return
	}
	ev := k.shown()
	v := probeView{frame: w.frame(name+" - authvigil", name, "../"), Row: k.row(&ev, "../", now), LastOK: when(ev.LastOK, now), NextAt: when(ev.Next, now), InARow: ev.InARow}
	v.Live = true
	if v.Row.State == rowFailing {
		v.Icon = "bad"
	}
	for _, f := range ev.Findings {
		v.Findings = append(v.Findings, viewOf(f, "../", ev.Failing, now, nil, nil))
	}
	if len(ev.Findings) > 0 {
		if text, ok := diagnose.Runbook(ev.Findings[0].Cause); ok {
			v.Runbook = markdown(text)
		}
	}
	v.runs(&k, now)
	v.GateFacts = append(gateFacts("endpoint", ev.GateName(), ev.Gate, now), gateFacts("identity", ev.About.Identity, ev.IdentityGate, now)...)
	for i := range ev.Report.Readings {
		v.Readings = append(v.Readings, readingOf(&ev.Report.Readings[i], now))
	}
	render(rw, http.StatusOK, "probe", v)
}

// runs gives the last failing and the last good run, on one scale of time.
func (v *probeView) runs(k *kept, now time.Time) {
	type one struct {
		name string
		ev   *agent.Event
	}
	list := []one{{"Last failing run", k.bad}, {"Last good run", k.good}}
	if k.state() != rowFailing {
		slices.Reverse(list)
	}
	list = slices.DeleteFunc(list, func(o one) bool { return o.ev == nil })
	if len(list) == 0 && k.last != nil {
		list = append(list, one{"Last run", k.last})
	}
	longest := time.Millisecond
	for _, one := range list {
		longest = max(longest, lengthOf(one.ev))
	}
	for _, one := range list {
		v.Runs = append(v.Runs, viewRun(one.name, one.ev, longest, now))
	}
}

// lengthOf is how long a run's exchanges take from the first's begin to the last's end.
func lengthOf(ev *agent.Event) (longest time.Duration) {
	if len(ev.Report.Exchanges) == 0 {
		return 0
	}
	begin := ev.Report.Exchanges[0].Started
	for i := range ev.Report.Exchanges {
		x := &ev.Report.Exchanges[i]
		longest = max(longest, x.Started.Sub(begin)+x.Took)
	}
	return longest
}

func viewRun(name string, ev *agent.Event, scale time.Duration, now time.Time) runView {
	v := runView{Name: name, Took: took(ev.Took), Started: when(ev.Started, now), Bad: ev.Fault != nil, Scale: took(scale), Facts: factsOf(&ev.Report, now)}
	if ev.Fault != nil {
		v.Why = Show(ev.Fault.Error())
	}
	for i := range ev.Report.Exchanges {
		x := &ev.Report.Exchanges[i]
		v.Exchanges = append(v.Exchanges, viewExchange(x, x.Started.Sub(ev.Report.Exchanges[0].Started), scale))
	}
	return v
}

// purposes are the words for why something was asked again.
var purposes = map[evidence.Purpose]string{
	evidence.WithFreshGrant: "with a fresh grant", evidence.WithoutGrant: "without a grant", evidence.WithDamaged: "with a spoilt token", evidence.ProtocolStep: "as the protocol says",
	evidence.OtherMethod: "with another method", evidence.Sibling: "another endpoint", evidence.AskIssuer: "of the issuer", evidence.Obtain: "to obtain a grant", evidence.Redirected: "redirected",
}

// PurposeWords says in words why something was asked again; empty where it was the first question.
func PurposeWords(p evidence.Purpose) string { return purposes[p] }

func viewExchange(x *evidence.Exchange, since, scale time.Duration) exchangeView {
	r := exchangeRecord(x)
	v := exchangeView{Stage: r.Stage, Purpose: purposes[x.Purpose], Method: r.Method, URL: Show(r.URL), Error: r.Error, Body: r.Body, Took: took(x.Took), Class: "ok"}
	switch {
	case x.Status == 0:
		v.Answer, v.Class = "no answer", "bad"
	default:
		v.Answer = strconv.Itoa(x.Status) + " " + http.StatusText(x.Status)
		if !x.OK() {
			v.Class = "bad"
		}
	}
	if x.Recalled {
		v.Answer += ", as remembered: nothing was sent"
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		v.Header = append(v.Header, fact{name, r.Header[name]})
	}
	at, spent := since, time.Duration(0)
	var words []string
	bar := func(class, name string, took time.Duration) {
		if took <= 0 {
			return
		}
		from := int(int64(waterfallWidth) * int64(at) / int64(scale))
		to := int(int64(waterfallWidth) * int64(at+took) / int64(scale))
		v.Bars = append(v.Bars, barView{Class: class, X: min(max(from, 0), waterfallWidth-2), Width: max(to-from, 2), Name: name})
		words = append(words, name+" "+fewDigits(took))
		at, spent = at+took, spent+took
	}
	bar("resolve", "resolve", x.Timing.Resolve)
	bar("connect", "connect", x.Timing.Connect)
	bar("tls", "TLS", x.Timing.TLS)
	bar("wait", "first byte", x.Timing.FirstByte)
	bar("body", "body", x.Timing.Body)
	if rest := x.Took - spent; rest > x.Took/20 {
		bar("rest", "other", rest)
	}
	v.Stages = strings.Join(words, ", ")
	return v
}

// factsOf tells what the run learnt of token and certificates.
func factsOf(r *evidence.Report, now time.Time) (list []fact) {
	add := func(name, value string) {
		if value != "" {
			list = append(list, fact{name, Show(value)})
		}
	}
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		v := when(t, now)
		return v.Clock + " (" + v.Away + ")"
	}
	if t := r.Token; t != nil {
		add("token", strings.TrimSpace(t.Format+" "+t.Alg))
		add("token issuer", t.Issuer)
		add("token audience", strings.Join(t.Audience, ", "))
		add("token scopes", strings.Join(t.Scopes, " "))
		add("token issued", moment(t.Issued))
		add("token ends", moment(t.Expiry))
		add("token problems", strings.Join(t.Problems, "; "))
	}
	if c := r.Chain; c != nil {
		for i := range c.Certificates {
			cert := &c.Certificates[i]
			add(cmp.Or(cert.Role, "certificate"), fmt.Sprintf("%s, issued by %s, ends %s", cert.Subject, cert.Issuer, moment(cert.NotAfter)))
		}
		for _, f := range c.Facets {
			if f.State == evidence.Fail || f.State == evidence.Warn {
				add(strings.ReplaceAll(f.Name, "_", " "), string(f.State)+": "+f.Detail)
			}
		}
	}
	return list
}

func readingOf(r *evidence.Reading, now time.Time) readingView {
	v := readingView{Name: r.Metric.Name, Subject: Show(strings.Join(r.Labels, ", ")), Value: strconv.FormatFloat(r.Value, 'g', 6, 64)}
	switch {
	case strings.HasSuffix(v.Name, "_timestamp_seconds"):
		w := when(at(r.Value), now)
		v.Value = w.Clock + " (" + w.Away + ")"
	case strings.HasSuffix(v.Name, "_seconds"):
		v.Value = fewDigits(time.Duration(r.Value * 1e9).Abs())
		if r.Value < 0 {
			v.Value = "-" + v.Value
		}
	}
	return v
}

// gateFacts tells how a gate stands. A closed gate lets questions through, as a closed circuit does; the page says so in words.
func gateFacts(scope, name string, g pace.State, now time.Time) []fact {
	if name == "" {
		return nil
	}
	text := "lets questions through"
	switch {
	case g.Again.After(now):
		text = "holds questions until " + when(g.Again, now).Clock
	case g.Position == pace.HalfOpen:
		text = "lets one question through to try"
	}
	if g.Failures > 0 {
		text += fmt.Sprintf(", after %d failures in a row", g.Failures)
	}
	return []fact{{"gate of the " + scope, text}}
}
