/**
 * The limits in force, which each worker writes to Redis when it starts: those of the worker that started last apply. Every
 * decision about a submit reads them in the script that makes it; without them nothing is submitted.
 */
import type { Config } from '../config/config.js';
import type { RedisConnection } from '../redis/connect.js';
import { defineScript } from '../redis/script.js';
import { inMillionths } from '../generation/price.js';
import { QUEUED } from '../store/queued-lua.js';

/** The limits of a tenant; those that are left out are the common ones. */
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

export interface QueuedCounts {
  /** Queued generations whose time has come and that wait for their submit. */
  readonly inLine: number;
  /** Those that wait for their time. */
  readonly scheduled: number;
  /** Those that wait for the next day's budget. */
  readonly overBudget: number;
  /** Those that wait for an asset of another generation. */
  readonly chained: number;
  /** Those whose tenant has as many at the provider as it may have. */
  readonly capped: number;
  readonly tenantsCapped: number;
  /** What lives at the provider, or may. */
  readonly inFlight: number;
  /** Null: no cap. */
  readonly maxInFlight: number | null;
  /** A worker has written the limits. */
  readonly published: boolean;
}

export interface Limits {
  /** @returns true when these differ from the former ones. */
  publish(limits: InForce): Promise<boolean>;
  /** Null before any worker has written them. */
  inForce(): Promise<InForce | null>;
  counts(): Promise<QueuedCounts>;
  /** Takes up to a page of the generations that wait for a budget out of their list: their jobs are to run now. */
  takeOverBudget(): Promise<string[]>;
  /** Generations of tenants at their cap that have room again, up to a page for each tenant. */
  freed(): Promise<string[]>;
}

const PAGE = 500;

/**
 * PUBLISH. KEYS 1 limits
 * ARGV 1 JSON { maxInFlight, tenantMaxInFlight, inForce, budget, tenantBudget, budgeted, tenants, budgets }, all texts
 * Returns 1 when these settings are others than before.
 */
const PUBLISH = `
local c = cjson.decode(ARGV[1])
local before = redis.call('HGET', KEYS[1], 'inForce')
redis.call('HSET', KEYS[1], 'maxInFlight', c.maxInFlight, 'tenantMaxInFlight', c.tenantMaxInFlight, 'inForce', c.inForce,
  'budget', c.budget, 'tenantBudget', c.tenantBudget, 'budgeted', c.budgeted,
  'tenanted', #c.tenants > 0 and '1' or '0')
redis.call('DEL', KEYS[1] .. ':tenants', KEYS[1] .. ':budgets')
for i = 1, #c.tenants, 2 do redis.call('HSET', KEYS[1] .. ':tenants', c.tenants[i], c.tenants[i + 1]) end
for i = 1, #c.budgets, 2 do redis.call('HSET', KEYS[1] .. ':budgets', c.budgets[i], c.budgets[i + 1]) end
return before == c.inForce and 0 or 1
`;

/** COUNTS. KEYS 1 limits · ARGV 1 JSON { prefix } · Returns JSON: the QueuedCounts. */
const COUNTS = `${QUEUED}
local p, now, capped = cjson.decode(ARGV[1]).prefix, now_ms(), 0
local tenants = redis.call('SMEMBERS', p .. ':parked')
for _, tenant in ipairs(tenants) do capped = capped + redis.call('ZCARD', p .. ':parked:' .. tenant) end
local queued, scheduled = redis.call('ZCARD', p .. ':state:queued'), redis.call('ZCOUNT', p .. ':scheduled', '(' .. now, '+inf')
local over_budget, chained = redis.call('ZCARD', p .. ':over-budget'), redis.call('ZCARD', p .. ':chained')
local most = redis.call('HGET', KEYS[1], 'maxInFlight')
return cjson.encode({
  inLine = math.max(0, queued - scheduled - over_budget - capped - chained),
  scheduled = scheduled, overBudget = over_budget, chained = chained, capped = capped, tenantsCapped = #tenants,
  inFlight = redis.call('ZCOUNT', p .. ':in-flight', '(' .. now, '+inf'),
  maxInFlight = tonumber(most or 0) > 0 and tonumber(most) or cjson.null,
  published = most and true or false,
})
`;

/** TAKE. KEYS 1 over budget · ARGV 1 JSON { most } · Returns their ids. */
const TAKE = `
local ids = redis.call('ZRANGE', KEYS[1], 0, cjson.decode(ARGV[1]).most - 1)
if #ids > 0 then redis.call('ZREM', KEYS[1], unpack(ids)) end
return ids
`;

/** FREED. KEYS 1 tenants with parked generations · ARGV 1 JSON { prefix } · Returns the ids that may go on. */
const FREED = `${QUEUED}
local p, freed = cjson.decode(ARGV[1]).prefix, {}
for _, tenant in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', p .. ':parked:' .. tenant) == 0 then redis.call('SREM', KEYS[1], tenant) end
  for _, id in ipairs(queue_unpark(p, tenant, now_ms())) do freed[#freed + 1] = id end
end
return freed
`;

/** What this configuration says. */
export const limitsOf = (config: Config): InForce => ({
  maxInFlight: config.MAX_IN_FLIGHT,
  tenantMaxInFlight: config.MAX_IN_FLIGHT_PER_TENANT,
  rateMax: config.PROVIDER_RATE_MAX,
  rateWindowMs: config.PROVIDER_RATE_WINDOW_MS,
  budgetPerDay: config.BUDGET_PER_DAY,
  tenantBudgetPerDay: config.BUDGET_PER_TENANT_PER_DAY,
  tenants: config.TENANTS,
});

/** Is any budget set for this tenant in this process? */
export function hasBudget(config: Config, tenant: string): boolean {
  const own = Object.hasOwn(config.TENANTS, tenant) ? config.TENANTS[tenant]?.budgetPerDay : undefined;
  return config.BUDGET_PER_DAY !== null || (own ?? config.BUDGET_PER_TENANT_PER_DAY) !== null;
}

/** Amounts in millionths, as texts; '' is no budget. */
function publishArguments(limits: InForce) {
  const { maxInFlight, tenantMaxInFlight, budgetPerDay, tenantBudgetPerDay } = limits;
  const tenants = Object.entries(limits.tenants);
  const amount = (budget: number | null | undefined) => String(inMillionths(budget ?? null) ?? '');
  const budgets = tenants.flatMap(([tenant, own]) =>
    own.budgetPerDay === undefined ? [] : [tenant, amount(own.budgetPerDay)],
  );
  return {
    maxInFlight: String(maxInFlight ?? 0),
    tenantMaxInFlight: String(tenantMaxInFlight ?? 0),
    inForce: JSON.stringify(limits),
    budget: amount(budgetPerDay),
    tenantBudget: amount(tenantBudgetPerDay),
    budgeted: budgetPerDay !== null || tenantBudgetPerDay !== null || budgets.length > 0 ? '1' : '0',
    tenants: tenants.flatMap(([tenant, own]) => [tenant, `${own.weight ?? 1} ${own.maxInFlight ?? '-'}`]),
    budgets,
  };
}

export function createLimits(redis: RedisConnection, prefix: string): Limits {
  const publish = defineScript<number>(redis, 'reelhaulPublish', PUBLISH);
  const count = defineScript<string>(redis, 'reelhaulQueuedCounts', COUNTS);
  const takeOverBudget = defineScript<string[]>(redis, 'reelhaulTakeOverBudget', TAKE);
  const freed = defineScript<string[]>(redis, 'reelhaulFreed', FREED);
  const key = `${prefix}:limits`;

  return {
    publish: async (limits) => (await publish([key], publishArguments(limits))) === 1,

    async inForce() {
      const text = await redis.hget(key, 'inForce');
      return text === null ? null : (JSON.parse(text) as InForce);
    },

    counts: async () => JSON.parse(await count([key], { prefix })) as QueuedCounts,

    takeOverBudget: () => takeOverBudget([`${prefix}:over-budget`], { most: PAGE }),
    freed: () => freed([`${prefix}:parked`], { prefix }),
  };
}
