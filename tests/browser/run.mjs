// Runs every test of this directory and ends with 0 only if each of them ran and passed.
//
//   KEYWARD_BIN     the binary; ../../target/debug/keyward when unset
//   CHROMIUM        the browser; /usr/bin/chromium when unset
//   KEYWARD_SHOTS   a directory for screenshots of every page; none are taken when unset

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';
import { requirePrograms } from './support.mjs';

try {
  requirePrograms();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}

const here = fileURLToPath(new URL('.', import.meta.url));
const wanted = process.argv.slice(2);
const files = readdirSync(here)
  .filter(name => name.endsWith('.test.mjs') && (wanted.length === 0 || wanted.some(word => name.includes(word))))
  .sort()
  .map(name => join(here, name));

// Whatever keeps the end from being reached is a failure.
process.exitCode = 1;
let passed = 0;
let failed = 0;
const results = run({ files, concurrency: 2, timeout: 300_000 });
results.on('test:fail', () => { failed += 1; });
// A test that does not run is not a test that passes.
results.on('test:pass', ({ skip, todo }) => { if (skip === undefined && todo === undefined) passed += 1; else failed += 1; });
results.on('end', () => { process.exitCode = failed === 0 && passed > 0 ? 0 : 1; });
results.compose(spec).pipe(process.stdout);
