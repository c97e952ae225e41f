package spike

import "math"

const (
	topSlots  = 64     // counters of one summary
	topName   = 48     // bytes of a name that are kept
	topHalved = 5 * 60 // seconds in which what was counted loses half its weight
)

// top is a Space-Saving summary (Metwally, Agrawal, El Abbadi 2005) of who was refused of late. Of n refusals it is wrong by
// at most n/64 for any client; it needs no randomness and no memory beyond its counters.
type top struct {
	slots   [topSlots]slot
	used    int
	at      int64      // second the weights were last decayed to
	total   float64    // weight of everything counted
	byProxy float64    // weight of what the proxy itself refused
	seen    [16]uint64 // linear counter of clients, of this half hour
	former  [16]uint64 // and of the one before
	seenAt  int64
	reasons [8]reason
}

type slot struct {
	key    uint64
	weight float64
	good   bool
	length uint8
	name   [topName]byte
}

type reason struct {
	name   string
	weight float64
}

func (t *top) decay(now int64) {
	if now <= t.at {
		return
	}
	if t.at != 0 {
		f := math.Exp2(-float64(now-t.at) / topHalved)
		for i := range t.slots[:t.used] {
			t.slots[i].weight *= f
		}
		for i := range t.reasons {
			t.reasons[i].weight *= f
		}
		t.total *= f
		t.byProxy *= f
	}
	t.at = now
	if now-t.seenAt > 1800 {
		t.former, t.seen, t.seenAt = t.seen, [16]uint64{}, now
	}
}

// add counts one refusal. The name is copied when the client gets a counter.
func (t *top) add(now int64, key uint64, name []byte, good, byProxy bool, why []byte) {
	t.errorsOnly(now, byProxy, why)
	t.seen[key>>60] |= 1 << (key >> 54 & 63)
	least := 0
	for i := range t.slots[:t.used] {
		s := &t.slots[i]
		if s.key == key {
			s.weight++
			s.good = good
			return
		}
		if s.weight < t.slots[least].weight {
			least = i
		}
	}
	weight := 0.0
	if t.used < topSlots {
		least = t.used
		t.used++
	} else {
		weight = t.slots[least].weight
	}
	s := &t.slots[least]
	s.key, s.weight, s.good = key, weight+1, good
	s.length = uint8(copy(s.name[:], name))
}

// errorsOnly counts a refusal of nobody in particular.
func (t *top) errorsOnly(now int64, byProxy bool, why []byte) {
	if now >= t.at+tickSeconds {
		t.decay(now)
	}
	t.total++
	if byProxy {
		t.byProxy++
	}
	if len(why) == 0 || len(why) > topName {
		return
	}
	least := 0
	for i := range t.reasons {
		r := &t.reasons[i]
		if r.name == string(why) {
			r.weight++
			return
		}
		if r.weight < t.reasons[least].weight {
			least = i
		}
	}
	if r := &t.reasons[least]; r.weight < 0.5 {
		r.name, r.weight = string(why), 1
	}
}

// why is the most frequent reason, when it stands for half of the refusals.
func (t *top) why() string {
	best := &t.reasons[0]
	for i := range t.reasons {
		if t.reasons[i].weight > best.weight {
			best = &t.reasons[i]
		}
	}
	if best.weight < t.total/2 {
		return ""
	}
	return best.name
}

// issued says who refused.
func (t *top) issued() string {
	switch {
	case t.byProxy == 0:
		return ""
	case t.byProxy >= 0.9*t.total:
		return "proxy"
	case t.byProxy <= 0.1*t.total:
		return "upstream"
	}
	return "both"
}

// distinct estimates how many clients were refused in the last half hour or hour (linear counting, Whang et al. 1990); it saturates at about
// 7000.
func (t *top) distinct() int {
	free := 0
	for i, w := range t.seen {
		w |= t.former[i]
		for ; w != ^uint64(0); w |= w + 1 {
			free++
		}
	}
	m := float64(len(t.seen) * 64)
	return int(math.Round(m * math.Log(m/max(float64(free), 1))))
}
