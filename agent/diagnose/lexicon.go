package diagnose

import "strings"

// A concept is something that servers speak about when they refuse, whatever their words for it.
type concept uint8

// The concepts: what is spoken about, and what is said about it.
const (
	cToken concept = iota
	cRefresh
	cCode
	cKey
	cSecret
	cClient
	cUser
	cPassword
	cCredential
	cCert
	cSignature
	cScope
	cPermission
	cAudience
	cIssuer
	cAlgorithm
	cKid
	cTime
	cNonce
	cHeader
	cScheme
	cRedirect
	cGrant
	cRate
	cQuota
	cRegion
	cCSRF
	cIP
	cGateway
	cProxy
	cInteraction
	cLogin
	cSession
	cRequest
	cProvider
	cSubscription
	cResource
	cClientCert
	cExpired
	cRevoked
	cInvalid
	cMalformed
	cMissing
	cNotYet
	cUnsupported
	cDenied
	cLocked
	cDisabled
	cNotFound
	cMismatch
	cTooMany
	cUnavailable
	cSelfSigned
	cUntrusted
	cTimeout
	cRefusedConn
	cNoHost
	cReset
	cBasic
	cBearer
	cUsed
	cAnonymous
	cLifetime
	cHostname
	concepts // how many
)

// A set of concepts.
type set uint64

func of(list ...concept) (s set) {
	for _, c := range list {
		s |= 1 << c
	}
	return s
}

func (s set) has(all set) bool { return s&all == all }
func (s set) any(of set) bool  { return s&of != 0 }

// subjects are the concepts that can be spoken about, as against what is said of them.
const subjects = set(1)<<cExpired - 1

// lexicon gives the words and phrases for each concept, in normal form: small letters, single spaces.
var lexicon = func() map[string]set {
	m := map[string]set{}
	for c, phrases := range map[concept]string{
		cToken: `
			access token, access tokens, accesstoken, api session, apptoken, assertion, auth key token, auth token, authtoken, bearer,
			bearer assertion, bearer token, bearer tokens, client assertion, cookie token, credential token, delegation token, id token, id tokens,
			identity token, idtoken, jeton, jws, jwt, jwt not active, jwt token, jwts, login token, oauth token, passport, pat,
			personal access token, saml assertion, saml response, saml token, sas token, security ticket, security token, session token, sso token,
			ticket, token, token not active, tokens, user token, web token, zugriffstoken`,
		cRefresh: `refresh, refresh grant, refresh token, refresh tokens, refreshtoken, rt`,
		cCode: `
			auth code, authcode, authorization code, authorization grant, code challenge, code passed, code verifier, device code, pkce,
			verification code`,
		cKey: `
			access id, access key, access key id, access token id, accessid, accesskey, accesskeyid, ak, api access key, api credential,
			api credentials, api id, api key, api keys, api schlussel, api secret, api token, api user, apiid, apikey, apitoken, app id, app key,
			appid, appkey, application key, auth key, authkey, authorization key, chave, chave de api, chiave, clave, clave api, cle, cle api,
			client key, client token id, connector key, consumer key, developer key, ingest key, ingestion key, integration key, key, keys,
			licence, license, license key, master key, merchant key, org key, partner key, private api key, project id, project key,
			public api key, read key, rest key, schlussel, secret key, secretid, server key, service key, service token, site key,
			subscription key, webhook secret, write key, x api key`,
		cSecret: `admin secret, client secret, client secret keys, clientsecret, keys for app, secret, secret hash, secrets`,
		cClient: `
			app, application, applications, client, client id, client identifier, clientid, clients, consumer, incorrect client credentials,
			integration, oauth client, relying party, service principal, software, unauthorized client`,
		cUser: `
			account, account has been terminated, account terminated, account was terminated, accounts, agent, benutzer, benutzerkonto,
			benutzername, compte, conta, cuenta, customer, developer, device account, e mail, email, email address, employee, employee id,
			gebruiker, identity, konto, login id, login name, loginid, member, merchant account, operator, organisation, organization, owner,
			person, principal, profile, resource owner, service account, staff, subscriber, tenant admin, uid, user, user account, user id,
			user name, userid, username, users, usuario, utente, utilisateur, workspace`,
		cPassword: `contrasena, kennwort, mot de passe, passphrase, passwd, password, passwords, passwort, pwd, senha, wachtwoord`,
		cCredential: `
			anmeldedaten, autenticacao, autenticacion, auth info, authentication credentials, authentication details, authentication information,
			authentification, authentifizierung, credenciais, credenciales, credential, credentials, credenziali, identifiants, login credentials,
			zugangsdaten`,
		cCert: `
			cert, cert has expired, certificate, certificates, chain, peer certificate, ssl certificate, tls certificate, x509`,
		cSignature: `
			assinatura, checksum, crypto, cryptographic primitive, digest, ecdsa, error in cryptographic primitive, firma, hash, hash value, hmac,
			immature signature, integrity check, mac, message digest, rsa, seal, sig, sign, signatur, signature, signature value,
			signature verification, signatures, signed, signed payload, signed with, signing, signing key, signing secret, verify signature,
			wrong sign`,
		cScope: `auth scope, authentication scopes, oauth scope, oauth scopes, scope, scopes, scp`,
		cPermission: `
			access control, access level, access policy, access rights, access rule, access to, acl, admin, administrator, allowed, authorised,
			authorization failed, authorization failure, authorized, autorisation, autorise, autorizacao, autorizacion, autorizada, autorizado,
			behorighet, berechtigung, berechtigungen, capability, clearance, droit, droits, entitled, entitlement, grants, iam,
			necessary authorization, no permission, not allowed to, not authorised, not authorized, not entitled, not have access,
			not have permission, not permitted, only accessible, only allowed, only available to, permessi, permesso, permiso, permisos, permissao,
			permission, permission scope, permissions, permissoes, permitted, policy, privilege, privilege level, privileges, rbac, rechte, right,
			rights, rls, role, roles, row level security, security group, uprawnien, yetki, zugriffsrechte`,
		cAudience: `
			aud, audience, audiences, does not contain resource id, intended for, intended recipient, jwt audience, required audience, resource id,
			resource server`,
		cIssuer: `authority, identity provider url, idp issuer, iss, issued by, issuer, issuers`,
		cAlgorithm: `
			alg, algorithm, algorithms, encryption algorithm, es256, hs256, rs256, signature algorithm, signing algorithm, signing method`,
		cKid: `
			applicable key, appropriate key, json web key set, jwk, jwk set, jwks, key found, key id, key set, keyid, keys was able, kid,
			matching key, matching keys, public key, public keys, signature key, signing certificate, signing keys, suitable key, verification key,
			verification keys, web key set`,
		cTime: `
			clock, clock drift, clock skew, clocks, created time, current date, current time, date, date and time, date header, datetime, epoch,
			expires header, nonce window, ntp, recv window, recvwindow, request date, request time, requesttime, requesttimetooskewed, server time,
			skew, skewed, system clock, time, time skew, time skewed, time stamp, time window, time zone, timeframe, timestamp, timestamps,
			timezone, too skewed, unix time, unix timestamp, utc, x date`,
		cNonce: `
			dpop nonce, duplicate request, duplicated request, idempotency, jti, nonce, nonces, repeat request, repeated request, replay,
			replay attack, replayed, request already, request id already, tonce`,
		cHeader: `auth header, authorization, authorization field, authorization header, cookie, header, headers, x auth key`,
		cScheme: `
			api authentication type, api token instead, auth mechanism, auth method, auth mode, auth scheme, auth type, auth version,
			authentication mechanism, authentication method, authentication mode, authentication protocol, authentication scheme,
			authentication type, authorization method, authorization type, credential type, grant flow, grant mode, id token instead,
			instead of a token, instead of access token, key authentication, key type, kind of credential, kind of token, legacy auth,
			legacy authentication, local authentication, login method, password grant, refresh token instead, scheme, schemes, token kind,
			token type, type of credential, type of key, type of token, wrong kind, wrong type`,
		cRedirect: `
			callback, callback url, redirect mismatch, redirect uri, redirect uris, redirect url, redirecturi, reply address, reply url,
			return url`,
		cGrant: `
			authorization flow, direct access grants, flow, grant, grant type, grant types, granttype, implicit flow, response type,
			retrieve service account, service account flow, service accounts`,
		cRate: `
			api calls, burst, calls per, concurrent requests, frequency, over qps, qps, rate, rate exceeded, rate limit, rate limited,
			rate limiting, rate limits, ratelimit, request limit, request rate, requests per, slow down, slowdown, throttle, throttled, throttling,
			too fast, too frequent, too frequently, too often, too quickly`,
		cQuota: `
			allowance, balance, billing limit, call limit, cap, capacity, caps, credit, credits, daily limit, hard limit, insufficient quota,
			limit per month, monthly limit, out of credits, plan limit, quota, quotaexceeded, quotas, spending limit, storage cap, usage cap,
			usage limit`,
		cRegion: `
			cluster, data center, data residency, datacenter, different region, endpoint for your resource, environment, instance url, live,
			live key, live mode, livemode, production, region, regional, sandbox, stage, test key, test mode, testmode, wrong api endpoint`,
		cCSRF: `
			anti forgery, antiforgery, antiforgery token, authenticity token, cors, cross origin, crumb, csrf, csrf token, csrf token mismatch,
			csrftoken, forgery, invalid origin, origin mismatch, origin not allowed, xsrf`,
		cIP: `
			access list, allow list, allowed domains, allowed ip, allowed ips, allowed origins, allowlist, authorised ips, authorized ips,
			bundle id, caller ip, client address, client ip, country, domain not allowed, domain whitelist, firewall rules, firewall settings, geo,
			host not allowed, http referer, invalid ip, ip, ip acl, ip address, ip address is not, ip addresses, ip allow, ip blocked, ip denied,
			ip is not, ip mismatch, ip not, ip range, ip restricted, ip restriction, ip white list, ip whitelist, ip whitelisting, ips, ipv4, ipv6,
			login ip, network location, network policy, network range, network rule, origin ip, origin is not allowed, package id,
			package name not, permitted ips, private endpoint, private link, public network access, referer, referrer, remote address,
			requested ip address, server ip, source ip, source ip address, trusted ip, trusted ips, trusted network, unknown ip,
			unknown ip address, virtual network, vpc, white list, white listed, whitelist, whitelisted, your ip`,
		cGateway: `
			abuse, abusive, access control configuration, access control list, access denied you, access has been limited,
			access to this page has been denied, akamai, anonymizer, anti bot, antibot, are human, are you a robot, attack, attention required,
			automated, aws waf, azure waf, bad bot, barracuda, big ip, blacklisted ip, block page, blocked, blocked by,
			blocked due to a network policy, blocked page, blocked your, blocking, bluecoat, bot, bot detection, bot protection, bots,
			browser check, captcha, cf ray, challenge page, challenge platform, checking your browser, cloudflare, content filter, crawler,
			crawlers, cross border, datacenter ip, datadome, ddos, denied by policy, denied by security, edge rule, edgesuite, embargo, embargoed,
			enable cookies, enable java script, enable javascript, err blocked, error 1020, error code 1002, error code 1003, error code 1005,
			error code 1006, error code 1007, error code 1009, error code 1010, error code 1012, error code 1013, error code 1020, export control,
			firewall, forcepoint, fortigate, fortinet, front door, geo blocked, geo restricted, geoblock, geoblocking, geographic, georestriction,
			has been blocked, hcaptcha, hosting provider, human, illegal request, imperva, incapsula, incident id, injection, ip acl,
			isolation policy, java script and cookies, just a moment, legal reasons, malformed url, malicious, mod security, modsecurity, naxsi,
			netskope, network security, not acceptable, not available in your, not supported in your, page blocked, perimeterx, proof of work,
			proxy detected, ray id, recaptcha, reference id, rejected by edge, request blocked, request rejected, request was blocked,
			requested url was rejected, restricted country, restricted location, restricted region, risk control, risk detected, sanctioned,
			sanctions, scraper, scraping, scripted, security challenge, security check, security filter, security policy, security reason,
			security reasons, security rule, security rules, security service, security violation, signature matched, sophos, spider,
			sql injection, sucuri, support id, support id is, suspicious, this region, threat, tor exit, turnstile, umbrella, unusual activity,
			unusual traffic, url blocked, user agent, user location, verify you are human, vpn, waf, waf rule, web application firewall,
			web filter, websense, wordfence, xss, your country, your location, your network, your region, zscaler`,
		cProxy: `
			connect tunnel, connect tunnel failed, http tunneling, proxy, proxy authentication, proxy response, proxy returned, proxy returns,
			proxy server, proxyconnect, through proxy, tunnel, tunnel connection, tunneling socket`,
		cInteraction: `
			2fa, accept the agreement, accept the terms, acr, acr values, activation email, additional authenticator,
			additional information required, additional security, additional verification, admin consent, agreement, app password required,
			application specific password, approval required, approve the, approved, auth factor, authentication level, authenticator,
			authorise access, authorize access, awaiting user, button not pressed, challenge required, change password, change your password,
			checkpoint, code has been sent, code we sent, complete registration, complete the, complete the verification, complete your, compliant,
			conditional access, confirm it s you, confirm the, confirm your, confirm your email, confirmation required, consent, consent required,
			consented, device authorization, device compliance, duo, email address is not verified, email not confirmed, email not verified,
			email verification, enrol, enroll, enrollment, expired password, forced password change, fresh login, fresh token,
			insufficient user authentication, interaction required, interactive, license agreement, link button not pressed,
			login details of this item have changed, login required, mfa, mfa required, multi factor, multifactor, must be changed, must change,
			must login via, must reset, new device, new password, not been verified, not confirmed, not fully set up, not paired, not set up,
			not verified, onboarding, one time pass, one time password, otp, pair the device, pairing, passcode, passkey, password change,
			password expired, password has expired, password is expired, password must be, password must change, password reset required,
			press the button, push notification, qr code, re authenticate, re connect, re consent, reauth, reauthenticate, reauthentication,
			recent login, reconnect your, registration incomplete, reset password, reset required, reset your password, saml enforcement,
			saml single sign on, saml sso, scan the qr, second authentication factor, second factor, security code, security question,
			security verification, sent to your email, sent you a code, setup required, sign in code, sign in process, sign the agreement, sso,
			sso required, step up, strong authentication, terms, terms and conditions, terms of service, tfa, totp, two factor, two step, u2f,
			unconfirmed, unverified account, unverified email, user action, user consent, user interaction, user login is required, user must,
			verification required, verify email, verify it s you, verify the email, verify your, verify your email, verify your identity,
			waiting for user, webauthn`,
		cLogin:   `log in, log on, login, login page, logon, sign in, sign on, signin, single sign on`,
		cSession: `cookie session, sesion, sessao, session, session id, sessione, sessions, sid, sitzung`,
		cRequest: `
			call, calls, canonical, canonical request, request, request signature, requests, signed request, string to sign`,
		cProvider: `
			auth backend, auth server, auth service, authentication backend, authentication server, authentication service, authn service,
			authorization server, authz server, directory service, discovery document, federation, get provider, identity provider,
			identity service, idp, introspect, introspection, jwks remote, jwks uri, keycloak, ldap, login service, metadata address,
			oidc provider, openid, openid configuration, openid provider, query provider, remote jwks, sso responded, token endpoint, well known`,
		cSubscription: `
			billing, contract, licence, license, membership, overdue, package, payment due, payment failed, payment is due, payment method,
			payment required, plan, subscription, trial`,
		cResource: `
			action, api, board, bucket, channel, cluster role, collection, database, dataset, device, document, domain, endpoint, feature, file,
			folder, group, groups, instance, merchant, method, model, namespace, object, operation, organization, package name, page, path,
			project, queue, record, registry, repository, resource, resources, route, service, site, store, table, team, teams, tenant, topic, url,
			vault, zone`,
		cClientCert: `
			cert bound, certificate bound, certificate is required, certificate required, client auth cert, client authentication certificate,
			client cert, client certificate, client certificate file, client certificates, client key, client ssl, complete client authentication,
			mtls, mutual authentication, mutual tls, peer did not provide a certificate, peer did not return, pem client certificate,
			private key file, required ssl certificate, ssl certificate error, ssl client, ssl client auth cert, ssl client certificate,
			sslclientcert, tls client, tls client certificate, x ssl client, x509 client`,
		cExpired: `
			abgelaufen, abgelaufene, abgelaufener, aged out, caducada, caducado, caduco, cert has expired, due to inactivity, elapsed, ended,
			err cert date invalid, exp, expiration, expire, expired, expiredtoken, expires, expiry, has expired, has passed, has run out,
			hasn t been used, inactivity, jwtexpired, lapsed, no longer active, no longer in force, no longer valid, not been used for,
			not been used in, not time valid, notafter, old age, outdated, over age, past due, past its, perime, perimee, ran out, run its course,
			scaduta, scaduti, scaduto, sec e cert expired, stale, suresi doldu, timed out, timed out session, timestamp check failed,
			token expired, too late, too old, until date, validity check failed, venceu, vencida, vencido, verlopen, wygasl`,
		cRevoked: `
			annulled, another device, authorization was removed, been cancelled, been deauthorized, been regenerated, been replaced, been reset,
			been rotated, black list, blacklisted, block list, blocklisted, canceled token, cancelled, credential was deleted, de authorised,
			de authorized, deauthorised, deauthorized, deny list, deny listed, denylist, denylisted, destroyed, disconnected by, ended because,
			force logout, forced logout, grant was removed, has been removed by, invalidated, key has been deleted, key was deleted, kicked,
			kicked out, killed, log out, logged in elsewhere, logged in from another, logged in on another, logged in with another, logged out,
			logout, newer login, no longer exists, no longer latest, not latest, other device, password changed, password has been changed,
			password was changed, removed access, removed the app, removed this app, removed this app s, replaced by, reset by, reuse detected,
			revocation, revocation list, revoke, revoked, revoked access, rotated, session closed, session was closed, signed in elsewhere,
			signed in on another, signed off, signed out, superseded, terminated, token deleted, token has been deleted, token was deleted,
			uninstalled, unlinked, used elsewhere, was cancelled, was regenerated, was replaced, was reset, withdrawn, withdrew`,
		cInvalid: `
			authentication failed, bad, bledny, bogus, cannot be verified, cannot identify, cannot log in, cannot login, cannot verify,
			check failed, could not authenticate, could not be verified, could not identify, could not log in, could not login, could not validate,
			could not verify, couldn t verify, didn t work, do not recognize, do not verify, does not verify, doesn t recognize, don t recognize,
			echec, errada, errado, errato, error in cryptographic primitive, error validating, failed, failed to verify, fails, failure, fake,
			fallida, fallito, fallo, falsch, falsche, falsches, falsified, fehlgeschlagen, feil, felaktig, felaktigt, forged, forkert, gecersiz,
			hatali, illegal, improper, inactive token, incorrect, incorrecta, incorrecto, incorrectos, incorreta, incorreto,
			integrity check failed, invalid, invalida, invalidas, invalide, invalides, invalido, invalidos, is not a valid, is not acceptable,
			is refused, login failed, login failure, logon failed, logon failure, nao valido, neplatny, nieprawidlowy, no es valida, no es valido,
			no good, no valida, no valido, non valida, non valido, not acceptable, not accepted, not correct, not properly, not recognise,
			not recognised, not recognize, not recognized, not satisfied, not valid, not verify, ogiltig, ogiltigt, ongeldig, ongeldige, rejected,
			resulted invalid, sbagliato, sign in failed, signin failed, tampered, tampering, ugyldig, unable to authenticate,
			unable to find a match, unable to identify, unable to log in, unable to login, unable to validate, unable to verify, unacceptable,
			ungueltig, ungultig, ungultige, ungultiger, ungultiges, unknown, unrecognised, unrecognized, unusable, unverifiable, unverified,
			validation error, validation failed, validation failure, verification error, verification failed, verification fails,
			verification failure, verify failed, virheellinen, was refused, wrong`,
		cMalformed: `
			bad format, bad structure, badly formed, base64, cannot be decoded, cannot convert, compact serialization, corrupt,
			could not be parsed, could not convert, crypto padding, decode, decoded, decoding, deserialization, deserialize, dots, duplicate,
			encoding, expected bearer, expected format, format, format is, garbage, garbled, header must start with, ill formed, illegal,
			illegal base64, improperly formatted, in the form, incomplete token, incorrect length, incorrectly formatted, instead of expected,
			invalid character, invalid characters, invalid format, invalid header, invalid json, invalid length, invalid number of segments,
			invalid prefix, invalid structure, is not a valid jwt, is not formatted, isn t a, isn t a string, length of, line break, malform,
			malformed, mandatory, mangled, missing prefix, multiple, must be a, must be a number, must be an, must be an integer,
			must be in the form, must be in the format, must begin with, must contain, must not contain, must start with, newline, non printable,
			not a bearer, not a jwt, not a jwt token, not a number, not a string, not a valid format, not a valid jwt, not enough segments,
			not formatted, not in the form, not json, not properly formatted, not valid json, not well formed, padding, parse, parsing, parts,
			quotes, sections, segments, serialization, should begin with, should not contain, should start with, space delimited, structure,
			syntax, three parts, too many segments, truncated, two parts, unable to convert, unable to decode, unable to parse,
			unexpected character, unexpected end, unexpected token, unparsable, unparseable, unreadable, utf 8, whitespace, wrong format,
			wrong length, wrong number, wrong type, wrongly formatted`,
		cMissing: `
			absent, ausente, benotigt, brak, but no, did not provide, didn t provide, does not contain, does not include, doesn t contain, empty,
			erforderlich, expects, falta, faltan, fehlend, fehlende, fehlt, is null, lacking, login required, mancante, mangler, manquant,
			manquante, missing, must authenticate, must be authenticated, must be logged in, must be provided, must contain a, must include,
			must provide, must specify, must supply, nao autenticado, necessary, need, need to, needed, needs, nicht angemeldet, no access token,
			no api key, no apikey, no aud, no audience, no audiences, no autenticado, no auth, no authentication, no authorization, no bearer,
			no client id, no credentials, no exp, no grant, no grant type, no header, no issuer, no jwt, no key, no password, no session,
			no signature, no sub, no token, no user, no username, no valid, non authentifie, none provided, not authed, not authenticated,
			not found in request, not include, not logged in, not present, not provided, not received, not sent, not set, not specified,
			not supplied, obligatoria, obligatorio, please add, please include, please pass, please provide, please send, please specify,
			please supply, puuttuu, requerida, requerido, require, required, requires, requires a, requires authentication, requis, requise,
			richiesta, richiesto, saknas, unauthenticated, undefined, was not provided, wasn t provided, you must`,
		cNotYet: `
			before, before issued, before use, before use time, cannot be used yet, cannot handle token prior to,
			cannot handle token with iat prior to, cannot handle token with nbf prior to, from the future, future, has not been reached, iat,
			immature, immature signature, in the future, is after the current, issued at, issued in the future, jwt not active, later than current,
			later than now, later than the current, later than the server, nbf, not active yet, not be accepted before, not be used before,
			not before, not valid yet, not yet, not yet active, not yet valid, notbefore, premature, prematurely, prior to, still in the future,
			token not active, token not active yet, too early, used before, used before issued`,
		cUnsupported: `
			another algorithm, deprecated, disallowed, must use, no longer supported, not accepted, not allowed to use, not available for,
			not enabled, not enabled for, not enabled to, not permitted, not supported, removed support, should use, stopped supporting, supported,
			unaccepted, unexpected, unsupported`,
		cDenied: `
			access control, access denied, atkomst nekad, authorization denied, authorization error, authorization failed, authorization failure,
			beyond your, can t, cannot, cannot create, cannot delete, cannot edit, cannot list, cannot read, cannot update, cannot view, denegada,
			denegado, denied, disallow, disallowed, do not have, does not have, doesn t have, don t have, elevated, erisim engellendi,
			exclusive to, failed authorization, failed to authorize, forbidden, geweigerd, har inte, hasn t been granted, higher plan,
			higher privileges, ikke adgang, ineligible, insufficient, insufficiently, interdit, invalid ip, ip address is not, ip blocked,
			ip denied, ip is not, ip mismatch, ip not, is not in the list of, kein zugriff, keine berechtigung, lack, lacks, limited to,
			missing permission, must be a member, must be admin, must be an admin, must be owner, must be the owner, nao autorizado, needs to be,
			negada, negado, negato, nicht berechtigt, no access, no autorizada, no autorizado, no grant for, no permission, no rights,
			no tiene acceso, no tiene permiso, no tiene permisos, non autorise, non autorizzato, not accessible, not allowed, not allowed to,
			not authorised, not authorised for, not authorized, not been approved, not been granted, not been whitelisted, not eligible,
			not enough, not entitled, not grant, not granted, not have access, not have permission, not in the list, not included in, not part of,
			not permitted, not whitelisted, not your, odmowa, only accessible, only allowed, only available to, only for, out of scope,
			permission error, premium, privilege required, privileged, prohibited, refuse, refused, reserved for, restricted, restricted to, rls,
			row level security, sem permissao, sin permiso, sin permisos, unauthorised, unauthorised access, unauthorised operation, unauthorized,
			unauthorized access, unauthorized operation, unknown ip, unknown ip address, upgrade required, upgrade your, verweigert, you cannot,
			zugriff verweigert`,
		cLocked: `
			account is locked, account locked, banned, been locked, bloccato, blocked due to, blocked for, bloque, bloqueada, bloqueado,
			brute force, captcha challenge, consecutive failed, cool down, cooldown, failed attempts, failed login attempts, fraud, geblokkeerd,
			gesperrt, incorrect attempts, invalid attempts, is blocked due, is blocked for, is locked, lock out, locked, locked out, lockout,
			login attempts, login blocked, login is blocked, login limit, many failed, many failed login, max login, maximum login,
			please wait for, psu is blocked, repeated failed, retry limit, suspended for, temporarily banned, temporarily blocked,
			temporarily disabled, temporarily disabled due, temporarily locked, temporarily restricted, temporarily suspended, too many attempts,
			too many attempts try later, too many auth, too many authentication, too many bad, too many failed, too many failures,
			too many incorrect, too many invalid, too many log in, too many login, too many password, too many sign in, too many signin,
			too many times, too many tries, too many unsuccessful, too many wrong, unsuccessful attempts, unsuccessful login, user locked,
			verrouille, was locked, wrong attempts, wrong password too`,
		cDisabled: `
			account has been terminated, account inactive, account on hold, account terminated, account was terminated, archived,
			awaiting approval, barred, been removed from the, been turned off, blacklisted account, blocked account, canceled account,
			cancelled account, closed, de registered, deactivated, deaktiviert, decommissioned, deleted, deprovisioned, deregistered, desactivada,
			desactivado, desactive, desativada, desativado, disabled, disattivato, dormant, evaluation period, expired license, frozen,
			has been blocked by, has been disabled, has been removed, in arrears, inactiva, inactive, inactive client, inactivo, inativo,
			is blocked, is not activated, licence expired, licence has expired, license expired, license has expired, no active plan,
			no active subscription, not activated, not active, not approved yet, not been activated, not enabled, not in good standing,
			not in service, not yet activated, not yet approved, nullified, offboarded, on hold, overdue, past due, paused, payment overdue,
			pending activation, pending approval, quarantined, retired, revoked license, soft deleted, stopped, struck off, subscription cancelled,
			sunset, suspended, suspendido, suspenso, switched off, takedown, taken down, terminated account, trial has ended, trial period,
			turned off, under review, unpaid, unpaid invoice, unsubscribed, voided, waiting for approval, was removed`,
		cNotFound: `
			can t find, cannot be found, cannot find, could not be found, could not find, could not locate, couldn t find, couldn t locate,
			do not exist, does not appear to, does not exist, doesn t exist, doesn t seem to exist, existiert nicht, found for given, found no,
			introuvable, isn t registered, n existe pas, nao encontrado, nao existe, nicht gefunden, no account found, no app found, no applicable,
			no application found, no client found, no configuration, no consumer, no encontrada, no encontrado, no entry, no existe, no key found,
			no longer exist, no matching, no matching client, no matching key, no matching user, no record, no record of, no results for, no route,
			no such, no such client, no such key, no such token, no such user, no user found, non trovato, nonexistent, not configured for,
			not exist, not found, not in database, not in our records, not in our system, not known, not located, not on file, not recognised as,
			not registered, unable to find, unable to locate, unknown path, unregistered, was not found`,
		cMismatch: `
			against the, ahead of, allowed window, another, belong to, belongs to, beyond the, bigger than, but got, but received, but was,
			conflicts, did not match, didn t match, difference between, different, different client, differs, differs too much, do not correspond,
			do not match, does not agree, does not belong, does not contain resource id, does not correspond, does not equal, does not match,
			does not meet, doesn t belong, doesn t match, don t match, drift, exceeds the window, expected, greater than, incompatible,
			inconsistent, instead of the, is for a, is for the, is not in, larger than, meant for another, minted for, mis match, mismatch,
			mismatched, mismatching, must be registered, must match, not allowed by audience, not belong, not configured, not correspond,
			not current, not equal, not for this, not in sync, not in the, not in the allowed, not match, not matching, not meet, not one of,
			not satisfied, not synchronised, not synchronized, not the same, not within, off by, other than, out of bounds, out of range,
			out of sync, out of the, out of window, outside of, outside the, redirect mismatch, skewed, too big, too far, too far in the future,
			too far in the past, too great, too large, too old or too new, unmatched, unsynchronized, wrong issuer`,
		cTooMany: `
			demasiadas, demasiados, exceed, exceeded, exceeding, exceeds, exhausted, limit exceeded, limit has been exceeded,
			limit has been reached, limit reached, limit violation, max, maximum, muitas, no credits, out of call, out of calls, out of credit,
			out of credits, out of quota, over limit, over limits, over qps, over quota, over rate, over the limit, overage, quota violation,
			reached, run out of, surpassed, too fast, too frequently, too many, too many requests, too often, too quickly, trop de, troppe, troppi,
			used up, will be replenished, zu viele`,
		cUnavailable: `
			backend error, bad gateway, cannot connect, cannot fetch, cannot query, cannot reach, connecting to the, connection error,
			connection to the, could not connect, could not contact, could not fetch, could not load, could not reach, could not retrieve,
			currently down, degraded, dependency, down at the moment, down for, error connecting, error contacting, error fetching, error reaching,
			error retrieving, failed to fetch, failed to get, failed to load, failed to query, failed to retrieve, fetch error, fetch failed,
			fetch is failed, internal error, internal server error, is down, lookup failed, maintenance, no healthy upstream, not available,
			not operational, out of service, outage, overloaded, remote fetch, retrieval error, service down, temporarily unavailable,
			timeout from, try again later, unable to connect, unable to contact, unable to fetch, unable to load, unable to obtain,
			unable to query, unable to reach, unable to retrieve, unavailable, unreachable, upstream connect error, upstream error`,
		cSelfSigned: `depth zero self signed cert, self issued, self signed, self signed certificate, selfsigned`,
		cUntrusted: `
			authority that is not trusted, bad ca, build chain, ca bundle, ca certificates, ca file, ca path, cacert, cafile, cannot build,
			cannot find issuer, cannot verify, certificate authority is invalid, certificate chain errors, certificate store,
			certificate unknown ca, certificate verify failed, certification path, chain errors, err cert authority invalid, incomplete chain,
			invalid ca, issuer cert, issuer certificate, issuer is not, issuer is unknown, issuer unknown, local issuer certificate,
			missing intermediate, missing issuer, no issuer, not be trusted, not chain with, not issued by a trusted, not trusted, not trusted by,
			partial chain, path building failed, pretending to be, remote certificate chain errors, root ca, root certificate,
			sec e untrusted root, server certificate verification failed, signed by an untrusted, signed by unknown, trust, trust anchor,
			trust failure, trust relationship, trust store, trusted, truststore, unable to build, unable to find valid certification,
			unable to get issuer, unable to get local issuer, unable to locally, unable to locally verify, unable to verify,
			unable to verify leaf signature, unable to verify the first, unknown authority, unknown ca, unknown issuer, unknown root,
			unknownissuer, untrusted, untrusted issuer, untrusted root, verify failed, verify locations`,
		cTimeout: `
			configured timeout, connect timeout, deadline, deadline exceeded, deadline has elapsed, did not properly respond, econnaborted,
			err connection timed out, err timed, err timed out, esockettimedout, etimedout, execution expired, gateway timeout,
			has failed to respond, httpclient timeout, i o timeout, net read timeout, no response within, not respond in time, not respond within,
			not responding, open timeout, read timeout, readtimeout, request timed out, response time, stalled, time limit, time out, timed out,
			timeout, timeout of, timeout was reached, timeouterror, too slow, took longer, took too long, upstream request timeout, wait timed out,
			within the allotted`,
		cRefusedConn: `
			actively refused, can t assign requested address, can t connect, cannot assign requested address, cannot connect,
			cannot connect to host, connect call failed, connect failed, connection attempt failed, connection could be made,
			connection could not be established, connection error, connection failed, connection refused, could not connect,
			could not connect to server, could not connect to the server, could not establish connection, couldn t connect, econnrefused,
			ehostunreach, enetunreach, err address unreachable, err connection refused, err internet disconnected, error while dialing,
			failed to connect, failed to establish a new connection, failed to open tcp connection, host is down, host unreachable,
			machine actively refused, network is down, network is not reachable, network is unreachable, network unreachable,
			no connection established, no route, no route to host, not listening, port unreachable, refused to connect, unable to connect to,
			unable to establish connection, unable to open connection`,
		cNoHost: `
			address could not be resolved, c ares, can t resolve host, cannot resolve address, cannot resolve host, cannot resolve name,
			could not be resolved, could not resolve, could not resolve host, couldn t resolve, dial tcp lookup, dns, dns error, dns lookup,
			dns name, dns resolution, domain not found, eai again, enotfound, err name not resolved, failed host lookup, failed to look up,
			failed to lookup, failed to resolve, getaddrinfo, host could not be found, host is known, host lookup, host not found,
			hostname could not be found, lookup address information, name could not be resolved, name lookup, name not resolved,
			name or service not known, name resolution, name server, no address associated, no such domain, no such host, no such host is known,
			nodename nor servname, nxdomain, read udp, remote name could not be resolved, resolve address, resolve host, server misbehaving,
			servfail, specified hostname could not be found, temporary failure in name resolution, unable to resolve address,
			unable to resolve host, unable to resolve host address, unable to resolve name, unable to resolve the name, unknown domain,
			unknown host, unknownhostexception, wsahost not found`,
		cReset: `
			0 bytes received, 443 failed to respond, abruptly closed, all connection attempts failed, broken connection, broken pipe,
			closed by peer, closed by remote, closed connection, closed the connection, connection aborted, connection attempts failed,
			connection closed, connection dropped, connection is closed, connection lost, connection reset, connection terminated,
			connection termination, connection was aborted, connection was closed, connection was lost, connection was reset, disconnected,
			econnreset, empty reply, empty reply from server, eof, epipe, forcibly closed, goaway, http response exception, hung up,
			network connection was lost, no response from, non properly terminated, other side closed, peer closed, premature close,
			prematurely closed, recv failure, remote end closed, remotedisconnected, reset by peer, send failure, server closed,
			server disconnected, socket hang up, stream closed, terminated abnormally, terminated the connection, terminated the handshake,
			unexpected eof, without response, without sending a response, zero bytes`,
		cBasic:  `basic, basic auth, basic authentication, password authentication is not`,
		cBearer: `bearer, bearer token`,
		cUsed: `
			already been used, already consumed, already exchanged, already processed, already received, already redeemed, already used,
			been consumed, been redeemed, consumed, more than once, once only, one time use, only once, previously used, redeemed, replayed, reuse,
			reused, second time, single use, twice, used, was consumed, was redeemed`,
		cAnonymous: `
			anonymous, anonymous access, anonymous caller, anonymous user, authentication is required, authentication required,
			authorization required, callers, guest, no user, not signed in, system anonymous, unauthenticated caller, unauthenticated user,
			unauthenticated users, without authentication`,
		cLifetime: `
			lifetime, max age, maximum allowed expiration, short lived, too far, too far in the future, too long, ttl, validity period`,
		cHostname: `
			alternative certificate subject name, alternative dns name, alternative name, altname, altnames, altnames dns, bad cert domain,
			cert domain, certificate for another, certificate host, certificate is not valid for, certificate is valid for, certificate name,
			certificate subject, cn name, common name, dns name, dns names, does not match the host, doesn t match any,
			doesn t match requested host name, domain name mismatch, err cert common name invalid, host mismatch, host name, host verification,
			hostname, hostname check failed, hostname doesn t match, hostname mismatch, hostname not verified, hostname verification,
			identity check, ip sans, matches target host name, matches the host, name check, name constraint, name in the certificate,
			name mismatch, no alternative certificate, no name matching, no subject alternative, no subject alternative dns name, not valid for,
			not valid for name, not verified hostname, peer name, remote certificate name mismatch, requested host name, san, sans,
			server identity, subject alt name, subject alternative, subject alternative dns name, subject name, target host name,
			target principal name, valid for name, wrong principal`,
	} {
		for phrase := range strings.SplitSeq(phrases, ",") {
			m[strings.TrimSpace(phrase)] |= of(c)
		}
	}
	for phrase, found := range m { // what is said of something still speaks of it: "wrong issuer"
		if words := strings.Fields(phrase); len(words) > 1 && found&subjects == 0 {
			for _, w := range words {
				m[phrase] |= m[w] & subjects &^ of(cPermission) // "no authorization" is no missing right
			}
		}
	}
	for _, code := range []string{"invalid grant", "invalid request", "bad request", "invalid request error", "using the algorithm", "mandatory constraints", "while attempting to decode the jwt", "attempting to decode the jwt", "the required", "established connection failed", "using authentication mechanism", "rpc error code unauthenticated desc", "code unauthenticated desc", "code unauthenticated"} { // codes whose words mean nothing by themselves
		m[code] = 0
	}
	return m
}()
