package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/authvigil/authvigil/exporters"
)

// A paint is how a word looks on a terminal that has colours. A word never differs by its paint alone.
type paint string

const (
	plain paint = ""
	bold  paint = "1"
	faint paint = "2"
	red   paint = "31"
	green paint = "32"
	amber paint = "33"
)

// A paper is where text for people goes. What is written passes the scrubber, and loses characters that command a terminal.
type paper struct {
	w     io.Writer
	color bool
	width int // columns; 0: not a terminal, lines are as long as they are
}

// widest and narrowest bound what a terminal says of itself.
const (
	narrowest = 40
	widest    = 400
)

// paper finds out what w can show.
func (a *app) paper(w io.Writer) *paper {
	p := &paper{w: w}
	if f, ok := w.(*os.File); ok && isTerminal(w) {
		p.width = 80
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			p.width = n
		}
		p.color = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	if n, err := strconv.Atoi(a.getenv("COLUMNS")); err == nil && n > 0 {
		p.width = n
	}
	if p.width > 0 {
		p.width = min(max(p.width, narrowest), widest)
	}
	switch a.color {
	case "always":
		p.color = true
	case "never":
		p.color = false
	}
	return p
}

// isTerminal says whether somebody may sit behind w.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) getenv(name string) string {
	for _, pair := range a.environ {
		if key, value, _ := strings.Cut(pair, "="); key == name {
			return value
		}
	}
	return ""
}

// checkColor refuses words that --color does not know.
func (a *app) checkColor() error {
	if !slices.Contains([]string{"auto", "always", "never"}, a.color) {
		return exit{exitUsage, fmt.Errorf("--color: %q is none of auto, always, never", a.color)}
	}
	return nil
}

// tame makes text fit for a terminal, whoever wrote it.
func tame(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == utf8.RuneError, unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return '?'
		default:
			return r
		}
	}, exporters.Show(text))
}

// in paints a word.
func (p *paper) in(c paint, text string) string {
	text = tame(text)
	if !p.color || c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// say writes one line, made of words that passed [paper.in].
func (p *paper) say(parts ...string) { fmt.Fprintln(p.w, strings.Join(parts, "")) }

// wrapped writes text after a prefix, broken at spaces where the terminal ends; what follows is indented as far.
func (p *paper) wrapped(prefix string, c paint, text string) {
	indent := utf8.RuneCountInString(prefix)
	room := p.width - indent
	if p.width == 0 || room < 20 {
		p.say(prefix, p.in(c, text))
		return
	}
	lead := prefix
	for _, line := range wrap(tame(text), room) {
		p.say(lead, p.in(c, line))
		lead = strings.Repeat(" ", indent)
	}
}

// wrap breaks text at spaces into lines of at most room characters; longer words stand alone.
func wrap(text string, room int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// A cell is a word of a table.
type cell struct {
	text string
	c    paint
}

// table writes rows in columns. Where the terminal is too narrow the last column is broken into lines, and when that does
// not help, the others are cut.
func (p *paper) table(head []string, rows [][]cell) {
	if len(rows) == 0 {
		return
	}
	all := [][]cell{}
	if head != nil {
		first := make([]cell, len(head))
		for i, h := range head {
			first[i] = cell{h, faint}
		}
		all = append(all, first)
	}
	all = append(all, rows...)
	widths := make([]int, 0, 8)
	for r := range all {
		for i := range all[r] {
			all[r][i].text = tame(all[r][i].text)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(all[r][i].text))
		}
	}
	last := len(widths) - 1
	room := p.fit(widths)
	for _, row := range all {
		var b strings.Builder
		at := 0
		for i, c := range row {
			if i == last || i == len(row)-1 {
				for n, line := range p.broken(c.text, room) {
					if n > 0 {
						b.WriteString("\n" + strings.Repeat(" ", at))
					}
					b.WriteString(p.in(c.c, line))
				}
				break
			}
			text := cut(c.text, widths[i])
			pad := widths[i] - utf8.RuneCountInString(text) + 2
			b.WriteString(p.in(c.c, text) + strings.Repeat(" ", pad))
			at += widths[i] + 2
		}
		fmt.Fprintln(p.w, strings.TrimRight(b.String(), " "))
	}
}

// fit narrows the widest columns until a readable rest is left for the last, and gives that rest; 0: no bound.
func (p *paper) fit(widths []int) int {
	if p.width == 0 {
		return 0
	}
	last := len(widths) - 1
	want := min(widths[last], 24)
	for {
		used, largest := 0, 0
		for i := range last {
			used += widths[i] + 2
			if widths[i] > widths[largest] {
				largest = i
			}
		}
		if rest := p.width - used; rest >= want || last == 0 || widths[largest] <= 8 {
			return max(rest, 8)
		}
		widths[largest]--
	}
}

func (p *paper) broken(text string, room int) []string {
	if room == 0 || utf8.RuneCountInString(text) <= room {
		return []string{text}
	}
	var lines []string
	for _, line := range wrap(text, room) {
		for utf8.RuneCountInString(line) > room {
			runes := []rune(line)
			lines, line = append(lines, string(runes[:room])), string(runes[room:])
		}
		lines = append(lines, line)
	}
	return lines
}

// cut shortens text to n characters.
func cut(text string, n int) string {
	runes := []rune(text)
	if len(runes) <= n {
		return text
	}
	return string(runes[:max(n-1, 0)]) + "…"
}
