package sandbox

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"time"
)

// serveHTTP answers every request of the World: it notes it, lets the host's faults have their way, and asks the handler.
func (w *World) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(servedKey{}).(*served).service
	q := w.seen.begin(s.host.Name, r)
	out := &answering{ResponseWriter: rw, request: q, seen: w.seen}
	defer func() { w.seen.end(q, out.status) }()
	held, answer := s.host.answer(r.URL.Path)
	if !wait(r, held) {
		return
	}
	out.Header().Set("Date", s.host.now().UTC().Format(http.TimeFormat))
	if answer == nil {
		answer = s.handler
	}
	answer.ServeHTTP(out, r)
}

// wait holds an answer back; it says false when nobody waits for it any more.
func wait(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// answering notes the status of an answer.
type answering struct {
	http.ResponseWriter
	request *Request
	seen    *seen
	status  int
}

func (a *answering) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answering) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// proved notes who proved itself in a request.
func proved(rw http.ResponseWriter, client string) {
	if a, ok := rw.(*answering); ok {
		a.seen.proved(a.request, client)
	}
}

// hijack takes the connection out of the hands of the HTTP server; the answer counts as one of status 0 when it has none.
func hijack(rw http.ResponseWriter) net.Conn {
	c, _, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return c
}

func writeJSON(rw http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	if rw.Header().Get("Content-Type") == "" {
		rw.Header().Set("Content-Type", "application/json")
	}
	if rw.Header().Get("Cache-Control") == "" {
		rw.Header().Set("Cache-Control", "no-store")
	}
	rw.WriteHeader(status)
	_, _ = rw.Write(b.Bytes())
}
