/** What a change of a record does, and which notification it owes to the app. */
import type { FieldPatch, GenerationRecord, RawAnswer } from './record.js';
import type { Submit } from './submits.js';
import { isTerminal, type State } from './states.js';

/** What a change does, beside the compare-and-set itself. */
export interface Change {
  /** Fields that must still hold these texts; a missing field reads as ''. */
  readonly expect?: Readonly<Record<string, string>>;
  /** Fields to write; null removes one. */
  readonly set?: FieldPatch;
  /** Counters to raise by one. */
  readonly count?: readonly string[];
  /** What the provider said that decided this. */
  readonly answer?: RawAnswer | null;
  /** An event of its own beside that of the transition, such as an alarm. */
  readonly event?: { readonly type: string; readonly text: string };
  /** Whether a job is needed from now on; left as it is when not said. */
  readonly live?: boolean;
  /**
   * Of one that is queued again: it keeps its turn and its job. Otherwise it gets a new turn, behind its tenant's others.
   */
  readonly keepsTurn?: true;
  /** No task of it lives at the provider, whatever the states say: it was surely not accepted, or is not known there. */
  readonly taskGone?: boolean;
  /** The list of submits from now on; what is derived from it (charge, spend, slots) changes in the same step. */
  readonly submits?: readonly Submit[];
  /** Tasks that do not belong to it: another generation may own them. */
  readonly forget?: readonly string[];
  /** The task in `set` is the answer to its own submit: it is taken whatever else is known of it. */
  readonly ownTask?: true;
}

export const PROGRESS = 'generation.progress';

/** The type of the notification that this change owes to the app; null when none. Every end is told, progress if asked. */
export function announced(
  { notifyUrl, notifyOn, state, progress }: GenerationRecord,
  to: State,
  change: Change,
): string | null {
  if (notifyUrl === null) return null;
  if (to !== state && isTerminal(to)) return `generation.${to}`;
  if (notifyOn !== 'progress') return null;
  const told = to !== state && to !== 'submitting';
  const further = change.set?.['progress'] ?? progress;
  return told || further !== progress ? PROGRESS : null;
}
