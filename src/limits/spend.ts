/** The spend of a day. The transitions write it (store/submits-lua.ts); here it is only read. */
import type { RedisConnection } from '../redis/connect.js';
import type { InForce } from './settings.js';
import { MILLIONTHS } from '../generation/price.js';

/** Amounts are in the currency of `PRICES`. */
export interface Spent {
  /** Billed, as far as the provider's answers say. */
  readonly charged: number;
  /** May have been billed: submits under way, unconfirmed ones, and failed tasks without a confirmed refund. */
  readonly possible: number;
  /** What may be spent on such a day; null: no budget. */
  readonly budget: number | null;
}

export interface Spend extends Spent {
  /** UTC, `YYYY-MM-DD`. */
  readonly day: string;
  readonly tenants: readonly (Spent & { readonly tenant: string })[];
}

const DAY_MS = 86_400_000;

const keyOf = (prefix: string, dayAt: number) => `${prefix}:spend:${Math.floor(dayAt / DAY_MS)}`;
const amount = (text: string | null | undefined) => Number(text ?? 0) / MILLIONTHS;

/** The sums of a day alone, however many tenants there are: for a caller that asks again and again. */
export async function readSpent(
  redis: RedisConnection,
  prefix: string,
  dayAt: number,
): Promise<Pick<Spent, 'charged' | 'possible'>> {
  const [charged, possible] = await redis.hmget(keyOf(prefix, dayAt), 'charged', 'possible');
  return { charged: amount(charged), possible: amount(possible) };
}

/** Of one day; `tenant` leaves out all others, and then `charged` and `possible` are that tenant's. */
export async function readSpend(
  redis: RedisConnection,
  prefix: string,
  inForce: InForce | null,
  { dayAt, tenant }: { readonly dayAt: number; readonly tenant?: string },
): Promise<Spend> {
  const key = keyOf(prefix, dayAt);
  const day = new Date(dayAt).toISOString().slice(0, 10);
  const budgetOf = (name: string) =>
    inForce?.tenants[name]?.budgetPerDay ?? inForce?.tenantBudgetPerDay ?? null;
  if (tenant !== undefined) {
    const [charged, possible] = await redis.hmget(key, `charged:${tenant}`, `possible:${tenant}`);
    const spent = { charged: amount(charged), possible: amount(possible), budget: budgetOf(tenant) };
    return { day, ...spent, tenants: [{ tenant, ...spent }] };
  }
  const all = await redis.hgetall(key);
  const names = new Set(
    Object.keys(all).flatMap((field) => /^(?:charged|possible):(.*)$/s.exec(field)?.[1] ?? []),
  );
  const tenants = [...names].map((name) => ({
    tenant: name,
    charged: amount(all[`charged:${name}`]),
    possible: amount(all[`possible:${name}`]),
    budget: budgetOf(name),
  }));
  return {
    day,
    charged: amount(all['charged']),
    possible: amount(all['possible']),
    budget: inForce?.budgetPerDay ?? null,
    tenants: tenants.sort((a, b) => b.charged + b.possible - (a.charged + a.possible)),
  };
}
