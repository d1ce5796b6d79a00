import http from 'node:http';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { startSimulator, type Simulator } from '../../src/simulator/simulator.js';
import { call, CALLBACK_URL, jsonOf, submit, type Seen } from './visitor.js';

let simulator: Simulator;
beforeEach(async () => {
  simulator = await startSimulator();
});
afterEach(() => simulator.close());

const GATEWAY_PAGE = /^<!DOCTYPE html>/;

interface Row {
  readonly step: string;
  readonly tasks: number;
  readonly status: number | null;
  /** Text the body must match. */
  readonly body?: RegExp;
  readonly cut?: boolean;
}

const rows: readonly Row[] = [
  {
    step: 'ok',
    tasks: 1,
    status: 200,
    body: /^\{"code":200,"msg":"success","data":\{"task_id":"rw[0-9a-f]{24}"\}/,
  },
  { step: 'double', tasks: 2, status: 200, body: /"task_id":"rw/ },
  { step: 'reset-before', tasks: 0, status: null },
  { step: 'reset-after', tasks: 1, status: null },
  { step: 'hang-before', tasks: 0, status: null },
  { step: 'hang-after', tasks: 1, status: null },
  { step: 'truncated-before', tasks: 0, status: 200, cut: true },
  { step: 'truncated-after', tasks: 1, status: 200, cut: true, body: /^\{"code":200/ },
  { step: 'empty-before', tasks: 0, status: 200, body: /^$/ },
  { step: 'empty-after', tasks: 1, status: 200, body: /^$/ },
  { step: 'empty-after:202', tasks: 1, status: 202, body: /^$/ },
  { step: 'empty-after:204', tasks: 1, status: 204, body: /^$/ },
  { step: 'no-id-before', tasks: 0, status: 200, body: /^\{"code":200,"msg":"success","data":\{\}\}$/ },
  { step: 'no-id-after', tasks: 1, status: 200, body: /^\{"code":200,"msg":"success","data":\{\}\}$/ },
  { step: 'garbage-before', tasks: 0, status: 200, body: /\0$/ },
  { step: 'garbage-after', tasks: 1, status: 200, body: /\0$/ },
  { step: 'html-before', tasks: 0, status: 200, body: GATEWAY_PAGE },
  { step: 'html-after', tasks: 1, status: 200, body: GATEWAY_PAGE },
  { step: 'html-after:503', tasks: 1, status: 503, body: GATEWAY_PAGE },
  { step: 'drip-after:60ms', tasks: 1, status: 200, body: /"task_id":"rw/ },
  { step: 'endless-after', tasks: 1, status: 200, cut: true, body: /^ +$/ },
  { step: 'with-id', tasks: 1, status: 500, body: /"code":"upstream_error".*"task_id":"rw/ },
  { step: 'with-id:200', tasks: 1, status: 200, body: /"code":"upstream_error".*"task_id":"rw/ },
  { step: 'redirect', tasks: 0, status: 302 },
  { step: '307', tasks: 0, status: 307 },
  { step: 'html-before:404', tasks: 0, status: 404, body: GATEWAY_PAGE },
  {
    step: 'flat:403:insufficient_user_quota',
    tasks: 0,
    status: 403,
    body: /^\{"code":"insufficient_user_quota","message":"[^"]*","data":null\}$/,
  },
  { step: 'flat:403', tasks: 0, status: 403, body: /^\{"message":"[^"]*"\}$/ },
  { step: 'error:503:model_not_found', tasks: 0, status: 503, body: /^\{"error":.*"code":"model_not_found"/ },
  { step: 'quota', tasks: 0, status: 403, body: /"code":"quota_not_enough"/ },
  { step: 'quota:200', tasks: 0, status: 200, body: /"code":"quota_not_enough"/ },
  { step: 'rejected', tasks: 0, status: 200, body: /^\{"code":"invalid_parameter"/ },
  { step: 'rejected:model_gone', tasks: 0, status: 200, body: /^\{"code":"model_gone"/ },
  { step: 'error-in-200', tasks: 0, status: 200, body: /^\{"error":\{.*"code":"invalid_parameter"/ },
  {
    step: 'error-in-200:none',
    tasks: 0,
    status: 200,
    body: /^\{"error":\{"message":"[^"]*","type":"comet_api_error"\}\}$/,
  },
  { step: 'rate-in-200', tasks: 0, status: 200, body: /"code":"rate_limit_exceeded"/ },
  { step: 'invalid-request', tasks: 0, status: 500, body: /"code":"invalid_request"/ },
  { step: '400', tasks: 0, status: 400, body: /"type":"comet_api_error"/ },
  { step: '401', tasks: 0, status: 401 },
  { step: '402', tasks: 0, status: 402 },
  { step: '403', tasks: 0, status: 403 },
  { step: '408', tasks: 0, status: 408 },
  { step: '409-after', tasks: 1, status: 409 },
  { step: '429', tasks: 0, status: 429 },
  { step: '500', tasks: 0, status: 500, body: /"type":"comet_api_error"/ },
  { step: '500-after', tasks: 1, status: 500, body: /"type":"comet_api_error"/ },
  { step: '502-after', tasks: 1, status: 502, body: GATEWAY_PAGE },
  { step: '503', tasks: 0, status: 503 },
  { step: '504-after', tasks: 1, status: 504, body: GATEWAY_PAGE },
  { step: '524-after', tasks: 1, status: 524, body: GATEWAY_PAGE },
];

test.each(rows)(
  'submit=$step creates $tasks and answers $status',
  async ({ step, tasks, status, body, cut }) => {
    const seen: Seen = await submit(simulator, `a fox [sim: submit=${step}]`, {
      leaveAfterBytes: 100_000,
      ...(step.startsWith('hang') ? { leaveAfterMs: 50 } : {}),
    });
    expect(seen.status).toBe(status);
    if (body) expect(seen.body.toString('utf8')).toMatch(body);
    expect(seen.complete).toBe(status !== null && cut !== true);
    const { submits } = await simulator.waitUntil(
      (ledger) => ledger.submits[0]?.answeredAt !== null && ledger,
    );
    expect(submits).toHaveLength(1);
    expect(submits[0]).toMatchObject({
      outcome: step.split(':')[0],
      httpStatus: status,
      prompt: `a fox [sim: submit=${step}]`,
    });
    expect(submits[0]?.taskIds).toHaveLength(tasks);
    expect(simulator.ledger().totals).toMatchObject({ submits: 1, tasksCreated: tasks, bills: tasks });
  },
);

test('a protocol switch has neither body nor length', async () => {
  const switched = await new Promise<http.IncomingMessage>((resolve, reject) => {
    const request = http.request(`${simulator.url}/runway/pro/generate`, { method: 'POST', agent: false });
    request.once('error', reject);
    request.once('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response);
    });
    request.end(
      JSON.stringify({
        prompt: 'a fox [sim: submit=101]',
        model: 'gen4',
        ratio: '16:9',
        callback_url: CALLBACK_URL,
      }),
    );
  });
  expect(switched.statusCode).toBe(101);
  expect(switched.headers['content-length']).toBeUndefined();
});

test('steps can be for some models only', async () => {
  simulator.setScript('submit=403*forever, submit-models=gen4_turbo+gen2');
  const statusFor = async (model: string): Promise<number | null> => {
    const body = { prompt: `a fox by ${model}`, model, ratio: '16:9', callback_url: CALLBACK_URL };
    return (await submit(simulator, '', { body })).status;
  };
  expect(await statusFor('gen4_turbo')).toBe(403);
  expect(await statusFor('gen2')).toBe(403);
  expect(await statusFor('gen4')).toBe(200);
});

test('a reset before and after the task look the same from outside', async () => {
  const before = await submit(simulator, 'a fox [sim: submit=reset-before]');
  const after = await submit(simulator, 'an owl [sim: submit=reset-after]');
  expect(before.error).toBe('ECONNRESET');
  expect(after).toEqual(before);
});

test('steps are used up one by one per generation, then submits pass', async () => {
  const prompt = 'a fox [sim: submit=429*2>504-after]';
  const statuses: (number | null)[] = [];
  for (let count = 0; count < 4; count += 1) statuses.push((await submit(simulator, prompt)).status);
  expect(statuses).toEqual([429, 429, 504, 200]);
  expect((await submit(simulator, `${prompt} again`)).status).toBe(429);
  expect(simulator.ledger().totals.maxBilledSubmitsPerGeneration).toBe(2);
});

test('Retry-After comes as seconds, as a date, or not at all', async () => {
  const none = await submit(simulator, 'a [sim: submit=429]');
  const seconds = await submit(simulator, 'b [sim: submit=429, retry-after=1.5s]');
  const date = await submit(simulator, 'c [sim: submit=503, retry-after=date:1h]');
  expect(none.headers['retry-after']).toBeUndefined();
  expect(seconds.headers['retry-after']).toBe('2');
  const untilMs = Date.parse(date.headers['retry-after'] ?? '') - Date.now();
  expect(untilMs).toBeGreaterThan(3_590_000);
  expect(untilMs).toBeLessThanOrEqual(3_600_000);
});

test.each([
  ['task-id', (data: unknown) => (data as { data: { task_id: string } }).data.task_id],
  ['data-id', (data: unknown) => (data as { data: { id: string } }).data.id],
  ['task', (data: unknown) => (data as { data: { task_id: string; status: string } }).data.task_id],
  ['string', (data: unknown) => (data as { data: string }).data],
  ['top-task-id', (data: unknown) => (data as { task_id: string }).task_id],
  ['top-id', (data: unknown) => (data as { id: string }).id],
])('submit-shape=%s puts the id there', async (shape, idIn) => {
  const seen = await submit(simulator, `a fox [sim: submit-shape=${shape}]`);
  expect(idIn(jsonOf(seen))).toBe(simulator.ledger().tasks[0]?.taskId);
});

test('ids can be numbers that keep every digit', async () => {
  const seen = await submit(simulator, 'a fox [sim: id=number]');
  const { task_id: taskId } = jsonOf(seen).data as { task_id: number };
  expect(typeof taskId).toBe('number');
  expect(simulator.ledger().tasks[0]?.taskId).toBe(String(taskId));
});

test.each([
  ['200', 200],
  ['"200"', '200'],
  ['success', 'success'],
  ['0', 0],
])('code=%s is said in the envelope', async (text, code) => {
  const seen = await submit(simulator, `a fox [sim: code=${text}, message-field=message]`);
  expect(jsonOf(seen)).toMatchObject({ code, message: 'success' });
});

test('a slow submit has its task from the start and answers late', async () => {
  const answer = submit(simulator, 'a fox [sim: submit-delay=150ms]');
  const entry = await simulator.waitForSubmit(({ taskIds }) => taskIds.length === 1);
  expect(entry).toMatchObject({ answeredAt: null, httpStatus: null });
  expect((await answer).status).toBe(200);
  const done = await simulator.waitForSubmit(({ answeredAt }) => answeredAt !== null);
  expect((done.answeredAt ?? 0) - done.at).toBeGreaterThanOrEqual(145);
});

test('the header scripts too, over the prompt and over the default', async () => {
  simulator.setScript('submit=500, shape=O');
  expect((await submit(simulator, 'a')).status).toBe(500);
  expect((await submit(simulator, 'b [sim: submit=402]')).status).toBe(402);
  const headers = { 'X-Simulator-Script': 'submit=429' };
  expect((await submit(simulator, 'c [sim: submit=402]', { headers })).status).toBe(429);
  expect(simulator.ledger().submits[2]?.script).toBe('submit=402, submit=429');
});

test.each(['a fox [sim: wobble=1]', 'a fox [sim: shape=B', 'a fox [ SIM : duration=soon]'])(
  'a script that cannot be read is answered and entered, never ignored: %s',
  async (prompt) => {
    const seen = await submit(simulator, prompt);
    expect(seen.status).toBe(400);
    expect(jsonOf(seen)).toMatchObject({
      code: 'simulator_script_invalid',
      message: expect.stringContaining('expected'),
    });
    expect(simulator.ledger().submits[0]).toMatchObject({ outcome: 'bad-script', taskIds: [] });
  },
);

test.each([
  [{ prompt: 'a', model: 'gen4', ratio: '16:9' }, 'callback_url_empty'],
  [{ prompt: 'a', model: 'gen4', ratio: '16:9', callback_url: '' }, 'callback_url_empty'],
  [{ prompt: 'a', model: 'gen4', ratio: '16:9', callback_url: 'nowhere' }, 'callback_url: '],
  [{ model: 'gen4', ratio: '16:9', callback_url: CALLBACK_URL }, 'prompt: '],
  [{ prompt: 'a', ratio: '16:9', callback_url: CALLBACK_URL }, 'model: '],
  [{ prompt: 'a', model: 'gen4', callback_url: CALLBACK_URL }, 'ratio: '],
  [[], 'callback_url_empty'],
])('a body without what the provider requires is refused: %j', async (body, words) => {
  const seen = await submit(simulator, '', { body });
  expect(seen.status).toBe(400);
  expect(seen.body.toString('utf8')).toContain(words);
  expect(simulator.ledger().submits[0]?.outcome).toBe('bad-request');
});

test('without the key, submits and polls are refused', async () => {
  const locked = await startSimulator({ apiKey: 'sk-right' });
  try {
    expect((await submit(locked, 'a')).status).toBe(401);
    expect((await submit(locked, 'a', { headers: { Authorization: 'Bearer sk-wrong' } })).status).toBe(401);
    expect((await submit(locked, 'a', { headers: { Authorization: 'Bearer sk-right' } })).status).toBe(200);
    expect((await call(`${locked.url}/runway/feed`, { body: { task_id: 'x' } })).status).toBe(401);
    expect(locked.ledger().submits.map(({ outcome }) => outcome)).toEqual([
      'unauthorized',
      'unauthorized',
      'ok',
    ]);
  } finally {
    await locked.close();
  }
});

test('a client that goes away before it has sent everything gets no task', async () => {
  await call(`${simulator.url}/runway/pro/generate`, {
    method: 'POST',
    headers: { 'Content-Length': '100' },
    leaveAfterMs: 30,
  });
  const entry = await simulator.waitForSubmit(({ answeredAt }) => answeredAt !== null);
  expect(entry).toMatchObject({ outcome: 'aborted', taskIds: [] });
});
