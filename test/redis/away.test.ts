/** Redis is away for a moment, or turns clients away. */
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { RedisAwayError } from '../../src/errors.js';
import { createReelhaul, type Reelhaul } from '../../src/reelhaul.js';
import { connectRedis } from '../../src/redis/connect.js';
import { createTestbed, image, realRedis, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const log = pino({ level: 'silent' });
let bed: Testbed;
let server: LaunchedRedis;
let reelhaul: Reelhaul | null = null;

afterEach(async () => {
  await reelhaul?.close();
  reelhaul = null;
  await bed.close();
  await server.stop();
});

(realRedis ? describe : describe.skip)('with a Redis of its own', () => {
  test('an enqueue waits for a connection that was dropped while the process was frozen', async () => {
    server = await launchRedis();
    bed = await createTestbed({ redisUrl: server.url });
    const redis = await connectRedis(bed.config, 'producer', log);
    reelhaul = await createReelhaul({ config: bed.config, redis });
    for (let i = 0; i < 6; i += 1) {
      await bed.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await until(() => redis.status !== 'ready', 'the connection to be gone');
      expect((await reelhaul.enqueue({ prompt: 'thawed', image })).state).toBe('queued');
    }
    expect((await reelhaul.list()).generations).toHaveLength(6);
    await reelhaul.close();
    reelhaul = null;
    redis.disconnect();
  });

  test('while Redis is down, an enqueue says that nothing was recorded', async () => {
    server = await launchRedis();
    bed = await createTestbed({ redisUrl: server.url });
    const redis = await connectRedis(bed.config, 'producer', log);
    reelhaul = await createReelhaul({ config: bed.config, redis });
    await server.kill();
    await until(() => redis.status !== 'ready', 'the connection to be gone');
    await expect(reelhaul.enqueue({ prompt: 'lost', image })).rejects.toThrow(RedisAwayError);
    await server.start();
    await until(() => redis.status === 'ready', 'the connection to be back');
    expect((await reelhaul.list()).generations).toHaveLength(0);
    await reelhaul.close();
    reelhaul = null;
    redis.disconnect();
  });

  test('a server that has too many clients is told in its own words', async () => {
    server = await launchRedis();
    bed = await createTestbed({ redisUrl: server.url });
    await bed.redis.config('SET', 'maxclients', '1');
    await expect(connectRedis(bed.config, 'worker', log)).rejects.toThrow(
      /cannot be used: ERR max number of clients reached\. Raise its maxclients/,
    );
    await bed.redis.config('SET', 'maxclients', '1000');
  });
});
