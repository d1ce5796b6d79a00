/** Limits, alarms and spend for the overview, and the form by which an operator says that key and provider work again. */
import { Hono } from 'hono';
import { html } from 'hono/html';
import type { Hub } from '../../pipeline/context.js';
import type { LimitsOverview, Reelhaul, Spend } from '../../reelhaul.js';
import type { FleetFigures } from '../../telemetry/snapshot.js';
import type { Html } from './layout.js';
import type { View } from './overview-data.js';
import { csrfField, excerpt, instant, table } from './components.js';
import { gauge } from './charts.js';
import { actorOf, HOME, readActorForm, type DashboardEnv, type Visitor } from './identity.js';
import { countText, durationText, moneyText } from './format.js';

/** Tenants shown by name, those that spent most. */
const TENANTS_SHOWN = 5;
/** Longer names are cut in the table; the tooltip shows them in full. */
const TENANT_LENGTH = 40;

export const RESUMED = 'Nothing waits for a probe, a 429 or tomorrow’s budget any longer.';

type BreakerState = LimitsOverview['breaker']['submit'];

const away = ({ openAt, probeAt }: BreakerState, holdMs: number): Html | null => {
  if (openAt !== null)
    return html`<strong class="bad">away</strong>, first seen
      ${instant(openAt)}${probeAt === null ? '' : html`; asked again ${instant(probeAt)}`}`;
  return holdMs === 0
    ? null
    : html`<strong class="bad">held</strong> for ${durationText(holdMs)} after a 429`;
};

function share(value: number, most: number | null, label: string): Html | '' {
  if (most === null || most <= 0) return '';
  return gauge(value, most, label, value >= most ? 'bad' : 'calm');
}

function resumeForm(visitor: Visitor): Html | '' {
  if (!visitor.mayAct) return '';
  return html`<details class="action" id="action-resume" data-keep="resume">
    <summary>
      <span class="title">Go on at once</span> <span class="bill" data-bill="never">Bills nothing more</span>
    </summary>
    <form method="post" action="${HOME}/resume">
      <p>
        Says that key and provider work again. Caps, the call rate and the budget still hold; what is let go
        is billed as it would have been later.
      </p>
      ${csrfField(visitor)}
      <button class="primary">Go on at once</button>
    </form>
  </details>`;
}

/** Workers sweep every `SWEEP_INTERVAL_MS`. When this many sweeps are missed, no worker runs. */
const SWEEPS_MISSED = 5;

/** What is wrong now, at the top of the overview. */
export function alarms(
  { limits, refusals }: Pick<View, 'limits' | 'refusals'>,
  { sweptAt, generations }: FleetFigures,
  { config, now }: Hub,
): Html {
  const { refused, misrouted, breaker, slowedTo, inForce } = limits;
  const open = (['submit', 'poll'] as const).flatMap((call) => {
    const { openAt, probeAt } = breaker[call];
    return openAt === null
      ? []
      : [
          html`The provider is away for ${call}s (first seen
          ${instant(openAt)}${probeAt === null ? '' : html`, asked again ${instant(probeAt)}`}). Nothing is
          lost.`,
        ];
  });
  const silentMs = sweptAt === null ? 0 : now() - sweptAt;
  const working =
    generations.queued + generations.submitting + generations.generating + generations.archiving;
  const bad: Html[] = [
    ...refusals.map((said) => html`${said.replace(/\.$/, '')}. Nothing moves until it takes writes again.`),
    ...(inForce === null ? [html`No worker has started yet: nothing is submitted.`] : []),
    ...(silentMs > SWEEPS_MISSED * config.SWEEP_INTERVAL_MS && working > 0
      ? [
          html`No worker has swept for ${durationText(silentMs)}, and ${countText(working)} generations are
          under way: is a worker running?`,
        ]
      : []),
    ...(refused
      ? [html`The provider refuses our key or its quota. Submitting waits; look at its account.`]
      : []),
    ...(misrouted
      ? [html`Something in front of the API answers in its place. Submitting waits; check COMETAPI_BASE_URL.`]
      : []),
    ...open,
  ];
  return html`<section id="alarms" data-live class="alarms" aria-label="What is wrong">
    ${bad.map((one) => html`<p class="notice bad">${one}</p>`)}
    ${slowedTo === null ? '' : html`<p class="notice warn">The provider answered 429: calls are slowed down to ${slowedTo.toFixed(1)} a second.</p>`}
  </section>`;
}

/** What waits to be submitted, and for what. */
function queuedWords({
  inLine,
  capped,
  tenantsCapped,
  scheduled,
  overBudget,
  chained,
}: LimitsOverview): string {
  const tenants = `${countText(tenantsCapped)} ${tenantsCapped === 1 ? 'tenant' : 'tenants'} at their own cap`;
  const parts = [
    ...(inLine === 0 ? [] : [`${countText(inLine)} next`]),
    ...(capped === 0 ? [] : [`${countText(capped)} of ${tenants}`]),
    ...(scheduled === 0 ? [] : [`${countText(scheduled)} later`]),
    ...(chained === 0 ? [] : [`${countText(chained)} behind another one`]),
    ...(overBudget === 0 ? [] : [`${countText(overBudget)} for tomorrow’s budget`]),
  ];
  return parts.length === 0 ? 'nothing' : parts.join('; ');
}

export function providerCard(limits: LimitsOverview, visitor: Visitor): Html {
  const { inFlight, maxInFlight, overBudget, inForce, refused, misrouted, slowedTo, breaker, holdMs } =
    limits;
  const submits = away(breaker.submit, holdMs.submit);
  const polls = away(breaker.poll, holdMs.poll);
  const held =
    refused || misrouted || slowedTo !== null || submits !== null || polls !== null || overBudget > 0;
  const calls =
    inForce?.rateMax == null
      ? 'no limit is set'
      : `at most ${countText(inForce.rateMax)} in ${durationText(inForce.rateWindowMs)}`;
  const line = queuedWords(limits);
  return html`<section aria-labelledby="provider-title" class="card">
    <h2 id="provider-title">Limits</h2>
    <div id="provider" data-live class="stack">
      <dl class="facts">
        <dt>In flight</dt>
        <dd>
          ${countText(inFlight)}${maxInFlight === null ? ', no cap' : ` of ${countText(maxInFlight)}`}
          ${share(inFlight, maxInFlight, 'In flight against the cap')}
        </dd>
        <dt>In line</dt>
        <dd>${line}</dd>
        <dt>Calls</dt>
        <dd>
          ${calls}${slowedTo === null ? '' : html`; <strong class="bad">slowed down</strong> to ${slowedTo.toFixed(1)} a second after a 429`}
        </dd>
        <dt>Our key</dt>
        <dd>
          ${refused ? html`<strong class="bad">refused</strong>, or its quota is used up; one submit tests it now and then` : 'accepted'}
        </dd>
        ${
          misrouted
            ? html`<dt>Address</dt>
                <dd><strong class="bad">wrong</strong>: something in front of the API answers submits</dd>`
            : ''
        }
        <dt>Submits</dt>
        <dd>${submits ?? 'go through'}</dd>
        <dt>Polls</dt>
        <dd>${polls ?? 'go through'}</dd>
      </dl>
      ${held ? resumeForm(visitor) : ''}
    </div>
  </section>`;
}

export function spendCard({ day, charged, possible, budget, tenants }: Spend): Html {
  const shown = tenants.slice(0, TENANTS_SHOWN);
  const more = tenants.length - shown.length;
  const rows = shown.map(
    (one) =>
      html`<tr>
        <th scope="row" title="${one.tenant}">${excerpt(one.tenant, TENANT_LENGTH)}</th>
        <td>${moneyText(one.charged)}</td>
        <td>${moneyText(one.possible)}</td>
        <td>${one.budget === null ? '–' : moneyText(one.budget)}</td>
      </tr>`,
  );
  return html`<section aria-labelledby="spend-title" class="card">
    <h2 id="spend-title">Spend today (UTC)</h2>
    <div id="spend" data-live class="stack">
      <p>
        <span class="value">${moneyText(charged)}</span> charged, ${moneyText(possible)}
        possible${budget === null ? '' : html`, of ${moneyText(budget)}`}
      </p>
      ${share(charged + possible, budget, 'Spend against the budget of the day')}
      ${
        shown.length === 0
          ? html`<p class="small">
              Nothing on ${day} yet. Amounts come from the price table PRICES; without it nothing is added up.
            </p>`
          : table(['Tenant', 'Charged', 'Possible', 'Budget'], rows)
      }
      ${more > 0 ? html`<p class="small">and ${countText(more)} more tenants</p>` : ''}
    </div>
  </section>`;
}

export function createResumeRoutes({ log }: Hub, reelhaul: Reelhaul): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  routes.post(`${HOME}/resume`, async (c) => {
    await readActorForm(c);
    await reelhaul.resume();
    log.info({ by: actorOf(c) }, 'told to go on at once in the dashboard');
    return c.redirect(`${HOME}?done=resume`, 303);
  });
  return routes;
}
