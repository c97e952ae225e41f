package probes

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// sandboxed runs a test in a bubble of virtual time, with a small internet in memory.
func sandboxed(t *testing.T, f func(t *testing.T, w *sandbox.World, env Env)) {
	synctest.Test(t, func(t *testing.T) {
		w := sandbox.New()
		defer w.Close()
		env := Env{Name: "test", Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Net: wire.Net{Dial: w.Dial, Roots: w.Roots(), Lookup: func(ctx context.Context, host string) ([]netip.Addr, error) { return w.Lookup(ctx, host) }}}
		made := map[string]identity.Identity{}
		env.Identity = func(name string) (identity.Identity, error) {
			if made[name] == nil {
				made[name] = sandboxClient(t, env, name)
			}
			return made[name], nil
		}
		f(t, w, env)
	})
}

// sandboxClient makes the identity of a client of the sandbox, by its name there; a second word changes it.
func sandboxClient(t *testing.T, env Env, name string) identity.Identity {
	t.Helper()
	id, how, _ := strings.Cut(name, " ")
	password := map[string]string{sandbox.ClientID: sandbox.ClientSecret, sandbox.OrdersID: sandbox.OrdersSecret, sandbox.ResourceID: sandbox.ResourceSecret, sandbox.GuestID: sandbox.GuestSecret}[id]
	if how == "wrong" {
		password = "not-the-secret-of-the-client"
	}
	kind := "oauth2"
	if how == "basic" {
		kind = "basic"
	}
	i, err := identity.New(kind, func(into any) error {
		v := reflect.ValueOf(into).Elem()
		ref, err := secret.Parse("plain:" + password)
		if err != nil {
			return err
		}
		if kind == "basic" {
			v.FieldByName("Username").SetString(id)
			v.FieldByName("Password").Set(reflect.ValueOf(ref))
			return nil
		}
		v.FieldByName("TokenURL").SetString(sandbox.Issuer + "/token")
		v.FieldByName("ClientID").SetString(id)
		v.FieldByName("ClientSecret").Set(reflect.ValueOf(ref))
		v.FieldByName("IsDisposable").SetBool(how == "disposable")
		return nil
	}, identity.Env{Name: name, Net: env.Net, Jitter: func() float64 { return 0.5 }, Log: env.Log})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func wantFault(t *testing.T, what string, err error, symptom evidence.Symptom, code string) {
	t.Helper()
	f := evidence.AsFault(err)
	if (f == nil) != (symptom == "") || f != nil && (f.Symptom != symptom || code != "" && f.Code != code) {
		t.Errorf("%s: got %v (%+v), want %s %s", what, err, f, symptom, code)
	}
}

func readingOf(r evidence.Report, m *evidence.Metric) (float64, bool) {
	for i := len(r.Readings) - 1; i >= 0; i-- {
		if r.Readings[i].Metric == m {
			return r.Readings[i].Value, true
		}
	}
	return 0, false
}

func TestIntrospect_whatTheServerSays(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		client := sandbox.ClientID
		for _, c := range []struct {
			name    string
			values  map[string]any
			before  func(f *sandbox.IdPFaults)
			symptom evidence.Symptom
			code    string
		}{
			{"its own token", map[string]any{"Issuer": sandbox.Issuer, "RequiredScopes": []string{"devices:read"}, "ClientID": client, "Audience": sandbox.Audience}, nil, "", ""},
			{"asked by another client", map[string]any{"Issuer": sandbox.Issuer, "By": sandbox.ResourceID}, nil, "", ""},
			{"asked with a password", map[string]any{"URL": sandbox.Issuer + "/introspect", "By": sandbox.ResourceID + " basic"}, nil, "", ""},
			{"asked with a wrong client secret", map[string]any{"Issuer": sandbox.Issuer, "By": sandbox.ResourceID + " wrong"}, nil, evidence.SymptomTokenRefused, "invalid_client"},
			{"a scope that it lacks", map[string]any{"Issuer": sandbox.Issuer, "RequiredScopes": []string{"devices:read", "devices:burn"}}, nil, evidence.SymptomScope, "insufficient_scope"},
			{"another audience", map[string]any{"Issuer": sandbox.Issuer, "Audience": "https://else.example.test"}, nil, evidence.SymptomRuleViolated, "audience"},
			{"another client", map[string]any{"Issuer": sandbox.Issuer, "ClientID": "somebody"}, nil, evidence.SymptomRuleViolated, "client_id"},
			{"too short a life", map[string]any{"Issuer": sandbox.Issuer, "MinRemaining": 2 * time.Hour}, nil, evidence.SymptomTokenLifetime, "short"},
			{"no such path", map[string]any{"URL": sandbox.Issuer + "/nowhere"}, nil, evidence.SymptomUnexpected, "404"},
			{"server fails", map[string]any{"URL": sandbox.Issuer + "/introspect"}, func(f *sandbox.IdPFaults) { f.Answer = sandbox.Status(503) }, evidence.SymptomServerError, "503"},
			{"a web page", map[string]any{"URL": sandbox.Issuer + "/introspect"}, func(f *sandbox.IdPFaults) { f.Answer = sandbox.HTML(200, "<html>hello") }, evidence.SymptomBadAnswer, "not_json"},
			{"an issuer of another name", map[string]any{"Issuer": sandbox.Issuer}, func(f *sandbox.IdPFaults) { f.MetadataIssuer = sandbox.Issuer + "/" }, evidence.SymptomIssuer, "issuer_mismatch"},
		} {
			c.values["Identity"] = client
			if _, err := makeProbe(t, "token", env, map[string]any{"Identity": client}).Run(t.Context()); err != nil {
				t.Fatal(err) // the token is there before anything goes wrong
			}
			p := makeProbe(t, "introspect", env, c.values)
			if c.before != nil {
				w.IdP.Set(c.before)
			}
			report, err := p.Run(t.Context())
			w.IdP.Reset()
			wantFault(t, c.name, err, c.symptom, c.code)
			if active, ok := readingOf(report, introspectionActive); err == nil && (!ok || active != 1) {
				t.Errorf("%s: active is %v, %v", c.name, active, ok)
			}
			if shown := fmt.Sprintf("%+v %v", report, err); strings.Contains(shown, sandbox.ClientSecret) || strings.Contains(shown, "not-the-secret-of") || strings.Contains(shown, "eyJ") {
				t.Errorf("%s: a secret is shown: %s", c.name, secret.Scrub(shown))
			}
			if c.code == "invalid_client" {
				if x := report.Exchanges[len(report.Exchanges)-1]; x.Identity != sandbox.ResourceID+" wrong" {
					t.Errorf("%s: the exchange names %q as the one who asked", c.name, x.Identity)
				}
			}
		}
	})
}

// TestIntrospect_withdrawnToken: a token that was withdrawn is told from a server that knows none of our tokens.
func TestIntrospect_withdrawnToken(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		p := makeProbe(t, "introspect", env, map[string]any{"Issuer": sandbox.Issuer, "Identity": sandbox.ClientID})
		if _, err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.IdP.Revoke(sandbox.ClientID)
		time.Sleep(time.Minute)
		report, err := p.Run(t.Context())
		if err != nil || len(report.Notes) == 0 || report.Notes[len(report.Notes)-1].Code != "token_withdrawn" {
			t.Errorf("after a withdrawal: %v, notes %v", err, report.Notes)
		}
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer = sandbox.HTML(200, `{"active":false}`) })
		if _, err := p.Run(t.Context()); err == nil {
			t.Error("a server that says inactive to everything passes")
		}
	})
}

// TestIntrospect_anHourOfRefusals: whoever asks is not locked out by the probe.
func TestIntrospect_anHourOfRefusals(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		p := makeProbe(t, "introspect", env, map[string]any{"Issuer": sandbox.Issuer, "Identity": sandbox.ClientID, "By": sandbox.ResourceID + " wrong"})
		asked := 0
		for range 360 {
			report, err := p.Run(t.Context())
			if err == nil {
				t.Fatal("a wrong secret passed")
			}
			for _, x := range report.Exchanges {
				if strings.HasSuffix(x.URL, "/introspect") {
					asked++
				}
			}
			time.Sleep(10 * time.Second)
		}
		if asked > 8 {
			t.Errorf("the introspection endpoint was asked %d times in an hour with a wrong secret, want at most 8", asked)
		}
	})
}

func TestRevocation_lag(t *testing.T) {
	for _, c := range []struct {
		name     string
		notices  time.Duration // until the API notices; 0: never
		symptom  evidence.Symptom
		from, to float64 // of the lag, in seconds
	}{
		{"at once", time.Nanosecond, "", 0, 0.1},
		{"after two seconds", 2 * time.Second, "", 2, 4},
		{"never", 0, evidence.SymptomStillAccepted, 5, 6},
	} {
		sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
			who := sandbox.ClientID + " disposable"
			p := makeProbe(t, "introspect", env, map[string]any{"Issuer": sandbox.Issuer, "Identity": who,
				"Revoke": true, "API": sandbox.Audience + "/v2/devices"})
			w.API.Set(func(f *sandbox.APIFaults) { f.IgnoreRevocation = c.notices != time.Nanosecond })
			if c.notices > time.Nanosecond {
				time.AfterFunc(c.notices, func() { w.API.Set(func(f *sandbox.APIFaults) { f.IgnoreRevocation = false }) })
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			report, err := p.Run(ctx)
			wantFault(t, c.name, err, c.symptom, "")
			if lag, ok := readingOf(report, revocationLag); !ok || lag < c.from || lag > c.to {
				t.Errorf("%s: lag %v %v, want %v to %v", c.name, lag, ok, c.from, c.to)
			}
			if n := len(report.Exchanges); n > lagPolls+6 {
				t.Errorf("%s: %d exchanges", c.name, n)
			}
			// The token is gone; the next run has a new one, and revokes nothing within the hour.
			requests := w.IdP.TokenRequests(sandbox.ClientID)
			report, err = p.Run(ctx)
			wantFault(t, c.name+", next run", err, "", "")
			if _, again := readingOf(report, revocationLag); again || w.IdP.TokenRequests(sandbox.ClientID) != requests+1 {
				t.Errorf("%s: revoked again %v, %d token requests more", c.name, again, w.IdP.TokenRequests(sandbox.ClientID)-requests)
			}
		})
	}
}

func TestRevocation_onlyOfADisposableIdentity(t *testing.T) {
	sandboxed(t, func(t *testing.T, _ *sandbox.World, env Env) {
		_, err := New("introspect", decodeInto(map[string]any{"Issuer": sandbox.Issuer, "Identity": sandbox.ClientID,
			"Revoke": true, "API": sandbox.Audience + "/v2/devices"}), env)
		if err == nil || !strings.Contains(err.Error(), "disposable") {
			t.Errorf("got %v, want a word about disposable", err)
		}
	})
}
