/**
 * Connections to Redis, and the check that this Redis can be trusted with jobs. Who opens a connection here closes it.
 */
import { Redis } from 'ioredis';
import { RedisUnusableError } from './errors.js';

/** BullMQ's own minimum is lower; 6.2 is what the scripts and `ZRANGE … BYLEX REV LIMIT` here need. */
const MIN_VERSION = [6, 2] as const;

/** How a connection meets an outage: a worker waits for Redis to come back, a producer tells its caller at once. */
export type RedisRole = 'worker' | 'producer';

const CONNECT_TIMEOUT_MS = 10_000;

function optionsFor(role: RedisRole) {
  return {
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    retryStrategy: (times: number) => Math.min(50 * 2 ** Math.min(times, 6), 2000),
    // A replica promoted by a failover, or a demoted master that still answers: drop the connection and send again.
    reconnectOnError: (error: Error) =>
      /^(READONLY|LOADING|MASTERDOWN)/.test(error.message) ? (2 as const) : false,
    ...(role === 'worker'
      ? { maxRetriesPerRequest: null }
      : { maxRetriesPerRequest: 1, enableOfflineQueue: false }),
  };
}

/** The address without user and password, for messages. */
export function describeRedisUrl(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname === '/' ? '' : pathname}`;
}

/**
 * Opens a connection and waits until it answers.
 * @param onError what to do with later connection errors; ioredis goes on trying by itself.
 * @throws RedisUnusableError when it cannot be reached now.
 */
export async function connectRedis(
  url: string,
  role: RedisRole,
  onError: (error: Error) => void,
): Promise<Redis> {
  // While connecting for the first time there is no retry: the first failure is the answer.
  let connected = false;
  let lastError: Error | undefined;
  const options = optionsFor(role);
  const redis = new Redis(url, {
    ...options,
    retryStrategy: (times: number) => (connected ? options.retryStrategy(times) : null),
  });
  redis.on('error', (error: Error) => {
    lastError = error;
    if (connected) onError(error);
  });
  try {
    await redis.connect();
  } catch (error) {
    redis.disconnect();
    const cause = lastError ?? error;
    throw new RedisUnusableError(
      `Redis at ${describeRedisUrl(url)} cannot be reached: ${cause instanceof Error ? cause.message || cause.name : String(cause)}. ` +
        'Start one (apt install redis-server, brew install redis, or docker compose up redis) or set REDIS_URL.',
      { cause: error },
    );
  }
  connected = true;
  return redis;
}

/**
 * Checks version and eviction policy.
 * @throws RedisUnusableError naming every problem. What a server does not tell (managed ones may not) is not a problem.
 */
export async function checkRedis(redis: Redis): Promise<void> {
  const info = `${await redis.info('server')}\r\n${await redis.info('memory')}`;
  const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
  const problems: string[] = [];

  const version = field('redis_version');
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
  if (version && (major < MIN_VERSION[0] || (major === MIN_VERSION[0] && minor < MIN_VERSION[1]))) {
    problems.push(`expected version ${MIN_VERSION.join('.')} or later, got ${version}`);
  }
  const policy = field('maxmemory_policy');
  if (policy && policy !== 'noeviction') {
    problems.push(`expected maxmemory-policy noeviction (any other may throw jobs away), got ${policy}`);
  }
  if (problems.length > 0) throw new RedisUnusableError(`This Redis cannot be used: ${problems.join('; ')}.`);
}
