package sandbox

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A visitor asks questions in a World, and follows no redirect.
type visitor struct {
	t     *testing.T
	w     *World
	certs []tls.Certificate
	http  *http.Client
}

func newVisitor(t *testing.T, w *World, certs ...tls.Certificate) *visitor {
	v := &visitor{t: t, w: w, certs: certs}
	tr := &http.Transport{DialContext: w.Dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.Roots(), Certificates: certs}}
	v.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return v
}

// world makes a World and a visitor for one test.
func world(t *testing.T) (*World, *visitor) {
	w := New()
	t.Cleanup(w.Close)
	return w, newVisitor(t, w)
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("%d %q: %v", r.status, r.body, err)
	}
	return m
}

func (v *visitor) do(req *http.Request) reply {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 5*time.Second)
	defer cancel()
	response, err := v.http.Do(req.WithContext(ctx))
	if err != nil {
		return reply{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	return reply{response.StatusCode, response.Header, string(body), err}
}

// get asks with header fields given as pairs.
func (v *visitor) get(url string, header ...string) reply {
	v.t.Helper()
	return v.do(request(v.t, http.MethodGet, url, "", header...))
}

func request(t *testing.T, method, url, body string, header ...string) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		req.Header.Add(header[n], header[n+1])
	}
	return req
}

// post sends a form; ClientID and its secret prove themselves unless form says otherwise.
func (v *visitor) post(url string, form url.Values, header ...string) reply {
	v.t.Helper()
	return v.do(request(v.t, http.MethodPost, url, form.Encode(), append(header, "Content-Type", "application/x-www-form-urlencoded")...))
}

func form(pairs ...string) url.Values {
	f := url.Values{}
	for n := 0; n < len(pairs); n += 2 {
		f.Add(pairs[n], pairs[n+1])
	}
	return f
}

// ask makes a token request for ClientID.
func (v *visitor) ask(pairs ...string) reply {
	v.t.Helper()
	return v.post(Issuer+"/token", form(append(pairs, "client_id", ClientID, "client_secret", ClientSecret)...))
}

func (v *visitor) token(pairs ...string) string {
	v.t.Helper()
	r := v.ask(append(pairs, "grant_type", "client_credentials")...)
	if r.status != 200 {
		v.t.Fatalf("token: %d %s %v", r.status, r.body, r.err)
	}
	text, _ := r.json(v.t)["access_token"].(string)
	return text
}

func (v *visitor) devices(token string) reply {
	v.t.Helper()
	return v.get(Audience+"/v2/devices", "Authorization", "Bearer "+token)
}

func want(t *testing.T, r reply, status int, contains string) {
	t.Helper()
	if r.err != nil || r.status != status || !strings.Contains(r.body+r.header.Get("Www-Authenticate"), contains) {
		t.Errorf("got %d %q %q, error %v; want %d with %q", r.status, r.header.Get("Www-Authenticate"), clip(r.body), r.err, status, contains)
	}
}

func clip(s string) string { return s[:min(len(s), 300)] }

func TestWorld_tokenOpensTheAPI(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		want(t, v.devices(v.token()), 200, "pump")
		if w.Count(APIHost, "/v2/devices", 200) != 1 || w.IdP.TokenRequests(ClientID) != 1 || w.Dials(AuthHost) != 1 {
			t.Errorf("counted %d, %d, %d", w.Count(APIHost, "/v2/devices", 200), w.IdP.TokenRequests(ClientID), w.Dials(AuthHost))
		}
		if q := w.Requests(); len(q) != 2 || q[1].Client != ClientID || q[1].Path != "/v2/devices" || q[1].Status != 200 {
			t.Errorf("requests: %+v", q)
		}
		if hosts := w.Saw(ClientSecret); len(hosts) != 1 || hosts[0] != AuthHost {
			t.Errorf("the secret was shown to %v", hosts)
		}
	})
}

func TestWorld_loopback(t *testing.T) {
	w := New()
	if err := w.Listen(); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	v := newVisitor(t, w)
	want(t, v.devices(v.token()), 200, "pump")
	// A program that knows nothing of Dial.
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: w.Roots()}}}
	r, err := plain.Get("https://" + w.Address(APIHost+":443") + "/v2/health")
	if err != nil || r.StatusCode != 200 {
		t.Fatalf("%v, %v", r, err)
	}
	_ = r.Body.Close()
}

func TestHost_line(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		for line, is := range map[Line]func(error) bool{
			NoSuchName:       func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && e.IsNotFound },
			NameServerDown:   func(err error) bool { e, ok := errors.AsType[*net.DNSError](err); return ok && e.IsTemporary },
			NameServerSilent: func(err error) bool { e, ok := errors.AsType[net.Error](err); return ok && e.Timeout() },
			Refused:          func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) },
			Unreachable:      func(err error) bool { return errors.Is(err, syscall.EHOSTUNREACH) },
			BlackHole:        func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
			AcceptsOnly:      func(err error) bool { return errors.Is(err, context.DeadlineExceeded) },
			HangsUp:          func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) },
			Resets:           func(err error) bool { return errors.Is(err, syscall.ECONNRESET) },
			SpeaksOther:      func(err error) bool { _, ok := errors.AsType[tls.RecordHeaderError](err); return ok },
		} {
			w.API.Set(func(f *APIFaults) { f.Line = line })
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			r, err := v.http.Do(request(t, "GET", Audience+"/v2/health", "").WithContext(ctx))
			cancel()
			if err == nil {
				r.Body.Close()
			}
			if err == nil || !is(err) {
				t.Errorf("line %d: %v", line, err)
			}
		}
		w.API.Reset()
		want(t, v.get(Audience+"/v2/health"), 200, "ok")
	})
}

func TestWorld_dialFailsAsANetworkDoes(t *testing.T) {
	w, _ := world(t)
	_, err := w.Dial(t.Context(), "tcp", "nowhere.example.test:443")
	if e, ok := errors.AsType[*net.DNSError](err); !ok || !e.IsNotFound || e.Name != "nowhere.example.test" {
		t.Errorf("unknown name: %v", err)
	}
	_, err = w.Dial(t.Context(), "tcp", APIHost+":9999")
	if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	w.API.Set(func(f *APIFaults) { f.Line = BlackHole })
	if _, err = w.Dial(ctx, "tcp", APIHost+":443"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("black hole: %v", err)
	}
	ips, err := w.Lookup(t.Context(), AuthHost)
	if err != nil || len(ips) != 1 || !netip.MustParsePrefix("192.0.2.0/24").Contains(ips[0]) {
		t.Errorf("Lookup = %v, %v", ips, err)
	}
	c, err := w.Dial(t.Context(), "tcp", net.JoinHostPort(ips[0].String(), "443"))
	if err != nil {
		t.Fatalf("by address: %v", err)
	}
	_ = c.Close()
	w.Close()
	if _, err := w.Dial(t.Context(), "tcp", AuthHost+":443"); err == nil {
		t.Error("a closed World was dialled")
	}
}

func TestWorld_ownServers(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		h := w.Serve("https://vault.example.test:8200", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(rw, "vault "+r.URL.Path)
		}))
		want(t, v.get("https://vault.example.test:8200/v1/x"), 200, "vault /v1/x")
		h.Set(func(f *Faults) { f.Answer, f.Times, f.Only = Status(503), 2, []string{"/v1/"} })
		want(t, v.get("https://vault.example.test:8200/v2/x"), 200, "vault")
		want(t, v.get("https://vault.example.test:8200/v1/x"), 503, "")
		want(t, v.get("https://vault.example.test:8200/v1/x"), 503, "")
		want(t, v.get("https://vault.example.test:8200/v1/x"), 200, "vault")
		w.ServeConn("raw.example.test:25", func(_ context.Context, c net.Conn) { _, _ = io.WriteString(c, "220 hello\r\n") })
		c, err := w.Dial(t.Context(), "tcp", "raw.example.test:25")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if b, _ := io.ReadAll(c); string(b) != "220 hello\r\n" {
			t.Errorf("read %q", b)
		}
	})
}

func TestWorld_strangerRemembers(t *testing.T) {
	w, v := world(t)
	v.get("https://"+EvilHost+"/x", "Authorization", "Bearer abc-secret")
	req := request(t, "POST", "http://"+EvilHost+"/token", form("client_secret", SpecialSecret).Encode(), "Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(SpecialID), url.QueryEscape(SpecialSecret+"2"))
	v.do(req)
	for _, text := range []string{"abc-secret", SpecialSecret, SpecialSecret + "2"} {
		if hosts := w.Saw(text); len(hosts) != 1 || hosts[0] != EvilHost {
			t.Errorf("%q was seen by %v", text, hosts)
		}
	}
}
