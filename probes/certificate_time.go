package probes

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// judgeTime judges the dates of a leaf, by true time where that is known. Where the local clock is known to be wrong and
// says otherwise, both verdicts are kept: what only looks expired is a matter of the clock.
func (p *certificateProbe) judgeTime(leaf *x509.Certificate, clock trueTime) evidence.Facet {
	byTruth := wire.JudgeTime(leaf, clock.at())
	if byTruth.State == evidence.OK {
		byTruth = p.judgeRest(leaf, clock.at())
	}
	if clock.at().Equal(clock.local) {
		if byTruth.State == evidence.Fail && (byTruth.Code == "expired" && clock.doubtful(leaf.NotAfter) || byTruth.Code == "not_yet_valid" && clock.doubtful(leaf.NotBefore)) {
			byTruth.AtTrueTime = evidence.Unknown
		}
		return byTruth
	}
	byLocal := wire.JudgeTime(leaf, clock.local)
	switch {
	case byLocal.Code == byTruth.Code:
		return byTruth
	case byLocal.State == evidence.Fail && byTruth.State != evidence.Fail:
		byLocal.AtTrueTime = evidence.OK
		byLocal.Detail += fmt.Sprintf(" by the local clock, which is %s; by true time it is good", clock.off())
		return byLocal
	case byTruth.State == evidence.Fail && byLocal.State == evidence.OK && byTruth.Code != "expiring":
		byTruth.AtTrueTime = evidence.Fail
		byTruth.Detail += fmt.Sprintf("; the local clock, which is %s, hides it", clock.off())
	}
	return byTruth
}

// off says in words how wrong the local clock is.
func (t trueTime) off() string {
	if t.skew < 0 {
		return evidence.Span(t.skew) + " behind"
	}
	return evidence.Span(t.skew) + " ahead"
}

// judgeRest compares what is left of a certificate with its life, because 14 days are late for one of 90 days and never
// come for one of six.
func (p *certificateProbe) judgeRest(leaf *x509.Certificate, now time.Time) evidence.Facet {
	life, left := leaf.NotAfter.Sub(leaf.NotBefore), leaf.NotAfter.Sub(now)
	warn, critical := p.thresholds(life)
	f := evidence.Facet{Name: "time", State: evidence.OK}
	what := fmt.Sprintf("the certificate ends %s, in %s, of a life of %s", leaf.NotAfter.UTC().Format(time.RFC3339), evidence.Span(left), evidence.Span(life))
	switch {
	case left < critical:
		f.State, f.Code, f.Detail = evidence.Fail, "expiring", what
	case left < warn:
		f.State, f.Code, f.Detail = evidence.Warn, "expiring", what
	}
	return f
}

// thresholds gives how much life should be left. Automated renewal happens at a third of the life, or at half of a short
// one; what has not happened well after that is late.
func (p *certificateProbe) thresholds(life time.Duration) (warn, critical time.Duration) {
	const short = 10 * day
	switch {
	case p.Renewal == "manual":
		warn, critical = min(30*day, life/2), min(14*day, life/4)
	case life <= short:
		warn, critical = share(life, 0.35), share(life, 0.15)
	default:
		warn, critical = min(share(life, 0.20), 30*day), min(share(life, 0.08), 14*day)
	}
	if p.Warn > 0 {
		warn = share(life, p.Warn)
	}
	if p.Critical > 0 {
		return warn, share(life, p.Critical)
	}
	return warn, max(critical, min(12*time.Hour, life/5))
}

func share(life time.Duration, of float64) time.Duration {
	return time.Duration(of * float64(life))
}
