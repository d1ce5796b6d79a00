/**
 * The rate limit of a token: so many requests in each minute of the clock, counted in Redis, so that all replicas
 * count together. A fixed window lets at most twice the limit through around the turn of a minute, for the price of
 * one round trip.
 */
import type { MiddlewareHandler } from 'hono';
import type { Hub } from '../hub.js';
import type { ApiEnv } from './access.js';
import { HttpError } from './problems.js';

const WINDOW_MS = 60_000;

export function limitRate({ redis, now, config }: Hub): MiddlewareHandler<ApiEnv> {
  const limit = config.API_RATE_LIMIT;
  return async (c, next) => {
    if (limit > 0) {
      const window = Math.floor(now() / WINDOW_MS);
      const key = `${config.REDIS_PREFIX}:rate:${c.var.caller.name}:${window}`;
      const replies = await redis
        .multi()
        .incr(key)
        .pexpire(key, 2 * WINDOW_MS)
        .exec();
      const [error, used] = replies?.[0] ?? [];
      if (error) throw error;
      if (Number(used) > limit) {
        const waitSeconds = Math.ceil(((window + 1) * WINDOW_MS - now()) / 1000);
        throw new HttpError(429, 'rate_limited', `Expected at most ${limit} requests per minute.`, {
          'retry-after': String(Math.max(1, waitSeconds)),
        });
      }
    }
    await next();
  };
}
