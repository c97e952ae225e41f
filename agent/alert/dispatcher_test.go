package alert

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox is a sink that remembers, and fails as it is told to.
type inbox struct {
	mu      sync.Mutex
	notices []Notice
	batches int
	fail    func(batch []Notice) error
	slow    time.Duration
}

func (i *inbox) Send(ctx context.Context, batch []Notice) error {
	i.mu.Lock()
	fail, slow := i.fail, i.slow
	i.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail != nil {
		if err := fail(batch); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.batches++
	i.notices = append(i.notices, batch...)
	return nil
}

func always(err error) func([]Notice) error { return func([]Notice) error { return err } }

func (i *inbox) set(fail func([]Notice) error, slow time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail, i.slow = fail, slow
}

func (i *inbox) all() []Notice {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.notices)
}

// states are what the inbox was told of a culprit, one word for each notice.
func (i *inbox) states(culprit string) string {
	var words []string
	for _, n := range i.all() {
		if n.Culprit == culprit {
			words = append(words, map[bool]string{true: "resolved", false: "firing"}[n.Resolved])
		}
	}
	return strings.Join(words, " ")
}

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// pager gives a dispatcher whose receivers forget, as Alertmanagers do.
func pager(inboxes ...*inbox) *Dispatcher {
	d := NewDispatcher(quietLog())
	var list []*Receiver
	for i, in := range inboxes {
		list = append(list, &Receiver{Sink: in, Name: fmt.Sprint(i)})
	}
	d.SetSinks(map[string][]*Receiver{"pager": list})
	return d
}

// during runs a dispatcher in a bubble while f goes on.
func during(t *testing.T, d *Dispatcher, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Run(ctx) }()
	f()
	stop()
	<-done
}

const billing = "identity:billing"

func failing() Alert { return failingOf(billing) }

func failingOf(culprit string) Alert {
	return Alert{Name: "AuthvigilCredentialFailing", Culprit: culprit, Severity: Critical, Summary: "it fails", Details: map[string]string{"cause": "token_expired"}, At: time.Now(), Hold: 30 * time.Second}
}

func TestDispatcher_lifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			begin := time.Now()
			d.Tell("p", time.Now(), failing())
			time.Sleep(20 * time.Second)
			if n := len(in.all()); n != 0 {
				t.Errorf("%d notices during the hold", n)
			}
			if s := d.Stats(); s.Pending != 1 || s.Firing != 0 {
				t.Errorf("during the hold: %+v", s)
			}
			time.Sleep(20 * time.Second)
			first := in.all()
			if len(first) != 1 || first[0].StartsAt.Sub(begin) != 30*time.Second || first[0].EndsAt.Sub(first[0].StartsAt) != 4*time.Minute {
				t.Fatalf("after the hold: %+v", first)
			}
			if s := d.Stats(); s.Pending != 0 || s.Firing != 1 {
				t.Errorf("after the hold: %+v", s)
			}
			for range 9 { // it is seen again and again: no storm
				d.Tell("p", time.Now(), failing())
				time.Sleep(20 * time.Second)
			}
			if n := len(in.all()); n < 3 || n > 5 {
				t.Errorf("%d notices in 220 s, want one a minute", n)
			}
			d.Tell("p", time.Now())
			time.Sleep(6 * time.Minute)
			list := in.all()
			if last := list[len(list)-1]; !last.Resolved || last.StartsAt != first[0].StartsAt || last.EndsAt.Sub(first[0].StartsAt) < 5*time.Minute {
				t.Errorf("resolution: %+v", last)
			}
			time.Sleep(30 * time.Minute)
			if s := d.Stats(); s.Firing+s.Pending != 0 || len(d.open) != 0 || len(d.behind) != 0 {
				t.Errorf("left behind: %+v", s)
			}
		})
		if n := strings.Count(in.states(billing), "resolved"); n < 14 || n > 17 {
			t.Errorf("the resolution was told %d times, want once a minute for 15 minutes", n)
		}
	})
}

// TestDispatcher_severalProbes: an alert is over when the last probe behind it is well, and names those behind it.
func TestDispatcher_severalProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			for i := range 12 {
				d.Tell(fmt.Sprintf("p%02d", i), time.Now(), failing())
			}
			time.Sleep(time.Minute)
			if got := in.all()[0].Details["probes"]; got != "p00, p01, p02, p03, p04, p05, p06, p07, p08, p09, …" {
				t.Errorf("probes: %s", got)
			}
			for i := range 11 {
				d.Tell(fmt.Sprintf("p%02d", i), time.Now())
			}
			time.Sleep(20 * time.Minute)
			if got := in.states(billing); strings.Contains(got, "resolved") {
				t.Errorf("told %s while a probe fails", got)
			}
			d.Tell("p11", time.Now())
			time.Sleep(2 * time.Minute)
			if got := in.states(billing); !strings.HasSuffix(got, "resolved") {
				t.Errorf("told %s", got)
			}
		})
	})
}

func TestDispatcher_shortTroubleIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			for range 10 {
				d.Tell("p", time.Now(), failing())
				time.Sleep(20 * time.Second)
				d.Tell("p", time.Now())
				time.Sleep(20 * time.Second)
			}
		})
		if n := len(in.all()); n != 0 {
			t.Errorf("%d notices", n)
		}
	})
}

// TestDispatcher_whatMayPassIsSeenTwice: of a probe that runs every 30 s one failure is not told, although the next run ends
// only after the hold; two in a row are, and so is one that nobody looks at again.
func TestDispatcher_whatMayPassIsSeenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		passing := func() Alert {
			a := failing()
			a.Passing = true
			return a
		}
		during(t, d, func() {
			for range 20 {
				d.Tell("p", time.Now(), passing()) // after 10 ms
				time.Sleep(30*time.Second + 200*time.Millisecond)
				d.Tell("p", time.Now()) // the good run took longer
				time.Sleep(30*time.Second - 200*time.Millisecond)
			}
			if n := len(in.all()); n != 0 {
				t.Errorf("%d notices of single failures", n)
			}
			d.Tell("p", time.Now(), passing())
			time.Sleep(29990 * time.Millisecond)
			d.Tell("p", time.Now(), passing())
			time.Sleep(100 * time.Millisecond)
			if n := len(in.all()); n != 1 {
				t.Errorf("%d notices after two failures in a row", n)
			}
			d.Tell("hourly", time.Now(), func() Alert { a := passing(); a.Culprit = "endpoint:x"; return a }())
			time.Sleep(9 * time.Minute)
			if got := in.states("endpoint:x"); got != "" {
				t.Errorf("after 9 minutes: %s", got)
			}
			time.Sleep(2 * time.Minute)
			if got := in.states("endpoint:x"); !strings.HasPrefix(got, "firing") {
				t.Errorf("after 11 minutes: %q", got)
			}
		})
	})
}

// TestDispatcher_culpritThatAlternates: the hold counts from the onset, so that a diagnosis that wavers cannot hide a
// failure; and neither of the two is resolved while it does.
func TestDispatcher_culpritThatAlternates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			onset := time.Now()
			for i := range 120 {
				a := failingOf([]string{"endpoint:a", "issuer:b"}[i%2])
				a.Onset, a.Passing = onset, true
				d.Tell("p", time.Now(), a)
				time.Sleep(10 * time.Second)
			}
			if first := in.all(); len(first) == 0 || first[0].StartsAt.Sub(onset) > 40*time.Second {
				t.Errorf("told after %v", first)
			}
			if got := in.states("endpoint:a") + in.states("issuer:b"); strings.Contains(got, "resolved") {
				t.Errorf("flaps: %s", got)
			}
		})
	})
}

// TestDispatcher_receiverDownForAnHour: the queue holds the newest states only, and when the receiver is back it hears them.
func TestDispatcher_receiverDownForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, other := &inbox{fail: always(errors.New("connection refused"))}, &inbox{}
		d := pager(in, other)
		during(t, d, func() {
			for i := range 500 {
				d.Tell(fmt.Sprint(i), time.Now(), failingOf(fmt.Sprintf("identity:%d", i)))
			}
			time.Sleep(time.Hour)
			s := d.Stats()
			if s.Sinks[0].Queue != 500 || s.Firing != 500 || !s.Sinks[0].Receivers[0].Failing || s.Sinks[0].Receivers[1].Failing || s.Sinks[0].Failed == 0 {
				t.Errorf("after an hour: %+v", s)
			}
			if len(other.all()) < 500*55 {
				t.Errorf("the other instance was held up: %d notices", len(other.all()))
			}
			for i := range 500 {
				d.Tell(fmt.Sprint(i), time.Now())
			}
			time.Sleep(2 * time.Minute)
			in.set(nil, 0)
			time.Sleep(time.Minute)
			for _, n := range in.all() {
				if !n.Resolved {
					t.Fatal("an old state is told after the outage")
				}
			}
			if n := len(in.all()); n < 500 {
				t.Errorf("%d resolutions told, want 500", n)
			}
		})
	})
}

// TestDispatcher_resolutionOutlivesAnOutage: what ended while the receiver was away is told when it is back, also after a
// restart; an Alertmanager that was down would else never say that it is over.
func TestDispatcher_resolutionOutlivesAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		var state []byte
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(10 * time.Minute)
			in.set(always(errors.New("connection refused")), 0)
			d.Tell("p", time.Now())
			time.Sleep(time.Hour)
			state, _ = d.Snapshot()
		})
		in.set(nil, 0)
		before := len(in.all())
		d = pager(in)
		if err := d.Restore(state, time.Now(), func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		during(t, d, func() {
			time.Sleep(time.Minute)
			if told := in.all()[before:]; len(told) == 0 || !told[0].Resolved {
				t.Errorf("told after the outage: %+v", told)
			}
			time.Sleep(2 * time.Minute)
			if len(d.open) != 0 {
				t.Error("what was delivered is kept")
			}
		})
	})
}

// TestDispatcher_restart: a restart resolves nothing falsely, keeps the start, and each alert waits for its own probes only:
// a probe that is held keeps its own alert firing and no other.
func TestDispatcher_restart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := pager()
		var state []byte
		during(t, before, func() {
			before.Tell("p", time.Now(), failing())
			before.Tell("other", time.Now(), failingOf("identity:other"))
			before.Tell("held", time.Now(), failingOf("identity:held"))
			before.Tell("gone", time.Now(), failingOf("identity:gone"))
			time.Sleep(10 * time.Minute)
			before.Tell("pending", time.Now(), failingOf("identity:pending"))
			var err error
			if state, err = before.Snapshot(); err != nil {
				t.Fatal(err)
			}
		})
		fired := time.Now().Add(-10*time.Minute + 30*time.Second)
		in := &inbox{}
		after := pager(in)
		if err := after.Restore(state, time.Now(), func(probe string) bool { return probe != "gone" }); err != nil {
			t.Fatal(err)
		}
		during(t, after, func() {
			time.Sleep(5 * time.Second)
			if n := len(in.all()); n != 4 {
				t.Errorf("%d told after the restart, want 4", n)
			}
			for _, n := range in.all() {
				if n.Resolved || !n.StartsAt.Equal(fired) {
					t.Errorf("after the restart: resolved %v, starts %s, want %s", n.Resolved, n.StartsAt, fired)
				}
			}
			after.Tell("p", time.Now(), failing())
			after.Tell("other", time.Now())
			after.Tell("pending", time.Now())
			time.Sleep(3 * time.Minute)
			for culprit, over := range map[string]bool{billing: false, "identity:other": true, "identity:held": false, "identity:gone": true} {
				if got := in.states(culprit); strings.HasSuffix(got, "resolved") != over {
					t.Errorf("%s: %s", culprit, got)
				}
			}
		})
		for _, text := range []string{`{"version":2,"alerts":[nu`, `{"version":1}`, `{"version":9}`} {
			if err := pager().Restore([]byte(text), time.Now(), nil); err == nil {
				t.Errorf("%s passed", text)
			}
		}
	})
}

// TestDispatcher_clockSetBack: moments of the state that lie in the future do not keep an alert for ever.
func TestDispatcher_clockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := pager()
		var state []byte
		during(t, before, func() {
			before.Tell("p", time.Now(), failing())
			time.Sleep(10 * time.Minute)
			before.Tell("p", time.Now())
			time.Sleep(30 * time.Second) // quiet, not yet ended
			state, _ = before.Snapshot()
		})
		d := pager()
		if err := d.Restore(state, time.Now().Add(-24*time.Hour), func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		during(t, d, func() {
			time.Sleep(30 * time.Minute)
			if s := d.Stats(); s.Firing != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
}

// TestDispatcher_newerStateWins: what could not be delivered does not come back over a newer state.
func TestDispatcher_newerStateWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(10*time.Minute + 20*time.Second)
			d.Tell("p", time.Now()) // it ends a minute later, ...
			in.set(always(errors.New("connection reset")), 5*time.Second)
			time.Sleep(62 * time.Second) // ... while a resend of the firing alert is under way
			before := len(in.all())
			in.set(nil, 0)
			time.Sleep(40 * time.Second)
			told := in.all()[before:]
			if len(told) == 0 || !told[0].Resolved {
				t.Errorf("first told after the trouble: %+v", told)
			}
		})
	})
}

// TestDispatcher_newsOnly: a receiver that remembers is told the beginning and the end, once each, also over a restart.
func TestDispatcher_newsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chat, again := &inbox{}, &inbox{}
		sinks := map[string][]*Receiver{"chat": {{Sink: chat, News: true}}, "again": {{Sink: again, News: true, Repeat: 30 * time.Minute}}}
		d := NewDispatcher(quietLog())
		d.SetSinks(sinks)
		var state []byte
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(100 * time.Minute)
			state, _ = d.Snapshot()
		})
		d = NewDispatcher(quietLog())
		if err := d.Restore(state, time.Now(), func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
		d.SetSinks(sinks)
		during(t, d, func() {
			time.Sleep(10 * time.Minute)
			d.Tell("p", time.Now())
			time.Sleep(20 * time.Minute)
		})
		if got := chat.states(billing); got != "firing resolved" {
			t.Errorf("told %s", got)
		}
		if got := again.states(billing); got != "firing firing firing firing resolved" {
			t.Errorf("with repetition: %s", got)
		}
	})
}

// TestDispatcher_newsAreNotLost: what a receiver that remembers could not take is told when it can, and what it refuses is
// not posted every minute.
func TestDispatcher_newsAreNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusals := 0
		down := &inbox{fail: always(errors.New("connection refused"))}
		no := &inbox{fail: func([]Notice) error { refusals++; return fmt.Errorf("400: %w", ErrPermanent) }}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]*Receiver{"chat": {{Sink: down, News: true}}, "no": {{Sink: no, News: true}}})
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(time.Hour)
			down.set(nil, 0)
			time.Sleep(2 * time.Minute)
		})
		if got := down.states(billing); got != "firing" {
			t.Errorf("told %q", got)
		}
		if refusals != 1 {
			t.Errorf("asked %d times although it refuses", refusals)
		}
	})
}

// TestDispatcher_oneThatIsRefusedHoldsUpNobody: the alerts beside one that the receiver chokes on arrive.
func TestDispatcher_oneThatIsRefusedHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{fail: func(batch []Notice) error {
			if slices.ContainsFunc(batch, func(n Notice) bool { return n.Culprit == "identity:0" }) {
				return errors.New("500")
			}
			return nil
		}}
		d := pager(in)
		during(t, d, func() {
			for i := range 300 {
				d.Tell(fmt.Sprint(i), time.Now(), failingOf(fmt.Sprintf("identity:%d", i)))
			}
			time.Sleep(90 * time.Second)
			heard := set{}
			for _, n := range in.all() {
				heard[n.Culprit] = true
			}
			if len(heard) != 299 {
				t.Errorf("%d of 299 arrived in a minute", len(heard))
			}
		})
	})
}

// TestDispatcher_bounded: neither alerts nor a queue grow without end.
func TestDispatcher_bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{fail: always(errors.New("connection refused"))}
		d := pager(in)
		during(t, d, func() {
			for i := range maxAlerts + 100 {
				d.Tell(fmt.Sprint(i), time.Now(), failingOf(fmt.Sprintf("identity:%d", i)))
			}
			time.Sleep(time.Minute)
			if s := d.Stats(); s.Dropped != 100 || s.Sinks[0].Queue != maxAlerts {
				t.Errorf("dropped %d, queue %d", s.Dropped, s.Sinks[0].Queue)
			}
		})
		s := newSender("x", &Receiver{Sink: in}, d)
		for i := range maxAlerts {
			s.queue(fmt.Sprint(i), Notice{Resolved: i == 7})
		}
		s.queue("new", Notice{})
		if s.has("7") || !s.has("0") || !s.has("new") || s.dropped != 1 || len(s.order) != maxAlerts {
			t.Error("a full queue does not drop the oldest resolution")
		}
	})
}

// TestDispatcher_silence: in maintenance an alert does not begin, one that was told of goes on, and what lasts longer than
// the window is told when it is seen after it.
func TestDispatcher_silence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		open := false
		rules := DefaultRules
		rules.Silence = func(_ *Alert, probes []string) string {
			if open && slices.Contains(probes, "p") {
				return "maintenance nightly"
			}
			return ""
		}
		d.SetRules(rules)
		during(t, d, func() {
			d.Tell("before", time.Now(), failingOf("identity:before"))
			time.Sleep(2 * time.Minute)
			d.mu.Lock()
			open = true
			d.mu.Unlock()
			d.Tell("p", time.Now(), failing(), failingOf("identity:short"))
			time.Sleep(30 * time.Minute)
			if got := in.states(billing); got != "" {
				t.Errorf("told in maintenance: %s", got)
			}
			if s := d.Stats(); s.Silenced != 2 || s.Pending != 2 {
				t.Errorf("%+v", s)
			}
			if list := d.Open(); list[len(list)-1].Silenced != "maintenance nightly" {
				t.Errorf("%+v", list)
			}
			if got := in.states("identity:before"); strings.Contains(got, "resolved") || len(strings.Fields(got)) < 30 {
				t.Errorf("told before: %s", got)
			}
			d.mu.Lock()
			open = false
			d.mu.Unlock()
			time.Sleep(time.Minute)
			if got := in.states(billing); got != "" {
				t.Errorf("told before it was seen after the window: %s", got)
			}
			d.Tell("p", time.Now(), failing())
			time.Sleep(10 * time.Second)
			if got := in.states(billing); got != "firing" {
				t.Errorf("after the window: %q", got)
			}
			if got := in.states("identity:short"); got != "" {
				t.Errorf("what ended within: %q", got)
			}
		})
	})
}

// TestDispatcher_consequences: while an issuer is to blame, what follows from it does not begin; what is left when the
// issuer is well is told.
func TestDispatcher_consequences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		root := failingOf("issuer:x")
		root.Name, root.Root = "AuthvigilIssuerFailing", true
		follows := func() Alert {
			a := failingOf("endpoint:api")
			a.Follows = []string{"issuer:x"}
			return a
		}
		during(t, d, func() {
			d.Tell("other", time.Now(), failingOf("endpoint:other"))
			d.Tell("p", time.Now(), follows())
			d.Tell("issuer", time.Now(), root)
			time.Sleep(20 * time.Minute)
			if in.states("endpoint:api") != "" || in.states("issuer:x") == "" || in.states("endpoint:other") == "" {
				t.Errorf("endpoint %q, issuer %q, other %q", in.states("endpoint:api"), in.states("issuer:x"), in.states("endpoint:other"))
			}
			d.Tell("issuer", time.Now())
			for range 4 {
				time.Sleep(20 * time.Second)
				d.Tell("p", time.Now(), follows())
			}
			if got := in.states("endpoint:api"); !strings.HasPrefix(got, "firing") {
				t.Errorf("what is left is not told: %q", got)
			}
		})
	})
}

// TestDispatcher_reload: a receiver that stays goes on with its queue and its counts, and one that is new hears all.
func TestDispatcher_reload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays, leaves, comes := &inbox{fail: always(errors.New("down"))}, &inbox{}, &inbox{}
		r := &Receiver{Sink: stays}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]*Receiver{"a": {r}, "b": {{Sink: leaves}}})
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(time.Minute)
			before, left := d.Stats(), len(leaves.all())
			d.SetSinks(map[string][]*Receiver{"a": {r}, "c": {{Sink: comes, News: true}}})
			time.Sleep(30 * time.Second)
			after := d.Stats()
			if after.Sinks[0].Failed < before.Sinks[0].Failed || after.Sinks[0].Queue != 1 {
				t.Errorf("before %+v, after %+v", before, after)
			}
			if len(leaves.all()) != left || len(comes.all()) != 1 {
				t.Errorf("the one that left got %d more, the new one %d", len(leaves.all())-left, len(comes.all()))
			}
		})
	})
}

// TestDispatcher_sharperCause: a cause that became clearer is told soon, and not for every probe that sees it otherwise.
func TestDispatcher_sharperCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := pager(in)
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(40 * time.Second)
			for i := range 100 {
				a := failing()
				a.Details = map[string]string{"cause": fmt.Sprint("cause ", i%2)}
				d.Tell(fmt.Sprint(i%2), time.Now(), a)
				time.Sleep(100 * time.Millisecond)
			}
			if n := len(in.all()); n < 2 || n > 4 {
				t.Errorf("told %d times in 10 s", n)
			}
		})
	})
}

func TestDispatcher_lastWordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{slow: time.Hour}
		d := pager(in)
		var begin time.Time
		during(t, d, func() {
			d.Tell("p", time.Now(), failing())
			time.Sleep(31 * time.Second)
			begin = time.Now()
		})
		if took := time.Since(begin); took > drain+time.Second {
			t.Errorf("the end took %s", took)
		}
	})
}

// TestDispatcher_lastWords: what waits at the end is said, and what fires is not resolved.
func TestDispatcher_lastWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{fail: always(errors.New("busy"))}
		d := pager(in)
		during(t, d, func() {
			for i := range 3 * batchSize {
				d.Tell(fmt.Sprint(i), time.Now(), failingOf(fmt.Sprintf("identity:%d", i)))
			}
			time.Sleep(35 * time.Second)
			in.set(nil, 0)
		})
		if n := len(in.all()); n != 3*batchSize {
			t.Errorf("%d of %d were told at the end", n, 3*batchSize)
		}
		if strings.Contains(in.states("identity:1"), "resolved") {
			t.Error("the end of authvigil was told as the end of an alert")
		}
	})
}
