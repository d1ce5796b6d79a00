/**
 * The waiting line in front of the submit stage: who of all the queued generations is next. It promises:
 *
 * - tenants take turns by weight, whatever the size of their backlogs; a newcomer waits for a handful of submits;
 * - within a tenant a lower priority number goes first, and every tenth turn goes to the oldest, so that nobody starves;
 * - never more than `maxInFlight` generations live at the provider, over all replicas, and per tenant as configured. What
 *   counts is read from the very indexes that the transitions write, so that a crash can neither leak a slot nor free one;
 * - without the limits in Redis nobody is let in: they never fail open.
 *
 * Time is that of the Redis server: a worker whose clock jumps changes nothing here. All is O(log n) per generation.
 */
import type { RedisConnection } from '../redis/connect.js';
import { PROBE_WAIT } from './breaker.js';
import { LINE } from '../store/line-script.js';
import { inMillionths } from '../generation/price.js';

/** Jobs that wait for a worker: enough to keep all busy, and few enough that a newcomer is never far behind them. */
const WINDOW = 8;
/** With those that have begun, and wait for their call of the budget. More would keep a newcomer waiting behind them. */
const AHEAD = 16;
/** Given a job so long ago and not begun: the job may be lost, so it is added again (which does nothing if it is not). */
const RECALL_MS = 2000;
/** … and then only so often: who waits for a call of the budget has its job, and may do so for long. */
const RECALL_AGAIN_MS = 30_000;
/** So many of the tenants that wait for a slot of their own are looked at in one go. */
const CAPPED_LOOK = 20;
/** Every so-manieth turn of a tenant goes to its oldest, whatever the priorities. */
const AGING_TURN = 10;
/** When nothing else is due, the line is looked at this often. */
const LOOK_MS = 1000;
const PAGE = 200;

/** Counts what lives at the provider. `taken` have a job, and may be there any moment. */
const SLOTS = `
local function in_flight(p, now)
  return redis.call('ZCARD', p .. ':ready') + redis.call('ZCARD', p .. ':starting')
    + redis.call('ZCARD', p .. ':state:submitting') + redis.call('ZCARD', p .. ':state:generating')
    + redis.call('ZCOUNT', p .. ':lingering', '(' .. now, '+inf')
end

local function tenant_in_flight(p, tenant, now)
  local lingering = p .. ':lingering:' .. tenant
  redis.call('ZREMRANGEBYSCORE', lingering, '-inf', now)
  local state = p .. ':tenant:' .. tenant .. ':'
  return redis.call('SCARD', p .. ':taken:' .. tenant) + redis.call('ZCARD', lingering)
    + redis.call('ZCARD', state .. 'submitting') + redis.call('ZCARD', state .. 'generating')
end

local function tenant_limits(p, tenant, most)
  local own = redis.call('HGET', p .. ':limits:tenants', tenant)
  if not own then return 1, most end
  local weight, cap = string.match(own, '^(%S+) (%S+)$')
  if cap == '-' then cap = most end
  return tonumber(weight), tonumber(cap)
end
`;

/**
 * LET_IN. Gives a job to whoever is next, as far as the limits allow.
 * KEYS 1 the limits in force
 * ARGV 1 prefix · 2 tenant that freed a slot, or '' · 3 '1' to look at those that wait for one
 * Returns false when no limits are there; else { ms until something is due by itself, id, id, … }: these need their job.
 */
const LET_IN = `${LINE}${SLOTS}
local p = ARGV[1]
local window, most, tenant_most = unpack(redis.call('HMGET', KEYS[1], 'window', 'maxInFlight', 'tenantMaxInFlight'))
if not window then return false end
most, tenant_most = tonumber(most), tonumber(tenant_most)
local now = now_ms()
local due_ms = ${LOOK_MS}
local jobs = {}
local function clock() return tonumber(redis.call('GET', p .. ':line-clock') or '0') end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. ':scheduled', '-inf', now, 'LIMIT', 0, ${PAGE})) do
  redis.call('ZREM', p .. ':scheduled', id)
  redis.call('ZREM', p .. ':over-budget', id)
  local state, tenant, priority = unpack(redis.call('HMGET', p .. ':g:' .. id, 'state', 'tenant', 'priority'))
  if state == 'queued' then line_join(p, id, tenant, priority or '0') end
end
local first = redis.call('ZRANGE', p .. ':scheduled', 0, 0, 'WITHSCORES')
if first[2] then due_ms = math.min(due_ms, math.max(1, tonumber(first[2]) - now)) end

for _, set in ipairs({ ':ready', ':starting' }) do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. set, '-inf', now - ${RECALL_MS}, 'LIMIT', 0, ${PAGE})) do
    local state, tenant = unpack(redis.call('HMGET', p .. ':g:' .. id, 'state', 'tenant'))
    if state == 'queued' then
      redis.call('ZADD', p .. set, now + ${RECALL_AGAIN_MS - RECALL_MS}, id)
      jobs[#jobs + 1] = id
    else
      -- Moved on by a process of an older version, or forgotten.
      redis.call('ZREM', p .. set, id)
      if tenant then redis.call('SREM', p .. ':taken:' .. tenant, id) end
    end
  end
end

local waiting, from = {}, nil
if ARGV[3] == '1' then
  -- What a crash kept from being told. One part after the other, so that everybody's turn to be looked at comes.
  from = tonumber(redis.call('GET', p .. ':capped-look') or '0')
  if from >= redis.call('ZCARD', p .. ':capped') then from = 0 end
  waiting = redis.call('ZRANGE', p .. ':capped', from, from + ${CAPPED_LOOK - 1})
  from = from + #waiting
elseif ARGV[2] ~= '' then waiting = { ARGV[2] } end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', p .. ':lingering', '-inf', now, 'LIMIT', 0, ${PAGE})) do
  redis.call('ZREM', p .. ':lingering', name)
  waiting[#waiting + 1] = redis.call('HGET', p .. ':g:' .. string.match(name, '^[^/]*'), 'tenant') or nil
end
if redis.call('EXISTS', p .. ':line', p .. ':capped') > 0 then
  local freed = redis.call('ZRANGE', p .. ':lingering', 0, 0, 'WITHSCORES')
  if freed[2] then due_ms = math.min(due_ms, math.max(1, tonumber(freed[2]) - now)) end
end
for _, tenant in ipairs(waiting) do
  local turn = redis.call('ZSCORE', p .. ':capped', tenant)
  local _, cap = tenant_limits(p, tenant, tenant_most)
  if turn and (cap == 0 or tenant_in_flight(p, tenant, now) < cap) then
    redis.call('ZREM', p .. ':capped', tenant)
    -- It could have no turns meanwhile, and is owed none.
    redis.call('ZADD', p .. ':line', math.max(tonumber(turn), clock()), tenant)
    if from then from = from - 1 end
  end
end
if from then redis.call('SET', p .. ':capped-look', from) end

local ready = redis.call('ZCARD', p .. ':ready')
local room = math.min(tonumber(window) - ready, ${AHEAD} - ready - redis.call('ZCARD', p .. ':starting'))
if room > 0 and most > 0 then room = math.min(room, most - in_flight(p, now)) end
for _ = 1, ${PAGE} do
  if room <= 0 then break end
  local tenant, turn = unpack(redis.call('ZRANGE', p .. ':line', 0, 0, 'WITHSCORES'))
  if not tenant then break end
  turn = tonumber(turn)
  local weight, cap = tenant_limits(p, tenant, tenant_most)
  local own = p .. ':line:' .. tenant
  if cap > 0 and tenant_in_flight(p, tenant, now) >= cap then
    redis.call('ZREM', p .. ':line', tenant)
    redis.call('ZADD', p .. ':capped', turn, tenant)
  else
    local id = redis.call('ZRANGE', own, 0, 0)[1]
    local aging = p .. ':aging:' .. tenant
    if id and redis.call('EXISTS', aging) == 1
      and redis.call('HINCRBY', p .. ':line-turns', tenant, 1) % ${AGING_TURN} == 0 then
      local oldest = redis.call('ZRANGE', aging, 0, 0)[1]
      if oldest and (oldest < id or tonumber(redis.call('ZSCORE', own, id)) > 0) then id = oldest end
    end
    if id then
      redis.call('ZREM', own, id)
      redis.call('ZREM', aging, id)
      redis.call('ZADD', p .. ':ready', now, id)
      redis.call('SADD', p .. ':taken:' .. tenant, id)
      jobs[#jobs + 1] = id
      room = room - 1
      redis.call('SET', p .. ':line-clock', string.format('%.17g', turn))
      turn = turn + 1 / weight
    end
    if redis.call('EXISTS', own) == 1 then
      redis.call('ZADD', p .. ':line', turn, tenant)
    else
      redis.call('ZREM', p .. ':line', tenant)
      redis.call('HDEL', p .. ':line-turns', tenant)
      redis.call('ZREMRANGEBYSCORE', p .. ':rested', '-inf', clock())
      if id then redis.call('ZADD', p .. ':rested', turn, tenant) end
    end
  end
end
table.insert(jobs, 1, tostring(math.ceil(due_ms)))
return jobs
`;

/**
 * BEGIN. May this generation be submitted now?
 * KEYS 1 hold · 2 refused · 3 probe of refused, which holds the id of the one that looks · 4 breaker of submits · 5 limits
 * ARGV 1 prefix · 2 id · 3 tenant · 4 priority · 5 ms between probes of a refused key · 6 longest ms between probes of an
 *      outage
 * Returns { 'go', budgeted }, { 'probe', budgeted } (while the provider is away), { 'line' } when it had no turn yet, or has
 * it no more, and stands in line now, or { 'wait', ms, why }. budgeted: '1' when there is any budget, '0' when none, '' when
 * nobody said.
 */
const BEGIN = `${LINE}${SLOTS}${PROBE_WAIT}
local p, id, tenant, priority = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = now_ms()
local ready = redis.call('ZSCORE', p .. ':ready', id)
if not ready and not redis.call('ZSCORE', p .. ':starting', id) then
  -- A job of an older version, or of before Redis forgot something.
  if not redis.call('ZSCORE', p .. ':line:' .. tenant, id) and not redis.call('ZSCORE', p .. ':scheduled', id) then
    line_join(p, id, tenant, priority)
  end
  return { 'line' }
end
-- It counts already: there are too many only if the limits were lowered since its turn, or a task came to light.
local most, tenant_most, budgeted = unpack(redis.call('HMGET', KEYS[5], 'maxInFlight', 'tenantMaxInFlight', 'budgeted'))
local _, cap = tenant_limits(p, tenant, tonumber(tenant_most or 0))
most = tonumber(most or 0)
if (most > 0 and in_flight(p, now) > most) or (cap > 0 and tenant_in_flight(p, tenant, now) > cap) then
  line_leave(p, id, tenant)
  line_join(p, id, tenant, priority)
  return { 'line' }
end
local function wait(ms, why)
  redis.call('ZREM', p .. ':starting', id)
  redis.call('ZADD', p .. ':ready', now + ms, id)
  return { 'wait', tostring(ms), why }
end
local hold = redis.call('PTTL', KEYS[1])
if hold > 0 then return wait(hold, 'told to slow down') end
if redis.call('EXISTS', KEYS[2]) == 1 and redis.call('GET', KEYS[3]) ~= id
  and not redis.call('SET', KEYS[3], id, 'PX', ARGV[5], 'NX') then
  return wait(math.max(1, redis.call('PTTL', KEYS[3])), 'refused')
end
local said = 'go'
local open_at, probes, probe_at = unpack(redis.call('HMGET', KEYS[4], 'openAt', 'probes', 'probeAt'))
if open_at then
  local probe_ms = probe_wait(tonumber(probe_at), now, tonumber(ARGV[6]))
  if probe_ms > 0 then return wait(probe_ms, 'provider away') end
  redis.call('HSET', KEYS[4], 'probes', probes + 1, 'probeAt', now + math.min(tonumber(ARGV[6]), 1000 * 2 ^ math.min(tonumber(probes), 20)))
  said = 'probe'
end
redis.call('ZREM', p .. ':ready', id)
redis.call('ZADD', p .. ':starting', now, id)
return { said, budgeted or '' }
`;

/**
 * JOIN. For a queued generation that is in none of its places, which only a Redis that forgot something leaves behind.
 * KEYS 1 record · ARGV 1 prefix · 2 id · 3 tenant
 * Returns 1 when it was put into its place.
 */
const JOIN = `${LINE}
local p, id, tenant = ARGV[1], ARGV[2], ARGV[3]
local state, priority, run_at = unpack(redis.call('HMGET', KEYS[1], 'state', 'priority', 'runAt'))
if state ~= 'queued' then return 0 end
for _, set in ipairs({ ':ready', ':starting', ':scheduled', ':line:' .. tenant }) do
  if redis.call('ZSCORE', p .. set, id) then return 0 end
end
line_enter(p, id, tenant, priority or '0', run_at or '0', now_ms())
return 1
`;

/**
 * PUT_OFF. Until the next day (UTC), or until its deadline, whichever is first. By the clock of its worker the deadline may
 * still be ahead when by that of Redis it is not: then in a while.
 * KEYS 1 record · ARGV 1 prefix · 2 id · 3 tenant · 4 deadline, epoch ms, or ''
 */
const PUT_OFF = `${LINE}
local p, id, tenant = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', KEYS[1], 'state') ~= 'queued' then return 0 end
line_leave(p, id, tenant)
local next_day = (math.floor(now_ms() / 86400000) + 1) * 86400000
local until_at = ARGV[4] ~= '' and math.min(next_day, ARGV[4]) or next_day
redis.call('ZADD', p .. ':scheduled', math.max(until_at, now_ms() + ${LOOK_MS}), id)
redis.call('ZADD', p .. ':over-budget', 0, id)
return 1
`;

/** WAKE. Everybody who waits for a new budget, due now. KEYS 1 over budget · 2 scheduled · Returns how many, up to a page. */
const WAKE = `
local ids = redis.call('ZRANGE', KEYS[1], 0, ${PAGE - 1})
for _, id in ipairs(ids) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('ZADD', KEYS[2], 'XX', 0, id)
end
return #ids
`;

/**
 * LOOK. KEYS 1 the limits in force · ARGV 1 prefix
 * Returns queued, scheduled, of those due, ready, starting, waiting for a budget, in flight, most in flight or '' when no
 * limits are there, tenants in line, tenants at their cap.
 */
const LOOK = `${LINE}${SLOTS}
local p, now = ARGV[1], now_ms()
return {
  redis.call('ZCARD', p .. ':state:queued'), redis.call('ZCARD', p .. ':scheduled'),
  redis.call('ZCOUNT', p .. ':scheduled', '-inf', now), redis.call('ZCARD', p .. ':ready'),
  redis.call('ZCARD', p .. ':starting'), redis.call('ZCARD', p .. ':over-budget'), in_flight(p, now),
  redis.call('HGET', KEYS[1], 'maxInFlight') or '', redis.call('ZCARD', p .. ':line'), redis.call('ZCARD', p .. ':capped'),
}
`;

/**
 * PUBLISH. Whoever waits for a slot of its own is looked at anew when they are others.
 * KEYS 1 limits · 2 limits of tenants · 3 capped · 4 line · 5 its clock · 6 budgets of tenants
 * ARGV 1 window · 2 most · 3 most per tenant · 4 all settings as JSON · 5 most to spend a day, in millionths, or '' · 6 the
 *      same per tenant · 7 '1' when there is any budget, else '0' · tenant, limits, budget or '' …
 * Returns 1 when these settings are others than before.
 */
const PUBLISH = `
local before = redis.call('HGET', KEYS[1], 'inForce')
redis.call('HSET', KEYS[1], 'window', ARGV[1], 'maxInFlight', ARGV[2], 'tenantMaxInFlight', ARGV[3], 'inForce', ARGV[4],
  'budget', ARGV[5], 'tenantBudget', ARGV[6], 'budgeted', ARGV[7])
redis.call('DEL', KEYS[2], KEYS[6])
for i = 8, #ARGV, 3 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  if ARGV[i + 2] ~= '' then redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 2]) end
end
if before == ARGV[4] then return 0 end
local clock = tonumber(redis.call('GET', KEYS[5]) or '0')
local capped = redis.call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
for i = 1, #capped, 2 do
  redis.call('ZADD', KEYS[4], string.format('%.17g', math.max(tonumber(capped[i + 1]), clock)), capped[i])
end
redis.call('DEL', KEYS[3])
return 1
`;

/** What a tenant may do; what is left out is as for everybody. */
export interface TenantLimits {
  /** Its share of the turns; default 1. */
  readonly weight?: number | undefined;
  readonly maxInFlight?: number | undefined;
  readonly budgetPerDay?: number | undefined;
}

/** The limits of all workers, as the one that started last has them. Null: no limit. */
export interface InForce {
  /** Generations at the provider at once, over all replicas. */
  readonly maxInFlight: number | null;
  readonly tenantMaxInFlight: number | null;
  /** Calls of the provider per window, submits and polls together. */
  readonly rateMax: number | null;
  readonly rateWindowMs: number;
  /** In the currency of the price table, per day (UTC). */
  readonly budgetPerDay: number | null;
  readonly tenantBudgetPerDay: number | null;
  readonly tenants: Readonly<Record<string, TenantLimits>>;
}

export type Turn =
  /**
   * `probe`: the provider seems to be away, and this one is to find out. `budgeted`: some budget is in force; null when
   * Redis does not know.
   */
  | { readonly kind: 'go'; readonly probe: boolean; readonly budgeted: boolean | null }
  /** It stands in line, perhaps again since there is no room for it any more, and gets a job in its turn. */
  | { readonly kind: 'inLine' }
  | { readonly kind: 'wait'; readonly waitMs: number; readonly why: string };

export interface LineCounts {
  /** Queued generations that have no job yet, and whose time has come. */
  readonly inLine: number;
  /** Those that wait for their time; among them those that wait for the next day's budget. */
  readonly scheduled: number;
  readonly overBudget: number;
  /** Those that have a job. */
  readonly ready: number;
  /** What lives at the provider, or may, or is about to. */
  readonly inFlight: number;
  /** Null: no cap. */
  readonly maxInFlight: number | null;
  /** A worker has written the limits. */
  readonly published: boolean;
  readonly tenantsInLine: number;
  /** Tenants that wait for a slot of their own. */
  readonly tenantsCapped: number;
}

export interface LetIn {
  /** They need their submit job; some may have it already. */
  readonly generationIds: readonly string[];
  /** Look again at the latest after so many milliseconds. */
  readonly dueMs: number;
}

export interface Line {
  /** Writes the limits for all processes; the last worker that starts is right. Who waits for a budget tries again. */
  publish(limits: InForce): Promise<void>;
  /** Null before any worker has written them. */
  inForce(): Promise<InForce | null>;
  /**
   * Whoever is next. `freed`: the tenant that freed a slot; 'all' looks at every tenant that waits for one.
   * @returns null when no worker has published the limits yet.
   */
  letIn(freed: { readonly tenant: string } | 'all' | null): Promise<LetIn | null>;
  /** Asked by the submit stage before it does anything, and again when it had to wait in between. */
  begin(generation: {
    readonly id: string;
    readonly tenant: string;
    readonly priority: number;
  }): Promise<Turn>;
  /** Puts queued generations into the line that are nowhere. @returns how many there were. */
  rejoin(generations: readonly { readonly id: string; readonly tenant: string }[]): Promise<number>;
  /** The budget has no room for it: it waits for the next day, or for its deadline (epoch ms). */
  putOff(
    generation: { readonly id: string; readonly tenant: string },
    deadlineAt: number | null,
  ): Promise<void>;
  /** Everybody who waits for the next day tries again now: the budget was raised. @returns how many. */
  wakeOverBudget(): Promise<number>;
  counts(): Promise<LineCounts>;
  /** Those that have a submit job which has not begun. */
  ready(): Promise<string[]>;
}

export interface LineDeps {
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly refusedProbeMs: number;
  readonly breakerProbeMs: number;
}

interface Scripts {
  reelhaulLetIn(...args: (string | number)[]): Promise<[string, ...string[]] | null>;
  reelhaulBegin(...args: (string | number)[]): Promise<[string, string?, string?]>;
  reelhaulRejoin(...args: (string | number)[]): Promise<number>;
  reelhaulLookAtLine(...args: (string | number)[]): Promise<(string | number)[]>;
  reelhaulPutOff(...args: (string | number)[]): Promise<number>;
  reelhaulWake(...args: (string | number)[]): Promise<number>;
  reelhaulPublish(...args: (string | number)[]): Promise<number>;
}

export function createLine({ redis, prefix, refusedProbeMs, breakerProbeMs }: LineDeps): Line {
  redis.defineCommand('reelhaulLetIn', { lua: LET_IN, numberOfKeys: 1 });
  redis.defineCommand('reelhaulBegin', { lua: BEGIN, numberOfKeys: 5 });
  redis.defineCommand('reelhaulRejoin', { lua: JOIN, numberOfKeys: 1 });
  redis.defineCommand('reelhaulLookAtLine', { lua: LOOK, numberOfKeys: 1 });
  redis.defineCommand('reelhaulPutOff', { lua: PUT_OFF, numberOfKeys: 1 });
  redis.defineCommand('reelhaulWake', { lua: WAKE, numberOfKeys: 2 });
  redis.defineCommand('reelhaulPublish', { lua: PUBLISH, numberOfKeys: 6 });
  const scripts = redis as unknown as Scripts;
  const limitsKey = `${prefix}:limits`;

  async function wakeOverBudget(): Promise<number> {
    for (let woken = 0; ;) {
      const n = await scripts.reelhaulWake(`${prefix}:over-budget`, `${prefix}:scheduled`);
      woken += n;
      if (n < PAGE) return woken;
    }
  }

  return {
    wakeOverBudget,

    async inForce() {
      const text = await redis.hget(limitsKey, 'inForce');
      return text === null ? null : (JSON.parse(text) as InForce);
    },

    async publish(limits) {
      const { maxInFlight, tenantMaxInFlight, budgetPerDay, tenantBudgetPerDay, tenants } = limits;
      const own = Object.entries(tenants).flatMap(([tenant, limits]) => [
        tenant,
        `${limits.weight ?? 1} ${limits.maxInFlight ?? '-'}`,
        inMillionths(limits.budgetPerDay ?? null) ?? '',
      ]);
      const budgets = [
        budgetPerDay,
        tenantBudgetPerDay,
        ...Object.values(tenants).map((t) => t.budgetPerDay),
      ];
      const budgeted = budgets.some((budget) => budget !== null && budget !== undefined);
      const changed = await scripts.reelhaulPublish(
        limitsKey,
        `${limitsKey}:tenants`,
        `${prefix}:capped`,
        `${prefix}:line`,
        `${prefix}:line-clock`,
        `${limitsKey}:budgets`,
        WINDOW,
        maxInFlight ?? 0,
        tenantMaxInFlight ?? 0,
        JSON.stringify(limits),
        inMillionths(budgetPerDay) ?? '',
        inMillionths(tenantBudgetPerDay) ?? '',
        budgeted ? '1' : '0',
        ...own,
      );
      if (changed === 1) await wakeOverBudget();
    },

    async letIn(freed) {
      const said = await scripts.reelhaulLetIn(
        limitsKey,
        prefix,
        freed === null || freed === 'all' ? '' : freed.tenant,
        freed === 'all' ? '1' : '',
      );
      if (said === null) return null;
      const [dueMs, ...generationIds] = said;
      return { generationIds, dueMs: Number(dueMs) };
    },

    async begin({ id, tenant, priority }) {
      const standing = `${prefix}:standing`;
      const [kind, said, why] = await scripts.reelhaulBegin(
        `${standing}:hold:submit`,
        `${standing}:refused`,
        `${standing}:probe`,
        `${prefix}:breaker:submit`,
        limitsKey,
        prefix,
        id,
        tenant,
        priority,
        refusedProbeMs,
        breakerProbeMs,
      );
      if (kind === 'line') return { kind: 'inLine' };
      if (kind === 'wait') return { kind, waitMs: Number(said), why: why ?? '' };
      return { kind: 'go', probe: kind === 'probe', budgeted: said ? said === '1' : null };
    },

    async rejoin(generations) {
      const joined = await Promise.all(
        generations.map(({ id, tenant }) => scripts.reelhaulRejoin(`${prefix}:g:${id}`, prefix, id, tenant)),
      );
      return joined.filter((n) => n === 1).length;
    },

    async putOff({ id, tenant }, deadlineAt) {
      await scripts.reelhaulPutOff(`${prefix}:g:${id}`, prefix, id, tenant, deadlineAt ?? '');
    },

    async counts() {
      const [
        queued,
        scheduled,
        due,
        ready,
        starting,
        overBudget,
        inFlight,
        most,
        tenantsInLine,
        tenantsCapped,
      ] = await scripts.reelhaulLookAtLine(limitsKey, prefix);
      const [taken, later] = [Number(ready) + Number(starting), Number(scheduled) - Number(due)];
      return {
        inLine: Math.max(0, Number(queued) - later - taken),
        scheduled: later,
        overBudget: Number(overBudget),
        ready: taken,
        inFlight: Number(inFlight),
        maxInFlight: Number(most) > 0 ? Number(most) : null,
        published: most !== '',
        tenantsInLine: Number(tenantsInLine),
        tenantsCapped: Number(tenantsCapped),
      };
    },

    ready: () => redis.zrange(`${prefix}:ready`, '0', '-1'),
  };
}
