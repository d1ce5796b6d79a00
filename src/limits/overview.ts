/** The limits as they stand, in one look, and the operator's word that all is well again. */
import type { Queues } from '../queue/queues.js';
import type { Standing } from './standing.js';
import type { Breaker, BreakerState } from './breaker.js';
import type { Dispatch } from './dispatch.js';
import type { InForce, Line, LineCounts } from './line.js';
import type { Rate } from './rate.js';

export interface LimitsOverview extends LineCounts {
  /** The settings of the worker that started last; null before any has. */
  readonly inForce: InForce | null;
  /** The provider refuses the key or its quota: one submit goes out now and then to look. */
  readonly refused: boolean;
  /** How long calls hold still after a 429, in milliseconds. */
  readonly holdMs: { readonly submit: number; readonly poll: number };
  /** Calls per second while they begin again after a 429; null when nothing slows them down. */
  readonly slowedTo: number | null;
  readonly breaker: { readonly submit: BreakerState; readonly poll: BreakerState };
}

export interface LimitsDeps {
  readonly line: Line;
  readonly standing: Standing;
  readonly rate: Rate;
  readonly breaker: Breaker;
  readonly dispatch: Dispatch;
  readonly queues: Pick<Queues, 'release'>;
}

export async function readLimits({ line, standing, rate, breaker }: LimitsDeps): Promise<LimitsOverview> {
  const [counts, inForce, refused, submitMs, pollMs, slowedTo, submit, poll] = await Promise.all([
    line.counts(),
    line.inForce(),
    standing.isRefused(),
    standing.holdMs('submit'),
    standing.holdMs('poll'),
    rate.slowedTo(),
    breaker.state('submit'),
    breaker.state('poll'),
  ]);
  return {
    ...counts,
    inForce,
    refused,
    holdMs: { submit: submitMs, poll: pollMs },
    slowedTo,
    breaker: { submit, poll },
  };
}

/**
 * Forgets what is held against key and provider (refused, 429, away), and lets who waits for the next day's budget try
 * again. Nothing is billed by that which would not be anyway: caps and budgets go on to hold.
 */
export async function resume(deps: LimitsDeps): Promise<void> {
  const { line, standing, rate, breaker, dispatch, queues } = deps;
  await Promise.all([standing.reset(), rate.reset(), breaker.close()]);
  await queues.release('poll');
  await line.wakeOverBudget();
  await dispatch.wake();
}
