/** The library: many at once, pages, events, waits. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { launchRedis } from '../src/cli/demo/redis-server.js';
import { createReelhaul } from '../src/reelhaul.js';
import type { GenerationEvent } from '../src/store/event-stream.js';
import { createTestbed, image, realRedis, redisUrl, type Testbed } from './support/testbed.js';
import { until } from './support/until.js';

let bed: Testbed;
beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(() => bed.close());

describe('enqueueMany', () => {
  test('gives each item its own result, and stores the good ones', async () => {
    const results = await bed.reelhaul.enqueueMany([
      { request: { prompt: 'one', image }, idempotencyKey: 'a', metadata: { n: 1 } },
      { request: { prompt: '' } },
      { request: { prompt: 'other', image }, idempotencyKey: 'a' },
      { request: { prompt: 'one', image }, idempotencyKey: 'a' },
      { request: { prompt: 'two', image } },
    ]);
    expect(results.map((result) => (result.ok ? result.replayed : result.error.code))).toEqual([
      false,
      'invalid_input',
      'idempotency_conflict',
      true,
      false,
    ]);
    const [first] = results;
    if (!first!.ok) throw first!.error;
    expect(first!.generation).toEqual(await bed.reelhaul.get(first!.generation.id));
    expect((await bed.reelhaul.list()).generations).toHaveLength(2);
    await bed.work();
    for (const result of results)
      if (result.ok) expect((await bed.reelhaul.waitFor(result.generation.id)).state).toBe('succeeded');
  });

  test('with a known key says which options stay as they were, and only those that differ', async () => {
    const first = { metadata: { a: 1, b: { c: [2], d: 3 } }, notifyUrl: 'https://example.com/a' };
    const again = { metadata: { b: { d: 3, c: [2] }, a: 1 }, notifyUrl: 'https://example.com/b', delayMs: 5 };
    const item = { request: { prompt: 'one', image }, idempotencyKey: 'a' };
    const results = await bed.reelhaul.enqueueMany([{ ...item, ...first }, { ...item, ...again }, item]);
    expect(results.map((result) => (result.ok ? result.ignored : null))).toEqual([[], ['notifyUrl'], []]);
    expect(
      await bed.reelhaul.enqueue(item.request, {
        idempotencyKey: 'a',
        notifyOn: 'end',
        notifyUrl: first.notifyUrl,
      }),
    ).not.toHaveProperty('ignored');
  });

  test('takes more than one chunk', async () => {
    const items = Array.from({ length: 600 }, (_, i) => ({
      request: { prompt: `number ${i}` },
      delayMs: 3_600_000,
    }));
    const results = await bed.reelhaul.enqueueMany(items);
    expect(results.every(({ ok }) => ok)).toBe(true);
    expect(await bed.reelhaul.count(['queued'])).toEqual({ queued: 600 });
    expect(await bed.redis.zcard(`${bed.prefix}:scheduled`)).toBe(600);
  });
});

describe('list', () => {
  test('from when a generation was created finds it, and up to then does not, for each of many', async () => {
    const requests = Array.from({ length: 300 }, (_, i) => ({ request: { prompt: `moment ${i}`, image } }));
    const results = await bed.reelhaul.enqueueMany(requests);
    const listed = new Map<number, string[]>();
    for (const result of results) {
      if (!result.ok) throw result.error;
      const { id, createdAt } = result.generation;
      if (!listed.has(createdAt)) {
        const window = { createdAfter: createdAt, createdBefore: createdAt + 1, limit: 500 };
        listed.set(
          createdAt,
          (await bed.reelhaul.list(window)).generations.map((one) => one.id),
        );
      }
      expect(listed.get(createdAt)).toContain(id);
    }
  });

  test('pages through every generation once, newest first, also while they move between states', async () => {
    const ids: string[] = [];
    for (let i = 0; i < 25; i++) ids.push((await bed.enqueue(`page ${i}`)).id);
    const seen: string[] = [];
    let cursor: string | null = null;
    let started = false;
    do {
      const page: Awaited<ReturnType<typeof bed.reelhaul.list>> = await bed.reelhaul.list({
        limit: 4,
        ...(cursor ? { cursor } : {}),
      });
      seen.push(...page.generations.map(({ id }) => id));
      cursor = page.cursor;
      if (!started) await bed.work();
      started = true;
    } while (cursor !== null);
    expect(seen).toEqual(ids.toReversed());
  });

  test('by state, tenant and time', async () => {
    const before = await bed.enqueue('a', { tenant: 'a' });
    await until(() => Date.now() > before.createdAt + 1, 'the clock to move on');
    const after = await bed.enqueue('b', { tenant: 'b:queued' });
    const cancelled = await bed.enqueue('c', { tenant: 'a' });
    await bed.reelhaul.cancel(cancelled.id);
    const ids = async (query: Parameters<typeof bed.reelhaul.list>[0]) =>
      (await bed.reelhaul.list(query)).generations.map(({ id }) => id);
    expect(await ids({ tenant: 'a' })).toEqual([cancelled.id, before.id]);
    expect(await ids({ tenant: 'a', state: 'queued' })).toEqual([before.id]);
    expect(await ids({ tenant: 'b:queued' })).toEqual([after.id]);
    expect(await ids({ state: 'canceled' })).toEqual([cancelled.id]);
    expect(await ids({ createdAfter: after.createdAt })).toEqual([cancelled.id, after.id]);
    expect(await ids({ createdBefore: after.createdAt })).toEqual([before.id]);
    expect(await ids({ tenant: 'nobody' })).toEqual([]);
  });
});

describe('waitFor', () => {
  test('sees a finish that was before it, and tells progress on the way', async () => {
    const worker = await bed.work();
    const { id } = await bed.enqueue('watched [sim: duration=500ms]');
    const states: string[] = [];
    await bed.reelhaul.waitFor(id, { onProgress: ({ state }) => states.push(state) });
    expect(states.at(-1)).toBe('succeeded');
    expect(states).toContain('generating');
    await worker.close();
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  });

  // The embedded server counts no connections.
  (realRedis ? test : test.skip)('of a hundred at once needs one more connection', async () => {
    // A server of its own: other tests connect to theirs meanwhile.
    const server = await launchRedis();
    await bed.close();
    bed = await createTestbed({ redisUrl: server.url });
    const connections = async () =>
      Number(/connected_clients:(\d+)/.exec(await bed.redis.info('clients'))![1]);
    const results = await bed.reelhaul.enqueueMany(
      Array.from({ length: 100 }, (_, i) => ({ request: { prompt: `wait ${i}`, image } })),
    );
    const before = await connections();
    const waits = results.map((result) =>
      result.ok ? bed.reelhaul.waitFor(result.generation.id) : Promise.reject(result.error),
    );
    await until(async () => (await connections()) > before, 'the reader to connect');
    expect(await connections()).toBe(before + 1);
    await bed.work();
    expect((await Promise.all(waits)).every(({ state }) => state === 'succeeded')).toBe(true);
    await bed.close();
    await server.stop();
    bed = await createTestbed();
  });

  test('gives up after its time, or when told, and the generation goes on', async () => {
    const { id } = await bed.enqueue('nobody works');
    await expect(bed.reelhaul.waitFor(id, { timeoutMs: 30 })).rejects.toMatchObject({ code: 'wait_timeout' });
    const stop = new AbortController();
    const waiting = bed.reelhaul.waitFor(id, { signal: stop.signal });
    stop.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await expect(bed.reelhaul.waitFor('nobody')).rejects.toMatchObject({ code: 'not_found' });
    expect((await bed.reelhaul.get(id)).state).toBe('queued');
  });
});

describe('events', () => {
  test('tell every transition in order, and can be resumed from a cursor', async () => {
    const start = '0-0';
    const { id } = await bed.enqueue('told', { tenant: 'a' });
    await bed.enqueue('not told', { tenant: 'b' });
    await bed.work();
    await bed.reelhaul.waitFor(id);
    const seen: GenerationEvent[] = [];
    for await (const event of bed.reelhaul.events({ tenant: 'a', cursor: start })) {
      if (event.type === 'state') seen.push(event);
      if (event.to === 'succeeded') break;
    }
    expect(seen.map(({ to }) => to)).toEqual([
      'queued',
      'submitting',
      'generating',
      'archiving',
      'succeeded',
    ]);
    expect(new Set(seen.map(({ generationId }) => generationId))).toEqual(new Set([id]));
    for await (const event of bed.reelhaul.events({ generationId: id, cursor: seen[2]!.cursor })) {
      expect(event.to).toBe('archiving');
      break;
    }
  });

  test('end without an error when told', async () => {
    const stop = new AbortController();
    const iterator = bed.reelhaul.events({ signal: stop.signal })[Symbol.asyncIterator]();
    const next = iterator.next();
    stop.abort();
    expect(await next).toMatchObject({ done: true });
  });

  test('refuse a cursor that is none', async () => {
    await expect(bed.reelhaul.events({ cursor: '$' })[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      code: 'invalid_input',
    });
  });
});

test('an ioredis instance of the app’s own is used and stays open', async () => {
  const redis = new Redis(redisUrl());
  const own = await createReelhaul({ redis, prefix: bed.prefix });
  const { id } = await own.enqueue({ prompt: 'mine', image });
  await bed.work();
  expect((await own.waitFor(id)).state).toBe('succeeded');
  await own.close();
  expect(await redis.ping()).toBe('PONG');
  await redis.quit();
});
