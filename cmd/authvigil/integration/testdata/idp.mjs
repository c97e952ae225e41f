// The identity provider of the integration tests: oidc-provider over TLS, with knobs under /_knob.
// Environment: PORT, CERT, KEY. Prints "ready ISSUER" when it listens.
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

const port = Number(process.env.PORT);
const issuer = `https://localhost:${port}`;
const signingKey = (kid) => ({ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES256' });
const machine = (client_id, client_secret, token_endpoint_auth_method, more = {}) => ({
  client_id, client_secret, token_endpoint_auth_method, grant_types: ['client_credentials'], redirect_uris: [], response_types: [], id_token_signed_response_alg: 'ES256', ...more,
});

const knob = { seconds: 300, status: 0, after: '', html: false, lose: false };
const provider = new Provider(issuer, {
  jwks: { keys: [signingKey('first')] },
  scopes: ['openid', 'offline_access'],
  clients: [
    machine('in-header', 'header-secret-1', 'client_secret_basic'),
    machine('in-body', 'body-secret-1', 'client_secret_post'),
    { client_id: 'robot', client_secret: 'robot-secret-1', redirect_uris: ['https://app.test/back'], grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'], id_token_signed_response_alg: 'ES256' },
    { client_id: 'person', client_secret: 'person-secret-1', redirect_uris: ['https://app.test/back'], grant_types: ['authorization_code'], response_types: ['code'], id_token_signed_response_alg: 'ES256' },
  ],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      getResourceServerInfo: (_ctx, resource) => ({ scope: 'things:read things:write', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: knob.seconds, jwt: { sign: { alg: 'ES256' } } }),
    },
  },
  rotateRefreshToken: true,
  ttl: { ClientCredentials: () => knob.seconds, AccessToken: () => knob.seconds, RefreshToken: 3600 },
});

// consent gives a refresh token, as if somebody had agreed in a browser.
async function consent() {
  const grant = new provider.Grant({ accountId: 'somebody', clientId: 'robot' });
  grant.addOIDCScope('openid offline_access');
  const grantId = await grant.save();
  const client = await provider.Client.find('robot');
  return new provider.RefreshToken({ accountId: 'somebody', client, grantId, gty: 'authorization_code', scope: 'openid offline_access', claims: {} }).save();
}
const answer = provider.callback();

createServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY) }, (req, res) => {
  const url = new URL(req.url, issuer);
  if (url.pathname === '/_knob') {
    knob.seconds = Number(url.searchParams.get('seconds') ?? 300);
    knob.status = Number(url.searchParams.get('status') ?? 0);
    knob.after = url.searchParams.get('after') ?? '';
    knob.html = url.searchParams.has('html');
    knob.lose = url.searchParams.has('lose');
    res.end('ok');
    return;
  }
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
