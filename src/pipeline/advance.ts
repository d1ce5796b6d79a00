/**
 * The hand-overs of the flow: which stage follows, and what a task id means to the generation it belongs to.
 * Each is the transition first, then the next job; a crash between the two is healed by the stage's next run and by
 * the sweep, since the record says which job is due.
 */
import { NotFoundError } from '../errors.js';
import type { Hub } from './context.js';
import { kindOf } from '../polling/duration-stats.js';
import { NOT_FOLLOWED_YET } from '../polling/poll-state.js';
import { lessonOfGivingUp } from '../polling/observation.js';
import type { Charge, FailureCode, GenerationRecord, RawAnswer } from '../generation/record.js';
import { isTerminal, stageOf, type Stage, type State } from '../generation/states.js';
import { announced, type Change } from '../generation/change.js';
import { priceOf } from '../generation/price.js';

/** How often a change is decided anew when others change the same generation at the same moment. */
const MAX_TRIES = 50;

/**
 * Moves a generation on and adds the job of the stage that follows, in `delayMs`; what that is may be asked for, once
 * the generation has moved: nothing comes before its transition.
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
    set: { ...(to === 'failed' ? {} : { failure: null }), ...change.set },
  };
  const moved = await hub.store.transition(record, to, whole);
  if (!moved) return false;
  const { id: generationId, state: from } = record;
  if (to === 'canceled') await learnDuration(hub, record);
  if (to === 'generating') hub.checkpoint('saved', generationId);
  if (to === 'queued') {
    // It stands in line again, and gets its job in its turn.
    if (change.place !== 'ready') await hub.dispatch.soon();
  } else if (stage && stage !== stageOf(from)) {
    await hub.queues.remind(stage, {
      generationId,
      delayMs: typeof delayMs === 'number' ? delayMs : await delayMs(),
    });
  }
  if (to === 'generating') hub.checkpoint('handed-over', generationId);
  if (announced(record, to, whole) !== null) await hastenNotification(hub, generationId);
  return true;
}

/** A task that is followed no more took at least so long: without it only the quick ones would count. */
async function learnDuration(hub: Hub, { state, acceptedAt, request }: GenerationRecord): Promise<void> {
  if (state !== 'generating' || acceptedAt === null) return;
  const lesson = lessonOfGivingUp({ ageMs: hub.now() - acceptedAt, startedAgeMs: null });
  await hub.pacing.learn(kindOf(request), lesson, null);
}

/** What is owed to the app is in the outbox already: without this job the sweep would send it a little later. */
export async function hastenNotification(hub: Hub, generationId: string): Promise<void> {
  try {
    await hub.queues.hasten('notify', generationId);
  } catch (error) {
    hub.log.warn({ generationId, err: error }, 'a notification waits for the next sweep');
  }
}

/** Ends a generation as failed. `charge` is what is known of the bill by then. */
export function fail(
  hub: Hub,
  record: GenerationRecord,
  failure: { code: FailureCode; message: string; stage: Stage; retryable: boolean; charge: Charge },
  change: Change = {},
): Promise<boolean> {
  const { code, message, stage, retryable, charge } = failure;
  hub.log.warn({ generationId: record.id, code, stage, charge }, 'generation failed');
  const text = JSON.stringify({ code, message: message.slice(0, 1000), stage, retryable, charge });
  return advance(hub, record, 'failed', { ...change, set: { ...change.set, failure: text, charge } });
}

/** Nothing is billed by a submit that was not accepted; an earlier one of the same generation may have been. */
export function chargeBefore({ resubmits, otherTaskIds }: GenerationRecord): Charge {
  return resubmits > 0 || otherTaskIds.length > 0 ? 'possible' : 'none';
}

/** Ends a queued generation whose deadline has passed. @returns false when it is queued no longer. */
export function failOverdue(hub: Hub, record: GenerationRecord): Promise<boolean> {
  return fail(hub, record, {
    code: 'deadline_exceeded',
    message: 'The deadline passed before the request was submitted.',
    stage: 'submit',
    retryable: true,
    charge: chargeBefore(record),
  });
}

/**
 * Ends our patience with a task: what becomes of it is not known, and a slow check goes on.
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

/** The same, for one that nobody asks about just now; nothing when it is no longer followed. */
export async function expireUnasked(hub: Hub, record: GenerationRecord): Promise<void> {
  if (await expire(hub, record)) await learnDuration(hub, record);
}

/** Adds a warning to those the generation has; for the `set` of a change. */
export function withWarning(record: GenerationRecord, code: string, message: string): { warnings: string } {
  return { warnings: JSON.stringify([...record.warnings, { code, message }]) };
}

/** For the `expect` of a change that writes the list of further task ids: none must be lost to another writer. */
export function sameTaskIds({ otherTaskIds }: GenerationRecord): { otherTaskIds: string } {
  return { otherTaskIds: otherTaskIds.length > 0 ? JSON.stringify(otherTaskIds) : '' };
}

/** Decides a change anew from the record as it is, until it fits. `decide` returns null when nothing is left to do. */
export async function settle<T>(
  hub: Hub,
  generationId: string,
  decide: (record: GenerationRecord) => Promise<{ readonly settled: T } | 'again'>,
  missing: T,
): Promise<T> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const record = await hub.store.get(generationId);
    if (!record) return missing;
    const decision = await decide(record);
    if (decision !== 'again') return decision.settled;
  }
  throw new Error(`generation ${generationId} kept changing; nothing was decided`);
}

/** @throws NotFoundError */
export async function mustGet(hub: Hub, generationId: string): Promise<GenerationRecord> {
  const record = await hub.store.get(generationId);
  if (!record) throw new NotFoundError(generationId);
  return record;
}

/** Who brought a task id: the answer to our submit, a callback of the provider, or an operator. */
export type TaskSource = 'submit' | 'callback' | 'operator';

export type Adoption =
  /** It is the generation's task now, and is followed. */
  | 'adopted'
  /** It was known already. */
  | 'known'
  /** The submit is still under way: kept, and used if its answer is lost. */
  | 'remembered'
  /** The generation has another task: kept beside it, an alarm was raised. */
  | 'second'
  /** The generation is over (canceled): noted for the bill. */
  | 'noted'
  | 'missing';

/** May this generation still take its first task id? Also after it was given up: the task exists and is paid for. */
function awaitsTask({ state, taskId, attempts, failure }: GenerationRecord, source: TaskSource): boolean {
  if (taskId !== null) return false;
  // Nobody can know a task of what was never submitted; except who submitted it, when Redis forgot that.
  if (attempts.submit === 0 && source !== 'submit') return false;
  return (
    state === 'queued' ||
    state === 'submitting' ||
    state === 'unconfirmed' ||
    (state === 'failed' && failure?.stage === 'submit')
  );
}

interface TaskNews {
  readonly taskId: string;
  readonly source: TaskSource;
  readonly answer: RawAnswer | null;
  /** Something the provider said beside it, kept as a warning. */
  readonly warning: string | null;
}

/**
 * Gives a task id to its generation. A task that exists is followed rather than bought again, whatever was thought
 * of its submit before; a second one is never dropped, since it is a bill of its own.
 */
export function adoptTask(
  hub: Hub,
  generationId: string,
  taskId: string,
  { source, answer = null, warning = null }: Pick<TaskNews, 'source'> & Partial<TaskNews>,
): Promise<Adoption> {
  const news: TaskNews = { taskId, source, answer, warning };
  const decide = async (record: GenerationRecord): Promise<Adoption | 'again'> => {
    const awaiting = awaitsTask(record, source);
    // Our own answer and an operator may promote an id that stands beside; a callback that comes again may not.
    const beside = record.otherTaskIds.includes(taskId) && !(awaiting && source !== 'callback');
    if (record.taskId === taskId || beside) return 'known';
    if (source === 'callback' && record.state === 'submitting') return rememberTask(hub, record, news);
    if (awaiting) return takeTask(hub, record, news);
    if (record.taskId === null && isTerminal(record.state)) return noteTask(hub, record, news);
    return keepBeside(hub, record, news);
  };
  return settle<Adoption>(
    hub,
    generationId,
    async (record) => {
      const decision = await decide(record);
      return decision === 'again' ? 'again' : { settled: decision };
    },
    'missing',
  );
}

async function takeTask(
  hub: Hub,
  record: GenerationRecord,
  { taskId, source, answer, warning }: TaskNews,
): Promise<Adoption | 'again'> {
  const { hintedTaskId, otherTaskIds } = record;
  const now = hub.now();
  const kind = kindOf(record.request);
  const deadlineAt = record.deadlineAt ?? now + hub.config.GENERATION_DEADLINE_MS;
  // A callback may have hinted at another task meanwhile: then there are two.
  const hinted = hintedTaskId !== null && hintedTaskId !== taskId ? hintedTaskId : null;
  const others = [
    ...otherTaskIds.filter((id) => id !== taskId && id !== hinted),
    ...(hinted === null ? [] : [hinted]),
  ];
  const adopted = await advance(
    hub,
    record,
    'generating',
    {
      set: {
        taskId,
        ...NOT_FOLLOWED_YET,
        kind,
        acceptedAt: now,
        deadlineAt,
        charge: 'charged',
        hintedTaskId: null,
        unconfirmedAt: null,
        otherTaskIds: others.length > 0 ? JSON.stringify(others) : null,
        ...(warning === null ? {} : withWarning(record, 'accepted_with_error', warning)),
      },
      expect: { hintedTaskId: hintedTaskId ?? '', ...sameTaskIds(record) },
      answer,
      bill: 'charged',
      price: priceOf(record.request, hub.config.PRICES),
      ...(hinted === null ? {} : { event: secondTask(hinted), anotherBill: true }),
    },
    { delayMs: source === 'submit' ? () => firstDelayMs(hub, kind, deadlineAt - now) : 0 },
  );
  if (adopted && source === 'submit') await followHint(hub, record.id);
  if (adopted && hinted !== null) alarmSecondTask(hub, record.id, hinted);
  return adopted ? 'adopted' : 'again';
}

/** From acceptance to the first poll, which is at the latest at the deadline. */
async function firstDelayMs(hub: Hub, kind: string, untilDeadlineMs: number): Promise<number> {
  return Math.min(await hub.pacing.firstDelayMs(kind), Math.max(1, untilDeadlineMs));
}

/** A callback may have said that the task is over before there was a job to bring forward. */
async function followHint(hub: Hub, generationId: string): Promise<void> {
  if (hub.config.PUBLIC_URL === '') return;
  if ((await hub.following.hints(generationId)) > 0) await hub.queues.hasten('poll', generationId);
}

async function rememberTask(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<Adoption | 'again'> {
  const { taskId, answer } = news;
  if (record.hintedTaskId === taskId) return 'known';
  if (record.hintedTaskId !== null) return keepBeside(hub, record, news);
  const change = { set: { hintedTaskId: taskId }, expect: { hintedTaskId: '' }, answer };
  return (await hub.store.amend(record, change)) ? 'remembered' : 'again';
}

async function noteTask(
  hub: Hub,
  record: GenerationRecord,
  { taskId, answer }: TaskNews,
): Promise<Adoption | 'again'> {
  const change: Change = {
    set: { taskId, charge: 'charged' },
    bill: 'charged',
    price: priceOf(record.request, hub.config.PRICES),
    expect: { taskId: '' },
    answer,
  };
  return (await hub.store.amend(record, change)) ? 'noted' : 'again';
}

async function keepBeside(
  hub: Hub,
  record: GenerationRecord,
  { taskId, answer }: TaskNews,
): Promise<Adoption | 'again'> {
  const kept = await hub.store.amend(record, {
    set: { otherTaskIds: JSON.stringify([...record.otherTaskIds, taskId]) },
    expect: sameTaskIds(record),
    answer,
    anotherBill: true,
    event: secondTask(taskId),
  });
  if (kept) alarmSecondTask(hub, record.id, taskId);
  return kept ? 'second' : 'again';
}

const secondTask = (taskId: string) => ({ type: 'second_task', text: taskId });

function alarmSecondTask(hub: Hub, generationId: string, taskId: string): void {
  hub.log.error(
    { generationId, taskId, alarm: 'second_task' },
    'a second task exists for one generation: it may be billed twice',
  );
}
