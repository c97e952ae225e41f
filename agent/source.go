package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/authvigil/authvigil/probes/evidence"
)

// maxConfigBytes bounds a configuration file; ten thousand probes take about three megabytes.
const maxConfigBytes = 32 << 20

// A Position is a place in a file of the configuration, or the environment variable that a value came from.
type Position struct {
	File      string // or the name of an environment variable
	Line, Col int    // from 1; 0: unknown
}

func (p Position) String() string {
	switch {
	case p.File == "":
		return "configuration"
	case p.Line == 0:
		return p.File
	default:
		return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
}

// A ConfigError is one thing that is wrong with the configuration, with the place and what to do about it.
type ConfigError struct {
	At      Position
	Path    string // of the key, such as probe.devices.url
	What    string
	Excerpt string // the line, with a mark beneath
	Help    string
}

// Error has the form file:line:col: what, the excerpt, and help.
func (e *ConfigError) Error() string {
	text := fmt.Sprintf("%s: %s", e.At, e.What)
	if e.Path != "" && !strings.HasPrefix(e.What, e.Path) {
		text = fmt.Sprintf("%s: %s: %s", e.At, e.Path, e.What)
	}
	if e.Excerpt != "" {
		text += "\n" + e.Excerpt
	}
	if e.Help != "" {
		text += "\n  help: " + e.Help
	}
	return text
}

// maxErrors is how many errors are told at once; what follows is mostly the same again.
const maxErrors = 20

// InOrder puts joined errors of a configuration into the order in which they stand in its files, and leaves out those
// after the twentieth.
func InOrder(err error) error {
	list := flatten(err)
	slices.SortStableFunc(list, func(a, b error) int {
		x, isX := errors.AsType[*ConfigError](a)
		y, isY := errors.AsType[*ConfigError](b)
		if !isX || !isY {
			return 0
		}
		return cmp.Or(cmp.Compare(x.At.File, y.At.File), cmp.Compare(x.At.Line, y.At.Line), cmp.Compare(x.At.Col, y.At.Col))
	})
	if more := len(list) - maxErrors; more > 0 {
		list = append(list[:maxErrors], fmt.Errorf("and %d errors more", more))
	}
	return errors.Join(list...)
}

// A source is one file of the configuration, with the position of each of its keys.
type source struct {
	name  string
	lines [][]byte
	raw   map[string]any
	at    map[string]Position // by path, joined with sep
}

// sep joins the parts of a path inside; names may hold dots, but not this.
const sep = "\x1f"

// readSource reads a file and notes where each key stands.
func readSource(name string) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, &ConfigError{At: Position{File: name}, What: plainError(err), Help: "name the file with --config.file, or make one with: authvigil init"}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return nil, &ConfigError{At: Position{File: name}, What: plainError(err)}
	}
	if len(text) > maxConfigBytes {
		return nil, &ConfigError{At: Position{File: name}, What: fmt.Sprintf("is larger than %d MiB", maxConfigBytes>>20)}
	}
	return parseSource(name, text)
}

func plainError(err error) string {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Err.Error()
	}
	return err.Error()
}

func parseSource(name string, text []byte) (*source, error) {
	s := &source{name: name, lines: bytes.Split(text, []byte("\n")), raw: map[string]any{}, at: map[string]Position{}}
	if err := toml.Unmarshal(text, &s.raw); err != nil {
		e := &ConfigError{At: Position{File: name}, What: strings.TrimPrefix(err.Error(), "toml: ")}
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			row, col := d.Position()
			e.At.Line, e.At.Col = row, col
			e.Excerpt = s.excerpt(e.At)
			e.Help = "the file is not TOML from here on"
		}
		return nil, e
	}
	s.locate(text)
	return s, nil
}

// locate walks the expressions of the file, which toml.Unmarshal found to be correct.
func (s *source) locate(text []byte) {
	var p unstable.Parser
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			var at Position
			table, at = s.key(&p, nil, e)
			s.note(table, at)
		case unstable.KeyValue:
			s.keyValue(&p, table, e)
		}
	}
}

func (s *source) keyValue(p *unstable.Parser, table []string, e *unstable.Node) {
	path, at := s.key(p, table, e)
	s.note(path, at)
	if e.Value().Kind == unstable.InlineTable {
		for children := e.Value().Children(); children.Next(); {
			s.keyValue(p, path, children.Node())
		}
	}
}

func (s *source) key(p *unstable.Parser, table []string, e *unstable.Node) (path []string, at Position) {
	path = slices.Clone(table)
	for parts := e.Key(); parts.Next(); {
		n := parts.Node()
		path = append(path, string(n.Data))
		if at.Line == 0 {
			start := p.Shape(n.Raw).Start
			at = Position{File: s.name, Line: start.Line, Col: start.Column}
		}
	}
	return path, at
}

func (s *source) note(path []string, at Position) {
	for i := range path {
		key := strings.Join(path[:i+1], sep)
		if _, known := s.at[key]; !known || i == len(path)-1 {
			s.at[key] = at
		}
	}
}

// excerpt shows the line of a position with a mark beneath. The value of a key is not shown where it could be a secret.
func (s *source) excerpt(at Position) string {
	if at.Line < 1 || at.Line > len(s.lines) {
		return ""
	}
	line := evidence.Clean(strings.ReplaceAll(string(s.lines[at.Line-1]), "\t", " "), 120)
	if key, value, found := strings.Cut(line, "="); found && mayBeSecret(key, value) {
		line = key + "= …"
	}
	gutter := fmt.Sprintf("%5d | ", at.Line)
	col := min(max(at.Col-1, 0), len(line))
	return gutter + line + "\n" + strings.Repeat(" ", len(gutter)-2) + "| " + strings.Repeat(" ", col) + "^"
}

// mayBeSecret says whether the text of a line must not be repeated: a reference that is none is probably the secret.
func mayBeSecret(key, value string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"secret", "password", "token", "key", "passphrase", "cookie", "authorization", "header", "body"} {
		if strings.Contains(key, word) && !strings.Contains(key, "_file") && !strings.Contains(key, "_url") && !strings.HasPrefix(strings.TrimSpace(key), "[") {
			return true
		}
	}
	return strings.Contains(value, "plain:") || strings.Contains(value, "://") && strings.Contains(value, "@")
}

// readSources reads the main file and conf.d/*.toml beside it, in order of name.
func readSources(path string) (list []*source, errs []error) {
	main, err := readSource(path)
	if err != nil {
		return nil, []error{err}
	}
	list = append(list, main)
	more, err := filepath.Glob(filepath.Join(filepath.Dir(path), "conf.d", "*.toml"))
	if err != nil {
		return list, []error{err}
	}
	slices.Sort(more)
	for _, name := range more {
		s, err := readSource(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, s)
	}
	return list, errs
}
