package probes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Leeway is how much the clocks of who issues tokens and who verifies them may differ, as the verifier sees it.
type Leeway struct {
	Expiry, NotBefore, Issued time.Duration // negative: the claim is not looked at
}

const unchecked = -1

// validators are what known verifiers grant unless they are configured otherwise: exp, nbf, iat. Each was read in its source
// or its documentation (docs/leeways.md).
var validators = map[string]Leeway{
	"golang-jwt":        {0, 0, unchecked},
	"jwx":               {0, 0, 0},
	"go-jose":           {time.Minute, time.Minute, time.Minute},
	"go-oidc":           {0, 5 * time.Minute, unchecked},
	"jjwt":              {0, 0, unchecked},
	"java-jwt":          {0, 0, 0},
	"jsonwebtoken":      {0, 0, unchecked},
	"jose":              {0, 0, unchecked},
	"pyjwt":             {0, 0, 0},
	"rust-jsonwebtoken": {time.Minute, unchecked, unchecked},
	"spring":            {time.Minute, time.Minute, unchecked},
	"microsoft":         {5 * time.Minute, 5 * time.Minute, unchecked},
	"envoy":             {time.Minute, time.Minute, unchecked},
	"istio":             {time.Minute, time.Minute, unchecked},
	"kong":              {0, 0, unchecked},
	"vault":             {210 * time.Second, 210 * time.Second, time.Minute},
	"okta":              {2 * time.Minute, unchecked, 2 * time.Minute},
	"kubernetes":        {time.Minute, time.Minute, time.Minute},
	"fosite":            {0, 0, 0},
}

// leewaySettings are the keys of kinds whose endpoint verifies tokens.
type leewaySettings struct {
	Leeway    *time.Duration `koanf:"leeway" help:"clock leeway of the endpoint's validator, such as 60s or 0s; default: that of validator"`
	Validator string         `koanf:"validator" help:"what verifies tokens at the endpoint, for its documented leeway: golang-jwt, jwx, go-jose, go-oidc, jjwt, java-jwt, jsonwebtoken, jose, pyjwt, rust-jsonwebtoken, spring, microsoft, envoy, istio, kong, vault, okta, kubernetes or fosite; default: unknown"`
}

// leeway gives what is known of the validator; nil: nothing.
func (s leewaySettings) leeway() (*Leeway, error) {
	var l *Leeway
	if s.Validator != "" {
		known, ok := validators[s.Validator]
		if !ok {
			return nil, fmt.Errorf("validator: %q is not known; there are %s, or give leeway", s.Validator, strings.Join(slices.Sorted(maps.Keys(validators)), ", "))
		}
		l = &known
	}
	if s.Leeway == nil {
		return l, nil
	}
	if *s.Leeway < 0 {
		return nil, fmt.Errorf("leeway: is below zero")
	}
	if l == nil {
		return &Leeway{*s.Leeway, *s.Leeway, *s.Leeway}, nil
	}
	for _, d := range []*time.Duration{&l.Expiry, &l.NotBefore, &l.Issued} {
		if *d != unchecked {
			*d = *s.Leeway
		}
	}
	return l, nil
}
