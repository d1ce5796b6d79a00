/** How ioredis meets outages: of one server, of a master behind Sentinels, of a Cluster. */
import { databaseOf, loginOf, type RedisSettings, type TlsMaterial } from './address.js';
import { sentinelBehaviour } from './sentinel-fixes.js';

/** How a connection meets an outage: a worker waits for Redis to come back, a producer tells its caller at once. */
export type RedisRole = 'worker' | 'producer';

const CONNECT_TIMEOUT_MS = 10_000;
/** A peer that vanished without closing the connection (power, network) is noticed after this plus ten probes, one per second. */
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
export const TOGETHER = { enableAutoPipelining: true };

export const retryDelayMs = (times: number) => Math.min(50 * 2 ** Math.min(times, 6), MAX_RETRY_MS);

export function optionsFor(role: RedisRole) {
  return {
    lazyConnect: true,
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    // 1: the command is rejected and the connection made anew. Sending the command again (2) would go on silently for as
    // long as the server refuses; and a producer, which has no offline queue, would get a misleading error.
    reconnectOnError: (error: Error) => (ANOTHER_SERVER.test(error.message) ? 1 : false),
    maxRetriesPerRequest: role === 'worker' ? null : 1,
    enableOfflineQueue: role === 'worker',
  };
}

export function sentinelOptions(settings: RedisSettings, tls: TlsMaterial | null) {
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

/** How often a Cluster is asked which node serves which slots: only this moves connections away from a master that hangs. */
const SLOTS_REFRESH_MS = 1000;
/** Before a command is sent again to a Cluster that fails over or moves a slot. */
const CLUSTER_RETRY_MS = 250;
/** As often a worker sends it again, which is ten minutes; a producer gives up after two seconds. */
const CLUSTER_TRIES = { worker: 2400, producer: 8 } as const;

export function clusterOptions(
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
    // Without one, every command is tried again here, at the node that serves its slot by then.
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
