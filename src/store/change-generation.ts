/** The compare-and-set behind every change of a record: record, indexes, money, slots, outbox and event together. */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Keys } from './keys.js';
import { ADMISSION, QUEUED } from './queued-lua.js';
import { SUBMITS } from './submits-lua.js';

/**
 * CHANGE.
 * KEYS 1 record · ARGV 1 JSON, see `ChangeArguments`
 * The idempotency key is touched only while it is this generation's own: after it expired another one may hold it. A
 * notification holds a copy of the record as it is now; of progress only the newest is kept, and none after an end.
 * Returns { 'done', turn or '', id, id … } (queued jobs that may have the slot or the money it freed, or
 * that waited for its end), { 'changed' } when state or an
 * expected field differ, { 'gone' }, { 'task_taken', generation id } when a task belongs to another generation, or with
 * `begin` what `admission` returns, or { 'begun', record as a list }.
 */
const CHANGE = `${QUEUED}${ADMISSION}${SUBMITS}
local c = cjson.decode(ARGV[1])
local p, id, tenant, record = c.prefix, c.id, c.tenant, KEYS[1]
local names = {}
for i = 1, #c.expect, 2 do names[#names + 1] = c.expect[i] end
local found = redis.call('HMGET', record, 'state', 'deadlineAt', 'runAt', 'turn', unpack(names))
if not found[1] then return { 'gone' } end
if found[1] ~= c.from then return { 'changed' } end
local expected = {}
for i = 1, #names do
  if (found[i + 4] or '') ~= c.expect[2 * i] then return { 'changed' } end
  expected[names[i]] = found[i + 4]
end
for _, task in ipairs(c.ownTask and {} or c.tasks) do
  local owner = redis.call('HGET', p .. ':tasks', task)
  if owner and owner ~= id and redis.call('EXISTS', p .. ':g:' .. owner) == 1 then return { 'task_taken', owner } end
end
if c.begin then
  local fields = { deadlineAt = found[2], runAt = found[3], turn = found[4] }
  local refused = admission(p, id, tenant, fields, c.begin.price, c.begin.unpriced)
  if refused then return refused end
end
local moved, turn, freed, released = c.from ~= c.to, '', false, false
if c.submits then freed, released = submits_write(p, id, tenant, expected.submits or '[]', c.submits) end
if #c.set > 0 then redis.call('HSET', record, unpack(c.set)) end
if #c.remove > 0 then redis.call('HDEL', record, unpack(c.remove)) end
for _, field in ipairs(c.count) do redis.call('HINCRBY', record, field, 1) end
for _, task in ipairs(c.tasks) do redis.call('HSET', p .. ':tasks', task, id) end
for _, task in ipairs(c.forget or {}) do
  if redis.call('HGET', p .. ':tasks', task) == id then redis.call('HDEL', p .. ':tasks', task) end
end
if moved then
  redis.call('ZREM', p .. ':state:' .. c.from, id)
  redis.call('ZADD', p .. ':state:' .. c.to, 0, id)
  redis.call('ZREM', p .. ':tenant:' .. tenant .. ':' .. c.from, id)
  redis.call('ZADD', p .. ':tenant:' .. tenant .. ':' .. c.to, 0, id)
  if c.begin then
    queue_leave_admitted(p, id, tenant)
    local clock = tonumber(redis.call('GET', p .. ':queue-clock') or '0')
    local own = tonumber(found[4] or '0')
    if own > clock then redis.call('SET', p .. ':queue-clock', string.format('%.6f', own)) end
  elseif c.from == 'queued' then queue_leave(p, id, tenant) end
  if c.ended then redis.call('ZADD', p .. ':finished', c.at, id)
  elseif c.hadEnded then redis.call('ZREM', p .. ':finished', id) end
  if c.newTurn then
    turn = queue_turn(p, tenant)
    redis.call('HSET', record, 'turn', turn)
    redis.call('ZADD', p .. ':queue-order:' .. tenant, c.priority, id)
  end
  redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', 'state', 'from', c.from, 'to', c.to, 'at', c.at, 'tenant', tenant)
end
if c.event then
  redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', c.event.type, 'text', c.event.text, 'at', c.at, 'tenant', tenant)
end
if c.live == true then redis.call('ZADD', p .. ':live', 0, id) end
if c.live == false then redis.call('ZREM', p .. ':live', id) end
if c.answer then
  local kept = redis.call('RPUSH', p .. ':answers:' .. id, c.answer)
  if kept > c.maxAnswers then redis.call('LTRIM', p .. ':answers:' .. id, -c.maxAnswers, -1) end
end
if c.idempotency then
  local holder = redis.call('GET', c.idempotency.key)
  local mine = holder and string.match(holder, '^[^ ]*') == id
  if c.idempotency.ttlMs then
    if mine then redis.call('PEXPIRE', c.idempotency.key, c.idempotency.ttlMs) end
  elseif not holder then
    redis.call('SET', c.idempotency.key, id .. ' ' .. (redis.call('HGET', record, 'requestDigest') or ''))
  elseif mine then redis.call('PERSIST', c.idempotency.key) end
end
if c.notification then
  local n = redis.call('HINCRBY', record, 'notifications', 1)
  local copy = { n = n, type = c.notification, at = c.at, record = redis.call('HGETALL', record) }
  local owed = p .. ':notifications:' .. id
  redis.call('HDEL', owed, 'progress', 'progress.tries')
  redis.call('HSET', owed, c.progress and 'progress' or n, cjson.encode(copy))
  redis.call('ZADD', p .. ':notifications-owed', 0, id)
end
if c.begin then return { 'begun', redis.call('HGETALL', record) } end
local done = { 'done', turn }
if freed then
  for _, parked in ipairs(queue_unpark(p, tenant, now_ms())) do done[#done + 1] = parked end
end
if released then
  for _, waiting in ipairs(redis.call('ZRANGE', p .. ':over-budget', 0, 9)) do done[#done + 1] = waiting end
end
if c.ended then
  for _, next in ipairs(redis.call('ZRANGE', p .. ':before:' .. id, 0, 99)) do
    if redis.call('HGET', p .. ':g:' .. next, 'state') == 'queued' then done[#done + 1] = next end
  end
end
return done
`;

/** The arguments of CHANGE. Texts that Redis stores are texts here as well. */
export interface ChangeArguments {
  readonly prefix: string;
  readonly id: string;
  readonly tenant: string;
  readonly from: string;
  readonly to: string;
  /** Epoch ms. */
  readonly at: string;
  /** field, text, field, text …; a missing field reads as ''. */
  readonly expect: readonly string[];
  readonly set: readonly string[];
  readonly remove: readonly string[];
  readonly count: readonly string[];
  /** Task ids that belong to it from now on. */
  readonly tasks: readonly string[];
  /** The provider gave the task to this very submit, whatever else is known of it. */
  readonly ownTask?: boolean;
  /** Task ids that belong to it no more. */
  readonly forget?: readonly string[];
  /** `to` is an end; `from` was one. */
  readonly ended?: boolean;
  readonly hadEnded?: boolean;
  /** The whole list of submits as JSON, which `set` writes and whose former text `expect` names: what follows from it. */
  readonly submits?: string;
  /** It is about to be submitted, at this price in millionths. */
  readonly begin?: { readonly price?: number; readonly unpriced: 'allow' | 'refuse' };
  /** It is queued again, behind its tenant's others. */
  readonly newTurn?: boolean;
  readonly priority: string;
  readonly live?: boolean;
  readonly answer?: string;
  readonly event?: { readonly type: string; readonly text: string };
  /** Without `ttlMs` the key is held for good. */
  readonly idempotency?: { readonly key: string; readonly ttlMs?: string };
  readonly notification?: string;
  readonly progress?: boolean;
  readonly maxEvents: number;
  readonly maxAnswers: number;
}

/** What CHANGE returns. */
export type ChangeReply = ['begun', string[]] | [string, ...string[]];

export function createChanger(
  redis: RedisConnection,
  keys: Keys,
): (change: Omit<ChangeArguments, 'prefix'>) => Promise<ChangeReply> {
  const run = defineScript<ChangeReply>(redis, 'reelhaulChange', CHANGE);
  return (change) => run([keys.record(change.id)], { prefix: keys.prefix, ...change });
}
