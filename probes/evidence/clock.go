package evidence

import (
	"strings"
	"time"
)

const (
	// ClockMemory is how long a verdict on the local clock is relied on.
	ClockMemory = time.Hour
	// ClockWander is how far a clock that nobody disciplines may wander: 200 parts in a million, as cheap quartz does.
	ClockWander = 200e-6
	// ClockStep is how far the wall clock may part from the monotonic one before it counts as a step: a slewing daemon stays
	// below, a clock that is set, a suspended machine and a resumed one do not.
	ClockStep = 50 * time.Millisecond
)

// WallStep is how far the wall clock went beyond the monotonic clock between two readings: set by hand, stepped by a
// daemon, or resumed after a suspension.
func WallStep(before, now time.Time) time.Duration {
	return now.Round(0).Sub(before.Round(0)) - now.Sub(before)
}

// Wander is how far apart two readings of a clock may be after a time in which nobody compared it.
func Wander(age time.Duration) time.Duration { return time.Duration(float64(age.Abs()) * ClockWander) }

// At is the verdict as it holds at another time: less sure with the distance, and void after an hour, or when the wall clock
// was set or the machine slept in between, which cannot be told apart.
func (c Clock) At(now time.Time) (Clock, bool) {
	age := now.Sub(c.Measured).Abs() // monotonic
	if c.Confidence == NoConfidence || c.Confidence == "" || age > ClockMemory || WallStep(c.Measured, now).Abs() > ClockStep {
		return c, false
	}
	c.Bound += Wander(age)
	return c, true
}

// Sure says whether more than one voice agrees on the skew. What one voice alone says excuses nothing, because it may lie.
func (c Clock) Sure() bool { return c.Confidence == Confident || c.Confidence == LowConfident }

// mostSkew is what a clock may be off by and still be one: beyond, its date is not read from a clock.
const mostSkew = 20 * 365 * 24 * time.Hour

// SampleDate is what the Date header of an answer (RFC 9110 section 6.6.1) says of the clock of who wrote it; nil where it
// was not written for this answer: it comes from a cache, or is not there.
func SampleDate(status int, h map[string][]string, sent, received time.Time) *ClockSample {
	const notModified = 304
	if status == notModified || len(h["Age"]) > 0 || fromCache(h) || len(h["Date"]) != 1 {
		return nil
	}
	date, ok := HTTPDate(h["Date"][0])
	if !ok || received.Sub(date).Abs() > mostSkew {
		return nil
	}
	return &ClockSample{Low: sent.Sub(date) - time.Second, High: received.Sub(date), At: received}
}

// cacheHeaders are fields in which caches tell whether the answer was theirs.
var cacheHeaders = []string{"X-Cache", "X-Cache-Status", "X-Proxy-Cache", "Cf-Cache-Status", "X-Varnish-Cache", "Cache-Status"}

func fromCache(h map[string][]string) bool {
	for _, name := range cacheHeaders {
		for _, value := range h[name] {
			value = strings.ToLower(value)
			for _, word := range []string{"hit", "stale", "revalidated", "updating"} {
				if strings.Contains(value, word) {
					return true
				}
			}
		}
	}
	return false
}

// SampleIssued is what a token says of the clock that stamped it, when it was obtained by a request sent and answered at
// these moments; nil where it does not say. backdate is how far its issuer dates tokens back.
func SampleIssued(t *Token, sent, received time.Time, backdate time.Duration) *ClockSample {
	if t == nil || t.Issued.IsZero() || t.Obtained.IsZero() || t.Obtained.Before(sent) || t.Obtained.After(received.Add(time.Second)) || received.Sub(t.Issued).Abs() > mostSkew {
		return nil
	}
	stamped := t.Issued.Add(backdate)
	return &ClockSample{Low: sent.Sub(stamped) - time.Second, High: received.Sub(stamped), At: received}
}
