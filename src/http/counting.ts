/**
 * Counts events in each minute of the clock, in Redis, so that all replicas count together. A fixed window lets at most
 * twice a limit through around the turn of a minute, for the price of one round trip.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';

const WINDOW_MS = 60_000;

/**
 * KEYS 1 the count · ARGV 1 JSON { keptMs, more } · Returns the count with these. A script rather than a transaction: when
 * Redis takes no writes, that is its one error.
 */
const COUNT = `
local c = cjson.decode(ARGV[1])
local count = redis.call('INCRBY', KEYS[1], c.more)
redis.call('PEXPIRE', KEYS[1], c.keptMs)
return count`;

export interface Counting {
  /** Adds to the count of this minute. @returns the new count, and after how many seconds the next minute begins */
  add(key: string, more?: number): Promise<{ readonly count: number; readonly waitSeconds: number }>;
  /** Takes one back from the count of this minute. */
  takeBack(key: string): Promise<void>;
}

export function createCounting(redis: RedisConnection, now: () => number): Counting {
  const addTo = defineScript<number>(redis, 'reelhaulCountWithin', COUNT);
  const window = () => Math.floor(now() / WINDOW_MS);
  return {
    async add(key, more = 1) {
      const current = window();
      const count = await addTo([`${key}:${current}`], { keptMs: 2 * WINDOW_MS, more });
      return { count, waitSeconds: Math.max(1, Math.ceil(((current + 1) * WINDOW_MS - now()) / 1000)) };
    },
    async takeBack(key) {
      await redis.decr(`${key}:${window()}`);
    },
  };
}
