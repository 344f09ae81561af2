// An app on another *site* than the provider, as nearly all are: `localhost` and `127.0.0.1` share nothing, so
// SameSite cookies, form-action and redirects behave as they do on the open web.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { App } from './app.mjs';
import { ALICE, Stage, browse, html, signIn, signInAtProvider, textOf } from './support.mjs';

const stage = new Stage();
let browser, provider;
/** A third-party app, whose people are asked for consent, and one of the operator's own, whose are not. */
let planner, portal;

before(async () => {
  [browser, planner, portal] = await Promise.all([stage.browser(), App.open(stage, '127.0.0.1'), App.open(stage, '127.0.0.1')]);
  const clients = [planner.registration('planner'), portal.registration('portal', { client_name: 'Portal', first_party: true })];
  provider = await stage.provider({ users: [ALICE], clients });
  await Promise.all([planner.connect(provider.issuer, clients[0]), portal.connect(provider.issuer, clients[1])]);
});
after(() => stage.close());

/** Whether the provider still knows this browser, as an app finds out without asking anybody. */
async function isSignedIn(page) {
  await page.goto(portal.signInUrl({ prompt: 'none' }));
  const [error] = await page.locator('#error').allInnerTexts();
  if (error !== undefined) assert.equal(error, 'login_required');
  else assert.equal(await textOf(page, '#name'), ALICE.name);
  return error === undefined;
}

describe('an app on another site', { timeout: 120_000 }, () => {
  for (const javaScriptEnabled of [true, false]) {
    const how = javaScriptEnabled ? 'with scripts' : 'without scripts';

    test(`redirects, through sign-in and consent, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(planner.signInUrl({ prompt: 'consent' }));
        await signIn(page, ALICE);
        await page.locator('#consent-allow').click();
        assert.equal(await textOf(page, '#name'), ALICE.name);
        assert.equal(planner.arrival.by, 'query');
      });
    });

    test(`redirects, through sign-in alone, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(`${portal.origin}/`);
        await page.locator('#sign-in').click();
        await signIn(page, ALICE);
        assert.equal(await textOf(page, '#name'), ALICE.name);
      });
    });

    test(`takes the answer as a form after sign-in and consent, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(planner.signInUrl({ response_mode: 'form_post', prompt: 'consent' }));
        await signIn(page, ALICE);
        await page.locator('#consent-allow').click();
        if (!javaScriptEnabled) await page.locator('#form-post-continue').click();
        assert.equal(await textOf(page, '#name'), ALICE.name);
        assert.equal(planner.arrival.by, 'form');
        assert.equal(new URL(page.url()).search, '', 'the code stays out of the address');
      });
    });

    test(`signs in by a form to /authorize, which finds the session, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        // Control: a browser without a session is asked for the password on the same way.
        await page.goto(portal.signInUrl({ via: 'post' }));
        await page.locator('#post').click();
        await signIn(page, ALICE);
        assert.equal(await textOf(page, '#name'), ALICE.name);

        delete portal.arrival;
        await page.goto(portal.signInUrl({ via: 'post' }));
        await page.locator('#post').click();
        assert.equal(await textOf(page, '#name'), ALICE.name);
        assert.ok(portal.arrival, 'a second answer came, and nobody typed a password for it');
      });
    });

    for (const via of ['', '-by-post']) {
      const means = via === '' ? 'a link' : 'a form';
      test(`signs out by ${means} and gets the person back, ${how}`, async () => {
        await browse(browser, { javaScriptEnabled }, async page => {
          await page.goto(portal.signInUrl());
          await signIn(page, ALICE);
          await page.locator('#name').waitFor();
          assert.equal(await isSignedIn(page), true, 'control: signed in before');
          await page.locator(`#sign-out${via}`).click();
          if (via !== '') await page.locator('#post').click();
          await page.locator('#signed-out').waitFor();
          assert.equal(await textOf(page, '#state'), portal.signOutState);
          assert.equal(await isSignedIn(page), false);
        });
      });
    }
  }

  test('takes the answer in the fragment', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl({ response_mode: 'fragment', prompt: 'consent' }));
      await signIn(page, ALICE);
      await page.locator('#consent-allow').click();
      assert.equal(await textOf(page, '#name'), ALICE.name);
      assert.equal(planner.arrival.by, 'fragment');
    });
  });

  test('hears of a refusal in every response mode', async () => {
    await browse(browser, {}, async page => {
      await signInAtProvider(page, provider, ALICE);
      for (const [response_mode, by] of [['query', 'query'], ['fragment', 'fragment'], ['form_post', 'form']]) {
        await page.goto(planner.signInUrl({ response_mode, prompt: 'consent' }));
        await page.locator('#consent-deny').click();
        assert.equal(await textOf(page, '#error'), 'access_denied');
        assert.equal(planner.arrival.by, by);
      }
    });
  });

  test('cannot sign anybody out who is not its own: without a hint the person is asked', async () => {
    await browse(browser, {}, async page => {
      const signOut = provider.url('/logout');
      const link = await stage.site('127.0.0.1', () => html('Elsewhere', `
        <a id="link" href="${signOut}">Out</a>
        <form method="post" action="${signOut}"><button id="form">Out</button></form>`));
      await signInAtProvider(page, provider, ALICE);
      for (const way of ['#link', '#form']) {
        await page.goto(link);
        await page.locator(way).click();
        await page.locator('#logout-stay').click();
        assert.equal(await isSignedIn(page), true, `${way}: nothing happened without the click`);
      }
      await page.goto(link);
      await page.locator('#form').click();
      await page.locator('#logout-confirm').click();
      await page.getByRole('heading', { name: 'You are signed out' }).waitFor();
      assert.equal(await isSignedIn(page), false);
    });
  });
});
