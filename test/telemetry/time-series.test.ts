import { once } from 'node:events';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createMoves, type Move } from '../../src/generation/observers.js';
import { createKeys } from '../../src/store/keys.js';
import { readRecord } from '../../src/store/read-record.js';
import type { State } from '../../src/generation/states.js';
import { createReelhaul } from '../../src/reelhaul.js';
import { bucketOf, quantile, readFigures, startFigures, sumOf } from '../../src/telemetry/time-series.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

let bed: Testbed;
beforeAll(async () => {
  bed = await createTestbed();
});
afterAll(() => bed.close());

const unexpected = (error: unknown) => {
  throw error;
};

function move(from: State, to: State, at: number, fields: Record<string, string> = {}, set = {}): Move {
  const record = readRecord('01', { state: from, createdAt: '1000', updatedAt: '1000', ...fields });
  return { record, from, to, at, change: { set } };
}

/** Counts these moves in two processes and reads the sum of a span. */
async function counted(name: string, moves: readonly Move[], now: number) {
  const { redis } = bed;
  const keys = createKeys(`${bed.prefix}:${name}`);
  const processes = [createMoves(unexpected), createMoves(unexpected)];
  const figures = processes.map((one) => startFigures({ redis, keys, moves: one, onError: unexpected }));
  for (const [i, one] of moves.entries()) processes[i % 2]!.tell(one);
  await Promise.all(figures.map((one) => one.close()));
  return { keys, minutes: await readFigures({ redis, keys }, 'minute', 3, now) };
}

test('what all processes saw is added up by the minute', async () => {
  const moves = [
    move('archiving', 'succeeded', 60_000),
    move('archiving', 'succeeded', 61_000),
    move('archiving', 'succeeded', 125_000),
    move('generating', 'failed', 126_000, {}, { failure: JSON.stringify({ code: 'task_failed' }) }),
  ];
  const { minutes } = await counted('adds', moves, 130_000);
  expect(minutes.map(({ startAt }) => startAt)).toEqual([0, 60_000, 120_000]);
  expect(minutes.map(({ moved }) => moved.succeeded ?? 0)).toEqual([0, 2, 1]);
  expect(sumOf(minutes)).toMatchObject({ moved: { succeeded: 3, failed: 1 }, failed: { task_failed: 1 } });
});

test('the three clocks are told apart', async () => {
  const assets = JSON.stringify({ video: { sizeBytes: 5000 } });
  const moves = [
    move('submitting', 'generating', 9000, { submittedAt: '8000' }),
    move('generating', 'archiving', 69_000, { acceptedAt: '9000' }),
    move('archiving', 'succeeded', 71_000, { trail: 'a68000' }, { assets }),
  ];
  const { clocks, archivedBytes } = sumOf((await counted('clocks', moves, 71_000)).minutes);
  expect([...clocks.queue]).toEqual([[bucketOf(7000), 1]]);
  expect([...clocks.provider]).toEqual([[bucketOf(60_000), 1]]);
  expect([...clocks.archive]).toEqual([[bucketOf(2000), 1]]);
  expect(archivedBytes).toBe(5000);
});

test('a start that the app put off does not count as waiting', async () => {
  const moves = [move('submitting', 'generating', 9000, { submittedAt: '8000', runAt: '7500' })];
  const { clocks } = sumOf((await counted('put-off', moves, 9000)).minutes);
  expect([...clocks.queue]).toEqual([[bucketOf(500), 1]]);
});

test('no hash of a minute outlives its use', async () => {
  const { keys } = await counted('ttl', [move('queued', 'canceled', 60_000)], 60_000);
  expect(await bed.redis.pttl(keys.figures('minute', 1))).toBeGreaterThan(0);
  expect(await bed.redis.pttl(keys.figures('hour', 0))).toBeGreaterThan(0);
});

test('what Redis did not take is counted with the next flush', async () => {
  const keys = createKeys(`${bed.prefix}:later`);
  const moves = createMoves(unexpected);
  const errors: unknown[] = [];
  const redis = bed.redis.duplicate({ enableOfflineQueue: false });
  await once(redis, 'ready');
  const figures = startFigures({ redis, keys, moves, onError: (error) => errors.push(error) });
  try {
    redis.disconnect();
    await once(redis, 'end');
    moves.tell(move('queued', 'canceled', 1));
    await figures.flush();
    expect(errors).toHaveLength(1);
    await redis.connect();
    await figures.close();
  } finally {
    redis.disconnect();
  }
  const [minute] = await readFigures({ redis: bed.redis, keys }, 'minute', 1, 1);
  expect(minute!.moved).toEqual({ canceled: 1 });
});

test('a quantile is right to the width of a bucket', () => {
  const buckets = new Map<number, number>();
  for (let ms = 1; ms <= 10_000; ms++) buckets.set(bucketOf(ms), (buckets.get(bucketOf(ms)) ?? 0) + 1);
  for (const share of [0.1, 0.5, 0.9, 0.99]) {
    const error = quantile(buckets, share)! / (share * 10_000);
    expect(error).toBeGreaterThan(0.8);
    expect(error).toBeLessThan(1.2);
  }
  expect(quantile(new Map(), 0.5)).toBeNull();
});

test('what an app cancels by the library is counted as well', async () => {
  const { redis, prefix } = bed;
  const library = await createReelhaul({ redis, prefix });
  const { id } = await library.enqueue({ prompt: 'not wanted' }, { delayMs: 3_600_000 });
  await library.cancel(id);
  await library.close();
  const minutes = await readFigures({ redis, keys: createKeys(prefix) }, 'minute', 2, Date.now());
  expect(sumOf(minutes).moved.canceled).toBe(1);
});
