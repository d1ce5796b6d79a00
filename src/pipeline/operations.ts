/**
 * What apps and operators decide about a generation: cancel, retry, and the unconfirmed ones. What may bill is decided
 * about one round only, and a decision that is sent twice is made once.
 */
import { randomUUID } from 'node:crypto';
import {
  InvalidInputError,
  NotFoundError,
  RebillNotAllowedError,
  StateConflictError,
  TaskTakenError,
} from '../errors.js';
import { toGeneration, type Generation, type GenerationRecord } from '../generation/record.js';
import { isTerminal, stageOf } from '../generation/states.js';
import type { Hub } from './context.js';
import { advance, fail, FROM_THE_START, mustGet, settle } from './advance.js';
import { adoptTask } from './adopt-task.js';
import { withdrawTask } from './withdraw-task.js';
import { kindOf } from '../polling/duration-stats.js';
import { hintedTasks, withTask } from '../generation/submits.js';
import { priceOf } from '../generation/price.js';
import { unlessRefused } from '../redis/write-errors.js';

/** As the provider's own: printable, and not longer than any it was seen to give. */
const TASK_ID = /^[\x21-\x7e]{1,256}$/;

/** What an operator can say about an unconfirmed generation. */
export type Decision =
  /** This is its task: follow it. */
  | { readonly adopt: string }
  /** Submit again and accept that it may be billed twice. */
  | { readonly resubmit: true }
  /** Fail it as `submission_unconfirmed`; a late callback still revives it. */
  | { readonly giveUp: true };

export interface CancelResult {
  readonly generation: Generation;
  /** Canceling stops reelhaul, not the provider: whether the task may be billed all the same. */
  readonly mayBeBilled: boolean;
}

/** Written with a decision, to know it again. */
type Mark = { readonly decision: string };

/**
 * Makes a decision about the generation as it stands. Each decision has a mark of its own that is written with it: a
 * command whose reply was lost is sent again by ioredis, and meets its own mark. What may bill is decided about one
 * round only, never carried over to a later one. When Redis refused only the job behind a decision, it stands: the sweep
 * writes that job.
 */
async function change(
  hub: Hub,
  generationId: string,
  decide: (record: GenerationRecord, mark: Mark) => Promise<boolean>,
  { bills = false } = {},
): Promise<Generation> {
  const mark = { decision: randomUUID() };
  let firstRev: number | null = null;
  const found = await settle(
    hub,
    generationId,
    async (record) => {
      if (record.decision === mark.decision) return { settled: true };
      firstRev ??= record.rev;
      if (bills && record.rev !== firstRev) {
        throw new StateConflictError(
          `Generation ${generationId} moved on meanwhile: it is ${record.state}. Look, and decide again.`,
        );
      }
      const decided = await unlessRefused(
        hub.redis,
        () => decide(record, mark),
        async () => ((await hub.store.get(generationId))?.decision === mark.decision ? true : null),
      );
      return decided ? { settled: true } : 'again';
    },
    false,
  );
  if (!found) throw new NotFoundError(generationId);
  return toGeneration(await mustGet(hub, generationId));
}

/** Back to the queue for another paid POST; the task of before stays in the list, since it was billed or may be. */
async function resubmit(hub: Hub, record: GenerationRecord, mark: Mark): Promise<boolean> {
  const { id } = record;
  // The job that waits for a callback would stand in the way of the one with the new turn.
  if (record.state === 'unconfirmed') await hub.queues.forget('submit', id);
  return advance(hub, record, 'queued', {
    set: {
      ...mark,
      taskId: null,
      submitNonce: null,
      ...FROM_THE_START,
      acceptedAt: null,
      unconfirmedAt: null,
      visibleAt: null,
      withoutUrlSince: null,
      progress: null,
      urls: null,
    },
  });
}

/**
 * What `retry` comes to for a generation as it stands: asking about its task again, fetching its video again, its first
 * paid submit that can be accepted, or another paid one. Null: it cannot be retried.
 */
export type Redrive = 'poll' | 'archive' | 'submit' | 'resubmit';

/** Which redrive that is; `resubmit` needs `allowRebill` to be made. */
export function redriveOf(record: GenerationRecord, allowRebill: boolean): Redrive | null {
  const { state, failure, charge, taskId } = record;
  if (state === 'expired') return 'poll';
  if (state !== 'failed' || !failure) return null;
  if (failure.stage === 'archive') return 'archive';
  if (failure.stage === 'poll' && !(allowRebill && failure.code === 'task_failed')) return 'poll';
  const mayBillAgain = taskId !== null || failure.code === 'submission_unconfirmed' || charge !== 'none';
  return mayBillAgain ? 'resubmit' : 'submit';
}

async function redrive(
  hub: Hub,
  record: GenerationRecord,
  allowRebill: boolean,
  mark: Mark,
): Promise<boolean> {
  const { id, state } = record;
  switch (redriveOf(record, allowRebill)) {
    case null:
      throw new StateConflictError(`Only a failed or expired generation can be retried; ${id} is ${state}.`);
    case 'poll':
      return repoll(hub, record, mark);
    case 'archive': {
      const set = { ...mark, archiveFailures: null, linkRefreshed: null };
      const moved = await advance(hub, record, 'archiving', { set });
      if (moved) await hub.queues.hasten('archive', id);
      return moved;
    }
    case 'resubmit':
      if (!allowRebill) throw new RebillNotAllowedError(id);
      return resubmit(hub, record, mark);
    case 'submit':
      return advance(hub, record, 'queued', { set: { ...mark, ...FROM_THE_START } });
  }
}

async function repoll(hub: Hub, record: GenerationRecord, mark: Mark): Promise<boolean> {
  const deadlineAt = hub.now() + hub.config.GENERATION_DEADLINE_MS;
  const set = { ...mark, withoutUrlSince: null, deadlineAt };
  const moved = await advance(hub, record, 'generating', { set });
  if (moved) await hub.queues.hasten('poll', record.id);
  return moved;
}

/** A task that a callback named while the answer was still awaited is noted, and followed like any other. */
async function stop(hub: Hub, record: GenerationRecord, mark: Mark): Promise<boolean> {
  const { id, state, hintedTaskId, submits, request } = record;
  const price = priceOf(request, hub.config.PRICES);
  const now = hub.now();
  const deadlineAt = record.deadlineAt ?? now + hub.config.GENERATION_DEADLINE_MS;
  const hinted =
    hintedTaskId === null
      ? { set: mark }
      : {
          set: {
            ...mark,
            taskId: hintedTaskId,
            hintedTaskId: null,
            acceptedAt: now,
            kind: kindOf(request),
            deadlineAt,
          },
          submits: withTask(submits, { at: now, taskId: hintedTaskId, price }),
        };
  // The task goes on at the provider: its poll job stays, and frees the slot when it ends.
  const isFollowed = state === 'generating' || state === 'expired';
  const lives = hintedTaskId !== null || (record.taskId !== null && isFollowed);
  const moved = await advance(hub, record, 'canceled', {
    ...hinted,
    live: lives,
    expect: { hintedTaskId: hintedTaskId ?? '' },
  });
  const stage = stageOf(state);
  if (moved && stage !== null && !(lives && isFollowed)) await hub.queues.forget(stage, id);
  if (moved && hintedTaskId !== null) await hub.queues.remind('poll', { generationId: id });
  return moved;
}

/** @throws NotFoundError, StateConflictError */
export async function cancel(hub: Hub, generationId: string): Promise<CancelResult> {
  const generation = await change(hub, generationId, (record, mark) => {
    if (record.state === 'canceled') return Promise.resolve(true);
    if (isTerminal(record.state) && record.state !== 'expired') {
      throw new StateConflictError(`Generation ${generationId} is over already: ${record.state}.`);
    }
    return stop(hub, record, mark);
  });
  return { generation, mayBeBilled: generation.charge === 'possible' || generation.charge === 'charged' };
}

/** @throws NotFoundError, StateConflictError, RebillNotAllowedError */
export function retry(hub: Hub, generationId: string, allowRebill: boolean): Promise<Generation> {
  return change(hub, generationId, (record, mark) => redrive(hub, record, allowRebill, mark), {
    bills: true,
  });
}

/** @throws NotFoundError, StateConflictError, InvalidInputError for a task id that can be none */
export async function decide(hub: Hub, generationId: string, decision: Decision): Promise<Generation> {
  if ('adopt' in decision) return adopt(hub, generationId, decision.adopt);
  const bills = 'resubmit' in decision;
  const settleIt = async (record: GenerationRecord, mark: Mark) => {
    if (record.state !== 'unconfirmed') {
      throw new StateConflictError(
        `Only an unconfirmed generation is to be decided; ${generationId} is ${record.state}.`,
      );
    }
    if (bills) return resubmit(hub, record, mark);
    const message = 'An operator gave it up: it is not known whether the provider accepted the request.';
    const failure = {
      code: 'submission_unconfirmed',
      message,
      stage: 'submit',
      retryable: true,
    } as const;
    return fail(hub, record, failure, { set: mark });
  };
  return change(hub, generationId, settleIt, { bills });
}

async function adopt(hub: Hub, generationId: string, taskId: string): Promise<Generation> {
  if (!TASK_ID.test(taskId)) {
    const message = `expected a task id of 1 to 256 printable characters, got ${JSON.stringify(taskId.slice(0, 80))}`;
    throw new InvalidInputError('The task was not adopted', [{ path: 'adopt', message }]);
  }
  const record = await mustGet(hub, generationId);
  const { state, failure } = record;
  const isNamed = hintedTasks(record.submits).some((submit) => submit.taskId === record.taskId);
  if (state === 'generating' && isNamed && record.taskId !== taskId)
    await withdrawTask(hub, record, { reason: 'An operator named another task.' });
  else if (state === 'generating' && isNamed) return toGeneration(record);
  else if (state !== 'unconfirmed' && !(state === 'failed' && failure?.stage === 'submit')) {
    throw new StateConflictError(
      `Only an unconfirmed generation can adopt a task; ${generationId} is ${state}.`,
    );
  }
  const isAdopted = async () => {
    const { taskId: now, otherTaskIds } = await mustGet(hub, generationId);
    return now === taskId || otherTaskIds.includes(taskId) ? 'known' : null;
  };
  try {
    await unlessRefused(
      hub.redis,
      () => adoptTask(hub, generationId, taskId, { source: 'operator' }),
      isAdopted,
    );
  } catch (error) {
    if (!(error instanceof TaskTakenError)) throw error;
    // Not which one: it may be another tenant's.
    throw new StateConflictError(`Task ${taskId} belongs to another generation already.`);
  }
  return toGeneration(await mustGet(hub, generationId));
}
