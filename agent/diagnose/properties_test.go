package diagnose

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/authvigil/authvigil/probes/evidence"
)

// drawCase makes a case of all that a probe can bring home, sense or nonsense.
func drawCase(t *rapid.T) Case {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom(phrasesOfTests), rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(phrasesOfTests), 1, 4).Draw(t, "parts"), rapid.SampledFrom([]string{" ", ": ", ". ", "|"}).Draw(t, "between"))
	}))
	header := func(label string) map[string][]string {
		h := map[string][]string{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"Www-Authenticate", "Content-Type", "Location", "Retry-After", "Grpc-Status", "Grpc-Message", "X-Error", "Allow", "Proxy-Authenticate", "X-Oauth-Scopes", "X-Accepted-Oauth-Scopes"}), 0, 4, rapid.ID[string]).Draw(t, label) {
			h[name] = rapid.SliceOfN(text, 1, 3).Draw(t, name)
		}
		return h
	}
	moment := func(label string) time.Time {
		if rapid.Bool().Draw(t, label+" set") {
			return noon.Add(time.Duration(rapid.IntRange(-100000, 100000).Draw(t, label)) * time.Second)
		}
		return time.Time{}
	}
	c := Case{Now: noon}
	s := &c.Sighting
	s.Probe = rapid.SampledFrom([]string{"", "p"}).Draw(t, "probe")
	s.Endpoint, s.Origin, s.Identity, s.Issuer = "api.example.test/x", "https://api.example.test:443", rapid.SampledFrom([]string{"", "who"}).Draw(t, "identity"), rapid.SampledFrom([]string{"", "https://auth.example.test"}).Draw(t, "issuer")
	s.Scheme = rapid.SampledFrom([]string{"", "none", "bearer", "dpop", "basic", "digest", "api_key", "sigv4", "hmac", "mtls", "client_credentials", "refresh_token", "jwt_bearer"}).Draw(t, "scheme")
	s.Fault = &evidence.Fault{Stage: rapid.SampledFrom(evidence.Stages).Draw(t, "stage"), Symptom: rapid.SampledFrom([]evidence.Symptom{evidence.SymptomUnauthorized, evidence.SymptomForbidden, evidence.SymptomUnknown, evidence.SymptomTLSAlert, evidence.SymptomBadCertificate, evidence.SymptomDNS, evidence.SymptomTimeout, evidence.SymptomBadAnswer, evidence.SymptomGranted, evidence.SymptomIssuer, evidence.SymptomTokenLifetime}).Draw(t, "symptom"), Code: rapid.SampledFrom([]string{"", "401", "expired", "malformed", "login_page", "short", "http"}).Draw(t, "code"), Err: errors.New(text.Draw(t, "error"))}
	purposes := []evidence.Purpose{evidence.First, evidence.WithFreshGrant, evidence.WithoutGrant, evidence.WithDamaged, evidence.Sibling, evidence.OtherMethod, evidence.AskIssuer, evidence.Obtain}
	for i := range rapid.IntRange(0, 5).Draw(t, "exchanges") {
		n := fmt.Sprint(i)
		s.Report.Exchanges = append(s.Report.Exchanges, evidence.Exchange{Stage: rapid.SampledFrom(evidence.Stages).Draw(t, "stage"+n), Purpose: purposes[i], Method: "GET", Scheme: s.Scheme,
			Status: rapid.SampledFrom([]int{0, 200, 302, 400, 401, 403, 404, 405, 407, 429, 500, 503, 511}).Draw(t, "status"+n), Header: header("header" + n), Body: text.Draw(t, "body"+n)})
	}
	if rapid.Bool().Draw(t, "token") {
		s.Report.Token = &evidence.Token{Format: "jwt", Kid: rapid.SampledFrom([]string{"", "k1", "k2"}).Draw(t, "kid"), Expiry: moment("exp"), NotBefore: moment("nbf"), Issued: moment("iat"), Scopes: []string{"a"},
			Signature: rapid.SampledFrom([]evidence.Signature{"", evidence.SignatureValid, evidence.SignatureInvalid, evidence.SignatureKeyMissing, evidence.SignatureNone}).Draw(t, "signature")}
	}
	if rapid.Bool().Draw(t, "keys") {
		c.World.IssuerKeys = &evidence.Issuer{Keys: []evidence.Key{{Kid: "k1"}}}
	}
	if rapid.Bool().Draw(t, "clock") {
		c.World.Clock = &evidence.Clock{Skew: time.Duration(rapid.IntRange(-4000, 4000).Draw(t, "skew")) * time.Second, Confidence: evidence.Confident}
	}
	s.LastOK, s.Failing, s.InARow = moment("ok"), moment("failing"), rapid.IntRange(0, 9).Draw(t, "row")
	s.Changes = []evidence.Change{{What: rapid.SampledFrom([]string{"secret_file", "token_kid", "jwks", "certificate", "clock_step"}).Draw(t, "change"), From: "a", To: "b", At: noon}}
	return c
}

var phrasesOfTests = []string{"invalid_token", "The token expired", "signature verification failed", "kid not found", "insufficient_scope", "not authorized", "rate limit exceeded", "user is locked", "Bearer error=\"invalid_token\"", "Basic realm=\"x\"",
	"{\"error\":{\"code\":401,\"message\":\"jwt expired\"}}", "<html><title>x</title>", "<Error><Code>AccessDenied</Code></Error>", "AADSTS7000222: expired", "connection refused", "x509: certificate has expired", "tls: bad certificate", "16", "application/json", "text/html", "https://idp.example.test/login?error=x", "repo", "scope", "GET, HEAD"}

// TestExplain_properties: whatever is brought home, there is a verdict, it is the same each time, it is complete, and it is clean.
func TestExplain_properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		first := Explain(c)
		if len(first) == 0 || len(first) > mostFindings {
			t.Fatalf("%d findings", len(first))
		}
		if again := Explain(c); !reflect.DeepEqual(first, again) {
			t.Fatalf("two runs differ: %v, %v", first, again)
		}
		seen := map[Cause]bool{}
		for i, f := range first {
			if _, ok := causes[f.Cause]; !ok || f.Culprit == "" || f.Remedy == "" || seen[f.Cause] {
				t.Fatalf("incomplete or twice: %+v", f)
			}
			seen[f.Cause] = true
			if i > 0 && f.Sure == Certain {
				t.Fatalf("a second finding is certain: %+v", first)
			}
			for _, line := range f.Because {
				if len(line) > 400 || strings.ContainsAny(line, "\x00\x1b\u202e") {
					t.Fatalf("unclean line %q", line)
				}
			}
		}
	})
}

// TestExplain_orderDoesNotMatter: what was asked for comparison may stand in any order, and so may the changes.
func TestExplain_orderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCase(t)
		want := Explain(c)
		c.Sighting.Report.Exchanges = slices.Clone(c.Sighting.Report.Exchanges)
		if n := len(c.Sighting.Report.Exchanges); n > 2 { // the purposes differ, and the first question and its repetition keep their places
			side := c.Sighting.Report.Exchanges[2:]
			side = slices.DeleteFunc(side, func(x evidence.Exchange) bool { return x.Purpose == evidence.Obtain || x.Purpose == evidence.AskIssuer })
			slices.Reverse(side)
			c.Sighting.Report.Exchanges = append(c.Sighting.Report.Exchanges[:2:2], append(side, deciders(c.Sighting.Report.Exchanges[2:])...)...)
		}
		if got := Explain(c); !sameVerdict(got, want) {
			t.Fatalf("in another order: %v, want %v", got, want)
		}
	})
}

func deciders(list []evidence.Exchange) []evidence.Exchange {
	return slices.DeleteFunc(slices.Clone(list), func(x evidence.Exchange) bool {
		return x.Purpose != evidence.Obtain && x.Purpose != evidence.AskIssuer
	})
}

func sameVerdict(a, b []Finding) bool {
	return slices.EqualFunc(a, b, func(x, y Finding) bool { return x.Cause == y.Cause && x.Sure == y.Sure && x.Culprit == y.Culprit })
}

// TestWords_fieldOrderDoesNotMatter: a JSON object says the same whatever the order of its fields.
func TestWords_fieldOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := rapid.MapOfN(rapid.SampledFrom([]string{"error", "message", "code", "detail", "type", "reason", "status", "field"}), rapid.SampledFrom(phrasesOfTests[:8]), 1, 5).Draw(t, "fields")
		document := func(names []string) string {
			var parts []string
			for _, n := range names {
				parts = append(parts, fmt.Sprintf("%q:%q", n, fields[n]))
			}
			return "{" + strings.Join(parts, ",") + "}"
		}
		names := slices.Sorted(maps.Keys(fields))
		a := Explain(live(401, "bearer", "", document(names)))
		slices.Reverse(names)
		if b := Explain(live(401, "bearer", "", document(names))); !sameVerdict(a, b) {
			t.Fatalf("%v differs from %v", a, b)
		}
	})
}

func FuzzReadRecord(f *testing.F) {
	f.Add([]byte(`{"id":"x","request":{"auth_scheme":"bearer"},"response":{"status":401,"headers":{"WWW-Authenticate":["Bearer"]},"body":{"error":"x"}},"token_claims":{"exp_in_s":-1e99},"clock_offset_s":1e300}`))
	f.Add([]byte(`{"transport_error":"x509","history":["a"]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ReadRecord(line)
		if err == nil && len(Explain(r.Case(noon))) == 0 {
			t.Error("recorded evidence without a finding")
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, p := range phrasesOfTests {
		f.Add(p, "application/json")
	}
	f.Fuzz(func(t *testing.T, body, contentType string) {
		var w words
		w.body(body, contentType, 401)
		if len(w.clauses) > maxClauses {
			t.Errorf("%d clauses", len(w.clauses))
		}
	})
}
