package diagnose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A Record is evidence as people write it down, one JSON object a line. Only these fields are read; others, such as a
// label, are not evidence.
type Record struct {
	ID       string `json:"id"`
	Provider string `json:"provider"`
	Stage    string `json:"stage"` // token_endpoint, api_call, discovery, tls, network, introspection
	Request  struct {
		AuthScheme string `json:"auth_scheme"`
		Method     string `json:"method"`
		Path       string `json:"path"`
	} `json:"request"`
	Response *struct {
		Status  int             `json:"status"`
		Headers map[string]any  `json:"headers"`
		Body    json.RawMessage `json:"body"`
	} `json:"response"`
	TransportError string         `json:"transport_error"`
	TokenClaims    map[string]any `json:"token_claims"`
	ClockOffset    *float64       `json:"clock_offset_s"`
	History        []string       `json:"history"`
}

// ReadRecord reads one line. Fields it does not know are left alone; those it knows must have their type.
func ReadRecord(line []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			if wrong.Field == "" {
				return r, fmt.Errorf("is not a JSON object but a %s", wrong.Value)
			}
			return r, fmt.Errorf("%s: want %s, got %s", wrong.Field, wrong.Type.Kind(), wrong.Value)
		}
		return r, fmt.Errorf("is not a JSON object: %w", err)
	}
	return r, nil
}

// Case makes a case of the record, as seen at now.
func (r Record) Case(now time.Time) Case {
	c := Case{Now: now}
	s := &c.Sighting
	s.Scheme, s.History, s.Provider = r.Request.AuthScheme, r.History, r.Provider
	s.Endpoint = evidence.Clean(r.Request.Path, 256)
	stage := map[string]evidence.Stage{"token_endpoint": evidence.StageToken, "api_call": evidence.StageAPI, "discovery": evidence.StageDiscovery, "tls": evidence.StageTLS, "network": evidence.StageConnect, "introspection": evidence.StageDiscovery}[r.Stage]
	if stage == "" {
		stage = evidence.StageAPI
	}
	x := evidence.Exchange{Stage: stage, Method: r.Request.Method, URL: evidence.Clean(r.Request.Path, 256), Scheme: r.Request.AuthScheme}
	s.Fault = &evidence.Fault{Stage: stage, Symptom: evidence.SymptomUnknown}
	if r.Response != nil {
		x.Status, x.Body, x.Header = r.Response.Status, bodyText(r.Response.Body), headerOf(r.Response.Headers)
	}
	if r.TransportError != "" {
		x.Fault = &evidence.Fault{Stage: stage, Symptom: evidence.SymptomUnknown, Err: errors.New(evidence.Clean(r.TransportError, 2048))}
	}
	s.Report.Exchanges = []evidence.Exchange{x}
	if len(r.TokenClaims) > 0 {
		s.Report.Token = tokenOf(r.TokenClaims, now)
	}
	if r.ClockOffset != nil {
		c.World.Clock = &evidence.Clock{Skew: time.Duration(*r.ClockOffset * float64(time.Second)), Confidence: evidence.Confident, Measured: now}
	}
	return c
}

// bodyText takes a body as a text, or as the document itself.
func bodyText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return evidence.Clean(text, 8192)
	}
	if string(raw) == "null" {
		return ""
	}
	return evidence.Clean(string(raw), 8192)
}

func headerOf(m map[string]any) map[string][]string {
	h := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		key := canonical(name)
		switch v := m[name].(type) {
		case string:
			h[key] = append(h[key], evidence.Clean(v, 2048))
		case []any:
			for _, e := range v {
				h[key] = append(h[key], evidence.Clean(fmt.Sprint(e), 2048))
			}
		default:
			h[key] = append(h[key], evidence.Clean(fmt.Sprint(v), 2048))
		}
	}
	return h
}

// canonical writes the name of a header field as Go does: Www-Authenticate. net/textproto would bring the network along.
func canonical(name string) string {
	upper := true
	b := []byte(strings.TrimSpace(name))
	for i, c := range b {
		switch {
		case upper && c >= 'a' && c <= 'z':
			b[i] = c - 32
		case !upper && c >= 'A' && c <= 'Z':
			b[i] = c + 32
		}
		upper = c == '-'
	}
	return string(b)
}

// tokenOf reads claims; times may be relative to the moment of the call: exp_in_s, nbf_in_s, iat_in_s.
func tokenOf(claims map[string]any, now time.Time) *evidence.Token {
	t := &evidence.Token{Name: "access", Format: "jwt"}
	at := func(name string) time.Time {
		n, ok := claims[name+"_in_s"].(json.Number)
		seconds, err := n.Float64()
		if !ok || err != nil {
			return time.Time{}
		}
		if seconds > 1e11 || seconds < -1e11 {
			t.Problems = append(t.Problems, name+" is given in another unit than seconds")
			return time.Time{}
		}
		return now.Add(time.Duration(seconds * float64(time.Second)))
	}
	t.Expiry, t.NotBefore, t.Issued = at("exp"), at("nbf"), at("iat")
	if n, ok := claims["exp"].(json.Number); ok {
		if v, err := n.Float64(); err == nil && v > 1e11 {
			t.Problems = append(t.Problems, "exp is given in milliseconds")
		}
	}
	t.Issuer, _ = claims["iss"].(string)
	t.Alg, _ = claims["alg"].(string)
	switch aud := claims["aud"].(type) {
	case string:
		t.Audience = []string{aud}
	case []any:
		for _, a := range aud {
			t.Audience = append(t.Audience, fmt.Sprint(a))
		}
	}
	for _, name := range []string{"scope", "scp", "roles", "permissions"} {
		switch v := claims[name].(type) {
		case string:
			t.Scopes = append(t.Scopes, strings.Fields(v)...)
		case []any:
			for _, s := range v {
				t.Scopes = append(t.Scopes, fmt.Sprint(s))
			}
		}
	}
	return t
}
