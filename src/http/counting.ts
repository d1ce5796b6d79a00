/** Counts in Redis what happens within a window of time, so that all replicas count together. */
import type { RedisConnection } from '../redis/connect.js';

/**
 * KEYS the count. ARGV how long it is kept, ms; how many more. Returns the count with these. A script rather than a transaction: when
 * Redis takes no writes, that is its one error.
 */
const COUNT = `
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count`;

interface Scripts {
  reelhaulCountWithin(key: string, keptMs: number, more: number): Promise<number>;
}

/** @returns what adds to the count under a key that is of one window, by default 1, and says what it is by now. */
export function createCounting(
  redis: RedisConnection,
): (key: string, keptMs: number, more?: number) => Promise<number> {
  redis.defineCommand('reelhaulCountWithin', { lua: COUNT, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  return (key, keptMs, more = 1) => scripts.reelhaulCountWithin(key, keptMs, more);
}
