// The identity provider of the integration tests: oidc-provider over TLS, with knobs under /_knob.
// Environment: PORT, CERT, KEY, CA, CLIENT_PUBLIC (key of the client "signer"). Prints "ready ISSUER" when it listens.
import { X509Certificate, createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { jwtVerify } from 'jose';
import { Provider, errors } from 'oidc-provider';

const port = Number(process.env.PORT);
const issuer = `https://localhost:${port}`;
const signingKey = (kid) => ({ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES256' });
const machine = (client_id, client_secret, token_endpoint_auth_method, more = {}) => ({
  client_id, client_secret, token_endpoint_auth_method, grant_types: ['client_credentials'], redirect_uris: [], response_types: [], id_token_signed_response_alg: 'ES256', ...more,
});

const knob = { seconds: 300, status: 0, after: '', html: false, lose: false, nonce: false };
const clientKey = createPublicKey(readFileSync(process.env.CLIENT_PUBLIC));
const bearerGrant = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const exchangeGrant = 'urn:ietf:params:oauth:grant-type:token-exchange';
let keys = [signingKey('first')];
let provider; // made anew when its keys change
let answer;
const settings = {
  scopes: ['openid', 'offline_access'],
  clients: [
    machine('in-header', 'header-secret-1', 'client_secret_basic'),
    machine('in-body', 'body-secret-1', 'client_secret_post'),
    machine('in-assertion', 'assertion-secret-of-32-characters', 'client_secret_jwt', { token_endpoint_auth_signing_alg: 'HS256' }),
    machine('signer', undefined, 'private_key_jwt', { token_endpoint_auth_signing_alg: 'ES256', jwks: { keys: [{ ...clientKey.export({ format: 'jwk' }), kid: 'client-key', use: 'sig', alg: 'ES256' }] } }),
    machine('by-certificate', undefined, 'tls_client_auth', { tls_client_auth_san_dns: 'client.test' }),
    machine('exchanger', 'exchange-secret-1', 'client_secret_basic', { grant_types: ['client_credentials', bearerGrant, exchangeGrant] }),
    { client_id: 'robot', client_secret: 'robot-secret-1', redirect_uris: ['https://app.test/back'], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], id_token_signed_response_alg: 'ES256' },
    { client_id: 'public', token_endpoint_auth_method: 'none', redirect_uris: ['https://app.test/back'], grant_types: ['authorization_code'], response_types: ['code'], id_token_signed_response_alg: 'ES256' },
    { client_id: 'person', client_secret: 'person-secret-1', redirect_uris: ['https://app.test/back'], grant_types: ['authorization_code'], response_types: ['code'], id_token_signed_response_alg: 'ES256' },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    userinfo: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => knob.nonce },
    mTLS: {
      enabled: true,
      tlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate()?.toString(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_san_dns' && new X509Certificate(ctx.socket.getPeerX509Certificate().toString()).checkHost(expected, { subject: 'never' }) !== undefined,
    },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_ctx, resource) => ({ scope: 'things:read things:write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: knob.seconds, jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'tls_client_auth', 'none'],
  rotateRefreshToken: true,
  ttl: { ClientCredentials: () => knob.seconds, AccessToken: () => knob.seconds, RefreshToken: 3600 },
};

// consent gives a refresh token, as if somebody had agreed in a browser.
async function consent() {
  const grant = new provider.Grant({ accountId: 'somebody', clientId: 'robot' });
  grant.addOIDCScope('openid offline_access');
  const grantId = await grant.save();
  const client = await provider.Client.find('robot');
  return new provider.RefreshToken({ accountId: 'somebody', client, grantId, gty: 'authorization_code', scope: 'openid offline_access', claims: {} }).save();
}

// issue gives a token of a client, bound to nobody.
async function issue(ctx, more) {
  const token = new provider.ClientCredentials({ client: ctx.oidc.client, scope: '' });
  const value = await token.save();
  ctx.body = { access_token: value, expires_in: token.expiration, token_type: token.tokenType, ...more };
}
function begin() {
  provider = new Provider(issuer, { ...settings, jwks: { keys } });
  provider.registerGrantType(bearerGrant, async (ctx) => {
    try {
      await jwtVerify(ctx.oidc.params.assertion, clientKey, { issuer: 'workload@test', subject: 'somebody@test', audience: `${issuer}/token`, maxTokenAge: 120 });
    } catch (error) {
      throw new errors.InvalidGrant(`the assertion is not valid: ${error.message}`);
    }
    await issue(ctx, {});
  }, ['assertion']);
  provider.registerGrantType(exchangeGrant, async (ctx) => {
    const { subject_token, subject_token_type } = ctx.oidc.params;
    const subject = subject_token_type === 'urn:ietf:params:oauth:token-type:access_token' && await provider.ClientCredentials.find(subject_token);
    if (!subject) throw new errors.InvalidRequest('the subject token is not valid');
    await issue(ctx, { issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' });
  }, ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'requested_token_type', 'audience']);
  provider.on('server_error', (_ctx, error) => console.error(error));
  answer = provider.callback();
}
begin();
let asked = 0;

createServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY), ca: readFileSync(process.env.CA), requestCert: true, rejectUnauthorized: false }, (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/_knob') {
    knob.seconds = Number(url.searchParams.get('seconds') ?? 300);
    knob.status = Number(url.searchParams.get('status') ?? 0);
    knob.after = url.searchParams.get('after') ?? '';
    knob.html = url.searchParams.has('html');
    knob.lose = url.searchParams.has('lose');
    knob.nonce = url.searchParams.has('nonce');
    res.end('ok');
    return;
  }
  if (url.pathname === '/_rotate') { // a new signing key; keep: the old ones stay published
    keys = [signingKey(url.searchParams.get('kid')), ...(url.searchParams.has('keep') ? keys : [])];
    begin();
    res.end('ok');
    return;
  }
  if (url.pathname === '/_asked') { // how many token requests there were
    res.end(String(asked));
    return;
  }
  if (url.pathname === '/token') asked += 1;
  if (url.pathname === '/_consent') {
    consent().then((token) => res.end(token), (error) => res.writeHead(500).end(String(error)));
    return;
  }
  if (url.pathname === '/token' && knob.lose) {
    res.end = () => { req.socket.destroy(); return res; };
  }
  if (url.pathname === '/token' && knob.html) {
    res.writeHead(200, { 'content-type': 'text/html' }).end('<html><title>Maintenance</title><body>Back soon</body></html>');
    return;
  }
  if (url.pathname === '/token' && knob.status) {
    res.writeHead(knob.status, { 'content-type': 'application/json', ...(knob.after ? { 'retry-after': knob.after } : {}) }).end('{}');
    return;
  }
  answer(req, res);
}).listen(port, '127.0.0.1', () => console.log(`ready ${issuer}`));
