/**
 * A whole reelhaul on real parts for one test: its own key prefix, its own simulator and archive folder, workers in
 * this process or as real processes. Everything is gone after `close`.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { readConfig, type Config } from '../../src/config/config.js';
import type { Generation } from '../../src/generation/record.js';
import { createReelhaul } from '../../src/reelhaul.js';
import type { Reelhaul } from '../../src/reelhaul.js';
import { startSimulator, type Simulator, type SimulatorOptions } from '../../src/simulator/simulator.js';
import { startWorkers, type RunningWorkers, type WorkerOptions } from '../../workers/main.js';
import { until } from './until.js';

export const cliFile = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));
export const image = 'https://example.com/still.png';
/** Arguments of Node for short-lived processes: V8 optimizes only what is hot, which takes a quarter off their start. */
export const SHORT_LIVED = ['--interrupt-budget=10000000'];

/** Where the suite's Redis listens. */
export function redisUrl(): string {
  const url = process.env['TEST_REDIS_URL'];
  if (!url) throw new Error('the suite starts a Redis before the tests; run it with npm test');
  return url;
}

/** Is the suite's Redis a real server, which can be killed and restarted? */
export const realRedis = process.env['TEST_REDIS_KIND'] === 'server';

export interface WorkerProcess {
  readonly child: ChildProcess;
  output(): string;
  /** Resolves with the exit code, or the signal's name. */
  readonly exited: Promise<number | string>;
}

export interface TestbedOptions {
  readonly simulator?: SimulatorOptions;
  readonly environment?: Readonly<Record<string, string>>;
  readonly redisUrl?: string;
  /** Nodes of a Cluster, as REDIS_CLUSTER_NODES takes them, instead of one server. What a test leaves goes with it. */
  readonly cluster?: string;
}

export interface Testbed {
  readonly prefix: string;
  readonly environment: Readonly<Record<string, string>>;
  readonly config: Config;
  /** A connection of the test's own; of a Cluster: to its first node. */
  readonly redis: Redis;
  readonly simulator: Simulator;
  readonly reelhaul: Reelhaul;
  readonly archive: string;
  /** Starts the stages in this process. */
  work(options?: Partial<WorkerOptions>): Promise<RunningWorkers>;
  /** Starts a real worker process; `program` replaces the command line's own `worker`. */
  spawnWorker(environment?: Readonly<Record<string, string>>, program?: readonly string[]): WorkerProcess;
  /** Enqueues a prompt with an image. */
  enqueue(prompt: string, options?: Parameters<Reelhaul['enqueue']>[1]): Promise<Generation>;
  /** Awaits a state. */
  reaches(generationId: string, state: Generation['state']): Promise<Generation>;
  close(): Promise<void>;
}

/** Short times, so that tests do not wait; nothing in them depends on how short. */
const QUICK = {
  POLL_FIRST_DELAY_MS: '20',
  POLL_MIN_INTERVAL_MS: '20',
  POLL_MAX_INTERVAL_MS: '200',
  SUBMIT_BACKOFF_MS: '20',
  ARCHIVE_BACKOFF_MS: '20',
  SHUTDOWN_TIMEOUT_MS: '5000',
  JOB_LOCK_MS: '2000',
  SWEEP_INTERVAL_MS: '500',
  UNCONFIRMED_WAIT_MS: '200',
  REFUSED_PROBE_MS: '200',
};

export async function createTestbed(options: TestbedOptions = {}): Promise<Testbed> {
  const url = options.cluster ? `redis://${options.cluster.split(',')[0]}` : (options.redisUrl ?? redisUrl());
  const prefix = `{test-${randomUUID()}}`;
  const simulator = await startSimulator({ taskDurationMs: 50, ...options.simulator });
  const archive = await mkdtemp(join(tmpdir(), 'reelhaul-test-'));
  const environment: Record<string, string> = {
    ...QUICK,
    COMETAPI_KEY: 'test-key-0123456789',
    COMETAPI_BASE_URL: simulator.url,
    REDIS_URL: url,
    REDIS_CLUSTER_NODES: options.cluster ?? '',
    REDIS_PREFIX: prefix,
    STORAGE_URL: `file:${archive}`,
    ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost',
    INPUT_URL_CHECK: 'false',
    LOG_LEVEL: 'silent',
    ...options.environment,
  };
  const config = readConfig(environment);
  const redis = new Redis(url);
  const reelhaul = await createReelhaul({ config });
  const running = new Set<RunningWorkers>();
  const processes = new Set<WorkerProcess>();

  return {
    prefix,
    environment,
    config,
    redis,
    simulator,
    reelhaul,
    archive,

    async work(workerOptions = {}) {
      const workers = await startWorkers({ config, log: pino({ level: 'silent' }), ...workerOptions });
      const tracked: RunningWorkers = {
        ...workers,
        async close() {
          running.delete(tracked);
          await workers.close();
        },
      };
      running.add(tracked);
      return tracked;
    },

    spawnWorker(extra = {}, program = [cliFile, 'worker']) {
      const { PATH = '', HOME = '' } = process.env;
      const child = spawn(process.execPath, [...SHORT_LIVED, ...program], {
        env: { PATH, HOME, ...environment, ...extra },
      });
      let output = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
      const exited = once(child, 'exit').then(([code, signal]) => (code ?? signal) as number | string);
      const worker: WorkerProcess = { child, output: () => output, exited };
      processes.add(worker);
      void exited.then(() => processes.delete(worker));
      return worker;
    },

    enqueue: (prompt, enqueueOptions) => reelhaul.enqueue({ prompt, image }, enqueueOptions),

    reaches: (generationId, state) =>
      until(
        async () => {
          const generation = await reelhaul.get(generationId);
          return generation.state === state ? generation : null;
        },
        async () =>
          `${generationId} to reach ${state}; it is ${JSON.stringify(await reelhaul.get(generationId))}`,
      ),

    async close() {
      for (const { child } of processes) child.kill('SIGKILL');
      await Promise.all([...processes].map(({ exited }) => exited));
      await Promise.all([...running].map((workers) => workers.close()));
      await reelhaul.close();
      await simulator.close();
      if (!options.cluster) {
        await removeKeys(redis, prefix);
        await redis.quit();
      } else redis.disconnect();
      await rm(archive, { recursive: true, force: true });
    },
  };
}

async function removeKeys(redis: Redis, prefix: string): Promise<void> {
  let cursor = '0';
  do {
    const [next, keys] = await redis.scan(cursor, 'MATCH', `${prefix}*`, 'COUNT', 1000);
    if (keys.length > 0) await redis.unlink(...keys);
    cursor = next;
  } while (cursor !== '0');
}
