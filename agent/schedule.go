package agent

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// minPeriod is the shortest period: the cron library knows whole seconds only, and rounds shorter ones without a word.
const minPeriod = time.Second

// maxSpread bounds how long the first run of a probe is put off so that probes do not all start together.
const maxSpread = 30 * time.Second

// schedule says when a probe runs: at a fixed period, which only the monotonic clock counts, or by the calendar.
type schedule struct {
	every    time.Duration // 0: by the calendar
	calendar cron.Schedule
}

var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// parseSchedule reads five fields, a descriptor such as @hourly, or @every with a duration; CRON_TZ=Zone may stand
// before. It fences the library's known defects: a panic on TZ= without fields, dates that never come, and hours that
// daylight saving skips or repeats.
func parseSchedule(text string) (s schedule, err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("is no schedule; want five fields such as */5 * * * *, or @every 30s")
		}
	}()
	text = strings.TrimSpace(text)
	if period, found := strings.CutPrefix(text, "@every "); found {
		d, err := time.ParseDuration(strings.TrimSpace(period))
		if err != nil {
			return s, fmt.Errorf("%q is no duration; want a number with a unit, such as 30s", strings.TrimSpace(period))
		}
		return every(d)
	}
	zone, fields := time.Local, text
	if rest, found := strings.CutPrefix(text, "CRON_TZ="); found || strings.HasPrefix(text, "TZ=") {
		if !found {
			rest = strings.TrimPrefix(text, "TZ=")
		}
		name, after, _ := strings.Cut(rest, " ")
		if zone, err = time.LoadLocation(name); err != nil || name == "" {
			return s, fmt.Errorf("%q is no time zone; want a name such as Europe/Vienna", name)
		}
		fields = strings.TrimSpace(after)
	}
	if fields == "" {
		return s, errors.New("is empty; want five fields such as */5 * * * *, or @every 30s")
	}
	parsed, err := cronParser.Parse(fields)
	if err != nil {
		return s, fmt.Errorf("%w; want five fields (minute hour day month weekday), or @every 30s", err)
	}
	s.calendar = parsed
	if spec, ok := parsed.(*cron.SpecSchedule); ok {
		spec.Location = zone
		if spec.Hour&starBit == 0 {
			spec.Location = time.UTC
			s.calendar = wallSchedule{spec, zone}
		}
	}
	if s.calendar.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, zone)).IsZero() {
		return s, errors.New("never comes: no day has this date")
	}
	return s, nil
}

func every(d time.Duration) (schedule, error) {
	if d < minPeriod {
		return schedule{}, fmt.Errorf("%s is shorter than %s", d, minPeriod)
	}
	return schedule{every: d}, nil
}

// starBit is how the cron library marks a field that was written as *.
const starBit = 1 << 63

// wallSchedule follows the clock on the wall of a zone. An hour that daylight saving skips is made up for when the clocks
// have moved, and one that it repeats counts once.
type wallSchedule struct {
	spec *cron.SpecSchedule // in UTC, used on wall time
	zone *time.Location
}

// Next gives the next instant after t.
func (w wallSchedule) Next(t time.Time) time.Time {
	local := t.In(w.zone)
	_, offset := local.Zone()
	wall := local.Add(time.Duration(offset) * time.Second).UTC()
	for range 48 {
		if wall = w.spec.Next(wall); wall.IsZero() {
			return wall
		}
		at := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, w.zone)
		if at.After(t) {
			return at.In(t.Location())
		}
	}
	return time.Time{}
}

// spread is how long the first run is put off: by a hash of the name, even over all probes and the same after each start.
func (s schedule) spread(name string) time.Duration {
	if s.every == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	x := h.Sum64()
	x ^= x >> 33 // FNV mixes its last bytes badly: names that differ in their last digit would start together
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(min(s.every, maxSpread)))
}

func (s schedule) String() string {
	if s.every > 0 {
		return "@every " + s.every.String()
	}
	return "calendar"
}
