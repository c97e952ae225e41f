package diagnose

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// A told is the evidence of a case in testdata/cases: a story, what was seen, and the finding that must come of it. Moments are given as
// distance from noon.
type told struct {
	Probe, Kind, Endpoint, Origin, Identity, Issuer, Scheme string
	Stage                                                   evidence.Stage
	Symptom                                                 evidence.Symptom
	Code, Error                                             string
	Asked                                                   []struct {
		Purpose evidence.Purpose
		Stage   evidence.Stage
		Scheme  string
		Status  int
		Header  map[string][]string
		Body    string
	}
	Token *struct {
		Kid, Issuer                string
		Audience, Scopes, Problems []string
		Issued, NotBefore, Expiry  string
		ExpiresIn                  string `json:"expires_in"`
		Signature                  evidence.Signature
	}
	Clock *struct {
		Skew       string
		Confidence evidence.Confidence
	}
	Certificate *struct {
		NotBefore string `json:"not_before"`
		NotAfter  string `json:"not_after"`
	}
	Facets         []evidence.Facet
	Keys           []string
	RequiredScopes []string `json:"required_scopes"`
	Audience       string
	LastOK         string `json:"last_ok"`
	Failing        string
	InARow         int `json:"in_a_row"`
	Changes        []struct{ What, From, To, At string }
	SameOrigin     Tally `json:"same_origin"`
	SameIssuer     Tally `json:"same_issuer"`
	Everywhere     Tally
}

func (e *told) diagnosed(t *testing.T) Case {
	span := func(text string) time.Duration {
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	at := func(text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		return noon.Add(span(text))
	}
	c := Case{Now: noon, World: World{SameOrigin: e.SameOrigin, SameIssuer: e.SameIssuer, Everywhere: e.Everywhere}}
	s := &c.Sighting
	s.Probe, s.Kind, s.Endpoint, s.Origin, s.Identity, s.Issuer, s.Scheme = e.Probe, e.Kind, e.Endpoint, e.Origin, e.Identity, e.Issuer, e.Scheme
	s.RequiredScopes, s.Audience = e.RequiredScopes, e.Audience
	s.LastOK, s.Failing, s.InARow = at(e.LastOK), at(e.Failing), e.InARow
	stage := e.Stage
	if stage == "" {
		stage = evidence.StageAPI
	}
	if e.Error == "" {
		e.Error = "refused"
	}
	s.Fault = &evidence.Fault{Stage: stage, Symptom: e.Symptom, Code: e.Code, Err: errors.New(e.Error)}
	for _, a := range e.Asked {
		x := evidence.Exchange{Purpose: a.Purpose, Stage: a.Stage, Scheme: a.Scheme, Method: "GET", URL: "https://" + e.Endpoint, Status: a.Status, Header: a.Header, Body: a.Body}
		if x.Stage == "" {
			x.Stage = stage
		}
		if x.Scheme == "" {
			x.Scheme = e.Scheme
		}
		s.Report.Exchanges = append(s.Report.Exchanges, x)
	}
	if len(e.Asked) == 0 { // no answer came
		s.Report.Exchanges = []evidence.Exchange{{Stage: stage, Method: "GET", URL: "https://" + e.Endpoint, Scheme: e.Scheme, Fault: s.Fault}}
	}
	if k := e.Token; k != nil {
		s.Report.Token = &evidence.Token{Format: "jwt", Kid: k.Kid, Issuer: k.Issuer, Audience: k.Audience, Scopes: k.Scopes, Problems: k.Problems, Signature: k.Signature,
			Issued: at(k.Issued), NotBefore: at(k.NotBefore), Expiry: at(k.Expiry), ExpiresIn: span(k.ExpiresIn)}
	}
	if e.Clock != nil {
		c.World.Clock = &evidence.Clock{Skew: span(e.Clock.Skew), Confidence: e.Clock.Confidence}
	}
	if len(e.Facets) > 0 {
		s.Report.Chain = &evidence.Chain{Facets: e.Facets}
		if k := e.Certificate; k != nil {
			s.Report.Chain.Certificates = []evidence.Certificate{{Role: "leaf", NotBefore: at(k.NotBefore), NotAfter: at(k.NotAfter)}}
		}
	}
	if len(e.Keys) > 0 {
		c.World.IssuerKeys = &evidence.Issuer{URL: e.Issuer}
		for _, kid := range e.Keys {
			c.World.IssuerKeys.Keys = append(c.World.IssuerKeys.Keys, evidence.Key{Kid: kid})
		}
	}
	for _, k := range e.Changes {
		s.Changes = append(s.Changes, evidence.Change{What: k.What, From: k.From, To: k.To, At: at(k.At)})
	}
	return c
}

// TestCases tells each story and asks for its end.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d cases, %v", len(files), err)
	}
	var causesTold []Cause
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			story, rest, found := strings.Cut(string(data), "\n-- evidence.json --\n")
			text, want, found2 := strings.Cut(rest, "\n-- want --\n")
			if !found || !found2 || len(strings.Fields(story)) < 3 {
				t.Fatal("is not a story, evidence.json and want")
			}
			var e told
			d := json.NewDecoder(bytes.NewReader([]byte(text)))
			d.DisallowUnknownFields()
			if err := d.Decode(&e); err != nil {
				t.Fatal(err)
			}
			findings := Explain(e.diagnosed(t))
			if len(findings) == 0 {
				t.Fatal("no finding")
			}
			f := findings[0]
			for line := range strings.Lines(want) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				ok := false
				switch key {
				case "cause":
					ok = string(f.Cause) == value
					causesTold = append(causesTold, f.Cause)
				case "culprit":
					ok = f.Culprit == value
				case "sure":
					ok = string(f.Sure) == value
				case "because":
					ok = strings.Contains(strings.Join(f.Because, "\n"), value)
				}
				if !ok {
					t.Errorf("want %s %q, got %s of %s (%s): %q", key, value, f.Cause, f.Culprit, f.Sure, f.Because)
				}
			}
		})
	}
	slices.Sort(causesTold)
	t.Logf("%d cases, %d causes", len(files), len(slices.Compact(causesTold)))
}
