/**
 * The call budget of the key: submits and polls of all replicas together make at most so many calls per window. It
 * promises:
 *
 * - calls are spread over the window instead of coming in bursts (the generic cell rate algorithm, ITU-T I.371), so that
 *   the limit holds in every window, wherever it begins;
 * - one of the two kinds goes first when both want to; the other still gets every tenth call;
 * - after a 429 all replicas begin again slowly and double their pace each second, with or without a configured limit.
 *
 * Who waits does so here, in its worker slot, and one caller per process asks for all: no busy work in Redis.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { RedisConnection } from '../redis/connect.js';
import type { Call } from './breaker.js';

/** This share of the limit may leave at once; the rest is spread. */
const BURST_SHARE = 0.02;
/** Of ten calls at least one is left to the kind that does not go first. */
const TURNS = 9;
/** Calls per second with which it begins after a 429 where no limit is configured, and from which on it is free again. */
const SLOW_START = 20;
const FREE_AGAIN = 200;
const DOUBLING_MS = 1000;
const SLOWEST = 0.2;
const MAX_TAKE = 50;
const MAX_SLEEP_MS = 2000;
/** While nothing limits, Redis is asked this often whether something does. */
const LOOK_MS = 1000;
/** After so long what was known before the wait may be true no more. */
const WAITED_MS = 100;

/** Those that were published last hold for all; where none were, or Redis has lost them, each process keeps to its own. */
const PACE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local said_max, said_window, said_first = unpack(redis.call('HMGET', KEYS[2], 'max', 'windowMs', 'first'))
local max, window = tonumber(said_max or ARGV[1]), tonumber(said_window or ARGV[2])
local interval, burst = 0, 1
if max > 0 then
  burst = math.max(1, math.floor(max * ${BURST_SHARE}))
  interval = window / (max - burst + 1)
end
local pace, pace_at, slowed_at = unpack(redis.call('HMGET', KEYS[1], 'pace', 'paceAt', 'slowedAt'))
local per_second
if slowed_at and tonumber(slowed_at) > now then
  -- The clock jumped back: it is as if it had been now.
  if pace then pace_at = now + (pace_at - slowed_at) end
  slowed_at = now
  redis.call('HSET', KEYS[1], 'slowedAt', string.format('%.3f', now))
  if pace then redis.call('HSET', KEYS[1], 'paceAt', string.format('%.3f', pace_at)) end
end
if pace then
  per_second = pace * 2 ^ (math.max(0, now - pace_at) / ${DOUBLING_MS})
  if (max > 0 and 1000 / per_second <= interval) or (max == 0 and per_second >= ${FREE_AGAIN}) then
    redis.call('HDEL', KEYS[1], 'pace', 'paceAt')
    per_second = nil
  else
    interval, burst = 1000 / per_second, 1
  end
end
`;

/**
 * TAKE. KEYS 1 rate · 2 limits that were published · ARGV 1 calls per window, 0 for no limit · 2 window in ms · 3 which kind
 * goes first, all three of this process · 4 how many are wanted · 5 of which kind
 * Returns { granted, ms until the next }, granted -1 when nothing limits.
 */
const TAKE = `${PACE}
if interval == 0 then return { '-1', '0' } end
local wanted, first = tonumber(ARGV[4]), ARGV[5] == (said_first or ARGV[3])
local mine, other = first and 'firstUntil' or 'secondUntil', first and 'secondUntil' or 'firstUntil'
local tat, passed, other_until = unpack(redis.call('HMGET', KEYS[1], 'tat', 'passed', other))
tat, passed, other_until = tonumber(tat or 0), tonumber(passed or 0), tonumber(other_until or 0)
local longest = math.max(interval, ${1000 / SLOWEST})
-- Nobody waits further ahead than this; only a clock that jumped back, or a limit of before, makes it look so.
if other_until > now + 3 * longest then other_until = 0 end
local slack = (burst - 1) * interval
-- No grant sets it further ahead; only a clock that jumped back makes it look so. Then one call is due, and no burst.
if tat > now + slack + longest then tat = now + slack end
local granted = 0
local wait = math.max(interval / 4, tat - slack - now)
local others_turn = other_until > now and (first == (passed >= ${TURNS}))
if not others_turn and tat - slack <= now then
  tat = math.max(tat, now)
  while granted < wanted and tat - slack <= now do
    tat = tat + interval
    granted = granted + 1
  end
  redis.call('HSET', KEYS[1], 'tat', string.format('%.3f', tat), 'passed', first and passed + granted or 0)
  wait = math.max(0, tat - slack - now)
end
if granted < wanted then redis.call('HSET', KEYS[1], mine, string.format('%.3f', now + wait + 2 * interval))
else redis.call('HDEL', KEYS[1], mine) end
redis.call('PEXPIRE', KEYS[1], math.ceil(3600000 + interval))
return { tostring(granted), tostring(math.ceil(wait)) }
`;

/**
 * SLOW. KEYS and first ARGV as above · 4 ms for which everybody holds still · 5 ms since the call left that was told so
 * Calls that left before everybody was slowed down last say nothing new: only the hold may become longer.
 */
const SLOW = `${PACE}
local from = now + tonumber(ARGV[4])
if slowed_at and now - tonumber(ARGV[5]) <= tonumber(slowed_at) then
  if per_second and from > tonumber(pace_at) then redis.call('HSET', KEYS[1], 'paceAt', string.format('%.3f', from)) end
  return 0
end
local base = per_second or (max > 0 and max * 1000 / window) or ${2 * SLOW_START}
redis.call('HSET', KEYS[1], 'pace', string.format('%.6f', math.max(${SLOWEST}, base / 2)),
  'paceAt', string.format('%.3f', from), 'slowedAt', string.format('%.3f', now))
redis.call('PEXPIRE', KEYS[1], 2 * 3600000)
return 1
`;

/** LOOK. KEYS and ARGV as above. Returns calls per second as they are now, '' when nothing slows them down. */
const LOOK = `${PACE}
return per_second and tostring(per_second) or ''
`;

export interface RateLimits {
  /** Null: no limit but what a 429 teaches. */
  readonly max: number | null;
  readonly windowMs: number;
  readonly first: Call;
}

/** `waited`: the call may leave, and what allowed it before the wait is to be asked again. `stopped`: by the signal. */
export type Leave = 'now' | 'waited' | 'stopped';

export interface Rate {
  /** Writes the limits of this process for all. */
  publish(): Promise<void>;
  /**
   * Waits until this call may leave.
   * @throws when Redis fails: without its word nothing leaves.
   */
  take(call: Call, signal: AbortSignal): Promise<Leave>;
  /**
   * A call that left `leftAgoMs` ago was told to slow down: after `holdMs` all begin again at half the pace. Of the calls
   * that were under way together only the first slows everybody down.
   */
  slowDown(holdMs: number, leftAgoMs: number): Promise<void>;
  /** Calls per second while they are slowed down after a 429; null when they are not. */
  slowedTo(): Promise<number | null>;
  /** Forgets that anybody was told to slow down. */
  reset(): Promise<void>;
}

export interface RateDeps extends RateLimits {
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly now: () => number;
}

interface Scripts {
  reelhaulTakeCalls(...args: (string | number)[]): Promise<[string, string]>;
  reelhaulSlowCalls(...args: (string | number)[]): Promise<number>;
  reelhaulCallPace(...args: (string | number)[]): Promise<string>;
}

interface Waiter {
  readonly go: () => void;
  readonly fail: (error: unknown) => void;
}

export function createRate({ redis, prefix, now, max, windowMs, first }: RateDeps): Rate {
  redis.defineCommand('reelhaulTakeCalls', { lua: TAKE, numberOfKeys: 2 });
  redis.defineCommand('reelhaulSlowCalls', { lua: SLOW, numberOfKeys: 2 });
  redis.defineCommand('reelhaulCallPace', { lua: LOOK, numberOfKeys: 2 });
  const scripts = redis as unknown as Scripts;
  const key = `${prefix}:rate`;
  const publishedKey = `${prefix}:rate-limits`;
  const limit = [key, publishedKey, max ?? 0, windowMs, first] as const;
  const waiting: Record<Call, Set<Waiter>> = { submit: new Set(), poll: new Set() };
  const serving = new Set<Call>();
  let freeUntil = 0;

  /** Lets those that wait go, first come first served, as Redis grants it. */
  async function serve(call: Call): Promise<void> {
    const queue = waiting[call];
    while (queue.size > 0) {
      const wanted = Math.min(queue.size, MAX_TAKE);
      const [granted, waitMs] = await scripts.reelhaulTakeCalls(...limit, wanted, call);
      if (granted === '-1') freeUntil = now() + LOOK_MS;
      let left = granted === '-1' ? queue.size : Number(granted);
      for (const waiter of queue) {
        if (left-- <= 0) break;
        queue.delete(waiter);
        waiter.go();
      }
      if (queue.size > 0) await sleep(Math.min(Number(waitMs), MAX_SLEEP_MS));
    }
  }

  function begin(call: Call): void {
    if (serving.has(call)) return;
    serving.add(call);
    serve(call)
      .catch((error: unknown) => {
        for (const waiter of waiting[call]) waiter.fail(error);
        waiting[call].clear();
      })
      .finally(() => {
        serving.delete(call);
        if (waiting[call].size > 0) begin(call);
      });
  }

  return {
    async publish() {
      await redis.hset(publishedKey, { max: max ?? 0, windowMs, first });
      freeUntil = 0;
    },

    async take(call, signal) {
      if (signal.aborted) return 'stopped';
      const askedAt = now();
      if (askedAt < freeUntil) return 'now';
      return new Promise<Leave>((resolve, reject) => {
        const stop = () => {
          waiting[call].delete(waiter);
          resolve('stopped');
        };
        const waiter: Waiter = {
          go: () => {
            signal.removeEventListener('abort', stop);
            resolve(now() - askedAt < WAITED_MS ? 'now' : 'waited');
          },
          fail: (error) => {
            signal.removeEventListener('abort', stop);
            reject(error instanceof Error ? error : new Error(String(error)));
          },
        };
        signal.addEventListener('abort', stop, { once: true });
        waiting[call].add(waiter);
        begin(call);
      });
    },

    async slowDown(holdMs, leftAgoMs) {
      freeUntil = 0;
      await scripts.reelhaulSlowCalls(...limit, holdMs, Math.max(0, leftAgoMs));
    },

    async slowedTo() {
      const perSecond = await scripts.reelhaulCallPace(...limit);
      return perSecond === '' ? null : Number(perSecond);
    },

    async reset() {
      await redis.hdel(key, 'pace', 'paceAt', 'slowedAt');
    },
  };
}
