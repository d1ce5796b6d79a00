/**
 * Pages of generations, newest first. Every generation stands in exactly two sorted sets: that of its state, and its
 * tenant's of that state. A page over several states merges them, so that its cost depends on the size of the page
 * only. Ids are UUIDv7 and sort by their creation (RFC 9562, 5.7), which makes cursors stable: one that a generation
 * has passed is never met again.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from './keys.js';
import { STATES, type State } from '../generation/states.js';

export interface Listing {
  readonly state?: State;
  readonly tenant?: string;
  /** Epoch milliseconds, both exclusive of what lies outside: `createdAfter` ≤ creation < `createdBefore`. */
  readonly createdAfter?: number;
  readonly createdBefore?: number;
  /** The id at which the page before ended. */
  readonly before?: string;
  readonly limit: number;
}

export interface ListPage {
  readonly ids: readonly string[];
  /** Hand it back as `before` to go on; null at the end. */
  readonly cursor: string | null;
}

/** A lower bound of the ids that were created at `at` or later. */
export function firstIdAt(at: number): string {
  const hex = Math.min(Math.max(0, Math.ceil(at)), 2 ** 48 - 1)
    .toString(16)
    .padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}`;
}

/** The millisecond in an id, epoch ms: its first 48 bits (RFC 9562, 5.7). */
export function createdAtOf(id: string): number {
  return Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
}

/**
 * PAGE. Of each index the first ids below a bound, all at one moment. A transaction would do, but of those a Redis that is
 * full takes none, not even one that only reads.
 * KEYS the indexes · ARGV 1 JSON { max, min, limit }: bounds as ZRANGE BYLEX takes them, and so many of each
 * Returns ids, index by index.
 */
const PAGE = `
local c, ids = cjson.decode(ARGV[1]), {}
for _, index in ipairs(KEYS) do
  for _, id in ipairs(redis.call('ZRANGE', index, c.max, c.min, 'BYLEX', 'REV', 'LIMIT', 0, c.limit)) do
    ids[#ids + 1] = id
  end
end
return ids`;

/** @returns what gives a page, read at one moment: no generation is missed or met twice on its way between two states. */
export function createListing(redis: RedisConnection, keys: Keys): (listing: Listing) => Promise<ListPage> {
  const page = defineScript<string[]>(redis, 'reelhaulPage', PAGE);
  return async ({ state, tenant, createdAfter, createdBefore, before, limit }) => {
    const upper = [before, createdBefore === undefined ? undefined : firstIdAt(createdBefore)]
      .filter((bound) => bound !== undefined)
      .sort()[0];
    const max = upper === undefined ? '+' : `(${upper}`;
    const min = createdAfter === undefined ? '-' : `[${firstIdAt(createdAfter)}`;
    const indexes = (state === undefined ? STATES : [state]).map((one) =>
      tenant === undefined ? keys.state(one) : keys.tenantState(tenant, one),
    );
    const found = await page(indexes, { max, min, limit });
    const ids = found.sort((a, b) => (a < b ? 1 : -1)).slice(0, limit);
    return { ids, cursor: ids.length === limit ? (ids.at(-1) ?? null) : null };
  };
}
