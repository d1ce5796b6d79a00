/** The limits as they stand, in one look, and the operator's word that all is well again. */
import type { Queues } from '../queue/queues.js';
import type { Standing } from './standing.js';
import type { Breaker, BreakerState } from './breaker.js';
import type { InForce, Limits, QueuedCounts } from './settings.js';
import type { Rate } from './rate.js';

export interface LimitsOverview extends QueuedCounts {
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
  readonly limits: Limits;
  readonly standing: Standing;
  readonly rate: Rate;
  readonly breaker: Breaker;
  readonly queues: Pick<Queues, 'release' | 'hasten'>;
}

export async function readLimits({ limits, standing, rate, breaker }: LimitsDeps): Promise<LimitsOverview> {
  const [counts, inForce, refused, submitMs, pollMs, slowedTo, submit, poll] = await Promise.all([
    limits.counts(),
    limits.inForce(),
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
  const { standing, rate, breaker, queues } = deps;
  await Promise.all([standing.reset(), rate.reset(), breaker.close()]);
  await queues.release('poll');
  await queues.release('submit');
  await wakeQueued(deps);
}

/** The jobs of generations that wait for a budget, or for a slot of their tenant that is free again, are to run now. */
export async function wakeQueued({ limits, queues }: Pick<LimitsDeps, 'limits' | 'queues'>): Promise<void> {
  for (let ids = await limits.takeOverBudget(); ids.length > 0; ids = await limits.takeOverBudget())
    for (const id of ids) await queues.hasten('submit', id);
  for (const id of await limits.freed()) await queues.hasten('submit', id);
}
