/** Finished generations as a run leaves them: a record, and its places in the two indexes. */
import type { Redis } from 'ioredis';
import { v7 as uuidv7 } from 'uuid';

const BATCH = 5000;

/** Writes `count` of them under this prefix, one per second up to now. */
export async function fillWithFinished(redis: Redis, prefix: string, count: number): Promise<void> {
  const now = Date.now();
  for (let done = 0; done < count; done += BATCH) {
    const pipeline = redis.pipeline();
    for (let i = 0; i < Math.min(BATCH, count - done); i++) {
      const at = now - 1000 * (count - done - i);
      const id = uuidv7({ msecs: at });
      const fields = {
        state: 'succeeded',
        tenant: 'default',
        createdAt: at,
        updatedAt: at,
        finishedAt: at,
        v: 1,
      };
      pipeline.hset(`${prefix}:g:${id}`, {
        ...fields,
        request: '{"prompt":"a paper boat","model":"gen4","ratio":"1280:720"}',
      });
      pipeline.zadd(`${prefix}:state:succeeded`, 0, id);
      pipeline.zadd(`${prefix}:tenant:default:succeeded`, 0, id);
    }
    await pipeline.exec();
  }
}
