/** Writes a new generation: record, indexes, its turn in the queue and its event in one step. */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { FieldPatch } from '../generation/record.js';
import type { Keys } from './keys.js';
import { CHAIN, QUEUED } from './queued-lua.js';
import { MAX_EVENTS } from './event-stream.js';

/**
 * CREATE. Unless its idempotency key is taken; a key whose generation is gone is free.
 * KEYS 1 record · 2 layout, which is always there: while a Cluster moves the slot, a script none of whose keys exist would run on
 * the new master, beside the indexes that are still on the old one · ARGV 1 JSON { prefix, id, tenant, priority, runAt, at, maxEvents, idempotencyKey, idempotency, uploads, after, fields }
 * Run a second time (a lost reply makes ioredis send it again) it does nothing, however far the generation has come.
 * Returns { 'created', turn or '', ms until it may be submitted, the generations it waits for }, { 'taken', what the idempotency
 * key holds }, or { 'no_upload', id } and { 'no_generation', id } when its tenant has none of that id.
 */
const CREATE = `${QUEUED}${CHAIN}
local c = cjson.decode(ARGV[1])
local p, id, tenant, now = c.prefix, c.id, c.tenant, now_ms()
local wait = c.runAt and math.max(0, c.runAt - now) or 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'created', redis.call('HGET', KEYS[1], 'turn') or '', string.format('%.0f', wait), redis.call('HGET', KEYS[1], 'waitsFor') or '' }
end
if c.idempotencyKey then
  local taken = redis.call('GET', c.idempotencyKey)
  if taken and redis.call('EXISTS', p .. ':g:' .. string.match(taken, '^[^ ]*')) == 1 then return { 'taken', taken } end
end
for _, upload in ipairs(c.uploads) do
  if redis.call('HGET', p .. ':input:' .. upload, 'tenant') ~= tenant then return { 'no_upload', upload } end
end
for _, other in ipairs(c.after) do
  if redis.call('HGET', p .. ':g:' .. other, 'tenant') ~= tenant then return { 'no_generation', other } end
end
if c.idempotencyKey then redis.call('SET', c.idempotencyKey, c.idempotency) end
-- First: a Redis that is full refuses this write, but none of a script that has written already.
redis.call('HSET', KEYS[1], unpack(c.fields))
for _, upload in ipairs(c.uploads) do
  redis.call('HINCRBY', p .. ':input:' .. upload, 'uses', 1)
  redis.call('ZREM', p .. ':inputs-unused', upload)
end
for _, other in ipairs(c.after) do redis.call('ZADD', p .. ':before:' .. other, 0, id) end
local waits = chain_waits(p, table.concat(c.after, ' '))
local turn = ''
if wait > 0 then
  redis.call('ZADD', p .. ':scheduled', string.format('%.0f', c.runAt), id)
elseif waits ~= '' then
  redis.call('HSET', KEYS[1], 'waitsFor', waits)
  redis.call('ZADD', p .. ':chained', 0, id)
else
  turn = queue_turn(p, tenant)
  redis.call('HSET', KEYS[1], 'turn', turn)
  redis.call('ZADD', p .. ':queue-order:' .. tenant, c.priority, id)
end
redis.call('ZADD', p .. ':state:queued', 0, id)
redis.call('ZADD', p .. ':tenant:' .. tenant .. ':queued', 0, id)
redis.call('ZADD', p .. ':live', 0, id)
redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', 'state', 'from', '', 'to', 'queued', 'at', c.at, 'tenant', tenant)
return { 'created', turn, string.format('%.0f', wait), waits }
`;

/** Everything of a new generation; `idempotencyKey` and the digest of its request travel together. */
export interface NewGeneration {
  readonly id: string;
  readonly tenant: string;
  readonly idempotency: { readonly key: string; readonly digest: string } | null;
  readonly createdAt: number;
  readonly fields: FieldPatch;
  /** What its inputs name, each once. */
  readonly uploads?: readonly string[];
  readonly after?: readonly string[];
}

export type CreateResult =
  /** `turn`: its place in fair order; null when it has none until it is due, in `waitMs`. */
  | {
      readonly created: true;
      readonly turn: number | null;
      readonly waitMs: number;
      /** Generations that have to be over before. */
      readonly waitsFor: readonly string[];
    }
  /** The tenant has no such upload or generation. */
  | { readonly created: false; readonly missing: 'upload' | 'generation'; readonly id: string }
  | { readonly created: false; readonly generationId: string; readonly digest: string };

export function createWriter(
  redis: RedisConnection,
  keys: Keys,
): (generation: NewGeneration, stored: readonly string[]) => Promise<CreateResult> {
  const create = defineScript<[string, string, string?, string?]>(redis, 'reelhaulCreate', CREATE);
  return async ({ id, tenant, idempotency, createdAt, fields, uploads = [], after = [] }, stored) => {
    const runAt = fields['runAt'];
    const [kind, said, wait, waits] = await create([keys.record(id), keys.layout], {
      prefix: keys.prefix,
      id,
      tenant,
      priority: String(fields['priority'] ?? 0),
      ...(runAt === null || runAt === undefined ? {} : { runAt: Number(runAt) }),
      at: String(createdAt),
      maxEvents: MAX_EVENTS,
      ...(idempotency
        ? {
            idempotencyKey: keys.idempotency(tenant, idempotency.key),
            idempotency: `${id} ${idempotency.digest}`,
          }
        : {}),
      uploads,
      after,
      fields: stored,
    });
    if (kind === 'created')
      return {
        created: true,
        turn: said === '' ? null : Number(said),
        waitMs: Number(wait),
        waitsFor: waits ? waits.split(' ') : [],
      };
    if (kind === 'no_upload' || kind === 'no_generation')
      return { created: false, missing: kind === 'no_upload' ? 'upload' : 'generation', id: said };
    const [generationId = '', digest = ''] = said.split(' ');
    return { created: false, generationId, digest };
  };
}
