package probes

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

var (
	rateLimit     = &evidence.Metric{Name: "ratelimit_limit", Help: "Requests that the server allows in its window, as its last answer says.", Labels: []string{"probe"}}
	rateRemaining = &evidence.Metric{Name: "ratelimit_remaining", Help: "Requests left in the server's window, as its last answer says.", Labels: []string{"probe"}}
	rateReset     = &evidence.Metric{Name: "ratelimit_reset_timestamp_seconds", Help: "When the server's window begins anew, by the local clock.", Labels: []string{"probe"}}
)

// epochFloor tells the two meanings of X-RateLimit-Reset apart: a number of seconds from now, or a Unix time.
const epochFloor = 1_000_000_000

// rateLimits reads the RateLimit fields of draft-ietf-httpapi-ratelimit-headers (r and t of its items), the three fields
// of its earlier versions, and the X-RateLimit fields that came before it.
func rateLimits(a wire.Answer) (readings []evidence.Reading) {
	add := func(m *evidence.Metric, v float64, ok bool) {
		if ok {
			readings = append(readings, evidence.Reading{Metric: m, Value: v})
		}
	}
	limit, okLimit := number(a.Header, "RateLimit-Limit", "X-RateLimit-Limit", "X-Rate-Limit-Limit")
	left, okLeft := number(a.Header, "RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining")
	reset, okReset := number(a.Header, "RateLimit-Reset", "X-RateLimit-Reset", "X-Rate-Limit-Reset")
	if item := a.Header.Get("RateLimit"); item != "" && !okLeft {
		left, okLeft = parameter(item, "r")
		reset, okReset = parameter(item, "t")
		limit, okLimit = parameter(a.Header.Get("RateLimit-Policy"), "q")
	}
	add(rateLimit, limit, okLimit)
	add(rateRemaining, left, okLeft)
	if okReset && reset < epochFloor {
		reset += float64(a.Exchange.Started.Add(a.Exchange.Took).UnixMilli()) / 1e3
	}
	add(rateReset, reset, okReset)
	return readings
}

// exhausted says whether an answer carries the sign that a budget is used up, so that a 403 is throttling.
func exhausted(h http.Header) bool {
	left, ok := number(h, "RateLimit-Remaining", "X-RateLimit-Remaining", "X-Rate-Limit-Remaining")
	if !ok {
		left, ok = parameter(h.Get("RateLimit"), "r")
	}
	return ok && left == 0
}

// number reads the first of the headers that is there and holds a number; a list of limits begins with the one in force.
func number(h http.Header, names ...string) (float64, bool) {
	for _, name := range names {
		text, _, _ := strings.Cut(h.Get(name), ",")
		text, _, _ = strings.Cut(text, ";")
		if v, err := strconv.ParseFloat(strings.TrimSpace(text), 64); err == nil && v >= 0 && v < float64(time.Now().AddDate(100, 0, 0).UnixMilli()) {
			if v > 100*epochFloor { // milliseconds
				v /= 1e3
			}
			return v, true
		}
	}
	return 0, false
}

var parameters = regexp.MustCompile(`[;\s]([a-z]+)\s*=\s*(\d{1,15})`)

func parameter(item, name string) (float64, bool) {
	for _, m := range parameters.FindAllStringSubmatch(";"+item, -1) {
		if m[1] == name {
			v, err := strconv.ParseFloat(m[2], 64)
			return v, err == nil
		}
	}
	return 0, false
}
