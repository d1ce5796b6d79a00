/**
 * Counts events in each minute of the clock, in Redis, so that all replicas count together. A fixed window lets at most
 * twice a limit through around the turn of a minute, for the price of one round trip.
 */
import type { RedisConnection } from '../redis/connect.js';

const WINDOW_MS = 60_000;

/**
 * KEYS 1 the count · ARGV 1 how long it is kept, ms · 2 how many more. Returns the count with these. A script rather than a
 * transaction: when Redis takes no writes, that is its one error.
 */
const COUNT = `
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count`;

interface Scripts {
  reelhaulCountWithin(key: string, keptMs: number, more: number): Promise<number>;
}

export interface Counting {
  /** Adds to the count of this minute. @returns the new count, and after how many seconds the next minute begins */
  add(key: string, more?: number): Promise<{ readonly count: number; readonly waitSeconds: number }>;
  /** Takes one back from the count of this minute. */
  takeBack(key: string): Promise<void>;
}

export function createCounting(redis: RedisConnection, now: () => number): Counting {
  redis.defineCommand('reelhaulCountWithin', { lua: COUNT, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  const window = () => Math.floor(now() / WINDOW_MS);
  return {
    async add(key, more = 1) {
      const current = window();
      const count = await scripts.reelhaulCountWithin(`${key}:${current}`, 2 * WINDOW_MS, more);
      return { count, waitSeconds: Math.max(1, Math.ceil(((current + 1) * WINDOW_MS - now()) / 1000)) };
    },
    async takeBack(key) {
      await redis.decr(`${key}:${window()}`);
    },
  };
}
