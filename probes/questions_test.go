package probes

import (
	"testing"
	"testing/synctest"

	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// TestHTTP_withoutCredentialTellsALostHeader: the API behind a proxy that drops the header answers the same with a credential
// and without; one that refuses the token does not. The question is asked once in twenty failures.
func TestHTTP_withoutCredentialTellsALostHeader(t *testing.T) {
	for _, c := range []struct {
		fault func(*sandbox.APIFaults)
		want  diagnose.Cause
	}{
		{func(f *sandbox.APIFaults) { f.StripAuthorization = true }, diagnose.HeaderStripped},
		{func(f *sandbox.APIFaults) { f.WantAudience = "https://other.example.test" }, diagnose.TokenAudienceMismatch},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := sandbox.New()
			defer w.Close()
			w.API.Set(c.fault)
			env := testEnv()
			env.Net = wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
			t.Setenv("AUTHVIGIL_TEST_SECRET", w.IdP.Mint(sandbox.ClientID, nil))
			env.Identity = func(string) (identity.Identity, error) {
				return identity.New("bearer", decodeText("Token", "env:AUTHVIGIL_TEST_SECRET"), identity.Env{Name: "x", Net: env.Net, Jitter: func() float64 { return 0 }, Log: env.Log})
			}
			p := makeProbe(t, "http", env, map[string]any{"URL": "https://" + sandbox.APIHost + "/v2/devices", "Identity": "x"})
			report, err := p.Run(t.Context())
			asked := 0
			for _, x := range report.Exchanges {
				if x.Purpose == evidence.WithoutGrant {
					asked++
				}
			}
			if asked != 1 {
				t.Errorf("asked without a credential %d times", asked)
			}
			about := p.About()
			f := diagnose.Explain(diagnose.Case{Sighting: diagnose.Sighting{Probe: "p", Kind: "http", Endpoint: about.Endpoint, Origin: about.Origin, Identity: "x", Scheme: "bearer", Report: report, Fault: evidence.AsFault(err)}})
			if len(f) == 0 || f[0].Cause != c.want {
				t.Errorf("got %v, want %s", f, c.want)
			}
			if again, _ := p.Run(t.Context()); len(again.Exchanges) != 1 {
				t.Errorf("the second failure asked %d times", len(again.Exchanges))
			}
		})
	}
}
