package agent

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
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
	a.alerts.SetSinks(map[string][]alert.Sink{"box": {m}})
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
