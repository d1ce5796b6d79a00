/** What every run of the limits stands on: a Redis, a simulator and a library of its own, and real worker processes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { readConfig } from '../../../src/config/config.js';
import { launchRedis } from '../../../src/cli/demo/redis-server.js';
import type { Generation } from '../../../src/generation/record.js';
import type { EnqueueItem } from '../../../src/pipeline/enqueue.js';
import { STATES } from '../../../src/generation/states.js';
import { createReelhaul } from '../../../src/reelhaul.js';
import { startSimulator, type Simulator, type SimulatorOptions } from '../../../src/simulator/simulator.js';
import type { Reelhaul } from '../../../src/reelhaul.js';
import { startFleet, type Fleet, type FleetOptions } from '../../chaos/fleet.js';

export type Row = readonly [label: string, value: string | number];

export interface Ground {
  readonly simulator: Simulator;
  readonly reelhaul: Reelhaul;
  /** Starts real worker processes; by default nobody kills them. */
  employ(workers: number, chaos?: Partial<Pick<FleetOptions, 'points' | 'probability' | 'onKill'>>): Fleet;
  enqueue(items: readonly EnqueueItem[]): Promise<readonly Generation[]>;
  /** Waits until so few generations are in none of these states, or the time is up. */
  until(
    done: (counts: Record<string, number>) => boolean,
    timeLimitMs: number,
  ): Promise<Record<string, number>>;
  close(): Promise<void>;
}

export const image = 'https://example.com/still.png';

/** Short times where nothing is measured by them. */
const QUICK = {
  COMETAPI_KEY: 'bench-key-0123456789',
  REDIS_PREFIX: '{limits}',
  ARCHIVE_ALLOW_HOSTS: '127.0.0.1,localhost',
  LOG_LEVEL: 'silent',
  POLL_FIRST_DELAY_MS: '500',
  POLL_MIN_INTERVAL_MS: '500',
  POLL_MAX_INTERVAL_MS: '3000',
  JOB_LOCK_MS: '3000',
  SWEEP_INTERVAL_MS: '5000',
  UNCONFIRMED_WAIT_MS: '3600000',
  SHUTDOWN_TIMEOUT_MS: '10000',
};

export async function openGround(
  simulatorOptions: SimulatorOptions,
  settings: Readonly<Record<string, string>>,
): Promise<Ground> {
  const redis = await launchRedis(['--appendfsync', 'everysec']);
  const simulator = await startSimulator(simulatorOptions);
  const archive = await mkdtemp(join(tmpdir(), 'reelhaul-limits-'));
  const environment = {
    ...QUICK,
    COMETAPI_BASE_URL: simulator.url,
    REDIS_URL: redis.url,
    STORAGE_URL: `file:${archive}`,
    INPUT_URL_CHECK: 'false',
    ...settings,
  };
  const reelhaul = await createReelhaul({ config: readConfig(environment) });
  let fleet: Fleet | null = null;

  return {
    simulator,
    reelhaul,

    employ(workers, chaos = {}) {
      fleet = startFleet({
        workers,
        environment,
        points: [],
        probability: 0,
        onKill: () => {},
        write: (text) => void process.stderr.write(text),
        ...chaos,
      });
      return fleet;
    },

    async enqueue(items) {
      const results = await reelhaul.enqueueMany(items);
      return results.map((result) => {
        if (!result.ok) throw result.error;
        return result.generation;
      });
    },

    async until(done, timeLimitMs) {
      const giveUpAt = Date.now() + timeLimitMs;
      for (;;) {
        const counts = await reelhaul.count(STATES);
        if (done(counts) || Date.now() > giveUpAt) return counts;
        await wait(100);
      }
    },

    async close() {
      await fleet?.stop();
      await reelhaul.close();
      await simulator.close();
      await redis.stop();
      await rm(archive, { recursive: true, force: true });
    },
  };
}

export const sayStates = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .filter(([, n]) => n > 0)
    .map(([state, n]) => `${n} ${state}`)
    .join(', ');

export const isOver = (counts: Readonly<Record<string, number>>): boolean =>
  ['queued', 'submitting', 'generating', 'archiving'].every((state) => (counts[state] ?? 0) === 0);
