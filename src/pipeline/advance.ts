/**
 * Transitions, and the jobs that follow them. Redis runs the transition first, then adds the next job; both are sent in one
 * round trip. When only the transition came through, the stage's next run or the sweep adds the job, since the record says
 * which one is due. When only the job came through, its stage finds nothing to do.
 */
import { NotFoundError } from '../errors.js';
import type { Hub } from './context.js';
import { kindOf } from '../polling/duration-stats.js';
import { lessonOfGivingUp } from '../polling/observation.js';
import type { FailureCode, GenerationRecord } from '../generation/record.js';
import { chargeOf } from '../generation/submits.js';
import { priorityOf } from '../store/queued-lua.js';
import { isTerminal, stageOf, type Stage, type State } from '../generation/states.js';
import { announced, type Change } from '../generation/change.js';

/** How often a change is decided anew when others change the same generation at the same moment. */
const MAX_TRIES = 50;

/**
 * Moves a generation on and adds the job of the stage that follows, in `delayMs`; what that is may be asked for once
 * the transition is sent: nothing comes before it.
 * @returns false when the generation is no longer where this was decided: read again.
 */
export async function advance(
  hub: Hub,
  record: GenerationRecord,
  to: State,
  change: Change = {},
  { delayMs = 0 }: { readonly delayMs?: number | (() => Promise<number>) } = {},
): Promise<boolean> {
  const stage = stageOf(to);
  const whole = {
    live: stage !== null,
    ...change,
    set: { ...(to === 'failed' || record.failure === null ? {} : { failure: null }), ...change.set },
  };
  const { id: generationId, state: from } = record;
  const moving = hub.store.transition(record, to, whole).then((moved) => {
    if (moved !== null && to === 'generating') hub.checkpoint('saved', generationId);
    return moved;
  });
  const isNext = stage !== null && to !== 'queued' && stage !== stageOf(from);
  const [moved] = await Promise.all([moving, isNext ? remind(hub, stage, generationId, delayMs) : null]);
  if (moved === null) return false;
  if (to === 'canceled') await learnDuration(hub, record);
  if (to === 'generating') hub.checkpoint('handed-over', generationId);
  // Also the job of an earlier round that waits for a callback is to run now.
  if (to === 'queued' && !change.keepsTurn)
    await hub.queues.hasten('submit', generationId, priorityOf(moved.turn));
  if (isTerminal(from) && !isTerminal(to)) await resumeAfter(hub, generationId);
  if (announced(record, to, whole) !== null) await hastenNotification(hub, generationId);
  return true;
}

async function remind(
  { queues }: Hub,
  stage: Stage,
  generationId: string,
  delayMs: number | (() => Promise<number>),
): Promise<void> {
  await queues.remind(stage, {
    generationId,
    delayMs: typeof delayMs === 'number' ? delayMs : await delayMs(),
  });
}

/**
 * What failed since this one had ended without its asset waits for it again. Should a crash come in between, their own
 * `retry` does the same.
 */
export async function resumeAfter(hub: Hub, generationId: string): Promise<void> {
  for (const id of await hub.store.after(generationId)) {
    const next = await hub.store.get(id);
    if (next?.state !== 'failed' || next.failure?.code !== 'input_unusable') continue;
    await advance(hub, next, 'queued', { set: FROM_THE_START });
  }
}

/** What a generation forgets that is to be submitted from the start again. */
export const FROM_THE_START = {
  inputsCheckedAt: null,
  inputFailures: null,
  submitFailures: null,
  deadlineAt: null,
};

/** A task that is no longer followed took at least this long: without it only quick tasks would be counted. */
async function learnDuration(hub: Hub, { state, acceptedAt, request }: GenerationRecord): Promise<void> {
  if (state !== 'generating' || acceptedAt === null) return;
  const lesson = lessonOfGivingUp({ ageMs: hub.now() - acceptedAt, startedAgeMs: null });
  await hub.pacing.learn(kindOf(request), lesson, null);
}

/** The notification is in the outbox already: without this job it waits for the next sweep. */
export async function hastenNotification(hub: Hub, generationId: string): Promise<void> {
  try {
    await hub.queues.hasten('notify', generationId);
  } catch (error) {
    hub.log.warn({ generationId, err: error }, 'a notification waits for the next sweep');
  }
}

/** Ends a generation as failed. The failure tells what is known of the bill by then. */
export function fail(
  hub: Hub,
  record: GenerationRecord,
  failure: { code: FailureCode; message: string; stage: Stage; retryable: boolean },
  change: Change = {},
): Promise<boolean> {
  const { code, message, stage, retryable } = failure;
  const charge = chargeOf(change.submits ?? record.submits);
  hub.log.warn({ generationId: record.id, code, stage, charge }, 'generation failed');
  const text = JSON.stringify({ code, message: message.slice(0, 1000), stage, retryable, charge });
  return advance(hub, record, 'failed', { ...change, set: { ...change.set, failure: text } });
}

/** Ends a queued generation whose deadline has passed. @returns false when it is queued no longer. */
export function failOverdue(hub: Hub, record: GenerationRecord): Promise<boolean> {
  return fail(hub, record, {
    code: 'deadline_exceeded',
    message: 'The deadline passed before the request was submitted.',
    stage: 'submit',
    retryable: true,
  });
}

/**
 * Gives up waiting for a task at its deadline: its result is not known, and a slow check goes on.
 * @param neverSeen the provider said by now that it does not know the task, and never said anything else.
 */
export function expire(
  hub: Hub,
  record: GenerationRecord,
  { neverSeen = false, ...change }: Change & { readonly neverSeen?: boolean } = {},
): Promise<boolean> {
  const failure = {
    code: neverSeen ? 'task_not_found' : 'deadline_exceeded',
    message: neverSeen
      ? 'The provider never showed the task it had accepted, and the deadline passed. A slow check goes on.'
      : 'The task was not finished by the deadline. It may still finish; a slow check goes on.',
    stage: 'poll',
    retryable: true,
    charge: record.charge,
  };
  const set = { ...change.set, failure: JSON.stringify(failure) };
  return advance(hub, record, 'expired', { ...change, set });
}

/** The same for a task that no poll asks for just now; does nothing when it is no longer followed. */
export async function expireUnasked(hub: Hub, record: GenerationRecord): Promise<void> {
  if (await expire(hub, record)) await learnDuration(hub, record);
}

/** Adds a warning to those the generation has; for the `set` of a change. */
export function withWarning(record: GenerationRecord, code: string, message: string): { warnings: string } {
  return { warnings: JSON.stringify([...record.warnings, { code, message }]) };
}

/**
 * Decides a change anew from the record as it is, until it fits. `decide` returns 'again' when it did not.
 * @param known the record as it was just now, which spares the first read
 */
export async function settle<T>(
  hub: Hub,
  generationId: string,
  decide: (record: GenerationRecord) => Promise<{ readonly settled: T } | 'again'>,
  missing: T,
  known: GenerationRecord | null = null,
): Promise<T> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const record = tries === 0 && known !== null ? known : await hub.store.get(generationId);
    if (!record) return missing;
    const decision = await decide(record);
    if (decision !== 'again') return decision.settled;
  }
  throw new Error(`generation ${generationId} kept changing; nothing was decided`);
}

/** @throws NotFoundError */
export async function mustGet(hub: Hub, generationId: string): Promise<GenerationRecord> {
  const record = await hub.store.get(generationId);
  if (record) return record;
  throw new NotFoundError(generationId, (await hub.store.eraser.erased(generationId))?.erasedAt ?? null);
}
