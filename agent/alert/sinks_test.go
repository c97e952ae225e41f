package alert

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/authvigil/authvigil/agent/secret"
)

const canary = "canary-of-the-sink-0123"

// A receiver is a server that answers as it is told to, and remembers what it got.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int // 0: never answers
	kind   string
	answer string
	body   []byte
	header http.Header
	times  int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: 200}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	r.body, r.header = body, req.Header.Clone()
	r.times++
	status, kind, answer := r.status, r.kind, r.answer
	r.mu.Unlock()
	if status == 0 {
		<-req.Context().Done()
		return
	}
	if kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	if status/100 == 3 {
		w.Header().Set("Location", answer)
	}
	w.WriteHeader(status)
	fmt.Fprint(w, strings.ReplaceAll(answer, "{authorization}", req.Header.Get("Authorization")))
}

func (r *receiver) answers(status int, kind, answer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.kind, r.answer = status, kind, answer
}

func (r *receiver) got() (body []byte, header http.Header, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.body, r.header, r.times
}

func reference(t *testing.T, text string) secret.Ref {
	t.Helper()
	ref, err := secret.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// made makes the receivers of a kind with the fields of its settings set.
func made(t *testing.T, kind string, env Env, fields map[string]any) ([]*Receiver, error) {
	t.Helper()
	list, err := NewSink(kind, func(into any) error {
		for name, value := range fields {
			reflect.ValueOf(into).Elem().FieldByName(name).Set(reflect.ValueOf(value))
		}
		return nil
	}, env)
	for _, r := range list {
		if c, ok := r.Sink.(io.Closer); ok {
			t.Cleanup(func() { _ = c.Close() })
		}
	}
	return list, err
}

func one(t *testing.T, kind string, fields map[string]any) *Receiver {
	t.Helper()
	list, err := made(t, kind, Env{}, fields)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func testNotice() Notice {
	return Notice{Alert: failing(), StartsAt: time.Now(), EndsAt: time.Now().Add(time.Minute)}
}

// TestSinks_conformance asks of every kind: it delivers, it ends with its context, and it shows no secret, neither in an
// error nor when it is printed. What posts over HTTP also tells lasting refusals from passing trouble and follows no
// redirect.
func TestSinks_conformance(t *testing.T) {
	evil, server := newReceiver(t), newReceiver(t)
	socket := listenJournal(t)
	token := reference(t, "plain:"+canary)
	settings := map[string]map[string]any{
		"alertmanager": {"URLs": []string{server.URL + "/prefix"}, "Token": token},
		"journal":      {"Socket": socket.path},
		"webhook":      {"SecretURL": reference(t, "plain:"+server.URL+"/"+canary), "Key": token, "Token": token},
	}
	for _, kind := range Kinds() {
		fields, ok := settings[kind]
		if !ok {
			t.Errorf("kind %s stands under no conformance test: give it settings here", kind)
			continue
		}
		s := one(t, kind, fields)
		if err := s.Send(t.Context(), []Notice{testNotice(), testNotice()}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if shown := fmt.Sprintf("%+v %#v %v", s, s.Sink, s.Sink); strings.Contains(shown, canary) {
			t.Errorf("%s: the secret is shown", kind)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Send(ctx, []Notice{testNotice()}); err == nil || errors.Is(err, ErrPermanent) {
			t.Errorf("%s: sends although its time is over: %v", kind, err)
		}
		if _, posts := fields["Token"]; posts {
			postsHonestly(t, kind, s, server, evil.URL)
		}
	}
	if _, _, times := evil.got(); times > 0 {
		t.Error("a redirect was followed")
	}
}

func postsHonestly(t *testing.T, kind string, s *Receiver, server *receiver, evil string) {
	t.Helper()
	echo := `{"message":"you sent {authorization}"}`
	for _, c := range []struct {
		status        int
		kind, answer  string
		ok, permanent bool
		says          string
	}{
		{200, "", "", true, false, ""},
		{204, "", "", true, false, ""},
		{400, "application/json", echo, false, true, "you sent Bearer"},
		{400, "application/json", `"invalid label name"`, false, true, "400: invalid label name"},
		{400, "text/plain", "no\x1b[31m\nway {authorization}", false, true, "no [31m way"},
		{404, "text/html", "<html>{authorization}", false, true, "404: a web page"},
		{307, "", evil, false, true, "307"},
		{401, "application/json", echo, false, false, "401"},
		{407, "", "", false, false, "407"},
		{408, "", "", false, false, "408"},
		{413, "", "", false, false, "too large"},
		{429, "", "", false, false, "429"},
		{500, "text/html", "<html>{authorization}", false, false, "500"},
		{503, "text/plain", strings.Repeat("x", 1<<20), false, false, "503"},
	} {
		server.answers(c.status, c.kind, c.answer)
		err := s.Send(t.Context(), []Notice{testNotice()})
		switch {
		case (err == nil) != c.ok || errors.Is(err, ErrPermanent) != c.permanent:
			t.Errorf("%s: status %d: got %v", kind, c.status, err)
		case err == nil:
		case strings.Contains(err.Error(), canary):
			t.Errorf("%s: status %d: the error shows the secret", kind, c.status)
		case !strings.Contains(err.Error(), c.says) || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x1b"):
			t.Errorf("%s: status %d: got %q, want it to say %q", kind, c.status, err, c.says)
		}
	}
	server.answers(0, "", "")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Send(ctx, []Notice{testNotice()}); err == nil || errors.Is(err, ErrPermanent) || strings.Contains(err.Error(), canary) {
		t.Errorf("%s: a receiver that never answers: %v", kind, err)
	}
	server.answers(200, "", "")
}

// TestAlertmanager_webPage: a page with status 200 is no Alertmanager that took the alert, but a login before it.
func TestAlertmanager_webPage(t *testing.T) {
	server := newReceiver(t)
	am := one(t, "alertmanager", map[string]any{"URLs": []string{server.URL}})
	for _, kind := range []string{"text/html; charset=utf-8", ""} {
		server.answers(200, kind, "<!DOCTYPE html><title>Log in</title>")
		if err := am.Send(t.Context(), []Notice{testNotice()}); err == nil || errors.Is(err, ErrPermanent) || !strings.Contains(err.Error(), "web page") {
			t.Errorf("%q: got %v", kind, err)
		}
	}
}

// TestAlertmanager_form: what is posted is what the v2 API takes, whatever the evidence holds.
func TestAlertmanager_form(t *testing.T) {
	server := newReceiver(t)
	am := one(t, "alertmanager", map[string]any{"URLs": []string{server.URL + "/am/"}})
	n := testNotice()
	n.Labels = map[string]string{"team": "devices", "severity": "mine"}
	n.Details = map[string]string{"description": strings.Repeat("ä", 1<<20), "empty": "", "bad": "a\xff", "generator_url": "https://x.example/probes/p"}
	if err := am.Send(t.Context(), []Notice{n}); err != nil {
		t.Fatal(err)
	}
	body, _, _ := server.got()
	var list []posted
	if err := json.Unmarshal(body, &list); err != nil || len(list) != 1 || len(body) > 8<<10 {
		t.Fatalf("%v: %d bytes", err, len(body))
	}
	p := list[0]
	if p.Labels["alertname"] != n.Name || p.Labels["severity"] != "critical" || p.Labels["culprit"] != billing || p.Labels["team"] != "devices" || len(p.Labels) != 4 {
		t.Errorf("labels: %v", p.Labels)
	}
	if d := p.Annotations["description"]; len(d) > maxAnnotation || !utf8.ValidString(d) || !strings.HasSuffix(d, "ä…") {
		t.Errorf("description: %d bytes", len(d))
	}
	if _, ok := p.Annotations["empty"]; ok || p.Annotations["bad"] != "a\uFFFD" || p.Generator != "https://x.example/probes/p" {
		t.Errorf("annotations: %v, generator %s", p.Annotations, p.Generator)
	}
}

// TestAlertmanager_seen: after a test alert the Alertmanager is asked who will be told.
func TestAlertmanager_seen(t *testing.T) {
	server := newReceiver(t)
	am := one(t, "alertmanager", map[string]any{"URLs": []string{server.URL}}).Sink.(*instance)
	for answer, want := range map[string]string{
		`[{"receivers":[{"name":"ops"},{"name":"log"}],"status":{"state":"active","silencedBy":[],"inhibitedBy":[]}}]`: "goes to ops, log when group_wait is over",
		`[{"receivers":[{"name":"ops"}],"status":{"state":"suppressed","silencedBy":["1"]}}]`:                          "nobody is told: a silence matches",
		`[{"receivers":[{"name":"ops"}],"status":{"state":"suppressed","inhibitedBy":["1"]}}]`:                         "nobody is told: another alert inhibits it",
		`[]`:     "",
		`<html>`: "",
	} {
		server.answers(200, "application/json", answer)
		got, err := am.Seen(t.Context(), testNotice())
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v", answer, got, err)
		}
	}
}

// TestSinks_settings: what is wrong with the settings of a sink is found when it is made.
func TestSinks_settings(t *testing.T) {
	for _, c := range []struct {
		kind   string
		fields map[string]any
		says   string
	}{
		{"alertmanager", nil, "urls: is missing"},
		{"alertmanager", map[string]any{"URLs": []string{"am:9093"}}, "urls: want an http or https address"},
		{"alertmanager", map[string]any{"URLs": []string{"http://u:p@am:9093"}}, "urls: want an http or https address without user"},
		{"alertmanager", map[string]any{"URLs": []string{"http://am:9093", "http://am:9093"}}, "urls: am:9093 stands there twice"},
		{"alertmanager", map[string]any{"URLs": []string{"http://am:9093"}, "CAFile": "/does/not/exist"}, "ca_file:"},
		{"alertmanager", map[string]any{"URLs": []string{"http://am:9093"}, "Proxy": "http://u:p@proxy"}, "proxy: want a URL"},
		{"alertmanager", map[string]any{"URLs": []string{"http://am:9093"}, "Username": "u", "Identity": "x"}, "identity: give one of"},
		{"webhook", nil, "url: want"},
		{"webhook", map[string]any{"URL": "http://x", "SecretURL": reference(t, "env:HOOK")}, "secret_url: give it or url"},
		{"webhook", map[string]any{"URL": "http://x", "Template": "{{range .Alerts}"}, "template:"},
		{"webhook", map[string]any{"URL": "http://x", "Template": "{{range .Alerts}}{{.Nonsense}}{{end}}"}, "template:"},
		{"journal", map[string]any{"Socket": "run/journal"}, "socket: want a path"},
		{"pigeon", nil, `unknown kind "pigeon"`},
	} {
		if _, err := made(t, c.kind, Env{}, c.fields); err == nil || !strings.HasPrefix(err.Error(), c.says) {
			t.Errorf("%s %v: got %v, want %q", c.kind, c.fields, err, c.says)
		}
	}
}

// TestWebhook_signature: a receiver can verify who sent the body and when.
func TestWebhook_signature(t *testing.T) {
	server := newReceiver(t)
	hook := one(t, "webhook", map[string]any{"URL": server.URL, "Key": reference(t, "plain:"+canary)})
	over := testNotice()
	over.Resolved = true
	if err := hook.Send(t.Context(), []Notice{testNotice(), over}); err != nil {
		t.Fatal(err)
	}
	body, header, _ := server.got()
	mac := hmac.New(sha256.New, []byte(canary))
	fmt.Fprintf(mac, "%s.%s", header.Get("X-Authvigil-Timestamp"), body)
	if got := header.Get("X-Authvigil-Signature"); got != "sha256="+hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("signature %s", got)
	}
	var d document
	if err := json.Unmarshal(body, &d); err != nil || d.Version != 1 || len(d.Alerts) != 2 || d.Alerts[0].Status != "firing" || d.Alerts[1].Status != "resolved" {
		t.Errorf("%v: %s", err, body)
	}
}

// TestWebhook_template: the body may be in the form that a chat service wants, and what it holds cannot break that form.
func TestWebhook_template(t *testing.T) {
	server := newReceiver(t)
	hook := one(t, "webhook", map[string]any{"URL": server.URL, "ContentType": "application/json",
		"Template": `{"text": {{ json (printf "%d alerts: %s %s" (len .Alerts) (index .Alerts 0).Status (index .Alerts 0).Annotations.summary) }}}`})
	n := testNotice()
	n.Summary = "it says \"no\"\n<b>"
	if err := hook.Send(t.Context(), []Notice{n}); err != nil {
		t.Fatal(err)
	}
	body, _, _ := server.got()
	var said struct{ Text string }
	if err := json.Unmarshal(body, &said); err != nil || said.Text != "1 alerts: firing "+n.Summary {
		t.Errorf("%v: %s", err, body)
	}
	big := one(t, "webhook", map[string]any{"URL": server.URL, "Template": `{{range .Alerts}}{{range .Annotations}}` + strings.Repeat("{{.}}", 600) + `{{end}}{{end}}`})
	n.Details = map[string]string{"description": strings.Repeat("x", maxAnnotation)}
	if err := big.Send(t.Context(), []Notice{n}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a body without end: %v", err)
	}
}

// TestSinks_retryAfter: a receiver that asks for a pause gets one, within bounds.
func TestSinks_retryAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "7": 7 * time.Second, "-1": 0, "99999999999": longestPause, "86400": longestPause, "x": 0} {
		a := &answer{status: 429, header: http.Header{"Retry-After": {text}}}
		if got := askedPause(a.verdict("http://am:9093/")); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// TestSinks_proxy: alerts go by a proxy with a name and a password of its own.
func TestSinks_proxy(t *testing.T) {
	proxy := newReceiver(t)
	am := one(t, "alertmanager", map[string]any{"URLs": []string{"http://am.example.com:9093"}, "Proxy": proxy.URL, "ProxyUsername": "monitor", "ProxyPassword": reference(t, "plain:"+canary)})
	if err := am.Send(t.Context(), []Notice{testNotice()}); err != nil {
		t.Fatal(err)
	}
	_, header, times := proxy.got()
	r := http.Request{Header: http.Header{"Authorization": header["Proxy-Authorization"]}}
	if user, password, _ := r.BasicAuth(); times != 1 || user != "monitor" || password != canary {
		t.Errorf("%d times, %q", times, header)
	}
}

// badge is a proof that needs two steps.
type badge struct{ settled []int }

func (b *badge) Apply(_ context.Context, req *http.Request) (func(int, http.Header) bool, error) {
	req.Header.Set("Authorization", fmt.Sprintf("Badge %d", len(b.settled)))
	return func(status int, _ http.Header) bool {
		b.settled = append(b.settled, status)
		return status == 401
	}, nil
}

func (b *badge) ClientCertificate(context.Context) (*tls.Certificate, error) { return nil, nil }

// TestSinks_identity: a sink sends as an identity, tells it what the server said, and goes again when its protocol wants it,
// once.
func TestSinks_identity(t *testing.T) {
	server, b := newReceiver(t), &badge{}
	env := Env{Proof: func(name string) (Proof, error) {
		if name != "monitor" {
			return nil, errors.New("there is none")
		}
		return b, nil
	}}
	list, err := made(t, "alertmanager", env, map[string]any{"URLs": []string{server.URL}, "Identity": "monitor"})
	if err != nil {
		t.Fatal(err)
	}
	server.answers(401, "", "")
	if err := list[0].Send(t.Context(), []Notice{testNotice()}); err == nil {
		t.Error("a refusal was taken for a delivery")
	}
	if _, header, times := server.got(); times != 2 || header.Get("Authorization") != "Badge 1" {
		t.Errorf("%d requests, the last with %q", times, header.Get("Authorization"))
	}
	if _, err := made(t, "webhook", env, map[string]any{"URL": server.URL, "Identity": "nobody"}); err == nil || !strings.HasPrefix(err.Error(), "identity:") {
		t.Errorf("an identity that is not there: %v", err)
	}
}

type journalSocket struct {
	path string
	got  chan []byte
}

func listenJournal(t *testing.T) *journalSocket {
	t.Helper()
	j := &journalSocket{path: filepath.Join(t.TempDir(), "journal"), got: make(chan []byte, 16)}
	c, err := net.ListenPacket("unixgram", j.path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1<<20)
		for {
			n, _, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			j.got <- bytes.Clone(buffer[:n])
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return j
}

// fieldsOf reads the native protocol as the journal does.
func fieldsOf(t *testing.T, entry []byte) map[string]string {
	t.Helper()
	fields := map[string]string{}
	for len(entry) > 0 {
		line, rest, ok := bytes.Cut(entry, []byte("\n"))
		if !ok {
			t.Fatalf("a field without end: %q", entry)
		}
		if name, value, found := strings.Cut(string(line), "="); found {
			fields[name], entry = value, rest
			continue
		}
		n := binary.LittleEndian.Uint64(rest)
		fields[string(line)] = string(rest[8 : 8+n])
		if rest[8+n] != '\n' {
			t.Fatalf("field %s does not end", line)
		}
		entry = rest[8+n+1:]
	}
	return fields
}

func TestJournal_entries(t *testing.T) {
	socket := listenJournal(t)
	j := one(t, "journal", map[string]any{"Socket": socket.path})
	critical, warning, over := testNotice(), testNotice(), testNotice()
	critical.Details = map[string]string{"description": "one\ntwo", "remedy": strings.Repeat("x", 1<<20)}
	critical.Labels = map[string]string{"team": "devices"}
	warning.Severity, over.Resolved = Warning, true
	if err := j.Send(t.Context(), []Notice{critical, warning, over}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"2", "4", "5"} {
		f := fieldsOf(t, <-socket.got)
		if f["PRIORITY"] != want || f["SYSLOG_IDENTIFIER"] != "authvigil" || f["AUTHVIGIL_ALERTNAME"] != critical.Name || f["AUTHVIGIL_CULPRIT"] != billing {
			t.Errorf("entry %d: %v", i, f)
		}
		if i == 0 && (f["AUTHVIGIL_DESCRIPTION"] != "one\ntwo" || f["AUTHVIGIL_TEAM"] != "devices" || f["MESSAGE"] != "firing AuthvigilCredentialFailing: it fails") {
			t.Errorf("entry: %v", f)
		}
	}
	gone := one(t, "journal", map[string]any{"Socket": filepath.Join(t.TempDir(), "none")})
	if err := gone.Send(t.Context(), []Notice{warning}); err == nil || errors.Is(err, ErrPermanent) {
		t.Errorf("no journal: %v", err)
	}
}

// TestSender_saysOnce: trouble is written when it begins, changes and ends, not with each try.
func TestSender_saysOnce(t *testing.T) {
	var log bytes.Buffer
	d := NewDispatcher(slog.New(slog.NewTextHandler(&log, nil)))
	in := &inbox{}
	s := newSender("pager", &Receiver{Sink: in, Name: "am1:9093"}, d)
	for _, fail := range []error{errors.New("refused"), errors.New("refused"), fmt.Errorf("bad label: %w", ErrPermanent), nil, fmt.Errorf("bad label: %w", ErrPermanent), errors.New("refused")} {
		in.set(always(fail), 0)
		s.queue("a", testNotice())
		_ = s.send(t.Context())
	}
	if got := strings.Count(log.String(), "\n"); got != 4 {
		t.Errorf("%d lines, want 4:\n%s", got, log.String())
	}
	if !strings.Contains(log.String(), "receiver=am1:9093") {
		t.Errorf("the receiver is not named:\n%s", log.String())
	}
	if s.refused != 2 || s.failed != 3 || s.delivered != 1 {
		t.Errorf("delivered %d, failed %d, refused %d", s.delivered, s.failed, s.refused)
	}
}
