/**
 * Connections to Redis, alone or behind Sentinel, and the check that this Redis can be trusted with jobs. Who opens a
 * connection here closes it.
 *
 * What a connection promises: an outage is one line in the log and one when it is over, however often it is tried in
 * between; and a server that refuses writes says so to whoever wrote, it is never tried again in silence.
 */
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { RedisUnusableError } from './errors.js';

/** BullMQ's own minimum is lower; 6.2 is what the scripts and `ZRANGE … BYLEX REV LIMIT` here need. */
const MIN_VERSION = [6, 2] as const;

/** How a connection meets an outage: a worker waits for Redis to come back, a producer tells its caller at once. */
export type RedisRole = 'worker' | 'producer';

export interface RedisSettings {
  /** Behind Sentinel its host and port are not used; user, password, database and TLS are. */
  readonly REDIS_URL: string;
  readonly REDIS_SENTINELS: readonly { readonly host: string; readonly port: number }[];
  readonly REDIS_SENTINEL_NAME: string;
  readonly REDIS_SENTINEL_PASSWORD: string;
}

const CONNECT_TIMEOUT_MS = 10_000;
/** A peer that vanished without a word (power, network) is noticed after this plus ten probes, one per second. */
const KEEP_ALIVE_MS = 10_000;
const MAX_RETRY_MS = 2000;
/** A new master, an old one that is a replica now, or one that still reads its files: connect again and look. */
const ANOTHER_SERVER = /^(?:READONLY|LOADING|MASTERDOWN)|-READONLY /;

const retryDelayMs = (times: number) => Math.min(50 * 2 ** Math.min(times, 6), MAX_RETRY_MS);

function optionsFor(role: RedisRole) {
  return {
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    // 1: the command is rejected and the connection made anew. Sending the command again (2) would go on for as long as
    // the server refuses, without a word; and a producer, which has no offline queue, would get a riddle for an error.
    reconnectOnError: (error: Error) => (ANOTHER_SERVER.test(error.message) ? 1 : false),
    ...(role === 'worker'
      ? { maxRetriesPerRequest: null }
      : { maxRetriesPerRequest: 1, enableOfflineQueue: false }),
  };
}

function sentinelOptions(settings: RedisSettings) {
  const { protocol, username, password, pathname } = new URL(settings.REDIS_URL);
  const database = Number(pathname.slice(1));
  const tls = protocol === 'rediss:' ? { tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true } : {};
  return {
    sentinels: settings.REDIS_SENTINELS.map(({ host, port }) => ({ host, port })),
    name: settings.REDIS_SENTINEL_NAME,
    // A master that hangs keeps its connections open: only Sentinel's own word gets them off it.
    failoverDetector: true,
    ...(username ? { username: decodeURIComponent(username) } : {}),
    ...(password ? { password: decodeURIComponent(password) } : {}),
    ...(settings.REDIS_SENTINEL_PASSWORD ? { sentinelPassword: settings.REDIS_SENTINEL_PASSWORD } : {}),
    ...(database > 0 ? { db: database } : {}),
    ...tls,
  };
}

/** Where Redis is, without user and password, for messages. */
export function describeRedis({ REDIS_URL, REDIS_SENTINELS, REDIS_SENTINEL_NAME }: RedisSettings): string {
  if (REDIS_SENTINELS.length > 0) {
    const sentinels = REDIS_SENTINELS.map(({ host, port }) => `${host}:${port}`).join(',');
    return `The Redis master ${REDIS_SENTINEL_NAME} of the Sentinels ${sentinels}`;
  }
  const { protocol, host, pathname } = new URL(REDIS_URL);
  return `Redis at ${protocol}//${host}${pathname === '/' ? '' : pathname}`;
}

/**
 * Is this error only an echo of an outage that the connection reports itself? BullMQ hands every failed try of every
 * connection to every queue and worker: without this one outage is hundreds of lines.
 */
export function isEchoOfOutage(redis: Redis, error: Error): boolean {
  return redis.status !== 'ready' || 'syscall' in error;
}

/** Redis answers, but takes no writes now. The first word of such an error is its code. */
const REFUSAL = /^(?:OOM|READONLY|NOREPLICAS|MISCONF|LOADING|MASTERDOWN)(?= )/;

/** Why Redis refused a command that asks nothing unusual of it, such as `OOM`; null when this is another error. */
export function refusalOf(error: Error): string | null {
  return REFUSAL.exec(error.message)?.[0] ?? null;
}

/**
 * Opens a connection and waits until it answers.
 * @throws RedisUnusableError when it cannot be reached now.
 */
export async function connectRedis(
  settings: RedisSettings,
  role: RedisRole,
  log: Pick<Logger, 'warn'>,
): Promise<Redis> {
  // While connecting for the first time there is no retry: the first failure is the answer.
  let connected = false;
  let lastError: Error | undefined;
  let lostAt: number | null = null;
  const options = {
    ...optionsFor(role),
    retryStrategy: (times: number) => (connected ? retryDelayMs(times) : null),
    sentinelRetryStrategy: (times: number) => (connected ? retryDelayMs(times) : null),
  };
  const behindSentinel = settings.REDIS_SENTINELS.length > 0;
  const redis = behindSentinel
    ? new Redis({ ...options, ...sentinelOptions(settings) })
    : new Redis(settings.REDIS_URL, options);
  redis.on('error', (error: Error) => {
    lastError = error;
    if (!connected || lostAt !== null) return;
    lostAt = Date.now();
    log.warn({ err: error }, 'the connection to Redis failed; it is tried again until it is back');
  });
  redis.on('ready', () => {
    if (lostAt !== null) log.warn({ outageMs: Date.now() - lostAt }, 'Redis is back');
    lostAt = null;
  });
  try {
    await redis.connect();
  } catch (error) {
    redis.disconnect();
    throw unreachable(settings, lastError ?? error);
  }
  connected = true;
  await checkDatabase(redis, settings);
  return redis;
}

/** What to do depends on what was met: no server, one that does not know us, or something else altogether. */
function unreachable(settings: RedisSettings, cause: unknown): RedisUnusableError {
  const said = cause instanceof Error ? cause.message || cause.name : String(cause);
  let advice =
    'Start one (apt install redis-server, brew install redis, or docker compose up redis) or set REDIS_URL.';
  if (/^(NOAUTH|WRONGPASS|NOPERM)/.test(said)) advice = 'Check user and password in REDIS_URL.';
  else if (/RESP type/.test(said)) advice = 'What answers there is not a Redis. Check REDIS_URL.';
  else if (settings.REDIS_SENTINELS.length > 0) {
    advice = 'Check REDIS_SENTINELS and REDIS_SENTINEL_NAME, and that one of them knows a master.';
  }
  const message = `${describeRedis(settings)} cannot be used: ${said.replace(/\.+$/, '')}. ${advice}`;
  return new RedisUnusableError(message, { cause });
}

/** A database that the server does not have leaves the connection in database 0, without a word. */
async function checkDatabase(redis: Redis, settings: RedisSettings): Promise<void> {
  const wanted = Number(new URL(settings.REDIS_URL).pathname.slice(1) || 0);
  if (wanted === 0) return;
  const got = await redis.client('INFO').then(
    (info) => /\bdb=(\d+)/.exec(info)?.[1],
    // Older than the command, which is said by the check of the version.
    () => undefined,
  );
  if (got === undefined || Number(got) === wanted) return;
  redis.disconnect();
  throw new RedisUnusableError(`${describeRedis(settings)} has no database ${wanted}. Check REDIS_URL.`);
}

/**
 * Checks version, eviction policy and role, and with a prefix also that it takes writes just now.
 * @throws RedisUnusableError naming every problem. What a server does not tell (managed ones may not) is not a problem.
 */
export async function checkRedis(redis: Redis, prefix?: string): Promise<void> {
  const sections = await Promise.all(
    ['server', 'memory', 'replication'].map((section) => redis.info(section)),
  );
  const info = sections.join('\r\n');
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
  const isReplica = field('role') === 'slave';
  if (isReplica) {
    const master = `${field('master_host') ?? '?'}:${field('master_port') ?? '?'}`;
    problems.push(
      `expected a master, got a replica of ${master}: set REDIS_URL to the master, or REDIS_SENTINELS to follow it`,
    );
  }
  if (prefix !== undefined && !isReplica) problems.push(...(await writeProblems(redis, prefix)));
  if (problems.length > 0) throw new RedisUnusableError(`This Redis cannot be used: ${problems.join('; ')}.`);
}

/** Out of memory, a full disk, too few replicas, no permission: the server's own words are the best there are. */
async function writeProblems(redis: Redis, prefix: string): Promise<string[]> {
  try {
    await redis.set(`${prefix}:probe`, '1', 'PX', 1);
    return [];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return [`expected it to take writes, got: ${message.replace(/\.$/, '')}`];
  }
}
