package secret

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAWS asks a stand-in of the documented API of AWS Secrets Manager (GetSecretValue, JSON 1.1); a real one cannot be run by
// these tests.
func TestAWS(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		var in struct{ SecretId, VersionStage string }
		json.NewDecoder(r.Body).Decode(&in)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" || !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/secretsmanager/aws4_request") {
			w.WriteHeader(400)
			fmt.Fprint(w, `{"__type":"InvalidSignatureException","message":"bad"}`)
			return
		}
		if code, fails := strings.CutPrefix(in.SecretId, "fails/"); fails {
			status := 400
			if code == "InternalServiceError" {
				status = 500
			}
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"__type":%q,"message":"the secret is %s"}`, code, canary)
			return
		}
		if in.VersionStage == "AWSPENDING" {
			fmt.Fprint(w, `{"Name":"x","SecretString":"canary-that-is-pending","CreatedDate":1777629600.5}`)
			return
		}
		switch in.SecretId {
		case "binary":
			fmt.Fprint(w, `{"Name":"x","SecretBinary":"Y2FuYXJ5LWluLWJpbmFyeQ==","CreatedDate":1777629600}`)
		case "text":
			fmt.Fprint(w, `{"Name":"x","SecretString":"canary-as-text","CreatedDate":1777629600}`)
		default:
			fmt.Fprint(w, `{"Name":"x","SecretString":"{\"client_secret\":\"canary-in-an-object\",\"n\":7}","CreatedDate":1777629600}`)
		}
	}))
	defer server.Close()
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-of-the-test", "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_SECRETS_MANAGER": server.URL, "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"} {
		t.Setenv(name, value)
	}
	for _, c := range []struct {
		place, want, words string
		is                 error
	}{
		{"text", "canary-as-text", "", nil},
		{"text?stage=AWSPENDING", "canary-that-is-pending", "", nil},
		{"binary", "canary-in-binary", "", nil},
		{"billing#client_secret", "canary-in-an-object", "", nil},
		{"arn:aws:secretsmanager:eu-west-1:123456789012:secret:billing-AbCdEf#client_secret", "canary-in-an-object", "", nil},
		{"billing#other", "", "no key other", ErrNotFound},
		{"billing#n", "", "is no text", nil},
		{"text#k", "", "no JSON object", nil},
		{"text?region=us-east-1", "", "our own credentials", nil},
		{"fails/ResourceNotFoundException", "", "no such secret or version in the region", ErrNotFound},
		{"fails/AccessDeniedException", "", "secretsmanager:GetSecretValue", nil},
		{"fails/DecryptionFailure", "", "KMS", nil},
		{"fails/ExpiredTokenException", "", "our own credentials", nil},
		{"fails/ThrottlingException", "", "Throttling", ErrAway},
		{"fails/InternalServiceError", "", "InternalServiceError", ErrAway},
		{"fails/Strange", "", "Strange", nil},
	} {
		ref, err := Parse("aws-sm:" + c.place)
		if err != nil {
			t.Errorf("%s: %v", c.place, err)
			continue
		}
		before := requests
		v, err := ref.Reveal(t.Context())
		if v.Expose() != c.want || (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) || errors.Is(err, ErrAway) != (c.is == ErrAway) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %q, %v; want %q, %q, %v", c.place, v.Expose(), err, c.want, c.words, c.is)
		}
		if requests != before+1 {
			t.Errorf("%s: %d requests, want 1", c.place, requests-before)
		}
		if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "wJalr")) {
			t.Errorf("%s: a secret is shown", c.place)
		}
		if at, ok := ref.Changed(t.Context()); err == nil && (!ok || at.Year() != 2026) {
			t.Errorf("%s: written at %v", c.place, at)
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	t.Setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://"+closed.Addr().String())
	ref, _ := Parse("aws-sm:text?ttl=1s")
	if _, err := ref.Reveal(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("nobody there: %v, want ErrAway", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	ref, _ = Parse("aws-sm:text?ttl=2s")
	if _, err := ref.Reveal(t.Context()); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "no AWS credentials") {
		t.Errorf("no credentials: %v", err)
	}
	for _, bad := range []string{"#k", "x?unknown=1", "x?ttl=0s"} {
		if _, err := Parse("aws-sm:" + bad); err == nil {
			t.Errorf("aws-sm:%s passed", bad)
		}
	}
}
