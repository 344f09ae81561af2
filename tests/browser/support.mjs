// What every test needs: Keyward as a process of its own, a real Chromium, and small web sites for it to visit.
// Nothing here waits for a length of time; it polls for a state, and gives up at a deadline with the process's log.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const HERE = fileURLToPath(new URL('.', import.meta.url));
export const KEYWARD_BIN = resolve(process.env.KEYWARD_BIN ?? join(HERE, '../../target/debug/keyward'));
export const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
/** Where screenshots go; none are taken without it. */
export const SHOTS = process.env.KEYWARD_SHOTS;

/** How long a process may take to start or stop, and a page to appear: generous, since a busy machine is no bug. */
const PATIENCE = 20_000;

/** Says what is missing before anything fails for a reason that is hard to see. */
export function requirePrograms() {
  for (const [name, path] of [['KEYWARD_BIN', KEYWARD_BIN], ['CHROMIUM', CHROMIUM]]) {
    try {
      accessSync(path, constants.X_OK);
    } catch {
      throw new Error(`${path} is not an executable file; build or install it, or set ${name}`);
    }
  }
}

/** Polls until `probe` gives something true, and gives that. */
export async function until(what, probe, patience = PATIENCE) {
  const end = Date.now() + patience;
  let last;
  while (Date.now() < end) {
    try {
      const found = await probe();
      if (found) return found;
    } catch (error) {
      if (error.final) throw error;
      last = error;
    }
    await new Promise(wake => setTimeout(wake, 50));
  }
  throw new Error(`gave up waiting for ${what}`, { cause: last });
}

/** Ports that nobody has on either loopback address right now. All are held until all are found, so they differ. */
export async function freePorts(count) {
  const held = [];
  const hold = async (port, host) => {
    const server = createSocketServer().listen(port, host);
    await once(server, 'listening');
    held.push(server);
    return server.address().port;
  };
  const ports = [];
  while (ports.length < count) {
    const port = await hold(0, '127.0.0.1');
    // Without IPv6 there is nothing to collide with; a port taken there is passed over.
    const free = await hold(port, '::1').then(() => true, error => error.code !== 'EADDRINUSE');
    if (free) ports.push(port);
  }
  await Promise.all(held.map(server => new Promise(done => server.close(done))));
  return ports;
}

/** The environment without what would change the meaning of a test: settings of Keyward, and HTTP proxies. */
export function cleanEnvironment() {
  const keep = ([name]) => !name.startsWith('KEYWARD_') && !/_proxy$/i.test(name);
  return Object.fromEntries(Object.entries(process.env).filter(keep));
}

// ---------------------------------------------------------------------------------------------------------- config

/** Enough TOML for a configuration file: scalars and arrays first, then tables and arrays of tables. */
export function toml(table, path = []) {
  const isTable = value => typeof value === 'object' && !Array.isArray(value);
  const isTables = value => Array.isArray(value) && value.length > 0 && value.every(isTable);
  const entries = Object.entries(table).filter(([, value]) => value !== undefined);
  // Every JSON string is a TOML basic string as long as it has no lone surrogates.
  const lines = entries
    .filter(([, value]) => !isTable(value) && !isTables(value))
    .map(([key, value]) => `${key} = ${Array.isArray(value) ? `[${value.map(v => JSON.stringify(v)).join(', ')}]` : JSON.stringify(value)}`);
  for (const [key, value] of entries) {
    const name = [...path, key].join('.');
    if (isTable(value)) lines.push(`\n[${name}]`, toml(value, [...path, key]));
    if (isTables(value)) for (const each of value) lines.push(`\n[[${name}]]`, toml(each, [...path, key]));
  }
  return lines.join('\n');
}

export const ALICE = {
  username: 'alice',
  password: 'correct horse battery staple',
  email: 'alice@example.com',
  email_verified: true,
  name: 'Alice Archer',
};
export const BOB = {
  username: 'bob',
  password: 'another long pass phrase',
  email: 'bob@example.com',
  name: 'Bob Baker',
};

// ------------------------------------------------------------------------------------------------------- processes

const running = new Set();
// If the runner dies first, its servers must not outlive it.
process.on('exit', () => running.forEach(server => server.child.kill('SIGKILL')));

/** A Keyward process and everything that it has said. */
class Keyward {
  constructor(args, cwd) {
    this.stdout = '';
    this.log = '';
    this.child = spawn(KEYWARD_BIN, args, { cwd, env: cleanEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] });
    this.exited = new Promise(resolve => {
      this.child.once('error', error => resolve({ error }));
      this.child.once('close', (code, signal) => resolve({ code, signal }));
    });
    this.exited.then(exit => { this.exit = exit; running.delete(this); });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', text => {
        this.log += text;
        if (stream === this.child.stdout) this.stdout += text;
      });
    }
    running.add(this);
  }

  /** Until `url` answers 200. */
  async answers(url) {
    await until(`${url} to answer`, async () => {
      if (this.exit) {
        throw Object.assign(new Error(`keyward ended: ${JSON.stringify(this.exit)}\n${tail(this.log)}`), { final: true });
      }
      return (await fetch(url)).ok;
    }).catch(error => { throw error.final ? error : new Error(`${error.message}\n${tail(this.log)}`, { cause: error.cause }); });
  }

  /** SIGTERM, as a service manager does it; whoever runs Keyward relies on a clean end. */
  async stop() {
    if (!this.exit) this.child.kill('SIGTERM');
    const late = new Promise(wake => setTimeout(wake, PATIENCE, { late: true }).unref());
    const exit = await Promise.race([this.exited, late]);
    if (exit.late) this.child.kill('SIGKILL');
    assert.deepEqual(exit, { code: 0, signal: null }, `keyward did not end as it should\n${tail(this.log)}`);
  }
}

/** The end of a log, without the colours of a terminal. */
const tail = log => log.replace(/\x1b\[[\d;]*m/g, '').trimEnd().split('\n').slice(-12).join('\n');

/** Everything one file of tests puts up, taken down again in reverse. */
export class Stage {
  #undo = [];

  onClose(undo) {
    this.#undo.push(undo);
  }

  async close() {
    const problems = [];
    for (const undo of this.#undo.splice(0).reverse()) await Promise.resolve().then(undo).catch(error => problems.push(error));
    if (problems.length > 0) throw problems[0];
  }

  async directory() {
    const path = await mkdtemp(join(tmpdir(), 'keyward-browser-'));
    this.onClose(() => rm(path, { recursive: true, force: true }));
    return path;
  }

  /**
   * `keyward serve` on a new directory. `settings` are those of the configuration file; `issuer` and `listen` are
   * filled in where absent.
   */
  async provider(settings) {
    const [port] = await freePorts(1);
    const directory = await this.directory();
    const listen = `127.0.0.1:${port}`;
    const config = { issuer: `http://localhost:${port}`, listen, ...settings };
    const file = join(directory, 'keyward.toml');
    await writeFile(file, `${toml(config)}\n`);
    const keyward = new Keyward(['serve', '--config', file], directory);
    this.onClose(() => keyward.stop());
    await keyward.answers(`http://${config.listen}/.well-known/openid-configuration`);
    return { issuer: config.issuer, listen: config.listen, url: path => config.issuer + path, keyward };
  }

  /** `keyward dev`; its process belongs to the caller, who may want to start it twice. */
  async dev(directory, [port, demoPort]) {
    const keyward = new Keyward(['dev', '--dir', directory, '--port', `${port}`, '--demo-port', `${demoPort}`], directory);
    this.onClose(() => keyward.stop());
    const [issuer, demo] = [`http://localhost:${port}`, `http://localhost:${demoPort}`];
    await keyward.answers(`${issuer}/.well-known/openid-configuration`);
    await keyward.answers(`${demo}/`);
    return { issuer, demo, keyward };
  }

  /** A web site of somebody else, on `host`. `respond(request)` gives `{status, headers, body}`, or only HTML. */
  async site(host, respond) {
    const server = createServer(async (incoming, outgoing) => {
      const chunks = [];
      for await (const chunk of incoming) chunks.push(chunk);
      const body = new URLSearchParams(Buffer.concat(chunks).toString());
      const url = new URL(incoming.url, `http://${incoming.headers.host}`);
      let answer;
      try {
        answer = await respond({ method: incoming.method, url, path: url.pathname, body, headers: incoming.headers });
      } catch (error) {
        answer = { status: 500, body: html('Trouble', `<h1 id="trouble">${escape(error.stack)}</h1>`) };
      }
      const { status = 200, headers = {}, body: content = '' } = typeof answer === 'string' ? { body: answer } : answer;
      outgoing.writeHead(status, { 'content-type': 'text/html; charset=utf-8', ...headers }).end(content);
    });
    server.listen(0, host);
    await once(server, 'listening');
    this.onClose(() => { server.closeAllConnections(); server.close(); });
    return `http://${host}:${server.address().port}`;
  }

  async browser() {
    requirePrograms();
    const browser = await chromium.launch({
      executablePath: CHROMIUM,
      args: [
        '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server',
        '--disable-background-networking', '--disable-component-update', '--disable-sync',
      ],
    });
    this.onClose(() => browser.close());
    return browser;
  }
}

export const redirect = location => ({ status: 303, headers: { location } });
export const escape = text => String(text).replace(/[&<>"]/g, char => `&#${char.charCodeAt(0)};`);
export const html = (title, content) =>
  `<!doctype html><html lang="en"><head><title>${title}</title></head><body>${content}</body></html>`;
export const hiddenFields = fields =>
  [...new URLSearchParams(fields)].map(([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`).join('');

// ----------------------------------------------------------------------------------------------------------- pages

/**
 * One person at one browser with nothing in it yet. Whatever the test is about, the pages must not have tried
 * something that their own Content-Security-Policy refuses, nor miss a stylesheet or picture.
 */
export async function browse(browser, options, visit) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  const problems = [];
  context.on('console', message => {
    if (isPolicyViolation(message)) problems.push(`${message.text()} (${message.page()?.url()})`);
  });
  context.on('response', response => {
    const type = response.request().resourceType();
    if (['stylesheet', 'image', 'script', 'font'].includes(type) && response.status() >= 400) {
      problems.push(`${response.status()} for the ${type} ${response.url()}`);
    }
  });
  try {
    const page = await context.newPage();
    const result = await visit(page, context);
    assert.deepEqual(problems, [], 'the browser refused or missed something');
    return result;
  } catch (error) {
    throw await explained(error, context, problems);
  } finally {
    await context.close();
  }
}

/** A page's own violation: that another site may not frame it is the policy at work. */
export const isPolicyViolation = message => /Content Security Policy/.test(message.text()) && !/frame-ancestors/.test(message.text());

/** The error with what a person would ask next: where was the browser, and what did the server say? */
async function explained(error, context, problems) {
  const pages = await Promise.all(context.pages().map(async (page, index) => {
    if (SHOTS) await screenshot(page, `failed-${Date.now()}-${index}`).catch(() => {});
    const text = await page.locator('body').innerText({ timeout: 1_000 }).catch(() => '(no text)');
    return `on ${page.url()}: ${text.replace(/\s+/g, ' ').slice(0, 400)}`;
  }));
  const logs = [...running].map(server => `log of ${server.child.spawnargs.slice(1, 2)}:\n${tail(server.log)}`);
  const message = [error.message, ...problems, ...pages, ...logs].join('\n');
  return Object.assign(new Error(message, { cause: error.cause }), { stack: `${message}\n${error.stack}` });
}

export async function screenshot(page, name) {
  await mkdir(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true, animations: 'disabled' });
}

/** Types a name and a password and presses the button, as a person does. */
export async function signIn(page, { username, password }) {
  await page.locator('#username').fill(username);
  await page.locator('#password').fill(password);
  await page.locator('#login-submit').click();
}

/** Signs in at the provider without an app. */
export async function signInAtProvider(page, provider, user) {
  await page.goto(provider.url('/login'));
  await signIn(page, user);
  await page.locator('#sign-out').waitFor();
}

/** The text of an element once it is there. */
export const textOf = (page, selector) => page.locator(selector).innerText();
export const jsonOf = async (page, selector) => JSON.parse(await page.locator(selector).textContent());
