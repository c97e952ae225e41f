package sandbox

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestIdP_clientAuthentication(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		at := Issuer + "/token"
		plain := func(pairs ...string) url.Values { return form(append(pairs, "grant_type", "client_credentials")...) }
		basic := func(id, secret string) reply {
			req := request(t, "POST", at, plain().Encode(), "Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
			return v.do(req)
		}
		want(t, basic(ClientID, ClientSecret), 200, "access_token")
		want(t, basic(SpecialID, SpecialSecret), 200, "access_token")
		want(t, v.ask("grant_type", "client_credentials"), 200, "access_token")
		want(t, basic(ClientID, "wrong"), 401, "invalid_client")
		want(t, basic("nobody", "x"), 401, "invalid_client")
		want(t, basic(KeyID, ""), 401, "invalid_client")

		now := time.Now()
		assert := func(id, alg string, change func(c map[string]any)) reply {
			c := map[string]any{"iss": id, "sub": id, "aud": at, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}
			if change != nil {
				change(c)
			}
			text := signES256(clientKey, map[string]any{"alg": alg}, c)
			if alg == "HS256" {
				signed := text[:strings.LastIndex(text, ".")]
				text = signed + "." + b64(mac([]byte(ClientSecret), signed))
			}
			return v.post(at, plain("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion", text))
		}
		want(t, assert(KeyID, "ES256", nil), 200, "access_token")
		want(t, assert(ClientID, "HS256", nil), 200, "access_token")
		want(t, assert(KeyID, "ES256", func(c map[string]any) { c["jti"] = "one" }), 200, "access_token")
		want(t, assert(KeyID, "ES256", func(c map[string]any) { c["jti"] = "one" }), 401, "invalid_client") // replayed
		want(t, assert(KeyID, "ES256", func(c map[string]any) { c["aud"] = "https://other.example.test" }), 401, "invalid_client")
		for _, clock := range []time.Duration{2 * time.Minute, -2 * time.Minute} {
			w.IdP.Set(func(f *IdPFaults) { f.Clock = clock })
			want(t, assert(KeyID, "ES256", nil), 401, "invalid_client")
			want(t, v.ask("grant_type", "client_credentials"), 200, "access_token") // a secret knows no time
		}
		w.IdP.Reset()

		tlsForm := plain("client_id", TLSID)
		want(t, newVisitor(t, w, w.ClientCertificate(TLSID, Certificate{})).post(at, tlsForm), 200, "access_token")
		want(t, newVisitor(t, w, w.ClientCertificate("other", Certificate{})).post(at, tlsForm), 401, "invalid_client")
		want(t, newVisitor(t, w, w.ClientCertificate(TLSID, Certificate{NotAfter: now.Add(-time.Hour)})).post(at, tlsForm), 401, "invalid_client")
		want(t, v.post(at, tlsForm), 401, "invalid_client")
	})
}

func TestIdP_clientsComeAndGo(t *testing.T) {
	w, v := world(t)
	ask := func() reply { return v.ask("grant_type", "client_credentials") }
	change := func(f func(c *Client)) { w.IdP.Change(ClientID, f) }
	change(func(c *Client) { c.Disabled = true })
	want(t, ask(), 400, "disabled")
	change(func(c *Client) { c.Disabled, c.SecretEnded = false, true })
	want(t, ask(), 401, "expired")
	change(func(c *Client) { c.SecretEnded, c.Secret, c.NextSecret = false, "new", ClientSecret })
	want(t, ask(), 200, "access_token")
	change(func(c *Client) { c.NextSecret = "" })
	want(t, ask(), 401, "invalid_client")
	change(func(c *Client) { c.Secret, c.Grants = ClientSecret, []string{"refresh_token"} })
	want(t, ask(), 400, "unauthorized_client")
	w.IdP.Delete(ClientID)
	want(t, ask(), 401, "invalid_client")
	w.IdP.Register(Client{ID: ClientID, Secret: ClientSecret})
	want(t, ask(), 200, "access_token")

	w.IdP.Set(func(f *IdPFaults) { f.LockAfter = 2 })
	bad := func() reply {
		return v.post(Issuer+"/token", form("grant_type", "client_credentials", "client_id", ClientID, "client_secret", "x"))
	}
	want(t, bad(), 401, "failed")
	want(t, bad(), 401, "failed")
	want(t, ask(), 401, "locked")
	w.IdP.Unlock(ClientID)
	want(t, ask(), 200, "access_token")
}

func TestIdP_requestsThatAreWrong(t *testing.T) {
	_, v := world(t)
	want(t, v.ask(), 400, "invalid_request")
	want(t, v.ask("grant_type", "magic"), 400, "unsupported_grant_type")
	want(t, v.ask("grant_type", "client_credentials", "scope", "devices:read fly"), 400, "invalid_scope")
	want(t, v.ask("grant_type", "client_credentials", "resource", "https://unknown.example.test"), 400, "invalid_target")
	want(t, v.get(Issuer+"/token"), 405, "")
	want(t, v.get(Issuer+"/nothing"), 404, "")
	if aud := v.token("audience", "https://other.example.test"); !strings.Contains(v.devices(aud).body, "audience") {
		t.Error("a token for another audience was not refused for it")
	}
}

func TestIdP_refreshTokensRotate(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		refresh := func(text string) reply { return v.ask("grant_type", "refresh_token", "refresh_token", text) }
		next := func(r reply) string { s, _ := r.json(t)["refresh_token"].(string); return s }
		r := v.ask("grant_type", "password", "username", User, "password", Password)
		want(t, r, 200, "refresh_token")
		want(t, v.ask("grant_type", "password", "username", User, "password", "x"), 400, "invalid_grant")
		first := next(r)
		second := next(refresh(first))
		want(t, refresh(first), 400, "used before") // and the newer one dies with it
		want(t, refresh(second), 400, "invalid_grant")

		w.IdP.Set(func(f *IdPFaults) { f.RefreshLifetime = time.Millisecond })
		old := w.IdP.Consent(ClientID)
		time.Sleep(2 * time.Millisecond)
		want(t, refresh(old), 400, "expired")
		w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{KeepRefresh: true} })
		kept := w.IdP.Consent(ClientID)
		for range 2 {
			if r := refresh(kept); r.status != 200 || next(r) != "" {
				t.Errorf("%d %s", r.status, r.body)
			}
		}
		w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{LoseAnswer: true} })
		lost := w.IdP.Consent(ClientID)
		if r := refresh(lost); r.err == nil {
			t.Errorf("an answer came: %d", r.status)
		}
		w.IdP.Reset()
		want(t, refresh(lost), 400, "used before") // it was spent all the same
	})
}

func TestIdP_otherGrants(t *testing.T) {
	_, v := world(t)
	now := time.Now()
	assertion := signES256(clientKey, map[string]any{"alg": "ES256"}, map[string]any{
		"iss": ClientID, "sub": "someone", "aud": Issuer, "jti": rand.Text(), "exp": now.Add(time.Minute).Unix(),
	})
	want(t, v.ask("grant_type", grantJWT, "assertion", assertion), 200, "access_token")
	want(t, v.ask("grant_type", grantJWT, "assertion", assertion), 400, "invalid_grant")
	const kind = "urn:ietf:params:oauth:token-type:access_token"
	want(t, v.ask("grant_type", grantExchange, "subject_token", v.token(), "subject_token_type", kind), 200, "issued_token_type")
	want(t, v.ask("grant_type", grantExchange, "subject_token", "x", "subject_token_type", kind), 400, "invalid_request")
}

func TestIdP_tokenAnswers(t *testing.T) {
	w, v := world(t)
	answer := func(set func(f *IdPFaults)) map[string]any {
		w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{}; set(f) })
		return v.ask("grant_type", "client_credentials").json(t)
	}
	for text, want := range map[string]any{"": 3600.0, "0": 0.0, "3599.5": 3599.5, `"3600"`: "3600", "-": nil} {
		if got := answer(func(f *IdPFaults) { f.ExpiresIn = text })["expires_in"]; got != want {
			t.Errorf("ExpiresIn %q gives %v, want %v", text, got, want)
		}
	}
	if got := answer(func(f *IdPFaults) { f.Lifetime = 5 * time.Second })["expires_in"]; got != 5.0 {
		t.Errorf("expires_in %v", got)
	}
	if got := answer(func(f *IdPFaults) { f.TokenType = "mac" })["token_type"]; got != "mac" {
		t.Errorf("token_type %v", got)
	}
	if got, _ := answer(func(f *IdPFaults) { f.Opaque = true })["access_token"].(string); strings.Contains(got, ".") || w.IdP.find(got) == nil {
		t.Errorf("opaque token %q", got)
	}
	if got, _ := answer(func(f *IdPFaults) { f.Padding = 20 << 10 })["access_token"].(string); len(got) < 20<<10 {
		t.Errorf("token of %d bytes", len(got))
	}
	if got := answer(func(f *IdPFaults) { f.Withhold = []string{"devices:read"} })["scope"]; strings.Contains(got.(string), "devices:read") {
		t.Errorf("scope %v", got)
	}
}

func TestIdP_metadata(t *testing.T) {
	w, v := world(t)
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		m := v.get(Issuer + path).json(t)
		if m["issuer"] != Issuer || m["jwks_uri"] != Issuer+"/jwks" {
			t.Errorf("%s: %v", path, m)
		}
	}
	w.IdP.Set(func(f *IdPFaults) { f.MetadataIssuer, f.TokenEndpoint = Issuer+"/", "http://"+AuthHost+"/token" })
	m := v.get(Issuer + "/.well-known/openid-configuration").json(t)
	if m["issuer"] != Issuer+"/" || m["token_endpoint"] != "http://"+AuthHost+"/token" {
		t.Errorf("%v", m)
	}
	keys := func() int { list, _ := v.get(Issuer + "/jwks").json(t)["keys"].([]any); return len(list) }
	if keys() != 1 {
		t.Errorf("%d keys", keys())
	}
	if w.IdP.Rotate(true); keys() != 2 {
		t.Errorf("%d keys after a rotation that keeps the old one", keys())
	}
	if w.IdP.Rotate(false); keys() != 1 {
		t.Errorf("%d keys after a rotation", keys())
	}
	w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{WithholdKey: true} })
	if keys() != 0 {
		t.Errorf("%d keys, and the one that signs was withheld", keys())
	}
	w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{KeySet: "not json"} })
	want(t, v.get(Issuer+"/jwks"), 200, "not json")
}

func TestIdP_introspectAndRevoke(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		about := func(path, token, id, secret string) reply {
			return v.post(Issuer+path, form("token", token, "client_id", id, "client_secret", secret))
		}
		active := func(token string) any {
			return about("/introspect", token, ResourceID, ResourceSecret).json(t)["active"]
		}
		w.IdP.Set(func(f *IdPFaults) { f.Opaque = true })
		opaque := v.token()
		w.IdP.Reset()
		for _, token := range []string{v.token(), opaque} {
			want(t, about("/introspect", token, ResourceID, ResourceSecret), 200, "devices:read")
			want(t, v.devices(token), 200, "")
			want(t, about("/revoke", token, ClientID, ClientSecret), 200, "")
			if active(token) != false {
				t.Error("active after it was revoked")
			}
			want(t, v.devices(token), 401, "")
		}
		want(t, about("/introspect", "x", ResourceID, "wrong"), 401, "invalid_client")
		want(t, about("/revoke", "unknown", ClientID, ClientSecret), 200, "")

		token := v.token()
		want(t, v.get(Issuer+"/userinfo", "Authorization", "Bearer "+token), 200, ClientID)
		w.API.Set(func(f *APIFaults) { f.IgnoreRevocation = true })
		w.IdP.Revoke(ClientID)
		want(t, v.devices(token), 200, "")
		w.API.Reset()
		want(t, v.devices(token), 401, "revoked")
		want(t, v.get(Issuer+"/userinfo", "Authorization", "Bearer "+token), 401, "invalid_token")
	})
}

func TestIdP_authorize(t *testing.T) {
	w, v := world(t)
	digest := sha256.Sum256([]byte("verifier"))
	begin := func(change func(q url.Values), header ...string) (status int, to *url.URL) {
		q := form("response_type", "code", "client_id", WebID, "redirect_uri", RedirectURI, "state", "s/1 +&", "scope", "devices:read offline_access",
			"code_challenge", b64(digest[:]), "code_challenge_method", "S256", "prompt", "none")
		if change != nil {
			change(q)
		}
		r := v.get(Issuer+"/authorize?"+q.Encode(), header...)
		to, err := url.Parse(r.header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return r.status, to
	}
	expect := func(name string, change func(q url.Values), code, state string) {
		t.Helper()
		status, to := begin(change)
		if status != 302 || to.Query().Get("error") != code || to.Query().Get("state") != state {
			t.Errorf("%s: %d %s", name, status, to)
		}
	}
	foreign := func(q url.Values) { q.Set("redirect_uri", "https://"+EvilHost+"/cb") }
	bare := func(q url.Values) { q.Del("code_challenge") }
	expect("no session", nil, "login_required", "s/1 +&")
	if status, _ := begin(foreign); status != 400 {
		t.Errorf("foreign redirect URI: %d", status)
	}
	expect("no PKCE", bare, "invalid_request", "s/1 +&")
	expect("bad scope", func(q url.Values) { q.Set("scope", "fly") }, "invalid_scope", "s/1 +&")
	if status, to := begin(func(q url.Values) { q.Del("prompt") }); status != 302 || to.Path != "/login" {
		t.Errorf("no session, with a person: %d %s", status, to)
	}

	w.IdP.Set(func(f *IdPFaults) { f.AnyRedirect, f.WithoutPKCE, f.LoseState = true, true, true })
	expect("any redirect URI", foreign, "login_required", "")
	expect("PKCE not enforced", bare, "login_required", "")
	w.IdP.Set(func(f *IdPFaults) { *f = IdPFaults{ChangeState: true} })
	expect("state changed", nil, "login_required", "s/1 +&x")
	w.IdP.Reset()

	login := v.post(Issuer+"/login?return=/authorize", form("username", User, "password", Password))
	cookie, _, _ := strings.Cut(login.header.Get("Set-Cookie"), ";")
	_, to := begin(nil, "Cookie", cookie)
	spend := func(verifier string) reply {
		return v.post(Issuer+"/token", form("grant_type", "authorization_code", "code", to.Query().Get("code"), "redirect_uri", RedirectURI,
			"code_verifier", verifier, "client_id", WebID, "client_secret", WebSecret))
	}
	want(t, spend("wrong"), 400, "verifier")
	want(t, spend("verifier"), 200, "refresh_token")
	want(t, spend("verifier"), 400, "used before")
	want(t, v.post(Issuer+"/login", form("username", User, "password", "x")), 401, "Invalid")
}

func TestIdP_dpop(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		w, v := world(t)
		key := newKey()
		proof := func(method, url, nonce, token string, at time.Time) string {
			c := map[string]any{"jti": rand.Text(), "htm": method, "htu": url, "iat": at.Unix()}
			if nonce != "" {
				c["nonce"] = nonce
			}
			if token != "" {
				c["ath"] = hashOf(token)
			}
			return signES256(key, map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&key.PublicKey, "")}, c)
		}
		at := Issuer + "/token"
		ask := func(p string) reply {
			return v.post(at, form("grant_type", "client_credentials", "client_id", ClientID, "client_secret", ClientSecret), "DPoP", p)
		}
		now := time.Now()
		r := ask(proof("POST", at, "", "", now))
		want(t, r, 200, `"DPoP"`)
		token, _ := r.json(t)["access_token"].(string)
		api := Audience + "/v2/devices"
		want(t, v.get(api, "Authorization", "DPoP "+token, "DPoP", proof("GET", api, "", token, now)), 200, "pump")
		want(t, v.get(api, "Authorization", "DPoP "+token, "DPoP", proof("GET", api, "", "other", now)), 401, "invalid_token")
		want(t, v.devices(token), 401, "needs the scheme DPoP")
		want(t, ask(proof("GET", at, "", "", now)), 400, "invalid_dpop_proof")
		want(t, ask(proof("POST", at, "", "", now.Add(2*time.Minute))), 400, "invalid_dpop_proof")
		w.IdP.Set(func(f *IdPFaults) { f.DPoPNonce = true })
		r = ask(proof("POST", at, "", "", now))
		want(t, r, 400, "use_dpop_nonce")
		want(t, ask(proof("POST", at, r.header.Get("DPoP-Nonce"), "", now)), 200, "access_token")
		w.IdP.Change(ClientID, func(c *Client) { c.MustUseDPoP = true })
		want(t, v.ask("grant_type", "client_credentials"), 400, "required")
	})
}

// Knobs are turned while requests are under way; -race watches.
func TestWorld_knobsMayTurnWhileRunning(t *testing.T) {
	w, v := world(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 50 {
			w.IdP.Set(func(f *IdPFaults) { f.Clock = time.Duration(n) * time.Second; f.Withhold = []string{"devices:write"} })
			w.API.Set(func(f *APIFaults) { f.StaleKeys = n%2 == 0; f.Certificate.Edition = n })
			w.IdP.Rotate(true)
			w.IdP.Change(ClientID, func(c *Client) { c.NextSecret = "x" })
			w.NTP(NTPHost1).Set(func(f *NTPFaults) { f.Stratum = n })
			w.Requests()
			w.Saw("x")
		}
	}()
	for range 5 {
		if r := v.devices(v.token()); r.err != nil || r.status == http.StatusInternalServerError {
			t.Errorf("%d, %v", r.status, r.err)
		}
	}
	<-done
}
