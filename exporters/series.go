package exporters

import (
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// A series is one line of the metrics: its labels as they are written, and its value.
type series struct {
	labels string // `{probe="a",kind="http"}`, or empty
	value  float64
	at     int // place in its family
	of     *family
}

// A family holds the series of one metric. Its lines are kept as they are written, because ten thousand probes make two
// hundred thousand of them: building metrics for each scrape takes several times as long, and four times the memory.
type family struct {
	name, help string
	counter    bool
	list       []*series
	by         map[string]*series // by labels
}

// A table holds all families.
type table struct {
	mu       sync.Mutex // owns all
	families map[string]*family
	buffer   []byte
}

// A label is a name with its value.
type label struct{ name, value string }

func newTable() *table { return &table{families: map[string]*family{}} }

// declare makes a family; declaring twice is no error.
func (t *table) declare(name, help string, counter bool) *family {
	f := t.families[name]
	if f == nil {
		f = &family{name: name, help: help, counter: counter, by: map[string]*series{}}
		t.families[name] = f
	}
	return f
}

// series finds or makes the series with these labels.
func (t *table) series(f *family, labels ...label) *series {
	b := t.buffer[:0]
	for i, l := range labels {
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(b, l.name...)
		b = append(b, '=', '"')
		b = appendEscaped(b, l.value)
		b = append(b, '"')
	}
	if len(labels) > 0 {
		b = append(b, '}')
	}
	t.buffer = b
	if s := f.by[string(b)]; s != nil {
		return s
	}
	s := &series{labels: string(b), at: len(f.list), of: f}
	f.list = append(f.list, s)
	f.by[s.labels] = s
	return s
}

// appendEscaped writes a label value as the text format wants it.
func appendEscaped(b []byte, value string) []byte {
	if !strings.ContainsAny(value, "\\\"\n") {
		return append(b, value...)
	}
	for i := range len(value) {
		switch c := value[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}

// remove deletes a series. Deleting twice is no error.
func (s *series) remove() {
	f := s.of
	if f.by[s.labels] != s {
		return
	}
	last := f.list[len(f.list)-1]
	f.list[s.at], last.at = last, s.at
	f.list[len(f.list)-1] = nil
	f.list = f.list[:len(f.list)-1]
	delete(f.by, s.labels)
}

// names lists the families that have series, sorted; the table's mutex is held.
func (t *table) names() (names []string) {
	for name, f := range t.families {
		if len(f.list) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// chunk is how much text is gathered before it is written.
const chunk = 64 << 10

// write writes all series in the text format of Prometheus. What is slow, the writing itself, is done without the lock.
func (t *table) write(w io.Writer) error {
	t.mu.Lock()
	names := t.names()
	size := 0
	for _, name := range names {
		size += len(t.families[name].list) * 96
	}
	b := make([]byte, 0, size+chunk)
	for _, name := range names {
		b = t.families[name].append(b)
	}
	t.mu.Unlock()
	for len(b) > 0 {
		n := min(len(b), chunk)
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (f *family) append(b []byte) []byte {
	kind := "gauge"
	if f.counter {
		kind = "counter"
	}
	b = append(b, "# HELP "+f.name+" "+strings.ReplaceAll(strings.ReplaceAll(f.help, `\`, `\\`), "\n", `\n`)+"\n# TYPE "+f.name+" "+kind+"\n"...)
	for _, s := range f.list {
		b = append(b, f.name...)
		b = append(b, s.labels...)
		b = append(b, ' ')
		if v := s.value; v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			b = strconv.AppendInt(b, int64(v), 10)
		} else {
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
		b = append(b, '\n')
	}
	return b
}

// gather gives all families as messages, for scrapers that ask for another format than text.
func (t *table) gather() []*dto.MetricFamily {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*dto.MetricFamily
	for _, name := range t.names() {
		f := t.families[name]
		m := &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: dto.MetricType_GAUGE.Enum()}
		if f.counter {
			m.Type = dto.MetricType_COUNTER.Enum()
		}
		for _, s := range f.list {
			metric := &dto.Metric{Label: parseLabels(s.labels)}
			if f.counter {
				metric.Counter = &dto.Counter{Value: proto.Float64(s.value)}
			} else {
				metric.Gauge = &dto.Gauge{Value: proto.Float64(s.value)}
			}
			m.Metric = append(m.Metric, metric)
		}
		list = append(list, m)
	}
	return list
}

// parseLabels takes the labels of a series apart again, sorted by name as the formats want them.
func parseLabels(text string) (list []*dto.LabelPair) {
	for text = strings.Trim(text, "{}"); text != ""; {
		name, rest, _ := strings.Cut(text, `="`)
		var value strings.Builder
		i := 0
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
				if rest[i] == 'n' {
					value.WriteByte('\n')
					continue
				}
			}
			value.WriteByte(rest[i])
		}
		list = append(list, &dto.LabelPair{Name: proto.String(name), Value: proto.String(value.String())})
		text = strings.TrimPrefix(rest[min(i+1, len(rest)):], ",")
	}
	slices.SortFunc(list, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	return list
}
