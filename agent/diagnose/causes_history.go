package diagnose

// What people and recorded evidence say of the time before a failure, or of what was seen beside it, counts where the answer itself is
// vague: it weighs more than the guess from a status (up to 71) and less than words that name a cause (80 and more).

// vague says whether the answer names nothing particular beyond that it refuses.
func vague(f *facts) bool {
	return (f.refused() || f.status/100 == 4 || f.status >= 500) && !f.all.any(of(cExpired, cNotYet, cRevoked, cAudience, cIssuer, cSignature, cKid, cAlgorithm, cMalformed, cScope, cRate, cQuota, cLocked, cDisabled, cCSRF, cInteraction, cRedirect))
}

// spent are ways to say that something worked for as long as it was fresh.
var spent = []string{"expired", "expires", "ran out", "run out", "has ended", "older than", "days ago", "day ago", "hours ago", "hour ago", "months ago", "month ago", "weeks ago", "minutes ago", "year ago", "years ago", "longer ago", "worked for some", "worked for about", "worked for an", "worked for one", "works for about", "works for an hour", "works for one hour", "works for some", "after one hour", "after an hour", "after about an hour", "after about one hour", "after a day", "after one day", "after some hours", "after some minutes", "after a few", "after 60 minutes", "after 24 hours", "after 30 minutes", "after 15 minutes", "when just made", "when fresh", "overnight", "next morning", "every hour", "a new token works", "a fresh token works", "new login helps", "logging in again helps", "the lifetime", "long running", "had been idle", "was idle", "not used for", "unused for", "inactive for"}

// historyRows: what was seen before or beside.
var historyRows = []row{
	{cause: ClockSkew, weight: 89, before: []string{"clock", "clocks", "system time", "ntp", "time zone", "timezone", "wsl", "wsl2", "laptop sleeps", "time was wrong", "time was off", "time is wrong", "date was wrong", "date of the phone", "date of the machine", "date of the device", "date was set", "wrong date", "time was set", "minutes ahead", "minutes behind", "seconds ahead", "seconds behind", "seconds fast", "seconds slow", "hours off", "minutes off", "hour ahead", "hour behind", "time drift", "out of sync"}, when: func(f *facts) bool {
		return !f.signed && !f.clockCleared() && (vague(f) || f.refused() && f.all.any(of(cExpired, cNotYet, cTime)) || f.tls && !f.all.any(of(cHostname)))
	}},
	{cause: RequestTimestampSkew, weight: 88, before: []string{"clock", "clocks", "system time", "ntp", "time zone", "timezone", "minutes ahead", "minutes behind", "seconds ahead", "seconds behind", "seconds fast", "seconds slow", "hours off", "minutes off", "time drift", "out of sync"}, when: func(f *facts) bool {
		return f.signed && !f.clockCleared() && vague(f)
	}},
	{cause: ClientSecretExpired, weight: 79, before: []string{"secret expired", "secret has expired", "secret had expired", "secret ran out", "secret has run out", "secret was older", "certificate of the client expired", "secret is older", "secret was made two years ago", "secret expires"}, when: func(f *facts) bool { return f.atIssuer && vague(f) }},
	{cause: InvalidGrantExpired, weight: 76, before: spent, when: func(f *facts) bool { return f.atIssuer && f.scheme == "refresh_token" && vague(f) }},
	{cause: TokenExpired, weight: 75, before: spent, when: func(f *facts) bool {
		return !f.atIssuer && !f.signed && f.scheme != "basic" && vague(f) && f.status != 404
	}},
	{cause: TokenRevoked, weight: 77, before: []string{"revoked", "logged out", "log out", "password was changed", "password had been changed", "changed the password", "changed password", "password changed", "was uninstalled", "removed the app", "was rotated", "signed in elsewhere", "logged in elsewhere", "another login", "second login", "newer token", "a new token was", "token was deleted", "token was regenerated", "user was deleted", "account was deleted", "was invalidated", "fetches its own token"}, when: func(f *facts) bool {
		return (bearer(f) || f.scheme == "session" || f.scheme == "refresh_token") && vague(f)
	}},
	{cause: TokenSignatureInvalid, weight: 77, before: []string{"keys were rotated", "key was rotated", "key rotation", "rotated its keys", "rotated keys", "signing key", "signing keys", "new keys", "old keys", "key set", "jwks", "realm was recreated", "secret was changed on the server", "server was restarted with a new key"}, when: func(f *facts) bool { return bearer(f) && api(f) && vague(f) }},
	{cause: WrongEnvironment, weight: 73, before: []string{"sandbox", "staging", "test key", "live key", "test account", "other region", "another region", "different region", "eu host", "us host", "another tenant", "other tenant", "different tenant", "wrong tenant", "other data centre", "other datacenter", "other environment", "other cluster", "another cluster", "production key", "production credentials", "made in", "created in", "issued in"}, when: func(f *facts) bool { return vague(f) && f.status < 500 && f.status != 404 }},
	{cause: BlockedByGateway, weight: 77, before: []string{"vpn", "other location", "other locations", "another network", "other network", "in a browser", "in the browser", "from a browser", "user agent", "from home", "from a server", "data centre", "datacenter", "cloud host", "cloud server", "another ip", "other ip", "ip address", "waf", "cloudflare", "bot", "cached", "cache", "anonymous call", "firewall"}, when: func(f *facts) bool {
		return vague(f) && !f.atIssuer && (f.status == 401 || f.status == 403 || f.status == 406 || f.status == 429 || f.status == 503) || vague(f) && f.status == 403
	}},
	{cause: MissingCredentials, weight: 76, before: []string{"no authorization header", "passes no authorization", "strips", "stripped", "drops the", "dropped the", "header was lost", "header is lost", "removes the authorization", "does not forward", "not forwarded", "without the proxy it works", "directly it works", "after a redirect", "followed a redirect", "cookie was not sent", "variable was empty", "was empty", "was not set", "is not sent", "was not sent"}, when: func(f *facts) bool { return !f.atIssuer && vague(f) && f.status != 404 }},
	{cause: WrongAuthScheme, weight: 74, before: []string{"id token was sent", "refresh token was sent", "was sent in place of", "was sent instead of", "instead of an access token", "instead of the access token", "in place of an", "as a bearer token", "as basic", "wrong header", "another header"}, when: func(f *facts) bool { return api(f) && vague(f) && f.status != 404 }},
	{cause: ClientDisabled, weight: 75, before: []string{"trial", "subscription ended", "subscription expired", "invoice", "unpaid", "account was closed", "was suspended", "was disabled", "was deactivated", "plan ended"}, when: func(f *facts) bool { return vague(f) && f.status != 404 }},
	{cause: RateLimited, weight: 75, before: []string{"many calls", "many requests", "requests per", "calls per", "burst", "in a loop", "in parallel", "calls within", "requests within", "too often", "polling"}, when: func(f *facts) bool {
		return vague(f) && (f.status == 401 || f.status == 403 || f.status == 503 || f.status == 400)
	}},
	{cause: PermissionDenied, weight: 74, before: []string{"role", "permission", "not a member", "group", "access was removed", "another user can", "the owner can", "an admin can", "administrator can"}, when: func(f *facts) bool {
		return vague(f) && api(f) && (f.status == 401 || f.status == 403) && f.scheme != "none"
	}},
	{cause: InteractionRequired, weight: 75, before: []string{"two factor", "mfa", "2fa", "second factor", "consent", "conditional access"}, when: func(f *facts) bool { return vague(f) && f.status != 404 }},
	{cause: IDPUnavailable, weight: 75, before: []string{"identity provider is down", "identity provider was", "idp is down", "idp was", "could not be resolved", "key set could not", "keys could not be fetched", "discovery timed out", "introspection timed out", "was restarting"}, when: func(f *facts) bool {
		return vague(f) && (bearer(f) || f.atIssuer || f.status >= 500)
	}},
}

// clockCleared says whether the clock was looked at and found right.
func (f *facts) clockCleared() bool {
	return f.clockRight() || holdsOne(f.historyRaw, []string{"clock is right", "clock was right", "clock is correct", "clock was correct", "clocks agree", "clocks are right", "clock is in sync", "clocks are in sync", "clock is synchronised", "clock is synchronized", "clocks are synchronised", "clocks are synchronized"})
}
