/** Which entries of the list of submits take a slot at the provider, and until when. */
import type { State } from './states.js';
import { lastPost, type Submit } from './submits.js';

export interface SlotSettings {
  /** How long a task lives at most, as far as we wait for it. */
  readonly GENERATION_DEADLINE_MS: number;
  /** How long an expired task is looked at. */
  readonly LATE_CHECK_FOR_MS: number;
}

interface Lived {
  readonly state: State;
  readonly acceptedAt: number | null;
  readonly deadlineAt: number | null;
}

/**
 * Until when the task of the newest POST, or the one that is followed, takes a slot once its generation is in `to`; null
 * when none of it lives. A task that the provider runs takes a slot of the key in every state of its generation. The slot is
 * freed when the provider says that the task ended, or when no task can live any longer.
 */
function liveUntil(
  { state, acceptedAt, deadlineAt }: Lived,
  to: State,
  at: number,
  {
    submit: { at: sentAt, liveUntil: before = 0, bill },
    settings,
  }: { submit: Submit; settings: SlotSettings },
): number | null {
  const patienceEndsAt = sentAt + settings.GENERATION_DEADLINE_MS;
  const deadline = Math.max(deadlineAt ?? 0, (acceptedAt ?? at) + settings.GENERATION_DEADLINE_MS);
  switch (to) {
    case 'submitting':
    case 'unconfirmed':
      return patienceEndsAt;
    case 'generating':
      return deadline + settings.LATE_CHECK_FOR_MS;
    case 'expired':
      return at + settings.LATE_CHECK_FOR_MS;
    case 'queued':
      // Submitted again while the POST before is in doubt.
      return bill === 'possible' && before > 0 ? before : null;
    case 'failed':
      return state === 'unconfirmed' ? Math.max(before, patienceEndsAt) : null;
    case 'canceled':
      // The provider cannot be told: the task goes on until its deadline.
      if (state === 'expired') return before;
      if (state === 'generating') return deadline;
      return state === 'submitting' || state === 'unconfirmed' ? Math.max(before, patienceEndsAt) : null;
    case 'archiving':
    case 'succeeded':
      return null;
  }
}

/** The list with the slots as they are after a transition to `to`; `taskGone`: no task of the followed one lives. */
export function withSlots(
  submits: readonly Submit[],
  record: Lived,
  {
    to,
    taskId,
    at,
    taskGone,
    settings,
  }: {
    readonly to: State;
    /** The task that is followed, after the change. */
    readonly taskId: string | null;
    readonly at: number;
    readonly taskGone: boolean;
    readonly settings: SlotSettings;
  },
): Submit[] {
  const followed = submits.findIndex((submit) => submit.taskId !== undefined && submit.taskId === taskId);
  const own = followed >= 0 ? followed : lastPost(submits);
  return submits.map((submit, i) => {
    const { liveUntil: before, ...rest } = submit;
    const surelyNone = submit.bill === 'none' && submit.taskId === undefined;
    if (i !== own) return surelyNone ? rest : submit;
    if (taskGone || surelyNone) return rest;
    if (to === record.state && before !== undefined) return submit;
    if (to === record.state && submit.taskId === undefined) return submit;
    const until = liveUntil(record, to, at, { submit, settings });
    return until === null ? rest : { ...rest, liveUntil: until };
  });
}
