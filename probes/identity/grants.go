package identity

import (
	"context"
	"errors"
	"net/url"

	"github.com/authvigil/authvigil/agent/secret"
)

// A grantType is a way to ask an authorization server for a token. Its keys are a struct that oauth squashes.
type grantType struct {
	urn   string                                                                      // the value of grant_type where it is not the name; RFC 6749 section 4.5
	check func(o *oauth) []error                                                      // what is wrong with the keys
	fill  func(ctx context.Context, o *oauth, form url.Values, endpoint string) error // adds what the grant has besides grant_type; nil: nothing
	ask   func(o *oauth, env Env) ask                                                 // in place of o.obtain, where there is more to do; nil: nothing more
}

// grants is the table of grants: a new one is a file with a grantType, and a line here.
var grants map[string]grantType

func init() { // because the functions of the table look at it
	grants = map[string]grantType{
		"client_credentials": {check: func(*oauth) []error { return nil }},
		"jwt_bearer":         {check: checkJWTBearer, fill: fillJWTBearer, urn: "urn:ietf:params:oauth:grant-type:jwt-bearer"},
		"password":           {check: checkPassword, fill: fillPassword},
		"refresh_token":      {check: checkRefresh, fill: fillRefresh, ask: askRefreshing},
		"token_exchange":     {check: checkExchange, fill: fillExchange, urn: "urn:ietf:params:oauth:grant-type:token-exchange"},
	}
}

// passwordGrant are the keys of the grant password (RFC 6749 section 4.3).
type passwordGrant struct {
	Username string     `koanf:"username" help:"for grant password"`
	Password secret.Ref `koanf:"password" help:"for grant password"`
}

func checkPassword(o *oauth) []error {
	if o.Username == "" || o.Password.IsZero() {
		return []error{errors.New("username: grant password needs username and password")}
	}
	return nil
}

func fillPassword(ctx context.Context, o *oauth, form url.Values, _ string) error {
	password, err := reveal(ctx, "password", o.Password)
	if err != nil {
		return err
	}
	form.Set("username", o.Username)
	form.Set("password", password.Expose())
	return nil
}
