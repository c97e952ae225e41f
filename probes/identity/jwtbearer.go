package identity

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/authvigil/authvigil/agent/secret"
)

// jwtBearerGrant are the keys of the grant urn:ietf:params:oauth:grant-type:jwt-bearer (RFC 7523 section 2.1), by which
// service accounts and workloads exchange an assertion for a token.
type jwtBearerGrant struct {
	Assertion        secret.Ref        `koanf:"assertion" help:"for grant jwt_bearer: an assertion that somebody else signs, such as a projected token of Kubernetes, read for each request; default: one is signed by private_key"`
	AssertionIssuer  string            `koanf:"assertion_issuer" help:"for grant jwt_bearer: iss of the assertion, such as the address of a service account; default: client_id"`
	AssertionSubject string            `koanf:"assertion_subject" help:"for grant jwt_bearer: sub of the assertion, who is acted for; default: assertion_issuer"`
	AssertionClaims  map[string]string `koanf:"assertion_claims" help:"for grant jwt_bearer: further claims of the assertion, such as scope where the issuer reads it there"`
}

// claimsOfOurs are claims that every assertion has and that keys of their own set.
var claimsOfOurs = map[string]string{"iss": "assertion_issuer", "sub": "assertion_subject", "aud": "assertion_audience", "exp": "", "iat": "", "nbf": "", "jti": ""}

func checkJWTBearer(o *oauth) (errs []error) {
	switch {
	case o.Assertion.IsZero() && o.PrivateKey.IsZero():
		errs = append(errs, errors.New("private_key: is missing; grant jwt_bearer signs an assertion by it (or give assertion)"))
	case o.Assertion.IsZero() && o.AssertionIssuer == "" && o.ClientID == "":
		errs = append(errs, errors.New("assertion_issuer: is missing (or give client_id)"))
	}
	for _, name := range sortedNames(o.AssertionClaims) {
		if key, ours := claimsOfOurs[name]; ours {
			errs = append(errs, errors.New("assertion_claims: "+name+" is set by "+cmp.Or(key, "authvigil itself")))
		}
	}
	return errs
}

func fillJWTBearer(ctx context.Context, o *oauth, form url.Values, endpoint string) error {
	if !o.Assertion.IsZero() {
		v, err := reveal(ctx, "assertion", o.Assertion)
		if err != nil {
			return err
		}
		form.Set("assertion", strings.TrimSpace(v.Expose()))
		return nil
	}
	key, err := keyToSign(ctx, "private_key", o.PrivateKey)
	if err != nil {
		return err
	}
	issuer := cmp.Or(o.AssertionIssuer, o.ClientID)
	claims := map[string]any{"iss": issuer, "sub": cmp.Or(o.AssertionSubject, issuer)}
	for name, value := range o.AssertionClaims {
		claims[name] = value
	}
	text, err := o.assertion(key, endpoint, claims)
	form.Set("assertion", text)
	return err
}
