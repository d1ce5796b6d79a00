/** Limits and spend in plain words, for a terminal. */
import type { LimitsOverview } from '../limits/overview.js';
import type { Spend, Spent } from '../limits/spend.js';

const of = (most: number | null | undefined) => (most === null || most === undefined ? '' : ` of ${most}`);
const seconds = (ms: number) => `${Math.ceil(ms / 1000)} s`;

function describeBreaker(
  call: string,
  { openAt, probes, probeAt }: LimitsOverview['breaker']['submit'],
): string[] {
  if (openAt === null) return [];
  const next = probeAt === null ? '' : `, the next at ${new Date(probeAt).toISOString()}`;
  return [`provider away for ${call}s since ${new Date(openAt).toISOString()}: ${probes} probes${next}`];
}

/** One line for each thing that limits or waits. */
export function describeLimits(limits: LimitsOverview): string {
  const { inFlight, maxInFlight, inLine, scheduled, overBudget, capped, tenantsCapped, inForce } = limits;
  const { chained } = limits;
  const lines = [`in flight    ${inFlight}${of(maxInFlight)}`, `queued       ${inLine} whose time has come`];
  if (capped > 0) lines.push(`capped       ${capped} of ${tenantsCapped} tenants that are at their own cap`);
  if (scheduled > 0) lines.push(`scheduled    ${scheduled}`);
  if (chained > 0) lines.push(`chained      ${chained} wait for another generation to end`);
  if (overBudget > 0) lines.push(`over budget  ${overBudget} wait for the next day`);
  if (inForce === null) lines.push('no worker has started yet: nothing is submitted');
  else if (inForce.rateMax !== null)
    lines.push(`calls        at most ${inForce.rateMax} in ${seconds(inForce.rateWindowMs)}`);
  if (limits.slowedTo !== null)
    lines.push(`slowed down  to ${limits.slowedTo.toFixed(1)} calls a second after a 429`);
  for (const [call, ms] of Object.entries(limits.holdMs))
    if (ms > 0) lines.push(`held         ${call}s, for ${seconds(ms)}: the provider said 429`);
  if (limits.refused)
    lines.push('refused      the provider refuses the key or its quota; one submit tests it now and then');
  if (limits.misrouted)
    lines.push('misrouted    something in front of the API answers submits: check COMETAPI_BASE_URL');
  if (limits.nextPollAt !== null) lines.push(`next poll    at ${new Date(limits.nextPollAt).toISOString()}`);
  for (const call of ['submit', 'poll'] as const) lines.push(...describeBreaker(call, limits.breaker[call]));
  return lines.join('\n');
}

const money = ({ charged, possible, budget }: Spent) =>
  `${charged.toFixed(2)} charged, ${possible.toFixed(2)} possible${budget === null ? '' : `, budget ${budget.toFixed(2)}`}`;

export function describeSpend({ day, tenants, ...all }: Spend): string {
  const rows = tenants.map(({ tenant, ...spent }) => `  ${JSON.stringify(tenant)}  ${money(spent)}`);
  return [`${day} (UTC)  ${money(all)}`, ...rows].join('\n');
}
