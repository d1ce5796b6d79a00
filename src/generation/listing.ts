/**
 * Pages of generations, newest first. Every generation stands in exactly two sorted sets: that of its state, and its
 * tenant's of that state. A page over several states merges them, so that its cost depends on the size of the page
 * only. Ids are UUIDv7 and sort by their creation (RFC 9562, 5.7), which makes cursors stable: one that a generation
 * has passed is never met again.
 */
import type { RedisConnection } from '../redis.js';
import type { Keys } from './keys.js';
import { STATES, type State } from './states.js';

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

/** One page; the states are read at one moment, so that no generation is missed or met twice on its way between two. */
export async function listPage(redis: RedisConnection, keys: Keys, listing: Listing): Promise<ListPage> {
  const { state, tenant, createdAfter, createdBefore, before, limit } = listing;
  const upper = [before, createdBefore === undefined ? undefined : firstIdAt(createdBefore)]
    .filter((bound) => bound !== undefined)
    .sort()[0];
  const max = upper === undefined ? '+' : `(${upper}`;
  const min = createdAfter === undefined ? '-' : `[${firstIdAt(createdAfter)}`;

  const transaction = redis.multi();
  for (const one of state === undefined ? STATES : [state]) {
    const index = tenant === undefined ? keys.state(one) : keys.tenantState(tenant, one);
    transaction.zrange(index, max, min, 'BYLEX', 'REV', 'LIMIT', 0, limit);
  }
  const ids: string[] = [];
  for (const [error, found] of (await transaction.exec()) ?? []) {
    if (error) throw error;
    ids.push(...(found as string[]));
  }
  const page = ids.sort((a, b) => (a < b ? 1 : -1)).slice(0, limit);
  return { ids: page, cursor: page.length === limit ? (page.at(-1) ?? null) : null };
}
