package evidence

import (
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds what a server may ask for; beyond a day its word is taken as a day.
const maxRetryAfter = 24 * time.Hour

// RetryAfter reads the Retry-After header (RFC 9110 section 10.2.3): seconds, or a date that is judged against date, the
// server's own Date header, so that a wrong clock on either side does not spoil it; where that is missing, against now.
// It returns 0 when the header says nothing usable.
func RetryAfter(value, date string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseFloat(value, 64); err == nil {
		if !(seconds > 0) {
			return 0
		}
		if seconds > maxRetryAfter.Seconds() {
			return maxRetryAfter
		}
		return time.Duration(seconds * float64(time.Second))
	}
	at, ok := HTTPDate(value)
	if !ok {
		return 0
	}
	if d, ok := HTTPDate(date); ok {
		now = d
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// HTTPDate reads a date in one of the three forms of RFC 9110 section 5.6.7.
func HTTPDate(value string) (time.Time, bool) {
	for _, form := range []string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC, time.RFC1123} {
		if t, err := time.Parse(form, value); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
