package sandbox

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
)

// A jwt is a JSON Web Token in compact form (RFC 7515), taken apart. Nothing is verified yet.
type jwt struct {
	header, claims map[string]any
	signed         string // what the signature is over
	signature      []byte
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func jsonPart(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b64(b)
}

// signES256 makes a token. Where the header says another algorithm, it lies.
func signES256(key *ecdsa.PrivateKey, header, claims map[string]any) string {
	signed := jsonPart(header) + "." + jsonPart(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + b64(signature)
}

// parseJWT takes a token apart.
func parseJWT(text string) (*jwt, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token has not three parts")
	}
	t := &jwt{signed: parts[0] + "." + parts[1]}
	for i, into := range []*map[string]any{&t.header, &t.claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			return nil, errors.New("the token is not base64url")
		}
		if json.Unmarshal(b, into) != nil {
			return nil, errors.New("the token is not JSON")
		}
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, errors.New("the signature is not base64url")
	}
	return t, nil
}

// signedBy says whether the signature is that of a key: a public key for the asymmetric algorithms, bytes for HS256.
func (t *jwt) signedBy(key any) bool {
	digest := sha256.Sum256([]byte(t.signed))
	switch alg := t.text("alg"); key := key.(type) {
	case *ecdsa.PublicKey:
		if alg != "ES256" || len(t.signature) != 64 {
			return false
		}
		r, s := new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:])
		return ecdsa.Verify(key, digest[:], r, s)
	case *rsa.PublicKey:
		if alg == "PS256" {
			return rsa.VerifyPSS(key, crypto.SHA256, digest[:], t.signature, nil) == nil
		}
		return alg == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], t.signature) == nil
	case ed25519.PublicKey:
		return (alg == "EdDSA" || alg == "Ed25519") && ed25519.Verify(key, []byte(t.signed), t.signature)
	case []byte:
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(t.signed))
		return alg == "HS256" && subtle.ConstantTimeCompare(mac.Sum(nil), t.signature) == 1
	}
	return false
}

// text gives a string of the header.
func (t *jwt) text(name string) string { s, _ := t.header[name].(string); return s }

// claim gives a string claim.
func (t *jwt) claim(name string) string { s, _ := t.claims[name].(string); return s }

// number gives a claim of seconds since 1970.
func (t *jwt) number(name string) (float64, bool) { f, ok := t.claims[name].(float64); return f, ok }

// holds says whether a claim is, or lists, one of the values.
func (t *jwt) holds(name string, values ...string) bool {
	var list []any
	switch v := t.claims[name].(type) {
	case string:
		list = []any{v}
	case []any:
		list = v
	}
	for _, have := range list {
		for _, want := range values {
			if have == want {
				return true
			}
		}
	}
	return false
}

// jwk gives a public P-256 key as a JSON Web Key (RFC 7517).
func jwk(key *ecdsa.PublicKey, kid string) map[string]any {
	x, y := coordinates(key)
	m := map[string]any{"kty": "EC", "crv": "P-256", "x": x, "y": y}
	if kid != "" {
		m["kid"], m["use"], m["alg"] = kid, "sig", "ES256"
	}
	return m
}

func coordinates(key *ecdsa.PublicKey) (x, y string) {
	b, err := key.Bytes() // 4 || X || Y
	if err != nil {
		panic(err)
	}
	return b64(b[1:33]), b64(b[33:])
}

// thumbprint of a P-256 key (RFC 7638).
func thumbprint(x, y string) string {
	digest := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	return b64(digest[:])
}
