package identity

import (
	"fmt"
	"slices"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// Metrics of what tokens are said to live, and do.
var (
	TokenDisagreement = &evidence.Metric{Name: "token_lifetime_disagreement_seconds", Help: "Life of the token in use by its claims (exp minus iat) less what the token endpoint advertised (expires_in); below zero: clients that believe expires_in use it past its end.", Labels: []string{"identity"}}
	TokenRefusedAge   = &evidence.Metric{Name: "token_refused_age_seconds", Help: "Age at which the last token was refused whose successor was accepted: what tokens really lived. Absent: none was.", Labels: []string{"identity"}}
)

const (
	mostLives  = 20 // lifetimes that are remembered
	leastLives = 3  // that tell what is usual
	// lifeTolerance is by how much the two words about a life may differ: both are whole seconds, and one is taken later.
	lifeTolerance = 5 * time.Second
)

// lives are how long the tokens of an identity live: by the issuer's word, and in truth.
type lives struct {
	list    []time.Duration // of the last tokens, oldest first, the one in use last
	refused time.Duration   // age of the token that was dropped because a server refused it; 0: none
	real    time.Duration   // the same, once its successor was accepted
}

// lifeOf is how long a token lives as a whole, by its claims, else as advertised; 0: nobody says.
func lifeOf(t *evidence.Token) time.Duration {
	if claimed := claimedLife(t); claimed > 0 {
		return claimed
	}
	return t.ExpiresIn
}

// claimedLife is how long a token lives by its own claims; 0: they do not say.
func claimedLife(t *evidence.Token) time.Duration {
	if t.Format != "jwt" || t.Issued.IsZero() || t.Expiry.IsZero() {
		return 0
	}
	return t.Expiry.Sub(t.Issued)
}

func (l *lives) add(t *evidence.Token) {
	if life := lifeOf(t); life > 0 {
		l.list = append(l.list, life)
		l.list = l.list[max(0, len(l.list)-mostLives):]
	}
}

// accepted notes that the token in use is good, so that the refusal of the one before was about that one.
func (l *lives) accepted() {
	if l.refused > 0 {
		l.real, l.refused = l.refused, 0
	}
}

// tell says what is odd about the life of the token in use.
func (l *lives) tell(t *evidence.Token) (readings []evidence.Reading, notes []evidence.Note) {
	if l.real > 0 {
		readings = append(readings, evidence.Reading{Metric: TokenRefusedAge, Value: l.real.Seconds()})
	}
	if claimed := claimedLife(t); claimed > 0 && t.ExpiresIn > 0 {
		differs := claimed - t.ExpiresIn
		readings = append(readings, evidence.Reading{Metric: TokenDisagreement, Value: differs.Seconds()})
		if differs < -lifeTolerance { // a longer claim harms nobody: an issuer may hand out a token that it kept
			notes = append(notes, evidence.Note{Code: "lifetime_disagreement", Detail: fmt.Sprintf("the token endpoint says that the token lives %s, and by its claims it lives %s; the shorter holds", evidence.Span(t.ExpiresIn), evidence.Span(claimed))})
		}
	}
	if n := len(l.list); n > leastLives && lifeOf(t) > 0 {
		before := slices.Sorted(slices.Values(l.list[:n-1]))
		usual := before[len(before)/2]
		if life := lifeOf(t); life < usual/2 {
			notes = append(notes, evidence.Note{Code: "lifetime_shrunk", Detail: fmt.Sprintf("the token lives %s; the ones before it lived %s", evidence.Span(life), evidence.Span(usual))})
		}
	}
	return readings, notes
}

// runway gives when a token was issued and ends, for dashboards.
func runway(t *evidence.Token) (list []evidence.Reading) {
	issued := t.Issued
	if issued.IsZero() {
		issued = t.Obtained
	}
	if !t.Expiry.IsZero() {
		list = append(list, evidence.Reading{Metric: TokenExpiry, Labels: []string{t.Name}, Value: unix(t.Expiry)},
			evidence.Reading{Metric: TokenLifetime, Labels: []string{t.Name}, Value: t.Expiry.Sub(issued).Seconds()})
	}
	return append(list, evidence.Reading{Metric: TokenIssued, Labels: []string{t.Name}, Value: unix(issued)})
}
