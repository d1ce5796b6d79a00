import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.js';
import { jsonOf, poll, submit, taskUnder } from './visitor.js';

let simulator: Simulator;
beforeEach(async () => {
  simulator = await startSimulator();
});
afterEach(() => simulator.close());

async function feedUnder(script: string): Promise<Record<string, unknown>> {
  return jsonOf(await poll(simulator, await taskUnder(simulator, script)));
}

const link = (file: string): unknown =>
  expect.stringMatching(new RegExp(`^http://127\\.0\\.0\\.1:\\d+/assets/rw.*/${file}\\?link=1$`));

test('shape W wraps the task and nests the view of the upstream', async () => {
  expect(await feedUnder('')).toEqual({
    code: 'success',
    message: '',
    data: {
      task_id: expect.stringMatching(/^rw/),
      action: 'IMAGE_TO_VIDEO',
      status: 'SUCCESS',
      fail_reason: '',
      submit_time: expect.any(Number),
      start_time: expect.any(Number),
      finish_time: expect.any(Number),
      progress: '100%',
      poster: link('poster.jpg'),
      last_frame: link('last-frame.jpg'),
      data: {
        id: expect.stringMatching(/^up-rw/),
        status: 'SUCCEEDED',
        createdAt: expect.any(String),
        output: [link('video.mp4')],
      },
    },
  });
});

test('shape B is the bare task', async () => {
  const body = await feedUnder('shape=B');
  expect(body).toMatchObject({ status: 'SUCCESS', result_url: link('video.mp4'), progress: '100%' });
  expect(body).not.toHaveProperty('code');
  expect(body).not.toHaveProperty('data');
});

test('shape O is the old form with numbers as text', async () => {
  expect(await feedUnder('shape=O')).toEqual({
    code: 200,
    msg: 'success',
    exec_time: expect.any(Number),
    data: {
      task_id: expect.stringMatching(/^rw/),
      status: '3',
      prompt: expect.stringContaining('a fox'),
      prompt_en: expect.stringContaining('a fox'),
      video_url: link('video.mp4'),
      poster: link('poster.jpg'),
      last_frame: link('last-frame.jpg'),
      msg: null,
      point: '320',
      refund: '0',
      create_time: expect.stringMatching(/^\d{10}$/),
      update_time: expect.stringMatching(/^\d{10}$/),
    },
  });
});

test('shape C is the inner object of O, bare', async () => {
  const body = await feedUnder('shape=C');
  expect(body).toMatchObject({ status: '3', video_url: link('video.mp4'), point: '320' });
  expect(body).not.toHaveProperty('code');
});

test('a task goes from queued over running to its end, with progress', async () => {
  let nowMs = Date.now();
  const clocked = await startSimulator({ now: () => nowMs });
  try {
    await submit(clocked, 'a fox [sim: duration=100s, visible-after=5s, stuck=10s]');
    const taskId = clocked.ledger().tasks[0]?.taskId ?? '';
    const startedAt = nowMs;
    const seen: unknown[] = [];
    for (const afterMs of [4999, 5000, 20_000, 60_000, 99_999, 100_000, 109_999, 110_000]) {
      nowMs = startedAt + afterMs;
      const answer = await poll(clocked, taskId);
      const { data } = jsonOf(answer) as { data: { status: string; progress: string } | null };
      seen.push([answer.status, data?.status, data?.progress]);
    }
    expect(seen).toEqual([
      [400, undefined, undefined],
      [200, 'QUEUED', '0%'],
      [200, 'IN_PROGRESS', '20%'],
      [200, 'IN_PROGRESS', '60%'],
      [200, 'IN_PROGRESS', '98%'],
      [200, 'IN_PROGRESS', '99%'],
      [200, 'IN_PROGRESS', '99%'],
      [200, 'SUCCESS', '100%'],
    ]);
  } finally {
    await clocked.close();
  }
});

test('a task can stay invisible for ever, under another status', async () => {
  const taskId = await taskUnder(simulator, 'visible-after=never, not-visible-status=404');
  const seen = await poll(simulator, taskId);
  expect(seen.status).toBe(404);
  expect(jsonOf(seen)).toEqual({ code: 'task_not_exist', message: 'task_not_exist', data: null });
  expect(simulator.ledger().tasks[0]).toMatchObject({ visibleAt: null, pollOutcomes: ['not-visible'] });
});

test('a task nobody created is not known', async () => {
  const seen = await poll(simulator, 'rw-unknown');
  expect(seen.status).toBe(400);
  expect(jsonOf(seen).code).toBe('task_not_exist');
  expect(simulator.ledger().totals).toMatchObject({ polls: 1, strayPolls: 1 });
});

test('stuck=forever stays at 99 %', async () => {
  const taskId = await taskUnder(simulator, 'stuck=forever');
  expect(jsonOf(await poll(simulator, taskId))).toMatchObject({
    data: { status: 'IN_PROGRESS', progress: '99%' },
  });
  expect(simulator.ledger().tasks[0]?.finishesAt).toBeNull();
});

interface PollRow {
  readonly step: string;
  readonly status: number | null;
  readonly body?: RegExp;
  readonly cut?: boolean;
}

const pollRows: readonly PollRow[] = [
  { step: '429', status: 429 },
  { step: '500', status: 500, body: /"type":"comet_api_error"/ },
  { step: '401', status: 401 },
  { step: '403', status: 403 },
  { step: '404', status: 404 },
  { step: '502', status: 502 },
  { step: '301', status: 301 },
  { step: 'redirect', status: 302 },
  { step: 'html', status: 200, body: /^<!DOCTYPE html>/ },
  { step: 'html:503', status: 503, body: /^<!DOCTYPE html>/ },
  { step: 'garbage', status: 200, body: /\0$/ },
  { step: 'empty', status: 200, body: /^$/ },
  { step: 'empty:204', status: 204, body: /^$/ },
  { step: 'truncated', status: 200, cut: true, body: /^\{"code":"success"/ },
  { step: 'reset', status: null },
  { step: 'hang', status: null },
  { step: 'drip:60ms', status: 200, body: /"status":"SUCCESS"/ },
  { step: 'endless', status: 200, cut: true, body: /^ +$/ },
  { step: 'business', status: 200, body: /^\{"code":"upstream_error"/ },
  { step: 'business:oops', status: 200, body: /^\{"code":"oops"/ },
  { step: 'quota', status: 403, body: /"code":"quota_not_enough"/ },
  { step: 'not-visible', status: 400, body: /task_not_exist/ },
];

test.each(pollRows)(
  'poll=$step answers $status once, then the task is shown',
  async ({ step, status, body, cut }) => {
    const taskId = await taskUnder(simulator, `poll=${step}`);
    const seen = await poll(simulator, taskId, {
      leaveAfterBytes: 100_000,
      ...(step === 'hang' ? { leaveAfterMs: 50 } : {}),
    });
    expect(seen.status).toBe(status);
    expect(seen.complete).toBe(status !== null && cut !== true);
    if (body) expect(seen.body.toString('utf8')).toMatch(body);
    expect(jsonOf(await poll(simulator, taskId))).toMatchObject({ data: { status: 'SUCCESS' } });
    expect(simulator.ledger().tasks[0]).toMatchObject({
      polls: 2,
      pollOutcomes: [step.split(':')[0], 'succeeded'],
    });
  },
);

test('poll steps start when the task is visible', async () => {
  const taskId = await taskUnder(simulator, 'visible-after=400ms, poll=500');
  expect((await poll(simulator, taskId)).status).toBe(400);
  await simulator.waitUntil((ledger) => Date.now() >= (ledger.tasks[0]?.visibleAt ?? Infinity));
  expect((await poll(simulator, taskId)).status).toBe(500);
  expect((await poll(simulator, taskId)).status).toBe(200);
});

test('a poll may say when to come back', async () => {
  const taskId = await taskUnder(simulator, 'poll=429, retry-after=3s');
  expect((await poll(simulator, taskId)).headers['retry-after']).toBe('3');
});

test.each([
  [
    'W',
    {
      data: {
        status: 'FAILURE',
        fail_reason: 'The generation failed (SAFETY.INPUT.TEXT).',
        data: { status: 'FAILED', failureCode: 'SAFETY.INPUT.TEXT' },
      },
    },
  ],
  [
    'B',
    {
      status: 'FAILURE',
      fail_reason: 'The generation failed (SAFETY.INPUT.TEXT).',
      data: { failureCode: 'SAFETY.INPUT.TEXT' },
    },
  ],
  [
    'O',
    {
      data: {
        status: '2',
        msg: 'The generation failed (SAFETY.INPUT.TEXT).',
        failureCode: 'SAFETY.INPUT.TEXT',
        refund: '320',
      },
    },
  ],
])('a failure in shape %s says its code and text, and is refunded', async (shape, expected) => {
  expect(await feedUnder(`shape=${shape}, result=failed:SAFETY.INPUT.TEXT`)).toMatchObject(expected);
  expect(simulator.ledger().tasks[0]).toMatchObject({ status: 'failed', billed: true, refunded: true });
  expect(simulator.ledger().totals).toMatchObject({ tasksCreated: 1, refunds: 1, bills: 0 });
});

test.each([
  ['msg', { msg: 'The generation failed.' }],
  ['failure', { failure: 'The generation failed.' }],
  ['data.failure', { data: { failure: 'The generation failed.' } }],
  ['result_url', { result_url: 'The generation failed.' }],
  ['message', { message: 'The generation failed.' }],
])('error-in=%s', async (where, expected) => {
  expect(await feedUnder(`result=failed, error-in=${where}`)).toMatchObject({ data: expected });
});

test('a failure can come without a word', async () => {
  const { data } = await feedUnder('result=failed, error-in=none');
  expect(data).toMatchObject({ status: 'FAILURE', fail_reason: '' });
});

test('no-url holds the video back for so many polls', async () => {
  const taskId = await taskUnder(simulator, 'no-url=2, shape=B');
  const urls: unknown[] = [];
  for (let count = 0; count < 3; count += 1) urls.push(jsonOf(await poll(simulator, taskId)).result_url);
  expect(urls).toEqual([undefined, undefined, link('video.mp4')]);
});

test.each([
  ['video_url', { video_url: link('video.mp4') }],
  ['raw_video_url', { raw_video_url: link('video.mp4') }],
  ['result_url', { result_url: link('video.mp4') }],
  ['output', { output: [link('video.mp4')] }],
  ['data.output', { data: { output: [link('video.mp4')] } }],
  ['data.video_url', { data: { video_url: link('video.mp4') } }],
  ['data.video.url', { data: { video: { url: link('video.mp4') } } }],
  ['url', { url: link('video.mp4') }],
  ['fail_reason', { status: 'SUCCESS', fail_reason: link('video.mp4') }],
])('url-in=%s', async (where, expected) => {
  const body = await feedUnder(`url-in=${where}`);
  expect(body).toMatchObject({ data: expected });
  expect(JSON.stringify(body).split('video.mp4')).toHaveLength(2);
});

test('URLs can be lists', async () => {
  expect(await feedUnder('shape=O, url-form=list')).toMatchObject({
    data: {
      video_url: [link('video.mp4')],
      poster: [link('poster.jpg')],
      last_frame: [link('last-frame.jpg')],
    },
  });
});

test('files can be missing', async () => {
  const { data } = await feedUnder('shape=O, video=missing, poster=missing, last-frame=missing');
  expect(data).toMatchObject({ status: '3', video_url: '', poster: '', last_frame: '' });
});

test('words can be unknown or left out', async () => {
  const waiting = 'duration=1h, queued-word=WARMING_UP';
  await submit(simulator, `an owl [sim: ${waiting}]`);
  const owl = simulator.ledger().tasks[0]?.taskId ?? '';
  expect(jsonOf(await poll(simulator, owl))).toMatchObject({ data: { status: 'WARMING_UP' } });
  expect(await feedUnder('succeeded-word=SPLENDID')).toMatchObject({ data: { status: 'SPLENDID' } });
  expect(await feedUnder('result=failed, failed-word=BROKEN')).toMatchObject({ data: { status: 'BROKEN' } });
  expect((await feedUnder('succeeded-word=none')).data).not.toHaveProperty('status');
  expect(await feedUnder('stuck=forever, running-word=DREAMING')).toMatchObject({
    data: { status: 'DREAMING' },
  });
});

test('outer and inner task can disagree', async () => {
  const inner = { status: 'SUCCEEDED', output: [link('video.mp4')] };
  expect(await feedUnder('outer=failed')).toMatchObject({ data: { status: 'FAILURE', data: inner } });
  expect(await feedUnder('outer=pending')).toMatchObject({ data: { status: 'IN_PROGRESS', data: inner } });
  expect(await feedUnder('outer=failed, shape=O')).toMatchObject({ data: { status: '2', data: inner } });
  expect(await feedUnder('outer=pending, result=failed')).toMatchObject({
    data: { status: 'IN_PROGRESS', data: { status: 'FAILED' } },
  });
});

test.each([
  ['s', /^\d{10}$/, 'number'],
  ['ms', /^\d{13}$/, 'number'],
  ['string', /^\d{10}$/, 'string'],
  ['iso', /^\d{4}-\d\d-\d\dT.*Z$/, 'string'],
  ['zero', /^0$/, 'number'],
])('times=%s', async (form, pattern, type) => {
  const { data } = (await feedUnder(`times=${form}`)) as { data: { submit_time: unknown } };
  expect(String(data.submit_time)).toMatch(pattern);
  expect(typeof data.submit_time).toBe(type);
});

test('progress can be a number or absent, ids numbers, codes anything that means success', async () => {
  const body = await feedUnder('progress=number, id=number, code="200", message-field=msg');
  expect(body).toMatchObject({ code: '200', msg: '', data: { progress: 100, task_id: expect.any(Number) } });
  expect((await feedUnder('progress=none')).data).not.toHaveProperty('progress');
  const { task_id: taskId } = body.data as { task_id: number };
  expect((await poll(simulator, taskId)).status).toBe(200);
  expect((await poll(simulator, String(taskId))).status).toBe(200);
});

test('a poll without a task id is refused', async () => {
  expect((await poll(simulator, '', { body: {} })).status).toBe(400);
});
