/**
 * The timetable: which generation is polled when. The other stages run once or twice for a generation, and are jobs of
 * BullMQ; a poll comes again and again, and through BullMQ each cost some forty commands in Redis. Here it is one entry of
 * a sorted set, and taking, putting off and renewing are done for many at once. It promises what a queue promises:
 *
 * - a generation stands here once, and one worker at a time polls it;
 * - who takes one holds it for a lease; if that runs out (the worker died), the next worker takes it;
 * - whoever wants it sooner while it is being polled is not lost: it comes again when that poll is over;
 * - a Redis that takes no writes gives none out: each script writes first what such a Redis refuses first.
 *
 * All instants are those of Redis' clock, so that workers whose clocks differ agree. Keys: generation/keys.ts.
 */
import type { Keys } from '../store/keys.js';
import type { RedisConnection } from '../redis/connect.js';

const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** For how long nothing is due, at most an hour. */
const IDLE = `
local function idle_ms(polls, now)
  local next_at = tonumber(redis.call('ZRANGE', polls, 0, 0, 'WITHSCORES')[2])
  return math.max(0, math.min((next_at or math.huge) - now, 3600000))
end
`;

/**
 * PUT. Puts generations on the timetable, and wakes a worker if one of them is now the first.
 * KEYS 1 polls · 2 polling · 3 again · 4 wake
 * ARGV 1 '1': bring forward those that stand there · then id, delay in ms, …
 */
const PUT = `${NOW}
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local earliest = math.huge
for i = 2, #ARGV, 2 do
  local id, at = ARGV[i], now + ARGV[i + 1]
  if redis.call('ZSCORE', KEYS[2], id) then
    local again = redis.call('HGET', KEYS[3], id)
    if not again or at < tonumber(again) then redis.call('HSET', KEYS[3], id, at) end
  else
    local stands = redis.call('ZSCORE', KEYS[1], id)
    if not stands or (ARGV[1] == '1' and at < tonumber(stands)) then
      redis.call('ZADD', KEYS[1], at, id)
      earliest = math.min(earliest, at)
    end
  end
end
if earliest < (tonumber(first) or math.huge) then redis.call('ZADD', KEYS[4], 0, 'wake') end
`;

/**
 * TAKE. Takes what is due, and what a worker took that is gone. If more is due than that, the next worker is woken.
 * KEYS 1 polls · 2 polling · 3 hold · 4 wake
 * ARGV 1 at most so many · 2 lease in ms
 * Returns for how many ms nothing is due, the end of the lease, and the ids.
 */
const TAKE = `${IDLE}
local held = redis.call('PTTL', KEYS[3])
if held > 0 then return { held, 0 } end
${NOW}
local most = tonumber(ARGV[1])
local orphans = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, most)
for _, id in ipairs(orphans) do
  redis.call('ZADD', KEYS[1], now, id)
  redis.call('ZREM', KEYS[2], id)
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
local lease = now + ARGV[2]
if #due > 0 then
  local leased = {}
  for i, id in ipairs(due) do
    leased[2 * i - 1] = lease
    leased[2 * i] = id
  end
  redis.call('ZADD', KEYS[2], unpack(leased))
  redis.call('ZREM', KEYS[1], unpack(due))
end
local idle = #orphans == most and 0 or idle_ms(KEYS[1], now)
if idle == 0 and #due == most then redis.call('ZADD', KEYS[4], 0, 'wake') end
return { idle, lease, unpack(due) }
`;

/**
 * RENEW. Lengthens leases.
 * KEYS 1 polling · ARGV 1 lease in ms · then id, end of its lease, …
 * Returns the new end, and the ids whose lease had run out and been taken by somebody else.
 */
const RENEW = `${NOW}
local lease = now + ARGV[1]
local lost = { lease }
for i = 2, #ARGV, 2 do
  local mine = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if mine and tonumber(mine) == tonumber(ARGV[i + 1]) then redis.call('ZADD', KEYS[1], lease, ARGV[i])
  else lost[#lost + 1] = ARGV[i] end
end
return lost
`;

/**
 * SETTLE. Ends polls: each goes off the timetable, or comes again.
 * KEYS 1 polls · 2 polling · 3 again
 * ARGV id, end of its lease, delay in ms or '' for never, …
 * What somebody else holds by now is theirs, and left alone: so a command that is sent twice does no harm.
 * Returns for how many ms nothing is due.
 */
const SETTLE = `${IDLE}${NOW}
local wanted = redis.call('EXISTS', KEYS[3]) == 1
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  local lease = redis.call('ZSCORE', KEYS[2], id)
  if lease and tonumber(lease) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[2], id)
    local delay = tonumber(ARGV[i + 2])
    local at = delay and now + delay
    local again = wanted and tonumber(redis.call('HGET', KEYS[3], id))
    if again then
      redis.call('HDEL', KEYS[3], id)
      at = math.min(at or again, again)
    end
    if at then redis.call('ZADD', KEYS[1], at, id) end
  end
end
return idle_ms(KEYS[1], now)
`;

/**
 * HOLD. Lets nobody take one for so long; whoever asked for longer keeps it.
 * KEYS 1 hold · ARGV 1 duration in ms
 */
const HOLD = `
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
`;

/**
 * COUNT. KEYS 1 polls · 2 polling · 3 hold
 * Returns now, how many stand there, how many of them are due, how many are polled, how many of them by nobody any more,
 * and for how many ms nobody may take one.
 */
const COUNT = `${NOW}
return {
  now,
  redis.call('ZCARD', KEYS[1]), redis.call('ZCOUNT', KEYS[1], '-inf', now),
  redis.call('ZCARD', KEYS[2]), redis.call('ZCOUNT', KEYS[2], '-inf', now),
  redis.call('PTTL', KEYS[3]),
}
`;

/** So many are taken at most: what Lua can pass on at once is limited. */
const MOST_TAKEN = 1000;

export interface Entry {
  readonly generationId: string;
  readonly delayMs: number;
}

/** A generation that this worker polls, and until when it may (epoch ms of Redis' clock; also the proof that it may). */
export interface Lease {
  readonly generationId: string;
  readonly leasedUntil: number;
}

/** How a poll ended: when the next one comes, in milliseconds; null for never. */
export interface Settlement extends Lease {
  readonly delayMs: number | null;
}

export interface Taken {
  readonly leases: readonly Lease[];
  /** For so long nothing more is due, unless somebody puts something there. */
  readonly idleMs: number;
}

export interface TimetableCounts {
  /** When it was counted, epoch ms of Redis' clock: what `Planned.at` is to be compared with. */
  readonly at: number;
  readonly due: number;
  readonly delayed: number;
  readonly active: number;
  /** Those of the active whose worker is gone: whoever looks next takes them. */
  readonly orphaned: number;
  /** For how long nobody may take one, in milliseconds. */
  readonly heldMs: number;
}

/** One line of the timetable. */
export interface Planned {
  readonly generationId: string;
  /** When it is polled next, or, if it is being polled, until when the lease lasts; epoch ms. */
  readonly at: number;
}

export interface Timetable {
  /** Those that stand there already keep their time. */
  add(entries: readonly Entry[]): Promise<void>;
  /** The same, and brings forward what stands there for later, or is being polled. */
  hasten(entry: Entry): Promise<void>;
  /** Takes one off; a poll that runs ends by itself. */
  remove(generationId: string): Promise<void>;
  /** Which of these stand nowhere. */
  missing(generationIds: readonly string[]): Promise<string[]>;
  /** Takes up to `limit` that are due, or fewer. */
  take(limit: number, leaseMs: number): Promise<Taken>;
  /** Renews these leases. Those that are not in the answer are lost: another worker may poll them. */
  renew(leases: readonly Lease[], leaseMs: number): Promise<readonly Lease[]>;
  /** @returns for how many milliseconds nothing is due, unless somebody puts something there. */
  settle(settlements: readonly Settlement[]): Promise<number>;
  /** Lets nobody take one for so long, or for as long as they were held before, if that is longer. */
  hold(durationMs: number): Promise<void>;
  release(): Promise<void>;
  /** Wakes a worker that has room. */
  wake(): Promise<void>;
  counts(): Promise<TimetableCounts>;
  /** What is planned (or being done) next, from place `start` to `end`, both inclusive. */
  page(which: 'planned' | 'active', start: number, end: number): Promise<Planned[]>;
  /** @returns where it stands; `active`: it is being polled. */
  find(generationId: string): Promise<(Planned & { readonly active: boolean }) | null>;
  /** The sorted set in which something lies when a worker is to look; read by `BZPOPMIN`. */
  readonly wakeKey: string;
}

interface Scripts {
  reelhaulPut(...args: (string | number)[]): Promise<null>;
  reelhaulTake(...args: (string | number)[]): Promise<[number, number, ...string[]]>;
  reelhaulRenew(...args: (string | number)[]): Promise<[number, ...string[]]>;
  reelhaulSettle(...args: (string | number)[]): Promise<number>;
  reelhaulHold(...args: (string | number)[]): Promise<null>;
  reelhaulCount(...args: string[]): Promise<[number, number, number, number, number, number]>;
}

export function createTimetable(redis: RedisConnection, keys: Keys): Timetable {
  redis.defineCommand('reelhaulPut', { lua: PUT, numberOfKeys: 4 });
  redis.defineCommand('reelhaulTake', { lua: TAKE, numberOfKeys: 4 });
  redis.defineCommand('reelhaulRenew', { lua: RENEW, numberOfKeys: 1 });
  redis.defineCommand('reelhaulSettle', { lua: SETTLE, numberOfKeys: 3 });
  redis.defineCommand('reelhaulHold', { lua: HOLD, numberOfKeys: 1 });
  redis.defineCommand('reelhaulCount', { lua: COUNT, numberOfKeys: 3 });
  const scripts = redis as unknown as Scripts;
  const { polls, polling, pollsAgain, pollsHold, pollsWake } = keys;

  async function put(forward: boolean, entries: readonly Entry[]): Promise<void> {
    if (entries.length === 0) return;
    await scripts.reelhaulPut(
      ...[polls, polling, pollsAgain, pollsWake],
      forward ? '1' : '',
      ...entries.flatMap(({ generationId, delayMs }) => [generationId, Math.max(0, Math.round(delayMs))]),
    );
  }

  async function wake(): Promise<void> {
    await redis.zadd(pollsWake, 0, 'wake');
  }

  return {
    wakeKey: pollsWake,
    wake,

    add: (entries) => put(false, entries),
    hasten: (entry) => put(true, [entry]),

    async remove(generationId) {
      await redis.zrem(polls, generationId);
    },

    async missing(generationIds) {
      const lines = redis.pipeline();
      for (const id of generationIds) {
        lines.zscore(polls, id);
        lines.zscore(polling, id);
      }
      const scores = ((await lines.exec()) ?? []).map(([error, score]) => {
        if (error) throw error;
        return score;
      });
      return generationIds.filter((_, i) => scores[2 * i] === null && scores[2 * i + 1] === null);
    },

    async take(limit, leaseMs) {
      const [idleMs, leasedUntil, ...ids] = await scripts.reelhaulTake(
        ...[polls, polling, pollsHold, pollsWake],
        Math.min(limit, MOST_TAKEN),
        leaseMs,
      );
      return { idleMs, leases: ids.map((generationId) => ({ generationId, leasedUntil })) };
    },

    async renew(leases, leaseMs) {
      if (leases.length === 0) return [];
      const [leasedUntil, ...lost] = await scripts.reelhaulRenew(
        polling,
        leaseMs,
        ...leases.flatMap((lease) => [lease.generationId, lease.leasedUntil]),
      );
      const gone = new Set(lost);
      return leases.flatMap(({ generationId }) =>
        gone.has(generationId) ? [] : [{ generationId, leasedUntil }],
      );
    },

    async settle(settlements) {
      return scripts.reelhaulSettle(
        ...[polls, polling, pollsAgain],
        ...settlements.flatMap(({ generationId, leasedUntil, delayMs }) => [
          generationId,
          leasedUntil,
          delayMs === null ? '' : Math.max(0, Math.round(delayMs)),
        ]),
      );
    },

    async hold(durationMs) {
      await scripts.reelhaulHold(pollsHold, Math.max(1, Math.round(durationMs)));
    },

    async release() {
      await redis.del(pollsHold);
      await wake();
    },

    async counts() {
      const [at, planned, due, active, orphaned, held] = await scripts.reelhaulCount(
        ...[polls, polling, pollsHold],
      );
      return { at, due, delayed: planned - due, active, orphaned, heldMs: Math.max(0, held) };
    },

    async page(which, start, end) {
      const rows = await redis.zrange(
        which === 'planned' ? polls : polling,
        String(start),
        String(end),
        'WITHSCORES',
      );
      return rows.flatMap((generationId, i) =>
        i % 2 === 0 ? [{ generationId, at: Number(rows[i + 1]) }] : [],
      );
    },

    async find(generationId) {
      const [leasedUntil, plannedAt] = await Promise.all([
        redis.zscore(polling, generationId),
        redis.zscore(polls, generationId),
      ]);
      const at = leasedUntil ?? plannedAt;
      return at === null ? null : { generationId, at: Number(at), active: leasedUntil !== null };
    },
  };
}
