/** Plots as SVG without styles of their own: shapes get their colours from the style sheet, numbers stand in text. */
import { html } from 'hono/html';
import type { Html } from './layout.js';
import { countText, durationText } from './format.js';

export interface Series {
  /** Also its class in the style sheet. */
  readonly name: string;
  readonly label: string;
  readonly values: readonly number[];
}

const WIDTH = 600;
const HEIGHT = 120;

/** The next round number, for the top of an axis. */
export function niceTop(value: number): number {
  if (value <= 4) return 4;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * magnitude).find((top) => top >= value)!;
}

/** Bars on top of each other, one per slot of time; the last slot is still being counted. */
export function bars(series: readonly Series[], what: string, unit: 'min' | 'h'): Html {
  const slots = series[0]?.values.length ?? 0;
  const totals = Array.from({ length: slots }, (_, i) =>
    series.reduce((sum, { values }) => sum + values[i]!, 0),
  );
  const top = niceTop(Math.max(0, ...totals));
  const step = WIDTH / Math.max(1, slots);
  const gap = Math.min(3, step / 4);
  const shapes = totals.map((_, i) => {
    if (totals[i] === 0) return '';
    let y = HEIGHT;
    const rects = series.map(({ name, values }) => {
      const height = (HEIGHT * values[i]!) / top;
      y -= height;
      return height === 0
        ? ''
        : html`<rect
            class="${name}"
            x="${(i * step).toFixed(1)}"
            y="${y.toFixed(1)}"
            width="${(step - gap).toFixed(1)}"
            height="${height.toFixed(1)}"
          ></rect>`;
    });
    const age = slots - 1 - i;
    const told = series
      .filter(({ values }) => values[i]! > 0)
      .map(({ label, values }) => `${countText(values[i]!)} ${label}`);
    // Shown beside the pointer.
    return html`<g>
      <title>${age === 0 ? 'now' : `${age} ${unit} ago`}: ${told.join(', ')}</title>
      ${rects}
    </g>`;
  });
  const sums = series.map(({ label, values }) => ({ label, sum: values.reduce((a, b) => a + b, 0) }));
  const told = sums.map(({ label, sum }) => `${countText(sum)} ${label}`).join(', ');
  return html`<figure class="bars">
    <div class="plot">
      <span class="top">${countText(top)}</span>
      <svg
        viewBox="0 0 ${WIDTH} ${HEIGHT}"
        preserveAspectRatio="none"
        role="img"
        aria-label="${what}: ${told}"
      >
        <line class="grid" x1="0" x2="${WIDTH}" y1="0.5" y2="0.5"></line>
        <line class="grid" x1="0" x2="${WIDTH}" y1="${HEIGHT / 2}" y2="${HEIGHT / 2}"></line>
        <line class="grid" x1="0" x2="${WIDTH}" y1="${HEIGHT - 0.5}" y2="${HEIGHT - 0.5}"></line>
        ${shapes}
      </svg>
    </div>
    <figcaption><span>${slots} ${unit} ago</span><span>now</span></figcaption>
    <ul class="legend">
      ${series.map(
        ({ name, label }, i) =>
          html`<li>
            <span class="swatch ${name}" aria-hidden="true"></span>${countText(sums[i]!.sum)} ${label}
          </li>`,
      )}
    </ul>
  </figure>`;
}

/** How much of the most there may be, as a bar; more than the most fills it. */
export function gauge(value: number, most: number, label: string, tone: 'calm' | 'bad'): Html {
  const share = most <= 0 ? 0 : Math.min(1, Math.max(0, value / most));
  return html`<svg
    class="gauge"
    data-tone="${tone}"
    viewBox="0 0 100 4"
    preserveAspectRatio="none"
    role="meter"
    aria-label="${label}"
    aria-valuemin="0"
    aria-valuemax="${most}"
    aria-valuenow="${Math.min(value, most)}"
  >
    <rect width="${(100 * share).toFixed(1)}" height="4"></rect>
  </svg>`;
}

export interface Range {
  readonly label: string;
  readonly about: string;
  readonly count: number;
  /** Milliseconds: half, nine of ten, and 99 of 100 took at most so long. Null of none. */
  readonly quantiles: readonly [number, number, number] | null;
}

const SCALE_FROM_MS = 10;
const SCALE_TO_MS = 1_000_000;
const TICKS = [100, 1000, 10_000, 100_000];
/** At equal distances along the scale. */
export const SCALE_LABELS = ['10 ms', '100 ms', '1 s', '10 s', '100 s', '17 min'];

/** Where a duration lies on the common scale, 0 to 100: each step to the right is a multiple. */
function onScale(ms: number): number {
  const share = Math.log(ms / SCALE_FROM_MS) / Math.log(SCALE_TO_MS / SCALE_FROM_MS);
  return 100 * Math.min(1, Math.max(0, share));
}

/** Ranges of durations on one logarithmic scale, so that clocks of seconds and of minutes can be compared. */
export function ranges(all: readonly Range[]): Html {
  const lines = all.map(({ label, about, count, quantiles }) => {
    const numbers = quantiles
      ? html`half within <strong>${durationText(quantiles[0])}</strong>, 90 % ${durationText(quantiles[1])},
          99 % ${durationText(quantiles[2])}`
      : 'none yet';
    const [mid, most, nearlyAll] = quantiles ? quantiles.map(onScale) : [];
    const shapes = quantiles
      ? html`<line class="whole" x1="${mid!.toFixed(1)}" x2="${nearlyAll!.toFixed(1)}" y1="5" y2="5"></line>
          <line class="most" x1="${mid!.toFixed(1)}" x2="${most!.toFixed(1)}" y1="5" y2="5"></line>
          <line class="mid" x1="${mid!.toFixed(1)}" x2="${mid!.toFixed(1)}" y1="1" y2="9"></line>`
      : '';
    return html`<li>
      <p><strong>${label}</strong> <span class="small">${about}</span></p>
      <svg class="range" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
        ${TICKS.map((ms) => html`<line class="grid" x1="${onScale(ms).toFixed(1)}" x2="${onScale(ms).toFixed(1)}" y1="0" y2="10"></line>`)}
        ${shapes}
      </svg>
      <p class="small">${numbers} <span class="of">of ${countText(count)}</span></p>
    </li>`;
  });
  return html`<ul class="ranges">
    ${lines}
  </ul>`;
}
