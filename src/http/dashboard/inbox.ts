/**
 * `/dashboard/inbox`: what wants somebody: unconfirmed generations, notifications that were given up, and what the
 * provider refuses. Only what cannot bill can be done to many at once.
 */
import { Hono } from 'hono';
import { html } from 'hono/html';
import { z } from 'zod';
import { redriveOf } from '../../decisions.js';
import { ReelhaulError } from '../../errors.js';
import type { Notification } from '../../generation/outbox.js';
import type { GenerationRecord } from '../../generation/record.js';
import type { Hub } from '../../hub.js';
import type { Reelhaul } from '../../reelhaul.js';
import { atMost, check } from '../bodies.js';
import { isGenerationId } from '../schemas.js';
import { row } from './generations.js';
import type { Inbox } from './inbox-count.js';
import { layout, type Html } from './layout.js';
import { instant, notice, shortId } from './pieces.js';
import { checkCsrf, HOME, requireActor, type DashboardEnv, type Visitor } from './visitor.js';
import { countText } from './wording.js';

const PAGE = `${HOME}/inbox`;
/** So many of each kind are shown and can be decided at once. */
const SHOWN = 100;
/** Failures have no index by their reason: so many of the newest are looked at. */
const LOOKED_AT = 200;
const MAX_FORM_BYTES = 256 * 1024;

const BULK = ['giveUp', 'notify', 'retry'] as const;
type Bulk = (typeof BULK)[number];

const bulkSchema = z.object({
  bulk: z.enum(BULK),
  ids: z.preprocess(
    (value) => (Array.isArray(value) ? value : value === undefined ? [] : [value]),
    z.array(z.string().refine(isGenerationId, 'expected the id of a generation')).max(LOOKED_AT),
  ),
});

const BULK_WORDS: Readonly<Record<Bulk, { readonly button: string; readonly done: string }>> = {
  giveUp: { button: 'Give up the marked', done: 'given up' },
  notify: { button: 'Send the marked again', done: 'told again' },
  retry: { button: 'Retry the marked', done: 'tried again' },
};

interface Contents {
  readonly unconfirmed: readonly GenerationRecord[];
  readonly dead: readonly Notification[];
  readonly retryable: readonly GenerationRecord[];
  readonly rejected: readonly GenerationRecord[];
}

/** Would a retry start behind the paid request? */
function isFree(record: GenerationRecord): boolean {
  const redrive = redriveOf(record, false);
  return redrive === 'poll' || redrive === 'archive';
}

async function read({ store }: Hub, reelhaul: Reelhaul): Promise<Contents> {
  const load = async (ids: readonly string[]) =>
    (await Promise.all(ids.map((id) => store.get(id)))).filter((record) => record !== null);
  const [unconfirmed, failed, { notifications }] = await Promise.all([
    store.list({ state: 'unconfirmed', limit: SHOWN }).then(({ ids }) => load(ids)),
    store.list({ state: 'failed', limit: LOOKED_AT }).then(({ ids }) => load(ids)),
    reelhaul.deadNotifications({ limit: SHOWN }),
  ]);
  return {
    unconfirmed,
    dead: notifications,
    retryable: failed.filter((record) => record.failure?.retryable === true && isFree(record)),
    rejected: failed.filter(({ failure }) => failure?.code === 'request_rejected'),
  };
}

function bulkForm(bulk: Bulk, { csrf, mayAct }: Visitor, what: string, lines: Html): Html {
  if (!mayAct) return lines;
  return html`<form method="post" action="${PAGE}" class="bulk">
    <input type="hidden" name="csrf" value="${csrf ?? ''}" />
    ${lines}
    <div class="bar">
      <button type="button" class="quiet" data-mark-all hidden>Mark all</button>
      <button name="bulk" value="${bulk}" class="primary">${BULK_WORDS[bulk].button}</button>
      <span class="small"><span class="bill" data-bill="never">Cannot bill</span> ${what}</span>
    </div>
  </form>`;
}

const mark = (id: string, label: string, { mayAct }: Visitor): Html | '' =>
  mayAct
    ? html`<label class="mark"
        ><input type="checkbox" name="ids" value="${id}" /><span class="unseen">Mark ${label}</span></label
      >`
    : '';

const rows = (records: readonly GenerationRecord[], visitor: Visitor): Html =>
  html`<ul class="generations">
    ${records.map((record) => row(record, mark(record.id, shortId(record.id), visitor)))}
  </ul>`;

function deadLines(dead: readonly Notification[], visitor: Visitor): Html {
  const byGeneration = new Map<string, Notification[]>();
  for (const one of dead)
    byGeneration.set(one.generationId, [...(byGeneration.get(one.generationId) ?? []), one]);
  return html`<ul class="generations">
    ${[...byGeneration].map(
      ([id, own]) =>
        html`<li id="dead-${id}" class="generation">
          ${mark(id, `the notifications of ${shortId(id)}`, visitor)}
          <div class="what">
            <a href="${HOME}/generations/${id}"
              ><code>${shortId(id)}</code> ${own.map(({ type }) => type).join(', ')}</a
            >
            <p class="small">
              ${own[0]!.url} · ${own[0]!.attempts} tries · ${instant(own[0]!.at)} ·
              ${own.at(-1)!.lastError ?? ''}
            </p>
          </div>
        </li>`,
    )}
  </ul>`;
}

function part(id: string, title: string, about: string, empty: string, n: number, inside: Html): Html {
  return html`<section id="${id}" aria-labelledby="${id}-title" data-live>
    <h2 id="${id}-title">${title} <span class="n">${countText(n)}</span></h2>
    ${
      n === 0
        ? html`<p class="empty">${empty}</p>`
        : html`<p class="small">${about}</p>
            ${inside}`
    }
  </section>`;
}

function said(query: Record<string, string>): Html | '' {
  const words = BULK_WORDS[query['done'] as Bulk];
  if (words === undefined) return '';
  const [n, left] = [Number(query['n']), Number(query['left'])];
  if (!Number.isInteger(n) || !Number.isInteger(left)) return '';
  const rest = left === 0 ? '' : ` ${left} had moved on meanwhile and were left alone.`;
  return notice(left === 0 ? 'good' : 'bad', `${n} ${words.done}.${rest}`);
}

export function createInboxRoutes(hub: Hub, reelhaul: Reelhaul, inbox: Inbox): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();

  routes.get(PAGE, async (c) => {
    const { visitor } = c.var;
    const [{ unconfirmed, dead, retryable, rejected }, { figures, count }] = await Promise.all([
      read(hub, reelhaul),
      inbox.read(),
    ]);
    const refused =
      figures?.refused === true
        ? html`<p class="notice bad" role="alert">
            The provider refuses our key or its quota. Submitting waits, and one submit tries it every so
            often; nothing is lost. Look at the account of the provider.
          </p>`
        : '';
    const body = html`<h1>Inbox</h1>
      ${said(c.req.query())}
      <div id="refused" data-live>${refused}</div>
      ${part(
        'unconfirmed',
        'Unconfirmed',
        'The request was sent and its answer was lost. Look in the provider’s list of tasks, then open each one: adopt its task, submit it again, or give it up.',
        'Nothing is unconfirmed.',
        figures?.generations.unconfirmed ?? unconfirmed.length,
        bulkForm('giveUp', visitor, 'A late callback still brings each back.', rows(unconfirmed, visitor)),
      )}
      ${part(
        'dead',
        'Notifications given up',
        'The app did not take these, in all their tries. When it can be reached again, send them again.',
        'Every app was told.',
        figures?.notificationsDead ?? dead.length,
        bulkForm('notify', visitor, 'Under their old ids.', deadLines(dead, visitor)),
      )}
      ${part(
        'retryable',
        'Failed, and a retry can help',
        `Among the newest ${LOOKED_AT} failures, those that start again at the poll or the archive.`,
        `None among the newest ${LOOKED_AT} failures.`,
        retryable.length,
        bulkForm('retry', visitor, 'The same task is asked or fetched again.', rows(retryable, visitor)),
      )}
      ${part(
        'rejected',
        'Refused by the provider',
        `Among the newest ${LOOKED_AT} failures. The same request will be refused again: open one to read why.`,
        `None among the newest ${LOOKED_AT} failures.`,
        rejected.length,
        html`<ul class="generations">
          ${rejected.map((record) => row(record))}
        </ul>`,
      )}`;
    return c.html(layout({ title: 'Inbox', at: 'inbox', visitor, inbox: count, follow: 'all', body }));
  });

  routes.post(PAGE, atMost(MAX_FORM_BYTES), async (c) => {
    requireActor(c.var.visitor);
    const body = await c.req.parseBody({ all: true });
    checkCsrf(c.var.visitor, body['csrf']);
    const { bulk, ids } = check(bulkSchema, body, 'Nothing was decided');
    let done = 0;
    for (const id of ids) if (await decideOne(hub, reelhaul, bulk, id)) done += 1;
    const by = c.var.visitor.name ?? 'this machine';
    hub.log.info({ bulk, done, left: ids.length - done, by }, 'decided about many in the dashboard');
    return c.redirect(`${PAGE}?done=${bulk}&n=${done}&left=${ids.length - done}`, 303);
  });

  return routes;
}

/** None of these can bill. @returns false when it had moved on, or is gone */
async function decideOne({ store }: Hub, reelhaul: Reelhaul, bulk: Bulk, id: string): Promise<boolean> {
  try {
    if (bulk === 'notify') return (await reelhaul.retryNotification(id)) > 0;
    if (bulk === 'retry') {
      const record = await store.get(id);
      if (!record || !isFree(record)) return false;
      await reelhaul.retry(id);
    } else await reelhaul.decide(id, { giveUp: true });
    return true;
  } catch (error) {
    if (
      error instanceof ReelhaulError &&
      ['not_found', 'state_conflict', 'rebill_not_allowed'].includes(error.code)
    )
      return false;
    throw error;
  }
}
