/** `/dashboard`: the fleet at a glance: how much goes through, where the time goes, what waits and what is wrong. */
import { Hono } from 'hono';
import { html } from 'hono/html';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Fleet } from '../../telemetry/snapshot.js';
import type { Span } from '../../telemetry/time-series.js';
import type { Health } from '../../telemetry/health.js';
import { layout } from './layout.js';
import { alarms, providerCard, RESUMED, spendCard } from './limits.js';
import { clocks, everywhere, failures, newest, stages, throughput, tiles } from './overview-cards.js';
import { look, type View } from './overview-data.js';
import { notice } from './components.js';
import { HOME, type DashboardEnv } from './identity.js';

const GOOD_FOR_MS = 1000;

export function createOverviewRoutes(
  hub: Hub,
  reelhaul: Reelhaul,
  fleet: Fleet,
  health: Pick<Health, 'refusals'>,
): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  // All visitors share one view for a second.
  const views = new Map<Span, { readonly at: number; readonly view: Promise<View> }>();
  const viewOf = (span: Span): Promise<View> => {
    const known = views.get(span);
    if (known && hub.now() - known.at < GOOD_FOR_MS) return known.view;
    const view = look(hub, reelhaul, health, span);
    views.set(span, { at: hub.now(), view });
    view.catch(() => views.delete(span));
    return view;
  };

  routes.get(HOME, async (c) => {
    const span: Span = c.req.query('span') === 'day' ? 'hour' : 'minute';
    const view = await viewOf(span);
    const figures = await fleet.read();
    const body =
      figures === null
        ? html`<h1>Overview</h1>
            <p class="notice bad" role="alert">Redis does not answer in time just now.</p>`
        : html`<h1>Overview</h1>
            ${c.req.query('done') === 'resume' ? notice('good', RESUMED) : ''} ${alarms(view, figures, hub)}
            ${tiles(view, figures, span, hub.now())}
            <div class="cards">
              ${throughput(view, span)} ${clocks(view, span)} ${providerCard(view.limits, c.var.visitor)}
              ${spendCard(view.spend)} ${stages(figures)} ${everywhere(figures)} ${failures(view, span)}
              ${newest(view)}
            </div>`;
    return c.html(
      layout({
        title: 'Overview',
        at: 'overview',
        visitor: c.var.visitor,
        figures,
        isRenewed: true,
        body,
      }),
    );
  });
  return routes;
}
