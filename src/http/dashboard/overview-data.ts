/** What the overview shows, read in a few round trips: the figures, what waits longest, what came last, limits and spend. */
import type { GenerationRecord } from '../../generation/record.js';
import type { Hub } from '../../pipeline/context.js';
import type { LimitsOverview, Reelhaul, Spend } from '../../reelhaul.js';
import type { Health } from '../../telemetry/health.js';
import { load } from './search.js';
import { readFigures, SPAN_MS, type Slot, type Span } from '../../telemetry/time-series.js';

const SLOTS: Readonly<Record<Span, number>> = { minute: 60, hour: 24 };
const LATEST = 6;
/** How many of the oldest are read to find one that its app did not postpone. */
const OLDEST = 20;

export interface View {
  readonly slots: readonly Slot[];
  /** Enqueued in each slot. */
  readonly created: readonly number[];
  readonly oldest: GenerationRecord | null;
  readonly latest: readonly GenerationRecord[];
  readonly limits: LimitsOverview;
  readonly spend: Spend;
  /** Why Redis takes no write now, in its own words. */
  readonly refusals: readonly string[];
}

/** Does it wait for the next day's budget, so that its age says nothing about us? */
const isForTomorrow = ({ warnings }: GenerationRecord, { overBudget }: LimitsOverview): boolean =>
  overBudget > 0 && warnings.some(({ code }) => code === 'waits_for_budget');

export async function look(
  hub: Hub,
  reelhaul: Reelhaul,
  health: Pick<Health, 'refusals'>,
  span: Span,
): Promise<View> {
  const { redis, store, now } = hub;
  // First, since ioredis may reconnect after a refusal, which would break the reads.
  const refusals = await health.refusals();
  const [slots, oldestIds, latestPage, limits, spend] = await Promise.all([
    readFigures({ redis, keys: store.keys }, span, SLOTS[span], now()),
    store.oldest('queued', OLDEST),
    store.list({ state: 'succeeded', limit: 4 * LATEST }),
    reelhaul.limits(),
    reelhaul.spend(),
  ]);
  const [created, waiting, latest] = await Promise.all([
    // Counted in the indexes, whatever process enqueued them.
    store.countCreated(slots.map(({ startAt }) => ({ from: startAt, to: startAt + SPAN_MS[span] }))),
    load(store, oldestIds),
    load(store, latestPage.ids),
  ]);
  const due = waiting.filter(({ runAt }) => (runAt ?? 0) <= now());
  const today = due.find((record) => !isForTomorrow(record, limits));
  // If something is due, a generation that waited for a new day may be submitted already.
  const inLine = limits.inLine > 0;
  return {
    slots,
    created,
    oldest: today ?? (inLine ? (due[0] ?? null) : null),
    latest: latest.filter(({ assets }) => assets?.poster).slice(0, LATEST),
    limits,
    spend,
    refusals,
  };
}
