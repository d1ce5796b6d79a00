/** What a submit job finds when it runs: the record, and whether its generation may be submitted now. */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { GenerationRecord } from '../generation/record.js';
import type { Keys } from './keys.js';
import { ADMISSION, CHAIN, priorityOf, QUEUED } from './queued-lua.js';
import { hashOf, readRecord } from './read-record.js';

/** Every tenth time that a generation would let others of its tenant go first, it goes itself, so that none waits for ever. */
const AGING_TURN = 10;

/**
 * TURN. The turn belongs to the tenant: when a generation with a priority comes to its turn and one of the same tenant that
 * goes before it is waiting, the two swap their turns.
 * KEYS 1 record · ARGV 1 JSON { prefix, id }
 * Returns { record as a list, '1' when there is a budget, verdict, … }: 'go', 'requeue' turn, 'swap' other-id its-turn mine,
 * 'chained' while another generation that it starts from is not over, or those of `admission`, which is asked here for all but the budget.
 */
const TURN = `${QUEUED}${ADMISSION}${CHAIN}
local c = cjson.decode(ARGV[1])
local p, id = c.prefix, c.id
local state, tenant, priority, turn, after, deadline, run_at =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'tenant', 'priority', 'turn', 'after', 'deadlineAt', 'runAt'))
if state ~= 'queued' then return { redis.call('HGETALL', KEYS[1]), '', 'go' } end
local waits = chain_waits(p, after)
if waits ~= '' and not (deadline and tonumber(deadline) <= now_ms()) then
  -- It takes no place from those that may go. Its turn will be that of a newcomer.
  queue_leave(p, id, tenant)
  redis.call('HDEL', KEYS[1], 'turn')
  redis.call('HSET', KEYS[1], 'waitsFor', waits)
  redis.call('ZADD', p .. ':chained', 0, id)
  return { redis.call('HGETALL', KEYS[1]), '', 'chained' }
elseif after then
  redis.call('ZREM', p .. ':chained', id)
  redis.call('HDEL', KEYS[1], 'waitsFor')
end
local refused = admission(p, id, tenant, { deadlineAt = deadline, runAt = run_at, turn = turn }, nil, 'allow')
local order = p .. ':queue-order:' .. tenant
local said = refused or { 'go' }
if not refused or refused[1] == 'full' then
  if not turn then
    -- Scheduled until now: its turn is that of a newcomer.
    turn = queue_turn(p, tenant)
    redis.call('HSET', KEYS[1], 'turn', turn)
    redis.call('ZREM', p .. ':scheduled', id)
    redis.call('ZADD', order, priority or 0, id)
    local clock = tonumber(redis.call('GET', p .. ':queue-clock') or '0')
    if math.floor(tonumber(turn)) > math.floor(clock) then said = { 'requeue', turn } end
  end
end
if said[1] == 'go' and priority then
  local best, score = unpack(redis.call('ZRANGE', order, 0, 0, 'WITHSCORES'))
  if best and best ~= id and tonumber(score) < tonumber(priority)
    and redis.call('HINCRBY', p .. ':queue-aging', tenant, 1) % ${AGING_TURN} ~= 0 then
    local other = redis.call('HGET', p .. ':g:' .. best, 'turn')
    if other then
      redis.call('HSET', KEYS[1], 'turn', other)
      redis.call('HSET', p .. ':g:' .. best, 'turn', turn)
      redis.call('ZADD', order, priority, id)
      said = { 'swap', best, turn, other }
    end
  end
end
if said[1] == 'go' then redis.call('ZREM', order, id) end
if said[1] == 'full' then redis.call('ZADD', order, priority or 0, id) end
return { redis.call('HGETALL', KEYS[1]), limits(p)[2] or '', unpack(said) }
`;

/** ROOM. Asks `admission` once more, with the price. KEYS 1 record · ARGV 1 JSON { prefix, id, tenant, price, unpriced } */
const ROOM = `${QUEUED}${ADMISSION}
local c = cjson.decode(ARGV[1])
local state, deadline, run_at, turn = unpack(redis.call('HMGET', KEYS[1], 'state', 'deadlineAt', 'runAt', 'turn'))
if state ~= 'queued' then return { 'go' } end
local fields = { deadlineAt = deadline, runAt = run_at, turn = turn }
return admission(c.prefix, c.id, c.tenant, fields, c.price, c.unpriced) or { 'go' }
`;

/**
 * UNCHAINED. KEYS 1 chained · ARGV 1 JSON { prefix, from, most }: where to begin, as ZRANGEBYLEX has it, and how many to look at
 * Returns the last id it looked at or '', and the ids whose wait is over.
 */
const UNCHAINED = `${CHAIN}
local c = cjson.decode(ARGV[1])
local ids = redis.call('ZRANGEBYLEX', KEYS[1], c.from, '+', 'LIMIT', 0, c.most)
local found = { ids[#ids] or '' }
for _, id in ipairs(ids) do
  local state, after = unpack(redis.call('HMGET', c.prefix .. ':g:' .. id, 'state', 'after'))
  if state ~= 'queued' then redis.call('ZREM', KEYS[1], id)
  elseif chain_waits(c.prefix, after) == '' then found[#found + 1] = id end
end
return found
`;

const UNCHAINED_PAGE = 500;

export type Verdict =
  | { readonly kind: 'go' }
  /** Its job goes back with this priority. */
  | { readonly kind: 'requeue'; readonly priority: number }
  /** Another one of the tenant goes first: its job gets `theirs`, this one `priority`. */
  | {
      readonly kind: 'swap';
      readonly generationId: string;
      readonly theirs: number;
      readonly priority: number;
    }
  /** The provider has as many as it may have. */
  | { readonly kind: 'full' }
  /** Its tenant has. The change that ends one of the tenant's tasks promotes the job. */
  | { readonly kind: 'capped'; readonly waitMs: number }
  | { readonly kind: 'early'; readonly waitMs: number }
  /** The budget of the day (UTC) has no room for its price; `waitMs` until the next day. */
  | { readonly kind: 'over_day' | 'over_tenant_day'; readonly waitMs: number }
  /** There is a budget and no price. */
  | { readonly kind: 'unpriced' }
  /** Another generation that it starts from is not over. The end of that one promotes the job. */
  | { readonly kind: 'chained' }
  /** Its deadline passed before it was submitted. */
  | { readonly kind: 'overdue' }
  /** No worker has written the limits to Redis. */
  | { readonly kind: 'unpublished' };

/** @throws Error when the scripts say something unknown. */
export function readVerdict([kind, ...rest]: readonly string[]): Verdict {
  switch (kind ?? '') {
    case 'go':
    case 'full':
    case 'unpriced':
    case 'overdue':
    case 'unpublished':
    case 'chained':
      return { kind: kind as 'go' | 'full' | 'unpriced' | 'overdue' | 'unpublished' | 'chained' };
    case 'requeue':
      return { kind: 'requeue', priority: priorityOf(Number(rest[0])) };
    case 'swap':
      return {
        kind: 'swap',
        generationId: rest[0] ?? '',
        theirs: priorityOf(Number(rest[1])),
        priority: priorityOf(Number(rest[2])),
      };
    case 'capped':
    case 'early':
    case 'over_day':
    case 'over_tenant_day':
      return {
        kind: kind as 'capped' | 'early' | 'over_day' | 'over_tenant_day',
        waitMs: Number(rest[0]),
      };
    default:
      throw new Error(`unknown verdict ${kind}`);
  }
}

/** What a submit will cost, in millionths; null when no price is known. */
export interface SubmitCost {
  readonly price: number | null;
  readonly unpriced: 'allow' | 'refuse';
}

export const costArguments = ({ price, unpriced }: SubmitCost) => ({
  ...(price === null ? {} : { price }),
  unpriced,
});

export interface Turn {
  readonly record: GenerationRecord;
  /** Some budget is in force: ask `room` with the price. */
  readonly budgeted: boolean;
  readonly verdict: Verdict;
}

export interface TurnReader {
  /** Reads the record, and whether it is to be submitted now. Null when there is no such generation. */
  turn(id: string): Promise<Turn | null>;
  /** Whether the budget has room for its price. Only the begin of the submit reserves it. */
  room(record: Pick<GenerationRecord, 'id' | 'tenant'>, cost: SubmitCost): Promise<Verdict>;
  /** Generations that wait for the end of another one which is over. */
  unchained(): AsyncGenerator<string>;
}

export function createTurnReader(redis: RedisConnection, keys: Keys): TurnReader {
  const readTurn = defineScript<[string[], string, ...string[]]>(redis, 'reelhaulTurn', TURN);
  const room = defineScript<string[]>(redis, 'reelhaulRoom', ROOM);
  const unchained = defineScript<[string, ...string[]]>(redis, 'reelhaulUnchained', UNCHAINED);
  const { prefix } = keys;
  return {
    async turn(id) {
      const [fields, budgeted, ...said] = await readTurn([keys.record(id)], { prefix, id });
      const hash = hashOf(fields);
      if (!hash['state']) return null;
      return { record: readRecord(id, hash), budgeted: budgeted === '1', verdict: readVerdict(said) };
    },
    room: async ({ id, tenant }, cost) =>
      readVerdict(await room([keys.record(id)], { prefix, id, tenant, ...costArguments(cost) })),
    async *unchained() {
      for (let from = '-'; ;) {
        const [last, ...ids] = await unchained([keys.chained], { prefix, from, most: UNCHAINED_PAGE });
        yield* ids;
        if (last === '') return;
        from = `(${last}`;
      }
    },
  };
}
