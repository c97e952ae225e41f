package probes

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// smearing are public servers that spread a leap second over hours in place of stepping, as their operators document. They
// differ from servers that step by up to a second on that day, and from each other, because the hours are not the same.
var smearing = map[string]string{
	"time.google.com": "Google", "time1.google.com": "Google", "time2.google.com": "Google", "time3.google.com": "Google", "time4.google.com": "Google",
	"metadata.google.internal": "Google",
	"time.aws.com":             "Amazon", "169.254.169.123": "Amazon", "fd00:ec2::123": "Amazon",
	"time.facebook.com": "Meta", "time1.facebook.com": "Meta", "time2.facebook.com": "Meta", "time3.facebook.com": "Meta", "time4.facebook.com": "Meta", "time5.facebook.com": "Meta",
}

// checkSmear refuses servers that will disagree on the day of a leap second.
func (p *ntpProbe) checkSmear() error {
	var errs []error
	for _, s := range p.Smeared {
		if !slices.Contains(p.Servers, s) {
			errs = append(errs, fmt.Errorf("smeared: %s is not among servers", s))
		}
	}
	families := map[string][]string{}
	for _, s := range p.Servers {
		family := p.smears(s)
		families[family] = append(families[family], s)
	}
	if len(families) > 1 {
		var parts []string
		for family, list := range families {
			if family == "" {
				family = "no smear"
			}
			parts = append(parts, strings.Join(list, " ")+" ("+family+")")
		}
		slices.Sort(parts)
		errs = append(errs, fmt.Errorf("servers: %s will differ by up to a second on the day of a leap second; name servers that smear it in one way, or not at all", strings.Join(parts, " and ")))
	}
	return errors.Join(errs...)
}

// smears names the way in which a server smears leap seconds; empty: not that it is known.
func (p *ntpProbe) smears(server string) string {
	host := server
	if h, _, err := net.SplitHostPort(server); err == nil {
		host = h
	}
	if family := smearing[strings.ToLower(strings.Trim(host, "[]."))]; family != "" {
		return family
	}
	if slices.Contains(p.Smeared, server) {
		return "smeared"
	}
	return ""
}

const (
	leapDoubt = 24 * time.Hour // around a leap second, in which clocks that treat it differently are not to be told from wrong ones
	leapMost  = time.Second
)

// leapTolerance is what is added to the limit around a leap second that more than half of the usable sources announce: they
// do so at the end of a month, for the midnight (UTC) that ends it.
func (p *ntpProbe) leapTolerance(sources []evidence.ClockSource, now time.Time) time.Duration {
	usable, announce := 0, 0
	for _, s := range sources {
		if s.State == "truechimer" {
			usable++
			if s.Leap != 0 {
				announce++
			}
		}
	}
	if 2*announce > usable {
		year, month, _ := now.UTC().Date()
		p.leap = time.Date(year, month+1, 1, 0, 0, 0, 0, time.UTC)
	}
	if !p.leap.IsZero() && now.Sub(p.leap).Abs() < leapDoubt {
		return leapMost
	}
	return 0
}
