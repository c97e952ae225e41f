package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/authvigil/authvigil/agent/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inbox is a sink that remembers, and fails as it is told to.
type inbox struct {
	mu      sync.Mutex
	notices []Notice
	fail    error
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
		return fail
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.notices = append(i.notices, batch...)
	return nil
}

func (i *inbox) set(fail error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = fail
}

func (i *inbox) all() []Notice {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]Notice(nil), i.notices...)
}

func quietLog() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// during runs a dispatcher in a bubble while f goes on.
func during(t *testing.T, d *Dispatcher, f func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	f()
	stop()
	<-done
}

func failing(active bool) Alert {
	return Alert{Name: "AuthvigilCredentialFailing", Culprit: "identity:billing", Severity: Critical, Summary: "it fails", Details: map[string]string{"cause": "token_expired"}, Active: active, At: time.Now(), Hold: 30 * time.Second}
}

func TestDispatcher_lifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]Sink{"pager": {in}})
		during(t, d, func() {
			begin := time.Now()
			d.Update(failing(true))
			time.Sleep(20 * time.Second)
			if n := len(in.all()); n != 0 {
				t.Errorf("%d notices during the hold", n)
			}
			time.Sleep(20 * time.Second)
			first := in.all()
			if len(first) != 1 || first[0].StartsAt.Sub(begin) != 30*time.Second || first[0].EndsAt.Sub(first[0].StartsAt) != 4*time.Minute {
				t.Fatalf("after the hold: %+v", first)
			}
			for range 9 { // it is seen again and again: no storm
				d.Update(failing(true))
				time.Sleep(20 * time.Second)
			}
			if n := len(in.all()); n < 3 || n > 5 {
				t.Errorf("%d notices in 220 s, want one a minute", n)
			}
			d.Update(failing(false))
			synctest.Wait()
			time.Sleep(6 * time.Minute)
			list := in.all()
			if last := list[len(list)-1]; !last.Resolved || last.StartsAt != first[0].StartsAt || last.EndsAt.Sub(first[0].StartsAt) < minFiring {
				t.Errorf("resolution: %+v", last)
			}
			time.Sleep(30 * time.Minute)
			if s := d.Stats(); s.Firing+s.Pending != 0 || len(d.open) != 0 {
				t.Errorf("left behind: %+v", s)
			}
		})
	})
}

func TestDispatcher_shortTroubleIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]Sink{"pager": {in}})
		during(t, d, func() {
			for range 10 {
				d.Update(failing(true))
				time.Sleep(20 * time.Second)
				d.Update(failing(false))
				time.Sleep(20 * time.Second)
			}
		})
		if n := len(in.all()); n != 0 {
			t.Errorf("%d notices", n)
		}
	})
}

// TestDispatcher_receiverDownForAnHour: the queue holds the newest states only, and when the receiver is back it hears them.
func TestDispatcher_receiverDownForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, other := &inbox{fail: errors.New("connection refused")}, &inbox{}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]Sink{"pager": {in, other}})
		during(t, d, func() {
			for i := range 500 {
				a := failing(true)
				a.Culprit = fmt.Sprintf("identity:%d", i)
				d.Update(a)
			}
			time.Sleep(time.Hour)
			s := d.Stats()
			if s.Sinks[0].Queue != 500 || s.Firing != 500 {
				t.Errorf("after an hour: %+v", s)
			}
			if len(other.all()) < 500*55 {
				t.Errorf("the other instance was held up: %d notices", len(other.all()))
			}
			for i := range 500 {
				a := failing(false)
				a.Culprit = fmt.Sprintf("identity:%d", i)
				d.Update(a)
			}
			time.Sleep(time.Second)
			in.set(nil)
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

// TestDispatcher_restartKeepsWhatFires: a restart resolves nothing falsely, keeps the start, and resolves what is over once
// everything was looked at.
func TestDispatcher_restartKeepsWhatFires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := NewDispatcher(quietLog())
		var state []byte
		during(t, before, func() {
			a, b := failing(true), failing(true)
			b.Culprit = "identity:other"
			before.Update(a, b)
			time.Sleep(10 * time.Minute)
			var err error
			if state, err = before.Snapshot(); err != nil {
				t.Fatal(err)
			}
		})
		fired := time.Now().Add(-10*time.Minute + 30*time.Second)
		in := &inbox{}
		after := NewDispatcher(quietLog())
		if err := after.Restore(state); err != nil {
			t.Fatal(err)
		}
		after.SetSinks(map[string][]Sink{"pager": {in}})
		during(t, after, func() {
			time.Sleep(5 * time.Second)
			for _, n := range in.all() {
				if n.Resolved || !n.StartsAt.Equal(fired) {
					t.Errorf("after the restart: resolved %v, starts %s, want %s", n.Resolved, n.StartsAt, fired)
				}
			}
			after.Update(failing(true))
			after.Settle()
			time.Sleep(2 * time.Minute)
			resolved := map[string]bool{}
			for _, n := range in.all() {
				if n.Resolved {
					resolved[n.Culprit] = true
				}
			}
			if !resolved["identity:other"] || resolved["identity:billing"] {
				t.Errorf("resolved: %v", resolved)
			}
		})
		if err := NewDispatcher(quietLog()).Restore([]byte(`{"version":1,"alerts":[nu`)); err == nil {
			t.Error("a cut state passed")
		}
		if err := NewDispatcher(quietLog()).Restore([]byte(`{"version":9}`)); err == nil {
			t.Error("a state of another version passed")
		}
	})
}

// TestDispatcher_newerStateWins: what could not be delivered does not come back over a newer state.
func TestDispatcher_newerStateWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]Sink{"pager": {in}})
		during(t, d, func() {
			d.Update(failing(true))
			time.Sleep(10 * time.Minute)
			in.mu.Lock()
			in.fail, in.slow = errors.New("connection reset"), 5*time.Second
			in.mu.Unlock()
			time.Sleep(54 * time.Second) // a resend of the firing alert is under way ...
			d.Update(failing(false))     // ... when it ends
			time.Sleep(2 * time.Second)
			before := len(in.all())
			in.mu.Lock()
			in.fail, in.slow = nil, 0
			in.mu.Unlock()
			time.Sleep(40 * time.Second)
			told := in.all()[before:]
			if len(told) == 0 || !told[0].Resolved {
				t.Errorf("first told after the trouble: %+v", told)
			}
		})
	})
}

func TestDispatcher_lastWordsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &inbox{slow: time.Hour}
		d := NewDispatcher(quietLog())
		d.SetSinks(map[string][]Sink{"pager": {in}})
		var begin time.Time
		during(t, d, func() {
			d.Update(failing(true))
			time.Sleep(31 * time.Second)
			begin = time.Now()
		})
		if took := time.Since(begin); took > drain+time.Second {
			t.Errorf("the end took %s", took)
		}
	})
}

const canary = "canary-of-the-sink-0123"

// TestSinks_conformance asks of every kind: it delivers, tells lasting refusals from passing trouble, follows no redirect, ends
// with its context, and shows no secret.
func TestSinks_conformance(t *testing.T) {
	var mu sync.Mutex // owns what follows
	var status int
	var body []byte
	var stolen bool
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mu.Lock(); stolen = true; mu.Unlock() }))
	defer evil.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		mu.Lock()
		body = got
		status := status
		mu.Unlock()
		if status == 307 {
			http.Redirect(w, r, evil.URL, 307)
			return
		}
		if status == 0 {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, "<html>you sent %s", r.Header.Get("Authorization"))
	}))
	defer server.Close()
	token, err := secret.Parse("plain:" + canary)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string]func(reflect.Value){
		"alertmanager": func(v reflect.Value) { v.FieldByName("URLs").Set(reflect.ValueOf([]string{server.URL + "/prefix"})) },
		"webhook": func(v reflect.Value) {
			v.FieldByName("URL").SetString(server.URL)
			v.FieldByName("Key").Set(reflect.ValueOf(token))
		},
	}
	n := Notice{Alert: failing(true), StartsAt: time.Now(), EndsAt: time.Now().Add(time.Minute)}
	for _, kind := range Kinds() {
		set, ok := settings[kind]
		if !ok {
			t.Errorf("kind %s stands under no conformance test: give it settings here", kind)
			continue
		}
		list, err := NewSink(kind, func(into any) error {
			v := reflect.ValueOf(into).Elem()
			set(v)
			v.FieldByName("Token").Set(reflect.ValueOf(token))
			return nil
		}, Env{})
		if err != nil {
			t.Fatal(err)
		}
		s := list[0]
		for _, c := range []struct {
			status    int
			ok        bool
			permanent bool
		}{{200, true, false}, {204, true, false}, {400, false, true}, {404, false, true}, {307, false, true}, {401, false, false}, {429, false, false}, {500, false, false}, {503, false, false}} {
			mu.Lock()
			status = c.status
			mu.Unlock()
			err := s.Send(t.Context(), []Notice{n})
			if (err == nil) != c.ok || errors.Is(err, ErrPermanent) != c.permanent {
				t.Errorf("%s: status %d: got %v", kind, c.status, err)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("%s: the error shows the secret", kind)
			}
			mu.Lock()
			if c.status == 200 && !json.Valid(body) {
				t.Errorf("%s: sends no JSON", kind)
			}
			mu.Unlock()
		}
		mu.Lock()
		status = 0
		mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := s.Send(ctx, []Notice{n}); err == nil || errors.Is(err, ErrPermanent) {
			t.Errorf("%s: a receiver that never answers: %v", kind, err)
		}
		cancel()
		if shown := fmt.Sprintf("%+v %#v", s, s); strings.Contains(shown, canary) {
			t.Errorf("%s: the secret is shown", kind)
		}
		if c, ok := s.(interface{ close() }); ok {
			c.close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if stolen {
		t.Error("a redirect was followed")
	}
}
