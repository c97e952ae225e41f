package spike

// tick closes ten seconds: it weighs what they brought, judges, and every five minutes learns.
func (d *Detector) tick() {
	d.now += tickSeconds
	if len(d.busy) > 0 || d.all.score() > 0 || d.all.spike.level > 0 {
		d.weigh()
	} else {
		for _, s := range d.all.streams() {
			s.zero = d.now
		}
	}
	d.remember()
	d.absence()
	if d.now >= d.block+blockSeconds {
		d.block += blockSeconds
		d.settle()
	}
}

// sums is the evidence of all endpoints together. Each adds what it means against its own baseline, so that an endpoint
// with a challenge for every use does not hide another that never refuses.
type sums struct {
	badA, badB, ok, plainBad, plainOK float64
	a, b, plain                       evidence
}

func (d *Detector) weigh() {
	most := cappedTimes * d.policy.Threshold
	var sum sums
	for _, e := range d.busy {
		d.weighOne(e, &sum, most)
	}
	all := d.all
	all.a.add(d.now, sum.badA, sum.a, most)
	all.b.add(d.now, sum.badB, sum.b, most)
	all.plain.add(d.now, sum.plainBad, sum.plain, plainTimes*most)
	all.spike.gather(sum.a, sum.b)
	all.a.count(sum.badA, sum.ok)
	all.b.count(sum.badB, sum.ok)
	all.plain.count(sum.plainBad, sum.plainOK)
	all.ok, all.badA, all.badB, all.saidNo, all.asked = sum.ok, sum.badA, sum.badB, sum.plainBad, sum.plainOK+sum.plainBad

	d.judge(all)
	for _, e := range d.busy {
		d.judge(e)
		d.judgeStrangers(e)
	}
	d.rest()
}

// weighOne adds the tick of one endpoint to its streams and to the sums.
func (d *Detector) weighOne(e *endpoint, sum *sums, most float64) {
	a, b := e.a.weigh(e.badA, e.ok), e.b.weigh(e.badB, e.ok)
	e.a.add(d.now, e.badA, a, most)
	e.b.add(d.now, e.badB, b, most)
	e.spike.gather(a, b)
	accepted := e.asked - e.saidNo
	no := e.ration(d.now)
	plain := e.plain.weigh(no, accepted)
	e.plain.add(d.now, no, plain, plainTimes*most)
	e.raw.add(d.now, e.strangers, e.raw.weigh(e.strangers, e.success), 2*strangersThreshold)

	e.every.count(e.denied, e.ok)
	e.a.count(e.badA, e.ok)
	e.b.count(e.badB, e.ok)
	e.plain.count(e.saidNo, accepted)
	e.raw.count(e.strangers, e.success)

	if e.warm(d.now) { // of a new endpoint nobody knows yet whether it refuses by design
		sum.a.add(e.a.weigh(e.allA, e.ok))
		sum.b.add(e.b.weigh(e.allB, e.ok))
		sum.plain.add(plain)
	}
	sum.badA += e.allA
	sum.badB += e.allB
	sum.ok += e.ok
	sum.plainBad += no
	sum.plainOK += accepted
	d.all.denied += e.denied
	if e.partOf != d.all.spike.epoch {
		e.part, e.partOf = 0, d.all.spike.epoch
	}
	e.part += e.allA + e.allB + no
}

// ration is how many of the refusals of nobody in particular are evidence: no more than the endpoint has requests at a busy
// time. An outage turns requests into refusals; guessing adds refusals to requests.
func (e *endpoint) ration(now int64) float64 {
	rate := busyTimes * e.plain.n / max(e.plain.seconds, 3600)
	e.rationed = min(e.rationed+rate*float64(now-e.rationedAt), rate*rationWindow+rationLeast)
	e.rationedAt = now
	no := min(e.saidNo, e.rationed)
	e.rationed -= no
	return no
}

// rest empties the tick and lets those go to sleep that have nothing more to weigh.
func (d *Detector) rest() {
	awake := d.busy[:0]
	for _, e := range d.busy {
		e.ok, e.badA, e.badB, e.allA, e.allB, e.denied, e.strangers, e.success, e.asked, e.saidNo = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
		e.busy = e.spike.level > 0 || e.ticket.active || e.trembling() || len(e.spike.failers) > 0
		if e.busy {
			awake = append(awake, e)
		}
	}
	d.busy = awake
	e := d.all
	e.ok, e.badA, e.badB, e.denied, e.asked, e.saidNo = 0, 0, 0, 0, 0, 0
}

// trembling says whether any test has something in hand.
func (e *endpoint) trembling() bool {
	for _, s := range e.streams() {
		if s.small+s.large+s.rate > 0 {
			return true
		}
	}
	return false
}

// settle closes a block of five minutes.
func (d *Detector) settle() {
	firing := false
	for _, e := range d.others {
		firing = firing || e.spike.level > 0
	}
	for _, e := range d.everybody() {
		own := e.spike.level > 0 && d.now-e.spike.fired < day
		around := (e == d.all && firing || e != d.all && d.all.spike.level > 0 && d.now-d.all.spike.fired < day)
		for _, s := range [...]*stream{&e.a, &e.b, &e.plain, &e.every} {
			s.blocks[0].dirty = s.blocks[0].dirty || own || around
		}
		if e.ticket.active && d.now-e.ticket.fired < day {
			e.raw.blocks[0].dirty = true
		}
		for _, s := range e.streams() {
			s.settle()
		}
		if e != d.all {
			e.a.floor = repeated(e.every.usual())
		}
	}
	if h := uint16(d.now / 3600); h != d.hour {
		d.hour = h
		for _, e := range d.everybody() {
			e.active[1], e.active[0] = e.active[0], 0
		}
		d.sweep()
	}
}
