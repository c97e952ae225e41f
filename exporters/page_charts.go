package exporters

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// runwayTicks is the time axis of the runways: every step is as wide as the next, so that minutes and years fit beside
// each other.
var runwayTicks = []struct {
	at   time.Duration
	name string
}{{0, "now"}, {time.Hour, "1 h"}, {24 * time.Hour, "1 d"}, {7 * 24 * time.Hour, "7 d"}, {30 * 24 * time.Hour, "30 d"}, {90 * 24 * time.Hour, "90 d"}, {365 * 24 * time.Hour, "1 y"}}

// tickWidth is the width of one step of an axis, in units of its drawing.
const tickWidth = 100

// runwaysShown is how many runways the first page shows.
const runwaysShown = 12

type runwaysView struct {
	Ticks    []string
	Grid     string // path of the vertical lines
	Width    int
	Rows     []runwayView
	More     int
	Headline string
}

type runwayView struct {
	What, Whose string
	Ends        whenView
	Class       string // bad: over; warn: within a week, and not renewed by itself
	Word        string
	Length      int
	Probes      int
}

// runwayX is where a span of time ends on the axis.
func runwayX(left time.Duration) int {
	for i := 1; i < len(runwayTicks); i++ {
		from, to := runwayTicks[i-1].at, runwayTicks[i].at
		if left < to {
			return tickWidth*(i-1) + int(tickWidth*max(left-from, 0)/(to-from))
		}
	}
	return tickWidth * (len(runwayTicks) - 1)
}

func viewRunways(list []Runway, now time.Time) runwaysView {
	v := runwaysView{Width: tickWidth * (len(runwayTicks) - 1)}
	var grid strings.Builder
	for i, t := range runwayTicks {
		v.Ticks = append(v.Ticks, t.name)
		fmt.Fprintf(&grid, "M%d 0v10", i*tickWidth)
	}
	v.Grid = grid.String()
	for _, r := range list {
		if len(v.Rows) == runwaysShown {
			v.More++
			continue
		}
		left := r.Ends.Sub(now)
		row := runwayView{What: r.What, Whose: r.Whose, Ends: when(r.Ends, now), Length: runwayX(left), Probes: len(r.Probes), Class: "ok", Word: "holds"}
		switch {
		case left <= 0:
			row.Class, row.Word = "bad", "over"
		case r.Renewed:
			row.Word = "renewed by itself"
		case left < 7*24*time.Hour:
			row.Class, row.Word = "warn", "soon"
		}
		v.Rows = append(v.Rows, row)
	}
	if len(list) > 0 && !list[0].Renewed {
		verb := "ends"
		if list[0].Ends.Before(now) {
			verb = "ended"
		}
		v.Headline = fmt.Sprintf("Next: %s of %s %s %s", list[0].What, list[0].Whose, verb, when(list[0].Ends, now).Away)
	}
	return v
}

// clockScales are the half-widths that the axis of clocks may have.
var clockScales = []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour}

// clockHalf is half the width of the drawing of a clock.
const clockHalf = 400

type clocksView struct {
	Headline, Class string
	Scale           string
	Width           int
	Rows            []clockView
}

type clockView struct {
	Name, How, State, Class, Text string
	X, Length                     int
	Known                         bool
}

// viewClocks puts all clocks on one axis: left we are behind, right we are ahead.
func viewClocks(c Clocks, now time.Time) *clocksView {
	if c.Local == nil && len(c.Peers) == 0 {
		return nil
	}
	v := &clocksView{Width: 2 * clockHalf, Class: "ok"}
	type voice struct {
		clockView
		skew, bound time.Duration
	}
	var list []voice
	if c.Local != nil {
		one := voice{clockView{Name: "this host", How: heardFrom(c.Local), Known: c.Local.Confidence != evidence.NoConfidence, Class: "ok", State: "within the limit"}, c.Local.Skew, c.Local.Bound}
		limit := c.Local.Limit
		v.Headline = "This host's clock " + difference(c.Local.Skew, c.Local.Bound, "true time")
		switch {
		case !one.Known:
			one.Class, one.State = "warn", "unknown"
			v.Headline = "No reliable word about the time"
		case limit > 0 && c.Local.Skew.Abs()-c.Local.Bound > limit:
			one.Class, one.State = "bad", "over the limit of "+limit.String()
		}
		v.Class = one.Class
		list = append(list, one)
		for i, src := range slices.Concat(c.Local.Sources, c.Local.Own) {
			how := "time server"
			if i >= len(c.Local.Sources) {
				how = "on this host"
			}
			one := voice{clockView{Name: src.Name, How: how, State: src.State, Known: src.State == "truechimer" || src.State == "falseticker", Class: "ok"}, src.Skew, src.Bound}
			if src.State != "truechimer" {
				one.Class = "warn"
			}
			list = append(list, one)
		}
	}
	for _, p := range c.Peers {
		how := map[string]string{"http_date": "by its Date header", "token_iat": "by iat of its tokens"}[p.Method]
		one := voice{clockView{Name: p.Name, How: how, State: "agrees", Known: true, Class: "ok"}, p.Skew, p.Bound}
		switch {
		case p.Disagree:
			one.Class, one.State = "warn", "several clocks"
		case p.Skew.Abs() > p.Bound:
			one.Class, one.State = "warn", "differs"
		}
		list = append(list, one)
	}
	scale := clockScales[0]
	for _, one := range list {
		for _, larger := range clockScales {
			if one.Known && one.skew.Abs()+one.bound > scale && larger > scale {
				scale = larger
			}
		}
	}
	v.Scale = scale.String()
	for _, one := range list {
		if one.Known {
			from, to := clockX(one.skew-one.bound, scale), clockX(one.skew+one.bound, scale)
			one.X, one.Length = from, max(to-from, 6)
			one.Text = signed(one.skew) + " ± " + fewDigits(one.bound)
		}
		v.Rows = append(v.Rows, one.clockView)
	}
	return v
}

// heardFrom says in words whose verdict on our clock it is.
func heardFrom(c *evidence.Clock) string {
	switch c.Reference {
	case "chrony", "kernel":
		return "by " + c.Reference + " of this host, " + string(c.Confidence)
	case "peers":
		return "by the servers that are asked, " + string(c.Confidence)
	default:
		return "by time servers, " + string(c.Confidence)
	}
}

func clockX(skew, scale time.Duration) int {
	return min(max(clockHalf+int(float64(skew)/float64(scale)*clockHalf), 0), 2*clockHalf)
}

// difference tells a skew in words: local minus reference. One within its bound cannot be told from none.
func difference(skew, bound time.Duration, reference string) string {
	switch {
	case skew.Abs() <= bound:
		return "agrees with " + reference + " to ± " + fewDigits(skew.Abs()+bound)
	case skew > 0:
		return "is ahead of " + reference + " by " + fewDigits(skew) + " ± " + fewDigits(bound)
	default:
		return "is behind " + reference + " by " + fewDigits(-skew) + " ± " + fewDigits(bound)
	}
}

func signed(d time.Duration) string {
	if d < 0 {
		return "-" + fewDigits(-d)
	}
	return "+" + fewDigits(d)
}

func fewDigits(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return shortSpan(d)
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/1e6)
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	default:
		return fmt.Sprintf("%.0f µs", float64(d)/1e3)
	}
}
