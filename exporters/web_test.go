package exporters

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// routes are all that the listener serves.
var routes = []string{"/", "/probes/a", "/runbooks/token_expired", "/metrics", "/-/healthy", "/-/ready", "/api/v1/probes", "/api/v1/probes/a", "/api/v1/findings", "/api/v1/alerts", "/api/v1/runways", "/api/v1/clocks", "/page.css", "/refresh.js"}

// TestWeb_changesNothing: no method but GET and HEAD, known or made up, with or without a foreign origin, and no profile of
// the process; nothing that is asked becomes a series.
func TestWeb_changesNothing(t *testing.T) {
	w, get := web(t)
	w.Status.Observe(event("a", refused()))
	_, before, _ := get("/metrics", "localhost")
	h := w.Handler()
	ask := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader("x=1"))
		r.Host = "localhost"
		r.Header.Set("Origin", "https://evil.test")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec
	}
	for _, path := range routes {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace, "BREW", "PROPFIND"} {
			if method == http.MethodConnect && path == "/" {
				continue // has no path of its own
			}
			if rec := ask(method, path); rec.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, rec.Code)
			} else if rec.Header().Get("Access-Control-Allow-Origin") != "" || !strings.Contains(rec.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'") || rec.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: %v", method, path, rec.Header())
			}
		}
		if rec := ask(http.MethodGet, path+"?target=http://evil.test&url=http://evil.test&module=x&debug=true"); rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), "evil.test") {
			t.Errorf("%s with parameters of strangers: %d", path, rec.Code)
		}
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/vars", "/-/reload", "/-/quit", "/reload", "/config", "/api/v1/config", "/static/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/../secret"} {
		if code, body, _ := get(path, "localhost"); code == http.StatusOK || strings.Contains(body, "root:") {
			t.Errorf("%s: %d", path, code)
		}
	}
	_, after, _ := get("/metrics", "localhost")
	if names(before) != names(after) {
		t.Errorf("series came from requests:\n%s\n%s", names(before), names(after))
	}
}

// names gives the series of a scrape without their values.
func names(metrics string) string {
	var b strings.Builder
	for line := range strings.Lines(metrics) {
		if i := strings.LastIndex(line, " "); i > 0 && strings.HasPrefix(line, "authvigil_") {
			b.WriteString(line[:i] + "\n")
		}
	}
	return b.String()
}

// TestWeb_believesNoForwardedHeaders: whose host it is stands in the request itself.
func TestWeb_believesNoForwardedHeaders(t *testing.T) {
	w, _ := web(t)
	h := w.Handler()
	for _, host := range []string{"evil.test", "localhost"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		for _, name := range []string{"X-Forwarded-Host", "X_Forwarded_Host", "Forwarded", "X-Forwarded-Uri", "X-Original-Url", "X-Rewrite-Url"} {
			r.Header.Set(name, map[string]string{"evil.test": "localhost", "localhost": "evil.test"}[host])
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if want := map[string]int{"evil.test": http.StatusMisdirectedRequest, "localhost": http.StatusOK}[host]; rec.Code != want || strings.Contains(rec.Body.String(), "evil.test") {
			t.Errorf("host %s: %d, want %d", host, rec.Code, want)
		}
	}
}
