package agent

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// A keyError is something wrong with one key, before its place in a file is known.
type keyError struct {
	path []string // inside the section
	what string
	help string
}

// Settings structs name their keys by the tag koanf ("name", or ",squash" for a struct whose keys stand beside the
// others), and explain them by the tag help. The value of a field before decoding is the default.

// A field is one key of a settings struct.
type field struct {
	name  string
	help  string
	value reflect.Value
}

// fieldsOf lists the keys of a settings struct, those of squashed structs included.
func fieldsOf(v reflect.Value) (list []field) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("koanf"), ",")
		switch {
		case options == "squash":
			list = append(list, fieldsOf(v.Field(i))...)
		case name != "" && name != "-" && f.IsExported():
			list = append(list, field{name, f.Tag.Get("help"), v.Field(i)})
		}
	}
	return list
}

// envText is a value from the environment: what it is depends on the key it is for.
type envText string

// decodeStruct fills a settings struct from a table, strictly: unknown keys and values of another type are errors, all of
// which are reported, and a duration is text with a unit.
func decodeStruct(raw map[string]any, into reflect.Value, ignore []string, path []string) (errs []keyError) {
	known := map[string]reflect.Value{}
	var names []string
	for _, f := range fieldsOf(into) {
		known[f.name] = f.value
		names = append(names, f.name)
	}
	for _, key := range sortedKeys(raw) {
		if slices.Contains(ignore, key) {
			continue
		}
		at := append(slices.Clone(path), key)
		target, ok := known[key]
		if !ok {
			errs = append(errs, keyError{at, fmt.Sprintf("unknown key %q", key), didYouMean(key, append(names, ignore...))})
			continue
		}
		errs = append(errs, decodeValue(raw[key], target, at)...)
	}
	return errs
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func decodeValue(raw any, into reflect.Value, path []string) []keyError {
	wrong := func(want, help string) []keyError {
		return []keyError{{path, fmt.Sprintf("%s: want %s, got %s", path[len(path)-1], want, describe(raw)), help}}
	}
	if text, ok := raw.(envText); ok {
		raw = fromEnv(string(text), into)
	}
	switch {
	case into.Type() == durationType:
		text, ok := raw.(string)
		if !ok {
			return wrong("a duration as text with a unit", fmt.Sprintf("write it with its unit in quotes, such as \"%vs\"", raw))
		}
		d, err := parseDuration(text)
		if err != nil {
			return []keyError{{path, fmt.Sprintf("%s: %v", path[len(path)-1], err), "units are ms, s, m, h and d, such as \"90s\" or \"1h30m\""}}
		}
		into.SetInt(int64(d))
		return nil
	case into.Addr().Type().Implements(textType):
		if date, isDate := raw.(encoding.TextMarshaler); isDate { // a date of TOML, which stands without quotes
			if b, err := date.MarshalText(); err == nil {
				raw = string(b)
			}
		}
		text, ok := raw.(string)
		if !ok {
			return wrong("text", "")
		}
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil && into.Type() == timeType {
			return []keyError{{path, fmt.Sprintf("%s: want a moment with its zone, got %q", path[len(path)-1], text), "such as 2026-01-31T22:00:00Z or 2026-01-31T22:00:00+01:00"}}
		}
		if err := into.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return []keyError{{path, fmt.Sprintf("%s: %v", path[len(path)-1], err), ""}}
		}
		return nil
	}
	switch into.Kind() {
	case reflect.String:
		text, ok := raw.(string)
		if !ok {
			return wrong("text", "put it in quotes")
		}
		into.SetString(text)
	case reflect.Bool:
		b, ok := raw.(bool)
		if !ok {
			return wrong("true or false", "")
		}
		into.SetBool(b)
	case reflect.Int, reflect.Int64, reflect.Int32:
		n, ok := raw.(int64)
		if !ok || into.OverflowInt(n) {
			return wrong("a whole number", "")
		}
		into.SetInt(n)
	case reflect.Float64:
		switch n := raw.(type) {
		case float64:
			if math.IsNaN(n) || math.IsInf(n, 0) {
				return wrong("a number", "")
			}
			into.SetFloat(n)
		case int64:
			into.SetFloat(float64(n))
		default:
			return wrong("a number", "")
		}
	case reflect.Slice:
		return decodeSlice(raw, into, path)
	case reflect.Map:
		return decodeMap(raw, into, path)
	case reflect.Struct:
		table, ok := raw.(map[string]any)
		if !ok {
			return wrong("a table", "")
		}
		return decodeStruct(table, into, nil, path)
	case reflect.Pointer:
		into.Set(reflect.New(into.Type().Elem()))
		return decodeValue(raw, into.Elem(), path)
	default:
		return wrong("something else", "")
	}
	return nil
}

func decodeSlice(raw any, into reflect.Value, path []string) (errs []keyError) {
	list, ok := raw.([]any)
	if !ok {
		return []keyError{{path, fmt.Sprintf("%s: want a list, got %s", path[len(path)-1], describe(raw)), "put it in brackets"}}
	}
	out := reflect.MakeSlice(into.Type(), len(list), len(list))
	for i, element := range list {
		errs = append(errs, decodeValue(element, out.Index(i), path)...)
	}
	into.Set(out)
	return errs
}

func decodeMap(raw any, into reflect.Value, path []string) (errs []keyError) {
	table, ok := raw.(map[string]any)
	if !ok {
		return []keyError{{path, fmt.Sprintf("%s: want a table, got %s", path[len(path)-1], describe(raw)), "write { key = \"value\" }"}}
	}
	out := reflect.MakeMapWithSize(into.Type(), len(table))
	for _, key := range sortedKeys(table) {
		v := reflect.New(into.Type().Elem()).Elem()
		errs = append(errs, decodeValue(table[key], v, append(slices.Clone(path), key))...)
		out.SetMapIndex(reflect.ValueOf(key), v)
	}
	into.Set(out)
	return errs
}

// parseDuration reads a duration with units; a number of days may stand first, because secrets are rotated in days.
func parseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration", text)
	rest, days := text, time.Duration(0)
	if number, after, found := strings.Cut(text, "d"); found {
		var n float64
		if _, err := fmt.Sscanf(number+" ", "%f ", &n); err != nil || n < 0 || n > 36500 || strings.Trim(number, "0123456789.") != "" {
			return 0, bad
		}
		days, rest = time.Duration(n*24*float64(time.Hour)), after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, bad
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative", text)
	}
	return days + d, nil
}

// fromEnv reads the text of an environment variable as what the key wants: as it is for text, else as a TOML value.
func fromEnv(text string, into reflect.Value) any {
	if into.Kind() == reflect.String || into.Type() == durationType || into.Addr().Type().Implements(textType) {
		return text
	}
	var v struct{ X any }
	if err := toml.Unmarshal([]byte("X = "+text), &v); err != nil {
		return text
	}
	return v.X
}

// describe says what a value is without repeating it: it may be a secret in the wrong place.
func describe(raw any) string {
	switch v := raw.(type) {
	case string, envText:
		return "text"
	case bool:
		return fmt.Sprint(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date"
	}
}

// didYouMean finds the known word that is most like a misspelt one, as help; empty when none is near.
func didYouMean(word string, known []string) string {
	best, distance := "", 1+max(1, len(word)/3)
	for _, k := range known {
		if d := editDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	slices.Sort(known)
	return "known here: " + strings.Join(slices.Compact(known), ", ")
}

// editDistance counts the letters to insert, delete, replace or swap with their neighbour to make b of a.
func editDistance(a, b string) int {
	two, one, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(one[j]+1, row[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], two[j-2]+1)
			}
		}
		two, one, row = one, row, two
	}
	return one[len(b)]
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
