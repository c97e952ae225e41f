package probes

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const (
	renewalTime  = 5 * time.Second
	renewalPoll  = 6 * time.Hour // RFC 9773 section 4.3.3 suggests this after long-term errors too
	renewalLeast = time.Minute
	renewalMost  = day
)

var (
	certWindowStart = &evidence.Metric{Name: "certificate_renewal_window_start_timestamp_seconds", Help: "When the authority wants the certificate to be renewed at the earliest (RFC 9773).", Labels: []string{"probe"}}
	certWindowEnd   = &evidence.Metric{Name: "certificate_renewal_window_end_timestamp_seconds", Help: "When the authority wants the certificate to be renewed at the latest (RFC 9773).", Labels: []string{"probe"}}
)

// A renewalWindow is when an authority wants a certificate to be renewed.
type renewalWindow struct {
	serial     string
	start, end time.Time
	moved      bool      // it was seen to jump into the past
	ask        time.Time // when to ask again, by the local clock
	why        string    // why it is not known
}

type renewalView struct {
	facet    evidence.Facet
	readings []evidence.Reading
}

// judgeRenewal asks the authority when the certificate should be renewed (ACME Renewal Information, RFC 9773), which needs
// no account. What should have been renewed by now and is still served has a renewal that does not work; a window that
// jumps into the past means that the authority is about to revoke.
func (p *certificateProbe) judgeRenewal(ctx context.Context, j judged, clock trueTime) *renewalView {
	if p.ACME == "" || len(j.certs) == 0 {
		return nil
	}
	leaf, w := j.certs[0], &p.window
	if serial := leaf.SerialNumber.String(); w.serial != serial {
		*w = renewalWindow{serial: serial}
	}
	if !clock.local.Before(w.ask) {
		ctx, cancel := someOf(ctx, renewalTime)
		defer cancel()
		p.askWindow(ctx, leaf, w, clock)
	}
	v := &renewalView{facet: evidence.Facet{Name: "renewal", State: evidence.OK}}
	set := func(state evidence.State, code, format string, args ...any) *renewalView {
		v.facet.State, v.facet.Code, v.facet.Detail = state, code, fmt.Sprintf(format, args...)
		return v
	}
	if w.end.IsZero() {
		return set(evidence.Unknown, "renewal_unknown", "when the authority wants the certificate renewed is not known: %s", w.why)
	}
	v.readings = []evidence.Reading{{Metric: certWindowStart, Value: unixSeconds(w.start)}, {Metric: certWindowEnd, Value: unixSeconds(w.end)}}
	life, now := leaf.NotAfter.Sub(leaf.NotBefore), clock.at()
	until := w.end.UTC().Format(time.RFC3339)
	switch {
	case now.After(w.end) && (w.moved || w.end.Sub(leaf.NotBefore) < life/2):
		return set(evidence.Fail, "renewal_requested_by_ca", "the authority wants the certificate replaced at once (its window ended %s, early in the certificate's life): it is probably about to revoke it", until)
	case now.After(w.end.Add(max(time.Hour, share(life, 0.02)))):
		return set(evidence.Warn, "renewal_overdue", "the certificate should have been renewed by %s, and is still served", until)
	}
	return v
}

// askWindow asks for the window and sets when to ask again. What is not had leaves the former word standing.
func (p *certificateProbe) askWindow(ctx context.Context, leaf *x509.Certificate, w *renewalWindow, clock trueTime) {
	w.ask = clock.local.Add(renewalPoll)
	start, end, again, err := p.fetchWindow(ctx, leaf)
	if again > 0 {
		w.ask = clock.local.Add(min(max(again, renewalLeast), renewalMost))
	}
	if err != nil {
		w.why = err.Error()
		return
	}
	w.moved = w.moved || !w.end.IsZero() && end.Before(w.end) && !end.After(clock.at())
	w.start, w.end, w.why = start, end, ""
}

func (p *certificateProbe) fetchWindow(ctx context.Context, leaf *x509.Certificate) (start, end time.Time, again time.Duration, err error) {
	id := certID(leaf)
	if id == "" {
		return start, end, renewalMost, errors.New("the certificate does not name the key of its authority")
	}
	var directory struct {
		RenewalInfo string `json:"renewalInfo"`
	}
	if again, err = p.askJSON(ctx, p.ACME, &directory); err != nil {
		return start, end, again, err
	}
	at, err := url.Parse(directory.RenewalInfo)
	if err != nil || at.Scheme != "https" || at.Host == "" {
		return start, end, renewalMost, errors.New("the ACME directory offers no renewal information")
	}
	var info struct {
		Window struct{ Start, End time.Time } `json:"suggestedWindow"`
	}
	if again, err = p.askJSON(ctx, strings.TrimSuffix(directory.RenewalInfo, "/")+"/"+id, &info); err != nil {
		return start, end, again, err
	}
	if info.Window.End.IsZero() || !info.Window.End.After(info.Window.Start) {
		return start, end, again, errors.New("the window that the ACME server gives is no window")
	}
	return info.Window.Start, info.Window.End, again, nil
}

func (p *certificateProbe) askJSON(ctx context.Context, at string, into any) (again time.Duration, err error) {
	req, err := http.NewRequest(http.MethodGet, at, nil)
	if err != nil {
		return 0, errors.New("the address of the ACME server is not valid")
	}
	a, err := p.fetch.get(ctx, req, maxIssuer, anywhere)
	again = a.Exchange.RetryAfter
	if err != nil {
		return again, fmt.Errorf("%s could not be asked: %s", wire.ShowEndpoint(req.URL), evidence.Clean(err.Error(), 160))
	}
	if json.Unmarshal(a.Body, into) != nil {
		return again, fmt.Errorf("%s does not answer in JSON", wire.ShowEndpoint(req.URL))
	}
	return again, nil
}

// certID names a certificate to its authority (RFC 9773 section 4.1).
func certID(leaf *x509.Certificate) string {
	if len(leaf.AuthorityKeyId) == 0 || leaf.SerialNumber.Sign() <= 0 {
		return ""
	}
	serial := leaf.SerialNumber.Bytes()
	if serial[0]&0x80 != 0 {
		serial = append([]byte{0}, serial...) // as DER writes it
	}
	return base64.RawURLEncoding.EncodeToString(leaf.AuthorityKeyId) + "." + base64.RawURLEncoding.EncodeToString(serial)
}
