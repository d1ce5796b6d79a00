/**
 * What the whole fleet has to do and how Redis is, read on request: one round trip, and within a second the same
 * answer. While Redis does not answer it says so within a deadline, and asks no second time on top of the first.
 */
import type { Config } from '../config/config.js';
import { within } from '../outbound/limit.js';
import type { Outbox } from '../store/outbox.js';
import { countWorkers } from './presence.js';
import { STATES, type Stage, type State } from '../generation/states.js';
import type { Store } from '../store/store.js';
import { readLimits, type LimitsDeps, type LimitsOverview } from '../limits/overview.js';
import { readSpent } from '../limits/spend.js';
import type { Backlog, Queues } from '../queue/queues.js';
import { infoOf, mastersOf } from '../redis/check.js';
import { type RedisConnection } from '../redis/connect.js';
import type { RunName } from '../generation/work.js';

/** How long Redis may take; Prometheus gives a scrape ten seconds, a probe often fewer. */
export const ANSWER_WITHIN_MS = 2000;
const GOOD_FOR_MS = 1000;

export interface FleetFigures {
  readonly generations: Readonly<Record<State, number>>;
  /** For submit, `due` also counts queued generations, as far as the cap has room for them. */
  readonly backlog: Readonly<Record<RunName, Backlog>>;
  readonly limits: LimitsOverview;
  /** What was spent today (UTC), in the currency of `PRICES`. */
  readonly spent: { readonly charged: number; readonly possible: number };
  /** Generations with notifications that are due, and with such that were given up. */
  readonly notificationsOwed: number;
  readonly notificationsDead: number;
  /** When the last sweep ended, epoch ms; null when there was none. */
  readonly sweptAt: number | null;
  /** How many workers take jobs of each stage just now. */
  readonly workers: Readonly<Record<Stage, number>>;
  readonly pingMs: number;
  /** Of a Cluster: of the master that uses most. */
  readonly usedBytes: number;
  /** 0: no limit. */
  readonly maxBytes: number;
}

export interface Fleet {
  /** Null when Redis did not answer in time or with an error. */
  read(): Promise<FleetFigures | null>;
}

export interface FleetDeps extends LimitsDeps {
  readonly redis: RedisConnection;
  readonly store: Store;
  readonly outbox: Outbox;
  readonly queues: Queues;
  readonly config: Pick<Config, 'REDIS_PREFIX'>;
  readonly now: () => number;
}

function readMemory(info: string): Pick<FleetFigures, 'usedBytes' | 'maxBytes'> {
  const bytes = (name: string) => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0);
  return { usedBytes: bytes('used_memory'), maxBytes: bytes('maxmemory') };
}

export function createFleet(deps: FleetDeps): Fleet {
  const { redis, store, outbox, queues, config, now } = deps;
  let latest: { readonly figures: FleetFigures; readonly at: number } | null = null;
  let asking: Promise<FleetFigures> | null = null;

  async function ask(): Promise<FleetFigures> {
    const askedAt = performance.now();
    // Sent in one go, and answered in this order.
    const [pingMs, generations, backlog, limits, spent, owed, dead, sweptAt, workers, memory] =
      await Promise.all([
        // Not PING: a Redis that cannot save (MISCONF) answers every read, and refuses that.
        redis.time().then(() => performance.now() - askedAt),
        store.countByState(STATES),
        queues.backlog(now()),
        readLimits(deps),
        readSpent(redis, config.REDIS_PREFIX, now()),
        outbox.countOwed(),
        outbox.countDead(),
        store.sweptAt(),
        countWorkers({ redis, keys: store.keys, now }),
        Promise.all(mastersOf(redis).map((server) => infoOf(server, 'memory'))),
      ]);
    const [fullest] = memory.map(readMemory).sort((a, b) => b.usedBytes - a.usedBytes);
    return {
      generations: generations as Record<State, number>,
      backlog,
      limits,
      spent,
      notificationsOwed: owed,
      notificationsDead: dead,
      sweptAt,
      workers,
      pingMs,
      usedBytes: fullest?.usedBytes ?? 0,
      maxBytes: fullest?.maxBytes ?? 0,
    };
  }

  return {
    async read() {
      if (latest !== null && now() - latest.at < GOOD_FOR_MS) return latest.figures;
      asking ??= ask().finally(() => {
        asking = null;
      });
      const figures = await within(ANSWER_WITHIN_MS, asking);
      if (figures !== null) latest = { figures, at: now() };
      return figures;
    },
  };
}
