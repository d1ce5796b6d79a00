import { expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { gatherWrites } from '../../src/redis/redis-writes.js';
import { redisUrl } from '../support/testbed.js';

test('what one turn writes goes out in one piece, in order, with an answer for each', async () => {
  const redis = new Redis(redisUrl(), { lazyConnect: true });
  gatherWrites(redis);
  await redis.connect();
  const pieces: number[] = [];
  const { stream } = redis;
  const writev = stream._writev!.bind(stream);
  stream._writev = (chunks, done) => {
    pieces.push(chunks.length);
    writev(chunks, done);
  };
  const answers = await Promise.allSettled([redis.ping('one'), redis.call('NOSUCH'), redis.ping('two')]);
  expect(answers).toMatchObject([
    { status: 'fulfilled', value: 'one' },
    { status: 'rejected' },
    { status: 'fulfilled', value: 'two' },
  ]);
  expect(pieces).toEqual([3]);
  await redis.quit();
});
