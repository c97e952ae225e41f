package evidence

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// maxTokenBytes bounds the tokens that are decoded; longer ones are named and not looked into.
const maxTokenBytes = 64 << 10

// DecodeToken reads what a token says of itself, without checking its signature. What is wrong with its form is put into
// Problems; a token that is no JWT (RFC 7519) is opaque. The text itself is not kept.
func DecodeToken(text string) Token {
	t := Token{Name: "access", Format: "opaque"}
	switch dots := strings.Count(text, "."); {
	case len(text) > maxTokenBytes:
		t.Problems = append(t.Problems, fmt.Sprintf("is longer than %d KiB", maxTokenBytes>>10))
		return t
	case dots == 4 && strings.HasPrefix(text, "ey"):
		t.Format = "jwe"
		return t
	case dots != 2:
		if strings.HasPrefix(text, "eyJ") {
			t.Problems = append(t.Problems, fmt.Sprintf("begins like a JWT and has %d parts in place of 3; it was probably cut", dots+1))
		}
		return t
	}
	head, rest, _ := strings.Cut(text, ".")
	body, signature, _ := strings.Cut(rest, ".")
	var header struct{ Alg, Kid, Typ string }
	if !decodePart(head, &header) {
		if strings.HasPrefix(text, "eyJ") {
			t.Problems = append(t.Problems, "its header cannot be decoded")
		}
		return t
	}
	t.Format, t.Alg, t.Kid, t.Type = "jwt", Clean(header.Alg, 32), Clean(header.Kid, 128), Clean(header.Typ, 32)
	if strings.EqualFold(t.Alg, "none") || signature == "" {
		t.Signature = SignatureNone
	} else if short(t.Alg, strings.TrimRight(signature, "=")) {
		t.Problems = append(t.Problems, "its signature is not as long as "+t.Alg+" makes it; it was probably cut")
	}
	var claims map[string]any
	if !decodePart(body, &claims) {
		t.Problems = append(t.Problems, "its claims cannot be decoded; it was probably cut or altered")
		return t
	}
	t.claims(claims)
	return t
}

// signatureBytes are the lengths of signatures (RFC 7518 section 3.1, RFC 8037); those of RSA depend on the key.
var signatureBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64, "ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64}

// short says whether a signature in base64url is shorter than its algorithm makes them.
func short(alg, signature string) bool {
	const leastRSA = 128 // bytes: keys of 1024 bits, which nobody should use any more
	bytes := base64.RawURLEncoding.DecodedLen(len(signature))
	if want, known := signatureBytes[alg]; known {
		return bytes < want
	}
	return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && (bytes < leastRSA || len(signature)%4 == 1)
}

func (t *Token) claims(c map[string]any) {
	t.Issuer, _ = c["iss"].(string)
	t.Issuer = Clean(t.Issuer, 256)
	t.Audience = texts(c["aud"])
	for _, name := range []string{"client_id", "azp", "appid", "cid"} {
		if id, ok := c[name].(string); ok && t.ClientID == "" {
			t.ClientID = Clean(id, 128)
		}
	}
	for _, name := range []string{"scope", "scp", "roles", "permissions"} {
		for _, s := range texts(c[name]) {
			t.Scopes = append(t.Scopes, strings.Fields(s)...)
		}
	}
	t.Issued, t.NotBefore, t.Expiry = t.moment(c, "iat"), t.moment(c, "nbf"), t.moment(c, "exp")
	for _, name := range []string{"at_hash", "c_hash", "nonce"} { // claims that access tokens have no use for (RFC 9068 section 2.2)
		_, has := c[name].(string)
		t.ID = t.ID || has && len(t.Scopes) == 0
	}
	if cnf, ok := c["cnf"].(map[string]any); ok {
		for _, name := range []string{"jkt", "x5t#S256"} {
			if _, ok := cnf[name]; ok {
				t.Bound = name
			}
		}
	}
}

// moment reads a NumericDate (RFC 7519 section 2), which may have a fraction.
func (t *Token) moment(c map[string]any, name string) time.Time {
	raw, present := c[name]
	if !present {
		return time.Time{}
	}
	number, ok := raw.(json.Number)
	seconds, err := number.Float64()
	switch {
	case !ok || err != nil || math.IsNaN(seconds):
		t.Problems = append(t.Problems, name+" is no number")
		return time.Time{}
	case seconds > 1e11:
		t.Problems = append(t.Problems, name+" is given in milliseconds; RFC 7519 section 2 wants seconds")
		seconds /= 1e3
	}
	if seconds < 0 || seconds > 1e11 {
		t.Problems = append(t.Problems, name+" is not a time")
		return time.Time{}
	}
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9)).UTC()
}

func decodePart(part string, into any) bool {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	if err != nil {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(into) == nil
}

// texts reads a claim that is a text or a list of texts.
func texts(v any) (list []string) {
	switch v := v.(type) {
	case string:
		list = append(list, Clean(v, 256))
	case []any:
		for _, e := range v[:min(len(v), 64)] {
			if s, ok := e.(string); ok {
				list = append(list, Clean(s, 256))
			}
		}
	}
	return list
}
