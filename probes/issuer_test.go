package probes

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
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

// An issuerWorld is a sandbox with a probe of its issuer.
type issuerWorld struct {
	*sandbox.World
	t     *testing.T
	env   Env
	probe Probe
	clock *evidence.Clock
}

// inIssuerWorld makes the probe with an identity that asks the issuer for tokens, in a bubble.
func inIssuerWorld(t *testing.T, settings map[string]any, f func(w *issuerWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &issuerWorld{World: sandbox.New(), t: t, env: testEnv()}
		defer w.Close()
		w.env.Net = wire.Net{Lookup: w.Lookup, Dial: w.Dial, Roots: w.Roots()}
		w.env.Store = kept{}
		w.env.Clock = func() (evidence.Clock, bool) {
			if w.clock == nil {
				return evidence.Clock{}, false
			}
			return *w.clock, true
		}
		who, err := identity.New("oauth2", func(into any) error {
			v := reflect.ValueOf(into).Elem()
			v.FieldByName("TokenURL").SetString(sandbox.Issuer + "/token")
			v.FieldByName("ClientID").SetString(sandbox.ClientID)
			return v.FieldByName("ClientSecret").Addr().Interface().(interface{ UnmarshalText([]byte) error }).UnmarshalText([]byte("plain:" + sandbox.ClientSecret))
		}, identity.Env{Name: "x", Net: w.env.Net, Jitter: func() float64 { return 0 }, Log: w.env.Log})
		if err != nil {
			t.Fatal(err)
		}
		w.env.Identity = func(string) (identity.Identity, error) { return who, nil }
		all := map[string]any{"Issuer": sandbox.Issuer, "Identity": "x"}
		for name, value := range settings {
			all[name] = value
		}
		w.probe = makeProbe(t, "issuer", w.env, all)
		f(w)
	})
}

// kept is a store in memory.
type kept map[string][]byte

func (k kept) Load(key string) ([]byte, error)     { return k[key], nil }
func (k kept) Save(key string, value []byte) error { k[key] = value; return nil }

// look runs the probe once, and gives what it found.
func (w *issuerWorld) look() (evidence.Report, *evidence.Fault, []diagnose.Finding) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	report, err := w.probe.Run(ctx)
	fault := evidence.AsFault(err)
	a := w.probe.About()
	findings := diagnose.Explain(diagnose.Case{Now: time.Now(), World: diagnose.World{Clock: w.clock, Peers: report.Peers}, Sighting: diagnose.Sighting{
		Probe: "p", Kind: "issuer", Endpoint: a.Endpoint, Origin: a.Origin, Identity: a.Identity, Issuer: a.Issuer, Report: report, Fault: fault, Audience: a.Audience}})
	return report, fault, findings
}

// wants compares the first finding.
func (w *issuerWorld) wants(name string, cause diagnose.Cause, culprit, word string) evidence.Report {
	w.t.Helper()
	report, fault, findings := w.look()
	switch {
	case cause == "":
		if fault != nil || len(findings) > 0 {
			w.t.Errorf("%s: got %v and %v, want a healthy issuer", name, fault, findings)
		}
	case len(findings) == 0:
		w.t.Errorf("%s: no finding (fault %v), want %s", name, fault, cause)
	case findings[0].Cause != cause || findings[0].Culprit != culprit || findings[0].Sure != diagnose.Certain:
		w.t.Errorf("%s: got %s %s %s, want %s %s\nfault %v", name, findings[0].Sure, findings[0].Cause, findings[0].Culprit, cause, culprit, fault)
	case !strings.Contains(strings.Join(findings[0].Because, "\n"), word):
		w.t.Errorf("%s: the evidence does not name %q:\n%s", name, word, strings.Join(findings[0].Because, "\n"))
	}
	return report
}

const (
	byIssuer   = "issuer:" + sandbox.Issuer
	byKeySet   = "keyset:" + sandbox.Issuer
	byIdentity = "identity:x"
)

// TestIssuer_faultList goes through what can be wrong with documents, keys and the token, one at a time: each is named, and
// when it is gone the issuer is well.
func TestIssuer_faultList(t *testing.T) {
	good := `{"kty":"EC","crv":"P-256","kid":"other","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	for _, c := range []struct {
		name     string
		settings map[string]any
		set      func(f *sandbox.IdPFaults)
		cause    diagnose.Cause
		culprit  string
		word     string
	}{
		{"another issuer", nil, func(f *sandbox.IdPFaults) { f.MetadataIssuer = "https://other.example.test" }, diagnose.IssuerDrift, byIssuer, "other.example.test"},
		{"a slash too many", nil, func(f *sandbox.IdPFaults) { f.MetadataIssuer = sandbox.Issuer + "/" }, diagnose.IssuerDrift, byIssuer, "slash"},
		{"a page for the metadata", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.LoginPage(), []string{"/.well-known"} }, diagnose.DiscoveryUnusable, byIssuer, "HTML"},
		{"a redirect to a login", nil, func(f *sandbox.IdPFaults) {
			f.Answer, f.Only = sandbox.RedirectTo(http.StatusFound, "https://login.example.test/"), []string{"/.well-known"}
		}, diagnose.DiscoveryUnusable, byIssuer, "login.example.test"},
		{"metadata of 5 MiB", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.HugeBody(5<<20), []string{"/.well-known"} }, diagnose.DiscoveryUnusable, byIssuer, "longer than 256 KiB"},
		{"no metadata", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.Status(404), []string{"/.well-known"} }, diagnose.DiscoveryUnusable, byIssuer, "404"},
		{"metadata fail", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.Status(503), []string{"/.well-known"} }, diagnose.IDPUnavailable, byIssuer, "503"},
		{"nobody there", nil, func(f *sandbox.IdPFaults) { f.Line = sandbox.Refused }, diagnose.IDPUnavailable, byIssuer, "refused"},
		{"name gone", nil, func(f *sandbox.IdPFaults) { f.Line = sandbox.NoSuchName }, diagnose.DNSFailure, byIssuer, "no such host"},
		{"certificate expired", nil, func(f *sandbox.IdPFaults) { f.Certificate.NotAfter = time.Now().Add(-time.Hour) }, diagnose.TLSCertExpired, byIssuer, "ended"},
		{"no key set named", nil, func(f *sandbox.IdPFaults) { f.Metadata = map[string]any{"jwks_uri": nil} }, diagnose.DiscoveryUnusable, byIssuer, "jwks_uri"},
		{"an endpoint without TLS", nil, func(f *sandbox.IdPFaults) {
			f.Metadata = map[string]any{"userinfo_endpoint": "http://auth.example.test/userinfo"}
		}, diagnose.IssuerDrift, byIssuer, "without TLS"},
		{"an endpoint elsewhere", map[string]any{"EndpointHosts": []string{"*.auth.example.test"}}, func(f *sandbox.IdPFaults) {
			f.Metadata = map[string]any{"revocation_endpoint": "https://evil.test/revoke"}
		}, diagnose.IssuerDrift, byIssuer, "endpoint_hosts"},
		{"key set fails", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.Status(500), []string{"/jwks"} }, diagnose.JWKSUnusable, byKeySet, "answered 500"},
		{"key set hangs up", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.HangUp(), []string{"/jwks"} }, diagnose.JWKSUnusable, byKeySet, "cannot be had"},
		{"key set never comes", nil, func(f *sandbox.IdPFaults) { f.Delay, f.Only = time.Hour, []string{"/jwks"} }, diagnose.JWKSUnusable, byKeySet, "cannot be had"},
		{"key set of 5 MiB", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.HugeBody(5<<20), []string{"/jwks"} }, diagnose.JWKSUnusable, byKeySet, "longer than 512 KiB"},
		{"a page for the key set", nil, func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.LoginPage(), []string{"/jwks"} }, diagnose.JWKSUnusable, byKeySet, "HTML"},
		{"empty key set", nil, func(f *sandbox.IdPFaults) { f.KeySet = `{"keys":[]}` }, diagnose.JWKSUnusable, byKeySet, "no key"},
		{"no keys", nil, func(f *sandbox.IdPFaults) { f.KeySet = `{}` }, diagnose.JWKSUnusable, byKeySet, "no member keys"},
		{"only broken keys", nil, func(f *sandbox.IdPFaults) { f.KeySet = `{"keys":[{"kty":"RSA","kid":"a"},17]}` }, diagnose.JWKSUnusable, byKeySet, "none of the 2 keys"},
		{"key withheld", nil, func(f *sandbox.IdPFaults) { f.KeySet = `{"keys":[` + good + `]}` }, diagnose.JWKSKeyRemovedEarly, byKeySet, "key-1"},
		{"token with a lost kid", nil, func(f *sandbox.IdPFaults) { f.TokenKid = "lost" }, diagnose.JWKSKeyMissing, byKeySet, `"lost"`},
		{"token without signature", nil, func(f *sandbox.IdPFaults) { f.TokenAlg = "none" }, diagnose.TokenSignatureInvalid, byIssuer, "no signature"},
		{"token with a shared secret", nil, func(f *sandbox.IdPFaults) { f.TokenAlg = "HS256" }, diagnose.TokenAlgorithmUnsupported, byIssuer, "HS256"},
		{"token of another issuer", nil, func(f *sandbox.IdPFaults) { f.TokenIssuer = sandbox.Issuer + "/" }, diagnose.TokenIssuerMismatch, byIssuer, "slash"},
		{"token of another type", map[string]any{"TokenType": "at+jwt"}, func(f *sandbox.IdPFaults) { f.TokenTyp = "JWT" }, diagnose.TokenMalformed, byIssuer, `"JWT"`},
		{"token for others", map[string]any{"Audience": sandbox.Audience}, func(f *sandbox.IdPFaults) { f.TokenAudience = "https://other.example.test" }, diagnose.TokenAudienceMismatch, byIdentity, "other.example.test"},
		{"token not valid yet", nil, func(f *sandbox.IdPFaults) { f.NotBefore = 10 * time.Minute }, diagnose.TokenNotYetValid, byIssuer, "10 min"},
		{"key set kept too long", nil, func(f *sandbox.IdPFaults) { f.KeySetHeader = http.Header{"Cache-Control": {"public, max-age=604800"}} }, diagnose.JWKSCacheUnsuitable, byKeySet, "max_cache"},
		{"life promised is not that of the token", nil, func(f *sandbox.IdPFaults) { f.ExpiresIn = "60" }, diagnose.IssuerDrift, byIssuer, "promised"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inIssuerWorld(t, c.settings, func(w *issuerWorld) {
				w.wants("before", "", "", "")
				w.IdP.Set(c.set)
				time.Sleep(6 * time.Minute) // the next token is due
				w.wants("fault", c.cause, c.culprit, c.word)
				w.IdP.Reset()
				time.Sleep(25 * time.Hour) // changes are told for a day
				if report, fault, _ := w.look(); fault != nil {
					t.Errorf("after: %v, problems %v", fault, report.Issuer.Problems)
				}
			})
		})
	}
}

// TestIssuer_oneBadKeyBlindsNobody: with every fault of a key beside a good one, the token is verified all the same, and
// each bad key is named by kid or number.
func TestIssuer_keysBesideAGoodOne(t *testing.T) {
	rsa1024 := `"n":"` + strings.Repeat("_", 172) + `","e":"AQAB"`
	for _, c := range []struct {
		name, key string
		cause     diagnose.Cause
		word      string
		fails     bool
	}{
		{"no object", `17`, diagnose.JWKSKeyUnusable, "key number 1 is no JSON object", false},
		{"no type", `{"kid":"a"}`, diagnose.JWKSKeyUnusable, `key "a" has no type`, false},
		{"kid is a number", `{"kid":7,"kty":"RSA"}`, diagnose.JWKSKeyUnusable, "key number 1 has a member kid", false},
		{"modulus is no base64url", `{"kid":"a","kty":"RSA","alg":"RS256","use":"sig","n":"+/=","e":"AQAB"}`, diagnose.JWKSKeyUnusable, "base64url", false},
		{"point is not on the curve", `{"kid":"a","kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"AAAA","y":"AAAA"}`, diagnose.JWKSKeyUnusable, "no point", false},
		{"algorithm of another type", `{"kid":"a","kty":"RSA","alg":"ES256","use":"sig",` + rsa1024 + `}`, diagnose.JWKSKeyUnusable, "needs EC", false},
		{"symmetric, without its secret", `{"kid":"a","kty":"oct"}`, diagnose.JWKSKeyUnusable, "symmetric", false},
		{"RSA 1024", `{"kid":"a","kty":"RSA","alg":"RS256","use":"sig",` + rsa1024 + `}`, diagnose.JWKSKeyWeak, "1032 bits", true},
		{"private exponent", `{"kid":"a","kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}`, diagnose.JWKSPrivateKey, `key "a" is published with its private part (d)`, true},
		{"symmetric, with its secret", `{"kid":"a","kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ"}`, diagnose.JWKSPrivateKey, "(k)", true},
		{"the same kid for two", `{"kid":"key-1","kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`, diagnose.JWKSKeyReused, "two different keys", true},
		{"no kid", `{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`, diagnose.JWKSKeyUnusable, "have no kid", false},
		{"x5c is no certificate", `{"kid":"a","kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","x5c":["AAAA"]}`, diagnose.JWKSKeyUnusable, "cannot be read", false},
		{"a curve that few know", `{"kid":"a","kty":"EC","crv":"secp256k1","x":"AAAA","y":"AAAA"}`, "", "secp256k1", false},
		{"post-quantum", `{"kid":"a","kty":"AKP","alg":"ML-DSA-44","pub":"AAAA"}`, "", "AKP", false},
		{"says neither alg nor use", `{"kid":"a","kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`, "", "says no alg and no use", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inIssuerWorld(t, nil, func(w *issuerWorld) {
				own := w.keySet()
				w.IdP.Set(func(f *sandbox.IdPFaults) { f.KeySet = `{"keys":[` + c.key + `,` + own + `]}` })
				report, fault, findings := w.look()
				if report.Token == nil || report.Token.Signature != evidence.SignatureValid {
					t.Errorf("the token was not verified: %+v", report.Token)
				}
				if (fault != nil) != c.fails {
					t.Errorf("got fault %v", fault)
				}
				said := fmt.Sprint(report.Issuer.Problems, report.Notes)
				if !strings.Contains(said, c.word) {
					t.Errorf("%q is not named in %s", c.word, said)
				}
				if got := append(findings, diagnose.Finding{})[0]; got.Cause != c.cause || (c.cause != "" && got.Culprit != byKeySet) {
					t.Errorf("got %s %s, want %s", got.Cause, got.Culprit, c.cause)
				}
				if strings.Contains(fmt.Sprint(report, fault, findings), "870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE") {
					t.Error("the private key is shown")
				}
			})
		})
	}
}

// keySet gives the keys that the issuer publishes, without the list around them.
func (w *issuerWorld) keySet() string {
	w.t.Helper()
	client, err := wire.New(w.env.Net, wire.Settings{})
	if err != nil {
		w.t.Fatal(err)
	}
	req, _ := http.NewRequest(http.MethodGet, sandbox.Issuer+"/jwks", nil)
	answer, err := client.Ask(w.t.Context(), wire.Question{Request: req})
	if err != nil {
		w.t.Fatal(err)
	}
	text := string(answer.Body)
	start, end := strings.IndexByte(text, '['), strings.LastIndexByte(text, ']')
	if start < 0 || end < start {
		w.t.Fatal(text)
	}
	return text[start+1 : end]
}

// TestIssuer_rotation lives through rotations: a good one is a change and no fault, one that is too fast for caches is told,
// and one that leaves tokens in use without their key is a fault.
func TestIssuer_rotation(t *testing.T) {
	inIssuerWorld(t, map[string]any{"TokenEvery": time.Duration(0)}, func(w *issuerWorld) {
		w.wants("before", "", "", "")
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.KeySetHeader = http.Header{"Cache-Control": {"max-age=3600"}} })
		w.IdP.Rotate(true)
		report := w.wants("new key beside the old", "", "", "")
		if len(report.Issuer.Changes) != 1 || report.Issuer.Changes[0].To != "key-2" {
			t.Errorf("changes: %+v", report.Issuer.Changes)
		}
		time.Sleep(58 * time.Minute) // the token ends, the next one is signed with the new key
		report = w.wants("new key signs", diagnose.JWKSCacheUnsuitable, byKeySet, "before it signed")
		if v, ok := reading(report, issuerOverlap); !ok || v < 3400 || v > 3600 {
			t.Errorf("overlap is %v", v)
		}
		w.IdP.Rotate(false)
		w.wants("old keys gone", diagnose.JWKSKeyRemovedEarly, byKeySet, `"key-2"`)
		time.Sleep(2 * time.Hour)
		if report, fault, _ := w.look(); fault != nil {
			t.Errorf("after the last old token: %v %v", fault, report.Issuer.Problems)
		}
	})
}

// TestIssuer_sameKidForANewKey: the name of a key is given anew.
func TestIssuer_sameKidForANewKey(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.wants("before", "", "", "")
		w.IdP.Set(func(f *sandbox.IdPFaults) {
			f.KeySet = `{"keys":[{"kty":"EC","crv":"P-256","kid":"key-1","alg":"ES256","use":"sig","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`
		})
		_, fault, findings := w.look()
		if fault == nil || fault.Code != "token_signature" || len(findings) < 2 || findings[1].Cause != diagnose.JWKSKeyReused {
			t.Errorf("got %v and %v", fault, findings)
		}
	})
}

// TestIssuer_cacheOnTheWay: the issuer publishes the key, and a cache serves the set of before.
func TestIssuer_cacheOnTheWay(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.wants("before", "", "", "")
		w.IdP.Rotate(true)
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.OldKeySet, f.KeySetHeader = true, http.Header{"Age": {"1200"}} })
		time.Sleep(6 * time.Minute)
		w.wants("stale", diagnose.JWKSCacheUnsuitable, byKeySet, "cache on the way")
	})
}

// TestIssuer_metadataDrift: the field is named with both values, also after a restart, for a day, and not once it is back.
func TestIssuer_metadataDrift(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.wants("before", "", "", "")
		w.probe = makeProbe(t, "issuer", w.env, map[string]any{"Issuer": sandbox.Issuer, "Identity": "x"}) // a restart
		w.IdP.Set(func(f *sandbox.IdPFaults) {
			f.Metadata = map[string]any{"userinfo_endpoint": sandbox.Issuer + "/v2/userinfo", "grant_types_supported": []string{"client_credentials"}}
		})
		report := w.wants("changed", diagnose.IssuerMetadataChanged, byIssuer, `userinfo_endpoint changed at`)
		if len(report.Issuer.Changes) != 2 || !strings.Contains(report.Issuer.Changes[1].To, "/v2/userinfo") {
			t.Errorf("changes: %+v", report.Issuer.Changes)
		}
		time.Sleep(23 * time.Hour)
		w.wants("a day later", diagnose.IssuerMetadataChanged, byIssuer, "/v2/userinfo")
		time.Sleep(2 * time.Hour)
		w.wants("used to it", "", "", "")
		w.IdP.Reset()
		w.look()
		time.Sleep(25 * time.Hour)
		w.wants("back", "", "", "")
	})
}

// TestIssuer_algorithmChanges: tokens signed in another way than before are told of.
func TestIssuer_expectedAlgorithm(t *testing.T) {
	inIssuerWorld(t, map[string]any{"Algorithms": []string{"RS256"}}, func(w *issuerWorld) {
		w.wants("unexpected", diagnose.TokenAlgorithmUnsupported, byIssuer, "ES256; expected is RS256")
	})
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.look()
		p := w.probe.(faulty).Probe.(*issuerProbe)
		p.memory.Alg = "RS256" // as it was in an earlier life of the issuer
		w.wants("changed", diagnose.AlgorithmChanged, byIssuer, "RS256")
	})
}

// TestIssuer_tokenEndpointDown: the token in use works for most of an hour, and the outage is seen after minutes all the
// same, asked for no more often than the gates allow, and is over with the first new token.
func TestIssuer_tokenEndpointDown(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.wants("before", "", "", "")
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Answer, f.Only = sandbox.Status(503), []string{"/token"} })
		w.wants("token in use", "", "", "")
		asked := len(w.Requests())
		failed := 0
		for range 40 {
			time.Sleep(30 * time.Second)
			if _, fault, findings := w.look(); fault != nil {
				failed++
				if findings[0].Cause != diagnose.IDPUnavailable || findings[0].Culprit != byIssuer {
					t.Fatalf("got %+v", findings[0])
				}
			}
		}
		tokens := 0
		for _, r := range w.Requests()[asked:] {
			if r.Path == "/token" {
				tokens++
			}
		}
		if failed < 28 || tokens < 2 || tokens > 12 {
			t.Errorf("of 40 runs in 20 minutes %d failed, with %d requests for a token", failed, tokens)
		}
		w.IdP.Reset()
		time.Sleep(30 * time.Minute)
		w.wants("after", "", "", "")
	})
}

// TestIssuer_clocks: whose clock is wrong decides who is blamed for a token that looks untimely.
func TestIssuer_clocks(t *testing.T) {
	right := &evidence.Clock{Confidence: evidence.Confident, Bound: 10 * time.Millisecond}
	wrong := func(skew time.Duration) *evidence.Clock {
		return &evidence.Clock{Skew: skew, Confidence: evidence.Confident, Bound: 10 * time.Millisecond}
	}
	for _, c := range []struct {
		name    string
		issuer  time.Duration // ahead of local
		clock   *evidence.Clock
		cause   diagnose.Cause
		culprit string
	}{
		{"issuer ahead, local right", 10 * time.Minute, right, diagnose.ClockSkew, byIssuer},
		{"local behind", 10 * time.Minute, wrong(-10 * time.Minute), diagnose.ClockSkew, "host"},
		{"nobody knows", 10 * time.Minute, nil, diagnose.TokenNotYetValid, byIssuer},
		{"local ahead", -2 * time.Hour, wrong(2 * time.Hour), diagnose.ClockSkew, "host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inIssuerWorld(t, nil, func(w *issuerWorld) {
				if c.clock != nil {
					clock := *c.clock
					clock.Measured = time.Now()
					w.clock = &clock
				}
				w.IdP.Set(func(f *sandbox.IdPFaults) { f.Clock = c.issuer })
				_, fault, findings := w.look()
				if len(findings) == 0 || findings[0].Cause != c.cause || findings[0].Culprit != c.culprit {
					t.Errorf("got %v, %+v; want %s %s", fault, findings, c.cause, c.culprit)
				}
			})
		})
	}
}

// TestIssuer_endpointCertificates: every server that the metadata name shows its certificate, and a bad one is blamed by its
// own name.
func TestIssuer_endpointCertificates(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		other := w.Serve("https://keys.example.test", http.NotFoundHandler())
		w.IdP.Set(func(f *sandbox.IdPFaults) {
			f.Metadata = map[string]any{"userinfo_endpoint": "https://keys.example.test/userinfo"}
		})
		w.wants("good", "", "", "")
		other.Set(func(f *sandbox.Faults) { f.Certificate.NotAfter = time.Now().Add(-time.Hour) })
		time.Sleep(11 * time.Minute)
		w.wants("expired", diagnose.TLSCertExpired, "endpoint:keys.example.test:443", "keys.example.test")
		other.Set(func(f *sandbox.Faults) { *f = sandbox.Faults{Line: sandbox.Refused} })
		w.wants("gone", diagnose.IDPUnavailable, byIssuer, "cannot be reached")
		other.Reset()
		w.wants("back", "", "", "")
	})
}

// TestIssuer_resourceMetadata compares with what a resource says of itself (RFC 9728).
func TestIssuer_resourceMetadata(t *testing.T) {
	inIssuerWorld(t, map[string]any{"Resource": "https://files.example.test/v1"}, func(w *issuerWorld) {
		doc := ""
		w.Serve("https://files.example.test", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/.well-known/oauth-protected-resource/v1" || doc == "" {
				http.NotFound(rw, r)
				return
			}
			fmt.Fprint(rw, doc)
		}))
		w.wants("none", diagnose.IssuerDrift, byIssuer, "404")
		doc = `{"resource":"https://files.example.test/","authorization_servers":["` + sandbox.Issuer + `"]}`
		w.wants("of another", diagnose.IssuerDrift, byIssuer, "files.example.test/v1")
		doc = `{"resource":"https://files.example.test/v1","authorization_servers":["https://other.example.test"]}`
		w.wants("of another issuer", diagnose.IssuerDrift, byIssuer, "other.example.test")
		doc = `{"resource":"https://files.example.test/v1","authorization_servers":["` + sandbox.Issuer + `"]}`
		w.wants("good", "", "", "")
	})
}

// TestIssuer_whereMetadataAre: both rules, in their order, for issuers with and without a path.
func TestIssuer_whereMetadataAre(t *testing.T) {
	for _, c := range []struct{ issuer, discovery, url, want string }{
		{"https://a.test", "auto", "", "https://a.test/.well-known/openid-configuration https://a.test/.well-known/oauth-authorization-server"},
		{"https://a.test/", "oidc", "", "https://a.test/.well-known/openid-configuration"},
		{"https://a.test/t/1", "oauth", "", "https://a.test/.well-known/oauth-authorization-server/t/1"},
		{"https://a.test/t/1", "auto", "", "https://a.test/t/1/.well-known/openid-configuration https://a.test/.well-known/oauth-authorization-server/t/1 https://a.test/.well-known/openid-configuration/t/1"},
		{"https://a.test/t/1", "auto", "https://b.test/m", "https://b.test/m"},
	} {
		p := makeProbe(t, "issuer", testEnv(), map[string]any{"Issuer": c.issuer, "Discovery": c.discovery, "MetadataURL": c.url}).(faulty).Probe.(*issuerProbe)
		if got := strings.Join(p.metadataAddresses(), " "); got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.issuer, c.discovery, got, c.want)
		}
	}
}

// TestIssuer_privateAddressesAreGuarded: the metadata of a public issuer lead nowhere private.
func TestIssuer_privateAddressesAreGuarded(t *testing.T) {
	inIssuerWorld(t, nil, func(w *issuerWorld) {
		w.IdP.Set(func(f *sandbox.IdPFaults) { f.Metadata = map[string]any{"jwks_uri": "https://169.254.169.254/keys"} })
		_, fault, _ := w.look()
		if fault == nil || !strings.Contains(fault.Error(), "not public") {
			t.Errorf("got %v", fault)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	for _, seed := range []string{`{"keys":[]}`, `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"","y":""}]}`, `{"keys":[null,1,"",[],{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","x5c":["AA=="]}]}`, `<html>`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, problems, err := parseKeySet(b, time.Unix(1.7e9, 0))
		if err != nil && (len(keys) > 0 || len(problems) > 0) || len(keys) > maxKeys {
			t.Errorf("%d keys, %d problems and %v", len(keys), len(problems), err)
		}
		for _, p := range problems {
			if _, known := ranks[p.code]; !known || len(p.detail) > 1024 {
				t.Errorf("problem %+v", p)
			}
		}
		for _, k := range keys {
			if k.signs && (!k.key.Valid() || k.Problem != "") {
				t.Errorf("a key that is of no use is used: %+v", k)
			}
		}
	})
}

func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{`{"issuer":"https://a.test"}`, `{"issuer":7}`, `{"issuer":"x","jwks_uri":"https://a.test/k","mtls_endpoint_aliases":{"token_endpoint":"x"},"grant_types_supported":["b","a"]}`, `[]`, `<!DOCTYPE html>`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMetadata(b)
		if err == nil && m.Issuer == "" || len(m.Endpoints) > mostEndpoints {
			t.Errorf("got %+v", m)
		}
	})
}
