/** The history of one generation, from its record and the kept answers of the provider, without the event stream. */
import { html } from 'hono/html';
import type { GenerationRecord, RawAnswer } from '../../generation/record.js';
import type { State } from '../../generation/states.js';
import { readTrail, type Step } from '../../generation/history.js';
import type { Html } from './layout.js';
import { instant, stateMark } from './components.js';
import { durationText, STATE_WORDS } from './format.js';

/** A stay in one state. `untilAt` is null while it lasts. */
export interface Stay {
  readonly state: State;
  readonly fromAt: number;
  readonly untilAt: number | null;
}

/** The first steps of a very long history are not kept: then it begins in the middle. */
export function staysOf({ trail, createdAt, rev }: GenerationRecord): { stays: Stay[]; whole: boolean } {
  const steps = readTrail(trail, createdAt);
  const whole = steps.length >= rev;
  const all: Step[] = whole ? [{ state: 'queued', at: createdAt }, ...steps] : steps;
  const stays = all.map(({ state, at }, i) => ({ state, fromAt: at, untilAt: all[i + 1]?.at ?? null }));
  return { stays, whole };
}

const CALLS: Readonly<Record<RawAnswer['call'], string>> = {
  submit: 'Answer to the submit',
  poll: 'Answer to a poll',
  callback: 'Callback of the provider',
};

function pretty(body: string): string {
  try {
    return JSON.stringify(JSON.parse(body), null, 2);
  } catch {
    return body;
  }
}

function answerLine({ at, call, httpStatus, requestId, body, error }: RawAnswer, open: boolean): Html {
  // A callback is no answer, so it has no status.
  const noStatus = call === 'callback' ? null : 'no answer';
  const said = error ?? (httpStatus === null ? noStatus : `HTTP\u00A0${httpStatus}`);
  const words =
    body === ''
      ? ''
      : html`<details ${open ? html`open` : ''}>
          <summary>What it said, word for word</summary>
          <pre tabindex="0">${pretty(body)}</pre>
        </details>`;
  return html`<li class="answer" id="answer-${at}-${call}">
    ${instant(at, 'clock')}
    <div>
      <p>
        <strong>${CALLS[call]}</strong>
        ${said === null ? '' : html`<code>${said}</code>`}
        ${requestId === null ? '' : html`<span class="small">request ${requestId}</span>`}
      </p>
      ${words}
    </div>
  </li>`;
}

/** What happened beside the transitions while it was there. */
function beside(record: GenerationRecord, { state, untilAt }: Stay): Html | '' {
  const { attempts, polledAt, hints, hintedAt } = record;
  const times = (n: number, one: string, many: string) => (n === 1 ? `1 ${one}` : `${n} ${many}`);
  if (state === 'generating') {
    const polls = attempts.poll === 0 ? 'not polled yet' : times(attempts.poll, 'poll', 'polls');
    const last =
      polledAt === null ? '' : html`, the last ${instant(polledAt, untilAt === null ? 'ago' : 'clock')}`;
    const called =
      hints === 0
        ? 'no callback'
        : html`${times(hints, 'callback', 'callbacks')}${hintedAt === null ? '' : html`, the last ${instant(hintedAt, 'clock')}`}`;
    return html`<p class="small">${polls}${last}; ${called}</p>`;
  }
  if (state === 'submitting' && attempts.submit > 0)
    return html`<p class="small">
      ${times(attempts.submit, 'submit', 'submits')}${untilAt === null ? ' so far' : ''}
    </p>`;
  if (state === 'archiving' && attempts.archive > 0)
    return html`<p class="small">${times(attempts.archive, 'try', 'tries')} to archive it</p>`;
  return '';
}

function stayLine(record: GenerationRecord, stay: Stay, now: number, isLastOfState: boolean): Html {
  const { state, fromAt, untilAt } = stay;
  const over = ['succeeded', 'failed', 'canceled'].includes(state);
  const lasted = over
    ? ''
    : html`<span class="small"
        >${untilAt === null ? `for ${durationText(now - fromAt)} so far` : durationText(untilAt - fromAt)}</span
      >`;
  return html`<li class="stay" data-state="${state}" id="stay-${fromAt}-${state}">
    ${instant(fromAt, 'clock')}
    <div>
      <p>${stateMark(state)} ${lasted}</p>
      ${isLastOfState ? beside(record, stay) : ''}
    </div>
  </li>`;
}

/** Where the time went, as one bar. Shares below a hundredth are drawn that wide, so that they can be seen. */
export function shareBar(stays: readonly Stay[], now: number): Html {
  const spans = stays
    .filter(({ state }) => !['succeeded', 'failed', 'canceled'].includes(state))
    .map(({ state, fromAt, untilAt }) => ({ state, ms: Math.max(0, (untilAt ?? now) - fromAt) }));
  const total = spans.reduce((sum, { ms }) => sum + ms, 0);
  if (total === 0) return html``;
  const told = spans.map(({ state, ms }) => `${STATE_WORDS[state].label.toLowerCase()} ${durationText(ms)}`);
  let x = 0;
  const widths = spans.map(({ ms }) => Math.max(0.01, ms / total));
  const sum = widths.reduce((a, b) => a + b, 0);
  const parts = spans.map(({ state }, i) => {
    const width = (100 * widths[i]!) / sum;
    const part = html`<rect
      x="${x.toFixed(2)}"
      y="0"
      width="${width.toFixed(2)}"
      height="4"
      data-state="${state}"
    >
      <title>${told[i]}</title>
    </rect>`;
    x += width;
    return part;
  });
  return html`<svg
    class="shares"
    viewBox="0 0 100 4"
    preserveAspectRatio="none"
    role="img"
    aria-label="Where the time went: ${told.join(', ')}"
  >
    ${parts}
  </svg>`;
}

/** Is the provider's last answer the reason why it stopped? A failure of the archive stage has other reasons. */
const tellsWhy = ({ state, failure }: GenerationRecord): boolean =>
  state === 'unconfirmed' || (failure !== null && failure.stage !== 'archive');

const later = (one: RawAnswer | null, other: RawAnswer): RawAnswer =>
  one === null || other.at >= one.at ? other : one;

export function timeline(record: GenerationRecord, answers: readonly RawAnswer[], now: number): Html {
  const { stays, whole } = staysOf(record);
  const lastOf = new Map(stays.map((stay) => [stay.state, stay] as const));
  // The last answer is the reason: it is shown open.
  const telling = tellsWhy(record) ? answers.reduce<RawAnswer | null>(later, null) : null;
  const lines = [
    ...stays.map((stay, i) => ({
      at: stay.fromAt,
      order: 2 * i + 1,
      line: stayLine(record, stay, now, lastOf.get(stay.state) === stay),
    })),
    // An answer is the reason of the step that follows it.
    ...answers.map((answer) => ({ at: answer.at, order: 0, line: answerLine(answer, answer === telling) })),
  ].sort((a, b) => a.at - b.at || a.order - b.order);
  return html`<section aria-labelledby="timeline-title">
    <h2 id="timeline-title">What happened</h2>
    <div id="timeline" data-live>
      ${shareBar(stays, now)}
      ${whole ? '' : html`<p class="small">It is a long story: the first steps were not kept.</p>`}
      <ol class="timeline">
        ${lines.map(({ line }) => line)}
      </ol>
    </div>
  </section>`;
}
