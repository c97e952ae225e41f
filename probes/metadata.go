package probes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// metadataLife is how long an issuer's metadata is believed.
const metadataLife = time.Hour

// metadata is what an authorization server says of itself (OpenID Connect Discovery section 3, RFC 8414 section 2), as far as
// probes ask for it.
type metadata struct {
	Issuer        string `json:"issuer"`
	Authorize     string `json:"authorization_endpoint"`
	Introspection string `json:"introspection_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
	NamesIssuer   bool   `json:"authorization_response_iss_parameter_supported"` // RFC 9207 section 3
}

// An issuerDocument is the metadata of one issuer, asked for at most once an hour. A probe does not run concurrently.
type issuerDocument struct {
	issuer string
	client *wire.Client
	now    metadata
	looked time.Time
}

// get gives the metadata. The issuer's name must match to the letter (OpenID Connect Discovery section 4.3), and whoever is
// asked over TLS may not send us to an endpoint without.
func (d *issuerDocument) get(ctx context.Context, report *evidence.Report) (metadata, error) {
	if d.issuer == "" || !d.looked.IsZero() && time.Since(d.looked) < metadataLife {
		return d.now, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(d.issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return metadata{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the issuer's metadata has no address")}
	}
	req.Header.Set("User-Agent", userAgent)
	answer, err := d.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, MaxBody: maxMetadata, Expected: func(status int) bool { return status == http.StatusOK }})
	report.Exchanges = append(report.Exchanges, answer.Exchange)
	if answer.Chain != nil {
		report.Chain = answer.Chain
	}
	if err != nil {
		return metadata{}, err
	}
	bad := func(code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: evidence.SymptomIssuer, Code: code, Err: fmt.Errorf(format, args...)}
	}
	var m metadata
	switch {
	case answer.Exchange.Status != http.StatusOK:
		return m, bad(fmt.Sprint(answer.Exchange.Status), "the issuer's metadata answered %d", answer.Exchange.Status)
	case json.Unmarshal(answer.Body, &m) != nil:
		return m, bad("not_json", "the issuer's metadata is no JSON document")
	case m.Issuer != d.issuer:
		return m, bad("issuer_mismatch", "the metadata is that of issuer %s, not of %s", evidence.Clean(m.Issuer, 256), d.issuer)
	}
	for _, endpoint := range []string{m.Authorize, m.Introspection, m.Revocation} {
		if strings.HasPrefix(d.issuer, "https:") && strings.HasPrefix(endpoint, "http:") {
			return m, bad("insecure_endpoint", "the issuer's metadata names an endpoint without TLS; nothing is sent there")
		}
	}
	d.now, d.looked = m, time.Now()
	return m, nil
}
