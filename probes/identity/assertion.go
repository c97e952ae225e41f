package identity

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	// assertionLife is how long an assertion that we mint is valid (RFC 7523 section 3 wants it short).
	assertionLife = time.Minute
	// backdate is how far iat and nbf lie in the past, so that an issuer whose clock is a little behind ours does not see them
	// in its future.
	backdate = 5 * time.Second
)

// assertionType is the value of client_assertion_type (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// assert adds what proves the client to a token request: an assertion signed by its secret or its key (client_secret_jwt and
// private_key_jwt of OpenID Connect Core section 9), or one that somebody else signed.
func (o *oauth) assert(ctx context.Context, form url.Values, endpoint string) error {
	text := ""
	if !o.ClientAssertion.IsZero() {
		v, err := reveal(ctx, "client_assertion", o.ClientAssertion)
		if err != nil {
			return err
		}
		text = strings.TrimSpace(v.Expose())
	} else {
		key, err := o.signingKey(ctx)
		if err != nil {
			return err
		}
		if text, err = o.assertion(key, endpoint, map[string]any{"iss": o.ClientID, "sub": o.ClientID}); err != nil {
			return err
		}
	}
	form.Set("client_id", o.ClientID)
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", text)
	return nil
}

// assertion makes a signed JWT for the authorization server (RFC 7523 section 3), with further claims.
func (o *oauth) assertion(key jose.SigningKey, endpoint string, claims map[string]any) (string, error) {
	now := time.Now()
	all := map[string]any{"aud": cmp.Or(o.AssertionAudience, endpoint), "jti": rand.Text(),
		"iat": now.Add(-backdate).Unix(), "nbf": now.Add(-backdate).Unix(), "exp": now.Add(assertionLife).Unix()}
	maps.Copy(all, claims)
	options := (&jose.SignerOptions{}).WithType("JWT")
	if o.KeyID != "" {
		options = options.WithHeader("kid", o.KeyID)
	}
	return signJWT(key, options, all)
}

// untimely notes that an assertion which we signed was over, or not valid yet, by the issuer's own clock when it was refused:
// many issuers say no more than invalid_client.
func (o *oauth) untimely(a wire.Answer) []evidence.Note {
	signsClient := o.ClientAuth == "client_secret_jwt" || o.ClientAuth == "private_key_jwt" && o.ClientAssertion.IsZero()
	date, err := http.ParseTime(a.Header.Get("Date"))
	if err != nil || !signsClient && (o.Grant != "jwt_bearer" || !o.Assertion.IsZero()) {
		return nil
	}
	const coarse = 2 * time.Second // Date has whole seconds, and may be a second old
	ahead := date.Sub(a.Exchange.Started.Add(a.Exchange.Took))
	what := "had ended"
	switch {
	case ahead > assertionLife:
	case ahead < -backdate-coarse:
		what = "was not valid yet"
	default:
		return nil
	}
	way := "ahead of"
	if ahead < 0 {
		way = "behind"
	}
	return []evidence.Note{{Code: "assertion_untimely", Detail: fmt.Sprintf("by the issuer's clock, which is %s %s ours, the signed assertion %s", evidence.Span(ahead.Abs()), way, what)}}
}

// signJWT gives a JWT in its compact form, which is a secret from then on.
func signJWT(key jose.SigningKey, options *jose.SignerOptions, claims map[string]any) (string, error) {
	signer, err := jose.NewSigner(key, options)
	if err != nil {
		return "", badKey("private_key", "the key cannot sign")
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", badKey("private_key", "the claims cannot be written")
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", badKey("private_key", "the key cannot sign")
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		return "", badKey("private_key", "the JWT cannot be written")
	}
	secret.Remember(text)
	return text, nil
}

func (o *oauth) signingKey(ctx context.Context) (jose.SigningKey, error) {
	if o.ClientAuth == "client_secret_jwt" {
		v, err := o.secretOf(ctx)
		if err != nil {
			return jose.SigningKey{}, err
		}
		if len(v.Expose()) < 32 { // RFC 7518 section 3.2
			return jose.SigningKey{}, badKey("client_secret", "HS256 needs a secret of at least 32 bytes (RFC 7518 section 3.2)")
		}
		return jose.SigningKey{Algorithm: jose.HS256, Key: []byte(v.Expose())}, nil
	}
	return keyToSign(ctx, "private_key", o.PrivateKey)
}

// keyToSign reads a private key, with the algorithm that goes with it.
func keyToSign(ctx context.Context, name string, ref secret.Ref) (jose.SigningKey, error) {
	v, err := reveal(ctx, name, ref)
	if err != nil {
		return jose.SigningKey{}, err
	}
	key, err := parseKey(v)
	if err != nil {
		return jose.SigningKey{}, badKey(name, err.Error())
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return jose.SigningKey{Algorithm: jose.RS256, Key: k}, nil
	case ed25519.PrivateKey:
		return jose.SigningKey{Algorithm: jose.EdDSA, Key: k}, nil
	case *ecdsa.PrivateKey:
		for bits, algorithm := range map[int]jose.SignatureAlgorithm{256: jose.ES256, 384: jose.ES384, 521: jose.ES512} {
			if k.Curve.Params().BitSize == bits {
				return jose.SigningKey{Algorithm: algorithm, Key: k}, nil
			}
		}
	}
	return jose.SigningKey{}, badKey(name, "is of a kind that cannot sign assertions; RSA, P-256, P-384, P-521 and Ed25519 can")
}

// parseKey reads a private key in PEM (PKCS #8, PKCS #1 or SEC 1). Its errors never hold the text.
func parseKey(v secret.Value) (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(v.Expose()))
	if block == nil {
		return nil, errors.New("is not in PEM form")
	}
	if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	return nil, fmt.Errorf("is no private key that can be read (%s)", evidence.Clean(block.Type, 32))
}

func badKey(code, what string) error {
	return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: code, Err: fmt.Errorf("%s: %s", code, what)}
}

// keyPair are the keys of everything that shows a client certificate (RFC 8705).
type keyPair struct {
	Certificate secret.Ref `koanf:"certificate" help:"client certificate with its chain, in PEM, such as file:/etc/authvigil/client.pem"`
	PrivateKey  secret.Ref `koanf:"private_key" help:"private key in PEM: of the client certificate, or to sign assertions (private_key_jwt)"`
}

// load reads both at each use, so that a renewal is seen, and sees that they belong together.
func (k keyPair) load(ctx context.Context) (*tls.Certificate, error) {
	certificate, err := reveal(ctx, "certificate", k.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := reveal(ctx, "private_key", k.PrivateKey)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair([]byte(certificate.Expose()), []byte(key.Expose()))
	if err != nil {
		return nil, badKey("certificate", "certificate and private_key cannot be used together: "+evidence.Clean(err.Error(), 128))
	}
	return &pair, nil
}
