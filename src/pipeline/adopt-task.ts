/**
 * What a task id means to the generation it belongs to. A task that exists is followed rather than bought again; a second
 * one is never dropped, since it is a bill of its own.
 */
import { isDeepStrictEqual } from 'node:util';
import type { GenerationRecord, RawAnswer } from '../generation/record.js';
import type { Change } from '../generation/change.js';
import { isTerminal } from '../generation/states.js';
import { withAnswer, withFurtherTask, withoutPost, withTask, type Submit } from '../generation/submits.js';
import { priceOf } from '../generation/price.js';
import { unshownTasks } from '../generation/unshown.js';
import { TaskTakenError } from '../errors.js';
import { kindOf } from '../polling/duration-stats.js';
import { NOT_FOLLOWED_YET } from '../polling/poll-state.js';
import type { Hub } from './context.js';
import { advance, settle, withWarning } from './advance.js';

/** Where a task id comes from: the answer to our submit, a callback of the provider, or an operator. */
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
  /** It belongs to another generation, or this one has too many already: nothing was changed, an alarm was raised. */
  | 'refused'
  | 'missing';

export interface TaskNews {
  readonly taskId: string;
  readonly source: TaskSource;
  readonly answer: RawAnswer | null;
  /** Something the provider said beside it, kept as a warning. */
  readonly warning: string | null;
  /** The nonce of the POST whose answer it is; null for any other news. */
  readonly post: string | null;
  /** That of a POST that surely was not accepted, as is known with it: the task is that of another. */
  readonly unaccepted: string | null;
}

/** May this generation still take its first task id? Also after it was given up: the task exists and is paid for. */
function awaitsTask({ state, taskId, attempts, failure }: GenerationRecord, source: TaskSource): boolean {
  if (taskId !== null) return false;
  // A callback cannot know a task of what was never submitted; our own answer can, when Redis forgot the submit.
  if (attempts.submit === 0 && source === 'callback') return false;
  return (
    state === 'queued' ||
    state === 'submitting' ||
    state === 'unconfirmed' ||
    (state === 'failed' && failure?.stage === 'submit')
  );
}

function decide(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<Adoption | 'again'> | Adoption {
  const { taskId, source, post } = news;
  const awaiting = awaitsTask(record, source);
  // Our own answer and an operator may promote an id that stands beside; a callback that comes again may not.
  const beside = record.otherTaskIds.includes(taskId) && !(awaiting && source !== 'callback');
  // The answer to an earlier POST, while a later one is under way, is news beside it, as that of a callback.
  const isLate = post !== null && post !== record.submitNonce;
  const isUnderWay = record.state === 'submitting';
  if (isUnderWay && isLate) return rememberTask(hub, record, news);
  if (record.taskId === taskId || beside) return known(hub, record, news);
  if (isUnderWay && source === 'callback') return rememberTask(hub, record, news);
  if (awaiting) return takeTask(hub, record, news);
  const wasPosted = record.attempts.submit > 0 || source !== 'callback';
  if (record.taskId === null && isTerminal(record.state) && wasPosted) return noteTask(hub, record, news);
  return keepBeside(hub, record, news);
}

/** The list with the task at the POST that it belongs to, as far as the news tell. */
function withNews(
  hub: Hub,
  { submits, request }: GenerationRecord,
  { taskId, post, unaccepted, source }: TaskNews,
): Submit[] {
  const task = {
    at: hub.now(),
    taskId,
    price: priceOf(request, hub.config.PRICES),
    // An operator may name a task where nothing was posted.
    bill: source === 'operator' ? 'none' : 'possible',
  } as const;
  if (post !== null) return withAnswer(submits, post, task);
  return withTask(unaccepted === null ? submits : withoutPost(submits, unaccepted), task);
}

/**
 * A reply of Redis may have been lost between the task id and the poll job: the job is there from now on. A callback may
 * have been taken for news of another POST: the answer puts that right.
 */
async function known(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<'known' | 'again'> {
  const { id, state, submits } = record;
  if (news.post !== null) {
    const answered = withNews(hub, record, news);
    if (!isDeepStrictEqual(answered, submits) && !(await hub.store.amend(record, { submits: answered })))
      return 'again';
  }
  if (news.source === 'submit' && state === 'generating')
    await hub.queues.remind('poll', { generationId: id });
  return 'known';
}

/** Gives a task id to its generation. @param known its record as it was just now, if it was read */
export async function adoptTask(
  hub: Hub,
  generationId: string,
  taskId: string,
  given: Pick<TaskNews, 'source'> & Partial<TaskNews>,
  known: GenerationRecord | null = null,
): Promise<Adoption> {
  const news: TaskNews = { taskId, answer: null, warning: null, post: null, unaccepted: null, ...given };
  try {
    return await settle<Adoption>(
      hub,
      generationId,
      async (record) => {
        const decision = await decide(hub, record, news);
        return decision === 'again' ? 'again' : { settled: decision };
      },
      'missing',
      known,
    );
  } catch (error) {
    if (!(error instanceof TaskTakenError) || news.source === 'operator') throw error;
    hub.log.error(
      { generationId, taskId, owner: error.generationId, alarm: 'task_taken' },
      'a task id came for a generation although it belongs to another one; it was ignored',
    );
    return 'refused';
  }
}

async function takeTask(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<Adoption | 'again'> {
  const { taskId, source, answer, warning } = news;
  const { hintedTaskId } = record;
  const now = hub.now();
  const kind = kindOf(record.request);
  const deadlineAt = record.deadlineAt ?? now + hub.config.GENERATION_DEADLINE_MS;
  const own = withNews(hub, record, news);
  // A callback may have named another task meanwhile: then there are two.
  const hinted = hintedTaskId !== null && hintedTaskId !== taskId ? hintedTaskId : null;
  const submits = hinted === null ? own : (withFurtherTask(own, hinted, now) ?? own);
  const adopted = await advance(
    hub,
    record,
    'generating',
    {
      set: {
        taskId,
        ...NOT_FOLLOWED_YET,
        visibleAt: null,
        kind,
        acceptedAt: now,
        deadlineAt,
        hintedTaskId: null,
        unconfirmedAt: null,
        ...(warning === null ? {} : withWarning(record, 'accepted_with_error', warning)),
      },
      submits,
      expect: { hintedTaskId: hintedTaskId ?? '' },
      answer,
      ...ownTask(news),
      ...(hinted === null ? {} : { event: secondTask(hinted) }),
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
  const { taskId, answer, post } = news;
  const { hintedTaskId } = record;
  if (hintedTaskId !== null && hintedTaskId !== taskId) return keepBeside(hub, record, news);
  if (hintedTaskId === taskId && post === null) return 'known';
  const change = {
    set: { hintedTaskId: taskId },
    expect: { hintedTaskId: hintedTaskId ?? '' },
    answer,
    ...(post === null ? {} : { submits: withNews(hub, record, news) }),
    ...ownTask(news),
  };
  return (await hub.store.amend(record, change)) ? 'remembered' : 'again';
}

/** What the provider gave to a submit of ours belongs to it, whatever else is known of the task. */
const ownTask = ({ post }: TaskNews): { ownTask?: true } => (post === null ? {} : { ownTask: true });

async function noteTask(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<Adoption | 'again'> {
  const { taskId, answer } = news;
  const now = hub.now();
  // The task of a canceled generation is followed until it ends, to free its slot and settle its bill.
  const follow = record.state === 'canceled';
  const deadlineAt = record.deadlineAt ?? now + hub.config.GENERATION_DEADLINE_MS;
  const submits = withNews(hub, record, news);
  const change: Change = {
    set: { taskId, ...(follow ? { acceptedAt: now, kind: kindOf(record.request), deadlineAt } : {}) },
    ...(follow ? { live: true } : {}),
    submits,
    expect: { taskId: '' },
    answer,
    ...ownTask(news),
  };
  if (!(await hub.store.amend(record, change))) return 'again';
  const isUnshown = unshownTasks({ ...record, taskId, submits }).length > 0;
  if (follow || isUnshown) await hub.queues.remind('poll', { generationId: record.id });
  return 'noted';
}

async function keepBeside(hub: Hub, record: GenerationRecord, news: TaskNews): Promise<Adoption | 'again'> {
  const { taskId, answer, post } = news;
  const submits =
    post === null ? withFurtherTask(record.submits, taskId, hub.now()) : withNews(hub, record, news);
  if (submits === null) {
    hub.log.error(
      { generationId: record.id, taskId, alarm: 'second_task' },
      'too many tasks came for one generation; this one was not recorded',
    );
    return 'refused';
  }
  const change = { submits, answer, event: secondTask(taskId), ...ownTask(news) };
  if (!(await hub.store.amend(record, change))) return 'again';
  alarmSecondTask(hub, record.id, taskId);
  // Not sooner than the task that is followed is asked for anyway: anyone may name another one.
  if (unshownTasks({ ...record, submits }).length > 0)
    await hub.queues.remind('poll', { generationId: record.id });
  return 'second';
}

const secondTask = (taskId: string) => ({ type: 'second_task', text: taskId });

function alarmSecondTask(hub: Hub, generationId: string, taskId: string): void {
  hub.log.error(
    { generationId, taskId, alarm: 'second_task' },
    'a second task exists for one generation: it may be billed twice',
  );
}
