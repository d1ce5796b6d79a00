/** The timetable of polls: who is polled when, by one worker at a time, and nobody is lost. */
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { createKeys } from '../../src/store/keys.js';
import { createQueues } from '../../src/queue/queues.js';
import { done, snooze, type Outcome, type Runner } from '../../src/queue/runner.js';
import { createTimetable, type Timetable } from '../../src/queue/timetable.js';
import { startTimetableRunner } from '../../src/queue/timetable-runner.js';
import { createWorkLog, type RunOutcome } from '../../src/generation/work.js';
import { startMonitor } from '../support/monitor.js';
import { realRedis, redisUrl } from '../support/testbed.js';
import { until } from '../support/until.js';

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
    expect(await timetable.counts()).toMatchObject({ due: 0, delayed: 1, active: 0 });
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
    // Whoever asks for less does not shorten it.
    await timetable.hold(1);
    expect((await timetable.counts()).heldMs).toBeGreaterThan(HOUR_MS - 60_000);
    await timetable.release();
    expect(await idsOf()).toEqual(['a']);
  });

  // The embedded server takes its time for so many.
  (realRedis ? test : test.skip)(
    'gives out any number that is due, whoever asks for however many',
    async () => {
      const ids = Array.from({ length: 5000 }, (_, i) => `g${i}`);
      await timetable.add(ids.map((id) => at(id, 0)));
      const taken: string[] = [];
      await until(async () => taken.push(...(await idsOf(10_000))) === ids.length, 'all to be given out');
      expect(new Set(taken).size).toBe(ids.length);
    },
  );

  test('wakes the next worker when more is due than one takes', async () => {
    await timetable.add([at('a', 0), at('b', 0)]);
    await redis.del(timetable.wakeKey);
    await idsOf(1);
    expect(await redis.del(timetable.wakeKey)).toBe(1);
    await idsOf(1);
    expect(await redis.exists(timetable.wakeKey)).toBe(0);
  });

  test('one that is wanted while nobody knows whether its worker lives is polled once more', async () => {
    await timetable.add([at('a', 0)]);
    await timetable.take(10, 1);
    await until(async () => (await timetable.counts()).orphaned === 1, 'the lease to run out');
    await timetable.hasten(at('a', 0));
    const { leases } = await timetable.take(10, LEASE_MS);
    await timetable.settle([{ ...leases[0]!, delayMs: null }]);
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
    {
      concurrency = 4,
      leaseMs = LEASE_MS,
      on = { redis, timetable },
    }: { concurrency?: number; leaseMs?: number; on?: { redis: Redis; timetable: Timetable } } = {},
  ) => {
    const outcomes: RunOutcome[] = [];
    const said: { msg: string }[] = [];
    const work = createWorkLog(() => {});
    work.listen((one) => {
      if (one.kind === 'ended') outcomes.push(one.outcome);
    });
    const runner = startTimetableRunner({
      name: 'poll',
      run,
      ...on,
      concurrency,
      leaseMs,
      log: pino({ level: 'info' }, { write: (line) => void said.push(JSON.parse(line) as { msg: string }) }),
      work,
      runLimitMs: HOUR_MS,
      now: Date.now,
      workerHold: { check: () => null },
    });
    runners.push(runner);
    return { runner, outcomes, said };
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

  test('goes on with a poll whose lease ran out and that nobody else took', async () => {
    let finish = () => {};
    let polls = 0;
    const { runner, said } = start(() => {
      polls += 1;
      return new Promise((resolve) => (finish = () => resolve(done)));
    });
    await timetable.add([at('a', 0)]);
    await until(() => polls === 1, 'the poll to begin');
    await redis.zadd(`${prefix}:polling`, 1, 'a');
    await timetable.hasten(at('a', 0));
    await until(async () => (await timetable.counts()).orphaned === 0, 'it to be taken again');
    expect([polls, runner.vitals().running, said]).toEqual([1, 1, []]);
    finish();
    // It was wanted meanwhile.
    await until(() => polls === 2, 'the next poll');
    finish();
    await until(async () => (await timetable.missing(['a'])).length === 1, 'it to be over');
  });

  test('takes over what many workers left behind, also one by one', async () => {
    const ids = Array.from({ length: 100 }, (_, i) => `g${i}`);
    await redis.zadd(`${prefix}:polling`, ...ids.flatMap((id) => [1, id]));
    const polled: string[] = [];
    start(
      (id) => {
        polled.push(id);
        return Promise.resolve(done);
      },
      { concurrency: 1 },
    );
    await until(() => polled.length === 100, 'all to be polled');
    expect(polled.toSorted()).toEqual(ids.toSorted());
  });

  test('gives back what it was just taking when it is stopped', async () => {
    let answer = () => {};
    let asked = false;
    const held: Timetable = {
      ...timetable,
      async take(limit, leaseMs) {
        asked = true;
        await new Promise<void>((resolve) => (answer = resolve));
        return timetable.take(limit, leaseMs);
      },
    };
    let polls = 0;
    const run = () => {
      polls += 1;
      return Promise.resolve(done);
    };
    const { runner } = start(run, { on: { redis, timetable: held } });
    await timetable.add([at('a', 0)]);
    await until(() => asked, 'it to take');
    const closed = runner.close(Date.now() + HOUR_MS);
    answer();
    await closed;
    expect(polls).toBe(0);
    expect(await idsOf()).toEqual(['a']);
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
    // Aborted now, and two seconds to give it back.
    await runner.close(Date.now() + 2000);
    expect(outcomes).toEqual(['interrupted']);
    expect(await idsOf()).toEqual(['a']);
  });
});

(realRedis ? describe : describe.skip)('a Redis of its own', () => {
  let server: LaunchedRedis;
  let its: { redis: Redis; timetable: Timetable };
  beforeEach(async () => {
    server = await launchRedis();
    const connection = new Redis(server.url, { maxRetriesPerRequest: null });
    connection.on('error', () => {});
    its = { redis: connection, timetable: createTimetable(connection, createKeys(prefix)) };
  });
  afterEach(async () => {
    await Promise.all(runners.map((runner) => runner.close(Date.now())));
    runners = [];
    its.redis.disconnect();
    await server.kill();
    await server.stop();
  });

  /** How many connections wait for the bell. */
  const blocked = async () => {
    const clients = String(await its.redis.client('LIST'));
    return clients.split('\n').filter((line) => / flags=\w*b/.test(line) && line.includes('cmd=bzpopmin'))
      .length;
  };

  function begin(run: () => Promise<Outcome>, leaseMs = LEASE_MS, concurrency = 4) {
    const said: string[] = [];
    const log = pino(
      { level: 'info' },
      { write: (line) => void said.push((JSON.parse(line) as { msg: string }).msg) },
    );
    const work = createWorkLog(() => {});
    const runner = startTimetableRunner({
      ...{ name: 'poll', run, ...its, concurrency, leaseMs, log, work, runLimitMs: HOUR_MS },
      now: Date.now,
      workerHold: { check: () => null },
    });
    runners.push(runner);
    return { runner, said };
  }

  test('who has no room leaves the bell to others', async () => {
    let finish = () => {};
    begin(() => new Promise((resolve) => (finish = () => resolve(done))), LEASE_MS, 1);
    await until(async () => (await blocked()) === 1, 'it to listen');
    await its.timetable.add([at('a', 0)]);
    await until(async () => (await its.timetable.counts()).active === 1, 'the poll to begin');
    await until(async () => (await blocked()) === 1, 'it to listen again');
    await its.timetable.hasten(at('b', 0));
    await until(async () => (await blocked()) === 0, 'it to have heard');
    await until(
      async () => (await its.redis.exists(its.timetable.wakeKey)) === 1,
      'the bell to be passed on',
    );
    finish();
    await until(async () => (await its.timetable.find('b'))?.active === true, 'the other to be polled');
    finish();
  });

  test('that hangs for longer than a lease: what is polled goes on, once', async () => {
    let polls = 0;
    let finish = () => {};
    const { runner, said } = begin(() => {
      polls += 1;
      return new Promise((resolve) => (finish = () => resolve(snooze(HOUR_MS))));
    }, 600);
    await its.timetable.add([at('a', 0)]);
    await until(() => polls === 1, 'the poll to begin');
    process.kill(server.pid, 'SIGSTOP');
    await pause(1500);
    process.kill(server.pid, 'SIGCONT');
    const now = (await its.timetable.counts()).at;
    await until(
      async () => ((await its.timetable.find('a'))?.at ?? 0) > now + 600,
      'the lease to be renewed',
    );
    expect([polls, runner.vitals().running, said]).toEqual([1, 1, []]);
    finish();
    await until(async () => (await its.timetable.counts()).delayed === 1, 'it to be put off');
  });

  test('that takes no writes gives out nothing, is told of once and is not asked in a hurry', async () => {
    let polls = 0;
    const { said } = begin(() => {
      polls += 1;
      return Promise.resolve(done);
    });
    await its.timetable.add([at('a', 300)]);
    await its.redis.config('SET', 'maxmemory', '1');
    const begunAt = performance.now();
    const monitor = await startMonitor(server.url);
    const takes = () => monitor.seen.filter(({ command, byScript }) => command === 'evalsha' && !byScript);
    await until(() => said.length > 0, 'it to be said');
    await until(() => takes().length >= 3, 'it to be asked again');
    // One a second, and the first two.
    expect(takes().length).toBeLessThanOrEqual(2 + Math.ceil((performance.now() - begunAt) / 1000));
    expect([polls, said]).toEqual([0, ['the timetable reported an error']]);
    expect(await its.timetable.missing(['a'])).toEqual([]);
    monitor.stop();
    await its.redis.config('SET', 'maxmemory', '0');
    await until(() => polls === 1, 'the poll');
  });

  test('that dies and comes back: polls go on', async () => {
    let polls = 0;
    begin(() => {
      polls += 1;
      return Promise.resolve(snooze(50));
    });
    await its.timetable.add([at('a', 0)]);
    await until(() => polls >= 2, 'some polls');
    await server.kill();
    await server.start();
    const before = polls;
    await until(() => polls >= before + 2, 'more polls');
  });

  test.each<[string, () => Promise<void>]>([
    ['is empty', () => its.timetable.add([at('later', HOUR_MS)])],
    [
      'is held',
      async () => {
        await its.timetable.hold(HOUR_MS);
        await its.timetable.add([at('a', 0)]);
      },
    ],
  ])('is asked once a second while the timetable %s', async (_, prepare) => {
    await prepare();
    const monitor = await startMonitor(server.url);
    const begunAt = performance.now();
    begin(() => Promise.resolve(done));
    const asked = () => monitor.seen.filter(({ byScript }) => !byScript).map(({ command }) => command);
    const takes = () => asked().filter((command) => command.startsWith('eval')).length;
    await until(() => takes() >= 3, 'it to be asked thrice');
    // The first one sends the script besides, and the bell may ring once.
    expect(takes()).toBeLessThanOrEqual(3 + Math.ceil((performance.now() - begunAt) / 1000));
    expect(asked().filter((command) => command === 'bzpopmin').length).toBeLessThanOrEqual(3);
    monitor.stop();
  });

  test('that is away fails whoever counts, and nobody else', async () => {
    const unheard: unknown[] = [];
    const hear = (error: unknown) => unheard.push(error);
    process.on('unhandledRejection', hear);
    const once = new Redis(server.url, { maxRetriesPerRequest: 0, retryStrategy: () => null });
    once.on('error', () => {});
    await once.ping();
    const queues = createQueues(once, prefix, createTimetable(once, createKeys(prefix)), Date.now, () => {});
    await server.kill();
    await until(() => once.status === 'end', 'the connection to end');
    await expect(queues.backlog(Date.now())).rejects.toThrow(/closed/i);
    await pause(50);
    process.off('unhandledRejection', hear);
    expect(unheard).toEqual([]);
    await queues.close().catch(() => {});
  });
});
