/** What is known of one generation: its facts, its request, and what is remarkable about it. */
import { html } from 'hono/html';
import type { Asset, GenerationRecord } from '../../generation/record.js';
import { requestWarnings, type GenerationRequest } from '../../generation/request.js';
import { isTerminal } from '../../generation/states.js';
import type { Outlook } from '../../reelhaul.js';
import { chargeMark, excerpt, instant } from './components.js';
import { countText, durationText, priceText, sizeText } from './format.js';
import { HOME } from './identity.js';
import type { Html } from './layout.js';

const file = (id: string, name: string, label: string, asset: Asset | null): Html | '' =>
  asset === null
    ? ''
    : html`<dt>${label}</dt>
        <dd>
          <a href="${HOME}/generations/${id}/assets/${name}"
            >${sizeText(asset.sizeBytes)}, ${asset.contentType}</a
          ><br />
          <code class="key">${asset.key}</code>
        </dd>`;

export function facts(record: GenerationRecord, inputs: Html): Html {
  const { id, tenant, idempotencyKey, taskId, otherTaskIds, attempts, charge, deadlineAt, createdAt } =
    record;
  const fact = (name: string, value: Html | string | null) =>
    value === null || value === ''
      ? ''
      : html`<dt>${name}</dt>
          <dd>${value}</dd>`;
  const { runAt, finishedAt, priority, notifyUrl, state, submits } = record;
  const price = submits.at(-1)?.price ?? null;
  return html`<section aria-labelledby="facts-title">
    <h2 id="facts-title">Facts</h2>
    <dl class="facts" id="facts" data-live>
      ${fact('Id', html`<code>${id}</code>`)}
      ${fact('Charge', html`${chargeMark(charge)} ${price === null ? '' : priceText(price)}`)}
      ${fact('Tenant', tenant)} ${fact('Task', taskId === null ? null : html`<code>${taskId}</code>`)}
      ${fact('Other tasks', otherTaskIds.length === 0 ? null : html`<code>${otherTaskIds.join(', ')}</code>`)}
      ${fact('Idempotency key', idempotencyKey === null ? null : html`<code>${idempotencyKey}</code>`)}
      ${fact('Created', instant(createdAt, 'full'))}
      ${fact('Not before', runAt === null ? null : instant(runAt, 'full'))}
      ${fact('Deadline', isTerminal(state) || deadlineAt === null ? null : instant(deadlineAt, 'full'))}
      ${fact('Took', finishedAt === null ? null : durationText(finishedAt - createdAt))}
      ${fact('Attempts', `submit ${attempts.submit}, poll ${attempts.poll}, archive ${attempts.archive}, notify ${attempts.notify}`)}
      ${fact('Priority', priority === 0 ? null : String(priority))}
      ${fact('Notification URL', notifyUrl === null ? null : html`<code>${notifyUrl}</code>`)} ${inputs}
      ${file(id, 'video', 'Video', record.assets?.video ?? null)}
      ${file(id, 'poster', 'Poster', record.assets?.poster ?? null)}
      ${file(id, 'lastFrame', 'Last frame', record.assets?.lastFrame ?? null)}
    </dl>
  </section>`;
}

/** Why it waits, and when something happens next. */
function waits({ waitsBecause, ahead, nextPollAt }: Outlook): (Html | null)[] {
  const why =
    waitsBecause === null
      ? null
      : html`Waits because: ${waitsBecause.message}
        ${waitsBecause.untilAt === null ? '' : html`Until ${instant(waitsBecause.untilAt, 'full')}.`}`;
  return [
    why,
    ahead === null || ahead === 0 || waitsBecause?.code === 'queue'
      ? null
      : html`${countText(ahead)} others are before it in the queue.`,
    nextPollAt === null ? null : html`Next poll ${instant(nextPollAt, 'full')}.`,
  ];
}

/** Why it is where it is, and what is remarkable about it. */
export function remarks(record: GenerationRecord, outlook: Outlook): Html {
  const { warnings, request, otherTaskIds, late } = record;
  const doubts = doubtsOf(request);
  const all = [
    ...waits(outlook),
    late ? html`The video came after the deadline.` : null,
    otherTaskIds.length === 0
      ? null
      : html`It has more than one task, from another submit or from the provider. Each may be billed.`,
    ...warnings
      .filter(({ code }) => !doubts.has(code))
      .map(({ code, message }) => html`${message} <code>${code}</code>`),
  ].filter((one) => one !== null);
  return all.length === 0
    ? html``
    : html`<ul class="remarks">
        ${all.map((one) => html`<li>${one}</li>`)}
      </ul>`;
}

/** What is doubtful about a request was so from the start, and stands beside it. */
const doubtsOf = (request: GenerationRequest): ReadonlySet<string> =>
  new Set(requestWarnings(request).map(({ code }) => code));

export function requestSection({ request, metadata, warnings }: GenerationRecord): Html {
  const { prompt, ...rest } = request;
  const doubts = doubtsOf(request);
  return html`<section aria-labelledby="request-title">
    <h2 id="request-title">Request</h2>
    ${warnings.filter(({ code }) => doubts.has(code)).map(({ code, message }) => html`<p class="small">${message} <code>${code}</code></p>`)}
    ${excerpt(prompt) === prompt ? '' : html`<pre tabindex="0" dir="auto" class="words" aria-label="Prompt">${prompt}</pre>`}
    <pre tabindex="0" aria-label="Request">${JSON.stringify(rest, null, 2)}</pre>
    ${
      Object.keys(metadata).length === 0
        ? ''
        : html`<h3>Metadata</h3>
            <pre tabindex="0" aria-label="Metadata">${JSON.stringify(metadata, null, 2)}</pre>`
    }
  </section>`;
}
