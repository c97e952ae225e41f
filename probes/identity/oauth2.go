package identity

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// oauth asks an authorization server for tokens (RFC 6749) and sends them as bearer tokens.
type oauth struct {
	Grant             string            `koanf:"grant" help:"client_credentials, jwt_bearer (RFC 7523), password, refresh_token or token_exchange (RFC 8693); default client_credentials"`
	TokenURL          string            `koanf:"token_url" help:"token endpoint; this or issuer is required"`
	Issuer            string            `koanf:"issuer" help:"issuer, whose metadata names the token endpoint (OpenID Connect Discovery, RFC 8414)"`
	ClientID          string            `koanf:"client_id" help:"client id; required"`
	ClientSecret      secret.Ref        `koanf:"client_secret" help:"client secret; required for the client authentications basic and post"`
	ClientAuth        string            `koanf:"client_auth" help:"how the client proves itself: basic (client_secret_basic), post (client_secret_post), client_secret_jwt, private_key_jwt, tls (RFC 8705) or none; it is never guessed, because guessing asks twice; default basic"`
	ClientAssertion   secret.Ref        `koanf:"client_assertion" help:"for client_auth private_key_jwt: an assertion that somebody else signs, such as a projected token of Kubernetes (workload identity federation); default: one is signed by private_key"`
	KeyID             string            `koanf:"key_id" help:"kid of the key that signs assertions, where the issuer wants it"`
	AssertionAudience string            `koanf:"assertion_audience" help:"aud of assertions; default: the token endpoint"`
	Scopes            []string          `koanf:"scopes" help:"scopes to ask for"`
	Audience          string            `koanf:"audience" help:"parameter audience, which some servers want in place of scopes"`
	Resource          []string          `koanf:"resource" help:"parameter resource, once for each (RFC 8707)"`
	Parameters        map[string]string `koanf:"parameters" help:"further parameters of the token request"`
	passwordGrant     `koanf:",squash"`
	jwtBearerGrant    `koanf:",squash"`
	exchangeGrant     `koanf:",squash"`
	dpopKeys          `koanf:",squash"`
	refreshGrant      `koanf:",squash"`
	clientKeys        `koanf:",squash"`
	RefreshAhead      time.Duration `koanf:"refresh_ahead" help:"how long before its end a token is replaced; default 5m, or a fifth of its life where that is shorter"`
	credentialKeys    `koanf:",squash"`
	nextKeys          `koanf:",squash"`
	lockoutKeys       `koanf:",squash"`
	common            `koanf:",squash"`
	keyPair           `koanf:",squash"`
	wire.Settings     `koanf:",squash"`

	client *wire.Client
	tokens *shared
	style  oauth2.AuthStyle
	prover *prover

	mu       sync.Mutex // owns what follows
	endpoint string     // token endpoint, from the metadata
	looked   time.Time
}

// metadataLife is how long the token endpoint that an issuer's metadata names is believed.
const metadataLife = time.Hour

// maxTokenAnswer is how much of an answer of a token endpoint is read.
const maxTokenAnswer = 1 << 20

func newOAuth2(decode func(any) error, env Env) (Identity, error) {
	o := &oauth{Grant: "client_credentials", ClientAuth: "basic"}
	if err := decode(o); err != nil {
		return nil, err
	}
	var errs []error
	wrong := func(found bool, format string, args ...any) {
		if found {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(o.TokenURL == "" && o.Issuer == "", "token_url: is missing (or give issuer)")
	wrong(o.TokenURL != "" && o.Issuer != "", "token_url: give either token_url or issuer")
	wrong(o.TokenURL != "" && !goodURL(o.TokenURL), "token_url: is no http or https URL without user name")
	wrong(o.Issuer != "" && !goodURL(o.Issuer), "issuer: is no http or https URL without user name")
	wrong(o.ClientID == "" && (o.ClientAuth != "none" || o.Grant != "jwt_bearer" && o.Grant != "token_exchange"), "client_id: is missing")
	switch o.ClientAuth {
	case "basic":
		o.style = oauth2.AuthStyleInHeader
	case "post":
		o.style = oauth2.AuthStyleInParams
	case "none", "client_secret_jwt":
	case "private_key_jwt":
		wrong(o.PrivateKey.IsZero() && o.ClientAssertion.IsZero(), "private_key: is missing (or give client_assertion)")
	case "tls":
		wrong(o.Certificate.IsZero(), "certificate: is missing")
		wrong(o.PrivateKey.IsZero(), "private_key: is missing")
	default:
		wrong(true, "client_auth: %q is none of basic, post, client_secret_jwt, private_key_jwt, tls, none", o.ClientAuth)
	}
	wrong(o.usesSecret() && o.ClientSecret.IsZero(), "client_secret: is missing")
	switch {
	case o.usesSecret():
		o.of("client_secret", o.ClientSecret, env)
	case o.ClientAuth == "tls":
		o.of("certificate", o.Certificate, env)
	default:
		o.of("private_key", o.PrivateKey, env)
	}
	ask := o.obtain
	if g, ok := grants[o.Grant]; ok {
		errs = append(errs, g.check(o)...)
		if g.ask != nil {
			ask = g.ask(o, env)
		}
	} else {
		wrong(true, "grant: %q is none of %s", o.Grant, strings.Join(slices.Sorted(maps.Keys(grants)), ", "))
	}
	for _, name := range sortedNames(o.Parameters) {
		wrong(reserved[name], "parameters: %s has a key of its own", name)
	}
	errs = append(errs, o.checkDPoP()...)
	errs = append(errs, o.checkClient()...)
	errs = append(errs, o.checkNext()...)
	o.follow(o.ClientSecret, "bearer", env, nil, nil) // the issuer is shown it, see tryNext
	o.prover = newProver(o.dpopKeys)
	client, err := wire.New(env.Net, o.Settings)
	if err != nil {
		errs = append(errs, err)
	}
	o.client = client
	o.tokens = newShared(env, ask)
	o.tokens.ahead = o.RefreshAhead
	o.tokens.proof = o.proof
	errs = append(errs, o.limit(o.tokens.login)...)
	return o, errors.Join(errs...)
}

// proof is the text of all that proves the client and the grant. What cannot be read is left out.
func (o *oauth) proof(ctx context.Context) string {
	text := o.ClientID + " " + o.Username
	for _, ref := range []secret.Ref{o.ClientSecret, o.Password, o.PrivateKey, o.Certificate, o.RefreshToken, o.ClientAssertion, o.Assertion, o.SubjectToken} {
		if ref.IsZero() {
			continue
		}
		if v, err := ref.Reveal(ctx); err == nil {
			text += "\x00" + v.Expose()
		}
	}
	return text
}

// usesSecret says whether the client proves itself by its secret.
func (o *oauth) usesSecret() bool {
	return o.ClientAuth == "basic" || o.ClientAuth == "post" || o.ClientAuth == "client_secret_jwt"
}

// reserved are parameters of a token request that have a key of their own.
var reserved = map[string]bool{"grant_type": true, "client_id": true, "client_secret": true, "scope": true, "username": true, "password": true, "refresh_token": true, "assertion": true, "client_assertion": true, "subject_token": true, "actor_token": true}

func sortedNames(m map[string]string) []string {
	v := url.Values{}
	for name := range m {
		v.Set(name, "")
	}
	var names []string
	for part := range strings.SplitSeq(v.Encode(), "&") {
		if name, _, _ := strings.Cut(part, "="); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func goodURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" && u.User == nil
}

func (o *oauth) Apply(ctx context.Context, req *http.Request) (Grant, error) {
	if err := o.allows(req); err != nil {
		return Grant{Scheme: o.scheme()}, err
	}
	token, g, err := o.tokens.get(ctx)
	g.Scheme = o.scheme()
	o.tellOfClient(ctx, &g)
	o.tryNext(ctx, &g, err)
	if err != nil {
		return g, err
	}
	if !o.DPoP {
		req.Header.Set("Authorization", "Bearer "+token.text.Expose())
		return g, nil
	}
	if !strings.EqualFold(token.kind, "DPoP") { // RFC 9449 section 5: it is not bound
		g.Scheme = "bearer"
		g.Notes = append(g.Notes, evidence.Note{Code: "dpop_not_bound", Detail: "the issuer ignored the DPoP proof and gave a token that is not bound to the key"})
		req.Header.Set("Authorization", "Bearer "+token.text.Expose())
		return g, nil
	}
	req.Header.Set("Authorization", "DPoP "+token.text.Expose())
	if req.URL.Host == "" {
		return g, nil
	}
	g.origin = wire.Origin(req.URL)
	return g, o.prover.prove(ctx, req, token.text.Expose())
}

// tellOfClient adds what is known of what proves the client.
func (o *oauth) tellOfClient(ctx context.Context, g *Grant) {
	var v secret.Value // that it cannot be had was said when it was needed
	if o.usesSecret() {
		v, _ = o.ClientSecret.Reveal(ctx)
	}
	readings, notes := o.about(ctx, v)
	g.Readings, g.Notes = append(g.Readings, readings...), append(g.Notes, notes...)
	if o.ClientAuth != "tls" {
		return
	}
	if pair, err := o.load(ctx); err == nil {
		readings, notes = certificateEnd(pair.Leaf)
		g.Readings, g.Notes = append(g.Readings, readings...), append(g.Notes, notes...)
	}
}

func (o *oauth) scheme() string {
	if o.DPoP {
		return "dpop"
	}
	return "bearer"
}

// Settle asks for the same request once more when the server said a nonce that was not in the proof.
func (o *oauth) Settle(g Grant, outcome Outcome) (again bool) {
	if o.DPoP && g.origin != "" {
		changed := o.prover.learn(g.origin, outcome.Header)
		if outcome.Refused && wantsNonce(outcome.Header) {
			return changed
		}
	}
	o.tokens.settle(g, outcome)
	return false
}

// ClientCertificate is the one that tokens are bound to, where the client proves itself by it (RFC 8705 section 3).
func (o *oauth) ClientCertificate(ctx context.Context) (*tls.Certificate, error) {
	if o.ClientAuth != "tls" {
		return nil, nil
	}
	return o.load(ctx)
}

// certificate gives the client certificate for the token request, where one is used.
func (o *oauth) certificate() func(context.Context) (*tls.Certificate, error) {
	if o.ClientAuth != "tls" {
		return nil
	}
	return o.load
}

func (o *oauth) Status() Status {
	issuer := o.Issuer
	if issuer == "" {
		if u, err := url.Parse(o.TokenURL); err == nil {
			issuer = wire.ShowURL(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path})
		}
	}
	return Status{Kind: "oauth2", Scheme: o.scheme(), Issuer: issuer, Gate: o.tokens.state(), Spends: o.Grant == "refresh_token", Origin: o.Origins}
}

// obtain makes one token request; a second one where the first was answered by a demand for a nonce.
func (o *oauth) obtain(ctx context.Context) (got obtained, exchanges []evidence.Exchange, chain *evidence.Chain, err error) {
	endpoint, found, err := o.findEndpoint(ctx)
	if found != nil {
		exchanges, chain = append(exchanges, found.Exchange), found.Chain
	}
	if err != nil {
		return got, exchanges, chain, err
	}
	for again := true; again; {
		var answer wire.Answer
		got, answer, err = o.send(ctx, endpoint)
		if answer.Exchange.Method != "" {
			exchanges = append(exchanges, answer.Exchange)
		}
		if answer.Chain != nil && len(answer.Chain.Facets) > 0 {
			chain = answer.Chain
		}
		fault := evidence.AsFault(err)
		again = fault != nil && fault.Code == "use_dpop_nonce" && o.prover.learn(originOf(endpoint), answer.Header) && len(exchanges) < 3
		if fault != nil && fault.Symptom == evidence.SymptomTokenRefused {
			got.notes = o.untimely(answer)
		}
	}
	return got, exchanges, chain, err
}

func originOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return wire.Origin(u)
}

// send makes one token request and reads its answer.
func (o *oauth) send(ctx context.Context, endpoint string) (got obtained, answer wire.Answer, err error) {
	req, err := o.request(ctx, endpoint)
	if err != nil {
		return got, answer, err
	}
	answer, err = o.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageToken, Purpose: evidence.Obtain, Scheme: o.Grant, Certificate: o.certificate(), MaxBody: maxTokenAnswer, Expected: func(status int) bool { return status == http.StatusOK }})
	if err != nil {
		return got, answer, err
	}
	got, err = readToken(answer, &answer.Exchange)
	if err == nil && o.DPoP {
		o.prover.learn(originOf(endpoint), answer.Header)
	}
	return got, answer, err
}

func (o *oauth) request(ctx context.Context, endpoint string) (*http.Request, error) {
	grant := grants[o.Grant]
	form := url.Values{"grant_type": {cmp.Or(grant.urn, o.Grant)}}
	set := func(name, value string) {
		if value != "" {
			form.Set(name, value)
		}
	}
	set("scope", strings.Join(o.Scopes, " "))
	set("audience", o.Audience)
	form["resource"] = o.Resource
	for name, value := range o.Parameters {
		form.Set(name, value)
	}
	if grant.fill != nil {
		if err := grant.fill(ctx, o, form, endpoint); err != nil {
			return nil, err
		}
	}
	req, err := o.proven(ctx, endpoint, form)
	if err == nil && o.DPoP {
		err = o.prover.prove(ctx, req, "")
	}
	return req, err
}

// findEndpoint gives the token endpoint; where an issuer was configured, as its metadata says. The answer is given when
// the metadata was asked for.
func (o *oauth) findEndpoint(ctx context.Context) (string, *wire.Answer, error) {
	if o.TokenURL != "" {
		return o.TokenURL, nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.endpoint != "" && time.Since(o.looked) < metadataLife {
		return o.endpoint, nil, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(o.Issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", nil, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the issuer's metadata has no address")}
	}
	answer, err := o.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, MaxBody: 256 << 10, Expected: func(status int) bool { return status == http.StatusOK }})
	if err != nil {
		return "", &answer, err
	}
	bad := func(code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: evidence.SymptomIssuer, Code: code, Err: fmt.Errorf(format, args...)}
	}
	if answer.Exchange.Status != http.StatusOK {
		return "", &answer, bad(fmt.Sprint(answer.Exchange.Status), "the issuer's metadata answered %d", answer.Exchange.Status)
	}
	var metadata struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
	}
	switch err := json.Unmarshal(answer.Body, &metadata); {
	case err != nil:
		return "", &answer, bad("not_json", "the issuer's metadata is no JSON document")
	case metadata.Issuer != o.Issuer: // byte for byte, OpenID Connect Discovery section 4.3
		return "", &answer, bad("issuer_mismatch", "the metadata is that of issuer %s, not of %s", evidence.Clean(metadata.Issuer, 256), o.Issuer)
	case !goodURL(metadata.TokenEndpoint):
		return "", &answer, bad("no_token_endpoint", "the issuer's metadata names no token endpoint")
	case strings.HasPrefix(o.Issuer, "https:") && !strings.HasPrefix(metadata.TokenEndpoint, "https:"):
		return "", &answer, bad("insecure_endpoint", "the issuer's metadata names a token endpoint without TLS; no secret is sent there")
	}
	o.endpoint, o.looked = metadata.TokenEndpoint, time.Now()
	return o.endpoint, &answer, nil
}
