/**
 * Runs one stage on BullMQ: takes its jobs, hands the generation id to the stage, and turns what the stage says into
 * what BullMQ does. It promises:
 *
 * - a snooze costs no attempt and holds no slot (`moveToDelayed` + `DelayedError`);
 * - a hold costs no attempt and stops all workers of the queue (`rateLimit` + `RateLimitError`);
 * - a lost lock aborts the stage where that is wanted, since another worker may have the job by then;
 * - interrupted by shutdown is not failed: what does not finish in time is given back.
 */
import { DelayedError, WaitingError, Worker, type Job } from 'bullmq';
import type { Logger } from 'pino';
import { backoffAfterError } from './queues.js';
import { tellsVersion } from '../redis/check.js';
import { isEchoOfOutage, refusalOf, type RedisConnection } from '../redis/connect.js';
import type { WorkerHold } from '../redis/worker-hold.js';
import type { RunName, RunOutcome, Vitals, WorkLog } from '../generation/work.js';

/** What a stage says comes next. It throws only when something failed that it did not foresee. */
export type Outcome =
  | { readonly kind: 'done' }
  | {
      readonly kind: 'snooze';
      readonly delayMs: number;
      /** Called once the job is delayed: what wanted it sooner while it ran could not bring it forward. */
      readonly afterwards?: () => Promise<void>;
    }
  | { readonly kind: 'hold'; readonly delayMs: number }
  | { readonly kind: 'requeue'; readonly priority: number };

export const done: Outcome = { kind: 'done' };
/** Run me again in so many milliseconds. Waiting is not failing. */
export const snooze = (delayMs: number, afterwards?: () => Promise<void>): Outcome => ({
  kind: 'snooze',
  delayMs: Math.max(0, Math.round(delayMs)),
  ...(afterwards ? { afterwards } : {}),
});
/**
 * The gate says that no job of this stage may run for so many milliseconds. The job keeps its priority and is the first
 * of that priority again.
 */
export const hold = (delayMs: number): Outcome => ({
  kind: 'hold',
  delayMs: Math.max(1, Math.round(delayMs)),
});

/** Others go first: the job goes back with this priority. */
export const requeue = (priority: number): Outcome => ({ kind: 'requeue', priority });

/**
 * The work of one stage for one generation. It must be safe to run twice, also at the same time. `step` tells that a part of it
 * begins which has a time limit of its own.
 */
export type StageFunction = (generationId: string, signal: AbortSignal, step: () => void) => Promise<Outcome>;

export interface RunnerOptions {
  readonly name: RunName;
  readonly run: StageFunction;
  /** Lets no worker of any replica take a job of this queue for so long (`Queues.hold`). */
  readonly holdQueue: (durationMs: number) => Promise<void>;
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly concurrency: number;
  /** A worker that does not renew its lock for so long is taken for dead, and its jobs run elsewhere. */
  readonly lockMs: number;
  /** False for submit: cutting a paid call because another worker has the job would only make it unconfirmed. */
  readonly abortOnLostLock: boolean;
  readonly log: Logger;
  /** Told when a run begins and ends. */
  readonly work: WorkLog;
  /** No run, and no step of one, takes longer than this by itself: one that does hangs. */
  readonly runLimitMs: number;
  readonly now: () => number;
  /** While it gives a reason, no job is taken. */
  readonly workerHold: Pick<WorkerHold, 'check' | 'onChange'>;
}

export interface Runner {
  vitals(): Vitals;
  /** Takes no new job, waits for the running ones until `deadlineAt` (epoch ms), then aborts and gives back the rest. */
  close(deadlineAt: number): Promise<void>;
}

/** How long an aborted stage gets to give its job back before the connection is closed under it. */
const GIVE_BACK_MS = 2000;
/** BullMQ looks for jobs of dead workers so often within one lock time, once in the whole fleet. */
const STALLED_LOOKS_PER_LOCK = 5;
const MIN_STALLED_LOOK_MS = 250;
/** Two refusals of a kind that are no further apart belong to one outage. */
const SAME_REFUSAL_MS = 30_000;
/** BullMQ rests so long (15 s unless told) after a connection error that reaches it; the connection itself waits already. */
const RETRY_DELAY_MS = 1000;
/** BullMQ heeds `queue.rateLimit` only in workers that have a limiter. Its count of jobs is forgotten at once. */
const NEVER_REACHED = { max: 1_000_000_000, duration: 1 };
/** How often a worker looks whether a hold was ended before its time. */
const LOOK_WHILE_HELD_MS = 1000;

export function startRunner({
  name,
  run,
  holdQueue,
  redis,
  prefix,
  concurrency,
  lockMs,
  abortOnLostLock,
  log,
  work,
  runLimitMs,
  now,
  workerHold,
}: RunnerOptions): Runner {
  const runs = new Set<{ stepBeganAt: number }>();
  let begun = 0;
  let closing = false;

  async function process(
    job: Job,
    token: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const generationId = job.id ?? '';
    if (workerHold.check() !== null) {
      await job.moveToWait(token);
      throw new WaitingError();
    }
    const beganAt = now();
    const current = { stepBeganAt: beganAt };
    runs.add(current);
    begun += 1;
    work.tell({ kind: 'began', name, generationId, at: beganAt });
    let outcome: RunOutcome = 'failed';
    try {
      outcome = await take(job, token, signal, () => (current.stepBeganAt = now()));
    } finally {
      runs.delete(current);
      work.tell({ kind: 'ended', name, generationId, outcome, beganAt, at: now() });
    }
    if (outcome === 'interrupted' || outcome === 'requeued') throw new WaitingError();
    if (outcome === 'snoozed') throw new DelayedError();
    if (outcome === 'held') throw Worker.RateLimitError();
  }

  /** One run, up to where BullMQ is to be told. Throws what the stage threw. */
  async function take(
    job: Job,
    token: string | undefined,
    signal: AbortSignal | undefined,
    step: () => void,
  ): Promise<RunOutcome> {
    const generationId = job.id ?? '';
    let outcome: Outcome;
    try {
      outcome = await run(generationId, signal ?? new AbortController().signal, step);
    } catch (error) {
      if (signal?.aborted) {
        await job.moveToWait(token);
        return 'interrupted';
      }
      throw error;
    }
    if (outcome.kind === 'done') return 'done';
    if (outcome.kind === 'requeue') {
      await job.changePriority({ priority: outcome.priority });
      await job.moveToWait(token);
      return 'requeued';
    }
    if (outcome.kind === 'hold') {
      await holdQueue(outcome.delayMs);
      return 'held';
    }
    await job.moveToDelayed(now() + outcome.delayMs, token);
    try {
      await outcome.afterwards?.();
    } catch (error) {
      // The job is delayed all the same; a hint that was not heeded is found by the sweep.
      log.warn({ stage: name, generationId, err: error }, 'a delayed job could not be brought forward');
    }
    return 'snoozed';
  }

  const worker = new Worker(name, process, {
    connection: redis,
    prefix,
    concurrency,
    autorun: false,
    skipVersionCheck: !tellsVersion(redis),
    lockDuration: lockMs,
    // A dead worker's jobs are found in the first look after their locks have expired: a takeover takes 1.2 lock times at most.
    stalledInterval: Math.max(MIN_STALLED_LOOK_MS, lockMs / STALLED_LOOKS_PER_LOCK),
    // A stalled job is run again as often as it takes: every stage is safe to repeat, so none is given up for it.
    maxStalledCount: Number.MAX_SAFE_INTEGER,
    runRetryDelay: RETRY_DELAY_MS,
    limiter: NEVER_REACHED,
    maximumRateLimitDelay: LOOK_WHILE_HELD_MS,
    settings: { backoffStrategy: backoffAfterError },
  });
  const refusedAt = new Map<string, number>();
  worker.on('error', (error) => {
    if (isEchoOfOutage(redis, error)) return;
    const refusal = refusalOf(error);
    if (refusal !== null) {
      // BullMQ asks again and again: an outage of this kind is told once, not once per question.
      const lastAt = refusedAt.get(refusal);
      refusedAt.set(refusal, Date.now());
      if (lastAt !== undefined && Date.now() - lastAt < SAME_REFUSAL_MS) return;
    }
    log.warn({ stage: name, err: error }, 'the queue reported an error');
  });
  worker.on('failed', (job, error) => {
    log.error({ stage: name, generationId: job?.id, err: error }, 'a stage threw; its job runs again later');
  });
  worker.on('lockRenewalFailed', (jobIds) => {
    log.warn({ stage: name, jobIds }, 'the lock of running jobs was lost; another worker may run them too');
    if (abortOnLostLock) for (const jobId of jobIds) worker.cancelJob(jobId, 'the lock was lost');
  });

  const pause = () => void worker.pause(true).catch((error: Error) => worker.emit('error', error));
  workerHold.onChange((reason) => {
    if (closing) return;
    if (reason === null) void worker.resume();
    else pause();
  });
  if (workerHold.check() !== null) pause();
  else worker.run().catch((error: Error) => worker.emit('error', error));

  return {
    vitals() {
      const beganAt = [...runs].map((run) => run.stepBeganAt);
      return {
        name,
        looping: closing || worker.isPaused() || worker.isRunning(),
        running: runs.size,
        concurrency,
        oldestBeganAt: beganAt.length > 0 ? Math.min(...beganAt) : null,
        begun,
        runLimitMs,
        heldBecause: workerHold.check(),
      };
    },

    async close(deadlineAt) {
      closing = true;
      const closed = worker.close();
      const timers: NodeJS.Timeout[] = [];
      const after = (atMs: number) =>
        new Promise<'late'>((resolve) => {
          timers.push(setTimeout(resolve, Math.max(0, atMs - Date.now()), 'late'));
        });
      try {
        if ((await Promise.race([closed, after(deadlineAt - GIVE_BACK_MS)])) !== 'late') return;
        worker.cancelAllJobs('shutting down');
        if ((await Promise.race([closed, after(deadlineAt)])) !== 'late') return;
        log.warn(
          { stage: name },
          'a stage did not stop in time; its job runs again once its lock has expired',
        );
        await worker.disconnect();
      } finally {
        for (const timer of timers) clearTimeout(timer);
      }
    },
  };
}
