package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/exporters"
)

func topCommand(a *app) *cobra.Command {
	var from string
	var every time.Duration
	c := &cobra.Command{
		Use: "top", Short: "Watch a running daemon; without a terminal, show it once", Args: cobra.NoArgs,
		Long:    "top shows how the probes of a running daemon stand and keeps the view up to date. Keys: q ends it, p pauses, f shows only what is not as expected.",
		Example: "  authvigil top\n  authvigil top --from http://127.0.0.1:10401 --every 5s",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := a.checkOutput(); err != nil {
				return err
			}
			d := connect(from)
			v, err := d.look(c.Context())
			if err != nil {
				return exit{exitUsage, firstError(err)}
			}
			in, ok := a.stdin.(*os.File)
			if !ok || !isTerminal(a.stdin) || !isTerminal(a.stdout) || a.output != "text" {
				return a.showStatus(v)
			}
			return a.watch(c.Context(), d, v, in, max(every, 200*time.Millisecond))
		},
	}
	c.Flags().StringVar(&from, "from", "", "unix `socket` or address of the page of the daemon; default: its socket, else "+defaultPage)
	c.Flags().DurationVar(&every, "every", 2*time.Second, "how often the view is made anew")
	return c
}

// A screen is a terminal whose contents are replaced as a whole, in one write, so that nothing flickers.
type screen struct {
	out    *os.File
	paused bool
	bad    bool // only what is not as expected is shown
	wrong  error
}

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	beginFrame  = "\x1b[?2026h\x1b[H" // terminals that know it show the frame at once
	endFrame    = "\x1b[J\x1b[?2026l"
)

// watch keeps the view up to date until q is pressed or ctx ends.
func (a *app) watch(ctx context.Context, d *daemonClient, v *view, in *os.File, every time.Duration) error {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return exit{exitFound, fmt.Errorf("the terminal cannot be read key by key: %w", err)}
	}
	s := &screen{out: a.stdout.(*os.File)}
	fmt.Fprint(s.out, enterScreen)
	defer func() {
		fmt.Fprint(s.out, leaveScreen)
		_ = term.Restore(int(in.Fd()), before) // nothing can be done about a terminal that is gone
	}()
	keys := make(chan byte)
	go func() { // ends with the process: a read of a terminal cannot be called back
		b := make([]byte, 1)
		for {
			if n, err := in.Read(b); err != nil || n == 0 {
				close(keys)
				return
			}
			keys <- b[0]
		}
	}()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		s.draw(a, v, d.where)
		select {
		case <-ctx.Done():
			return nil
		case key, ok := <-keys:
			switch {
			case !ok || key == 'q' || key == 3 || key == 4: // Ctrl-C and Ctrl-D do not become signals in this mode
				return nil
			case key == 'p' || key == ' ':
				s.paused = !s.paused
			case key == 'f':
				s.bad = !s.bad
			}
		case <-tick.C:
			if s.paused {
				continue
			}
			now, err := d.look(ctx)
			if s.wrong = firstError(err); err == nil {
				v = now
			} else if errors.Is(ctx.Err(), context.Canceled) {
				return nil
			}
		}
	}
}

// draw replaces what the terminal shows.
func (s *screen) draw(a *app, v *view, where string) {
	var text bytes.Buffer
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	p := a.paper(s.out)
	p.w, p.width = &text, min(max(width, narrowest), widest)
	word, c, rest := v.headline()
	p.say(p.in(bold, "authvigil"), " ", p.in(faint, where+" "+v.At.Format("15:04:05 UTC")), "  ", p.in(c, word), p.in(plain, rest))
	state := "q ends, p pauses, f shows only what is not as expected"
	if s.paused {
		state = "paused; p goes on, q ends"
	}
	if s.wrong != nil {
		first, _, _ := strings.Cut(s.wrong.Error(), "\n")
		p.say(p.in(red, first))
	} else {
		p.say(p.in(faint, state))
	}
	shown := *v
	if s.bad {
		shown.Probes = nil
		for _, r := range v.Probes {
			if r.Outcome != agent.RunOK || r.Held || len(r.Findings) > 0 {
				shown.Probes = append(shown.Probes, r)
			}
		}
	}
	for i := range v.Findings {
		if i == 5 {
			p.say(p.in(faint, fmt.Sprintf("and %s more", plural(len(v.Findings)-i, "finding"))))
			break
		}
		p.blame(&v.Findings[i], v.At)
	}
	p.say()
	p.runways(v, 4)
	p.table([]string{"PROBE", "STATE", "TOOK", "NEXT", "ENDPOINT", "WHY"}, shown.rows())
	lines := strings.Split(strings.TrimRight(text.String(), "\n"), "\n")
	if len(lines) > height {
		lines = append(lines[:height-1], p.in(faint, fmt.Sprintf("… %d more lines", len(lines)-height+1)))
	}
	fmt.Fprint(s.out, beginFrame+strings.Join(lines, "\x1b[K\r\n")+"\x1b[K"+endFrame)
}

// blame tells a finding in two lines.
func (p *paper) blame(b *exporters.Blame, now time.Time) {
	text := fmt.Sprintf(" %s (%s, %s), %s", b.Title, b.Cause, b.Sure, plural(len(b.Probes), "probe"))
	if !b.Since.IsZero() {
		text += ", since " + away(b.Since, now)
	}
	p.say(p.in(red, cut(b.Culprit, p.width/2)), p.in(plain, cut(text, p.width-min(len(b.Culprit), p.width/2))))
	p.say("  do: ", p.in(bold, cut(b.Remedy, p.width-6)))
}
