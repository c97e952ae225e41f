package sandbox

import (
	"crypto/md5" // #nosec G501 -- RFC 7616 has it
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAPI_tokens(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		now := time.Now()
		claim := func(name string, value any) string {
			return w.IdP.Mint(ClientID, func(c map[string]any) { c[name] = value })
		}
		want(t, v.get(Audience+"/v2/devices"), 401, `Bearer realm="api"`)
		want(t, v.get(Audience+"/v2/devices", "Authorization", "Basic eDp5"), 401, `Bearer realm="api"`)
		want(t, v.devices(w.IdP.Mint(ClientID, nil)), 200, ClientID)
		want(t, v.devices("a.b.c"), 401, "malformed")
		want(t, v.devices("opaque"), 401, "not active")
		want(t, v.devices(claim("exp", now.Add(-time.Minute).Unix())), 401, "expired")
		want(t, v.devices(claim("exp", now.Add(-10*time.Second).Unix())), 200, "") // within the leeway
		want(t, v.devices(claim("nbf", now.Add(time.Minute).Unix())), 401, "not yet valid")
		want(t, v.devices(claim("iat", now.Add(time.Minute).Unix())), 401, "issued in the future")
		want(t, v.devices(claim("iss", "https://other.example.test")), 401, "issuer")
		want(t, v.devices(claim("aud", "https://other.example.test")), 401, "audience")
		want(t, v.devices(claim("scope", "profile")), 403, "insufficient_scope")
		good := w.IdP.Mint(ClientID, nil)
		want(t, v.devices(good[:len(good)-6]+"AAAAAA"), 401, "signature")
		want(t, v.get(Audience+"/v2/admin", "Authorization", "Bearer "+good), 403, "insufficient_scope")
		want(t, v.get(Audience+"/v2/open"), 200, "ok")
		want(t, v.get(Audience+"/nothing"), 404, "")

		for name, fault := range map[string]struct {
			set  func(f *IdPFaults)
			says string
		}{
			"kid":      {func(f *IdPFaults) { f.TokenKid = "lost" }, "kid lost"},
			"alg none": {func(f *IdPFaults) { f.TokenAlg = "none" }, "algorithm"},
			"alg":      {func(f *IdPFaults) { f.TokenAlg = "HS256" }, "algorithm"},
			"issuer":   {func(f *IdPFaults) { f.TokenIssuer = Issuer + "/" }, "issuer"},
			"audience": {func(f *IdPFaults) { f.TokenAudience = "x" }, "audience"},
			"nbf":      {func(f *IdPFaults) { f.NotBefore = time.Hour }, "not yet valid"},
			"ahead":    {func(f *IdPFaults) { f.Clock = 2 * time.Minute }, "not yet valid"},
			"behind":   {func(f *IdPFaults) { f.Clock = -2 * time.Hour }, "expired"},
			"withheld": {func(f *IdPFaults) { f.WithholdKey = true }, "not known"},
			"life":     {func(f *IdPFaults) { f.Lifetime = -time.Minute }, "expired"},
		} {
			w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{}; fault.set(f) })
			if r := v.devices(v.token()); r.status != 401 || !strings.Contains(r.body, fault.says) {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
	})
}

func TestAPI_faults(t *testing.T) {
	w, v := world(t)
	token := v.token()
	set := func(change func(f *APIFaults)) { w.API.Set(func(f *APIFaults) { *f = APIFaults{}; change(f) }) }
	set(func(f *APIFaults) { f.Clock = 2 * time.Hour })
	want(t, v.devices(token), 401, "expired")
	set(func(f *APIFaults) { f.Clock = -2 * time.Hour })
	want(t, v.devices(token), 401, "not yet valid")
	set(func(f *APIFaults) { f.Clock, f.Leeway = -time.Minute, 2*time.Minute })
	want(t, v.devices(token), 200, "")
	set(func(f *APIFaults) { f.Clock, f.Leeway = -3*time.Second, -1 })
	want(t, v.devices(token), 401, "not yet valid")
	set(func(f *APIFaults) { f.WantIssuer = "https://old.example.test" })
	want(t, v.devices(token), 401, "issuer")
	set(func(f *APIFaults) { f.WantAudience = "https://new.example.test" })
	want(t, v.devices(token), 401, "audience")
	set(func(f *APIFaults) { f.WantScope = "devices:list" })
	want(t, v.devices(token), 403, `scope="devices:read devices:list"`)
	set(func(f *APIFaults) { f.StripAuthorization = true })
	want(t, v.devices(token), 401, `Bearer realm="api"`)
	set(func(f *APIFaults) { f.Open = true })
	want(t, v.get(Audience+"/v2/admin"), 200, "")
	set(func(f *APIFaults) { f.Denied = true })
	want(t, v.devices(token), 403, "permission")
	set(func(f *APIFaults) { f.Terse = true })
	if r := v.devices("x"); r.status != 401 || r.body != "" || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%+v", r)
	}
	set(func(f *APIFaults) { f.StaleKeys = true })
	w.IdP.Rotate(true)
	want(t, v.devices(token), 200, "")
	want(t, v.devices(v.token()), 401, "not known")
	w.API.Reset()
	want(t, v.devices(v.token()), 200, "")
	set(func(f *APIFaults) { f.RateLimit = 1 })
	if r := v.devices(token); r.status != 200 || r.header.Get("RateLimit-Remaining") != "0" {
		t.Errorf("%+v", r)
	}
	if r := v.devices(token); r.status != 429 || r.header.Get("Retry-After") == "" { // unless the minute ends just here
		if r = v.devices(token); r.status != 429 {
			t.Errorf("%+v", r)
		}
	}
}

func TestAPI_keys(t *testing.T) {
	w, v := world(t)
	at := Audience + "/key"
	want(t, v.get(at), 401, "No API key")
	want(t, v.get(at, "X-Api-Key", "wrong"), 401, "invalid")
	want(t, v.get(at, "X-Api-Key", APIKey), 200, "")
	want(t, v.get(at, "Authorization", "ApiKey "+APIKey), 200, "")
	want(t, v.get(at+"?key="+APIKey), 200, "")
	want(t, v.get(at, "Cookie", "api_key="+APIKey), 200, "")
	w.API.Set(func(f *APIFaults) { f.RetireKey, f.KeyExpires = true, time.Unix(1e9, 0) })
	want(t, v.get(at, "X-Api-Key", APIKey), 401, "invalid")
	if r := v.get(at, "X-Api-Key", NextAPIKey); r.status != 200 || r.header.Get("GitHub-Authentication-Token-Expiration") != "2001-09-09 01:46:40 UTC" {
		t.Errorf("%+v", r)
	}
}

func TestAPI_basicAndDigest(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		basic := func(password string) reply {
			req := request(t, "GET", Audience+"/basic", "")
			req.SetBasicAuth(User, password)
			return v.do(req)
		}
		want(t, v.get(Audience+"/basic"), 401, "Basic realm")
		want(t, basic("wrong"), 401, "Invalid")
		want(t, basic(Password), 200, User)

		at := Audience + "/digest?a=b"
		nonce := func(r reply) string {
			return regexp.MustCompile(`nonce="([^"]+)"`).FindStringSubmatch(r.header.Values("WWW-Authenticate")[1])[1]
		}
		h := func(parts ...string) string {
			sum := md5.Sum([]byte(strings.Join(parts, ":"))) // #nosec G401 -- RFC 7616 has it
			return hex.EncodeToString(sum[:])
		}
		digest := func(nonce, password string) reply {
			response := h(h(User, "api", password), nonce, "00000001", "cn", "auth", h("GET", "/digest?a=b"))
			return v.get(at, "Authorization", fmt.Sprintf(`Digest username="%s", realm="api", nonce="%s", uri="/digest?a=b", algorithm=MD5, qop=auth, nc=00000001, cnonce="cn", response="%s"`, User, nonce, response))
		}
		r := v.get(at)
		want(t, r, 401, "Digest")
		n := nonce(r)
		want(t, digest(n, Password), 200, User)
		want(t, digest(n, "wrong"), 401, "Invalid")
		w.API.Set(func(f *APIFaults) { f.Clock = 10 * time.Minute })
		want(t, digest(n, Password), 401, "stale=true")
	})
}

func TestAPI_sessions(t *testing.T) {
	w, v := world(t)
	cookie := func(r reply) string { c, _, _ := strings.Cut(r.header.Get("Set-Cookie"), ";"); return c }
	if r := v.get(Audience + "/session"); r.status != 302 || r.header.Get("Location") != "/login" {
		t.Errorf("%+v", r)
	}
	page := v.get(Audience + "/login")
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page.body)[1]
	login := func(csrf, password string) reply {
		return v.post(Audience+"/login", form("csrf", csrf, "username", User, "password", password), "Cookie", cookie(page))
	}
	want(t, login("forged", Password), 403, "CSRF")
	want(t, login(csrf, "wrong"), 401, "Invalid")
	in := login(csrf, Password)
	if in.status != http.StatusSeeOther || w.API.Sessions() != 1 {
		t.Fatalf("%+v", in)
	}
	want(t, v.get(Audience+"/session", "Cookie", cookie(in)), 200, User)
	w.API.EndSessions()
	want(t, v.get(Audience+"/session", "Cookie", cookie(in)), 302, "")
	in = login(csrf, Password)
	v.post(Audience+"/logout", nil, "Cookie", cookie(in))
	if w.API.Sessions() != 0 {
		t.Error("a session is open after the logout")
	}
	w.API.Set(func(f *APIFaults) { f.SessionLifetime = time.Nanosecond })
	want(t, v.get(Audience+"/session", "Cookie", cookie(login(csrf, Password))), 302, "")
}

func TestAPI_signedRequests(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		sign := func(at time.Time, key string) reply {
			stamp := strconv.FormatInt(at.Unix(), 10)
			signature := hex.EncodeToString(mac([]byte(key), "POST\n/hmac?x=1\n"+stamp+"\n"+hexSum([]byte("body"))))
			return v.do(request(t, "POST", Audience+"/hmac?x=1", "body", "X-Key-Id", KeyName, "X-Timestamp", stamp, "X-Signature", signature))
		}
		now := time.Now()
		want(t, sign(now, HMACKey), 200, KeyName)
		want(t, sign(now, "wrong"), 401, "invalid_signature")
		want(t, sign(now.Add(6*time.Minute), HMACKey), 401, "request_expired")
		want(t, v.get(Audience+"/hmac"), 401, "missing_signature")

		aws := func(at time.Time, secret string) reply {
			stamp := at.UTC().Format("20060102T150405Z")
			scope := []string{AWSKeyID, stamp[:8], AWSRegion, AWSService, "aws4_request"}
			req := request(t, "GET", Audience+"/sigv4?b=2&a=1%202", "", "X-Amz-Date", stamp)
			signature := awsSign(secret, req, nil, []string{"host", "x-amz-date"}, scope, stamp)
			req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+strings.Join(scope, "/")+", SignedHeaders=host;x-amz-date, Signature="+signature)
			return v.do(req)
		}
		want(t, aws(now, AWSSecret), 200, AWSKeyID)
		want(t, aws(now, "wrong"), 403, "does not match")
		want(t, aws(now.Add(-6*time.Minute), AWSSecret), 403, "Signature expired")
		want(t, aws(now.Add(6*time.Minute), AWSSecret), 403, "not yet current")
		w.API.Set(func(f *APIFaults) { f.Clock = 20 * time.Minute })
		want(t, aws(now, AWSSecret), 403, "Signature expired")
		w.API.Reset()
		want(t, v.get(Audience+"/sigv4"), 403, "Missing Authentication Token")
	})
}

// The worked example of AWS ("Signature Version 4 test suite", get-vanilla), so that signature and check are not wrong together.
func TestAPI_awsExample(t *testing.T) {
	req := request(t, "GET", "https://example.amazonaws.com/", "", "X-Amz-Date", "20150830T123600Z")
	req.Host = "example.amazonaws.com"
	got := awsSign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", req, nil, []string{"host", "x-amz-date"}, []string{"AKIDEXAMPLE", "20150830", "us-east-1", "service", "aws4_request"}, "20150830T123600Z")
	if want := "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"; got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func FuzzParameters(f *testing.F) {
	for _, s := range []string{`username="a\"b", nc=00000001,qop=auth`, `a="`, `=,=`, `Credential=a/b, SignedHeaders=host;x-amz-date, Signature=00`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, value := range parseParameters(s) {
			if len(name)+len(value) > len(s)*4 { // lower case may take more bytes than upper case
				t.Errorf("%q has grown to %q, %q", s, name, value)
			}
		}
	})
}
