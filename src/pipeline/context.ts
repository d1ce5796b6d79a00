/**
 * The parts that all code which changes generations needs, put together once per process. No globals: each function gets it
 * as an argument, and a test may hand in its own clock or dice. It loads neither provider nor storage, so that an app
 * that only enqueues does not pay for them.
 */
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import { createArrivals } from '../polling/callback-trust.js';
import { createDurations, type Durations } from '../polling/duration-stats.js';
import { createEventLog, type EventLog } from '../store/event-log.js';
import { createFollowing, type Following } from '../polling/poll-state.js';
import { createIds } from '../generation/id.js';
import { createMoves, type Moves } from '../generation/observers.js';
import { createOutbox, type Outbox } from '../store/outbox.js';
import { createInputs, type Inputs } from '../store/inputs.js';
import { createStore, type Store } from '../store/store.js';
import type { Storage } from '../storage/storage.js';
import { createPacing, type Pacing } from '../polling/poll-interval.js';
import { createQueues, type Queues } from '../queue/queues.js';
import { createGate, type Gate } from '../limits/gate.js';
import { createLimits, type Limits } from '../limits/settings.js';
import type { RedisClock } from '../redis/clock.js';
import type { RedisConnection } from '../redis/connect.js';
import { createWorkLog, type WorkLog } from '../generation/work.js';

/**
 * Named points of the submit path, in their order. Nothing happens there; the chaos run stops a process at them.
 * `saved` follows the answer to the saved task id, with which the poll job was sent; `handed-over` follows both answers.
 */
export type Checkpoint = 'before-send' | 'sent' | 'answered' | 'saved' | 'handed-over';

export interface Clock {
  readonly now: () => number;
  /** A number in [0, 1). */
  readonly dice: () => number;
}

/** The process' own clock: right where no other process takes part, as in many tests. */
export const systemClock: Clock = { now: () => Date.now(), dice: () => Math.random() };

/** Redis' time, which all processes share. */
export const clockOf = ({ now }: Pick<RedisClock, 'now'>): Clock => ({ now, dice: () => Math.random() });

/** What changes generations: enough for the library, the command line and the callbacks. */
export interface Hub extends Clock {
  readonly config: Config;
  readonly log: Logger;
  readonly redis: RedisConnection;
  readonly store: Store;
  readonly outbox: Outbox;
  readonly inputs: Inputs;
  /** Opens the storage when it is first needed: an app that only enqueues needs none, and loads none. */
  readonly openedStorage: () => Promise<Storage>;
  /** Lets go of it. */
  readonly closeStorage: () => Promise<void>;
  readonly following: Following;
  readonly durations: Durations;
  readonly pacing: Pacing;
  readonly queues: Queues;
  readonly limits: Limits;
  readonly gate: Gate;
  /** Hears of every transition that this process makes. */
  readonly moves: Moves;
  /** Hears of what else this process does. */
  readonly work: WorkLog;
  readonly checkpoint: (point: Checkpoint, generationId: string) => void;
  /** The span that is active now, as W3C Trace Context; null when there is none. */
  readonly activeTrace: () => string | null;
  /** The id of the next generation; ids sort by their creation. */
  readonly newGenerationId: () => string;
  readonly events: EventLog;
}

export interface HubDeps {
  readonly config: Config;
  readonly log: Logger;
  /** Stays the caller's. */
  readonly redis: RedisConnection;
  readonly clock?: Clock;
  readonly checkpoint?: Hub['checkpoint'];
  readonly activeTrace?: Hub['activeTrace'];
}

/** The hub of this process. */
export function createHub({
  config,
  log,
  redis,
  clock = systemClock,
  checkpoint = () => {},
  activeTrace = () => null,
}: HubDeps): Hub {
  const onListenerError = (error: unknown) => log.error({ err: error }, 'a listener threw');
  const moves = createMoves(onListenerError);
  moves.listen(({ record, from, to, change }) => {
    const taskId = change.set?.['taskId'] ?? record.taskId;
    log.info({ generationId: record.id, from, to, taskId, tenant: record.tenant }, 'generation moved');
  });
  const { now, dice } = clock;
  const prefix = config.REDIS_PREFIX;
  const store = createStore({
    redis,
    prefix,
    idempotencyTtlMs: config.IDEMPOTENCY_TTL_MS,
    now,
    onMove: (move) => moves.tell(move),
    slots: config,
    onFreed: (ids) => void promote(ids),
  });
  const queues = createQueues(redis, prefix, now, (error) =>
    log.warn({ err: error }, 'a queue reported an error'),
  );
  /** The sweep finds the generations that this misses. */
  const promote = (ids: readonly string[]) =>
    Promise.all(ids.map((id) => queues.hasten('submit', id))).catch((error: unknown) =>
      log.warn({ err: error }, 'a generation that has room again waits for the next sweep'),
    );
  const { keys } = store;
  const onError = (error: unknown) =>
    log.warn({ err: error }, 'what the schedule has learnt could not be read');
  const durations = createDurations({ redis, keys, now, onError });
  const arrivals = createArrivals({ redis, keys, now, onError });
  let storage: Promise<Storage> | null = null;
  return {
    ...clock,
    inputs: createInputs(redis, keys, now),
    openedStorage: () =>
      (storage ??= import('../storage/open.js').then(({ openStorage }) => openStorage(config.STORAGE_URL))),
    closeStorage: async () => (await storage)?.close(),
    config,
    log,
    redis,
    checkpoint,
    activeTrace,
    newGenerationId: createIds(now),
    moves,
    work: createWorkLog(onListenerError),
    store,
    events: createEventLog({ redis, keys }),
    outbox: createOutbox({ redis, keys, now }),
    following: createFollowing({ redis, keys, now }),
    durations,
    pacing: createPacing({ config, durations, arrivals, dice, log }),
    queues,
    limits: createLimits(redis, prefix),
    gate: createGate({
      redis,
      keys,
      dice,
      settings: {
        rate: {
          max: config.PROVIDER_RATE_MAX,
          windowMs: config.PROVIDER_RATE_WINDOW_MS,
          first: config.PROVIDER_RATE_FIRST,
        },
        failures: config.BREAKER_FAILURES,
        awayProbeMs: config.BREAKER_PROBE_MS,
        refusedProbeMs: config.REFUSED_PROBE_MS,
      },
    }),
  };
}
