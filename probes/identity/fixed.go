package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/pace"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// bearer sends a token that somebody else obtained (RFC 6750 section 2.1): one in a file that rotates, or one that a program
// prints.
type bearer struct {
	Token          secret.Ref `koanf:"token" help:"the token; read anew for each request, so that a file may rotate; this or command is required"`
	credentialKeys `koanf:",squash"`
	commandKeys    `koanf:",squash"`
	nextKeys       `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed
	tokens *shared // of command
}

func newBearer(decode func(any) error, env Env) (Identity, error) {
	b := &bearer{fixed: newFixed(env, pace.Policy{}), commandKeys: commandKeys{CommandTime: 10 * time.Second, CommandLife: 5 * time.Minute}}
	if err := decode(b); err != nil {
		return nil, err
	}
	var errs []error
	switch {
	case b.Token.IsZero() && len(b.Command) == 0:
		errs = append(errs, errors.New("token: is missing (or give command)"))
	case !b.Token.IsZero() && len(b.Command) > 0:
		errs = append(errs, errors.New("command: give either token or command"))
	case len(b.Command) > 0 && !b.NextSecret.IsZero():
		errs = append(errs, errors.New("next_secret: goes with token, not with command"))
	case len(b.Command) > 0 && !filepath.IsAbs(b.Command[0]):
		errs = append(errs, errors.New("command: must begin with the whole path of the program"))
	}
	if b.CommandTime <= 0 || b.CommandTime > time.Minute {
		errs = append(errs, errors.New("command_timeout: must be above zero and at most 1m"))
	}
	if b.CommandLife < 10*time.Second {
		errs = append(errs, errors.New("command_every: is below 10s"))
	}
	b.of("token", b.Token, env)
	b.follow(b.Token, "bearer", env, b.allows, func(req *http.Request, token string) {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	})
	b.tokens = newShared(env, b.run)
	b.tokens.local = true
	return b, errors.Join(errs...)
}

func (b *bearer) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "bearer"}
	if err := b.allows(req); err != nil {
		return g, err
	}
	if len(b.Command) > 0 {
		got, g, err := b.tokens.get(ctx)
		g.Scheme = "bearer"
		if err == nil {
			req.Header.Set("Authorization", "Bearer "+got.text.Expose())
		}
		return g, err
	}
	v, err := reveal(ctx, "token", b.Token)
	if err != nil {
		return g, err
	}
	facts := evidence.DecodeToken(v.Expose())
	facts.Problems = evidence.LintCredential(v.Expose())
	g.Token = &facts
	g.Readings, g.Notes = b.about(ctx, v)
	if !facts.Expiry.IsZero() {
		if !facts.Issued.IsZero() {
			g.Notes = append(g.Notes, Ending("the token, by its claims,", facts.Issued, facts.Expiry)...)
		}
		g.Readings = append(g.Readings, evidence.Reading{Metric: TokenExpiry, Labels: []string{"access"}, Value: unix(facts.Expiry)},
			evidence.Reading{Metric: CredentialEnd, Labels: []string{"token"}, Value: unix(facts.Expiry)})
	}
	if req.URL.Host == "" {
		g.ID = fingerprint(v.Expose())
		req.Header.Set("Authorization", "Bearer "+v.Expose()) // never sent, so no gate is asked
		return g, nil
	}
	if g.ID, err = b.admit(v.Expose()); err != nil {
		return g, err
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(v.Expose()))
	return g, nil
}

func (b *bearer) Settle(g Grant, o Outcome) bool {
	if len(b.Command) > 0 {
		b.tokens.settle(g, o)
	} else {
		b.settle(g, o)
	}
	return false
}

func (b *bearer) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (b *bearer) Status() Status {
	s := Status{Kind: "bearer", Scheme: "bearer", Gate: b.state(), Origin: b.Origins}
	if len(b.Command) > 0 {
		s.Gate = b.tokens.state()
	}
	return s
}

// basic sends user name and password with each request (RFC 7617), in UTF-8.
type basic struct {
	Username       string     `koanf:"username" help:"user name; required; holds no colon (RFC 7617 section 2)"`
	Password       secret.Ref `koanf:"password" help:"password; required"`
	credentialKeys `koanf:",squash"`
	lockoutKeys    `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed
}

func newBasic(decode func(any) error, env Env) (Identity, error) {
	b := &basic{fixed: newFixed(env, lockout)}
	if err := decode(b); err != nil {
		return nil, err
	}
	b.of("password", b.Password, env)
	errs := b.limit(b.credentialGate)
	if b.Username == "" {
		errs = append(errs, errors.New("username: is missing"))
	}
	if strings.Contains(b.Username, ":") {
		errs = append(errs, errors.New("username: holds a colon, which basic authentication cannot carry (RFC 7617 section 2)"))
	}
	if b.Password.IsZero() {
		errs = append(errs, errors.New("password: is missing"))
	}
	return b, errors.Join(errs...)
}

func (b *basic) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "basic"}
	if err := b.allows(req); err != nil {
		return g, err
	}
	v, err := reveal(ctx, "password", b.Password)
	if err != nil {
		return g, err
	}
	g.Readings, g.Notes = b.about(ctx, v)
	if req.URL.Host == "" {
		return g, nil
	}
	if g.ID, err = b.admit(b.Username + ":" + v.Expose()); err != nil {
		return g, err
	}
	req.SetBasicAuth(b.Username, v.Expose())
	secret.Remember(strings.TrimPrefix(req.Header.Get("Authorization"), "Basic "))
	return g, nil
}

func (b *basic) Settle(g Grant, o Outcome) bool { b.settle(g, o); return false }
func (b *basic) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (b *basic) Status() Status {
	return Status{Kind: "basic", Scheme: "basic", Gate: b.state(), Origin: b.Origins}
}

// apiKey sends a key in a header, with or without a prefix, in the query or in a cookie.
type apiKey struct {
	Key            secret.Ref `koanf:"key" help:"the key; required"`
	Header         string     `koanf:"header" help:"header that carries the key, such as X-Api-Key or Authorization"`
	Prefix         string     `koanf:"prefix" help:"text before the key in the header, such as \"ApiKey \""`
	Query          string     `koanf:"query" help:"query parameter that carries the key"`
	Cookie         string     `koanf:"cookie" help:"cookie that carries the key"`
	credentialKeys `koanf:",squash"`
	nextKeys       `koanf:",squash"`
	common         `koanf:",squash"`
	*fixed
}

func newAPIKey(decode func(any) error, env Env) (Identity, error) {
	k := &apiKey{fixed: newFixed(env, pace.Policy{})}
	if err := decode(k); err != nil {
		return nil, err
	}
	k.of("key", k.Key, env)
	k.follow(k.Key, "api_key", env, k.allows, k.put)
	var errs []error
	if k.Key.IsZero() {
		errs = append(errs, errors.New("key: is missing"))
	}
	places := 0
	for _, place := range []string{k.Header, k.Query, k.Cookie} {
		if place != "" {
			places++
		}
	}
	switch {
	case places == 0:
		k.Header = "X-Api-Key"
	case places > 1:
		errs = append(errs, errors.New("header: give one of header, query and cookie"))
	}
	if k.Prefix != "" && k.Header == "" {
		errs = append(errs, errors.New("prefix: goes with header only"))
	}
	return k, errors.Join(errs...)
}

func (k *apiKey) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	g := Grant{Scheme: "api_key"}
	if err := k.allows(req); err != nil {
		return g, err
	}
	v, err := reveal(ctx, "key", k.Key)
	if err != nil {
		return g, err
	}
	g.Readings, g.Notes = k.about(ctx, v)
	if req.URL.Host == "" {
		return g, nil
	}
	if g.ID, err = k.admit(v.Expose()); err != nil {
		return g, err
	}
	k.put(req, v.Expose())
	return g, nil
}

// put puts a key where the server looks for it.
func (k *apiKey) put(req *http.Request, text string) {
	switch key := strings.TrimSpace(text); {
	case k.Query != "":
		q := req.URL.Query()
		q.Set(k.Query, key)
		req.URL.RawQuery = q.Encode()
	case k.Cookie != "":
		req.AddCookie(&http.Cookie{Name: k.Cookie, Value: key})
	default:
		req.Header.Set(k.Header, k.Prefix+key)
	}
}

func (k *apiKey) Settle(g Grant, o Outcome) bool { k.settle(g, o); return false }
func (k *apiKey) ClientCertificate(context.Context) (*tls.Certificate, error) {
	return nil, nil
}

func (k *apiKey) Status() Status {
	return Status{Kind: "api_key", Scheme: "api_key", Gate: k.state(), Origin: k.Origins}
}
