package probes

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// keyHolder is an environment whose only identity sends a key in a header.
func keyHolder(t *testing.T) Env {
	t.Helper()
	key, err := secret.Parse("plain:glpat-0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	who, err := identity.New("api_key", func(into any) error {
		reflect.ValueOf(into).Elem().FieldByName("Key").Set(reflect.ValueOf(key))
		return nil
	}, identity.Env{Name: "x", Jitter: func() float64 { return 0.5 }})
	if err != nil {
		t.Fatal(err)
	}
	env := testEnv()
	env.Identity = func(string) (identity.Identity, error) { return who, nil }
	return env
}

// endOf finds when a credential ends, and by whose word.
func endOf(r evidence.Report, origin string) time.Time {
	for _, rd := range r.Readings {
		if rd.Metric == identity.CredentialEnd && slices.Equal(rd.Labels, []string{origin}) {
			return time.Unix(0, int64(rd.Value*1e9)).UTC()
		}
	}
	return time.Time{}
}

func codesOf(r evidence.Report) string {
	var codes []string
	for _, n := range r.Notes {
		codes = append(codes, n.Code)
	}
	return strings.Join(codes, " ")
}

// TestCredential: what servers tell of the credential that asks, in the forms that they document.
func TestCredential(t *testing.T) {
	today := time.Now().UTC().Truncate(24 * time.Hour)
	day := func(d int) string { return today.AddDate(0, 0, d).Format(time.DateOnly) }
	for _, c := range []struct {
		name, body string
		status     int
		end        time.Time
		notes      string
		symptom    evidence.Symptom
		code       string
	}{
		{"GitLab", `{"id":42,"name":"monitor","revoked":false,"created_at":"` + day(-100) + `T08:30:00.000Z","scopes":["read_api"],"user_id":7,"active":true,"expires_at":"` + day(200) + `"}`, 200, today.AddDate(0, 0, 200), "", "", ""},
		{"GitLab, without an end", `{"revoked":false,"scopes":["read_api"],"active":true,"expires_at":null}`, 200, time.Time{}, "", "", ""},
		{"GitLab, ends soon", `{"revoked":false,"created_at":"` + day(-200) + `T00:00:00Z","scopes":["read_api"],"active":true,"expires_at":"` + day(10) + `"}`, 200, today.AddDate(0, 0, 10), "credential_expiring", "", ""},
		{"GitLab, revoked", `{"revoked":true,"scopes":["read_api"],"active":false,"expires_at":"` + day(100) + `"}`, 200, today.AddDate(0, 0, 100), "", evidence.SymptomInactive, "inactive"},
		{"GitLab, ended", `{"revoked":false,"scopes":["read_api"],"active":false,"expires_at":"` + day(-1) + `"}`, 200, today.AddDate(0, 0, -1), "credential_expired", evidence.SymptomTokenLifetime, "expired"},
		{"GitLab, without the scope", `{"active":true,"scopes":["read_user"],"expires_at":null}`, 200, time.Time{}, "", evidence.SymptomScope, "insufficient_scope"},
		{"Vault", `{"data":{"expire_time":"` + day(100) + `T10:00:00.5Z","issue_time":"` + day(-1) + `T10:00:00Z","ttl":8640000,"renewable":true,"policies":["default"]}}`, 200, today.AddDate(0, 0, 100).Add(10*time.Hour + 500*time.Millisecond), "", "", ""},
		{"Cloudflare", `{"result":{"id":"1","status":"active","expires_on":"` + day(100) + `T00:00:00Z"},"success":true}`, 200, today.AddDate(0, 0, 100), "", "", ""},
		{"Cloudflare, disabled", `{"result":{"id":"1","status":"disabled"},"success":true}`, 200, time.Time{}, "", evidence.SymptomInactive, "inactive"},
		{"seconds", fmt.Sprintf(`{"expires_at":%d}`, today.AddDate(0, 0, 100).Unix()), 200, today.AddDate(0, 0, 100), "", "", ""},
		{"a form that is not known", `{"expires_at":"next Tuesday"}`, 200, time.Time{}, "expiry_unreadable", "", ""},
		{"no JSON", `<html>Sign in</html>`, 200, time.Time{}, "", evidence.SymptomBadAnswer, "not_json"},
		{"refused", `{"message":"401 Unauthorized"}`, 401, time.Time{}, "", evidence.SymptomUnauthorized, "401"},
		{"sent elsewhere", ``, 302, time.Time{}, "", evidence.SymptomRedirected, "302"},
	} {
		method := ""
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			method += r.Method
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		}))
		p := makeProbe(t, "credential", keyHolder(t), map[string]any{"URL": server.URL + "/api/v4/personal_access_tokens/self", "Identity": "x", "RequiredScopes": []string{"read_api"}})
		report, err := p.Run(t.Context())
		server.Close()
		f := evidence.AsFault(err)
		if (f == nil) != (c.symptom == "") || f != nil && (f.Symptom != c.symptom || f.Code != c.code) || !endOf(report, "server").Equal(c.end) || codesOf(report) != c.notes || method != "GET" {
			t.Errorf("%s: %v, ends %s, notes %q, asked with %s", c.name, err, endOf(report, "server"), codesOf(report), method)
		}
	}
}

// TestCredential_changesNothing: an address that rotates or renews is refused before it is asked.
func TestCredential_changesNothing(t *testing.T) {
	for _, last := range []string{"rotate", "Rotate/", "renew-self", "revoke"} {
		_, err := New("credential", decodeInto(map[string]any{"URL": "https://gitlab.example.test/api/v4/personal_access_tokens/self/" + last, "Identity": "x"}), keyHolder(t))
		if err == nil || !strings.Contains(err.Error(), "changes the credential") {
			t.Errorf("%s: %v", last, err)
		}
	}
}

// TestHTTP_headerTellsTheEnd: GitHub tells with each answer when the token ends that asked.
func TestHTTP_headerTellsTheEnd(t *testing.T) {
	end := time.Now().UTC().Add(5 * 24 * time.Hour).Truncate(time.Second)
	for text, want := range map[string]struct {
		end   time.Time
		notes string
	}{
		end.Format("2006-01-02 15:04:05 MST"):                  {end, "credential_expiring"},
		end.Format("2006-01-02 15:04:05 -0700"):                {end, "credential_expiring"},
		end.AddDate(0, 6, 0).Format("2006-01-02 15:04:05 MST"): {end.AddDate(0, 6, 0), ""},
		"soon": {time.Time{}, "expiry_unreadable"},
		"":     {time.Time{}, ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if text != "" {
				w.Header().Set("github-authentication-token-expiration", text)
			}
		}))
		p := makeProbe(t, "http", keyHolder(t), map[string]any{"URL": server.URL, "Identity": "x"})
		report, err := p.Run(t.Context())
		server.Close()
		if err != nil || !endOf(report, "header").Equal(want.end) || codesOf(report) != want.notes {
			t.Errorf("%q: %v, ends %s, notes %q", text, err, endOf(report, "header"), codesOf(report))
		}
	}
}

func FuzzReadCredential(f *testing.F) {
	f.Add([]byte(`{"data":{"expires_at":1e400,"scopes":[1,null,"a"]}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, ok := readCredential(body); !ok && (!c.end.IsZero() || c.inactive != "") {
			t.Errorf("something was read of %q", body)
		}
	})
}

// TestHTTP_nextKey: during a rotation the endpoint is asked with both keys, and only the one in use decides the run.
func TestHTTP_nextKey(t *testing.T) {
	for _, c := range []struct {
		name, good string
		status     int
		notes      string
	}{
		{"both accepted", "old-key-0123 new-key-0123", 0, ""},
		{"the next one refused", "old-key-0123", 0, "next_secret_refused"},
		{"the one in use refused", "new-key-0123", 401, "next_secret_accepted"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if key := r.Header.Get("X-Api-Key"); key == "" || !strings.Contains(c.good, key) {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		refs := map[string]secret.Ref{}
		for field, text := range map[string]string{"Key": "plain:old-key-0123", "NextSecret": "plain:new-key-0123"} {
			r, err := secret.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			refs[field] = r
		}
		who, err := identity.New("api_key", func(into any) error {
			for field, r := range refs {
				reflect.ValueOf(into).Elem().FieldByName(field).Set(reflect.ValueOf(r))
			}
			return nil
		}, identity.Env{Name: "x", Jitter: func() float64 { return 0.5 }})
		if err != nil {
			t.Fatal(err)
		}
		env := testEnv()
		env.Identity = func(string) (identity.Identity, error) { return who, nil }
		p := makeProbe(t, "http", env, map[string]any{"URL": server.URL, "Identity": "x"})
		report, err := p.Run(t.Context())
		f := evidence.AsFault(err)
		tried := 0
		for _, x := range report.Exchanges {
			if x.Purpose == evidence.WithNextSecret {
				tried++
			}
		}
		if (f == nil) != (c.status == 0) || codesOf(report) != c.notes || tried != 1 {
			t.Errorf("%s: %v, notes %q, tried %d times", c.name, err, codesOf(report), tried)
		}
		report, err = p.Run(t.Context())
		for _, x := range report.Exchanges {
			if x.Purpose == evidence.WithNextSecret {
				t.Errorf("%s: tried again at once", c.name)
			}
		}
		if f := evidence.AsFault(err); (f == nil || !f.Held()) && codesOf(report) != c.notes {
			t.Errorf("%s: the second run tells %q", c.name, codesOf(report))
		}
		server.Close()
	}
}

// TestRateLimits: the reset of a window as a moment, as a span, and in the form of the draft; and a refusal of another status
// that carries an empty budget is throttling.
func TestRateLimits(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	moment := float64(now.Add(time.Minute).Unix())
	for name, c := range map[string]struct {
		header http.Header
		left   float64
	}{
		"a moment":  {http.Header{"X-Ratelimit-Remaining": {"5"}, "X-Ratelimit-Reset": {fmt.Sprint(now.Add(time.Minute).Unix())}}, 5},
		"a span":    {http.Header{"Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {"60"}}, 0},
		"the draft": {http.Header{"Ratelimit": {`"default";r=7;t=60`}, "Ratelimit-Policy": {`"default";q=100;w=60`}}, 7},
	} {
		got := map[*evidence.Metric]float64{}
		for _, r := range rateLimits(wire.Answer{Header: c.header, Exchange: evidence.Exchange{Started: now}}) {
			got[r.Metric] = r.Value
		}
		if got[rateRemaining] != c.left || got[rateReset] != moment {
			t.Errorf("%s: %v left, reset at %v, want %v and %v", name, got[rateRemaining], got[rateReset], c.left, moment)
		}
		if symptom := symptomOf(http.StatusForbidden, c.header); (symptom == evidence.SymptomThrottled) != (c.left == 0) {
			t.Errorf("%s: a 403 is %s", name, symptom)
		}
	}
}
