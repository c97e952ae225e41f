package agent

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes/evidence"
)

// hold is how long something must be wrong before anybody is told, so that the diagnosis settles and a single lost packet
// wakes nobody.
const hold = 30 * time.Second

// alertNames gives the name of the alert that tells of a cause. Alerts are told apart by name and culprit: the cause may
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
	case diagnose.TLSCertExpiring, diagnose.TokenExpiring, diagnose.CredentialExpiring, diagnose.SecretRotationDue, diagnose.TLSRenewedNotDeployed:
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

// A told alert is one that probes stand behind.
type told struct {
	alert  alert.Alert
	probes map[string]bool
}

// tell makes alerts of an event: one for each name and culprit, whatever the number of probes behind it; over when the last
// of them is well. The court's mutex is held.
func (c *court) tell(r *record, ev *Event, environment, externalURL string) (changed []alert.Alert) {
	if ev.Outcome() == RunHeld {
		return nil
	}
	var now []alert.Alert
	if len(ev.Findings) > 0 {
		now = append(now, alertOf(ev, ev.Findings[0], environment, externalURL))
	}
	for _, s := range ev.Report.Spikes {
		if s.Active {
			now = append(now, alertOfSpike(ev, s, environment, externalURL))
		}
	}
	var keys []string
	for _, a := range now {
		key := a.Name + "\x00" + a.Culprit + "\x00" + string(a.Severity)
		keys = append(keys, key)
		t := c.told[key]
		if t == nil {
			t = &told{probes: map[string]bool{}}
			c.told[key] = t
		}
		t.probes[ev.Probe] = true
		a.Details["probes"] = someProbes(t.probes)
		t.alert = a
		changed = append(changed, a)
	}
	if ev.Outcome() == RunUnknown {
		// Own distress says nothing of what was probed: what was told of it stays so.
		for _, key := range r.told {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range r.told {
		t := c.told[key]
		if t == nil || slices.Contains(keys, key) {
			continue
		}
		delete(t.probes, ev.Probe)
		if len(t.probes) == 0 {
			over := t.alert
			over.Active, over.At = false, ev.Started.Add(ev.Took)
			changed = append(changed, over)
			delete(c.told, key)
		}
	}
	r.told = keys
	return changed
}

func alertOf(ev *Event, f diagnose.Finding, environment, externalURL string) alert.Alert {
	name, severity := alertName(f)
	if ev.Severity != "" {
		severity = alert.Severity(ev.Severity)
	}
	about, _ := diagnose.Describe(f.Cause)
	a := alert.Alert{Name: name, Culprit: f.Culprit, Severity: severity, Summary: f.Culprit + ": " + about.Title, Active: true, At: ev.Started.Add(ev.Took), Hold: hold, Labels: map[string]string{},
		Details: map[string]string{"cause": string(f.Cause), "sureness": string(f.Sure), "remedy": f.Remedy, "description": strings.Join(f.Because, "\n")}}
	if environment != "" {
		a.Labels["environment"] = environment
	}
	if !ev.Failing.IsZero() {
		a.Details["onset"] = ev.Failing.UTC().Format(time.RFC3339)
	}
	if externalURL != "" {
		base := strings.TrimSuffix(externalURL, "/")
		a.Details["runbook_url"] = base + "/runbooks/" + string(f.Cause)
		a.Details["generator_url"] = base + "/probes/" + ev.Probe
	}
	return a
}

// alertOfSpike tells of an unusual rate of refusals in real traffic. The detector has waited by itself: nothing is held.
func alertOfSpike(ev *Event, s evidence.Spike, environment, externalURL string) alert.Alert {
	a := alert.Alert{Name: s.Name, Culprit: "endpoint:" + s.Endpoint, Severity: alert.Severity(s.Severity), Active: true, At: ev.Started.Add(ev.Took), Labels: map[string]string{"endpoint": s.Endpoint, "log": ev.Probe},
		Summary: "unusual refusals in the log of " + ev.Probe + " at " + s.Endpoint,
		Details: map[string]string{"description": s.Description, "pattern": s.Pattern, "clients": s.Clients, "refused": strconv.Itoa(s.Refused), "requests": strconv.Itoa(s.Requests), "baseline": strconv.FormatFloat(s.Baseline, 'g', 3, 64)}}
	if s.Client != "" {
		a.Culprit = "client:" + s.Client // two clients whose credentials are dead are two alerts
	}
	if !s.Onset.IsZero() {
		a.Details["onset"] = s.Onset.UTC().Format(time.RFC3339)
	}
	if environment != "" {
		a.Labels["environment"] = environment
	}
	if externalURL != "" {
		a.Details["generator_url"] = strings.TrimSuffix(externalURL, "/") + "/probes/" + ev.Probe
	}
	return a
}

func someProbes(set map[string]bool) string {
	const most = 10
	names := sortedKeys(set)
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
