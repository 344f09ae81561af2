// What a page of somebody else may try in a browser that is signed in: post our forms, or put us into a frame. Each
// attack carries everything that its author could know, and more; beside each stands the same thing done rightly.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { App } from './app.mjs';
import { ALICE, BOB, Stage, browse, escape, hiddenFields, html, signIn, signInAtProvider, textOf } from './support.mjs';

const stage = new Stage();
let browser, provider, app;
/** What the attacker's page says at the moment, and where it can be visited. */
let trap = '';
const lairs = {};

before(async () => {
  [browser, app] = await Promise.all([stage.browser(), App.open(stage, '127.0.0.1')]);
  // Another site, whose forms bring none of our cookies; and another origin of the same site, whose forms bring all.
  lairs['another site'] = await stage.site('127.0.0.1', () => trap);
  lairs['another origin of the same site'] = await stage.site('localhost', () => trap);
  const registration = app.registration('app');
  provider = await stage.provider({ users: [ALICE, BOB], clients: [registration] });
  await app.connect(provider.issuer, registration);
});
after(() => stage.close());

/** Has a visitor of `lair` post `fields` to the provider without a click; gives the provider's answer. */
async function attack(page, lair, path, fields) {
  trap = html('Win a prize', `<form method="post" action="${escape(provider.url(path))}">${hiddenFields(fields)}</form>
    <script>document.forms[0].submit()</script>`);
  const [answer] = await Promise.all([
    page.waitForResponse(response => response.request().method() === 'POST' && response.url() === provider.url(path)),
    page.goto(lair),
  ]);
  await page.waitForURL(url => url.origin === provider.issuer);
  await page.waitForLoadState();
  return answer;
}

/** The hidden fields of the form that the person has before them. */
const fieldsOf = (page, button) => page.locator(`form:has(${button}) input[type=hidden]`)
  .evaluateAll(inputs => Object.fromEntries(inputs.map(({ name, value }) => [name, value])));

/** What an app hears when it asks without asking the person: `null` when all is well. */
async function silentError(page) {
  await page.goto(app.signInUrl({ prompt: 'none' }));
  await page.locator('#error, #name').waitFor();
  return (await page.locator('#error').allInnerTexts())[0] ?? null;
}

describe('a page of somebody else', { timeout: 120_000 }, () => {
  // The consent of these tests must not be there already, so each has a person of its own.
  for (const [place, user] of [['another site', ALICE], ['another origin of the same site', BOB]]) {
    test(`on ${place} cannot consent for the person`, async () => {
      await browse(browser, {}, async page => {
        await signInAtProvider(page, provider, user);
        assert.equal(await silentError(page), 'consent_required');
        await page.goto(app.signInUrl());
        const known = await fieldsOf(page, '#consent-allow');
        assert.ok(known.ticket && known.csrf);
        // With the ticket alone, which anybody can get, and even with the token, which nobody can.
        for (const fields of [{ ticket: known.ticket }, { ...known, csrf: 'guess' }, known]) {
          const answer = await attack(page, lairs[place], '/consent', { ...fields, decision: 'allow' });
          assert.equal(answer.status(), 403);
          assert.equal(await silentError(page), 'consent_required', 'nothing was consented to');
        }
        // Control: the same fields count when it is the person who sends them from our page.
        await page.goto(app.signInUrl());
        await page.locator('#consent-allow').click();
        assert.equal(await textOf(page, '#name'), user.name);
        assert.equal(await silentError(page), null);
      });
    });
  }

  for (const place of ['another site', 'another origin of the same site']) {
    test(`on ${place} cannot sign the person in to the attacker's account`, async () => {
      await browse(browser, {}, async page => {
        await page.goto(provider.url('/login'));
        const { csrf } = await fieldsOf(page, '#login-submit');
        const { username, password } = BOB;
        for (const fields of [{ username, password }, { username, password, csrf }]) {
          const answer = await attack(page, lairs[place], '/login', fields);
          assert.equal(answer.status(), 403);
          assert.equal(await silentError(page), 'login_required', 'nobody is signed in');
        }
        // Control: the same name and password, typed.
        await signInAtProvider(page, provider, BOB);
        assert.match(await textOf(page, 'h1'), /Bob Baker/);
        // Nor is the person who is signed in exchanged for another.
        await attack(page, lairs[place], '/login', { username: ALICE.username, password: ALICE.password, csrf });
        await page.goto(provider.url('/login'));
        assert.match(await textOf(page, 'h1'), /Bob Baker/);
      });
    });

    test(`on ${place} cannot sign the person out`, async () => {
      await browse(browser, {}, async page => {
        await signInAtProvider(page, provider, ALICE);
        await page.goto(provider.url('/logout'));
        const known = await fieldsOf(page, '#logout-confirm');
        for (const fields of [{}, known]) {
          await attack(page, lairs[place], '/logout', { ...fields, action: 'logout' });
          await page.goto(provider.url('/login'));
          assert.match(await textOf(page, 'h1'), /signed in as Alice Archer/);
        }
        // Control: the click of the person does it.
        await page.goto(provider.url('/logout'));
        await page.locator('#logout-confirm').click();
        await page.locator('#sign-in').waitFor();
        assert.equal(await silentError(page), 'login_required');
      });
    });

    test(`on ${place} does not spoil the form that the person is filling in`, async () => {
      await browse(browser, {}, async (page, context) => {
        await page.goto(provider.url('/login'));
        const elsewhere = await context.newPage();
        await attack(elsewhere, lairs[place], '/login', { username: 'x', password: 'y' });
        await signIn(page, ALICE);
        await page.locator('#sign-out, #alert').waitFor();
        assert.deepEqual(await page.locator('#alert').allInnerTexts(), []);
        assert.match(await textOf(page, 'h1'), /signed in as Alice Archer/);
      });
    });
  }

  test('cannot put any of ours into a frame', async () => {
    await browse(browser, {}, async page => {
      await signInAtProvider(page, provider, ALICE);
      await page.goto(app.signInUrl({ prompt: 'consent' }));
      await page.locator('#consent-allow').waitFor();
      const consent = page.url();
      for (const lair of Object.values(lairs)) {
        // Control: a frame as such works.
        assert.equal(await framed(page, lair, `${app.origin}/`), 'Sign in');
        for (const url of [provider.url('/login'), consent, provider.url('/logout'), provider.url('/authorize')]) {
          assert.equal(await framed(page, lair, url), undefined, url);
        }
      }
    });
  });

  test('is told so by headers too, for browsers that know only one of them', async () => {
    for (const path of ['/login', '/logout', '/authorize', '/.well-known/openid-configuration', '/nothing/here']) {
      const { headers } = await fetch(provider.url(path), { redirect: 'manual' });
      assert.equal(headers.get('x-frame-options'), 'DENY', path);
      assert.match(headers.get('content-security-policy'), /frame-ancestors 'none'/, path);
      assert.equal(headers.get('x-content-type-options'), 'nosniff', path);
    }
  });
});

/** The first link or button of `url` in a frame of `lair`; `undefined` where the browser left the frame blank. */
async function framed(page, lair, url) {
  trap = html('Frame', `<iframe src="${escape(url)}" width="500" height="500"></iframe>`);
  await page.goto(lair);
  await page.waitForLoadState('load');
  const frame = page.frames().find(each => each !== page.mainFrame());
  return (await frame.locator('a, button').allInnerTexts())[0];
}
