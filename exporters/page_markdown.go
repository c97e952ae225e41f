package exporters

import "strings"

// A block of a runbook: heading 1 or 2, paragraph, list or code. The template writes it, so that all text is escaped.
type block struct {
	Kind  string // h2, h3, p, ul, pre
	Items [][]span
}

type span struct {
	Code bool
	Text string
}

// markdown reads the little of Markdown that runbooks use: headings, paragraphs, lists, fenced code and code within lines.
func markdown(text string) (blocks []block) {
	open := func(kind string) *block {
		blocks = append(blocks, block{Kind: kind})
		return &blocks[len(blocks)-1]
	}
	var lines []string // of the paragraph or item that is being read
	kind := ""
	flush := func() {
		if len(lines) == 0 {
			return
		}
		b := &block{}
		if n := len(blocks); kind == "ul" && n > 0 && blocks[n-1].Kind == "ul" {
			b = &blocks[n-1]
		} else {
			b = open(kind)
		}
		b.Items = append(b.Items, spans(strings.Join(lines, " ")))
		lines = nil
	}
	fenced := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "```"):
			flush()
			if fenced = !fenced; fenced {
				open("pre")
			}
		case fenced:
			b := &blocks[len(blocks)-1]
			b.Items = append(b.Items, []span{{Text: line + "\n"}})
		case strings.HasPrefix(line, "    ") && len(lines) == 0:
			if n := len(blocks); n == 0 || blocks[n-1].Kind != "pre" {
				open("pre")
			}
			b := &blocks[len(blocks)-1]
			b.Items = append(b.Items, []span{{Text: strings.TrimPrefix(line, "    ") + "\n"}})
		case strings.HasPrefix(line, "## "):
			flush()
			open("h3").Items = [][]span{spans(line[3:])}
		case strings.HasPrefix(line, "# "):
			flush()
			open("h2").Items = [][]span{spans(line[2:])}
		case strings.HasPrefix(line, "- "):
			flush()
			kind, lines = "ul", []string{line[2:]}
		case strings.TrimSpace(line) == "":
			flush()
		default:
			if len(lines) == 0 {
				kind = "p"
			}
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	flush()
	return blocks
}

// spans parts a line at its backticks.
func spans(line string) (list []span) {
	for i, part := range strings.Split(line, "`") {
		if part != "" {
			list = append(list, span{Code: i%2 == 1, Text: part})
		}
	}
	return list
}
