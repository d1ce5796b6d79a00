/**
 * Records the result of a paid POST for the submit that made it (its nonce). A Redis that refuses writes for a while must not
 * lose what is known, so each write is repeated for ten minutes; then only the log has it.
 */
import { setTimeout as wait } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { GenerationRecord, RawAnswer } from '../generation/record.js';
import { withoutAnswer, withoutPost, type Submit } from '../generation/submits.js';
import type { SubmitOutcome } from '../provider/outcomes.js';
import { backoffMs } from '../polling/schedule.js';
import { adoptTask } from './adopt-task.js';
import { advance, fail, settle } from './advance.js';
import type { Hub } from './context.js';

/** How long the saving of a task id is tried when Redis refuses writes. After that the log line is all that is left. */
const SAVE_FOR_MS = 600_000;

/** Repeats the write until it succeeds, and logs each failure: giving up would lose what is known. */
async function insist<T>(hub: Hub, said: Record<string, string>, work: () => Promise<T>): Promise<T> {
  const giveUpAt = hub.now() + SAVE_FOR_MS;
  for (let failures = 1; ; failures++) {
    try {
      return await work();
    } catch (error) {
      hub.log.error({ ...said, err: error }, 'what the provider answered could not be saved yet');
      if (hub.now() > giveUpAt) throw error;
      await wait(backoffMs(failures, 100, 5000, hub.dice()));
    }
  }
}

interface Verdict {
  readonly answer: RawAnswer | null;
  readonly surelyNotAccepted: boolean;
  /** @returns false when the generation moved meanwhile. */
  readonly apply: (
    record: GenerationRecord,
    known: { readonly expect: Record<string, string>; readonly submits: Submit[] },
  ) => Promise<boolean>;
}

/** Which POST of which generation. */
export type PostOf = Pick<GenerationRecord, 'id' | 'submitNonce'>;

/**
 * Applies what is known about this very submit, wherever the generation stands by now: another worker may have called it
 * unconfirmed, it was canceled, or another POST is under way. A task that a callback brought is followed.
 */
function applyVerdict(
  hub: Hub,
  { id, submitNonce }: PostOf,
  { answer, surelyNotAccepted, apply }: Verdict,
): Promise<void> {
  const nonce = submitNonce ?? '';
  const withVerdict = (submits: readonly Submit[]): Submit[] => {
    if (surelyNotAccepted) return withoutPost(submits, nonce);
    return answer === null ? [...submits] : withoutAnswer(submits, nonce);
  };
  const decide = async (record: GenerationRecord): Promise<boolean> => {
    const isOut = record.state === 'submitting' || record.state === 'unconfirmed';
    const submits = withVerdict(record.submits);
    if (record.submitNonce !== submitNonce || !isOut)
      return isDeepStrictEqual(submits, record.submits) || hub.store.amend(record, { submits, answer });
    if (record.hintedTaskId !== null) {
      const unaccepted = surelyNotAccepted && record.submits.length > 1 ? nonce : null;
      await adoptTask(hub, id, record.hintedTaskId, { source: 'submit', unaccepted });
      return true;
    }
    return apply(record, { expect: { submitNonce: nonce, hintedTaskId: '' }, submits });
  };
  return insist(hub, { generationId: id, alarm: 'verdict_not_saved' }, () =>
    settle(hub, id, async (record) => ((await decide(record)) ? { settled: undefined } : 'again'), undefined),
  );
}

/**
 * Surely not accepted: back to the queue with its turn, as if nothing had been tried. Its job is the caller's. If a callback has
 * named a task, that is adopted instead.
 */
export function giveBack(
  hub: Hub,
  submitting: PostOf,
  answer: RawAnswer | null,
  set: Record<string, number> = {},
): Promise<void> {
  return applyVerdict(hub, submitting, {
    answer,
    surelyNotAccepted: true,
    apply: async (record, known) => {
      const moved = await advance(hub, record, 'queued', {
        ...known,
        set: { ...set, submitNonce: null, unconfirmedAt: null },
        answer,
        keepsTurn: true,
      });
      // A worker that called it unconfirmed left its job waiting for a callback.
      if (moved && record.state === 'unconfirmed') await hub.queues.hasten('submit', record.id);
      return moved;
    },
  });
}

/** Final: the provider rejected the request. */
export function reject(
  hub: Hub,
  submitting: PostOf,
  { code, message, answer }: Extract<SubmitOutcome, { kind: 'rejected' }>,
): Promise<void> {
  const text = code ? `${message} (${code})` : message;
  const failure = { code: 'request_rejected', message: text, stage: 'submit', retryable: false } as const;
  return failUnbilled(hub, submitting, failure, answer);
}

/** The provider could not be reached in so many tries. */
export function exhaust(
  hub: Hub,
  submitting: PostOf,
  failures: number,
  { message, answer }: { readonly message: string; readonly answer: RawAnswer },
): Promise<void> {
  const text = `The provider could not be reached in ${failures} tries. The last: ${message}`;
  const failure = {
    code: 'submit_attempts_exhausted',
    message: text,
    stage: 'submit',
    retryable: true,
  } as const;
  return failUnbilled(hub, submitting, failure, answer);
}

function failUnbilled(
  hub: Hub,
  submitting: PostOf,
  failure: Parameters<typeof fail>[2],
  answer: RawAnswer,
): Promise<void> {
  return applyVerdict(hub, submitting, {
    answer,
    surelyNotAccepted: true,
    apply: (record, known) => fail(hub, record, failure, { ...known, answer }),
  });
}

/** Not known whether it was accepted: `unconfirmed`. If a callback has named a task, that is adopted instead. */
export async function declareUnconfirmed(
  hub: Hub,
  submitting: PostOf,
  answer: RawAnswer | null,
  reason: string,
): Promise<void> {
  await applyVerdict(hub, submitting, {
    answer,
    surelyNotAccepted: false,
    apply: async (record, known) => {
      if (record.state === 'unconfirmed')
        return answer === null || hub.store.amend(record, { ...known, answer });
      const event = { type: 'unconfirmed', text: reason };
      const change = { ...known, set: { unconfirmedAt: hub.now() }, answer, event };
      return advance(hub, record, 'unconfirmed', change);
    },
  });
  hub.log.error(
    { generationId: submitting.id, alarm: 'unconfirmed', reason },
    'it is not known whether this submit was accepted',
  );
}

/**
 * A paid task exists and only this process knows its id: keep trying to save it for as long as Redis refuses, and say it in
 * the log, from where an operator can still bring it (`decide adopt`).
 */
export async function saveTask(
  hub: Hub,
  submitting: GenerationRecord,
  { taskId, answer, warning }: Extract<SubmitOutcome, { kind: 'accepted' }>,
): Promise<void> {
  const { id: generationId, submitNonce: post } = submitting;
  const adoption = await insist(hub, { generationId, taskId, alarm: 'task_not_saved' }, () =>
    adoptTask(hub, generationId, taskId, { source: 'submit', post, answer, warning }, submitting),
  );
  if (adoption !== 'missing') return;
  hub.log.error(
    { generationId, taskId, alarm: 'generation_forgotten' },
    'Redis forgot a generation whose task exists and is billed',
  );
}
