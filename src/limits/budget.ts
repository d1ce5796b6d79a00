/** What may be spent on one day (UTC), for all and for one tenant, as configured. */
import type { Config } from '../config/config.js';
import type { Budget } from '../generation/change.js';
import { inMillionths } from '../generation/price.js';

/** In millionths; null: whatever it takes. */
export function budgetOf(
  {
    BUDGET_PER_DAY,
    BUDGET_PER_TENANT_PER_DAY,
    TENANTS,
  }: Pick<Config, 'BUDGET_PER_DAY' | 'BUDGET_PER_TENANT_PER_DAY' | 'TENANTS'>,
  tenant: string,
): Budget {
  const own = Object.hasOwn(TENANTS, tenant) ? TENANTS[tenant]?.budgetPerDay : undefined;
  return {
    day: inMillionths(BUDGET_PER_DAY),
    tenantDay: inMillionths(own ?? BUDGET_PER_TENANT_PER_DAY),
  };
}

export const hasBudget = ({ day, tenantDay }: Budget): boolean => day !== null || tenantDay !== null;
