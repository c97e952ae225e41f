package diagnose

import (
	"errors"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestExplain_envelopes: the same refusals in every envelope that servers use.
func TestExplain_envelopes(t *testing.T) {
	for _, c := range []struct {
		name      string
		status    int
		scheme    string
		header    map[string]string
		body      string
		want      Cause
		because   string // part of a line of evidence; empty: whatever
		accepting []Cause
	}{
		{"problem details with a type", 401, "bearer", map[string]string{"Content-Type": "application/problem+json"}, `{"type":"https://api.example.test/problems/token-expired","title":"Unauthorized","status":401}`, TokenExpired, "", nil},
		{"problem details as URN", 403, "bearer", nil, `{"type":"urn:problem-type:belgif:insufficientScope","title":"Forbidden"}`, InsufficientScope, "", nil},
		{"about:blank says nothing", 401, "bearer", nil, `{"type":"about:blank","title":"Unauthorized","status":401}`, UnknownUnauthorized, "", nil},
		{"step-up", 401, "bearer", map[string]string{"Www-Authenticate": `Bearer error="insufficient_user_authentication", error_description="A different level is required", acr_values="myACR", max_age="5"`}, "", InteractionRequired, "stronger or newer login: acr_values myACR max_age 5", nil},
		{"step-up by parameters alone", 401, "bearer", map[string]string{"Www-Authenticate": `Bearer realm="x", error="invalid_token", max_age=300`}, "", InteractionRequired, "max_age 300", nil},
		{"resource metadata", 401, "none", map[string]string{"Www-Authenticate": `Bearer resource_metadata="https://api.example.test/.well-known/oauth-protected-resource"`}, "", MissingCredentials, "authorization servers stand", nil},
		{"scope in the challenge", 403, "bearer", map[string]string{"Www-Authenticate": `Bearer error="insufficient_scope", scope="orders:write"`}, "", InsufficientScope, `wants the scope "orders:write"`, nil},
		{"DPoP nonce", 401, "dpop", map[string]string{"Www-Authenticate": `DPoP error="use_dpop_nonce", error_description="Resource server requires nonce in DPoP proof"`}, "", RequestSignatureInvalid, "", nil},
		{"several challenges in one header", 401, "bearer", map[string]string{"Www-Authenticate": `Basic realm="x", Bearer realm="x", error="invalid_token", error_description="The token expired", Negotiate`}, "", TokenExpired, "", nil},
		{"Negotiate only", 401, "basic", map[string]string{"Www-Authenticate": `Negotiate`}, "", WrongAuthScheme, "", nil},
		{"digest nonce stays stale", 401, "digest", map[string]string{"Www-Authenticate": `Digest realm="x", nonce="abc", stale=true, qop="auth"`}, "", ServerError, "", nil},
		{"gRPC status", 200, "bearer", map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "16", "Grpc-Message": "token%20has%20expired"}, "", TokenExpired, "", nil},
		{"gRPC status alone", 200, "bearer", map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "7"}, "", PermissionDenied, "", nil},
		{"SOAP fault", 500, "basic", map[string]string{"Content-Type": "text/xml"}, `<soapenv:Envelope xmlns:soapenv="x"><soapenv:Body><soapenv:Fault><faultcode>wsse:FailedAuthentication</faultcode><faultstring>The password is incorrect</faultstring></soapenv:Fault></soapenv:Body></soapenv:Envelope>`, BasicCredentialsInvalid, "", nil},
		{"XML attributes", 200, "api_key", map[string]string{"Content-Type": "text/xml"}, `<rsp stat="fail"><err code="100" msg="Invalid API Key (Key has invalid format)"/></rsp>`, APIKeyInvalid, "", nil},
		{"AWS XML", 403, "sigv4", nil, `<Error><Code>RequestTimeTooSkewed</Code><Message>The difference between the request time and the current time is too large.</Message></Error>`, RequestTimestampSkew, "", nil},
		{"numbers of Entra", 400, "client_credentials", nil, `{"error":"invalid_client","error_codes":[7000222]}`, ClientSecretExpired, "", nil},
		{"codes that mean something together", 422, "bearer", nil, `{"errors":[{"resource":"Token","field":"audience","code":"invalid"}]}`, TokenAudienceMismatch, "", nil},
		{"guard before JSON", 401, "bearer", nil, ")]}',\n{\"error\":{\"message\":\"The access token expired\"}}", TokenExpired, "", nil},
		{"deep envelope", 401, "bearer", nil, `{"response":{"result":{"errors":{"error":[{"details":{"message":"The access token expired"}}]}}}}`, TokenExpired, "", nil},
		{"success that is none", 200, "bearer", nil, `{"status":401,"error":"Unauthorized","message":"Token has been revoked"}`, TokenRevoked, "", nil},
		{"form body", 400, "client_credentials", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, `error=invalid_client&error_description=Client+secret+has+expired`, ClientSecretExpired, "", nil},
		{"page that sends itself to SAML", 200, "bearer", map[string]string{"Content-Type": "text/html"}, `<html><body onload="document.forms[0].submit()"><form action="https://sso.example.test/x" method="post"><input type="hidden" name="SAMLRequest" value="x"/></form></body></html>`, LoginPage, "", nil},
		{"page that leads on to log in", 200, "bearer", map[string]string{"Content-Type": "text/html"}, `<html><head><meta http-equiv="refresh" content="0;url=https://idp.example.test/oauth2/authorize?client_id=x"></head></html>`, LoginPage, "", nil},
		{"captive portal", 511, "bearer", map[string]string{"Content-Type": "text/html"}, `<html><body>Network Authentication Required</body></html>`, LoginPage, "", nil},
		{"JSON that was cut", 401, "bearer", map[string]string{"Content-Type": "application/json"}, `{"error":"unauthorized","message":"The access token expired","trace":"0123`, TokenExpired, "not, or was cut", nil},
		{"declared JSON, is a page", 401, "bearer", map[string]string{"Content-Type": "application/json"}, `<html><body>The token has expired</body></html>`, TokenExpired, "declared as JSON", nil},
		{"binary", 401, "bearer", nil, strings.Repeat("\x00\x01\xff", 40), UnknownUnauthorized, "no text", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := evidence.Exchange{Stage: evidence.StageAPI, Scheme: c.scheme, Status: c.status, Body: evidence.Clean(c.body, 8192), Header: map[string][]string{}}
			if c.scheme == "client_credentials" {
				x.Stage = evidence.StageToken
			}
			for name, value := range c.header {
				x.Header[name] = []string{value}
			}
			f := Explain(Case{Now: noon, Sighting: Sighting{Scheme: c.scheme, Report: evidence.Report{Exchanges: []evidence.Exchange{x}}, Fault: &evidence.Fault{Stage: x.Stage, Symptom: evidence.SymptomUnknown, Err: errors.New("x")}}})
			if f[0].Cause != c.want || !strings.Contains(strings.Join(f[0].Because, "\n"), c.because) {
				t.Errorf("got %s (%s) %q, want %s with %q", f[0].Cause, f[0].Sure, f[0].Because, c.want, c.because)
			}
		})
	}
}

// TestExplain_showsNoCredential: servers repeat what they were sent.
func TestExplain_showsNoCredential(t *testing.T) {
	const token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
	const opaque = "dGhpcy1pcy1hLXNlY3JldC1rZXk"
	c := live(401, "bearer", `Bearer error="invalid_token", error_description="Invalid token: `+token+`"`, `{"message":"Cannot verify `+token+`","sent":"Bearer `+opaque+`"}`)
	for _, f := range Explain(c) {
		if text := strings.Join(f.Because, "\n"); strings.Contains(text, token[:40]) || strings.Contains(text, token[len(token)-20:]) || strings.Contains(text, opaque) {
			t.Errorf("%s shows the token: %s", f.Cause, text)
		}
	}
}
