/** Writes a new generation: record, indexes, its turn in the queue and its event in one step. */
import type { RedisConnection } from '../redis/connect.js';
import type { FieldPatch } from '../generation/record.js';
import type { Keys } from './keys.js';
import { QUEUED } from './queued-lua.js';
import { MAX_EVENTS } from './event-stream.js';

/**
 * CREATE. Unless its idempotency key is taken; a key whose generation is gone is free.
 * KEYS 1 record · 2 layout, which is always there: while a Cluster moves the slot, a script none of whose keys exist would run on
 * the new master, beside the indexes that are still on the old one · ARGV 1 JSON { prefix, id, tenant, priority, runAt, at, maxEvents, idempotencyKey, idempotency, fields }
 * Run a second time (a lost reply makes ioredis send it again) it does nothing, however far the generation has come.
 * Returns { 'created', turn or '', ms until it may be submitted } or { 'taken', what the idempotency key holds }.
 */
const CREATE = `${QUEUED}
local c = cjson.decode(ARGV[1])
local p, id, tenant, now = c.prefix, c.id, c.tenant, now_ms()
local wait = c.runAt and math.max(0, c.runAt - now) or 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 'created', redis.call('HGET', KEYS[1], 'turn') or '', string.format('%.0f', wait) }
end
if c.idempotencyKey then
  local taken = redis.call('GET', c.idempotencyKey)
  if taken and redis.call('EXISTS', p .. ':g:' .. string.match(taken, '^[^ ]*')) == 1 then return { 'taken', taken } end
  redis.call('SET', c.idempotencyKey, c.idempotency)
end
-- First: a Redis that is full refuses this write, but none of a script that has written already.
redis.call('HSET', KEYS[1], unpack(c.fields))
local turn = ''
if wait > 0 then
  redis.call('ZADD', p .. ':scheduled', string.format('%.0f', c.runAt), id)
else
  turn = queue_turn(p, tenant)
  redis.call('HSET', KEYS[1], 'turn', turn)
  redis.call('ZADD', p .. ':queue-order:' .. tenant, c.priority, id)
end
redis.call('ZADD', p .. ':state:queued', 0, id)
redis.call('ZADD', p .. ':tenant:' .. tenant .. ':queued', 0, id)
redis.call('ZADD', p .. ':live', 0, id)
redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', 'state', 'from', '', 'to', 'queued', 'at', c.at, 'tenant', tenant)
return { 'created', turn, string.format('%.0f', wait) }
`;

/** Everything of a new generation; `idempotencyKey` and the digest of its request travel together. */
export interface NewGeneration {
  readonly id: string;
  readonly tenant: string;
  readonly idempotency: { readonly key: string; readonly digest: string } | null;
  readonly createdAt: number;
  readonly fields: FieldPatch;
}

export type CreateResult =
  /** `turn`: its place in fair order; null when it has none until it is due, in `waitMs`. */
  | { readonly created: true; readonly turn: number | null; readonly waitMs: number }
  | { readonly created: false; readonly generationId: string; readonly digest: string };

interface Scripts {
  reelhaulCreate(record: string, layout: string, json: string): Promise<[string, string, string?]>;
}

export function createWriter(
  redis: RedisConnection,
  keys: Keys,
): (generation: NewGeneration, stored: readonly string[]) => Promise<CreateResult> {
  redis.defineCommand('reelhaulCreate', { lua: CREATE, numberOfKeys: 2 });
  const scripts = redis as unknown as Scripts;
  return async ({ id, tenant, idempotency, createdAt, fields }, stored) => {
    const runAt = fields['runAt'];
    const [kind, said, wait] = await scripts.reelhaulCreate(
      keys.record(id),
      keys.layout,
      JSON.stringify({
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
        fields: stored,
      }),
    );
    if (kind === 'created')
      return { created: true, turn: said === '' ? null : Number(said), waitMs: Number(wait) };
    const [generationId = '', digest = ''] = said.split(' ');
    return { created: false, generationId, digest };
  };
}
