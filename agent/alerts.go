package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/evidence"
)

// pages is where runbooks are read when the daemon has no address that people reach.
const pages = "https://github.com/authvigil/authvigil/blob/main/"

// alertName gives the name of the alert that tells of a cause. Alerts are told apart by name and culprit: the cause may
// sharpen while the alert stays the same.
func alertName(f diagnose.Finding) (name string, severity alert.Severity) {
	kind, _, _ := strings.Cut(f.Culprit, ":")
	switch f.Cause {
	case diagnose.AuthorizationTooOpen:
		return "AuthvigilAuthorizationTooOpen", alert.Critical
	case diagnose.PKCENotEnforced:
		return "AuthvigilIssuerLax", alert.Warning
	case diagnose.RevokedTokenAccepted:
		return "AuthvigilRevocationLate", alert.Warning
	case diagnose.TLSCertExpiring, diagnose.TokenExpiring, diagnose.CredentialExpiring, diagnose.SecretRotationDue, diagnose.NextSecretRefused, diagnose.TLSRenewedNotDeployed:
		return "AuthvigilExpiring", alert.Warning
	case diagnose.NTPUnavailable, diagnose.NTPFalseticker, diagnose.ClockUnsynchronised:
		return "AuthvigilClockUnknown", alert.Warning
	case diagnose.IssuerMetadataChanged, diagnose.AlgorithmChanged, diagnose.JWKSKeyUnusable, diagnose.JWKSCacheUnsuitable, diagnose.TokenLifetimeDisagreement, diagnose.TokenLifetimeShrunk:
		return "AuthvigilIssuerWarning", alert.Warning
	case diagnose.ClockSkew, diagnose.RequestTimestampSkew:
		return "AuthvigilClockWrong", alert.Critical
	case diagnose.LogUnreadable:
		return "AuthvigilLogUnreadable", alert.Warning
	case diagnose.LocalResources, diagnose.SecretStoreUnavailable:
		return "AuthvigilUnwell", alert.Warning
	case diagnose.RateLimited, diagnose.QuotaExhausted:
		return "AuthvigilRateLimited", alert.Warning
	}
	switch kind {
	case "issuer", "keyset":
		return "AuthvigilIssuerFailing", alert.Critical
	case "identity":
		return "AuthvigilCredentialFailing", alert.Critical
	case "gateway", "network":
		return "AuthvigilPathBlocked", alert.Critical
	default:
		return "AuthvigilEndpointFailing", alert.Critical
	}
}

// tell has the dispatcher know what a probe stands behind: one alert for each name, culprit and set of labels, whatever the
// number of probes behind it; over when the last of them is well. A held run says nothing.
func (a *Agent) tell(ev *Event) {
	outcome := ev.Outcome()
	if outcome == RunHeld {
		return
	}
	w := a.current.Load()
	var now []alert.Alert
	if len(ev.Findings) > 0 {
		now = append(now, w.alertOf(ev, ev.Findings[0]))
	}
	for _, s := range ev.Report.Spikes {
		if s.Active {
			now = append(now, w.alertOfSpike(ev, s))
		}
	}
	if outcome == RunUnknown { // own distress says nothing of what was probed: what was told of it stays so
		a.alerts.Add(ev.Probe, now...)
		return
	}
	a.alerts.Tell(ev.Probe, ev.Started.Add(ev.Took), now...)
}

// passing are symptoms that may pass by themselves within seconds.
var passing = []evidence.Symptom{evidence.SymptomDNS, evidence.SymptomRefused, evidence.SymptomUnreachable, evidence.SymptomClosed, evidence.SymptomTimeout,
	evidence.SymptomServerError, evidence.SymptomThrottled, evidence.SymptomTLS, evidence.SymptomTLSAlert, evidence.SymptomProxy}

func (w *world) alertOf(ev *Event, f diagnose.Finding) alert.Alert {
	name, severity := alertName(f)
	if f.Cause == diagnose.ClockSkew && ev.Fault == nil { // another's clock is off, and nothing is refused yet
		severity = alert.Warning
	}
	if ev.Severity != "" {
		severity = alert.Severity(ev.Severity)
	}
	about, _ := diagnose.Describe(f.Cause)
	a := w.newAlert(ev, name, f.Culprit, severity)
	a.Summary, a.Hold = f.Culprit+": "+about.Title, w.config.Alerts.Hold
	a.Details = map[string]string{"cause": string(f.Cause), "sureness": string(f.Sure), "remedy": f.Remedy, "description": strings.Join(f.Because, "\n")}
	a.Onset = ev.Failing
	a.Passing = f.Sure != diagnose.Certain || ev.Fault != nil && slices.Contains(passing, ev.Fault.Symptom)
	a.Root = name == "AuthvigilIssuerFailing" || f.Culprit == localNetwork
	if issuer := w.issuerOf(ev, f.Culprit); issuer != "" {
		a.Labels["issuer"] = issuer
	}
	a.Follows = follows(ev)
	w.link(&a, ev, "agent/diagnose/runbooks/", string(f.Cause))
	return a
}

// follows are the culprits that what was seen may be a consequence of. An expired certificate is none of a dead issuer.
func follows(ev *Event) (list []string) {
	if ev.Fault == nil {
		return nil
	}
	issuer := cmp.Or(ev.About.Issuer, ev.Issuer)
	switch ev.Fault.Symptom {
	case evidence.SymptomUnauthorized, evidence.SymptomForbidden, evidence.SymptomRedirected, evidence.SymptomTokenRefused, evidence.SymptomTokenLifetime, evidence.SymptomInactive, evidence.SymptomServerError:
		if issuer != "" {
			list = append(list, "issuer:"+issuer, "keyset:"+issuer)
		}
	case evidence.SymptomDNS, evidence.SymptomRefused, evidence.SymptomUnreachable, evidence.SymptomClosed, evidence.SymptomTimeout:
		list = append(list, localNetwork)
		if issuer != "" {
			list = append(list, "issuer:"+issuer)
		}
	}
	return list
}

// localNetwork is the culprit where nothing can be reached.
const localNetwork = "network:local"

// alertOfSpike tells of an unusual rate of refusals in real traffic. The detector has waited by itself: nothing is held.
func (w *world) alertOfSpike(ev *Event, s evidence.Spike) alert.Alert {
	culprit := "endpoint:" + s.Endpoint
	if s.Client != "" {
		culprit = "client:" + s.Client // two clients whose credentials are dead are two alerts
	}
	a := w.newAlert(ev, s.Name, culprit, alert.Severity(s.Severity))
	a.Labels["endpoint"] = s.Endpoint
	switch {
	case ev.Kind != "accesslog" && ev.Kind != "prometheus": // the probes' own requests: one alert whatever the number of probes
		a.Summary = "probes are refused unusually often at " + s.Endpoint
	case s.Name == spike.TrafficAbsent:
		a.Labels["log"], a.Summary = ev.Probe, "unusually few requests in the log of "+ev.Probe
	default:
		a.Labels["log"], a.Summary = ev.Probe, "unusual refusals in the log of "+ev.Probe+" at "+s.Endpoint
	}
	a.Details = map[string]string{"description": s.Description, "pattern": s.Pattern, "clients": s.Clients, "refused": strconv.Itoa(s.Refused), "requests": strconv.Itoa(s.Requests), "baseline": strconv.FormatFloat(s.Baseline, 'g', 3, 64)}
	a.Onset = s.Onset
	w.link(&a, ev, "agent/alert/runbooks/", s.Name)
	return a
}

// newAlert is one with what all have: the labels of the probe and of the environment are part of its identity, so that the
// alerts of two teams go to two teams.
func (w *world) newAlert(ev *Event, name, culprit string, severity alert.Severity) alert.Alert {
	a := alert.Alert{Name: name, Culprit: culprit, Severity: severity, At: ev.Started.Add(ev.Took), Labels: map[string]string{}}
	maps.Copy(a.Labels, ev.Labels)
	if e := w.config.Agent.Environment; e != "" {
		a.Labels["environment"] = e
	}
	return a
}

// issuerOf is whose tokens the culprit takes or holds, for rules that inhibit what follows from an issuer; empty where
// there are several. It is the same for every probe behind an alert, because it is a label.
func (w *world) issuerOf(ev *Event, culprit string) string {
	kind, name, _ := strings.Cut(culprit, ":")
	switch kind {
	case "issuer", "keyset":
		return name
	case "identity":
		if id := w.identities[name]; id != nil {
			return id.Status().Issuer
		}
	case "endpoint", "gateway":
		return w.issuers[ev.About.Origin]
	}
	return ""
}

// link adds the addresses of the runbook and of the probe's page.
func (w *world) link(a *alert.Alert, ev *Event, folder, runbook string) {
	base := strings.TrimSuffix(w.config.Agent.ExternalURL, "/")
	if base == "" {
		a.Details["runbook_url"] = pages + folder + runbook + ".md"
		return
	}
	a.Details["runbook_url"] = base + "/runbooks/" + runbook
	a.Details["generator_url"] = base + "/probes/" + ev.Probe
}

// TestSink sends a test alert through a sink, and says of each receiver what came of it. A receiver that remembers is told
// the beginning and the end at once. Another gets an alert that lasts and ends by itself: one that is over before the
// receiver's group was flushed would never be told.
func (a *Agent) TestSink(ctx context.Context, name string, lasts time.Duration) (lines []string, err error) {
	w := a.current.Load()
	sink, ok := w.sinks[name]
	if !ok {
		return nil, fmt.Errorf("there is no [sink.%s]; %s", name, didYouMean(name, sortedKeys(w.sinks)))
	}
	now := time.Now()
	n := alert.Notice{Alert: alert.Alert{Name: "AuthvigilTest", Culprit: "sink:" + name, Severity: alert.Warning, Labels: map[string]string{}, Summary: "a test alert of authvigil; nothing is wrong",
		Details: map[string]string{"description": "sent by: authvigil alerts test " + name, "runbook_url": pages + "agent/alert/runbooks/AuthvigilTest.md"}}, StartsAt: now, EndsAt: now.Add(lasts)}
	if e := w.config.Agent.Environment; e != "" {
		n.Labels["environment"] = e
	}
	var errs []error
	for _, r := range sink.receivers {
		line, err := testReceiver(ctx, r, n, lasts)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
			continue
		}
		lines = append(lines, r.Name+" "+line)
	}
	return lines, errors.Join(errs...)
}

func testReceiver(ctx context.Context, r *alert.Receiver, n alert.Notice, lasts time.Duration) (string, error) {
	if c, ok := r.Sink.(io.Closer); ok {
		defer c.Close() //nolint:errcheck // nothing more is sent
	}
	if err := r.Send(ctx, []alert.Notice{n}); err != nil {
		return "", err
	}
	if r.News {
		n.Resolved, n.EndsAt = true, time.Now()
		return "took a test alert and its resolution", r.Send(ctx, []alert.Notice{n})
	}
	line := fmt.Sprintf("took a test alert that ends by itself in %s", lasts)
	if asked, ok := r.Sink.(interface {
		Seen(ctx context.Context, n alert.Notice) (string, error)
	}); ok {
		seen, err := asked.Seen(ctx, n)
		if err != nil {
			return "", fmt.Errorf("took the alert, but cannot be asked about it: %w", err)
		}
		line += "; it " + seen
	}
	return line, nil
}
