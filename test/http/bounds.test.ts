/** What one caller may cost: bodies, batches, queued generations and event streams are bounded, and others are served. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { startApi, type Answer, type TestApi } from '../support/api.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';

const ALL = 'token-of-all-tenants';
const ACME = 'token-of-acme-tenant';
const TOKENS = `${ALL},${ACME}:acme`;

let bed: Testbed;
let api: TestApi;
async function setUp(environment: Record<string, string> = {}): Promise<void> {
  bed = await createTestbed();
  api = await startApi(bed, { API_TOKENS: TOKENS, API_RATE_LIMIT: '0', ...environment });
}
async function tearDown(): Promise<void> {
  await api.close();
  await bed.close();
}
async function again(environment: Record<string, string>): Promise<void> {
  await api.close();
  api = await startApi(bed, { API_TOKENS: TOKENS, API_RATE_LIMIT: '0', ...environment });
}
beforeEach(() => setUp());
afterEach(tearDown);

const batch = (body: unknown, token = ALL) => api.ask('POST', '/v1/generations/batch', { token, body });
const statuses = ({ body }: Answer) =>
  (body as { results: { status: number }[] }).results.map(({ status }) => status);
const problems = ({ body }: Answer) => (body as { problems: { path: string; message: string }[] }).problems;
const stored = async () => (await bed.reelhaul.list()).generations.length;

describe('a batch', () => {
  test('of nested arrays is refused item by item, and others are answered meanwhile', async () => {
    const nested = `{"prompt":"x","metadata":[${'[],'.repeat(80_000)}[]]}`;
    const body = `{"items":[${Array.from({ length: 25 }, () => nested).join(',')}]}`;
    let answered = 0;
    let over = false;
    const asking = (async () => {
      while (!over) {
        expect((await api.ask('GET', '/healthz')).status).toBe(200);
        answered += 1;
      }
    })();
    const answer = await batch(body);
    over = true;
    await asking;
    expect(answer.status).toBe(200);
    expect(new Set(statuses(answer))).toEqual(new Set([422]));
    expect(answered).toBeGreaterThan(10);
    expect(await stored()).toBe(0);
  });

  test('one item that is too large, too deep or has too many values leaves the others alone', async () => {
    const good = JSON.stringify({ prompt: 'good', image });
    const items = [
      good,
      `{"prompt":"${'x'.repeat(300_000)}"}`,
      `{"request":{"prompt":"x"},"metadata":{"a":${'['.repeat(5000)}${']'.repeat(5000)}}}`,
      `{"request":{"prompt":"x"},"metadata":{"a":[${'0,'.repeat(20_000)}0]}}`,
      '"[{,}]"',
      good,
    ];
    const answer = await batch(`{"items":[${items.join(' , ')}]}`);
    expect(statuses(answer)).toEqual([201, 422, 422, 422, 422, 201]);
    expect(await stored()).toBe(2);
  });

  test.each([
    ['{"items":[]}', 422],
    ['{"items":[ ]}', 422],
    ['{"items":{"a":1}}', 422],
    ['{"items":7}', 422],
    ['[[],[]]', 422],
    ['{"items":[1],"other":[2]}', 422],
    [`{"items":[${'1,'.repeat(1000)}1]}`, 422],
    [`{${Array.from({ length: 5000 }, (_, i) => `"k${i}":0`).join()}}`, 422],
    ['{"items":[1', 400],
    ['{"items":[1}', 400],
    ['{"items":[1]]', 400],
    ['{"items":[1,]}', 400],
    ['{"items":[{"prompt":"x"},{"prompt:1}]}', 400],
    ['', 400],
  ])('%.40s is refused as a whole', async (body, status) => {
    expect((await batch(body)).status).toBe(status);
    expect(await stored()).toBe(0);
  });

  test('counts as many requests as it has items', async () => {
    await again({ API_RATE_LIMIT: '20' });
    const items = Array.from({ length: 30 }, (_, i) => ({ prompt: `p ${i}`, image }));
    const first = await batch({ items });
    expect([first.status, new Set(statuses(first))]).toEqual([200, new Set([201])]);
    const later = await batch({ items });
    // The clock may have turned the minute in between.
    if (later.status === 200) expect((await batch({ items })).status).toBe(429);
    else expect(later.status).toBe(429);
  });
});

test('of many problems the first are named, and how many more there are', async () => {
  const body = { prompt: 'x', ...Object.fromEntries(Array.from({ length: 90 }, (_, i) => [`k${i}`, 0])) };
  const some = await api.ask('POST', '/v1/generations', { token: ALL, body });
  expect([some.status, problems(some).length, problems(some).at(-1)?.message]).toEqual([
    422,
    21,
    'and 70 more problems',
  ]);
  const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, 0]));
  for (const sent of [many, { prompt: 'x', [`k${'y'.repeat(200_000)}`]: 0 }]) {
    const answer = await api.ask('POST', '/v1/generations', { token: ALL, body: sent });
    expect([answer.status, answer.text.length < 10_000]).toEqual([422, true]);
  }
});

test('no body of another route is taken that is larger than it can mean', async () => {
  const { id } = await bed.enqueue('x', { delayMs: 3_600_000 });
  const body = JSON.stringify({ note: 'x'.repeat(20_000) });
  for (const verb of ['cancel', 'retry', 'decision', 'notifications/retry'])
    expect((await api.ask('POST', `/v1/generations/${id}/${verb}`, { token: ALL, body })).status).toBe(413);
  expect((await bed.reelhaul.get(id)).state).toBe('queued');
});

test('an instant that is more than a year away is refused', async () => {
  const at = (runAt: number) =>
    api.ask('POST', '/v1/generations', { token: ALL, body: { request: { prompt: 'x', image }, runAt } });
  const year = 365 * 24 * 3_600_000;
  expect(problems(await at(8.64e15)).map(({ path }) => path)).toEqual(['runAt']);
  expect((await at(Date.now() + year + 60_000)).status).toBe(422);
  expect((await at(Date.now() + year - 60_000)).status).toBe(201);
});

describe('a tenant that has too much queued', () => {
  const order = (tenant: string, prompt = 'x') => ({ request: { prompt, image }, tenant });
  const one = (tenant: string) => api.ask('POST', '/v1/generations', { token: ALL, body: order(tenant) });

  test('is refused, and others are not', async () => {
    await again({ API_MAX_QUEUED: '3' });
    for (let i = 0; i < 3; i++) expect((await one('acme')).status).toBe(201);
    const refused = await one('acme');
    expect(refused.body).toMatchObject({ status: 429, code: 'queue_full' });
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    const mixed = await batch({ items: [order('acme'), order('other'), order('acme')] });
    expect(statuses(mixed)).toEqual([429, 201, 429]);
  });

  test('by the bytes that they take in Redis', async () => {
    await again({ API_MAX_QUEUED_BYTES: '300000' });
    const items = Array.from({ length: 50 }, () => order('acme', 'long '.repeat(3000)));
    expect(statuses(await batch({ items }))).toContain(201);
    expect((await one('acme')).body).toMatchObject({ code: 'queue_full' });
    expect((await one('other')).status).toBe(201);
  });
});

describe('event streams', () => {
  test('of one token leave room for others', async () => {
    const ended = new AbortController();
    const open = (token: string) =>
      api.fetch('GET', '/v1/events', { token, signal: ended.signal }).then(({ status }) => status);
    const first = await Promise.all(Array.from({ length: 50 }, () => open(ACME)));
    expect(new Set(first)).toEqual(new Set([200]));
    expect(await open(ACME)).toBe(429);
    expect(await open(ALL)).toBe(200);
    ended.abort();
  });
});

test('a link to a file is kept by no cache for longer than it is good', async () => {
  const secret = 'a secret for the tests';
  await tearDown();
  bed = await createTestbed({ environment: { PUBLIC_URL: 'http://127.0.0.1', CALLBACK_SECRET: secret } });
  api = await startApi(bed, { API_TOKENS: TOKENS });
  await bed.work();
  const { id } = await bed.enqueue('filmed');
  await bed.reelhaul.waitFor(id);
  const link = new URL(await bed.reelhaul.getAssetUrl(id, 'video', { expiresInSeconds: 60 }));
  const { status, headers } = await api.fetch('GET', link.pathname + link.search);
  const [, seconds] = /^private, max-age=(\d+)$/.exec(headers.get('cache-control') ?? '') ?? [];
  expect([status, Number(seconds) <= 60]).toEqual([200, true]);
  const asset = await api.fetch('HEAD', `/v1/generations/${id}/assets/video`, { token: ALL });
  expect(asset.headers.get('cache-control')).toBe('private, no-cache');
});
