package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/evidence"
)

// story tells a run as it went: who asked what, stage by stage, what was answered, and how it ended.
func (a *app) story(ev *agent.Event) {
	p := a.paper(a.stdout)
	as := ""
	if ev.About.Identity != "" {
		as = " as " + ev.About.Identity
	}
	p.say(p.in(bold, ev.Probe), ": ", p.in(plain, ev.Kind+" asks "+ev.About.Endpoint+as))
	p.say()
	p.exchanges(ev.Report.Exchanges)
	p.token(ev.Report.Token)
	switch ev.Outcome() {
	case agent.RunOK:
		p.say(p.in(green, "ok"), ": the answer is as expected, after ", span(ev.Took))
	case agent.RunFault:
		p.wrapped("FAIL: ", red, ev.Fault.Error())
	default:
		p.wrapped(string(ev.Outcome())+": ", amber, ev.Fault.Error())
	}
}

// exchanges shows what was asked: one row for each, and beneath what a refusal said.
func (p *paper) exchanges(list []evidence.Exchange) {
	if len(list) == 0 {
		return
	}
	rows := [][]cell{}
	for i := range list {
		x := &list[i]
		stage := string(x.Stage)
		if words := exporters.PurposeWords(x.Purpose); words != "" {
			stage += ", " + words
		}
		answer, c := "no answer", red
		if x.Status != 0 {
			answer = strings.TrimSpace(strconv.Itoa(x.Status) + " " + http.StatusText(x.Status))
			if x.OK() {
				c = green
			}
		}
		if x.Recalled {
			answer += " (remembered)"
		}
		rows = append(rows, []cell{{strconv.Itoa(i+1) + ".", faint}, {stage, plain}, {answer, c}, {span(x.Timing.Resolve), faint}, {span(x.Timing.Connect), faint}, {span(x.Timing.TLS), faint}, {span(x.Timing.FirstByte), faint}, {span(x.Took), plain}, {x.Method + " " + x.URL, plain}})
	}
	p.table([]string{"", "STAGE", "ANSWER", "RESOLVE", "CONNECT", "TLS", "FIRST BYTE", "TOTAL", "REQUEST"}, rows)
	for i := range list {
		x := &list[i]
		if x.OK() {
			continue
		}
		if x.Fault != nil && x.Status == 0 {
			p.wrapped(fmt.Sprintf("   %d. ", i+1), plain, x.Fault.Error())
		}
		for _, value := range x.Header["Www-Authenticate"] {
			p.wrapped(fmt.Sprintf("   %d. WWW-Authenticate: ", i+1), plain, value)
		}
		if x.Body != "" {
			p.wrapped(fmt.Sprintf("   %d. body: ", i+1), plain, cut(strings.Join(strings.Fields(x.Body), " "), 400))
		}
	}
	p.say()
}

func (p *paper) token(t *evidence.Token) {
	if t == nil {
		return
	}
	parts := []string{strings.TrimSpace(t.Format + " " + t.Alg)}
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("issuer", t.Issuer)
	add("audience", strings.Join(t.Audience, " "))
	add("scopes", strings.Join(t.Scopes, " "))
	if !t.Expiry.IsZero() {
		add("ends", t.Expiry.UTC().Format(time.RFC3339)+" ("+away(t.Expiry, time.Now())+")")
	}
	p.wrapped("token: ", plain, strings.Join(parts, ", "))
	for _, problem := range t.Problems {
		p.wrapped("token: ", amber, problem)
	}
	p.say()
}

// findings tells all findings, the best first.
func (a *app) findings(list []diagnose.Finding) {
	if len(list) == 0 {
		p := a.paper(a.stdout)
		p.say(p.in(green, "healthy"), ": nothing is to blame")
	}
	for _, f := range list {
		a.finding(f, nil)
	}
}

// finding tells one finding: what, who suffers, why, and what to do.
func (a *app) finding(f diagnose.Finding, probes []string) {
	about, _ := diagnose.Describe(f.Cause)
	a.paper(a.stdout).finding(f, about.Title, "", probes)
}

func (p *paper) finding(f diagnose.Finding, title, since string, probes []string) {
	p.say()
	p.say(p.in(red, f.Culprit), ": ", p.in(bold, title), p.in(plain, fmt.Sprintf(" (%s, %s)", f.Cause, f.Sure)))
	if since != "" {
		p.say("  since: ", p.in(plain, since))
	}
	if n := len(probes); n > 0 {
		named := strings.Join(probes[:min(n, 8)], ", ")
		if n > 8 {
			named += fmt.Sprintf(" and %d more", n-8)
		}
		p.wrapped("  seen by: ", plain, named)
	}
	for _, line := range f.Because {
		p.wrapped("  because: ", plain, line)
	}
	p.wrapped("  do: ", bold, f.Remedy)
	p.say("  more: authvigil explain ", p.in(plain, string(f.Cause)))
}

// span shows a duration of a stage; nothing happened where it is zero.
func span(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

// away tells how far a moment is.
func away(t, now time.Time) string {
	left := t.Sub(now).Round(time.Second)
	text := evidence.Span(left)
	if left.Abs() < time.Minute {
		text = fmt.Sprintf("%.0f s", left.Abs().Seconds())
	}
	if left > 0 {
		return "in " + text
	}
	return text + " ago"
}
