/**
 * Connections to Redis (one server, a master behind Sentinels, a Cluster), and the check that this Redis can be trusted
 * with jobs. The caller that opens a connection here closes it.
 *
 * What a connection promises: an outage is one line in the log and one when it is over, however often it is tried in
 * between; and a server that refuses writes says so to the caller of the write, which is never tried again silently.
 */
import { Cluster, Redis } from 'ioredis';
import type { Logger } from 'pino';
import { RedisUnusableError } from '../errors.js';
import { databaseOf, describeRedis, kindOf, tlsOf, type RedisSettings } from './address.js';
import {
  clusterOptions,
  optionsFor,
  retryDelayMs,
  sentinelOptions,
  TOGETHER,
  type RedisRole,
} from './options.js';
import { SILENT, turnedAway, unreachable } from './unreachable.js';

export { describeRedis, type RedisSettings } from './address.js';

/** One server (or the master that Sentinels name), or a Cluster: what is built on it need not know which. */
export type RedisConnection = Redis | Cluster;

/**
 * Mends one thing: when a Cluster is closed while it asks which node serves which slots, ioredis keeps asking once a
 * second for ever, and the process never ends.
 */
function steady(cluster: Cluster): Cluster {
  const refresh = cluster.refreshSlotsCache.bind(cluster);
  const duplicate = cluster.duplicate.bind(cluster);
  cluster.refreshSlotsCache = (callback) => {
    if (!['close', 'end', 'disconnecting'].includes(cluster.status)) return refresh(callback);
    // The timer has run out; unless that is said, none would be set after a reconnect.
    (cluster as unknown as { slotsTimer: null }).slotsTimer = null;
  };
  cluster.duplicate = (...how: Parameters<typeof duplicate>) => steady(duplicate(...how));
  return cluster;
}

/** By what it says of itself: an app may hand in one that another copy of ioredis made. */
export const isCluster = (redis: RedisConnection): redis is Cluster => redis.isCluster;

/** A further connection to the same place that waits for Redis as long as it takes: for reading events. */
export function duplicatePatiently(redis: RedisConnection): RedisConnection {
  const patient = { maxRetriesPerRequest: null };
  if (!isCluster(redis)) return redis.duplicate({ ...patient, enableOfflineQueue: true });
  return redis.duplicate([], { enableOfflineQueue: true, redisOptions: patient });
}

/** A further connection to the same place on which a command whose answer was lost is never sent again by itself. */
export function duplicateOnce(redis: RedisConnection): RedisConnection {
  const once = { maxRetriesPerRequest: 0, autoResendUnfulfilledCommands: false };
  return isCluster(redis) ? redis.duplicate([], { redisOptions: once }) : redis.duplicate(once);
}

/**
 * A server that hangs still takes connections: its kernel does. At the first connection so long a silence is an answer;
 * longer than a TLS handshake may take, of which more is known.
 */
const SILENCE_MS = 12_000;

/** What commands of a Cluster fail with while a node is away; the Cluster itself stays `ready`. */
const CLUSTER_OUTAGE =
  /^(?:CLUSTERDOWN|Connection is closed|Too many Cluster redirections|Failed to refresh slots)/;

/**
 * Is this error only an echo of an outage that the connection reports itself? BullMQ hands every failed try of every
 * connection to every queue and worker: without this one outage is hundreds of lines.
 */
export function isEchoOfOutage(redis: RedisConnection, error: Error): boolean {
  return (
    redis.status !== 'ready' || 'syscall' in error || (isCluster(redis) && CLUSTER_OUTAGE.test(error.message))
  );
}

/** Redis answers, but takes no writes now. The first word of such an error is its code. */
const REFUSAL = /^(?:OOM|READONLY|NOREPLICAS|MISCONF|LOADING|MASTERDOWN)(?= )/;

/** Why Redis refused a command that asks nothing unusual of it, such as `OOM`; null when this is another error. */
export function refusalOf(error: Error): string | null {
  return REFUSAL.exec(error.message)?.[0] ?? null;
}

/**
 * A node that failed is back when it answers, or when another serves in its place: the list of nodes, which is refreshed
 * every second, then leaves it out.
 */
function watchNodes(redis: Cluster, lost: (error: Error) => void, back: () => void): void {
  const failed = new Set<string>();
  redis.on('node error', (error: Error, key: string) => {
    failed.add(key);
    lost(error);
  });
  redis.on('refresh', () => {
    const nodes = new Map(redis.nodes().map((node) => [`${node.options.host}:${node.options.port}`, node]));
    for (const key of failed) {
      const node = nodes.get(key);
      if (!node || node.status === 'ready') failed.delete(key);
      // Nodes are connected to when they are needed; this one is asked now whether it is there again.
      else if (node.status === 'wait') node.connect().catch(() => {});
    }
    if (failed.size === 0) back();
  });
}

/** One line when it is lost, one when it is back. */
function reportOutages(redis: RedisConnection, log: Pick<Logger, 'warn'>) {
  let reporting = false;
  let lostAt: number | null = null;
  let lastError: Error | undefined;
  const lost = (error: Error) => {
    // Of a Cluster: that no node could be asked, which says less than what the last one said.
    lastError =
      'lastNodeError' in error && error.lastNodeError instanceof Error ? error.lastNodeError : error;
    if (!reporting || lostAt !== null) return;
    lostAt = Date.now();
    log.warn({ err: error }, 'the connection to Redis failed; it is tried again until it is back');
  };
  const back = () => {
    if (lostAt !== null) log.warn({ outageMs: Date.now() - lostAt }, 'Redis is back');
    lostAt = null;
  };
  redis.on('error', lost);
  redis.on('ready', back);
  if (isCluster(redis)) watchNodes(redis, lost, back);
  return {
    start: () => void (reporting = true),
    lastError: () => lastError,
  };
}

/**
 * Opens a connection and waits until it answers.
 * @throws RedisUnusableError when it cannot be reached now, or a file for TLS cannot be read.
 */
export async function connectRedis(
  settings: RedisSettings,
  role: RedisRole,
  log: Pick<Logger, 'warn'>,
): Promise<RedisConnection> {
  // While connecting for the first time there is no retry: the first failure is the answer.
  let connected = false;
  const retry = (times: number) => (connected ? retryDelayMs(times) : null);
  const redis = await open(settings, role, retry);
  const outages = reportOutages(redis, log);
  try {
    await firstConnect(redis);
  } catch (error) {
    redis.disconnect();
    const cause = outages.lastError() ?? error;
    throw unreachable(settings, (await turnedAway(settings)) ?? cause);
  }
  connected = true;
  outages.start();
  if (!isCluster(redis)) await checkDatabase(redis, settings);
  return redis;
}

async function open(
  settings: RedisSettings,
  role: RedisRole,
  retry: (times: number) => number | null,
): Promise<RedisConnection> {
  const tls = await tlsOf(settings);
  const options = { ...optionsFor(role), retryStrategy: retry, sentinelRetryStrategy: retry };
  switch (kindOf(settings)) {
    case 'cluster':
      return steady(
        new Cluster([...settings.REDIS_CLUSTER_NODES], clusterOptions(role, settings, tls, retry)),
      );
    case 'sentinel':
      return new Redis({ ...options, ...TOGETHER, ...sentinelOptions(settings, tls) });
    case 'server':
      return new Redis(settings.REDIS_URL, { ...options, ...TOGETHER, ...(tls ? { tls } : {}) });
  }
}

async function firstConnect(redis: RedisConnection): Promise<void> {
  if (!isCluster(redis)) return connectUnlessSilent(redis);
  // ioredis leaves the promise of `connect` open when the nodes answer but the Cluster as a whole is down.
  let ended = () => {};
  const down = new Promise<never>((_, reject) => {
    ended = () => reject(new Error('it is down: not every slot has a master (see CLUSTER INFO)'));
  });
  redis.once('end', ended);
  try {
    await Promise.race([redis.connect(), down]);
    // Now rather than with the first command: a producer's would fail while its node is only being connected to.
    await Promise.all(redis.nodes('master').map((node) => node.ping()));
  } finally {
    redis.off('end', ended);
  }
}

/**
 * Connects, unless the server sends nothing for too long: a process that starts would wait without a message, and could not be
 * stopped. A server that still reads its files does answer, namely that it does, and is waited for.
 */
async function connectUnlessSilent(redis: Redis): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const silent = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      const { stream } = redis as unknown as { stream?: { bytesRead: number } };
      if ((stream?.bytesRead ?? 0) === 0) reject(new Error(`${SILENT} for ${SILENCE_MS / 1000} s`));
    }, SILENCE_MS);
  });
  try {
    await Promise.race([redis.connect(), silent]);
  } finally {
    clearInterval(timer);
  }
}

/** A database that the server does not have leaves the connection in database 0, without an error. */
async function checkDatabase(redis: Redis, settings: RedisSettings): Promise<void> {
  const wanted = databaseOf(settings);
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
