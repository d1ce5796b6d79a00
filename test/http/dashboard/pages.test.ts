/** What the pages find and say, and that neither grows with what there is. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Hono } from 'hono';
import { v7 as uuidv7 } from 'uuid';
import { actionsFor } from '../../../src/http/dashboard/actions.js';
import { LOOKED_AT_MOST } from '../../../src/http/dashboard/search.js';
import { durationText, sizeText } from '../../../src/http/dashboard/format.js';
import { staysOf } from '../../../src/http/dashboard/timeline.js';
import { readRecord } from '../../../src/store/read-record.js';
import { withStep } from '../../../src/generation/history.js';
import { createKeys } from '../../../src/store/keys.js';
import { excerpt } from '../../../src/http/dashboard/components.js';
import { patience } from '../../../src/http/dashboard/read-deadline.js';
import { HttpError } from '../../../src/http/problems.js';
import { startApi, type Answer } from '../../support/api.js';
import {
  ACCOUNTS,
  openStage,
  OPERATOR,
  PAGE,
  visit,
  type Stage,
  type Visit,
} from '../../support/dashboard.js';
import { until } from '../../support/until.js';

const FAR = 3_600_000;
let stage: Stage;
let operator: Visit;

beforeAll(async () => {
  stage = await openStage();
  operator = await visit(stage.api, OPERATOR);
});
afterAll(() => stage.close());

const idsIn = ({ text }: Answer): string[] =>
  [...text.matchAll(/<li id="g-([0-9a-f-]+)"/g)].map(([, id]) => id!);
const nextIn = ({ text }: Answer): string | null =>
  /rel="next"\s+href="([^"]+)"/.exec(text)?.[1]?.replaceAll('&amp;', '&') ?? null;
const list = (query: Record<string, string>) =>
  operator.get(`/dashboard/generations?${new URLSearchParams(query).toString()}`);

async function later(tenant: string, count: number, request: Record<string, string> = {}): Promise<string[]> {
  const results = await stage.bed.reelhaul.enqueueMany(
    Array.from({ length: count }, () => ({ request: { prompt: 'later', ...request }, tenant, delayMs: FAR })),
  );
  return results.map((result) => (result.ok ? result.generation.id : ''));
}

test('every generation stands on exactly one page', async () => {
  const ids = await later('pages', 120);
  const seen: string[] = [];
  let page = await list({ tenant: 'pages' });
  for (let next = nextIn(page); ; next = nextIn(page)) {
    seen.push(...idsIn(page));
    if (next === null) break;
    page = await operator.get(next);
  }
  expect(seen).toEqual(ids.toSorted().toReversed());
});

test('a model is looked for in a bounded number of generations, and the page says where to go on', async () => {
  const [wanted] = await later('models', 1, { model: 'gen4_turbo' });
  await later('models', LOOKED_AT_MOST);
  const first = await list({ tenant: 'models', model: 'gen4_turbo' });
  expect(idsIn(first)).toEqual([]);
  expect(first.text).toContain('There are older ones');
  expect(idsIn(await operator.get(nextIn(first)!))).toEqual([wanted]);
});

test('only what was created in the time that is asked for is listed', async () => {
  const [id] = await later('time', 1);
  const at = (ms: number) => new Date(ms).toISOString().slice(0, 19);
  const [before, after] = [at(Date.now() - FAR), at(Date.now() + FAR)];
  expect(idsIn(await list({ tenant: 'time', from: before, to: after }))).toEqual([id]);
  expect(idsIn(await list({ tenant: 'time', from: after }))).toEqual([]);
  expect(idsIn(await list({ tenant: 'time', to: before }))).toEqual([]);
});

test.each([
  ['state=nowhere', 'state'],
  ['from=yesterday', 'from'],
  ['before=1', 'before'],
])('%s is answered with what was expected', async (query, field) => {
  const { status, text } = await operator.get(`/dashboard/generations?${query}`);
  expect([status, text.includes(`${field}: `)]).toEqual([422, true]);
});

test('states are counted for all tenants, and not beside a filter that the count does not heed', async () => {
  await later('counts', 1);
  const chipOf = ({ text }: Answer) => />Queued(.*?)<\/a/s.exec(text)?.[1] ?? null;
  expect(chipOf(await list({ state: 'queued' }))).toMatch(/class="n">[\d,]+</);
  expect(chipOf(await list({ tenant: 'counts' }))).toBe('');
});

test('an idempotency key is found in its tenant, an id in whatever case, and nothing else is', async () => {
  const { id } = await stage.bed.reelhaul.enqueue(
    { prompt: 'keyed' },
    { tenant: 'keys', idempotencyKey: 'order 1', delayMs: FAR },
  );
  const found = async (query: Record<string, string>) => (await list(query)).headers.get('location');
  expect(await found({ q: 'order 1', tenant: 'keys' })).toBe(`/dashboard/generations/${id}`);
  expect(await found({ q: ` ${id.toUpperCase()} ` })).toBe(`/dashboard/generations/${id}`);
  expect(await found({ q: 'order 1' })).toBeNull();
});

test('a long prompt is a short title, and stands in full beside the request', async () => {
  const [id] = await later('long', 1, { prompt: 'A boat 🌊 '.repeat(500) });
  const { text } = await operator.get(`/dashboard/generations/${id}`);
  expect(/<h1[^>]*>([^<]*)</.exec(text)![1]!.length).toBeLessThan(200);
  expect(text).toContain('A boat 🌊 '.repeat(500));
});

test.each([
  ['short', 'short'],
  ['🌊'.repeat(10), '🌊'.repeat(10)],
  ['🌊'.repeat(11), `${'🌊'.repeat(9)}…`],
  ['one two three', 'one two t…'],
])('%s is told in ten characters', (text, told) => expect(excerpt(text, 10)).toBe(told));

test('one that waits says what for, and the overview that nobody works', async () => {
  const [id] = await later('why', 1);
  expect((await operator.get(`/dashboard/generations/${id}`)).text).toContain(
    'The app wants it submitted later.',
  );
  const { text } = await operator.get('/dashboard');
  expect(text).toContain('No worker has started yet');
  expect(text).toContain('all for later');
});

test('what was asked wrongly is told as such, with the way back to asking', async () => {
  const { text } = await operator.get('/dashboard/generations?from=yesterday');
  expect(text).toContain('<h1>That cannot be shown</h1>');
  expect(text).toContain('href="/dashboard/generations">To the generations');
});

test('an unknown generation and an unknown page are told as such', async () => {
  expect((await operator.get('/dashboard/generations/01a20ac4-c452-75d4-8a9b-fae65f0321ad')).status).toBe(
    404,
  );
  expect((await operator.get('/dashboard/generations/%3Cscript%3E')).status).toBe(404);
  expect((await operator.get('/dashboard/nowhere')).status).toBe(404);
});

/** What a provider that refuses everything leaves behind, written as the store keeps it. */
async function failedMany(count: number, prompt: string): Promise<void> {
  const keys = createKeys(stage.bed.prefix);
  const pipeline = stage.bed.redis.pipeline();
  for (let i = 0; i < count; i++) {
    // Of days ago: no other test counts them.
    const id = uuidv7({ msecs: Date.now() - 3 * 24 * FAR });
    const free = i % 2 === 0;
    const reason = free
      ? { code: 'asset_invalid', stage: 'archive', charge: 'charged' }
      : { code: 'request_rejected', stage: 'submit', charge: 'none' };
    pipeline.hset(keys.record(id), {
      v: 1,
      state: 'failed',
      tenant: 'full',
      createdAt: Date.now(),
      updatedAt: Date.now(),
      finishedAt: Date.now(),
      request: JSON.stringify({ prompt, model: 'gen4', ratio: '1280:720' }),
      submits: JSON.stringify([{ at: 0, bill: reason.charge }]),
      ...(free ? { taskId: `task-${i}` } : {}),
      failure: JSON.stringify({ ...reason, message: 'no', retryable: free }),
    });
    pipeline.zadd(keys.state('failed'), 0, id);
    pipeline.zadd(keys.tenantState('full', 'failed'), 0, id);
  }
  await pipeline.exec();
}

test('the inbox shows a few of each kind at first, and more when it is asked', async () => {
  await failedMany(200, 'full');
  const rows = ({ text }: Answer) => text.match(/<li id="g-/g)?.length;
  const first = await operator.get('/dashboard/inbox');
  expect([rows(first), first.text.includes('Show up to 100 of each')]).toEqual([30, true]);
  expect(rows(await operator.get('/dashboard/inbox?show=most'))).toBe(200);
});

test.each(['constructor', '__proto__', 'toString'])(
  'an address that ends in done=%s says nothing',
  async (word) => {
    const [id] = await later('said', 1);
    for (const path of [`/dashboard/generations/${id}?`, '/dashboard/inbox?n=1&left=0&'])
      expect((await operator.get(`${path}done=${word}`)).text).not.toMatch(/class="notice/);
  },
);

test('a page that is asked for again and has not changed is not sent again', async () => {
  const path = '/dashboard/generations?tenant=unchanged';
  const first = await operator.get(path);
  const tag = first.headers.get('etag') ?? '';
  const again = () => operator.get(path, { headers: { 'if-none-match': tag } });
  expect([(await again()).status, (await again()).text]).toEqual([304, '']);
  expect((await again()).headers.get('content-security-policy')).toBe(
    first.headers.get('content-security-policy'),
  );
  await later('unchanged', 1);
  expect(idsIn(await again())).toHaveLength(1);
});

test.each([
  ['GET', 503, 'Redis does not answer in time'],
  ['POST', 503, 'not known whether this was done'],
])('nobody waits for ever when a %s is not answered', async (method, status, words) => {
  const app = new Hono()
    .use(patience({ readMs: 1, actMs: 1 }))
    .all('/', () => new Promise<never>(() => {}))
    .onError((error, c) => c.text(error.message, error instanceof HttpError ? (error.status as 503) : 500));
  const answer = await app.request('/', { method });
  expect([answer.status, await answer.text()]).toEqual([status, expect.stringContaining(words)]);
});

test('a page that comes while Redis is away asks for itself again', async () => {
  const other = await startApi(stage.bed, ACCOUNTS);
  try {
    const { cookie } = await visit(other, OPERATOR);
    other.redis.disconnect();
    const { status, headers, text } = await other.ask('GET', '/dashboard', { headers: { ...PAGE, cookie } });
    expect([status, headers.get('refresh'), text.includes('comes back by itself')]).toEqual([503, '5', true]);
  } finally {
    await other.close();
  }
});

test('a slash too many leads to the overview', async () => {
  expect((await operator.get('/dashboard/')).headers.get('location')).toBe('/dashboard');
});

test('a failed task is not among what a free retry can help, and one that was never sent has no task to adopt', async () => {
  const own = await openStage({ environment: { ARCHIVE_ATTEMPTS: '1', UNCONFIRMED_WAIT_MS: '1' } });
  try {
    await own.bed.work();
    const { get, post } = await visit(own.api, OPERATOR);
    const failed = async (prompt: string, options = {}) => {
      const { id } = await own.bed.enqueue(prompt, options);
      await own.bed.reaches(id, 'failed');
      return id;
    };
    const task = await failed('x [sim: result=failed:INTERNAL]');
    const download = await failed('x [sim: video=garbage*2]');
    const rejected = await failed('x [sim: submit=400]');
    const unclear = await failed('x [sim: submit=502-after, callback=lost]', { onUnconfirmed: 'fail' });
    const inbox = (await get('/dashboard/inbox')).text;
    const retryable = /<section id="retryable"[\s\S]*?<\/section>/.exec(inbox)?.[0] ?? '';
    expect([retryable.includes(download), retryable.includes(task)]).toEqual([true, false]);
    await post('/dashboard/inbox', { bulk: 'retry', ids: task });
    expect((await own.bed.reelhaul.get(task)).state).toBe('failed');
    const adopts = async (id: string) =>
      (await get(`/dashboard/generations/${id}`)).text.includes('Adopt a task');
    expect([await adopts(rejected), await adopts(unclear)]).toEqual([false, true]);
    await own.bed.reelhaul.retry(task, { allowRebill: true });
    await own.bed.reaches(task, 'failed');
    expect((await get(`/dashboard/generations/${task}`)).text).not.toContain(
      'The provider made further tasks',
    );
  } finally {
    await own.close();
  }
});

test('a press with nothing marked says that nothing was done', async () => {
  const { headers } = await operator.post('/dashboard/inbox', { bulk: 'retry', show: 'most' });
  expect((await operator.get(headers.get('location')!)).text).toContain('Nothing was selected');
  expect(headers.get('location')).toContain('show=most');
});

test('a first visit of any page loads less than 100 KB, however long prompts are', async () => {
  await failedMany(200, 'words without end '.repeat(1000));
  await later('size', 60, { prompt: 'a prompt of usual length, with a boat and a storm in it '.repeat(3) });
  for (const path of ['/dashboard', '/dashboard/generations', '/dashboard/inbox']) {
    const page = await operator.get(path);
    const files = [...page.text.matchAll(/(?:href|src)="(\/dashboard\/assets\/[^"]+)"/g)].map(
      ([, file]) => file!,
    );
    const main = files.find((file) => file.endsWith('main.js'))!;
    const source = (await operator.get(main)).text;
    const imported = [...source.matchAll(/from '\.\/(\w+\.js)'/g)].map(([, name]) =>
      main.replace('main.js', name!),
    );
    let bytes = page.text.length;
    for (const file of new Set([...files, ...imported])) {
      const { status, text, headers } = await operator.get(file);
      expect([file, status, headers.get('cache-control')]).toEqual([
        file,
        200,
        'public, max-age=31536000, immutable',
      ]);
      bytes += text.length;
    }
    expect(bytes).toBeLessThan(100_000);
  }
});

test('the overview counts what waits and what was enqueued, whoever enqueued it', async () => {
  const before = await stage.bed.reelhaul.count(['queued']);
  await later('counted', 3);
  const wanted = (before['queued']! + 3).toLocaleString('en');
  await until(async () => {
    const { text } = await operator.get('/dashboard');
    return text.includes(`${wanted} enqueued`) && new RegExp(`<p class="value">${wanted}</p>`).test(text);
  }, `${wanted} waiting and enqueued on the overview`);
});

const record = (fields: Record<string, string>) =>
  readRecord('01', { createdAt: '0', updatedAt: '0', ...fields });
const billed = (charge: string) => JSON.stringify([{ at: 0, bill: charge }]);
const failure = (code: string, failedStage: string, charge: string) => ({
  state: 'failed',
  submits: billed(charge),
  failure: JSON.stringify({ code, message: '', stage: failedStage, retryable: true, charge }),
});

test.each([
  ['queued', { state: 'queued' }, ['cancel never']],
  ['generating', { state: 'generating', taskId: 't' }, ['cancel never']],
  [
    'unconfirmed',
    { state: 'unconfirmed' },
    ['adopt never', 'resubmit again', 'giveUp never', 'cancel never'],
  ],
  ['expired', { state: 'expired', taskId: 't' }, ['retry never', 'cancel never', 'erase never']],
  ['succeeded', { state: 'succeeded', taskId: 't' }, ['erase never']],
  ['canceled', { state: 'canceled' }, ['erase never']],
  [
    'canceled while its task goes on',
    { state: 'canceled', submits: JSON.stringify([{ at: 0, bill: 'charged', liveUntil: 1 }]) },
    [],
  ],
  [
    'failed by the provider',
    { ...failure('task_failed', 'poll', 'charged'), taskId: 't' },
    ['retry never', 'resubmit again', 'erase never'],
  ],
  [
    'failed to be stored',
    { ...failure('asset_invalid', 'archive', 'charged'), taskId: 't' },
    ['retry never', 'erase never'],
  ],
  ['never sent', failure('submit_attempts_exhausted', 'submit', 'none'), ['retry once', 'erase never']],
  [
    'given up',
    failure('submission_unconfirmed', 'submit', 'possible'),
    ['adopt never', 'resubmit again', 'erase never'],
  ],
] as [string, Record<string, string>, string[]][])(
  'of one that is %s is offered what helps, with its bill',
  (_, fields, offered) => {
    expect(actionsFor(record(fields), 0, 0).map(({ name, bill }) => `${name} ${bill}`)).toEqual(offered);
  },
);

test('one that is over is erased once that is accepted', async () => {
  const [id = ''] = await later('erased', 1);
  await stage.bed.reelhaul.cancel(id);
  const page = `/dashboard/generations/${id}`;
  const { text } = await operator.get(page);
  expect(text).toContain('I accept that it cannot be undone.');
  const rev = /name="rev" value="(\d+)"/.exec(text)![1]!;
  expect((await operator.post(page, { action: 'erase', rev })).status).toBe(409);
  const answer = await operator.post(page, { action: 'erase', rev, accept: 'yes' });
  expect(answer.headers.get('location')).toBe('/dashboard/generations?done=erase');
  expect((await operator.get(page)).status).toBe(404);
});

test('a tenant is erased once its name is typed again', async () => {
  const { id } = await stage.bed.enqueue('of a tenant that goes', { tenant: 'goes', delayMs: 3_600_000 });
  await stage.bed.reelhaul.cancel(id);
  const list = '/dashboard/generations';
  expect((await operator.get(`${list}?tenant=goes`)).text).toContain('Erase this tenant');
  expect((await operator.get(list)).text).not.toContain('Erase this tenant');
  const wrong = await operator.post(list, { tenant: 'goes', confirm: 'stays' });
  expect(wrong.status).toBe(422);
  const answer = await operator.post(list, { tenant: 'goes', confirm: 'goes' });
  expect(answer.headers.get('location')).toBe(`${list}?done=erase-tenant&erased=1&kept=0`);
  expect((await operator.get(answer.headers.get('location')!)).text).toContain('Erased: 1.');
  await expect(stage.bed.reelhaul.get(id)).rejects.toThrow('was erased');
});

test('a cancel does not promise that what may be billed is not', () => {
  const words = (fields: Record<string, string>) => actionsFor(record(fields), 0, 0).at(-1)!.billWords;
  expect(words({ state: 'queued' })).toBe('Cannot bill');
  expect(words({ state: 'generating', taskId: 't', submits: billed('charged') })).toBe('Bills nothing more');
});

test.each([
  ['charged', 'was billed'],
  ['possible', 'may have been billed'],
  ['refunded', 'was refunded'],
])('before another bill it is said what became of the first: %s', (charge, said) => {
  const failed = { ...failure('task_failed', 'poll', charge), taskId: 't' };
  const again = actionsFor(record(failed), 0, 0).find(({ name }) => name === 'resubmit');
  expect(again!.what).toBe(`Sends the paid request once more; the task before ${said}.`);
});

test('a way whose first steps were not kept is told from the middle, and says so', () => {
  let trail = '';
  for (let i = 0; i < 200; i++)
    trail = withStep(trail, 0, { state: i % 2 === 0 ? 'submitting' : 'queued', at: 60_000 * i });
  const { stays, whole } = staysOf(record({ state: 'queued', trail, rev: '200' }));
  expect(whole).toBe(false);
  expect(stays.at(-1)).toEqual({ state: 'queued', fromAt: 199 * 60_000, untilAt: null });
  expect(staysOf(record({ state: 'queued' })).stays).toEqual([{ state: 'queued', fromAt: 0, untilAt: null }]);
});

test.each([
  [0, '0 ms'],
  [9940, '9.9 s'],
  [59_600, '1 min'],
  [71_000, '1 min 11 s'],
  [3_600_000, '1 h'],
  [90_061_000, '1 d 1 h'],
])('%d ms are read as %s', (ms, text) => expect(durationText(ms)).toBe(text));

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [2250, '2.3 KB'],
  [9_400_000, '9.4 MB'],
  [5_000_000_000, '5.0 GB'],
])('%d bytes are read as %s', (bytes, text) => expect(sizeText(bytes)).toBe(text));
