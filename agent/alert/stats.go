package alert

// Stats are what a dispatcher shows of itself.
type Stats struct {
	Pending, Firing int
	Silenced        int // of the pending
	Dropped         int // alerts that were too many to keep
	Sinks           []SinkStats
}

// SinkStats are the deliveries of a sink, by its receivers, in order of their configuration.
type SinkStats struct {
	Sink                                string
	Delivered, Failed, Refused, Dropped int
	Queue                               int
	Receivers                           []ReceiverStats
}

// ReceiverStats say whether a receiver takes what it is given.
type ReceiverStats struct {
	Receiver string
	Failing  bool
}

// Stats gives a copy.
func (d *Dispatcher) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Dropped: d.dropped}
	for _, l := range d.open {
		switch {
		case l.Fired.IsZero():
			s.Pending++
			if l.Silenced != "" {
				s.Silenced++
			}
		case l.firing():
			s.Firing++
		}
	}
	for _, sender := range d.senders {
		if n := len(s.Sinks); n == 0 || s.Sinks[n-1].Sink != sender.sink {
			s.Sinks = append(s.Sinks, SinkStats{Sink: sender.sink})
		}
		sender.addTo(&s.Sinks[len(s.Sinks)-1])
	}
	return s
}
