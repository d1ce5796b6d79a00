/** The clock that follows Redis, by scripted answers: which no real server gives on demand. */
import { afterEach, describe, expect, jest, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { openClock, type RedisClock } from '../../src/redis/clock.js';
import type { RedisConnection } from '../../src/redis/connect.js';
import { redisUrl } from '../support/testbed.js';

const AT = 1_800_000_000_000;
const HOUR_MS = 3_600_000;
let clock: RedisClock;

afterEach(() => {
  clock.close();
  jest.restoreAllMocks();
});

/** A monotonic clock that stands still unless it is moved, and a server whose clock is set by the test. */
async function open() {
  const world = { elapsed: 5000, server: AT, roundTripMs: 0 };
  jest.spyOn(performance, 'now').mockImplementation(() => world.elapsed);
  const wall = jest.spyOn(Date, 'now').mockImplementation(() => AT + world.elapsed - 5000);
  const redis = {
    eval: () => {
      const [seconds, microseconds] = [Math.floor(world.server / 1000), (world.server % 1000) * 1000];
      world.elapsed += world.roundTripMs;
      return Promise.resolve([String(seconds), String(microseconds)]);
    },
    on: () => {},
    off: () => {},
  } as unknown as RedisConnection;
  clock = await openClock(redis, '{test}');
  return { world, wall };
}

describe('the time of Redis', () => {
  test('is what a real server says, to within the round trip', async () => {
    const redis = new Redis(redisUrl());
    clock = await openClock(redis, '{test}');
    const before = clock.now();
    const [seconds, microseconds] = await redis.time();
    const after = clock.now();
    const said = Number(seconds) * 1000 + Number(microseconds) / 1000;
    // Both ends by the round trip of the first question, of which this knows nothing: a busy machine takes long.
    expect(said).toBeGreaterThan(before - 1000);
    expect(said).toBeLessThan(after + 1000);
    expect(clock.skewMs()).toBeLessThan(1000);
    await redis.quit();
  });

  test('goes on by the monotonic clock, whatever is done to the clock of this machine', async () => {
    const { world, wall } = await open();
    world.elapsed += 500;
    wall.mockImplementation(() => AT - HOUR_MS);
    expect(clock.now()).toBe(AT + 500);
    expect(clock.skewMs()).toBe(-HOUR_MS - 500);
  });

  test('is corrected as far as an answer proves it wrong, and no further', async () => {
    const { world } = await open();
    // Sent at AT by Redis, heard 800 ms later: nothing of it contradicts what is known.
    world.roundTripMs = 800;
    await clock.sync();
    expect(clock.now()).toBe(AT + 800);
    world.roundTripMs = 0;
    world.server = AT + 900;
    await clock.sync();
    expect(clock.now()).toBe(AT + 900);
  });

  test('stands still rather than run backwards by a little', async () => {
    const { world } = await open();
    expect(clock.now()).toBe(AT);
    world.server = AT - 300;
    await clock.sync();
    expect(clock.now()).toBe(AT);
    world.elapsed += 299;
    expect(clock.now()).toBe(AT);
    world.elapsed += 2;
    expect(clock.now()).toBe(AT + 1);
  });

  test('follows a server that is an hour behind, since every script decides by its time', async () => {
    const { world } = await open();
    expect(clock.now()).toBe(AT);
    world.server = AT - HOUR_MS;
    await clock.sync();
    expect(clock.now()).toBe(AT - HOUR_MS);
    expect(clock.skewMs()).toBe(HOUR_MS);
    world.elapsed += 10;
    expect(clock.now()).toBe(AT - HOUR_MS + 10);
  });

  test('is asked anew at once when the clocks of this machine part: it was suspended', async () => {
    const { world, wall } = await open();
    world.server = AT + HOUR_MS;
    wall.mockImplementation(() => AT + HOUR_MS);
    clock.now();
    await clock.sync();
    expect(clock.now()).toBe(AT + HOUR_MS);
  });
});
