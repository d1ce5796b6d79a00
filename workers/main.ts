/**
 * A worker process: opens Redis, checks it, and runs the chosen stages and the sweep until it is told to stop. Any
 * number of these may run side by side; they share nothing but Redis and the storage.
 */
import type { Logger } from 'pino';
import type { Config } from '../src/config/config.js';
import { createContext, type Context } from './context.js';
import { ConfigError, StorageError } from '../src/errors.js';
import { checkLedger } from '../src/store/submit-ledger.js';
import { STAGES, type Stage } from '../src/generation/states.js';
import { clockOf, createHub, type Hub } from '../src/pipeline/context.js';
import { openClock, type RedisClock } from '../src/redis/clock.js';
import { checkRedis } from '../src/redis/check.js';
import { connectRedis } from '../src/redis/connect.js';
import { checkLayout } from '../src/redis/layout.js';
import { createWorkerHold, type WorkerHold } from '../src/redis/worker-hold.js';
import type { KeptAgents } from '../src/outbound/guarded-agent.js';
import { done, startRunner, type Outcome, type Runner, type StageFunction } from '../src/queue/runner.js';
import { announceStages } from '../src/telemetry/presence.js';
import { startFigures } from '../src/telemetry/time-series.js';
import type { RunName, Vitals } from '../src/generation/work.js';
import { limitsOf } from '../src/limits/settings.js';
import { wakeQueued } from '../src/limits/overview.js';
import { archive, STORAGE_LIMIT_MS } from './archive.js';
import { notify } from './notify.js';
import { poll } from './poll.js';
import { submit } from './submit.js';
import { sweep, type SweepReport } from './sweep.js';

type StageRun = (
  context: Context,
  generationId: string,
  signal: AbortSignal,
  step: () => void,
) => Promise<Outcome>;
const RUN: Record<Stage, StageRun> = { submit, poll, archive, notify };

/** A run that takes so much longer than its calls may take hangs; a Redis that is away for a while is no reason. */
const HANGING_MS = 120_000;
const NOTIFICATIONS_AT_ONCE = 20;
const SWEEP_LIMIT_MS = 3_600_000;

export interface WorkerOptions {
  readonly config: Config;
  readonly log: Logger;
  /** Default: all. The sweep runs beside any of them. */
  readonly stages?: readonly Stage[];
  /** Called at the named points of the submit path; the chaos run stops the process there. */
  readonly checkpoint?: Hub['checkpoint'];
  /** Called with the hub before any job is taken: listeners subscribe here. */
  readonly watch?: (hub: Hub) => void | Promise<void>;
  /** Connections to where inputs lie. Default: to public addresses only. */
  readonly inputHosts?: Pick<KeptAgents, 'agentFor'>;
}

export interface RunningWorkers {
  /** Takes no new job, lets running ones finish within `SHUTDOWN_TIMEOUT_MS`, gives back the rest, closes everything. */
  close(): Promise<void>;
  /** How the runners of all stages and of the sweep are. */
  vitals(): Vitals[];
}

/**
 * Starts the stages.
 * @throws ConfigError, InvalidInputError, StorageError or RedisUnusableError before any job is taken.
 */
export async function startWorkers({
  config,
  log,
  stages = STAGES,
  checkpoint,
  watch,
  inputHosts,
}: WorkerOptions): Promise<RunningWorkers> {
  if (config.COMETAPI_KEY === '') {
    throw new ConfigError([
      { path: 'COMETAPI_KEY', message: 'expected the API key of the provider, got nothing' },
    ]);
  }
  const redis = await connectRedis(config, 'worker', log);
  let clock: RedisClock | null = null;
  try {
    await checkRedis(redis, config.REDIS_PREFIX);
    await checkLayout(redis, config.REDIS_PREFIX);
    await checkLedger(redis, config);
    clock = await openClock(redis, config.REDIS_PREFIX);
    const hub = createHub({
      config,
      log,
      redis,
      clock: clockOf(clock),
      ...(checkpoint ? { checkpoint } : {}),
    });
    await watch?.(hub);
    const context = await createContext(hub, inputHosts);
    await probeStorage(context);
    return await run(context, stages, clock);
  } catch (error) {
    clock?.close();
    redis.disconnect();
    throw error;
  }
}

/** Writes, reads and removes a file: better now than when the first video is there. */
async function probeStorage({ storage }: Context): Promise<void> {
  try {
    await storage.probe();
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    const message = `The storage ${storage.description} cannot be used: ${error.message}`;
    throw new StorageError(message, error.retryable, { cause: error });
  }
}

async function run(context: Context, stages: readonly Stage[], clock: RedisClock): Promise<RunningWorkers> {
  const {
    config,
    log,
    redis,
    store,
    moves,
    durations,
    queues,
    storage,
    provider,
    assetHosts,
    inputChecks,
    ledger,
  } = context;
  const workerHold = createWorkerHold({ clock, redis, prefix: config.REDIS_PREFIX, log });
  const running = await runStages(context, stages, workerHold);
  const announcement = announceStages(
    { redis, keys: store.keys, now: context.now },
    stages,
    () => workerHold.check() === null,
  );
  const figures = startFigures({
    redis,
    keys: store.keys,
    moves,
    onError: (error) => log.warn({ err: error }, 'figures could not be written yet'),
  });
  log.info(
    { stages, prefix: config.REDIS_PREFIX, storage: storage.description, provider: config.COMETAPI_BASE_URL },
    'worker started',
  );

  return {
    vitals: () => running.vitals(),
    async close() {
      await announcement.close();
      await running.close(Date.now() + config.SHUTDOWN_TIMEOUT_MS);
      workerHold.close();
      clock.close();
      await Promise.all([figures.close(), durations.close()]);
      await inputChecks.close();
      ledger.close();
      provider.close();
      assetHosts.close();
      await storage.close();
      await queues.close();
      // A stage that did not stop in time had its connection closed under it.
      await redis.quit().catch(() => redis.disconnect());
      log.info('worker stopped');
    },
  };
}

interface RunningStages {
  vitals(): Vitals[];
  close(deadlineAt: number): Promise<void>;
}

/** The chosen stages and the sweep. */
async function runStages(
  context: Context,
  stages: readonly Stage[],
  workerHold: WorkerHold,
): Promise<RunningStages> {
  const { config, log, redis, work, now } = context;
  const prefix = config.REDIS_PREFIX;
  const concurrency = {
    submit: config.SUBMIT_CONCURRENCY,
    poll: config.POLL_CONCURRENCY,
    archive: config.ARCHIVE_CONCURRENCY,
    notify: config.NOTIFY_CONCURRENCY,
  };
  const { SUBMIT_TIMEOUT_MS, POLL_TIMEOUT_MS, ARCHIVE_TIMEOUT_MS, NOTIFY_TIMEOUT_MS } = config;
  const runLimitMs = {
    submit: SUBMIT_TIMEOUT_MS + HANGING_MS,
    poll: POLL_TIMEOUT_MS + HANGING_MS,
    // Each asset is a step of its own.
    archive: ARCHIVE_TIMEOUT_MS + STORAGE_LIMIT_MS + HANGING_MS,
    notify: NOTIFICATIONS_AT_ONCE * NOTIFY_TIMEOUT_MS + HANGING_MS,
    sweep: SWEEP_LIMIT_MS,
  };
  const start = (name: RunName, run: StageFunction, atOnce: number): Runner => {
    const common = {
      ...{ name, run, redis, concurrency: atOnce, log, work, now, workerHold },
      runLimitMs: runLimitMs[name],
    };
    const lockMs = config.JOB_LOCK_MS;
    const holdQueue = (durationMs: number) => context.queues.hold(name, durationMs);
    // A paid call that is cut off is unconfirmed, while its answer still counts by its nonce: so it goes on.
    const abortOnLostLock = name !== 'submit';
    return startRunner({ ...common, prefix, lockMs, holdQueue, abortOnLostLock });
  };
  // Before any job is taken: none is to be judged by the limits of former workers.
  if (stages.includes('submit')) await publishLimits(context);
  const runners = stages.map((name) =>
    start(
      name,
      (generationId, signal, step) => RUN[name](context, generationId, signal, step),
      concurrency[name],
    ),
  );
  runners.push(
    start(
      'sweep',
      async (_, signal) => {
        const report = await sweep(context, signal);
        if (!signal.aborted) await noteSweep(context, report);
        return done;
      },
      1,
    ),
  );
  const stopScheduling = await keepSweepScheduled(context, workerHold);
  return {
    vitals: () => runners.map((runner) => runner.vitals()),
    async close(deadlineAt) {
      context.gate.stop();
      stopScheduling();
      await Promise.all(runners.map((runner) => runner.close(deadlineAt)));
    },
  };
}

/** When the last sweep of the fleet ended: every process can tell whether they still come. */
async function noteSweep(
  { redis, store, now, work }: Context,
  { restored, pruned }: SweepReport,
): Promise<void> {
  const at = now();
  await redis.set(store.keys.swept, at);
  work.tell({ kind: 'swept', restored, pruned, at });
}

/** The limits are those of the worker that started last; a process without a submit stage knows nothing of them. */
async function publishLimits(context: Context): Promise<void> {
  await context.gate.publish();
  // A queue may be held until the next call that the former rate allowed.
  for (const stage of ['submit', 'poll'] as const) await context.queues.release(stage);
  // Other limits: what waited for a budget or a slot may go on now.
  if (await context.limits.publish(limitsOf(context.config))) await wakeQueued(context);
}

/** The schedule of the sweep may be lost with its queue: every worker whose clock is right looks after it. */
async function keepSweepScheduled(
  { config, log, queues }: Context,
  workerHold: WorkerHold,
): Promise<() => void> {
  const schedule = async () => {
    if (workerHold.check() === null) await queues.scheduleSweep(config.SWEEP_INTERVAL_MS);
  };
  await schedule();
  const timer = setInterval(() => {
    schedule().catch((error: unknown) =>
      log.warn({ stage: 'sweep', err: error }, 'the sweep could not be scheduled'),
    );
  }, config.SWEEP_INTERVAL_MS);
  return () => clearInterval(timer);
}
