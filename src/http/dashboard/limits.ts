/** What limits us and what it costs, for the overview; and the operator’s word that key and provider are well again. */
import { Hono } from 'hono';
import { html } from 'hono/html';
import type { Hub } from '../../hub.js';
import type { LimitsOverview, Reelhaul, Spend } from '../../reelhaul.js';
import { atMost } from '../bodies.js';
import type { Html } from './layout.js';
import { instant } from './pieces.js';
import { checkCsrf, HOME, requireActor, type DashboardEnv, type Visitor } from './visitor.js';
import { countText, durationText, moneyText } from './wording.js';

const MAX_FORM_BYTES = 16_384;
/** Tenants shown by name, those that spent most. */
const TENANTS_SHOWN = 5;

export const RESUMED = 'Nobody waits for a probe, a 429 or tomorrow’s budget any longer.';

type BreakerState = LimitsOverview['breaker']['submit'];

const away = ({ openAt, probeAt }: BreakerState, holdMs: number): Html | null => {
  if (openAt !== null)
    return html`<strong class="bad">away</strong> since
      ${instant(openAt)}${probeAt === null ? '' : html`; asked again ${instant(probeAt)}`}`;
  return holdMs === 0
    ? null
    : html`<strong class="bad">held</strong> for ${durationText(holdMs)} after a 429`;
};

function share(value: number, most: number | null, label: string): Html | '' {
  if (most === null || most <= 0) return '';
  return html`<meter
    class="${value >= most ? 'full' : 'part'}"
    min="0"
    max="${most}"
    value="${Math.min(value, most)}"
    aria-label="${label}"
  ></meter>`;
}

function resumeForm({ csrf, mayAct }: Visitor): Html | '' {
  if (!mayAct) return '';
  return html`<details class="action" id="action-resume" data-keep="resume">
    <summary>
      <span class="title">Go on at once</span> <span class="bill" data-bill="never">Bills nothing more</span>
    </summary>
    <form method="post" action="${HOME}/resume">
      <p>
        Says that key and provider are well again. Caps, the call budget and the spend budget go on to hold;
        what is let go is billed as it would have been later.
      </p>
      <input type="hidden" name="csrf" value="${csrf ?? ''}" />
      <button class="primary">Go on at once</button>
    </form>
  </details>`;
}

export function providerCard(limits: LimitsOverview, visitor: Visitor): Html {
  const { inFlight, maxInFlight, inLine, tenantsInLine, tenantsCapped, scheduled, overBudget } = limits;
  const { inForce, refused, slowedTo, breaker, holdMs } = limits;
  const submits = away(breaker.submit, holdMs.submit);
  const polls = away(breaker.poll, holdMs.poll);
  const held = refused || slowedTo !== null || submits !== null || polls !== null || overBudget > 0;
  const calls =
    inForce?.rateMax == null
      ? 'no limit is set'
      : `at most ${countText(inForce.rateMax)} in ${durationText(inForce.rateWindowMs)}`;
  const tenants = tenantsInLine + tenantsCapped;
  const line =
    inLine === 0
      ? 'nobody'
      : `${countText(inLine)} of ${tenants === 1 ? '1 tenant' : `${countText(tenants)} tenants`}`;
  const capped = tenantsCapped === 0 ? '' : `; ${countText(tenantsCapped)} tenants at their own cap`;
  const later =
    scheduled === 0
      ? ''
      : `; ${countText(scheduled)} later${overBudget === 0 ? '' : `, ${countText(overBudget)} of them for tomorrow’s budget`}`;
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
        <dd>${line}${capped}${later}</dd>
        <dt>Calls</dt>
        <dd>
          ${calls}${slowedTo === null ? '' : html`; <strong class="bad">slowed down</strong> to ${slowedTo.toFixed(1)} a second after a 429`}
        </dd>
        <dt>Our key</dt>
        <dd>
          ${refused ? html`<strong class="bad">refused</strong>, or its quota is used up; one submit looks now and then` : 'accepted'}
        </dd>
        <dt>Submits</dt>
        <dd>${submits ?? 'go through'}</dd>
        <dt>Polls</dt>
        <dd>${polls ?? 'go through'}</dd>
      </dl>
      ${inForce === null ? html`<p class="notice bad">No worker has started yet: nobody is let in.</p>` : ''}
      ${held ? resumeForm(visitor) : ''}
    </div>
  </section>`;
}

export function spendCard({ day, charged, possible, budget, tenants }: Spend): Html {
  const shown = tenants.slice(0, TENANTS_SHOWN);
  const more = tenants.length - shown.length;
  const table = html`<table>
    <thead>
      <tr>
        <th scope="col">Tenant</th>
        <th scope="col">Charged</th>
        <th scope="col">Possible</th>
        <th scope="col">Budget</th>
      </tr>
    </thead>
    <tbody>
      ${shown.map(
        (one) =>
          html`<tr>
            <th scope="row">${one.tenant}</th>
            <td>${moneyText(one.charged)}</td>
            <td>${moneyText(one.possible)}</td>
            <td>${one.budget === null ? '–' : moneyText(one.budget)}</td>
          </tr>`,
      )}
    </tbody>
  </table>`;
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
          : table
      }
      ${more > 0 ? html`<p class="small">and ${countText(more)} more tenants</p>` : ''}
    </div>
  </section>`;
}

export function createResumeRoutes({ log }: Hub, reelhaul: Reelhaul): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  routes.post(`${HOME}/resume`, atMost(MAX_FORM_BYTES), async (c) => {
    requireActor(c.var.visitor);
    checkCsrf(c.var.visitor, (await c.req.parseBody())['csrf']);
    await reelhaul.resume();
    log.info({ by: c.var.visitor.name ?? 'this machine' }, 'told to go on at once in the dashboard');
    return c.redirect(`${HOME}?done=resume`, 303);
  });
  return routes;
}
