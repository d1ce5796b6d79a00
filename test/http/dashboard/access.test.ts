/** Who may come into the dashboard, what each may do there, and what no other page can make them do. */
import { createHash, createHmac, scryptSync } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { startApi, type TestApi } from '../../support/api.js';
import {
  ACCOUNTS,
  csrfIn,
  formOf,
  openStage,
  OPERATOR,
  PAGE,
  VIEWER,
  visit,
  type Stage,
} from '../../support/dashboard.js';
import { redisUrl } from '../../support/testbed.js';

const TOKENS = 'token-of-everything-1,token-of-one-tenant:studio,token-that-only-reads::ro';
let stage: Stage;
let api: TestApi;

beforeAll(async () => {
  stage = await openStage({}, { API_TOKENS: TOKENS });
  ({ api } = stage);
});
afterAll(() => stage.close());

const basic = (user: string, password: string) => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
});

/** A generation that waits, so that it can be canceled. */
async function waiting(): Promise<{ id: string; path: string }> {
  const { id } = await stage.bed.reelhaul.enqueue({ prompt: 'later' }, { delayMs: 3_600_000 });
  return { id, path: `/dashboard/generations/${id}` };
}
const CANCEL = { action: 'cancel', rev: '0' };
const stateOf = async (id: string) => (await stage.bed.reelhaul.get(id)).state;

test('a browser without a session is sent to the login, and from there back', async () => {
  const answer = await api.ask('GET', '/dashboard/inbox?x=1', { headers: PAGE });
  expect(answer.status).toBe(303);
  expect(answer.headers.get('location')).toBe('/dashboard/login?next=%2Fdashboard%2Finbox%3Fx%3D1');
  const login = await api.ask(
    'POST',
    '/dashboard/login',
    formOf({ ...OPERATOR, next: '/dashboard/inbox?x=1' }),
  );
  expect(login.headers.get('location')).toBe('/dashboard/inbox?x=1');
});

test.each([
  '/dashboard',
  '/dashboard/inbox',
  '/dashboard/queues',
  '/dashboard/queues/api/queues',
  '/dashboard/generations/x/assets/video',
])('%s tells nothing to somebody unknown', async (path) => {
  const { status, text } = await api.ask('GET', path);
  expect([status, text]).toEqual([401, expect.stringContaining('unauthorized')]);
});

test.each([
  'https://evil.example/',
  '//evil.example/',
  '/\\evil.example',
  'javascript:alert(1)',
  '/v1/generations',
])('the login sends nobody on to %s', async (next) => {
  const login = await api.ask('POST', '/dashboard/login', formOf({ ...OPERATOR, next }));
  expect(login.headers.get('location')).toBe('/dashboard');
});

test('the cookie is for this server’s pages only, and for no script', async () => {
  const login = await api.ask('POST', '/dashboard/login', formOf(OPERATOR));
  const cookie = login.headers.get('set-cookie') ?? '';
  for (const part of ['HttpOnly', 'SameSite=Strict', 'Path=/dashboard', `Max-Age=${7 * 24 * 3600};`])
    expect(cookie).toContain(part);
  expect(cookie).not.toContain('Secure');
  const behindTls = await api.ask('POST', '/dashboard/login', {
    ...formOf(OPERATOR),
    headers: { ...formOf(OPERATOR).headers, 'x-forwarded-proto': 'https' },
  });
  expect(behindTls.headers.get('set-cookie')).toContain('Secure');
});

test('what is in Redis of a session opens none', async () => {
  const { cookie } = await visit(api, OPERATOR);
  const id = cookie.split('=')[1]!;
  const keys = await stage.bed.redis.keys(`${stage.bed.prefix.replaceAll(/[{}]/g, '?')}:dashboard:session:*`);
  expect(keys.length).toBeGreaterThan(0);
  const kept = (await Promise.all(keys.map((key) => stage.bed.redis.get(key)))).join() + keys.join();
  expect(kept).not.toContain(id);
  expect(kept).not.toContain(OPERATOR.password);
});

test('the password cannot be guessed with one hash from what is in Redis', async () => {
  await visit(api, OPERATOR);
  const [key = ''] = await stage.bed.redis.keys(
    `${stage.bed.prefix.replaceAll(/[{}]/g, '?')}:dashboard:session:*`,
  );
  const { fingerprint } = JSON.parse((await stage.bed.redis.get(key)) ?? '{}') as { fingerprint: string };
  const [user, secret] = [OPERATOR.user, OPERATOR.password];
  const fast = [`${user}:${secret}`, secret, `${secret}:${user}`].flatMap((text) => {
    const digest = createHash('sha256').update(text).digest();
    return [digest, createHmac('sha256', digest).update('fingerprint').digest()];
  });
  for (const digest of fast) expect(fingerprint).not.toContain(digest.toString('hex').slice(0, 16));
  const slow = scryptSync(secret, `${stage.bed.prefix}:${user}`, 32, { N: 16_384 });
  expect(fingerprint).toBe(slow.toString('hex'));
});

test.each([VIEWER, OPERATOR])('the body of a logout is bounded for $user', async (account) => {
  const { post, get } = await visit(api, account);
  expect((await post('/dashboard/logout', { filler: 'x'.repeat(100_000) })).status).toBe(413);
  expect((await post('/dashboard/nowhere', { filler: 'x'.repeat(400_000) })).status).toBe(413);
  expect((await get('/dashboard')).status).toBe(200);
});

test('logging out ends the session, also for whoever kept the cookie', async () => {
  const { post, get } = await visit(api, OPERATOR);
  expect((await post('/dashboard/logout', {})).status).toBe(303);
  expect((await get('/dashboard')).status).toBe(303);
});

test('a new password ends the sessions of the old one', async () => {
  const { cookie } = await visit(api, OPERATOR);
  const other = await startApi(stage.bed, { ...ACCOUNTS, DASHBOARD_PASSWORD: 'another horse battery' });
  try {
    expect((await other.ask('GET', '/dashboard', { headers: { ...PAGE, cookie } })).status).toBe(303);
  } finally {
    await other.close();
  }
});

/** Ten wrong passwords and two more, then the right one by form and by header. */
async function guess(round: number) {
  const prefix = `${stage.bed.prefix}:throttle-${round}`;
  const other = await startApi(stage.bed, { ...ACCOUNTS, REDIS_PREFIX: prefix });
  try {
    const wrong: number[] = [];
    for (let i = 0; i < 12; i++) {
      const form = formOf({ user: OPERATOR.user, password: `guess ${i}` });
      wrong.push((await other.ask('POST', '/dashboard/login', form)).status);
    }
    const right = await other.ask('POST', '/dashboard/login', formOf(OPERATOR));
    const headers = basic(OPERATOR.user, OPERATOR.password);
    return { wrong, right, byHeader: await other.ask('GET', '/dashboard', { headers }) };
  } finally {
    await other.close();
  }
}

test('whoever guesses passwords has to wait; the right one then too', async () => {
  const minute = () => Math.floor(Date.now() / 60_000);
  for (let round = 1; ; round++) {
    const begun = minute();
    const { wrong, right, byHeader } = await guess(round);
    // Tries are counted by the minute of the clock: a turn in between allows more of them.
    if (minute() !== begun && round < 3) continue;
    expect(wrong.filter((status) => status === 401)).toHaveLength(10);
    expect([right.status, Number(right.headers.get('retry-after')) > 0]).toEqual([429, true]);
    expect(byHeader.status).toBe(429);
    return;
  }
});

test('scripts come in with Basic credentials or with a token of all tenants', async () => {
  const get = (headers: Record<string, string>) => api.ask('GET', '/dashboard', { headers });
  expect((await get(basic(VIEWER.user, VIEWER.password))).status).toBe(200);
  expect((await get(basic(VIEWER.user, OPERATOR.password))).status).toBe(401);
  expect((await get({ authorization: 'Bearer token-of-everything-1' })).status).toBe(200);
  expect((await get({ authorization: 'Bearer token-of-one-tenant' })).status).toBe(403);
  expect((await get({ authorization: 'Bearer nothing-of-the-kind' })).status).toBe(401);
});

test('who may only look sees everything and changes nothing, in the queues neither', async () => {
  const { id, path } = await waiting();
  const { get, post } = await visit(api, VIEWER);
  const page = await get(path);
  expect(page.status).toBe(200);
  expect(page.text).not.toContain(`action="${path}"`);
  expect((await post(path, CANCEL)).status).toBe(403);
  expect((await post('/dashboard/inbox', { bulk: 'giveUp', ids: id })).status).toBe(403);
  expect((await post('/dashboard/resume', {})).status).toBe(403);
  expect((await get('/dashboard/queues')).status).toBe(200);
  const queues = (await get('/dashboard/queues/api/queues?activeQueue=&page=1')).body as {
    queues: { readOnlyMode: boolean }[];
  };
  expect(queues.queues.map(({ readOnlyMode }) => readOnlyMode)).toEqual(
    Array.from({ length: 5 }, () => true),
  );
  const { cookie } = await visit(api, VIEWER);
  const paused = await api.ask('PUT', '/dashboard/queues/api/queues/submit/pause', { headers: { cookie } });
  expect(paused.status).toBe(403);
  const token = { authorization: 'Bearer token-that-only-reads' };
  const byToken = await api.ask('POST', path, {
    ...formOf(CANCEL),
    headers: { ...formOf(CANCEL).headers, ...token },
  });
  expect(byToken.status).toBe(403);
  expect(await stateOf(id)).toBe('queued');
});

test('the queues belong to the same login, and load nothing from elsewhere', async () => {
  const { get } = await visit(api, OPERATOR);
  const { text, headers } = await get('/dashboard/queues');
  expect(text).not.toMatch(/https?:\/\//);
  expect(headers.get('content-security-policy')).toMatch(/script-src 'self';/);
  const { queues } = (await get('/dashboard/queues/api/queues?activeQueue=&page=1')).body as {
    queues: { name: string }[];
  };
  expect(queues.map(({ name }) => name).toSorted()).toEqual(['archive', 'notify', 'poll', 'submit', 'sweep']);
});

test('polls are shown as the jobs they are, and can be brought forward', async () => {
  const redis = new Redis(redisUrl());
  const { prefix } = stage.bed;
  const queue = new Queue('poll', { connection: redis, prefix });
  await queue.add('poll', {}, { jobId: 'board-due' });
  await queue.add('poll', {}, { jobId: 'board-later', delay: 3_600_000 });
  const { get, cookie } = await visit(api, OPERATOR);
  const ask = async (status: string) => {
    const { body } = await get(`/dashboard/queues/api/queues?activeQueue=poll&status=${status}&page=1`);
    const { queues } = body as { queues: { name: string; counts: object; jobs: { id: string }[] }[] };
    return queues.find(({ name }) => name === 'poll')!;
  };
  expect((await ask('delayed')).counts).toMatchObject({ active: 0, waiting: 1, delayed: 1 });
  const shown = async (status: string) => (await ask(status)).jobs.map(({ id }) => id);
  expect([await shown('waiting'), await shown('delayed')]).toEqual([['board-due'], ['board-later']]);
  const headers = { cookie, origin: api.url };
  const promoted = await api.ask('PUT', '/dashboard/queues/api/queues/poll/board-later/promote', { headers });
  expect(promoted.status).toBeLessThan(300);
  expect(await queue.getDelayedCount()).toBe(0);
  await queue.obliterate({ force: true });
  await queue.close();
  await redis.quit();
});

test('no page of another origin changes anything, whatever it sends', async () => {
  const { id, path } = await waiting();
  const { cookie, post } = await visit(api, OPERATOR);
  const csrf = csrfIn(await api.ask('GET', path, { headers: { ...PAGE, cookie } }));
  const send = (fields: Record<string, string>, headers: Record<string, string>) =>
    api.ask('POST', path, { ...formOf(fields), headers: { ...formOf(fields).headers, cookie, ...headers } });
  expect((await send({ ...CANCEL, csrf }, { origin: 'https://evil.example' })).status).toBe(403);
  expect((await send({ ...CANCEL, csrf }, { origin: 'null' })).status).toBe(403);
  expect((await send({ ...CANCEL, csrf }, { 'sec-fetch-site': 'cross-site' })).status).toBe(403);
  expect((await send(CANCEL, {})).status).toBe(403);
  expect((await send({ ...CANCEL, csrf: `${csrf.slice(1)}x` }, {})).status).toBe(403);
  const foreign = { origin: 'https://evil.example' };
  const board = await api.ask('PUT', '/dashboard/queues/api/queues/submit/pause', {
    headers: { cookie, ...foreign },
  });
  expect(board.status).toBe(403);
  const byBasic = { ...basic(OPERATOR.user, OPERATOR.password), ...foreign };
  expect(
    (await api.ask('POST', path, { ...formOf(CANCEL), headers: { ...formOf(CANCEL).headers, ...byBasic } }))
      .status,
  ).toBe(403);
  expect(await stateOf(id)).toBe('queued');
  expect((await post(path, CANCEL, { headers: { origin: api.url } })).status).toBe(303);
  expect(await stateOf(id)).toBe('canceled');
});

test('a token of another session is worth nothing', async () => {
  const { id, path } = await waiting();
  const mine = await visit(api, OPERATOR);
  const other = await visit(api, OPERATOR);
  const foreign = csrfIn(await other.get(path));
  expect((await mine.post(path, { ...CANCEL, csrf: foreign })).status).toBe(403);
  expect(await stateOf(id)).toBe('queued');
});

test('every page forbids foreign scripts, styles and frames, and is kept nowhere', async () => {
  const { get } = await visit(api, OPERATOR);
  const { path } = await waiting();
  for (const page of [
    '/dashboard',
    '/dashboard/generations',
    path,
    '/dashboard/inbox',
    '/dashboard/nowhere',
  ]) {
    const { headers, text } = await get(page);
    expect(headers.get('content-security-policy')).toContain(
      "default-src 'none'; script-src 'self'; style-src 'self'",
    );
    expect(headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(headers.get('content-security-policy')).not.toContain('unsafe');
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('x-content-type-options')).toBe('nosniff');
    expect(text).not.toMatch(/ style=| on\w+=|<style|<script>/);
  }
});

test('a link from elsewhere reaches its page in spite of the strict cookie', async () => {
  const headers = { ...PAGE, 'sec-fetch-site': 'cross-site' };
  const { status, text } = await api.ask('GET', '/dashboard/inbox', { headers });
  expect([status, text]).toEqual([200, '<meta http-equiv="refresh" content="0">']);
});

test('without accounts only this machine comes in, and no proxy is mistaken for it', async () => {
  const open = await startApi(stage.bed, {});
  try {
    const get = (headers: Record<string, string>) =>
      open.ask('GET', '/dashboard', { headers: { ...PAGE, ...headers } });
    const page = await get({});
    expect([page.status, page.text.includes('this machine only')]).toEqual([200, true]);
    for (const headers of [
      { 'x-forwarded-for': '127.0.0.1' },
      { forwarded: 'for=127.0.0.1' },
      { 'x-real-ip': '127.0.0.1' },
      { via: '1.1 proxy' },
    ] as Record<string, string>[]) {
      const refused = await get(headers);
      expect([refused.status, refused.text.includes('DASHBOARD_USER')]).toEqual([403, true]);
    }
    const { id, path } = await waiting();
    const send = (fields: Record<string, string>, headers: Record<string, string> = {}) =>
      open.ask('POST', path, { ...formOf(fields), headers: { ...formOf(fields).headers, ...headers } });
    expect((await send(CANCEL)).status).toBe(403);
    const csrf = csrfIn(await open.ask('GET', path, { headers: PAGE }));
    expect((await send({ ...CANCEL, csrf }, { origin: 'http://evil.example' })).status).toBe(403);
    expect(await stateOf(id)).toBe('queued');
    expect((await send({ ...CANCEL, csrf })).status).toBe(303);
    expect(await stateOf(id)).toBe('canceled');
  } finally {
    await open.close();
  }
});

test.each(['/dashboard/login', '/dashboard/logout', '/dashboard/inbox', '/dashboard/resume'])(
  'a body of %s that is no form is refused as that',
  async (path) => {
    const { cookie } = await visit(api, OPERATOR);
    for (const [type, body] of [
      ['multipart/form-data; boundary=x', '--x\r\nnonsense'],
      ['multipart/form-data', 'nonsense'],
    ] as const) {
      const { status } = await api.ask('POST', path, {
        body,
        headers: { ...PAGE, cookie, 'content-type': type },
      });
      expect([path, status]).toEqual([path, 400]);
    }
  },
);
