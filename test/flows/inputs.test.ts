/** What generations start from: bytes that are handed in, files of one's own, and the last frame of another generation. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { InvalidInputError } from '../../src/errors.js';
import { freePort } from '../../src/cli/demo/redis-server.js';
import type { RunningWorkers } from '../../workers/main.js';
import { POSTER_PNG } from '../../src/simulator/fixtures.js';
import { startApi, type TestApi } from '../support/api.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let api: TestApi;
let workers: RunningWorkers;

beforeAll(async () => {
  const port = await freePort();
  bed = await createTestbed({
    environment: {
      PUBLIC_URL: `http://127.0.0.1:${port}`,
      PORT: String(port),
      CALLBACK_SECRET: 'a secret for the tests',
      API_TOKENS: 'token-of-everybody-1,token-of-acme-12345:acme',
      INPUT_BACKOFF_MS: '20',
    },
  });
  api = await startApi(bed, { PORT: String(port) });
  workers = await bed.work();
});
afterAll(async () => {
  await api.close();
  await bed.close();
});

const sha256Of = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
/** A picture of its own: bytes behind the end of a PNG are no part of it. */
const picture = (name: string) => Buffer.concat([POSTER_PNG, Buffer.from(name)]);
const dataUrl = (bytes: Buffer) => `data:image/png;base64,${bytes.toString('base64')}`;
const submitOf = (generationId: string) =>
  bed.simulator.ledger().submits.find((submit) => submit.generationId === generationId)!;
const filesBelow = async (folder: string): Promise<string[]> =>
  readdir(join(bed.archive, folder)).catch(() => []);
const problemsOf = async (enqueued: Promise<unknown>) =>
  ((await enqueued.catch((error: unknown) => error)) as InvalidInputError).problems;

test('a picture that is handed in as bytes is what the provider fetches', async () => {
  const bytes = picture('library');
  const { id } = await bed.reelhaul.addInput(bytes);
  const generation = await bed.reelhaul.enqueue({ prompt: 'from bytes', image: { input: id } });
  expect(await bed.reelhaul.waitFor(generation.id)).toMatchObject({
    state: 'succeeded',
    request: { image: { input: id } },
  });
  expect(submitOf(generation.id).inputs).toEqual([
    expect.objectContaining({ field: 'image', httpStatus: 200, sha256: sha256Of(bytes), error: null }),
  ]);
});

test('a data URL goes to the storage once, and never into the record', async () => {
  const image = dataUrl(picture('data url'));
  const before = (await filesBelow('inputs')).length;
  const order = { prompt: 'from a data URL', image };
  const first = await bed.reelhaul.enqueue(order, { idempotencyKey: 'once' });
  const again = await bed.reelhaul.enqueue(order, { idempotencyKey: 'once' });
  const other = await bed.reelhaul.enqueue({ ...order, prompt: 'the same picture' });
  expect(again.id).toBe(first.id);
  expect(other.request.image).toEqual(first.request.image);
  expect(await filesBelow('inputs')).toHaveLength(before + 1);
  expect(JSON.stringify(await bed.redis.hgetall(`${bed.prefix}:g:${first.id}`))).not.toContain('base64');
  expect(await bed.reelhaul.waitFor(other.id)).toMatchObject({ state: 'succeeded' });
});

test('a clip starts from the last frame of the one before, and says so while it waits', async () => {
  await workers.close();
  const results = await bed.reelhaul.enqueueMany([
    { request: { prompt: 'one', image: dataUrl(picture('one')) }, idempotencyKey: 'clip-1' },
    {
      request: { prompt: 'two', image: { generationKey: 'clip-1', asset: 'lastFrame' } },
      idempotencyKey: 'clip-2',
    },
    { request: { prompt: 'three', image: { generationKey: 'clip-2', asset: 'lastFrame' } } },
  ]);
  const ids = results.map((result) => (result.ok ? result.generation.id : String(result.error)));
  expect(await bed.reelhaul.get(ids[1]!)).toMatchObject({
    state: 'queued',
    waitsFor: [ids[0]],
    request: { image: { generation: ids[0], asset: 'lastFrame' } },
  });
  expect(await bed.reelhaul.limits()).toMatchObject({ chained: 2, inLine: 1 });
  workers = await bed.work();
  expect(await bed.reelhaul.waitFor(ids[2]!)).toMatchObject({ state: 'succeeded', waitsFor: [] });
  const [one, two] = await Promise.all(ids.map((id) => bed.reelhaul.get(id)));
  expect(submitOf(ids[1]!).inputs[0]!.sha256).toBe(one!.assets!.lastFrame!.sha256);
  expect(submitOf(ids[2]!).inputs[0]!.sha256).toBe(two!.assets!.lastFrame!.sha256);
});
