/** Counts in Redis what happens within a window of time, so that all replicas count together. */
import type { RedisConnection } from '../redis/connect.js';

/**
 * KEYS the count. ARGV how long it is kept, ms. Returns the count with this one. A script rather than a transaction: when
 * Redis takes no writes, that is its one error.
 */
const COUNT = `
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count`;

interface Scripts {
  reelhaulCountWithin(key: string, keptMs: number): Promise<number>;
}

/** @returns what counts one more under a key that is of one window, and says how many there are by now. */
export function createCounting(redis: RedisConnection): (key: string, keptMs: number) => Promise<number> {
  redis.defineCommand('reelhaulCountWithin', { lua: COUNT, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  return (key, keptMs) => scripts.reelhaulCountWithin(key, keptMs);
}
