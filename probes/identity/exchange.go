package identity

import (
	"context"
	"errors"
	"net/url"
	"strings"

	"github.com/authvigil/authvigil/agent/secret"
)

// exchangeGrant are the keys of the grant urn:ietf:params:oauth:grant-type:token-exchange (RFC 8693 section 2.1), by which a
// token of one issuer or party becomes that of another.
type exchangeGrant struct {
	SubjectToken       secret.Ref `koanf:"subject_token" help:"for grant token_exchange, required: the token to exchange, read for each request, such as file:/var/run/secrets/tokens/sa"`
	SubjectTokenType   string     `koanf:"subject_token_type" help:"for grant token_exchange: access_token, id_token, jwt, refresh_token, saml1, saml2 or a URI; default access_token"`
	ActorToken         secret.Ref `koanf:"actor_token" help:"for grant token_exchange: the token of who acts"`
	ActorTokenType     string     `koanf:"actor_token_type" help:"for grant token_exchange: as subject_token_type; default access_token"`
	RequestedTokenType string     `koanf:"requested_token_type" help:"for grant token_exchange: as subject_token_type; default: what the issuer gives"`
}

const tokenTypes = "urn:ietf:params:oauth:token-type:"

// tokenType gives the URI of a token type (RFC 8693 section 3).
func tokenType(name string) (string, bool) {
	switch name {
	case "access_token", "id_token", "jwt", "refresh_token", "saml1", "saml2":
		return tokenTypes + name, true
	case "":
		return tokenTypes + "access_token", true
	}
	u, err := url.Parse(name)
	return name, err == nil && u.Scheme != ""
}

func checkExchange(o *oauth) (errs []error) {
	if o.SubjectToken.IsZero() {
		errs = append(errs, errors.New("subject_token: is missing; grant token_exchange needs it"))
	}
	for _, t := range []struct{ key, name string }{{"subject_token_type", o.SubjectTokenType}, {"actor_token_type", o.ActorTokenType}, {"requested_token_type", o.RequestedTokenType}} {
		if _, ok := tokenType(t.name); !ok {
			errs = append(errs, errors.New(t.key+": is none of access_token, id_token, jwt, refresh_token, saml1, saml2, and no URI"))
		}
	}
	return errs
}

func fillExchange(ctx context.Context, o *oauth, form url.Values, _ string) error {
	v, err := reveal(ctx, "subject_token", o.SubjectToken)
	if err != nil {
		return err
	}
	form.Set("subject_token", strings.TrimSpace(v.Expose()))
	kind, _ := tokenType(o.SubjectTokenType)
	form.Set("subject_token_type", kind)
	if !o.ActorToken.IsZero() {
		if v, err = reveal(ctx, "actor_token", o.ActorToken); err != nil {
			return err
		}
		form.Set("actor_token", strings.TrimSpace(v.Expose()))
		kind, _ = tokenType(o.ActorTokenType)
		form.Set("actor_token_type", kind)
	}
	if o.RequestedTokenType != "" {
		kind, _ = tokenType(o.RequestedTokenType)
		form.Set("requested_token_type", kind)
	}
	return nil
}
