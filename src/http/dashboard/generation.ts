/** `/dashboard/generations/:id`: one generation, with its way, its video, and what can be decided about it. */
import { Hono } from 'hono';
import { html } from 'hono/html';
import { NotFoundError } from '../../errors.js';
import type { Failure, GenerationRecord } from '../../generation/record.js';
import type { Notification } from '../../store/outbox.js';
import { isTerminal } from '../../generation/states.js';
import type { Hub } from '../../pipeline/context.js';
import type { Reelhaul } from '../../reelhaul.js';
import type { Fleet } from '../../telemetry/snapshot.js';
import type { Storage } from '../../storage/storage.js';
import { INPUT_FIELDS } from '../../generation/inputs.js';
import { findAsset, serveFile } from '../assets.js';
import { serveInput } from '../inputs.js';
import { check } from '../bodies.js';
import { isGenerationId } from '../schemas.js';
import { act, actionFormSchema, actionsFor, type Action, type ActionName } from './actions.js';
import { facts, remarks, requestSection } from './generation-facts.js';
import { inputFacts } from './inputs.js';
import { layout, type Html } from './layout.js';
import { csrfField, excerpt, instant, notice, progressBar, shortId, stateMark } from './components.js';
import { timeline } from './timeline.js';
import { actorOf, HOME, readActorForm, type DashboardEnv, type Visitor } from './identity.js';
import { adviceOn, STATE_WORDS } from './format.js';

const PAGE = `${HOME}/generations/:id`;

const DONE_WORDS: Readonly<Record<ActionName, string>> = {
  cancel: 'Canceled.',
  retry: 'Retried.',
  resubmit: 'It is submitted again.',
  adopt: 'The task is adopted and polled from now on.',
  giveUp: 'Given up.',
  notify: 'The notifications are sent again.',
  erase: 'Erased.',
};

function actionForm(
  record: GenerationRecord,
  { name, title, what, bill, grave, billWords, accept: words }: Action,
  visitor: Visitor,
): Html {
  const { id, rev } = record;
  const accept =
    words === null
      ? ''
      : html`<label class="check"
          ><input type="checkbox" name="accept" value="yes" required /> ${words}</label
        >`;
  const task =
    name === 'adopt'
      ? html`<label
          >Task id <input name="taskId" required maxlength="256" autocomplete="off" spellcheck="false"
        /></label>`
      : '';
  return html`<details class="action" id="action-${name}" data-keep="${name}-${rev}">
    <summary>
      <span class="title">${title}</span> <span class="bill" data-bill="${bill}">${billWords}</span>
    </summary>
    <form method="post" action="${HOME}/generations/${id}">
      <p>${what}</p>
      ${csrfField(visitor)}
      <input type="hidden" name="rev" value="${rev}" />
      ${task} ${accept}
      <button name="action" value="${name}" class="${grave || bill === 'again' ? 'grave' : 'primary'}">
        ${name === 'cancel' ? 'Yes, cancel it' : title}
      </button>
    </form>
  </details>`;
}

function actionsSection(record: GenerationRecord, actions: readonly Action[], visitor: Visitor): Html {
  const inside = !visitor.mayAct
    ? html`<p class="small">Your account is read-only.</p>`
    : actions.length === 0
      ? html`<p class="small">There is nothing to decide.</p>`
      : actions.map((action) => actionForm(record, action, visitor));
  return html`<section aria-labelledby="actions-title" id="actions" data-live>
    <h2 id="actions-title">What you can do</h2>
    ${inside}
  </section>`;
}

function failureBox(failure: Failure): Html {
  const { code, message } = failure;
  const { what, todo } = adviceOn(failure);
  return html`<div class="failure">
    <p><strong>${what}</strong></p>
    <p>${todo}</p>
    <p class="small"><code>${code}</code> ${message}</p>
  </div>`;
}

function film({ id, assets, state }: GenerationRecord): Html {
  const at = (name: string) => `${HOME}/generations/${id}/assets/${name}`;
  if (!assets) {
    // Without a video to come, the empty frame must not push the actions down.
    const awaited = !isTerminal(state) && state !== 'unconfirmed';
    return html`<div class="film none ${awaited ? 'awaited' : ''}" id="film" data-live>
      <p>${awaited ? 'No video yet.' : 'There is no video.'}</p>
    </div>`;
  }
  const poster = assets.poster ? html`poster="${at('poster')}"` : '';
  return html`<div class="film" id="film" data-live>
    <video
      controls
      preload="metadata"
      playsinline
      ${poster}
      src="${at('video')}"
      data-keep="video"
      aria-label="The archived video"
    ></video>
  </div>`;
}

function notificationList(notifications: readonly Notification[]): Html {
  if (notifications.length === 0) return html`<div id="told" data-live></div>`;
  return html`<section aria-labelledby="told-title" id="told" data-live>
    <h2 id="told-title">Notifications not delivered yet</h2>
    <ul class="plain">
      ${notifications.map(
        ({ type, at, attempts, lastError, dead, nextAttemptAt }) =>
          html`<li>
            <code>${type}</code> of ${instant(at, 'clock')}:
            ${dead ? 'given up' : attempts === 1 ? '1 attempt' : `${attempts} attempts`}${dead || nextAttemptAt === null ? '' : html`, next ${instant(nextAttemptAt)}`}
            ${lastError === null ? '' : html`<p class="small">${lastError}</p>`}
          </li>`,
      )}
    </ul>
  </section>`;
}

export function createGenerationRoutes(
  hub: Hub,
  reelhaul: Reelhaul,
  fleet: Fleet,
  openedStorage: () => Promise<Storage>,
): Hono<DashboardEnv> {
  const routes = new Hono<DashboardEnv>();
  const load = async (id: string): Promise<GenerationRecord> => {
    const record = isGenerationId(id) ? await hub.store.get(id) : null;
    if (!record) throw new NotFoundError(id.slice(0, 64));
    return record;
  };

  routes.get(PAGE, async (c) => {
    const record = await load(c.req.param('id'));
    const { id, state, request, progress, failure } = record;
    const [answers, notifications, outlook, figures, inputs] = await Promise.all([
      hub.store.answers(id),
      reelhaul.notifications(id),
      reelhaul.outlook(id),
      fleet.read(),
      inputFacts(hub, record),
    ]);
    const dead = notifications.filter((one) => one.dead).length;
    const said = c.req.query('done') ?? '';
    const done = Object.hasOwn(DONE_WORDS, said) ? DONE_WORDS[said as ActionName] : null;
    const body = html`<p class="crumb">
        <a href="${HOME}/generations">Generations</a> <code>${shortId(id)}</code>
      </p>
      ${done === null ? '' : notice('good', done)}
      <h1 class="prompt" dir="auto">${excerpt(request.prompt)}</h1>
      <div class="now" id="now" data-live>
        <p aria-live="polite">${stateMark(state)} <span>${STATE_WORDS[state].means}</span></p>
        ${state === 'generating' ? progressBar(progress, 'Progress of the task') : ''}
        ${failure ? failureBox(failure) : ''} ${remarks(record, outlook)}
      </div>
      <div class="columns">
        <div>
          ${film(record)} ${actionsSection(record, actionsFor(record, dead, hub.now()), c.var.visitor)}
          ${notificationList(notifications)}
        </div>
        <div>${timeline(record, answers, hub.now())}</div>
        <div>${facts(record, inputs)} ${requestSection(record)}</div>
      </div>`;
    const title = excerpt(request.prompt, 60);
    const { visitor } = c.var;
    return c.html(layout({ title, at: 'generations', visitor, figures, isRenewed: true, body }));
  });

  routes.post(PAGE, async (c) => {
    const form = check(actionFormSchema, await readActorForm(c), 'Nothing was decided');
    const record = await load(c.req.param('id'));
    const dead = await hub.outbox.dead(record.id);
    await act(reelhaul, record, actionsFor(record, dead.length, hub.now()), form);
    const about = { generationId: record.id, action: form.action, by: actorOf(c) };
    hub.log.info(about, 'decided in the dashboard');
    const back = form.action === 'erase' ? `${HOME}/generations` : `${HOME}/generations/${record.id}`;
    return c.redirect(`${back}?done=${form.action}`, 303);
  });

  // Through this server, also from S3: pages load nothing from other hosts, and no other host learns of a visit.
  routes.get(`${PAGE}/assets/:name`, async (c) => {
    const { id, assets } = await load(c.req.param('id'));
    return serveFile(c, await openedStorage(), findAsset(assets, id, c.req.param('name')));
  });

  routes.get(`${PAGE}/inputs/:field`, async (c) => {
    const record = await load(c.req.param('id'));
    const field = INPUT_FIELDS.find((known) => known === c.req.param('field'));
    if (field === undefined) throw new NotFoundError(`${record.id} with such an input`);
    return serveInput(c, hub, record, field);
  });

  return routes;
}
