/** The transitions that this process makes, for its listeners: logs, figures, metrics, traces. */
import { createListeners, type Listeners } from './listeners.js';
import type { GenerationRecord } from './record.js';
import type { State } from './states.js';
import type { Change } from './change.js';

/** One transition that was made. */
export interface Move {
  /** The generation as it was before. */
  readonly record: GenerationRecord;
  readonly from: State;
  readonly to: State;
  /** Epoch milliseconds. */
  readonly at: number;
  /** What was written with it, such as `set.failure` (JSON) or `set.acceptedAt`. */
  readonly change: Change;
}

export type Moves = Listeners<Move>;

export const createMoves = (onError: (error: unknown) => void): Moves => createListeners<Move>(onError);
