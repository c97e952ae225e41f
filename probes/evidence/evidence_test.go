package evidence

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseChallenges(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []Challenge
	}{
		{[]string{`Bearer`}, []Challenge{{"bearer", "", map[string]string{}}}},
		{[]string{`Bearer realm="a, b", error="invalid_token", error_description="it \"ended\""`}, []Challenge{{"bearer", "", map[string]string{"realm": "a, b", "error": "invalid_token", "error_description": `it "ended"`}}}},
		{[]string{`Basic realm="x", Bearer error="insufficient_scope", scope="a b", Negotiate`}, []Challenge{{"basic", "", map[string]string{"realm": "x"}}, {"bearer", "", map[string]string{"error": "insufficient_scope", "scope": "a b"}}, {"negotiate", "", map[string]string{}}}},
		{[]string{`Negotiate YIIJvwYGKwYBBQUCoIIJszCC==`}, []Challenge{{"negotiate", "YIIJvwYGKwYBBQUCoIIJszCC", map[string]string{}}}},
		{[]string{`DPoP algs="ES256 PS256", error=use_dpop_nonce`, `Digest qop="auth",nonce=abc,algorithm=SHA-256`}, []Challenge{{"dpop", "", map[string]string{"algs": "ES256 PS256", "error": "use_dpop_nonce"}}, {"digest", "", map[string]string{"qop": "auth", "nonce": "abc", "algorithm": "SHA-256"}}}},
		{[]string{`error="invalid_token"`}, []Challenge{{"", "", map[string]string{"error": "invalid_token"}}}},
		{[]string{``, ` , ,`}, nil},
	} {
		if got := ParseChallenges(c.in...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("ParseChallenges(%q)\n got %v\nwant %v", c.in, got, c.want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Bearer realm="a", error="invalid_token", Basic`)
	f.Add(`Negotiate abc==, ="x", a="`)
	f.Fuzz(func(t *testing.T, value string) {
		if list := ParseChallenges(value); len(list) > maxChallenges {
			t.Errorf("%d challenges", len(list))
		}
	})
}

func jwt(header, claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(header)) + "." + e([]byte(claims)) + "." + e(make([]byte, 64))
}

func TestDecodeToken(t *testing.T) {
	got := DecodeToken(jwt(`{"alg":"ES256","kid":"k1","typ":"at+jwt"}`, `{"iss":"https://auth.example.test","aud":["a","b"],"exp":1800000000,"iat":1799999000.5,"scope":"x y","roles":["z"],"azp":"c","cnf":{"jkt":"t"}}`))
	want := Token{Name: "access", Format: "jwt", Alg: "ES256", Kid: "k1", Type: "at+jwt", Issuer: "https://auth.example.test", Audience: []string{"a", "b"}, ClientID: "c", Scopes: []string{"x", "y", "z"},
		Issued: time.Unix(1799999000, 5e8).UTC(), Expiry: time.Unix(1800000000, 0).UTC(), Bound: "jkt"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for text, problem := range map[string]string{
		jwt(`{"alg":"ES256"}`, `{"exp":"soon"}`):               "exp is no number",
		jwt(`{"alg":"ES256"}`, `{"exp":1800000000000}`):        "milliseconds",
		"eyJhbGciOiJFUzI1NiJ9.eyJ":                             "cut",
		strings.TrimSuffix(jwt(`{"alg":"ES256"}`, `{}`), "AA"): "signature",
		jwt(`{"alg":"RS256"}`, `{}`):                           "signature",
		jwt(`{"alg":"ES256"}`, `{"exp"`):                       "claims",
		strings.Repeat("a", 70<<10):                            "longer",
	} {
		if got := DecodeToken(text); len(got.Problems) == 0 || !strings.Contains(strings.Join(got.Problems, " "), problem) {
			t.Errorf("token of %d bytes: problems %v, want one about %q", len(text), got.Problems, problem)
		}
	}
	if got := DecodeToken("opaque-token-text"); got.Format != "opaque" || len(got.Problems) > 0 {
		t.Errorf("opaque token: %+v", got)
	}
	for claims, want := range map[string]bool{`{"at_hash":"x"}`: true, `{"nonce":"x"}`: true, `{"nonce":"x","scp":"files"}`: false, `{"sub":"x"}`: false} {
		if got := DecodeToken(jwt(`{"alg":"ES256"}`, claims)); got.ID != want {
			t.Errorf("%s: ID token %v, want %v", claims, got.ID, want)
		}
	}
	if got := DecodeToken(jwt(`{"alg":"none"}`, `{}`)); got.Signature != SignatureNone {
		t.Errorf("alg none: %+v", got)
	}
}

func FuzzDecodeToken(f *testing.F) {
	f.Add(jwt(`{"alg":"ES256"}`, `{"exp":1e400,"aud":[1,null]}`))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) { DecodeToken(text) })
}

// TestLintCredential: the ways in which a credential is spoilt on its way from a web page into a file.
func TestLintCredential(t *testing.T) {
	for text, word := range map[string]string{" x1": "white space", "abc\ndef": "line break", "abcdef\r\n": "line break", `"abcdef"`: "quotes", "'abcdef'": "quotes", "Bearer abc": "scheme", "bearer abc": "scheme", "Basic abc": "scheme",
		"changeme": "placeholder", "abc\u00a0def": "ASCII", "“abcdef”": "ASCII", "<token>": "placeholder", "xxxxxxxx": "placeholder", "YOUR_API_KEY": "placeholder", "********": "placeholder",
		"eyJhbGciOiJFUzI1NiJ9.eyJ": "cut", "eyJhbGciOiJFUzI1NiJ9.eyJhIjoxfQ.c2ln": "cut"} {
		if got := strings.Join(LintCredential(text), ", "); !strings.Contains(got, word) {
			t.Errorf("LintCredential of %q: %q, want a word about %s", text, got, word)
		}
	}
	for _, good := range []string{"sk_live_51H8abcDEF", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "a.b.c", "glpat-xxyyzz", jwt(`{"alg":"ES256"}`, `{"a":1}`)} {
		if got := LintCredential(good); got != nil {
			t.Errorf("a good key: %v", got)
		}
	}
	if got := LintPassword(`"päß Wort" <1>`); got != nil {
		t.Errorf("a good password: %v", got)
	}
}

func TestOtherEnvironment(t *testing.T) {
	for _, c := range []struct{ key, environment, want string }{
		{"sk_test_51H8abcDEF", "production", "test"}, {"test_abcdef", "eu-live", "test"}, {"sk_live_51H8abcDEF", "staging", "live"}, {"PROD-abcdef", "test", "PROD"},
		{"sk_live_51H8abcDEF", "production", ""}, {"sk_test_51H8abcDEF", "", ""}, {"sk_test_51H8abcDEF", "blue", ""}, {"abcdef_test", "production", ""}, {"abcdef", "production", ""}, {"a_b_c_test_d", "production", ""},
	} {
		if got := OtherEnvironment(c.key, c.environment); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.key, c.environment, got, c.want)
		}
	}
}

func FuzzLintCredential(f *testing.F) {
	f.Add("Bearer x", "production")
	f.Add("", "-")
	f.Fuzz(func(t *testing.T, text, environment string) {
		LintCredential(text)
		OtherEnvironment(text, environment)
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		value, date string
		want        time.Duration
	}{
		{"120", "", 2 * time.Minute}, {"0.5", "", 500 * time.Millisecond}, {"-1", "", 0}, {"NaN", "", 0}, {"1e99", "", 24 * time.Hour}, {"soon", "", 0}, {"", "", 0},
		{"Thu, 01 Jan 2026 00:01:00 GMT", "", time.Minute},
		{"Thu, 01 Jan 2026 00:11:00 GMT", "Thu, 01 Jan 2026 00:10:00 GMT", time.Minute}, // judged by the server's own clock
		{"Thursday, 01-Jan-26 00:01:00 GMT", "", time.Minute},
		{"Wed, 31 Dec 2025 00:00:00 GMT", "", 0},
	} {
		if got := RetryAfter(c.value, c.date, now); got != c.want {
			t.Errorf("RetryAfter(%q, %q) = %s, want %s", c.value, c.date, got, c.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x00b\u202ec", 8)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 0 || limit > 1<<16 {
			return
		}
		got := Clean(text, limit)
		if len(got) > limit && len(got) > len(text) || !utf8.ValidString(got) && utf8.ValidString(text) {
			t.Errorf("Clean(%q, %d) = %q", text, limit, got)
		}
		for _, r := range got {
			if r < 0x20 && r != '\n' && r != '\t' || r == '\u202e' || r == 0x7f {
				t.Errorf("Clean(%q) keeps %U", text, r)
			}
		}
	})
}

func TestMask(t *testing.T) {
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
	for in, want := range map[string]string{
		"The token expired":                                 "The token expired",
		"bad token " + token + ", try again":                "bad token …, try again",
		`{"sent":"Bearer c29tZS1vcGFxdWUtdG9rZW4"}`:         `{"sent":"Bearer …"}`,
		`Bearer error="invalid_token"`:                      `Bearer error="invalid_token"`,
		"Basic dXNlcjpwYXNzd29yZC1vZi10aGUtdXNlcg== is old": "Basic … is old",
		"eyJ": "eyJ",
	} {
		if got := Mask(in); got != want {
			t.Errorf("Mask(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("Bearer ", "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl")
	f.Fuzz(func(t *testing.T, before, after string) {
		const token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJlLXRleHQ"
		if got := Mask(before + " " + token + " " + after); strings.Contains(got, "c2lnbmF0dXJlLXRleHQ") && !strings.Contains(before+after, "c2lnbmF0dXJlLXRleHQ") {
			t.Errorf("Mask shows the token: %q", got)
		}
	})
}
