package diagnose

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// signedRows: requests that carry a signature over themselves.
var signedRows = []row{
	{cause: RequestTimestampSkew, weight: 90, all: of(cTime), any: negative | of(cExpired, cNotYet, cTooMany), when: func(f *facts) bool { return f.signed && f.status != 404 }},
	{cause: RequestSignatureInvalid, weight: 64, any: of(cSignature), when: func(f *facts) bool { return f.signed && (f.status == 403 || f.status == 401) }},
	{cause: RequestTimestampSkew, weight: 89, any: of(cExpired, cNotYet), not: of(cKey), when: func(f *facts) bool { return f.signed && !f.all.any(of(cToken)) }},
	{cause: TokenExpired, weight: 90, all: of(cKey, cExpired), not: of(cTime, cRequest), when: func(f *facts) bool { return f.signed }},
	{cause: TokenExpired, weight: 90, all: of(cToken, cExpired), when: func(f *facts) bool { return f.signed }},
	{cause: RequestTimestampSkew, weight: 93, when: func(f *facts) bool {
		return f.signed && f.skewKnown && f.skew.Abs() > 4*time.Minute && f.refused()
	}},
	{cause: RequestSignatureInvalid, weight: 86, all: of(cSignature), any: of(cInvalid, cMismatch, cMalformed, cMissing), when: func(f *facts) bool { return f.signed && !f.all.any(of(cTime)) }},
	{cause: RequestSignatureInvalid, weight: 50, when: func(f *facts) bool { return f.signed && f.status == 401 }},
	{cause: RequestTimestampSkew, weight: 85, when: func(f *facts) bool {
		return f.says("recv window", "request time too skewed", "timestamp out of bounds", "timestamp is too", "request has expired", "request expired", "request timestamp")
	}},
	{cause: APIKeyInvalid, weight: 84, all: of(cKey), any: of(cInvalid, cNotFound), not: of(cSignature), when: func(f *facts) bool { return f.signed }},
	{cause: APIKeyInvalid, weight: 82, all: of(cClient), any: of(cInvalid, cNotFound), not: of(cSignature, cTime, cPermission), when: func(f *facts) bool { return f.signed }},
	{cause: RequestTimestampSkew, weight: 72, all: of(cNonce), not: of(cMissing, cSignature), when: func(f *facts) bool { return f.signed && (f.status >= 400 || f.words.failed) }}, // a nonce that does not grow, or comes twice, is a clock or a retry
	{cause: RequestSignatureInvalid, weight: 62, all: of(cNonce), any: negative | of(cUsed), when: func(f *facts) bool { return noTLS(f) }},
}

// tlsRows: certificates and handshakes, from the facets of a chain or the words of a client.
var tlsRows = []row{
	{cause: TLSCertExpired, weight: 96, when: func(f *facts) bool { return facet("expired")(f) && f.clockExplains() == evidence.Fail }},
	{cause: TLSCertExpired, weight: 86, when: func(f *facts) bool { return facet("expired")(f) && f.clockExplains() == evidence.Unknown }},
	{cause: TLSCertNotYetValid, weight: 95, when: func(f *facts) bool { return facet("not_yet_valid")(f) && f.clockExplains() == evidence.Fail }},
	{cause: TLSCertNotYetValid, weight: 84, when: func(f *facts) bool { return facet("not_yet_valid")(f) && f.clockExplains() == evidence.Unknown }},
	{cause: ClockSkew, weight: 96, when: func(f *facts) bool { return facet("expired", "not_yet_valid")(f) && f.clockExplains() == evidence.OK }},
	{cause: ClockSkew, weight: 82, when: func(f *facts) bool {
		return facet("expired", "not_yet_valid")(f) && f.clockExplains() == evidence.Unknown
	}},
	{cause: TLSNameMismatch, weight: 95, when: facet("name_mismatch")},
	{cause: TLSUntrustedChain, weight: 94, when: facet("self_signed", "unknown_authority", "unverified", "unexpected_issuer", "no_certificate", "pin_mismatch", "name_constraint")},
	{cause: TLSIncompleteChain, weight: 93, when: facet("incomplete_chain", "wrong_intermediate")},
	{cause: TLSCertMalformed, weight: 96, when: facet("unparseable_certificate")},
	{cause: TLSCertMalformed, weight: 95, when: faultCode(evidence.SymptomTLS, "unparseable_certificate")},
	{cause: TLSStartTLSUnavailable, weight: 95, when: faultCode(evidence.SymptomTLS, "starttls_not_offered", "starttls_refused", "protocol_violation")},
	{cause: TLSStapleUnusable, weight: 92, when: facet("staple_missing", "staple_stale", "staple_invalid", "staple_unknown")},
	{cause: TLSFleetInconsistent, weight: 90, when: facet("inconsistent_fleet")},
	{cause: NetworkUnreachable, weight: 70, when: facet("address_unreachable")}, // one of several: the others work
	{cause: TLSClientCertRejected, weight: 95, when: facet("client_cert_not_accepted", "client_key_mismatch", "client_cert_usage", "client_cert_unreadable", "client_cert_expired", "client_cert_not_yet_valid")},
	{cause: CredentialExpiring, weight: 95, when: facet("client_cert_expiring", "client_auth_sunset")},
	{cause: TLSWeak, weight: 94, when: faultCode(evidence.SymptomTLS, "protocol_too_old")},
	{cause: TLSCertExpired, weight: 90, when: facet("intermediate_expired")},
	{cause: TLSRevoked, weight: 97, when: facet("revoked")},
	{cause: TLSWeak, weight: 93, when: facet("weak_key", "weak_signature", "no_server_auth", "protocol_too_old", "key_usage", "weak_cipher")},
	{cause: TLSCertExpiring, weight: 95, when: facet("expiring", "renewal_overdue", "renewal_requested_by_ca")},
	{cause: TLSRenewedNotDeployed, weight: 95, when: facet("renewed_not_deployed")},

	{cause: TLSClientCertRequired, weight: 94, when: func(f *facts) bool { return f.alert("certificate required", "certificate_required") }},
	{cause: TLSClientCertRequired, weight: 85, when: func(f *facts) bool { return f.transportSays("no renegotiation") }}, // the server asks for the certificate after the request
	{cause: TLSClientCertRejected, weight: 92, when: func(f *facts) bool {
		return f.alert("bad certificate", "expired certificate", "unknown certificate", "unknown certificate authority", "certificate expired", "certificate unknown", "certificate revoked", "unsupported certificate", "access denied", "unknown ca", "revoked certificate") && (f.scheme == "mtls" || f.transportSays("remote error", "alert"))
	}},
	{cause: TLSClientCertRequired, weight: 86, when: func(f *facts) bool { return f.scheme == "mtls" && f.alert("handshake failure") }},
	{cause: TLSClientCertRequired, weight: 68, when: func(f *facts) bool { return !f.live() && f.alert("handshake failure") }},                                           // one of the two, and the other has no remedy but a newer server
	{cause: TLSClientCertRejected, weight: 84, words: []string{"private key file", "pem client certificate", "client certificate file", "client key"}, when: fromClient}, // cannot be read by the client itself
	{cause: TLSClientCertRequired, weight: 89, all: of(cClientCert), any: of(cMissing, cNotFound), not: of(cInvalid, cExpired), when: notRemoteCert},
	{cause: TLSClientCertRequired, weight: 88, any: of(cClientCert), not: of(cInvalid, cExpired), when: func(f *facts) bool { return f.says("no required ssl certificate was sent") || f.status == 496 }},
	{cause: TLSClientCertRejected, weight: 87, all: of(cClientCert), any: of(cInvalid, cExpired, cRevoked, cDenied, cMismatch, cUntrusted), when: notRemoteCert},
	{cause: TLSClientCertRejected, weight: 82, all: of(cCert), any: of(cInvalid, cExpired, cRevoked, cDenied, cMismatch, cUntrusted, cNotFound), when: func(f *facts) bool { return f.status != 0 && f.scheme == "mtls" }},
	{cause: TLSClientCertRejected, weight: 85, when: func(f *facts) bool {
		return f.says("the ssl certificate error", "ssl certificate error", "certificate did not match", "certificate thumbprint")
	}},
	{cause: ClockSkew, weight: 93, all: of(cCert, cNotYet), when: func(f *facts) bool {
		return f.fromClient() && (f.transportSays("is before") || !f.all.any(of(cExpired)))
	}},
	{cause: TLSCertExpired, weight: 91, all: of(cCert, cExpired), when: func(f *facts) bool {
		return f.fromClient() && f.c.Sighting.Report.Chain == nil && f.scheme != "mtls" && !f.transportSays("is before", "remote error", "server alert", "received fatal")
	}},
	{cause: TLSCertExpired, weight: 80, all: of(cCert, cExpired), when: func(f *facts) bool {
		return f.fromClient() && f.scheme == "mtls" && !f.transportSays("is before", "remote error", "alert")
	}},
	{cause: TLSNameMismatch, weight: 92, all: of(cHostname), when: func(f *facts) bool { return f.fromClient() && f.tls }},
	{cause: TLSUntrustedChain, weight: 91, any: of(cUntrusted, cSelfSigned), not: of(cExpired, cHostname), when: func(f *facts) bool {
		return f.fromClient() && f.tls && (!f.transportSays("remote error", "alert", "client certificate", "client cert") || f.transportSays("client alert")) && !(f.says("name") && f.all.any(of(cMismatch)))
	}},
	{cause: TLSUntrustedChain, weight: 60, when: func(f *facts) bool { return f.fromClient() && f.transportSays("x509", "certificate") }},
}

func notRemoteCert(f *facts) bool {
	return f.status != 0 || f.transportSays("remote error", "alert", "client certificate", "client cert", "client auth")
}

// facet looks for a judgement of the chain, as the fault's code or among the facets.
func facet(codes ...string) func(*facts) bool {
	return func(f *facts) bool {
		is := func(code string) bool {
			for _, c := range codes {
				if c == code {
					return true
				}
			}
			return false
		}
		if f.fault != nil && (f.fault.Symptom == evidence.SymptomBadCertificate || f.fault.Symptom == evidence.SymptomCertificate) && is(f.fault.Code) {
			return true
		}
		if ch := f.c.Sighting.Report.Chain; ch != nil {
			for _, fc := range ch.Facets {
				if (fc.State == evidence.Fail || fc.State == evidence.Warn) && is(fc.Code) {
					return true
				}
			}
		}
		return false
	}
}

// faultCode looks for a fault of a symptom with one of these codes.
func faultCode(symptom evidence.Symptom, codes ...string) func(*facts) bool {
	return func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == symptom && slices.Contains(codes, f.fault.Code)
	}
}

// networkRows: no answer at all.
var networkRows = []row{
	{cause: DNSFailure, weight: 96, when: symptom(evidence.SymptomDNS)},
	{cause: Timeout, weight: 92, when: symptom(evidence.SymptomTimeout)},
	{cause: NetworkUnreachable, weight: 92, when: symptom(evidence.SymptomRefused, evidence.SymptomUnreachable, evidence.SymptomClosed)},
	{cause: ProxyAuthRequired, weight: 95, when: func(f *facts) bool {
		return f.status == 407 || f.transportSays("407", "proxy authentication required", "proxy authorization required", "proxy auth")
	}},
	{cause: BlockedByGateway, weight: 84, any: of(cProxy), words: []string{"403", "forbidden", "denied", "451"}, when: fromClient},
	{cause: LogUnreadable, weight: 97, when: func(f *facts) bool { return symptom(evidence.SymptomSource)(f) && f.c.Sighting.Kind != "certificate" }},
	{cause: TLSFileUnreadable, weight: 97, when: func(f *facts) bool { return symptom(evidence.SymptomSource)(f) && f.c.Sighting.Kind == "certificate" }},
	{cause: RefreshTokenUncertain, weight: 97, when: symptom(evidence.SymptomIndeterminate)},
	{cause: LocalResources, weight: 97, when: symptom(evidence.SymptomLocalResources, evidence.SymptomPanic)},
	{cause: DNSFailure, weight: 92, any: of(cNoHost), not: of(cHostname), when: func(f *facts) bool {
		return f.fromClient() && !f.all.any(of(cHostname)) && !(f.tls && f.all.any(of(cCert)))
	}},
	{cause: Timeout, weight: 88, any: of(cTimeout), when: func(f *facts) bool { return f.fromClient() && !f.all.any(of(cNoHost)) }},
	{cause: NetworkUnreachable, weight: 87, any: of(cRefusedConn, cReset), when: func(f *facts) bool { return f.fromClient() && !f.all.any(of(cNoHost)) }},
	{cause: LoginPage, weight: 84, when: func(f *facts) bool {
		return f.transportSays("invalid character looking for beginning of value", "unexpected token in json", "unexpected token doctype", "unexpected token html", "is not valid json", "not valid json", "text html", "expecting value line 1 column 1", "expected json") && !f.tls
	}},
	{cause: UnexpectedAnswer, weight: 88, when: func(f *facts) bool { // the answer ends in its middle, or is no HTTP
		return f.fromClient() && !f.tls && f.transportSays("transport connection broken", "malformed http", "malformed mime", "malformed chunked", "invalid byte in chunk length", "incomplete read", "incompleteread")
	}},
	{cause: ServerError, weight: 40, when: func(f *facts) bool { return f.fromClient() && f.transportSays("malformed http", "protocol error") }},
	{cause: TLSWeak, weight: 84, when: func(f *facts) bool {
		return f.transportSays("protocol version not supported", "unsupported protocol", "no cipher", "handshake failure", "protocol version", "unsupported protocol version") && (f.live() || !f.transportSays("handshake failure"))
	}},
	{cause: TLSWeak, weight: 64, when: func(f *facts) bool {
		return f.transportSays("handshake failure")
	}},
}

func fromClient(f *facts) bool { return f.fromClient() }

// fromClient says whether the words are those of the client about a connection, and not those of a server.
func (f *facts) fromClient() bool { return f.transport != "" && f.status == 0 }

func symptom(list ...evidence.Symptom) func(*facts) bool {
	return func(f *facts) bool {
		for _, s := range list {
			if f.fault != nil && f.fault.Symptom == s {
				return true
			}
		}
		return false
	}
}

func (f *facts) transportSays(phrases ...string) bool {
	for _, p := range phrases {
		if f.transport != "" && strings.Contains(f.transport, p) {
			return true
		}
	}
	return false
}

// alert says whether the other side ended the handshake with one of these.
func (f *facts) alert(names ...string) bool {
	if f.fault != nil && f.fault.Symptom == evidence.SymptomTLSAlert {
		for _, n := range names {
			if strings.ReplaceAll(f.fault.Code, "_", " ") == strings.ReplaceAll(n, "_", " ") {
				return true
			}
		}
	}
	if !f.transportSays("alert", "remote error") || f.transportSays("client alert", "alert sent", "sent alert", "write alert", "sending alert") { // ours, not theirs
		return false
	}
	return f.transportSays(names...)
}

// serverRows: the server, its gateway or its identity provider, whoever asks.
var serverRows = []row{
	{cause: RateLimited, weight: 91, any: of(cTooMany, cRate), not: of(cPassword, cLogin), when: func(f *facts) bool { return f.status == 429 && !f.says("attempts", "failed", "incorrect", "invalid") }},
	{cause: RateLimited, weight: 90, when: func(f *facts) bool { return f.status == 429 && !f.all.any(of(cLocked)) }},
	{cause: RateLimited, weight: 86, any: of(cRate, cQuota), when: func(f *facts) bool {
		return noTLS(f) && f.all.any(of(cTooMany, cDenied, cRate, cInvalid)) && f.status != 404
	}},
	{cause: RateLimited, weight: 85, all: of(cTooMany), any: of(cRequest, cQuota, cRate), not: of(cLocked), when: noTLS},
	{cause: RateLimited, weight: 88, when: symptom(evidence.SymptomThrottled)},
	{cause: BlockedByGateway, weight: 88, any: of(cCSRF), when: noTLS},
	{cause: BlockedByGateway, weight: 87, any: of(cGateway), not: of(cLocked, cRevoked), when: func(f *facts) bool {
		return noTLS(f) && (f.status == 403 || f.status == 406 || f.status == 429 || f.status == 451 || f.status == 503 || f.status == 400 || f.status == 401 && (f.words.html || !f.says("bot", "human", "blocked", "automated", "user agent")) || f.status == 200) && !(f.says("captcha challenge") && f.scheme == "basic")
	}},
	{cause: BlockedByGateway, weight: 80, all: of(cIP), any: of(cDenied, cMissing, cInvalid, cMismatch), when: func(f *facts) bool { return noTLS(f) && (f.refused() || f.status == 400) }},
	{cause: BlockedByGateway, weight: 62, when: func(f *facts) bool { return f.status == 403 && f.words.html && !f.words.form && f.scheme != "none" }},
	{cause: BlockedByGateway, weight: 78, when: func(f *facts) bool { return f.status == 403 && f.words.html && f.scheme == "none" }},
	{cause: BlockedByGateway, weight: 90, when: func(f *facts) bool { return f.status == 451 }},
	{cause: LoginPage, weight: 90, when: func(f *facts) bool { return f.words.form && f.words.html }},
	{cause: LoginPage, weight: 90, when: func(f *facts) bool { return f.fault != nil && f.fault.Code == "login_page" }},
	{cause: LoginPage, weight: 80, when: func(f *facts) bool { return f.status/100 == 2 && f.words.html && !f.atIssuer }},
	{cause: LoginPage, weight: 84, when: func(f *facts) bool { return f.status/100 == 3 && f.status != 304 && !f.words.failed && f.toLogin() }},
	{cause: WrongEnvironment, weight: 66, when: func(f *facts) bool { return f.status/100 == 3 && api(f) && !f.toLogin() && f.sentElsewhere() }},
	{cause: LoginPage, weight: 60, when: func(f *facts) bool { return f.status/100 == 3 && f.status != 304 && !f.words.failed }},
	{cause: EndpointNotFound, weight: 70, when: func(f *facts) bool { return f.status == 404 && f.scheme != "none" }},
	{cause: EndpointNotFound, weight: 62, when: func(f *facts) bool { return f.status == 404 || f.status == 410 || f.status == 405 || f.status == 501 }},
	{cause: MissingCredentials, weight: 66, when: func(f *facts) bool {
		return f.status == 404 && f.scheme == "none" && f.says("project not found", "repository not found", "not found") && !f.words.html && f.c.Sighting.Fault != nil
	}},
	{cause: EndpointNotFound, weight: 82, when: func(f *facts) bool {
		return f.says("could not find resource for full path", "no handler", "unknown path", "unknown method", "no route matched", "no route", "missing authentication token") && !bearerless(f) || f.tells("invalid endpoint", "unknown endpoint", "endpoint not found", "no such endpoint", "endpoint does not exist", "no such route", "route not found", "no matching route", "no such method", "invalid path", "invalid url", "unknown api", "no such api", "api not found", "unknown action", "unknown route", "unknown url", "unrecognized request url") || f.status == 404 && f.says("cannot get", "cannot post", "no such page", "path not found", "page not found", "route not found")
	}},
	{cause: IDPUnavailable, weight: 84, all: of(cProvider), any: of(cUnavailable, cTimeout, cRefusedConn, cNotFound), when: func(f *facts) bool { return noTLS(f) && f.status != 404 && !f.fromClient() }},
	{cause: IDPUnavailable, weight: 89, all: of(cUnavailable, cIssuer), not: of(cCert), when: func(f *facts) bool { return noTLS(f) && (bearer(f) || f.atIssuer) && !f.fromClient() }},
	{cause: IDPUnavailable, weight: 84, all: of(cUnavailable), any: of(cKid, cKey), when: func(f *facts) bool { return noTLS(f) && bearer(f) }},
	{cause: IDPUnavailable, weight: 90, any: of(cTimeout, cRefusedConn, cNoHost, cReset, cUnavailable), when: func(f *facts) bool { // it cannot fetch the keys to check with
		return f.status >= 500 && !f.atIssuer && f.says("fetching keys", "get keys", "fetch keys", "jwks", "key set", "openid configuration", "discovery", "well known", "introspection", "introspect", "public keys")
	}},
	{cause: IDPUnavailable, weight: 80, words: []string{"500", "502", "503", "504", "service unavailable", "bad gateway", "internal server error"}, when: func(f *facts) bool { return f.atIssuer && f.fromClient() && !f.tls }},
	{cause: IDPUnavailable, weight: 80, when: func(f *facts) bool { return f.atIssuer && f.status >= 500 && f.scheme != "jwt_bearer" }},
	{cause: IDPUnavailable, weight: 62, when: func(f *facts) bool { return f.atIssuer && f.status >= 500 }},
	{cause: IDPUnavailable, weight: 70, when: func(f *facts) bool {
		return f.atIssuer && (f.status == 404 || f.words.html) && f.x != nil && f.x.Stage == evidence.StageDiscovery
	}},
	{cause: IDPUnavailable, weight: 79, all: of(cUnavailable), not: of(cResource), when: func(f *facts) bool { return f.atIssuer && noTLS(f) && !f.fromClient() }},
	{cause: IDPUnavailable, weight: 80, when: func(f *facts) bool { return f.says("org login required", "migration in progress") }},
	{cause: ServerError, weight: 58, when: func(f *facts) bool {
		return f.status >= 400 && f.status != 401 && f.status != 403 && f.says("something went wrong", "unexpected error", "internal error", "internal server error", "unhandled", "exception", "failed dependency")
	}},
	// a gateway waited in vain (RFC 9110 section 15.6.5; Cloudflare 522, 524), found the door shut (521, 523), or knew no name (530)
	{cause: Timeout, weight: 76, when: status(504, 522, 524, 408)},
	{cause: NetworkUnreachable, weight: 76, when: status(521, 523)},
	{cause: ServerError, weight: 68, when: func(f *facts) bool { return f.status >= 500 && !f.atIssuer }},
	{cause: IDPUnavailable, weight: 74, when: func(f *facts) bool {
		return f.status == 500 && bearer(f) && !f.atIssuer && len(f.words.clauses) <= 2 && f.token != nil && !f.expired
	}},
	{cause: IDPUnavailable, weight: 72, when: func(f *facts) bool {
		return f.status == 500 && bearer(f) && !f.atIssuer && f.x != nil && f.x.Body == ""
	}},
	{cause: ServerError, weight: 56, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomBadAnswer && f.fault.Code == "http"
	}},
	{cause: AuthorizationTooOpen, weight: 97, when: symptom(evidence.SymptomGranted)},
	{cause: UnknownUnauthorized, weight: 40, when: func(f *facts) bool { return f.status == 401 }},
	{cause: UnknownUnauthorized, weight: 35, when: func(f *facts) bool { return f.status == 403 || f.refused() }},
	{cause: UnexpectedAnswer, weight: 45, when: symptom(evidence.SymptomUnexpected, evidence.SymptomTooLarge)},
	{cause: UnexpectedAnswer, weight: 55, when: func(f *facts) bool {
		return f.fault != nil && f.fault.Symptom == evidence.SymptomBadAnswer && (f.fault.Code == "body" || f.fault.Code == "gzip")
	}},
	{cause: UnknownUnauthorized, weight: 10},
}

// status says whether an API answered one of these.
func status(list ...int) func(*facts) bool {
	return func(f *facts) bool { return api(f) && slices.Contains(list, f.status) }
}

func bearerless(f *facts) bool { return f.scheme == "none" && !f.says("missing authentication token") }

// toLogin says whether a redirect leads to a page where people log in.
func (f *facts) toLogin() bool {
	for _, v := range f.x.Header["Location"] {
		lower := strings.ToLower(v)
		for _, mark := range []string{"login", "signin", "sign-in", "authorize", "sso", "saml", "oauth", "/auth", "logon", "cas/"} {
			if strings.Contains(lower, mark) {
				return true
			}
		}
	}
	return false
}

// sentElsewhere says whether a redirect leads to another server in the same domain, which answers in place of this one.
func (f *facts) sentElsewhere() bool {
	from, err := url.Parse(f.x.URL)
	if err != nil || len(f.x.Header["Location"]) == 0 {
		return false
	}
	to, err := url.Parse(f.x.Header["Location"][0])
	return err == nil && from.Hostname() != "" && to.Hostname() != "" && from.Hostname() != to.Hostname() && from.Path == to.Path && from.Path != "/" && from.Path != ""
}

func (f *facts) hasOnlyCode(code string) bool {
	return f.hasCode(code) && len(f.words.clauses) == 1
}

func (f *facts) missingScopes() (missing []string) {
	if f.token == nil || len(f.token.Scopes) == 0 {
		return nil
	}
	for _, want := range f.c.Sighting.RequiredScopes {
		found := false
		for _, have := range f.token.Scopes {
			found = found || have == want
		}
		if !found {
			missing = append(missing, want)
		}
	}
	return missing
}

func (f *facts) noted(code string) bool {
	for _, n := range f.c.Sighting.Report.Notes {
		if n.Code == code {
			return true
		}
	}
	return false
}
