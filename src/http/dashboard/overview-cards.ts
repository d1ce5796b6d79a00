/** The cards of the overview. */
import { html } from 'hono/html';
import { STATES, type State } from '../../generation/states.js';
import { CLOCKS, quantile, sumOf, type Clock, type Slot, type Span } from '../../telemetry/time-series.js';
import type { FleetFigures } from '../../telemetry/snapshot.js';
import type { RunName } from '../../generation/work.js';
import type { Html } from './layout.js';
import type { View } from './overview-data.js';
import { excerpt, instant, shortId, stateMark, table } from './components.js';
import { bars, gauge, ranges, SCALE_LABELS, type Range } from './charts.js';
import { HOME } from './identity.js';
import { inboxCount } from './inbox-count.js';
import { countText, durationText, sizeText, STATE_WORDS } from './format.js';

const SPAN_WORDS: Readonly<Record<Span, string>> = { minute: 'last hour', hour: 'last day' };

const tile = (
  label: string,
  value: Html | string,
  about: Html | string,
  href: string,
  tone: 'bad' | 'warn' | null = null,
): Html =>
  html`<li class="tile ${tone ?? ''}">
    <p class="label"><a href="${href}">${label}</a></p>
    <p class="value">${value}</p>
    <p class="small">${about}</p>
  </li>`;

function waitingWords({ oldest, limits }: View, now: number): string {
  if (oldest !== null)
    return `the oldest for ${durationText(now - Math.max(oldest.createdAt, oldest.runAt ?? 0))}`;
  const { inLine, scheduled } = limits;
  if (inLine > 0) return `${countText(inLine)} are next`;
  return scheduled > 0 ? 'all for later' : 'none is due';
}

export function tiles(view: View, figures: FleetFigures, span: Span, now: number): Html {
  const { generations, backlog } = figures;
  const inbox = inboxCount(figures);
  const { moved, archivedBytes } = sumOf(view.slots);
  const over = (moved.succeeded ?? 0) + (moved.failed ?? 0) + (moved.expired ?? 0);
  const share =
    over === 0
      ? ''
      : `${((100 * (moved.succeeded ?? 0)) / over).toFixed(over > 200 ? 1 : 0)} % of what ended`;
  const { inFlight, maxInFlight } = view.limits;
  const when = SPAN_WORDS[span];
  const most =
    maxInFlight === null
      ? `${countText(backlog.submit.active)} being submitted`
      : `of at most ${countText(maxInFlight)}`;
  // An unconfirmed submit may have a task, so it holds a slot.
  const perhaps = generations.unconfirmed === 0 ? '' : `, ${countText(generations.unconfirmed)} unconfirmed`;
  return html`<ul class="tiles" id="tiles" data-live>
    ${tile(
      'Waiting',
      countText(generations.queued),
      waitingWords(view, now),
      `${HOME}/generations?state=queued`,
    )}
    ${tile('At the provider', countText(inFlight), `${most}${perhaps}`, `${HOME}/generations?state=generating`)}
    ${tile('Archiving', countText(generations.archiving), `${sizeText(archivedBytes)} stored, ${when}`, `${HOME}/generations?state=archiving`)}
    ${tile(`Succeeded, ${when}`, countText(moved.succeeded ?? 0), share, `${HOME}/generations?state=succeeded`)}
    ${tile(`Failed, ${when}`, countText((moved.failed ?? 0) + (moved.expired ?? 0)), 'with those that expired', `${HOME}/generations?state=failed`, over > (moved.succeeded ?? 0) ? 'bad' : null)}
    ${tile('Inbox', inbox === null ? '–' : countText(inbox), inbox === 0 ? 'nothing to decide' : 'to decide', `${HOME}/inbox`, inbox === null || inbox === 0 ? null : 'warn')}
  </ul>`;
}

export function throughput({ slots, created }: View, span: Span): Html {
  const count = (pick: (slot: Slot) => number) => slots.map(pick);
  const ends = [
    { name: 'succeeded', label: 'succeeded', values: count(({ moved }) => moved.succeeded ?? 0) },
    {
      name: 'failed',
      label: 'failed or expired',
      values: count(({ moved }) => (moved.failed ?? 0) + (moved.expired ?? 0)),
    },
    { name: 'canceled', label: 'canceled', values: count(({ moved }) => moved.canceled ?? 0) },
  ];
  const unit = span === 'minute' ? 'min' : 'h';
  const per = span === 'minute' ? 'minute' : 'hour';
  return html`<section aria-labelledby="through-title" class="card wide">
    <div class="line">
      <h2 id="through-title">Throughput per ${per}</h2>
      <nav aria-label="Time shown">
        <ul class="chips">
          <li><a href="${HOME}" ${span === 'minute' ? html`aria-current="true"` : ''}>Hour</a></li>
          <li><a href="${HOME}?span=day" ${span === 'hour' ? html`aria-current="true"` : ''}>Day</a></li>
        </ul>
      </nav>
    </div>
    <div id="through" data-live class="pair">
      <div>
        <h3>Enqueued</h3>
        ${bars([{ name: 'created', label: 'enqueued', values: created }], 'Enqueued', unit)}
      </div>
      <div>
        <h3>Ended</h3>
        ${bars(ends, 'Ended', unit)}
      </div>
    </div>
  </section>`;
}

const CLOCK_WORDS: Readonly<Record<Clock, readonly [string, string]>> = {
  queue: ['Our queue', 'until the paid request that was accepted'],
  provider: ['The provider', 'from acceptance to the news that it is over'],
  archive: ['Our archive', 'from the news to the verified file'],
};

export function clocks({ slots }: View, span: Span): Html {
  const sum = sumOf(slots);
  const all = CLOCKS.map((clock): Range => {
    const buckets = sum.clocks[clock];
    const [label, about] = CLOCK_WORDS[clock];
    const count = [...buckets.values()].reduce((a, b) => a + b, 0);
    const at = (share: number) => quantile(buckets, share) ?? 0;
    return { label, about, count, quantiles: count === 0 ? null : [at(0.5), at(0.9), at(0.99)] };
  });
  return html`<section aria-labelledby="clocks-title" class="card">
    <h2 id="clocks-title">Where the time goes, ${SPAN_WORDS[span]}</h2>
    <div id="clocks" data-live>
      ${ranges(all)}
      <p class="scale" aria-hidden="true">${SCALE_LABELS.map((label) => html`<span>${label}</span>`)}</p>
    </div>
  </section>`;
}

export function failures({ slots }: View, span: Span): Html {
  const { failed } = sumOf(slots);
  const all = Object.entries(failed).sort(([, a], [, b]) => b - a);
  const most = all[0]?.[1] ?? 1;
  return html`<section aria-labelledby="failures-title" class="card">
    <h2 id="failures-title">Failures, ${SPAN_WORDS[span]}</h2>
    <div id="failures" data-live>
      ${
        all.length === 0
          ? html`<p class="empty">None.</p>`
          : html`<ul class="shares-list">
              ${all.map(
                ([code, n]) =>
                  html`<li>
                    <code>${code}</code> <span>${countText(n)}</span> ${gauge(n, most, code, 'bad')}
                  </li>`,
              )}
            </ul>`
      }
    </div>
  </section>`;
}

/** BullMQ’s limiter, which never limits here, leaves a key for this long after every job: the stage does not rest then. */
const LIMITER_MS = 1000;

const RUNS: readonly (readonly [RunName, string])[] = [
  ['submit', 'Submit'],
  ['poll', 'Poll'],
  ['archive', 'Archive'],
  ['notify', 'Notify'],
];

export function stages({ backlog, sweptAt, workers }: FleetFigures): Html {
  const line = ([name, label]: readonly [RunName, string]) => {
    const { due, delayed, active, pausedForMs } = backlog[name];
    const isAlone = name !== 'sweep' && workers[name] === 0;
    const paused =
      pausedForMs <= LIMITER_MS
        ? isAlone
          ? 'no worker'
          : 'runs'
        : pausedForMs === Infinity
          ? 'paused by hand'
          : `rests ${durationText(pausedForMs)}`;
    return html`<tr>
      <th scope="row">${label}</th>
      <td>${countText(due)}</td>
      <td>${countText(active)}</td>
      <td>${countText(delayed)}</td>
      <td>${paused}</td>
    </tr>`;
  };
  return html`<section aria-labelledby="stages-title" class="card">
    <h2 id="stages-title">Stages</h2>
    <div id="stages" data-live>
      ${table(['Stage', 'Due', 'Running', 'Later', 'Now'], RUNS.map(line))}
      <p class="small">${sweptAt === null ? 'Never swept yet.' : html`Swept ${instant(sweptAt)}.`}</p>
    </div>
  </section>`;
}

export function everywhere({ generations }: FleetFigures): Html {
  return html`<section aria-labelledby="states-title" class="card">
    <h2 id="states-title">All generations</h2>
    <ul class="states" id="states" data-live>
      ${STATES.map(
        (state: State) =>
          html`<li>
            <a href="${HOME}/generations?state=${state}" title="${STATE_WORDS[state].means}"
              >${stateMark(state)}</a
            >
            <span>${countText(generations[state])}</span>
          </li>`,
      )}
    </ul>
  </section>`;
}

export function newest({ latest }: View): Html {
  if (latest.length === 0) return html`<div id="newest" data-live></div>`;
  return html`<section aria-labelledby="newest-title" class="card wide" id="newest" data-live>
    <h2 id="newest-title">Newest videos</h2>
    <ul class="reel">
      ${latest.map(
        ({ id, request }) =>
          html`<li id="new-${id}">
            <a href="${HOME}/generations/${id}">
              <img src="${HOME}/generations/${id}/assets/poster" alt="" loading="lazy" />
              <span dir="auto">${excerpt(request.prompt)}</span><span class="unseen"> (${shortId(id)})</span>
            </a>
          </li>`,
      )}
    </ul>
  </section>`;
}
