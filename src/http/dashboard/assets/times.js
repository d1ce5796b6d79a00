/** Instants in the reader's own time zone and language. The server writes them in UTC, for a browser without scripts. */

const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const day = new Intl.DateTimeFormat(undefined, {
  month: 'short',
  day: 'numeric',
  hour: '2-digit',
  minute: '2-digit',
});
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto', style: 'short' });

const DAY_MS = 86_400_000;
/** @type {[Intl.RelativeTimeFormatUnit, number][]} */
const UNITS = [
  ['day', DAY_MS],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
];

/** @param {number} at */
function ago(at) {
  const ms = at - Date.now();
  const [unit, size] = UNITS.find(([, one]) => Math.abs(ms) >= one) ?? ['second', 1000];
  return relative.format(Math.trunc(ms / size), unit);
}

/**
 * @param {number} at
 * @param {string | undefined} style
 */
function words(at, style) {
  if (style === 'full') return full.format(at);
  if (style === 'clock') return Math.abs(Date.now() - at) < DAY_MS ? clock.format(at) : day.format(at);
  return ago(at);
}

/** Writes every instant on the page anew. */
export function tellTimes() {
  for (const time of document.querySelectorAll('time[datetime]')) {
    if (!(time instanceof HTMLTimeElement)) continue;
    const at = Date.parse(time.dateTime);
    const text = words(at, time.dataset.style);
    if (time.textContent !== text) time.textContent = text;
    const title = full.format(at);
    if (time.title !== title) time.title = title;
  }
}
