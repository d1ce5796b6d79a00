/**
 * Reminders: which stage is to look at which generation. They are jobs of BullMQ, in a queue for each stage and one for
 * the sweep. A job is only a reminder: its id is the generation's, its data is empty, and it is removed when it is done,
 * so that the next one under the same id is never swallowed (BullMQ ignores an `add` whose id exists, also when that job
 * is finished and kept).
 */
import { Queue, type JobsOptions } from 'bullmq';
import { STAGES, type Stage } from '../generation/states.js';
import { tellsVersion } from '../redis/check.js';
import { isEchoOfOutage, type RedisConnection } from '../redis/connect.js';
import type { RunName } from '../generation/work.js';
import { LONGEST_TIMER_MS } from '../outbound/limit.js';

const SWEEP = 'sweep';
/** The worker that plans the next sweep may have a clock this much ahead of Redis. */
const SWEEP_EARLY_MS = 10_000;
/** BullMQ's score of a delayed job: its instant, and twelve bits that keep the order of equal ones. */
const SCORES_PER_MS = 0x1000;
/** Nothing reads BullMQ's own event streams; a short one saves memory of Redis. */
const STREAM_LENGTH = 100;

const JOB_OPTIONS: JobsOptions = {
  // Stages count their own tries in the record. These are for what no stage foresaw, such as a Redis error midway.
  attempts: Number.MAX_SAFE_INTEGER,
  backoff: { type: 'custom' },
  removeOnComplete: true,
  removeOnFail: true,
};

/** How long BullMQ waits before it runs a job again that threw, in milliseconds: doubling from 1 s to 60 s. */
export function backoffAfterError(attemptsMade: number): number {
  return Math.min(1000 * 2 ** Math.min(attemptsMade - 1, 6), 60_000);
}

export interface Reminder {
  readonly generationId: string;
  readonly delayMs?: number;
  readonly priority?: number;
}

export interface QueueCounts {
  readonly waiting: number;
  readonly active: number;
  readonly delayed: number;
}

/** What a stage has to do in the whole fleet, as of now. */
export interface Backlog {
  /** Jobs that a worker could take this instant: waiting ones, and delayed ones whose time has come. */
  readonly due: number;
  /** Jobs whose time has not come. */
  readonly delayed: number;
  readonly active: number;
  /** For how long no worker may take one (`hold`, or the queue was paused on the board), in milliseconds; 0: they may. */
  readonly pausedForMs: number;
}

/** Where the job of a generation stands. */
export interface Place {
  /** When its delay ends, epoch ms; null when it is not delayed, or there is none. */
  readonly dueAt: number | null;
  /** How many jobs run before it; null when it does not stand in line. */
  readonly ahead: number | null;
  /** There is a job, and it neither stands in line nor is delayed. */
  readonly running: boolean;
}

export interface Queues {
  /** Adds the job; nothing happens when the generation has one in that queue already. */
  remind(stage: Stage, reminder: Reminder): Promise<void>;
  remindMany(stage: Stage, reminders: readonly Reminder[]): Promise<void>;
  /** As `remind` without delay, and brings a delayed one forward. */
  hasten(stage: Stage, generationId: string, priority?: number): Promise<void>;
  /** The same, to so long from now; one that is due earlier stays where it is. */
  hastenTo(stage: Stage, generationId: string, delayMs: number): Promise<void>;
  /** Takes a waiting or delayed job away; one that runs stays. */
  forget(stage: Stage, generationId: string): Promise<void>;
  /** Which of these generations have no job in that queue, or one that no list holds. */
  missing(stage: Stage, generationIds: readonly string[]): Promise<string[]>;
  /** Which of these generations have a job in that queue that is delayed beyond `latestAt` (epoch ms). */
  delayedBeyond(stage: Stage, generationIds: readonly string[], latestAt: number): Promise<string[]>;
  /** Writes the job again, whatever is left of the old one. */
  restore(stage: Stage, reminder: Reminder): Promise<void>;
  placeOf(stage: Stage, generationId: string): Promise<Place>;
  /** When the next delayed job of that queue is due, epoch ms; null when none is delayed. */
  nextDueAt(stage: Stage): Promise<number | null>;
  /** Gives a waiting, delayed or running job another priority; nothing when it has none. */
  changePriority(stage: Stage, generationId: string, priority: number): Promise<void>;
  /** Lets no worker of any replica begin a job of that queue for so long. */
  hold(name: RunName, durationMs: number): Promise<void>;
  /** Ends that before its time, within a second. */
  release(name: RunName): Promise<void>;
  counts(stage: Stage): Promise<QueueCounts>;
  /** The backlog of every stage and of the sweep at `at` (epoch ms), in one round trip. */
  backlog(at: number): Promise<Record<RunName, Backlog>>;
  /** Makes sure that a sweep comes every so often, once in the whole fleet. */
  scheduleSweep(intervalMs: number): Promise<void>;
  /** The queues of BullMQ themselves, for a board that shows their jobs. */
  all(): readonly Queue[];
  close(): Promise<void>;
}

/** Opens the queues over a connection that stays the caller's. */
export function createQueues(
  redis: RedisConnection,
  prefix: string,
  now: () => number,
  onError: (error: Error) => void,
): Queues {
  const open = (name: string) => {
    const queue = new Queue(name, {
      connection: redis,
      prefix,
      defaultJobOptions: JOB_OPTIONS,
      streams: { events: { maxLen: STREAM_LENGTH } },
      skipWaitingForReady: true,
      skipVersionCheck: !tellsVersion(redis),
    });
    queue.on('error', (error) => {
      if (!isEchoOfOutage(redis, error)) onError(error);
    });
    return queue;
  };
  const names: readonly RunName[] = [...STAGES, SWEEP];
  const queues = new Map(names.map((name) => [name, open(name)]));
  const of = (name: RunName) => queues.get(name)!;
  const optionsOf = ({ generationId, delayMs, priority }: Reminder): JobsOptions => ({
    jobId: generationId,
    timestamp: now(),
    ...(delayMs ? { delay: delayMs } : {}),
    ...(priority ? { priority } : {}),
  });

  const remind = (stage: Stage, reminder: Reminder) => of(stage).add(stage, {}, optionsOf(reminder));

  async function hasten(stage: Stage, reminder: Reminder) {
    const { generationId, delayMs = 0 } = reminder;
    const job = await remind(stage, reminder);
    const score = await redis.zscore(of(stage).toKey('delayed'), generationId);
    if (score === null || Number(score) <= (now() + delayMs) * SCORES_PER_MS) return;
    try {
      await (delayMs > 0 ? job.changeDelay(delayMs) : job.promote());
    } catch (error) {
      // It left the delayed set in between: it is about to run, which is all that was wanted.
      if (await job.isDelayed()) throw error;
    }
  }

  async function forget(stage: Stage, generationId: string) {
    // BullMQ answers 0 for a job that a worker holds; that one ends by itself.
    await of(stage).remove(generationId);
  }

  // BullMQ writes no marker when a prioritized job goes back to a queue that is held: without one, workers that wait for
  // a job wait on for up to 5 s after the hold.
  const wakeUps = new Map<RunName, NodeJS.Timeout>();
  const wake = (name: RunName) =>
    void redis.zadd(of(name).toKey('marker'), 0, '0').catch((error: Error) => onError(error));
  function wakeAfter(name: RunName, delayMs: number) {
    clearTimeout(wakeUps.get(name));
    wakeUps.set(name, setTimeout(wake, Math.min(delayMs, LONGEST_TIMER_MS), name).unref());
  }

  return {
    async remind(stage, reminder) {
      await remind(stage, reminder);
    },
    forget,

    async remindMany(stage, reminders) {
      await of(stage).addBulk(
        reminders.map((r) => ({ name: stage as string, data: {}, opts: optionsOf(r) })),
      );
    },

    hasten: (stage, generationId, priority = 0) => hasten(stage, { generationId, priority }),
    hastenTo: (stage, generationId, delayMs) => hasten(stage, { generationId, delayMs }),

    async missing(stage, generationIds) {
      const queue = of(stage);
      const lines = redis.pipeline();
      for (const id of generationIds) {
        lines.exists(queue.toKey(id));
        lines.zscore(queue.toKey('delayed'), id);
        lines.zscore(queue.toKey('prioritized'), id);
      }
      const replies = (await lines.exec()) ?? [];
      const value = (i: number) => {
        const [error, reply] = replies[i] ?? [];
        if (error) throw error;
        return reply;
      };
      const gone: string[] = [];
      const unplaced: string[] = [];
      for (const [i, id] of generationIds.entries()) {
        if (value(3 * i) === 0) gone.push(id);
        else if (value(3 * i + 1) === null && value(3 * i + 2) === null) unplaced.push(id);
      }
      if (unplaced.length > 0) {
        // Read only now: a job that moved from one of these lists to another in between is at worst written again.
        const lists = await Promise.all(
          ['wait', 'paused', 'active'].map((list) => redis.lrange(queue.toKey(list), 0, -1)),
        );
        const placed = new Set(lists.flat());
        gone.push(...unplaced.filter((id) => !placed.has(id)));
      }
      return gone;
    },

    async delayedBeyond(stage, generationIds, latestAt) {
      if (generationIds.length === 0) return [];
      const scores = await redis.zmscore(of(stage).toKey('delayed'), ...generationIds);
      // BullMQ's score of a delayed job: its instant, and twelve bits that keep the order of equal ones.
      return generationIds.filter((_, i) => Number(scores[i] ?? 0) / 0x1000 > latestAt);
    },

    async restore(stage, reminder) {
      await forget(stage, reminder.generationId);
      await remind(stage, reminder);
    },

    async placeOf(stage, generationId) {
      const queue = of(stage);
      const lines = redis.pipeline();
      lines.exists(queue.toKey(generationId));
      lines.zscore(queue.toKey('delayed'), generationId);
      lines.zscore(queue.toKey('prioritized'), generationId);
      const [exists, score, turn] = ((await lines.exec()) ?? []).map(([error, reply]) => {
        if (error) throw error;
        return reply === null ? null : Number(reply);
      });
      return {
        dueAt: score == null ? null : Math.floor(score / SCORES_PER_MS),
        ahead: turn == null ? null : await redis.zcount(queue.toKey('prioritized'), '-inf', `(${turn}`),
        running: exists === 1 && score == null && turn == null,
      };
    },

    async nextDueAt(stage) {
      const [, score] = await redis.zrange(of(stage).toKey('delayed'), 0, '0', 'WITHSCORES');
      return score === undefined ? null : Math.floor(Number(score) / SCORES_PER_MS);
    },

    async changePriority(stage, generationId, priority) {
      await (await of(stage).getJob(generationId))?.changePriority({ priority });
    },

    async hold(name, durationMs) {
      const delayMs = Math.max(1, Math.round(durationMs));
      await of(name).rateLimit(delayMs);
      wakeAfter(name, delayMs);
    },

    async release(name) {
      await of(name).removeRateLimitKey();
      wake(name);
    },

    async counts(stage) {
      const counts = await of(stage).getJobCounts('wait', 'prioritized', 'active', 'delayed');
      return {
        waiting: (counts['wait'] ?? 0) + (counts['prioritized'] ?? 0),
        active: counts['active'] ?? 0,
        delayed: counts['delayed'] ?? 0,
      };
    },

    async backlog(at) {
      const lines = redis.pipeline();
      for (const queue of queues.values()) {
        lines.llen(queue.toKey('wait'));
        lines.zcard(queue.toKey('prioritized'));
        lines.zcount(queue.toKey('delayed'), '-inf', (at + 1) * SCORES_PER_MS - 1);
        lines.zcard(queue.toKey('delayed'));
        lines.llen(queue.toKey('active'));
        lines.pttl(queue.toKey('limiter'));
        lines.hexists(queue.toKey('meta'), 'paused');
      }
      const replies = ((await lines.exec()) ?? []).map(([error, reply]) => {
        if (error) throw error;
        return Number(reply);
      });
      const perQueue = replies.length / names.length;
      const rows = names.map((name, i): [RunName, Backlog] => {
        const [wait, prioritized, dueDelayed, delayed, active, limitedMs, paused] = replies.slice(
          perQueue * i,
          perQueue * (i + 1),
        );
        return [
          name,
          {
            due: wait! + prioritized! + dueDelayed!,
            delayed: delayed! - dueDelayed!,
            active: active!,
            pausedForMs: paused! > 0 ? Infinity : Math.max(0, limitedMs!),
          },
        ];
      });
      return Object.fromEntries(rows) as Record<RunName, Backlog>;
    },

    async scheduleSweep(intervalMs) {
      const queue = of(SWEEP);
      const counts = await queue.getJobCounts('wait', 'active', 'delayed');
      const alive = Object.values(counts).some((n) => n > 0);
      const scheduler = await queue.getJobScheduler(SWEEP);
      const isFar = (scheduler?.next ?? 0) > now() + intervalMs + SWEEP_EARLY_MS;
      if (alive && scheduler?.every === intervalMs && !isFar) return;
      // A clock that was wrong wrote it: an existing schedule would keep its next run.
      if (isFar) await queue.removeJobScheduler(SWEEP);
      await queue.setGlobalConcurrency(1);
      await queue.upsertJobScheduler(
        SWEEP,
        { every: intervalMs },
        { name: SWEEP, opts: { removeOnComplete: true, removeOnFail: true } },
      );
    },

    all: () => [...queues.values()],

    async close() {
      for (const timer of wakeUps.values()) clearTimeout(timer);
      await Promise.all([...queues.values()].map((queue) => queue.close()));
    },
  };
}
