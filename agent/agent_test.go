package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a probe whose answer a test decides.
type fake struct {
	about probes.About
	run   func(ctx context.Context) (evidence.Report, error)
}

func (f *fake) Run(ctx context.Context) (evidence.Report, error) { return f.run(ctx) }
func (f *fake) About() probes.About                              { return f.about }

// answered is the report of one exchange with a status.
func answered(status int) (evidence.Report, error) {
	r := evidence.Report{Exchanges: []evidence.Exchange{{Stage: evidence.StageAPI, Method: "GET", URL: "https://api.example.test/", Status: status, Scheme: "bearer"}}}
	switch status {
	case 200:
		return r, nil
	case 401:
		return r, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Code: "401", Err: errors.New("answered 401")}
	default:
		return r, &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomServerError, Code: fmt.Sprint(status), Err: fmt.Errorf("answered %d", status)}
	}
}

// witness keeps what an observer sees.
type witness struct {
	mu     sync.Mutex
	events []Event
	see    func(Event)
}

func (w *witness) Observe(ev *Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.see != nil {
		w.see(*ev)
		return
	}
	w.events = append(w.events, *ev)
}
func (w *witness) Forget(string) {}

func (w *witness) count(o Outcome) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.events {
		if w.events[i].Outcome() == o {
			n++
		}
	}
	return n
}

// agentOf makes an agent with fake probes that run every period.
func agentOf(period time.Duration, list map[string]*fake, observers ...Observer) *Agent {
	c := newConfig("test")
	c.Defaults.Every = period
	a := &Agent{env: Env{Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))},
		court: newCourt(observers), slots: make(chan struct{}, 256), watches: map[string]*watch{}, gates: gateMap()}
	w := &world{config: c, identities: map[string]*builtIdentity{}, probes: map[string]*builtProbe{}, issuers: map[string]string{}}
	for name, f := range list {
		if f.about.Endpoint == "" {
			f.about.Endpoint = name + ".example.test/"
		}
		w.probes[name] = &builtProbe{name: name, common: probeCommon{Kind: "http"}, plan: schedule{every: period}, timeout: 10 * time.Second, about: f.about, probe: f}
	}
	a.world = w
	a.current.Store(w)
	return a
}

// runFor runs an agent for a while of virtual time.
func runFor(t *testing.T, a *Agent, d time.Duration) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	time.Sleep(d)
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestAgent_aDayWithAnOutage lives through a day of fifty probes and an outage of two hours: what fails is seen at once,
// what comes back within the longest time a gate stays open, and the outage is not made worse.
func TestAgent_aDayWithAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		from, to := begin.Add(10*time.Hour), begin.Add(12*time.Hour)
		list := map[string]*fake{}
		during := 0
		var mu sync.Mutex
		for i := range 50 {
			list[fmt.Sprintf("p%02d", i)] = &fake{run: func(context.Context) (evidence.Report, error) {
				if now := time.Now(); !now.Before(from) && now.Before(to) {
					mu.Lock()
					during++
					mu.Unlock()
					return answered(503)
				}
				return answered(200)
			}}
		}
		runs, firstFault, lastFault := 0, time.Time{}, time.Time{}
		recovered := map[string]time.Time{}
		w := &witness{see: func(ev Event) {
			runs++
			switch ev.Outcome() {
			case RunFault:
				if firstFault.IsZero() {
					firstFault = ev.Started
				}
				lastFault = ev.Started
			case RunOK:
				if ev.Started.After(to) && recovered[ev.Probe].IsZero() {
					recovered[ev.Probe] = ev.Started
				}
			}
		}}
		runFor(t, agentOf(30*time.Second, list, w), 24*time.Hour)
		if wait := firstFault.Sub(from); wait > 30*time.Second {
			t.Errorf("the outage was seen after %s", wait)
		}
		if lastFault.After(to) {
			t.Errorf("a fault was seen %s after the end", lastFault.Sub(to))
		}
		for name, at := range recovered {
			if at.Sub(to) > 6*time.Minute {
				t.Errorf("%s was seen to be back only after %s", name, at.Sub(to))
			}
		}
		if len(recovered) != 50 {
			t.Errorf("%d of 50 came back", len(recovered))
		}
		if perProbe := during / 50; perProbe > 40 {
			t.Errorf("each probe asked %d times during the outage of 2 h", perProbe)
		}
		if runs < 130_000 {
			t.Errorf("only %d runs in a day of 50 probes every 30 s", runs)
		}
		t.Logf("%d runs, %d of them during the outage", runs, during)
	})
}

// requestsInAnHourOf401 is the budget that the gate of an endpoint leaves: a probe every 30 s would ask 120 times.
const requestsInAnHourOf401 = 20

func TestAgent_anHourOf401StaysWithinTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		w := &witness{}
		a := agentOf(30*time.Second, map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) {
			asked++
			return answered(401)
		}}}, w)
		runFor(t, a, time.Hour)
		if asked > requestsInAnHourOf401 || asked < 5 {
			t.Errorf("asked %d times in an hour, want 5 to %d", asked, requestsInAnHourOf401)
		}
		if n := w.count(RunOK); n != 0 {
			t.Errorf("%d held or failed runs counted as success", n)
		}
		t.Logf("asked %d times", asked)
	})
}

// TestAgent_recoveryIsComplete: what counts failures begins anew after a good run.
func TestAgent_recoveryIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := &witness{}
		a := agentOf(time.Minute, map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) {
			n++
			return answered(map[bool]int{true: 503, false: 200}[n%3 != 0]) // two bad, one good
		}}}, w)
		runFor(t, a, 30*time.Minute)
		for _, ev := range w.events {
			switch {
			case ev.Outcome() == RunOK && (ev.InARow != 0 || !ev.Failing.IsZero() || ev.LastOK.IsZero()):
				t.Fatalf("a good run: %d in a row, failing since %v", ev.InARow, ev.Failing)
			case ev.Outcome() == RunFault && (ev.InARow > 2 || ev.Started.Sub(ev.Failing) > 2*time.Minute):
				t.Fatalf("a bad run: %d in a row, failing for %s", ev.InARow, ev.Started.Sub(ev.Failing))
			}
		}
	})
}

// TestAgent_tokenTroubleLeavesTheEndpointAlone: the token endpoint has a gate of its own, in the identity.
func TestAgent_tokenTroubleLeavesTheEndpointAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{}
		a := agentOf(30*time.Second, map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) {
			return evidence.Report{}, &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomTokenRefused, Code: "invalid_client", Err: errors.New("refused")}
		}}}, w)
		runFor(t, a, 20*time.Minute)
		if n := w.count(RunFault); n < 39 {
			t.Errorf("only %d runs in 20 minutes: the gate of the endpoint held the others", n)
		}
	})
}

func TestAgent_heldRunKeepsTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{}
		a := agentOf(30*time.Second, map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) { return answered(401) }}}, w)
		a.gates["p.example.test/"] = closedGate(time.Now(), 10*time.Minute)
		runFor(t, a, 5*time.Minute)
		if w.count(RunHeld) == 0 || w.count(RunFault)+w.count(RunOK) > 0 {
			t.Errorf("held %d, fault %d, ok %d: want held runs only", w.count(RunHeld), w.count(RunFault), w.count(RunOK))
		}
	})
}

func TestAgent_panicIsUnknownAndHurtsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{}
		a := agentOf(30*time.Second, map[string]*fake{
			"bad":  {run: func(context.Context) (evidence.Report, error) { panic("defect") }},
			"good": {run: func(context.Context) (evidence.Report, error) { return answered(200) }},
		}, w)
		runFor(t, a, 10*time.Minute)
		for _, ev := range w.events {
			if want := map[string]Outcome{"bad": RunUnknown, "good": RunOK}[ev.Probe]; ev.Outcome() != want {
				t.Fatalf("%s: got %s, want %s", ev.Probe, ev.Outcome(), want)
			}
			if ev.Probe == "bad" && (len(ev.Findings) == 0 || ev.Findings[0].Cause != diagnose.LocalResources || ev.Findings[0].Culprit != "host") {
				t.Fatalf("the panic is blamed on %v", ev.Findings)
			}
		}
		if a.Health().Panics == 0 || w.count(RunOK) < 19 {
			t.Errorf("panics %d, good runs %d", a.Health().Panics, w.count(RunOK))
		}
	})
}

func TestAgent_slowRunIsStoppedAndTheScheduleHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &witness{}
		a := agentOf(30*time.Second, map[string]*fake{"slow": {run: func(ctx context.Context) (evidence.Report, error) {
			<-ctx.Done()
			return evidence.Report{}, &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomTimeout, Err: ctx.Err()}
		}}}, w)
		runFor(t, a, 3*time.Minute)
		for _, ev := range w.events {
			if ev.Fault.Held() {
				continue
			}
			if ev.Took != 10*time.Second {
				t.Errorf("a run that never ends took %s, want the timeout of 10s", ev.Took)
			}
		}
	})
}

func TestAgent_fortyProbesOneIssuerOneCulprit(t *testing.T) {
	list := map[string]*fake{}
	for i := range 40 {
		name := fmt.Sprintf("p%d", i)
		list[name] = &fake{about: probes.About{Endpoint: name + ".example.test/", Identity: fmt.Sprintf("id%d", i)}, run: func(context.Context) (evidence.Report, error) {
			x := evidence.Exchange{Stage: evidence.StageToken, Purpose: evidence.Obtain, Method: "POST", URL: "https://auth.example.test/token"}
			x.Fault = &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomRefused, Err: errors.New("connection refused")}
			return evidence.Report{Exchanges: []evidence.Exchange{x}}, x.Fault
		}}
	}
	a := agentOf(30*time.Second, list)
	for i := range 40 {
		name := fmt.Sprintf("id%d", i)
		a.world.identities[name] = &builtIdentity{name: name, Identity: issued{}}
	}
	events, err := a.Once(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, ev := range events {
		seen[string(ev.Findings[0].Cause)+" "+ev.Findings[0].Culprit]++
	}
	if want := "idp_unavailable issuer:https://auth.example.test"; seen[want] != 40 {
		t.Errorf("got %v, want 40 of %q", seen, want)
	}
}

// issued is an identity of one issuer.
type issued struct{ identity.Identity }

func (issued) Status() identity.Status {
	return identity.Status{Kind: "oauth2", Scheme: "bearer", Issuer: "https://auth.example.test"}
}

func TestAgent_reloadKeepsWhatIsTheSame(t *testing.T) {
	text := func(second string) string {
		return `
[defaults]
every = "10s"
[probe.one]
kind = "http"
url = "http://one.example.test/"
[probe.` + second + `]
kind = "http"
url = "http://two.example.test/"
`
	}
	load := func(text string) *Config {
		c, err := Parse("authvigil.toml", text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	env := Env{Jitter: func() float64 { return 0 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	a, err := New(load(text("two")), env)
	if err != nil {
		t.Fatal(err)
	}
	before := a.world.probes["one"]
	d, err := a.Reload(load(text("three")))
	if err != nil {
		t.Fatal(err)
	}
	if d.String() != "1 added, 0 changed, 1 removed, 1 as before" || a.world.probes["one"] != before {
		t.Errorf("got %s, probe one the same: %v", d, a.world.probes["one"] == before)
	}
	if _, err := a.Reload(load(strings.Replace(text("four"), "http://two", "htp://two", 1))); err == nil {
		t.Error("a bad configuration was taken over")
	}
	if a.world.probes["three"] == nil {
		t.Error("a refused reload changed what runs")
	}
}

// BenchmarkJudge_healthy is what each good run costs beside its probe.
func BenchmarkJudge_healthy(b *testing.B) {
	a := agentOf(30*time.Second, map[string]*fake{})
	report, _ := answered(200)
	o := Observation{Probe: "p", Kind: "http", About: probes.About{Endpoint: "api.example.test/", Origin: "https://api.example.test:443"}, Report: report}
	gate := closedGate(time.Now(), 0).State()
	b.ReportAllocs()
	for b.Loop() {
		a.judge(o, gate, time.Time{})
	}
}

// BenchmarkStart_10000 is how long ten thousand watches take to start and to stop.
func BenchmarkStart_10000(b *testing.B) {
	list := map[string]*fake{}
	for i := range 10_000 {
		list[fmt.Sprintf("p%d", i)] = &fake{run: func(context.Context) (evidence.Report, error) { return answered(200) }}
	}
	for b.Loop() {
		a := agentOf(time.Hour, list)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		for {
			a.mu.Lock()
			started := len(a.watches)
			a.mu.Unlock()
			if started == len(list) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		stop()
		<-done
	}
}
