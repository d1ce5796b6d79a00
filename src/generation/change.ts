/** What a change of a record does, and which notification it owes to the app. */
import type { FieldPatch, GenerationRecord, RawAnswer } from './record.js';
import { isTerminal, type State } from './states.js';

/** `closed`: whatever it is stays so, and the next submit has a bill of its own. */
export type Bill = 'possible' | 'charged' | 'none' | 'refunded' | 'closed';

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
  /** Where one that is queued again stands: it keeps its job, or is in line after so long; default: at once. */
  readonly place?: 'ready' | { readonly afterMs: number };
  /** No task of it lives at the provider, whatever the states say: it was surely not accepted, or is not known there. */
  readonly taskGone?: boolean;
  /** What becomes of the bill of this submit. */
  readonly bill?: Bill;
  /** What it will cost, in millionths; null when nobody knows. Said with the submit. */
  readonly price?: number | null;
  /** A task beside its own has come to light: a bill of its own. */
  readonly anotherBill?: boolean;
}

/**
 * What may be spent on the day (UTC) of a submit, in millionths; null: whatever it takes. As this process has it, which
 * counts as long as Redis knows none that was published.
 */
export interface Budget {
  readonly day: number | null;
  readonly tenantDay: number | null;
}

/** The budget has no room for a price: that of all, or that of the tenant. */
export type OverBudget = 'overDay' | 'overTenantDay';

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
