/**
 * The store: the records of all generations in Redis, and the only place that changes one. It promises:
 *
 * - a change is one Lua compare-and-set: record, indexes and event are written together or not at all;
 * - a transition happens only from the state it was decided in, and only where the table of states allows it;
 * - an idempotency key is held as long as its generation is unfinished, and `idempotencyTtlMs` beyond.
 */
import type { RedisConnection } from '../redis/connect.js';
import type { RawAnswer, FieldPatch, GenerationRecord } from '../generation/record.js';
import { LINE } from './line-script.js';
import { SPEND } from './spend-lua.js';
import { announced, PROGRESS, type Budget, type Change, type OverBudget } from '../generation/change.js';
import { createKeys, type Keys } from './keys.js';
import { firstIdAt, createListing, type Listing, type ListPage } from './listing.js';
import type { Move } from '../generation/observers.js';
import { pack, unpack } from './compression.js';
import { readRecord, RECORD_VERSION } from './read-record.js';
import { freesSlot, livesUntil, slotName, type SlotSettings } from '../generation/task-lifetime.js';
import { isTerminal, mayFollow, STATES, type State } from '../generation/states.js';
import { withStep } from '../generation/history.js';

const MAX_ANSWERS = 12;
const MAX_EVENTS = 10_000;

/**
 * CREATE. Writes a new generation, unless its idempotency key is taken.
 * KEYS 1 record · 2 state index · 3 tenant's state index · 4 live · 5 events · 6 idempotency key (else the record again)
 * ARGV 1 id · 2 '<id> <digest>' or '' · 3 MAXLEN of the events · 4 now · 5 tenant · 6 prefix · 7 priority
 *      8 instant before which it does not stand in line, 0 for none · 9… field, value, …
 * Run a second time (a lost reply makes ioredis send it again) it does nothing, however far the generation has come. A
 * key whose generation is gone is free.
 * Returns what the idempotency key held already, or false when the generation was written.
 */
const CREATE = `${LINE}
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
if ARGV[2] ~= '' then
  local taken = redis.call('GET', KEYS[6])
  if taken and redis.call('EXISTS', ARGV[6] .. ':g:' .. string.match(taken, '^[^ ]*')) == 1 then return taken end
  redis.call('SET', KEYS[6], ARGV[2])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 9))
line_enter(ARGV[6], ARGV[1], ARGV[5], ARGV[7], ARGV[8], now_ms())
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[1])
redis.call('ZADD', KEYS[4], 0, ARGV[1])
redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[1], 'type', 'state', 'from', '', 'to', 'queued', 'at', ARGV[4], 'tenant', ARGV[5])
return false
`;

/**
 * CHANGE. The compare-and-set behind every change of a record.
 * KEYS 1 record · 2 index of the old state · 3 of the new one · 4 the tenant's index of the old state · 5 of the new one
 *      6 live · 7 events · 8 answers · 9 idempotency key · 10 notifications of the generation · 11 ids with owed ones
 *      12 tasks (where one is not needed, the record's key stands in)
 * ARGV 1 id · 2 now · 3 state it must be in · 4 new state · 5 live: '' | 'add' | 'remove' · 6 answer or ''
 *      7 ttl of the idempotency key in ms: '' leave, '0' keep for good · 8 type of an event of its own or '' · 9 its text
 *      10 MAXLEN of the events · 11 MAXLEN of the answers · 12 number of expected fields · 13 of set · 14 of removed
 *      15 of counted · 16 tenant · 17 type of a notification or '' · 18 '1' when it is one of progress · 19 prefix
 *      20 place of a queued one (line-script.ts) · 21 priority · 22 for how many ms its task may live although we are done
 *      with it, 'gone' when it surely does not, or '' · 23 by which name (slots.ts) · 24 '1' when it frees a slot · 25 what became of its bill or '' · 26 price or ''
 *      27 most to spend a day or '' · 28 the same of its tenant, as this process has them · 29 '1' when another bill has come · 30 number of tasks
 *      then: task ids · expected field, value … · set field, value … · removed fields · counted fields
 * The key is touched only while it is this generation's own: after it expired another one may hold it.
 * A notification holds a copy of the record as it is now. Of progress only the newest is kept, and none after an end.
 * Returns 1 when done, 2 when somebody waits for the slot it freed, 0 when state or an expected field differ, -1 when there
 * is no such record, -2 when the day's budget is spent, -3 when the tenant's is.
 */
const CHANGE = `${LINE}${SPEND}
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return -1 end
if state ~= ARGV[3] then return 0 end
local at = 31 + tonumber(ARGV[30])
for i = 1, tonumber(ARGV[12]) do
  local value = redis.call('HGET', KEYS[1], ARGV[at]) or ''
  if value ~= ARGV[at + 1] then return 0 end
  at = at + 2
end
local p, id, tenant = ARGV[19], ARGV[1], ARGV[16]
if ARGV[25] ~= '' then
  local over = spend_over(p, KEYS[1], tenant, ARGV[25], ARGV[26], ARGV[27], ARGV[28])
  if over then return over end
  spend_bill(p, KEYS[1], tenant, ARGV[25], ARGV[26])
end
if ARGV[29] == '1' then spend_another(p, KEYS[1], tenant) end
local set = tonumber(ARGV[13])
if set > 0 then redis.call('HSET', KEYS[1], unpack(ARGV, at, at + 2 * set - 1)) end
at = at + 2 * set
local removed = tonumber(ARGV[14])
if removed > 0 then redis.call('HDEL', KEYS[1], unpack(ARGV, at, at + removed - 1)) end
at = at + removed
for i = at, at + tonumber(ARGV[15]) - 1 do redis.call('HINCRBY', KEYS[1], ARGV[i], 1) end
for i = 31, 30 + tonumber(ARGV[30]) do redis.call('HSET', KEYS[12], ARGV[i], ARGV[1]) end
if ARGV[3] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'state', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'rev', 1)
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[3], 0, ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('ZADD', KEYS[5], 0, ARGV[1])
  if ARGV[3] == 'queued' then line_leave(p, id, tenant) end
  if ARGV[4] == 'queued' then line_enter(p, id, tenant, ARGV[21], ARGV[20], now_ms()) end
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[10], '*', 'id', ARGV[1], 'type', 'state', 'from', ARGV[3], 'to', ARGV[4], 'at', ARGV[2], 'tenant', ARGV[16])
end
if ARGV[3] ~= ARGV[4] or ARGV[22] == 'gone' then
  local until_at = tonumber(redis.call('ZSCORE', p .. ':lingering', id) or '0')
  local lives_ms = tonumber(ARGV[22])
  -- What was said before by who had more patience still holds.
  if lives_ms then until_at = math.max(until_at, now_ms() + lives_ms) end
  for _, lingering in ipairs({ p .. ':lingering', p .. ':lingering:' .. tenant }) do
    redis.call('ZREM', lingering, id, ARGV[23])
    if lives_ms then redis.call('ZADD', lingering, until_at, ARGV[23]) end
  end
end
if ARGV[8] ~= '' then
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[10], '*', 'id', ARGV[1], 'type', ARGV[8], 'text', ARGV[9], 'at', ARGV[2], 'tenant', ARGV[16])
end
if ARGV[5] == 'add' then redis.call('ZADD', KEYS[6], 0, ARGV[1]) end
if ARGV[5] == 'remove' then redis.call('ZREM', KEYS[6], ARGV[1]) end
if ARGV[6] ~= '' then
  redis.call('RPUSH', KEYS[8], ARGV[6])
  redis.call('LTRIM', KEYS[8], -tonumber(ARGV[11]), -1)
end
if ARGV[7] ~= '' then
  local holder = redis.call('GET', KEYS[9])
  local mine = holder and string.match(holder, '^[^ ]*') == ARGV[1]
  if ARGV[7] == '0' and not holder then
    redis.call('SET', KEYS[9], ARGV[1] .. ' ' .. (redis.call('HGET', KEYS[1], 'requestDigest') or ''))
  elseif ARGV[7] == '0' and mine then redis.call('PERSIST', KEYS[9])
  elseif mine then redis.call('PEXPIRE', KEYS[9], ARGV[7]) end
end
if ARGV[17] ~= '' then
  local n = redis.call('HINCRBY', KEYS[1], 'notifications', 1)
  local copy = { n = n, type = ARGV[17], at = ARGV[2], record = redis.call('HGETALL', KEYS[1]) }
  redis.call('HDEL', KEYS[10], 'progress', 'progress.tries')
  redis.call('HSET', KEYS[10], ARGV[18] == '1' and 'progress' or n, cjson.encode(copy))
  redis.call('ZADD', KEYS[11], 0, ARGV[1])
end
if ARGV[24] == '1' and redis.call('EXISTS', p .. ':line', p .. ':capped') > 0 then return 2 end
return 1
`;

/**
 * PRUNE. Forgets a finished generation, if it is still in the state it was chosen in and nothing is due for it.
 * KEYS 1 record · 2 answers · 3 owed notifications · 4 dead ones · 5 live · 6 tasks · 7… indexes that hold its id
 * ARGV 1 id · 2 state · 3… its task ids
 * Returns 1 when it was forgotten.
 */
const PRUNE = `
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[2] then return 0 end
if redis.call('ZSCORE', KEYS[5], ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
for i = 7, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
for i = 3, #ARGV do
  if redis.call('HGET', KEYS[6], ARGV[i]) == ARGV[1] then redis.call('HDEL', KEYS[6], ARGV[i]) end
end
return 1
`;

/**
 * ROOM. Has the budget room for a submit? Only `beginSubmit` reserves it.
 * KEYS 1 record · ARGV 1 prefix · 2 tenant · 3 price or '' · 4 most to spend a day or '' · 5 the same of its tenant
 * Returns 1, -2 or -3 as above, -4 when there is a budget and no price.
 */
const ROOM = `${SPEND}
if ARGV[3] == '' then
  local most, tenant_most = spend_caps(ARGV[1], ARGV[2], ARGV[4], ARGV[5])
  return most == '' and tenant_most == '' and 1 or -4
end
return spend_over(ARGV[1], KEYS[1], ARGV[2], 'possible', ARGV[3], ARGV[4], ARGV[5]) or 1
`;

/** `changed`: it is no longer where it was decided. */
export type SubmitBegun = 'begun' | 'changed' | OverBudget;

/** Everything of a new generation; `idempotencyKey` and the digest of its request travel together. */
export interface NewGeneration {
  readonly id: string;
  readonly tenant: string;
  readonly idempotency: { readonly key: string; readonly digest: string } | null;
  readonly createdAt: number;
  readonly fields: FieldPatch;
}

export type CreateResult =
  | { readonly created: true }
  | { readonly created: false; readonly generationId: string; readonly digest: string };

export interface Whereabouts {
  readonly id: string;
  readonly state: State;
  readonly updatedAt: number;
  readonly runAt: number | null;
  readonly deadlineAt: number | null;
  readonly priority: number;
  readonly acceptedAt: number | null;
  readonly kind: string | null;
  readonly tenant: string;
}

export interface Store {
  readonly keys: Keys;
  create(generation: NewGeneration): Promise<CreateResult>;
  get(id: string): Promise<GenerationRecord | null>;
  /** What the sweep needs to know of many generations, and no more. */
  whereabouts(ids: readonly string[]): Promise<Whereabouts[]>;
  /** Moves a generation on. False when it is no longer where it was decided, or gone: read again, decide again. */
  transition(record: GenerationRecord, to: State, change: Change & { live: boolean }): Promise<boolean>;
  /**
   * Has the budget no room for this price just now? For whoever wants to know before it waits for something else.
   * `unpriced`: there is a budget, and the price is not known.
   */
  overBudget(
    record: GenerationRecord,
    price: number | null,
    budget: Budget,
  ): Promise<OverBudget | 'unpriced' | null>;
  /** `queued` → `submitting`, if its price fits into the budget, which is reserved in the same step. */
  beginSubmit(record: GenerationRecord, change: Change, budget: Budget): Promise<SubmitBegun>;
  /** Changes fields without leaving the state. False as above. */
  amend(record: GenerationRecord, change: Change): Promise<boolean>;
  /** The generation that a task of the provider belongs to or may belong to; null for an unknown one. */
  idOfTask(taskId: string): Promise<string | null>;
  /** The generation that this tenant's idempotency key stands for; null when the key is free. */
  idOfKey(tenant: string, idempotencyKey: string): Promise<string | null>;
  /** What the provider said that decided something, oldest first. */
  answers(id: string): Promise<RawAnswer[]>;
  /** Ids, newest first. */
  list(listing: Listing): Promise<ListPage>;
  countByState(states: readonly State[]): Promise<Record<string, number>>;
  /** Ids that need a job, in order, after `after`. */
  live(after: string | null, limit: number): Promise<string[]>;
  /** Ids in that state, oldest first. */
  oldest(state: State, limit: number): Promise<string[]>;
  /** How many were created in each of these spans (epoch ms, from inclusive), whatever their state is now. */
  countCreated(spans: readonly { readonly from: number; readonly to: number }[]): Promise<number[]>;
  /** When the last sweep ended, epoch ms; null when there was none. */
  sweptAt(): Promise<number | null>;
  /** Forgets up to `limit` generations of a finished state that ended before `cutoffAt`. Returns how many. */
  prune(state: State, cutoffAt: number, limit: number): Promise<number>;
}

export interface StoreDeps {
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly idempotencyTtlMs: number;
  readonly now: () => number;
  /** Told of every transition that was made here. */
  readonly onMove?: (move: Move) => void;
  readonly slots: SlotSettings;
  /** A generation of this tenant freed a slot that somebody waits for. */
  readonly onFreed?: (tenant: string) => void;
}

interface Scripts {
  reelhaulCreate(...args: (string | number)[]): Promise<string | null>;
  reelhaulChange(...args: (string | number)[]): Promise<number>;
  reelhaulRoom(...args: (string | number)[]): Promise<number>;
  reelhaulPrune(...args: (string | number)[]): Promise<number>;
}

/** What says whether a generation may be forgotten, and where it is to be forgotten. */
const PRUNED_BY = ['finishedAt', 'tenant', 'taskId', 'hintedTaskId', 'otherTaskIds'] as const;

const present = (fields: FieldPatch) =>
  Object.entries(fields).filter((entry): entry is [string, string | number] => entry[1] !== null);

/** As it is stored: names and checksums of files are kept packed. */
const asStored = ([field, value]: [string, string | number]): [string, string | number] =>
  field === 'assets' ? [field, pack(String(value))] : [field, value];

/** Every task id that such fields name. */
function taskIdsIn(fields: Readonly<Record<string, string | number | null | undefined>>): string[] {
  const { taskId, hintedTaskId, otherTaskIds } = fields;
  const others = typeof otherTaskIds === 'string' ? (JSON.parse(otherTaskIds) as string[]) : [];
  return [taskId, hintedTaskId, ...others].filter((id) => typeof id === 'string');
}

function overBudget(reply: number): OverBudget | null {
  if (reply === -2) return 'overDay';
  return reply === -3 ? 'overTenantDay' : null;
}

const NO_BUDGET: Budget = { day: null, tenantDay: null };

export function createStore({
  redis,
  prefix,
  idempotencyTtlMs,
  now,
  onMove,
  slots,
  onFreed,
}: StoreDeps): Store {
  const keys = createKeys(prefix);
  // Each store defines its scripts on its connection; ioredis sends them as EVALSHA and falls back to EVAL.
  redis.defineCommand('reelhaulCreate', { lua: CREATE, numberOfKeys: 6 });
  redis.defineCommand('reelhaulChange', { lua: CHANGE, numberOfKeys: 12 });
  redis.defineCommand('reelhaulRoom', { lua: ROOM, numberOfKeys: 1 });
  redis.defineCommand('reelhaulPrune', { lua: PRUNE, numberOfKeys: 10 });
  const scripts = redis as unknown as Scripts;

  async function change(
    record: GenerationRecord,
    to: State,
    change: Change,
    budget: Budget = NO_BUDGET,
  ): Promise<SubmitBegun> {
    const { id, state: from } = record;
    const at = now();
    // The revision makes sure that a change decided in one round is not made in a later one that looks the same.
    const expected = [
      ['rev', record.rev === 0 ? '' : String(record.rev)],
      ...Object.entries(change.expect ?? {}),
    ];
    // With one look at the clock: every door and every notification tells the same instant.
    const step =
      to === from
        ? {}
        : {
            trail: withStep(record.trail, record.createdAt, { state: to, at }),
            finishedAt: isTerminal(to) ? at : null,
          };
    const fields: FieldPatch = { ...change.set, ...step, v: RECORD_VERSION, updatedAt: at };
    const taskIds = taskIdsIn(fields);
    const set = present(fields).map(asStored);
    const removed = Object.keys(fields).filter((field) => fields[field] === null);
    const counted = change.count ?? [];
    const { tenant, idempotencyKey } = record;
    // Kept for good while something may still come of the generation, which for an expired one is its late check.
    const ended = isTerminal(to) && change.live === false;
    const goesOn = change.live === true && isTerminal(from);
    const idempotencyTtl = idempotencyKey === null ? '' : ended ? idempotencyTtlMs : goesOn ? 0 : '';
    const notification = announced(record, to, change);
    const { taskGone = false } = change;
    const untilAt = to === from || taskGone ? null : livesUntil(record, to, at, slots);
    // Redis counts from its own clock: that of this process may be wrong.
    const lives = untilAt === null ? '' : Math.max(0, untilAt - at);
    const done = await scripts.reelhaulChange(
      keys.record(id),
      keys.state(from),
      keys.state(to),
      keys.tenantState(tenant, from),
      keys.tenantState(tenant, to),
      keys.live,
      keys.events,
      keys.answers(id),
      idempotencyKey === null ? keys.record(id) : keys.idempotency(tenant, idempotencyKey),
      keys.notifications(id),
      keys.notificationsOwed,
      keys.tasks,
      id,
      at,
      from,
      to,
      change.live === undefined ? '' : change.live ? 'add' : 'remove',
      change.answer ? pack(JSON.stringify(change.answer)) : '',
      idempotencyTtl,
      change.event?.type ?? '',
      change.event?.text ?? '',
      MAX_EVENTS,
      MAX_ANSWERS,
      expected.length,
      set.length,
      removed.length,
      counted.length,
      tenant,
      notification ?? '',
      notification === PROGRESS ? '1' : '',
      prefix,
      change.place === 'ready' ? 'ready' : -Math.round(change.place?.afterMs ?? 0),
      record.priority,
      taskGone ? 'gone' : lives,
      slotName(record, to),
      untilAt === null && freesSlot(from, to, taskGone) ? '1' : '',
      change.bill ?? '',
      change.price ?? '',
      budget.day ?? '',
      budget.tenantDay ?? '',
      change.anotherBill ? '1' : '',
      taskIds.length,
      ...taskIds,
      ...expected.flat(),
      ...set.flat(),
      ...removed,
      ...counted,
    );
    const over = overBudget(done);
    if (over) return over;
    if (done <= 0) return 'changed';
    if (to !== from) onMove?.({ record, from, to, at, change });
    if (done === 2) onFreed?.(tenant);
    return 'begun';
  }

  return {
    keys,

    async create({ id, tenant, idempotency, createdAt, fields }) {
      const taken = await scripts.reelhaulCreate(
        keys.record(id),
        keys.state('queued'),
        keys.tenantState(tenant, 'queued'),
        keys.live,
        keys.events,
        idempotency ? keys.idempotency(tenant, idempotency.key) : keys.record(id),
        id,
        idempotency ? `${id} ${idempotency.digest}` : '',
        MAX_EVENTS,
        createdAt,
        tenant,
        prefix,
        Number(fields['priority'] ?? 0),
        Number(fields['runAt'] ?? 0),
        ...present({
          ...fields,
          v: RECORD_VERSION,
          state: 'queued',
          tenant,
          createdAt,
          updatedAt: createdAt,
        }).flat(),
      );
      if (taken === null) return { created: true };
      const [generationId = '', digest = ''] = taken.split(' ');
      // A create whose answer was lost with the connection is sent again by ioredis and meets itself.
      return generationId === id ? { created: true } : { created: false, generationId, digest };
    },

    async get(id) {
      const hash = await redis.hgetall(keys.record(id));
      return hash['state'] ? readRecord(id, hash) : null;
    },

    async whereabouts(ids) {
      const rows = await Promise.all(
        ids.map((id) =>
          redis.hmget(
            keys.record(id),
            'state',
            'updatedAt',
            'runAt',
            'deadlineAt',
            'priority',
            'acceptedAt',
            'kind',
            'tenant',
            'v',
          ),
        ),
      );
      // What a newer reelhaul wrote is its own to look after.
      return rows.flatMap(
        ([state, updatedAt, runAt, deadlineAt, priority, acceptedAt, kind, tenant, v], i) =>
          state && Number(v ?? 0) <= RECORD_VERSION
            ? [
                {
                  id: ids[i]!,
                  state: state as State,
                  updatedAt: Number(updatedAt),
                  runAt: runAt ? Number(runAt) : null,
                  deadlineAt: deadlineAt ? Number(deadlineAt) : null,
                  priority: Number(priority ?? 0),
                  acceptedAt: acceptedAt ? Number(acceptedAt) : null,
                  kind: kind ?? null,
                  tenant: tenant ?? '',
                },
              ]
            : [],
      );
    },

    async transition(record, to, wanted) {
      if (!mayFollow(record.state, to)) throw new Error(`${to} may not follow ${record.state}`);
      return (await change(record, to, wanted)) === 'begun';
    },

    async overBudget({ id, tenant }, price, { day, tenantDay }) {
      const caps = [day ?? '', tenantDay ?? ''];
      const room = await scripts.reelhaulRoom(keys.record(id), prefix, tenant, price ?? '', ...caps);
      return room === -4 ? 'unpriced' : overBudget(room);
    },

    beginSubmit: (record, wanted, budget) => change(record, 'submitting', wanted, budget),

    amend: async (record, wanted) => (await change(record, record.state, wanted)) === 'begun',

    idOfTask: (taskId) => redis.hget(keys.tasks, taskId),

    async idOfKey(tenant, idempotencyKey) {
      return (await redis.get(keys.idempotency(tenant, idempotencyKey)))?.split(' ')[0] ?? null;
    },

    async answers(id) {
      const packed = await redis.lrange(keys.answers(id), 0, -1);
      return packed.map((text) => JSON.parse(unpack(text)) as RawAnswer);
    },

    list: createListing(redis, keys),

    async countByState(states) {
      const counts = await Promise.all(states.map((state) => redis.zcard(keys.state(state))));
      return Object.fromEntries(states.map((state, i) => [state, counts[i] ?? 0]));
    },

    live: (after, limit) =>
      redis.zrange(keys.live, after ? `(${after}` : '-', '+', 'BYLEX', 'LIMIT', 0, limit),

    oldest: (state, limit) => redis.zrange(keys.state(state), '-', '+', 'BYLEX', 'LIMIT', 0, limit),

    async countCreated(spans) {
      const pipeline = redis.pipeline();
      for (const { from, to } of spans)
        for (const state of STATES)
          pipeline.zlexcount(keys.state(state), `[${firstIdAt(from)}`, `(${firstIdAt(to)}`);
      const replies = (await pipeline.exec()) ?? [];
      return spans.map((_, i) =>
        replies.slice(i * STATES.length, (i + 1) * STATES.length).reduce((sum, [error, n]) => {
          if (error) throw error;
          return sum + Number(n);
        }, 0),
      );
    },

    async sweptAt() {
      const at = await redis.get(keys.swept);
      return at === null ? null : Number(at);
    },

    async prune(state, cutoffAt, limit) {
      // Created before the cutoff is what the index can tell; whether it also ended before it, the record says.
      const index = keys.state(state);
      const ids = await redis.zrange(index, '-', `(${firstIdAt(cutoffAt)}`, 'BYLEX', 'LIMIT', 0, limit);
      const rows = await Promise.all(ids.map((id) => redis.hmget(keys.record(id), ...PRUNED_BY)));
      const pruned = await Promise.all(
        ids.map(async (id, i) => {
          const [finishedAt, tenant, taskId, hintedTaskId, otherTaskIds] = rows[i] ?? [];
          if (Number(finishedAt ?? 0) >= cutoffAt) return 0;
          const parts = [
            keys.record(id),
            keys.answers(id),
            keys.notifications(id),
            keys.deadNotifications(id),
          ];
          const indexes = [
            keys.live,
            keys.tasks,
            index,
            keys.tenantState(tenant ?? '', state),
            keys.notificationsOwed,
            keys.notificationsDead,
          ];
          return scripts.reelhaulPrune(
            ...parts,
            ...indexes,
            id,
            state,
            ...taskIdsIn({ taskId, hintedTaskId, otherTaskIds }),
          );
        }),
      );
      return pruned.filter((done) => done === 1).length;
    },
  };
}
