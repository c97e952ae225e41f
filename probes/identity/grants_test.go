package identity

import (
	"io"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

// askAPI asks the API of the sandbox as an http probe does, one step of the protocol included.
func askAPI(t *testing.T, n wire.Net, id Identity, path ...string) (statuses []int, g Grant) {
	t.Helper()
	client, err := wire.New(n, wire.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		req, _ := http.NewRequest(http.MethodGet, "https://"+sandbox.APIHost+append(path, "/v2/devices?page=1")[0], nil)
		if g, err = id.Apply(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		a, err := client.Ask(t.Context(), wire.Question{Request: req, Stage: evidence.StageAPI})
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, a.Exchange.Status)
		if !id.Settle(g, Outcome{Accepted: a.Exchange.Status == 200, Refused: a.Exchange.Status == 401, Status: a.Exchange.Status, Header: a.Header}) {
			break
		}
	}
	return statuses, g
}

func sandboxClient(v reflect.Value) {
	v.FieldByName("Issuer").SetString(sandbox.Issuer)
	v.FieldByName("ClientID").SetString(sandbox.ClientID)
	v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.ClientSecret))
	v.FieldByName("Audience").SetString(sandbox.Audience)
}

// TestGrants goes through every grant of the table, with a server that verifies it, up to a request that the API lets in.
func TestGrants(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		subject := file(t, "subject", []byte(w.IdP.Mint(sandbox.ClientID, nil)+"\n"))
		ways := map[string]func(v reflect.Value){
			"client_credentials": func(reflect.Value) {},
			"password": func(v reflect.Value) {
				v.FieldByName("Username").SetString(sandbox.User)
				v.FieldByName("Password").Set(ref("plain:" + sandbox.Password))
			},
			"jwt_bearer":     func(v reflect.Value) { v.FieldByName("PrivateKey").Set(ref(keyFile(t))) },
			"token_exchange": func(v reflect.Value) { v.FieldByName("SubjectToken").Set(ref(subject)) },
			"refresh_token": func(v reflect.Value) {
				v.FieldByName("ClientID").SetString(sandbox.WebID)
				v.FieldByName("ClientSecret").Set(ref("plain:" + sandbox.WebSecret))
				v.FieldByName("RefreshToken").Set(ref("plain:" + w.IdP.Consent(sandbox.WebID)))
				v.FieldByName("Exclusive").SetBool(true)
			},
		}
		for name := range grants {
			set, ok := ways[name]
			if !ok {
				t.Errorf("grant %s stands under no test: give it settings here", name)
				continue
			}
			id := buildIn(t, Env{Name: "x", Net: n, Store: newKept(), Jitter: func() float64 { return 0.5 }}, sandboxClient, func(v reflect.Value) { v.FieldByName("Grant").SetString(name) }, set)
			if statuses, g := askAPI(t, n, id); len(statuses) != 1 || statuses[0] != 200 || g.Scheme != "bearer" {
				t.Errorf("%s: %v by %s", name, statuses, g.Scheme)
			}
		}
	})
}

// A token of a workload, signed by somebody else, serves as assertion; it is read for each request.
func TestGrants_assertionOfAWorkload(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		path := filepath.Join(t.TempDir(), "assertion")
		write(t, path, []byte("not.a.jwt\n"))
		id := buildIn(t, Env{Name: "x", Net: n, Jitter: func() float64 { return 0.5 }}, sandboxClient, func(v reflect.Value) {
			v.FieldByName("Grant").SetString("jwt_bearer")
			v.FieldByName("Assertion").Set(ref("file:" + path))
		})
		if _, fault := apply(t, id); fault == nil || fault.Code != "invalid_grant" {
			t.Errorf("a bad assertion: %v", fault)
		}
		if seen := w.Saw("not.a.jwt"); len(seen) == 0 {
			t.Error("the assertion was not sent")
		}
	})
}

func TestDPoP(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		bound := func(more ...func(v reflect.Value)) Identity {
			return buildIn(t, Env{Name: "x", Net: n, Store: newKept(), Jitter: func() float64 { return 0.5 }}, append([]func(reflect.Value){sandboxClient, func(v reflect.Value) { v.FieldByName("DPoP").SetBool(true) }}, more...)...)
		}
		id := bound()
		if statuses, g := askAPI(t, n, id); len(statuses) != 1 || statuses[0] != 200 || g.Scheme != "dpop" {
			t.Fatalf("%v by %s", statuses, g.Scheme)
		}
		w.API.Set(func(f *sandbox.APIFaults) { f.DPoPNonce = "first" })
		for i, want := range []int{2, 1} { // the nonce is asked for once, and then known
			statuses, g := askAPI(t, n, id)
			if len(statuses) != want || statuses[len(statuses)-1] != 200 {
				t.Errorf("request %d: %v, want %d answers and the last one 200", i, statuses, want)
			}
			if g.Fresh {
				t.Error("a demand for a nonce made us drop the token")
			}
		}
		w.API.Set(func(f *sandbox.APIFaults) { f.DPoPNonce = "second" })
		if statuses, _ := askAPI(t, n, id); len(statuses) != 2 || statuses[1] != 200 {
			t.Errorf("with another nonce: %v", statuses)
		}
		w.API.Reset()
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.DPoPNonce = true })
		id = bound(func(v reflect.Value) { v.FieldByName("DPoPKey").Set(ref(keyFile(t))) })
		before := w.IdP.TokenRequests(sandbox.ClientID)
		if statuses, g := askAPI(t, n, id); statuses[len(statuses)-1] != 200 || len(g.Exchanges) != 3 { // discovery, demand, token
			t.Errorf("nonce at the issuer: %v, %d exchanges", statuses, len(g.Exchanges))
		}
		if n := w.IdP.TokenRequests(sandbox.ClientID) - before; n != 2 {
			t.Errorf("%d token requests, want 2", n)
		}
	})
}

// An issuer whose every answer is a demand for another nonce is asked twice, not for ever.
func TestDPoP_nonceWithoutEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		asked := 0
		w.IdP.Set(func(f *sandbox.IdPFaults) {
			f.Only, f.Answer = []string{"/token"}, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				asked++
				rw.Header().Set("DPoP-Nonce", strings.Repeat("n", asked))
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(rw, `{"error":"use_dpop_nonce"}`)
			})
		})
		id := buildIn(t, Env{Name: "x", Net: n, Jitter: func() float64 { return 0.5 }}, sandboxClient, func(v reflect.Value) { v.FieldByName("DPoP").SetBool(true) })
		if _, fault := apply(t, id); fault == nil || fault.Code != "use_dpop_nonce" || asked != 2 {
			t.Errorf("%v after %d requests, want 2", fault, asked)
		}
	})
}

// A server that ignores the proof gives a token that is not bound; it is used as what it is, and said.
func TestDPoP_ignored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.TokenType = "Bearer" })
		id := buildIn(t, Env{Name: "x", Net: n, Jitter: func() float64 { return 0.5 }}, sandboxClient, func(v reflect.Value) { v.FieldByName("DPoP").SetBool(true) })
		g, fault := apply(t, id)
		if fault != nil || g.Scheme != "bearer" || len(g.Notes) != 1 || g.Notes[0].Code != "dpop_not_bound" {
			t.Errorf("%v %s %v", fault, g.Scheme, g.Notes)
		}
	})
}

func TestGrants_settings(t *testing.T) {
	for _, c := range []struct {
		want string
		set  func(v reflect.Value)
	}{
		{"grant: ", func(v reflect.Value) { v.FieldByName("Grant").SetString("implicit") }},
		{"refresh_token: is missing", func(v reflect.Value) { v.FieldByName("Grant").SetString("refresh_token") }},
		{"exclusive: must be true", func(v reflect.Value) { v.FieldByName("Grant").SetString("refresh_token") }},
		{"private_key: is missing", func(v reflect.Value) { v.FieldByName("Grant").SetString("jwt_bearer") }},
		{"assertion_claims: aud is set by assertion_audience", func(v reflect.Value) {
			v.FieldByName("Grant").SetString("jwt_bearer")
			v.FieldByName("AssertionClaims").Set(reflect.ValueOf(map[string]string{"aud": "x"}))
		}},
		{"subject_token: is missing", func(v reflect.Value) { v.FieldByName("Grant").SetString("token_exchange") }},
		{"subject_token_type: ", func(v reflect.Value) {
			v.FieldByName("Grant").SetString("token_exchange")
			v.FieldByName("SubjectTokenType").SetString("bearer")
		}},
		{"dpop_key: is missing", func(v reflect.Value) {
			v.FieldByName("Grant").SetString("refresh_token")
			v.FieldByName("DPoP").SetBool(true)
		}},
		{"dpop_key: is of no use", func(v reflect.Value) { v.FieldByName("DPoPKey").Set(ref("plain:x")) }},
		{"parameters: assertion has a key of its own", func(v reflect.Value) {
			v.FieldByName("Parameters").Set(reflect.ValueOf(map[string]string{"assertion": "x"}))
		}},
	} {
		_, err := New("oauth2", func(into any) error {
			v := reflect.ValueOf(into).Elem()
			sandboxClient(v)
			c.set(v)
			return nil
		}, Env{Jitter: func() float64 { return 0 }})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q: %v", c.want, err)
		}
	}
}
