import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { createWorkLog } from '../../src/generation/work.js';
import { createQueues, type Queues } from '../../src/queue/queues.js';
import { done, hold, startRunner, type Runner, type StageFunction } from '../../src/queue/runner.js';
import { redisUrl } from '../support/testbed.js';
import { until } from '../support/until.js';

const log = pino({ level: 'silent' });
const work = createWorkLog(() => {});
let prefix: string;
let redis: Redis;
let queues: Queues;
let runners: { runner: Runner; connection: Redis }[];

beforeEach(() => {
  prefix = `{test-${randomUUID()}}`;
  redis = new Redis(redisUrl());
  queues = createQueues(redis, prefix, Date.now, () => {});
  runners = [];
});

afterEach(async () => {
  for (const { runner, connection } of runners) {
    await runner.close(Date.now() + 5000);
    connection.disconnect();
  }
  await queues.close();
  const left = await redis.keys(`${prefix}*`);
  if (left.length > 0) await redis.unlink(...left);
  await redis.quit();
});

/** A worker replica with a connection of its own. */
function start(run: StageFunction, concurrency = 1): Runner {
  const connection = new Redis(redisUrl(), { maxRetriesPerRequest: null });
  const runner = startRunner({
    name: 'submit',
    run,
    holdQueue: (durationMs) => queues.hold('submit', durationMs),
    redis: connection,
    prefix,
    concurrency,
    lockMs: 2000,
    abortOnLostLock: false,
    log,
    work,
    runLimitMs: 60_000,
    now: Date.now,
    workerHold: { check: () => null, onChange: () => {} },
  });
  runners.push({ runner, connection });
  return runner;
}

const everythingRan = (ran: readonly string[], n: number) =>
  until(
    () => ran.length >= n,
    () => Promise.resolve(`${n} runs; there were ${ran.join(' ')}`),
  );

test('a held job keeps its priority and is the first of that priority again', async () => {
  await queues.remindMany('submit', [
    { generationId: 'first-of-two', priority: 2 },
    { generationId: 'second-of-two', priority: 2 },
    { generationId: 'first-of-three', priority: 3 },
  ]);
  const ran: string[] = [];
  start((id) => {
    ran.push(id);
    return Promise.resolve(ran.length === 1 ? hold(50) : done);
  });
  await everythingRan(ran, 4);
  expect(ran).toEqual(['first-of-two', 'first-of-two', 'second-of-two', 'first-of-three']);
});

test('a hold uses no attempt of its job', async () => {
  await queues.remind('submit', { generationId: 'patient' });
  const ran: string[] = [];
  start((id) => {
    ran.push(id);
    return Promise.resolve(ran.length < 4 ? hold(10) : hold(60_000));
  });
  await everythingRan(ran, 4);
  const job = await until(async () => {
    const [queue] = queues.all().filter(({ name }) => name === 'submit');
    const found = await queue?.getJob('patient');
    return found && (await found.isWaiting()) ? found : null;
  }, 'the job to wait');
  expect(job.attemptsMade).toBe(0);
});

test('a step of a run with a time limit of its own is what health judges', async () => {
  await queues.remind('submit', { generationId: 'in-steps' });
  let goOn = (): void => {};
  let isSecond = false;
  const runner = start(async (_id, _signal, step) => {
    await new Promise<void>((resolve) => (goOn = resolve));
    step();
    isSecond = true;
    await new Promise<void>((resolve) => (goOn = resolve));
    return done;
  });
  const beganAt = () => runner.vitals().oldestBeganAt;
  const first = await until(beganAt, 'the run to begin');
  await until(() => Date.now() > first + 1, 'the clock to go on');
  goOn();
  await until(() => isSecond, 'the second step');
  expect(beganAt()).toBeGreaterThan(first);
  goOn();
  await until(() => beganAt() === null, 'the run to end');
});

test('while a queue is held no replica begins a job, and afterwards all run', async () => {
  const ids = Array.from({ length: 40 }, (_, i) => `job-${i}`);
  await queues.remindMany(
    'submit',
    ids.map((generationId, i) => ({ generationId, priority: i + 1 })),
  );
  const ran: string[] = [];
  let ranAtHold = Infinity;
  const run: StageFunction = async (id) => {
    ran.push(id);
    if (ran.length !== 5) return done;
    await queues.hold('submit', 3_600_000);
    ranAtHold = ran.length;
    return hold(3_600_000);
  };
  start(run, 4);
  start(run, 4);
  await until(async () => ranAtHold < 40 && (await queues.counts('submit')).active === 0, 'all to rest');
  // Those that were taken before the hold may still begin: one for each of the other seven slots.
  expect(ran.length).toBeLessThanOrEqual(ranAtHold + 7);
  await queues.release('submit');
  await everythingRan(ran, 41);
  expect(new Set(ran)).toEqual(new Set(ids));
});

test('a hold can be ended before its time', async () => {
  await queues.hold('submit', 3_600_000);
  await queues.remind('submit', { generationId: 'early', priority: 7 });
  expect((await queues.backlog(Date.now())).submit).toMatchObject({ due: 1, active: 0 });
  expect((await queues.backlog(Date.now())).submit.pausedForMs).toBeGreaterThan(3_000_000);
  const ran: string[] = [];
  start((id) => {
    ran.push(id);
    return Promise.resolve(done);
  });
  await queues.release('submit');
  await everythingRan(ran, 1);
  expect((await queues.backlog(Date.now())).submit.pausedForMs).toBe(0);
});

test('the end of a hold wakes workers that wait for a job', async () => {
  const marker = `${prefix}:submit:marker`;
  await queues.hold('submit', 50);
  await until(async () => (await redis.exists(marker)) === 1, 'the wake-up after a hold');
  await redis.unlink(marker);
  await queues.hold('submit', 3_600_000);
  await queues.release('submit');
  await until(async () => (await redis.exists(marker)) === 1, 'the wake-up after an early end');
});

test('a worker with a long run goes on with other jobs when a hold is over', async () => {
  let finish = () => {};
  const long = new Promise<void>((resolve) => (finish = resolve));
  const ran: string[] = [];
  await queues.remindMany('submit', [
    { generationId: 'long', priority: 1 },
    { generationId: 'held', priority: 2 },
    { generationId: 'last', priority: 3 },
  ]);
  start(async (id) => {
    ran.push(id);
    if (id === 'long') await long;
    return id === 'held' && ran.length === 2 ? hold(50) : done;
  }, 2);
  try {
    await everythingRan(ran, 4);
  } finally {
    finish();
  }
  expect(ran).toEqual(['long', 'held', 'held', 'last']);
});

test('a waiting job takes the priority it is given later', async () => {
  await queues.remindMany('submit', [
    { generationId: 'a', priority: 5 },
    { generationId: 'b', priority: 6 },
  ]);
  await queues.changePriority('submit', 'b', 1);
  const ran: string[] = [];
  start((id) => {
    ran.push(id);
    return Promise.resolve(done);
  });
  await everythingRan(ran, 2);
  expect(ran).toEqual(['b', 'a']);
});
