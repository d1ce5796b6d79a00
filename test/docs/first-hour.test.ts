/** docs/first-hour.md is gone through as it stands, with other ports and the Redis of the suite. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { cliFile, createTestbed, type Testbed } from '../support/testbed.js';
import { needs } from '../support/needs.js';
import { until } from '../support/until.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(root, 'docs/first-hour.md'), 'utf8');
const blocks = [...page.matchAll(/```(\w+)\n([\s\S]*?)```/g)].map(([, , text]) => text!);
const block = (holds: string): string => {
  const found = blocks.filter((text) => text.includes(holds));
  if (found.length !== 1) throw new Error(`expected one block with ${holds}, got ${found.length}`);
  return found[0]!;
};

/** The page waits as long as the real provider takes; a test does not. */
const SOON = { POLL_FIRST_DELAY_MS: '500', POLL_MIN_INTERVAL_MS: '200' };

let bed: Testbed;
let folder: string;
let adapted: (text: string) => string;
const running: ChildProcess[] = [];

beforeAll(async () => {
  bed = await createTestbed();
  folder = await mkdtemp(join(tmpdir(), 'reelhaul-first-hour-'));
  const ports = { '4010': await freePort(), '3000': await freePort(), '8080': await freePort() };
  adapted = (text) =>
    Object.entries(ports)
      .reduce(
        (one, [port, free]) => one.replaceAll(new RegExp(`(?<=[:=(]| --port )${port}\\b`, 'g'), String(free)),
        text,
      )
      .replace(/REDIS_URL=.*/, `REDIS_URL=${bed.environment['REDIS_URL']}`)
      .replace(/REDIS_PREFIX=.*/, `REDIS_PREFIX='${bed.prefix}'`)
      .replaceAll(/^npx reelhaul/gm, 'exec ./npx reelhaul');
  // What npm would install stands in this repository already.
  await mkdir(join(folder, 'node_modules'));
  await symlink(root, join(folder, 'node_modules/reelhaul'));
  await symlink(join(root, 'node_modules/standardwebhooks'), join(folder, 'node_modules/standardwebhooks'));
  await writeFile(join(folder, 'npx'), `#!/bin/sh\nshift\nexec "${process.execPath}" "${cliFile}" "$@"\n`);
  await chmod(join(folder, 'npx'), 0o755);
  for (const name of ['settings.sh', 'app.mjs', 'app.py']) {
    const text = block(`${name.endsWith('.mjs') ? '//' : '#'} ${name}\n`);
    await writeFile(join(folder, name), adapted(text));
  }
});
afterAll(async () => {
  for (const child of running) child.kill('SIGKILL');
  await bed.close();
  await rm(folder, { recursive: true, maxRetries: 5 });
});

function start(script: string) {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn('sh', ['-c', adapted(script)], { cwd: folder, env: { PATH, HOME, ...SOON } });
  running.push(child);
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  return { output: () => out, closed: once(child, 'close').then(([code]) => code as number) };
}

needs('python3').test(
  'an empty folder becomes a stored video, a notification and a film in Python',
  async () => {
    const simulator = start(block('reelhaul simulate'));
    await until(
      () => simulator.output().includes('/ledger'),
      async () => `the simulator: ${simulator.output()}`,
    );
    // What it prints is what the page sets.
    const settings = await readFile(join(folder, 'settings.sh'), 'utf8');
    for (const [, name, value] of simulator.output().matchAll(/export (\w+)=(\S+)/g))
      expect([name, settings]).toEqual([
        name,
        expect.stringContaining(name!.startsWith('REDIS') ? `${name}=` : `${name}=${value}`),
      ]);
    const worker = start(block('worker --serve'));
    await until(
      () => worker.output().includes('worker started'),
      async () => `the worker: ${worker.output()}`,
    );
    const doctor = start(block('reelhaul doctor'));
    expect([await doctor.closed, doctor.output()]).toEqual([0, expect.stringContaining('ok')]);

    const app = start('. ./settings.sh\nexec node app.mjs');
    const python = start('. ./settings.sh\nexec python3 app.py');
    expect([await app.closed, app.output()]).toEqual([
      0,
      expect.stringMatching(/^succeeded \S+\/video\.mp4\ngeneration\.succeeded 1\n$/),
    ]);
    expect([await python.closed, python.output()]).toEqual([0, 'succeeded None\n']);
    expect((await readFile(join(folder, 'film.mp4'))).subarray(4, 8).toString()).toBe('ftyp');

    const [, look = ''] = /^(?:\. .*\n)([\s\S]*)$/.exec(block('reelhaul spend')) ?? [];
    const lost = look.split('\n').find((line) => line.includes('enqueue'))!;
    const enqueue = start(`. ./settings.sh\n${lost}`);
    expect(await enqueue.closed).toBe(0);
    const id = /^[0-9a-f-]{36}/.exec(enqueue.output())![0];
    await bed.reaches(id, 'unconfirmed');
    for (const command of ['list', 'spend', 'limits']) expect(look).toContain(`npx reelhaul ${command}\n`);
  },
);

test('the packages that it installs are those of the README', () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const installs = (text: string) =>
    /npm install (hono @hono\/node-server @bull-board[^`\n]*)/.exec(text)![1]!.trim();
  expect(installs(page)).toBe(installs(readme));
});

test('Redis starts as it says', () => {
  const flags = /redis-server --port 6379 (.*)/.exec(page)![1]!;
  expect(page).toContain(`valkey-server ${flags}`);
  expect(spawnSync('sh', ['-n', join(folder, 'settings.sh')]).status).toBe(0);
});
