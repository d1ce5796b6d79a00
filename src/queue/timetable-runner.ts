/**
 * Runs the poll stage by the timetable, as `runner.ts` runs the others on BullMQ, and with the same promises: a snooze
 * holds no slot, a lost lease aborts the run, and interrupted by shutdown is not failed. Taking, putting off and renewing
 * are done for many at once; while nothing is due it waits at Redis for whoever wants a poll sooner.
 */
import type { Logger } from 'pino';
import { delay, listen } from './bell.js';
import { backoffAfterError } from './queues.js';
import { isEchoOfOutage, refusalOf, type RedisConnection } from '../redis/connect.js';
import type { WorkerHold } from '../redis/worker-hold.js';
import type { Runner, StageFunction } from './runner.js';
import type { Lease, Timetable } from './timetable.js';
import type { RunName, RunOutcome, WorkLog } from '../generation/work.js';

export interface TimetableRunnerOptions {
  readonly name: RunName;
  readonly run: StageFunction;
  readonly timetable: Timetable;
  readonly redis: RedisConnection;
  readonly concurrency: number;
  /** A worker that does not renew its leases for so long is taken for dead, and its generations are polled elsewhere. */
  readonly leaseMs: number;
  readonly log: Logger;
  readonly work: WorkLog;
  readonly runLimitMs: number;
  readonly now: () => number;
  /** While it gives a reason, no poll begins. */
  readonly workerHold: Pick<WorkerHold, 'check'>;
}

/** Runs that end within so long are settled together, and so long a worker waits between two looks while it is busy. */
const GATHER_MS = 20;
/** Looked at least so often: whoever was woken may have had no room. */
const LOOK_EVERY_MS = 1000;
const AFTER_ERROR_MS = 1000;
/** How often a generation threw is forgotten when this many have. */
const MOST_FAILURES_KNOWN = 10_000;
/** Two errors of a kind that are no further apart belong to one outage. */
const SAME_ERROR_MS = 30_000;
const MOST_ERRORS_KNOWN = 100;
/** How long aborted runs get to give back what they hold. */
const GIVE_BACK_MS = 2000;

interface Run {
  lease: Lease;
  readonly beganAt: number;
  readonly stop: AbortController;
}

interface Ended {
  readonly run: Run;
  readonly delayMs: number | null;
}

export function startTimetableRunner(options: TimetableRunnerOptions): Runner {
  const { name, run, timetable, concurrency, leaseMs, log, work, runLimitMs, now, workerHold } = options;
  const runs = new Map<string, Run>();
  const failures = new Map<string, number>();
  const toldAt = new Map<string, number>();
  const settler = gather<Ended>(settle, report);
  const bell = listen(options.redis, timetable.wakeKey, {
    heeds: () => runs.size < concurrency,
    passOn: () => timetable.wake(),
    onError: report,
  });
  let begun = 0;
  let closing = false;
  let looping = true;
  let roomMade = () => {};
  let renewal: Promise<void> | null = null;

  /** It is asked again and again: an outage is told once, not once per question. */
  function report(error: unknown): void {
    if (closing || !(error instanceof Error) || isEchoOfOutage(options.redis, error)) return;
    const kind = refusalOf(error) ?? error.message;
    const lastAt = toldAt.get(kind);
    if (toldAt.size >= MOST_ERRORS_KNOWN) toldAt.clear();
    toldAt.set(kind, Date.now());
    if (lastAt !== undefined && Date.now() - lastAt < SAME_ERROR_MS) return;
    log.warn({ stage: name, err: error }, 'the timetable reported an error');
  }

  async function perform(current: Run): Promise<void> {
    const { generationId } = current.lease;
    const { signal } = current.stop;
    begun += 1;
    work.tell({ kind: 'began', name, generationId, at: current.beganAt });
    let outcome: RunOutcome = 'done';
    let delayMs: number | null = null;
    try {
      const next = await run(generationId, signal);
      if (next.kind === 'snooze') [outcome, delayMs] = ['snoozed', next.delayMs];
      if (next.kind === 'hold') {
        await timetable.hold(next.delayMs);
        [outcome, delayMs] = ['held', 0];
      }
      failures.delete(generationId);
    } catch (error) {
      if (signal.aborted) [outcome, delayMs] = ['interrupted', 0];
      else {
        const times = (failures.get(generationId) ?? 0) + 1;
        if (failures.size >= MOST_FAILURES_KNOWN) failures.clear();
        failures.set(generationId, times);
        [outcome, delayMs] = ['failed', backoffAfterError(times)];
        log.error({ stage: name, generationId, err: error }, 'a stage threw; its job runs again later');
      }
    }
    runs.delete(generationId);
    settler.add({ run: current, delayMs });
    work.tell({ kind: 'ended', name, generationId, outcome, beganAt: current.beganAt, at: now() });
    roomMade();
  }

  /** What a renewal that is under way gives is the proof that a run may be settled. */
  async function settle(ended: readonly Ended[]): Promise<void> {
    await renewal;
    const idleMs = await timetable.settle(
      ended.map(({ run: { lease }, delayMs }) => ({ ...lease, delayMs })),
    );
    bell.ringIn(Math.max(idleMs, GATHER_MS));
  }

  async function takeWhatIsDue(): Promise<number> {
    const { leases, idleMs } = await timetable.take(concurrency - runs.size, leaseMs);
    for (const lease of leases) {
      const known = runs.get(lease.generationId);
      const current: Run = known ?? { lease, beganAt: now(), stop: new AbortController() };
      current.lease = lease;
      // Its lease ran out while Redis was away, and nobody else took it: it goes on under the new one.
      if (known) continue;
      if (closing) {
        settler.add({ run: current, delayMs: 0 });
        continue;
      }
      runs.set(lease.generationId, current);
      void perform(current);
    }
    return idleMs;
  }

  /** Until a quarter of the slots is free; or a single one, for whoever has waited this long. */
  async function awaitRoom(): Promise<void> {
    const enough = concurrency - Math.ceil(concurrency / 4);
    while (!closing && runs.size > enough) {
      const some = new Promise<void>((resolve) => (roomMade = resolve));
      const timer = runs.size < concurrency ? delay(GATHER_MS) : null;
      await (timer === null ? some : Promise.race([some, timer.over]));
      const isOver = timer?.clear() === true;
      if (isOver && runs.size < concurrency) return;
    }
  }

  async function loop(): Promise<void> {
    while (!closing) {
      await awaitRoom();
      if (closing) return;
      if (workerHold.check() !== null) {
        await bell.wait(AFTER_ERROR_MS);
        continue;
      }
      try {
        const idleMs = await takeWhatIsDue();
        // Only with room does it listen: who has none leaves the bell to others.
        if (idleMs > 0 && runs.size < concurrency)
          await bell.wait(Math.min(Math.max(idleMs, GATHER_MS), LOOK_EVERY_MS));
      } catch (error) {
        report(error);
        await bell.wait(AFTER_ERROR_MS);
      }
    }
  }

  async function renew(): Promise<void> {
    const held = [...runs.values()].map((current) => ({ current, lease: current.lease }));
    const leases = await timetable.renew(
      held.map(({ lease }) => lease),
      leaseMs,
    );
    const kept = new Map(leases.map((lease) => [lease.generationId, lease]));
    const lost = held.flatMap(({ current, lease }) => {
      // It was taken anew meanwhile: this answer is about a lease that it no longer lives on.
      if (current.lease !== lease) return [];
      const renewed = kept.get(lease.generationId);
      if (renewed) current.lease = renewed;
      // One that ended meanwhile has been settled, and holds nothing any more.
      const isLost = !renewed && runs.get(lease.generationId) === current && !current.stop.signal.aborted;
      return isLost ? [current] : [];
    });
    if (lost.length === 0) return;
    const jobIds = lost.map(({ lease }) => lease.generationId);
    log.warn({ stage: name, jobIds }, 'the lock of running jobs was lost; another worker may run them too');
    for (const { stop } of lost) stop.abort(new Error('the lock was lost'));
  }

  const renewing = setInterval(() => {
    // One at a time: when Redis hangs, a second would show a lease that the first has replaced by then.
    renewal ??= renew()
      .catch(report)
      .finally(() => (renewal = null));
  }, leaseMs / 3);
  const looped = loop().finally(() => (looping = false));

  async function drained(): Promise<void> {
    await looped;
    while (runs.size > 0) await new Promise<void>((resolve) => (roomMade = resolve));
    await settler.flush();
  }

  return {
    vitals: () => ({
      name,
      looping: closing || looping,
      running: runs.size,
      concurrency,
      oldestBeganAt: runs.size === 0 ? null : Math.min(...[...runs.values()].map(({ beganAt }) => beganAt)),
      begun,
      runLimitMs,
      heldBecause: workerHold.check(),
    }),

    async close(deadlineAt) {
      closing = true;
      roomMade();
      bell.close();
      const ended = drained();
      const late = [deadlineAt - GIVE_BACK_MS, deadlineAt].map((at) => delay(at - Date.now()));
      try {
        if ((await Promise.race([ended, late[0]!.over])) !== 'over') return;
        for (const { stop } of runs.values()) stop.abort(new Error('shutting down'));
        if ((await Promise.race([ended, late[1]!.over])) !== 'over') return;
        log.warn(
          { stage: name },
          'a stage did not stop in time; its job runs again once its lock has expired',
        );
      } finally {
        clearInterval(renewing);
        for (const one of late) one.clear();
      }
    },
  };
}

/** Sends what comes within `GATHER_MS` together. What cannot be sent is left to its lease. */
function gather<T>(
  send: (ends: readonly T[]) => Promise<void>,
  onError: (error: unknown) => void,
): { add(end: T): void; flush(): Promise<void> } {
  let ends: T[] = [];
  let sending: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | null = null;
  const flush = (): Promise<void> => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    if (ends.length > 0) {
      const batch = ends;
      ends = [];
      const before = sending;
      sending = Promise.all([before, send(batch).catch(onError)]).then(() => {});
    }
    return sending;
  };
  return {
    add(end) {
      ends.push(end);
      timer ??= setTimeout(() => void flush(), GATHER_MS);
    },
    flush,
  };
}
