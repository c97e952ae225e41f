package agent

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// windowsOf reads the maintenance of a configuration with three probes.
func windowsOf(t *testing.T, text string) *world {
	t.Helper()
	c, err := Parse("authvigil.toml", text+`
[probe.devices]
kind = "certificate"
address = "x.example.test:443"
labels = { team = "one" }
[probe.devices-2]
kind = "certificate"
address = "x.example.test:443"
[probe.other]
kind = "certificate"
address = "x.example.test:443"
`)
	if err != nil {
		t.Fatal(err)
	}
	w, err := build(c, testEnv(), nil, noClock)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// TestMaintenance_windows: when windows are open, also across daylight saving.
func TestMaintenance_windows(t *testing.T) {
	weekly := "[maintenance.m]\nschedule = \"CRON_TZ=Europe/Vienna 30 1 * * SUN\"\nduration = \"2h\"\n"
	once := "[maintenance.m]\nfrom = 2026-12-24T22:00:00+01:00\nuntil = \"2026-12-25T06:00:00+01:00\"\n"
	for _, c := range []struct {
		text, now string
		open      bool
		until     string
	}{
		{weekly, "2026-11-29T00:29:59Z", false, ""},
		{weekly, "2026-11-29T00:30:00Z", true, "2026-11-29T02:30:00Z"},
		{weekly, "2026-11-29T02:29:59Z", true, "2026-11-29T02:30:00Z"},
		{weekly, "2026-11-29T02:30:00Z", false, ""},
		{weekly, "2026-11-28T01:00:00Z", false, ""},                    // a Saturday
		{weekly, "2026-10-25T01:00:00Z", true, "2026-10-25T01:30:00Z"}, // 2:00 comes twice: two hours are two hours
		{weekly, "2026-03-29T02:00:00Z", true, "2026-03-29T02:30:00Z"}, // 2:00 does not come
		{once, "2026-12-24T20:59:59Z", false, ""},
		{once, "2026-12-24T21:00:00Z", true, "2026-12-25T05:00:00Z"},
		{once, "2026-12-25T05:00:00Z", false, ""},
	} {
		end, open := windowsOf(t, c.text).maintenance[0].end(at(t, c.now))
		if open != c.open || open && !end.Equal(at(t, c.until)) {
			t.Errorf("%s%s: open %v until %s, want %v until %s", c.text, c.now, open, end, c.open, c.until)
		}
	}
}

// TestMaintenance_covers: an alert is silent when all probes behind it are being worked at.
func TestMaintenance_covers(t *testing.T) {
	w := windowsOf(t, `
[maintenance.named]
from = 2026-01-01T00:00:00Z
until = 2026-01-02T00:00:00Z
probes = ["devices*"]
[maintenance.team]
from = 2026-01-03T00:00:00Z
until = 2026-01-04T00:00:00Z
labels = { team = "one" }
[maintenance.all]
from = 2026-01-05T00:00:00Z
until = 2026-01-06T00:00:00Z
`)
	for _, c := range []struct {
		now, probes, want string
	}{
		{"2026-01-01T12:00:00Z", "devices", "maintenance named"},
		{"2026-01-01T12:00:00Z", "devices devices-2", "maintenance named"},
		{"2026-01-01T12:00:00Z", "devices other", ""},
		{"2026-01-02T12:00:00Z", "devices", ""},
		{"2026-01-03T12:00:00Z", "devices", "maintenance team"},
		{"2026-01-03T12:00:00Z", "devices-2", ""},
		{"2026-01-05T12:00:00Z", "other devices", "maintenance all"},
		{"2026-01-05T12:00:00Z", "gone", ""},
	} {
		if got := w.silence(at(t, c.now), strings.Fields(c.probes)); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.now, c.probes, got, c.want)
		}
	}
}

func TestMaintenance_errors(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "schedule: is missing",
		"schedule = \"0 2 * * SUN\"": "duration: want between 1m and 366d",
		"schedule = \"@every 1h\"\nduration = \"5m\"":                                  "schedule: want five cron fields",
		"schedule = \"0 0 30 2 *\"\nduration = \"5m\"":                                 "schedule: never comes",
		"from = 2026-01-01T00:00:00Z":                                                  "until: want from, and until after it",
		"from = 2026-01-02T00:00:00Z\nuntil = 2026-01-01T00:00:00Z":                    "until: want from",
		"from = 2026-01-01T00:00:00":                                                   "from: want a moment with its zone, got \"2026-01-01T00:00:00\"",
		"from = \"tomorrow\"":                                                          "from: want a moment with its zone, got \"tomorrow\"",
		"from = 2026-01-01T00:00:00Z\nuntil = 2026-01-02T00:00:00Z\nduration = \"1h\"": "from: give from and until, or",
		"schedule = \"0 2 * * SUN\"\nduration = \"5m\"\nprobes = [\"device\"]":         "probes: there is no [probe.device]; did you mean \"devices\"?",
		"schedule = \"0 2 * * SUN\"\nduration = \"5m\"\nprobe = [\"devices\"]":         "unknown key \"probe\"",
	} {
		got := problems(t, "[maintenance.m]\n"+text+"\n[probe.devices]\nkind = \"certificate\"\naddress = \"x.example.test:443\"\n")
		if !strings.Contains(got, "maintenance.m: "+want) {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
	for labels, want := range map[string]string{"cost-centre": "is no name of a label", "severity": "alerts have a label severity", "__x": "is no name"} {
		if got := problems(t, "[probe.p]\nkind = \"certificate\"\naddress = \"x.example.test:443\"\nlabels = { "+labels+" = \"x\" }\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q", labels, got)
		}
	}
	if got := problems(t, "[alerts]\nresend = \"1ms\"\n[probe.p]\nkind = \"certificate\"\naddress = \"x.example.test:443\"\n"); !strings.Contains(got, "alerts.resend: must be at least 1s") {
		t.Error(got)
	}
}

// TestMaintenance_anHour: what fails within a window is told when it fails after it, and a probe that is not worked at is
// told of at once.
func TestMaintenance_anHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		bad := func(context.Context) (evidence.Report, error) { return answered(503) }
		a := agentOf(10*time.Second, map[string]*fake{"worked-at": {run: bad}, "other": {run: bad}})
		a.world.maintenance = []*maintenance{{name: "m", window: window{From: begin, Until: begin.Add(time.Hour), Probes: []string{"worked-*"}}}}
		m := &mailbox{}
		withSink(a, m)
		a.alerts.SetRules(a.rules(a.world))
		runFor(t, a, 90*time.Minute)
		first := map[string]time.Duration{}
		for _, n := range m.got {
			if _, known := first[n.Culprit]; !known {
				first[n.Culprit] = n.StartsAt.Sub(begin)
			}
		}
		if other, worked := first["endpoint:other.example.test/"], first["endpoint:worked-at.example.test/"]; other == 0 || other > 2*time.Minute || worked < time.Hour || worked > 70*time.Minute {
			t.Errorf("told after %v", first)
		}
		if list := a.Maintenances(begin); len(list) != 1 || !list[0].Active || !list[0].Until.Equal(begin.Add(time.Hour)) {
			t.Errorf("%+v", list)
		}
	})
}
