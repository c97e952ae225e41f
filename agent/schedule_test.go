package agent

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParseSchedule_refuses(t *testing.T) {
	for text, word := range map[string]string{
		"":                     "empty",
		"TZ=":                  "time zone",
		"TZ=UTC":               "empty",
		"CRON_TZ=":             "time zone",
		"CRON_TZ=Nowhere/City": "time zone",
		"TZ=Nowhere 0 0 * * *": "time zone",
		"0 0 30 2 *":           "never comes",
		"0 0 31 4 *":           "never comes",
		"* * * *":              "five fields",
		"* * * * * *":          "five fields",
		"61 * * * *":           "five fields",
		"@every 100ms":         "shorter",
		"@every -5s":           "shorter",
		"@every 5":             "unit",
		"@every":               "five fields",
		"@fortnightly":         "five fields",
		"*/0 * * * *":          "five fields",
	} {
		if _, err := parseSchedule(text); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("parseSchedule(%q): got error %v, want one about %q", text, err, word)
		}
	}
}

func TestParseSchedule_daylightSaving(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Vienna")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ spec, from, want string }{
		// 2026-03-29: 02:00 becomes 03:00. The run at 02:30 is not dropped for a day.
		{"CRON_TZ=Europe/Vienna 30 2 * * *", "2026-03-29T00:00:00+01:00", "2026-03-29"},
		{"CRON_TZ=Europe/Vienna 30 2 * * *", "2026-03-28T03:00:00+01:00", "2026-03-29"},
		// 2026-10-25: 03:00 becomes 02:00. The run at 02:30 comes once.
		{"CRON_TZ=Europe/Vienna 30 2 * * *", "2026-10-25T02:30:00+02:00", "2026-10-26"},
		{"CRON_TZ=Europe/Vienna 30 2 * * *", "2026-10-25T02:30:00+01:00", "2026-10-26"},
		// Every five minutes goes on through both.
		{"CRON_TZ=Europe/Vienna */5 * * * *", "2026-10-25T02:31:00+01:00", "2026-10-25"},
	} {
		s, err := parseSchedule(c.spec)
		if err != nil {
			t.Fatal(err)
		}
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		got := s.calendar.Next(from)
		if !got.After(from) || got.In(zone).Format(time.DateOnly) != c.want {
			t.Errorf("%s after %s: got %s, want a time on %s", c.spec, c.from, got.In(zone), c.want)
		}
	}
}

func TestSchedule_spreadIsEven(t *testing.T) {
	s, err := every(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var buckets [10]int
	for i := range 10000 {
		buckets[s.spread(fmt.Sprintf("probe-%d", i))/time.Second]++
	}
	for second, n := range buckets {
		if n < 800 || n > 1200 {
			t.Errorf("second %d gets %d of 10000 first runs: %v", second, n, buckets)
			break
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, seed := range []string{"*/5 * * * *", "TZ=", "CRON_TZ=UTC 0 0 1 1 *", "@every 1h", "@daily", "0 0 30 2 *", "1-5/2,7 * * * MON"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSchedule(text)
		if err != nil {
			return
		}
		if s.every == 0 && s.calendar == nil {
			t.Errorf("parseSchedule(%q) gave neither a period nor a calendar", text)
		}
		if now := time.Unix(1_800_000_000, 0); s.calendar != nil && !s.calendar.Next(now).After(now) {
			t.Errorf("parseSchedule(%q): the next time is not after now", text)
		}
	})
}

// TestParseSchedule_onceADay: in every kind of zone there is, for sixteen years, a job at half past two runs exactly once on
// each day, also when that time comes twice or not at all. UTC needs no zone file, and the year 2038 ends nothing.
func TestParseSchedule_onceADay(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Vienna", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tehran", "Pacific/Apia", "Asia/Kathmandu", "America/St_Johns", "Africa/Cairo", "Antarctica/Troll"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, clock := range []string{"30 2", "0 0", "15 3"} {
			s, err := parseSchedule("CRON_TZ=" + name + " " + clock + " * * *")
			if err != nil {
				t.Fatal(err)
			}
			at := time.Date(2024, 12, 31, 12, 0, 0, 0, zone)
			day := at
			for at.Year() < 2041 {
				at = s.calendar.Next(at)
				day = time.Date(day.Year(), day.Month(), day.Day()+1, 12, 0, 0, 0, zone)
				if got := at.In(zone); got.Format(time.DateOnly) != day.Format(time.DateOnly) {
					t.Errorf("%s at %s: a run on %s, want one on %s", name, clock, got, day.Format(time.DateOnly))
					break
				}
			}
		}
	}
}
