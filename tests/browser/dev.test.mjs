// `keyward dev` in an empty directory: what somebody sees in their first five minutes.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Stage, browse, cleanEnvironment, freePorts, jsonOf, signIn, textOf, until } from './support.mjs';

const stage = new Stage();
let browser, directory, ports, dev, credentials;

/** What `dev` wrote; the file is complete once the servers answer. */
const readCredentials = async () => JSON.parse(await readFile(join(directory, 'data/dev-credentials.json'), 'utf8'));

/** Every secret that a person needs to go on, as they read it in the terminal. */
const printedSecrets = ({ user, clients }) =>
  [user.username, user.password, ...Object.values(clients).flatMap(client => [client.client_id, client.client_secret])];

before(async () => {
  [browser, directory, ports] = await Promise.all([stage.browser(), stage.directory(), freePorts(2)]);
  dev = await stage.dev(directory, ports);
  credentials = await readCredentials();
});
after(() => stage.close());

describe('keyward dev', { timeout: 120_000 }, () => {
  test('prints the issuer, the discovery URL, the demo and every credential', async () => {
    const expected = [dev.issuer, `${dev.issuer}/.well-known/openid-configuration`, dev.demo, ...printedSecrets(credentials)];
    await until('everything to be printed', () => expected.every(text => dev.keyward.stdout.includes(text)), 5_000)
      .catch(() => assert.deepEqual(expected.filter(text => !dev.keyward.stdout.includes(text)), [], 'not printed'));
    assert.equal(credentials.issuer, dev.issuer);
    const { mode } = await stat(join(directory, 'data/dev-credentials.json'));
    assert.equal(mode & 0o777, 0o600, 'credentials are for their owner alone');
  });

  // Without scripts first: whoever comes first is asked for consent because they never gave it, the other by prompt.
  for (const javaScriptEnabled of [false, true]) {
    const how = javaScriptEnabled ? 'with scripts' : 'without scripts';

    test(`signs in to the demo, refreshes and signs out again, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(dev.demo);
        await page.locator(javaScriptEnabled ? 'a[href*="prompt=consent"]' : '#demo-sign-in').click();
        await signIn(page, credentials.user);
        await page.locator('#consent-allow').click();

        assert.notEqual((await textOf(page, '#demo-name')).trim(), '');
        assert.equal(new URL(page.url()).origin, dev.demo);
        const subject = await textOf(page, '#demo-subject');
        const idToken = await jsonOf(page, '#demo-id-token-claims');
        const userinfo = await jsonOf(page, '#demo-userinfo');
        assert.equal(idToken.iss, dev.issuer);
        assert.equal(idToken.sub, subject);
        assert.equal(userinfo.sub, subject);
        assert.equal(userinfo.preferred_username, credentials.user.username);
        assert.match(await textOf(page, '#demo-scope'), /\bopenid\b.*\boffline_access\b|\boffline_access\b.*\bopenid\b/);

        assert.equal(await textOf(page, '#demo-refresh-count'), 'not yet');
        await page.locator('#demo-refresh').click();
        await page.getByText('once', { exact: true }).waitFor();
        assert.equal(await textOf(page, '#demo-refresh-count'), 'once');
        assert.equal((await jsonOf(page, '#demo-userinfo')).sub, subject, 'the new access token works');

        await page.locator('#demo-sign-out').click();
        await page.locator('#demo-signed-out').waitFor();
        await page.getByText('Keyward sent you back here').waitFor();
        // The session at the provider is over too, not only the demo's.
        await page.locator('#demo-sign-in').click();
        await page.locator('#password').waitFor();
      });
    });

    test(`takes the answer as a form, ${how}`, async () => {
      await browse(browser, { javaScriptEnabled }, async page => {
        await page.goto(dev.demo);
        await page.locator('a[href*="response_mode=form_post"]').click();
        await signIn(page, credentials.user);
        if (!javaScriptEnabled) await page.locator('#form-post-continue').click();
        await page.locator('#demo-name').waitFor();
      });
    });
  }

  test('tells the app when the person cancels, and when it may not ask', async () => {
    await browse(browser, {}, async page => {
      await page.goto(dev.demo);
      await page.locator('a[href*="prompt=none"]').click();
      assert.equal(await textOf(page, '#demo-error'), 'login_required');
      await page.goto(dev.demo);
      await page.locator('a[href*="prompt=consent"]').click();
      await signIn(page, credentials.user);
      await page.locator('#consent-deny').click();
      assert.equal(await textOf(page, '#demo-error'), 'access_denied');
      // Control: the same person is signed in, and what they allowed before still stands.
      await page.goto(dev.demo);
      await page.locator('a[href*="prompt=none"]').click();
      await page.locator('#demo-name').waitFor();
    });
  });

  test('prints curl lines that work when pasted', async () => {
    const lines = curlLines(dev.keyward.stdout);
    assert.ok(lines.length >= 2, `there are ${lines.length} curl lines in\n${dev.keyward.stdout}`);
    for (const line of lines) {
      const { stdout } = await promisify(execFile)('sh', ['-c', line], { cwd: directory, env: cleanEnvironment() })
        .catch(error => assert.fail(`${line}\n${error.stderr}${error.stdout}`));
      let answer;
      assert.doesNotThrow(() => { answer = JSON.parse(stdout); }, `${line}\nanswered ${stdout}`);
      assert.equal(typeof answer, 'object', line);
      // curl is content with any answer; the person who pasted the line is not.
      assert.ok(!('error' in answer) && answer.active !== false, `${line}\nanswered ${stdout}`);
    }
  });

  test('a second start finds the same state and prints the same', async () => {
    await dev.keyward.stop();
    dev = await stage.dev(directory, ports);
    assert.deepEqual(await readCredentials(), credentials);
    await until('the credentials to be printed again', () => printedSecrets(credentials).every(text => dev.keyward.stdout.includes(text)));
    // The database is the same one: what was allowed before the restart needs no consent after it.
    await browse(browser, {}, async page => {
      await page.goto(dev.demo);
      await page.locator('#demo-sign-in').click();
      await signIn(page, credentials.user);
      await page.locator('#demo-name').waitFor();
    });
  });
});

/** The commands of a terminal's text that start with `curl`, each with the lines that a backslash continues. */
function curlLines(text) {
  const joined = text.replace(/\\\r?\n\s*/g, ' ');
  return joined.split('\n').map(line => line.trim().replace(/^\$ /, '')).filter(line => line.startsWith('curl '));
}
