package sandbox

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		put := func(h http.Handler) { w.API.Set(func(f *APIFaults) { f.Answer = h }) }
		ask := func() reply { return v.get(Audience + "/v2/devices") }

		put(Status(503))
		want(t, ask(), 503, "Service Unavailable")
		put(Unauthorized(`Bearer error="invalid_token"`))
		want(t, ask(), 401, "invalid_token")
		put(RetryLater(429, 7*time.Second))
		if r := ask(); r.status != 429 || r.header.Get("Retry-After") != "7" || r.header.Get("RateLimit-Remaining") != "0" {
			t.Errorf("%+v", r)
		}
		put(BlockPage())
		want(t, ask(), 403, "firewall")
		put(LoginPage())
		if r := ask(); r.status != 200 || !strings.Contains(r.header.Get("Content-Type"), "html") || !strings.Contains(r.body, `type="password"`) {
			t.Errorf("%+v", r)
		}
		put(RedirectTo(307, "https://"+EvilHost+"/token"))
		if r := ask(); r.status != 307 || r.header.Get("Location") != "https://"+EvilHost+"/token" {
			t.Errorf("%+v", r)
		}
		put(RedirectLoop())
		if a, b := ask(), v.get(Audience+"/round"); a.header.Get("Location") != "/round" || b.header.Get("Location") != "/and-round" {
			t.Errorf("%+v, %+v", a, b)
		}
		put(HugeBody(5 << 20))
		if r := ask(); r.status != 200 || len(r.body) != 5<<20+2 {
			t.Errorf("%d bytes, %v", len(r.body), r.err)
		}
		put(GzipBomb(3 << 20))
		if r := v.get(Audience+"/", "Accept-Encoding", "gzip"); r.header.Get("Content-Encoding") != "gzip" || len(r.body) > 1<<15 {
			t.Errorf("bomb of %d bytes, %v", len(r.body), r.header)
		}
		if r := ask(); len(r.body) != 3<<20 {
			t.Errorf("the bomb unpacked to %d bytes, %v", len(r.body), r.err)
		}
		put(HugeHeader(2 << 20))
		if r := ask(); r.err != nil || len(r.header) < 2000 {
			t.Errorf("%d header fields, %v", len(r.header), r.err)
		}
		put(CutBody())
		if r := ask(); r.status != 200 || r.err == nil {
			t.Errorf("%d, %v", r.status, r.err)
		}
		put(HangUp())
		if r := ask(); !errors.Is(r.err, io.EOF) {
			t.Errorf("%d, %v", r.status, r.err)
		}
		put(NotHTTP())
		if r := ask(); r.err == nil || !strings.Contains(r.err.Error(), "malformed HTTP") {
			t.Errorf("%d, %v", r.status, r.err)
		}
	})
}

func TestAnswers_withoutAnEnd(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		for what, h := range map[string]http.Handler{"silence": Silence(), "drip": Drip(time.Millisecond), "huge body": HugeBody(1 << 60)} {
			w.API.Set(func(f *APIFaults) { f.Answer = h })
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			r, err := v.http.Do(request(t, "GET", Audience+"/", "").WithContext(ctx))
			if err == nil {
				if what == "huge body" {
					_, err = io.CopyN(io.Discard, r.Body, 1<<20)
					if err == nil {
						err = context.DeadlineExceeded // as much of it as one likes
					}
				} else {
					_, err = io.Copy(io.Discard, r.Body)
				}
				r.Body.Close()
			}
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestFaults_delayAndClock(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		w.API.Set(func(f *APIFaults) { f.Delay, f.Clock = 30*time.Millisecond, -time.Hour })
		start := time.Now()
		r := v.get(Audience + "/v2/health")
		if took := time.Since(start); took < 30*time.Millisecond {
			t.Errorf("took %s", took)
		}
		at, err := http.ParseTime(r.header.Get("Date"))
		if off := time.Since(at) - time.Hour; err != nil || off.Abs() > 2*time.Second {
			t.Errorf("Date %s: off by %s, %v", r.header.Get("Date"), off, err)
		}
	})
}

// A handler that waits for the end of its request must not keep a World from closing.
func TestWorld_closeEndsWhatHangs(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w := New()
		v := newVisitor(t, w)
		w.API.Set(func(f *APIFaults) { f.Answer = Silence() })
		w.IdP.Set(func(f *IdPFaults) { f.Line = AcceptsOnly })
		done := make(chan error)
		for _, url := range []string{Audience, Issuer} {
			go func() {
				_, err := v.http.Get(url) //nolint:bodyclose // there is no answer
				done <- err
			}()
		}
		for w.Dials(APIHost) == 0 || w.Dials(AuthHost) == 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond)
		w.Close()
		for range 2 {
			if err := <-done; err == nil {
				t.Error("an answer came")
			}
		}
	})
}
