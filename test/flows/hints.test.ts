/** Callbacks are hints, and no hint is lost: whenever it comes, a poll begins after it. */
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createCallbackRoutes } from '../../src/http/callbacks.js';
import { createHub } from '../../src/pipeline/context.js';
import { callbackUrl } from '../../src/provider/callback.js';
import { startRunner } from '../../src/queue/runner.js';
import { createContext, type Context } from '../../workers/context.js';
import { poll } from '../../workers/poll.js';
import { createTestbed, redisUrl, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const CALLBACK_SECRET = 'a secret for the tests';
const HOUR_MS = '3600000';
let bed: Testbed;
let closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.toReversed()) await close();
  closing = [];
  await bed.close();
});

/** No poll comes by itself within an hour. */
async function setUp(environment: Record<string, string> = {}): Promise<Context> {
  bed = await createTestbed({
    environment: {
      PUBLIC_URL: `http://127.0.0.1:${await freePort()}`,
      CALLBACK_SECRET,
      POLL_FIRST_DELAY_MS: HOUR_MS,
      POLL_MIN_INTERVAL_MS: HOUR_MS,
      POLL_MAX_INTERVAL_MS: HOUR_MS,
      ...environment,
    },
  });
  const redis = new Redis(redisUrl(), { maxRetriesPerRequest: null });
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis });
  const context = await createContext(hub);
  closing.push(async () => {
    context.provider.close();
    await context.storage.close();
    await hub.queues.close();
    redis.disconnect();
  });
  return context;
}

async function callBack(context: Context, id: string, taskId: string | null): Promise<void> {
  const url = callbackUrl(
    { publicUrl: 'http://any', placeholderUrl: 'http://any', secret: CALLBACK_SECRET },
    id,
  );
  const body = JSON.stringify({ task_id: taskId, status: '3' });
  const { status } = await createCallbackRoutes(context).request(new URL(url).pathname, {
    method: 'POST',
    body,
  });
  expect(status).toBe(204);
}

const field = async (id: string, name: string) => Number(await bed.redis.hget(`${bed.prefix}:g:${id}`, name));
const isHeeded = async (id: string) => (await field(id, 'polledAt')) >= (await field(id, 'hintedAt'));

test('a callback is followed by a poll, whenever it comes: 900 at random moments', async () => {
  const context = await setUp({ SWEEP_INTERVAL_MS: HOUR_MS, SUBMIT_CONCURRENCY: '50' });
  const submitting = await bed.work({ stages: ['submit'] });
  const generations = await Promise.all(
    Array.from({ length: 150 }, (_, i) => bed.enqueue(`hinted ${i} [sim: duration=1h]`)),
  );
  const tasks = await Promise.all(generations.map(({ id }) => bed.reaches(id, 'generating')));
  await submitting.close();
  const connection = new Redis(redisUrl(), { maxRetriesPerRequest: null });
  const slow = (delayMs: number): Promise<void> => pause(Math.random() * delayMs);
  const runner = startRunner({
    name: 'poll',
    run: async (id, signal) => {
      await slow(5);
      const outcome = await poll(context, id, signal);
      await slow(5);
      return outcome;
    },
    holdQueue: (durationMs) => context.queues.hold('poll', durationMs),
    redis: connection,
    prefix: bed.prefix,
    concurrency: 50,
    lockMs: 5000,
    abortOnLostLock: true,
    log: context.log,
    work: context.work,
    now: context.now,
    workerHold: { check: () => null, onChange: () => {} },
    runLimitMs: 60_000,
  });
  closing.push(async () => {
    await runner.close(Date.now() + 5000);
    connection.disconnect();
  });
  for (let round = 0; round < 3; round++) {
    await Promise.all(
      tasks.map(async ({ id, taskId }) => {
        await slow(50);
        await callBack(context, id, taskId);
        await slow(60);
        await callBack(context, id, taskId);
      }),
    );
    for (const { id } of tasks) await until(() => isHeeded(id), `a poll of ${id} after its hint`);
  }
  const counted = await Promise.all(tasks.map(({ id }) => field(id, 'hints')));
  expect(counted.reduce((sum, n) => sum + n)).toBe(900);
});

test('one that came during a poll of a worker that died then is found by the sweep', async () => {
  await setUp();
  const worker = await bed.work();
  const { id } = await bed.enqueue('unheeded [sim: duration=1h]');
  await bed.reaches(id, 'generating');
  await until(async () => (await bed.redis.zscore(`${bed.prefix}:poll:delayed`, id)) !== null, 'its job');
  await worker.close();
  const hintedAt = Date.now() - 5000;
  await bed.redis.hset(`${bed.prefix}:g:${id}`, { polledAt: hintedAt - 10, hintedAt, hints: 1 });
  await bed.work();
  await until(() => isHeeded(id), 'a poll');
});

test('one that comes after the late check has ended begins it again, and the sweep keeps it up', async () => {
  const context = await setUp({
    GENERATION_DEADLINE_MS: '300',
    LATE_CHECK_INTERVAL_MS: '50',
    LATE_CHECK_FOR_MS: '200',
  });
  const worker = await bed.work();
  const { id } = await bed.enqueue('very late [sim: duration=1h]');
  const isLive = async () => (await bed.redis.zscore(`${bed.prefix}:live`, id)) !== null;
  const { taskId } = await bed.reaches(id, 'expired');
  await until(async () => !(await isLive()), 'the late check to end');
  await worker.close();
  await callBack(context, id, taskId);
  expect(await isLive()).toBe(true);
  // The job is lost: the sweep writes it again.
  await context.queues.forget('poll', id);
  await bed.work();
  await until(() => isHeeded(id), 'a poll');
  await until(async () => !(await isLive()), 'the late check to end again');
});
