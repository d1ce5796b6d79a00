/** The call budget of the key, asked for by several processes' worth of callers. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { createRate, type Rate, type RateLimits } from '../../src/limits/rate.js';
import { createTestbed, redisUrl, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
const connections: Redis[] = [];
const never = new AbortController().signal;

beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(async () => {
  await Promise.all(connections.splice(0).map((redis) => redis.quit()));
  await bed.close();
});

/** As a process of its own would have it. */
function replica(limits: Partial<RateLimits> = {}): Rate {
  const redis = new Redis(redisUrl());
  connections.push(redis);
  const usual = { max: 50, windowMs: 1000, first: 'poll' } as const;
  return createRate({ redis, prefix: bed.prefix, now: Date.now, ...usual, ...limits });
}

test('no window of all replicas together holds more calls than the limit', async () => {
  const replicas = [replica(), replica(), replica(), replica()];
  const at: number[] = [];
  await Promise.all(
    Array.from({ length: 120 }, async (_, i) => {
      await replicas[i % 4]!.take(i % 3 === 0 ? 'submit' : 'poll', never);
      at.push(performance.now());
    }),
  );
  at.sort((a, b) => a - b);
  const most = Math.max(...at.map((start, i) => at.slice(i).filter((t) => t < start + 950).length));
  expect(most).toBeLessThanOrEqual(50);
});

test('a limit that another process wrote holds for all, until somebody writes another', async () => {
  const [old, strict] = [replica({ max: null }), replica({ max: 1, windowMs: 3_600_000 })];
  expect(await old.take('submit', never)).toBe('now');
  await strict.publish();
  await strict.take('submit', never);
  const late = replica({ max: 1000 });
  const stop = new AbortController();
  const waiting = late.take('submit', stop.signal);
  await until(
    () => bed.redis.hexists(`${bed.prefix}:rate`, 'secondUntil').then(Boolean),
    'the submit to wait',
  );
  stop.abort();
  expect(await waiting).toBe('stopped');
  await old.publish();
  expect(await strict.take('submit', never)).toBe('now');
});

test('who goes first does, and the other still gets its share', async () => {
  const rate = replica({ first: 'submit', max: 100 });
  const order: string[] = [];
  const call = async (kind: 'submit' | 'poll') => {
    await rate.take(kind, never);
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

test('without a limit nothing waits, until somebody is told to slow down', async () => {
  const rate = replica({ max: null });
  const other = replica({ max: null });
  await Promise.all(Array.from({ length: 200 }, () => rate.take('poll', never)));
  expect(await rate.slowedTo()).toBeNull();
  await other.slowDown(0, 0);
  expect(await rate.slowedTo()).toBeLessThan(100);
  await rate.reset();
  expect(await rate.slowedTo()).toBeNull();
});

test('each 429 halves the pace again', async () => {
  const rate = replica({ max: 1000, windowMs: 1000 });
  await rate.slowDown(60_000, 0);
  const once = (await rate.slowedTo())!;
  await rate.slowDown(60_000, 0);
  expect((await rate.slowedTo())!).toBeCloseTo(once / 2, 3);
});

test('calls that were under way together slow everybody down once', async () => {
  const replicas = [replica({ max: 1000, windowMs: 1000 }), replica({ max: 1000, windowMs: 1000 })];
  await replicas[0]!.slowDown(60_000, 100);
  const once = (await replicas[0]!.slowedTo())!;
  await Promise.all(Array.from({ length: 20 }, (_, i) => replicas[i % 2]!.slowDown(60_000, 60_000)));
  expect((await replicas[1]!.slowedTo())!).toBeCloseTo(once, 3);
});

test('who is told to stop waits no longer', async () => {
  const rate = replica({ max: 1, windowMs: 3_600_000 });
  await rate.take('submit', never);
  const stop = new AbortController();
  const waiting = rate.take('submit', stop.signal);
  stop.abort();
  expect(await waiting).toBe('stopped');
  expect(await rate.take('submit', stop.signal)).toBe('stopped');
});

test('without Redis nothing leaves', async () => {
  const redis = new Redis(redisUrl(), { maxRetriesPerRequest: 0, enableOfflineQueue: false });
  await new Promise((resolve) => redis.once('ready', resolve));
  const rate = createRate({
    redis,
    prefix: bed.prefix,
    now: Date.now,
    max: 5,
    windowMs: 1000,
    first: 'poll',
  });
  redis.disconnect();
  await expect(rate.take('submit', never)).rejects.toThrow();
});
