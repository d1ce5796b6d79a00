/**
 * Where Redis is and how to get in: one server, a master behind Sentinels, or a Cluster, each with or without TLS and a
 * user of its own. Descriptions for people leave out user and password.
 */
import { readFile } from 'node:fs/promises';
import { RedisUnusableError } from '../errors.js';

interface Address {
  readonly host: string;
  readonly port: number;
}

export interface RedisSettings {
  /** Behind Sentinel and for a Cluster its host and port are not used; user, password, database and TLS are. */
  readonly REDIS_URL: string;
  readonly REDIS_SENTINELS: readonly Address[];
  readonly REDIS_SENTINEL_NAME: string;
  readonly REDIS_SENTINEL_PASSWORD: string;
  /** Some nodes of a Cluster: they know the others. */
  readonly REDIS_CLUSTER_NODES: readonly Address[];
  readonly REDIS_TLS_CA_FILE: string;
  readonly REDIS_TLS_CERT_FILE: string;
  readonly REDIS_TLS_KEY_FILE: string;
  /** False: any certificate of Redis is accepted. Nothing else that uses TLS is touched. */
  readonly REDIS_TLS_VERIFY: boolean;
}

export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly rejectUnauthorized?: false;
}

export type RedisKind = 'server' | 'sentinel' | 'cluster';

export function kindOf({ REDIS_SENTINELS, REDIS_CLUSTER_NODES }: RedisSettings): RedisKind {
  if (REDIS_CLUSTER_NODES.length > 0) return 'cluster';
  return REDIS_SENTINELS.length > 0 ? 'sentinel' : 'server';
}

const listed = (addresses: readonly Address[]) =>
  addresses.map(({ host, port }) => `${host}:${port}`).join(',');

/** Where Redis is, without user and password, for messages. */
export function describeRedis(settings: RedisSettings): string {
  switch (kindOf(settings)) {
    case 'cluster':
      return `The Redis Cluster of ${listed(settings.REDIS_CLUSTER_NODES)}`;
    case 'sentinel':
      return `The Redis master ${settings.REDIS_SENTINEL_NAME} of the Sentinels ${listed(settings.REDIS_SENTINELS)}`;
    case 'server': {
      const { protocol, host, pathname } = new URL(settings.REDIS_URL);
      return `Redis at ${protocol}//${host}${pathname === '/' ? '' : pathname}`;
    }
  }
}

/** The number of the database that is wanted. */
export function databaseOf({ REDIS_URL }: RedisSettings): number {
  return Number(new URL(REDIS_URL).pathname.slice(1) || 0);
}

/** User and password, percent-decoded; what is not given is left out. */
export function loginOf({ REDIS_URL }: RedisSettings): { username?: string; password?: string } {
  const { username, password } = new URL(REDIS_URL);
  return {
    ...(username ? { username: decodeURIComponent(username) } : {}),
    ...(password ? { password: decodeURIComponent(password) } : {}),
  };
}

/**
 * What TLS needs; null without it. An authority of one's own and a certificate for this client are read from files,
 * which a restart reads anew.
 * @throws RedisUnusableError naming the file that cannot be read.
 */
export async function tlsOf(settings: RedisSettings): Promise<TlsMaterial | null> {
  if (!settings.REDIS_URL.startsWith('rediss:')) return null;
  const read = async (name: 'REDIS_TLS_CA_FILE' | 'REDIS_TLS_CERT_FILE' | 'REDIS_TLS_KEY_FILE') => {
    if (settings[name] === '') return undefined;
    try {
      return await readFile(settings[name], 'utf8');
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new RedisUnusableError(`${name} cannot be read: ${reason}`, { cause: error });
    }
  };
  const [ca, cert, key] = await Promise.all([
    read('REDIS_TLS_CA_FILE'),
    read('REDIS_TLS_CERT_FILE'),
    read('REDIS_TLS_KEY_FILE'),
  ]);
  return {
    ...(ca ? { ca } : {}),
    ...(cert ? { cert } : {}),
    ...(key ? { key } : {}),
    ...(settings.REDIS_TLS_VERIFY ? {} : { rejectUnauthorized: false as const }),
  };
}
