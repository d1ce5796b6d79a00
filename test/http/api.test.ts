/** The HTTP API: the library's verbs, each within its tenant, and every refusal a problem document. */
import { createHash } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import { request as httpRequest } from 'node:http';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { Generation } from '../../src/generation/record.js';
import { generationIn, startApi, type Answer, type TestApi } from '../support/api.js';
import { BUCKET, CREDENTIALS, startS3Server } from '../storage/s3-server.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';

const ALL = 'token-of-all-tenants';
const ACME = 'token-of-acme-tenant';
const OTHER = 'token-of-other-tenant';
const READER = 'token-that-only-reads';
const TOKENS = `${ALL},${ACME}:acme,sha256-${createHash('sha256').update(OTHER).digest('hex')}:other,${READER}::ro`;

let bed: Testbed;
let api: TestApi;
async function setUp(environment: Record<string, string> = { API_TOKENS: TOKENS }): Promise<void> {
  bed = await createTestbed();
  api = await startApi(bed, environment);
}
beforeEach(() => setUp());
afterEach(async () => {
  await api.close();
  await bed.close();
});

const order = (prompt: string, options = {}) => ({ request: { prompt, image }, ...options });
const enqueue = (body: unknown, token = ALL, headers = {}) =>
  api.ask('POST', '/v1/generations', { token, body, headers });
const problemPaths = ({ body }: Answer) =>
  (body as { problems: { path: string }[] }).problems.map(({ path }) => path);

function refused(answer: Answer, status: number, code: string): void {
  expect(answer.headers.get('content-type')).toContain('application/problem+json');
  expect(answer.body).toMatchObject({ status, code });
  expect(answer.status).toBe(status);
  expect(answer.text).not.toMatch(/\.[jt]s:\d+/);
}

test('a tenant may not say which task a generation has, unless the operator allows it', async () => {
  const { id } = generationIn(await enqueue(order('unclear'), ACME));
  const adopt = (token: string) =>
    api.ask('POST', `/v1/generations/${id}/decision`, { token, body: { adopt: 'some-task' } });
  refused(await adopt(ACME), 403, 'all_tenants_only');
  refused(await adopt(ALL), 409, 'state_conflict');
  await api.close();
  api = await startApi(bed, { API_TOKENS: TOKENS, TENANT_ADOPT: 'true' });
  refused(await adopt(ACME), 409, 'state_conflict');
});

describe('enqueue', () => {
  test('answers 201 with the generation and where it is', async () => {
    const answer = await enqueue(order('one', { metadata: { a: 1 } }));
    expect(answer.status).toBe(201);
    const generation = generationIn(answer);
    expect(answer.headers.get('location')).toBe(`/v1/generations/${generation.id}`);
    expect(await bed.reelhaul.get(generation.id)).toEqual(generation);
  });

  test('takes a bare request as well', async () => {
    expect((await enqueue({ prompt: 'bare', image })).body).toMatchObject({ request: { prompt: 'bare' } });
  });

  test('a known Idempotency-Key gives 200 and the generation of then, a different request 409', async () => {
    const headers = { 'idempotency-key': 'k' };
    const first = await enqueue(order('same'), ALL, headers);
    const again = await enqueue(order('same'), ALL, headers);
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(again.body).toEqual(first.body);
    const other = { metadata: { a: 1 }, notifyUrl: 'https://example.com/hook', priority: 2 };
    expect((await enqueue(order('same', other), ALL, headers)).body).toEqual({
      ...generationIn(first),
      ignored: ['metadata', 'notifyUrl', 'priority'],
    });
    refused(await enqueue(order('different'), ALL, headers), 409, 'idempotency_conflict');
    expect((await bed.reelhaul.list()).generations).toHaveLength(1);
  });

  test('names every bad field as it stands in the body, and stores nothing', async () => {
    const answer = await enqueue({
      request: { prompt: '', image: 'http://x', options: { seconds: 7 } },
      priority: 0,
      bogus: 1,
    });
    refused(answer, 422, 'invalid_input');
    expect(problemPaths(answer).sort()).toEqual(
      ['bogus', 'priority', 'request.image', 'request.options.seconds', 'request.prompt'].sort(),
    );
    expect(problemPaths(await enqueue({ prompt: '', ratio: 'x' })).sort()).toEqual(['prompt', 'ratio']);
    expect((await bed.reelhaul.list()).generations).toEqual([]);
  });

  test('JSON of thousands of levels is a bad field, and not an outage of Redis', async () => {
    const deep = `${'['.repeat(4000)}${']'.repeat(4000)}`;
    const request = `{ "prompt": "deep", "image": "${image}", "options": { "more": ${deep} } }`;
    const answer = await enqueue(
      `{ "request": ${request}, "metadata": { "deep": ${deep} }, "idempotencyKey": "k" }`,
    );
    refused(answer, 422, 'invalid_input');
    expect(problemPaths(answer)).toEqual(['request.options', 'metadata']);
  });

  test('a name that would turn the text beside it round is refused', async () => {
    const answer = await enqueue(order('x', { tenant: 'x\u202Eevil', idempotencyKey: '\u2066k' }));
    refused(answer, 422, 'invalid_input');
    expect(problemPaths(answer).sort()).toEqual(['idempotencyKey', 'tenant']);
    expect((await enqueue(order('x', { tenant: 'مستأجر/שוכר' }))).status).toBe(201);
  });

  test.each([
    ['no JSON', '{', {}, 400, 'malformed_json'],
    ['another type', '{}', { 'content-type': 'text/plain' }, 415, 'not_json'],
    ['a list', '[]', {}, 422, 'invalid_input'],
    ['too much', JSON.stringify({ prompt: 'x'.repeat(300_000) }), {}, 413, 'body_too_large'],
  ])('%s is refused', async (_, body, headers, status, code) => {
    refused(await enqueue(body, ALL, headers), status, code);
  });

  test('a batch gives each its own result, in order', async () => {
    await enqueue(order('known'), ALL, { 'idempotency-key': 'k' });
    const items = [order('a'), { prompt: 'b', image }, order(''), 7, order('known', { idempotencyKey: 'k' })];
    const { status, body } = await api.ask('POST', '/v1/generations/batch', { token: ALL, body: { items } });
    expect(status).toBe(200);
    const { results } = body as { results: { status: number; problem?: { problems: unknown[] } }[] };
    expect(results.map((result) => result.status)).toEqual([201, 201, 422, 422, 200]);
    expect(results[2]!.problem!.problems).toMatchObject([{ path: 'request.prompt' }]);
    expect((await bed.reelhaul.list()).generations).toHaveLength(3);
  });
});

describe('a tenant', () => {
  let mine: Generation;
  beforeEach(async () => {
    mine = generationIn(await enqueue(order('mine'), ACME, { 'idempotency-key': 'k' }));
  });

  test('is that of the token', async () => {
    expect(mine.tenant).toBe('acme');
    refused(await enqueue(order('x', { tenant: 'other' }), ACME), 422, 'invalid_input');
  });

  test.each([
    ['GET', ''],
    ['GET', '/answers'],
    ['GET', '/events'],
    ['GET', '/assets/video'],
    ['GET', '/notifications'],
    ['POST', '/cancel'],
    ['POST', '/retry'],
    ['POST', '/decision'],
    ['POST', '/notifications/retry'],
  ])('%s …%s of another one is as if it did not exist', async (method, path) => {
    const at = `/v1/generations/${mine.id}${path}`;
    const body = method === 'POST' ? { giveUp: true } : undefined;
    refused(await api.ask(method, at, { token: OTHER, body }), 404, 'not_found');
    expect((await bed.reelhaul.get(mine.id)).state).toBe('queued');
  });

  test('has idempotency keys of its own', async () => {
    const theirs = await enqueue(order('theirs'), OTHER, { 'idempotency-key': 'k' });
    expect(theirs.status).toBe(201);
    expect(generationIn(theirs).tenant).toBe('other');
  });

  test('lists its own; a token of all tenants lists all', async () => {
    await enqueue(order('theirs'), OTHER);
    const listed = async (token: string, query = '') =>
      (
        (await api.ask('GET', `/v1/generations${query}`, { token })).body as { generations: Generation[] }
      ).generations
        .map(({ tenant }) => tenant)
        .sort();
    expect(await listed(ACME)).toEqual(['acme']);
    expect(await listed(OTHER)).toEqual(['other']);
    expect(await listed(ALL)).toEqual(['acme', 'other']);
    expect(await listed(ALL, '?tenant=other')).toEqual(['other']);
    refused(await api.ask('GET', '/v1/generations?tenant=other', { token: ACME }), 422, 'invalid_input');
    refused(await api.ask('GET', '/v1/events?tenant=other', { token: ACME }), 422, 'invalid_input');
    refused(await api.ask('GET', '/v1/notifications/dead', { token: ACME }), 403, 'all_tenants_only');
  });
});

describe('access', () => {
  test.each([undefined, 'wrong-token-wrong-token', `${ALL}x`, ''])(
    'the token %j is refused',
    async (token) => {
      const answer = await api.ask('GET', '/v1/generations', token === undefined ? {} : { token });
      refused(answer, 401, 'unauthorized');
      expect(answer.headers.get('www-authenticate')).toContain('Bearer');
    },
  );

  test('a read-only token reads and changes nothing', async () => {
    const { id } = await bed.enqueue('watched');
    expect((await api.ask('GET', `/v1/generations/${id}`, { token: READER })).status).toBe(200);
    refused(await enqueue(order('x'), READER), 403, 'read_only');
    refused(await api.ask('POST', `/v1/generations/${id}/cancel`, { token: READER }), 403, 'read_only');
    expect((await bed.reelhaul.get(id)).state).toBe('queued');
  });

  test('each token has its own limit, which says when to go on', async () => {
    await api.close();
    api = await startApi(bed, { API_TOKENS: TOKENS, API_RATE_LIMIT: '3' });
    const statuses = [];
    // A minute may turn in between: the limit is then met within twice as many.
    for (let i = 0; i < 7; i++)
      statuses.push((await api.ask('GET', '/v1/generations', { token: ACME })).status);
    expect(statuses).toContain(429);
    const last = await api.ask('GET', '/v1/generations', { token: ACME });
    if (last.status === 429) expect(Number(last.headers.get('retry-after'))).toBeGreaterThan(0);
    expect((await api.ask('GET', '/v1/generations', { token: OTHER })).status).toBe(200);
  });
});

describe('without tokens', () => {
  beforeEach(async () => {
    await api.close();
    api = await startApi(bed, { API_TOKENS: '' });
  });

  test('this machine may, asked as localhost', async () => {
    expect((await enqueue(order('local'))).status).toBe(201);
  });

  test.each([
    ['a proxy speaks for somebody', { 'x-forwarded-for': '203.0.113.9' }],
    ['a web page of elsewhere asks', { origin: 'https://evil.example' }],
    ['a rebound name is asked for', { host: 'evil.example' }],
  ])('nobody may when %s', async (_, headers) => {
    const status = await new Promise((resolve, reject) => {
      const request = httpRequest(`${api.url}/v1/generations`, { headers }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      });
      request.on('error', reject);
      request.end();
    });
    expect(status).toBe(403);
  });

  test('it cannot be reached from outside; with PUBLIC_URL callbacks can, and the API still not', async () => {
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((address) => address && !address.internal && address.family === 'IPv4')?.address;
    if (outside === undefined) return;
    const at = () => api.url.replace('127.0.0.1', outside);
    await expect(fetch(`${at()}/healthz`)).rejects.toThrow();
    await api.close();
    api = await startApi(bed, {
      API_TOKENS: '',
      PUBLIC_URL: 'https://reels.example.com',
      CALLBACK_SECRET: 'a secret for the tests',
    });
    expect((await fetch(`${at()}/healthz`)).status).toBe(200);
    expect((await fetch(`${at()}/v1/generations`)).status).toBe(403);
    expect((await fetch(`${at()}/callbacks/runway/x/y`, { method: 'POST' })).status).toBe(404);
  });
});

describe('the other verbs', () => {
  const at = (id: string, verb: string, body?: unknown) =>
    api.ask('POST', `/v1/generations/${id}/${verb}`, { token: ALL, body });

  test('cancel says whether it may be billed; a second time changes nothing', async () => {
    const { id } = await bed.enqueue('stop');
    expect((await at(id, 'cancel')).body).toMatchObject({
      mayBeBilled: false,
      generation: { state: 'canceled' },
    });
    expect((await at(id, 'cancel')).status).toBe(200);
    refused(await at(id, 'retry'), 409, 'state_conflict');
  });

  test('retry bills again only with allowRebill', async () => {
    const workers = await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=502-after]', { onUnconfirmed: 'fail' });
    await bed.reelhaul.waitFor(id);
    await workers.close();
    refused(await at(id, 'retry'), 409, 'rebill_not_allowed');
    refused(await at(id, 'retry', { allowRebill: 'yes' }), 422, 'invalid_input');
    expect((await at(id, 'retry', { allowRebill: true })).body).toMatchObject({ state: 'queued' });
  });

  test('erase is for who may see it, and says what may still be billed', async () => {
    const erase = (path: string, token: string) => api.ask('DELETE', `/v1/${path}`, { token });
    const { id } = await bed.enqueue('of acme', { tenant: 'acme' });
    refused(await erase(`generations/${id}`, OTHER), 404, 'not_found');
    refused(await erase(`generations/${id}`, READER), 403, 'read_only');
    refused(await erase(`generations/${id}`, ACME), 409, 'may_be_billed');
    refused(await erase(`generations/${id}?evenIfBilled=yes`, ACME), 422, 'invalid_input');
    await bed.reelhaul.cancel(id);
    expect((await erase(`generations/${id}`, ACME)).body).toMatchObject({
      id,
      charge: 'none',
      filesErased: true,
    });
    refused(await erase(`generations/${id}`, ACME), 404, 'not_found');
    expect((await erase(`generations/${id}`, ALL)).body).toMatchObject({ id, state: 'canceled' });
    refused(await api.ask('GET', `/v1/generations/${id}`, { token: ALL }), 404, 'not_found');

    await bed.enqueue('another of acme', { tenant: 'acme' });
    refused(await erase('tenants/acme', ACME), 403, 'all_tenants_only');
    expect((await erase('tenants/acme', ALL)).body).toEqual({ erased: 0, kept: 1 });
    expect((await erase('tenants/acme?evenIfBilled=true', ALL)).body).toEqual({ erased: 1, kept: 0 });
  });

  test('decision settles an unconfirmed one', async () => {
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=502-after]');
    refused(await at(id, 'decision', { adopt: 'x', resubmit: true }), 422, 'invalid_input');
    await bed.reaches(id, 'unconfirmed');
    const { taskId } = bed.simulator.ledger().tasks[0]!;
    expect((await at(id, 'decision', { adopt: taskId })).status).toBe(200);
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', taskId });
  });

  test('answers shows what the provider said', async () => {
    await bed.work();
    const { id } = await bed.enqueue('said');
    await bed.reelhaul.waitFor(id);
    const { body } = await api.ask('GET', `/v1/generations/${id}/answers`, { token: ALL });
    expect(body).toEqual({ answers: await bed.reelhaul.answers(id) });
  });

  test('pages go on from their cursor', async () => {
    const ids = [];
    for (const prompt of ['a', 'b', 'c']) ids.unshift((await bed.enqueue(prompt)).id);
    const seen: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const query: string = `?limit=2${cursor && `&cursor=${cursor}`}`;
      const { body } = await api.ask('GET', `/v1/generations${query}`, { token: ALL });
      const page = body as { generations: Generation[]; cursor: string | null };
      seen.push(...page.generations.map(({ id }) => id));
      cursor = page.cursor;
    }
    expect(seen).toEqual(ids);
  });

  test.each([
    'limit=0',
    'limit=501',
    'limit=x',
    'state=lost',
    'cursor=nonsense',
    'createdAfter=-1',
    'what=1',
  ])('a list with %s is refused', async (query) => {
    const answer = await api.ask('GET', `/v1/generations?${query}`, { token: ALL });
    refused(answer, 422, 'invalid_input');
    expect(problemPaths(answer)).toEqual([query.split('=')[0]]);
  });

  test('what is not there is 404, what cannot be done there 405', async () => {
    refused(await api.ask('GET', '/v1/nothing', { token: ALL }), 404, 'not_found');
    refused(await api.ask('GET', '/v1/generations/nobody', { token: ALL }), 404, 'not_found');
    const answer = await api.ask('DELETE', '/v1/generations', { token: ALL });
    refused(answer, 405, 'method_not_allowed');
    expect(answer.headers.get('allow')).toBe('POST, GET');
  });
});

test('while Redis is away the answer is 503, and says nothing of our insides', async () => {
  api.redis.disconnect();
  refused(await enqueue(order('lost')), 503, 'unavailable');
  refused(await api.ask('GET', '/v1/events', { token: ALL }), 503, 'unavailable');
  expect((await bed.reelhaul.list()).generations).toEqual([]);
});

test('a file in S3 is redirected to, with a link that works without our token', async () => {
  const s3 = await startS3Server();
  const before = { ...process.env };
  process.env['AWS_ACCESS_KEY_ID'] = CREDENTIALS.accessKeyId;
  process.env['AWS_SECRET_ACCESS_KEY'] = CREDENTIALS.secretAccessKey;
  await api.close();
  await bed.close();
  const STORAGE_URL = `s3://${BUCKET}?endpoint=${encodeURIComponent(s3.endpoint)}&forcePathStyle=true`;
  bed = await createTestbed({ environment: { STORAGE_URL } });
  api = await startApi(bed, { API_TOKENS: TOKENS });
  const workers = await bed.work();
  const { id } = await bed.enqueue('in a bucket');
  const { assets } = await bed.reelhaul.waitFor(id);
  const answer = await api.ask('GET', `/v1/generations/${id}/assets/video`, { token: ALL });
  expect(answer.status).toBe(302);
  const file = Buffer.from(await (await fetch(answer.headers.get('location')!)).arrayBuffer());
  expect(createHash('sha256').update(file).digest('hex')).toBe(assets!.video.sha256);
  await workers.close();
  await s3.close();
  process.env = before;
});

describe('a stored file', () => {
  let id: string;
  let bytes: Buffer;
  beforeEach(async () => {
    await bed.work();
    ({ id } = await bed.enqueue('filmed'));
    const { assets } = await bed.reelhaul.waitFor(id);
    bytes = await readFile(join(bed.archive, assets!.video.key));
  });
  const get = async (headers = {}, name = 'video') => {
    const response = await api.fetch('GET', `/v1/generations/${id}/assets/${name}`, { token: ALL, headers });
    return { response, bytes: Buffer.from(await response.arrayBuffer()) };
  };

  test('comes whole', async () => {
    const { response, bytes: got } = await get();
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('video/mp4');
    expect(got.equals(bytes)).toBe(true);
    expect((await get({ 'if-none-match': response.headers.get('etag') })).response.status).toBe(304);
  });

  test.each([
    ['bytes=0-9', 0, 10],
    ['bytes=10-', 10, undefined],
    ['bytes=-7', -7, undefined],
  ])('comes in the range %s', async (range, start, end) => {
    const { response, bytes: got } = await get({ range });
    expect(response.status).toBe(206);
    expect(got.equals(bytes.subarray(start, end))).toBe(true);
    expect(response.headers.get('content-range')).toMatch(new RegExp(`/${bytes.length}$`));
  });

  test('a range beyond its end is 416; one for another version is ignored', async () => {
    expect((await get({ range: `bytes=${bytes.length}-` })).response.status).toBe(416);
    expect((await get({ range: 'bytes=0-9', 'if-range': '"another"' })).response.status).toBe(200);
  });

  test.each(['poster', 'nothing', '..%2F..%2Fetc%2Fpasswd'])(
    '%s is 404 where there is none',
    async (name) => {
      const { assets } = await bed.reelhaul.get(id);
      if (name === 'poster' && assets?.poster) return;
      expect((await get({}, name)).response.status).toBe(404);
    },
  );
});
