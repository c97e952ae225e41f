package identity

import (
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/sandbox"
	"github.com/authvigil/authvigil/probes/wire"
)

func person(password string) func(v reflect.Value) {
	return func(v reflect.Value) {
		v.FieldByName("Username").SetString(sandbox.User)
		v.FieldByName("Password").Set(ref("plain:" + password))
	}
}

// show obtains a grant and sends it nowhere.
func show(t *testing.T, id Identity) (Grant, *evidence.Fault) {
	t.Helper()
	g, err := id.Apply(t.Context(), &http.Request{URL: &url.URL{}, Header: http.Header{}})
	return g, evidence.AsFault(err)
}

func last(list []int) int { return list[len(list)-1] }

// Every kind that proves itself anew in each request is verified by a server; and a wrong password is not tried again
// and again.
func TestProofs(t *testing.T) {
	kinds := map[string]struct {
		path  string
		set   func(v reflect.Value, key string)
		key   string
		locks bool // servers lock accounts that see it fail
	}{
		"digest": {"/digest?a=1", func(v reflect.Value, key string) { person(key)(v) }, sandbox.Password, true},
		"sigv4": {"/sigv4?b=2&a=1", func(v reflect.Value, key string) {
			v.FieldByName("AccessKeyID").SetString(sandbox.AWSKeyID)
			v.FieldByName("SecretKey").Set(ref("plain:" + key))
			v.FieldByName("Region").SetString(sandbox.AWSRegion)
			v.FieldByName("Service").SetString(sandbox.AWSService)
		}, sandbox.AWSSecret, false},
		"hmac": {"/hmac?a=1", func(v reflect.Value, key string) {
			v.FieldByName("KeyID").SetString(sandbox.KeyName)
			v.FieldByName("Key").Set(ref("plain:" + key))
			v.FieldByName("Sign").SetString("{method}\n{target}\n{timestamp}\n{body_sha256}")
			v.FieldByName("Headers").Set(reflect.ValueOf(map[string]string{"X-Key-Id": "{key_id}", "X-Timestamp": "{timestamp}", "X-Signature": "{signature}"}))
		}, sandbox.HMACKey, false},
		"basic": {"/basic", func(v reflect.Value, key string) { person(key)(v) }, sandbox.Password, true},
	}
	for kind, c := range kinds {
		t.Run(kind, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
				id := build(t, kind, n, io.Discard, func(v reflect.Value) { c.set(v, c.key) })
				for range 3 {
					if got, g := askAPI(t, n, id, c.path); last(got) != 200 || g.Scheme != kind {
						t.Fatalf("the right key: %v by %s", got, g.Scheme)
					}
				}
				for _, host := range w.Saw(c.key) {
					if kind != "basic" {
						t.Errorf("%s saw the key itself", host)
					}
				}
				before := w.Count(sandbox.APIHost, strings.SplitN(c.path, "?", 2)[0])
				id = build(t, kind, n, io.Discard, func(v reflect.Value) { c.set(v, "wrong-"+c.key) })
				client, err := wire.New(n, wire.Settings{})
				if err != nil {
					t.Fatal(err)
				}
				for range 20 {
					req, _ := http.NewRequest(http.MethodGet, "https://"+sandbox.APIHost+c.path, nil)
					g, err := id.Apply(t.Context(), req)
					if err == nil {
						a, err := client.Ask(t.Context(), wire.Question{Request: req, Stage: evidence.StageAPI})
						if err != nil || a.Exchange.Status == 200 {
							t.Fatalf("the wrong key: %v, %d", err, a.Exchange.Status)
						}
						id.Settle(g, Outcome{Refused: a.Exchange.Status == 401, Status: a.Exchange.Status, Header: a.Header})
					} else if !evidence.AsFault(err).Held() {
						t.Fatal(err)
					}
					time.Sleep(10 * time.Second)
				}
				if n := w.Count(sandbox.APIHost, strings.SplitN(c.path, "?", 2)[0]) - before; c.locks && n > 4 { // one of digest asks for the challenge
					t.Errorf("a wrong password was tried %d times in three minutes", n)
				}
			})
		})
	}
}

// A nonce that is too old costs one request more, and no refusal.
func TestDigest_staleNonce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		id := build(t, "digest", n, io.Discard, person(sandbox.Password))
		var lengths []int
		for range 3 {
			got, _ := askAPI(t, n, id, "/digest")
			if last(got) != 200 {
				t.Fatalf("%v", got)
			}
			lengths = append(lengths, len(got))
			time.Sleep(time.Hour)
		}
		if lengths[0] != 2 || lengths[1] != 2 || lengths[2] != 2 {
			t.Errorf("answers %v: one challenge, then a stale nonce each time", lengths)
		}
		if s := id.Status(); s.Gate.Failures != 0 {
			t.Errorf("stale nonces count as failures: %+v", s.Gate)
		}
	})
}

func TestDigest_headers(t *testing.T) {
	h := http.Header{"Www-Authenticate": {`Basic realm="x"`, `Digest realm="r", nonce="n1", algorithm=MD5, qop="auth"`, `Digest realm="r", nonce="n2", algorithm=SHA-256, qop="auth, auth-int", userhash=true`, `Digest realm="r", nonce="n3", algorithm=FUTURE, qop="auth"`}}
	c, stale, found := readDigest(h)
	if !found || stale || c.Nonce != "n2" || !c.Userhash || len(c.QOP) != 2 {
		t.Errorf("%+v", c)
	}
	if _, _, found := readDigest(http.Header{"Www-Authenticate": {"Digest realm=x"}}); found {
		t.Error("a challenge without a nonce was taken")
	}
	if got := parameterOf(`qop=auth, rspauth="x", nextnonce="n9"`, "nextnonce"); got != "n9" {
		t.Errorf("nextnonce %q", got)
	}
}

func login(more func(v reflect.Value)) func(v reflect.Value) {
	return func(v reflect.Value) {
		person(sandbox.Password)(v)
		v.FieldByName("LoginURL").SetString("https://" + sandbox.APIHost + "/login")
		v.FieldByName("LogoutURL").SetString("https://" + sandbox.APIHost + "/logout")
		if more != nil {
			more(v)
		}
	}
}

// One session serves everybody, is opened anew when the server forgot it, and is closed behind us.
func TestSession(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		id := build(t, "session", n, io.Discard, login(nil))
		for range 5 {
			if got, g := askAPI(t, n, id, "/session"); len(got) != 1 || got[0] != 200 || g.Scheme != "session" {
				t.Fatalf("%v by %s", got, g.Scheme)
			}
		}
		if n := w.Count(sandbox.APIHost, "/login"); n != 2 {
			t.Errorf("%d requests to log in, want the page and the form", n)
		}
		w.API.EndSessions()
		if got, _ := askAPI(t, n, id, "/session"); len(got) != 2 || got[0] != 302 || got[1] != 200 {
			t.Errorf("after the server forgot it: %v, want 302 and 200", got)
		}
		for range 8 { // two hours, each 15 minutes: sessions run out
			time.Sleep(15 * time.Minute)
			if got, _ := askAPI(t, n, id, "/session"); last(got) != 200 {
				t.Fatalf("%v", got)
			}
			if open := w.API.Sessions(); open != 1 {
				t.Errorf("%d sessions are open, want 1", open)
			}
		}
		id.(Closer).Close(t.Context())
		if open := w.API.Sessions(); open != 0 {
			t.Errorf("%d sessions are open at the end", open)
		}
	})
}

func TestSession_wrongPassword(t *testing.T) {
	inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
		id := build(t, "session", n, io.Discard, login(person("wrong-password-77")))
		for range 60 { // an hour
			_, fault := show(t, id)
			if fault == nil || !fault.Held() && fault.Code != "401" {
				t.Fatalf("%v", fault)
			}
			time.Sleep(time.Minute)
		}
		if n := w.Count(sandbox.APIHost, "/login", http.StatusUnauthorized); n > 8 || n < 3 {
			t.Errorf("the wrong password was sent %d times in an hour", n)
		}
	})
}

// A form that leads elsewhere gets no password; a page without a form, a login that comes back and one without a cookie are
// told apart.
func TestSession_strangePages(t *testing.T) {
	const form = `<form method=post action="%"><input type=hidden name=csrf value=x><input name=user><input type=password name=pass></form>`
	for name, c := range map[string]struct {
		page, answer string
		status       int
		code         string
	}{
		"foreign":   {strings.Replace(form, "%", "https://evil.example.test/steal", 1), "", 200, "foreign_form"},
		"no form":   {"<html><body>Sign in with <a href=/sso>SSO</a></body></html>", "", 200, "no_form"},
		"again":     {strings.Replace(form, "%", "", 1), strings.Replace(form, "%", "", 1), 200, "login_again"},
		"no cookie": {strings.Replace(form, "%", "", 1), "welcome", 200, "no_cookie"},
		"broken":    {strings.Replace(form, "%", "", 1), "oops", 500, "500"},
		"throttled": {strings.Replace(form, "%", "", 1), "slow", 429, "429"},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *sandbox.World, n wire.Net) {
				w.API.Set(func(f *sandbox.APIFaults) {
					f.Answer = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						rw.Header().Set("Content-Type", "text/html")
						if r.Method == http.MethodGet {
							_, _ = io.WriteString(rw, c.page)
							return
						}
						if c.code == "login_again" {
							http.SetCookie(rw, &http.Cookie{Name: "tracking", Value: "1"})
						}
						rw.WriteHeader(c.status)
						_, _ = io.WriteString(rw, c.answer)
					})
				})
				_, fault := show(t, build(t, "session", n, io.Discard, login(nil)))
				if fault == nil || fault.Code != c.code {
					t.Errorf("got %v, want %s", fault, c.code)
				}
				if name == "foreign" && len(w.Saw(sandbox.Password)) > 0 {
					t.Error("the password left")
				}
			})
		})
	}
}

func TestSigned_settings(t *testing.T) {
	for _, c := range []struct {
		kind, want string
		set        func(v reflect.Value)
	}{
		{"hmac", "sign: there is no part {boddy}", func(v reflect.Value) { v.FieldByName("Sign").SetString("{boddy}") }},
		{"hmac", "sign: there is no part {signature}", func(v reflect.Value) { v.FieldByName("Sign").SetString("{signature}") }},
		{"hmac", "headers: none holds {signature}", func(v reflect.Value) { v.FieldByName("Sign").SetString("x") }},
		{"hmac", "algorithm: \"md4\"", func(v reflect.Value) { v.FieldByName("Algorithm").SetString("md4") }},
		{"sigv4", "region: is missing", func(reflect.Value) {}},
		{"digest", "password: is missing", func(reflect.Value) {}},
		{"session", "logout_url: is on another origin", login(func(v reflect.Value) { v.FieldByName("LogoutURL").SetString("https://other.example.test/logout") })},
		{"session", "session_life: is below one minute", login(func(v reflect.Value) { v.FieldByName("Life").SetInt(int64(time.Second)) })},
	} {
		_, err := New(c.kind, func(into any) error { c.set(reflect.ValueOf(into).Elem()); return nil }, Env{Jitter: func() float64 { return 0 }})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q: %v", c.kind, c.want, err)
		}
	}
}

func FuzzLoginForm(f *testing.F) {
	f.Add([]byte(`<form action="/x"><input type=hidden name=a value=b><input name=u><input type=password name=p>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if form := parseLoginForm(b); form != nil && form.action == nil {
			t.Error("a form without an action")
		}
	})
}
