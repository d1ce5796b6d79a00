/**
 * Who wants to hear of transitions as they are made by this process: figures, metrics, traces. Told after the fact and
 * in passing: a listener does its work in memory, and one that throws harms neither the generation nor the others.
 */
import type { GenerationRecord } from './record.js';
import type { State } from './states.js';
import type { Change } from './store.js';

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

export type MoveListener = (move: Move) => void;

export interface Moves {
  /** @returns the way to stop listening */
  listen(listener: MoveListener): () => void;
  tell(move: Move): void;
}

export function createMoves(onError: (error: unknown) => void): Moves {
  const listeners = new Set<MoveListener>();
  return {
    listen(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    tell(move) {
      for (const listener of listeners) {
        try {
          listener(move);
        } catch (error) {
          onError(error);
        }
      }
    },
  };
}
