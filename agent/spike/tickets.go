package spike

// Limits of the alerts that wake nobody.
const (
	strangersThreshold = 40  // evidence for AuthFailureClients
	strangersLeast     = 20  // refusals in 15 min that it takes
	runAlarmed         = 10  // refusals in a row of a known-good client …
	runLasts           = 120 // … over so many seconds
	mostTold           = 16  // clients with an alert of their own at the same time
)

// A ticket is a rise of refusals of clients that are not known to be good: guessing, scanning, stuffing.
type ticket struct {
	active  bool
	alert   *Alert // nil: the alert of all endpoints tells of it
	fired   int64
	most    float64 // greatest number of refusals in 15 min
	refused float64
	asked   float64
	because []string
}

// judgeStrangers decides on the AuthFailureClients of an endpoint. From the second endpoint on, all of them together have one
// alert.
func (d *Detector) judgeStrangers(e *endpoint) {
	i, s := &e.ticket, &e.raw
	bad, ok := e.strangers, e.success
	if i.active {
		i.refused += bad
		i.asked += bad + ok
		d.all.ticket.refused += bad
		d.all.ticket.asked += bad + ok
		i.most = max(i.most, s.recent())
		if s.recent() <= i.most/4 && d.now-i.fired >= shortest {
			s.reset(d.now)
			i.active = false
			d.closeTicket(e)
			d.closeTicket(d.all)
		}
		return
	}
	if s.score() < strangersThreshold || s.recent() < strangersLeast || !e.warm(d.now) {
		return
	}
	*i = ticket{active: true, fired: d.now, most: s.recent(), refused: s.recent(), asked: s.recent() + ok, because: []string{
		because("refusals of clients without a success in a week: %.0f in 15 min, share usually %.5f; evidence %.0f, needed %d", s.recent(), s.usual(), s.score(), strangersThreshold)}}
	target := e
	for _, o := range d.busy {
		if o != e && o.ticket.active {
			target = d.all
		}
	}
	s.soil(d.now, s.zero)
	if target == d.all {
		t := &d.all.ticket
		if t.alert != nil {
			return
		}
		*t = *i
	}
	target.ticket.alert = &Alert{Name: AuthFailureClients, Severity: Warning, Endpoint: target.name, Started: moment(d.now), Onset: moment(s.zero)}
	d.tell(d.describeTicket(target, *target.ticket.alert))
}

// closeTicket ends the alert of an endpoint, and that of all when no endpoint is concerned any more.
func (d *Detector) closeTicket(e *endpoint) {
	i := &e.ticket
	if i.alert == nil {
		return
	}
	if e == d.all {
		for _, o := range d.busy {
			if o.ticket.active {
				return
			}
		}
	}
	i.alert.Ended, i.alert.How = moment(d.now), EndedRecovered
	d.tell(d.describeTicket(e, *i.alert))
	i.alert, i.active = nil, false
}

// failing is a known-good client whose every request is refused: its credential is dead, and it does not know.
type failing struct {
	client uint64
	seen   int64 // last refusal
	good   int64 // first success after it; 0: none
	count  float64
	alert  *Alert
}

// persist follows the run of refusals of a known-good client, at whatever endpoint.
func (d *Detector) persist(e *endpoint, c *trail, client uint64, now uint32, name []byte) {
	if c.run == 0 || now-c.seen > runOut {
		c.run, c.began = 0, now
	}
	c.seen = now
	c.run = min(c.run+1, 1<<15)
	if c.run < runAlarmed || now-c.began < runLasts {
		return
	}
	for i := range d.failing {
		if f := &d.failing[i]; f.client == client {
			f.seen, f.good = int64(now), 0
			f.count++
			return
		}
	}
	if len(d.failing) >= mostTold || d.woken() {
		return
	}
	who := d.name(client, name)
	a := &Alert{Name: ClientAuthFailing, Severity: Warning, Endpoint: e.name, Client: who, Clients: who, Pattern: OneClient,
		Started: moment(int64(now)), Onset: moment(int64(c.began)), Refused: int(c.run), Requests: int(c.run)}
	a.Because = []string{because("%d refusals in a row over %d s, of a client that had success before", c.run, now-c.began)}
	a.Description = describeFailing(a)
	d.failing = append(d.failing, failing{client: client, seen: int64(now), count: float64(c.run), alert: a})
	d.tell(*a)
}

// woken says whether an incident of the service explains that clients fail.
func (d *Detector) woken() bool {
	if d.all.spike.level == 2 {
		return true
	}
	for _, e := range d.busy {
		if e.spike.level == 2 {
			return true
		}
	}
	return false
}

// recovered notes that a client which failed had success.
func (d *Detector) recovered(client uint64, now int64) {
	for i := range d.failing {
		if f := &d.failing[i]; f.client == client && f.good == 0 {
			f.good = now
		}
	}
}

// remember ends the alerts of clients that recovered, or that gave up.
func (d *Detector) remember() {
	kept := d.failing[:0]
	for _, f := range d.failing {
		lasted := d.now - f.alert.Started.Unix()
		switch {
		case f.good != 0 && lasted >= shortest:
			f.alert.How = EndedRecovered
		case d.now-f.seen > noData:
			f.alert.How = EndedNoData
		default:
			kept = append(kept, f)
			continue
		}
		f.alert.Ended, f.alert.Refused, f.alert.Requests = moment(d.now), int(f.count), int(f.count)
		f.alert.Description = describeFailing(f.alert)
		d.tell(*f.alert)
	}
	clear(d.failing[len(kept):])
	d.failing = kept
}
