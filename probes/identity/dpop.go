package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// dpopKeys are the keys of DPoP (RFC 9449): tokens are bound to a key, and each request proves that its sender has it.
type dpopKeys struct {
	DPoP    bool       `koanf:"dpop" help:"bind tokens to a key and prove it in each request (RFC 9449)"`
	DPoPKey secret.Ref `koanf:"dpop_key" help:"private key for dpop, in PEM; default: one that is made at each start"`
}

// A prover makes proofs. Servers tell it nonces, which it repeats to them.
type prover struct {
	dpopKeys

	mu     sync.Mutex // owns what follows
	own    *ecdsa.PrivateKey
	nonces map[string]string // by origin
}

// mostNonces bounds how many origins a prover remembers.
const mostNonces = 64

func newProver(k dpopKeys) *prover { return &prover{dpopKeys: k, nonces: map[string]string{}} }

func (p *prover) key(ctx context.Context) (jose.SigningKey, error) {
	if !p.DPoPKey.IsZero() {
		return keyToSign(ctx, "dpop_key", p.DPoPKey)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		var err error
		if p.own, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return jose.SigningKey{}, badKey("dpop", "no key can be made")
		}
	}
	return jose.SigningKey{Algorithm: jose.ES256, Key: p.own}, nil
}

// prove adds a proof to a request (RFC 9449 section 4.2); token is the access token that it goes with, empty for none.
func (p *prover) prove(ctx context.Context, req *http.Request, token string) error {
	key, err := p.key(ctx)
	if err != nil {
		return err
	}
	at := url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path, RawPath: req.URL.RawPath} // without query and fragment
	claims := map[string]any{"jti": rand.Text(), "htm": req.Method, "htu": at.String(), "iat": time.Now().Add(-backdate).Unix()}
	if token != "" {
		hash := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(hash[:])
	}
	p.mu.Lock()
	nonce := p.nonces[wire.Origin(req.URL)]
	p.mu.Unlock()
	if nonce != "" {
		claims["nonce"] = nonce
	}
	proof, err := signJWT(key, (&jose.SignerOptions{EmbedJWK: true}).WithType("dpop+jwt"), claims)
	if err != nil {
		return err
	}
	req.Header.Set("DPoP", proof)
	return nil
}

// learn keeps the nonce of an answer for its origin (RFC 9449 section 8.2), and says whether it is another one.
func (p *prover) learn(origin string, h http.Header) (changed bool) {
	nonce := h.Get("DPoP-Nonce")
	if nonce == "" || len(nonce) > 1024 || strings.ContainsFunc(nonce, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.nonces) >= mostNonces {
		clear(p.nonces)
	}
	changed = p.nonces[origin] != nonce
	p.nonces[origin] = nonce
	return changed
}

// wantsNonce says whether a refusal is a demand for a nonce (RFC 9449 section 9).
func wantsNonce(h http.Header) bool {
	for _, c := range evidence.ParseChallenges(h.Values("WWW-Authenticate")...) {
		if strings.EqualFold(c.Scheme, "DPoP") && c.Parameters["error"] == "use_dpop_nonce" {
			return true
		}
	}
	return false
}

func (o *oauth) checkDPoP() (errs []error) {
	switch {
	case !o.DPoP && !o.DPoPKey.IsZero():
		errs = append(errs, errors.New("dpop_key: is of no use without dpop = true"))
	case o.DPoP && o.DPoPKey.IsZero() && o.Grant == "refresh_token":
		errs = append(errs, errors.New("dpop_key: is missing; a refresh token that is bound to a key of one start is worthless after the next"))
	}
	return errs
}
