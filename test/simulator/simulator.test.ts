import http from 'node:http';
import { afterEach, expect, test } from '@jest/globals';
import {
  billsPerGeneration,
  FAULTS,
  parseRates,
  startSimulator,
  type Ledger,
  type Simulator,
  type SimulatorOptions,
} from '../../src/simulator/simulator.js';
import { call, jsonOf, poll, submit } from './visitor.js';

const running: Simulator[] = [];

async function start(options?: SimulatorOptions): Promise<Simulator> {
  const simulator = await startSimulator(options);
  running.push(simulator);
  return simulator;
}

afterEach(async () => {
  await Promise.all(running.splice(0).map((simulator) => simulator.close()));
});

const callbackOf = (generation: string): string => `http://127.0.0.1:1/callbacks/runway/${generation}/token`;

test('bills are counted by the generation in the callback URL, else by the prompt', async () => {
  const simulator = await start({ script: 'duration=1h, callback=lost' });
  await submit(simulator, 'a fox', { callbackUrl: callbackOf('gen-1') });
  await submit(simulator, 'a fox', { callbackUrl: callbackOf('gen-1') });
  await submit(simulator, 'a fox', { callbackUrl: callbackOf('gen-2') });
  await submit(simulator, 'an owl');
  await submit(simulator, 'an owl [sim: duration=0, result=failed]');
  const ledger = simulator.ledger();
  expect(
    [...billsPerGeneration(ledger)].map(([key, { bills, billedSubmits, tasks }]) => [
      key,
      bills,
      billedSubmits,
      tasks,
    ]),
  ).toEqual([
    ['gen-1', 2, 2, 2],
    ['gen-2', 1, 1, 1],
    ['an owl', 1, 1, 1],
    ['an owl [sim: duration=0, result=failed]', 0, 0, 1],
  ]);
  expect(ledger.totals).toMatchObject({
    submits: 5,
    tasksCreated: 5,
    refunds: 1,
    bills: 4,
    maxBillsPerGeneration: 2,
    maxBilledSubmitsPerGeneration: 2,
    maxTasksPerGeneration: 2,
  });
});

test('the books are shown at /ledger, with everything a submit was', async () => {
  const simulator = await start();
  const headers = { 'X-Runway-Version': '2024-11-06' };
  await submit(simulator, 'a fox', { callbackUrl: callbackOf('gen-1'), headers });
  const books = jsonOf(await call(`${simulator.url}/ledger`)) as unknown as Ledger;
  expect(books.submits).toMatchObject([
    { seq: 1, generationId: 'gen-1', runwayVersion: '2024-11-06', outcome: 'ok', prompt: 'a fox' },
  ]);
  expect(books.tasks[0]).toMatchObject({ submitSeq: 1, generationKey: 'gen-1', status: 'queued', polls: 0 });
  const totals = jsonOf(await call(`${simulator.url}/ledger?part=totals`));
  expect(totals).toEqual(books.totals);
});

test('the shortest time between polls of a task is entered', async () => {
  let nowMs = Date.now();
  const simulator = await start({ now: () => nowMs, script: 'duration=1h' });
  await submit(simulator, 'a fox');
  const taskId = simulator.ledger().tasks[0]?.taskId ?? '';
  for (const stepMs of [6000, 5000, 9000]) {
    await poll(simulator, taskId);
    nowMs += stepMs;
  }
  expect(simulator.ledger().tasks[0]?.minPollGapMs).toBe(5000);
});

test('the poll that first saw the end is entered', async () => {
  let nowMs = Date.now();
  const endsAt = nowMs + 10_000;
  const simulator = await start({ now: () => nowMs, script: 'duration=10s' });
  await submit(simulator, 'a fox');
  const taskId = simulator.ledger().tasks[0]?.taskId ?? '';
  const seen: (number | null | undefined)[] = [];
  for (const at of [endsAt - 1, endsAt + 500, endsAt + 900]) {
    nowMs = at;
    await poll(simulator, taskId);
    seen.push(simulator.ledger().tasks[0]?.endSeenAt);
  }
  expect(seen).toEqual([null, endsAt + 500, endsAt + 500]);
});

async function play(seed: number, order: readonly number[]): Promise<unknown> {
  const simulator = await start({
    seed,
    rates: parseRates('each=0.03'),
    taskDurationMs: { medianMs: 1000 },
    now: () => 1_700_000_000_000,
    script: 'submit-delay=0',
  });
  for (const index of order) {
    const callbackUrl = callbackOf(`run-${Math.random()}`);
    await submit(simulator, `prompt ${index}`, { callbackUrl, leaveAfterMs: 2000 });
  }
  const { submits, tasks } = simulator.ledger();
  return submits
    .map(({ prompt, faults, outcome, taskIds }) => ({
      prompt,
      faults,
      outcome,
      tasks: taskIds.map((id) => {
        const task = tasks.find(({ taskId }) => taskId === id);
        return { id, finishesAt: task?.finishesAt, sha256: task?.assets.video.sha256 };
      }),
    }))
    .sort((first, second) => String(first.prompt).localeCompare(String(second.prompt)));
}

test('one seed plays the same in any order, under new generation ids', async () => {
  const order = Array.from({ length: 60 }, (_, index) => index);
  const first = await play(7, order);
  expect(await play(7, order.toReversed())).toEqual(first);
  expect(await play(8, order)).not.toEqual(first);
  expect(JSON.stringify(first)).toMatch(/"faults":\["/);
});

test('durations spread around their median and stop at the most', async () => {
  const simulator = await start({ taskDurationMs: { medianMs: 1000, maxMs: 1500 }, now: () => 0 });
  for (let index = 0; index < 60; index += 1) await submit(simulator, `prompt ${index}`);
  const durations = simulator.ledger().tasks.map(({ finishesAt }) => finishesAt ?? 0);
  expect(Math.max(...durations)).toBe(1500);
  expect(durations.filter((ms) => ms < 1000).length).toBeGreaterThan(15);
  expect(durations.filter((ms) => ms > 1000).length).toBeGreaterThan(15);
});

test('a directive of the generation wins over a random fault', async () => {
  const simulator = await start({ rates: { 'submit-500': 1, 'shape-o': 1 } });
  expect((await submit(simulator, 'a fox')).status).toBe(500);
  expect((await submit(simulator, 'an owl [sim: submit=ok]')).status).toBe(200);
  expect(simulator.ledger().submits.map(({ faults }) => faults)).toEqual([
    ['submit-500', 'shape-o'],
    ['submit-500', 'shape-o'],
  ]);
});

test('too many submits in a window are told when to come back, and nobody is locked out', async () => {
  let nowMs = 1_700_000_000_000;
  const simulator = await start({ now: () => nowMs, rateLimit: { max: 2, windowMs: 10_000 } });
  const statuses: (number | null)[] = [];
  for (let index = 0; index < 4; index += 1) statuses.push((await submit(simulator, `p${index}`)).status);
  expect(statuses).toEqual([200, 200, 429, 429]);
  expect((await submit(simulator, 'p5')).headers['retry-after']).toBe('10');
  expect(simulator.ledger().totals).toMatchObject({
    rateLimited: 3,
    maxSubmitsInWindow: 5,
    windowMs: 10_000,
    tasksCreated: 2,
  });
  nowMs += 10_000;
  expect((await submit(simulator, 'p5')).status).toBe(200);
});

test('too many tasks at once are refused without saying for how long', async () => {
  const simulator = await start({ maxInFlight: 1, script: 'duration=1h' });
  await submit(simulator, 'a fox');
  const seen = await submit(simulator, 'an owl');
  expect(seen.status).toBe(429);
  expect(seen.headers['retry-after']).toBeUndefined();
  expect(simulator.ledger().totals.maxTasksInFlight).toBe(1);
});

test('rates, scripts and a reset come from other processes too', async () => {
  const simulator = await start();
  const control = (action: string, body: unknown): ReturnType<typeof call> =>
    call(`${simulator.url}/control/${action}`, { method: 'POST', body });
  expect((await control('rates', { 'submit-500': 1 })).status).toBe(200);
  expect((await submit(simulator, 'a fox')).status).toBe(500);
  expect(jsonOf(await control('rates', 'submit-502=1'))).toEqual({ rates: { 'submit-502': 1 } });
  expect((await submit(simulator, 'an owl')).status).toBe(502);
  expect((await control('rates', {})).status).toBe(200);
  expect((await control('script', { script: 'submit=402' })).status).toBe(200);
  expect((await submit(simulator, 'a bear')).status).toBe(402);
  expect((await control('reset', {})).status).toBe(200);
  expect(simulator.ledger()).toMatchObject({ submits: [], tasks: [], totals: { submits: 0, polls: 0 } });
});

test.each([
  ['rates', { 'submit-explode': 1 }, 'expected one of the faults'],
  ['rates', { 'submit-500': 2 }, 'expected a rate from 0 to 1'],
  ['rates', [1], 'expected'],
  ['script', { script: 'wobble=1' }, 'expected one of the directives'],
  ['script', {}, 'script'],
  ['outage', { mode: 'sulk', durationMs: 10 }, 'mode'],
  ['outage', {}, 'durationMs'],
  ['explode', {}, 'expected rates, script, reset or outage'],
])('a control request that is wrong says so: %s %j', async (action, body, words) => {
  const simulator = await start();
  const seen = await call(`${simulator.url}/control/${action}`, { method: 'POST', body });
  expect(seen.status).toBe(action === 'explode' ? 404 : 400);
  expect(String(jsonOf(seen).message)).toContain(words);
});

test.each([
  ['reset', null],
  ['500', 500],
  ['502', 502],
  ['503', 503],
  ['429', 429],
  ['401', 401],
] as const)('in an outage of the kind %s, nobody gets through', async (mode, status) => {
  const simulator = await start();
  await simulator.startOutage({ mode, durationMs: 60_000 });
  expect((await submit(simulator, 'a fox')).status).toBe(status);
  expect((await poll(simulator, 'rw1')).status).toBe(status);
  expect(simulator.ledger().submits).toMatchObject([{ outcome: 'outage', taskIds: [] }]);
  await simulator.endOutage();
  expect((await submit(simulator, 'a fox')).status).toBe(200);
});

test('an outage can refuse connections and ends by itself on the same port', async () => {
  const simulator = await start();
  await simulator.startOutage({ mode: 'refuse', durationMs: 50 });
  expect((await submit(simulator, 'a fox')).error).toBe('ECONNREFUSED');
  let seen = await submit(simulator, 'a fox');
  while (seen.error === 'ECONNREFUSED') seen = await submit(simulator, 'a fox');
  expect(seen.status).toBe(200);
});

test('an outage can be ordered from outside and hang', async () => {
  const simulator = await start();
  const body = { mode: 'hang', durationMs: 60_000 };
  expect((await call(`${simulator.url}/control/outage`, { method: 'POST', body })).status).toBe(200);
  let seen = await submit(simulator, 'a fox', { leaveAfterMs: 50 });
  while (seen.status === 200) seen = await submit(simulator, 'a fox', { leaveAfterMs: 50 });
  expect(seen).toMatchObject({ status: null, error: 'left' });
  expect((await call(`${simulator.url}/ledger`)).status).toBe(200);
});

test('the balance falls with every bill', async () => {
  const simulator = await start();
  await submit(simulator, 'a fox');
  expect(jsonOf(await call(`${simulator.url}/user/quota?key=sk-query`))).toEqual({
    total_quota: 9_999_680,
    total_used_quota: 320,
    request_count: 1,
  });
});

test('the root explains, the unknown is not found', async () => {
  const simulator = await start();
  const help = (await call(simulator.url)).body.toString('utf8');
  for (const fault of FAULTS) expect(help).toContain(fault);
  expect((await call(`${simulator.url}/nothing`)).status).toBe(404);
  expect((await call(`${simulator.url}/runway/feed`)).status).toBe(404);
});

test('links carry the name under which the client came', async () => {
  const simulator = await start({ script: 'duration=0, shape=B' });
  const url = simulator.url.replace('127.0.0.1', 'localhost');
  const { task_id: taskId } = jsonOf(await submit({ url }, 'a fox')).data as { task_id: string };
  expect(String(jsonOf(await poll({ url }, taskId)).result_url)).toContain(`${url}/assets/`);
});

test('waiting ends when the condition throws, in time, and at close', async () => {
  const simulator = await start();
  await expect(
    simulator.waitUntil(() => {
      throw new Error('no');
    }),
  ).rejects.toThrow('no');
  await expect(simulator.waitUntil(() => false, 30)).rejects.toThrow('in 30 ms');
  const waiting = simulator.waitForSubmit();
  await Promise.all([simulator.close(), expect(waiting).rejects.toThrow('The simulator was closed.')]);
});

test('a port that is taken is an error, and nothing stays open', async () => {
  const simulator = await start();
  await expect(startSimulator({ port: simulator.port })).rejects.toThrow('EADDRINUSE');
});

test('close frees the port and cuts everything that hangs', async () => {
  const simulator = await start({ script: 'submit=hang-after, duration=1h, callback=every' });
  const hanging = submit(simulator, 'a fox', { callbackUrl: callbackOf('gen-1') });
  await simulator.waitForSubmit(({ taskIds }) => taskIds.length === 1);
  await simulator.close();
  expect((await hanging).status).toBeNull();
  expect((await call(simulator.url)).error).toBe('ECONNREFUSED');
  const next = http.createServer();
  await new Promise<void>((resolve) => {
    next.listen(simulator.port, '127.0.0.1', resolve);
  });
  await new Promise((resolve) => {
    next.close(resolve);
  });
});
