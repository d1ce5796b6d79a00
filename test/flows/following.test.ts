/** Following a task: what a poll costs, hints that are not lost, deadlines that are no verdicts. */
import { afterEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { createContext } from '../../workers/context.js';
import { freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { curveOf, survivalAt } from '../../src/polling/histogram.js';
import { createHub } from '../../src/pipeline/context.js';
import { startServer, type RunningServer } from '../../src/http/server.js';
import { callbackUrl } from '../../src/provider/callback.js';
import { poll } from '../../workers/poll.js';
import { startMonitor } from '../support/monitor.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { createTestbed, redisUrl, type Testbed, type TestbedOptions } from '../support/testbed.js';
import { until } from '../support/until.js';

const CALLBACK_SECRET = 'a secret for the tests';
let bed: Testbed;
let server: LaunchedRedis | null = null;
let closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.toReversed()) await close();
  closing = [];
  await bed.close();
  await server?.stop();
  server = null;
});

async function setUp(options: TestbedOptions = {}): Promise<void> {
  bed = await createTestbed(options);
}

/** With a callback server that the simulator reaches. */
async function setUpWithCallbacks(
  environment: Record<string, string> = {},
  simulator: TestbedOptions['simulator'] = {},
): Promise<void> {
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  await setUp({
    simulator,
    environment: { PUBLIC_URL: publicUrl, CALLBACK_SECRET, PORT: String(port), ...environment },
  });
  const redis = new Redis(redisUrl());
  const server: RunningServer = await startServer(
    createHub({ config: bed.config, log: pino({ level: 'silent' }), redis }),
  );
  closing.push(
    () => redis.quit(),
    () => server.close(),
  );
}

/** What a worker stands on, without one; with a clock of its own if the test says so. */
async function stage(url = redisUrl(), now: () => number = Date.now) {
  const redis = new Redis(url);
  const clock = { now, dice: () => 0.5 };
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis, clock });
  const context = await createContext(hub);
  closing.push(async () => {
    context.provider.close();
    await context.storage.close();
    await hub.queues.close();
    await redis.quit();
  });
  return { context, redis };
}

const callBack = (id: string, body: object) =>
  fetch(
    callbackUrl(
      { publicUrl: bed.config.PUBLIC_URL, placeholderUrl: 'https://example.com', secret: CALLBACK_SECRET },
      id,
    ),
    { method: 'POST', body: JSON.stringify(body) },
  );
const pollsOf = (taskId: string | null) =>
  bed.simulator.ledger().tasks.find((task) => task.taskId === taskId)?.polls ?? 0;

test('a poll that finds nothing new is one round trip to Redis, and writes one field twice', async () => {
  server = await launchRedis();
  await setUp({ redisUrl: server.url, environment: { POLL_FIRST_DELAY_MS: '3600000' } });
  const worker = await bed.work();
  const { id } = await bed.enqueue('patience [sim: duration=1h, progress=none]');
  await bed.reaches(id, 'generating');
  await worker.close();
  const { context, redis } = await stage(server.url);
  const signal = new AbortController().signal;
  // The first poll tells that the task is visible and queued; from the second on nothing is new.
  await poll(context, id, signal);

  const before = await bed.redis.hgetall(`${bed.prefix}:g:${id}`);
  const monitor = await startMonitor(server.url);
  await poll(context, id, signal);
  await redis.get(`${bed.prefix}:${id}:over`);
  const about = () => monitor.seen.filter(({ text }) => text.includes(id));
  await until(() => about().some(({ command }) => command === 'get'), 'the monitor to have seen it all');
  monitor.stop();

  const seen = about().map(({ command, byScript }) => `${byScript ? 'script: ' : ''}${command}`);
  expect(seen.filter((command) => command !== 'get')).toEqual(['evalsha', 'script: hmget', 'script: hset']);
  const after = await bed.redis.hgetall(`${bed.prefix}:g:${id}`);
  expect(after).toEqual({ ...before, polledAt: after['polledAt'], pollAttempts: '2' });
});

test('progress is written when it changed, and not when it did not', async () => {
  let now = Date.now();
  await setUp({ simulator: { now: () => now }, environment: { POLL_FIRST_DELAY_MS: '3600000' } });
  const worker = await bed.work();
  const { id } = await bed.enqueue('slow progress [sim: duration=1000s]');
  await bed.reaches(id, 'generating');
  await worker.close();
  const { context } = await stage();
  const signal = new AbortController().signal;
  now += 500_000;
  await poll(context, id, signal);
  const half = await bed.reelhaul.get(id);
  expect(half.progress).toBe(50);
  await poll(context, id, signal);
  expect((await bed.reelhaul.get(id)).updatedAt).toBe(half.updatedAt);
  now += 100_000;
  await poll(context, id, signal);
  expect((await bed.reelhaul.get(id)).progress).toBe(60);
});

test('a finished task teaches how long it took', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('a lesson [sim: duration=300ms]');
  await bed.reelhaul.waitFor(id);
  const { context } = await stage();
  const { total } = await until(async () => {
    const learnt = await context.durations.experience('gen4::1280:720');
    return learnt.total.finished.size > 0 && learnt;
  }, 'something learnt');
  expect([...total.finished.values()].reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 3);
});

test('a canceled task counts as lasting longer, not as finished', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('not any more [sim: duration=1h]');
  await bed.reaches(id, 'generating');
  await bed.reelhaul.cancel(id);
  const { context } = await stage();
  const { total } = await context.durations.experience('gen4::1280:720');
  expect([total.finished.size, total.censored.size]).toEqual([0, 1]);
});

test('the sweep counts what is still running', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('running [sim: duration=1h]');
  await bed.reaches(id, 'generating');
  const { context } = await stage();
  await until(
    async () => (await context.durations.experience('gen4::1280:720')).total.censored.size > 0,
    'the sweep to have counted it',
  );
});

test('with callbacks, a generation is polled once', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '60000' });
  await bed.work();
  const { id } = await bed.enqueue('told [sim: duration=300ms]');
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { poll: 1 } });
});

test('a provider that posts every change does not cost a poll each', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '60000' });
  await bed.work();
  const { id } = await bed.enqueue('chatty [sim: duration=500ms, callback=every+double]');
  const { attempts } = await bed.reelhaul.waitFor(id);
  expect(attempts.poll).toBeLessThanOrEqual(2);
});

test('a callback that comes before the submit is answered is not lost', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '3600000' });
  await bed.work();
  // The task is over, and told so, while our submit still waits for its answer.
  const { id } = await bed.enqueue('quick [sim: duration=0, submit-delay=700ms]');
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { poll: 1 } });
});

test('a callback that comes while a poll is running is not lost', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '3600000', POLL_TIMEOUT_MS: '1000' });
  await bed.work();
  // The first poll hangs until it times out; what the callbacks say meanwhile has to bring another one.
  const { id } = await bed.enqueue('hanging [sim: duration=0, poll=hang, callback=lost]');
  const { taskId } = await bed.reaches(id, 'generating');
  await callBack(id, { task_id: taskId, status: '3' });
  await until(() => pollsOf(taskId) === 1, 'the first poll to have begun');
  await callBack(id, { task_id: taskId, status: '3' });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { poll: 2 } });
});

test('a hint that the feed does not confirm yet is followed up at once, not at the next safety poll', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '3600000' });
  await bed.work();
  const { id } = await bed.enqueue('the feed lags [sim: duration=600ms, callback=lost]');
  const { taskId } = await bed.reaches(id, 'generating');
  await callBack(id, { task_id: taskId, status: '3' });
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('a hint that comes before the provider shows the task is followed up at once, also after the grace', async () => {
  await setUpWithCallbacks({ POLL_MAX_INTERVAL_MS: '3600000', NOT_VISIBLE_GRACE_MS: '0' });
  await bed.work();
  const { id } = await bed.enqueue('shown late [sim: duration=0, visible-after=600ms, callback=lost]');
  const { taskId } = await bed.reaches(id, 'generating');
  await callBack(id, { task_id: taskId, status: '3' });
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('a hint after the deadline that the feed does not confirm yet is followed up as well', async () => {
  await setUpWithCallbacks({ GENERATION_DEADLINE_MS: '200', LATE_CHECK_INTERVAL_MS: '3600000' });
  await bed.work();
  const { id } = await bed.enqueue('late and lagging [sim: duration=2s, callback=lost]');
  const { taskId } = await bed.reaches(id, 'expired');
  await callBack(id, { task_id: taskId, status: '3' });
  expect(await bed.reaches(id, 'succeeded')).toMatchObject({ late: true });
});

test('a hint after the late check is followed up until the feed confirms it, and not for ever', async () => {
  let now = Date.now();
  await setUp({ environment: { GENERATION_DEADLINE_MS: '200', LATE_CHECK_FOR_MS: '86400000' } });
  const worker = await bed.work();
  const { id } = await bed.enqueue('very late [sim: duration=1h]');
  await bed.reaches(id, 'expired');
  await worker.close();
  const { context } = await stage(redisUrl(), () => now);
  const signal = new AbortController().signal;
  now += 90_000_000;
  expect(await poll(context, id, signal)).toEqual({ kind: 'done' });
  await context.following.hint(id, null);
  expect(await poll(context, id, signal)).toMatchObject({ kind: 'snooze', delayMs: expect.any(Number) });
  now += 90_000_000;
  expect(await poll(context, id, signal)).toEqual({ kind: 'done' });
  const { state, warnings } = await bed.reelhaul.get(id);
  expect([state, warnings.map(({ code }) => code)]).toEqual(['expired', ['late_check_ended']]);
});

test('a lost callback costs time, not the video', async () => {
  await setUpWithCallbacks();
  await bed.work();
  const { id } = await bed.enqueue('unheard [sim: duration=100ms, callback=lost]');
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('when callbacks never arrive, polling goes on as if there were none; when they come, it relaxes again', async () => {
  // Slow enough for a callback to come first, when one comes.
  const slow = { POLL_FIRST_DELAY_MS: '400', POLL_MIN_INTERVAL_MS: '400', POLL_MAX_INTERVAL_MS: '400' };
  await setUpWithCallbacks(slow, { script: 'callback=lost' });
  await bed.work();
  for (let i = 0; i < 4; i++) {
    const { id } = await bed.enqueue(`unheard ${i}`);
    await bed.reelhaul.waitFor(id);
  }
  const { context } = await stage();
  const firstDelay = () => context.pacing.firstDelayMs(null);
  await until(async () => (await firstDelay()) < 1000, 'the first poll to come as without callbacks');

  bed.simulator.setScript('callback=once');
  await until(async () => {
    const { id } = await bed.enqueue('heard');
    await bed.reelhaul.waitFor(id);
    return (await firstDelay()) > 1000;
  }, 'only a safety poll to be planned');
});

test('a late success ends succeeded and late, and the app is told of it once', async () => {
  const receiver: Receiver = await startReceiver();
  closing.push(() => receiver.close());
  await setUp({
    environment: {
      LATE_CHECK_INTERVAL_MS: '100',
      NOTIFY_SECRET: SECRET,
      NOTIFY_ALLOW_HOSTS: '127.0.0.1',
    },
  });
  await bed.work();
  const { id } = await bed.enqueue('late [sim: duration=4s]', {
    deadlineMs: 2000,
    notifyUrl: receiver.url,
  });
  await bed.reaches(id, 'expired');
  expect(await bed.reaches(id, 'succeeded')).toMatchObject({ late: true, failure: null });
  await until(async () => (await bed.reelhaul.notifications(id)).length === 0, 'everything to be told');
  const told = receiver.received.map(({ body }) => body.type);
  expect(told.filter((type) => type === 'generation.succeeded')).toHaveLength(1);
});

test('the deadline of one generation counts from enqueue, and does not wait for the first poll', async () => {
  await setUp({ environment: { POLL_FIRST_DELAY_MS: '3600000', POLL_MAX_INTERVAL_MS: '3600000' } });
  await bed.work();
  const { id, createdAt } = await bed.enqueue('impatient [sim: duration=1h]', { deadlineMs: 2000 });
  expect(await bed.reaches(id, 'expired')).toMatchObject({
    deadlineAt: createdAt + 2000,
    failure: { code: 'deadline_exceeded' },
  });
});

test.each(['429', '503'])('a %s does not put the deadline off', async (answer) => {
  const hour = { POLL_MIN_INTERVAL_MS: '3600000', POLL_MAX_INTERVAL_MS: '3600000' };
  await setUp({ environment: { ...hour, GENERATION_DEADLINE_MS: '1000', BREAKER_FAILURES: '1000' } });
  await bed.work();
  const retryAfter = answer === '429' ? '100ms' : '1h';
  const script = `duration=1h, poll=${answer}*forever, retry-after=${retryAfter}`;
  const { id } = await bed.enqueue(`impatient [sim: ${script}]`);
  await bed.reaches(id, 'expired');
});

test('a deadline that passes while a 429 holds all polls is kept', async () => {
  await setUp({ environment: { GENERATION_DEADLINE_MS: '4000' } });
  await bed.work();
  await bed.enqueue('told to slow down [sim: duration=1h, poll=ok*2>429*forever, retry-after=1h]');
  const { id } = await bed.enqueue('held [sim: duration=1h]');
  await bed.reaches(id, 'generating');
  await until(async () => (await bed.reelhaul.limits()).holdMs.poll > 0, 'polls to be held');
  expect(await bed.reaches(id, 'expired')).toMatchObject({ failure: { code: 'deadline_exceeded' } });
});

test('the end of a task is not taken to lie after a poll that could not say whether it was over', async () => {
  let now = Date.now();
  await setUp({ simulator: { now: () => now }, environment: { POLL_FIRST_DELAY_MS: '3600000' } });
  const worker = await bed.work();
  const { id } = await bed.enqueue('in an outage [sim: duration=100s, times=zero, poll=ok>503*2]');
  await bed.reaches(id, 'generating');
  await worker.close();
  const { context } = await stage(redisUrl(), () => now);
  const signal = new AbortController().signal;
  for (const laterMs of [80_000, 40_000, 20_000, 20_000]) {
    now += laterMs;
    await poll(context, id, signal);
  }
  expect((await bed.reelhaul.get(id)).state).toBe('archiving');
  const { total } = await context.durations.experience('gen4::1280:720');
  expect(survivalAt(curveOf(total), 110_000)).toBeLessThan(0.9);
});
