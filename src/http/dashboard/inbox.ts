/**
 * `/dashboard/inbox`: what an operator has to decide: unconfirmed generations, notifications that were given up, and what
 * the provider refuses. Only what cannot bill can be done to many at once.
 */
import { Hono } from 'hono';
import { html } from 'hono/html';
import { z } from 'zod';
import { ReelhaulError } from '../../errors.js';
import type { Notification } from '../../store/outbox.js';
import type { GenerationRecord } from '../../generation/record.js';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Fleet } from '../../telemetry/snapshot.js';
import { check } from '../bodies.js';
import { isGenerationId } from '../schemas.js';
import { row } from './generations.js';
import { canHelp, LOOKED_AT, readInbox, SHOWN, type Dead, type Shown } from './inbox-data.js';
import { layout, type Html } from './layout.js';
import { csrfField, excerpt, instant, notice, shortId } from './components.js';
import { actorOf, HOME, readActorForm, type DashboardEnv, type Visitor } from './identity.js';
import { countText } from './format.js';

const PAGE = `${HOME}/inbox`;

const BULK = ['giveUp', 'notify', 'retry'] as const;
type Bulk = (typeof BULK)[number];

const bulkSchema = z.object({
  bulk: z.enum(BULK),
  show: z.enum(['first', 'most']).optional(),
  ids: z.preprocess(
    (value) => (Array.isArray(value) ? value : value === undefined ? [] : [value]),
    z.array(z.string().refine(isGenerationId, 'expected the id of a generation')).max(LOOKED_AT),
  ),
});

const BULK_WORDS: Readonly<Record<Bulk, { readonly button: string; readonly done: string }>> = {
  giveUp: { button: 'Give up selected', done: 'given up' },
  notify: { button: 'Send selected again', done: 'queued to be sent again' },
  retry: { button: 'Retry selected', done: 'retried' },
};

function bulkForm(bulk: Bulk, shown: Shown, visitor: Visitor, what: string, lines: Html): Html {
  if (!visitor.mayAct) return lines;
  return html`<form method="post" action="${PAGE}" class="bulk">
    ${csrfField(visitor)}
    <input type="hidden" name="show" value="${shown}" />
    ${lines}
    <div class="bar">
      <button type="button" class="quiet" data-mark-all hidden>Select all</button>
      <button name="bulk" value="${bulk}" class="${bulk === 'giveUp' ? 'grave' : 'primary'}">
        ${BULK_WORDS[bulk].button}
      </button>
      <span class="small"><span class="bill" data-bill="never">Cannot bill</span> ${what}</span>
    </div>
  </form>`;
}

const mark = (id: string, label: string, { mayAct }: Visitor): Html | '' =>
  mayAct
    ? html`<label class="mark"
        ><input type="checkbox" name="ids" value="${id}" /><span class="unseen">Select ${label}</span></label
      >`
    : '';

const rows = (records: readonly GenerationRecord[], visitor: Visitor): Html =>
  html`<ul class="generations">
    ${records.map((record) => row(record, mark(record.id, shortId(record.id), visitor)))}
  </ul>`;

/** Each type once, with how many there are. */
function typesOf(own: readonly Notification[]): string {
  const counts = new Map<string, number>();
  for (const { type } of own) counts.set(type, (counts.get(type) ?? 0) + 1);
  return [...counts].map(([type, n]) => (n === 1 ? type : `${type} × ${n}`)).join(', ');
}

function deadLines(dead: readonly Dead[], visitor: Visitor): Html {
  return html`<ul class="generations">
    ${dead.map(
      ({ record: { id, request, tenant }, notifications }) =>
        html`<li id="dead-${id}" class="generation">
          ${mark(id, `the notifications of ${shortId(id)}`, visitor)}
          <div class="what">
            <a href="${HOME}/generations/${id}"
              ><span class="prompt" dir="auto">${excerpt(request.prompt)}</span>
              <span class="unseen">(${shortId(id)})</span></a
            >
            <p class="small">
              <code>${shortId(id)}</code> <span>${tenant}</span> ${instant(notifications[0]!.at)}
              <span>${typesOf(notifications)}</span>
            </p>
            <p class="small">
              <span>${excerpt(notifications[0]!.url)}</span>
              <span>${notifications.at(-1)!.lastError ?? ''}</span>
            </p>
          </div>
        </li>`,
    )}
  </ul>`;
}

/** Where the others are, when there are more than are shown. */
function more(n: number, shown: Shown, all = n): Html | '' {
  if (all <= n) return '';
  return shown === 'first'
    ? html`<a href="${PAGE}?show=most">Show up to ${SHOWN.most} of each</a>`
    : html`The next ones appear here once these are settled.`;
}

/** @param rest where the others are, when there are more than are shown */
function part(
  id: string,
  title: string,
  about: string,
  empty: string,
  n: number,
  inside: Html,
  rest: Html | '' = '',
): Html {
  return html`<section id="${id}" aria-labelledby="${id}-title" data-live>
    <h2 id="${id}-title">${title} <span class="n">${countText(n)}</span></h2>
    ${
      n === 0
        ? html`<p class="empty">${empty}</p>`
        : html`<p class="small">${about} ${rest}</p>
            ${inside}`
    }
  </section>`;
}

function said(query: Record<string, string>): Html | '' {
  const done = query['done'] ?? '';
  if (!Object.hasOwn(BULK_WORDS, done)) return '';
  const words = BULK_WORDS[done as Bulk];
  const [n, left] = [Number(query['n']), Number(query['left'])];
  if (!Number.isInteger(n) || !Number.isInteger(left)) return '';
  if (n === 0 && left === 0) return notice('bad', 'Nothing was selected, so nothing was done.');
  const rest = left === 0 ? '' : ` ${left} had changed in the meantime and were left as they are.`;
  return notice(left === 0 ? 'good' : 'bad', `${n} ${words.done}.${rest}`);
}

export function createInboxRoutes(hub: Hub, reelhaul: Reelhaul, fleet: Fleet): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();

  routes.get(PAGE, async (c) => {
    const { visitor } = c.var;
    const shown: Shown = c.req.query('show') === 'most' ? 'most' : 'first';
    const [{ unconfirmed, dead, retryable, rejected, all }, figures] = await Promise.all([
      readInbox(hub, reelhaul, shown),
      fleet.read(),
    ]);
    const refused =
      figures?.limits.refused === true
        ? html`<p class="notice bad" role="alert">
            The provider refuses the API key or its quota is used up. Submits wait, and one of them tries
            again from time to time. Nothing is lost. Check the account at the provider.
          </p>`
        : '';
    const body = html`<h1>Inbox</h1>
      ${said(c.req.query())}
      <div id="refused" data-live>${refused}</div>
      ${part(
        'unconfirmed',
        'Unconfirmed',
        'The request was sent, and its answer was lost. Look for the task in the provider’s list, then open the generation: adopt the task, submit again, or give up.',
        'Nothing is unconfirmed.',
        figures?.generations.unconfirmed ?? unconfirmed.length,
        bulkForm(
          'giveUp',
          shown,
          visitor,
          'A late callback still revives each of them.',
          rows(unconfirmed, visitor),
        ),
        more(unconfirmed.length, shown, figures?.generations.unconfirmed),
      )}
      ${part(
        'dead',
        'Notifications given up',
        'The app did not accept these in any attempt. Send them again once it can be reached.',
        'Every notification was delivered.',
        figures?.notificationsDead ?? dead.length,
        bulkForm('notify', shown, visitor, 'Each keeps its id.', deadLines(dead, visitor)),
        more(dead.length, shown, figures?.notificationsDead),
      )}
      ${part(
        'retryable',
        'Failed, and a retry can help',
        `Of the newest ${LOOKED_AT} failures, those in which a new poll or a new download can help. A task that the provider failed is not among them: it stays failed.`,
        `None of the newest ${LOOKED_AT} failures.`,
        all.retryable,
        bulkForm(
          'retry',
          shown,
          visitor,
          'The same task is polled or downloaded again.',
          rows(retryable, visitor),
        ),
        more(retryable.length, shown, all.retryable),
      )}
      ${part(
        'rejected',
        'Refused by the provider',
        `Of the newest ${LOOKED_AT} failures. The same request will be refused again: open one to read why.`,
        `None of the newest ${LOOKED_AT} failures.`,
        all.rejected,
        html`<ul class="generations">
          ${rejected.map((record) => row(record))}
        </ul>`,
        more(rejected.length, shown, all.rejected),
      )}`;
    return c.html(layout({ title: 'Inbox', at: 'inbox', visitor, figures, isRenewed: true, body }));
  });

  routes.post(PAGE, async (c) => {
    const { bulk, ids, show } = check(bulkSchema, await readActorForm(c), 'Nothing was decided');
    let done = 0;
    for (const id of ids) if (await decideOne(hub, reelhaul, bulk, id)) done += 1;
    hub.log.info(
      { bulk, done, left: ids.length - done, by: actorOf(c) },
      'decided about many in the dashboard',
    );
    const where = show === 'most' ? `${PAGE}?show=most&` : `${PAGE}?`;
    return c.redirect(`${where}done=${bulk}&n=${done}&left=${ids.length - done}`, 303);
  });

  return routes;
}

/** None of these can bill. @returns false when it had moved on, or is gone */
async function decideOne({ store }: Hub, reelhaul: Reelhaul, bulk: Bulk, id: string): Promise<boolean> {
  try {
    if (bulk === 'notify') return (await reelhaul.retryNotification(id)) > 0;
    if (bulk === 'retry') {
      const record = await store.get(id);
      if (!record || !canHelp(record)) return false;
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
