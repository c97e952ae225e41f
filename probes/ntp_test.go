package probes

import (
	"context"
	"encoding/binary"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facebook/time/ntp/chrony"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
)

var threeServers = []string{sandbox.NTPHost1, sandbox.NTPHost2, sandbox.NTPHost3}

// A timekeeper is an ntp probe in the sandbox, with what a test looks at.
type timekeeper struct {
	*testing.T
	w   *sandbox.World
	env Env
	p   *ntpProbe
}

// keepTime runs a test with three good time servers in a bubble.
func keepTime(t *testing.T, values map[string]any, test func(k *timekeeper)) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		k := &timekeeper{T: t, w: w, env: env}
		k.make(values)
		test(k)
	})
}

// make makes the probe anew, as a restart does.
func (k *timekeeper) make(values map[string]any) {
	k.Helper()
	if values["Servers"] == nil {
		values["Servers"] = threeServers
	}
	k.p = makeProbe(k.T, "ntp", k.env, values).(faulty).Probe.(*ntpProbe)
}

// run runs the probe once, within ten seconds.
func (k *timekeeper) run() (*evidence.Clock, *evidence.Fault, evidence.Report) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), 10*time.Second)
	defer cancel()
	report, err := k.p.Run(ctx)
	if report.Clock == nil {
		k.Fatal("no clock in the report")
	}
	return report.Clock, evidence.AsFault(err), report
}

func (k *timekeeper) fault(i int, f func(f *sandbox.NTPFaults)) { k.w.NTP(threeServers[i]).Set(f) }

func (k *timekeeper) all(f func(f *sandbox.NTPFaults)) {
	for i := range threeServers {
		k.fault(i, f)
	}
}

func (k *timekeeper) packets(i int) int { return k.w.Count(threeServers[i], "") }

// holds says whether the interval of the verdict holds the skew.
func holds(c *evidence.Clock, skew time.Duration) bool {
	return c.Confidence != evidence.NoConfidence && (c.Skew-skew).Abs() <= c.Bound && c.Bound < time.Second
}

func numberOf(r evidence.Report, name string, labels ...string) (float64, bool) {
	for _, one := range r.Readings {
		if one.Metric.Name == name && slices.Equal(one.Labels, labels) {
			return one.Value, true
		}
	}
	return 0, false
}

func noted(r evidence.Report, code string) bool {
	return slices.ContainsFunc(r.Notes, func(n evidence.Note) bool { return n.Code == code })
}

// TestNTP_faults injects what is wrong at time servers, one row of docs/fault-cases-clock.md each.
func TestNTP_faults(t *testing.T) {
	liar := func(k *timekeeper) { k.fault(2, func(f *sandbox.NTPFaults) { f.Clock = 2 * time.Second }) }
	for name, c := range map[string]struct {
		values map[string]any
		do     func(k *timekeeper)
		check  func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report)
	}{
		"B1 local clock ahead": {nil, func(k *timekeeper) { k.all(func(f *sandbox.NTPFaults) { f.Clock = -2 * time.Minute }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || f.Symptom != evidence.SymptomClockSkew || f.Code != "ahead" || !holds(c, 2*time.Minute) || c.Confidence != evidence.Confident {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"B2 local clock behind": {nil, func(k *timekeeper) { k.all(func(f *sandbox.NTPFaults) { f.Clock = 37 * time.Second }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || f.Code != "behind" || !holds(c, -37*time.Second) {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"B3 one liar of three": {nil, liar, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Sources[2].State != "falseticker" || c.Confidence != evidence.LowConfident || !noted(r, "ntp_falseticker") || !holds(c, 0) {
				k.Errorf("got %v, %+v, %v", f, c, r.Notes)
			}
			if v, _ := numberOf(r, "clock_source_state", sandbox.NTPHost3, "falseticker"); v != 1 {
				k.Error("no series says falseticker")
			}
		}},
		"B4 two that disagree": {map[string]any{"Servers": []string{sandbox.NTPHost1, sandbox.NTPHost3}}, liar, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f == nil || f.Symptom != evidence.SymptomClockUnknown || f.Code != "no_majority" || c.Confidence != evidence.NoConfidence {
				k.Errorf("got %v, %+v", f, c)
			}
			if _, ok := numberOf(r, "clock_skew_seconds", "consensus"); ok {
				k.Error("a number is claimed without a majority")
			}
		}},
		"B5 two of three collude": {map[string]any{"Chrony": "10.0.0.1:323"}, func(k *timekeeper) {
			k.env.Host = Host{Dial: tracking(chrony.Tracking{RefID: 1, Stratum: 3, RootDispersion: 0.001})}
			k.make(map[string]any{"Chrony": "10.0.0.1:323"})
			liar(k)
			k.fault(1, func(f *sandbox.NTPFaults) { f.Clock = 2 * time.Second })
		}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if !holds(c, -2*time.Second) || c.Sources[0].State != "falseticker" || c.Confidence != evidence.Unverified || c.Own[0].State != "falseticker" || !noted(r, "clock_voices_differ") {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"B6 one server": {map[string]any{"Servers": threeServers[:1]}, func(*timekeeper) {}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Confidence != evidence.Unverified {
				k.Errorf("got %v, %+v", f, c)
			}
			if v, _ := numberOf(r, "clock_confidence", "unverified"); v != 1 {
				k.Error("no series says unverified")
			}
		}},
		"B7 nobody answers": {nil, func(k *timekeeper) {
			k.run()
			time.Sleep(10 * time.Minute)
			k.all(func(f *sandbox.NTPFaults) { f.Silent = true })
		}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f == nil || f.Code != "no_answer" || c.Confidence != evidence.NoConfidence || c.Sources[0].State != "unreachable" {
				k.Errorf("got %v, %+v", f, c)
			}
			if _, ok := numberOf(r, "clock_skew_seconds", "consensus"); ok {
				k.Error("a number stands for what is not known")
			}
			if _, ok := numberOf(r, "clock_source_last_success_timestamp_seconds", sandbox.NTPHost1); !ok {
				k.Error("when a server was last heard is lost")
			}
		}},
		"B16 not synchronised": {nil, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.Unsynchronised = true }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" || s.Code != "unsynchronised" {
				k.Errorf("got %v, %+v", f, s)
			}
		}},
		"B16 stale": {nil, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.Unreferenced = 48 * time.Hour }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" || s.Code != "stale" {
				k.Errorf("got %v, %+v", f, s)
			}
		}},
		"B17 far from its reference": {nil, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.RootDispersion = 5 * time.Second }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" || s.Code != "distance" {
				k.Errorf("got %v, %+v", f, s)
			}
			if _, ok := numberOf(r, "clock_source_skew_seconds", sandbox.NTPHost1); ok {
				k.Error("the word of a server that is too far away is shown")
			}
		}},
		"B19 forged": {nil, func(k *timekeeper) {
			k.fault(0, func(f *sandbox.NTPFaults) { f.OtherOrigin, f.Clock = true, time.Hour })
		}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" || s.Code != "mismatch" {
				k.Errorf("got %v, %+v", f, s)
			}
		}},
		"B20 slow line": {map[string]any{"Servers": threeServers[:1]}, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.Delay = 400 * time.Millisecond }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f != nil || c.Bound < 200*time.Millisecond || !holds(c, 0) || k.packets(0) != burstMost {
				k.Errorf("got %v, %+v after %d packets", f, c, k.packets(0))
			}
		}},
		"short": {nil, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.Short = true }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" || s.Code != "short" {
				k.Errorf("got %v, %+v", f, s)
			}
		}},
		"garbage": {nil, func(k *timekeeper) { k.fault(0, func(f *sandbox.NTPFaults) { f.Garbage = true }) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "invalid" {
				k.Errorf("got %v, %+v", f, s)
			}
		}},
		"B15 kiss with a nonsense time": {nil, func(k *timekeeper) {
			k.fault(0, func(f *sandbox.NTPFaults) { f.Kiss, f.Clock = "RATE", -30*365*24*time.Hour })
		}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if s := c.Sources[0]; f != nil || s.State != "kissed" || s.Skew != 0 {
				k.Errorf("got %v, %+v", f, s)
			}
			if _, ok := numberOf(r, "clock_source_skew_seconds", sandbox.NTPHost1); ok {
				k.Error("the time of a kiss is shown")
			}
		}},
		"B38 another time zone": {nil, func(k *timekeeper) {
			local := time.Local
			time.Local = time.FixedZone("elsewhere", 9*3600)
			k.Cleanup(func() { time.Local = local })
		}, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f != nil || !holds(c, 0) {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"B27 era of 2036": {nil, func(*timekeeper) { time.Sleep(time.Until(time.Date(2036, 2, 8, 0, 0, 0, 0, time.UTC))) }, func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f != nil || !holds(c, 0) || c.Confidence != evidence.Confident {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]any{}
			for key, v := range c.values {
				values[key] = v
			}
			keepTime(t, values, func(k *timekeeper) {
				c.do(k)
				clock, fault, report := k.run()
				c.check(k, clock, fault, report)
			})
		})
	}
}

// TestNTP_pace: a healthy server gets one packet in each period, however often the probe runs and however many probes ask it.
func TestNTP_pace(t *testing.T) {
	keepTime(t, map[string]any{}, func(k *timekeeper) {
		k.env.Shared = NewShared()
		k.make(map[string]any{})
		one := k.p
		k.make(map[string]any{"MaxSkew": time.Second})
		for range 10 {
			for _, k.p = range []*ntpProbe{one, k.p} {
				if c, f, _ := k.run(); f != nil || c.Confidence != evidence.Confident {
					k.Fatal(f)
				}
			}
			time.Sleep(29 * time.Second)
		}
		if n := k.packets(0); n != 1 {
			k.Errorf("%d packets in five minutes", n)
		}
		c, _, _ := k.run()
		if wander := c.Bound; wander < 50*time.Millisecond {
			k.Errorf("an answer of five minutes ago is thought good to %s", wander)
		}
	})
}

// TestNTP_kiss: what a server asks for is done, over restarts too.
func TestNTP_kiss(t *testing.T) {
	kiss := func(code string) func(f *sandbox.NTPFaults) { return func(f *sandbox.NTPFaults) { f.Kiss = code } }
	t.Run("B11 RATE", func(t *testing.T) {
		keepTime(t, map[string]any{}, func(k *timekeeper) {
			k.env.Store = memory{}
			k.make(map[string]any{})
			k.fault(0, kiss("RATE"))
			c, _, r := k.run()
			if v, _ := numberOf(r, "clock_kiss_total", sandbox.NTPHost1, "RATE"); v != 1 || k.packets(0) != 1 || c.Sources[0].State != "kissed" {
				k.Errorf("%v kisses, %d packets, %+v", v, k.packets(0), c.Sources[0])
			}
			k.fault(0, kiss(""))
			time.Sleep(19 * time.Minute)
			k.make(map[string]any{})
			if c, _, _ := k.run(); k.packets(0) != 1 || c.Sources[0].State != "kissed" {
				k.Errorf("asked again too soon: %+v", c.Sources[0])
			}
			time.Sleep(2 * time.Minute)
			if c, _, _ := k.run(); k.packets(0) != 2 || c.Sources[0].State != "truechimer" {
				k.Errorf("not asked again: %+v", c.Sources[0])
			}
			time.Sleep(19 * time.Minute)
			if k.run(); k.packets(0) != 2 {
				k.Error("the slower pace is forgotten after one good answer")
			}
			time.Sleep(25 * time.Hour)
			k.run()
			time.Sleep(5*time.Minute + time.Second)
			if k.run(); k.packets(0) != 4 {
				k.Errorf("the slower pace is not forgotten after a day: %d packets", k.packets(0))
			}
			k.fault(0, kiss("RATE"))
			for range 6 {
				time.Sleep(kissRarest + time.Second)
				k.run()
			}
			if n := k.packets(0); n != 10 {
				k.Errorf("rarer than every 68 minutes: %d packets", n)
			}
		})
	})
	t.Run("B12 DENY once", func(t *testing.T) {
		keepTime(t, map[string]any{}, func(k *timekeeper) {
			k.fault(0, kiss("DENY"))
			_, _, r := k.run()
			if v, _ := numberOf(r, "clock_kiss_total", sandbox.NTPHost1, "DENY"); v != 1 {
				k.Error("the kiss is not counted")
			}
			k.fault(0, kiss(""))
			time.Sleep(2 * time.Minute)
			if c, _, _ := k.run(); c.Sources[0].State != "truechimer" || k.p.places[0].kiss.Denied != 0 {
				k.Errorf("got %+v", c.Sources[0])
			}
		})
	})
	for name, then := range map[string]func(f *sandbox.NTPFaults){"B13 DENY again": kiss("DENY"), "B13 RSTR then silence": func(f *sandbox.NTPFaults) { f.Kiss, f.Silent = "", true }} {
		t.Run(name, func(t *testing.T) {
			keepTime(t, map[string]any{}, func(k *timekeeper) {
				k.env.Store = memory{}
				k.make(map[string]any{})
				code, _, _ := strings.Cut(strings.Fields(name)[1], " ")
				k.fault(0, kiss(code))
				k.run()
				k.fault(0, then)
				for range 4 {
					time.Sleep(65 * time.Second)
					k.run()
				}
				c, _, _ := k.run()
				if c.Sources[0].State != "suspended" || c.Sources[0].Code != code {
					k.Fatalf("got %+v", c.Sources[0])
				}
				before := k.packets(0)
				k.fault(0, func(f *sandbox.NTPFaults) { f.Kiss, f.Silent = "", false })
				time.Sleep(23 * time.Hour)
				k.make(map[string]any{})
				if c, _, _ := k.run(); c.Sources[0].State != "suspended" || k.packets(0) != before {
					k.Errorf("asked within the day after a restart: %+v", c.Sources[0])
				}
				time.Sleep(time.Hour)
				if c, _, _ := k.run(); c.Sources[0].State != "truechimer" {
					k.Errorf("not asked after the day: %+v", c.Sources[0])
				}
			})
		})
	}
	t.Run("a kept wait of years", func(t *testing.T) {
		keepTime(t, map[string]any{}, func(k *timekeeper) {
			k.env.Store = memory{"ntp/" + sandbox.NTPHost1 + ":123": []byte(`{"until":"2031-01-01T00:00:00Z","code":"DENY"}`), "ntp/" + sandbox.NTPHost2 + ":123": []byte(`{"until":`)}
			k.make(map[string]any{})
			if c, _, _ := k.run(); c.Sources[0].State != "suspended" || c.Sources[1].State != "truechimer" {
				k.Errorf("got %+v", c.Sources)
			}
			time.Sleep(kissDeny + time.Minute)
			if c, _, _ := k.run(); c.Sources[0].State != "truechimer" {
				k.Errorf("waits for years: %+v", c.Sources[0])
			}
		})
	})
}

// TestNTP_scripted answers packet by packet, as no sane server does.
func TestNTP_scripted(t *testing.T) {
	good := func(req []byte) []byte { return ntpAnswer(req, 0) }
	one := func(t *testing.T, answer func(n int, req []byte) []byte, check func(k *timekeeper, s evidence.ClockSource, packets int)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			n := 0
			var mu sync.Mutex
			k := &timekeeper{T: t, env: testEnv()}
			k.env.Net.Lookup = nil
			k.env.Net.Dial = func(context.Context, string, string) (net.Conn, error) {
				return &packetwise{reply: func(req []byte) []byte {
					mu.Lock()
					defer mu.Unlock()
					n++
					return answer(n, req)
				}}, nil
			}
			k.make(map[string]any{"Servers": []string{"10.1.1.1"}, "MaxSkew": 20 * time.Millisecond})
			c, _, _ := k.run()
			check(k, c.Sources[0], n)
		})
	}
	t.Run("B14 kiss without a time", func(t *testing.T) {
		one(t, func(_ int, req []byte) []byte {
			b := good(req)
			b[1] = 0
			copy(b[12:], []byte{1, 2, 3, 4})
			clear(b[40:48])
			return b
		}, func(k *timekeeper, s evidence.ClockSource, packets int) {
			if s.State != "kissed" || s.Code != "other" || packets != 1 || !k.p.places[0].kiss.Until.After(time.Now().Add(19*time.Minute)) {
				k.Errorf("got %+v after %d packets, %+v", s, packets, k.p.places[0].kiss)
			}
		})
	})
	t.Run("a kiss to another question", func(t *testing.T) {
		one(t, func(_ int, req []byte) []byte {
			b := good(req)
			b[1] = 0
			copy(b[12:], "DENY")
			b[24]++
			return b
		}, func(k *timekeeper, s evidence.ClockSource, _ int) {
			if s.Code != "mismatch" || k.p.places[0].kiss.Denied != 0 {
				k.Errorf("got %+v, %+v", s, k.p.places[0].kiss)
			}
		})
	})
	t.Run("INIT", func(t *testing.T) {
		one(t, func(_ int, req []byte) []byte {
			b := good(req)
			b[1] = 0
			copy(b[12:], "INIT")
			return b
		}, func(k *timekeeper, s evidence.ClockSource, packets int) {
			if s.State != "kissed" || s.Code != "INIT" || packets != 1 || !k.p.places[0].kiss.Until.IsZero() {
				k.Errorf("got %+v", s)
			}
		})
	})
	t.Run("B21 lost packets", func(t *testing.T) {
		one(t, func(n int, req []byte) []byte {
			if n == 2 {
				return nil
			}
			time.Sleep(time.Duration(n) * 20 * time.Millisecond)
			return good(req)
		}, func(k *timekeeper, s evidence.ClockSource, packets int) {
			if s.State != "truechimer" || packets != 4 || s.RTT > 25*time.Millisecond {
				k.Errorf("got %+v after %d packets: want the shortest round trip of four", s, packets)
			}
		})
	})
	t.Run("two lost packets in a row are enough", func(t *testing.T) {
		one(t, func(int, []byte) []byte { return nil }, func(k *timekeeper, s evidence.ClockSource, packets int) {
			if s.State != "unreachable" || packets != silentMost {
				k.Errorf("got %+v after %d packets", s, packets)
			}
		})
	})
	t.Run("B18 late answer", func(t *testing.T) {
		one(t, func(n int, req []byte) []byte {
			if n == 1 {
				time.Sleep(1500 * time.Millisecond)
				return ntpAnswer(req, time.Hour)
			}
			return good(req)
		}, func(k *timekeeper, s evidence.ClockSource, packets int) {
			if s.State != "truechimer" || s.Skew.Abs() > s.Bound || packets < 2 {
				k.Errorf("got %+v after %d packets", s, packets)
			}
		})
	})
	t.Run("B24 the clock is set during the burst", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			k := &timekeeper{T: t, env: testEnv()}
			k.env.Net.Lookup = nil
			k.env.Net.Dial = func(context.Context, string, string) (net.Conn, error) {
				return &packetwise{reply: func(req []byte) []byte { time.Sleep(100 * time.Millisecond); return good(req) }}, nil
			}
			k.make(map[string]any{"Servers": []string{"10.1.1.1"}})
			begin := time.Now()
			k.p.step = func(_, now time.Time) time.Duration {
				if now.Sub(begin) > time.Second {
					return 30 * time.Second
				}
				return 0
			}
			c, f, r := k.run()
			if c.Sources[0].Code != "local_step" || f == nil || f.Code != "local_step" {
				t.Errorf("got %+v, %v", c.Sources[0], f)
			}
			if _, ok := numberOf(r, "clock_source_skew_seconds", "10.1.1.1"); ok {
				t.Error("a measurement over a step is shown")
			}
			k.p.step = func(_, now time.Time) time.Duration { return 0 }
			time.Sleep(retryLater)
			if c, f, _ := k.run(); f != nil || c.Sources[0].State != "truechimer" {
				t.Errorf("after the step: %+v, %v", c.Sources[0], f)
			}
		})
	})
	t.Run("B25 suspended between two runs", func(t *testing.T) {
		keepTime(t, map[string]any{}, func(k *timekeeper) {
			k.run()
			slept := time.Now()
			k.p.step = func(before, _ time.Time) time.Duration {
				if before.Before(slept.Add(time.Second)) {
					return 10 * time.Minute
				}
				return 0
			}
			time.Sleep(30 * time.Second)
			if c, f, _ := k.run(); f != nil || !holds(c, 0) || k.packets(0) != 2 {
				k.Errorf("got %v, %+v after %d packets: want a new burst, and no skew", f, c, k.packets(0))
			}
		})
	})
}

// ntpAnswer is a good answer of a server whose clock is ahead.
func ntpAnswer(req []byte, ahead time.Duration) []byte {
	stamp := func(t time.Time) uint64 {
		return uint64(t.Unix()+2208988800)<<32 | uint64(t.Nanosecond())<<32/1e9
	}
	b := make([]byte, 48)
	b[0], b[1], b[2], b[3] = 4<<3|4, 2, 6, 0xec
	copy(b[12:], []byte{192, 0, 2, 1})
	now := time.Now().Add(ahead)
	binary.BigEndian.PutUint64(b[16:], stamp(now.Add(-10*time.Second)))
	copy(b[24:], req[40:48])
	binary.BigEndian.PutUint64(b[32:], stamp(now))
	binary.BigEndian.PutUint64(b[40:], stamp(now))
	return b
}

// packetwise is a connection to a server that is a function. A nil answer is silence.
type packetwise struct {
	reply func([]byte) []byte
	heard []byte
	until time.Time
}

func (s *packetwise) Write(b []byte) (int, error) { s.heard = slices.Clone(b); return len(b), nil }

func (s *packetwise) Read(b []byte) (int, error) {
	got := make(chan []byte, 1)
	go func() { got <- s.reply(s.heard) }()
	timer := time.NewTimer(time.Until(s.until))
	defer timer.Stop()
	for {
		select {
		case answer := <-got:
			if answer != nil {
				return copy(b, answer), nil
			}
			got = nil
		case <-timer.C:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (s *packetwise) Close() error                      { return nil }
func (s *packetwise) LocalAddr() net.Addr               { return &net.UDPAddr{} }
func (s *packetwise) RemoteAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4(10, 1, 1, 1), Port: 123} }
func (s *packetwise) SetDeadline(t time.Time) error     { s.until = t; return nil }
func (s *packetwise) SetReadDeadline(t time.Time) error { s.until = t; return nil }
func (s *packetwise) SetWriteDeadline(time.Time) error  { return nil }

// TestNTP_resolverHangs: B22, a name that does not resolve keeps only its own server out.
func TestNTP_resolverHangs(t *testing.T) {
	keepTime(t, map[string]any{}, func(k *timekeeper) {
		lookup := k.env.Net.Lookup
		k.env.Net.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			if host == sandbox.NTPHost1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return lookup(ctx, host)
		}
		k.make(map[string]any{})
		began := time.Now()
		c, f, _ := k.run()
		if took := time.Since(began); f != nil || c.Sources[0].State != "unreachable" || took > 9*time.Second {
			k.Errorf("got %v, %+v after %s", f, c.Sources[0], took)
		}
	})
}

// TestNTP_otherAddress: an answer from another address than the one that was asked is not taken.
func TestNTP_otherAddress(t *testing.T) {
	t.Parallel()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = other.WriteTo(ntpAnswer(b[:n], time.Hour), from)
		}
	}()
	k := &timekeeper{T: t, env: testEnv()}
	k.make(map[string]any{"Servers": []string{server.LocalAddr().String()}})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, _ := k.p.Run(ctx)
	if s := r.Clock.Sources[0]; s.State != "unreachable" || s.Code != "timeout" {
		t.Errorf("got %+v", s)
	}
	server.Close()
	<-done
}

// TestNTP_leap: B26, servers that treat a leap second differently are not mixed, and on the day of one a second is forgiven.
func TestNTP_leap(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		wrong  string
	}{
		{map[string]any{"Servers": []string{"time.google.com", "ntp1.example.com"}}, "differ by up to a second"},
		{map[string]any{"Servers": []string{"time.google.com", "169.254.169.123"}}, "differ by up to a second"},
		{map[string]any{"Servers": []string{"time1.google.com", "Time2.google.com:123"}}, ""},
		{map[string]any{"Servers": []string{"ntp1.example.com", "ntp2.example.com"}, "Smeared": []string{"ntp1.example.com"}}, "differ by up to a second"},
		{map[string]any{"Servers": []string{"ntp1.example.com", "ntp2.example.com"}, "Smeared": []string{"ntp1.example.com", "ntp2.example.com"}}, ""},
		{map[string]any{"Servers": []string{"ntp1.example.com"}, "Smeared": []string{"ntp3.example.com"}}, "is not among servers"},
	} {
		_, err := New("ntp", decodeInto(c.values), testEnv())
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v: got %v, want %q", c.values, err, c.wrong)
		}
	}
	keepTime(t, map[string]any{}, func(k *timekeeper) {
		wrong := func(leap int) { k.all(func(f *sandbox.NTPFaults) { f.Clock, f.Leap = 900*time.Millisecond, leap }) }
		time.Sleep(time.Until(time.Date(2000, 6, 30, 13, 0, 0, 0, time.UTC)))
		wrong(0)
		if _, f, _ := k.run(); f == nil {
			k.Error("without an announcement 0.9 s are too many")
		}
		time.Sleep(6 * time.Minute)
		wrong(1)
		if c, f, _ := k.run(); f != nil || c.Limit != 1500*time.Millisecond {
			k.Errorf("before an announced leap second: %v, limit %s", f, c.Limit)
		}
		time.Sleep(12 * time.Hour)
		wrong(0)
		if _, f, _ := k.run(); f != nil {
			k.Errorf("after the leap second: %v", f)
		}
		time.Sleep(24 * time.Hour)
		if _, f, _ := k.run(); f == nil {
			k.Error("forgiven for ever")
		}
	})
}

// tracking is chronyd with a report.
func tracking(report chrony.Tracking) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		return &packetwise{until: time.Now().Add(time.Second), reply: func([]byte) []byte { return trackingReply(report) }}, nil
	}
}

// trackingReply writes a tracking report as chronyd does (version 6 of its protocol).
func trackingReply(t chrony.Tracking) []byte {
	b := make([]byte, 104)
	b[0], b[1] = 6, 2
	binary.BigEndian.PutUint16(b[4:], 33)
	binary.BigEndian.PutUint16(b[6:], 5)
	binary.BigEndian.PutUint32(b[28:], t.RefID)
	binary.BigEndian.PutUint16(b[52:], t.Stratum)
	binary.BigEndian.PutUint16(b[54:], t.LeapStatus)
	for i, v := range []float64{t.CurrentCorrection, t.LastOffset, t.RMSOffset, t.FreqPPM, t.ResidFreqPPM, t.SkewPPM, t.RootDelay, t.RootDispersion, t.LastUpdateInterval} {
		binary.BigEndian.PutUint32(b[68+4*i:], chronyFloat(v))
	}
	return b
}

// chronyFloat is 7 bits of exponent and 25 of coefficient, both signed.
func chronyFloat(v float64) uint32 {
	const bits = 25
	exponent := 0
	for v != 0 && (v >= 1<<23 || v < -1<<23) {
		v, exponent = v/2, exponent+1
	}
	for v != 0 && v < 1<<22 && v > -1<<22 {
		v, exponent = v*2, exponent-1
	}
	return uint32(exponent+bits)<<bits | uint32(int32(v))&(1<<bits-1)
}

// TestNTP_host: what this machine says of its own clock.
func TestNTP_host(t *testing.T) {
	silent := func(k *timekeeper) { k.all(func(f *sandbox.NTPFaults) { f.Silent = true }) }
	failing := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) { return nil, err }
	}
	kernel := func(k Kernel) func() (Kernel, error) { return func() (Kernel, error) { return k, nil } }
	synced := chrony.Tracking{RefID: 0xc0000201, Stratum: 3, CurrentCorrection: -0.25, RootDelay: 0.02, RootDispersion: 0.005}
	free := synced
	free.LeapStatus, free.RefID = 3, 0
	for name, c := range map[string]struct {
		host   Host
		do     func(*timekeeper)
		chrony string
		check  func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report)
	}{
		"B8 port 123 is blocked": {Host{Dial: tracking(synced)}, silent, "", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Reference != "chrony" || c.Confidence != evidence.Unverified || (c.Skew-250*time.Millisecond).Abs() > time.Millisecond || !noted(r, "ntp_unavailable") {
				k.Errorf("got %v, %+v, %v", f, c, r.Notes)
			}
			if v, ok := numberOf(r, "clock_skew_seconds", "chrony"); !ok || v < 0.249 {
				k.Errorf("series: %v %v", v, ok)
			}
		}},
		"B9 may not be asked": {Host{Dial: failing(os.NewSyscallError("connect", syscall.EACCES)), Kernel: kernel(Kernel{Synchronised: true, Offset: -time.Millisecond, MaxError: 20 * time.Millisecond})}, silent, "/run/chrony/chronyd.sock", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Own[0].Code != "permission_denied" || c.Reference != "kernel" || c.Skew != time.Millisecond {
				k.Errorf("got %v, %+v", f, c)
			}
			if v, _ := numberOf(r, "clock_kernel_max_error_seconds"); v != 0.02 {
				k.Errorf("max error: %v", v)
			}
		}},
		"B10 chrony follows nobody": {Host{Dial: tracking(free), Kernel: kernel(Kernel{MaxError: 16 * time.Second})}, func(*timekeeper) {}, "auto", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Own[0].Code != "unsynchronised" || c.Own[1].Code != "unsynchronised" || !noted(r, "clock_unsynchronised") {
				k.Errorf("got %v, %+v", f, c.Own)
			}
			if v, ok := numberOf(r, "clock_kernel_synchronized"); v != 0 || !ok {
				k.Errorf("kernel: %v %v", v, ok)
			}
		}},
		"B10 and nobody else": {Host{Dial: tracking(free)}, silent, "auto", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || c.Confidence != evidence.NoConfidence || !strings.Contains(f.Err.Error(), "follows no source") {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"no chrony": {Host{Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
			if network == "udp" {
				return nil, syscall.ECONNREFUSED
			}
			return nil, fs.ErrNotExist
		}}, func(*timekeeper) {}, "", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f != nil || len(c.Own) != 0 {
				k.Errorf("got %v, %+v", f, c.Own)
			}
		}},
		"kernel may not be read": {Host{Kernel: func() (Kernel, error) { return Kernel{}, syscall.EPERM }}, func(*timekeeper) {}, "", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, r evidence.Report) {
			if f != nil || c.Own[0].Code != "permission_denied" {
				k.Errorf("got %v, %+v", f, c.Own)
			}
			if _, ok := numberOf(r, "clock_kernel_synchronized"); ok {
				k.Error("a number for what may not be read")
			}
		}},
		"chrony sends half a packet": {Host{Dial: func(context.Context, string, string) (net.Conn, error) {
			return &packetwise{until: time.Now().Add(time.Second), reply: func([]byte) []byte { return trackingReply(synced)[:60] }}, nil
		}}, silent, "10.0.0.1:323", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || c.Own[0].Code != "malformed" {
				k.Errorf("got %v, %+v", f, c.Own)
			}
		}},
		"chrony is silent": {Host{Dial: func(context.Context, string, string) (net.Conn, error) {
			return &packetwise{until: time.Now().Add(time.Hour), reply: func([]byte) []byte { return nil }}, nil
		}}, silent, "10.0.0.1:323", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || c.Own[0].Code != "timeout" {
				k.Errorf("got %v, %+v", f, c.Own)
			}
		}},
		"three servers that are watched": {Host{}, func(k *timekeeper) {
			silent(k)
			k.env.Peers = func() []evidence.Peer {
				return []evidence.Peer{{Name: "a", Skew: time.Minute, Bound: time.Second}, {Name: "b", Skew: time.Minute, Bound: time.Second}, {Name: "c", Skew: 61 * time.Second, Bound: time.Second}, {Name: "d", Bound: time.Second}}
			}
			k.make(map[string]any{})
		}, "", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || f.Symptom != evidence.SymptomClockSkew || c.Reference != "peers" || !holds(c, time.Minute+500*time.Millisecond) {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
		"two servers that are watched": {Host{}, func(k *timekeeper) {
			silent(k)
			k.env.Peers = func() []evidence.Peer {
				return []evidence.Peer{{Name: "a", Method: "http_date", Skew: time.Minute, Bound: time.Second}, {Name: "a", Method: "token_iat", Skew: time.Minute, Bound: time.Second}, {Name: "b", Skew: time.Minute, Bound: time.Second}}
			}
			k.make(map[string]any{})
		}, "", func(k *timekeeper, c *evidence.Clock, f *evidence.Fault, _ evidence.Report) {
			if f == nil || f.Symptom != evidence.SymptomClockUnknown {
				k.Errorf("got %v, %+v", f, c)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			keepTime(t, map[string]any{}, func(k *timekeeper) {
				k.env.Host = c.host
				k.make(map[string]any{"Chrony": c.chrony})
				c.do(k)
				clock, fault, report := k.run()
				c.check(k, clock, fault, report)
			})
		})
	}
}

// TestNTP_settings: what is wrong with the settings is said with its key.
func TestNTP_settings(t *testing.T) {
	key, err := secret.Parse("plain:10 SHA256 HEX:00")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		values map[string]any
		wrong  string
	}{
		{map[string]any{}, "servers: is missing"},
		{map[string]any{"Chrony": "off"}, "servers: is missing"},
		{map[string]any{"Chrony": "auto"}, ""},
		{map[string]any{"Servers": []string{"a", "a"}}, "servers: a stands twice"},
		{map[string]any{"Servers": []string{"a b"}}, "neither host nor host:port"},
		{map[string]any{"Servers": []string{"a"}, "Poll": time.Second}, "poll: must be at least 2s"},
		{map[string]any{"Servers": []string{"a"}, "MaxSkew": -time.Second}, "max_skew: must be above zero"},
		{map[string]any{"Servers": []string{"a"}, "Keys": map[string]secret.Ref{"b": key}}, "keys: b is not among servers"},
	} {
		_, err := New("ntp", decodeInto(c.values), testEnv())
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v: got %v, want %q", c.values, err, c.wrong)
		}
	}
}

// TestNTP_keys reads keys as chrony and ntpd write them, and shows none.
func TestNTP_keys(t *testing.T) {
	for line, want := range map[string]string{
		"1 MD5 ASCII:secretone": "ASCII:secretone", "10 SHA256 HEX:0102030405060708 # ours": "HEX:0102030405060708", "11 plainkey": "ASCII:plainkey", "12 m abc\n": "ASCII:abc",
		"13 FOO secretfoo": "!is of a type", "14 SHA1 a secretmore": "!wants a number", "secret SHA1 secretmore": "!does not begin", "0 secret": "!does not begin", "": "!wants a number", "99999999999 MD5 secret": "!does not begin",
	} {
		got, err := readNTPKey(line)
		switch bad, isBad := strings.CutPrefix(want, "!"); {
		case isBad && (err == nil || !strings.Contains(err.Error(), bad) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: %v", line, err)
		case !isBad && (err != nil || got.Key != want):
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
}

// FuzzNTP_answer: whatever a server sends is named, and a number is claimed only for a good answer.
func FuzzNTP_answer(f *testing.F) {
	req := make([]byte, 48)
	f.Add(ntpAnswer(req, 0))
	f.Add(ntpAnswer(req, time.Hour)[:20])
	kiss := ntpAnswer(req, 0)
	kiss[1] = 0
	copy(kiss[12:], "RATE")
	f.Add(kiss)
	f.Fuzz(func(t *testing.T, b []byte) {
		env := testEnv()
		env.Net.Lookup = nil
		env.Net.Dial = func(context.Context, string, string) (net.Conn, error) {
			return &packetwise{reply: func(req []byte) []byte {
				if len(b) >= 32 && b[0]&1 == 0 {
					copy(b[24:32], req[40:48])
				}
				return b
			}}, nil
		}
		k := &timekeeper{T: t, env: env}
		k.make(map[string]any{"Servers": []string{"10.1.1.1"}, "MaxSkew": time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		r, err := k.p.Run(ctx)
		s := r.Clock.Sources[0]
		if !slices.Contains(sourceStates, s.State) || (s.State == "truechimer") != (s.Code == "") {
			t.Errorf("state %q, code %q", s.State, s.Code)
		}
		if s.State != "truechimer" && (s.Skew != 0 || evidence.AsFault(err) == nil) {
			t.Errorf("got %+v, %v", s, err)
		}
		if s.Bound < 0 || s.State == "truechimer" && s.RootDistance > maxRootDistance {
			t.Errorf("got %+v", s)
		}
	})
}

// FuzzNTP_chrony: whatever answers at chrony's port is named, and its numbers are finite.
func FuzzNTP_chrony(f *testing.F) {
	f.Add(trackingReply(chrony.Tracking{RefID: 1, Stratum: 2, CurrentCorrection: -0.5, RootDispersion: 0.1}))
	f.Add([]byte{6, 2, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		env := testEnv()
		env.Host.Dial = func(context.Context, string, string) (net.Conn, error) {
			return &packetwise{until: time.Now().Add(time.Second), reply: func([]byte) []byte {
				if len(b) == 0 {
					return []byte{}
				}
				return b
			}}, nil
		}
		p := makeProbe(t, "ntp", env, map[string]any{"Chrony": "10.0.0.1:323"}).(faulty).Probe.(*ntpProbe)
		s := p.askChrony(t.Context())
		if !slices.Contains(sourceStates, s.State) || (s.State == "truechimer") != (s.Code == "") {
			t.Errorf("state %q, code %q", s.State, s.Code)
		}
		if s.State == "truechimer" && (s.Bound < 0 || s.Bound > maxRootDistance) {
			t.Errorf("got %+v", s)
		}
	})
}

// TestLeeway: what is known of validators is what the page for users says, and settings that cannot be are said.
func TestLeeway(t *testing.T) {
	b, err := os.ReadFile("../docs/leeways.md")
	if err != nil {
		t.Fatal(err)
	}
	show := func(d time.Duration) string {
		switch {
		case d < 0:
			return "-"
		case d == 0:
			return "0"
		case d%time.Minute == 0 && d > time.Minute:
			return strconv.Itoa(int(d/time.Minute)) + " min"
		default:
			return strconv.Itoa(int(d/time.Second)) + " s"
		}
	}
	rows := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if cells := strings.Split(line, "|"); len(cells) > 5 && strings.HasPrefix(cells[1], " `") && !strings.Contains(cells[1], "validator") {
			name, _, _ := strings.Cut(cells[1][2:], "`")
			rows[name] = strings.Join([]string{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4])}, " ")
		}
	}
	field, _ := reflect.TypeFor[leewaySettings]().FieldByName("Validator")
	for name, l := range validators {
		if want := show(l.Expiry) + " " + show(l.NotBefore) + " " + show(l.Issued); rows[name] != want {
			t.Errorf("%s: the page says %q, the table %q", name, rows[name], want)
		}
		if !strings.Contains(field.Tag.Get("help"), name) {
			t.Errorf("the help of validator does not name %s", name)
		}
	}
	if len(rows) != len(validators) {
		t.Errorf("%d rows for %d validators", len(rows), len(validators))
	}
	second, less := time.Second, -time.Second
	for _, c := range []struct {
		s    leewaySettings
		want *Leeway
		bad  bool
	}{
		{leewaySettings{}, nil, false},
		{leewaySettings{Leeway: &second}, &Leeway{time.Second, time.Second, time.Second}, false},
		{leewaySettings{Validator: "golang-jwt"}, &Leeway{0, 0, unchecked}, false},
		{leewaySettings{Validator: "golang-jwt", Leeway: &second}, &Leeway{time.Second, time.Second, unchecked}, false},
		{leewaySettings{Validator: "golang"}, nil, true},
		{leewaySettings{Leeway: &less}, nil, true},
	} {
		got, err := c.s.leeway()
		if (err != nil) != c.bad || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: got %+v, %v", c.s, got, err)
		}
	}
}
