package spike

// Limits of what a log's clock may do, in seconds.
const (
	leap     = 3600     // a line further ahead than this waits for a second one
	longest  = 6 * 3600 // of a longer silence only so much is lived through; the rest is skipped and not learnt from
	earliest = 1        // times before 1970 do not exist
)

// clock moves the time of the detector along with a line of a log and returns the time to count the line at. Time never
// goes back: a line that is late counts now. A single line far ahead, as a broken clock writes it, does not carry everything
// with it: the leap is believed when a second line is there too.
func (d *Detector) clock(sec int64) int64 {
	sec = max(sec, earliest)
	if sec > 1<<32-1 {
		sec = max(d.now, earliest)
	}
	if d.now != 0 {
		switch {
		case sec < d.now:
			d.stats.Late++
			return d.now
		case sec <= d.now+leap:
			d.ahead = 0
		case d.ahead == 0 || sec < d.ahead-leap || sec > d.ahead+leap:
			d.ahead = sec
			return d.now
		default:
			d.ahead = 0
		}
	}
	if sec >= d.now+tickSeconds {
		d.forward(sec)
	}
	return sec
}

// forward closes the ticks that ended up to sec.
func (d *Detector) forward(sec int64) {
	if d.now == 0 {
		d.now = sec - sec%tickSeconds
		d.block = sec - sec%blockSeconds
		d.hour = uint16(sec / 3600)
		d.all.first = d.now
		d.season.begin(d.now)
		return
	}
	until := sec
	if sec > d.now+2*longest {
		until = d.now + longest
	}
	for until >= d.now+tickSeconds {
		d.tick()
	}
	if until < sec {
		d.skip(sec)
	}
}

// skip passes over a long silence without learning from it.
func (d *Detector) skip(sec int64) {
	d.now = sec - sec%tickSeconds
	d.block = sec - sec%blockSeconds
	d.hour = uint16(sec / 3600)
	for _, e := range d.everybody() {
		for _, s := range e.streams() {
			s.blocks = [lagBlocks + 1]block{}
		}
		e.active = [2]int{}
	}
	d.season.begin(d.now)
}
