/**
 * How long tasks took lately, shared by all replicas: per kind (model, seconds, ratio) one hash of decaying weights, and
 * one for all kinds together. Written in one script, by each replica at most once a second for each kind, and read through a
 * cache of some seconds, so that a poll costs no round trip. `observation.ts` says how fast a lesson is forgotten, `histogram.ts` what the weights mean.
 *
 * Bounded: at most `MAX_KINDS` kinds at a time (further ones count among all together), each at most a few hundred
 * fields, gone a week after its last task.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from '../store/keys.js';
import {
  HALF_LIFE_AT_LEAST_MS,
  HALF_LIFE_AT_MOST_MS,
  HALF_LIFE_LESSONS,
  type Lesson,
} from './observation.js';
import type { GenerationRequest } from '../generation/request.js';
import { BLANK_FORECAST, forecastOf, type Experience, type Forecast } from './schedule.js';
import type { Histogram } from './histogram.js';

const MAX_KINDS = 64;
const KEEP_MS = 7 * 24 * 3_600_000;
const REFRESH_MS = 5000;
const WRITE_EVERY_MS = 1000;
/** After a quiet time what is cached may be of another day: it is read anew before it is used. */
const STALE_MS = 2 * REFRESH_MS;
/** Forecasts held in memory; a process meets no more kinds than this at a time. */
const MAX_CACHED = 4 * MAX_KINDS;
/** Every kind, together. No kind is called so. */
const ALL = '*';

/**
 * LEARN. Adds weights to a kind and to all kinds together. A weight given later is larger (by two per half-life passed),
 * instead of all earlier ones being made smaller; now and then everything is scaled down again.
 * KEYS 1 index of kinds · 2 the kind · 3 all kinds
 * ARGV 1 JSON { kind, now, mostKinds, keepMs, halfLife: { lessons, atLeastMs, atMostMs }, lessons: how many, shares: field → sum }
 */
const LEARN = `
local c = cjson.decode(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', c.now - c.keepMs)
local into = { KEYS[3] }
if redis.call('ZSCORE', KEYS[1], c.kind) or redis.call('ZCARD', KEYS[1]) < c.mostKinds then
  redis.call('ZADD', KEYS[1], c.now, c.kind)
  into[2] = KEYS[2]
end
for _, key in ipairs(into) do
  local before = redis.call('HMGET', key, 'clock', 'at')
  local at = math.max(c.now, tonumber(before[2]) or c.now)
  local since = at - (tonumber(before[2]) or at)
  local clock = (tonumber(before[1]) or 0)
    + math.min(c.lessons / c.halfLife.lessons, since / c.halfLife.atLeastMs) + since / c.halfLife.atMostMs
  if clock > 30 then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local weight = tonumber(all[i + 1]) / 2 ^ clock
      if weight > 0.0001 then redis.call('HSET', key, all[i], weight) else redis.call('HDEL', key, all[i]) end
    end
    clock = 0
  end
  for field, share in pairs(c.shares) do redis.call('HINCRBYFLOAT', key, field, share * 2 ^ clock) end
  redis.call('HSET', key, 'clock', clock, 'at', at)
  redis.call('PEXPIRE', key, c.keepMs)
end
`;

/** The tasks that are measured together. Bounded, and free of what would break keys, whatever the model is called. */
export function kindOf({ model, ratio, options }: GenerationRequest): string {
  return `${encodeURIComponent(model).slice(0, 64)}:${options?.seconds ?? ''}:${ratio}`;
}

/** Ages of the tasks that are still running, per kind: how many are in which bucket. */
export type RunningTasks = ReadonlyMap<string, ReadonlyMap<number, number>>;

export interface Durations {
  /** Never throws, and waits for nothing but the first look after a quiet time. `kind` null: all together. */
  forecast(kind: string | null): Promise<Forecast>;
  /** The first lesson after a quiet second is written at once, further ones together when that second is over. */
  learn(kind: string | null, lesson: Lesson): Promise<void>;
  /** Replaces what is known of the tasks still running, and forgets it after `forMs`. */
  setRunning(running: RunningTasks, forMs: number): Promise<void>;
  /** What has been learnt of one kind, as it stands in Redis. */
  experience(kind: string | null): Promise<Experience>;
  /** Writes what was held back. Never throws. */
  close(): Promise<void>;
}

export interface DurationsDeps {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly now: () => number;
  /** Reading failed: the schedule goes on with what it knew. */
  readonly onError: (error: unknown) => void;
}

/** Field prefixes: finished and censored, of each histogram. */
const PARTS = { total: ['t', 'tc'], run: ['r', 'rc'], progress: ['p', 'pc'] } as const;

/** What several lessons add up to. */
interface Lessons {
  count: number;
  readonly shares: Record<string, number>;
}

interface Cached {
  readonly forecast: Forecast;
  readonly readAt: number;
}

export function createDurations({ redis, keys, now, onError }: DurationsDeps): Durations {
  const add = defineScript<unknown>(redis, 'reelhaulLearn', LEARN);
  const cache = new Map<string, Cached>();
  const reading = new Map<string, Promise<Cached>>();
  const heldBack = new Map<string | null, Lessons>();
  /** Lessons are held back until then. */
  let quietUntil = 0;
  let writing: NodeJS.Timeout | null = null;

  async function read(kind: string): Promise<Experience> {
    const [hash, running] = await Promise.all([
      redis.hgetall(keys.durations(kind)),
      redis.hget(keys.running, kind),
    ]);
    return readExperience(hash, running ? (JSON.parse(running) as [number, number][]) : [], now());
  }

  async function refresh(kind: string): Promise<Cached> {
    let forecast = cache.get(kind)?.forecast ?? BLANK_FORECAST;
    try {
      const [own, all] = await Promise.all([read(kind), kind === ALL ? undefined : read(ALL)]);
      forecast = forecastOf(own, all?.total);
    } catch (error) {
      onError(error);
    }
    const fresh = { forecast, readAt: now() };
    cache.delete(kind);
    cache.set(kind, fresh);
    for (const oldest of cache.keys()) {
      if (cache.size <= MAX_CACHED) break;
      cache.delete(oldest);
    }
    reading.delete(kind);
    return fresh;
  }

  function refreshOnce(kind: string): Promise<Cached> {
    const underWay = reading.get(kind) ?? refresh(kind);
    reading.set(kind, underWay);
    return underWay;
  }

  async function writeLessons(): Promise<void> {
    if (writing !== null) clearTimeout(writing);
    writing = null;
    quietUntil = now() + WRITE_EVERY_MS;
    const all = [...heldBack];
    heldBack.clear();
    await Promise.all(all.map(([kind, lessons]) => write(kind, lessons)));
  }

  const write = (kind: string | null, { count, shares }: Lessons): Promise<unknown> =>
    add([keys.durationKinds, keys.durations(kind ?? ALL), keys.durations(ALL)], {
      kind: kind ?? ALL,
      now: now(),
      mostKinds: kind === null ? 0 : MAX_KINDS,
      keepMs: KEEP_MS,
      halfLife: {
        lessons: HALF_LIFE_LESSONS,
        atLeastMs: HALF_LIFE_AT_LEAST_MS,
        atMostMs: HALF_LIFE_AT_MOST_MS,
      },
      lessons: count,
      shares,
    });

  return {
    async forecast(kind) {
      const name = kind ?? ALL;
      const known = cache.get(name);
      const agedMs = known ? now() - known.readAt : Infinity;
      if (!known || agedMs >= STALE_MS) return (await refreshOnce(name)).forecast;
      if (agedMs >= REFRESH_MS) void refreshOnce(name);
      return known.forecast;
    },

    async learn(kind, lesson) {
      const lessons = heldBack.get(kind) ?? { count: 0, shares: {} };
      heldBack.set(kind, lessons);
      lessons.count += 1;
      for (const [part, [finished, censored]] of Object.entries(PARTS)) {
        for (const [bucket, share] of lesson[part as keyof typeof PARTS]) {
          const field = `${lesson.finished ? finished : censored}${bucket}`;
          lessons.shares[field] = (lessons.shares[field] ?? 0) + share;
        }
      }
      const quietMs = quietUntil - now();
      if (quietMs <= 0 || quietMs > WRITE_EVERY_MS) return writeLessons();
      writing ??= setTimeout(() => void writeLessons().catch(onError), quietMs);
    },

    async setRunning(running, forMs) {
      const writes = redis.multi().del(keys.running);
      for (const [kind, ages] of running) writes.hset(keys.running, kind, JSON.stringify([...ages]));
      await writes.pexpire(keys.running, Math.round(forMs)).exec();
    },

    experience: (kind) => read(kind ?? ALL),

    close: () => writeLessons().catch(onError),
  };
}

function readExperience(
  hash: Readonly<Record<string, string>>,
  running: readonly (readonly [bucket: number, tasks: number])[],
  at: number,
): Experience {
  const idleMs = Math.max(0, at - Number(hash['at'] ?? at));
  const scale = 2 ** -(Number(hash['clock'] ?? 0) + idleMs / HALF_LIFE_AT_MOST_MS);
  const weights = (prefix: string) => {
    const found = new Map<number, number>();
    for (const [field, weight] of Object.entries(hash)) {
      const bucket = field.startsWith(prefix) ? field.slice(prefix.length) : '';
      if (/^\d+$/.test(bucket)) found.set(Number(bucket), Number(weight) * scale);
    }
    return found;
  };
  const histogram = ([finished, censored]: readonly [string, string]): Histogram => ({
    finished: weights(finished),
    censored: weights(censored),
  });
  const total = histogram(PARTS.total);
  const lasting = new Map(total.censored);
  for (const [bucket, tasks] of running) lasting.set(bucket, (lasting.get(bucket) ?? 0) + tasks);
  return {
    total: { finished: total.finished, censored: lasting },
    run: histogram(PARTS.run),
    progress: histogram(PARTS.progress),
  };
}
