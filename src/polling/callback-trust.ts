/**
 * Whether the provider's callbacks arrive: evidence shared by all replicas. Each generation that is found finished says
 * whether a callback had told so; what it says weighs half after so many further ones. Callbacks are trusted until the
 * evidence is against them, and trusted again when they come.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from '../store/keys.js';

/** With a new PUBLIC_URL, two disappointments without one arrival end the trust. */
const TRUST_AT_FIRST = 2;
/** One callback in ten lost costs a later poll now and then; with two in five missing, polling is better. */
const TRUSTED_FROM = 0.6;
const HALF_LIFE_GENERATIONS = 16;
const REFRESH_MS = 2000;

/** NOTE. KEYS 1 arrivals · ARGV 1 JSON { arrived } */
const NOTE = `
local before = redis.call('HMGET', KEYS[1], 'arrived', 'missing')
local arrived = (tonumber(before[1]) or ${TRUST_AT_FIRST}) * ${2 ** (-1 / HALF_LIFE_GENERATIONS)}
local missing = (tonumber(before[2]) or 0) * ${2 ** (-1 / HALF_LIFE_GENERATIONS)}
if cjson.decode(ARGV[1]).arrived then arrived = arrived + 1 else missing = missing + 1 end
redis.call('HSET', KEYS[1], 'arrived', arrived, 'missing', missing)
`;

export interface Arrivals {
  /** A task was found finished: had a callback said so? */
  note(arrived: boolean): Promise<void>;
  /** Is a callback worth waiting for? Never throws; through a cache of some seconds. */
  areTrusted(): Promise<boolean>;
}

export function createArrivals({
  redis,
  keys,
  now,
  onError,
}: {
  readonly redis: RedisConnection;
  readonly keys: Keys;
  readonly now: () => number;
  readonly onError: (error: unknown) => void;
}): Arrivals {
  const note = defineScript<unknown>(redis, 'reelhaulNoteArrival', NOTE);
  let known: { readonly trusted: boolean; readonly readAt: number } | null = null;

  return {
    async note(arrived) {
      await note([keys.arrivals], { arrived });
    },

    async areTrusted() {
      if (known === null || now() - known.readAt >= REFRESH_MS) {
        try {
          const [arrived, missing] = await redis.hmget(keys.arrivals, 'arrived', 'missing');
          const came = Number(arrived ?? TRUST_AT_FIRST);
          known = { trusted: came >= TRUSTED_FROM * (came + Number(missing ?? 0)), readAt: now() };
        } catch (error) {
          onError(error);
          known = { trusted: known?.trusted ?? false, readAt: now() };
        }
      }
      return known.trusted;
    },
  };
}
