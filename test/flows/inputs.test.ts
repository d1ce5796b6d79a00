/** What generations start from: bytes that are handed in, files of one's own, and the last frame of another generation. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { InvalidInputError } from '../../src/errors.js';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { readConfig } from '../../src/config/config.js';
import { createReelhaul } from '../../src/reelhaul.js';
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

test('the end of a clip without its frame ends those behind it unsubmitted, and its retry lets them go on', async () => {
  const results = await bed.reelhaul.enqueueMany([
    {
      request: { prompt: 'one [sim: submit=rejected]', image: dataUrl(picture('retried')) },
      idempotencyKey: 'retry-1',
    },
    {
      request: { prompt: 'two', image: { generationKey: 'retry-1', asset: 'lastFrame' } },
      idempotencyKey: 'retry-2',
    },
    { request: { prompt: 'three', image: { generationKey: 'retry-2', asset: 'lastFrame' } } },
  ]);
  const ids = results.map((result) => (result.ok ? result.generation.id : String(result.error)));
  const [one = '', two = '', three = ''] = ids;
  expect((await bed.reelhaul.waitFor(three)).failure).toMatchObject({
    code: 'input_unusable',
    charge: 'none',
    message: expect.stringContaining(`${two} ended as failed`),
  });
  expect((await bed.reelhaul.get(two)).failure?.message).toContain(`${one} ended as failed`);
  expect(submitOf(two)).toBeUndefined();

  await bed.reelhaul.retry(one);
  for (const id of ids) await bed.reaches(id, 'succeeded');
  expect((await bed.reelhaul.get(two)).attempts.submit).toBe(1);
  expect((await bed.reelhaul.get(three)).attempts.submit).toBe(1);
});

test('a file of one’s own is taken from the folder of its tenant alone', async () => {
  await mkdir(join(bed.archive, 'library/default'), { recursive: true });
  await writeFile(join(bed.archive, 'library/default/boat.png'), picture('own'));
  const own = { storageKey: 'library/default/boat.png' };
  const { id } = await bed.reelhaul.enqueue({ prompt: 'from a file', image: own });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded' });
  expect(submitOf(id).inputs[0]!.sha256).toBe(sha256Of(picture('own')));

  const missing = await bed.reelhaul.enqueue({
    prompt: 'no such file',
    image: { storageKey: 'library/default/none.png' },
  });
  expect((await bed.reelhaul.waitFor(missing.id)).failure).toMatchObject({ code: 'input_unusable' });
  expect(submitOf(missing.id)).toBeUndefined();
});

test('what is not its tenant’s, or not there, cannot be named', async () => {
  const { id: upload } = await bed.reelhaul.addInput(picture('of acme'), { tenant: 'acme' });
  const theirs = await bed.reelhaul.enqueue(
    { prompt: 'of acme', image: { input: upload } },
    { tenant: 'acme', idempotencyKey: 'of acme' },
  );
  const nowhere = '018f0000-0000-7000-8000-000000000000';
  const inputs = [
    { input: upload },
    { input: nowhere },
    { generation: theirs.id, asset: 'lastFrame' },
    { generation: nowhere, asset: 'lastFrame' },
    { generationKey: 'of acme', asset: 'lastFrame' },
    { generationKey: 'nobody', asset: 'lastFrame' },
    { generation: theirs.id, asset: 'video' },
    { storageKey: 'library/acme/boat.png' },
    { storageKey: 'library/default/../acme/boat.png' },
    { storageKey: 'library/default/' },
    { storageKey: '/etc/passwd' },
    { storageKey: `inputs/${upload}` },
    { storageKey: 'library/default/a\u0000b' },
    { input: upload, storageKey: 'library/default/boat.png' },
    ['https://example.com/a.png'],
    7,
    '',
    'boat.png',
    'data:text/html;base64,PGh0bWw+',
    'data:image/png,raw',
    dataUrl(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>')),
    dataUrl(Buffer.from('')),
    dataUrl(POSTER_PNG.subarray(0, 60)),
  ];
  for (const image of inputs) {
    const refused = bed.reelhaul.enqueue({ prompt: 'mine', image } as never);
    expect([image, await problemsOf(refused)]).toEqual([
      image,
      [{ path: 'request.image', message: expect.stringMatching(/expected|ends|Expected/i) }],
    ]);
  }
  await expect(
    bed.reelhaul.enqueue(
      { prompt: 'mine', image: { storageKey: 'library/../x/boat.png' } },
      { tenant: '../x' },
    ),
  ).rejects.toThrow('a tenant whose name');
});

test('a generation cannot start from itself, or from one that comes later', async () => {
  const from = (key: string) => ({
    prompt: 'round',
    image: { generationKey: key, asset: 'lastFrame' as const },
  });
  const results = await bed.reelhaul.enqueueMany([
    { request: from('self'), idempotencyKey: 'self' },
    { request: from('round-2'), idempotencyKey: 'round-1' },
    { request: from('round-1'), idempotencyKey: 'round-2' },
  ]);
  expect(results.map(({ ok }) => ok)).toEqual([false, false, false]);
});

test('without PUBLIC_URL only public URLs are taken', async () => {
  const config = readConfig({ ...bed.environment, PUBLIC_URL: '' });
  const hidden = await createReelhaul({ config });
  const files = await filesBelow('inputs');
  try {
    for (const image of [dataUrl(picture('hidden')), { storageKey: 'library/default/boat.png' }])
      await expect(hidden.enqueue({ prompt: 'hidden', image })).rejects.toThrow(
        'the provider fetches any other input from PUBLIC_URL, which is not set',
      );
    expect(await filesBelow('inputs')).toEqual(files);
  } finally {
    await hidden.close();
  }
});

test('an enqueue that is refused leaves no bytes behind', async () => {
  await bed.reelhaul.enqueue({ prompt: 'first' }, { idempotencyKey: 'taken' });
  const files = await filesBelow('inputs');
  const order = { prompt: 'another', image: dataUrl(picture('left over')) };
  await expect(bed.reelhaul.enqueue(order, { idempotencyKey: 'taken' })).rejects.toThrow('idempotency key');
  await expect(
    bed.reelhaul.enqueue({ ...order, last_image: { generationKey: 'nobody', asset: 'lastFrame' } }),
  ).rejects.toThrow('request.last_image');
  expect(await filesBelow('inputs')).toEqual(files);
});

test('an upload goes with the last generation that names it, and one that none names after a while', async () => {
  const { id: upload } = await bed.reelhaul.addInput(picture('shared'));
  const image = { input: upload };
  const [one, two] = [
    await bed.reelhaul.enqueue({ prompt: 'one of two', image }),
    await bed.reelhaul.enqueue({ prompt: 'two of two', image }),
  ];
  const { id: orphan } = await bed.reelhaul.addInput(picture('orphan'));
  for (const { id } of [one, two]) await bed.reelhaul.waitFor(id);
  await bed.reelhaul.erase(one.id);
  // As if it had come long ago: the next sweep removes it, and what the first generation named is still there.
  await bed.redis.zadd(`${bed.prefix}:inputs-unused`, 1, orphan);
  await until(async () => !(await filesBelow('inputs')).includes(orphan), 'the orphan to go');
  expect(await filesBelow('inputs')).toContain(upload);
  await bed.reelhaul.erase(two.id);
  await until(async () => !(await filesBelow('inputs')).includes(upload), 'the upload to go');
  const refused = bed.reelhaul.enqueue({ prompt: 'too late', image });
  expect(await problemsOf(refused)).toEqual([expect.objectContaining({ path: 'request.image' })]);
});

test('uploads by HTTP belong to the tenant of the token', async () => {
  const upload = (bytes: Buffer, token = 'token-of-acme-12345', query = '') =>
    fetch(`${api.url}/v1/inputs${query}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}` },
      body: new Uint8Array(bytes),
    });
  const bytes = picture('http');
  const first = await upload(bytes);
  const stored = (await first.json()) as { id: string };
  expect([first.status, stored]).toEqual([
    201,
    expect.objectContaining({ sizeBytes: bytes.length, sha256: sha256Of(bytes), contentType: 'image/png' }),
  ]);
  const again = await upload(bytes);
  expect([again.status, await again.json()]).toEqual([200, stored]);
  const other = await upload(bytes, 'token-of-everybody-1', '?tenant=other');
  expect(other.status).toBe(201);
  expect(((await other.json()) as { id: string }).id).not.toBe(stored.id);

  const order = { prompt: 'by HTTP', image: { input: stored.id } };
  const enqueue = (token: string) => api.ask('POST', '/v1/generations', { token, body: order });
  expect((await enqueue('token-of-everybody-1')).status).toBe(422);
  const { body } = await enqueue('token-of-acme-12345');
  const { id } = body as { id: string };
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', tenant: 'acme' });
  expect(submitOf(id).inputs[0]!.sha256).toBe(sha256Of(bytes));

  const items = [
    { request: order, idempotencyKey: 'in a batch' },
    { prompt: 'the next', image: { generationKey: 'in a batch', asset: 'lastFrame' } },
  ];
  const batch = { token: 'token-of-acme-12345', body: { items } };
  const { results } = (await api.ask('POST', '/v1/generations/batch', batch)).body as {
    results: { generation: { id: string } }[];
  };
  await bed.reaches(results[1]!.generation.id, 'succeeded');

  expect((await upload(bytes, 'token-of-acme-12345', '?tenant=other')).status).toBe(422);
  expect((await upload(bytes, 'a token of nobody')).status).toBe(401);
  const files = await filesBelow('inputs');
  expect((await upload(Buffer.from('<html></html>'))).status).toBe(422);
  expect((await upload(Buffer.alloc(0))).status).toBe(422);
  expect((await upload(Buffer.concat([bytes, Buffer.alloc(17_000_000)]))).status).toBe(413);
  expect(await filesBelow('inputs')).toEqual(files);
});

test('what the provider is given is read by its token alone, in ranges, and until the end', async () => {
  const bytes = picture('served');
  const { id } = await bed.reelhaul.enqueue({
    prompt: 'served [sim: duration=10m]',
    image: dataUrl(bytes),
  });
  await bed.reaches(id, 'generating');
  const { url } = submitOf(id).inputs[0]!;
  const read = async (method: string, address = url, headers: Record<string, string> = {}) => {
    const answer = await fetch(address, { method, headers, redirect: 'manual' });
    return { status: answer.status, headers: answer.headers, bytes: Buffer.from(await answer.arrayBuffer()) };
  };
  const whole = await read('GET');
  expect([whole.status, whole.bytes.equals(bytes)]).toEqual([200, true]);
  const head = await read('HEAD');
  expect([head.headers.get('content-length'), head.headers.get('content-type')]).toEqual([
    String(bytes.length),
    'image/png',
  ]);
  const part = await read('GET', url, { range: 'bytes=8-15' });
  expect([part.status, part.bytes.equals(bytes.subarray(8, 16))]).toEqual([206, true]);

  const token = url.split('/').at(-1)!;
  const at = (guess: string) => url.replace(token, guess);
  const swapped = token.replace(/^./, token.startsWith('A') ? 'B' : 'A');
  for (const guess of [
    '',
    'x',
    swapped,
    token.replace(/image$/, 'last_image'),
    `${token}x`,
    '..%2f..%2fetc',
    id,
  ])
    expect([guess, (await read('GET', at(guess))).status]).toEqual([guess, 404]);

  await bed.reelhaul.cancel(id);
  expect((await read('GET')).status).toBe(404);
  expect((await read('HEAD')).status).toBe(404);
});

test('one input is not given out without limit', async () => {
  const { id } = await bed.reelhaul.enqueue({
    prompt: 'asked often [sim: duration=10m]',
    image: dataUrl(picture('often')),
  });
  await bed.reaches(id, 'generating');
  const { url } = submitOf(id).inputs[0]!;
  const ask = async () => (await fetch(url, { method: 'HEAD' })).status;
  const statuses: number[] = [];
  // Two windows may share those of one round.
  for (let round = 0; round < 3 && !statuses.includes(429); round += 1)
    statuses.push(...(await Promise.all(Array.from({ length: 130 }, ask))));
  expect(new Set(statuses)).toEqual(new Set([200, 429]));
  await bed.reelhaul.cancel(id);
});
