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
		cToken:        "bearer token,bearer tokens,access tokens,session token,security token,id tokens,jwt not active,token not active,token,tokens,jwt,jws,bearer,access token,id token,idtoken,assertion,client assertion,accesstoken,ticket,pat,personal access token,jwts,credential token,oauth token,auth token,apptoken",
		cRefresh:      "refresh token,refresh tokens,refreshtoken,refresh,refresh grant,rt",
		cCode:         "authorization code,auth code,verification code,code passed,authcode,device code,code verifier,verification_code,code challenge,authorization grant,pkce",
		cKey:          "api key,apikey,api keys,api_key,access key,accesskey,key,keys,subscription key,access key id,license key,app key,apitoken,api token,accesskeyid,secret key,auth key,service key,consumer key,client token id",
		cSecret:       "secret,client secret,secrets,clientsecret,secret hash,keys for app,client secret keys",
		cClient:       "client,clients,client id,clientid,application,app,oauth client,consumer,client identifier,applications,integration,client_id,service principal,relying party,software,unauthorized client,incorrect client credentials",
		cUser:         "resource owner,user,username,account,user name,users,principal,accounts,member,login name,userid,user id,service account,uid,identity,profile,organization,organisation,workspace,tenant admin",
		cPassword:     "password,passwords,passwd,passphrase,pwd",
		cCredential:   "credential,credentials,authentication credentials,authentication information,authentication details,auth info,login credentials",
		cCert:         "certificate,cert,x509,certificates,ssl certificate,tls certificate,peer certificate,chain,cert has expired",
		cSignature:    "crypto,rsa,ecdsa,sign,wrong sign,signing secret,checksum,hash,signature,signatures,signed,hmac,signing,digest,mac,signing key,signature verification,verify signature,sig",
		cScope:        "scope,scopes,oauth scope,scp,oauth scopes,auth scope,authentication scopes",
		cPermission:   "access control,not authorized,not authorised,not permitted,no permission,not have permission,not entitled,not have access,only accessible,only allowed,only available to,not allowed to,permission,permissions,privilege,privileges,role,roles,authorized,allowed,acl,policy,access to,authorization,rights,right,entitlement,entitled,authorised,permitted,rbac,capability,access rights,access level,permission scope,admin,administrator",
		cAudience:     "audience,aud,audiences,intended for,intended recipient,resource server,jwt audience",
		cIssuer:       "issuer,iss,issuers,issued by,authority,idp issuer,identity provider url",
		cAlgorithm:    "algorithm,alg,algorithms,signing method,signing algorithm,hs256,rs256,es256,encryption algorithm,signature algorithm",
		cKid:          "appropriate key,applicable key,key set,web key set,json web key set,verification keys,signing certificate,kid,key id,jwk,jwks,signing keys,public key,public keys,key set,jwk set,keyid,matching key,verification key,matching keys,signature key,suitable key,key found,keys was able",
		cTime:         "timestamp,time stamp,date,clock,time,timestamps,request time,recv window,recvwindow,server time,clocks,date header,x date,clock skew,time skewed,too skewed,requesttimetooskewed,time skew,timeframe,skew,skewed,current time",
		cNonce:        "nonce,jti,replay,replayed,dpop nonce",
		cHeader:       "authorization header,header,headers,auth header,authorization field,authorization,x auth key,cookie",
		cScheme:       "wrong type,scheme,auth scheme,authentication scheme,authentication method,authorization type,auth method,auth type,authentication type,authorization method,token type,schemes,authentication mechanism,auth mechanism,credential type,grant flow",
		cRedirect:     "redirect mismatch,redirect uri,redirect uris,redirect_uri,callback url,callback,redirect url,reply url,redirecturi,return url,reply address",
		cGrant:        "retrieve service account,grant,grant type,granttype,grant types,flow,response type,response_type,service accounts,direct access grants,grant_type,authorization flow,implicit flow,service account flow",
		cRate:         "too quickly,too fast,too often,too frequently,over qps,rate limit,rate,rate limited,ratelimit,throttle,throttled,throttling,request limit,slow down,too frequent,requests per,frequency,calls per,rate limiting,burst,concurrent requests,rate exceeded,request rate,rate limits,api calls,slowdown,qps",
		cQuota:        "cap,caps,storage cap,capacity,quota,quotas,credits,usage limit,monthly limit,daily limit,plan limit,billing limit,balance,spending limit,call limit,allowance,credit,usage cap,hard limit,limit per month,out of credits,insufficient quota,quotaexceeded",
		cRegion:       "region,environment,sandbox,production,data center,datacenter,regional,live mode,test mode,testmode,livemode,test key,live key,cluster,stage,data residency,endpoint for your resource,wrong api endpoint,different region,live,instance url",
		cCSRF:         "csrf token mismatch,antiforgery token,authenticity token,invalid origin,origin mismatch,csrf,xsrf,crumb,csrf token,forgery,csrftoken,antiforgery,anti forgery,cors,cross origin,origin not allowed",
		cIP:           "ip whitelist,ip acl,source ip,source ip address,your ip,remote address,authorised ips,authorized ips,requested ip address,ip,ip address,access list,ip addresses,allowlist,whitelist,whitelisted,allow list,ip restriction,ip range,client ip,referer,referrer,geo,country,ip allow",
		cGateway:      "access control configuration,request rejected,requested url was rejected,support id is,waf rule,security rule,security reasons,security reason,network security,err blocked,access to this page has been denied,verify you are human,are human,blocked due to a network policy,ip acl,enable java script,java script and cookies,enable javascript,enable cookies,checking your browser,waf,firewall,bot,bots,cloudflare,blocked,blocking,captcha,ray id,security policy,access denied you,security rules,isolation policy,challenge platform,incident id,reference id,akamai,imperva,incapsula,user agent,automated,suspicious,web application firewall,request blocked,security check,support id,request rejected,attention required,unusual traffic,just a moment,error 1020,edgesuite,scraping,cross border,user location,your location,your country,not available in your,not supported in your,legal reasons,modsecurity,not acceptable,sucuri,perimeterx,datadome,cf ray,attack,malicious,security service,human,are you a robot,antibot,fortinet,fortigate",
		cProxy:        "proxy,tunneling socket,tunnel,connect tunnel,proxyconnect,proxy authentication,proxy server",
		cInteraction:  "confirm your,confirm your email,verify your,email not verified,email not confirmed,email address is not verified,not confirmed,unconfirmed,login details of this item have changed,user login is required,sso required,must login via,additional verification,one time pass,recent login,fresh login,reauthentication,authorize access,authorise access,fresh token,user action,not fully set up,not set up,setup required,mfa,multi factor,multifactor,two factor,2fa,otp,consent,interaction required,second factor,mfa required,sso,saml,approved,password change,change password,change your password,user interaction,login required,consent required,additional authenticator,authenticator,sign in process,re authenticate,reauthenticate,reauth,additional verification,step up,terms of service,accept the terms,verification required,email verification,verify your email,strong authentication,conditional access,password expired,reset password,reset your password,new password,one time password,enrol,enroll,enrollment,security question,passcode,interactive,tfa,terms and conditions,two step,verify your identity,insufficient user authentication,authentication level,acr,acr values,compliant,device compliance",
		cLogin:        "login page,sign in,signin,log in,login,single sign on,sign on,log on,logon",
		cSession:      "session,sessions,sid,session id,cookie session",
		cRequest:      "call,calls,request,requests,signed request,request signature,canonical,string to sign,canonical request",
		cProvider:     "identity provider,idp,introspection,jwks uri,jwks remote,openid configuration,discovery document,auth server,authorization server,authentication service,auth service,authentication server,openid provider,oidc provider,directory service,ldap,keycloak,remote jwks,metadata address,well known,openid,token endpoint,login service,introspect,federation,sso responded,authn service,identity service,authentication backend,auth backend,authz server,query provider,get provider",
		cSubscription: "subscription,plan,billing,payment,trial,license,licence,contract,overdue,package,membership",
		cResource:     "team,teams,group,groups,channel,namespace,database,table,board,instance,device,domain,zone,merchant,store,queue,topic,model,dataset,vault,registry,package name,cluster role,resource,project,repository,object,bucket,api,service,action,operation,feature,endpoint,method,path,route,url,organization,document,file,page,record,folder,site,collection,tenant",
		cClientCert:   "ssl client auth cert,client auth cert,client authentication certificate,client certificate,client cert,ssl certificate error,mutual tls,mtls,required ssl certificate,client certificates,certificate required,peer did not return,tls client,client ssl",
		cExpired:      "has passed,until date,no longer in force,run its course,not time valid,err cert date invalid,sec e cert expired,validity check failed,notafter,too late,no longer active,aged out,timed out,past due,over age,cert has expired,expired,expire,expires,expiry,expiration,has expired,timed out session,outdated,exp,no longer active,lapsed,jwtexpired,expiredtoken,token expired,timestamp check failed,past its,stale,too old,elapsed,old age,no longer valid,has run out,ran out,ended",
		cRevoked:      "deny list,denylist,block list,black list,revocation list,signed off,password has been changed,password changed,password was changed,revoked,revocation,logged out,invalidated,blacklisted,denylisted,blocklisted,signed out,deauthorized,logout,log out,terminated,withdrawn,superseded,rotated,revoke,uninstalled,de authorized,removed access,cancelled,canceled token,reset by",
		cInvalid:      "verification error,invalid,incorrect,wrong,bad,not valid,unrecognized,unrecognised,unknown,illegal,inactive token,could not verify,cannot verify,unable to verify,not recognized,failed to verify,verification failed,verification fails,verify failed,cannot be verified,could not be verified,not recognised,rejected,failed,failure,fails,check failed,not correct,could not validate,validation failed,unable to validate,unverified,error validating,not acceptable,unable to authenticate,could not authenticate,authentication failed,is not a valid,improper,unverifiable,couldn t verify,not properly",
		cMalformed:    "is not a valid jwt,not a jwt,compact serialization,parts,not a valid jwt,not a jwt token,serialization,isn t a string,not a string,isn t a,not a number,not a valid format,wrong type,wrong format,bad format,is not formatted,format is,expected format,illegal,unexpected character,unexpected token,non printable,should not contain,must not contain,must contain,malformed,parse,format,decode,segments,corrupt,truncated,not in the form,invalid json,could not be parsed,unparseable,unparsable,parsing,invalid number of segments,cannot be decoded,badly formed,wrong number,deserialize,base64,three parts,must be a number,must be an integer,malform,dots,padding,not well formed,invalid format,syntax,encoding,illegal base64,decoding,decoded,ill formed,unexpected end,must be a,must be an,not formatted,deserialization,invalid characters,invalid character,unable to parse,unable to decode,invalid header,not a jwt,multiple,duplicate,mandatory",
		cMissing:      "need,needed,no grant type,no grant,no client id,no username,no password,no signature,no header,please include,please send,please add,please supply,please pass,please specify,require,requires,needs,needed,necessary,must contain a,expects,must authenticate,missing,required,not provided,absent,empty,not found in request,no authentication,must be provided,not set,not present,not supplied,no token,no api key,no credentials,not sent,must provide,must supply,must include,must specify,need to,please provide,didn t provide,did not provide,not specified,is null,requires authentication,unauthenticated,not authenticated,no valid,no auth,no authorization,no access token,lacking,no apikey,no jwt,no user,not include,none provided,no audience,no audiences,no issuer,no aud,no sub,no exp,but no,no bearer,not authed,was not provided,wasn t provided,does not include,does not contain,doesn t contain,no key,you must,must be authenticated,must be logged in,not logged in,requires a,login required,no session,not received,undefined",
		cNotYet:       "notbefore,before issued,used before issued,jwt not active,token not active,issued in the future,not valid yet,not yet,not yet valid,before,nbf,not before,future,not active yet,in the future,not yet active,too early,prematurely,issued at,iat,used before,token not active yet,premature,immature",
		cUnsupported:  "not enabled to,not enabled for,unsupported,not supported,unexpected,unaccepted,disallowed,not accepted,supported,not permitted,not enabled,deprecated,no longer supported,stopped supporting,another algorithm,must use,should use,not allowed to use,not available for,not enabled for,removed support",
		cDenied:       "access control,not in the list,not enough,insufficiently,is not in the list of,missing permission,not been granted,hasn t been granted,not granted,not been whitelisted,not whitelisted,not been approved,only accessible,only allowed,only available to,not allowed to,denied,forbidden,not allowed,insufficient,unauthorized,unauthorised,cannot,disallowed,not authorized,not authorised,no permission,not permitted,do not have,does not have,lacks,lack,not have access,access denied,prohibited,no access,don t have,doesn t have,not accessible,not entitled,refused,not grant,restricted,can t,not have permission,higher privileges,not eligible,no rights,privileged",
		cLocked:       "psu is blocked,is blocked due,temporarily disabled due,too many attempts try later,many failed login,many failed,account is locked,blocked for,login blocked,locked,lockout,locked out,too many failed,too many attempts,failed login attempts,temporarily locked,blocked due to,brute force,too many login,banned,suspended for,temporarily disabled,login attempts,captcha challenge,too many invalid,user locked,account locked,temporarily blocked,too many incorrect,too many unsuccessful,failed attempts,wrong password too",
		cDisabled:     "disabled,deactivated,inactive,suspended,deleted,archived,not active,closed,deprovisioned,not enabled,account inactive,blocked account,is blocked,decommissioned,turned off,switched off,not activated,has been removed,was removed,unpaid,terminated account,frozen,has been disabled,pending activation,dormant,unsubscribed,paused",
		cNotFound:     "no configuration,no applicable,not configured for,no record of,not found,does not exist,no such,could not be found,cannot find,couldn t find,doesn t exist,unknown path,no route,not exist,nonexistent,could not find,no matching,found no,cannot be found,unable to find,not registered,no matching key,unregistered,no record,was not found,found for given,can t find",
		cMismatch:     "too far in the future,skewed,too far in the past,too far,too great,too large,too big,out of sync,off by,meant for another,against the,not in the,is not in,not one of,ahead of,not configured,is for the,is for a,not within,outside the,outside of,out of bounds,out of range,not in the allowed,does not meet,not meet,redirect mismatch,must be registered,mismatch,does not match,did not match,doesn t match,not match,different,must match,mismatched,not the same,another,expected,differs,unmatched,mismatching,conflicts,not correspond,inconsistent,not belong,belongs to,belong to,wrong issuer,not for this,incompatible,not matching",
		cTooMany:      "too quickly,too fast,too often,too frequently,out of credits,out of credit,no credits,exceeding,out of call,out of quota,out of calls,run out of,will be replenished,limit violation,quota violation,over qps,over limits,over rate,limit has been exceeded,too many,exceeded,exceeds,limit reached,over the limit,exceed,maximum,reached,limit exceeded,exhausted,too many requests,over quota,limit has been reached,used up,max,over limit,overage,surpassed",
		cUnavailable:  "retrieval error,fetch error,error fetching,error retrieving,unavailable,maintenance,not available,temporarily unavailable,try again later,internal error,internal server error,fetch failed,remote fetch,bad gateway,could not reach,unreachable,timeout from,outage,service down,cannot reach,failed to fetch,could not fetch,unable to fetch,unable to retrieve,could not retrieve,failed to retrieve,could not connect,overloaded,out of service,down for,unable to connect,unable to reach,fetch is failed,connection error,failed to query,failed to get,could not load,failed to load,unable to load,cannot fetch,cannot connect,unable to obtain,unable to contact,could not contact",
		cSelfSigned:   "self signed,self signed certificate,self issued,depth zero self signed cert,selfsigned",
		cUntrusted:    "partial chain,untrusted root,err cert authority invalid,unable to locally verify,unable to verify,cannot verify,unknownissuer,pretending to be,not trusted by,sec e untrusted root,authority that is not trusted,server certificate verification failed,unknown authority,untrusted,not trusted,unable to get local issuer,unable to verify the first,unknown ca,verify failed,certification path,local issuer certificate,trust anchor,unable to find valid certification,not verified,unknown issuer,root certificate,trust,unable to get issuer,certificate verify failed,unable to verify leaf signature,trusted,signed by unknown,certificate authority is invalid,cannot build,path building failed,issuer is not",
		cTimeout:      "err connection timed out,err timed out,timeout was reached,timeout of,open timeout,net read timeout,readtimeout,httpclient timeout,configured timeout,deadline has elapsed,timeout,timed out,deadline exceeded,etimedout,i o timeout,time out,esockettimedout,request timed out,deadline,read timeout,connect timeout,gateway timeout,time limit,took too long,econnaborted,upstream request timeout",
		cRefusedConn:  "could not connect to the server,err connection refused,machine actively refused,network is down,host is down,connection could be made,failed to open tcp connection,err address unreachable,err internet disconnected,connection refused,econnrefused,no route to host,network unreachable,network is unreachable,ehostunreach,enetunreach,failed to establish a new connection,couldn t connect,could not connect to server,host unreachable,failed to connect,unable to connect to,actively refused,connection failed",
		cNoHost:       "specified hostname could not be found,hostname could not be found,host is known,no such host is known,unable to resolve host,unable to resolve host address,err name not resolved,lookup address information,could not resolve host,name lookup,dns lookup,dns name,resolve address,failed host lookup,host lookup,no such host,name or service not known,enotfound,could not resolve,name resolution,eai again,server misbehaving,getaddrinfo,nodename nor servname,unknown host,unknownhostexception,nxdomain,dns,couldn t resolve,no address associated,resolve host,servfail,temporary failure in name resolution,name not resolved",
		cReset:        "network connection was lost,connection was lost,empty reply from server,connection lost,connection terminated,non properly terminated,connection termination,connection reset,econnreset,broken pipe,eof,socket hang up,closed connection,remote end closed,connection closed,connection aborted,empty reply,unexpected eof,reset by peer,disconnected,epipe,server closed,peer closed,connection was closed,remotedisconnected,prematurely closed,premature close,forcibly closed",
		cBasic:        "basic,basic auth,basic authentication",
		cBearer:       "bearer,bearer token",
		cUsed:         "already used,already been used,used,reuse,reused,consumed,already redeemed,redeemed,already exchanged,more than once,already consumed,previously used,one time use,single use",
		cAnonymous:    "no user,not signed in,anonymous,guest,anonymous access,unauthenticated user,anonymous user,system anonymous,unauthenticated caller,unauthenticated users,anonymous caller,callers,authentication required,authorization required,authentication is required,without authentication",
		cLifetime:     "lifetime,short lived,too far,maximum allowed expiration,too long,too far in the future,max age,validity period,ttl",
		cHostname:     "no subject alternative dns name,no subject alternative,subject alternative dns name,alternative dns name,alternative certificate subject name,remote certificate name mismatch,wrong principal,err cert common name invalid,target principal name,matches target host name,requested host name,hostname check failed,not valid for name,doesn t match requested host name,hostname doesn t match,certificate is not valid for,hostname,host name,not valid for,altnames,subject alternative,alternative name,altname,doesn t match any,certificate is valid for,ip sans,sans,common name,host mismatch,name mismatch,no name matching,subject name,hostname mismatch,matches the host,cn name,target host name,certificate name",
	} {
		for phrase := range strings.SplitSeq(phrases, ",") {
			m[strings.ReplaceAll(phrase, "_", " ")] |= of(c)
		}
	}
	for phrase, found := range m { // what is said of something still speaks of it: "wrong issuer"
		if words := strings.Fields(phrase); len(words) > 1 && found&subjects == 0 {
			for _, w := range words {
				m[phrase] |= m[w] & subjects &^ of(cPermission) // "no authorization" is no missing right
			}
		}
	}
	for _, code := range []string{"invalid grant", "invalid request", "bad request", "invalid request error"} { // codes whose words mean nothing by themselves
		m[code] = 0
	}
	return m
}()
