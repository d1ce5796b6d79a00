/**
 * The rate limit of a token: so many requests in each minute of the clock, counted in Redis, so that all replicas
 * count together. A fixed window lets at most twice the limit through around the turn of a minute, for the price of
 * one round trip. A batch counts as its number of items: it is let in whole while the limit is not reached, and what it
 * exceeds the limit by holds back the requests behind it.
 *
 * It is the first to write: while Redis takes no writes it says so for whatever would change something, before any of
 * that is begun, and what only reads goes on uncounted.
 */
import type { MiddlewareHandler } from 'hono';
import { WritesRefusedError } from '../errors.js';
import type { Hub } from '../pipeline/context.js';
import { refusalOf } from '../redis/connect.js';
import { afterRefusal } from '../redis/write-errors.js';
import { READING, type ApiEnv } from './access.js';
import { createCounting } from './counting.js';
import { HttpError } from './problems.js';

const WINDOW_MS = 60_000;

/**
 * After a refusal reading requests are not counted for so long: each try of a write at a replica (`READONLY`) makes the
 * connection anew, under the reads of others.
 */
const UNCOUNTED_MS = 1000;

export function limitRate({ redis, now, config }: Hub): MiddlewareHandler<ApiEnv> {
  const limit = config.API_RATE_LIMIT;
  const countMore = createCounting(redis);
  let refusedAt = -Infinity;

  /** How many requests of this caller there were in this window; null when Redis counts none now. */
  async function count(caller: string, window: number, isReading: boolean, more = 1): Promise<number | null> {
    if (isReading && now() - refusedAt < UNCOUNTED_MS) return null;
    const key = `${config.REDIS_PREFIX}:rate:${caller}:${window}`;
    try {
      return await countMore(key, 2 * WINDOW_MS, more);
    } catch (error) {
      const refusal = error instanceof Error ? refusalOf(error) : null;
      if (refusal === null) throw error;
      refusedAt = now();
      await afterRefusal(redis);
      if (isReading) return null;
      throw new WritesRefusedError(refusal, { cause: error });
    }
  }

  return async (c, next) => {
    c.set('countItems', async (items) => {
      if (limit === 0 || items < 2) return;
      await count(c.var.caller.name, Math.floor(now() / WINDOW_MS), false, items - 1);
    });
    if (limit > 0) {
      const window = Math.floor(now() / WINDOW_MS);
      const used = await count(c.var.caller.name, window, READING.has(c.req.method));
      if (used !== null && used > limit) {
        const waitSeconds = Math.ceil(((window + 1) * WINDOW_MS - now()) / 1000);
        throw new HttpError(429, 'rate_limited', `Expected at most ${limit} requests per minute.`, {
          'retry-after': String(Math.max(1, waitSeconds)),
        });
      }
    }
    await next();
  };
}
