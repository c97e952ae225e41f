package sandbox

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestProxy(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		through := func(user *url.Userinfo) {
			v.http.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: ProxyHost + ":3128", User: user})
		}
		refused := func(why string) {
			t.Helper()
			if r := v.get(Audience + "/v2/health"); r.err == nil || !strings.Contains(r.err.Error(), why) {
				t.Errorf("%d, %v; want %q", r.status, r.err, why)
			}
		}
		through(nil)
		want(t, v.get(Audience+"/v2/health"), 200, "ok")
		if w.Count(ProxyHost, "") != 1 || w.Count(APIHost, "/v2/health", 200) != 1 {
			t.Errorf("the proxy was asked %d times, the API %d", w.Count(ProxyHost, ""), w.Count(APIHost, "/v2/health"))
		}
		w.Proxy.Set(func(f *ProxyFaults) { f.RequireLogin = true })
		refused("Proxy Authentication Required")
		through(url.UserPassword(ProxyUser, ProxyPassword))
		want(t, v.get(Audience+"/v2/health"), 200, "ok")
		w.Proxy.Set(func(f *ProxyFaults) { *f = ProxyFaults{Forbid: true} })
		refused("Forbidden")
		w.Proxy.Reset()
		w.API.Set(func(f *APIFaults) { f.Line = Refused })
		refused("Bad Gateway")
	})
}
