package diagnose

import "strings"

// documentedCodes are error codes whose meaning their vendor documents, in normal form. They are looked for as codes and
// as words of the text; general rules know nothing of them, and they of no sentence.
var documentedCodes = map[string]Cause{
	// Microsoft Entra: learn.microsoft.com/entra/identity-platform/reference-error-codes
	"aadsts7000215": ClientCredentialsInvalid, "aadsts7000222": ClientSecretExpired, "aadsts700016": ClientCredentialsInvalid, "aadsts90002": WrongEnvironment,
	"aadsts700024": ClockSkew, "aadsts700027": ClientCredentialsInvalid, "aadsts70011": InvalidScope, "aadsts500011": InvalidScope, "aadsts50034": BasicCredentialsInvalid,
	"aadsts50053": AccountLocked, "aadsts50055": InteractionRequired, "aadsts50056": BasicCredentialsInvalid, "aadsts50057": ClientDisabled, "aadsts50058": InteractionRequired,
	"aadsts50074": InteractionRequired, "aadsts50076": InteractionRequired, "aadsts50079": InteractionRequired, "aadsts50105": PermissionDenied, "aadsts501051": PermissionDenied, "aadsts50126": BasicCredentialsInvalid,
	"aadsts50173": InvalidGrantExpired, "aadsts53000": InteractionRequired, "aadsts53003": InteractionRequired, "aadsts65001": InteractionRequired, "aadsts70000": InvalidGrantExpired,
	"aadsts700082": InvalidGrantExpired, "aadsts70008": InvalidGrantExpired, "aadsts7000112": ClientDisabled, "aadsts70043": InvalidGrantExpired, "aadsts70002": ClientCredentialsInvalid,
	"aadsts50011": RedirectURIMismatch, "aadsts50020": WrongEnvironment, "aadsts50128": WrongEnvironment, "aadsts90014": ClientCredentialsInvalid, "aadsts9002313": TokenMalformed,
	"aadsts50013": TokenSignatureInvalid, "aadsts500133": TokenExpired, "aadsts700054": GrantNotAllowed, "aadsts7000218": ClientCredentialsInvalid, "aadsts70001": ClientCredentialsInvalid,
	"aadsts65004": InteractionRequired, "aadsts90033": IDPUnavailable, "aadsts90072": WrongEnvironment, "aadsts700025": GrantNotAllowed, "aadsts700030": ClientCredentialsInvalid,
	"aadsts53001": InteractionRequired, "aadsts50078": InteractionRequired, "aadsts50072": InteractionRequired, "aadsts80012": PermissionDenied, "aadsts54005": InvalidGrantExpired, "aadsts90019": WrongEnvironment,
	"aadsts900023": WrongEnvironment, "aadsts500212": ClientDisabled, "aadsts50097": InteractionRequired, "aadsts50158": InteractionRequired, "aadsts80013": ClockSkew, "aadsts700003": ClientDisabled, "aadsts90061": IDPUnavailable, "aadsts50196": RateLimited,
	// Okta: developer.okta.com/docs/reference/error-codes
	"e0000004": BasicCredentialsInvalid, "e0000005": TokenExpired, "e0000006": PermissionDenied, "e0000007": EndpointNotFound, "e0000011": APIKeyInvalid, "e0000013": ClientCredentialsInvalid,
	"e0000015": PermissionDenied, "e0000022": EndpointNotFound, "e0000038": PermissionDenied, "e0000047": RateLimited, "e0000069": AccountLocked, "e0000119": AccountLocked,
	"e0000014": BasicCredentialsInvalid, "e0000064": InteractionRequired, "e0000068": InteractionRequired, "e0000009": ServerError, "e0000010": ServerError,
	// AWS: docs.aws.amazon.com common errors, S3 error responses, STS, API Gateway
	"signature does not match": RequestSignatureInvalid, "request time too skewed": RequestTimestampSkew, "expired token": TokenExpired, "expired token exception": TokenExpired,
	"invalid access key id": APIKeyInvalid, "invalid client token id": APIKeyInvalid, "incomplete signature": RequestSignatureInvalid, "incomplete signature exception": RequestSignatureInvalid,
	"request expired": RequestTimestampSkew, "opt in required": ClientDisabled, "auth failure": APIKeyInvalid, "access denied exception": PermissionDenied, "unrecognized client exception": APIKeyInvalid,
	"invalid signature exception": RequestSignatureInvalid, "throttling exception": RateLimited, "throttling": RateLimited, "too many requests exception": RateLimited, "request limit exceeded": RateLimited,
	"provisioned throughput exceeded exception": RateLimited, "user not confirmed exception": InteractionRequired, "password reset required exception": InteractionRequired, "authorization header malformed": WrongEnvironment,
	"invalid identity token": TokenMalformed, "invalid identity token exception": TokenMalformed, "missing authentication token exception": MissingCredentials, "account problem": ClientDisabled, "not signed up": ClientDisabled,
	"illegal location constraint exception": WrongEnvironment, "permanent redirect": WrongEnvironment, "invalid token id": APIKeyInvalid, "token refresh required": TokenExpired, "request in the future": RequestTimestampSkew,
	// Google: cloud.google.com/apis/design/errors, ErrorInfo reasons
	"api key invalid": APIKeyInvalid, "access token expired": TokenExpired, "access token scope insufficient": InsufficientScope, "access token type unsupported": WrongAuthScheme,
	"account state invalid": ClientDisabled, "consumer suspended": ClientDisabled, "consumer invalid": WrongEnvironment, "service disabled": PermissionDenied, "rate limit exceeded": RateLimited,
	"resource quota exceeded": RateLimited, "credentials missing": MissingCredentials, "api key service blocked": PermissionDenied, "api key http referrer blocked": BlockedByGateway, "api key ip address blocked": BlockedByGateway,
	"user project denied": PermissionDenied, "iam permission denied": PermissionDenied, "security policy violated": BlockedByGateway, "location policy violated": BlockedByGateway, "invalid rapt": InteractionRequired, "rapt required": InteractionRequired,
	"user rate limit exceeded": RateLimited, "daily limit exceeded": RateLimited, "quota exceeded": RateLimited, "access not configured": ClientDisabled, "key invalid": APIKeyInvalid, "key expired": TokenExpired, "org internal": PermissionDenied,
	// Salesforce: REST API status codes and error responses
	"invalid session id": TokenExpired, "invalid login": BasicCredentialsInvalid, "api disabled for org": ClientDisabled, "api currently disabled": ClientDisabled, "inactive user": ClientDisabled, "inactive org": ClientDisabled,
	// Slack: api.slack.com/methods, errors
	"not authed": MissingCredentials, "invalid auth": APIKeyInvalid, "account inactive": ClientDisabled, "token revoked": TokenRevoked, "missing scope": InsufficientScope, "not allowed token type": WrongAuthScheme, "ratelimited": RateLimited, "ekm access denied": PermissionDenied, "org login required": IDPUnavailable, "two factor setup required": InteractionRequired,
	// Apigee: cloud.google.com/apigee/docs/api-platform/reference/policies, fault codes
	"keymanagement service invalid api call as no api product match found": PermissionDenied, "keymanagement service developer status not active": ClientDisabled, "keymanagement service access token expired": TokenExpired, "messaging adaptors http flow application not found": EndpointNotFound,
	"keymanagement service invalid client app not approved": ClientDisabled, "oauth v2 insufficient scope": InsufficientScope, "steps jwt token expired": TokenExpired, "steps jwt token not yet valid": TokenNotYetValid, "steps jwt invalid claim": TokenMalformed,
	// X.509 chain status of .NET, NSURLError of Apple, errors of Chromium: learn.microsoft.com X509ChainStatusFlags, developer.apple.com, net_error_list.h
	"not time valid": TLSCertExpired, "partial chain": TLSUntrustedChain, "untrusted root": TLSUntrustedChain,
	// Active Directory: learn.microsoft.com, LDAP bind errors, the number behind "AcceptSecurityContext error, data"
	"ldap 525": BasicCredentialsInvalid, "ldap 52e": BasicCredentialsInvalid, "ldap 530": PermissionDenied, "ldap 531": PermissionDenied, "ldap 532": InteractionRequired, "ldap 533": ClientDisabled, "ldap 701": ClientDisabled, "ldap 773": InteractionRequired, "ldap 775": AccountLocked,
	// Docker registry (OCI distribution spec, error codes)
	"toomanyrequests": RateLimited, "denied": PermissionDenied,
	// Discord, Binance-like exchanges, Tencent, Alibaba: named codes that are sentences in themselves
	"invalid time stamp expired": RequestTimestampSkew, "illegal timestamp": RequestTimestampSkew, "auth failure signature expire": RequestTimestampSkew, "auth failure signature failure": RequestSignatureInvalid, "auth failure secret id not found": APIKeyInvalid, "auth failure token failure": TokenExpired,
	"invalid access key id not found": APIKeyInvalid, "invalid security token expired": TokenExpired, "sdk signature does not match": RequestSignatureInvalid,
}

// documentedWeight is that of a documented code: above general words, below arithmetic on clocks.
const documentedWeight = 89

// documented looks for a documented code: as a code, or, where codes cannot be mistaken for words, anywhere in the text.
func (f *facts) documented() (found candidate) {
	take := func(code string, weight int) {
		if cause, ok := documentedCodes[code]; ok && (found.cause == "" || found.words == wrapper) {
			found = candidate{cause, weight, code}
		}
	}
	for _, cl := range f.words.clauses {
		if cl.code && !numbered(cl.text) {
			take(cl.text, documentedWeight)
		}
	}
	for _, cl := range f.words.clauses {
		if _, data, ok := strings.Cut(cl.text, "accept security context error data "); ok {
			code, _, _ := strings.Cut(data, " ")
			take("ldap "+code, documentedWeight+1)
		}
		for word := range strings.SplitSeq(cl.text, " ") {
			if numbered(word) {
				take(word, documentedWeight+1)
			}
		}
	}
	return found
}

func numbered(word string) bool {
	return strings.HasPrefix(word, "aadsts") || strings.HasPrefix(word, "e00000")
}

// wrapper is a code that stands before the one that says why.
const wrapper = "aadsts70002"
