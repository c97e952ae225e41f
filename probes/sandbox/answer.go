package sandbox

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What follows makes answers that take the place of a host's own, for Faults.Answer. Any http.Handler will do as well.

// Status answers with a status and a short JSON document, such as 401, 403, 500 or 503.
func Status(status int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		writeJSON(rw, status, map[string]any{"status": status, "message": http.StatusText(status)})
	})
}

// Unauthorized answers 401 with a challenge, such as `Bearer realm="api", error="invalid_token"`.
func Unauthorized(challenge string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("WWW-Authenticate", challenge)
		writeJSON(rw, http.StatusUnauthorized, map[string]any{"message": "Unauthorized"})
	})
}

// RetryLater answers 429 or 503 with Retry-After, and with the RateLimit fields of a budget that is used up.
func RetryLater(status int, after time.Duration) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		seconds := strconv.Itoa(int(after.Seconds()))
		rw.Header().Set("Retry-After", seconds)
		if status == http.StatusTooManyRequests {
			rw.Header().Set("RateLimit-Limit", "100")
			rw.Header().Set("RateLimit-Remaining", "0")
			rw.Header().Set("RateLimit-Reset", seconds)
		}
		writeJSON(rw, status, map[string]any{"status": status, "message": http.StatusText(status)})
	})
}

// HTML answers with a page.
func HTML(status int, page string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, page)
	})
}

// BlockPage answers 403 as a web application firewall that never looked at the credential.
func BlockPage() http.Handler {
	page := HTML(http.StatusForbidden, `<!DOCTYPE html>
<html><head><title>Access Denied</title></head><body><h1>Access Denied</h1>
<p>Your request was blocked by the web application firewall. If you think this is an error, contact the site owner.</p>
<p>Reference #18.2d351ab8.1557333295.a4e16ab</p></body></html>
`)
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Server", "AkamaiGHost")
		page.ServeHTTP(rw, r)
	})
}

// LoginPage answers 200 with a page to log in, in place of what was asked for.
func LoginPage() http.Handler {
	return HTML(http.StatusOK, `<!DOCTYPE html>
<html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1>
<form method="post" action="/login"><input name="username"><input type="password" name="password"><button>Sign in</button></form>
</body></html>
`)
}

// RedirectTo answers with a redirect, such as 302 to a login page or 307 to a foreign host.
func RedirectTo(status int, url string) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Location", url)
		rw.WriteHeader(status)
	})
}

// RedirectLoop answers with redirects between two paths, for ever.
func RedirectLoop() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		next := "/round"
		if r.URL.Path == next {
			next = "/and-round"
		}
		rw.Header().Set("Location", next)
		rw.WriteHeader(http.StatusFound)
	})
}

// HugeBody answers 200 with a JSON string of so many bytes.
func HugeBody(bytes int64) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(rw, `"`)
		_, _ = io.CopyN(rw, letters{}, bytes)
		_, _ = io.WriteString(rw, `"`)
	})
}

// GzipBomb answers 200 with a compressed body that unpacks to so many bytes.
func GzipBomb(bytes int64) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(rw)
		_, _ = io.CopyN(zip, letters{}, bytes)
		_ = zip.Close()
	})
}

type letters struct{}

func (letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'a'
	}
	return len(b), nil
}

// HugeHeader answers 200 with so many bytes of header.
func HugeHeader(bytes int) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		c := hijack(rw)
		defer c.Close()
		out := bufio.NewWriter(c)
		_, _ = io.WriteString(out, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n")
		line := strings.Repeat("x", 1000)
		for i := 0; i < bytes; i += 1024 {
			if _, err := fmt.Fprintf(out, "X-Padding-%08d: %s\r\n", i, line); err != nil {
				return
			}
		}
		_, _ = io.WriteString(out, "\r\n{}")
		_ = out.Flush()
	})
}

// CutBody answers 200, promises a body and ends the connection in the middle of it.
func CutBody() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(rw, `{"devices":[{"id":`)
		_ = http.NewResponseController(rw).Flush()
		_ = underTLS(hijack(rw)).Close()
	})
}

// HangUp reads the request and closes the connection without an answer.
func HangUp() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _ = hijack(rw).Close() })
}

// NotHTTP answers in another language.
func NotHTTP() http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		c := hijack(rw)
		defer c.Close()
		_, _ = io.WriteString(c, "220 mail.example.test ESMTP ready\r\n")
	})
}

// Silence reads the request and never answers.
func Silence() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// Drip answers 200 with a body that comes byte by byte, and without an end.
func Drip(every time.Duration) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		flush := http.NewResponseController(rw)
		for wait(r, every) {
			if _, err := io.WriteString(rw, " "); err != nil || flush.Flush() != nil {
				return
			}
		}
	})
}
