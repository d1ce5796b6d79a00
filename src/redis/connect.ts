/**
 * Connections to Redis (one server, a master behind Sentinels, a Cluster), and the check that this Redis can be trusted
 * with jobs. Who opens a connection here closes it.
 *
 * What a connection promises: an outage is one line in the log and one when it is over, however often it is tried in
 * between; and a server that refuses writes says so to whoever wrote, it is never tried again in silence.
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { Cluster, Redis } from 'ioredis';
import type { Logger } from 'pino';
import { RedisUnusableError } from '../errors.js';
import {
  databaseOf,
  describeRedis,
  kindOf,
  loginOf,
  tlsOf,
  type RedisSettings,
  type TlsMaterial,
} from './address.js';
import { sentinelBehaviour } from './sentinel-fixes.js';

export { describeRedis, type RedisSettings } from './address.js';

/** One server (or the master that Sentinels name), or a Cluster: what is built on it need not know which. */
export type RedisConnection = Redis | Cluster;

/**
 * Mends one thing: when a Cluster is closed while it asks who serves which slots, ioredis goes on asking nobody once a
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

/** BullMQ's own minimum is lower; 6.2 is what the scripts and `ZRANGE … BYLEX REV LIMIT` here need. */
const MIN_VERSION = [6, 2] as const;

/** How a connection meets an outage: a worker waits for Redis to come back, a producer tells its caller at once. */
export type RedisRole = 'worker' | 'producer';

const CONNECT_TIMEOUT_MS = 10_000;
/**
 * A server that hangs still takes connections: its kernel does. At the first connection so long a silence is an answer;
 * longer than a TLS handshake may take, of which more is known.
 */
const SILENCE_MS = 12_000;
const SILENT = 'it takes connections and has not answered';
/** A peer that vanished without a word (power, network) is noticed after this plus ten probes, one per second. */
const KEEP_ALIVE_MS = 10_000;
const MAX_RETRY_MS = 2000;
/** A connection that is given up ends within this; ioredis waits 2 s even for one that is closed already. */
const DISCONNECT_TIMEOUT_MS = 100;
/** A new master, an old one that is a replica now, or one that still reads its files: connect again and look. */
const ANOTHER_SERVER = /^(?:READONLY|LOADING|MASTERDOWN)|-READONLY /;

/**
 * Commands of one turn of the event loop leave in one write: a third less CPU in Redis under load. Not for a Cluster, where
 * ioredis would fail all that one redirection met.
 */
const TOGETHER = { enableAutoPipelining: true };

const retryDelayMs = (times: number) => Math.min(50 * 2 ** Math.min(times, 6), MAX_RETRY_MS);

function optionsFor(role: RedisRole) {
  return {
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    // 1: the command is rejected and the connection made anew. Sending the command again (2) would go on for as long as
    // the server refuses, without a word; and a producer, which has no offline queue, would get a riddle for an error.
    reconnectOnError: (error: Error) => (ANOTHER_SERVER.test(error.message) ? 1 : false),
    maxRetriesPerRequest: role === 'worker' ? null : 1,
    enableOfflineQueue: role === 'worker',
  };
}

function sentinelOptions(settings: RedisSettings, tls: TlsMaterial | null) {
  const database = databaseOf(settings);
  return {
    sentinels: settings.REDIS_SENTINELS.map(({ host, port }) => ({ host, port })),
    name: settings.REDIS_SENTINEL_NAME,
    ...sentinelBehaviour,
    ...loginOf(settings),
    ...(settings.REDIS_SENTINEL_PASSWORD ? { sentinelPassword: settings.REDIS_SENTINEL_PASSWORD } : {}),
    ...(database > 0 ? { db: database } : {}),
    ...(tls ? { tls, sentinelTLS: tls, enableTLSForSentinelMode: true } : {}),
  };
}

/** How often a Cluster is asked who serves which slots: only that takes connections off a master that hangs. */
const SLOTS_REFRESH_MS = 1000;
/** Before a command is sent again to a Cluster that fails over or moves a slot. */
const CLUSTER_RETRY_MS = 250;
/** As often a worker sends it again, which is ten minutes; a producer gives up after two seconds. */
const CLUSTER_TRIES = { worker: 2400, producer: 8 } as const;

function clusterOptions(
  role: RedisRole,
  settings: RedisSettings,
  tls: TlsMaterial | null,
  retry: (times: number) => number | null,
) {
  const { enableOfflineQueue, ...node } = optionsFor(role);
  return {
    lazyConnect: true,
    enableOfflineQueue,
    clusterRetryStrategy: retry,
    // No strategy for single nodes: with one, ioredis 6 never settles what waits at a node that another has replaced.
    // Without one, every command is tried again here, at whoever serves its slot by then.
    slotsRefreshInterval: SLOTS_REFRESH_MS,
    maxRedirections: CLUSTER_TRIES[role],
    retryDelayOnFailover: CLUSTER_RETRY_MS,
    retryDelayOnClusterDown: CLUSTER_RETRY_MS,
    retryDelayOnTryAgain: CLUSTER_RETRY_MS,
    // Names stay names: a certificate is for the name, not for the address behind it.
    dnsLookup: (address: string, callback: (error: null, address: string) => void) => callback(null, address),
    redisOptions: { ...node, ...loginOf(settings), ...(tls ? { tls } : {}) },
  };
}

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

/** How long a server that turns a client away may take to say why. */
const FAREWELL_WITHIN_MS = 500;

/**
 * Why the server turns every client away, in its own words, such as `ERR max number of clients reached`; null when it
 * says nothing. It says so before it is asked anything, and ioredis hears only that the connection broke.
 */
async function turnedAway(settings: RedisSettings): Promise<Error | null> {
  if (kindOf(settings) !== 'server' || !settings.REDIS_URL.startsWith('redis:')) return null;
  const { hostname, port } = new URL(settings.REDIS_URL);
  const socket = connect(Number(port || 6379), hostname.replace(/^\[|\]$/g, ''));
  try {
    const [chunk] = (await once(socket, 'data', {
      signal: AbortSignal.timeout(FAREWELL_WITHIN_MS),
    })) as [Buffer];
    const [, words] = /^-([^\r\n]+)/.exec(chunk.toString()) ?? [];
    return words === undefined ? null : new Error(words);
  } catch {
    return null;
  } finally {
    socket.destroy();
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
 * Connects, unless nothing at all is heard for too long: whoever starts would wait without a word, and be deaf to being
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

/** What to do depends on what was met: no server, one that does not know us, or something else altogether. */
function unreachable(settings: RedisSettings, cause: unknown): RedisUnusableError {
  const said = cause instanceof Error ? cause.message || cause.name : String(cause);
  const kind = kindOf(settings);
  const isTls = settings.REDIS_URL.startsWith('rediss:');
  let advice =
    'Start one (apt install redis-server, brew install redis, or docker compose up redis) or set REDIS_URL.';
  if (said.startsWith(SILENT)) advice = 'It hangs, or is no Redis: look at its process, or set REDIS_URL.';
  else if (/^(NOAUTH|WRONGPASS|NOPERM)/.test(said)) advice = 'Check user and password in REDIS_URL.';
  else if (/max number of clients/.test(said))
    advice = 'Raise its maxclients, or close connections that are not needed (CLIENT LIST).';
  else if (/certificate|SSL|TLS/i.test(said) || (isTls && /ETIMEDOUT|ECONNRESET/.test(said))) {
    // A server without TLS waits for more of what it takes for a command.
    advice =
      'Check rediss:// in REDIS_URL, REDIS_TLS_CA_FILE, REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE;\n' +
      'REDIS_TLS_VERIFY=false accepts any certificate of Redis, and of nothing else.';
  } else if (/RESP type/.test(said)) advice = 'What answers there is not a Redis. Check REDIS_URL.';
  else if (kind === 'cluster') advice = 'Check REDIS_CLUSTER_NODES, and that the Cluster is up.';
  else if (kind === 'sentinel') {
    advice = 'Check REDIS_SENTINELS and REDIS_SENTINEL_NAME, and that one of them knows a master.';
  }
  const message = `${describeRedis(settings)} cannot be used: ${said.replace(/\.+$/, '')}. ${advice}`;
  return new RedisUnusableError(message, { cause });
}

/** A database that the server does not have leaves the connection in database 0, without a word. */
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

/** The servers that take writes: of a Cluster all its masters. */
export function mastersOf(redis: RedisConnection): readonly Redis[] {
  return isCluster(redis) ? redis.nodes('master') : [redis];
}

/**
 * Checks version, eviction policy and role (of a Cluster: of every master), and that it takes writes under each of these
 * prefixes just now.
 * @throws RedisUnusableError naming every problem. What a server does not tell (managed ones may not) is not a problem.
 */
export async function checkRedis(redis: RedisConnection, prefix: string | null = null): Promise<void> {
  const inCluster = isCluster(redis);
  const infos = await Promise.all(mastersOf(redis).map((server) => readInfo(server)));
  if (infos.some((info) => info === '')) withoutInfo.add(redis);
  const found = infos.map((info) => serverProblems(info, inCluster));
  if (found.flat().length === 0 && prefix !== null) found.push(await writeProblems(redis, prefix));
  const problems = [...new Set(found.flat())];
  if (problems.length > 0) throw new RedisUnusableError(`This Redis cannot be used: ${problems.join('; ')}.`);
}

/**
 * Connections whose server does not answer INFO. BullMQ asks for it before anything else, and must be told not to.
 */
const withoutInfo = new WeakSet<RedisConnection>();
export const tellsVersion = (redis: RedisConnection): boolean => !withoutInfo.has(redis);

/** Managed servers may refuse or not know this command; what it would tell is then unknown, and no problem. */
const isRefusedCommand = (error: Error) => /^(?:NOPERM|ERR unknown command)/.test(error.message);

/** INFO, as far as the server and the rights of our user allow it; empty otherwise. */
export async function infoOf(server: Redis, section?: string): Promise<string> {
  try {
    return await (section === undefined ? server.info() : server.info(section));
  } catch (error) {
    if (error instanceof Error && isRefusedCommand(error)) return '';
    throw error;
  }
}

async function readInfo(server: Redis): Promise<string> {
  const sections = await Promise.all(
    ['server', 'memory', 'replication'].map((section) => infoOf(server, section)),
  );
  return sections.join('\r\n').trim();
}

function serverProblems(info: string, inCluster: boolean): string[] {
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
  if (!inCluster && field('redis_mode') === 'cluster') {
    problems.push('expected a server of its own, got a node of a Cluster: set REDIS_CLUSTER_NODES');
  } else if (field('role') === 'slave') {
    const master = `${field('master_host') ?? '?'}:${field('master_port') ?? '?'}`;
    problems.push(
      `expected a master, got a replica of ${master}: set REDIS_URL to the master, or REDIS_SENTINELS to follow it`,
    );
  }
  return problems;
}

/** Out of memory, a full disk, too few replicas, no permission: the server's own words are the best there are. */
async function writeProblems(redis: RedisConnection, prefix: string): Promise<string[]> {
  try {
    await redis.set(`${prefix}:probe`, '1', 'PX', 1);
    return [];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return [`expected it to take writes, got: ${message.replace(/\.$/, '')}`];
  }
}

/** The words of Redis 7.0 for a script of a user who may run scripts, and not a command in it. */
const REFUSED_IN_SCRIPT = "can't run this command";

/**
 * Asks something that nothing works without.
 * @param needs the commands it takes, which the server does not name in every case.
 * @throws RedisUnusableError when the user has no right to it.
 */
export async function essential<T>(needs: string, asking: Promise<T>): Promise<T> {
  try {
    return await asking;
  } catch (error) {
    const said = error instanceof Error ? error.message : '';
    if (!said.startsWith('NOPERM') && !said.includes(REFUSED_IN_SCRIPT)) throw error;
    const message = `This Redis cannot be used: ${said.replace(/\.$/, '')}. Its user needs ${needs}, and what else docs/redis.md lists.`;
    throw new RedisUnusableError(message, { cause: error });
  }
}
