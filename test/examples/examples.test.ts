/** The examples work as they stand: a web app, a curl script, a Python script. */
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { POSTER_PNG } from '../../src/simulator/fixtures.js';
import { startApi, type TestApi } from '../support/api.js';
import { needs } from '../support/needs.js';
import { SECRET } from '../support/receiver.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const TOKEN = 'token-of-the-examples';
const file = (name: string) => fileURLToPath(new URL(`../../docs/examples/${name}`, import.meta.url));

let bed: Testbed;
let api: TestApi;
let folder: string;
const running: ChildProcess[] = [];

beforeEach(async () => {
  const port = String(await freePort());
  bed = await createTestbed({
    environment: {
      NOTIFY_SECRET: SECRET,
      NOTIFY_ALLOW_HOSTS: '127.0.0.1',
      PUBLIC_URL: `http://127.0.0.1:${port}`,
      CALLBACK_SECRET: 'a secret for the tests',
    },
  });
  api = await startApi(bed, { API_TOKENS: TOKEN, PORT: port });
  folder = await mkdtemp(join(tmpdir(), 'reelhaul-test-'));
  await bed.work();
});
afterEach(async () => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
  await api.close();
  await bed.close();
  await rm(folder, { recursive: true });
});

function start(command: string, args: readonly string[], environment: Record<string, string> = {}) {
  const { PATH = '', HOME = '' } = process.env;
  const env = { PATH, HOME, REELHAUL: api.url, TOKEN, NOTIFY_SECRET: SECRET, ...environment };
  const child = spawn(command, args, { env });
  running.push(child);
  let out = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (out += chunk.toString()));
  return { child, output: () => out, closed: once(child, 'close').then(([code]) => code as number) };
}

test('the web app enqueues, and is told; what is not signed is not believed', async () => {
  const port = String(await freePort());
  const SELF = `http://127.0.0.1:${port}`;
  const app = start(process.execPath, [file('app.mjs')], { ...bed.environment, PORT: port, SELF });
  await until(
    () => app.output().includes('listening'),
    async () => `the app to listen: ${app.output()}`,
  );
  const order = (body: unknown) => fetch(`${SELF}/orders/7`, { method: 'POST', body: JSON.stringify(body) });
  expect((await order({ prompt: '' })).status).toBe(422);
  expect((await order({ prompt: 'a boat', image })).status).toBe(202);

  const forged = JSON.stringify({ data: { state: 'failed', metadata: { order: '7' } } });
  const headers = { 'webhook-id': 'x', 'webhook-timestamp': '1', 'webhook-signature': 'v1,AAAA' };
  expect((await fetch(`${SELF}/hooks/reelhaul`, { method: 'POST', body: forged, headers })).status).toBe(401);

  const film = await until(async () => {
    const seen = (await (await fetch(`${SELF}/orders/7`)).json()) as { state: string; video: string };
    return seen.state === 'succeeded' ? seen : null;
  }, 'the app to be told');
  expect((await readFile(join(bed.archive, film.video))).subarray(4, 8).toString()).toBe('ftyp');
  app.child.kill('SIGTERM');
  expect(await app.closed).toBe(0);
});

/** What the provider fetched of the only submit so far. */
const fetched = () =>
  bed.simulator.ledger().submits.flatMap(({ inputs }) => inputs.map(({ sha256 }) => sha256));
const boatFile = async () => {
  const path = join(folder, 'boat.png');
  await writeFile(path, POSTER_PNG);
  return path;
};
const BOAT = createHash('sha256').update(POSTER_PNG).digest('hex');

needs('curl').test('the curl script uploads a picture and fetches the film of it', async () => {
  const film = join(folder, 'film.mp4');
  const { closed, output } = start('sh', [file('film.sh'), 'a boat', await boatFile(), film], {
    EVERY_SECONDS: '0.1',
  });
  expect([await closed, output()]).toEqual([0, expect.stringContaining(`saved ${film}`)]);
  expect(fetched()).toEqual([BOAT]);
});

needs('python3').test('the Python script uploads a picture and is told of the film', async () => {
  const { closed, output } = start('python3', [file('film.py'), 'a boat', await boatFile()]);
  expect([await closed, output()]).toEqual([0, expect.stringMatching(/generation.succeeded [0-9a-f-]{36}/)]);
  expect(fetched()).toEqual([BOAT]);
});

test('the library uploads a picture for a film', async () => {
  const { id } = await bed.reelhaul.addInput(await boatFile());
  const generation = await bed.reelhaul.enqueue({ prompt: 'a boat', image: { input: id } });
  expect(await bed.reelhaul.waitFor(generation.id)).toMatchObject({ state: 'succeeded' });
  expect(fetched()).toEqual([BOAT]);
});

needs('curl').test('the curl script orders a film and fetches it', async () => {
  const film = join(folder, 'film.mp4');
  const { closed, output } = start('sh', [file('film.sh'), 'a boat', image, film], {
    EVERY_SECONDS: '0.1',
  });
  expect([await closed, output()]).toEqual([0, expect.stringContaining(`saved ${film}`)]);
  expect((await readFile(film)).subarray(4, 8).toString()).toBe('ftyp');
});

needs('python3').test('the Python script orders a film and is told', async () => {
  const { closed, output } = start('python3', [file('film.py'), 'a boat', image]);
  expect([await closed, output()]).toEqual([0, expect.stringMatching(/generation.succeeded [0-9a-f-]{36}/)]);
  const wrong = start('python3', [file('film.py'), '', image]);
  expect([await wrong.closed, wrong.output()]).toEqual([
    1,
    expect.stringContaining('request.prompt: expected'),
  ]);
});
