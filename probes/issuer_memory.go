package probes

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

const (
	changeTold   = 24 * time.Hour      // how long a change is told of
	keyRemember  = 30 * 24 * time.Hour // how long a key that is gone is remembered
	mostRemember = 256                 // keys that are remembered
	mostLives    = 20                  // lives of tokens that are remembered
	flapWithin   = time.Hour           // a key that is back so soon was never gone: another server answered
)

// An issuerMemory is what was seen of an issuer before. It outlives restarts.
type issuerMemory struct {
	Issuer    string // that was looked at; another one is another story
	Since     time.Time
	Fields    map[string]string         // of the metadata, as last seen
	Changes   []fieldChange             // recent ones
	Keys      map[string]*rememberedKey // by thumbprint
	KeyChange time.Time                 // when the set was last seen to change
	Flaps     []time.Time               // keys that were gone and came back at once
	Alg       string                    // of the tokens
	AlgBefore string
	AlgChange time.Time
	Lives     []float64 // of tokens, in seconds, the newest last
	Token     time.Time // iat of the newest token

	dirty   bool
	missing bool // what was kept cannot be read
}

type fieldChange struct {
	Field, From, To string
	At              time.Time
}

type rememberedKey struct {
	Kid   string
	Type  string    // empty: it cannot be used
	First time.Time // seen; zero: it was there when we first looked
	Last  time.Time
	Gone  time.Time // first seen missing; zero: published
	Used  time.Time // a token was first seen to be signed with it
	Until time.Time // end of the last token that was
}

// recall reads what was kept, or begins anew.
func (p *issuerProbe) recall() *issuerMemory {
	m := &issuerMemory{}
	if p.env.Store != nil {
		b, err := p.env.Store.Load("issuer/" + p.env.Name)
		if len(b) > 0 && json.Unmarshal(b, m) != nil || len(b) == 0 && err != nil {
			*m = issuerMemory{missing: true}
		}
	}
	if m.Issuer != p.Issuer {
		*m = issuerMemory{Issuer: p.Issuer, missing: m.missing}
	}
	if m.Keys == nil {
		m.Keys = map[string]*rememberedKey{}
	}
	return m
}

// remember keeps what was seen. That it cannot be kept is told, and fails nothing.
func (p *issuerProbe) remember() {
	m := p.memory
	if p.env.Store == nil || !m.dirty {
		return
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = p.env.Store.Save("issuer/"+p.env.Name, b)
	}
	if err != nil && p.env.Log != nil {
		p.env.Log.Warn("what was seen of the issuer is not on disk; after a restart its changes are not noticed", "error", err)
		return
	}
	m.dirty = false
}

// compareMetadata finds the fields that are not as they were, and tells of them for a day.
func (p *issuerProbe) compareMetadata(l *look) {
	m := p.memory
	if m.missing {
		l.note("memory_of_issuer_absent", "what was seen of the issuer before cannot be read; changes since are not noticed")
		m.missing = false
	}
	if m.Since.IsZero() {
		m.Since, m.dirty = l.now.Round(0), true
	}
	now := l.doc.Fields
	if m.Fields != nil {
		names := slices.Sorted(maps.Keys(m.Fields))
		for name := range now {
			if _, known := m.Fields[name]; !known {
				names = append(names, name)
			}
		}
		for _, name := range names {
			if from, to := m.Fields[name], now[name]; from != to {
				m.Changes = append(m.Changes, fieldChange{name, from, to, l.now.Round(0)})
				l.seen.Changes = append(l.seen.Changes, evidence.Change{What: "issuer_metadata", From: name + " " + from, To: name + " " + to, At: l.now})
				l.report.Readings = append(l.report.Readings, evidence.Reading{Metric: issuerFieldChanges, Labels: []string{name}, Value: 1})
			}
		}
	}
	if !maps.Equal(m.Fields, now) {
		m.Fields, m.dirty = now, true
	}
	m.Changes = slices.DeleteFunc(m.Changes, func(c fieldChange) bool { return l.now.Sub(c.At) > changeTold })
	m.Changes = m.Changes[max(0, len(m.Changes)-len(comparedFields)):]
	var told []string
	for _, c := range m.Changes {
		if now[c.Field] == c.To { // it is still so
			told = append(told, fmt.Sprintf("%s changed at %s, from %s to %s", c.Field, c.At.UTC().Format(time.RFC3339), shownField(c.From), shownField(c.To)))
		}
	}
	if len(told) > 0 {
		l.note("metadata_changed", "the metadata are not what they were: %s", strings.Join(told, "; "))
	}
}

func shownField(s string) string {
	if s == "" {
		return "nothing"
	}
	return fmt.Sprintf("%q", evidence.Clean(s, 96))
}

// compareKeys finds the keys that are new, gone, or not what their name was.
func (p *issuerProbe) compareKeys(l *look) {
	m := p.memory
	first := len(m.Keys) == 0
	published, now := map[string]bool{}, l.now.Round(0)
	changed := false
	for _, k := range l.keys {
		published[k.thumb] = true
		was := m.Keys[k.thumb]
		switch {
		case was == nil:
			was = &rememberedKey{Kid: k.Kid}
			if k.Problem == "" {
				was.Type = k.Type
			}
			if !first {
				was.First, changed = now, true
				l.seen.Changes = append(l.seen.Changes, evidence.Change{What: "jwks", To: k.Kid, At: l.now})
			}
			m.Keys[k.thumb] = was
		case !was.Gone.IsZero():
			if now.Sub(was.Gone) < flapWithin {
				m.Flaps = append(m.Flaps, now)
			}
			was.Gone, changed = time.Time{}, true
			l.seen.Changes = append(l.seen.Changes, evidence.Change{What: "jwks", To: k.Kid, At: l.now})
		}
		if now.Sub(was.Last) > time.Minute {
			m.dirty = m.dirty || now.Sub(was.Last) > time.Hour
			was.Last = now
		}
	}
	for thumb, was := range m.Keys {
		switch {
		case published[thumb]:
		case was.Gone.IsZero():
			was.Gone, changed = now, true
			l.seen.Changes = append(l.seen.Changes, evidence.Change{What: "jwks", From: was.Kid, At: l.now})
		case now.Sub(was.Gone) > keyRemember || len(m.Keys) > mostRemember:
			delete(m.Keys, thumb)
		}
	}
	if changed {
		m.KeyChange, m.dirty = now, true
		l.report.Readings = append(l.report.Readings, evidence.Reading{Metric: issuerKeyChanges, Value: 1})
	}
	p.judgeKeyHistory(l, published)
}

// judgeKeyHistory tells of names that were given anew, keys that went too early, and servers that disagree.
func (p *issuerProbe) judgeKeyHistory(l *look, published map[string]bool) {
	m, now := p.memory, l.now
	m.Flaps = slices.DeleteFunc(m.Flaps, func(at time.Time) bool { return now.Sub(at) > changeTold })
	m.Flaps = m.Flaps[max(0, len(m.Flaps)-mostRemember):]
	if len(m.Flaps) > 1 {
		l.note("jwks_flapping", "keys were gone and back %d times in the last day: servers of the issuer publish different key sets", len(m.Flaps))
	}
	at := l.clock.at()
	for _, thumb := range slices.Sorted(maps.Keys(m.Keys)) {
		was := m.Keys[thumb]
		if published[thumb] || was.Gone.IsZero() {
			continue
		}
		reused := slices.ContainsFunc(l.keys, func(k publishedKey) bool {
			return k.Kid != "" && k.Kid == was.Kid && k.Problem == "" && k.Type == was.Type
		})
		switch {
		case reused && now.Sub(was.Gone) < changeTold:
			l.note("key_reused", "kid %q names another key than before %s: verifiers that kept the old one refuse good tokens", was.Kid, was.Gone.UTC().Format(time.RFC3339))
		case was.Until.After(at.Add(p.Leeway)):
			l.note("key_removed_early", "key %q was withdrawn at %s, and tokens that it signed are valid for %s more", was.Kid, was.Gone.UTC().Format(time.RFC3339), evidence.Span(was.Until.Sub(at)))
		}
	}
}
