package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// credentialKeys are what an operator knows of a secret and no server tells.
type credentialKeys struct {
	RotateEvery time.Duration `koanf:"rotate_every" help:"age at which the secret should have been replaced, such as 90d"`
	Expires     Moment        `koanf:"expires" help:"when the secret ends, where nothing else tells, such as 2027-03-31; a day ends at midnight UTC"`
	Pattern     Pattern       `koanf:"pattern" help:"regular expression that the secret matches from its first character on, such as sk_live_; a secret that does not belongs to another environment"`

	origin      string     // key of the secret, for labels
	ref         secret.Ref // the secret
	environment string     // that it is used in
}

// of says which secret the keys are about.
func (k *credentialKeys) of(origin string, ref secret.Ref, env Env) {
	k.origin, k.ref, k.environment = origin, ref, env.Environment
}

// what names the secret in sentences.
func (k *credentialKeys) what() string { return "the " + strings.ReplaceAll(k.origin, "_", " ") }

// about gives what can be said of the secret without asking anybody: how old it is, when it ends, what is wrong with its
// form, and whether it belongs to another environment. v is its text; zero: its form is not looked at.
func (k *credentialKeys) about(ctx context.Context, v secret.Value) (readings []evidence.Reading, notes []evidence.Note) {
	if at, ok := k.ref.Changed(ctx); ok {
		age := time.Since(at)
		readings = append(readings, evidence.Reading{Metric: SecretAge, Labels: []string{k.origin}, Value: age.Seconds()})
		if k.RotateEvery > 0 {
			readings = append(readings, evidence.Reading{Metric: SecretDue, Labels: []string{k.origin}, Value: unix(at.Add(k.RotateEvery))})
		}
		if k.RotateEvery > 0 && age > k.RotateEvery {
			notes = append(notes, evidence.Note{Code: "secret_rotation_due", Detail: fmt.Sprintf("the secret was last changed %s ago and should be rotated every %s", evidence.Span(age), evidence.Span(k.RotateEvery))})
		}
	}
	if !k.Expires.IsZero() {
		readings = append(readings, evidence.Reading{Metric: CredentialEnd, Labels: []string{"declared"}, Value: unix(k.Expires.Time)})
		notes = append(notes, Ending(k.what()+", by its declared date,", time.Time{}, k.Expires.Time)...)
	}
	return readings, append(notes, k.form(v)...)
}

// form says what is wrong with the form of a secret.
func (k *credentialKeys) form(v secret.Value) (notes []evidence.Note) {
	if v.IsZero() {
		return nil
	}
	lint := evidence.LintCredential
	if k.origin == "password" {
		lint = evidence.LintPassword
	}
	note := func(code, format string, args ...any) {
		notes = append(notes, evidence.Note{Code: code, Detail: k.what() + " " + fmt.Sprintf(format, args...)})
	}
	for _, problem := range lint(v.Expose()) {
		note("credential_malformed", "%s", problem)
	}
	if !k.Pattern.matches(v.Expose()) {
		note("wrong_environment", "does not match the pattern %s, as those of this environment do", k.Pattern)
	}
	if other := evidence.OtherEnvironment(v.Expose(), k.environment); other != "" {
		note("wrong_environment", "is marked %s, and this is %s", other, evidence.Clean(k.environment, 64))
	}
	return notes
}

// Lint implements Linter.
func (k *credentialKeys) Lint(ctx context.Context) []evidence.Note {
	if !k.ref.Local() || strings.HasSuffix(k.origin, "private_key") || k.origin == "certificate" {
		return nil
	}
	v, err := k.ref.Reveal(ctx)
	if err != nil {
		return []evidence.Note{{Code: "secret_unavailable", Detail: k.what() + " cannot be read: " + err.Error()}}
	}
	_, notes := k.about(ctx, v)
	return notes
}

const (
	// soonShare is the share of a credential's life that is left when its end is near.
	soonShare = 10
	// soon is when the end of a credential is near whose begin is not known.
	soon = 14 * 24 * time.Hour
)

// Ending notes that a credential has ended, or will soon: in the last tenth of its life where its begin is known, else in
// the last two weeks.
func Ending(what string, begin, end time.Time) []evidence.Note {
	near := soon
	if !begin.IsZero() {
		near = end.Sub(begin) / soonShare
	}
	when := end.UTC().Format(time.RFC3339)
	switch left := time.Until(end); {
	case left <= 0:
		return []evidence.Note{{Code: "credential_expired", Detail: fmt.Sprintf("%s ended %s ago, %s", what, evidence.Span(-left), when)}}
	case left < near:
		return []evidence.Note{{Code: "credential_expiring", Detail: fmt.Sprintf("%s ends in %s, %s", what, evidence.Span(left), when)}}
	}
	return nil
}

// certificateEnd tells when a client certificate ends.
func certificateEnd(leaf *x509.Certificate) ([]evidence.Reading, []evidence.Note) {
	return []evidence.Reading{{Metric: CredentialEnd, Labels: []string{"certificate"}, Value: unix(leaf.NotAfter)}}, Ending("the client certificate", leaf.NotBefore, leaf.NotAfter)
}

// A Moment is a day or a moment as people write it: 2027-03-31 or 2027-03-31T12:00:00Z.
type Moment struct{ time.Time }

// UnmarshalText reads a moment. A day stands for its end, midnight UTC.
func (m *Moment) UnmarshalText(text []byte) (err error) {
	if day, err := time.Parse(time.DateOnly, string(text)); err == nil {
		m.Time = day.AddDate(0, 0, 1)
		return nil
	}
	if m.Time, err = time.Parse(time.RFC3339, string(text)); err != nil {
		return fmt.Errorf("is no day and no moment, such as 2027-03-31 or 2027-03-31T12:00:00Z")
	}
	return nil
}

// MarshalText writes the moment in full.
func (m Moment) MarshalText() ([]byte, error) { return []byte(m.UTC().Format(time.RFC3339)), nil }

// A Pattern is a regular expression that a text must match from its first character on. The zero Pattern matches all.
type Pattern struct{ re *regexp.Regexp }

// UnmarshalText reads a regular expression in the syntax of RE2.
func (p *Pattern) UnmarshalText(text []byte) (err error) {
	if p.re, err = regexp.Compile("^(?:" + string(text) + ")"); err != nil {
		return fmt.Errorf("is no regular expression: %w", err)
	}
	return nil
}

// MarshalText writes the regular expression.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (p Pattern) String() string {
	if p.re == nil {
		return ""
	}
	text := p.re.String()
	return text[len("^(?:") : len(text)-1]
}

func (p Pattern) matches(text string) bool { return p.re == nil || p.re.MatchString(text) }
