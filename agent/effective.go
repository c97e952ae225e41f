package agent

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes"
	"github.com/authvigil/authvigil/probes/identity"
)

// An EffectiveValue is one value that is in force, and where it comes from.
type EffectiveValue struct {
	Path   string `json:"path"`
	Value  string `json:"value"`
	Origin string `json:"origin"` // file:line:col, environment variable, or default
}

// Effective gives every value in force, in order of path. Secrets are references; what could be one is masked.
func (a *Agent) Effective() (list []EffectiveValue) {
	w := a.current.Load()
	c := w.config
	add := func(table, name string, settings any) {
		prefix := table
		if name != "" {
			prefix += sep + name
		}
		for _, f := range fieldsOf(reflect.ValueOf(settings).Elem()) {
			origin := "default"
			if at, ok := c.at[prefix+sep+f.name]; ok {
				origin = at.String()
			} else if f.value.IsZero() {
				continue
			}
			list = append(list, EffectiveValue{show(prefix + sep + f.name), shown(f), origin})
		}
	}
	add("agent", "", &c.Agent)
	add("alerts", "", &c.Alerts)
	add("defaults", "", &c.Defaults)
	for _, m := range w.maintenance {
		add("maintenance", m.name, &m.window)
	}
	for _, name := range sortedKeys(w.identities) {
		b := w.identities[name]
		add("identity", name, &named{b.kind})
		add("identity", name, b.settings)
	}
	for _, name := range sortedKeys(w.probes) {
		b := w.probes[name]
		add("probe", name, &b.common)
		add("probe", name, b.settings)
	}
	slices.SortStableFunc(list, func(a, b EffectiveValue) int { return strings.Compare(a.Path, b.Path) })
	return list
}

// shown writes a value as the file would, without what may be a secret: header values, bodies and parameters.
func shown(f field) string {
	switch v := f.value.Interface().(type) {
	case time.Duration:
		return v.String()
	case encoding.TextMarshaler:
		text, err := v.MarshalText()
		if err != nil {
			return secret.Mask
		}
		return fmt.Sprintf("%q", text)
	case string:
		if f.name == "body" && v != "" {
			return secret.Mask
		}
		return fmt.Sprintf("%q", secret.Scrub(v))
	case map[string]string:
		if f.name == "labels" {
			return fmt.Sprint(v)
		}
		return fmt.Sprintf("%v = %s", sortedKeys(v), secret.Mask)
	default:
		return secret.Scrub(fmt.Sprint(v))
	}
}

// Schema gives the JSON schema (draft 2020-12) of the configuration, made of the settings of all kinds.
func Schema() map[string]any {
	spy := func(build func(decode func(any) error)) (settings any) {
		build(func(into any) error { settings = into; return errDecoded })
		return settings
	}
	sections := func(common any, kinds []string, settings func(kind string) any) map[string]any {
		var branches []any
		for _, kind := range kinds {
			properties := properties(common)
			for name, p := range optional(settings(kind)) {
				properties[name] = p
			}
			properties["kind"] = map[string]any{"const": kind}
			branches = append(branches, map[string]any{"properties": properties, "required": []string{"kind"}, "additionalProperties": false})
		}
		return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "object", "oneOf": branches}}
	}
	table := func(settings any) map[string]any {
		return map[string]any{"type": "object", "properties": properties(settings), "additionalProperties": false}
	}
	identities := sections(&named{}, identity.Kinds(), func(kind string) any {
		return spy(func(decode func(any) error) {
			_, _ = identity.New(kind, decode, identity.Env{Jitter: func() float64 { return 0 }})
		})
	})
	probeKinds := sections(&probeCommon{}, probes.Kinds(), func(kind string) any {
		return spy(func(decode func(any) error) { _, _ = probes.New(kind, decode, probes.Env{}) })
	})
	sinkKinds := sections(&named{}, alert.Kinds(), func(kind string) any {
		return spy(func(decode func(any) error) { _, _ = alert.NewSink(kind, decode, alert.Env{}) })
	})
	c := newConfig("") // what holds where the file says nothing
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "authvigil configuration", "type": "object", "additionalProperties": false,
		"properties": map[string]any{"agent": table(&c.Agent), "alerts": table(&c.Alerts), "defaults": table(&c.Defaults), "identity": identities, "maintenance": map[string]any{"type": "object", "additionalProperties": table(&window{})}, "probe": probeKinds, "sink": sinkKinds},
	}
}

func optional(settings any) map[string]any {
	if settings == nil {
		return nil
	}
	return properties(settings)
}

func properties(settings any) map[string]any {
	m := map[string]any{}
	for _, f := range fieldsOf(reflect.ValueOf(settings).Elem()) {
		p := typeSchema(f.value)
		if f.help != "" {
			p["description"] = f.help
		}
		if !f.value.IsZero() {
			p["default"] = defaultOf(f.value)
		}
		m[f.name] = p
	}
	return m
}

// defaultOf is the value of a key that is not set, as the file would write it.
func defaultOf(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return shortDuration(x)
	case encoding.TextMarshaler:
		if text, err := x.MarshalText(); err == nil {
			return string(text)
		}
	}
	return v.Interface()
}

// shortDuration leaves out the minutes and seconds that are none: 1h and not 1h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func typeSchema(v reflect.Value) map[string]any {
	switch {
	case v.Type() == durationType:
		return map[string]any{"type": "string", "pattern": `^([0-9.]+(ns|us|µs|ms|s|m|h|d))+$`}
	case reflect.PointerTo(v.Type()).Implements(textType):
		return map[string]any{"type": "string"}
	}
	switch v.Kind() {
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeSchema(reflect.New(v.Type().Elem()).Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": typeSchema(reflect.New(v.Type().Elem()).Elem())}
	case reflect.Struct:
		return map[string]any{"type": "object", "properties": properties(v.Addr().Interface()), "additionalProperties": false}
	default:
		return map[string]any{"type": "string"}
	}
}

// DidYouMean finds the known word that is most like a misspelt one, as help for a message.
func DidYouMean(word string, known []string) string { return didYouMean(word, known) }
