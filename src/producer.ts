/** Opens the library for an app: from a URL, from the environment, or on a connection the app has already. */
import { pino, type Logger } from 'pino';
import { readConfig, type Config } from './config.js';
import { createHub } from './hub.js';
import { checkRedis, connectRedis, duplicatePatiently, type RedisConnection } from './redis.js';
import { checkShards } from './shards.js';
import { openActiveTrace } from './telemetry/active-trace.js';
import { startFigures } from './telemetry/figures.js';
import { createReelhaulOn, type Reelhaul } from './reelhaul.js';

export interface CreateReelhaulOptions {
  /** A URL, or an ioredis instance (`Redis` or `Cluster`) that stays the app's own. Default: `REDIS_URL`. */
  readonly redis?: string | RedisConnection | undefined;
  /** Key prefix with one hash tag. Default: `REDIS_PREFIX`, `{reelhaul}`. */
  readonly prefix?: string | undefined;
  /** Where log lines go. Default: nowhere. */
  readonly log?: Logger | undefined;
  /** A configuration that was read already; overrides the environment. */
  readonly config?: Config | undefined;
}

/**
 * Connects and checks Redis.
 * @throws ConfigError or RedisUnusableError
 */
export async function createReelhaul(options: CreateReelhaulOptions = {}): Promise<Reelhaul> {
  const { redis: given, prefix, log = pino({ level: 'silent' }) } = options;
  const config =
    options.config ??
    readConfig({
      ...process.env,
      // An address that the app gives is where Redis is, whatever else the environment names.
      ...(typeof given === 'string'
        ? { REDIS_URL: given, REDIS_SENTINELS: '', REDIS_CLUSTER_NODES: '' }
        : {}),
      ...(prefix === undefined ? {} : { REDIS_PREFIX: prefix }),
    });
  const redis = typeof given === 'object' ? given : await connectRedis(config, 'producer', log);
  const release = async () => {
    if (redis !== given) redis.disconnect();
  };
  try {
    await checkRedis(redis);
    await checkShards(redis, config);
  } catch (error) {
    await release();
    throw error;
  }
  const openReader = () =>
    typeof given === 'object'
      ? Promise.resolve(duplicatePatiently(given))
      : connectRedis(config, 'worker', log);
  const hub = createHub({ config, log, redis, activeTrace: await openActiveTrace() });
  // What an app cancels or decides is an end like those that workers see.
  const figures = startFigures({
    redis,
    keys: hub.store.keys,
    moves: hub.moves,
    onError: (error) => log.warn({ err: error }, 'figures could not be written yet'),
  });
  return createReelhaulOn(hub, openReader, async () => {
    await figures.close();
    await release();
  });
}
