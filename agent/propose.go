package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// A Wish is what somebody knows of an API when there is no configuration yet.
type Wish struct {
	URL      string   // of the API; empty: only the issuer is watched
	Issuer   string   // empty: the one that the API's challenge names
	Kind     string   // of the identity; empty: what the API asks for
	ClientID string   // empty: a placeholder
	Audience string   // of the token, as issuers like Auth0 want it
	Scopes   []string // to ask for
	CAFile   string   // authorities to trust in place of the system's
	Secrets  string   // directory in which secrets will lie, such as /etc/authvigil
	Servers  []string // time servers; empty: the clock is left to whoever edits the file
}

// A Proposal is a configuration that fits a wish, and what was seen on the way to it.
type Proposal struct {
	Text string   // TOML
	Seen []string // what the servers answered, one sentence each
	Todo []string // what is left to do before it works, one action each
}

// Propose asks the API as a stranger how it wants to be proved to, and the issuer for its metadata, and writes a
// configuration for both: the API, that it refuses strangers, its certificate, the issuer, the token, the clock. It sends
// no credential. What cannot be found out is written as the most likely answer and said in Todo.
func Propose(ctx context.Context, n wire.Net, w Wish) (Proposal, error) {
	client, err := wire.New(n, wire.Settings{CAFile: w.CAFile})
	if err != nil {
		return Proposal{}, err
	}
	p := &proposer{Wish: w, client: client}
	if w.Kind != "" && !slices.Contains([]string{"none", "bearer", "basic", "digest", "api_key", "oauth2"}, w.Kind) {
		return Proposal{}, fmt.Errorf("init cannot write an identity of kind %q; take one of none, bearer, basic, digest, api_key, oauth2, and see config.toml.example for the others", w.Kind)
	}
	if w.URL != "" {
		if p.api, err = webAddress(w.URL); err != nil {
			return Proposal{}, err
		}
		if err := p.askAPI(ctx); err != nil {
			return Proposal{}, err
		}
	}
	if w.Issuer != "" {
		if _, err := webAddress(w.Issuer); err != nil {
			return Proposal{}, err
		}
		p.issuer, p.Kind = w.Issuer, cmp.Or(w.Kind, "oauth2")
	}
	if p.issuer != "" && p.Kind == "oauth2" {
		if err := p.askIssuer(ctx); err != nil {
			return Proposal{}, err
		}
	}
	if p.Kind == "oauth2" && p.issuer == "" {
		p.issuer = "https://auth.example.com"
		p.todo("the API does not name its issuer: put it into issuer, or run init again with --issuer URL")
	}
	p.write()
	return Proposal{Text: p.text.String(), Seen: p.seen, Todo: p.left}, nil
}

// proposer gathers what is seen.
type proposer struct {
	Wish
	client *wire.Client
	api    *url.URL
	issuer string
	deny   bool // strangers are refused
	header string
	prefix string
	meta   metadata
	found  bool // the issuer's metadata could be read
	text   strings.Builder
	seen   []string
	left   []string
}

// metadata is what of an issuer's metadata a configuration needs (OpenID Connect Discovery, RFC 8414).
type metadata struct {
	Issuer      string   `json:"issuer"`
	TokenURL    string   `json:"token_endpoint"`
	Grants      []string `json:"grant_types_supported"`
	ClientAuths []string `json:"token_endpoint_auth_methods_supported"`
}

func webAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil {
		return nil, fmt.Errorf("%q is no address: want https://host/path, without user name and password", evidence.Clean(text, 200))
	}
	return u, nil
}

func (p *proposer) see(format string, a ...any) { p.seen = append(p.seen, fmt.Sprintf(format, a...)) }

func (p *proposer) todo(format string, a ...any) {
	if text := fmt.Sprintf(format, a...); !slices.Contains(p.left, text) {
		p.left = append(p.left, text)
	}
}

func (p *proposer) get(ctx context.Context, address string, stage evidence.Stage) (wire.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return wire.Answer{}, err
	}
	req.Header.Set("Accept", "application/json, */*;q=0.5")
	return p.client.Ask(ctx, wire.Question{Request: req, Stage: stage, Scheme: "none", MaxBody: 1 << 20})
}

// askAPI asks the API as a stranger.
func (p *proposer) askAPI(ctx context.Context) error {
	a, err := p.get(ctx, p.api.String(), evidence.StageAPI)
	if err != nil {
		return fmt.Errorf("%w\n  help: init asks the API once, without a credential; correct the address, or name a private authority with --ca-file", err)
	}
	status := a.Exchange.Status
	challenges := evidence.ParseChallenges(a.Header.Values("WWW-Authenticate")...)
	p.deny = status == http.StatusUnauthorized || status == http.StatusForbidden
	switch {
	case status/100 == 2:
		p.see("%s answers %d to a stranger: it wants no credential", a.Exchange.URL, status)
	case status/100 == 3:
		p.see("%s answers %d and sends a stranger elsewhere", a.Exchange.URL, status)
		p.todo("the API redirects: put the address that answers into url of [probe.api]")
	case !p.deny:
		p.see("%s answers %d to a stranger", a.Exchange.URL, status)
		p.todo("the API answers %d to a stranger: see that url of [probe.api] is a path that answers 200 to those who may", status)
	}
	kind, why := schemeOf(challenges, a)
	if p.deny {
		p.see("%s answers %d to a stranger, %s", a.Exchange.URL, status, why)
		if kind == "api_key" {
			p.header, p.prefix = keyHeader(challenges, a)
		}
	}
	if p.Kind == "" {
		if p.Kind = kind; !p.deny {
			p.Kind = "none"
		}
	}
	if p.Kind == "bearer" && p.Wish.Issuer == "" {
		if p.issuer = p.issuerNamed(ctx, challenges); p.issuer != "" {
			p.Kind = "oauth2"
		}
	}
	return nil
}

// schemeOf says which kind of identity a refusal asks for (RFC 9110 section 11.3).
func schemeOf(challenges []evidence.Challenge, a wire.Answer) (kind, why string) {
	for _, want := range []struct{ scheme, kind string }{{"bearer", "bearer"}, {"dpop", "bearer"}, {"digest", "digest"}, {"basic", "basic"}, {"apikey", "api_key"}, {"api-key", "api_key"}, {"key", "api_key"}, {"token", "api_key"}} {
		for _, c := range challenges {
			if c.Scheme == want.scheme {
				return want.kind, "and asks for " + c.Scheme
			}
		}
	}
	if keyWords.Match(a.Body) || strings.Contains(strings.ToLower(strings.Join(a.Header.Values("Vary"), " ")), "api-key") {
		return "api_key", "and speaks of an API key"
	}
	return "bearer", "and does not say how it wants to be proved to"
}

var (
	keyWords    = regexp.MustCompile(`(?i)\bapi[ _-]?key\b|subscription key`)
	headerNamed = regexp.MustCompile(`(?i)\b((?:x-)?[a-z-]*(?:api|subscription|auth)-?[a-z-]*key)\b`)
)

// keyHeader finds the header that carries an API key: one that the answer names, else the usual one.
func keyHeader(challenges []evidence.Challenge, a wire.Answer) (header, prefix string) {
	for _, c := range challenges {
		if c.Scheme == "token" || c.Scheme == "key" || c.Scheme == "apikey" || c.Scheme == "api-key" {
			if name := c.Parameters["header"]; headerNamed.MatchString(name) {
				return headerNamed.FindString(name), ""
			}
			if c.Scheme == "token" {
				return "Authorization", "Token "
			}
		}
	}
	if name := headerNamed.Find(a.Body); name != nil && strings.Contains(string(name), "-") {
		return http.CanonicalHeaderKey(string(name)), ""
	}
	return "X-Api-Key", ""
}

// issuerNamed finds the issuer that a challenge leads to: by the metadata of the resource (RFC 9728), or by parameters that
// some servers send. An address that a stranger names is asked only over TLS, or where it is the API's own host.
func (p *proposer) issuerNamed(ctx context.Context, challenges []evidence.Challenge) string {
	usable := func(text string) string {
		u, err := webAddress(text)
		if err != nil || (u.Scheme != "https" && u.Hostname() != p.api.Hostname()) {
			return ""
		}
		return text
	}
	for _, c := range challenges {
		if address := usable(c.Parameters["resource_metadata"]); address != "" {
			a, err := p.get(ctx, address, evidence.StageDiscovery)
			var resource struct {
				Servers []string `json:"authorization_servers"`
			}
			if err == nil && json.Unmarshal(a.Body, &resource) == nil && len(resource.Servers) > 0 && usable(resource.Servers[0]) != "" {
				p.see("its metadata (RFC 9728) names the issuer %s", evidence.Clean(resource.Servers[0], 200))
				return resource.Servers[0]
			}
		}
		for _, name := range []string{"issuer", "iss", "authorization_uri", "as_uri", "realm"} {
			text := usable(c.Parameters[name])
			if name == "authorization_uri" { // …/oauth2/authorize
				text = regexp.MustCompile(`/oauth2(/v2\.0)?/authorize/?$`).ReplaceAllString(text, "")
			}
			if text == "" {
				continue
			}
			if probe := (&proposer{client: p.client, issuer: text}); probe.askIssuer(ctx) == nil {
				p.see("its challenge names the issuer %s", evidence.Clean(text, 200))
				return text
			}
		}
	}
	return ""
}

// askIssuer reads the metadata of the issuer, by OpenID Connect Discovery and then by RFC 8414.
func (p *proposer) askIssuer(ctx context.Context) error {
	u, err := webAddress(p.issuer)
	if err != nil {
		return err
	}
	oauth := *u
	oauth.Path = "/.well-known/oauth-authorization-server" + strings.TrimRight(u.Path, "/")
	var errs []error
	for _, address := range []string{strings.TrimRight(p.issuer, "/") + "/.well-known/openid-configuration", oauth.String()} {
		a, err := p.get(ctx, address, evidence.StageDiscovery)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case a.Exchange.Status != http.StatusOK:
			errs = append(errs, fmt.Errorf("discovery: GET %s answered %d", a.Exchange.URL, a.Exchange.Status))
			continue
		}
		var m metadata
		if err := json.Unmarshal(a.Body, &m); err != nil || m.Issuer == "" {
			errs = append(errs, fmt.Errorf("discovery: GET %s is no metadata of an issuer", a.Exchange.URL))
			continue
		}
		p.meta, p.found = m, true
		p.see("%s is the metadata of the issuer %s", a.Exchange.URL, evidence.Clean(m.Issuer, 200))
		if m.Issuer != p.issuer {
			if strings.TrimRight(m.Issuer, "/") != strings.TrimRight(p.issuer, "/") {
				p.todo("the metadata names the issuer %q and not %q: see which one stands in the tokens", evidence.Clean(m.Issuer, 200), p.issuer)
			} else {
				p.issuer = m.Issuer // to the letter, as it stands in iss
			}
		}
		if len(m.Grants) > 0 && !slices.Contains(m.Grants, "client_credentials") {
			p.todo("the issuer does not offer client_credentials to everybody (it offers %s): see that the client may use it", evidence.Clean(strings.Join(m.Grants, ", "), 200))
		}
		return nil
	}
	return fmt.Errorf("%w\n  help: --issuer is the address before /.well-known/openid-configuration", errors.Join(errs...))
}
