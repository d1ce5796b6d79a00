/**
 * Is this process well? Two questions, which a platform asks for different ends:
 *
 * - alive: false when a restart would help. From memory alone. It never looks at Redis: a worker that waits for Redis may hold
 *   the only copy of a task id that is paid for, and must not be restarted for waiting.
 * - ready: does it do its work now? Redis takes a write, and every stage takes the jobs that are due.
 *
 * Each answer is a list of reasons why not; empty means yes.
 */
import type { RedisConnection } from '../redis/connect.js';
import { afterRefusal } from '../redis/write-errors.js';
import type { RunName, Vitals } from '../generation/work.js';
import { within } from '../outbound/limit.js';
import { ANSWER_WITHIN_MS, type Fleet } from './snapshot.js';

/** Work that is due, room for it, and nothing begun for so long: the loop that takes jobs has stopped. */
const UNTAKEN_MS = 20_000;
/** Looks further apart than this say nothing about what was between them. */
const LOOKS_TOGETHER_MS = 60_000;
/** A sweep may take long, and is late only after several of its intervals. */
const SWEEP_LATE_FACTOR = 10;
const SWEEP_LATE_AT_LEAST_MS = 600_000;

export interface Health {
  alive(): string[];
  /** Why Redis takes no write now; empty when it took one. What it still answers can be asked behind this. */
  refusals(): Promise<string[]>;
  ready(): Promise<string[]>;
}

export interface HealthDeps {
  readonly redis: RedisConnection;
  /** Redis is to take a write under it. */
  readonly prefix: string;
  readonly fleet: Fleet;
  /** How the runners of this process are: empty when it only serves, null while they are being started. */
  readonly vitals: () => readonly Vitals[] | null;
  readonly sweepIntervalMs: number;
  readonly now: () => number;
}

interface Look {
  /** When due work was first seen that was not taken since. */
  readonly since: number;
  readonly lastAt: number;
  readonly begun: number;
}

export function createHealth({ redis, prefix, fleet, vitals, sweepIntervalMs, now }: HealthDeps): Health {
  const startedAt = now();
  const untaken = new Map<RunName, Look>();
  let writing: { readonly sinceAt: number; readonly answer: Promise<string[]> } | null = null;

  async function write(): Promise<string[]> {
    try {
      await redis.set(`${prefix}:probe`, '1', 'PX', 1);
      return [];
    } catch (error) {
      await afterRefusal(redis);
      return [`Redis refused a write: ${error instanceof Error ? error.message : String(error)}`];
    }
  }

  /** At most one write is under way: one that hangs is not joined by another at every probe. */
  async function writeProblems(): Promise<string[]> {
    writing ??= { sinceAt: now(), answer: write() };
    const { sinceAt, answer } = writing;
    const problems = await within(ANSWER_WITHIN_MS, answer);
    if (problems === null) return [`Redis has not answered a write for ${now() - sinceAt} ms`];
    writing = null;
    return problems;
  }

  /** Is there work for this runner that it has had room for, and left, for too long? */
  function leftWork({ name, running, concurrency, begun }: Vitals, due: number): string[] {
    if (due === 0 || running >= concurrency) {
      untaken.delete(name);
      return [];
    }
    const look = untaken.get(name);
    const goesOn = look?.begun === begun && now() - look.lastAt <= LOOKS_TOGETHER_MS;
    const since = goesOn ? look.since : now();
    untaken.set(name, { since, lastAt: now(), begun });
    const forMs = now() - since;
    return forMs < UNTAKEN_MS ? [] : [`${name} takes no jobs: ${due} are due, none begun for ${forMs} ms`];
  }

  function hangingRuns({ name, oldestBeganAt, runLimitMs }: Vitals): string[] {
    const forMs = now() - (oldestBeganAt ?? now());
    return forMs > runLimitMs ? [`a run of ${name} has been going on for ${forMs} ms`] : [];
  }

  function alive(): string[] {
    return (vitals() ?? []).flatMap(({ name, looping }) =>
      looping ? [] : [`the loop of ${name} has ended`],
    );
  }

  return {
    alive,
    refusals: writeProblems,

    async ready() {
      const runners = vitals();
      // Side by side: a Redis that hangs is waited for once, not twice.
      const [refusals, figures] = await Promise.all([writeProblems(), runners?.length ? fleet.read() : null]);
      const problems = [...refusals, ...alive()];
      if (runners === null) return [...problems, 'the stages are still being started'];
      if (runners.length === 0) return problems;
      for (const reason of new Set(runners.map((one) => one.heldBecause)))
        if (reason !== null) problems.push(`no jobs are taken: ${reason}`);
      for (const one of runners) {
        problems.push(...hangingRuns(one));
        const backlog = figures?.backlog[one.name];
        if (backlog?.pausedForMs === Infinity)
          problems.push(`the queue ${one.name} is paused by hand: resume it on /dashboard/queues`);
        if (backlog && backlog.pausedForMs === 0 && one.heldBecause === null)
          problems.push(...leftWork(one, backlog.due));
        else untaken.delete(one.name);
      }
      const lateMs = Math.max(SWEEP_LATE_FACTOR * sweepIntervalMs, SWEEP_LATE_AT_LEAST_MS);
      const sinceMs = now() - Math.max(figures?.sweptAt ?? 0, startedAt);
      if (figures !== null && sinceMs > lateMs) problems.push(`no sweep has ended for ${sinceMs} ms`);
      return problems;
    },
  };
}
