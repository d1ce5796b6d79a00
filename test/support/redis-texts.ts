/** Every text that Redis holds under a prefix, keys included, with packed ones unpacked. */
import type { Redis } from 'ioredis';
import { unpack } from '../../src/store/compression.js';

async function valuesOf(redis: Redis, key: string): Promise<string[]> {
  switch (await redis.type(key)) {
    case 'string':
      return [(await redis.get(key)) ?? ''];
    case 'hash':
      return Object.entries(await redis.hgetall(key)).flat();
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, '-inf', '+inf', 'BYSCORE');
    case 'stream':
      return (await redis.xrange(key, '-', '+')).flatMap(([, fields]) => fields);
    default:
      return [];
  }
}

export async function textsIn(redis: Redis, prefix: string): Promise<string[]> {
  const texts: string[] = [];
  let cursor = '0';
  do {
    const [next, keys] = await redis.scan(cursor, 'MATCH', `${prefix}:*`, 'COUNT', 1000);
    for (const key of keys) texts.push(key, ...(await valuesOf(redis, key)).map(unpack));
    cursor = next;
  } while (cursor !== '0');
  return texts;
}
