package probes

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	maxMetadata = 256 << 10 // bytes of metadata or a key set; real ones have a few KiB
	maxKeys     = 64        // of a key set that are looked at
)

// askIssuer looks up the keys of the issuer that a refused token names, and checks the token's signature with them: a token
// that is good by the issuer's own keys and refused all the same is the API's fault.
func (p *httpProbe) askIssuer(ctx context.Context, a asked, report *evidence.Report) {
	t := report.Token
	if t == nil || t.Format != "jwt" || a.proof == "" {
		return
	}
	issuer, err := url.Parse(t.Issuer)
	if err != nil || (issuer.Scheme != "https" && issuer.Scheme != p.url.Scheme) || issuer.Hostname() == "" || issuer.User != nil {
		return
	}
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if !p.fetch(ctx, strings.TrimSuffix(t.Issuer, "/")+"/.well-known/openid-configuration", report, &metadata) {
		return
	}
	where, err := url.Parse(metadata.JWKSURI)
	if err != nil || where.Scheme != issuer.Scheme || where.User != nil {
		return
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if !p.fetch(ctx, metadata.JWKSURI, report, &set) {
		return
	}
	seen := &evidence.Issuer{URL: t.Issuer, Advertised: evidence.Clean(metadata.Issuer, 256)}
	token := strings.TrimPrefix(a.proof, "Bearer ")
	state := evidence.SignatureKeyMissing
	for _, raw := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) != nil {
			continue // of a type that we do not know
		}
		seen.Keys = append(seen.Keys, evidence.Key{Kid: evidence.Clean(key.KeyID, 128), Alg: evidence.Clean(key.Algorithm, 32), Use: evidence.Clean(key.Use, 16)})
		if key.KeyID == t.Kid && state != evidence.SignatureValid {
			state = verify(token, t.Alg, &key)
		}
	}
	t.Signature = state
	if report.Issuer == nil {
		report.Issuer = seen
	}
}

// askAboutToken asks the authorization server whether a refused token is still active (RFC 7662), where that is configured.
func (p *httpProbe) askAboutToken(ctx context.Context, a asked, report *evidence.Report) {
	client, ok := p.who.(identity.Client)
	token, bearer := strings.CutPrefix(a.proof, "Bearer ")
	if p.IntrospectURL == "" || !ok || !bearer {
		return
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}
	answer, err := client.Post(ctx, p.IntrospectURL, form, wire.Question{Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, Grant: a.grant.ID, MaxBody: maxMetadata, Expected: func(status int) bool { return status == http.StatusOK }})
	if answer.Exchange.Method != "" {
		report.Exchanges = append(report.Exchanges, answer.Exchange)
	}
	var said introspected
	if err != nil || answer.Exchange.Status != http.StatusOK || json.Unmarshal(answer.Body, &said) != nil || said.Active == nil {
		return
	}
	t := evidence.Token{Name: "access", Format: "opaque"}
	if report.Token != nil {
		t = *report.Token
	}
	t.Active = evidence.Fail
	if *said.Active {
		t.Active = evidence.OK
	}
	report.Token = &t
}

// verify checks the signature of a token with one key.
func verify(token, alg string, key *jose.JSONWebKey) evidence.Signature {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	switch {
	case err != nil || strings.HasPrefix(alg, "HS") || !key.Valid(): // a published key verifies no MAC
		return evidence.SignatureUnknown
	default:
		if _, err := signed.Verify(key); err != nil {
			return evidence.SignatureInvalid
		}
		return evidence.SignatureValid
	}
}

// fetch gets a JSON document of the issuer, without any credential.
func (p *httpProbe) fetch(ctx context.Context, address string, report *evidence.Report, into any) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return false
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "application/json")
	answer, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, Scheme: "none", MaxBody: maxMetadata, Expected: func(status int) bool { return status == http.StatusOK }})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	return err == nil && answer.Exchange.Status == http.StatusOK && json.Unmarshal(answer.Body, into) == nil
}
