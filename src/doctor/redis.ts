/** The doctor's look at Redis: what it is, whether it keeps what it is given, and whether workers are at work on it. */
import type { Logger } from 'pino';
import type { Config } from '../config.js';
import { createKeys } from '../generation/keys.js';
import { prefixesOf, shardPrefix } from '../generation/shard.js';
import { checkRedis, connectRedis, describeRedis, type RedisConnection } from '../redis.js';
import { shardsProblem } from '../shards.js';
import { failed, ok, reasonOf, warning, type Finding } from './finding.js';

const MAX_CLOCK_SKEW_MS = 1000;
const MEMORY_WARNING_SHARE = 0.8;
/** A sweep comes every interval; several missed ones mean that no worker runs. */
const SWEEP_LATE_FACTOR = 10;

/** A field of INFO; empty where the server does not tell. */
type Field = (name: string) => string;

export async function examineRedis(config: Config, log: Logger): Promise<Finding[]> {
  let redis: RedisConnection;
  try {
    redis = await connectRedis(config, 'producer', log);
  } catch (error) {
    return [failed('Redis', reasonOf(error))];
  }
  try {
    const clock = await examineClock(redis);
    const info = await redis.info();
    const field: Field = (name) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? '';
    return [
      await examineServer(redis, config, field),
      examineEviction(field),
      await examinePersistence(redis, field),
      ...examineReplicas(config, field),
      clock,
      examineMemory(field),
      ...(await examineShards(redis, config)),
      await examineSweep(redis, config),
    ];
  } catch (error) {
    return [failed('Redis', reasonOf(error))];
  } finally {
    redis.disconnect();
  }
}

async function examineServer(redis: RedisConnection, config: Config, field: Field): Promise<Finding> {
  try {
    await checkRedis(redis, prefixesOf(config.REDIS_PREFIX, config.REDIS_SHARDS));
    return ok('Redis', `${describeRedis(config)}: version ${field('redis_version')}, took a write`);
  } catch (error) {
    return failed('Redis', reasonOf(error));
  }
}

function examineEviction(field: Field): Finding {
  const policy = field('maxmemory_policy');
  if (policy === '') return warning('eviction', 'the server does not tell. See that it is noeviction.');
  if (policy === 'noeviction') return ok('eviction', policy);
  return failed('eviction', `${policy} may throw paid generations away. Set maxmemory-policy noeviction.`);
}

async function examinePersistence(redis: RedisConnection, field: Field): Promise<Finding> {
  if (field('aof_enabled') !== '1') {
    return warning(
      'persistence',
      'the append-only file is off: a restart forgets generations that are paid for. Set appendonly yes.',
    );
  }
  if (field('aof_last_write_status') === 'err') {
    return failed(
      'persistence',
      'the append-only file could not be written the last time. Look at the disk of Redis.',
    );
  }
  // Managed servers may refuse the question.
  const answer = await redis.call('CONFIG', 'GET', 'appendfsync').catch(() => []);
  const [, fsync = ''] = answer as string[];
  const loses: Record<string, string> = {
    always: 'a crash loses nothing',
    everysec: 'a power loss can lose the last second; reelhaul brings back what it posted in it',
    no: 'a power loss can lose half a minute',
  };
  const known = loses[fsync];
  const message = `the append-only file is on${known ? `, appendfsync ${fsync}: ${known}` : ''}`;
  return fsync === 'no'
    ? warning('persistence', `${message}. Set appendfsync everysec.`)
    : ok('persistence', message);
}

function examineReplicas({ LEDGER_WAIT_REPLICAS: wanted }: Config, field: Field): Finding[] {
  const connected = Number(field('connected_slaves') || 0);
  if (wanted === 0) return [];
  if (connected >= wanted) return [ok('replicas', `${connected} follow, ${wanted} are waited for`)];
  return [
    failed(
      'replicas',
      `LEDGER_WAIT_REPLICAS=${wanted}, and ${connected} follow: no submit will leave. Start them, or lower it.`,
    ),
  ];
}

async function examineClock(redis: RedisConnection): Promise<Finding> {
  const askedAt = Date.now();
  const [seconds, microseconds] = await redis.time();
  const answeredAt = Date.now();
  const skewMs = Math.round(
    Number(seconds) * 1000 + Number(microseconds) / 1000 - (askedAt + answeredAt) / 2,
  );
  if (Math.abs(skewMs) <= MAX_CLOCK_SKEW_MS) {
    return ok('clock', `${skewMs} ms beside that of Redis, which answered in ${answeredAt - askedAt} ms`);
  }
  return warning('clock', `${skewMs} ms beside that of Redis: delays and deadlines shift by that. Use NTP.`);
}

function examineMemory(field: Field): Finding {
  const used = Number(field('used_memory'));
  const limit = Number(field('maxmemory'));
  const megabytes = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;
  if (limit === 0) return ok('memory', `${megabytes(used)} used, no maxmemory set`);
  const memory = `${megabytes(used)} of ${megabytes(limit)} used`;
  if (used / limit <= MEMORY_WARNING_SHARE) return ok('memory', memory);
  return warning(
    'memory',
    `${memory}: when it is full, Redis refuses writes. Raise maxmemory or lower RETENTION_MS.`,
  );
}

/** One shard, where nothing says otherwise, is not worth a line. */
async function examineShards(redis: RedisConnection, config: Config): Promise<Finding[]> {
  const problem = await shardsProblem(redis, config);
  if (problem !== null) return [failed('shards', problem)];
  return config.REDIS_SHARDS === 1
    ? []
    : [ok('shards', `generations are spread over ${config.REDIS_SHARDS}`)];
}

/** Whether workers are at work shows by the sweep, which any of them does. */
async function examineSweep(redis: RedisConnection, config: Config): Promise<Finding> {
  const { REDIS_PREFIX, REDIS_SHARDS } = config;
  const times = await Promise.all(
    Array.from({ length: REDIS_SHARDS }, (_, shard) =>
      redis.get(createKeys(shardPrefix(REDIS_PREFIX, shard, REDIS_SHARDS)).swept),
    ),
  );
  // Of several shards, where it is longest ago.
  const sweptAt = times.includes(null) ? null : Math.min(...times.map(Number));
  if (sweptAt === null) return ok('workers', `none has finished a sweep under ${config.REDIS_PREFIX} yet`);
  const agoMs = Date.now() - sweptAt;
  const message = `the last sweep ended ${Math.round(agoMs / 1000)} s ago`;
  return agoMs <= SWEEP_LATE_FACTOR * config.SWEEP_INTERVAL_MS
    ? ok('workers', message)
    : warning('workers', `${message}: no worker seems to run. Start one: reelhaul worker.`);
}
