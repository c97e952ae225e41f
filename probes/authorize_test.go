package probes

import (
	"net/http"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
)

func TestAuthorize_whatMustBeAcceptedAndRefused(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		for _, c := range []struct {
			name    string
			before  func(f *sandbox.IdPFaults)
			change  map[string]any
			symptom evidence.Symptom
			code    string
			asked   int // of the authorization endpoint
		}{
			{"all is well", nil, nil, "", "", 6},
			{"another redirect URI than the registered one", nil, map[string]any{"RedirectURI": "https://app.example.test/other"}, evidence.SymptomRuleViolated, "redirect_uri", 1},
			{"an unknown client", nil, map[string]any{"ClientID": "nobody"}, evidence.SymptomTokenRefused, "invalid_client", 1},
			{"redirects anywhere", func(f *sandbox.IdPFaults) { f.AnyRedirect = true }, nil, evidence.SymptomGranted, "open_redirect", 6},
			{"loses state", func(f *sandbox.IdPFaults) { f.LoseState = true }, nil, evidence.SymptomRuleViolated, "state", 6},
			{"changes state", func(f *sandbox.IdPFaults) { f.ChangeState = true }, nil, evidence.SymptomRuleViolated, "state", 6},
			{"loses state and redirects anywhere", func(f *sandbox.IdPFaults) { f.ChangeState, f.AnyRedirect = true, true }, nil, evidence.SymptomGranted, "open_redirect", 6},
			{"does without PKCE", func(f *sandbox.IdPFaults) { f.WithoutPKCE = true }, nil, evidence.SymptomRuleViolated, "pkce", 6},
			{"does without PKCE, as configured", func(f *sandbox.IdPFaults) { f.WithoutPKCE = true }, map[string]any{"PKCE": false}, "", "", 5},
			{"a scope that is not allowed", nil, map[string]any{"Scopes": []string{"everything"}}, evidence.SymptomTokenRefused, "invalid_scope", 1},
			{"an endpoint without an issuer to compare with", nil, map[string]any{"URL": sandbox.Issuer + "/authorize", "Issuer": ""}, "", "", 6},
			{"fails", func(f *sandbox.IdPFaults) { f.Answer = sandbox.Status(http.StatusServiceUnavailable) }, map[string]any{"URL": sandbox.Issuer + "/authorize", "Issuer": ""}, evidence.SymptomServerError, "503", 1},
			{"a page that complains with 200", func(f *sandbox.IdPFaults) {
				f.Answer = sandbox.HTML(200, "<title>Error</title><p>AADSTS50011: The redirect URI specified in the request does not match</p>")
			}, map[string]any{"URL": sandbox.Issuer + "/authorize", "Issuer": ""}, evidence.SymptomRuleViolated, "redirect_uri", 1},
		} {
			values := map[string]any{"Issuer": sandbox.Issuer, "ClientID": sandbox.WebID, "RedirectURI": sandbox.RedirectURI}
			for k, v := range c.change {
				values[k] = v
			}
			p := makeProbe(t, "authorize", env, values)
			if c.before != nil {
				w.IdP.Set(c.before)
			}
			report, err := p.Run(t.Context())
			w.IdP.Reset()
			wantFault(t, c.name, err, c.symptom, c.code)
			asked := 0
			for _, x := range report.Exchanges {
				if x.Purpose == evidence.First || x.Purpose == evidence.MustRefuse {
					asked++
				}
			}
			if asked != c.asked {
				t.Errorf("%s: asked %d times, want %d", c.name, asked, c.asked)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestAuthorize_loginPages: servers that know no prompt=none show a login page, and refuse strangers by a page of their own.
func TestAuthorize_loginPages(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		login := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			switch {
			case q.Get("redirect_uri") != sandbox.RedirectURI, q.Get("response_type") != "code", q.Get("code_challenge") == "":
				http.Error(rw, "invalid request", http.StatusBadRequest)
			default:
				http.Redirect(rw, r, "/login?next=x", http.StatusFound)
			}
		})
		lax := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/login?next=x", http.StatusFound)
		})
		values := map[string]any{"URL": sandbox.Issuer + "/authorize", "ClientID": sandbox.WebID, "RedirectURI": sandbox.RedirectURI}
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer = login })
		_, err := makeProbe(t, "authorize", env, values).Run(t.Context())
		wantFault(t, "a strict server", err, "", "")
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer = lax })
		_, err = makeProbe(t, "authorize", env, values).Run(t.Context())
		wantFault(t, "a server that shows its login to everything", err, evidence.SymptomGranted, "response_type")
	})
}

func TestAuthorize_refusesSettings(t *testing.T) {
	for _, values := range []map[string]any{
		{"URL": "https://auth.example.test/", "ClientID": "x"},
		{"URL": "https://auth.example.test/", "RedirectURI": "https://app.example.test/"},
		{"ClientID": "x", "RedirectURI": "https://app.example.test/"},
		{"URL": "https://auth.example.test/", "ClientID": "x", "RedirectURI": "/relative"},
		{"URL": "https://auth.example.test/", "ClientID": "x", "RedirectURI": "https://app.example.test/#f"},
		{"URL": "https://auth.example.test/", "ClientID": "x", "RedirectURI": "https://app.example.test/", "Foreign": "https://app.example.test/x"},
		{"URL": "https://auth.example.test/", "ClientID": "x", "RedirectURI": "https://app.example.test/", "RefuseTypes": []string{"code"}},
	} {
		if _, err := New("authorize", decodeInto(values), testEnv()); err == nil {
			t.Errorf("%v passed", values)
		}
	}
}
