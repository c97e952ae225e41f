package spike

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A shop is a small service under a detector: thirty clients, each asking once a minute or so.
type shop struct {
	d     *Detector
	at    time.Time
	n     int
	told  []Alert
	names [][]byte
}

var api = []byte("/api/items")

func open(p Policy) *shop {
	s := &shop{d: New(p), at: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)}
	for i := range 30 {
		s.names = append(s.names, fmt.Appendf(nil, "c%d", i))
	}
	return s
}

// live lets time pass; answer gives the status of a request of a client.
func (s *shop) live(d time.Duration, answer func(client int) int) {
	for end := s.at.Add(d); s.at.Before(end); s.at = s.at.Add(2 * time.Second) {
		s.n++
		client := s.n * 7 % len(s.names)
		s.request(api, client, answer(client))
	}
}

func (s *shop) request(endpoint []byte, client, status int) {
	s.d.Add(Request{At: s.at, Status: status, Endpoint: endpoint, Client: s.names[client]})
	s.told = append(s.told, s.d.Changes()...)
}

func fine(int) int { return 200 }
func down(int) int { return 401 }

// learnt is a shop with a day and a half of ordinary life behind it: now and then a token expires.
func learnt(p Policy) *shop {
	s := open(p)
	s.live(36*time.Hour, func(client int) int {
		if s.n%907 == 0 {
			return 401
		}
		return 200
	})
	return s
}

func (s *shop) alerts(name, severity string) (out []Alert) {
	for _, a := range s.told {
		if a.Name == name && a.Severity == severity {
			out = append(out, a)
		}
	}
	return out
}

func TestDetector_outagePagesOnceAndRecovers(t *testing.T) {
	s := learnt(Policy{})
	if len(s.told) > 0 {
		t.Fatalf("ordinary life made %d alerts: %+v", len(s.told), s.told[0])
	}
	begun := s.at
	s.live(20*time.Minute, down)
	over := s.at
	s.live(30*time.Minute, fine)

	pages := s.alerts(AuthFailureSpike, Critical)
	if len(pages) != 2 {
		t.Fatalf("got %d changes of pages, want a beginning and an end: %+v", len(pages), s.told)
	}
	a, z := pages[0], pages[1]
	if delay := a.Started.Sub(begun); delay < 0 || delay > 4*time.Minute {
		t.Errorf("paged %v after the onset, want within 4 min", delay)
	}
	if d := a.Onset.Sub(begun).Abs(); d > 2*time.Minute {
		t.Errorf("onset %v, want %v within 2 min", a.Onset, begun)
	}
	if a.Pattern != OneEndpoint || a.Endpoint != "/api/items" || a.Refused == 0 || !strings.Contains(a.Description, "refused at /api/items") {
		t.Errorf("got %+v", a)
	}
	if z.How != EndedRecovered || z.Ended.Before(over) || z.Ended.Sub(over) > 10*time.Minute || z.Started != a.Started {
		t.Errorf("ended %v %q, want within 10 min after %v", z.Ended, z.How, over)
	}
	if left := s.d.Active(); len(left) > 0 {
		t.Errorf("still active: %+v", left)
	}
}

func TestDetector_outageOfEverythingIsOneAlert(t *testing.T) {
	s := open(Policy{})
	paths := [][]byte{[]byte("/a"), []byte("/b"), []byte("/c"), []byte("/d")}
	day := func(d time.Duration, status int) {
		for end := s.at.Add(d); s.at.Before(end); s.at = s.at.Add(2 * time.Second) {
			s.n++
			s.request(paths[s.n%4], s.n*7/4%len(s.names), status)
			if s.n%499 == 0 {
				s.request(paths[s.n%4], s.n*7/4%len(s.names), 401)
			}
		}
	}
	day(30*time.Hour, 200)
	day(20*time.Minute, 401)
	day(30*time.Minute, 200)
	var names []string
	for _, a := range s.alerts(AuthFailureSpike, Critical) {
		if a.Ended.IsZero() {
			names = append(names, a.Endpoint+" "+a.Pattern)
		}
	}
	if len(names) != 1 || names[0] != "* all" {
		t.Errorf("pages %q, want one for all endpoints", names)
	}
}

func TestDetector_rotationOfKeysIsSilent(t *testing.T) {
	s := learnt(Policy{})
	refreshed := map[int]bool{}
	s.live(10*time.Minute, func(client int) int {
		if !refreshed[client] {
			refreshed[client] = true
			return 401
		}
		return 200
	})
	s.live(time.Hour, fine)
	if len(s.told) > 0 {
		t.Errorf("got %+v, want silence: each client failed once", s.told)
	}
}

func TestDetector_deadCredentialOfOneClientIsATicket(t *testing.T) {
	s := learnt(Policy{})
	s.live(time.Hour, func(client int) int {
		if client == 5 {
			return 401
		}
		return 200
	})
	if pages := s.alerts(AuthFailureSpike, Critical); len(pages) > 0 {
		t.Errorf("one client woke somebody: %+v", pages)
	}
	got := s.alerts(ClientAuthFailing, Warning)
	if len(got) != 1 || got[0].Client != "c5" {
		t.Fatalf("got %+v, want one ticket that names c5", s.told)
	}
	s.live(20*time.Minute, fine)
	if got = s.alerts(ClientAuthFailing, Warning); len(got) != 2 || got[1].How != EndedRecovered {
		t.Errorf("got %+v, want its end", got)
	}
}

func TestDetector_attacksAreTicketsThatNameThePattern(t *testing.T) {
	for _, c := range []struct {
		name    string
		client  func(i int) string
		pattern string
	}{
		{"guessing", func(int) string { return "b1" }, OneClient},
		{"stuffing", func(i int) string { return fmt.Sprintf("a%d", i%300) }, ManyClients},
	} {
		s := learnt(Policy{})
		for i := range 600 {
			s.at = s.at.Add(time.Second)
			s.d.Add(Request{At: s.at, Status: 401, Endpoint: api, Client: []byte(c.client(i))})
			s.live(2*time.Second, fine)
		}
		s.live(2*time.Hour, fine)
		got := s.alerts(AuthFailureClients, Warning)
		if len(got) != 2 || got[0].Pattern != c.pattern || got[1].Ended.IsZero() {
			t.Errorf("%s: got %+v, want one ticket of pattern %s that ends", c.name, got, c.pattern)
		}
		if n := len(s.alerts(AuthFailureSpike, Critical)); n > 0 {
			t.Errorf("%s: paged %d times", c.name, n)
		}
	}
}

func TestDetector_challengeAndDeadClientAreHarmless(t *testing.T) {
	s := open(Policy{})
	v2 := []byte("/v2/")
	for range 40 * 1800 {
		s.n++
		client := s.n * 7 % len(s.names)
		s.request(v2, client, 401) // docker asks without a token first
		s.request(v2, client, 200)
		if s.n%150 == 0 {
			s.d.Add(Request{At: s.at, Status: 401, Endpoint: v2, Client: []byte("forgotten-cron-job")})
		}
		s.at = s.at.Add(2 * time.Second)
	}
	s.told = append(s.told, s.d.Changes()...)
	if len(s.told) > 0 {
		t.Errorf("got %+v, want silence", s.told)
	}
}

func TestDetector_silenceIsNotRecovery(t *testing.T) {
	s := learnt(Policy{})
	s.live(10*time.Minute, down)
	if len(s.alerts(AuthFailureSpike, Critical)) != 1 {
		t.Fatalf("no page: %+v", s.told)
	}
	s.d.Advance(s.at.Add(20 * time.Minute))
	if s.told = s.d.Changes(); len(s.alerts(AuthFailureSpike, Critical)) != 0 {
		t.Fatalf("20 min of silence ended the alert: %+v", s.told)
	}
	if active := s.d.Active(); !strings.Contains(fmt.Sprint(active), "nobody asked for") {
		t.Errorf("the alert does not say that nobody asks: %+v", active)
	}
	s.d.Advance(s.at.Add(40 * time.Minute))
	s.told = s.d.Changes()
	if got := s.alerts(AuthFailureSpike, Critical); len(got) != 1 || got[0].How != EndedNoData {
		t.Errorf("got %+v, want an end for lack of data", got)
	}
}

func TestDetector_absence(t *testing.T) {
	s := open(Policy{})
	s.live(9*24*time.Hour, fine)
	if len(s.told) > 0 {
		t.Fatalf("steady traffic made alerts: %+v", s.told)
	}
	s.d.Advance(s.at.Add(15 * time.Minute))
	s.told = s.d.Changes()
	got := s.alerts(TrafficAbsent, Warning)
	if len(got) != 1 || got[0].Baseline < 290 || got[0].Baseline > 310 {
		t.Fatalf("got %+v, want one alert that expected 300 requests", s.told)
	}
	s.at = s.at.Add(15 * time.Minute)
	s.live(30*time.Minute, fine)
	if got = s.alerts(TrafficAbsent, Warning); len(got) != 2 || got[1].Ended.IsZero() {
		t.Errorf("got %+v, want its end", got)
	}
}

func TestDetector_countersOnly(t *testing.T) {
	d := New(Policy{})
	at := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	pass := func(d2 time.Duration, requests, refused int) {
		for end := at.Add(d2); at.Before(end); at = at.Add(30 * time.Second) {
			d.AddCounts(at, "/v1", requests, refused)
		}
	}
	pass(24*time.Hour, 20, 0)
	pass(15*time.Minute, 20, 15)
	pass(30*time.Minute, 20, 0)
	var pages []Alert
	for _, a := range d.Changes() {
		if a.Severity == Critical {
			pages = append(pages, a)
		}
	}
	if len(pages) != 2 || pages[0].Endpoint != "/v1" || !strings.Contains(pages[0].Description, "it may be an attack") || pages[1].How != EndedRecovered {
		t.Errorf("got %+v, want one page that says how weak the test is, and its end", pages)
	}
}

func TestDetector_restartKeepsWhatItKnows(t *testing.T) {
	s := learnt(Policy{Seed: 3})
	restart := func() {
		state, err := s.d.Save()
		if err != nil {
			t.Fatal(err)
		}
		if s.d, err = Restore(Policy{Seed: 3}, state); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	s.live(10*time.Minute, down)
	if len(s.alerts(AuthFailureSpike, Critical)) != 1 {
		t.Fatalf("the baseline is lost: %+v", s.told)
	}
	restart()
	s.live(10*time.Minute, down)
	if len(s.alerts(AuthFailureSpike, Critical)) != 1 {
		t.Fatalf("the restart paged again: %+v", s.told)
	}
	s.live(30*time.Minute, fine)
	if got := s.alerts(AuthFailureSpike, Critical); len(got) != 2 || got[1].How != EndedRecovered || got[1].Started != got[0].Started {
		t.Errorf("got %+v, want the end of the same alert", got)
	}
}

func TestRestore_damagedStateLeavesAFreshDetector(t *testing.T) {
	s := learnt(Policy{Seed: 3})
	good, err := s.d.Save()
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 4
	newer := append([]byte(nil), good...)
	newer[len(stateMagic)]++
	for name, state := range map[string][]byte{"empty": nil, "text": []byte("{}"), "cut": good[:len(good)/2], "flipped": flipped, "newer": newer} {
		d, err := Restore(Policy{Seed: 3}, state)
		if !errors.Is(err, ErrState) || d == nil || !d.Now().IsZero() {
			t.Errorf("%s: got %v, want ErrState and a fresh detector", name, err)
		}
	}
	if _, err := Restore(Policy{Seed: 4}, good); !errors.Is(err, ErrState) {
		t.Errorf("another seed: got %v, want ErrState", err)
	}
}

func TestDetector_clockOfALogMayJump(t *testing.T) {
	s := learnt(Policy{})
	before := s.d.Now()
	s.d.Add(Request{At: s.at.Add(90 * 24 * time.Hour), Status: 200, Endpoint: api, Client: s.names[0]})
	if got := s.d.Now(); got.Sub(before) > time.Minute {
		t.Fatalf("one line carried the clock to %v", got)
	}
	s.d.Add(Request{At: s.at.Add(-48 * time.Hour), Status: 401, Endpoint: api, Client: s.names[0]})
	s.d.Add(Request{At: time.Unix(-5, 0), Status: 401, Endpoint: api, Client: s.names[0]})
	if got := s.d.Now(); got.Before(before) || s.d.Stats().Late != 2 {
		t.Fatalf("late lines: clock %v, %d late", got, s.d.Stats().Late)
	}
	s.live(10*time.Minute, down)
	if len(s.alerts(AuthFailureSpike, Critical)) != 1 {
		t.Errorf("blind after the jumps: %+v", s.told)
	}
	s.at = s.at.Add(400 * 24 * time.Hour) // the log was lost for a year
	start := time.Now()
	s.live(time.Minute, fine)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("a year of silence took %v", took)
	}
	if got := s.d.Now(); got.Before(s.at.Add(-time.Minute)) {
		t.Errorf("clock %v, want %v", got, s.at)
	}
}

func TestDetector_memoryIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := New(Policy{})
	at := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	client, path := []byte("client-0000000"), []byte("/path/00000")
	for i := range 1_000_000 {
		put(client[7:], i)
		put(path[6:], i%100_000)
		status := 200
		if i%3 == 0 {
			status = 401
		}
		d.Add(Request{At: at.Add(time.Duration(i) * time.Millisecond), Status: status, Endpoint: path, Client: client})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int(after.HeapAlloc) - int(before.HeapAlloc)
	s := d.Stats()
	t.Logf("%d MiB of heap, %d MiB of tables; %+v", used>>20, s.Bytes>>20, s)
	if used > 48<<20 || s.Endpoints > 512 || s.Folded == 0 {
		t.Errorf("got %d MiB, %d endpoints; want at most 48 MiB, 512 endpoints", used>>20, s.Endpoints)
	}
	runtime.KeepAlive(d)
}

func put(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
}

func TestDetector_doesNotAllocatePerRequest(t *testing.T) {
	s := learnt(Policy{})
	i, reason := 0, []byte("invalid_token")
	n := testing.AllocsPerRun(5000, func() {
		i++
		s.at = s.at.Add(100 * time.Millisecond)
		status := 200
		if i%50 == 0 {
			status = 401
		}
		s.d.Add(Request{At: s.at, Status: status, Endpoint: api, Client: s.names[i%len(s.names)], Reason: reason})
	})
	if n > 0.05 {
		t.Errorf("%v allocations per request, want none", n)
	}
}

func TestDetector_sweepMakesRoom(t *testing.T) {
	d := New(Policy{Endpoints: 8})
	at := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	for i := range 50 {
		d.Add(Request{At: at, Status: 200, Endpoint: fmt.Appendf(nil, "/old/%d", i), Client: []byte("c")})
	}
	if n := d.Stats().Endpoints; n != 8 {
		t.Fatalf("%d endpoints, want 8", n)
	}
	for range 10 {
		at = at.Add(30 * time.Minute)
		d.Add(Request{At: at, Status: 200, Endpoint: api, Client: []byte("c")})
	}
	if d.byName["/api/items"] == nil {
		t.Errorf("idle endpoints kept out one that lives: %+v", d.Stats())
	}
}

func FuzzRestore(f *testing.F) {
	d := New(Policy{})
	d.Add(Request{At: time.Unix(1767571200, 0), Status: 200, Endpoint: api, Client: []byte("c")})
	state, err := d.Save()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(state)
	f.Add([]byte(stateMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, _ := Restore(Policy{}, b)
		d.Add(Request{At: time.Unix(1767571300, 0), Status: 401, Endpoint: api, Client: []byte("c")})
	})
}

func BenchmarkDetector_Add(b *testing.B) {
	for _, clients := range []int{100, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			d := New(Policy{})
			at := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
			client := []byte("client-0000000")
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				put(client[7:], i*7919%clients)
				status := 200
				if i%40 == 0 {
					status = 401
				}
				d.Add(Request{At: at.Add(time.Duration(i) * time.Millisecond), Status: status, Endpoint: api, Client: client})
			}
		})
	}
}

// TestDetector_aBusyDayAfterAQuietNightAtAChallengeEndpoint: how many challenges are not a client's first in half an hour
// depends on how busy clients are, and says nothing.
func TestDetector_aBusyDayAfterAQuietNightAtAChallengeEndpoint(t *testing.T) {
	s := open(Policy{})
	v2 := []byte("/v2/")
	for i := range 3 * 24 * 60 {
		every := 1
		if hour := i / 60 % 24; hour < 14 {
			every = 12 // each client comes every six hours
		}
		if i%every == 0 {
			s.n++
			client := s.n * 7 % len(s.names)
			s.request(v2, client, 401)
			s.request(v2, client, 200)
			if every == 1 {
				s.request(v2, client, 401)
				s.request(v2, client, 200)
			}
		}
		s.at = s.at.Add(time.Minute)
	}
	if pages := s.alerts(AuthFailureSpike, Critical); len(pages) > 0 {
		t.Errorf("woke somebody: %+v", pages[0])
	}
}
