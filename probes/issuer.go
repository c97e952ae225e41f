package probes

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/identity"
	"github.com/authvigil/authvigil/probes/wire"
)

// issuerProbe looks at an identity provider as those look at it who verify its tokens: the metadata, each endpoint that they
// name, the key set key by key, and a token in use against all of these. It remembers what it saw, so that what changed is
// named. Nothing but what the identity itself sends to obtain a token carries a credential.
type issuerProbe struct {
	Issuer        string        `koanf:"issuer" help:"issuer, to the letter as it stands in iss, such as https://auth.example.com; required"`
	Discovery     string        `koanf:"discovery" help:"oidc (OpenID Connect Discovery), oauth (RFC 8414) or auto: the first, and the second where the first is not there; default auto"`
	MetadataURL   string        `koanf:"metadata_url" help:"address of the metadata, where it follows neither rule"`
	Resource      string        `koanf:"resource" help:"URL of a protected resource whose own metadata (RFC 9728) must name this issuer; default: none"`
	Identity      string        `koanf:"identity" help:"identity whose token is checked with the issuer's keys, and that asks for a new token every token_every; default: none"`
	Audience      string        `koanf:"audience" help:"audience that the token must name"`
	TokenType     string        `koanf:"token_type" help:"typ that the token's header must have, such as at+jwt (RFC 9068); default: any"`
	Algorithms    []string      `koanf:"algorithms" help:"algorithms that tokens may be signed with, such as RS256; default: any that a published key can verify"`
	Leeway        time.Duration `koanf:"leeway" help:"clock leeway that is granted to nbf and iat of the token; default 60s"`
	TokenEvery    time.Duration `koanf:"token_every" help:"how often a new token is asked for although the one in use still lives, so that an outage of the token endpoint is seen; at least 1m, 0: never; never done with rotating refresh tokens; default 5m"`
	EndpointHosts []string      `koanf:"endpoint_hosts" help:"hosts that the metadata may name beside the issuer's own, such as www.example.com or *.example.com; default: any"`
	MaxCache      time.Duration `koanf:"max_cache" help:"longest time for which caches should be allowed to keep the key set; default 24h"`
	wire.Settings `koanf:",squash"`

	env     Env
	url     *url.URL
	client  *wire.Client
	who     identity.Identity // nil: none
	memory  *issuerMemory     // nil: not read yet
	at      string            // where the metadata were found last
	asked   time.Time         // when a token was last asked for
	outage  *evidence.Fault   // why none came then; nil: it came
	lastID  string            // of the grant in use
	visited time.Time         // when the endpoints' certificates were last looked at
	foul    []problem         // what was found there
}

func newIssuer(decode func(any) error, env Env) (Probe, error) {
	p := &issuerProbe{Discovery: "auto", Leeway: time.Minute, TokenEvery: 5 * time.Minute, MaxCache: 24 * time.Hour, env: env}
	if err := decode(p); err != nil {
		return nil, err
	}
	var errs []error
	var err error
	if p.url, err = parseURL(p.Issuer); err != nil {
		errs = append(errs, fmt.Errorf("issuer: %w", err))
	} else if p.url.RawQuery != "" || p.url.Fragment != "" { // RFC 8414 section 2
		errs = append(errs, errors.New("issuer: must have neither query nor fragment"))
	}
	if !slices.Contains([]string{"auto", "oidc", "oauth"}, p.Discovery) {
		errs = append(errs, fmt.Errorf("discovery: %q is none of auto, oidc, oauth", p.Discovery))
	}
	for _, c := range []struct{ key, text string }{{"metadata_url", p.MetadataURL}, {"resource", p.Resource}} {
		if c.text == "" {
			continue
		}
		if _, err := parseURL(c.text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.key, err))
		}
	}
	if p.TokenEvery != 0 && p.TokenEvery < time.Minute {
		errs = append(errs, fmt.Errorf("token_every: %s is shorter than a minute", p.TokenEvery))
	}
	if p.Identity == "" && (p.Audience != "" || p.TokenType != "" || len(p.Algorithms) > 0) {
		errs = append(errs, errors.New("identity: is missing; audience, token_type and algorithms are those of its token"))
	}
	if p.client, err = wire.New(env.Net, p.Settings); err != nil {
		errs = append(errs, err)
	}
	if p.Identity != "" {
		if p.who, err = env.as(p.Identity); err != nil {
			errs = append(errs, err)
		}
	}
	return p, errors.Join(errs...)
}

func (p *issuerProbe) About() About {
	return About{Endpoint: wire.ShowEndpoint(p.url), Origin: wire.Origin(p.url), Identity: p.Identity, Issuer: p.Issuer, Expected: "metadata and keys", Audience: p.Audience, Leeway: p.Leeway}
}

// A look is what one run sees.
type look struct {
	now      time.Time // local
	clock    trueTime
	report   *evidence.Report
	seen     *evidence.Issuer
	doc      issuerMetadata
	keys     []publishedKey
	cache    caching
	cached   bool                       // the key set came out of a cache on the way
	chains   map[string]*evidence.Chain // of servers that were asked, by host:port
	problems []problem
	fault    *evidence.Fault // of the token, where it is no matter of the issuer's documents
	token    *evidence.Token
	text     string // of the token; lives for one run
}

// note adds a problem.
func (l *look) note(code, format string, args ...any) {
	l.problems = append(l.problems, problem{code, evidence.Clean(fmt.Sprintf(format, args...), 640)})
}

func (p *issuerProbe) Run(ctx context.Context) (evidence.Report, error) {
	var report evidence.Report
	now := time.Now()
	l := &look{now: now, clock: p.env.trueTime(now), report: &report, seen: &evidence.Issuer{URL: p.Issuer}, chains: map[string]*evidence.Chain{}}
	report.Issuer = l.seen
	if p.memory == nil {
		p.memory = p.recall()
	}
	if err := p.discover(ctx, l); err != nil {
		return report, p.conclude(l, err)
	}
	p.compareMetadata(l)
	p.obtain(ctx, l) // before the keys: a key that a token is signed with must be published by then
	var err error
	if l.doc.JWKSURI != "" {
		if err = p.fetchKeys(ctx, l); err == nil {
			p.compareKeys(l)
			p.checkToken(ctx, l)
		}
	}
	p.visitEndpoints(ctx, l)
	if p.Resource != "" {
		p.askResource(ctx, l)
	}
	p.measure(l)
	p.remember()
	return report, p.conclude(l, err)
}

// conclude puts the problems into the report, and makes a fault of what weighs most.
func (p *issuerProbe) conclude(l *look, err error) error {
	slices.SortStableFunc(l.problems, func(a, b problem) int { return b.rank().weight - a.rank().weight })
	for _, pr := range l.problems {
		note := evidence.Note{Code: pr.code, Detail: pr.detail}
		if pr.rank().level == levelInfo {
			l.report.Notes = append(l.report.Notes, note)
			continue
		}
		l.seen.Problems = append(l.seen.Problems, note)
	}
	switch {
	case len(l.problems) > 0 && l.problems[0].code == "jwks_private_key": // worse than any outage
	case err != nil:
		return err
	}
	for _, pr := range l.problems {
		if pr.rank().level == levelFault {
			return pr.fault()
		}
	}
	if l.fault != nil {
		return l.fault
	}
	return nil
}

// A problem is something wrong with an issuer, by a closed word.
type problem struct{ code, detail string }

// Levels of problems: a fault fails the run, a warning wants attention, an info stands in the record.
const (
	levelInfo = iota
	levelWarn
	levelFault
)

type importance struct{ weight, level int }

// ranks are all problems that an issuer can have. Package diagnose knows the codes, too.
var ranks = map[string]importance{
	"jwks_private_key":        {100, levelFault}, // whoever reads it signs tokens
	"issuer_mismatch":         {95, levelFault},
	"metadata_unusable":       {94, levelFault},
	"insecure_endpoint":       {93, levelFault},
	"foreign_endpoint":        {92, levelFault},
	"endpoint_certificate":    {91, levelFault},
	"jwks_unreachable":        {90, levelFault},
	"jwks_unusable":           {89, levelFault},
	"token_unsigned":          {88, levelFault},
	"token_signature":         {87, levelFault},
	"key_missing":             {86, levelFault},
	"key_removed_early":       {85, levelFault},
	"token_issuer":            {84, levelFault},
	"token_type":              {83, levelFault},
	"token_algorithm":         {82, levelFault},
	"key_reused":              {80, levelFault},
	"key_duplicate":           {79, levelFault},
	"key_weak":                {78, levelFault},
	"jwks_stale":              {85, levelFault},
	"endpoint_unreachable":    {75, levelFault},
	"resource_mismatch":       {77, levelFault},
	"resource_unlisted":       {76, levelFault},
	"jwks_flapping":           {60, levelWarn},
	"algorithm_changed":       {59, levelWarn},
	"metadata_changed":        {58, levelWarn},
	"rotation_fast":           {57, levelWarn},
	"cache_long":              {56, levelWarn},
	"key_unusable":            {55, levelWarn},
	"key_nameless":            {54, levelWarn},
	"key_certificate":         {53, levelWarn},
	"lifetime_shrunk":         {52, levelWarn},
	"lifetime_disagreement":   {51, levelWarn},
	"cache_none":              {10, levelInfo},
	"key_unknown":             {9, levelInfo},
	"key_large":               {8, levelInfo},
	"key_sparse":              {7, levelInfo},
	"keys_many":               {6, levelInfo},
	"token_held":              {5, levelInfo},
	"token_opaque":            {4, levelInfo},
	"token_unverified":        {4, levelInfo},
	"metadata_without_tls":    {2, levelInfo},
	"memory_of_issuer_absent": {1, levelInfo},
}

func (p problem) rank() importance { return ranks[p.code] }

func (p problem) fault() *evidence.Fault {
	stage := evidence.StageDiscovery
	if strings.HasPrefix(p.code, "token_") {
		stage = evidence.StageToken
	}
	return &evidence.Fault{Stage: stage, Symptom: evidence.SymptomIssuer, Code: p.code, Err: errors.New(p.detail)}
}
