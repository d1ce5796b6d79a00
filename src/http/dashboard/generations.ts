/** `/dashboard/generations`: the list with its filters, and the search for one. */
import { Hono } from 'hono';
import { html } from 'hono/html';
import { z } from 'zod';
import type { GenerationRecord } from '../../generation/record.js';
import { KNOWN_MODELS } from '../../generation/request.js';
import { isTerminal, STATES, type State } from '../../generation/states.js';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Fleet } from '../../telemetry/snapshot.js';
import { check } from '../bodies.js';
import { findOne, findPage, LOOKED_AT_MOST, readFilter, type Filter, type Found } from './search.js';
import { layout, type Html } from './layout.js';
import {
  chargeMark,
  csrfField,
  excerpt,
  instant,
  notice,
  progressBar,
  shortId,
  stateMark,
} from './components.js';
import { actorOf, HOME, readActorForm, type DashboardEnv, type Visitor } from './identity.js';
import { countText, durationText, STATE_WORDS } from './format.js';

const LIST = `${HOME}/generations`;

const eraseTenantSchema = z
  .object({ tenant: z.string().min(1), confirm: z.string() })
  .refine(({ tenant, confirm }) => confirm === tenant, {
    path: ['confirm'],
    message: 'expected the name of the tenant once more',
  });

/** The address of the list with some fields of the filter changed; undefined removes one. */
function addressOf(filter: Filter, change: { [field in keyof Filter]?: Filter[field] | undefined }): string {
  const query = Object.entries({ ...filter, ...change }).filter(([, value]) => value !== undefined);
  return `${LIST}?${new URLSearchParams(query as [string, string][]).toString()}`;
}

/** Is its bill worth showing: over, or in doubt? */
const isSettled = (state: State): boolean => isTerminal(state) || state === 'unconfirmed';

/** One generation as a line of a list. */
export function row(record: GenerationRecord, before: Html | '' = ''): Html {
  const { id, state, request, tenant, createdAt, finishedAt, progress, charge, failure } = record;
  const shown = state === 'generating' ? progressBar(progress, 'Progress') : '';
  const took =
    finishedAt === null ? '' : html`<span class="took">took ${durationText(finishedAt - createdAt)}</span>`;
  return html`<li id="g-${id}" class="generation">
    ${before}
    <div class="what">
      <a href="${LIST}/${id}"
        ><span class="prompt" dir="auto">${excerpt(request.prompt)}</span>
        <span class="unseen">(${shortId(id)})</span></a
      >
      <p class="small">
        <code>${shortId(id)}</code> <span>${tenant}</span> <span>${request.model}</span> ${instant(createdAt)}
        ${took} ${failure ? html`<span class="code">${failure.code}</span>` : ''}
      </p>
    </div>
    <div class="where">${stateMark(state)} ${shown} ${isSettled(state) ? chargeMark(charge) : ''}</div>
  </li>`;
}

function stateChips(filter: Filter, counts: Readonly<Record<State, number>> | null): Html {
  const chip = (state: State | undefined, label: string, n: number | null) =>
    html`<li>
      <a
        href="${addressOf(filter, { state, before: undefined, q: undefined })}"
        ${filter.state === state ? html`aria-current="true"` : ''}
        >${label}${n === null ? '' : html` <span class="n">${countText(n)}</span>`}</a
      >
    </li>`;
  const all = counts === null ? null : STATES.reduce((sum, state) => sum + counts[state], 0);
  return html`<nav aria-label="By state">
    <ul class="chips" id="chips" data-live>
      ${chip(undefined, 'All', all)}
      ${STATES.map((state) => chip(state, STATE_WORDS[state].label, counts === null ? null : counts[state]))}
    </ul>
  </nav>`;
}

/** Does it ask for more than a state? */
const narrows = ({ tenant, model, from, to }: Filter): boolean =>
  [tenant, model, from, to].some((value) => value !== undefined);

function filterForm(filter: Filter): Html {
  const { state, tenant, model, from, to, q } = filter;
  return html`<form class="filter" method="get" action="${LIST}" role="search">
    ${state === undefined ? '' : html`<input type="hidden" name="state" value="${state}" />`}
    <div class="line">
      <label class="grow"
        >Find one by its id, task id or idempotency key
        <input
          type="search"
          name="q"
          value="${q ?? ''}"
          maxlength="512"
          autocomplete="off"
          spellcheck="false"
      /></label>
      <button class="primary">Find</button>
    </div>
    <details ${narrows(filter) ? html`open` : ''}>
      <summary>Filter by tenant, model, time</summary>
      <div class="line">
        <label>Tenant <input name="tenant" value="${tenant ?? ''}" autocomplete="off" /></label>
        <label>Model <input name="model" value="${model ?? ''}" autocomplete="off" list="models" /></label>
        <datalist id="models">${KNOWN_MODELS.map((one) => html`<option value="${one}"></option>`)}</datalist>
        <label>Created from (UTC) <input type="datetime-local" name="from" value="${from ?? ''}" /></label>
        <label>Created before (UTC) <input type="datetime-local" name="to" value="${to ?? ''}" /></label>
        <button>Filter</button>
        <a class="button quiet" href="${LIST}">Clear</a>
      </div>
    </details>
  </form>`;
}

function results(filter: Filter, { records, cursor, lookedAt }: Found): Html {
  const looked =
    filter.model === undefined
      ? ''
      : html`<p class="small">
          Looked at ${countText(lookedAt)} generations for the model ${filter.model}.
          ${cursor !== null && lookedAt >= LOOKED_AT_MOST ? 'There are older ones: go on below.' : ''}
        </p>`;
  const list =
    records.length === 0
      ? html`<p class="empty">
          No generation is like that${cursor === null ? '.' : ' among these; older ones may be.'}
        </p>`
      : html`<ul class="generations">
          ${records.map((record) => row(record))}
        </ul>`;
  return html`<section id="results" data-live aria-label="Generations">
    ${looked} ${list}
    <nav class="pages" aria-label="More of them">
      ${filter.before === undefined ? '' : html`<a class="button" href="${addressOf(filter, { before: undefined })}">Newest</a>`}
      ${cursor === null ? '' : html`<a class="button" rel="next" href="${addressOf(filter, { before: cursor })}">Older</a>`}
    </nav>
  </section>`;
}

/** Every generation of a tenant at once: asked for by its name, typed once more. */
function eraseTenantForm({ tenant }: Filter, visitor: Visitor): Html | '' {
  if (tenant === undefined || !visitor.mayAct) return '';
  return html`<details class="action" id="erase-tenant">
    <summary>Erase tenant ${tenant}</summary>
    <form method="post" action="${LIST}">
      ${csrfField(visitor)}
      <input type="hidden" name="tenant" value="${tenant}" />
      <p>
        Removes all its generations and unused uploads for good: requests, answers, notifications, files and
        manifests. Instants and bills stay. What may still be billed is kept.
      </p>
      <label
        >Name of the tenant <input name="confirm" required autocomplete="off" spellcheck="false"
      /></label>
      <button class="grave">Erase this tenant</button>
    </form>
  </details>`;
}

/** What an erase came to, as the address of this page says after it. */
function erasedNotice({ done, erased, kept }: Readonly<Record<string, string>>): Html | '' {
  if (done === 'erase') return notice('good', 'Erased.');
  if (done !== 'erase-tenant') return '';
  const stay = Number(kept) > 0 ? ` ${countText(Number(kept))} may still be billed, and were kept.` : '';
  return notice('good', `Erased: ${countText(Number(erased) || 0)}.${stay}`);
}

export function createListRoutes(hub: Hub, reelhaul: Reelhaul, fleet: Fleet): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  routes.get(LIST, async (c) => {
    const filter = readFilter(c.req.query());
    const { q, tenant } = filter;
    const hit = q === undefined ? null : await findOne(hub, q, tenant);
    if (hit !== null) return c.redirect(`${LIST}/${hit}`, 303);
    const [found, figures] = await Promise.all([findPage(hub, filter), fleet.read()]);
    const missed =
      q === undefined
        ? ''
        : notice(
            'bad',
            `Nothing has the id, task id or idempotency key “${q}”${tenant === undefined ? ' (keys were looked for in the tenant “default”; name another one in the filter)' : ''}.`,
          );
    // Counted for all; beside a filter they would say something else than the list.
    const counts = narrows(filter) ? null : (figures?.generations ?? null);
    const erased = erasedNotice(c.req.query());
    const body = html`<h1>Generations</h1>
      ${erased} ${stateChips(filter, counts)} ${missed} ${filterForm(filter)} ${results(filter, found)}
      ${eraseTenantForm(filter, c.var.visitor)}`;
    // What an older page shows does not change by itself any more.
    const isRenewed = filter.before === undefined;
    const { visitor } = c.var;
    return c.html(layout({ title: 'Generations', at: 'generations', visitor, figures, isRenewed, body }));
  });

  routes.post(LIST, async (c) => {
    const { tenant } = check(eraseTenantSchema, await readActorForm(c), 'Nothing was erased');
    const { erased, kept } = await reelhaul.eraseTenant(tenant);
    hub.log.info({ tenant, erased, kept, by: actorOf(c) }, 'a tenant was erased in the dashboard');
    return c.redirect(`${LIST}?done=erase-tenant&erased=${erased}&kept=${kept}`, 303);
  });
  return routes;
}
