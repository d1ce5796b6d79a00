/** What was spent on a day, as the transitions wrote it (spend-script.ts): read, never added up again. */
import type { RedisConnection } from '../redis/connect.js';
import type { InForce } from './line.js';
import { MILLIONTHS } from '../generation/price.js';

/** Amounts are in the currency of `PRICES`. */
export interface Spent {
  /** Billed, as far as the provider's answers say. */
  readonly charged: number;
  /** May have been billed: submits under way, unconfirmed ones, and failed tasks whose refund nobody confirmed. */
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

/** The sums of a day over all shards alone, however many tenants there are: for whoever asks again and again. */
export async function readSpent(
  redis: RedisConnection,
  prefixes: readonly string[],
  dayAt: number,
): Promise<Pick<Spent, 'charged' | 'possible'>> {
  const parts = await Promise.all(
    prefixes.map((prefix) => redis.hmget(keyOf(prefix, dayAt), 'charged', 'possible')),
  );
  const sum = (of: 0 | 1) => parts.reduce((total, part) => total + Number(part[of] ?? 0), 0) / MILLIONTHS;
  return { charged: sum(0), possible: sum(1) };
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

/** The same day in several shards, as one. */
export function addSpend(parts: readonly Spend[]): Spend {
  const [first] = parts;
  if (!first || parts.length === 1)
    return first ?? { day: '', charged: 0, possible: 0, budget: null, tenants: [] };
  const exact = (amount: number) => Math.round(amount * MILLIONTHS) / MILLIONTHS;
  const add = <T extends Spent>(a: T, b: Spent): T => ({
    ...a,
    charged: exact(a.charged + b.charged),
    possible: exact(a.possible + b.possible),
  });
  const tenants = new Map<string, Spend['tenants'][number]>();
  for (const one of parts.flatMap((part) => part.tenants)) {
    const before = tenants.get(one.tenant);
    tenants.set(one.tenant, before ? add(before, one) : one);
  }
  const whole = parts.slice(1).reduce((sum, part) => add(sum, part), first);
  const most = [...tenants.values()].sort((a, b) => b.charged + b.possible - (a.charged + a.possible));
  return { ...whole, tenants: most };
}
