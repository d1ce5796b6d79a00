/** What a generation waits for, and when it is looked at next: computed on request, never stored. */
import type { GenerationRecord } from '../generation/record.js';
import { stageOf, type FlowStage } from '../generation/states.js';
import { readLimits, type LimitsOverview } from '../limits/overview.js';
import type { Place } from '../queue/queues.js';
import type { RunName } from '../generation/work.js';
import { countWorkers } from '../telemetry/presence.js';
import type { Hub } from './context.js';
import { mustGet } from './advance.js';

export type WaitCode =
  /** No worker runs the stage it is in. */
  | 'no_worker'
  | 'scheduled'
  /** It starts from an asset of another generation, which is not over. */
  | 'generation'
  /** What it starts from could not be fetched yet. */
  | 'input'
  | 'paused'
  | 'rate_limited'
  | 'refused'
  | 'misrouted'
  | 'provider_away'
  | 'tenant_cap'
  | 'in_flight_cap'
  | 'budget'
  | 'unconfirmed'
  /** Its last try failed, and the next one comes later. */
  | 'backoff'
  /** Others are before it in fair order. */
  | 'queue';

/** Instants are epoch milliseconds. */
export interface Wait {
  readonly code: WaitCode;
  readonly message: string;
  /** Until when, as far as that is known; null: it is not. */
  readonly untilAt: number | null;
}

export interface Outlook {
  readonly generationId: string;
  /** Null: nothing holds it, or nothing more is to come. */
  readonly waitsBecause: Wait | null;
  /** How many jobs are before its own; null when its job does not stand in the queue. */
  readonly ahead: number | null;
  /** When the provider is asked about its task next; null when it is not. */
  readonly nextPollAt: number | null;
}

interface Situation {
  readonly record: GenerationRecord;
  readonly now: number;
  readonly limits: LimitsOverview;
  readonly place: Place;
  readonly workers: number;
  /** The tenant is at its own cap; the budget of the day has no room. */
  readonly parked: boolean;
  readonly overBudget: boolean;
  readonly pausedForMs: number;
}

const DAY_MS = 86_400_000;

const wait = (code: WaitCode, message: string, untilAt: number | null = null): Wait => ({
  code,
  message,
  untilAt,
});

/** What holds all calls of that kind. */
function heldCalls(call: 'submit' | 'poll', { limits, now, pausedForMs }: Situation): Wait | null {
  const { openAt, probeAt } = limits.breaker[call];
  const heldMs = limits.holdMs[call];
  if (pausedForMs === Infinity) return wait('paused', `The queue ${call} is paused on the queue board.`);
  if (call === 'submit' && limits.refused)
    return wait('refused', 'The provider refuses the API key, or its quota is used up.');
  if (call === 'submit' && limits.misrouted)
    return wait('misrouted', 'Something in front of the API answers in its place.');
  if (heldMs > 0) return wait('rate_limited', 'The provider said 429: calls are held.', now + heldMs);
  if (openAt !== null) return wait('provider_away', 'The provider is away: only probes are sent.', probeAt);
  return null;
}

/** In the order in which the submit stage asks. */
function whyQueued(situation: Situation): Wait | null {
  const { record, now, limits, place, parked, overBudget, pausedForMs } = situation;
  const { runAt, tenant, waitsFor, inputFailures } = record;
  if (runAt !== null && runAt > now) return wait('scheduled', 'The app wants it submitted later.', runAt);
  if (waitsFor.length > 0)
    return wait('generation', `It starts from an asset of generation ${waitsFor.join(' and ')}.`);
  if (parked) return wait('tenant_cap', `Tenant ${tenant} has as many tasks in flight as it may have.`);
  if (overBudget) {
    const nextDay = (Math.floor(now / DAY_MS) + 1) * DAY_MS;
    return wait('budget', 'The budget of the day has no room for it.', nextDay);
  }
  const held = heldCalls('submit', situation);
  if (held !== null) return held;
  const { inFlight, maxInFlight } = limits;
  if (maxInFlight !== null && inFlight >= maxInFlight)
    return wait('in_flight_cap', `${inFlight} of ${maxInFlight} tasks are in flight.`);
  if (inputFailures > 0 && place.dueAt !== null && place.dueAt > now)
    return wait('input', `Its inputs could not be fetched ${inputFailures} times.`, place.dueAt);
  if (place.dueAt !== null && place.dueAt > now)
    return wait('backoff', 'It is tried again later.', place.dueAt);
  if (pausedForMs > 0) return wait('rate_limited', 'The call rate is used up.', now + pausedForMs);
  return place.ahead !== null && place.ahead > 0
    ? wait('queue', `${place.ahead} others are submitted before it.`)
    : null;
}

function whyWaiting(situation: Situation, stage: FlowStage): Wait | null {
  const { record, workers, place, now } = situation;
  const later = place.dueAt !== null && place.dueAt > now ? place.dueAt : null;
  if (record.state === 'unconfirmed')
    return wait(
      'unconfirmed',
      'It is not known whether the provider accepted it: settle it with decide.',
      later,
    );
  const own =
    record.state === 'queued'
      ? whyQueued(situation)
      : stage === 'poll'
        ? heldCalls('poll', situation)
        : stage === 'archive' && later !== null
          ? wait('backoff', 'Its last download failed, and is tried again.', later)
          : null;
  if (own?.code === 'scheduled' || own?.code === 'generation' || workers > 0) return own;
  return wait('no_worker', `No worker runs the stage ${stage}.`);
}

/** @throws NotFoundError */
export async function outlook(hub: Hub, generationId: string): Promise<Outlook> {
  const { redis, queues, store, config } = hub;
  const record = await mustGet(hub, generationId);
  const follows = record.state === 'canceled' && (await redis.zscore(store.keys.live, generationId)) !== null;
  const stage = follows ? 'poll' : stageOf(record.state);
  if (stage === null) return { generationId, waitsBecause: null, ahead: null, nextPollAt: null };
  const now = hub.now();
  const prefix = config.REDIS_PREFIX;
  const [limits, place, workers, backlog, parked, overBudget] = await Promise.all([
    readLimits(hub),
    queues.placeOf(stage, generationId),
    countWorkers({ redis, keys: store.keys, now: hub.now }),
    queues.backlog(now),
    redis.zscore(`${prefix}:parked:${record.tenant}`, generationId),
    redis.zscore(`${prefix}:over-budget`, generationId),
  ]);
  const { pausedForMs } = backlog[stage satisfies RunName];
  const waitsBecause = whyWaiting(
    {
      ...{ record, now, limits, place, pausedForMs, workers: workers[stage] },
      ...{ parked: parked !== null, overBudget: overBudget !== null },
    },
    stage,
  );
  const nextPollAt = stage === 'poll' ? pollAt(place, waitsBecause, now) : null;
  return { generationId, waitsBecause, ahead: place.ahead, nextPollAt };
}

/** Not before what holds all polls ends. */
function pollAt({ dueAt, running }: Place, held: Wait | null, now: number): number | null {
  if (held !== null && held.untilAt === null) return null;
  const soonest = Math.max(now, held?.untilAt ?? 0);
  return dueAt === null ? (running ? now : soonest) : Math.max(dueAt, held?.untilAt ?? 0);
}
