package probes

import (
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// trueTime is the local clock's word, corrected by the last verdict on that clock.
type trueTime struct {
	local      time.Time     // as the clock on this machine says
	skew       time.Duration // local minus true; 0 where it is not known
	bound      time.Duration // half-width of the interval that holds the skew
	confidence evidence.Confidence
}

// trueTime corrects now, where there is a verdict on the local clock that still holds.
func (e Env) trueTime(now time.Time) trueTime {
	t := trueTime{local: now, confidence: evidence.NoConfidence}
	if e.Clock == nil {
		return t
	}
	c, ok := e.Clock()
	if !ok {
		return t
	}
	if c, ok = c.At(now); ok {
		t.skew, t.bound, t.confidence = c.Skew, c.Bound, c.Confidence
	}
	return t
}

// at is the best guess of true time. What one voice alone says corrects nothing, because that voice may lie.
func (t trueTime) at() time.Time {
	if t.sure() {
		return t.local.Add(-t.skew)
	}
	return t.local
}

// sure says whether more than one voice agrees on the skew.
func (t trueTime) sure() bool {
	return t.confidence == evidence.Confident || t.confidence == evidence.LowConfident
}

// doubtful says whether a lone voice puts the limit within what it says the clock may be off by.
func (t trueTime) doubtful(limit time.Time) bool {
	return t.confidence == evidence.Unverified && limit.Sub(t.local).Abs() <= t.skew.Abs()+t.bound
}
