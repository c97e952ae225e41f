package sandbox

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/beevik/ntp"
)

func query(t *testing.T, w *World, name string) (*ntp.Response, error) {
	t.Helper()
	return ntp.QueryWithOptions(name, ntp.QueryOptions{
		Timeout: 200 * time.Millisecond,
		Dialer: func(_, remote string) (net.Conn, error) {
			return w.Dial(context.Background(), "udp", remote)
		},
	})
}

func near(got, want time.Duration) bool { return (got - want).Abs() < 20*time.Millisecond }

func TestTimeServer_faults(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, _ := world(t)
		s := w.NTP(NTPHost1)
		good := func(what string, ok func(r *ntp.Response) bool) {
			t.Helper()
			r, err := query(t, w, NTPHost1)
			if err != nil || !ok(r) {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
			s.Reset()
		}
		bad := func(what string, ok func(error) bool) {
			t.Helper()
			if r, err := query(t, w, NTPHost1); err == nil || !ok(err) {
				t.Errorf("%s: %+v, %v", what, r, err)
			}
			s.Reset()
		}
		valid := func(r *ntp.Response) bool { return r.Validate() == nil }
		good("health", func(r *ntp.Response) bool { return valid(r) && near(r.ClockOffset, 0) && r.Stratum == 2 })
		s.Set(func(f *NTPFaults) { f.Clock = -90 * time.Second })
		good("clock", func(r *ntp.Response) bool { return valid(r) && near(r.ClockOffset, -90*time.Second) })
		s.Set(func(f *NTPFaults) { f.Delay = 50 * time.Millisecond })
		good("delay", func(r *ntp.Response) bool { // a busy machine delays more, and never less
			return r.RTT >= 50*time.Millisecond && r.ClockOffset.Abs() <= r.RTT/2
		})
		s.Set(func(f *NTPFaults) { f.Kiss = "RATE" })
		good("kiss", func(r *ntp.Response) bool { return r.Stratum == 0 && r.KissCode == "RATE" })
		s.Set(func(f *NTPFaults) { f.Unsynchronised = true })
		good("unsynchronised", func(r *ntp.Response) bool { return !valid(r) && r.Leap == ntp.LeapNotInSync })
		s.Set(func(f *NTPFaults) { f.Stratum, f.Leap = 1, 1 })
		good("stratum", func(r *ntp.Response) bool { return r.Stratum == 1 && r.Leap == ntp.LeapAddSecond })
		s.Set(func(f *NTPFaults) { f.RootDispersion = 4 * time.Second })
		good("root distance", func(r *ntp.Response) bool { return r.RootDistance > 4*time.Second })
		timeout := func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
		s.Set(func(f *NTPFaults) { f.Silent = true })
		bad("silent", timeout)
		s.Set(func(f *NTPFaults) { f.Line = BlackHole })
		bad("black hole", timeout)
		s.Set(func(f *NTPFaults) { f.Line = Refused })
		bad("refused", func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) })
		for what, set := range map[string]func(*NTPFaults){
			"garbage":      func(f *NTPFaults) { f.Garbage = true },
			"short":        func(f *NTPFaults) { f.Short = true },
			"other origin": func(f *NTPFaults) { f.OtherOrigin = true },
		} {
			s.Set(set)
			bad(what, func(error) bool { return true })
		}
		if w.Count(NTPHost1, "") == 0 {
			t.Error("no packet was counted")
		}
	})
}

func TestTimeServer_loopback(t *testing.T) {
	w := New()
	if err := w.Listen(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.NTP(NTPHost2).Set(func(f *NTPFaults) { f.Clock = time.Minute })
	r, err := query(t, w, NTPHost2)
	if err != nil || !near(r.ClockOffset, time.Minute) {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = ntp.QueryWithOptions(w.Address(NTPHost2+":123"), ntp.QueryOptions{Timeout: time.Second})
	if err != nil || !near(r.ClockOffset, time.Minute) {
		t.Errorf("without Dial: %+v, %v", r, err)
	}
}
