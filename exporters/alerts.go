package exporters

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/authvigil/authvigil/agent"
)

// alertCollector shows how the dispatcher of alerts and its sinks fare, and which maintenance windows are open.
type alertCollector struct {
	health func() agent.Health

	alerts, silenced, dropped, deliveries, queue, lost, failing, maintenance *prometheus.Desc
}

func newAlertCollector(health func() agent.Health) *alertCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prefix+name, help, labels, nil)
	}
	return &alertCollector{health: health,
		alerts:      desc("alerts", "Alerts that are pending or fire.", "state"),
		silenced:    desc("alerts_silenced", "Pending alerts that do not begin, because of maintenance or because they follow from another."),
		dropped:     desc("alerts_dropped_total", "Alerts that were dropped because too many were open already."),
		deliveries:  desc("sink_deliveries_total", "Alerts handed to a sink by outcome; failed ones are tried again.", "sink", "outcome"),
		queue:       desc("sink_queue_length", "Alerts that wait for a sink.", "sink"),
		lost:        desc("sink_dropped_total", "Alerts that were dropped because too many waited for a sink.", "sink"),
		failing:     desc("sink_receiver_failing", "1: the receiver did not take what it was given last; 0: it did.", "sink", "receiver"),
		maintenance: desc("maintenance_active", "1: the maintenance window is open; 0: it is not.", "maintenance")}
}

// Describe implements prometheus.Collector.
func (c *alertCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.alerts, c.silenced, c.dropped, c.deliveries, c.queue, c.lost, c.failing, c.maintenance} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *alertCollector) Collect(to chan<- prometheus.Metric) {
	h := c.health()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(c.alerts, float64(h.Alerts.Pending), "pending")
	gauge(c.alerts, float64(h.Alerts.Firing), "firing")
	gauge(c.silenced, float64(h.Alerts.Silenced))
	count(c.dropped, h.Alerts.Dropped)
	for _, s := range h.Alerts.Sinks {
		count(c.deliveries, s.Delivered, s.Sink, "delivered")
		count(c.deliveries, s.Failed, s.Sink, "failed")
		count(c.deliveries, s.Refused, s.Sink, "refused")
		count(c.lost, s.Dropped, s.Sink)
		gauge(c.queue, float64(s.Queue), s.Sink)
		for _, r := range s.Receivers {
			gauge(c.failing, truth(r.Failing), s.Sink, r.Receiver)
		}
	}
	for _, m := range h.Maintenance {
		gauge(c.maintenance, truth(m.Active), m.Name)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
