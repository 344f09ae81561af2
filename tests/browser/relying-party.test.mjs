// Relying parties on the `openid-client` library against `keyward serve`: one for every way to authenticate.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import * as oidc from 'openid-client';
import { authorizationRequest, discover } from './app.mjs';
import { ALICE, Stage, browse, html, signIn } from './support.mjs';

const SECRET = 'a secret with +, %, : and /';
const SCOPE = 'openid profile email offline_access';

const stage = new Stage();
let browser, provider, redirect_uri, signed_out_uri;

before(async () => {
  browser = await stage.browser();
  const origin = await stage.site('127.0.0.1', () => html('The app', '<h1 id="app">Welcome back</h1>'));
  [redirect_uri, signed_out_uri] = [`${origin}/callback`, `${origin}/signed-out`];
  const client = (client_id, more) => ({
    client_id,
    client_name: 'Study Planner',
    redirect_uris: [redirect_uri],
    post_logout_redirect_uris: [signed_out_uri],
    grant_types: ['authorization_code', 'refresh_token'],
    scope: SCOPE,
    first_party: true,
    ...more,
  });
  provider = await stage.provider({
    users: [ALICE],
    clients: [
      client('basic', { client_secret: SECRET, token_endpoint_auth_method: 'client_secret_basic' }),
      client('post', { client_secret: SECRET, token_endpoint_auth_method: 'client_secret_post' }),
      client('public', { token_endpoint_auth_method: 'none' }),
    ],
  });
});
after(() => stage.close());

/** Walks a browser through a sign-in, as far as the app's callback; gives the URL that it arrived at. */
async function arrive(page, url) {
  await page.goto(url.href);
  await signIn(page, ALICE);
  await page.locator('#app').waitFor();
  return new URL(page.url());
}

/** A complete sign-in: `tokens`, verified. */
async function tokensFor(page, config) {
  const { url, checks } = await authorizationRequest(config, { redirect_uri, scope: SCOPE });
  const current = await arrive(page, url);
  const tokens = await oidc.authorizationCodeGrant(config, current, checks);
  return { tokens, current, checks };
}

const refused = status => error => {
  assert.equal(error.status ?? error.cause?.status, status, error.stack);
  return true;
};
const oauthError = code => error => {
  assert.equal(error.error, code, error.stack);
  return true;
};

/** UserInfo says who Alice is. */
async function knowsAlice(config, tokens) {
  const claims = await oidc.fetchUserInfo(config, tokens.access_token, tokens.claims().sub);
  const { name, email, email_verified, preferred_username } = claims;
  assert.deepEqual({ name, email, email_verified, preferred_username },
    { name: ALICE.name, email: ALICE.email, email_verified: true, preferred_username: ALICE.username });
}

/** Everything that is the same for every client. */
async function wholeLife(config) {
  await browse(browser, {}, async page => {
    const { tokens, current, checks } = await tokensFor(page, config);
    assert.equal(config.serverMetadata().issuer, provider.issuer);
    assert.equal(tokens.token_type, 'bearer');
    assert.ok(tokens.expires_in > 0 && tokens.refresh_token);
    await knowsAlice(config, tokens);

    const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token);
    assert.notEqual(refreshed.access_token, tokens.access_token);
    await knowsAlice(config, { ...refreshed, claims: () => tokens.claims() });

    // The app signs the person out: back at the app, with its state, and not signed in any more.
    const state = oidc.randomState();
    const logout = oidc.buildEndSessionUrl(config, { post_logout_redirect_uri: signed_out_uri, id_token_hint: tokens.id_token, state });
    const silently = async () => {
      const request = await authorizationRequest(config, { redirect_uri, scope: SCOPE, prompt: 'none' });
      await page.goto(request.url.href);
      return new URL(page.url()).searchParams.get('error');
    };
    assert.equal(await silently(), null, 'control: before, nobody has to be asked');
    await page.goto(logout.href);
    assert.equal(page.url(), `${signed_out_uri}?state=${state}`);
    assert.equal(await silently(), 'login_required');

    // A grant that outlives the session (offline_access), until the app gives it back.
    const kept = refreshed.refresh_token ?? tokens.refresh_token;
    const later = await oidc.refreshTokenGrant(config, kept);
    await knowsAlice(config, { ...later, claims: () => tokens.claims() });
    await oidc.tokenRevocation(config, later.access_token);
    await assert.rejects(oidc.fetchUserInfo(config, later.access_token, tokens.claims().sub), refused(401));
    const last = later.refresh_token ?? kept;
    await oidc.tokenRevocation(config, last);
    await assert.rejects(oidc.refreshTokenGrant(config, last), oauthError('invalid_grant'));

    await assert.rejects(oidc.authorizationCodeGrant(config, current, checks), oauthError('invalid_grant'), 'a code serves once');
  });
}

describe('a relying party on openid-client', { timeout: 120_000 }, () => {
  const methods = { basic: oidc.ClientSecretBasic, post: oidc.ClientSecretPost };

  test('lives a whole life with client_secret_basic', async () => {
    await wholeLife(await discover(provider.issuer, 'basic', oidc.ClientSecretBasic(SECRET)));
  });

  test('lives a whole life with client_secret_post', async () => {
    await wholeLife(await discover(provider.issuer, 'post', oidc.ClientSecretPost(SECRET)));
  });

  test('lives a whole life as a public client', async () => {
    await wholeLife(await discover(provider.issuer, 'public', oidc.None()));
  });

  for (const [clientId, other] of [['basic', 'post'], ['post', 'basic']]) {
    test(`registered for client_secret_${clientId} is refused any other way, and with another secret`, async () => {
      await browse(browser, {}, async page => {
        const config = await discover(provider.issuer, clientId, methods[clientId](SECRET));
        const { url, checks } = await authorizationRequest(config, { redirect_uri });
        const current = await arrive(page, url);
        for (const authentication of [methods[other](SECRET), methods[clientId]('another secret'), oidc.None()]) {
          const impostor = await discover(provider.issuer, clientId, authentication);
          const error = await oidc.authorizationCodeGrant(impostor, current, checks).catch(refusal => refusal);
          // With a challenge the library keeps the answer for the app; without one it reads the error itself.
          const answer = error.error === undefined ? await error.response.json() : error;
          assert.equal(error.status, 401);
          assert.equal(answer.error, 'invalid_client');
        }
        // Control: the code is still good for the one it belongs to.
        await knowsAlice(config, await oidc.authorizationCodeGrant(config, current, checks));
      });
    });
  }

  test('needs the code_verifier of its own code_challenge', async () => {
    await browse(browser, {}, async page => {
      const config = await discover(provider.issuer, 'public', oidc.None());
      const { url, checks } = await authorizationRequest(config, { redirect_uri });
      const current = await arrive(page, url);
      const stolen = { ...checks, pkceCodeVerifier: oidc.randomPKCECodeVerifier() };
      await assert.rejects(oidc.authorizationCodeGrant(config, current, stolen), oauthError('invalid_grant'));
      const control = await authorizationRequest(config, { redirect_uri });
      await page.goto(control.url.href);
      await knowsAlice(config, await oidc.authorizationCodeGrant(config, new URL(page.url()), control.checks));
    });
  });

  test('as a public client rotates its refresh token, and a lost answer can be asked for again', async () => {
    await browse(browser, {}, async page => {
      const config = await discover(provider.issuer, 'public', oidc.None());
      const { tokens } = await tokensFor(page, config);
      const first = tokens.refresh_token;
      const answer = await oidc.refreshTokenGrant(config, first);
      assert.ok(answer.refresh_token && answer.refresh_token !== first, 'the successor is another token');
      const repeated = await oidc.refreshTokenGrant(config, first);
      assert.equal(repeated.refresh_token, answer.refresh_token, 'the retry receives the same successor');
      const next = await oidc.refreshTokenGrant(config, answer.refresh_token);
      assert.notEqual(next.refresh_token, answer.refresh_token);
      // The successor was used, so whoever still has the first token is not the app that lost an answer.
      await assert.rejects(oidc.refreshTokenGrant(config, first), oauthError('invalid_grant'));
    });
  });

  test('as a confidential client keeps its refresh token', async () => {
    await browse(browser, {}, async page => {
      const config = await discover(provider.issuer, 'basic', oidc.ClientSecretBasic(SECRET));
      const { tokens } = await tokensFor(page, config);
      for (let round = 0; round < 2; round += 1) {
        const answer = await oidc.refreshTokenGrant(config, tokens.refresh_token);
        assert.ok([undefined, tokens.refresh_token].includes(answer.refresh_token));
      }
    });
  });
});
