// Every page that people see: can everybody use it, in both themes, on a phone and at a desk, with the keyboard alone?

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { App } from './app.mjs';
import { ALICE, BOB, SHOTS, Stage, browse, isPolicyViolation, screenshot, signIn, signInAtProvider, textOf, until } from './support.mjs';

const AXE = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const THEMES = ['light', 'dark'];
const PHONE = { width: 360, height: 740 };
const DESK = { width: 1280, height: 800 };
/** WCAG 2.2, 1.4.10 Reflow. */
const NARROWEST = { width: 320, height: 640 };

const PARTNER = { client_id: 'acme', client_secret: 'the secret of acme' };

const stage = new Stage();
let browser, provider, planner, verbose;

before(async () => {
  [browser, planner, verbose] = await Promise.all([stage.browser(), App.open(stage, '127.0.0.1'), App.open(stage, '127.0.0.1')]);
  const clients = [
    planner.registration('planner', {
      client_uri: 'https://study.example.com',
      policy_uri: 'https://study.example.com/privacy',
      tos_uri: 'https://study.example.com/terms',
    }),
    // Names that somebody really registers one day, and that nothing may break.
    verbose.registration('verbose', {
      client_name: 'Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetzverwaltung',
      scope: 'openid profile email phone address offline_access quiz.read',
    }),
    { ...PARTNER, client_name: 'Acme Learning <b>', grant_types: ['client_credentials'], scope: 'partner.users', partner: true },
  ];
  provider = await stage.provider({
    users: [ALICE, { ...BOB, name: undefined, email: `bob.${'very-long-name.'.repeat(4)}baker@subdomain.of.a.rather.long.example.com` }],
    clients,
    scopes: [{ name: 'quiz.read', description: 'Read your quizzes' }],
    brand: {
      name: 'Northwind ID',
      privacy_uri: 'https://northwind.example/privacy',
      terms_uri: 'https://northwind.example/terms',
      help_uri: 'https://northwind.example/help',
    },
  });
  await Promise.all([planner.connect(provider.issuer, clients[0]), verbose.connect(provider.issuer, clients[1])]);
});
after(() => stage.close());

// ------------------------------------------------------------------------------------------------ looking at a page

/** Until nothing on the page moves or fades any more: what axe and a picture see should be what stays. */
const settled = page => page.evaluate(() => Promise.allSettled(document.getAnimations().map(animation => animation.finished)));

/** What axe-core finds wrong, in words. */
async function violations(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async tags => {
    // `target-size` is of WCAG 2.2, whose rules axe leaves off unless asked.
    const options = { runOnly: tags, rules: { 'target-size': { enabled: true } }, resultTypes: ['violations'] };
    return (await globalThis.axe.run(document, options)).violations;
  }, TAGS);
  return found.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
}

/** How many pixels one would have to scroll sideways. */
const overhang = page => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

/** Looks at the page in both themes and at every width, as whoever opens it may. */
async function inspect(page, name) {
  for (const colorScheme of THEMES) {
    await page.emulateMedia({ colorScheme });
    for (const viewport of [PHONE, DESK]) {
      await page.setViewportSize(viewport);
      await settled(page);
      if (SHOTS) await screenshot(page, `${name}-${colorScheme}-${viewport.width}`);
      const where = `${name}, ${colorScheme}, ${viewport.width} px`;
      assert.deepEqual(await violations(page), [], where);
      assert.equal(await overhang(page), 0, `${where}: wider than its window`);
    }
  }
  await page.setViewportSize(NARROWEST);
  await settled(page);
  if (SHOTS) await screenshot(page, `${name}-dark-${NARROWEST.width}`);
  assert.equal(await overhang(page), 0, `${name}, ${NARROWEST.width} px: wider than its window`);
  await page.setViewportSize(DESK);
}

/** Answers the app's callback with 204, on which a browser stays where it is: then a page that sends itself on can be seen. */
async function detain(page, app) {
  let sent = 0;
  const isCallback = url => url.origin === app.origin && url.pathname === '/callback';
  await page.route(isCallback, route => { sent += 1; return route.fulfill({ status: 204 }); });
  return {
    sent: () => until('the page to send itself on', () => sent > 0),
    release: () => page.unroute(isCallback),
  };
}

const focused = page => page.evaluate(() => document.activeElement?.id);

// ------------------------------------------------------------------------------------------------------------ tests

/** What a partner's backend is answered. */
async function asPartner(path, body) {
  const basic = `Basic ${Buffer.from(`${PARTNER.client_id}:${PARTNER.client_secret}`).toString('base64')}`;
  const form = new URLSearchParams({ grant_type: 'client_credentials' });
  const tokens = await (await fetch(provider.url('/token'), { method: 'POST', body: form, headers: { authorization: basic } })).json();
  const headers = { authorization: `Bearer ${tokens.access_token}`, ...(body && { 'content-type': 'application/json' }) };
  const answer = await fetch(provider.url(`/v1/partner${path}`), { method: 'POST', headers, body: body && JSON.stringify(body) });
  assert.equal(answer.status, 201, await answer.clone().text());
  return answer.json();
}

describe('the pages', { timeout: 180_000 }, () => {
  test('a hand-off: who is about to be signed in, and a click that does it', async () => {
    const person = { external_id: '42', email: 'ada@example.com', name: 'Ada Lovelace', welcome_email: 'suppress' };
    const { user } = await asPartner('/users', person);
    const { url } = await asPartner(`/users/${user.id}/browser-handoff`);
    await browse(browser, {}, async page => {
      await page.goto(url);
      await inspect(page, 'handoff');
      const text = await textOf(page, 'body');
      assert.ok(text.includes('Acme Learning <b>') && text.includes('Ada Lovelace') && text.includes('Northwind ID'), text);
      await page.click('#handoff-continue');
      await page.waitForURL(provider.url('/login'));
      assert.ok((await textOf(page, 'body')).includes('Ada Lovelace'));
      // The way back shows a link that is over, and says so.
      await page.goto(url);
      await inspect(page, 'handoff-over');
    });
  });

  test('control: the inspection finds what it looks for', async () => {
    await browse(browser, {}, async page => {
      await page.goto(provider.url('/login'));
      assert.deepEqual(await violations(page), []);
      await page.evaluate(() => {
        document.querySelector('label').remove();
        document.querySelector('.lead').style.color = '#bbb';
        document.querySelector('.card').style.minInlineSize = '400px';
      });
      const found = (await violations(page)).map(text => text.split(':')[0]);
      assert.ok(found.includes('label') && found.includes('color-contrast'), `found ${found}`);
      await page.setViewportSize(NARROWEST);
      assert.notEqual(await overhang(page), 0);
    });
    // A page that breaks its own policy fails its test; this one is made to.
    await assert.rejects(browse(browser, {}, async page => {
      await page.goto(provider.url('/login'));
      const refusal = page.waitForEvent('console', isPolicyViolation);
      await page.evaluate(() => { document.head.append(Object.assign(document.createElement('script'), { text: 'alert(1)' })); });
      await refusal;
    }), /the browser refused or missed something/);
  });

  test('sign-in', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl());
      await page.getByText('Study Planner', { exact: true }).first().waitFor();
      await inspect(page, 'sign-in');
    });
  });

  test('sign-in after a wrong password says so, and does not say which of the two was wrong', async () => {
    await browse(browser, {}, async page => {
      const complaint = async name => {
        await page.goto(planner.signInUrl());
        await signIn(page, { username: name, password: 'wrong' });
        const alert = page.getByRole('alert');
        await alert.waitFor();
        return alert.innerText();
      };
      const [known, unknown] = [await complaint(ALICE.username), await complaint('nobody')];
      assert.equal(known, unknown);
      assert.equal(await page.locator('#username').inputValue(), 'nobody', 'nobody types their name twice');
      assert.equal(await page.locator('#password').inputValue(), '');
      assert.equal(await focused(page), 'password');
      await inspect(page, 'sign-in-refused');
      // Control: the right password still works, on the very page that complained.
      await signIn(page, ALICE);
      await page.locator('#consent-allow').waitFor();
    });
  });

  test('choosing an account', async () => {
    await browse(browser, {}, async page => {
      await signInAtProvider(page, provider, ALICE);
      await page.goto(planner.signInUrl({ prompt: 'select_account consent' }));
      assert.match(await textOf(page, '#login-continue'), /Alice Archer/);
      await inspect(page, 'select-account');
      // The other account is a sign-in like any other, and it is who the app then hears of.
      await signIn(page, BOB);
      await page.locator('#consent-allow').click();
      await page.locator('#sign-out').waitFor();
      const bob = planner.tokens.claims().sub;
      await page.goto(planner.signInUrl({ prompt: 'select_account' }));
      await page.locator('#login-continue').click();
      await page.locator('#sign-out').waitFor();
      assert.equal(planner.tokens.claims().sub, bob, 'the one who was offered is the one who went on');
    });
  });

  test('consent', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl({ prompt: 'consent', scope: 'openid profile email offline_access' }));
      await signIn(page, ALICE);
      await page.locator('#consent-allow').waitFor();
      await page.getByText('Alice Archer').waitFor();
      await page.getByText('127.0.0.1', { exact: true }).waitFor();
      await inspect(page, 'consent');
    });
  });

  test('consent, with the longest of everything', async () => {
    await browse(browser, {}, async page => {
      await page.goto(verbose.signInUrl({ prompt: 'consent', scope: 'openid profile email phone address offline_access quiz.read' }));
      await signIn(page, BOB);
      await page.locator('#consent-allow').waitFor();
      await page.getByText('Read your quizzes').waitFor();
      await inspect(page, 'consent-long');
    });
  });

  test('the account on the consent page can be changed', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl({ prompt: 'consent' }));
      await signIn(page, BOB);
      await page.locator('#consent-switch').click();
      await signIn(page, ALICE);
      await page.locator('#consent-allow').click();
      assert.equal(await textOf(page, '#name'), ALICE.name);
    });
  });

  test('an unregistered redirect_uri is explained, and leads nowhere', async () => {
    await browse(browser, {}, async page => {
      const received = `${planner.origin}/yesterday/${'callback/'.repeat(12)}?<b>&a=b`;
      const response = await page.goto(planner.signInUrl({ redirect_uri: received }));
      assert.equal(response.status(), 400);
      assert.equal(new URL(page.url()).origin, provider.issuer);
      const text = await textOf(page, 'main');
      const requestId = response.headers()['x-request-id'];
      assert.ok(requestId);
      for (const expected of ['redirect_uri is not registered', 'Study Planner', received, requestId]) {
        assert.ok(text.includes(expected), `${expected} is not in\n${text}`);
      }
      assert.ok(!text.includes(planner.redirectUri), 'the registered values are for development only');
      assert.ok(provider.keyward.log.includes(planner.redirectUri), 'but the log has them');
      assert.ok(provider.keyward.log.includes(requestId), 'under the same request id');
      await inspect(page, 'error');
    });
  });

  test('an address that is not there', async () => {
    await browse(browser, {}, async page => {
      const response = await page.goto(provider.url('/nothing/here'));
      assert.equal(response.status(), 404);
      assert.ok((await textOf(page, 'main')).includes(response.headers()['x-request-id']));
      await inspect(page, 'not-found');
    });
  });

  test('signed in, sign out?, signed out', async () => {
    await browse(browser, {}, async page => {
      await signInAtProvider(page, provider, ALICE);
      assert.match(await textOf(page, 'h1'), /signed in as Alice Archer/);
      await inspect(page, 'signed-in');
      await page.locator('#sign-out').click();
      await page.locator('#logout-confirm').waitFor();
      await inspect(page, 'logout');
      await page.locator('#logout-stay').click();
      assert.match(await textOf(page, 'h1'), /signed in as Alice Archer/);
      await page.locator('#sign-out').click();
      await page.locator('#logout-confirm').click();
      await page.locator('#sign-in').waitFor();
      assert.match(await textOf(page, 'h1'), /You are signed out/);
      await inspect(page, 'signed-out');
      await page.locator('#sign-in').click();
      await page.locator('#password').waitFor();
    });
  });

  test('on the way back as a form', async () => {
    await browse(browser, {}, async page => {
      const callback = await detain(page, planner);
      await page.goto(planner.signInUrl({ response_mode: 'form_post', prompt: 'consent' }));
      await signIn(page, ALICE);
      await page.locator('#consent-allow').click();
      await callback.sent();
      await inspect(page, 'form-post');
      // Control: it was the real one, and its button does what its script does.
      await callback.release();
      await page.locator('#form-post-continue').click();
      assert.equal(await textOf(page, '#name'), ALICE.name);
    });
  });
});

describe('with the keyboard alone', { timeout: 60_000 }, () => {
  for (const javaScriptEnabled of [true, false]) {
    test(`signs in and allows, ${javaScriptEnabled ? 'with' : 'without'} scripts`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(planner.signInUrl({ prompt: 'consent' }));
        await page.locator('#username:focus').waitFor();
        await page.keyboard.type(ALICE.username);
        await page.keyboard.press('Tab');
        await page.keyboard.type(ALICE.password);
        await page.keyboard.press('Enter');
        await page.locator('#consent-allow').waitFor();
        const allow = page.locator('#consent-allow:focus');
        for (let tabs = 0; await allow.count() === 0; tabs += 1) {
          assert.ok(tabs < 10, 'the button is reached in a few steps');
          await page.keyboard.press('Tab');
        }
        await page.keyboard.press('Enter');
        assert.equal(await textOf(page, '#name'), ALICE.name);
      });
    });
  }

  test('what has the focus shows it', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl());
      for (const id of ['username', 'password', 'login-submit']) {
        await page.locator(`#${id}:focus`).waitFor();
        const { width, style } = await page.locator(`#${id}`).evaluate(element => {
          const { outlineWidth, outlineStyle } = getComputedStyle(element);
          return { width: Number.parseFloat(outlineWidth), style: outlineStyle };
        });
        assert.ok(width >= 2 && style !== 'none', `${id}: ${width}px ${style}`);
        await page.keyboard.press('Tab');
      }
    });
  });
});

describe('for password managers', { timeout: 60_000 }, () => {
  test('the fields say what they are', async () => {
    await browse(browser, {}, async page => {
      await page.goto(planner.signInUrl({ login_hint: ALICE.email }));
      const tokens = async selector => (await page.locator(selector).getAttribute('autocomplete')).split(' ');
      assert.equal((await tokens('#username'))[0], 'username');
      assert.equal((await tokens('#password'))[0], 'current-password');
      assert.equal(await page.locator('#password').getAttribute('type'), 'password');
      assert.equal(await page.locator('form:has(#password) #username').count(), 1, 'both are in one form');
      // `login_hint` is there to be used: only the password is left to type.
      assert.equal(await page.locator('#username').inputValue(), ALICE.email);
      assert.equal(await focused(page), 'password');
    });
  });
});
