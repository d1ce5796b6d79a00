/** A master, a replica and three Sentinels of one's own: real processes on free loopback ports, quick to fail over. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { findOnPath, freePort, launchRedis, type LaunchedRedis } from '../../src/cli/demo/redis-server.js';
import { until } from './until.js';

const SENTINELS = 3;
const DOWN_AFTER_MS = 1000;

/** Asks a server once. @throws what the server, or the connection, answers. */
export async function tell<T>(port: number, question: (redis: Redis) => Promise<T>): Promise<T> {
  const redis = new Redis(port, '127.0.0.1', {
    lazyConnect: true,
    retryStrategy: () => null,
    disconnectTimeout: 50,
  });
  redis.on('error', () => {});
  try {
    await redis.connect();
    return await question(redis);
  } finally {
    redis.disconnect();
  }
}

/** Asks a server once; null when it does not answer. */
export const ask = <T>(port: number, question: (redis: Redis) => Promise<T>): Promise<T | null> =>
  tell(port, question).catch(() => null);

/** Starts a replica of that master and waits until it has caught up. */
export async function launchReplica(
  master: LaunchedRedis,
  extraArguments: readonly string[] = [],
): Promise<LaunchedRedis> {
  const replica = await launchRedis(['--replicaof', '127.0.0.1', String(master.port), ...extraArguments]);
  await until(
    () => ask(replica.port, async (redis) => (await redis.info('replication')).includes('link_status:up')),
    'the replica to follow its master',
  );
  return replica;
}

export interface Watched {
  readonly name: string;
  readonly master: LaunchedRedis;
  readonly replica: LaunchedRedis;
  /** `host:port` entries, as REDIS_SENTINELS takes them. */
  readonly sentinels: string;
  /** Resolves when the Sentinels say that the replica is the master. */
  failedOver(): Promise<void>;
  stop(): Promise<void>;
}

export async function launchWatched(name = 'reels'): Promise<Watched> {
  const program = (await findOnPath(['valkey-server', 'redis-server']))!;
  const directory = await mkdtemp(join(tmpdir(), 'reelhaul-sentinel-'));
  const quick = ['--repl-diskless-sync-delay', '0'];
  const master = await launchRedis(quick);
  const replica = await launchReplica(master, quick);
  const ports: number[] = [];
  const children: ChildProcess[] = [];
  for (let i = 0; i < SENTINELS; i++) {
    const port = await freePort();
    const file = join(directory, `${port}.conf`);
    await writeFile(
      file,
      [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${directory}`,
        `sentinel monitor ${name} 127.0.0.1 ${master.port} 2`,
        `sentinel down-after-milliseconds ${name} ${DOWN_AFTER_MS}`,
        `sentinel failover-timeout ${name} 4000`,
      ].join('\n'),
    );
    children.push(spawn(program, [file, '--sentinel'], { stdio: 'ignore' }));
    ports.push(port);
  }
  const masterAt = (port: number) =>
    ask(port, (redis) => redis.call('sentinel', 'get-master-addr-by-name', name) as Promise<string[]>);
  const knows = (port: number) =>
    ask(port, async (redis) => {
      const seen = (await redis.call('sentinel', 'master', name)) as string[];
      const field = (key: string) => Number(seen[seen.indexOf(key) + 1]);
      return field('num-other-sentinels') === SENTINELS - 1 && field('num-slaves') === 1;
    });
  for (const port of ports)
    await until(() => knows(port), 'the Sentinels to know each other and the replica');

  return {
    name,
    master,
    replica,
    sentinels: ports.map((port) => `127.0.0.1:${port}`).join(','),
    async failedOver() {
      await until(
        async () => (await Promise.all(ports.map(masterAt))).every((at) => at?.[1] === String(replica.port)),
        'the Sentinels to promote the replica',
      );
      await until(
        () => ask(replica.port, async (redis) => (await redis.info('replication')).includes('role:master')),
        'the replica to be a master',
      );
    },
    async stop() {
      await Promise.all(
        children.map(async (child) => {
          if (child.exitCode !== null || child.signalCode !== null) return;
          const exited = once(child, 'exit');
          child.kill('SIGKILL');
          await exited;
        }),
      );
      await Promise.all([master.kill(), replica.kill()]);
      await Promise.all([master.stop(), replica.stop()]);
      await rm(directory, { recursive: true, force: true });
    },
  };
}
