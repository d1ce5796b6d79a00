/**
 * Erasing: of a generation only a stub stays, with its instants and its money. A stub is no record, so that nothing revives
 * it: every stage and every callback meets a generation that is not there.
 */
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import type { Assets, Charge } from '../generation/record.js';
import { chargeOf, type Bill, type Submit } from '../generation/submits.js';
import { MILLIONTHS } from '../generation/price.js';
import type { State } from '../generation/states.js';
import { MayBeBilledError, NewerRecordError } from '../errors.js';
import { unpack } from './compression.js';
import { MAX_EVENTS } from './event-stream.js';
import { INPUT_RELEASE } from './inputs.js';
import type { Keys } from './keys.js';
import { QUEUED } from './queued-lua.js';
import { RECORD_VERSION } from './read-record.js';

const PAGE = 500;
const DAY_MS = 86_400_000;
/** Days of spend that Redis keeps (store/submits-lua.ts). */
const SPEND_DAYS = 400;

/**
 * ERASE. Replaces a record by its stub. What names the files goes into the stub until they are removed.
 * KEYS 1 record · ARGV 1 JSON { prefix, id, version, anyway, idempotencyKey, maxEvents }
 * Run a second time it does nothing. Returns { 'erased' }, { 'gone' }, { 'newer', version }, or { 'billable', state }.
 */
const ERASE = `${QUEUED}${INPUT_RELEASE}
local c = cjson.decode(ARGV[1])
local p, id, record = c.prefix, c.id, KEYS[1]
local stub = p .. ':erased:' .. id
local found = redis.call('HGETALL', record)
if #found == 0 then return { redis.call('EXISTS', stub) == 1 and 'erased' or 'gone' } end
local g, now = {}, now_ms()
for i = 1, #found, 2 do g[found[i]] = found[i + 1] end
if tonumber(g.v or '0') > c.version then return { 'newer', g.v } end
local billable = redis.call('ZSCORE', p .. ':live', id)
local bills, tasks = {}, { g.taskId or '', g.hintedTaskId or '' }
for i, submit in ipairs(cjson.decode(g.submits or '[]')) do
  bills[i] = { at = submit.at, bill = submit.bill, price = submit.price }
  tasks[#tasks + 1] = submit.taskId or ''
  if submit.liveUntil and submit.liveUntil > now then billable = true end
end
if billable and not c.anyway then return { 'billable', g.state } end
for _, name in ipairs(tasks) do
  if redis.call('HGET', p .. ':tasks', name) == id then redis.call('HDEL', p .. ':tasks', name) end
end
if g.state == 'queued' then queue_leave(p, id, g.tenant) end
if c.idempotencyKey and string.match(redis.call('GET', c.idempotencyKey) or '', '^[^ ]*') == id then
  redis.call('DEL', c.idempotencyKey)
end
redis.call('ZREM', p .. ':state:' .. g.state, id)
redis.call('ZREM', p .. ':tenant:' .. g.tenant .. ':' .. g.state, id)
for _, index in ipairs({ ':live', ':finished', ':notifications-owed', ':notifications-dead' }) do
  redis.call('ZREM', p .. index, id)
end
redis.call('HDEL', p .. ':gate:refusals', id)
input_release(p, id)
redis.call('DEL', record, p .. ':answers:' .. id, p .. ':notifications:' .. id, p .. ':notifications-dead:' .. id)
redis.call('HSET', stub, 'state', g.state, 'bills', #bills == 0 and '[]' or cjson.encode(bills), 'createdAt', g.createdAt,
  'submittedAt', g.submittedAt or '', 'finishedAt', g.finishedAt or '', 'erasedAt', now)
redis.call('ZADD', p .. ':erased', tonumber(g.finishedAt or '') or now, id)
redis.call('ZADD', p .. ':erasing', 0, id)
-- Did it ever come to archiving? Its trail says so by a letter (generation/history.ts).
if tonumber(g.archiveAttempts or '0') > 0 or string.find(g.trail or '', 'a%d') then
  redis.call('ZADD', p .. ':erasing-files', 0, id)
  redis.call('HSET', stub, 'tenant', g.tenant, 'metadata', g.metadata or '{}', 'assets', g.assets or '')
end
redis.call('XADD', p .. ':events', 'MAXLEN', '~', c.maxEvents, '*', 'id', id, 'type', 'erased', 'at', now, 'tenant', '')
return { 'erased' }
`;

/**
 * PRUNE. Forgets stubs that have nothing left to remove.
 * KEYS 1 erased · ARGV 1 JSON { prefix, cutoffAt, most }
 */
const PRUNE = `
local c = cjson.decode(ARGV[1])
local p = c.prefix
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. c.cutoffAt, 'LIMIT', 0, c.most)) do
  if not redis.call('ZSCORE', p .. ':erasing', id) and not redis.call('ZSCORE', p .. ':erasing-files', id) then
    redis.call('DEL', p .. ':erased:' .. id)
    redis.call('ZREM', KEYS[1], id)
  end
end
`;

/** What stays of an erased generation. Instants are epoch milliseconds. */
export interface Erased {
  readonly id: string;
  /** Where it was when it was erased. */
  readonly state: State;
  readonly charge: Charge;
  /** Each paid POST and each further task. `amount` is in the currency of `PRICES`; null: the price is not known. */
  readonly bills: readonly { readonly at: number; readonly bill: Bill; readonly amount: number | null }[];
  readonly createdAt: number;
  readonly submittedAt: number | null;
  readonly finishedAt: number | null;
  readonly erasedAt: number;
  /** False while a worker still has files to remove. */
  readonly filesErased: boolean;
}

/** What names the files of an erased generation. */
export interface FilesToErase {
  readonly tenant: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly createdAt: number;
  readonly assets: Assets | null;
}

export interface Eraser {
  /**
   * Replaces the record by a stub. False: there is no such generation, and no stub.
   * @throws MayBeBilledError unless `evenIfBilled`; NewerRecordError
   */
  erase(id: string, options: { readonly evenIfBilled: boolean }): Promise<boolean>;
  /** Null when it was not erased, or is forgotten. */
  erased(id: string): Promise<Erased | null>;
  /** Removes the events of these, and notes that only files may be left of them. */
  eraseEvents(ids: readonly string[]): Promise<void>;
  /** Null when no file of it is to be removed. */
  filesToErase(id: string): Promise<FilesToErase | null>;
  filesErased(id: string): Promise<void>;
  /** Ids whose erasing stopped midway: before their events were removed, and before their files were. */
  unfinished(
    limit: number,
  ): Promise<{ readonly events: readonly string[]; readonly files: readonly string[] }>;
  /** Ids that ended before `cutoffAt` (epoch ms), the longest ended first, after the first `skip`. */
  finishedBefore(cutoffAt: number, skip: number, limit: number): Promise<string[]>;
  /** Removes what holds the name of a tenant that has no generations. */
  forgetTenant(tenant: string, at: number): Promise<void>;
  /** Forgets up to `limit` stubs of generations that ended before `cutoffAt`. */
  pruneErased(cutoffAt: number, limit: number): Promise<void>;
}

const instant = (text: string | undefined): number | null => (text ? Number(text) : null);

function readStub(id: string, stub: Readonly<Record<string, string>>): Erased {
  const bills = JSON.parse(stub['bills'] ?? '[]') as Pick<Submit, 'at' | 'bill' | 'price'>[];
  return {
    id,
    state: stub['state'] as State,
    charge: chargeOf(bills),
    bills: bills.map(({ at, bill, price }) => ({
      at,
      bill,
      amount: price === undefined ? null : price / MILLIONTHS,
    })),
    createdAt: Number(stub['createdAt']),
    submittedAt: instant(stub['submittedAt']),
    finishedAt: instant(stub['finishedAt']),
    erasedAt: Number(stub['erasedAt']),
    filesErased: stub['tenant'] === undefined,
  };
}

export function createEraser(redis: RedisConnection, keys: Keys): Eraser {
  const erase = defineScript<[string, string?]>(redis, 'reelhaulErase', ERASE);
  const prune = defineScript<unknown>(redis, 'reelhaulPruneErased', PRUNE);
  const { prefix } = keys;

  async function removeEvents(
    unwanted: (event: { id: string; type: string; tenant: string }) => boolean,
  ): Promise<void> {
    for (let from = '-'; ;) {
      const entries = await redis.xrange(keys.events, from, '+', 'COUNT', PAGE);
      const found = entries.filter(([, fields]) => {
        const of = (name: string) => fields[fields.indexOf(name) + 1] ?? '';
        return unwanted({ id: of('id'), type: of('type'), tenant: of('tenant') });
      });
      if (found.length > 0) await redis.xdel(keys.events, ...found.map(([entry]) => entry));
      const last = entries.at(-1)?.[0];
      if (last === undefined || entries.length < PAGE) return;
      from = `(${last}`;
    }
  }

  return {
    async erase(id, { evenIfBilled }) {
      // Neither ever changes.
      const [tenant, key] = await redis.hmget(keys.record(id), 'tenant', 'idempotencyKey');
      const owned = tenant && key ? { idempotencyKey: keys.idempotency(tenant, key) } : {};
      const [kind, said = ''] = await erase([keys.record(id)], {
        ...{ prefix, id, version: RECORD_VERSION, anyway: evenIfBilled, maxEvents: MAX_EVENTS },
        ...owned,
      });
      if (kind === 'billable') throw new MayBeBilledError(id, said);
      if (kind === 'newer') throw new NewerRecordError(id, said, RECORD_VERSION);
      return kind === 'erased';
    },

    async erased(id) {
      const stub = await redis.hgetall(keys.erased(id));
      return stub['state'] ? readStub(id, stub) : null;
    },

    async eraseEvents(ids) {
      if (ids.length === 0) return;
      const wanted = new Set(ids);
      await removeEvents(({ id, type }) => wanted.has(id) && type !== 'erased');
      await redis.zrem(keys.erasing, ...ids);
    },

    async filesToErase(id) {
      const [tenant, metadata, createdAt, assets] = await redis.hmget(
        keys.erased(id),
        'tenant',
        'metadata',
        'createdAt',
        'assets',
      );
      if (tenant === null || tenant === undefined) return null;
      return {
        tenant,
        metadata: JSON.parse(metadata ?? '{}') as Record<string, unknown>,
        createdAt: Number(createdAt),
        assets: assets ? (JSON.parse(unpack(assets)) as Assets) : null,
      };
    },

    async filesErased(id) {
      await redis.hdel(keys.erased(id), 'tenant', 'metadata', 'assets');
      await redis.zrem(keys.erasingFiles, id);
    },

    async unfinished(limit) {
      const first = (key: string) => redis.zrange(key, '-', '+', 'BYLEX', 'LIMIT', 0, limit);
      const [events, files] = await Promise.all([first(keys.erasing), first(keys.erasingFiles)]);
      return { events, files };
    },

    finishedBefore: (cutoffAt, skip, limit) =>
      redis.zrangebyscore(keys.finished, '-inf', `(${Math.floor(cutoffAt)}`, 'LIMIT', skip, limit),

    async forgetTenant(tenant, at) {
      await removeEvents((event) => event.tenant === tenant);
      const today = Math.floor(at / DAY_MS);
      const lines = redis.pipeline();
      for (const list of ['queue-order', 'parked', 'in-flight']) lines.del(`${prefix}:${list}:${tenant}`);
      lines.srem(`${prefix}:parked`, tenant);
      lines.zrem(`${prefix}:queue-turns`, tenant);
      lines.hdel(`${prefix}:queue-aging`, tenant);
      for (let day = today - SPEND_DAYS; day <= today; day++)
        lines.hdel(`${prefix}:spend:${day}`, `charged:${tenant}`, `possible:${tenant}`);
      for (const [error] of (await lines.exec()) ?? []) if (error) throw error;
    },

    async pruneErased(cutoffAt, limit) {
      await prune([keys.allErased], { prefix, cutoffAt: String(Math.floor(cutoffAt)), most: limit });
    },
  };
}
