package sandbox

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	seenRequests = 4096      // last requests kept for Requests
	seenTexts    = 256       // last requests of each host kept whole, for Saw
	seenBody     = 256 << 10 // bytes of a request's body that are looked at
)

// A Request is one that a host of the World was asked.
type Request struct {
	At     time.Time
	Host   string
	Method string
	Path   string
	Status int    // 0 while under way, or when the connection was cut without one
	Client string // OAuth client or user that proved itself; empty: nobody
}

// seen remembers what the hosts were asked and shown.
type seen struct {
	mu    sync.Mutex // owns what follows
	list  []*Request // the last ones
	count map[Request]int
	dials map[string]int
	texts map[string][]string // by host: requests whole, in every form a secret may hide in
}

func newSeen() *seen {
	return &seen{count: map[Request]int{}, dials: map[string]int{}, texts: map[string][]string{}}
}

func (s *seen) dialled(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials[host]++
}

// packet notes a packet that was answered, as a request without path and status.
func (s *seen) packet(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[Request{Host: host}]++
}

// begin notes a request and gives the body back to it.
func (s *seen) begin(host string, r *http.Request) *Request {
	body, _ := io.ReadAll(io.LimitReader(r.Body, seenBody))
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	text := wholeText(r, body)
	q := &Request{At: time.Now(), Host: host, Method: r.Method, Path: r.URL.Path}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[Request{Host: host, Path: q.Path}]++
	if s.list = append(s.list, q); len(s.list) > seenRequests {
		s.list = slices.Delete(s.list, 0, seenRequests/4)
	}
	if texts := append(s.texts[host], text); len(texts) > seenTexts {
		s.texts[host] = slices.Delete(texts, 0, seenTexts/4)
	} else {
		s.texts[host] = texts
	}
	return q
}

func (s *seen) end(q *Request, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.Status = status
	s.count[Request{Host: q.Host, Path: q.Path}]--
	s.count[Request{Host: q.Host, Path: q.Path, Status: status}]++
}

func (s *seen) proved(q *Request, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.Client = client
}

// wholeText is a request as sent and decoded: what is hidden in Base64 of basic authentication or in a form's encoding is
// written out too.
func wholeText(r *http.Request, body []byte) string {
	var b strings.Builder
	line := func(parts ...string) {
		for _, p := range parts {
			b.WriteString(p)
		}
		b.WriteByte('\n')
	}
	line(r.Method, " ", r.URL.String())
	for name, values := range r.Header {
		for _, value := range values {
			line(name, ": ", value)
			if _, encoded, ok := strings.Cut(value, " "); ok {
				if plain, err := base64.StdEncoding.DecodeString(encoded); err == nil {
					line(string(plain))
					if text, err := url.QueryUnescape(string(plain)); err == nil {
						line(text)
					}
				}
			}
		}
	}
	line(string(body))
	for _, encoded := range []string{r.URL.RawQuery, string(body)} {
		if text, err := url.QueryUnescape(encoded); err == nil {
			line(text)
		}
	}
	return b.String()
}

// Requests gives the last requests, oldest first, up to some thousands.
func (w *World) Requests() []Request {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	list := make([]Request, len(w.seen.list))
	for i, q := range w.seen.list {
		list[i] = *q
	}
	return list
}

// Count says how many requests a host was asked. An empty path means all paths; without statuses any status counts. Status 0
// is that of requests under way, and of those whose connection was cut without an answer.
func (w *World) Count(host, path string, statuses ...int) (n int) {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	for q, times := range w.seen.count {
		if q.Host == host && (path == "" || q.Path == path) && (len(statuses) == 0 || slices.Contains(statuses, q.Status)) {
			n += times
		}
	}
	return n
}

// Dials says how many connections to a host were tried, after its name was resolved.
func (w *World) Dials(host string) int {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	return w.seen.dials[host]
}

// Saw gives the hosts to which a text was shown, in any part of the last few hundred requests to each: address, header,
// body, also encoded as in basic authentication or as in a form.
func (w *World) Saw(text string) (hosts []string) {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	for host, texts := range w.seen.texts {
		if slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(t, text) }) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// serveEvil accepts everything, so that what is sent to a stranger is seen to the end: it is a token endpoint and an API.
func (w *World) serveEvil(rw http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		writeJSON(rw, http.StatusOK, map[string]any{"access_token": "evil-token", "token_type": "Bearer", "expires_in": 3600})
		return
	}
	writeJSON(rw, http.StatusOK, map[string]any{"host": EvilHost})
}
