package diagnose

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/authvigil/authvigil/probes/evidence"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestExplain_isDeterministicAndClean(t *testing.T) {
	for _, l := range readLabelled(t, "testdata/corpus.jsonl") {
		first := Explain(l.Case(noon))
		for range 3 {
			if again := Explain(l.Case(noon)); !reflect.DeepEqual(first, again) {
				t.Fatalf("%s: two runs differ:\n%v\n%v", l.ID, first, again)
			}
		}
		for _, f := range first {
			if _, known := causes[f.Cause]; !known || f.Culprit == "" || f.Remedy == "" || len(f.Because) == 0 {
				t.Errorf("%s: incomplete finding %+v", l.ID, f)
			}
			for _, line := range f.Because {
				if strings.ContainsFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) && !strings.Contains(line, "\n") {
					t.Errorf("%s: control character in %q", l.ID, line)
				}
			}
		}
	}
}

// live makes the case of a probe whose API answered so.
func live(status int, scheme, challenge, body string) Case {
	x := evidence.Exchange{Stage: evidence.StageAPI, Method: "GET", URL: "https://api.example.test/x", Scheme: scheme, Status: status, Body: body, Header: map[string][]string{}}
	if challenge != "" {
		x.Header["Www-Authenticate"] = []string{challenge}
	}
	return Case{Now: noon, Sighting: Sighting{Probe: "p", Kind: "http", Endpoint: "api.example.test/x", Origin: "https://api.example.test:443", Identity: "who", Scheme: scheme, Issuer: "https://auth.example.test",
		Report: evidence.Report{Exchanges: []evidence.Exchange{x}}, Fault: &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnauthorized, Err: errors.New("refused")}}}
}

func TestExplain_culpritByComparison(t *testing.T) {
	refusedBy := func(n int) Tally {
		return Tally{Failing: n, Identities: n, Symptoms: map[evidence.Symptom]int{evidence.SymptomUnauthorized: n}}
	}
	c := live(401, "bearer", `Bearer error="invalid_token", error_description="The token was revoked"`, "")
	if f := Explain(c)[0]; f.Cause != TokenRevoked || f.Culprit != "identity:who" {
		t.Errorf("one alone: %s of %s", f.Cause, f.Culprit)
	}
	c.World.SameOrigin = refusedBy(5)
	if f := Explain(c)[0]; f.Culprit != "endpoint:api.example.test/x" {
		t.Errorf("five credentials at once at one server: culprit %s", f.Culprit)
	}
	c.World.SameOrigin.OK = 1
	if f := Explain(c)[0]; f.Culprit != "identity:who" {
		t.Errorf("others pass: culprit %s", f.Culprit)
	}
}

func TestExplain_clock(t *testing.T) {
	c := live(401, "bearer", `Bearer error="invalid_token", error_description="The token expired"`, "")
	c.Sighting.Report.Token = &evidence.Token{Format: "jwt", Issued: noon.Add(-10 * time.Minute), Expiry: noon.Add(-5 * time.Minute)}
	if f := Explain(c)[0]; f.Cause != TokenExpired || f.Sure == Possible {
		t.Errorf("expired by its claims: %s (%s)", f.Cause, f.Sure)
	}
	c.World.Clock = &evidence.Clock{Skew: 20 * time.Minute, Bound: time.Second, Confidence: evidence.Confident}
	if f := Explain(c)[0]; f.Cause != ClockSkew || f.Culprit != "host" {
		t.Errorf("the local clock is 20 min ahead: %s of %s", f.Cause, f.Culprit)
	}
	chain := live(0, "bearer", "", "")
	chain.Sighting.Fault = &evidence.Fault{Stage: evidence.StageTLS, Symptom: evidence.SymptomBadCertificate, Code: "expired", Err: errors.New("ended")}
	chain.Sighting.Report.Chain = &evidence.Chain{Certificates: []evidence.Certificate{{NotBefore: noon.AddDate(0, -2, 0), NotAfter: noon.AddDate(0, 0, -1)}}, Facets: []evidence.Facet{{Name: "time", State: evidence.Fail, Code: "expired"}}}
	if f := Explain(chain)[0]; f.Cause != TLSCertExpired {
		t.Errorf("an expired certificate: %s", f.Cause)
	}
	chain.World.Clock = &evidence.Clock{Skew: 40 * 24 * time.Hour, Confidence: evidence.Confident}
	findings := Explain(chain)
	blamed := false
	for _, f := range findings {
		blamed = blamed || f.Cause == ClockSkew
	}
	if !blamed {
		t.Errorf("a certificate that only looks expired: %v", findings)
	}
}

func TestExplain_healthyIsNil(t *testing.T) {
	if f := Explain(Case{Now: noon, Sighting: Sighting{Probe: "p"}}); f != nil {
		t.Errorf("healthy: %v", f)
	}
	soon := Case{Now: noon, Sighting: Sighting{Probe: "p", Endpoint: "x:443", Origin: "tls://x:443", Report: evidence.Report{Chain: &evidence.Chain{Facets: []evidence.Facet{{Name: "time", State: evidence.Warn, Code: "expiring", Detail: "ends soon"}}}}}}
	if f := Explain(soon); len(f) != 1 || f[0].Cause != TLSCertExpiring {
		t.Errorf("a good run that wants attention: %v", f)
	}
}

// TestExplain_whatIsKnownOfACredential: what a run notes of a credential is told while all is well, and decides when the
// credential is refused.
func TestExplain_whatIsKnownOfACredential(t *testing.T) {
	refusedBy := func(scheme string, stage evidence.Stage, status int, body string) (evidence.Report, *evidence.Fault) {
		x := evidence.Exchange{Stage: stage, Method: "GET", URL: "https://api.example.test/", Status: status, Scheme: scheme, Body: body, Header: map[string][]string{"Content-Type": {"application/json"}}}
		symptom := evidence.SymptomUnauthorized
		if stage == evidence.StageToken {
			x.Purpose, symptom = evidence.Obtain, evidence.SymptomTokenRefused
		}
		return evidence.Report{Exchanges: []evidence.Exchange{x}}, &evidence.Fault{Stage: stage, Symptom: symptom, Code: "invalid_client"}
	}
	for _, c := range []struct {
		note, scheme string
		stage        evidence.Stage // of the refusal; empty: none
		body         string
		want         Cause
	}{
		{"credential_expiring", "api_key", "", "", CredentialExpiring},
		{"credential_expired", "api_key", "", "", CredentialExpiring},
		{"refresh_token_expiring", "refresh_token", "", "", CredentialExpiring},
		{"secret_rotation_due", "basic", "", "", SecretRotationDue},
		{"lifetime_shrunk", "bearer", "", "", TokenLifetimeShrunk},
		{"lifetime_disagreement", "bearer", "", "", TokenLifetimeDisagreement},
		{"next_secret_refused", "api_key", "", "", NextSecretRefused},
		{"next_secret_accepted", "api_key", evidence.StageAPI, "{}", SecretSuperseded},
		{"next_secret_accepted", "client_credentials", evidence.StageToken, `{"error":"invalid_client"}`, SecretSuperseded},
		{"credential_malformed", "api_key", evidence.StageAPI, "{}", TokenMalformed},
		{"credential_malformed", "bearer", evidence.StageAPI, "{}", TokenMalformed},
		{"credential_expired", "client_credentials", evidence.StageToken, `{"error":"invalid_client"}`, ClientSecretExpired},
		{"wrong_environment", "api_key", evidence.StageAPI, "{}", WrongEnvironment},
		{"credential_malformed", "api_key", "", "", ""}, // accepted all the same
	} {
		s := Sighting{Probe: "p", Endpoint: "api.example.test/", Identity: "x", Scheme: c.scheme}
		if c.stage != "" {
			s.Report, s.Fault = refusedBy(c.scheme, c.stage, 401, c.body)
		}
		s.Report.Notes = []evidence.Note{{Code: c.note, Detail: "the key is at fault"}}
		f := Explain(Case{Now: noon, Sighting: s})
		switch {
		case c.want == "" && f != nil:
			t.Errorf("%s, accepted: %v", c.note, f)
		case c.want != "" && (len(f) == 0 || f[0].Cause != c.want || !strings.Contains(strings.Join(f[0].Because, " "), "the key is at fault")):
			t.Errorf("%s, refused at %q: %v, want %s", c.note, c.stage, f, c.want)
		}
	}
}

// TestExplain_untimelyAssertion: an issuer that says no more than invalid_client, and whose clock is not ours.
func TestExplain_untimelyAssertion(t *testing.T) {
	clock := func(skew time.Duration) *evidence.Clock {
		return &evidence.Clock{Skew: skew, Confidence: evidence.Confident}
	}
	for _, c := range []struct {
		name    string
		clock   *evidence.Clock
		culprit string
	}{
		{"ours is right", clock(10 * time.Millisecond), "issuer:https://auth.example.test"},
		{"ours is wrong", clock(2 * time.Minute), "host"},
		{"nobody knows", nil, "host"},
	} {
		s := Sighting{Probe: "p", Kind: "token", Endpoint: "identity:x", Identity: "x", Issuer: "https://auth.example.test", Scheme: "client_credentials",
			Fault: &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomTokenRefused, Code: "invalid_client"},
			Report: evidence.Report{Exchanges: []evidence.Exchange{{Stage: evidence.StageToken, Purpose: evidence.Obtain, Status: 401, Scheme: "client_credentials", Method: "POST", URL: "https://auth.example.test/token", Body: `{"error":"invalid_client"}`, Header: map[string][]string{"Content-Type": {"application/json"}}}},
				Notes: []evidence.Note{{Code: "assertion_untimely", Detail: "by the issuer's clock the assertion had ended"}}}}
		f := Explain(Case{Now: noon, Sighting: s, World: World{Clock: c.clock}})
		if len(f) == 0 || f[0].Cause != ClockSkew || f[0].Culprit != c.culprit {
			t.Errorf("%s: %v, want clock_skew of %s", c.name, f, c.culprit)
		}
	}
}

func TestNormal(t *testing.T) {
	for in, want := range map[string]string{
		"InvalidSignatureException":         "invalid signature exception",
		"JWTExpired":                        "jwt expired",
		"token_not_valid":                   "token not valid",
		"The token's expired. Log in!":      "the token s expired | log in",
		"ID_TOKEN EXPIRED":                  "id token expired",
		"AADSTS7000222: secret":             "aadsts7000222 secret",
		"":                                  "",
		"  ...  ":                           "",
		"Jwt header [alg] is not supported": "jwt header alg is not supported",
	} {
		if got := normal(in); got != want {
			t.Errorf("normal(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestReadTranscript(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Cause
	}{
		{"curl -i", "HTTP/2 401 \r\nwww-authenticate: Bearer error=\"invalid_token\", error_description=\"The token expired\"\r\ncontent-type: application/json\r\n\r\n{\"error\":\"invalid_token\"}\n", TokenExpired},
		{"curl -v", "*   Trying 127.0.0.1:443...\n* Connected to api.example.test\n> GET /x HTTP/1.1\n> Host: api.example.test\n> Authorization: Bearer abc.def.ghi\n>\n< HTTP/1.1 403 Forbidden\n< WWW-Authenticate: Bearer error=\"insufficient_scope\"\n<\n{ [10 bytes data]\n{}\n", InsufficientScope},
		{"a redirect first", "HTTP/1.1 301 Moved\nLocation: https://x/\n\nHTTP/1.1 429 Too Many Requests\nRetry-After: 5\n\nslow down\n", RateLimited},
		{"no connection", "*   Trying 10.0.0.1:443...\n* connect to 10.0.0.1 port 443 failed: Connection refused\ncurl: (7) Failed to connect to api.example.test port 443: Connection refused\n", NetworkUnreachable},
		{"certificate", "* SSL certificate problem: certificate has expired\ncurl: (60) SSL certificate problem: certificate has expired\n", TLSCertExpired},
	} {
		got, err := ReadTranscript(strings.NewReader(c.text), noon)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f := Explain(got); len(f) == 0 || f[0].Cause != c.want {
			t.Errorf("%s: got %v, want %s", c.name, f, c.want)
		}
	}
	if c, err := ReadTranscript(strings.NewReader("HTTP/1.1 200 OK\n\n{\"fine\":true}\n"), noon); err != nil || Explain(c) != nil {
		t.Errorf("a good answer: %v, %v", err, Explain(c))
	}
	if _, err := ReadTranscript(strings.NewReader("hello\n"), noon); err == nil {
		t.Error("a text without an answer passed")
	}
}

func FuzzReadTranscript(f *testing.F) {
	f.Add("HTTP/1.1 401 X\nWWW-Authenticate: Bearer\n\n<html>")
	f.Add("> GET / HTTP/1.1\n< HTTP/1.1 200\n<\n{")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ReadTranscript(strings.NewReader(text), noon); err == nil {
			Explain(c)
		}
	})
}

func FuzzExplain(f *testing.F) {
	f.Add(401, `{"error":{"message":"token expired"}}`, `Bearer error="x"`)
	f.Add(200, `<html><title>x`, ``)
	f.Add(500, `<Error><Code>a</Code`, `a="`)
	f.Fuzz(func(t *testing.T, status int, body, challenge string) {
		c := live(status, "bearer", challenge, body)
		if len(Explain(c)) == 0 {
			t.Error("a failing run without a finding")
		}
	})
}

func BenchmarkExplain(b *testing.B) {
	c := live(401, "bearer", `Bearer realm="api", error="invalid_token", error_description="The access token expired"`, `{"error":"invalid_token","error_description":"The access token expired at 12:00, please obtain a new one from the authorization server"}`)
	b.ReportAllocs()
	for b.Loop() {
		Explain(c)
	}
}

// BenchmarkExplain_issuerDown is one of ten thousand probes whose issuer refuses connections.
func BenchmarkExplain_issuerDown(b *testing.B) {
	fault := &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomRefused, Err: errors.New("token: POST https://auth.example.test/token: dial tcp 10.0.0.1:443: connect: connection refused")}
	c := Case{Now: noon, Sighting: Sighting{Probe: "p", Kind: "token", Endpoint: "auth.example.test/token", Origin: "https://auth.example.test:443", Identity: "who", Scheme: "bearer", Issuer: "https://auth.example.test", Fault: fault,
		LastOK: noon.Add(-time.Hour), Failing: noon.Add(-time.Minute), InARow: 3,
		Report: evidence.Report{Exchanges: []evidence.Exchange{{Stage: evidence.StageToken, Purpose: evidence.Obtain, Method: "POST", URL: "https://auth.example.test/token", Fault: fault}}}},
		World: World{SameIssuer: Tally{Failing: 9999, Identities: 40, Symptoms: map[evidence.Symptom]int{evidence.SymptomRefused: 9999}}}}
	b.ReportAllocs()
	for b.Loop() {
		Explain(c)
	}
}
