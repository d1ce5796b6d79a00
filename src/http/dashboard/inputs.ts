/** What a generation starts from, as pictures, and its neighbours in a chain. */
import { html } from 'hono/html';
import { inputsOf, type Input, type InputField } from '../../generation/inputs.js';
import type { GenerationRecord } from '../../generation/record.js';
import type { Hub } from '../../pipeline/context.js';
import { findInput } from '../../pipeline/input-files.js';
import { shortId } from './components.js';
import { HOME } from './identity.js';
import type { Html } from './layout.js';

const LABELS: Readonly<Record<InputField, string>> = { image: 'Starts from', last_image: 'Ends with' };
const ASSET_WORDS = { lastFrame: 'The last frame', poster: 'The poster' } as const;
/** So many of those that start from this one are named. */
const MOST_NEXT = 20;

const link = (id: string): Html => html`<a href="${HOME}/generations/${id}"><code>${shortId(id)}</code></a>`;

function words(input: Input): Html {
  if (typeof input === 'string') return html`<code class="key">${input}</code>`;
  if ('generation' in input) return html`${ASSET_WORDS[input.asset]} of generation ${link(input.generation)}`;
  return 'input' in input ? html`An upload` : html`<code class="key">${input.storageKey}</code>`;
}

/** Of a public URL only the address is shown: loading it would tell its host of the visit. */
async function shown(hub: Hub, record: GenerationRecord, field: InputField, input: Input): Promise<Html> {
  const found = typeof input === 'string' ? null : await findInput(hub, record, input);
  const src = `${HOME}/generations/${record.id}/inputs/${field}`;
  return html`<dt>${LABELS[field]}</dt>
    <dd>
      ${words(input)}
      ${found?.kind === 'file' ? html`<img class="input" src="${src}" alt="${LABELS[field]} this picture" loading="lazy" />` : ''}
    </dd>`;
}

/** Rows for the facts of a generation. */
export async function inputFacts(hub: Hub, record: GenerationRecord): Promise<Html> {
  const [own, after] = await Promise.all([
    Promise.all(inputsOf(record.request).map(({ field, input }) => shown(hub, record, field, input))),
    hub.store.after(record.id),
  ]);
  const more = after.length - MOST_NEXT;
  const next =
    after.length === 0
      ? ''
      : html`<dt>Start from it</dt>
          <dd>
            ${after.slice(0, MOST_NEXT).map((id) => html`${link(id)} `)}${more > 0 ? `and ${more} more` : ''}
          </dd>`;
  return html`${own}${next}`;
}
