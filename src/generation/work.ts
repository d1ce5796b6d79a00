/**
 * What a process tells of its own work, beside transitions (`observers.ts`), for metrics and traces. Instants are
 * epoch milliseconds.
 */
import type { Stage } from './states.js';
import { createListeners, type Listeners } from './listeners.js';

/** A stage, or the sweep. */
export type RunName = Stage | 'sweep';

/**
 * How a run ended: it was done, wants to run later, was told to wait with all others of its stage, threw, or was stopped
 * from outside and given back.
 */
export type RunOutcome = 'done' | 'snoozed' | 'held' | 'requeued' | 'failed' | 'interrupted';

export type Work =
  | { readonly kind: 'began'; readonly name: RunName; readonly generationId: string; readonly at: number }
  | {
      readonly kind: 'ended';
      readonly name: RunName;
      readonly generationId: string;
      readonly outcome: RunOutcome;
      readonly beganAt: number;
      readonly at: number;
    }
  /** The provider was called. `outcome` is the kind of a `SubmitOutcome` or `PollOutcome`. */
  | {
      readonly kind: 'called';
      readonly call: 'submit' | 'poll';
      readonly outcome: string;
      readonly httpStatus: number | null;
      readonly durationMs: number;
    }
  /** A poll found a task over that had been so for this long, by the provider's own times. */
  | { readonly kind: 'detected'; readonly generationId: string; readonly delayMs: number }
  | { readonly kind: 'created'; readonly generationId: string; readonly at: number }
  | { readonly kind: 'swept'; readonly restored: number; readonly pruned: number; readonly at: number }
  | {
      readonly kind: 'notified';
      readonly generationId: string;
      readonly result: 'delivered' | 'failed' | 'dead';
      readonly at: number;
    };

/** How a runner is, from memory alone. */
export interface Vitals {
  readonly name: RunName;
  /** False when the loop that takes jobs has ended, though the runner was not closed. */
  readonly looping: boolean;
  readonly running: number;
  readonly concurrency: number;
  /** When the run, or the step of one, that has been going on longest began; null when none runs. */
  readonly oldestBeganAt: number | null;
  /** How many runs have begun since the start. */
  readonly begun: number;
  /** No run, and no step of one, takes longer than this by itself, in milliseconds. */
  readonly runLimitMs: number;
  /** Why it takes no jobs although it could; null when it does. */
  readonly heldBecause: string | null;
}

export type WorkLog = Listeners<Work>;

export const createWorkLog = (onError: (error: unknown) => void): WorkLog => createListeners<Work>(onError);
