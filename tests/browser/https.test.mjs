// Once as in production: https outside, a reverse proxy that ends TLS, and Keyward in plain HTTP behind it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer, request as secureRequest } from 'node:https';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import * as oidc from 'openid-client';
import { App } from './app.mjs';
import { ALICE, Stage, browse, freePorts, signIn, textOf } from './support.mjs';

const stage = new Stage();
let browser, app, provider, plain;

before(async () => {
  const [[port, publicPort], tls] = await Promise.all([freePorts(2), certificate()]);
  const listen = `127.0.0.1:${port}`;
  const issuer = `https://localhost:${publicPort}`;
  await reverseProxy(publicPort, listen, tls);
  [browser, app] = await Promise.all([stage.browser(), App.open(stage, '127.0.0.1')]);
  const registration = app.registration('app');
  const settings = { users: [ALICE], clients: [registration] };
  [provider, plain] = await Promise.all([
    stage.provider({ ...settings, issuer, listen, proxy: { trusted: ['127.0.0.1/32'] } }),
    stage.provider(settings),
  ]);
  await app.connect(issuer, registration, { [oidc.customFetch]: fetchTrusting(tls.cert) });
});
after(() => stage.close());

describe('behind a proxy that ends TLS', { timeout: 120_000 }, () => {
  test('signs in, with cookies that only this host can set and only https carries', async () => {
    await browse(browser, { ignoreHTTPSErrors: true }, async (page, context) => {
      await page.goto(app.signInUrl());
      await signIn(page, ALICE);
      await page.locator('#consent-allow').click();
      assert.equal(await textOf(page, '#name'), ALICE.name);
      assert.equal(app.tokens.claims().iss, provider.issuer);

      const cookies = await context.cookies(provider.issuer);
      assert.ok(cookies.length > 0);
      for (const { name, domain, path, secure, httpOnly, sameSite } of cookies) {
        assert.match(name, /^__Host-/);
        assert.deepEqual({ domain, path, secure, httpOnly, sameSite },
          { domain: 'localhost', path: '/', secure: true, httpOnly: true, sameSite: 'Lax' }, name);
      }
      // The cookie is the session: without it the same browser is asked again.
      await page.goto(app.signInUrl());
      assert.equal(await textOf(page, '#name'), ALICE.name);
      await context.clearCookies({ name: /^__Host-/ });
      await page.goto(app.signInUrl());
      await page.locator('#password').waitFor();
    });
  });

  test('signs out, and the cookie is gone', async () => {
    await browse(browser, { ignoreHTTPSErrors: true }, async (page, context) => {
      await page.goto(provider.url('/login'));
      const before = await context.cookies(provider.issuer);
      await signIn(page, ALICE);
      await page.locator('#sign-out').click();
      await page.locator('#logout-confirm').click();
      await page.locator('#sign-in').waitFor();
      const names = cookies => cookies.map(({ name }) => name).sort();
      // What says that somebody signed in with this browser opens nothing, and stays.
      const left = names(await context.cookies(provider.issuer)).filter(name => name !== '__Host-keyward_device');
      assert.deepEqual(left, names(before), 'only what was there before signing in');
    });
  });

  test('tells browsers to stay with https, and only there', async () => {
    await browse(browser, { ignoreHTTPSErrors: true }, async page => {
      const secure = await page.goto(provider.url('/login'));
      const [, age] = /max-age=(\d+)/.exec(secure.headers()['strict-transport-security'] ?? '') ?? [];
      assert.ok(Number(age) >= 31_536_000, `at least a year: ${secure.headers()['strict-transport-security']}`);
      const insecure = await page.goto(plain.url('/login'));
      assert.equal(insecure.headers()['strict-transport-security'], undefined);
    });
  });

  test('on plain http for development, cookies keep every other protection', async () => {
    await browse(browser, {}, async (page, context) => {
      await page.goto(plain.url('/login'));
      await signIn(page, ALICE);
      await page.locator('#sign-out').waitFor();
      const cookies = await context.cookies(plain.issuer);
      assert.ok(cookies.length > 0);
      for (const { name, httpOnly, sameSite } of cookies) {
        assert.doesNotMatch(name, /^__/, 'a browser would refuse the prefix on http');
        assert.deepEqual({ httpOnly, sameSite }, { httpOnly: true, sameSite: 'Lax' }, name);
      }
    });
  });
});

/** A certificate for localhost that nobody but these tests trusts. */
async function certificate() {
  const directory = await stage.directory();
  const [keyFile, certFile] = [join(directory, 'key.pem'), join(directory, 'cert.pem')];
  await promisify(execFile)('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', keyFile, '-out', certFile,
  ]);
  const [key, cert] = await Promise.all([readFile(keyFile), readFile(certFile)]);
  return { key, cert };
}

/** What nginx does in front of Keyward: the `Host` stays, and the address of the client is added. */
async function reverseProxy(port, upstream, tls) {
  const [host, upstreamPort] = upstream.split(':');
  const server = createServer(tls, (incoming, outgoing) => {
    const headers = { ...incoming.headers, 'x-forwarded-for': incoming.socket.remoteAddress, 'x-forwarded-proto': 'https' };
    const inner = request({ host, port: upstreamPort, method: incoming.method, path: incoming.url, headers }, answer => {
      outgoing.writeHead(answer.statusCode, answer.rawHeaders);
      answer.pipe(outgoing);
    });
    inner.once('error', () => outgoing.writeHead(502).end());
    incoming.pipe(inner);
  });
  server.listen(port, 'localhost');
  await once(server, 'listening');
  stage.onClose(() => { server.closeAllConnections(); server.close(); });
}

/** `fetch` that trusts `ca`, which the built-in one can be told only for the whole process. */
function fetchTrusting(ca) {
  return (url, { method, headers, body }) => new Promise((resolve, reject) => {
    const content = body === undefined || body === null ? undefined : String(body);
    const outgoing = secureRequest(url, { method, headers: { ...Object.fromEntries(new Headers(headers)) }, ca }, async incoming => {
      const chunks = [];
      for await (const chunk of incoming) chunks.push(chunk);
      const empty = [204, 205, 304].includes(incoming.statusCode);
      resolve(new Response(empty ? null : Buffer.concat(chunks), { status: incoming.statusCode, headers: incoming.headers }));
    });
    outgoing.once('error', reject).end(content);
  });
}
