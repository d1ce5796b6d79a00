/** A write that Redis refused is looked for: what was recorded before the refusal is never told as an error. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { decide, retry } from '../../src/pipeline/operations.js';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { enqueue } from '../../src/pipeline/enqueue.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { connectRedis } from '../../src/redis/connect.js';
import { createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';

let redis: LaunchedRedis;
let bed: Testbed;
let hub: Hub;
beforeEach(async () => {
  redis = await launchRedis();
  bed = await createTestbed({ redisUrl: redis.url });
  const log = pino({ level: 'silent' });
  hub = createHub({ config: bed.config, log, redis: await connectRedis(bed.config, 'producer', log) });
});
afterEach(async () => {
  await bed.redis.config('SET', 'maxmemory', '0');
  await hub.queues.close();
  hub.redis.disconnect();
  await bed.close();
  await redis.stop();
});

/** Full from the next transition on: what comes behind it on the same connection is refused. */
const fillAfterTransition = (): Promise<void> =>
  new Promise((resolve) => {
    const stop = hub.moves.listen(() => {
      stop();
      void hub.redis.config('SET', 'maxmemory', '1').then(() => resolve());
    });
  });

(realRedis ? describe : describe.skip)('Redis is full', () => {
  test('between a decision and its job: it stands, and its job is written later', async () => {
    const workers = await bed.work();
    const unconfirmed = await bed.enqueue('unclear [sim: submit=502-after]');
    const failed = await bed.enqueue('failed [sim: result=failed]');
    await bed.reaches(unconfirmed.id, 'unconfirmed');
    await bed.reaches(failed.id, 'failed');
    await workers.close();
    const { taskId = '' } = bed.simulator.ledger().tasks.find((one) => one.taskId !== failed.taskId) ?? {};

    for (const act of [
      () => decide(hub, unconfirmed.id, { adopt: taskId }),
      () => retry(hub, failed.id, false),
    ]) {
      const full = fillAfterTransition();
      expect((await act()).state).toBe('generating');
      await full;
      await bed.redis.config('SET', 'maxmemory', '0');
    }
    await bed.work();
    await bed.reaches(unconfirmed.id, 'succeeded');
  });

  test('before an enqueue: nothing is stored, and that is what is said', async () => {
    await bed.redis.config('SET', 'maxmemory', '1');
    await expect(enqueue(hub, { prompt: 'in vain', image })).rejects.toMatchObject({
      code: 'writes_refused',
      message: expect.stringContaining('(OOM). Nothing was recorded'),
    });
    expect((await bed.reelhaul.list()).generations).toEqual([]);
  });
});
