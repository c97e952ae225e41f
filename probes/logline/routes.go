package logline

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// Bounds of what paths can make of a route table. A scanner asks for whatever it likes.
const (
	maxSegments = 8    // of a path; what lies deeper is one
	maxChildren = 40   // different segments at one place, before they are taken for names of objects
	maxNodes    = 4096 // in all
)

// MaxEndpoint is how many bytes an endpoint has at most.
const MaxEndpoint = 160

// Routes makes endpoints of paths: by the patterns that the operator gives, and where none fits by putting {id} for segments
// that name an object, or that are too many to be anything else.
type Routes struct {
	patterns []pattern
	root     *node
	nodes    int
	out      []byte
}

type pattern struct {
	text     string
	segments []string // "": any
	rest     bool     // ends with /*
}

type node struct {
	children map[string]*node // by segment; {id} is always one of them
}

// NewRoutes takes patterns such as /v2/devices/{id} and /static/*; the first that fits counts.
func NewRoutes(patterns []string) (*Routes, error) {
	r := &Routes{root: &node{}, nodes: 1}
	for _, text := range patterns {
		if !strings.HasPrefix(text, "/") {
			return nil, fmt.Errorf("routes: %q does not begin with /", text)
		}
		if strings.ContainsAny(text, "?# \t") {
			return nil, fmt.Errorf("routes: %q: a pattern is a path, without query", text)
		}
		p := pattern{text: text}
		for segment := range strings.SplitSeq(text[1:], "/") {
			switch {
			case p.rest:
				return nil, fmt.Errorf("routes: %q: * stands for the rest of the path and must be its end", text)
			case segment == "*":
				p.rest = true
			case strings.HasPrefix(segment, "{") && strings.HasSuffix(segment, "}"):
				p.segments = append(p.segments, "")
			case strings.ContainsAny(segment, "{}*"):
				return nil, fmt.Errorf("routes: %q: {name} and * stand for whole segments", text)
			default:
				p.segments = append(p.segments, segment)
			}
		}
		r.patterns = append(r.patterns, p)
	}
	return r, nil
}

// Endpoint gives the endpoint of a line, fit to be a label. The result is good until the next call. Only an answer that shows that a
// path exists makes it known, so that scanners do not fill the table.
func (r *Routes) Endpoint(l *Line) []byte {
	if l.Whole {
		return presentable(l.Target)
	}
	return presentable(r.endpoint(l.Target, l.Status/100 == 2 || l.Status == 401 || l.Status == 403))
}

// presentable makes a path that anybody may have asked for fit to be a label.
func presentable(endpoint []byte) []byte {
	if len(endpoint) <= MaxEndpoint+8 {
		plain := true
		for _, c := range endpoint {
			if c < ' ' || c > '~' {
				plain = false
				break
			}
		}
		if plain {
			return endpoint
		}
	}
	return []byte(evidence.Clean(string(endpoint), MaxEndpoint))
}

// endpoint gives the endpoint of a request target. The result is good until the next call. learn: the answer shows that the
// path exists, so that its segments may be remembered.
func (r *Routes) endpoint(target []byte, learn bool) []byte {
	path := target
	if i := bytes.Index(path, []byte("://")); i >= 0 && i < 8 { // absolute form, as proxies and AWS write it
		path = path[i+3:]
		if j := bytes.IndexByte(path, '/'); j >= 0 {
			path = path[j:]
		} else {
			path = []byte("/")
		}
	}
	for i, c := range path {
		if c == '?' || c == '#' || c == ';' {
			path = path[:i]
			break
		}
	}
	if len(path) == 0 || path[0] != '/' {
		return []byte("-")
	}
	for i := range r.patterns {
		if p := &r.patterns[i]; p.matches(path) {
			r.out = append(r.out[:0], p.text...)
			return r.out
		}
	}
	return r.guess(path, learn)
}

func (p *pattern) matches(path []byte) bool {
	rest := path[1:]
	for i, want := range p.segments {
		segment, after, more := bytes.Cut(rest, slash)
		if want != "" && string(segment) != want || want == "" && len(segment) == 0 {
			return false
		}
		if !more {
			return i == len(p.segments)-1 && !p.rest
		}
		rest = after
	}
	return p.rest
}

// guess puts {id} for what names an object.
func (r *Routes) guess(path []byte, learn bool) []byte {
	out := r.out[:0]
	at := r.root // nil: below a segment that is not known
	rest := path[1:]
	for depth := 0; ; depth++ {
		segment, after, more := bytes.Cut(rest, slash)
		out = append(out, '/')
		if depth == maxSegments || len(out)+len(segment) > MaxEndpoint {
			out = append(out, '*')
			break
		}
		if namesObject(segment) {
			segment = idSegment
		}
		segment, at = r.step(at, segment, learn)
		out = append(out, segment...)
		if !more {
			break
		}
		rest = after
	}
	r.out = out
	return out
}

var idSegment = []byte("{id}")

var slash = []byte("/")

// step goes from a node to the one below it. Where there are too many different segments, a new one is taken for the name of
// an object.
func (r *Routes) step(at *node, segment []byte, learn bool) ([]byte, *node) {
	if at == nil || len(segment) == 0 {
		return segment, at
	}
	if next := at.children[string(segment)]; next != nil {
		return segment, next
	}
	if len(at.children) >= maxChildren || r.nodes >= maxNodes {
		return idSegment, at.children[string(idSegment)]
	}
	if !learn {
		return segment, nil
	}
	if at.children == nil {
		// Room for {id} is made at once, so that it is there when the others are too many.
		at.children = map[string]*node{string(idSegment): {}}
		r.nodes++
		if bytes.Equal(segment, idSegment) {
			return segment, at.children[string(idSegment)]
		}
	}
	next := &node{}
	at.children[string(segment)] = next
	r.nodes++
	return segment, next
}

// namesObject tells names of objects from names of things: numbers, UUIDs, hashes, tokens, addresses.
func namesObject(s []byte) bool {
	if len(s) == 0 {
		return false
	}
	digits, letters, hex, other, upper := 0, 0, 0, 0, 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
			hex++
		case c >= 'a' && c <= 'f':
			letters++
			hex++
		case c >= 'A' && c <= 'F':
			letters++
			upper++
			hex++
		case c >= 'g' && c <= 'z':
			letters++
		case c >= 'G' && c <= 'Z':
			letters++
			upper++
		case c == '@':
			return true
		case c == '-' || c == '_' || c == '.' || c == ':' || c == '~':
			other++
		default:
			return len(s) >= 8 // escaped, or not ASCII
		}
	}
	switch {
	case digits == len(s):
		return true
	case digits > 0 && hex+other == len(s) && len(s) >= 8: // hexadecimal
		return true
	case digits >= 4 && 2*digits >= letters && len(s) >= 6 && letters > 0: // dev-00123, b2024x91
		return true
	case len(s) >= 20 && digits >= 2 && letters >= 8: // random text
		return true
	case len(s) >= 20 && upper >= 4 && letters-upper >= 4 && other == 0:
		return true
	}
	return false
}
