/** Small pieces of pages: instants, states, ids. */
import { html } from 'hono/html';
import type { Charge } from '../../generation/record.js';
import type { State } from '../../generation/states.js';
import type { Visitor } from './identity.js';
import type { Html } from './layout.js';
import { CHARGE_WORDS, STATE_WORDS } from './format.js';

/** An instant: in UTC as it comes, in the reader's own zone or as “3 min ago” once the script has seen it. */
export function instant(at: number, style: 'ago' | 'clock' | 'full' = 'ago'): Html {
  const iso = new Date(at).toISOString();
  return html`<time datetime="${iso}" data-style="${style}">${iso.slice(0, 19).replace('T', ' ')} UTC</time>`;
}

export const stateMark = (state: State): Html =>
  html`<span class="state" data-state="${state}">${STATE_WORDS[state].label}</span>`;

export const chargeMark = (charge: Charge): Html =>
  html`<span class="charge" data-charge="${charge}">${CHARGE_WORDS[charge]}</span>`;

export function progressBar(percent: number | null, label: string): Html {
  if (percent === null) return html``;
  return html`<span class="progress"
    ><progress max="100" value="${percent}" aria-label="${label}"></progress> ${Math.round(percent)} %</span
  >`;
}

/** In every form that changes something. */
export const csrfField = ({ csrf }: Visitor): Html =>
  html`<input type="hidden" name="csrf" value="${csrf ?? ''}" />`;

export const table = (heads: readonly string[], rows: readonly Html[]): Html =>
  html`<table>
    <thead>
      <tr>
        ${heads.map((head) => html`<th scope="col">${head}</th>`)}
      </tr>
    </thead>
    <tbody>
      ${rows}
    </tbody>
  </table>`;

/** People recognize a UUIDv7 by its last part; the first parts are the time. */
export const shortId = (id: string): string => id.slice(-12);

/** Length of a prompt that is used as a title; a prompt can have twenty thousand characters. */
const EXCERPT_LENGTH = 140;

/** The beginning of a text, by whole characters: half an emoji is none. */
export function excerpt(text: string, length = EXCERPT_LENGTH): string {
  if (text.length <= length) return text;
  const characters = Array.from(text.slice(0, 2 * length + 2));
  return characters.length > length
    ? `${characters
        .slice(0, length - 1)
        .join('')
        .trimEnd()}…`
    : characters.join('');
}

/** What was just done, as the address says; nothing for words it does not know. */
export function notice(kind: 'good' | 'bad', text: string): Html {
  return html`<p class="notice ${kind}" role="${kind === 'bad' ? 'alert' : 'status'}" data-once>${text}</p>`;
}
