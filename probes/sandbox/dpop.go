package sandbox

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"time"
)

// dpopNonce is what the identity provider demands in proofs when it demands one.
const dpopNonce = "nonce-7f3a"

// dpopWindow is how far from now a proof may have been made.
const dpopWindow = 60 * time.Second

// provesKey reads the DPoP proof of a token request, and gives the thumbprint of its key; empty: none was sent.
func (i *IdP) provesKey(rw http.ResponseWriter, r *http.Request, c *Client) (string, *refusal) {
	proof := r.Header.Get("DPoP")
	if proof == "" {
		if c.MustUseDPoP {
			return "", refuse("invalid_dpop_proof", "A DPoP proof is required")
		}
		return "", nil
	}
	t, key := parseProof(proof)
	if key == "" || !i.proofFits(t, r.Method, Issuer+r.URL.Path, i.now()) {
		return "", refuse("invalid_dpop_proof", "The DPoP proof is not valid")
	}
	if i.Faults().DPoPNonce && t.claim("nonce") != dpopNonce {
		rw.Header().Set("DPoP-Nonce", dpopNonce)
		return "", refuse("use_dpop_nonce", "Authorization server requires nonce in DPoP proof")
	}
	return key, nil
}

// parseProof gives a proof whose signature is that of the key in its header, and the thumbprint of that key (RFC 9449
// section 4.3); an empty thumbprint: it is no good.
func parseProof(text string) (*jwt, string) {
	t, err := parseJWT(text)
	if err != nil || t.text("typ") != "dpop+jwt" {
		return nil, ""
	}
	in, _ := t.header["jwk"].(map[string]any)
	x, _ := in["x"].(string)
	y, _ := in["y"].(string)
	bx, err1 := base64.RawURLEncoding.DecodeString(x)
	by, err2 := base64.RawURLEncoding.DecodeString(y)
	if err1 != nil || err2 != nil || in["d"] != nil || in["crv"] != "P-256" {
		return nil, ""
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, bx...), by...))
	if err != nil || !t.signedBy(key) {
		return nil, ""
	}
	return t, thumbprint(x, y)
}

// proofFits says whether a proof was made for this request, lately, and is new.
func (i *IdP) proofFits(t *jwt, method, url string, now time.Time) bool {
	iat, ok := t.number("iat")
	if !ok || t.claim("htm") != method || t.claim("htu") != url {
		return false
	}
	return now.Sub(time.Unix(int64(iat), 0)).Abs() <= dpopWindow && i.once(t.claim("jti"))
}

// hashOf is the claim ath of a proof for an access token.
func hashOf(token string) string {
	digest := sha256.Sum256([]byte(token))
	return b64(digest[:])
}
