// Package secret is where secrets are kept, and holds the value that cannot be printed.
//
// The configuration names secrets by reference (a [Ref]: scheme and place); the text is read when it is used, so that a
// rotation is seen, and lives in a [Value], whose text no formatting verb, logger or encoder shows. [Value.Expose] is
// the only way to it; searching for Expose finds every use. [Scrub] is the second line of defence: it removes every text
// that was ever exposed from what is about to be shown.
package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"
)

// Mask is what is shown in place of a secret.
const Mask = "[secret]"

// maxBytes is the largest secret that is read; a token of 20 KiB and a key file with its chain fit.
const maxBytes = 64 << 10

// A Value holds the text of a secret. The zero Value is empty. The text sits behind a pointer, because methods are not
// called for unexported fields that are printed by reflection.
type Value struct{ text *string }

// New makes a Value and remembers its text for [Scrub].
func New(text string) Value {
	Remember(text)
	return Value{&text}
}

// Expose gives the text.
func (v Value) Expose() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// IsZero says whether there is no secret, or an empty one.
func (v Value) IsZero() bool { return v.text == nil || *v.text == "" }

func (v Value) String() string               { return Mask }
func (v Value) GoString() string             { return Mask }
func (v Value) Format(f fmt.State, _ rune)   { fmt.Fprint(f, Mask) }
func (v Value) LogValue() slog.Value         { return slog.StringValue(Mask) }
func (v Value) MarshalText() ([]byte, error) { return []byte(Mask), nil }
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + Mask + `"`), nil }

// ErrNotFound means that the place a reference names holds nothing; the operator must put a secret there.
var ErrNotFound = errors.New("no secret there")

// A Source reads a secret from the place that a reference names. Reveal may be called concurrently; it reads at each
// call what is there now, or returns a cached value no older than the source's documentation says.
type Source interface {
	Reveal(ctx context.Context) (Value, error)
}

// An Aged source knows when its secret was last changed: a file's modification time, a version's creation time.
type Aged interface {
	Changed(ctx context.Context) (time.Time, error)
}

// sources is the table of schemes: what stands before the first colon of a reference.
var sources map[string]func(place string) (Source, error)

func init() { // because vault looks up references of its own
	sources = map[string]func(place string) (Source, error){
		"aws-sm":     newAWS,
		"credential": newCredential,
		"env":        newEnv,
		"exec":       newExec,
		"file":       newFile,
		"plain":      newPlain,
		"vault":      newVault,
	}
}

// Schemes lists the schemes a reference may have, sorted.
func Schemes() []string {
	var s []string
	for scheme := range sources {
		s = append(s, scheme)
	}
	slices.Sort(s)
	return s
}

// A Ref names the place of a secret. The zero Ref names nothing. It can be shown: a plain reference is masked.
type Ref struct {
	scheme, place string
	source        Source
}

// Parse reads a reference: a scheme, a colon, and a place, such as "file:/etc/authvigil/billing.secret". It does no I/O.
func Parse(text string) (Ref, error) {
	scheme, place, found := strings.Cut(text, ":")
	build, known := sources[scheme]
	if !found || !known {
		return Ref{}, fmt.Errorf("a secret is given by reference: one of %s: and a place (a literal needs plain:)", strings.Join(Schemes(), ":, "))
	}
	if place == "" {
		return Ref{}, fmt.Errorf("%s: names no place", scheme)
	}
	source, err := build(place)
	if err != nil {
		return Ref{}, fmt.Errorf("%s: %w", scheme, err)
	}
	if scheme == "plain" {
		place = Mask // a literal stays inside its Value, or reflection would print it
	}
	if shy, ok := source.(interface{ shown() string }); ok {
		place = shy.shown()
	}
	return Ref{scheme, place, source}, nil
}

// UnmarshalText reads a reference, see [Parse].
func (r *Ref) UnmarshalText(text []byte) (err error) {
	*r, err = Parse(string(text))
	return err
}

// IsZero says whether the reference names nothing.
func (r Ref) IsZero() bool { return r.source == nil }

// Local says whether reading the secret is a matter of this machine alone, and costs nothing.
func (r Ref) Local() bool {
	switch r.scheme {
	case "credential", "env", "file", "plain":
		return true
	}
	return false
}

// Scheme is what stands before the colon.
func (r Ref) Scheme() string { return r.scheme }

// String shows the reference, never the secret.
func (r Ref) String() string {
	if r.scheme == "" {
		return ""
	}
	return r.scheme + ":" + r.place
}

// MarshalText shows the reference, never the secret.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// GoString shows the reference, never the secret.
func (r Ref) GoString() string { return r.String() }

// Format shows the reference, never the secret, for every verb.
func (r Ref) Format(f fmt.State, _ rune) { fmt.Fprint(f, r.String()) }

// LogValue shows the reference, never the secret.
func (r Ref) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Reveal reads the secret. The error names the reference and never holds the text.
func (r Ref) Reveal(ctx context.Context) (Value, error) {
	if r.source == nil {
		return Value{}, fmt.Errorf("no secret is configured: %w", ErrNotFound)
	}
	v, err := r.source.Reveal(ctx)
	if err != nil {
		return Value{}, fmt.Errorf("%s: %w", r, err)
	}
	return v, nil
}

// Changed says when the secret was last changed, where its source knows.
func (r Ref) Changed(ctx context.Context) (time.Time, bool) {
	if aged, ok := r.source.(Aged); ok {
		at, err := aged.Changed(ctx)
		return at, err == nil && !at.IsZero()
	}
	return time.Time{}, false
}

// text makes a Value of what a source read: the line break that editors put at the end is not part of the secret, and
// a line break inside is refused, because no header can carry it; multi-line secrets (keys in PEM) are recognised.
func text(b []byte) (Value, error) {
	if len(b) > maxBytes {
		return Value{}, fmt.Errorf("longer than %d bytes", maxBytes)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case s == "":
		return Value{}, fmt.Errorf("is empty: %w", ErrNotFound)
	case strings.ContainsAny(s, "\r\n") && !strings.HasPrefix(strings.TrimSpace(s), "-----BEGIN") && !strings.HasPrefix(strings.TrimSpace(s), "{"):
		return Value{}, errors.New("holds a line break inside; it was probably wrapped when it was copied")
	}
	return New(s), nil
}

type env string

func newEnv(place string) (Source, error) { return env(place), nil }

func (e env) Reveal(context.Context) (Value, error) {
	v, ok := os.LookupEnv(string(e))
	if !ok {
		return Value{}, fmt.Errorf("the environment has no variable of this name: %w", ErrNotFound)
	}
	return text([]byte(v))
}

type plain struct{ value Value }

func newPlain(place string) (Source, error) { return plain{New(place)}, nil }

func (p plain) Reveal(context.Context) (Value, error) { return p.value, nil }
