/** Can this Redis be trusted with jobs? Its version, eviction policy and role, the rights of our user, and a write. */
import type { Redis } from 'ioredis';
import { RedisUnusableError } from '../errors.js';
import { isCluster, type RedisConnection } from './connect.js';

/** BullMQ's own minimum is lower; 6.2 is what the scripts and `ZRANGE … BYLEX REV LIMIT` here need. */
const MIN_VERSION = [6, 2] as const;

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

/** The words of Redis 7.0 when a user may run scripts, but not a command inside one. */
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
