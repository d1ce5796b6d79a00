/** The timetable of polls: who is polled when, by one worker at a time, and nobody is lost. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { createKeys } from '../src/generation/keys.js';
import { done, snooze, type Outcome, type Runner } from '../src/runner.js';
import { createTimetable, type Timetable } from '../src/timetable.js';
import { startTimetableRunner } from '../src/timetable-runner.js';
import { createWorkLog, type RunOutcome } from '../src/work.js';
import { redisUrl } from './support/testbed.js';
import { until } from './support/until.js';

const HOUR_MS = 3_600_000;
const LEASE_MS = 30_000;
let redis: Redis;
let prefix: string;
let timetable: Timetable;
let runners: Runner[] = [];

beforeEach(() => {
  redis = new Redis(redisUrl());
  prefix = `{test-${randomUUID()}}`;
  timetable = createTimetable(redis, createKeys(prefix));
});
afterEach(async () => {
  await Promise.all(runners.map((runner) => runner.close(Date.now() + 2000)));
  runners = [];
  const keys = await redis.keys(`${prefix}*`);
  if (keys.length > 0) await redis.del(...keys);
  await redis.quit();
});

const at = (generationId: string, delayMs: number) => ({ generationId, delayMs });
const idsOf = async (limit = 10, leaseMs = LEASE_MS) =>
  (await timetable.take(limit, leaseMs)).leases.map(({ generationId }) => generationId);

describe('the timetable', () => {
  test('gives out what is due, earliest first, and says how long nothing else is', async () => {
    await timetable.add([at('b', 0), at('later', HOUR_MS / 2)]);
    await redis.zadd(`${prefix}:polls`, 1, 'a');
    const { leases, idleMs } = await timetable.take(10, LEASE_MS);
    expect(leases.map(({ generationId }) => generationId)).toEqual(['a', 'b']);
    expect(idleMs).toBeGreaterThan(HOUR_MS / 2 - 60_000);
    expect(idleMs).toBeLessThanOrEqual(HOUR_MS / 2);
  });

  test('gives one generation to one worker, however many ask at once', async () => {
    const ids = Array.from({ length: 200 }, (_, i) => `g${i}`);
    await timetable.add(ids.map((id) => at(id, 0)));
    const taken = await Promise.all(Array.from({ length: 50 }, () => idsOf(7)));
    expect(taken.flat().toSorted()).toEqual(ids.toSorted());
  });

  test('keeps the time of one that stands there, unless it is to be hastened', async () => {
    await timetable.add([at('a', HOUR_MS)]);
    await timetable.add([at('a', 0)]);
    expect(await idsOf()).toEqual([]);
    await timetable.hasten(at('a', 2 * HOUR_MS));
    await timetable.hasten(at('a', 0));
    expect(await idsOf()).toEqual(['a']);
  });

  test('puts off, and takes off', async () => {
    await timetable.add([at('again', 0), at('over', 0)]);
    const { leases } = await timetable.take(10, LEASE_MS);
    await timetable.settle(
      leases.map((lease) => ({ ...lease, delayMs: lease.generationId === 'over' ? null : HOUR_MS })),
    );
    expect(await timetable.missing(['again', 'over'])).toEqual(['over']);
    expect(await timetable.counts(Date.now())).toMatchObject({ due: 0, delayed: 1, active: 0 });
  });

  test.each([
    ['put off', HOUR_MS],
    ['over', null],
  ])(
    'one that is wanted sooner while it is polled comes again at once, also when it is %s',
    async (_, delayMs) => {
      await timetable.add([at('a', 0)]);
      const { leases } = await timetable.take(10, LEASE_MS);
      await timetable.hasten(at('a', 0));
      expect(await idsOf()).toEqual([]);
      await timetable.settle([{ ...leases[0]!, delayMs }]);
      expect(await idsOf()).toEqual(['a']);
      expect(await redis.exists(`${prefix}:polls-again`)).toBe(0);
    },
  );

  test('one whose worker is gone is given to the next, and the first has no say any more', async () => {
    await timetable.add([at('a', 0)]);
    const { leases } = await timetable.take(10, 1);
    const next = await until(async () => {
      const again = (await timetable.take(10, LEASE_MS)).leases;
      return again.length > 0 && again;
    }, 'the lease to run out');
    await timetable.settle([{ ...leases[0]!, delayMs: null }]);
    expect(await timetable.renew(leases, LEASE_MS)).toEqual([]);
    expect(await timetable.missing(['a'])).toEqual([]);
    const kept = await timetable.renew(next, 2 * LEASE_MS);
    expect(kept[0]!.leasedUntil).toBeGreaterThan(next[0]!.leasedUntil);
    await timetable.settle([{ ...kept[0]!, delayMs: null }]);
    expect(await timetable.missing(['a'])).toEqual(['a']);
  });

  test('gives out nothing while it is held', async () => {
    await timetable.add([at('a', 0)]);
    await timetable.hold(HOUR_MS);
    const { leases, idleMs } = await timetable.take(10, LEASE_MS);
    expect([leases.length, idleMs > HOUR_MS - 60_000]).toEqual([0, true]);
    expect((await timetable.counts(Date.now())).heldMs).toBeGreaterThan(0);
    await timetable.release();
    expect(await idsOf()).toEqual(['a']);
  });

  test('a command that is sent twice does no harm', async () => {
    await timetable.add([at('a', 0)]);
    const { leases } = await timetable.take(10, LEASE_MS);
    const end = [{ ...leases[0]!, delayMs: 0 }];
    await timetable.settle(end);
    const [lease] = (await timetable.take(10, 2 * LEASE_MS)).leases;
    await timetable.settle(end);
    expect(await timetable.find('a')).toEqual({ generationId: 'a', at: lease!.leasedUntil, active: true });
  });
});

describe('a runner', () => {
  const start = (
    run: (id: string, signal: AbortSignal) => Promise<Outcome>,
    { concurrency = 4, leaseMs = LEASE_MS }: { concurrency?: number; leaseMs?: number } = {},
  ) => {
    const outcomes: RunOutcome[] = [];
    const work = createWorkLog(() => {});
    work.listen((one) => {
      if (one.kind === 'ended') outcomes.push(one.outcome);
    });
    const runner = startTimetableRunner({
      name: 'poll',
      run,
      timetable,
      redis,
      concurrency,
      leaseMs,
      log: pino({ level: 'silent' }),
      work,
      runLimitMs: HOUR_MS,
    });
    runners.push(runner);
    return { runner, outcomes };
  };

  test('polls what is due, at most so many at once', async () => {
    const ended: string[] = [];
    const { runner } = start(
      async (id) => {
        expect(runner.vitals().running).toBeLessThanOrEqual(4);
        await redis.ping();
        ended.push(id);
        return done;
      },
      { concurrency: 4 },
    );
    const ids = Array.from({ length: 100 }, (_, i) => `g${i}`);
    await timetable.add(ids.map((id) => at(id, 0)));
    await until(() => ended.length >= 100, 'all to be polled');
    expect(ended.toSorted()).toEqual(ids.toSorted());
    await until(async () => (await timetable.missing(ids)).length === 100, 'all to be off the timetable');
  });

  test('comes back to one that was put off, though it slept when that was said', async () => {
    let polls = 0;
    start(() => Promise.resolve(++polls < 5 ? snooze(1) : done));
    await timetable.add([at('a', 0)]);
    await until(() => polls === 5, 'five polls');
  });

  test('one that throws is polled again later', async () => {
    let polls = 0;
    const { outcomes } = start(() =>
      ++polls === 1 ? Promise.reject(new Error('once')) : Promise.resolve(done),
    );
    await timetable.add([at('a', 0)]);
    await until(() => outcomes.length === 2, 'the second poll');
    expect(outcomes).toEqual(['failed', 'done']);
  });

  test('keeps its lease while it polls', async () => {
    let finish = () => {};
    const polled: string[] = [];
    const first = (id: string) => {
      polled.push(`first ${id}`);
      return new Promise<Outcome>((resolve) => (finish = () => resolve(done)));
    };
    start(first, { leaseMs: 300 });
    await timetable.add([at('slow', 0)]);
    await until(() => polled.length === 1, 'the poll to begin');
    const begunUntil = (await timetable.find('slow'))!.at;
    await until(async () => (await timetable.find('slow'))!.at > begunUntil + 600, 'the lease to be renewed');
    start(
      (id) => {
        polled.push(`second ${id}`);
        return Promise.resolve(done);
      },
      { leaseMs: 300 },
    );
    await timetable.add([at('other', 0)]);
    await until(() => polled.includes('second other') || polled.includes('first other'), 'another poll');
    finish();
    await until(async () => (await timetable.missing(['slow'])).length === 1, 'the poll to end');
    expect(polled.filter((one) => one.endsWith('slow'))).toEqual(['first slow']);
  });

  test('a lost lease aborts the poll', async () => {
    const { outcomes } = start(
      (_, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        }),
      { leaseMs: 300 },
    );
    await timetable.add([at('a', 0)]);
    await until(async () => (await redis.zcard(`${prefix}:polling`)) === 1, 'the poll to begin');
    await redis.zadd(`${prefix}:polling`, Date.now() + HOUR_MS, 'a');
    await until(() => outcomes.length === 1, 'the poll to end');
    expect(outcomes).toEqual(['interrupted']);
    // It is somebody else's.
    expect(await redis.zscore(`${prefix}:polling`, 'a')).not.toBeNull();
  });

  test('what does not end in time when it stops is given back', async () => {
    const { runner, outcomes } = start(
      (_, signal) =>
        new Promise((_resolve, reject) => {
          signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        }),
    );
    await timetable.add([at('a', 0)]);
    await until(async () => (await redis.zcard(`${prefix}:polling`)) === 1, 'the poll to begin');
    await runner.close(Date.now());
    expect(outcomes).toEqual(['interrupted']);
    expect(await idsOf()).toEqual(['a']);
  });
});
