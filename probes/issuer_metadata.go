package probes

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// IssuerMetadata are those of an authorization server (OpenID Connect Discovery section 3, RFC 8414 section 2), as far as they
// are compared from run to run.
type issuerMetadata struct {
	Issuer     string
	JWKSURI    string
	Algorithms []string // of id tokens, as advertised; nil: not said
	Endpoints  map[string]string
	Fields     map[string]string // what is compared: lists sorted and joined
	oauth      bool              // found by the rule of RFC 8414, which asks for less
}

// comparedFields are those whose change breaks clients. Lists of scopes and claims change with every registration and are
// left out.
var comparedFields = []string{
	"issuer", "jwks_uri", "authorization_endpoint", "token_endpoint", "introspection_endpoint", "revocation_endpoint", "userinfo_endpoint",
	"end_session_endpoint", "registration_endpoint", "device_authorization_endpoint", "pushed_authorization_request_endpoint", "backchannel_authentication_endpoint",
	"mtls_endpoint_aliases", "response_types_supported", "grant_types_supported", "subject_types_supported", "code_challenge_methods_supported",
	"token_endpoint_auth_methods_supported", "token_endpoint_auth_signing_alg_values_supported", "id_token_signing_alg_values_supported",
	"dpop_signing_alg_values_supported", "tls_client_certificate_bound_access_tokens", "authorization_response_iss_parameter_supported", "require_pushed_authorization_requests",
}

const mostEndpoints = 32 // that are looked at

// metadataAddresses gives where metadata are looked for, in order. OpenID Connect Discovery section 4 appends the well-known
// part to the issuer, RFC 8414 section 3.1 puts it between host and path.
func (p *issuerProbe) metadataAddresses() (list []string) {
	if p.MetadataURL != "" {
		return []string{p.MetadataURL}
	}
	path := strings.TrimSuffix(p.url.EscapedPath(), "/")
	base := p.url.Scheme + "://" + p.url.Host
	if p.Discovery != "oauth" {
		list = append(list, base+path+"/.well-known/openid-configuration")
	}
	if p.Discovery != "oidc" {
		list = append(list, base+"/.well-known/oauth-authorization-server"+path)
	}
	if p.Discovery == "auto" && path != "" { // RFC 8414 section 5: servers that follow it for the name of OpenID
		list = append(list, base+"/.well-known/openid-configuration"+path)
	}
	return list
}

// discover gets the metadata. Only an answer that there is nothing (4xx) leads on to the next address.
func (p *issuerProbe) discover(ctx context.Context, l *look) error {
	list := p.metadataAddresses()
	if i := slices.Index(list, p.at); i > 0 { // where they were before comes first
		list = append([]string{p.at}, slices.Delete(slices.Clone(list), i, i+1)...)
	}
	var first error
	for _, at := range list {
		answer, err := p.get(ctx, at, maxMetadata, nil, l)
		if err != nil {
			if answer.Chain != nil {
				l.report.Chain = answer.Chain
			}
			return err
		}
		status := answer.Exchange.Status
		switch {
		case status == http.StatusOK:
			doc, err := parseMetadata(answer.Body)
			doc.oauth = strings.Contains(at, "/.well-known/oauth-authorization-server")
			if answer.Exchange.BodyCut {
				err = fmt.Errorf("are longer than %d KiB", maxMetadata>>10)
			}
			if err != nil {
				l.note("metadata_unusable", "the metadata at %s %s", answer.Exchange.URL, err)
				return l.problems[len(l.problems)-1].fault()
			}
			p.at, l.doc = at, doc
			l.seen.Advertised = evidence.Clean(doc.Issuer, 256)
			p.checkMetadata(l, at)
			return nil
		case status >= 500, status == http.StatusTooManyRequests:
			symptom := evidence.SymptomServerError
			if status == http.StatusTooManyRequests {
				symptom = evidence.SymptomThrottled
			}
			return &evidence.Fault{Stage: evidence.StageDiscovery, Symptom: symptom, Code: fmt.Sprint(status), Err: fmt.Errorf("the metadata at %s answered %d", answer.Exchange.URL, status)}
		}
		if first == nil {
			first = fmt.Errorf("the metadata at %s %s", answer.Exchange.URL, refusal(answer))
		}
	}
	l.note("metadata_unusable", "%s", first)
	return l.problems[len(l.problems)-1].fault()
}

// refusal says in words how an answer is not the document.
func refusal(a wire.Answer) string {
	if to := a.Header.Get("Location"); a.Exchange.Status/100 == 3 && to != "" {
		return fmt.Sprintf("answered %d and points to %s; verifiers do not follow it", a.Exchange.Status, shownAddress(to))
	}
	return fmt.Sprintf("answered %d", a.Exchange.Status)
}

// get asks for a document, without any credential.
func (p *issuerProbe) get(ctx context.Context, at string, most int64, guard func(netip.Addr) error, l *look, header ...string) (wire.Answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return wire.Answer{}, &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomUnknown, Err: errors.New("the request cannot be built")}
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	a, err := p.client.Ask(ctx, wire.Question{Request: req, Stage: evidence.StageDiscovery, Purpose: evidence.AskIssuer, Scheme: "none", MaxBody: most, Guard: guard, Expected: func(status int) bool { return status == http.StatusOK }})
	if fault := evidence.AsFault(err); fault != nil && fault.Stage == evidence.StageAPI {
		fault.Stage = evidence.StageDiscovery
	}
	l.report.Exchanges = append(l.report.Exchanges, a.Exchange)
	if a.Chain != nil {
		l.chains[hostPort(req.URL)] = a.Chain
	}
	return a, err
}

// parseMetadata reads metadata. The error continues a sentence about them.
func parseMetadata(b []byte) (m issuerMetadata, err error) {
	var fields map[string]json.RawMessage
	switch trimmed := bytes.TrimSpace(b); {
	case len(trimmed) == 0:
		return m, errors.New("are empty")
	case trimmed[0] == '<':
		return m, errors.New("are a page (HTML) and no JSON document")
	case json.Unmarshal(trimmed, &fields) != nil:
		return m, errors.New("are no JSON document")
	}
	text := func(name string) (s string) { _ = json.Unmarshal(fields[name], &s); return s }
	m = issuerMetadata{Issuer: text("issuer"), JWKSURI: text("jwks_uri"), Endpoints: map[string]string{}, Fields: map[string]string{}}
	_ = json.Unmarshal(fields["id_token_signing_alg_values_supported"], &m.Algorithms)
	if m.Issuer == "" {
		return m, errors.New("name no issuer")
	}
	for name, raw := range fields {
		var s string
		if (strings.HasSuffix(name, "_endpoint") || name == "jwks_uri") && len(name) < 64 && json.Unmarshal(raw, &s) == nil && len(m.Endpoints) < mostEndpoints {
			m.Endpoints[name] = s
		}
	}
	var aliases map[string]string
	if json.Unmarshal(fields["mtls_endpoint_aliases"], &aliases) == nil { // RFC 8705 section 5
		for name, at := range aliases {
			if len(m.Endpoints) < mostEndpoints {
				m.Endpoints["mtls_endpoint_aliases."+evidence.Clean(name, 64)] = at
			}
		}
	}
	for _, name := range comparedFields {
		if raw, ok := fields[name]; ok {
			m.Fields[name] = flat(raw)
		}
	}
	return m, nil
}

// flat makes one text of a value, so that the order of a list and the spaces in it do not count.
func flat(raw json.RawMessage) string {
	var list []string
	var text string
	switch {
	case json.Unmarshal(raw, &text) == nil:
	case json.Unmarshal(raw, &list) == nil:
		slices.Sort(list)
		text = strings.Join(list, " ")
	default:
		var v any
		_ = json.Unmarshal(raw, &v)
		b, _ := json.Marshal(v)
		text = string(b)
	}
	return evidence.Clean(text, 512)
}

// checkMetadata says what is wrong with the metadata as they are.
func (p *issuerProbe) checkMetadata(l *look, at string) {
	d := &l.doc
	if d.Issuer != p.Issuer { // to the letter: OpenID Connect Discovery section 4.3, RFC 8414 section 3.3
		hint := ""
		if strings.TrimSuffix(d.Issuer, "/") == strings.TrimSuffix(p.Issuer, "/") {
			hint = "; they differ in the slash at the end"
		}
		l.note("issuer_mismatch", "the metadata at %s are those of issuer %q, not of %q%s", shownAddress(at), evidence.Clean(d.Issuer, 256), p.Issuer, hint)
	}
	if d.JWKSURI == "" && !d.oauth {
		l.note("metadata_unusable", "the metadata name no key set (jwks_uri)")
	}
	if d.Endpoints["token_endpoint"] == "" && !(d.Fields["grant_types_supported"] == "implicit" || d.Fields["response_types_supported"] == "id_token") {
		l.note("metadata_unusable", "the metadata name no token endpoint (token_endpoint)")
	}
	for _, name := range slices.Sorted(maps.Keys(d.Endpoints)) {
		u, err := url.Parse(d.Endpoints[name])
		switch {
		case err != nil || u.Hostname() == "" || u.User != nil:
			l.note("metadata_unusable", "%s in the metadata is no URL", name)
		case u.Scheme != "https" && p.url.Scheme == "https":
			l.note("insecure_endpoint", "%s in the metadata is %s, without TLS: whoever is on the way reads and changes what goes there", name, wire.ShowURL(u))
		case !p.expects(u.Hostname()):
			l.note("foreign_endpoint", "%s in the metadata leads to %s, which is not among endpoint_hosts", name, evidence.Clean(u.Hostname(), 128))
		}
	}
	if p.url.Scheme != "https" {
		l.note("metadata_without_tls", "the issuer is asked without TLS; RFC 8414 section 2 wants https")
	}
}

// expects says whether an endpoint may be at a host.
func (p *issuerProbe) expects(host string) bool {
	if len(p.EndpointHosts) == 0 || strings.EqualFold(host, p.url.Hostname()) {
		return true
	}
	return slices.ContainsFunc(p.EndpointHosts, func(want string) bool {
		if suffix, ok := strings.CutPrefix(want, "*"); ok && strings.HasPrefix(suffix, ".") {
			return len(host) > len(suffix) && strings.EqualFold(host[len(host)-len(suffix):], suffix)
		}
		return strings.EqualFold(want, host)
	})
}

// askResource asks the metadata of a protected resource (RFC 9728): they must be its own and name this issuer.
func (p *issuerProbe) askResource(ctx context.Context, l *look) {
	u, err := url.Parse(p.Resource)
	if err != nil {
		return
	}
	at := u.Scheme + "://" + u.Host + "/.well-known/oauth-protected-resource" + strings.TrimSuffix(u.EscapedPath(), "/") // section 3.1
	a, err := p.get(ctx, at, maxMetadata, nil, l)
	var doc struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
	}
	switch {
	case err != nil:
		l.note("resource_mismatch", "the metadata of the resource at %s cannot be had: %s", shownAddress(at), causeOf(err))
	case a.Exchange.Status != http.StatusOK:
		l.note("resource_mismatch", "the metadata of the resource at %s %s", shownAddress(at), refusal(a))
	case json.Unmarshal(a.Body, &doc) != nil:
		l.note("resource_mismatch", "the metadata of the resource at %s are no JSON document", shownAddress(at))
	case doc.Resource != p.Resource: // section 3.3: identical
		l.note("resource_mismatch", "the metadata at %s are those of resource %q, not of %q", shownAddress(at), evidence.Clean(doc.Resource, 256), p.Resource)
	case !slices.Contains(doc.Servers, p.Issuer):
		l.note("resource_unlisted", "the resource %s names the authorization servers %s, and not %s", shownAddress(p.Resource), cmp.Or(evidence.Clean(strings.Join(doc.Servers[:min(len(doc.Servers), 4)], " "), 256), "none"), p.Issuer)
	}
}

// causeOf is the sentence of a fault, without its stage.
func causeOf(err error) string {
	if f := evidence.AsFault(err); f != nil && f.Err != nil {
		return evidence.Clean(f.Err.Error(), 200)
	}
	return evidence.Clean(err.Error(), 200)
}
