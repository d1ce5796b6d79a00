/** The ways in which a Redis that answers refuses writes, each with its end. */
import { rm } from 'node:fs/promises';
import type { Redis } from 'ioredis';
import { until } from './until.js';

export interface Refusal {
  /** The first word of what Redis says. */
  readonly code: string;
  readonly begin: (redis: Redis) => Promise<unknown>;
  readonly end: (redis: Redis) => Promise<unknown>;
}

export const REFUSALS: readonly Refusal[] = [
  {
    code: 'OOM',
    begin: (redis) => redis.config('SET', 'maxmemory', '1'),
    end: (redis) => redis.config('SET', 'maxmemory', '0'),
  },
  {
    code: 'NOREPLICAS',
    begin: (redis) => redis.config('SET', 'min-replicas-to-write', '1'),
    end: (redis) => redis.config('SET', 'min-replicas-to-write', '0'),
  },
  {
    code: 'READONLY',
    begin: (redis) => redis.call('REPLICAOF', '127.0.0.1', '9'),
    end: (redis) => redis.call('REPLICAOF', 'NO', 'ONE'),
  },
  {
    code: 'MISCONF',
    async begin(redis) {
      // A disk that takes no snapshot: the server's directory is gone.
      await redis.config('SET', 'save', '3600 1');
      const [, directory = ''] = await redis.config('GET', 'dir');
      await rm(directory, { recursive: true });
      await redis.bgsave();
      const failed = async () => (await redis.info('persistence')).includes('last_bgsave_status:err');
      await until(failed, 'the snapshot to fail');
    },
    end: (redis) => redis.config('SET', 'stop-writes-on-bgsave-error', 'no'),
  },
];
