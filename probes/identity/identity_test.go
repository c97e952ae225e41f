package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "canary-secret-0123456789"

// memory is a network of one HTTP server, in memory, so that it works in a bubble of virtual time.
type memory struct {
	conns chan net.Conn
	once  sync.Once
}

func (m *memory) Accept() (net.Conn, error) {
	c, ok := <-m.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (m *memory) Close() error   { m.once.Do(func() { close(m.conns) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

// issuer is a token endpoint in memory.
type issuer struct {
	mu       sync.Mutex
	requests int
	last     url.Values
	user     string
	answer   func(w http.ResponseWriter, n int)
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	i.mu.Lock()
	i.requests++
	n := i.requests
	i.last, i.user = r.PostForm, r.Header.Get("Authorization")
	i.mu.Unlock()
	i.answer(w, n)
}

func (i *issuer) count() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests
}

func token(w http.ResponseWriter, text string, seconds any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"access_token": text, "token_type": "Bearer", "expires_in": seconds})
}

// network serves a handler in memory until the test ends.
func network(t *testing.T, h http.Handler) wire.Net {
	m := &memory{conns: make(chan net.Conn)}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(m) }()
	t.Cleanup(func() { server.Close(); m.Close(); <-done })
	return wire.Net{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		a, b := net.Pipe()
		select {
		case m.conns <- b:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

func build(t *testing.T, kind string, n wire.Net, log io.Writer, set func(reflect.Value)) Identity {
	t.Helper()
	id, err := New(kind, func(into any) error {
		set(reflect.ValueOf(into).Elem())
		return nil
	}, Env{Name: "x", Net: n, Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func ref(text string) reflect.Value {
	r, err := secret.Parse(text)
	if err != nil {
		panic(err)
	}
	return reflect.ValueOf(r)
}

func client(t *testing.T, n wire.Net, more func(reflect.Value)) Identity {
	return build(t, "oauth2", n, io.Discard, func(v reflect.Value) {
		v.FieldByName("TokenURL").SetString("http://auth.example.test/token")
		v.FieldByName("ClientID").SetString("probe")
		v.FieldByName("ClientSecret").Set(ref("plain:" + canary))
		if more != nil {
			more(v)
		}
	})
}

func request() *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "http://api.example.test/", nil)
	return r
}

// TestOAuth2_oneTokenForFiftyProbes: one request per token life, also at the start and when all are refused at once.
func TestOAuth2_oneTokenForFiftyProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, n int) {
			time.Sleep(time.Second)
			token(w, fmt.Sprintf("token-number-%d", n), 3600)
		}}
		id := client(t, network(t, i), nil)
		all := func() (grants []Grant) {
			grants = make([]Grant, 50)
			var group sync.WaitGroup
			for k := range grants {
				group.Go(func() {
					var err error
					if grants[k], err = id.Apply(t.Context(), request()); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			return grants
		}
		first := all()
		if n := i.count(); n != 1 {
			t.Fatalf("%d token requests at the start, want 1", n)
		}
		time.Sleep(30 * time.Minute)
		all()
		if n := i.count(); n != 1 {
			t.Fatalf("%d token requests in half a token's life, want 1", n)
		}
		for _, g := range first { // all get a 401 for the same token
			id.Settle(g, Outcome{Refused: true, Status: 401})
		}
		second := all()
		if n := i.count(); n != 2 || second[0].ID == first[0].ID {
			t.Fatalf("%d token requests after all were refused at once, want 2", n)
		}
		id.Settle(second[0], Outcome{Accepted: true, Status: 200})
		id.Settle(first[0], Outcome{Refused: true, Status: 401}) // late word of the old one
		all()
		if n := i.count(); n != 2 {
			t.Fatalf("a late refusal of the old token dropped the new one: %d requests", n)
		}
		time.Sleep(56 * time.Minute) // five minutes before its end it is replaced
		all()
		if n := i.count(); n != 3 {
			t.Errorf("%d token requests when the refresh is due, want 3", n)
		}
	})
}

// TestOAuth2_apiThatRefusesEveryToken: an API that answers 401 for an hour does not turn into a storm at the issuer.
func TestOAuth2_apiThatRefusesEveryToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, n int) { token(w, fmt.Sprintf("token-number-%d", n), 3600) }}
		id := client(t, network(t, i), nil)
		for range 360 { // a request every ten seconds
			if g, err := id.Apply(t.Context(), request()); err == nil {
				id.Settle(g, Outcome{Refused: true, Status: 401})
			}
			time.Sleep(10 * time.Second)
		}
		if n := i.count(); n > 10 {
			t.Errorf("%d token requests in an hour, want at most 10", n)
		}
	})
}

// TestOAuth2_anHourOfInvalidClient: the account is not locked by us.
func TestOAuth2_anHourOfInvalidClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, _ int) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client"}`)
		}}
		id := client(t, network(t, i), nil)
		held := 0
		for range 360 {
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() {
					_, err := id.Apply(t.Context(), request())
					f := evidence.AsFault(err)
					if f == nil || (f.Code != "invalid_client" && !f.Held()) {
						t.Errorf("got %v", err)
					}
					if f.Held() && !errors.Is(err, ErrHeld) {
						t.Errorf("a held request does not wrap ErrHeld: %v", err)
					}
				})
			}
			group.Wait()
			time.Sleep(10 * time.Second)
			if id.Status().Gate.Position == pace.Open {
				held++
			}
		}
		if n := i.count(); n > 8 {
			t.Errorf("the token endpoint saw %d requests in an hour, want at most 8", n)
		}
		if held == 0 {
			t.Error("the gate never showed as open")
		}
	})
}

// TestOAuth2_refreshFailsWhileTheTokenHolds: an outage of the issuer is noted, and what works goes on.
func TestOAuth2_refreshFailsWhileTheTokenHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, n int) {
			if n > 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			token(w, "the-only-token", 3600)
		}}
		id := client(t, network(t, i), nil)
		if _, err := id.Apply(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(56 * time.Minute)
		g, err := id.Apply(t.Context(), request())
		if err != nil || len(g.Notes) == 0 || g.Notes[0].Code != "refresh_failed" {
			t.Errorf("got %v, notes %v", err, g.Notes)
		}
		time.Sleep(5 * time.Minute)
		if _, err := id.Apply(t.Context(), request()); err == nil {
			t.Error("a token was used after its end")
		}
	})
}

// TestOAuth2_oddLives: what the token endpoint says of the life of tokens, against what they say themselves and what was
// usual; and the runways of all tokens of an answer.
func TestOAuth2_oddLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claimed, advertised := time.Hour, 3600
		i := &issuer{answer: func(w http.ResponseWriter, n int) {
			now := time.Now()
			claims := func(life time.Duration) string {
				return unsigned(fmt.Sprintf(`{"n":%d,"iat":%d,"exp":%d}`, n, now.Unix(), now.Add(life).Unix()))
			}
			json.NewEncoder(w).Encode(map[string]any{"access_token": claims(claimed), "id_token": claims(10 * time.Minute), "token_type": "Bearer", "expires_in": advertised, "refresh_token": "beside-it", "refresh_expires_in": 7200})
		}}
		id := client(t, network(t, i), nil)
		next := func() Grant {
			g, err := id.Apply(t.Context(), request())
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
		g := next()
		now := time.Now()
		for name, life := range map[string]time.Duration{"access": time.Hour, "id": 10 * time.Minute, "refresh": 2 * time.Hour} {
			end, _ := valueOf(g.Readings, TokenExpiry, name)
			issued, _ := valueOf(g.Readings, TokenIssued, name)
			whole, _ := valueOf(g.Readings, TokenLifetime, name)
			if end != unix(now.Add(life)) || issued != unix(now) || whole != life.Seconds() {
				t.Errorf("%s: issued %v, ends %v, lives %v", name, issued, end, whole)
			}
		}
		if noteCodes(g.Notes) != "" {
			t.Errorf("nothing is odd: %v", g.Notes)
		}
		for range 4 {
			time.Sleep(time.Hour)
			g = next()
		}
		claimed = 5 * time.Minute // and expires_in still says an hour: the earlier end wins
		time.Sleep(time.Hour)
		before := i.count()
		if g = next(); noteCodes(g.Notes) != "lifetime_disagreement lifetime_shrunk" {
			t.Errorf("notes %v", g.Notes)
		}
		if by, ok := valueOf(g.Readings, TokenDisagreement, ""); !ok || by != -3300 {
			t.Errorf("disagreement of %v s", by)
		}
		if g = next(); noteCodes(g.Notes) != "lifetime_disagreement lifetime_shrunk" {
			t.Errorf("told once and forgotten: %v", g.Notes)
		}
		time.Sleep(5 * time.Minute)
		next()
		if n := i.count() - before; n != 2 {
			t.Errorf("%d token requests in five minutes, want 2: a token was used past its claims", n)
		}
		claimed, advertised = 5*time.Minute, 240 // an issuer that keeps tokens tells what is left: no contradiction
		for range 12 {
			time.Sleep(5 * time.Minute)
			g = next()
		}
		if noteCodes(g.Notes) != "" {
			t.Errorf("after an hour of short tokens, which are usual now: %v", g.Notes)
		}
	})
}

// unsigned makes a JWT that nobody verifies.
func unsigned(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"ES256"}`)) + "." + e([]byte(claims)) + "." + e(make([]byte, 64))
}

// TestOAuth2_whatTokensReallyLive: the age at which one was refused counts when its successor was accepted.
func TestOAuth2_whatTokensReallyLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, n int) { token(w, fmt.Sprintf("token-number-%d", n), 3600) }}
		id := client(t, network(t, i), nil)
		g, _ := id.Apply(t.Context(), request())
		id.Settle(g, Outcome{Accepted: true})
		time.Sleep(20 * time.Minute)
		id.Settle(g, Outcome{Refused: true, Status: 401})
		g, _ = id.Apply(t.Context(), request())
		if _, ok := valueOf(g.Readings, TokenRefusedAge, ""); ok {
			t.Error("told before the successor was accepted")
		}
		id.Settle(g, Outcome{Accepted: true})
		g, _ = id.Apply(t.Context(), request())
		if age, _ := valueOf(g.Readings, TokenRefusedAge, ""); age != 1200 {
			t.Errorf("got %v s, want 1200", age)
		}
	})
}

// TestOAuth2_shortLives: tokens of eight seconds are renewed once in each life, and no more.
func TestOAuth2_shortLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, n int) { token(w, fmt.Sprintf("token-number-%d", n), 8) }}
		id := client(t, network(t, i), nil)
		for range 3600 {
			if _, err := id.Apply(t.Context(), request()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if n := i.count(); n > 3600/6 {
			t.Errorf("%d token requests in an hour for tokens of 8 s", n)
		}
	})
}

func TestOAuth2_whatIsSent(t *testing.T) {
	i := &issuer{answer: func(w http.ResponseWriter, _ int) { token(w, "some-token-text", 60) }}
	n := network(t, i)
	id := client(t, n, func(v reflect.Value) {
		v.FieldByName("ClientAuth").SetString("post")
		v.FieldByName("Audience").SetString("https://api.example.test")
		v.FieldByName("Scopes").Set(reflect.ValueOf([]string{"a", "b"}))
		v.FieldByName("Resource").Set(reflect.ValueOf([]string{"r1", "r2"}))
		v.FieldByName("Parameters").Set(reflect.ValueOf(map[string]string{"realm": "x"}))
	})
	req := request()
	if _, err := id.Apply(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got := i.last.Encode(); got != "audience=https%3A%2F%2Fapi.example.test&client_id=probe&client_secret="+canary+"&grant_type=client_credentials&realm=x&resource=r1&resource=r2&scope=a+b" || i.user != "" {
		t.Errorf("post: sent %d parameters, header %v", len(i.last), i.user != "")
	}
	if req.Header.Get("Authorization") != "Bearer some-token-text" {
		t.Error("the token is not in the request")
	}
	id = client(t, n, nil)
	if _, err := id.Apply(t.Context(), request()); err != nil {
		t.Fatal(err)
	}
	if i.last.Get("client_secret") != "" || !strings.HasPrefix(i.user, "Basic ") {
		t.Error("basic: the secret is not in the header only")
	}
}

func TestOAuth2_strangeAnswers(t *testing.T) {
	for _, c := range []struct {
		name, body string
		status     int
		symptom    evidence.Symptom
		code       string
	}{
		{"expires_in missing", `{"access_token":"token-text-1"}`, 200, "", ""},
		{"expires_in 0", `{"access_token":"token-text-1","expires_in":0}`, 200, "", ""},
		{"expires_in a float", `{"access_token":"token-text-1","expires_in":59.5}`, 200, "", ""},
		{"expires_in a string", `{"access_token":"token-text-1","expires_in":"60"}`, 200, "", ""},
		{"expires_in null", `{"access_token":"token-text-1","expires_in":null}`, 200, "", ""},
		{"expires_in nonsense", `{"access_token":"token-text-1","expires_in":"soon"}`, 200, "", ""},
		{"no token", `{}`, 200, evidence.SymptomBadAnswer, "no_token"},
		{"HTML", `<html>Log in</html>`, 200, evidence.SymptomBadAnswer, "not_json"},
		{"an error with status 200", `{"error":"invalid_client"}`, 200, evidence.SymptomTokenRefused, "invalid_client"},
		{"5 MiB", `{"x":"` + strings.Repeat("y", 5<<20) + `"}`, 200, evidence.SymptomTooLarge, "body"},
		{"an error that is no code", `{"error":"client_secret ` + canary + ` is wrong"}`, 400, evidence.SymptomTokenRefused, "400"},
		{"a redirect", ``, 307, evidence.SymptomRedirected, "307"},
		{"429", ``, 429, evidence.SymptomThrottled, "429"},
		{"20 KiB token", `{"access_token":"` + strings.Repeat("t", 20<<10) + `"}`, 200, "", ""},
	} {
		i := &issuer{answer: func(w http.ResponseWriter, _ int) {
			w.Header().Set("Location", "http://evil.example.test/")
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}}
		g, err := client(t, network(t, i), nil).Apply(t.Context(), request())
		f := evidence.AsFault(err)
		if (f == nil) != (c.symptom == "") || f != nil && (f.Symptom != c.symptom || f.Code != c.code || f.Stage != evidence.StageToken) {
			t.Errorf("%s: got %v, want %s %s", c.name, err, c.symptom, c.code)
		}
		if i.count() != 1 {
			t.Errorf("%s: %d requests, want 1", c.name, i.count())
		}
		if strings.Contains(fmt.Sprintf("%+v %v", g, err), canary) {
			t.Errorf("%s: the secret is shown", c.name)
		}
	}
}

// TestKinds_conformance asks of every kind what all promise, and that no secret shows whatever one prints.
func TestKinds_conformance(t *testing.T) {
	blocked := wire.Net{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }}
	settings := map[string]func(reflect.Value){
		"none":    func(reflect.Value) {},
		"bearer":  func(v reflect.Value) { v.FieldByName("Token").Set(ref("plain:" + canary)) },
		"api_key": func(v reflect.Value) { v.FieldByName("Key").Set(ref("plain:" + canary)) },
		"basic": func(v reflect.Value) {
			v.FieldByName("Username").SetString("monitor")
			v.FieldByName("Password").Set(ref("plain:" + canary))
		},
		"digest": func(v reflect.Value) {
			v.FieldByName("Username").SetString("monitor")
			v.FieldByName("Password").Set(ref("plain:" + canary))
		},
		"session": func(v reflect.Value) {
			v.FieldByName("LoginURL").SetString("http://auth.example.test/login")
			v.FieldByName("Username").SetString("monitor")
			v.FieldByName("Password").Set(ref("plain:" + canary))
		},
		"sigv4": func(v reflect.Value) {
			v.FieldByName("AccessKeyID").SetString("AKIA")
			v.FieldByName("SecretKey").Set(ref("plain:" + canary))
			v.FieldByName("Region").SetString("eu-central-1")
			v.FieldByName("Service").SetString("execute-api")
		},
		"hmac": func(v reflect.Value) {
			v.FieldByName("Key").Set(ref("plain:" + canary))
			v.FieldByName("Sign").SetString("{method} {target}")
			v.FieldByName("Headers").Set(reflect.ValueOf(map[string]string{"X-Signature": "{signature}"}))
		},
		"mtls": func(v reflect.Value) {
			v.FieldByName("Certificate").Set(ref("plain:" + canary))
			v.FieldByName("PrivateKey").Set(ref("plain:" + canary))
		},
		"oauth2": func(v reflect.Value) {
			v.FieldByName("TokenURL").SetString("http://auth.example.test/token")
			v.FieldByName("ClientID").SetString("probe")
			v.FieldByName("ClientSecret").Set(ref("plain:" + canary))
		},
	}
	for _, kind := range Kinds() {
		set, ok := settings[kind]
		if !ok {
			t.Errorf("kind %s stands under no conformance test: give it settings here", kind)
			continue
		}
		var log bytes.Buffer
		id := build(t, kind, blocked, &log, set)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		start := time.Now()
		g, err := id.Apply(ctx, request())
		cancel()
		if time.Since(start) > time.Second {
			t.Errorf("%s: goes on after its context ended", kind)
		}
		if f := evidence.AsFault(err); err != nil && (f.Stage == "" || f.Symptom == "" || f.Symptom == evidence.SymptomUnknown) {
			t.Errorf("%s: got %v, want a fault with stage and symptom", kind, err)
		}
		if s := id.Status(); s.Kind != kind || s.Scheme == "" || s.Gate.Position == "" {
			t.Errorf("%s: Status says too little: %+v", kind, s)
		}
		record, _ := json.Marshal(g)
		for _, shown := range []string{fmt.Sprintf("%v %+v %#v", id, id, id), fmt.Sprintf("%+v %v", g, err), string(record), log.String(), fmt.Sprintf("%+v", id.Status())} {
			if strings.Contains(shown, canary) {
				t.Errorf("%s: the secret is shown", kind)
			}
		}
		if _, err := New(kind, func(any) error { return errors.New("unknown key") }, Env{Jitter: func() float64 { return 0 }}); err == nil {
			t.Errorf("%s: an error of its settings is lost", kind)
		}
	}
}

func TestFixed_refusalsCloseTheGateAndANewSecretOpensIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		t.Setenv("AUTHVIGIL_TEST_PASSWORD", canary)
		id := build(t, "basic", wire.Net{}, io.Discard, func(v reflect.Value) {
			v.FieldByName("Username").SetString("monitor")
			v.FieldByName("Password").Set(ref("env:AUTHVIGIL_TEST_PASSWORD"))
		})
		sent := 0
		for range 60 {
			if g, err := id.Apply(t.Context(), request()); err == nil {
				sent++
				id.Settle(g, Outcome{Refused: true, Status: 401})
			}
			time.Sleep(time.Minute)
		}
		if sent > 8 {
			t.Errorf("a wrong password was sent %d times in an hour, want at most 8", sent)
		}
		t.Setenv("AUTHVIGIL_TEST_PASSWORD", "another-password-0123")
		if _, err := id.Apply(t.Context(), request()); err != nil {
			t.Errorf("a new password is held back: %v", err)
		}
	})
}

func TestAPIKey_places(t *testing.T) {
	for _, c := range []struct {
		field, value string
		found        func(*http.Request) string
	}{
		{"Header", "X-Key", func(r *http.Request) string { return r.Header.Get("X-Key") }},
		{"Query", "key", func(r *http.Request) string { return r.URL.Query().Get("key") }},
		{"Cookie", "key", func(r *http.Request) string { c, _ := r.Cookie("key"); return c.Value }},
	} {
		id := build(t, "api_key", wire.Net{}, io.Discard, func(v reflect.Value) {
			v.FieldByName("Key").Set(ref("plain:" + canary))
			v.FieldByName(c.field).SetString(c.value)
		})
		req := request()
		if _, err := id.Apply(t.Context(), req); err != nil || c.found(req) != canary {
			t.Errorf("%s: %v, in place: %v", c.field, err, c.found(req) == canary)
		}
	}
}

func TestOrigins_bindACredential(t *testing.T) {
	id := build(t, "bearer", wire.Net{}, io.Discard, func(v reflect.Value) {
		v.FieldByName("Token").Set(ref("plain:" + canary))
		v.FieldByName("Origins").Set(reflect.ValueOf([]string{"https://api.example.test:443"}))
	})
	for _, c := range []struct {
		url string
		ok  bool
	}{{"https://api.example.test/x", true}, {"http://api.example.test/x", false}, {"https://evil.example.test/", false}, {"https://api.example.test:8443/", false}} {
		req, _ := http.NewRequest(http.MethodGet, c.url, nil)
		_, err := id.Apply(t.Context(), req)
		if (err == nil) != c.ok || (req.Header.Get("Authorization") != "") != c.ok {
			t.Errorf("%s: %v, sent %v", c.url, err, req.Header.Get("Authorization") != "")
		}
	}
}
