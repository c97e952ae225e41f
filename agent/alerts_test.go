package agent

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/evidence"
)

// mailbox is a sink that remembers.
type mailbox struct{ got []alert.Notice }

func (m *mailbox) Send(_ context.Context, batch []alert.Notice) error {
	m.got = append(m.got, batch...)
	return nil
}

func withSink(a *Agent, m *mailbox) {
	a.alerts = alert.NewDispatcher(a.env.Log)
	a.alerts.SetSinks(map[string][]*alert.Receiver{"box": {{Sink: m}}})
}

// TestAlerts_fortyProbesOneAlert: forty probes that fail for one issuer make one alert, which ends when the last is well.
func TestAlerts_fortyProbesOneAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list := map[string]*fake{}
		for i := range 40 {
			name := fmt.Sprintf("p%d", i)
			list[name] = &fake{about: probes.About{Endpoint: name + ".example.test/", Identity: "one"}, run: func(context.Context) (evidence.Report, error) {
				if time.Since(begin) > 20*time.Minute {
					return answered(200)
				}
				x := evidence.Exchange{Stage: evidence.StageToken, Purpose: evidence.Obtain, Method: "POST", URL: "https://auth.example.test/token", Status: 503}
				return evidence.Report{Exchanges: []evidence.Exchange{x}}, &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomServerError, Code: "503"}
			}}
		}
		a := agentOf(30*time.Second, list)
		a.world.identities["one"] = &builtIdentity{name: "one", Identity: issued{}}
		m := &mailbox{}
		withSink(a, m)
		runFor(t, a, 40*time.Minute)
		alerts, resolved := map[string]bool{}, 0
		for _, n := range m.got {
			alerts[n.Name+" "+n.Culprit] = true
			if n.Resolved {
				resolved++
			}
			if !n.Resolved && n.Details["cause"] != "idp_unavailable" {
				t.Errorf("cause %s", n.Details["cause"])
			}
		}
		if len(alerts) != 1 || !alerts["AuthvigilIssuerFailing issuer:https://auth.example.test"] {
			t.Errorf("alerts: %v", alerts)
		}
		if resolved == 0 {
			t.Error("never resolved")
		}
	})
}

// TestAlerts_spikeOfALog: what the detector says becomes an alert of its own, and ends when it says so.
func TestAlerts_spikeOfALog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		list := map[string]*fake{"log": {run: func(context.Context) (evidence.Report, error) {
			if time.Since(begin) > 10*time.Minute {
				return evidence.Report{}, nil
			}
			return evidence.Report{Spikes: []evidence.Spike{{Name: "AuthFailureSpike", Endpoint: "/v2/devices", Severity: "critical", Active: true, Onset: begin, Pattern: "one_endpoint", Refused: 57, Requests: 190}}}, nil
		}}}
		a := agentOf(10*time.Second, list)
		m := &mailbox{}
		withSink(a, m)
		runFor(t, a, 20*time.Minute)
		if len(m.got) == 0 || m.got[0].Name != "AuthFailureSpike" || m.got[0].Labels["endpoint"] != "/v2/devices" || m.got[0].Details["refused"] != "57" {
			t.Fatalf("got %+v", m.got)
		}
		if last := m.got[len(m.got)-1]; !last.Resolved {
			t.Error("the alert outlives the spike")
		}
	})
}

// TestAlerts_oneFastFailure: a single failure of a probe that runs every 30 s is not told, although the hold is over before
// the next run, which takes longer, has ended; two in a row are.
func TestAlerts_oneFastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		list := map[string]*fake{"p": {run: func(context.Context) (evidence.Report, error) {
			if n++; n%4 == 0 || n > 40 {
				return answered(503)
			}
			time.Sleep(300 * time.Millisecond)
			return answered(200)
		}}}
		a := agentOf(30*time.Second, list)
		m := &mailbox{}
		withSink(a, m)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		time.Sleep(20 * time.Minute)
		if len(m.got) != 0 {
			t.Errorf("single failures were told: %+v", m.got[0])
		}
		time.Sleep(2 * time.Minute)
		if len(m.got) == 0 {
			t.Error("lasting failures are not told")
		}
		stop()
		<-done
	})
}

// TestAlerts_restartWithAHeldProbe: after a restart, an alert whose probe is well is resolved although another probe is held
// by its gate, and that probe's alert goes on.
func TestAlerts_restartWithAHeldProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		status := 503
		list := func() map[string]*fake {
			run := func(context.Context) (evidence.Report, error) { return answered(status) }
			return map[string]*fake{"free": {run: run}, "held": {run: run}}
		}
		run := func(m *mailbox, d time.Duration, prepare func(a *Agent)) {
			a := agentOf(30*time.Second, list())
			a.world.config.Agent.StateDirectory = dir
			withSink(a, m)
			prepare(a)
			runFor(t, a, d)
		}
		run(&mailbox{}, 10*time.Minute, func(*Agent) {})
		status = 200
		m := &mailbox{}
		run(m, 20*time.Minute, func(a *Agent) {
			a.recall() // Run does so too; the gate of one is closed for longer than the test lasts
			a.gates["free.example.test/"] = closedGate(time.Now(), 0)
			a.gates["held.example.test/"] = closedGate(time.Now(), 5*time.Hour)
			if err := a.save(dir); err != nil {
				t.Fatal(err)
			}
		})
		over := map[string]bool{}
		for _, n := range m.got {
			over[n.Culprit] = n.Resolved
		}
		if len(over) != 2 || !over["endpoint:free.example.test/"] || over["endpoint:held.example.test/"] {
			t.Errorf("over: %v", over)
		}
	})
}

// TestAlerts_labels: the labels of a probe reach its alerts, so that two teams are told of what is theirs.
func TestAlerts_labels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := map[string]*fake{}
		for _, name := range []string{"a", "b", "c"} {
			list[name] = &fake{run: func(context.Context) (evidence.Report, error) { return answered(503) }}
		}
		a := agentOf(10*time.Second, list)
		a.world.config.Agent.Environment = "production"
		a.world.probes["a"].common.Labels = map[string]string{"team": "one"}
		a.world.probes["b"].common.Labels = map[string]string{"team": "two"}
		m := &mailbox{}
		withSink(a, m)
		runFor(t, a, 2*time.Minute)
		teams := map[string]string{}
		for _, n := range m.got {
			teams[n.Labels["team"]] = n.Details["probes"]
			if n.Labels["environment"] != "production" || !strings.Contains(n.Details["runbook_url"], "/server_error.md") {
				t.Errorf("labels %v, runbook %s", n.Labels, n.Details["runbook_url"])
			}
		}
		if fmt.Sprint(teams) != "map[:c one:a two:b]" {
			t.Errorf("teams and their probes: %v", teams)
		}
	})
}

// TestAlerts_consequencesOfAnIssuer: while the issuer is told of, what follows at endpoints is not; both carry the issuer, for
// rules of Alertmanager.
func TestAlerts_consequencesOfAnIssuer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := "https://auth.example.test"
		down := func(context.Context) (evidence.Report, error) {
			x := evidence.Exchange{Stage: evidence.StageToken, Purpose: evidence.Obtain, Method: "POST", URL: issuer + "/token", Status: 503}
			return evidence.Report{Exchanges: []evidence.Exchange{x}}, &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomServerError, Code: "503"}
		}
		list := map[string]*fake{
			"token-1": {about: probes.About{Endpoint: "one.example.test/", Identity: "one"}, run: down},
			"token-2": {about: probes.About{Endpoint: "two.example.test/", Identity: "one"}, run: down},
			"api":     {about: probes.About{Endpoint: "api.example.test/v2", Origin: "https://api.example.test", Identity: "one"}, run: func(context.Context) (evidence.Report, error) { return answered(401) }},
			"other":   {about: probes.About{Endpoint: "other.example.test/"}, run: func(context.Context) (evidence.Report, error) { return answered(500) }},
		}
		a := agentOf(10*time.Second, list)
		a.world.identities["one"] = &builtIdentity{name: "one", Identity: issued{}}
		for _, b := range a.world.probes {
			a.world.noteIssuer(b)
		}
		m := &mailbox{}
		withSink(a, m)
		runFor(t, a, 10*time.Minute)
		told := map[string]string{}
		for _, n := range m.got {
			told[n.Culprit] = n.Labels["issuer"]
		}
		if len(told) != 2 || told["issuer:"+issuer] != issuer || told["endpoint:other.example.test/"] != "" {
			t.Errorf("told: %v", told)
		}
		open := map[string]alert.Notice{}
		for _, n := range a.alerts.Open() {
			open[n.Culprit] = n
		}
		if n := open["endpoint:api.example.test/v2"]; n.Silenced != "follows from issuer:"+issuer || n.Labels["issuer"] != issuer {
			t.Errorf("kept back: %+v of %v", n, slices.Collect(maps.Keys(open)))
		}
	})
}

// TestAlerts_ofEverySpikeHaveARunbook: the alerts of the detector lead to a page that is there.
func TestAlerts_ofEverySpikeHaveARunbook(t *testing.T) {
	w := &world{config: newConfig("test")}
	ev := &Event{Observation: Observation{Probe: "log", Labels: map[string]string{"team": "one"}}}
	for _, name := range []string{spike.AuthFailureSpike, spike.AuthFailureClients, spike.ClientAuthFailing, spike.TrafficAbsent} {
		a := w.alertOfSpike(ev, evidence.Spike{Name: name, Severity: "warning"})
		if _, ok := alert.Runbook(name); !ok || !strings.HasSuffix(a.Details["runbook_url"], "agent/alert/runbooks/"+name+".md") || a.Labels["team"] != "one" {
			t.Errorf("%s: runbook %s, labels %v", name, a.Details["runbook_url"], a.Labels)
		}
	}
}

// TestSink_identity: a sink proves who sends by an identity of the configuration, OAuth 2.0 here, and asks for its token once.
func TestSink_identity(t *testing.T) {
	var asked, told atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			asked.Add(1)
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"tok-for-the-pager","token_type":"Bearer","expires_in":3600}`)
		case r.Header.Get("Authorization") != "Bearer tok-for-the-pager":
			w.WriteHeader(401)
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `[{"receivers":[{"name":"ops"}],"status":{"state":"active"}}]`)
		default:
			told.Add(1)
		}
	}))
	defer server.Close()
	c, err := Parse("test", fmt.Sprintf(`
[identity.pager]
kind = "oauth2"
token_url = "%s/token"
client_id = "x"
client_secret = "plain:hunter2hunter2"
[sink.pager]
kind = "alertmanager"
urls = ["%s"]
identity = "pager"
`, server.URL, server.URL))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(c, testEnv())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		lines, err := a.TestSink(t.Context(), "pager", time.Minute)
		if err != nil || len(lines) != 1 || !strings.Contains(lines[0], "goes to ops when group_wait is over") {
			t.Errorf("%v %v", lines, err)
		}
	}
	if asked.Load() != 1 || told.Load() != 2 {
		t.Errorf("asked for %d tokens, told %d times", asked.Load(), told.Load())
	}
	http.DefaultClient.CloseIdleConnections()
}
