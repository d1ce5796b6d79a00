/**
 * Redis answers and takes no writes: it is full, read-only, or its disk or its replicas are away. The caller of a write
 * learns whether it was made; reads go on.
 */
import { once } from 'node:events';
import { RedisAwayError, WritesRefusedError } from '../errors.js';
import { isCluster, refusalOf, type RedisConnection } from './connect.js';

/** Can nothing be sent now? After `READONLY` the connection is on its way out before its status says so. */
export function isAway(redis: RedisConnection): boolean {
  return redis.status !== 'ready' || (!isCluster(redis) && !redis.stream.writable);
}

/** A connection that is made anew after a refusal is back in a tenth of a second, or not soon. */
const BACK_WITHIN_MS = 1000;

/** After a refusal: when this is over, what may be read can be read again, or Redis is away. */
export async function afterRefusal(redis: RedisConnection): Promise<void> {
  if (!isAway(redis)) return;
  await once(redis, 'ready', { signal: AbortSignal.timeout(BACK_WITHIN_MS) }).catch(() => {});
}

/**
 * Waits until a write can be sent. A process that was frozen finds its connection gone, and has it back in a tenth of a
 * second; without this, its first write would fail.
 * @throws RedisAwayError when the connection is not back in time.
 */
async function untilThere(redis: RedisConnection): Promise<void> {
  await afterRefusal(redis);
  if (isAway(redis)) throw new RedisAwayError();
}

/**
 * Makes a write. Refused, it may be recorded all the same: it was sent twice, since its first answer was lost with the
 * connection, or only a step behind it was refused. So it is looked for.
 * @param recorded what was written; null when it is not there
 * @throws RedisAwayError when it was not sent; WritesRefusedError when it is not there; what Redis said when that cannot be known
 */
export async function unlessRefused<T>(
  redis: RedisConnection,
  write: () => Promise<T>,
  recorded: () => Promise<T | null>,
): Promise<T> {
  if (isAway(redis)) await untilThere(redis);
  try {
    return await write();
  } catch (error) {
    const refusal = error instanceof Error ? refusalOf(error) : null;
    if (refusal === null) throw error;
    await afterRefusal(redis);
    const found = await recorded().catch(() => {
      throw error;
    });
    if (found === null) throw new WritesRefusedError(refusal, { cause: error });
    return found;
  }
}
