package identity

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// A Client is an identity that is registered with an authorization server, and can ask those of its endpoints that want a
// client to prove itself: introspection (RFC 7662) and revocation (RFC 7009).
type Client interface {
	Identity
	// Post sends a form to such an endpoint with what proves the client. The gate of the credential stands before it: a
	// fault of symptom held means that nothing was sent. An answer of any status is no error.
	Post(ctx context.Context, endpoint string, form url.Values, q wire.Question) (wire.Answer, error)
	// Disposable says whether tokens of the identity may be revoked: it was declared to serve nothing else, and can obtain
	// another token without a person.
	Disposable() bool
}

// clientKeys are the keys of what an identity may do besides obtaining tokens.
type clientKeys struct {
	IsDisposable bool `koanf:"disposable" help:"nothing but a probe that revokes tokens uses this identity, so that its tokens may be revoked; default false"`
}

// checkClient refuses to let tokens be revoked where that could cost more than a new request: with a refresh token, a server
// may revoke the whole grant (RFC 7009 section 2.1).
func (o *oauth) checkClient() []error {
	if o.IsDisposable && o.Grant == "refresh_token" {
		return []error{errors.New("disposable: tokens of grant refresh_token are not revoked, because the grant may go with them")}
	}
	return nil
}

// Disposable says whether tokens of the identity may be revoked.
func (o *oauth) Disposable() bool { return o.IsDisposable }

// Post asks an endpoint of the authorization server as the client that the identity is.
func (o *oauth) Post(ctx context.Context, endpoint string, form url.Values, q wire.Question) (wire.Answer, error) {
	login := o.tokens.login
	gate := login.of(o.proof(ctx))
	now := time.Now()
	if again, ok := gate.Admit(now); !ok {
		return wire.Answer{}, heldFault(again, now, "because the issuer refused the credential")
	}
	outcome := pace.Outcome{Ignore: true}
	defer func() { login.done(gate, time.Now(), outcome) }()
	req, err := o.proven(ctx, endpoint, form)
	if err != nil {
		return wire.Answer{}, err
	}
	q.Request, q.Scheme, q.Certificate = req, o.Grant, o.certificate()
	answer, err := o.client.Ask(ctx, q)
	switch {
	case err != nil:
	case answer.Exchange.Status/100 == 2:
		outcome = pace.Outcome{OK: true}
	case RefusesClient(answer):
		outcome = pace.Outcome{}
	}
	return answer, err
}

// RefusesClient says whether an endpoint for clients refused who asked, as against what was asked.
func RefusesClient(a wire.Answer) bool {
	var body struct {
		Error string `json:"error"`
	}
	_ = json.Unmarshal(a.Body, &body)
	return a.Exchange.Status == http.StatusUnauthorized || body.Error == "invalid_client" || body.Error == "unauthorized_client"
}

// proven makes the request of a form with what proves the client (RFC 6749 section 2.3).
func (o *oauth) proven(ctx context.Context, endpoint string, form url.Values) (*http.Request, error) {
	var credential secret.Value
	switch o.ClientAuth {
	case "basic", "post":
		var err error
		if credential, err = o.secretOf(ctx); err != nil {
			return nil, err
		}
	case "client_secret_jwt", "private_key_jwt":
		if err := o.assert(ctx, form, endpoint); err != nil {
			return nil, err
		}
	}
	if o.style != oauth2.AuthStyleInHeader {
		for name, value := range map[string]string{"client_id": o.ClientID, "client_secret": credential.Expose()} {
			if value != "" {
				form.Set(name, value)
			}
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request to the issuer cannot be built")}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if o.style == oauth2.AuthStyleInHeader { // RFC 6749 section 2.3.1: both are form-encoded first
		req.SetBasicAuth(url.QueryEscape(o.ClientID), url.QueryEscape(credential.Expose()))
		secret.Remember(strings.TrimPrefix(req.Header.Get("Authorization"), "Basic "))
	}
	return req, nil
}
