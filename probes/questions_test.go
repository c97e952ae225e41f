package probes

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// askedAs runs a probe once as the holder of a token and explains the run; settings are added to those of the probe.
func askedAs(t *testing.T, w *sandbox.World, token string, settings map[string]any) (Probe, evidence.Report, []diagnose.Finding) {
	t.Helper()
	env := testEnv()
	env.Net = wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
	t.Setenv("AUTHVIGIL_TEST_SECRET", token)
	env.Identity = func(string) (identity.Identity, error) {
		return identity.New("bearer", decodeText("Token", "env:AUTHVIGIL_TEST_SECRET"), identity.Env{Name: "x", Net: env.Net, Jitter: func() float64 { return 0 }, Log: env.Log})
	}
	all := map[string]any{"URL": "https://" + sandbox.APIHost + "/v2/devices", "Identity": "x"}
	for name, value := range settings {
		all[name] = value
	}
	p := makeProbe(t, "http", env, all)
	report, err := p.Run(t.Context())
	return p, report, findingsOf(p, report, err)
}

func findingsOf(p Probe, report evidence.Report, err error) []diagnose.Finding {
	about := p.About()
	return diagnose.Explain(diagnose.Case{Now: time.Now(), Sighting: diagnose.Sighting{Probe: "p", Kind: "http", Endpoint: about.Endpoint, Origin: about.Origin, Identity: "x", Scheme: "bearer", Issuer: sandbox.Issuer,
		Report: report, Fault: evidence.AsFault(err), RequiredScopes: about.RequiredScopes, Audience: about.Audience}})
}

func purposes(r evidence.Report) (list []string) {
	for _, x := range r.Exchanges {
		if x.Purpose != evidence.First {
			list = append(list, string(x.Purpose))
		}
	}
	return list
}

// TestHTTP_secondQuestions: what the API says alone leaves several causes open; the comparison does not.
func TestHTTP_secondQuestions(t *testing.T) {
	for _, c := range []struct {
		name     string
		fault    func(w *sandbox.World)
		settings map[string]any
		want     diagnose.Cause
		sure     diagnose.Sureness // empty: any
		asked    string
	}{
		{"the header is lost on the way", func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.StripAuthorization = true }) }, nil, diagnose.HeaderStripped, "", "no_credential ask_issuer ask_issuer"},
		{"the token is for somebody else", func(w *sandbox.World) {
			w.API.Set(func(f *sandbox.APIFaults) { f.WantAudience = "https://other.example.test" })
		}, nil, diagnose.TokenAudienceMismatch, "", "no_credential ask_issuer ask_issuer"},
		{"the API has old keys", func(w *sandbox.World) {
			w.API.Set(func(f *sandbox.APIFaults) { f.StaleKeys = true })
			w.IdP.Rotate(true)
		}, nil, diagnose.StaleJWKSAtAPI, diagnose.Certain, "no_credential ask_issuer ask_issuer"},
		{"the issuer does not publish its key", func(w *sandbox.World) {
			w.IdP.Rotate(true)
			w.IdP.Set(func(f *sandbox.IdPFaults) { f.WithholdKey = true })
		}, nil, diagnose.JWKSKeyMissing, diagnose.Certain, "no_credential ask_issuer ask_issuer"},
		{"the right is missing", func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.Denied = true }) }, nil, diagnose.PermissionDenied, "", "no_credential sibling"},
		{"a page that is not there", func(*sandbox.World) {}, map[string]any{"URL": "https://" + sandbox.APIHost + "/v9/devices"}, diagnose.EndpointNotFound, diagnose.Certain, "other_method sibling"},
		{"a firewall for all", func(w *sandbox.World) {
			w.API.Set(func(f *sandbox.APIFaults) {
				f.Answer = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					rw.Header().Set("Content-Type", "text/html")
					rw.WriteHeader(http.StatusForbidden)
					_, _ = rw.Write([]byte("<html><head><title>No</title></head><body>No.</body></html>"))
				})
			})
		}, nil, diagnose.BlockedByGateway, diagnose.Certain, "no_credential sibling"},
		{"signatures are not checked", func(w *sandbox.World) { w.API.Set(func(f *sandbox.APIFaults) { f.Open = true }) }, map[string]any{"CheckSignature": true}, diagnose.AuthorizationTooOpen, diagnose.Certain, "damaged_credential"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := sandbox.New()
				defer w.Close()
				c.fault(w)
				token := w.IdP.Mint(sandbox.ClientID, nil)
				p, report, f := askedAs(t, w, token, c.settings)
				if got := strings.Join(purposes(report), " "); got != c.asked {
					t.Errorf("asked %q, want %q", got, c.asked)
				}
				if len(f) == 0 || f[0].Cause != c.want || (c.sure != "" && f[0].Sure != c.sure) {
					t.Fatalf("got %+v, want %s (%s)", f, c.want, c.sure)
				}
				for _, x := range report.Exchanges[1:] { // a stranger shows nothing, and nobody shows the token elsewhere
					if x.Purpose != evidence.WithDamaged && x.Scheme != "none" {
						t.Errorf("%s was asked with %s", x.Purpose, x.Scheme)
					}
				}
				for _, line := range f[0].Because {
					if strings.Contains(line, token[len(token)-24:]) {
						t.Errorf("the evidence shows the token: %s", line)
					}
				}
				again, _ := p.Run(t.Context())
				if more := purposes(again); len(more) > 0 {
					t.Errorf("the second run asked again: %q", more)
				}
			})
		})
	}
}

// TestHTTP_checkSignatureLeavesGoodServersAlone: a server that checks is healthy, and is asked once a day.
func TestHTTP_checkSignatureLeavesGoodServersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sandbox.New()
		defer w.Close()
		p, report, f := askedAs(t, w, w.IdP.Mint(sandbox.ClientID, func(c map[string]any) { c["exp"] = 4102444800 }), map[string]any{"CheckSignature": true})
		if len(f) != 0 || len(purposes(report)) != 1 || report.Exchanges[1].Status != 401 {
			t.Fatalf("a good server: %+v, %+v", f, report.Exchanges)
		}
		if again, err := p.Run(t.Context()); err != nil || len(purposes(again)) != 0 {
			t.Errorf("asked again at once: %v, %v", purposes(again), err)
		}
	})
}

func TestDamage(t *testing.T) {
	for _, c := range []struct {
		proof string
		ok    bool
	}{{"Bearer eyJh.eyJi.c2lnbmF0dXJlLXNpZ25hdHVyZQ", true}, {"Bearer opaque", false}, {"Basic eyJh.eyJi.c2lnbmF0dXJlLXNpZ25hdHVyZQ", false}, {"Bearer a.b.c", false}, {"", false}} {
		got, ok := damage(c.proof)
		if ok != c.ok || ok && (got == c.proof || len(got) != len(c.proof) || got[:strings.LastIndexByte(got, '.')] != c.proof[:strings.LastIndexByte(c.proof, '.')]) {
			t.Errorf("%q: %q, %v", c.proof, got, ok)
		}
	}
}

// TestHTTP_thorough: who waits for a diagnosis gets every comparison at once, of a healthy endpoint as well.
func TestHTTP_thorough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := sandbox.New()
		defer w.Close()
		env := testEnv()
		env.Thorough = true
		env.Net = wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
		t.Setenv("AUTHVIGIL_TEST_SECRET", w.IdP.Mint(sandbox.ClientID, nil))
		env.Identity = func(string) (identity.Identity, error) {
			return identity.New("bearer", decodeText("Token", "env:AUTHVIGIL_TEST_SECRET"), identity.Env{Name: "x", Net: env.Net, Jitter: func() float64 { return 0 }, Log: env.Log})
		}
		p := makeProbe(t, "http", env, map[string]any{"URL": "https://" + sandbox.APIHost + "/v2/devices", "Identity": "x"})
		report, err := p.Run(t.Context())
		if got := strings.Join(purposes(report), " "); err != nil || got != "no_credential damaged_credential" {
			t.Errorf("healthy: asked %q, %v", got, err)
		}
		w.API.Set(func(f *sandbox.APIFaults) { f.Denied = true })
		for range 2 {
			if report, _ = p.Run(t.Context()); strings.Join(purposes(report), " ") != "no_credential sibling" {
				t.Errorf("refused: asked %q", purposes(report))
			}
		}
	})
}

// TestHTTP_asksAboutTheToken: a token that an API refuses without a word is looked at by its own server, where that is configured.
func TestHTTP_asksAboutTheToken(t *testing.T) {
	sandboxed(t, func(t *testing.T, w *sandbox.World, env Env) {
		w.API.Set(func(f *sandbox.APIFaults) {
			f.Answer = http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusUnauthorized) })
		})
		settings := map[string]any{"URL": "https://" + sandbox.APIHost + "/v2/devices", "Identity": sandbox.ClientID, "IntrospectURL": sandbox.Issuer + "/introspect"}
		p := makeProbe(t, "http", env, settings)
		report, err := p.Run(t.Context())
		if report.Token == nil || report.Token.Active != evidence.OK {
			t.Fatalf("the token is %+v, %v; asked %q", report.Token, err, purposes(report))
		}
		if f := findingsOf(p, report, err)[0]; !strings.Contains(strings.Join(f.Because, "\n"), "says that it is active") {
			t.Errorf("the finding does not tell: %q", f.Because)
		}
		report.Token.Active = evidence.Fail
		if f := findingsOf(p, report, err)[0]; f.Cause != diagnose.TokenRevoked {
			t.Errorf("not active: %s (%s) %q", f.Cause, f.Sure, f.Because)
		}
		delete(settings, "IntrospectURL")
		if report, _ = makeProbe(t, "http", env, settings).Run(t.Context()); report.Token.Active != "" {
			t.Error("it was asked without being told to")
		}
	})
}
