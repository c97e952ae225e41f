package spike

import "time"

// AddCounts takes numbers where single requests are not at hand: how many were asked and refused at an endpoint since the
// last call. The test is the same, but without identities it cannot tell an attack, or a rotation of keys, from an outage.
func (d *Detector) AddCounts(at time.Time, name string, requests, refused int) {
	if requests <= 0 && refused <= 0 {
		d.clock(at.Unix())
		return
	}
	now := d.clock(at.Unix())
	requests, refused = max(requests, refused, 0), max(refused, 0)
	e := d.endpoint([]byte(name), 200)
	if !e.busy {
		e.wake(d)
	}
	e.last = now
	e.refuses = e.refuses || refused > 0
	e.asked += float64(requests)
	e.saidNo += float64(refused)
	d.season.add(now, requests)
}

// anonymous counts a request of nobody in particular.
func (d *Detector) anonymous(e *endpoint, r Request, n float64) {
	switch {
	case r.Status == 401:
		e.refuses = true
		if e.top == nil {
			e.top = &top{}
		}
		e.top.errorsOnly(d.now, r.ByProxy, r.Reason)
		d.all.top.errorsOnly(d.now, r.ByProxy, r.Reason)
		e.saidNo += n
		e.asked += n
	case r.Status/100 == 2 || r.Status == 304:
		e.asked += n
	}
}
