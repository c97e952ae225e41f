package spike

import "math"

// Time scales of the test, in seconds.
const (
	tickSeconds  = 10
	blockSeconds = 5 * 60
	lagBlocks    = 6         // what was seen is learnt half an hour later, unless an alert was raised meanwhile
	halfLife     = 24 * 3600 // in which what was learnt loses half its weight
	forget       = 5400      // in which evidence that did not suffice loses its weight (1/e)
	warmUp       = 8 * 3600  // before it, nothing is known to be unusual
	day          = 24 * 3600
)

// The alternatives that are tested against what is usual.
const (
	manyTimes   = 4         // odds of a refusal, times this
	thirdLeft   = 3         // odds when the successes have fallen to a third
	rateTimes   = 3         // refusals in a second, times this …
	rateMore    = 1.0 / 600 // … and one in ten minutes more
	leastRate   = 200       // the usual rate is not taken for less than this part of the alternative
	pointsA     = 0.015     // least rise of the share that matters, stream A
	pointsB     = 0.010     // the same, stream B
	pointsRaw   = 0.050     // the same, refusals of strangers
	knownRate   = 1.5       // evidence of the rate counts so much where clients are known: it only has to tell a rise from vanished traffic
	cappedTimes = 3         // scores stop at this many thresholds, so that recovery is seen in time
)

// A block is what a stream counted in five minutes.
type block struct {
	bad, ok float64
	dirty   bool // an incident was going on: not learnt
}

// A stream is one sequence of trials with its baseline and its scores: cumulated sums (Page 1954) of log-likelihood ratios for
// a share of failures that is small but certain, for one that is large, and for a rate of failures. All must agree:
// a rise of the share without one of the rate is traffic that vanished, a rise of the rate alone is more traffic.
type stream struct {
	prior         float64 // trials that half a failure is assumed in before anything was learnt
	points        float64 // least rise of the share that matters
	rateCounts    float64 // how much evidence of the rate counts against evidence of the share
	floor         float64 // least share that is taken for usual
	n, k, seconds float64 // decayed trials, failures among them, and seconds learnt from
	phi           float64 // over-dispersion: how much more blocks differ than chance would have it, 1 to 8
	blocks        [lagBlocks + 1]block

	weights            weights
	small, large, rate float64
	zero               int64 // last second at which the score was 0: the onset, should an alert come of it
}

// usual is the usual share of failures.
func (s *stream) usual() float64 { return max((s.k+0.5)/(s.n+s.prior), s.floor) }

// score is the evidence, as a natural logarithm.
func (s *stream) score() float64 { return min(max(s.small, s.large), s.rateCounts*s.rate) }

func (s *stream) dispersion() float64 { return max(1, s.phi) }

// evidence is what trials say for each of the alternatives.
type evidence [3]float64

const (
	small = iota // the share rose somewhat
	some         // it rose a lot: only looked at for whether it concerns others too
	large        // at least half of all trials fail, or two thirds of the successes are gone
)

func (v *evidence) add(w evidence) {
	for i := range v {
		v[i] += w[i]
	}
}

// weights is what one failure and one success say; they change only when something was learnt.
type weights struct {
	bad, ok evidence
	known   bool
}

// weigh turns trials into evidence.
func (s *stream) weigh(bad, ok float64) (v evidence) {
	if bad == 0 && ok == 0 {
		return v
	}
	if !s.weights.known {
		p := s.usual()
		for i, p1 := range [...]float64{max(shift(p, manyTimes), p+s.points), shift(p, 10*manyTimes), max(0.5, shift(p, thirdLeft))} {
			s.weights.bad[i] = math.Log(p1/p) / s.dispersion()
			s.weights.ok[i] = math.Log((1-p1)/(1-p)) / s.dispersion()
		}
		s.weights.known = true
	}
	for i := range v {
		v[i] = bad*s.weights.bad[i] + ok*s.weights.ok[i]
	}
	return v
}

// likelier is the log-likelihood ratio of a share p1 of failures against p0.
func likelier(bad, ok, p0, p1 float64) float64 {
	return bad*math.Log(p1/p0) + ok*math.Log((1-p1)/(1-p0))
}

// shift multiplies the odds of p.
func shift(p, odds float64) float64 { return min(p*odds/(1-p+p*odds), 0.999) }

// busyClient is how many requests of a client in half an hour are reckoned with.
const busyClient = 3

// repeated is how many of the requests are refusals that are not the first of their client in half an hour, when a share q of
// all is refused. Where a challenge is a matter of course, what stream A counts depends on how busy clients are, and cannot
// be learnt from a quiet night for a busy day.
func repeated(q float64) float64 { return q * (1 - math.Pow(1-q, busyClient)) }

// rates are the usual rate of failures a second, and the one that is tested against it.
func (s *stream) rates() (usual, unusual float64) {
	usual = s.k / max(s.seconds, 3600)
	unusual = rateTimes*usual + rateMore
	return max(usual, unusual/leastRate), unusual
}

var fade = math.Exp(-float64(tickSeconds) / forget)

// add carries the scores over one tick, with what its trials say.
func (s *stream) add(now int64, bad float64, v evidence, most float64) {
	s.small = min(max(0, s.small*fade+v[small]), most)
	s.large = min(max(0, s.large*fade+v[large]), most)
	l0, l1 := s.rates()
	s.rate = min(max(0, s.rate*fade+(bad*math.Log(l1/l0)-(l1-l0)*tickSeconds)/s.dispersion()), most)
	if s.score() == 0 {
		s.zero = now
	}
}

// reset forgets the evidence, not the baseline.
func (s *stream) reset(now int64) {
	s.small, s.large, s.rate, s.zero = 0, 0, 0, now
}

// count adds trials to the present block.
func (s *stream) count(bad, ok float64) {
	s.blocks[0].bad += bad
	s.blocks[0].ok += ok
}

// soil marks the blocks since a moment as not to be learnt.
func (s *stream) soil(now, since int64) {
	for i := range s.blocks {
		if now-int64(i)*blockSeconds >= since {
			s.blocks[i].dirty = true
		}
	}
}

// recent is how many failures the last quarter of an hour had.
func (s *stream) recent() float64 { return s.blocks[0].bad + s.blocks[1].bad + s.blocks[2].bad }

// settle begins a new block; the one of half an hour ago is learnt.
func (s *stream) settle() {
	s.learn(s.blocks[lagBlocks])
	copy(s.blocks[1:], s.blocks[:lagBlocks])
	s.blocks[0] = block{}
}

func (s *stream) learn(b block) {
	if b.dirty {
		return
	}
	if m := b.bad + b.ok; m > 0 && s.n > 20 {
		p := s.usual()
		residual := (b.bad - m*p) * (b.bad - m*p) / (m*p*(1-p) + 0.5)
		s.phi = min(max(1, s.phi+0.02*(residual-max(1, s.phi))), 8)
	}
	s.n = s.n*keepBlock + b.bad + b.ok
	s.k = s.k*keepBlock + b.bad
	s.seconds = s.seconds*keepBlock + blockSeconds
	s.weights.known = false
}

var keepBlock = math.Exp2(-float64(blockSeconds) / halfLife)
