package probes

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// A servedLeaf is the certificate that an address showed last.
type servedLeaf struct {
	fingerprint string
	begins      time.Time
}

// lookAtServer looks at all addresses, judges each chain that it sees once, and compares them. The fault is that of a
// server which showed nothing, or ended the handshake after it did.
func (p *certificateProbe) lookAtServer(ctx context.Context, clock trueTime, disk onDisk, report *evidence.Report) (found []judged, fault error) {
	client, ours := p.clientCertificate(clock)
	list, took, err := p.addresses(ctx)
	if err != nil {
		f := wire.Classify(ctx, evidence.StageResolve, err)
		report.Exchanges = append(report.Exchanges, evidence.Exchange{Stage: evidence.StageResolve, Method: "TLS", URL: "tls://" + p.Address, Started: clock.local, Took: took, Timing: evidence.Timing{Resolve: took}, Fault: f})
		return nil, f
	}
	all := p.lookAt(ctx, list, client)
	all[0].exchange.Timing.Resolve += took
	byChain := map[[32]byte]int{}
	for _, s := range all {
		report.Exchanges = append(report.Exchanges, s.exchange)
		if len(s.certs) == 0 {
			if len(s.odd) > 0 {
				found = append(found, p.judgeOdd(s))
			}
			continue
		}
		key := nameOf(s.certs)
		if _, ok := byChain[key]; !ok {
			byChain[key] = len(found)
			found = append(found, p.judgeServed(ctx, s, clock))
		}
		ours = acceptance(ours, client, s)
	}
	fault = wholeFault(all)
	if len(found) == 0 {
		return nil, fault
	}
	slices.SortStableFunc(found, func(a, b judged) int { return cmp.Compare(worstRank(b.chain.Facets), worstRank(a.chain.Facets)) })
	first := &found[0].chain
	if len(all) > 1 {
		first.Facets = append(first.Facets, p.compare(all))
	}
	p.noticeRotation(all, disk.rotated, clock, first, &found[0])
	if p.Address != "" && len(p.Files) > 0 {
		first.Facets = append(first.Facets, p.judgeDeployed(found, disk)...)
	}
	if renewal := p.judgeRenewal(ctx, found[0], clock); renewal != nil {
		first.Facets = append(first.Facets, renewal.facet)
		found[0].readings = append(found[0].readings, renewal.readings...)
	}
	if ours != nil {
		if client != nil && fault != nil && ours.State == evidence.OK {
			ours.State = evidence.Unknown
		}
		first.Facets = append(first.Facets, *ours)
		if client != nil {
			d := wire.DescribeCertificate(client.Leaf, true)
			first.ClientCertificate = &d
		}
	}
	found[0].readings = append(found[0].readings, p.addressReadings(all, len(byChain))...)
	if faultOf(p.merged(found)) != nil {
		return found, nil // what is wrong with the certificate weighs more
	}
	return found, fault
}

// wholeFault is the fault of the run: none while an address shows a certificate and accepts us.
func wholeFault(all []*shown) error {
	var first *evidence.Fault
	for _, s := range all {
		if s.fault == nil {
			return nil
		}
		if first == nil || noRoute(first) {
			first = s.fault
		}
	}
	return first
}

// judgeOdd is what can be said of certificates that do not parse: they are nobody's idea of valid, and still have dates.
func (p *certificateProbe) judgeOdd(s *shown) judged {
	j := judged{where: s.name(p.Address), chain: evidence.Chain{Address: p.Address, ServerName: p.ServerName, Certificates: s.odd, Protocol: p.STARTTLS}}
	for _, c := range s.odd {
		if j.chain.PresentedNotAfter.IsZero() || c.NotAfter.Before(j.chain.PresentedNotAfter) {
			j.chain.PresentedNotAfter = c.NotAfter
		}
	}
	detail := "a certificate that the server sends cannot be parsed"
	if s.fault != nil && s.fault.Err != nil {
		detail += ": " + evidence.Clean(s.fault.Err.Error(), 200)
	}
	j.chain.Facets = []evidence.Facet{{Name: "form", State: evidence.Fail, Code: "unparseable_certificate", Detail: detail}}
	return j
}

// compare says whether all addresses show the same certificate. While a certificate is rolled out they do not for a while.
func (p *certificateProbe) compare(all []*shown) evidence.Facet {
	f := evidence.Facet{Name: "consistency", State: evidence.OK}
	var newest, oldest *shown
	var silent []string
	for _, s := range all {
		if len(s.certs) == 0 {
			if s.fault == nil || !noRoute(s.fault) {
				silent = append(silent, s.name(p.Address))
			}
			continue
		}
		if newest == nil || s.certs[0].NotBefore.After(newest.certs[0].NotBefore) {
			newest = s
		}
		if oldest == nil || s.certs[0].NotBefore.Before(oldest.certs[0].NotBefore) {
			oldest = s
		}
	}
	switch {
	case newest != nil && !newest.certs[0].Equal(oldest.certs[0]):
		f.State, f.Code = evidence.Warn, "inconsistent_fleet"
		f.Detail = fmt.Sprintf("the addresses show different certificates: %s one that began %s, %s one that began %s", oldest.name(p.Address), oldest.certs[0].NotBefore.UTC().Format(time.RFC3339),
			newest.name(p.Address), newest.certs[0].NotBefore.UTC().Format(time.RFC3339))
	case newest != nil && len(silent) > 0:
		f.State, f.Code = evidence.Warn, "address_unreachable"
		f.Detail = fmt.Sprintf("of %d addresses, these show no certificate: %s", len(all), strings.Join(silent[:min(len(silent), 4)], ", "))
	}
	return f
}

// noticeRotation counts addresses and files that show another certificate than before, and notices a way back to an older.
func (p *certificateProbe) noticeRotation(all []*shown, onDisk int, clock trueTime, chain *evidence.Chain, j *judged) {
	turned := onDisk
	for _, s := range all {
		if len(s.certs) == 0 {
			continue
		}
		leaf := servedLeaf{wire.DescribeCertificate(s.certs[0], true).Fingerprint, s.certs[0].NotBefore}
		key := s.name("")
		before, known := p.served[key]
		p.served[key] = leaf
		if !known || before.fingerprint == leaf.fingerprint {
			continue
		}
		turned++
		if leaf.begins.Before(before.begins) {
			chain.Facets = append(chain.Facets, evidence.Facet{Name: "deployed", State: evidence.Warn, Code: "rolled_back",
				Detail: fmt.Sprintf("%s shows a certificate that began %s, older than the one before", s.name(p.Address), leaf.begins.UTC().Format(time.RFC3339))})
		}
	}
	if turned > 0 {
		p.turned = clock.local
	}
	j.readings = append(j.readings, evidence.Reading{Metric: certRotations, Value: float64(turned)})
	if !p.turned.IsZero() {
		j.readings = append(j.readings, evidence.Reading{Metric: certLastTurn, Value: unixSeconds(p.turned)})
	}
}

// judgeDeployed compares what is served with what lies on disk: a certificate that was renewed and is not served will
// end like one that was not.
func (p *certificateProbe) judgeDeployed(found []judged, disk onDisk) []evidence.Facet {
	f := evidence.Facet{Name: "deployed", State: evidence.OK}
	var newest *x509.Certificate
	where := ""
	for _, d := range disk.chains {
		for _, c := range d.certs {
			if !c.IsCA && (newest == nil || c.NotBefore.After(newest.NotBefore)) && (p.ServerName == "" || c.VerifyHostname(p.ServerName) == nil) {
				newest, where = c, d.where
			}
		}
	}
	if newest == nil {
		f.State, f.Code, f.Detail = evidence.Unknown, "nothing_stored", "no file holds a certificate for "+p.ServerName
		return []evidence.Facet{f}
	}
	for _, j := range found {
		if len(j.certs) == 0 || j.certs[0].Equal(newest) {
			continue
		}
		if served := j.certs[0]; newest.NotBefore.After(served.NotBefore) {
			f.State, f.Code = evidence.Fail, "renewed_not_deployed"
			f.Detail = fmt.Sprintf("%s holds a certificate that began %s, and %s still shows one that began %s and ends %s", where, newest.NotBefore.UTC().Format(time.RFC3339),
				j.where, served.NotBefore.UTC().Format(time.RFC3339), served.NotAfter.UTC().Format(time.RFC3339))
			return []evidence.Facet{f}
		}
		f.State, f.Code, f.Detail = evidence.Warn, "served_not_stored", fmt.Sprintf("%s shows a certificate that no file holds", j.where)
	}
	return []evidence.Facet{f}
}

func (p *certificateProbe) addressReadings(all []*shown, distinct int) (list []evidence.Reading) {
	count := map[[2]string]int{}
	for _, s := range all {
		result := "ok"
		switch {
		case len(s.certs) > 0:
			list = appendOnce(list, s.state)
		case s.fault != nil && noRoute(s.fault):
			result = "no_route"
		default:
			result = "fault"
		}
		count[[2]string{family(s.ip), result}]++
	}
	for _, key := range [][2]string{{"any", "ok"}, {"any", "fault"}, {"ipv4", "ok"}, {"ipv4", "fault"}, {"ipv4", "no_route"}, {"ipv6", "ok"}, {"ipv6", "fault"}, {"ipv6", "no_route"}} {
		if n := count[key]; n > 0 {
			list = append(list, evidence.Reading{Metric: certAddresses, Labels: key[:], Value: float64(n)})
		}
	}
	return append(list, evidence.Reading{Metric: certLeaves, Value: float64(distinct)})
}

// appendOnce adds the protocol that was agreed upon, once however many addresses agree on it.
func appendOnce(list []evidence.Reading, state tls.ConnectionState) []evidence.Reading {
	labels := []string{tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)}
	for _, r := range list {
		if r.Metric == certTLSVersion && slices.Equal(r.Labels, labels) {
			return list
		}
	}
	return append(list, evidence.Reading{Metric: certTLSVersion, Labels: labels, Value: 1})
}

// merged makes one chain of all that were seen: the certificates of the one that is worst, and of each facet the worst.
func (p *certificateProbe) merged(found []judged) *evidence.Chain {
	if len(found) == 0 {
		return nil
	}
	chain := found[0].chain
	chain.Facets = nil
	for _, j := range found {
		for _, f := range j.chain.Facets {
			if len(found) > 1 && !j.stored && f.Detail != "" && f.State != evidence.OK && !strings.Contains(f.Detail, j.where) {
				f.Detail = j.where + ": " + f.Detail
			}
			at := slices.IndexFunc(chain.Facets, func(have evidence.Facet) bool { return have.Name == f.Name })
			switch {
			case at < 0:
				chain.Facets = append(chain.Facets, f)
			case rank(f.State) > rank(chain.Facets[at].State):
				chain.Facets[at] = f
			}
		}
	}
	return &chain
}

// rank orders states by their weight.
func rank(s evidence.State) int {
	return map[evidence.State]int{evidence.OK: 0, evidence.Unknown: 1, evidence.Warn: 2, evidence.Fail: 3}[s]
}

func worstRank(facets []evidence.Facet) (worst int) {
	for _, f := range facets {
		worst = max(worst, rank(f.State))
	}
	return worst
}

// describe makes the report of all chains that were seen.
func (p *certificateProbe) describe(report *evidence.Report, found []judged, disk onDisk) {
	report.Readings = append(report.Readings, disk.readings...)
	add := func(m *evidence.Metric, v float64, labels ...string) {
		report.Readings = append(report.Readings, evidence.Reading{Metric: m, Labels: labels, Value: v})
	}
	if len(p.Files) > 0 && p.Address == "" {
		add(certRotations, float64(disk.rotated))
	}
	if len(found) == 0 {
		return
	}
	report.Chain = p.merged(found)
	served := false
	for _, j := range found {
		if !j.stored && served {
			continue // one address stands for the others
		}
		served = served || !j.stored
		for i, c := range j.chain.Certificates {
			position := strconv.Itoa(i)
			if j.stored {
				position = j.where + "#" + position
			}
			add(certNotAfter, unixSeconds(c.NotAfter), position, c.Role)
			add(certNotBefore, unixSeconds(c.NotBefore), position, c.Role)
			add(certInfo, 1, position, c.Fingerprint, c.Serial, c.Issuer, c.KeyType)
		}
		report.Readings = append(report.Readings, j.readings...)
	}
	if !found[0].stored {
		add(certChainEnd, unixSeconds(report.Chain.PresentedNotAfter), "presented")
		if !report.Chain.VerifiedNotAfter.IsZero() {
			add(certChainEnd, unixSeconds(report.Chain.VerifiedNotAfter), "verified")
		}
	}
	for _, f := range report.Chain.Facets {
		for _, state := range []evidence.State{evidence.OK, evidence.Fail, evidence.Unknown} {
			value := 0.0
			if f.State == state || f.State == evidence.Warn && state == evidence.OK {
				value = 1
			}
			add(certFacet, value, f.Name, string(state))
		}
	}
}

// unixSeconds gives a moment as a reading.
func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
