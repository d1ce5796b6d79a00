/** What the replicas remember together, on a real Redis. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { createArrivals } from '../../src/polling/callback-trust.js';
import { createDurations, kindOf, type Durations } from '../../src/polling/duration-stats.js';
import { createKeys, type Keys } from '../../src/store/keys.js';
import { lessonOfEnd, lessonOfGivingUp, type Lesson } from '../../src/polling/observation.js';
import { BLANK_FORECAST } from '../../src/polling/schedule.js';
import { bucketOf, quantileAfter } from '../../src/polling/histogram.js';
import { redisUrl } from '../support/testbed.js';

let redis: Redis;
let keys: Keys;
let now: number;
let errors: unknown[];
const kind = 'gen4:5:1280_720';

beforeEach(() => {
  redis = new Redis(redisUrl());
  keys = createKeys(`{test-${randomUUID()}}`);
  now = 1_800_000_000_000;
  errors = [];
});
afterEach(async () => {
  const left = await redis.keys(`${keys.prefix}*`);
  if (left.length > 0) await redis.del(...left);
  await redis.quit();
});

const replica = (): Durations =>
  createDurations({ redis, keys, now: () => now, onError: (error) => errors.push(error) });

const took = (ms: number): Lesson =>
  lessonOfEnd({
    ageMs: ms + 1000,
    lastPollAgeMs: ms - 1000,
    toldEndAgeMs: ms,
    startedAgeMs: ms / 10,
    wasQueued: false,
    mark: { progress: 50, ageMs: ms / 2 },
  });

/** So many tasks of about so long, one every four seconds. */
async function learn(durations: Durations, ms: number, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    now += 4000;
    await durations.learn(kind, took(ms * (0.95 + (i % 11) / 100)));
  }
}

const median = async (durations: Durations, of: string | null = kind) =>
  quantileAfter((await durations.forecast(of)).total, 0, 0.5);

describe('durations', () => {
  test('after a quiet time what was learnt meanwhile counts at once', async () => {
    const idle = replica();
    expect(await median(idle)).toBeGreaterThan(150_000);
    await learn(replica(), 10_000, 60);
    expect(await median(idle)).toBeLessThan(20_000);
  });

  test('what one replica learns, the others know', async () => {
    await learn(replica(), 100_000, 60);
    expect(await median(replica())).toBeGreaterThan(90_000);
    expect(await median(replica())).toBeLessThan(110_000);
    const { run, progress } = await replica().forecast(kind);
    expect(quantileAfter(run, 0, 0.5)).toBeLessThan(99_000);
    expect(quantileAfter(progress, 0, 0.5)).toBeGreaterThan(90_000);
  });

  test('with nothing learnt, the forecast is the assumption', async () => {
    expect((await replica().forecast(kind)).total).toEqual(BLANK_FORECAST.total);
  });

  test('when the provider’s speed changes, the old durations fade', async () => {
    const durations = replica();
    await learn(durations, 100_000, 200);
    await learn(durations, 400_000, 80);
    expect(await median(replica())).toBeGreaterThan(350_000);
    await learn(durations, 50_000, 80);
    expect(await median(replica())).toBeLessThan(60_000);
  });

  test('a long life leaves weights that are still numbers, and shares that are right', async () => {
    const durations = replica();
    await learn(durations, 100_000, 10);
    // Years pass: the clock of forgetting runs over several times.
    for (let i = 0; i < 30; i++) {
      now += 3 * 24 * 3_600_000;
      await learn(durations, 200_000, 2);
    }
    const { total } = await replica().experience(kind);
    const weights = [...total.finished.values()];
    expect(weights.every((weight) => Number.isFinite(weight) && weight >= 0)).toBe(true);
    expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeLessThan(4);
    expect(total.finished.get(bucketOf(100_000)) ?? 0).toBeLessThan(0.001);
  });

  test('canceled, expired and running tasks say that it takes longer', async () => {
    const durations = replica();
    await learn(durations, 100_000, 60);
    const before = await median(replica());
    for (let i = 0; i < 40; i++)
      await durations.learn(kind, lessonOfGivingUp({ ageMs: 300_000, startedAgeMs: null }));
    const censored = await median(replica());
    expect(censored).toBeGreaterThanOrEqual(before);
    await durations.setRunning(new Map([[kind, new Map([[bucketOf(250_000), 200]])]]), 60_000);
    expect(await median(replica())).toBeGreaterThan(250_000);
    // A sweep later they are gone, and so is what they said.
    await durations.setRunning(new Map(), 60_000);
    expect(await median(replica())).toBe(censored);
  });

  test('a kind that is new is taken for all kinds together', async () => {
    await learn(replica(), 600_000, 80);
    expect(await median(replica(), 'gen4_turbo:10:9_16')).toBeGreaterThan(500_000);
  });

  test('the number of kinds is bounded, whatever is asked for', async () => {
    const durations = replica();
    for (let i = 0; i < 100; i++) {
      now += 2000;
      await durations.learn(`model-${i}`, took(100_000));
    }
    expect(await redis.zcard(keys.durationKinds)).toBe(64);
    expect(await redis.keys(`${keys.prefix}:durations:model-*`)).toHaveLength(64);
    // The hundredth counts among all together.
    expect((await durations.experience(null)).total.finished.size).toBeGreaterThan(0);
    expect(await redis.exists(keys.durations('model-99'))).toBe(0);
    // A week later there is room again.
    now += 8 * 24 * 3_600_000;
    await durations.learn('model-99', took(100_000));
    expect(await redis.zrange(keys.durationKinds, '0', '-1')).toEqual(['model-99']);
  });

  test('a finished task is one round trip, and a forecast of seconds ago is none', async () => {
    const durations = replica();
    await durations.learn(kind, took(100_000));
    await durations.forecast(kind);
    const sent: string[] = [];
    const send = redis.sendCommand.bind(redis);
    redis.sendCommand = (...args: Parameters<typeof send>) => {
      sent.push(args[0].name);
      return send(...args);
    };
    await durations.forecast(kind);
    expect(sent).toEqual([]);
    now += 2000;
    await durations.learn(kind, took(100_000));
    expect(sent).toEqual(['evalsha']);
  });

  test('what is learnt within a second is written together, and at the end', async () => {
    const durations = replica();
    for (let i = 0; i < 50; i++) await durations.learn(kind, took(100_000));
    const weight = async () => {
      const { finished } = (await durations.experience(kind)).total;
      return [...finished.values()].reduce((sum, share) => sum + share, 0);
    };
    expect(await weight()).toBeCloseTo(1, 1);
    await durations.close();
    expect(await weight()).toBeCloseTo(50, 0);
  });

  test('a Redis that does not answer costs knowledge, not polls', async () => {
    await learn(replica(), 100_000, 60);
    const durations = replica();
    const known = await durations.forecast(kind);
    await redis.set(keys.running, 'not a hash');
    now += 60_000;
    expect(await durations.forecast(kind)).toBe(known);
    const fresh = replica();
    expect((await fresh.forecast(kind)).total).toEqual(BLANK_FORECAST.total);
    expect(errors.length).toBeGreaterThan(0);
  });

  test('a model of any name makes a kind that is safe in a key', () => {
    const request = { prompt: 'x', model: 'a:b {c} \n*', ratio: '16:9', options: { seconds: 5 as const } };
    expect(kindOf(request)).toBe('a%3Ab%20%7Bc%7D%20%0A*:5:16:9');
    expect(kindOf({ ...request, model: '*' })).not.toBe('*');
    expect(kindOf({ ...request, model: '💃'.repeat(60) }).length).toBeLessThan(80);
  });
});

describe('arrivals', () => {
  const arrivals = () =>
    createArrivals({ redis, keys, now: () => now, onError: (error) => errors.push(error) });

  test('callbacks are trusted until two of them are missing', async () => {
    expect(await arrivals().areTrusted()).toBe(true);
    await arrivals().note(false);
    expect(await arrivals().areTrusted()).toBe(true);
    await arrivals().note(false);
    expect(await arrivals().areTrusted()).toBe(false);
  });

  test('one in ten lost does not end the trust, all of them do, and it comes back with them', async () => {
    for (let i = 0; i < 100; i++) await arrivals().note(i % 10 !== 0);
    expect(await arrivals().areTrusted()).toBe(true);
    for (let i = 0; i < 20; i++) await arrivals().note(false);
    expect(await arrivals().areTrusted()).toBe(false);
    for (let i = 0; i < 20; i++) await arrivals().note(true);
    expect(await arrivals().areTrusted()).toBe(true);
  });

  test('one replica’s disappointment is known to the others within seconds', async () => {
    const other = arrivals();
    expect(await other.areTrusted()).toBe(true);
    for (let i = 0; i < 5; i++) await arrivals().note(false);
    now += 5000;
    expect(await other.areTrusted()).toBe(false);
  });
});
