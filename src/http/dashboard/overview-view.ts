/** What the overview shows, read in a few round trips: the figures, what waits longest, what came last, limits and spend. */
import { firstIdAt } from '../../generation/listing.js';
import type { GenerationRecord } from '../../generation/record.js';
import { STATES } from '../../generation/states.js';
import type { Hub } from '../../hub.js';
import type { LimitsOverview, Reelhaul, Spend } from '../../reelhaul.js';
import { readFigures, SPAN_MS, type Slot, type Span } from '../../telemetry/figures.js';

const SLOTS: Readonly<Record<Span, number>> = { minute: 60, hour: 24 };
const LATEST = 6;
/** So many of the oldest are looked at for one that is not put off by its app. */
const OLDEST = 20;

export interface View {
  readonly slots: readonly Slot[];
  /** Enqueued in each slot. */
  readonly created: readonly number[];
  readonly oldest: GenerationRecord | null;
  readonly latest: readonly GenerationRecord[];
  readonly limits: LimitsOverview;
  readonly spend: Spend;
}

/** How many were created in each slot: counted in the indexes, whoever enqueued them. */
async function countCreated({ redis, store }: Hub, slots: readonly Slot[], span: Span): Promise<number[]> {
  const pipeline = redis.pipeline();
  for (const { startAt } of slots)
    for (const state of STATES)
      pipeline.zlexcount(
        store.keys.state(state),
        `[${firstIdAt(startAt)}`,
        `(${firstIdAt(startAt + SPAN_MS[span])}`,
      );
  const replies = (await pipeline.exec()) ?? [];
  return slots.map((_, i) =>
    replies.slice(i * STATES.length, (i + 1) * STATES.length).reduce((sum, [error, n]) => {
      if (error) throw error;
      return sum + Number(n);
    }, 0),
  );
}

export async function look(hub: Hub, reelhaul: Reelhaul, span: Span): Promise<View> {
  const { redis, store, now } = hub;
  const [slots, oldestIds, latestPage, limits, spend] = await Promise.all([
    readFigures({ redis, keys: store.keys }, span, SLOTS[span], now()),
    redis.zrange(store.keys.state('queued'), '-', '+', 'BYLEX', 'LIMIT', 0, OLDEST),
    store.list({ state: 'succeeded', limit: 4 * LATEST }),
    reelhaul.limits(),
    reelhaul.spend(),
  ]);
  const [created, waiting, latest] = await Promise.all([
    countCreated(hub, slots, span),
    Promise.all(oldestIds.map((id) => store.get(id))),
    Promise.all(latestPage.ids.map((id) => store.get(id))),
  ]);
  const due = waiting.filter((record) => record !== null && (record.runAt ?? 0) <= now());
  const shown = latest.filter((record) => record?.assets?.poster).slice(0, LATEST);
  return {
    slots,
    created,
    oldest: due[0] ?? null,
    latest: shown.filter((record) => record !== null),
    limits,
    spend,
  };
}
