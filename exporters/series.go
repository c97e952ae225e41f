package exporters

import (
	"slices"
	"sync"

	dto "github.com/prometheus/client_model/go"
)

// A family holds the series of one metric, ready to be encoded, so that a scrape of ten thousand probes copies pointers in
// place of building two hundred thousand metrics.
type family struct {
	name, help string
	counter    bool
	series     []*dto.Metric
	at         map[string]int // place in series, by key
	keys       []string
}

// table holds all families.
type table struct {
	mu       sync.Mutex // owns all
	families map[string]*family
}

// A label is a name with its value.
type label struct{ name, value string }

func newTable() *table { return &table{families: map[string]*family{}} }

// declare makes a family, so that its help is there; declaring twice is no error.
func (t *table) declare(name, help string, counter bool) *family {
	f := t.families[name]
	if f == nil {
		f = &family{name: name, help: help, counter: counter, at: map[string]int{}}
		t.families[name] = f
	}
	return f
}

func keyOf(labels []label) string {
	n := 0
	for _, l := range labels {
		n += len(l.value) + 1
	}
	b := make([]byte, 0, n)
	for _, l := range labels {
		b = append(append(b, l.value...), 0xff)
	}
	return string(b)
}

// set gives a series its value. A metric that a scrape may hold is never changed: it is replaced.
func (f *family) set(labels []label, v float64) string {
	key := keyOf(labels)
	i, known := f.at[key]
	if known {
		if value(f.series[i]) == v {
			return key
		}
		f.series[i] = f.metric(f.series[i].Label, v)
		return key
	}
	pairs := make([]*dto.LabelPair, len(labels))
	flat := make([]dto.LabelPair, len(labels))
	for i := range labels {
		l := labels[i]
		flat[i].Name, flat[i].Value = &l.name, &l.value
		pairs[i] = &flat[i]
	}
	slices.SortFunc(pairs, func(a, b *dto.LabelPair) int {
		if *a.Name < *b.Name {
			return -1
		}
		return 1
	})
	f.at[key] = len(f.series)
	f.series = append(f.series, f.metric(pairs, v))
	f.keys = append(f.keys, key)
	return key
}

// add raises a counter.
func (f *family) add(labels []label, v float64) string {
	if i, known := f.at[keyOf(labels)]; known {
		return f.set(labels, value(f.series[i])+v)
	}
	return f.set(labels, v)
}

func (f *family) metric(pairs []*dto.LabelPair, v float64) *dto.Metric {
	if f.counter {
		return &dto.Metric{Label: pairs, Counter: &dto.Counter{Value: &v}}
	}
	return &dto.Metric{Label: pairs, Gauge: &dto.Gauge{Value: &v}}
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return *m.Counter.Value
	}
	return *m.Gauge.Value
}

// remove deletes a series by its key.
func (f *family) remove(key string) {
	i, known := f.at[key]
	if !known {
		return
	}
	last := len(f.series) - 1
	f.series[i], f.keys[i] = f.series[last], f.keys[last]
	f.at[f.keys[i]] = i
	f.series[last], f.keys[last] = nil, ""
	f.series, f.keys = f.series[:last], f.keys[:last]
	delete(f.at, key)
}

// gather gives all families that have series.
func (t *table) gather() []*dto.MetricFamily {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]*dto.MetricFamily, 0, len(t.families))
	for _, f := range t.families {
		if len(f.series) == 0 {
			continue
		}
		kind := dto.MetricType_GAUGE
		if f.counter {
			kind = dto.MetricType_COUNTER
		}
		list = append(list, &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &kind, Metric: slices.Clone(f.series)})
	}
	return list
}
