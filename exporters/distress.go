package exporters

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/authvigil/authvigil/agent"
)

// A distressCollector shows what authvigil itself suffers from, every kind of it at all times.
type distressCollector struct {
	health func() agent.Health
	desc   *prometheus.Desc
}

func (c *distressCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

func (c *distressCollector) Collect(ch chan<- prometheus.Metric) {
	present := map[string]float64{}
	for _, d := range c.health().Distress {
		present[d.What] = 1
	}
	for _, what := range agent.Distresses {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, present[what], what)
	}
}
