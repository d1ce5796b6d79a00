/**
 * How our key stands with the provider, shared by all replicas through Redis: refused (key or quota), forbidden several
 * times in a row, or told to slow down. While refused one submit goes out per probe interval; all others wait unharmed.
 * Submits are asked for it where their turn is (limits/line.ts).
 */
import { backoffMs } from '../polling/schedule.js';
import type { RedisConnection } from '../redis/connect.js';

/** So many different generations that meet a 403 in a row mean the key, not the requests (provider notes). */
const FORBIDDEN_IN_A_ROW = 3;
const FORBIDDEN_MEMORY_MS = 24 * 3_600_000;
const SLOW_BASE_MS = 1000;
const SLOW_MAX_MS = 60_000;
const IN_A_ROW_MS = 2000;

/**
 * HOLD. KEYS 1 hold · ARGV 1 for how many ms · 2 '1' when the provider said so, '' when it is our guess
 * In one step: of calls that come back together the longest word of the provider holds, whichever is written last.
 * Returns -1 when the hold begins with this one, else the ms for which everybody holds still.
 */
const HOLD = `
if redis.call('SET', KEYS[1], '1', 'PX', ARGV[1], 'NX') then return -1 end
local held = redis.call('PTTL', KEYS[1])
if ARGV[2] == '' or held >= tonumber(ARGV[1]) then return held end
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return tonumber(ARGV[1])
`;

interface Scripts {
  reelhaulHoldCalls(...args: (string | number)[]): Promise<number>;
}

export interface Standing {
  /** The key or its quota was refused. Returns true when that is news. */
  refused(): Promise<boolean>;
  /** A 403 for this generation. Returns true when it means that the key is refused. */
  forbidden(generationId: string): Promise<boolean>;
  /** The provider dealt with a submit: nothing is held against the key any more. Returns true when something was. */
  accepted(): Promise<boolean>;
  /** A 429: how long everybody should hold still, in milliseconds. Doubles with each one in a row. */
  slowDown(call: 'submit' | 'poll', retryAfterMs: number | null): Promise<number>;
  isRefused(): Promise<boolean>;
  /** For how many milliseconds calls of this kind hold still after a 429; 0: they do not. */
  holdMs(call: 'submit' | 'poll'): Promise<number>;
  /** An operator says that all is well: nothing is held against the key any more. */
  reset(): Promise<void>;
}

export interface StandingDeps {
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly probeMs: number;
  readonly dice: () => number;
}

export function createStanding({ redis, prefix, probeMs, dice }: StandingDeps): Standing {
  redis.defineCommand('reelhaulHoldCalls', { lua: HOLD, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  const refusedKey = `${prefix}:standing:refused`;
  const probeKey = `${prefix}:standing:probe`;
  const forbiddenKey = `${prefix}:standing:forbidden`;

  const streakKeyOf = (call: 'submit' | 'poll') => `${prefix}:standing:streak:${call}`;
  const holdKeyOf = (call: 'submit' | 'poll') => `${prefix}:standing:hold:${call}`;

  async function refused(): Promise<boolean> {
    const before = await redis.set(refusedKey, '1', 'GET');
    if (before === null) await redis.set(probeKey, '1', 'PX', probeMs);
    return before === null;
  }

  return {
    refused,

    async forbidden(generationId) {
      await redis.sadd(forbiddenKey, generationId);
      await redis.pexpire(forbiddenKey, FORBIDDEN_MEMORY_MS);
      if ((await redis.scard(forbiddenKey)) < FORBIDDEN_IN_A_ROW)
        return redis.get(refusedKey).then((r) => r !== null);
      await refused();
      return true;
    },

    async accepted() {
      return (await redis.unlink(refusedKey, probeKey, forbiddenKey, streakKeyOf('submit'))) > 0;
    },

    async slowDown(call, retryAfterMs) {
      const streakKey = streakKeyOf(call);
      const streak = Number((await redis.get(streakKey)) ?? 0) + 1;
      const holdMs = Math.max(
        1,
        Math.round(retryAfterMs ?? backoffMs(streak, SLOW_BASE_MS, SLOW_MAX_MS, dice())),
      );
      const heldMs = await scripts.reelhaulHoldCalls(
        holdKeyOf(call),
        holdMs,
        retryAfterMs === null ? '' : '1',
      );
      if (heldMs >= 0) return Math.max(1, heldMs);
      // Calls that were under way together count as one: only who starts the hold raises the streak. In a row means: soon
      // after everybody was let go again. One now and then must not add up to long holds.
      await redis.set(streakKey, streak, 'PX', 3 * holdMs + IN_A_ROW_MS);
      return holdMs;
    },

    isRefused: async () => (await redis.get(refusedKey)) !== null,

    holdMs: async (call) => Math.max(0, await redis.pttl(holdKeyOf(call))),

    async reset() {
      const calls = ['submit', 'poll'] as const;
      await redis.unlink(
        refusedKey,
        probeKey,
        forbiddenKey,
        ...calls.flatMap((call) => [holdKeyOf(call), streakKeyOf(call)]),
      );
    },
  };
}
