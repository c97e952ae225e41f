package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
)

// chartWidth is how many columns a chart has at most.
const chartWidth = 72

// A chart counts requests over time, in columns that grow wider as the log goes on.
type chart struct {
	from, to time.Time
	start    int64         // Unix second of the first column
	width    int64         // of a column, in seconds
	columns  []chartColumn // 2*chartWidth at most
}

type chartColumn struct{ requests, refused int }

func (c *chart) add(at time.Time, status int) {
	sec := at.Unix()
	if c.width == 0 {
		c.width, c.from, c.to = 60, at, at
		c.start = sec - sec%c.width
	}
	if at.After(c.to) {
		c.to = at
	}
	i := (sec - c.start) / c.width
	if i < 0 {
		i = 0 // late
	}
	for i >= 2*chartWidth {
		c.fold()
		i = (sec - c.start) / c.width
	}
	for int64(len(c.columns)) <= i {
		c.columns = append(c.columns, chartColumn{})
	}
	c.columns[i].requests++
	if status == 401 {
		c.columns[i].refused++
	}
}

// fold makes one column of two.
func (c *chart) fold() {
	c.width *= 2
	half := c.columns[:0]
	for i := 0; i < len(c.columns); i += 2 {
		x := c.columns[i]
		if i+1 < len(c.columns) {
			x.requests += c.columns[i+1].requests
			x.refused += c.columns[i+1].refused
		}
		half = append(half, x)
	}
	c.columns = half
}

var bars = []rune(" ▁▂▃▄▅▆▇█")

// row draws one line of the chart.
func (c *chart) row(value func(chartColumn) int) (line string, most int) {
	for _, x := range c.columns {
		most = max(most, value(x))
	}
	var b strings.Builder
	for _, x := range c.columns {
		n := 0
		if v := value(x); v > 0 {
			n = 1 + int(math.Round(float64(v)/float64(most)*float64(len(bars)-2)))
		}
		b.WriteRune(bars[n])
	}
	return b.String(), most
}

// alertRow marks when alerts held: ! somebody would have been woken, · a ticket.
func (c *chart) alertRow(list []spike.Alert) string {
	row := []rune(strings.Repeat(" ", len(c.columns)))
	for _, a := range list {
		end := a.Ended
		if end.IsZero() {
			end = c.to
		}
		first, last := (a.Started.Unix()-c.start)/c.width, (end.Unix()-c.start)/c.width
		for i := max(first, 0); i <= last && i < int64(len(row)); i++ {
			if a.Severity == spike.Critical {
				row[i] = '!'
			} else if row[i] == ' ' {
				row[i] = '·'
			}
		}
	}
	return string(row)
}

// summary is what people read.
func (r *replay) summary(w io.Writer) error {
	c := &r.feed.Counts
	for len(r.chart.columns) > chartWidth {
		r.chart.fold()
	}
	fmt.Fprintf(w, "%s to %s, %s\n", r.chart.from.UTC().Format(time.DateTime), r.chart.to.UTC().Format(time.DateTime), longSpan(r.chart.to.Sub(r.chart.from)))
	fmt.Fprintf(w, "%d requests, %d refused (401), %d forbidden (403), %d endpoints", c.Requests, c.Status[401], c.Status[403], r.feed.Detector().Stats().Endpoints)
	if c.Bad > 0 {
		fmt.Fprintf(w, "; %d lines not understood, the last looks like %q", c.Bad, r.feed.Sample())
	}
	fmt.Fprint(w, "\n\n")
	requests, most := r.chart.row(func(x chartColumn) int { return x.requests })
	fmt.Fprintf(w, "requests %s %d in %s\n", requests, most, longSpan(time.Duration(r.chart.width)*time.Second))
	refused, most := r.chart.row(func(x chartColumn) int { return x.refused })
	fmt.Fprintf(w, "refused  %s %d in %s\n", refused, most, longSpan(time.Duration(r.chart.width)*time.Second))
	if len(r.list) > 0 {
		fmt.Fprintf(w, "alerts   %s ! wakes somebody, · is a ticket\n", r.chart.alertRow(r.list))
	}
	fmt.Fprintln(w)
	if len(r.list) == 0 {
		fmt.Fprintln(w, "Nothing would have been told.")
		if left := 8*time.Hour - r.chart.to.Sub(r.chart.from); left > 0 {
			fmt.Fprintf(w, "The detector learns for eight hours before it tells anything; this log is %s too short.\n", longSpan(left))
		}
		return nil
	}
	pages := 0
	for _, a := range r.list {
		if a.Severity == spike.Critical {
			pages++
		}
		how := "still holds at the end"
		if !a.Ended.IsZero() {
			how = fmt.Sprintf("%s, %s", longSpan(a.Ended.Sub(a.Started)), a.How)
		}
		fmt.Fprintf(w, "%s  %-8s %-18s %s  (%s)\n", a.Started.UTC().Format("2006-01-02 15:04:05"), a.Severity, a.Name, a.Endpoint, how)
		fmt.Fprintf(w, "    %s\n", a.Description)
		if a.Clients != "" {
			fmt.Fprintf(w, "    clients: %s\n", a.Clients)
		}
		if r.explain {
			fmt.Fprintf(w, "    onset %s\n", a.Onset.UTC().Format(time.DateTime))
			for _, line := range a.Because {
				fmt.Fprintf(w, "    · %s\n", line)
			}
		}
	}
	fmt.Fprintf(w, "\n%d alerts, %d of them critical.\n", len(r.list), pages)
	return nil
}

// longSpan says how long something took, in the unit that fits.
func longSpan(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}
