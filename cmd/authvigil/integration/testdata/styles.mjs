// Two identity providers of one port, configured as those that people have: one like Auth0 (an issuer with a slash at its end, an
// audience is wanted), one like Keycloak (an issuer with a path, scopes). Environment: PORT, CERT, KEY. Prints "ready".
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

const origin = `https://localhost:${process.env.PORT}`;
const key = () => ({ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'RS256' });
const client = (client_id, method) => ({ client_id, client_secret: 'secret-of-the-client-0123456789', token_endpoint_auth_method: method, grant_types: ['client_credentials'], redirect_uris: [], response_types: [] });
const common = (info, more) => ({
  jwks: { keys: [key()] }, scopes: ['openid', 'devices:read'],
  features: { devInteractions: { enabled: false }, clientCredentials: { enabled: true }, resourceIndicators: { enabled: true, useGrantedResource: () => true, ...info } },
  ttl: { ClientCredentials: 3600 }, ...more,
});
const server = (audience) => ({ scope: 'devices:read', audience, accessTokenFormat: 'jwt', accessTokenTTL: 3600, jwt: { sign: { alg: 'RS256' } } });

const audience = new Provider(`${origin}/`, common(
  { defaultResource: () => undefined, getResourceServerInfo: (_ctx, resource) => server(resource) },
  { clients: [client('machine', 'client_secret_post')], clientAuthMethods: ['client_secret_basic', 'client_secret_post'], routes: { token: '/oauth/token', jwks: '/.well-known/jwks.json' } },
));
const realm = new Provider(`${origin}/realms/demo`, common(
  { defaultResource: () => 'urn:account', getResourceServerInfo: () => server('account') },
  { clients: [client('billing', 'client_secret_basic')], clientAuthMethods: ['client_secret_basic', 'client_secret_post'], routes: { token: '/protocol/openid-connect/token', jwks: '/protocol/openid-connect/certs' } },
));
const byAudience = audience.callback(), byRealm = realm.callback();

createServer({ cert: readFileSync(process.env.CERT), key: readFileSync(process.env.KEY) }, async (req, res) => {
  if (req.url.startsWith('/realms/demo')) {
    req.originalUrl = req.url;
    req.url = req.url.slice('/realms/demo'.length);
    byRealm(req, res);
    return;
  }
  if (req.url === '/oauth/token') {
    const parts = [];
    for await (const part of req) parts.push(part);
    const form = new URLSearchParams(Buffer.concat(parts).toString());
    if (!form.has('audience')) {
      res.writeHead(403, { 'Content-Type': 'application/json' });
      res.end('{"error":"access_denied","error_description":"No audience parameter was provided, and no default audience has been configured"}');
      return;
    }
    form.set('resource', form.get('audience'));
    form.delete('audience');
    req.body = Object.fromEntries(form);
  }
  byAudience(req, res);
}).listen(process.env.PORT, '127.0.0.1', () => console.log('ready'));
