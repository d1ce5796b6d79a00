/**
 * The sweep: every generation that needs a job has one, within a sweep interval of losing it. It looks only at what is
 * live, so its cost does not grow with what is finished. It also ends those whose deadline passed while they stood in
 * line, or while polls are held, and forgets what has been finished for `RETENTION_MS`.
 *
 * A job may be lost to a crash between record and queue, an obliterated queue, or a Redis that forgot its last second.
 * Writing one again is always safe, since every stage decides from the record.
 */
import type { Context } from './context.js';
import { StorageError } from '../src/errors.js';
import { withinLimit } from '../src/outbound/limit.js';
import { bucketOf } from '../src/polling/histogram.js';
import { priorityOf } from '../src/store/queued-lua.js';
import { stageOf, type FlowStage } from '../src/generation/states.js';
import type { Whereabouts } from '../src/store/store.js';
import { discard } from '../src/pipeline/inputs.js';
import { expireUnasked, failOverdue } from '../src/pipeline/advance.js';
import { eraseFinished, finishErasing } from '../src/pipeline/erase.js';

const PAGE = 500;
/** The most that one sweep forgets: 160 a second with a sweep a minute. */
const PRUNED_PER_SWEEP = 10_000;
/** Each takes a few commands and its files: 33 a second with a sweep a minute. */
const ERASED_PER_SWEEP = 2000;
const INPUTS_PER_SWEEP = 1000;
/** A generation that moved just now may be between its transition and its next job. */
const SETTLING_MS = 2000;
/** A job that is delayed for longer was written by a wrong clock. */
const LONGEST_WAIT_MS = 25 * 3_600_000;
/** The count of running tasks is valid for this many sweeps. */
const RUNNING_KEPT_FOR = 3;
/** What an upload left behind when its process was killed, and may be removed. */
const ABANDONED_AFTER_FACTOR = 2;
/** A storage that hangs holds up no further sweep. */
const TIDY_LIMIT_MS = 300_000;

export interface SweepReport {
  readonly looked: number;
  readonly restored: number;
  readonly pruned: number;
  readonly abandoned: number;
}

export async function sweep(context: Context, signal: AbortSignal): Promise<SweepReport> {
  const { store, config, now, storage, log, queues, limits } = context;
  /** A part that fails is told, and stops no other. */
  const part = async <T>(name: string, otherwise: T, work: () => Promise<T>): Promise<T> => {
    if (signal.aborted) return otherwise;
    try {
      return await work();
    } catch (error) {
      log.error({ stage: 'sweep', part: name, err: error }, 'a part of the sweep failed; the others go on');
      return otherwise;
    }
  };
  const { looked, restored } = await part('jobs', { looked: 0, restored: 0 }, () =>
    lookAtLive(context, part, signal),
  );
  const owed = await part('notifications', 0, () => restoreNotifications(context, signal));
  await part('parked', undefined, async () => {
    for (const id of await limits.freed()) await queues.hasten('submit', id);
  });
  await part('erasing', undefined, () => goOnErasing(context));
  await part('chains', undefined, async () => {
    for await (const id of store.turns.unchained()) await queues.hasten('submit', id);
  });
  const pruned = await part('retention', 0, () => store.prune(now() - config.RETENTION_MS, PRUNED_PER_SWEEP));
  const abandoned = await part('storage', 0, () =>
    withinLimit(
      TIDY_LIMIT_MS,
      signal,
      () =>
        storage.removeAbandoned(ABANDONED_AFTER_FACTOR * config.ARCHIVE_TIMEOUT_MS, (problem) =>
          log.warn({ stage: 'sweep', err: problem }, 'storage could not be tidied'),
        ),
      () => new StorageError('The storage does not answer.', true),
    ),
  );
  await part('inputs', undefined, () => removeUnusedInputs(context));
  const report = { looked, restored: restored + owed, pruned, abandoned };
  if (report.restored + pruned + abandoned > 0) log.info(report, 'swept');
  return report;
}

/** Finishes what a crash left half erased, and erases generations whose files have expired. */
async function goOnErasing(context: Context): Promise<void> {
  const { store, queues, config, now, log } = context;
  const { events, files } = await store.eraser.unfinished(PAGE);
  await finishErasing(context, events);
  for (const generationId of await queues.missing('archive', files))
    await queues.restore('archive', { generationId });
  await store.eraser.pruneErased(now() - config.RETENTION_MS, PRUNED_PER_SWEEP);
  if (config.FILES_RETENTION_MS === null) return;
  const erased = await eraseFinished(context, now() - config.FILES_RETENTION_MS, ERASED_PER_SWEEP);
  if (erased > 0) log.info({ erased }, 'generations were erased by FILES_RETENTION_MS');
}

/** Uploads that no generation names: never, or not any more. */
async function removeUnusedInputs(context: Context): Promise<void> {
  const { inputs, config, now } = context;
  for (const id of await inputs.unused(now() - config.INPUT_UNUSED_MS, INPUTS_PER_SWEEP))
    await discard(context, id);
}

type Part = <T>(name: string, otherwise: T, work: () => Promise<T>) => Promise<T>;

/** Every generation that needs a job, page by page. */
async function lookAtLive(
  context: Context,
  part: Part,
  signal: AbortSignal,
): Promise<{ readonly looked: number; readonly restored: number }> {
  const { store, config, now, durations } = context;
  let looked = 0;
  let restored = 0;
  const running = new Map<string, Map<number, number>>();
  for (let after: string | null = null; !signal.aborted;) {
    const ids: string[] = await store.live(after, PAGE);
    if (ids.length === 0) break;
    after = ids.at(-1) ?? null;
    looked += ids.length;
    const records = await store.whereabouts(ids);
    restored += await part('lost jobs', 0, () => restoreJobs(context, records));
    await part('hints', undefined, () => heedHints(context, records));
    await part('deadlines', undefined, async () => {
      await failOverdueQueued(context, records);
      await expireOverdueWhileHeld(context, records);
    });
    countRunning(running, records, now());
  }
  if (!signal.aborted) await durations.setRunning(running, RUNNING_KEPT_FOR * config.SWEEP_INTERVAL_MS);
  return { looked, restored };
}

/** A generation that is over and still live needs a poll job: one of its tasks is still being checked. */
function stagesOf({ state, unshown }: Whereabouts): ReadonlySet<FlowStage> {
  const stage = stageOf(state) ?? 'poll';
  return new Set(unshown ? [stage, 'poll'] : [stage]);
}

async function restoreJobs(context: Context, whereabouts: readonly Whereabouts[]): Promise<number> {
  const { queues, now, log } = context;
  const byStage = new Map<FlowStage, Whereabouts[]>();
  for (const record of whereabouts) {
    if (isSettling(record, now())) continue;
    for (const stage of stagesOf(record)) byStage.set(stage, [...(byStage.get(stage) ?? []), record]);
  }
  let restored = 0;
  for (const [stage, records] of byStage) {
    const ids = records.map(({ id }) => id);
    const missing = new Set([
      ...(await queues.missing(stage, ids)),
      ...(await queues.delayedBeyond(
        stage,
        records.filter(isDue(now())).map(({ id }) => id),
        latest(context),
      )),
    ]);
    for (const record of records.filter(({ id }) => missing.has(id))) {
      const { id: generationId, state } = record;
      const isQueued = stage === 'submit' && state === 'queued';
      await queues.restore(stage, isQueued ? submitReminder(record, now()) : { generationId });
      log.warn({ generationId, stage, state }, 'a lost job was written again');
      restored += 1;
    }
  }
  return restored;
}

/** A worker that died between putting a poll off and looking for hints leaves one that came during that poll unheeded. */
async function heedHints({ following, queues, log, now }: Context, whereabouts: readonly Whereabouts[]) {
  const followed = whereabouts.filter(({ state }) => state === 'generating' || state === 'expired');
  const unheeded = await following.unheeded(followed.map(({ id }) => id));
  for (const { id: generationId, hintedAt } of unheeded) {
    if (Math.abs(now() - hintedAt) < SETTLING_MS) continue;
    await queues.hasten('poll', generationId);
    log.info(
      { generationId, stage: 'poll' },
      'a poll was brought forward: a callback came during the last one',
    );
  }
}

/** No wait of a stage is longer than a day: until the next day's budget, or while a receiver is away. */
const latest = ({ config, now }: Context): number =>
  now() + Math.max(LONGEST_WAIT_MS, config.UNCONFIRMED_WAIT_MS, config.LATE_CHECK_INTERVAL_MS) + 3_600_000;
const isDue =
  (at: number) =>
  ({ runAt }: Whereabouts): boolean =>
    (runAt ?? 0) <= at;

const submitReminder = ({ id, runAt, turn }: Whereabouts, at: number) => ({
  generationId: id,
  delayMs: Math.max(0, (runAt ?? 0) - at),
  priority: priorityOf(turn),
});

/** What was written in the future was written by another clock, and says nothing. */
function isSettling({ updatedAt }: Whereabouts, at: number): boolean {
  return Math.abs(at - updatedAt) < SETTLING_MS;
}

/** A queued generation is not looked at until its turn, which may be long after its deadline. */
async function failOverdueQueued(context: Context, whereabouts: readonly Whereabouts[]): Promise<void> {
  const { store, now } = context;
  for (const { id, state, deadlineAt } of whereabouts) {
    if (state !== 'queued' || deadlineAt === null || deadlineAt > now()) continue;
    const record = await store.get(id);
    if (record?.state === 'queued') await failOverdue(context, record);
  }
}

/** While polls are held or paused, for up to an hour or longer, no poll looks at those whose deadline passes. */
async function expireOverdueWhileHeld(context: Context, whereabouts: readonly Whereabouts[]): Promise<void> {
  const { store, queues, now } = context;
  if ((await queues.backlog(now())).poll.pausedForMs === 0) return;
  for (const { id, state, deadlineAt } of whereabouts) {
    if (state !== 'generating' || deadlineAt === null || deadlineAt > now()) continue;
    const record = await store.get(id);
    if (record?.state === 'generating') await expireUnasked(context, record);
  }
}

/** Tasks that are still running say how long tasks take at least; only the sweep looks at all of them and can count them. */
function countRunning(
  running: Map<string, Map<number, number>>,
  records: readonly Whereabouts[],
  at: number,
): void {
  for (const { state, kind, acceptedAt } of records) {
    if (state !== 'generating' || kind === null || acceptedAt === null) continue;
    const ages = running.get(kind) ?? new Map<number, number>();
    const bucket = bucketOf(at - acceptedAt);
    running.set(kind, ages.set(bucket, (ages.get(bucket) ?? 0) + 1));
  }
}

/** What is owed to apps and has no job: the crash came between the end of a generation and the job that tells it. */
async function restoreNotifications({ outbox, queues, log }: Context, signal: AbortSignal): Promise<number> {
  let restored = 0;
  for (let after: string | null = null; !signal.aborted;) {
    const ids: string[] = await outbox.owed(after, PAGE);
    if (ids.length === 0) break;
    for (const generationId of await queues.missing('notify', ids)) {
      await queues.restore('notify', { generationId });
      log.warn({ generationId, stage: 'notify' }, 'a lost job was written again');
      restored += 1;
    }
    after = ids.at(-1) ?? null;
  }
  return restored;
}
