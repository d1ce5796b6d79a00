/**
 * What an operator can decide about a generation in its present state: what each action does, and whether it can bill. The
 * library makes the decisions. A form is valid only until the generation changes.
 */
import { z } from 'zod';
import { redriveOf } from '../../pipeline/operations.js';
import { StateConflictError } from '../../errors.js';
import type { GenerationRecord } from '../../generation/record.js';
import { isTerminal } from '../../generation/states.js';
import type { Reelhaul } from '../../reelhaul.js';

export const ACTIONS = ['cancel', 'retry', 'resubmit', 'adopt', 'giveUp', 'notify', 'erase'] as const;
export type ActionName = (typeof ACTIONS)[number];

/** `never`: it cannot bill. `once`: as any generation. `again`: a second bill for the same video. */
export type Bill = 'never' | 'once' | 'again';

export interface Action {
  readonly name: ActionName;
  readonly title: string;
  readonly what: string;
  readonly bill: Bill;
  /** It ends something, and gets a style of its own. */
  readonly grave: boolean;
  /** Beside its title: can it bill? */
  readonly billWords: string;
  /** What has to be accepted before its form may be sent; null: nothing. */
  readonly accept: string | null;
}

export const BILL_WORDS: Readonly<Record<Bill, string>> = {
  never: 'Cannot bill',
  once: 'Bills once',
  again: 'Can bill a second time',
};

const ACCEPT_WORDS: Readonly<Record<Bill, string | null>> = {
  never: null,
  once: 'I accept that it is billed when the provider takes it.',
  again: 'I accept that this video may be billed a second time.',
};

/** What a cancel cannot undo. */
function billOfCanceled({ taskId, state, charge }: GenerationRecord): string {
  if (taskId !== null || charge === 'charged')
    return 'The provider has no cancel: the task goes on and stays billed.';
  if (state === 'queued' && charge === 'none') return 'Nothing was sent, so nothing is billed.';
  return 'If the provider has taken the request, its task goes on and is billed.';
}

/** What became of a task before another is bought. */
const BEFORE_WORDS: Readonly<Record<GenerationRecord['charge'], string>> = {
  none: 'the task before was not billed',
  possible: 'the task before may have been billed',
  charged: 'the task before was billed',
  refunded: 'the task before was refunded',
};

const RETRY_WORDS = {
  poll: 'Polls the same task again, with a new deadline.',
  archive: 'Downloads the finished video again and stores it.',
  submit: 'Submits it again. Nothing was billed so far.',
} as const;

function retryWords({ failure }: GenerationRecord, free: keyof typeof RETRY_WORDS): string {
  return failure?.code === 'task_failed'
    ? 'Polls the same task again. A task that the provider failed usually stays failed.'
    : RETRY_WORDS[free];
}

/** May it still be billed? After an erase, a later bill would not be noticed. */
function mayBeBilled({ state, submits }: GenerationRecord, now: number): boolean {
  return !isTerminal(state) || submits.some(({ liveUntil = 0 }) => liveUntil > now);
}

export function actionsFor(record: GenerationRecord, deadNotifications: number, now: number): Action[] {
  const { state, failure } = record;
  const actions: Action[] = [];
  const offer = (name: ActionName, title: string, what: string, bill: Bill, grave = false) =>
    // “Cannot bill” would be wrong for a cancel of what is billed already, or may be.
    actions.push({
      name,
      title,
      what,
      bill,
      grave,
      billWords: name === 'cancel' && record.charge !== 'none' ? 'Bills nothing more' : BILL_WORDS[bill],
      accept: name === 'erase' ? 'I accept that it cannot be undone.' : ACCEPT_WORDS[bill],
    });

  const free = redriveOf(record, false);
  if (free !== null && free !== 'resubmit')
    offer('retry', 'Retry', retryWords(record, free), free === 'submit' ? 'once' : 'never');
  // A request that was surely not accepted has no task to adopt.
  const mayAdopt =
    state === 'unconfirmed' ||
    (state === 'failed' && failure?.stage === 'submit' && record.charge !== 'none');
  if (mayAdopt && record.taskId === null)
    offer(
      'adopt',
      'Adopt a task',
      'You found the task at the provider: it becomes the task of this generation, and is polled.',
      'never',
    );
  if (state === 'unconfirmed' || redriveOf(record, true) === 'resubmit') {
    const known = record.taskId !== null || record.otherTaskIds.length > 0;
    const before = known ? BEFORE_WORDS[record.charge] : 'the first request may have been accepted';
    offer('resubmit', 'Submit again', `Sends the paid request once more; ${before}.`, 'again');
  }
  if (state === 'unconfirmed')
    offer('giveUp', 'Give up', 'It fails. A late callback of the provider still revives it.', 'never', true);
  if (deadNotifications > 0)
    offer(
      'notify',
      'Send notifications again',
      'Sends the notifications that were given up. Each keeps its id.',
      'never',
    );
  if (!isTerminal(state) || state === 'expired')
    offer('cancel', 'Cancel', `Stops it here. ${billOfCanceled(record)}`, 'never', true);
  if (!mayBeBilled(record, now))
    offer(
      'erase',
      'Erase',
      'Removes it for good: request, answers, notifications, files and manifest. Its instants and its bill stay.',
      'never',
      true,
    );
  return actions;
}

export const actionFormSchema = z.object({
  action: z.enum(ACTIONS),
  rev: z.coerce.number().pipe(z.int().min(0)),
  taskId: z.string().trim().max(512).optional(),
  accept: z.string().optional(),
});
export type ActionForm = z.output<typeof actionFormSchema>;

/**
 * Makes the decision of a form.
 * @throws StateConflictError when it is not offered any more, or its bill was not accepted; what the library throws
 */
export async function act(
  reelhaul: Reelhaul,
  record: GenerationRecord,
  offered: readonly Action[],
  { action: name, rev, taskId, accept }: ActionForm,
): Promise<void> {
  const { state } = record;
  const action = offered.find((one) => one.name === name);
  if (!action || rev !== record.rev)
    throw new StateConflictError(
      `It has changed since this page was shown: it is ${state} now. Nothing was done.`,
    );
  if (action.accept !== null && accept !== 'yes')
    throw new StateConflictError('The box that accepts it was not ticked. Nothing was done.');
  await DECISIONS[name](reelhaul, record, taskId ?? '');
}

const DECISIONS: Readonly<
  Record<ActionName, (reelhaul: Reelhaul, record: GenerationRecord, taskId: string) => Promise<unknown>>
> = {
  cancel: (reelhaul, { id }) => reelhaul.cancel(id),
  retry: (reelhaul, { id }) => reelhaul.retry(id),
  resubmit: (reelhaul, { id, state }) =>
    state === 'unconfirmed'
      ? reelhaul.decide(id, { resubmit: true })
      : reelhaul.retry(id, { allowRebill: true }),
  adopt: (reelhaul, { id }, taskId) => reelhaul.decide(id, { adopt: taskId }),
  giveUp: (reelhaul, { id }) => reelhaul.decide(id, { giveUp: true }),
  notify: (reelhaul, { id }) => reelhaul.retryNotification(id),
  erase: (reelhaul, { id }) => reelhaul.erase(id),
};
