/** The gauges of the whole fleet, which every process shows alike. */
import type { Backlog } from '../queue/queues.js';
import type { FleetFigures } from './snapshot.js';

interface Gauge {
  set(value: number): void;
  set(labels: Readonly<Record<string, string>>, value: number): void;
  /** Forgets the values of all labels. */
  reset(): void;
  /** Shows no value. */
  remove(): void;
}

type Figure<T> = (figures: FleetFigures) => T;
const flag = (is: boolean): number => (is ? 1 : 0);

/** Null: there is no value, and none is shown: 0 would be a limit. */
const SINGLE: Readonly<Record<string, readonly [help: string, of: Figure<number | null>]>> = {
  notifications_owed: ['Generations whose app is still to be told something.', (f) => f.notificationsOwed],
  notifications_dead: ['Generations whose app could not be told.', (f) => f.notificationsDead],
  provider_refused: ['Whether the provider refuses the key or its quota.', (f) => flag(f.limits.refused)],
  provider_misrouted: [
    'Whether something in front of the API answers submits.',
    (f) => flag(f.limits.misrouted),
  ],
  provider_slowed_to: [
    'Calls a second to which a 429 slows all down; absent: none.',
    (f) => f.limits.slowedTo,
  ],
  provider_in_flight: [
    'What lives at the provider, or may, as MAX_IN_FLIGHT counts.',
    (f) => f.limits.inFlight,
  ],
  provider_in_flight_max: ['MAX_IN_FLIGHT as it is in force; absent: no cap.', (f) => f.limits.maxInFlight],
  waiting_for_budget: ["Generations that wait for the next day's budget.", (f) => f.limits.overBudget],
  budget: [
    'What may be spent today, as it is in force; absent: no budget.',
    (f) => f.limits.inForce?.budgetPerDay ?? null,
  ],
  sweep_last_timestamp_seconds: ['When the last sweep of the fleet ended.', (f) => (f.sweptAt ?? 0) / 1000],
  redis_ping_seconds: ['How long Redis took to answer.', (f) => f.pingMs / 1000],
  redis_memory_used_bytes: ['Memory that Redis uses.', (f) => f.usedBytes],
  redis_memory_max_bytes: ['Its maxmemory; 0: no limit.', (f) => f.maxBytes],
};

const CALLS = ['submit', 'poll'] as const;

/** One value for each value of the label. */
function byLabel({ generations, backlog, workers, limits, spent }: FleetFigures) {
  const perStage = (of: (one: Backlog) => number) =>
    Object.fromEntries(Object.entries(backlog).map(([stage, one]) => [stage, of(one)]));
  const perCall = (of: (call: (typeof CALLS)[number]) => number) =>
    Object.fromEntries(CALLS.map((call) => [call, of(call)]));
  return {
    generations,
    jobs_due: perStage(({ due }) => due),
    jobs_delayed: perStage(({ delayed }) => delayed),
    jobs_active: perStage(({ active }) => active),
    stage_paused: perStage(({ pausedForMs }) => flag(pausedForMs > 0)),
    stage_workers: workers,
    provider_away: perCall((call) => flag(limits.breaker[call].openAt !== null)),
    provider_away_probes: perCall((call) => limits.breaker[call].probes),
    provider_hold_seconds: perCall((call) => limits.holdMs[call] / 1000),
    spend: { charged: spent.charged, possible: spent.possible },
  };
}

const LABELLED: Readonly<Record<keyof ReturnType<typeof byLabel>, readonly [label: string, help: string]>> = {
  generations: ['state', 'Generations in each state, in the fleet.'],
  jobs_due: ['stage', 'Jobs that a worker could take now, in the fleet: scale on this.'],
  jobs_delayed: ['stage', 'Jobs whose time has not come, in the fleet.'],
  jobs_active: ['stage', 'Jobs that a worker holds, in the fleet.'],
  stage_paused: ['stage', 'Whether the stage holds still (a 429, a refused key).'],
  stage_workers: ['stage', 'Workers that run the stage just now, in the fleet.'],
  provider_away: ['call', 'Whether the outage breaker holds these calls: the provider is away.'],
  provider_away_probes: ['call', 'Calls that looked since then whether it is back.'],
  provider_hold_seconds: ['call', 'How long these calls still hold still after a 429.'],
  spend: ['bill', 'Spent today (UTC), in the currency of PRICES: charged, and possibly billed.'],
};

/** @returns what shows these figures; null when Redis did not answer. */
export function createFleetGauges(
  gauge: (name: string, help: string, labelNames?: readonly string[]) => Gauge,
): (figures: FleetFigures | null, takesWrites: boolean) => void {
  const up = gauge('redis_up', 'Whether Redis answered this scrape.');
  const writes = gauge(
    'redis_takes_writes',
    'Whether Redis took a write at this scrape: one that is full, has a full disk or became a replica answers and takes none.',
  );
  const labelled = Object.entries(LABELLED).map(([name, [label, help]]) => ({
    name: name as keyof typeof LABELLED,
    label,
    gauge: gauge(name, help, [label]),
  }));
  const single = Object.entries(SINGLE).map(([name, [help, of]]) => ({ gauge: gauge(name, help), of }));

  return (figures, takesWrites) => {
    up.set(flag(figures !== null));
    writes.set(flag(takesWrites));
    const values = figures === null ? null : byLabel(figures);
    for (const { name, label, gauge: one } of labelled) {
      // Without an answer nothing is known: a last value would look like news.
      if (values === null) one.reset();
      else for (const [value, n] of Object.entries(values[name])) one.set({ [label]: value }, n);
    }
    for (const { gauge: one, of } of single) {
      const value = figures === null ? null : of(figures);
      if (value === null) one.remove();
      else one.set(value);
    }
  };
}
