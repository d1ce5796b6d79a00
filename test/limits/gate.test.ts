/** The gate in front of every call, asked by several processes' worth of callers. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import {
  createGate,
  type CallResult,
  type Gate,
  type GateSettings,
  type Pass,
} from '../../src/limits/gate.js';
import { createKeys } from '../../src/store/keys.js';
import { createTestbed, redisUrl, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
const connections: Redis[] = [];
const never = new AbortController().signal;
const HOUR_MS = 3_600_000;

beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(async () => {
  await Promise.all(connections.splice(0).map((redis) => redis.quit()));
  await bed.close();
});

const settings: GateSettings = {
  rate: { max: null, windowMs: 1000, first: 'poll' },
  failures: 3,
  awayProbeMs: HOUR_MS,
  refusedProbeMs: HOUR_MS,
};

/** As a process of its own would have it. */
function replica(own: Partial<GateSettings> = {}): Gate {
  const redis = new Redis(redisUrl());
  connections.push(redis);
  return createGate({
    redis,
    keys: createKeys(bed.prefix),
    settings: { ...settings, ...own },
    dice: () => 0.5,
  });
}
const rate = (max: number | null, windowMs = 1000, first: 'submit' | 'poll' = 'poll') => ({
  rate: { max, windowMs, first },
});

const pass = (gate: Gate, target: 'submit' | 'poll' = 'submit', generationId = randomUUID() as string) =>
  gate.pass(target, { generationId, signal: never });
const report = (gate: Gate, result: CallResult, generationId = randomUUID() as string, probe = false) =>
  gate.report('submit', { generationId, probe, leftAgoMs: 0, result });
const due = (field: string) => bed.redis.hset(`${bed.prefix}:gate:submit`, field, Date.now() - 60_000);
const go = (probe = false) => ({ kind: 'go', probe }) as const;
const held = (why: string, holds = 'all') => expect.objectContaining({ kind: 'wait', why, holds });

/** Asks again as a queue would, until the call may leave. */
async function leave(gate: Gate, target: 'submit' | 'poll'): Promise<Pass> {
  for (;;) {
    const answer = await pass(gate, target);
    if (answer.kind === 'go') return answer;
    await new Promise((resolve) => setTimeout(resolve, answer.waitMs));
  }
}

describe('the call rate', () => {
  test('no window of all replicas together holds more calls than the limit', async () => {
    const replicas = Array.from({ length: 4 }, () => replica(rate(50)));
    const at: number[] = [];
    await Promise.all(
      Array.from({ length: 120 }, async (_, i) => {
        await leave(replicas[i % 4]!, i % 3 === 0 ? 'submit' : 'poll');
        at.push(performance.now());
      }),
    );
    at.sort((a, b) => a - b);
    const most = Math.max(...at.map((start, i) => at.slice(i).filter((t) => t < start + 950).length));
    expect(most).toBeLessThanOrEqual(50);
  });

  test('a limit that another process wrote holds for all, until another is written', async () => {
    const [old, strict] = [replica(), replica(rate(1, HOUR_MS))];
    expect(await pass(old)).toEqual(go());
    await strict.publish();
    expect(await pass(strict)).toEqual(go());
    expect(await pass(old)).toEqual(held('rate'));
    await old.publish();
    expect(await pass(strict)).toEqual(go());
  });

  test('the kind that goes first does, and the other still gets its share', async () => {
    const gate = replica(rate(100, 1000, 'submit'));
    const order: string[] = [];
    const call = async (kind: 'submit' | 'poll') => {
      await leave(gate, kind);
      order.push(kind);
    };
    await Promise.all([
      ...Array.from({ length: 40 }, () => call('poll')),
      ...Array.from({ length: 40 }, () => call('submit')),
    ]);
    const early = order.slice(0, 30);
    expect(early.filter((kind) => kind === 'submit').length).toBeGreaterThanOrEqual(20);
    expect(early).toContain('poll');
    expect(order).toHaveLength(80);
  });

  test('a call whose turn is far away goes back to its queue until about then', async () => {
    const gate = replica(rate(1, HOUR_MS));
    await pass(gate);
    const answer = await pass(gate);
    expect(answer).toEqual(held('rate'));
    expect((answer as { waitMs: number }).waitMs).toBeGreaterThan(HOUR_MS - 60_000);
  });

  test('a wait for a turn ends at once when its job or its process stops', async () => {
    const gate = replica(rate(2, 8000));
    await pass(gate);
    const stop = new AbortController();
    const waiting = [
      gate.pass('submit', { generationId: randomUUID(), signal: stop.signal }),
      pass(gate),
      pass(gate),
    ];
    stop.abort();
    expect(await waiting[0]).toEqual({ kind: 'wait', waitMs: 0, why: 'stopped', holds: 'generation' });
    gate.stop();
    expect(await Promise.all(waiting.slice(1))).toEqual([
      held('stopped', 'generation'),
      held('stopped', 'generation'),
    ]);
    expect(await pass(gate)).toEqual(held('stopped', 'generation'));
  });

  test('what holds all in the meantime holds a call that waited for its turn', async () => {
    const gate = replica(rate(2, 2000));
    await pass(gate);
    const waiting = pass(gate);
    await report(replica(), { kind: 'refused', reason: 'key' });
    expect(await waiting).toEqual(held('refused'));
  });

  test('without Redis nothing leaves', async () => {
    const redis = new Redis(redisUrl(), { maxRetriesPerRequest: 0, enableOfflineQueue: false });
    await new Promise((resolve) => redis.once('ready', resolve));
    const gate = createGate({ redis, keys: createKeys(bed.prefix), settings, dice: () => 0.5 });
    redis.disconnect();
    await expect(pass(gate)).rejects.toThrow();
  });
});

describe('a 429', () => {
  const limited = (gate: Gate, retryAfterMs: number | null, leftAgoMs = 0) =>
    gate.report('submit', {
      generationId: randomUUID(),
      probe: false,
      leftAgoMs,
      result: { kind: 'rateLimited', retryAfterMs },
    });

  test('holds the calls of its kind for all, by the longest word of the provider', async () => {
    const [one, two] = [replica(), replica()];
    expect(await limited(one, null)).toMatchObject({ opened: 'rate_limited', waitMs: 750 });
    expect(await limited(two, 600_000)).toMatchObject({ opened: null, waitMs: 600_000 });
    expect((await limited(one, 5000)).waitMs).toBeGreaterThan(500_000);
    expect((await limited(one, null)).waitMs).toBeGreaterThan(500_000);
    expect(await pass(one)).toEqual(held('rate_limited'));
    expect((await two.overview()).holdMs).toEqual({ submit: expect.any(Number), poll: 0 });
  });

  test('and by no more than an hour, also when answers come at the same moment', async () => {
    const replicas = [replica(), replica(), replica()];
    const words = [600_000, 300_000, 24 * HOUR_MS];
    await Promise.all(replicas.map((gate, i) => limited(gate, words[i]!)));
    const { holdMs } = await replicas[0]!.overview();
    expect(holdMs.submit).toBeGreaterThan(HOUR_MS - 60_000);
    expect(holdMs.submit).toBeLessThanOrEqual(HOUR_MS);
  });

  test('halves the pace, once for calls that were under way together', async () => {
    const gate = replica(rate(1000));
    await limited(gate, 60_000, 100);
    const once = (await gate.overview()).slowedTo!;
    await Promise.all(Array.from({ length: 20 }, () => limited(gate, 60_000, 60_000)));
    expect((await gate.overview()).slowedTo!).toBeCloseTo(once, 3);
    await limited(gate, 60_000, 0);
    expect((await gate.overview()).slowedTo!).toBeCloseTo(once / 2, 3);
  });

  test('slows calls down where no limit is configured, until an operator says that all is well', async () => {
    const gate = replica();
    await Promise.all(Array.from({ length: 200 }, () => pass(gate, 'poll')));
    expect((await gate.overview()).slowedTo).toBeNull();
    await limited(replica(), 60_000);
    expect((await gate.overview()).slowedTo).toBeLessThan(100);
    await gate.resume();
    expect(await gate.overview()).toMatchObject({ slowedTo: null, holdMs: { submit: 0 } });
  });
});

describe('an outage', () => {
  const away: CallResult = { kind: 'away' };

  test('holds all after so many failures in a row, and the first answer lets all go on', async () => {
    const [one, two] = [replica(), replica()];
    await report(one, away);
    await report(two, away);
    expect(await report(one, away)).toMatchObject({ opened: 'away', waitMs: 1000 });
    expect(await report(two, away)).toMatchObject({ opened: null });
    expect(await pass(two)).toEqual(held('away'));
    await due('awayProbeAt');
    expect(await pass(two)).toEqual(go(true));
    expect(await pass(one)).toEqual(held('away'));
    expect((await one.overview()).breaker.submit).toMatchObject({ probes: 1, openAt: expect.any(Number) });
    expect(await report(two, { kind: 'answered' }, 'two', true)).toMatchObject({ closed: true });
    expect(await pass(one)).toEqual(go());
  });

  test('is not ended by the answer to a call that left before it began', async () => {
    const gate = replica();
    for (let i = 0; i < 3; i++) await report(gate, away);
    const slow = {
      generationId: 'slow',
      probe: false,
      leftAgoMs: 60_000,
      result: { kind: 'accepted' },
    } as const;
    expect(await gate.report('submit', slow)).toMatchObject({ closed: false });
    expect(await pass(gate)).toEqual(held('away'));
    expect(await gate.report('submit', { ...slow, probe: true })).toMatchObject({ closed: true });
  });

  test('a probe that never reports does not block the next', async () => {
    const gate = replica();
    for (let i = 0; i < 3; i++) await report(gate, away);
    for (let i = 0; i < 3; i++) {
      await due('awayProbeAt');
      expect(await pass(gate)).toEqual(go(true));
    }
  });

  test('answers that other replicas get interrupt the row', async () => {
    const [broken, well] = [replica(), replica()];
    for (let i = 0; i < 9; i++) {
      await pass(well);
      await report(broken, away);
      await pass(well);
      expect(await report(well, { kind: 'answered' })).toMatchObject({ opened: null });
    }
    expect(await pass(broken)).toEqual(go());
  });

  test('a replica that fails alone holds only itself, however fast it fails', async () => {
    const [broken, well] = [replica(), replica()];
    await pass(well);
    for (let i = 0; i < 9; i++) expect(await report(broken, away)).toMatchObject({ opened: null });
    expect(await pass(well)).toEqual(go());
    const first = await Promise.race([pass(broken), pass(well).then(() => 'the other')]);
    expect(first).toBe('the other');
    await report(well, away);
    expect((await well.overview()).breaker.submit.openAt).not.toBeNull();
  });

  test('is probed by a free call first, and by a paid one only when that was answered', async () => {
    const gate = replica();
    for (let i = 0; i < 3; i++) await report(gate, away);
    let looks = 0;
    const probe = (there: boolean) =>
      gate.pass('submit', {
        generationId: randomUUID(),
        signal: never,
        look: async () => {
          looks += 1;
          return there;
        },
      });
    await due('awayProbeAt');
    expect(await probe(false)).toEqual(held('away'));
    await due('awayProbeAt');
    expect(await probe(true)).toEqual(go(true));
    expect(looks).toBe(2);
    expect((await gate.overview()).breaker.submit.probes).toBe(2);
  });

  test('looking takes its call from the rate, and is not repeated while the paid call waits for its turn', async () => {
    const gate = replica(rate(2, HOUR_MS));
    for (let i = 0; i < 3; i++) await report(gate, away);
    let looks = 0;
    const look = async () => {
      looks += 1;
      return true;
    };
    await due('awayProbeAt');
    const options = { generationId: randomUUID(), signal: never, look };
    expect(await gate.pass('submit', options)).toEqual(held('rate'));
    await bed.redis.hset(`${bed.prefix}:gate:rate`, 'tat', 0);
    await due('awayProbeAt');
    expect(await gate.pass('submit', { ...options, generationId: randomUUID() })).toEqual(go(true));
    expect(looks).toBe(1);
  });

  test('of one host leaves the others alone, and is forgotten with it', async () => {
    const gate = replica();
    const ask = (host: string) => gate.pass(`host:${host}`, { generationId: randomUUID(), signal: never });
    const told = (result: CallResult) =>
      gate.report('host:a.example', { generationId: randomUUID(), probe: true, leftAgoMs: 0, result });
    for (let i = 0; i < 3; i++) await told(away);
    expect(await ask('a.example')).toEqual(held('away'));
    expect(await ask('b.example')).toEqual(go());
    expect(await bed.redis.pttl(`${bed.prefix}:gate:host:a.example`)).toBeGreaterThan(0);
    expect(await told({ kind: 'answered' })).toMatchObject({ closed: true });
    expect(await bed.redis.exists(`${bed.prefix}:gate:host:a.example`, `${bed.prefix}:gate:hosts`)).toBe(0);
    await told({ kind: 'rateLimited', retryAfterMs: 60_000 });
    expect(await ask('a.example')).toEqual(held('rate_limited'));
    await gate.resume();
    expect(await ask('a.example')).toEqual(go());
  });

  test('hosts without number leave a bounded number of keys', async () => {
    const gate = replica();
    await bed.redis.zadd(
      `${bed.prefix}:gate:hosts`,
      ...Array.from({ length: 1000 }, (_, i) => [
        Date.now() - 1000 + i,
        `${bed.prefix}:gate:host:${i}`,
      ]).flat(),
    );
    await bed.redis.hset(`${bed.prefix}:gate:host:0`, 'failures', 1);
    await gate.report('host:new', { generationId: 'one', probe: false, leftAgoMs: 0, result: away });
    expect(await bed.redis.zcard(`${bed.prefix}:gate:hosts`)).toBe(1000);
    expect(await bed.redis.exists(`${bed.prefix}:gate:host:0`)).toBe(0);
  });
});

describe('a refused key', () => {
  const key: CallResult = { kind: 'refused', reason: 'key' };

  test('holds all submits but one per probe interval, and the first that is accepted lets all go on', async () => {
    const [one, two] = [replica(), replica()];
    expect(await report(one, key)).toEqual({
      opened: 'refused',
      closed: false,
      verdict: 'requeue',
      waitMs: 2 * HOUR_MS,
    });
    expect(await pass(two)).toEqual(held('refused'));
    expect(await pass(two, 'poll')).toEqual(go());
    await due('probeAt');
    expect(await pass(two)).toEqual(go(true));
    expect(await pass(one)).toEqual(held('refused'));
    expect(await report(two, key, randomUUID(), true)).toMatchObject({ opened: null, verdict: 'requeue' });
    await due('probeAt');
    expect(await pass(one)).toEqual(go(true));
    expect((await one.overview()).refused).toBe(true);
    expect(await report(one, { kind: 'accepted' }, randomUUID(), true)).toMatchObject({ closed: true });
    expect((await one.overview()).refused).toBe(false);
    expect(await pass(two)).toEqual(go());
  });

  test('is probed by another generation than the one that was refused', async () => {
    const gate = replica({ refusedProbeMs: 10_000 });
    await report(gate, key, 'refused-one');
    await bed.redis.hset(`${bed.prefix}:gate:submit`, 'probeAt', Date.now());
    expect(await pass(gate, 'submit', 'refused-one')).toEqual(held('refused', 'generation'));
    expect(await pass(gate)).toEqual(go(true));
    await due('probeAt');
    expect(await pass(gate, 'submit', 'refused-one')).toEqual(go(true));
  });

  test('misrouted answers hold submits in the same way, and a word of the API itself ends that', async () => {
    const gate = replica();
    expect(await report(gate, { kind: 'misrouted' })).toMatchObject({
      opened: 'misrouted',
      verdict: 'requeue',
    });
    expect(await pass(gate)).toEqual(held('misrouted'));
    expect(await gate.overview()).toMatchObject({ refused: false, misrouted: true });
    expect(await report(gate, { kind: 'rejected' })).toMatchObject({ closed: true });
    expect(await pass(gate)).toEqual(go());
  });

  test('an account that is too low for one generation alone holds only that one', async () => {
    const gate = replica();
    const quota: CallResult = { kind: 'refused', reason: 'quota' };
    expect(await report(gate, quota, 'expensive')).toMatchObject({ opened: 'refused' });
    expect(await report(gate, { kind: 'rejected' }, 'wrong')).toMatchObject({ closed: false });
    await report(gate, { kind: 'accepted' }, 'cheap', true);
    expect(await report(gate, quota, 'expensive')).toMatchObject({ opened: null, verdict: 'requeue' });
    expect(await pass(gate)).toEqual(go());
    expect(await report(gate, quota, 'another')).toMatchObject({ opened: 'refused' });
  });
});

describe('forbidden requests', () => {
  const forbidden: CallResult = { kind: 'forbidden' };

  test('are rejected at once while they are fewer than three in a row', async () => {
    const gate = replica();
    for (let i = 0; i < 9; i++) {
      expect(await report(gate, forbidden)).toMatchObject({ verdict: 'reject', opened: null });
      if (i % 2 === 1) await report(gate, { kind: 'accepted' });
    }
    expect(await pass(gate)).toEqual(go());
  });

  test('of the same generation count once', async () => {
    const gate = replica();
    for (let i = 0; i < 5; i++)
      expect(await report(gate, forbidden, 'same')).toMatchObject({ verdict: 'reject' });
  });

  test('the third in a row means the key, and goes back unharmed', async () => {
    const gate = replica();
    await report(gate, forbidden);
    await report(gate, forbidden);
    expect(await report(gate, forbidden, 'third')).toMatchObject({ verdict: 'requeue', opened: 'refused' });
    expect(await report(gate, forbidden, 'under-way')).toMatchObject({ verdict: 'requeue', opened: null });
    await report(gate, { kind: 'accepted' }, 'good', true);
    expect(await report(gate, forbidden, 'third')).toMatchObject({ verdict: 'reject' });
  });

  test('are rejected after three probes of their own when nothing else is there to submit', async () => {
    const gate = replica();
    await report(gate, forbidden);
    await report(gate, forbidden);
    await report(gate, forbidden, 'third');
    const verdicts = [];
    for (let i = 0; i < 3; i++) {
      await due('probeAt');
      expect(await pass(gate, 'submit', 'third')).toEqual(go(true));
      verdicts.push((await report(gate, forbidden, 'third', true)).verdict);
    }
    expect(verdicts).toEqual(['requeue', 'requeue', 'reject']);
  });

  test.each([10, 12, 50])(
    '%i bad orders of one tenant do not keep the good ones of another waiting',
    async (count) => {
      const gate = replica();
      const order = (name: string, i: number) => ({ id: `${name}-${i}`, readyAt: 0 });
      let queue = Array.from({ length: count }, (_, i) => order('bad', i));
      let now = 0;
      let posts = 0;
      const ended = new Map<string, string>();
      const askAll = async () => {
        let heldForAll = false;
        for (const job of [...queue]) {
          if (heldForAll || job.readyAt > now) continue;
          const answer = await pass(gate, 'submit', job.id);
          if (answer.kind === 'wait') heldForAll = answer.holds === 'all';
          if (answer.kind === 'wait') continue;
          posts += 1;
          const good = job.id.startsWith('good');
          const { verdict, waitMs } = await report(
            gate,
            good ? { kind: 'accepted' } : forbidden,
            job.id,
            answer.probe,
          );
          if (good || verdict === 'reject') {
            queue = queue.filter((other) => other !== job);
            ended.set(job.id, good ? 'accepted' : 'rejected');
          } else job.readyAt = now + waitMs / HOUR_MS;
        }
      };
      /** A queue with one worker, whose time is that of the test: a step is one probe interval. */
      const run = async (limit: number) => {
        for (let steps = 0; queue.length > 0 && steps < limit; steps++) {
          const before = posts;
          await askAll();
          // Those that were refused before ask again once the others had their chance.
          if (posts === before) await due('probeAt').then(askAll);
          now += 1;
          if ((await gate.overview()).refused)
            await bed.redis.hset(`${bed.prefix}:gate:submit`, 'probeAt', Date.now());
        }
      };
      await run(1);
      expect(posts).toBe(3);
      // A newcomer is among the first in fair order.
      queue.unshift(...Array.from({ length: 5 }, (_, i) => order('good', i)));
      await run(1);
      expect([...ended.values()].filter((end) => end === 'accepted')).toHaveLength(5);
      await run(1000);
      expect(ended.size).toBe(count + 5);
      expect(posts).toBeLessThanOrEqual(5 + 4 * count);
    },
  );
});

describe('a clock', () => {
  test('of Redis that jumps back holds no call for longer than it would be held anyway', async () => {
    const gate = replica({ ...rate(600, 60_000), awayProbeMs: 5000, refusedProbeMs: 5000 });
    const ahead = Date.now() + 24 * HOUR_MS;
    const submits = `${bed.prefix}:gate:submit`;
    await bed.redis.hset(submits, { holdUntil: ahead });
    expect(await pass(gate)).toEqual(go());
    await bed.redis.hset(submits, { refusedAt: ahead, refusedWhy: 'key', probeAt: ahead });
    expect(await pass(gate)).toEqual(go(true));
    expect(await pass(gate)).toEqual(held('refused'));
    await gate.resume();
    await bed.redis.hset(submits, { openAt: ahead, probes: 3, awayProbeAt: ahead });
    expect(await pass(gate)).toEqual(go(true));
    expect(await pass(gate)).toEqual(held('away'));
    await gate.resume();
    const calls = `${bed.prefix}:gate:rate`;
    await bed.redis.hset(calls, { tat: ahead, passed: 0, firstUntil: ahead });
    expect(await pass(gate)).toEqual(go());
    const tat = Number(await bed.redis.hget(calls, 'tat'));
    expect(tat).toBeGreaterThan(Date.now());
    expect(tat).toBeLessThan(Date.now() + 60_000);
    await bed.redis.hset(calls, { pace: 5, paceAt: ahead, slowedAt: ahead });
    await until(async () => (await gate.overview()).slowedTo === null, 'the usual pace');
  });
});
