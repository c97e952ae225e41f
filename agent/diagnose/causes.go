package diagnose

import "slices"

// A culpritKind says what sort of thing a cause blames, when nothing in the world beside the run points elsewhere.
type culpritKind string

// The things that can be to blame.
const (
	blameEndpoint culpritKind = "endpoint"
	blameIdentity culpritKind = "identity"
	blameIssuer   culpritKind = "issuer"
	blameKeySet   culpritKind = "keyset"
	blameHost     culpritKind = "host"
	blameNetwork  culpritKind = "network"
	blameGateway  culpritKind = "gateway"
)

// The causes. An id once published stays; what each means stands in its runbook.
const (
	TokenExpired              Cause = "token_expired"
	TokenNotYetValid          Cause = "token_not_yet_valid"
	ClockSkew                 Cause = "clock_skew"
	TokenMalformed            Cause = "token_malformed"
	TokenSignatureInvalid     Cause = "token_signature_invalid"
	TokenAlgorithmUnsupported Cause = "token_algorithm_unsupported"
	TokenRevoked              Cause = "token_revoked"
	TokenAudienceMismatch     Cause = "token_audience_mismatch"
	TokenIssuerMismatch       Cause = "token_issuer_mismatch"
	MissingCredentials        Cause = "missing_credentials"
	WrongAuthScheme           Cause = "wrong_auth_scheme"
	APIKeyInvalid             Cause = "api_key_invalid"
	BasicCredentialsInvalid   Cause = "basic_credentials_invalid"
	ClientCredentialsInvalid  Cause = "client_credentials_invalid"
	ClientDisabled            Cause = "client_disabled"
	ClientSecretExpired       Cause = "client_secret_expired"
	GrantNotAllowed           Cause = "grant_not_allowed"
	InvalidGrantExpired       Cause = "invalid_grant_refresh_expired"
	RefreshTokenUncertain     Cause = "refresh_token_uncertain"
	InvalidScope              Cause = "invalid_scope"
	InsufficientScope         Cause = "insufficient_scope"
	PermissionDenied          Cause = "permission_denied"
	WrongEnvironment          Cause = "wrong_environment"
	RequestSignatureInvalid   Cause = "request_signature_invalid"
	RequestTimestampSkew      Cause = "request_timestamp_skew"
	RedirectURIMismatch       Cause = "redirect_uri_mismatch"
	InteractionRequired       Cause = "mfa_or_interaction_required"
	RateLimited               Cause = "rate_limited"
	QuotaExhausted            Cause = "quota_exhausted"
	AccountLocked             Cause = "account_locked"
	TLSCertExpired            Cause = "tls_cert_expired"
	TLSCertNotYetValid        Cause = "tls_cert_not_yet_valid"
	TLSCertExpiring           Cause = "tls_cert_expiring"
	TLSUntrustedChain         Cause = "tls_untrusted_chain"
	TLSIncompleteChain        Cause = "tls_incomplete_chain"
	TLSNameMismatch           Cause = "tls_name_mismatch"
	TLSClientCertRequired     Cause = "tls_client_cert_required"
	TLSClientCertRejected     Cause = "tls_client_cert_rejected"
	TLSRevoked                Cause = "tls_revoked"
	TLSWeak                   Cause = "tls_weak"
	TLSRenewedNotDeployed     Cause = "tls_renewed_not_deployed"
	TLSCertMalformed          Cause = "tls_cert_malformed"
	TLSStartTLSUnavailable    Cause = "tls_starttls_unavailable"
	TLSStapleUnusable         Cause = "tls_staple_unusable"
	TLSFleetInconsistent      Cause = "tls_fleet_inconsistent"
	TLSFileUnreadable         Cause = "tls_file_unreadable"
	ProxyAuthRequired         Cause = "proxy_auth_required"
	BlockedByGateway          Cause = "blocked_by_gateway"
	IDPUnavailable            Cause = "idp_unavailable"
	NetworkUnreachable        Cause = "network_unreachable"
	DNSFailure                Cause = "dns_failure"
	Timeout                   Cause = "timeout"
	LoginPage                 Cause = "login_page_instead_of_api"
	EndpointNotFound          Cause = "endpoint_not_found"
	ServerError               Cause = "server_error"
	UnknownUnauthorized       Cause = "unknown_unauthorized"
	TokenExpiring             Cause = "token_expiring"
	TokenLifetimeDisagreement Cause = "token_lifetime_disagreement"
	TokenLifetimeShrunk       Cause = "token_lifetime_shrunk"
	CredentialExpiring        Cause = "credential_expiring"
	SecretRotationDue         Cause = "secret_rotation_due"
	NextSecretRefused         Cause = "next_secret_refused"
	SecretSuperseded          Cause = "secret_superseded"
	SecretUnavailable         Cause = "secret_unavailable"
	SecretStoreUnavailable    Cause = "secret_store_unavailable"
	ClockUnsynchronised       Cause = "clock_unsynchronised"
	NTPFalseticker            Cause = "ntp_falseticker"
	NTPUnavailable            Cause = "ntp_unavailable"
	JWKSKeyMissing            Cause = "jwks_key_missing"
	JWKSUnusable              Cause = "jwks_unusable"
	IssuerDrift               Cause = "issuer_drift"
	IssuerMetadataChanged     Cause = "issuer_metadata_changed"
	DiscoveryUnusable         Cause = "discovery_unusable"
	AlgorithmChanged          Cause = "algorithm_changed"
	JWKSPrivateKey            Cause = "jwks_private_key_published"
	JWKSKeyRemovedEarly       Cause = "jwks_key_removed_early"
	JWKSKeyReused             Cause = "jwks_key_reused"
	JWKSKeyWeak               Cause = "jwks_key_weak"
	JWKSKeyUnusable           Cause = "jwks_key_unusable"
	JWKSCacheUnsuitable       Cause = "jwks_cache_unsuitable"
	AuthorizationTooOpen      Cause = "authorization_too_open"
	PKCENotEnforced           Cause = "pkce_not_enforced"
	RevokedTokenAccepted      Cause = "revoked_token_accepted"
	StateNotPreserved         Cause = "state_not_preserved"
	HeaderStripped            Cause = "header_stripped"
	StaleJWKSAtAPI            Cause = "stale_jwks_at_api"
	LocalResources            Cause = "local_resources"
	LogUnreadable             Cause = "log_unreadable"
	UnexpectedAnswer          Cause = "unexpected_answer"
)

// An About is what is always true of a cause.
type About struct {
	Title  string // what happened, in a few words
	Remedy string // one action
	blame  culpritKind
}

// causes is the table of all causes. Each has a runbook of its name.
var causes = map[Cause]About{
	TokenExpired:              {"the token is past its end", "obtain a new token; refresh it earlier, before exp", blameIdentity},
	TokenNotYetValid:          {"the token is not valid yet", "wait for nbf, or correct the issuer that sets it ahead; compare the clocks", blameIssuer},
	ClockSkew:                 {"a clock is wrong", "synchronise the clock that the evidence names (chronyc tracking, timedatectl), and allow some leeway", blameHost},
	TokenMalformed:            {"the token or its header cannot be parsed", "send the whole token, once, in the right form; look for line breaks, quotes and missing claims", blameIdentity},
	TokenSignatureInvalid:     {"the signature of the token does not verify", "compare kid and issuer of the token with the key set that the API uses; reload that key set", blameIdentity},
	TokenAlgorithmUnsupported: {"the algorithm of the token is not accepted", "sign with an algorithm that the API accepts", blameIssuer},
	TokenRevoked:              {"the token was withdrawn before its end", "log in again for a new token, and find out who revoked it", blameIdentity},
	TokenAudienceMismatch:     {"the token is for another audience", "ask the issuer for a token with this API's audience (audience, resource or scope)", blameIdentity},
	TokenIssuerMismatch:       {"the token comes from another issuer than the API trusts", "use the issuer that the API trusts; compare iss to the letter, trailing slash included", blameIdentity},
	MissingCredentials:        {"no credential reached the server", "send the credential; look for proxies that strip the header", blameIdentity},
	WrongAuthScheme:           {"a credential of the wrong kind was sent", "use the scheme that the server asks for", blameIdentity},
	APIKeyInvalid:             {"the API key is unknown or wrong", "put a valid key in place", blameIdentity},
	BasicCredentialsInvalid:   {"user name or password is wrong", "correct the user name or the password, before the account is locked", blameIdentity},
	ClientCredentialsInvalid:  {"the OAuth client id, secret or assertion is wrong", "compare client id, secret and client authentication method with the registration at the issuer", blameIdentity},
	ClientDisabled:            {"the client, account or subscription is switched off", "have it enabled or renewed; the secret is not at fault", blameIdentity},
	ClientSecretExpired:       {"the client secret has run out", "make a new client secret at the issuer and roll it out", blameIdentity},
	GrantNotAllowed:           {"the client may not use this grant", "allow the grant in the client's registration, or use another", blameIdentity},
	InvalidGrantExpired:       {"the refresh token or code is expired or used up", "run the consent again, and store each rotated refresh token", blameIdentity},
	RefreshTokenUncertain:     {"whether the refresh token was used up is not known", "run the consent again and put the new refresh token in place; the old one is not sent, because using it twice revokes the grant", blameIdentity},
	InvalidScope:              {"a scope that was asked for does not exist or is not allowed", "ask for scopes that the client is registered for", blameIdentity},
	InsufficientScope:         {"the token lacks a scope", "obtain a token with the scope that the endpoint needs", blameIdentity},
	PermissionDenied:          {"the identity is known and lacks the right", "grant the role or right on the object", blameIdentity},
	WrongEnvironment:          {"the credential belongs to another environment", "use the host, region or tenant that the credential belongs to", blameIdentity},
	RequestSignatureInvalid:   {"the signature over the request does not match", "check the signing secret, the canonical form, and what proxies change on the way", blameIdentity},
	RequestTimestampSkew:      {"the timestamp of the request is outside the window", "synchronise the clock, check unit and zone of the timestamp, and sign anew for each try", blameHost},
	RedirectURIMismatch:       {"the redirect URI is not the registered one", "use the registered redirect URI, the same in both steps, to the letter", blameIdentity},
	InteractionRequired:       {"a person has to do something first", "complete the second factor, consent or new password, or use an account that is meant for machines", blameIdentity},
	RateLimited:               {"too many requests", "slow down and wait as Retry-After says, or have the limit raised", blameIdentity},
	QuotaExhausted:            {"the quota is used up", "wait for the next period, or have the quota raised", blameIdentity},
	AccountLocked:             {"the account is locked", "stop trying, have the account unlocked, then correct the password", blameIdentity},
	TLSCertExpired:            {"the server's certificate is expired", "renew and deploy the certificate (look at the local clock first)", blameEndpoint},
	TLSCertNotYetValid:        {"the server's certificate is not valid yet", "wait, or deploy one that is; look at the clocks", blameEndpoint},
	TLSCertExpiring:           {"the server's certificate ends soon", "find out why it was not renewed, and renew it", blameEndpoint},
	TLSUntrustedChain:         {"the server's chain is not trusted", "install the CA (ca_file), and look for TLS inspection on the way", blameEndpoint},
	TLSIncompleteChain:        {"the server does not send its intermediate certificate", "configure the server to send its whole chain", blameEndpoint},
	TLSNameMismatch:           {"the certificate is for another name", "correct the name, the certificate or the routing", blameEndpoint},
	TLSClientCertRequired:     {"the server wants a client certificate and got none", "configure a client certificate", blameIdentity},
	TLSClientCertRejected:     {"the client certificate was refused", "renew the client certificate, or have its CA accepted by the server", blameIdentity},
	TLSRevoked:                {"the server's certificate is revoked", "replace the certificate and its key", blameEndpoint},
	TLSWeak:                   {"protocol, key or signature are too weak", "raise the server to TLS 1.2 or 1.3 with a strong key", blameEndpoint},
	TLSRenewedNotDeployed:     {"the certificate was renewed and is not served", "reload the server so that it serves the new certificate", blameEndpoint},
	TLSCertMalformed:          {"a certificate of the server cannot be parsed", "have the certificate issued again in a form that follows RFC 5280, and take strangers out of the chain", blameEndpoint},
	TLSStartTLSUnavailable:    {"the server does not begin TLS when asked", "switch STARTTLS on at the server, and look for middleboxes that strip it", blameEndpoint},
	TLSStapleUnusable:         {"the stapled OCSP answer is missing, out of date or not valid", "let the server fetch a new OCSP answer; look at its way to the responder", blameEndpoint},
	TLSFleetInconsistent:      {"the addresses of the server show different certificates", "deploy the same certificate to every address", blameEndpoint},
	TLSFileUnreadable:         {"a file gives no certificates", "write the file whole, in a form that is known, readable for authvigil, and give its passphrase", blameEndpoint},
	ProxyAuthRequired:         {"the proxy on the way wants credentials", "give the proxy's credentials", blameNetwork},
	BlockedByGateway:          {"a gateway refused before the credential was looked at", "change the client's manner or the gateway's rule; do not rotate secrets", blameGateway},
	IDPUnavailable:            {"the identity provider cannot be used", "restore the identity provider or the path to it; the credentials are not at fault", blameIssuer},
	NetworkUnreachable:        {"no connection", "repair the service or the network on the way to it", blameEndpoint},
	DNSFailure:                {"the name does not resolve", "correct the name or the resolver", blameNetwork},
	Timeout:                   {"no answer in time", "look at the reachability and the load of the server", blameEndpoint},
	LoginPage:                 {"a login page in place of the API's answer", "authenticate in the way the front end wants, and check the path", blameGateway},
	EndpointNotFound:          {"there is nothing at this path", "correct the URL, method or version", blameEndpoint},
	ServerError:               {"the server fails by itself", "look at the server's log, and tell its operator", blameEndpoint},
	UnknownUnauthorized:       {"refused, and the evidence does not tell why", "decode the token, look at the server's log, and try once more with another credential", blameEndpoint},
	TokenExpiring:             {"the token has too little life left", "ask for a longer life, or refresh in the middle of long work", blameIdentity},
	TokenLifetimeDisagreement: {"the issuer says that tokens live longer than they do", "make expires_in of the token endpoint agree with exp of the token", blameIssuer},
	TokenLifetimeShrunk:       {"the issuer gives tokens a much shorter life than before", "find out whether the change was meant; look at long work, refresh rates and limits of the token endpoint", blameIssuer},
	CredentialExpiring:        {"the credential itself ends soon", "replace it before its end", blameIdentity},
	SecretRotationDue:         {"the secret is older than it should be", "rotate the secret", blameIdentity},
	NextSecretRefused:         {"the secret that should follow is not accepted", "make the new secret valid at the server, or correct next_secret, before the one in use is withdrawn", blameIdentity},
	SecretSuperseded:          {"the secret in use was withdrawn, and its successor is accepted", "put next_secret in the place of the secret, here and wherever the old one is still used", blameIdentity},
	SecretUnavailable:         {"the secret cannot be read", "put the secret where its reference points, readable by the user authvigil runs as", blameIdentity},
	SecretStoreUnavailable:    {"the place where a secret is kept does not answer", "make the secret store or program work again; nothing is known of what was to be asked with the secret", blameHost},
	ClockUnsynchronised:       {"nobody disciplines the local clock", "start chronyd or systemd-timesyncd and give it reachable servers", blameHost},
	NTPFalseticker:            {"a time server is wrong", "take the server out, or tell its operator", blameNetwork},
	NTPUnavailable:            {"no reliable word about the time", "make at least three time servers reachable (UDP port 123)", blameNetwork},
	JWKSKeyMissing:            {"the key that signed the token is not published", "publish the key at jwks_uri before signing with it", blameKeySet},
	JWKSUnusable:              {"the published key set cannot be used", "publish a key set (RFC 7517) of well-formed keys", blameKeySet},
	IssuerDrift:               {"the issuer's metadata is not what it was or should be", "compare the metadata with what clients are configured for", blameIssuer},
	IssuerMetadataChanged:     {"the issuer's metadata are not what they were", "find out whether the change was meant, and change the clients that hold the old value", blameIssuer},
	DiscoveryUnusable:         {"the issuer's metadata cannot be used", "serve the metadata as JSON at the well-known address, without a redirect or a login in front", blameIssuer},
	AlgorithmChanged:          {"tokens are signed with another algorithm than before", "allow the new algorithm at every verifier, or go back to the old one until that is done", blameIssuer},
	JWKSPrivateKey:            {"a private key is published in the key set", "withdraw the key at once, sign with a new one, and treat every token as forged that the old one signed", blameKeySet},
	JWKSKeyRemovedEarly:       {"a key was withdrawn before its tokens ended", "publish the key again until its last token has ended", blameKeySet},
	JWKSKeyReused:             {"a key id names two different keys", "give every key a kid of its own; never use one again", blameKeySet},
	JWKSKeyWeak:               {"a published key is too weak", "sign with RSA of at least 2048 bits or an elliptic curve, and withdraw the weak key", blameKeySet},
	JWKSKeyUnusable:           {"a published key cannot be used by verifiers", "correct or withdraw the key; some verifiers refuse the whole set for it", blameKeySet},
	JWKSCacheUnsuitable:       {"caches keep the key set longer than its keys allow", "shorten max-age of the key set, publish keys longer before they sign, and empty the cache on the way", blameKeySet},
	AuthorizationTooOpen:      {"access that should be refused is granted", "close the endpoint to this identity, and find out since when it is open", blameEndpoint},
	PKCENotEnforced:           {"the issuer does not insist on PKCE", "demand a code challenge with method S256 from this client (RFC 7636)", blameIssuer},
	RevokedTokenAccepted:      {"a revoked token is still accepted", "let the API ask the issuer about tokens, or keep their life as short as the harm that a stolen one may do", blameEndpoint},
	StateNotPreserved:         {"state does not come back as it was sent", "return state unchanged (RFC 6749 section 4.1.2); clients rely on it against forged answers", blameIssuer},
	HeaderStripped:            {"the Authorization header is lost on the way", "let the proxy pass the Authorization header on", blameGateway},
	StaleJWKSAtAPI:            {"the API verifies with an old key set", "make the API reload the issuer's key set", blameEndpoint},
	LogUnreadable:             {"the log or its counters cannot be read", "make the log readable for authvigil, and give the format that it is written in", blameEndpoint},
	LocalResources:            {"this machine lacks something", "look at the limits of the unit and the machine: open files, memory, resolver", blameHost},
	UnexpectedAnswer:          {"the answer is another than expected", "compare the answer with expect_status and expect_body of the probe", blameEndpoint},
}

// Causes lists all causes, sorted.
func Causes() []Cause {
	list := make([]Cause, 0, len(causes))
	for c := range causes {
		list = append(list, c)
	}
	slices.Sort(list)
	return list
}

// Describe gives what is always true of a cause.
func Describe(c Cause) (About, bool) {
	about, ok := causes[c]
	return about, ok
}
