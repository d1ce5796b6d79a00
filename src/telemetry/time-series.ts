/**
 * Figures over all processes, for people to look at: how many generations came to which end, why they failed, and how
 * long they spent on each of three clocks. Every process counts in memory what it saw and adds it to a hash per minute
 * and one per hour in Redis every few seconds: nothing is written per generation. A process that is killed takes the
 * last few seconds of its counting along; the states themselves are counted from the indexes and are always right.
 */
import { within } from '../outbound/limit.js';
import type { Keys } from '../store/keys.js';
import type { Move, Moves } from '../generation/observers.js';
import type { Assets, Failure } from '../generation/record.js';
import type { State } from '../generation/states.js';
import { since } from '../generation/history.js';
import type { RedisConnection } from '../redis/connect.js';

const FLUSH_MS = 2000;
const CLOSE_MS = 1000;
/** While Redis is away so many hashes are kept in memory; of a longer outage the oldest are let go. */
const MAX_PENDING = 30;

export type Span = 'minute' | 'hour';
export const SPAN_MS: Readonly<Record<Span, number>> = { minute: 60_000, hour: 3_600_000 };
/** How long the hash of one minute or hour is kept. */
const KEPT_MS: Readonly<Record<Span, number>> = { minute: 2 * 3_600_000, hour: 49 * 3_600_000 };

/**
 * `queue`: from the moment it could have been submitted to the POST that was accepted. `provider`: from acceptance to
 * the news that the task is over. `archive`: from that news to the verified file in storage.
 */
export const CLOCKS = ['queue', 'provider', 'archive'] as const;
export type Clock = (typeof CLOCKS)[number];

/** What was counted in one minute or hour. */
export interface Slot {
  /** Epoch milliseconds. */
  readonly startAt: number;
  /** As they stand in Redis. */
  readonly counts: ReadonlyMap<string, number>;
  /** Transitions to each state. */
  readonly moved: Readonly<Partial<Record<State, number>>>;
  /** Failures by code. */
  readonly failed: Readonly<Record<string, number>>;
  /** Bytes of video that were archived. */
  readonly archivedBytes: number;
  /** Bucket → how many. */
  readonly clocks: Readonly<Record<Clock, ReadonlyMap<number, number>>>;
}

/** Buckets of a duration grow by about a fifth each: 1 ms to a day in a hundred of them. */
const BUCKETS_PER_DOUBLING = 4;
const LAST_BUCKET = 108;

export function bucketOf(durationMs: number): number {
  if (!(durationMs > 1)) return 0;
  return Math.min(LAST_BUCKET, Math.ceil(Math.log2(durationMs) * BUCKETS_PER_DOUBLING));
}

/** The duration that this share of all did not exceed, in milliseconds, to the width of a bucket; null of none. */
export function quantile(buckets: ReadonlyMap<number, number>, share: number): number | null {
  const sorted = [...buckets].sort(([a], [b]) => a - b);
  const total = sorted.reduce((sum, [, n]) => sum + n, 0);
  let below = 0;
  for (const [bucket, n] of sorted) {
    below += n;
    if (below >= share * total) return Math.round(2 ** ((bucket - 0.5) / BUCKETS_PER_DOUBLING));
  }
  return null;
}

/** Field → how much. */
type Counts = Map<string, number>;

function addTo(sum: Counts, counts: ReadonlyMap<string, number>): void {
  for (const [field, n] of counts) sum.set(field, (sum.get(field) ?? 0) + n);
}

/** When the queue is left for good: the time it could have been submitted, without a start that the app put off. */
function queueMs({ record, at }: Move): number | null {
  if (record.state !== 'submitting' || record.submits.length > 1) return null;
  const couldStartAt = Math.max(record.createdAt, record.runAt ?? 0);
  return (record.submittedAt ?? at) - couldStartAt;
}

function countMove(counts: Counts, move: Move): void {
  const { record, from, to, at, change } = move;
  const add = (field: string, by = 1) => counts.set(field, (counts.get(field) ?? 0) + by);
  const time = (clock: Clock, durationMs: number | null) => {
    if (durationMs !== null) add(`${clock}:${bucketOf(durationMs)}`);
  };
  add(`to:${to}`);
  if (to === 'generating') time('queue', queueMs(move));
  if ((from === 'generating' || from === 'expired') && (to === 'archiving' || to === 'failed')) {
    time('provider', record.acceptedAt === null ? null : at - record.acceptedAt);
  }
  if (to === 'succeeded') {
    time('archive', at - since(record.trail, record.createdAt));
    const assets = change.set?.['assets'];
    if (typeof assets === 'string') add('bytes', (JSON.parse(assets) as Assets).video.sizeBytes);
  }
  const failure = change.set?.['failure'];
  if (to === 'failed' && typeof failure === 'string') add(`failed:${(JSON.parse(failure) as Failure).code}`);
}

export interface FiguresDeps {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly moves: Moves;
  readonly onError: (error: unknown) => void;
}

export interface Figures {
  /** Adds what was counted so far to Redis. Never rejects: what could not be added is tried again later. */
  flush(): Promise<void>;
  /** Stops listening and flushes once more, unless Redis does not answer for `CLOSE_MS`. */
  close(): Promise<void>;
}

/** Counts the transitions of this process from now on. */
export function startFigures({ redis, keys, moves, onError }: FiguresDeps): Figures {
  let pending = new Map<string, { span: Span; counts: Counts }>();
  let flushing: Promise<void> = Promise.resolve();

  const stop = moves.listen((move) => {
    for (const span of ['minute', 'hour'] as const) {
      const key = keys.figures(span, Math.floor(move.at / SPAN_MS[span]));
      const slot = pending.get(key) ?? { span, counts: new Map<string, number>() };
      countMove(slot.counts, move);
      pending.set(key, slot);
    }
  });

  async function write(): Promise<void> {
    if (pending.size === 0) return;
    const writing = pending;
    pending = new Map();
    try {
      const transaction = redis.multi();
      for (const [key, { span, counts }] of writing) {
        for (const [field, by] of counts) transaction.hincrby(key, field, by);
        transaction.pexpire(key, KEPT_MS[span]);
      }
      await transaction.exec();
    } catch (error) {
      onError(error);
      giveBack(writing);
    }
  }

  function giveBack(unwritten: typeof pending): void {
    for (const [key, { span, counts }] of unwritten) {
      const slot = pending.get(key) ?? { span, counts: new Map<string, number>() };
      addTo(slot.counts, counts);
      pending.set(key, slot);
    }
    for (const key of pending.keys()) {
      if (pending.size <= MAX_PENDING) break;
      pending.delete(key);
    }
  }

  const flush = () => (flushing = flushing.then(write));
  const timer = setInterval(() => void flush(), FLUSH_MS);
  timer.unref();

  return {
    flush,
    async close() {
      stop();
      clearInterval(timer);
      await within(CLOSE_MS, flush());
    },
  };
}

function readSlot(startAt: number, counts: ReadonlyMap<string, number>): Slot {
  const moved: Partial<Record<State, number>> = {};
  const failed: Record<string, number> = {};
  const clocks = { queue: new Map(), provider: new Map(), archive: new Map() };
  for (const [field, n] of counts) {
    const [kind = '', what = ''] = field.split(':');
    if (kind === 'to') moved[what as State] = n;
    else if (kind === 'failed') failed[what] = n;
    else if (kind in clocks) clocks[kind as Clock].set(Number(what), n);
  }
  return { startAt, counts, moved, failed, archivedBytes: counts.get('bytes') ?? 0, clocks };
}

/** The newest `count` minutes or hours, oldest first; the last one is still being counted. */
export async function readFigures(
  { redis, keys }: { readonly redis: RedisConnection; readonly keys: Keys },
  span: Span,
  count: number,
  now: number,
): Promise<Slot[]> {
  const last = Math.floor(now / SPAN_MS[span]);
  const numbers = Array.from({ length: count }, (_, i) => last - count + 1 + i);
  const hashes = await Promise.all(numbers.map((number) => redis.hgetall(keys.figures(span, number))));
  const countsOf = (hash = {}) => new Map(Object.entries(hash).map(([field, n]) => [field, Number(n)]));
  return numbers.map((number, i) => readSlot(number * SPAN_MS[span], countsOf(hashes[i])));
}

/** Many slots as one. */
export function sumOf(slots: readonly Slot[]): Slot {
  const sum: Counts = new Map();
  for (const { counts } of slots) addTo(sum, counts);
  return readSlot(slots[0]?.startAt ?? 0, sum);
}
