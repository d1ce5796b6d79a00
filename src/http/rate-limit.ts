/**
 * The rate limit of a token: a number of requests per minute. A batch counts as its number of items: it is let in whole
 * while the limit is not reached, and what it exceeds the limit by holds back the requests behind it.
 *
 * This is the first write of a request. While Redis takes no writes, a request that would change something is refused here,
 * before any of that change is begun; a request that only reads goes on uncounted.
 */
import type { MiddlewareHandler } from 'hono';
import { WritesRefusedError } from '../errors.js';
import type { Hub } from '../pipeline/context.js';
import { refusalOf } from '../redis/connect.js';
import { afterRefusal } from '../redis/write-errors.js';
import { READING, type ApiEnv } from './access.js';
import { createCounting } from './counting.js';
import { HttpError } from './problems.js';

/**
 * For this long after a refusal, reading requests are not counted: each attempt to write to a replica (`READONLY`) makes
 * ioredis reconnect, which breaks the reads of other requests.
 */
const UNCOUNTED_MS = 1000;

export function limitRate({ redis, now, config }: Hub): MiddlewareHandler<ApiEnv> {
  const limit = config.API_RATE_LIMIT;
  const counting = createCounting(redis, now);
  let refusedAt = -Infinity;

  /** The requests of this caller in this minute; null when Redis counts none now. */
  async function count(caller: string, isReading: boolean, more = 1) {
    if (isReading && now() - refusedAt < UNCOUNTED_MS) return null;
    try {
      return await counting.add(`${config.REDIS_PREFIX}:rate:${caller}`, more);
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
      await count(c.var.caller.name, false, items - 1);
    });
    if (limit > 0) {
      const used = await count(c.var.caller.name, READING.has(c.req.method));
      if (used !== null && used.count > limit)
        throw new HttpError(429, 'rate_limited', `Expected at most ${limit} requests per minute.`, {
          'retry-after': String(used.waitSeconds),
        });
    }
    await next();
  };
}
