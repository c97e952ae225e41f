package spike

import (
	"encoding/binary"
	"math/bits"
)

// What is asked of a client, in seconds.
const (
	week   = 7 * 24 * 3600
	senior = 3600 // a client counts as known-good an hour after its first success: of many guessed passwords some are right
	grace  = 1800 // the first refusal within this time is what a rotation of keys or a restart costs
	runOut = 1800 // refusals further apart are not in a row
	onePer = 10   // a client counts once in this time
)

// A trail is what is remembered of one client at one endpoint, or of one client as a whole. Times are Unix seconds.
type trail struct {
	good    uint32 // last success; of a client as a whole, at an endpoint known to refuse
	since   uint32 // first success
	seen    uint32 // last request
	refused uint32 // last refusal
	began   uint32 // first refusal of the present run
	run     uint16 // refusals since the last success
	hour    uint16 // hour it was last counted as active in
	countA  uint16 // ten seconds it was last counted in by stream A
	countB  uint16 // the same, stream B
}

// knownGood says whether the client got a success within a week, and not only just now.
func (t *trail) knownGood(now uint32) bool {
	return t != nil && t.good != 0 && now-t.good < week && now-t.since >= senior
}

const ways = 8 // trails in a bucket

type bucket struct {
	keys   [ways]uint64 // 0: free
	trails [ways]trail
}

const bucketBytes = ways * (8 + 28)

// trails is a cache of trails with a greatest size: it doubles until that is reached; from then on the trail of a bucket
// that was idle longest gives way to a new one.
type trails struct {
	buckets []bucket // a power of two
	most    int      // greatest number of buckets
	shift   int      // of a key, to the number of its bucket
	used    int
	evicted uint64
}

func newTrails(most int) trails {
	t := trails{most: 1}
	for t.most*2*ways <= most {
		t.most *= 2
	}
	t.resize(min(t.most, 64))
	return t
}

func (t *trails) resize(n int) {
	t.buckets = make([]bucket, n)
	t.shift = 64 - bits.TrailingZeros(uint(n))
}

// find returns the trail of a key, nil when there is none. The pointer is good until the next call of keep.
func (t *trails) find(key uint64) *trail {
	b := &t.buckets[key>>t.shift]
	for i := range b.keys {
		if b.keys[i] == key {
			return &b.trails[i]
		}
	}
	return nil
}

// keep returns the trail of a key and makes it when there is none.
func (t *trails) keep(key uint64) *trail {
	for {
		b := &t.buckets[key>>t.shift]
		free, oldest := -1, 0
		for i := range b.keys {
			switch {
			case b.keys[i] == key:
				return &b.trails[i]
			case b.keys[i] == 0:
				free = i
			case b.trails[i].seen < b.trails[oldest].seen:
				oldest = i
			}
		}
		if free < 0 && len(t.buckets) < t.most {
			t.grow()
			continue
		}
		if free < 0 {
			free = oldest
			t.evicted++
		} else {
			t.used++
		}
		b.keys[free] = key
		b.trails[free] = trail{}
		return &b.trails[free]
	}
}

// grow doubles the table. No bucket can overflow: each is split in two.
func (t *trails) grow() {
	old := t.buckets
	t.resize(2 * len(old))
	for i := range old {
		for j, key := range old[i].keys {
			if key == 0 {
				continue
			}
			b := &t.buckets[key>>t.shift]
			for k := range b.keys {
				if b.keys[k] == 0 {
					b.keys[k], b.trails[k] = key, old[i].trails[j]
					break
				}
			}
		}
	}
}

// hash mixes bytes with a seed; never 0 nor 1.
func hash(seed uint64, b []byte) uint64 {
	h := seed ^ uint64(len(b))*0x9e3779b97f4a7c15
	for len(b) >= 8 {
		h = mix(h, binary.LittleEndian.Uint64(b))
		b = b[8:]
	}
	var tail uint64
	for i, c := range b {
		tail |= uint64(c) << (8 * i)
	}
	return mix(mix(h, tail), seed)
}

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a^0xa0761d6478bd642f, b^0xe7037ed1a0b428db)
	return max(high^low, 2)
}
