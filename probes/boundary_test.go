package probes

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/sandbox"
)

// TestHTTP_boundary: an endpoint must let the first identity in and refuse the others.
func TestHTTP_boundary(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		ids := env.Identity
		env.Identity = func(name string) (identity.Identity, error) {
			if name == "stranger" {
				return env.as("")
			}
			return ids(name)
		}
		for _, c := range []struct {
			name    string
			refuse  []string
			before  func(f *sandbox.APIFaults)
			symptom evidence.Symptom
			words   string
		}{
			{"guest without the scope, and a stranger", []string{sandbox.GuestID, "stranger"}, nil, "", ""},
			{"another client with the scope", []string{sandbox.OrdersID}, nil, evidence.SymptomGranted, "to " + sandbox.OrdersID + ", which must be refused"},
			{"one of two", []string{sandbox.GuestID, sandbox.OrdersID}, nil, evidence.SymptomGranted, "to " + sandbox.OrdersID + ","},
			{"open to all", []string{sandbox.GuestID, "stranger"}, func(f *sandbox.APIFaults) { f.Open = true }, evidence.SymptomGranted, sandbox.GuestID + " and stranger"},
			{"the first is refused itself", []string{"stranger"}, func(f *sandbox.APIFaults) { f.Answer = sandbox.Status(http.StatusForbidden) }, evidence.SymptomForbidden, ""},
			{"an identity that cannot log in", []string{sandbox.GuestID + " wrong"}, nil, evidence.SymptomTokenRefused, "invalid_client"},
		} {
			p := makeProbe(t, "http", env, map[string]any{"URL": sandbox.Audience + "/v2/devices", "Identity": sandbox.ClientID, "MustRefuse": c.refuse})
			if c.before != nil {
				w.API.Set(c.before)
			}
			report, err := p.Run(t.Context())
			w.API.Reset()
			wantFault(t, c.name, err, c.symptom, "")
			if err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("%s: %v does not say %q", c.name, err, c.words)
			}
			asked := 0
			for _, x := range report.Exchanges {
				if x.Purpose == evidence.MustRefuse {
					asked++
				}
				if (x.Identity != "") != (x.Purpose == evidence.MustRefuse || x.Identity != "" && x.Purpose == evidence.Obtain) {
					t.Errorf("%s: %s is said to be asked by %q", c.name, x.URL, x.Identity)
				}
			}
			if first := c.symptom == evidence.SymptomForbidden; first && asked != 0 || !first && c.symptom != evidence.SymptomTokenRefused && asked != len(c.refuse) {
				t.Errorf("%s: asked %d others", c.name, asked)
			}
			if report.Token == nil || report.Token.ClientID != "" && report.Token.ClientID != sandbox.ClientID {
				t.Errorf("%s: the token in the report is that of another: %+v", c.name, report.Token)
			}
			time.Sleep(time.Hour)
		}
	})
}

// TestHTTP_boundaryCostsNoCredential: identities that are refused as they should be are not held to be wrong, however often.
func TestHTTP_boundaryCostsNoCredential(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		p := makeProbe(t, "http", env, map[string]any{"URL": sandbox.Audience + "/v2/devices", "Identity": sandbox.ClientID, "MustRefuse": []string{sandbox.GuestID}})
		for range 100 {
			if report, err := p.Run(t.Context()); err != nil || slices.ContainsFunc(report.Notes, func(n evidence.Note) bool { return n.Code == "boundary_untested" }) {
				t.Fatalf("%v, notes %v", err, report.Notes)
			}
			time.Sleep(30 * time.Second)
		}
		if n := w.IdP.TokenRequests(sandbox.GuestID); n > 2 {
			t.Errorf("%d token requests in 50 minutes, want at most 2", n)
		}
	})
}

func TestHTTP_requiredScopesBeforeAndAfter(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		for _, c := range []struct {
			who     string
			need    []string
			symptom evidence.Symptom
			notes   []string
			missing float64
		}{
			{sandbox.ClientID, []string{"devices:read"}, "", nil, 0},
			{sandbox.GuestID, []string{"devices:read"}, evidence.SymptomForbidden, []string{"insufficient_scope"}, 1},
			{sandbox.ClientID, []string{"devices:read", "devices:burn"}, "", []string{"insufficient_scope", "scope_not_enforced"}, 1},
		} {
			p := makeProbe(t, "http", env, map[string]any{"URL": sandbox.Audience + "/v2/devices", "Identity": c.who, "RequiredScopes": c.need})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			report, err := p.Run(ctx)
			cancel()
			wantFault(t, c.who, err, c.symptom, "")
			var codes []string
			for _, n := range report.Notes {
				codes = append(codes, n.Code)
			}
			if fmt.Sprint(codes) != fmt.Sprint(c.notes) {
				t.Errorf("%s needs %v: notes %v, want %v", c.who, c.need, report.Notes, c.notes)
			}
			if n, ok := readingOf(report, missingScopesMetric); !ok || n != c.missing {
				t.Errorf("%s needs %v: %v missing, want %v", c.who, c.need, n, c.missing)
			}
		}
	})
}
