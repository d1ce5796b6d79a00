/**
 * How long a task may still live at the provider that reelhaul follows no more. What the provider runs takes a slot of the
 * key, whatever we think of it; so a slot is freed by the provider's own word, or when no task can live any longer.
 */
import type { GenerationRecord } from './record.js';
import { LIVES_AT_PROVIDER, type State } from './states.js';

export interface SlotSettings {
  /** How long a task lives at most, as far as we wait for it. */
  readonly GENERATION_DEADLINE_MS: number;
  /** How long an expired task is looked at. */
  readonly LATE_CHECK_FOR_MS: number;
}

/**
 * Until when (epoch ms) a task may live once its generation is in `to`; null when none is left, or when the state itself
 * says that one lives.
 *
 * - `unconfirmed`, or given up as that, or submitted again: as long as an accepted task would have been waited for;
 * - `expired`: as long as it is looked at;
 * - `canceled`: the provider cannot be told, so it goes on until its deadline, and an app in a hurry makes it no quicker. One
 *   that had expired before stays as it was then (the store shortens nothing), or gone.
 */
export function livesUntil(
  record: Pick<GenerationRecord, 'state' | 'submittedAt' | 'acceptedAt' | 'deadlineAt' | 'failure'>,
  to: State,
  at: number,
  settings: SlotSettings,
): number | null {
  const { state, submittedAt, acceptedAt, deadlineAt, failure } = record;
  const patienceEndsAt = (submittedAt ?? at) + settings.GENERATION_DEADLINE_MS;
  const doubtful =
    state === 'unconfirmed' || (state === 'failed' && failure?.code === 'submission_unconfirmed');
  switch (to) {
    case 'unconfirmed':
      return patienceEndsAt;
    case 'expired':
      return at + settings.LATE_CHECK_FOR_MS;
    case 'queued':
    case 'failed':
      return doubtful ? patienceEndsAt : null;
    case 'canceled':
      if (state === 'expired') return at;
      if (state === 'generating')
        return Math.max(deadlineAt ?? 0, (acceptedAt ?? at) + settings.GENERATION_DEADLINE_MS);
      return state === 'submitting' || state === 'unconfirmed' ? patienceEndsAt : null;
    case 'submitting':
    case 'generating':
    case 'archiving':
    case 'succeeded':
      return null;
  }
}

/**
 * Under which name the task is counted while nobody follows it. That of a submit before is on its own, since its
 * generation may get another; it is its generation's again when it is found before that.
 */
export function slotName(
  { id, state, resubmits }: Pick<GenerationRecord, 'id' | 'state' | 'resubmits'>,
  to: State,
): string {
  if (to === 'queued') return `${id}/${resubmits}`;
  return state === 'queued' && to === 'generating' ? `${id}/${resubmits - 1}` : id;
}

/** Is there one less at the provider, or a turn that nobody uses? Asked when no task lives on. */
export function freesSlot(from: State, to: State, taskGone: boolean): boolean {
  if (taskGone) return true;
  const counted = from === 'queued' || LIVES_AT_PROVIDER.includes(from);
  return to !== from && counted && !LIVES_AT_PROVIDER.includes(to);
}
