/** What a submit job finds when it runs: the record, and whether its generation may be submitted now. */
import type { RedisConnection } from '../redis/connect.js';
import type { GenerationRecord } from '../generation/record.js';
import type { Keys } from './keys.js';
import { ADMISSION, priorityOf, QUEUED } from './queued-lua.js';
import { readRecord } from './read-record.js';

/** Each tenth time that a generation would let others of its tenant go first, it does not: none waits for ever. */
const AGING_TURN = 10;

/**
 * TURN. The turn belongs to the tenant: when a generation with a priority comes to its turn and one of the same tenant that
 * goes before it is waiting, the two swap their turns.
 * KEYS 1 record · ARGV 1 JSON { prefix, id }
 * Returns { record as a list, '1' when there is a budget, verdict, … }: 'go', 'requeue' turn, 'swap' other-id its-turn mine,
 * or those of `admission`, which is asked here for all but the budget.
 */
const TURN = `${QUEUED}${ADMISSION}
local c = cjson.decode(ARGV[1])
local p, id = c.prefix, c.id
local state, tenant, priority, turn, deadline, run_at =
  unpack(redis.call('HMGET', KEYS[1], 'state', 'tenant', 'priority', 'turn', 'deadlineAt', 'runAt'))
if state ~= 'queued' then return { redis.call('HGETALL', KEYS[1]), '', 'go' } end
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
      return { kind: kind as 'go' | 'full' | 'unpriced' | 'overdue' | 'unpublished' };
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

interface Scripts {
  reelhaulTurn(record: string, json: string): Promise<[string[], string, ...string[]]>;
  reelhaulRoom(record: string, json: string): Promise<string[]>;
}

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
}

export function createTurnReader(redis: RedisConnection, keys: Keys): TurnReader {
  redis.defineCommand('reelhaulTurn', { lua: TURN, numberOfKeys: 1 });
  redis.defineCommand('reelhaulRoom', { lua: ROOM, numberOfKeys: 1 });
  const scripts = redis as unknown as Scripts;
  const { prefix } = keys;
  return {
    async turn(id) {
      const json = JSON.stringify({ prefix, id });
      const [fields, budgeted, ...said] = await scripts.reelhaulTurn(keys.record(id), json);
      const hash: Record<string, string> = {};
      for (let i = 0; i + 1 < fields.length; i += 2) hash[fields[i]!] = fields[i + 1]!;
      if (!hash['state']) return null;
      return { record: readRecord(id, hash), budgeted: budgeted === '1', verdict: readVerdict(said) };
    },
    room: async ({ id, tenant }, cost) =>
      readVerdict(
        await scripts.reelhaulRoom(
          keys.record(id),
          JSON.stringify({ prefix, id, tenant, ...costArguments(cost) }),
        ),
      ),
  };
}
