/** The limits and their use, read at once; and `resume`, by which an operator ends every hold. */
import type { Queues } from '../queue/queues.js';
import type { Gate, GateOverview } from './gate.js';
import type { InForce, Limits, QueuedCounts } from './settings.js';

export interface LimitsOverview extends QueuedCounts, GateOverview {
  /** The settings of the worker that started last; null before any has. */
  readonly inForce: InForce | null;
  /** When the next of all polls is due, epoch ms; null when none is delayed. */
  readonly nextPollAt: number | null;
}

export interface LimitsDeps {
  readonly limits: Limits;
  readonly gate: Gate;
  readonly queues: Pick<Queues, 'release' | 'hasten' | 'nextDueAt'>;
}

export async function readLimits({ limits, gate, queues }: LimitsDeps): Promise<LimitsOverview> {
  const [counts, inForce, held, nextPollAt] = await Promise.all([
    limits.counts(),
    limits.inForce(),
    gate.overview(),
    queues.nextDueAt('poll'),
  ]);
  return { ...counts, inForce, ...held, nextPollAt };
}

/**
 * Forgets the holds for key and provider (refused, 429, away), and lets generations that wait for the next day's budget try
 * again. It causes no extra bill: caps and budgets still apply.
 */
export async function resume(deps: LimitsDeps): Promise<void> {
  const { gate, queues } = deps;
  const refused = await gate.resume();
  await queues.release('poll');
  await queues.release('submit');
  for (const id of refused) await queues.hasten('submit', id);
  await wakeQueued(deps);
}

/** The jobs of generations that wait for a budget, or for a slot of their tenant that is free again, are to run now. */
export async function wakeQueued({ limits, queues }: Pick<LimitsDeps, 'limits' | 'queues'>): Promise<void> {
  // All are taken before the first is woken: a generation without room comes back into the list.
  const ids: string[] = [];
  for (let page = await limits.takeOverBudget(); page.length > 0; page = await limits.takeOverBudget())
    ids.push(...page);
  ids.push(...(await limits.freed()));
  for (const id of ids) await queues.hasten('submit', id);
}
