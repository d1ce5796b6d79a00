/**
 * Keeps the page up to date: every two seconds it asks the server for itself, and its parts are changed to what the server
 * says. The HTML of the server is the only truth. Without this script everything works, but pages do not renew themselves.
 */
import { rememberFocus } from './focus.js';
import { bringInLine } from './morph.js';
import { showMarkAll, sayOnce } from './forms.js';
import { tellTimes } from './times.js';

const EVERY_MS = 2000;
/** Longer than the server takes to say that Redis does not answer. */
const ANSWER_WITHIN_MS = 15_000;

/** The server may be below a path of its host. */
const login = new URL('../../login', import.meta.url).pathname;

const { renewed, build = '' } = document.documentElement.dataset;
/** Of the page that is shown: the server answers 304 instead of sending the same page again. */
let tag = '';
let asking = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/**
 * @param {'live' | 'lost' | 'still'} state
 * @param {string} words
 */
function show(state, words) {
  const shown = document.getElementById('connection');
  const said = shown?.querySelector('.said');
  if (!shown || !said) return;
  shown.dataset.state = state;
  if (said.textContent !== words) said.textContent = words;
}

async function refresh() {
  const response = await fetch(location.href, {
    headers: { accept: 'text/html', 'if-none-match': tag },
    cache: 'no-store',
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
  });
  if (response.status === 304) return show('live', 'live');
  if (new URL(response.url).pathname === login || response.status === 401) return location.reload();
  const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
  // An error page has no parts: the old ones stay until the next answer.
  if (!response.ok || fresh.documentElement.dataset.renewed === undefined) return show('lost', 'out of date');
  if (fresh.documentElement.dataset.build !== build && !document.activeElement?.closest('form'))
    return location.reload();
  tag = response.headers.get('etag') ?? '';
  const giveBack = rememberFocus();
  for (const part of document.querySelectorAll('[data-live]')) {
    const newer = part.id === '' ? null : fresh.getElementById(part.id);
    if (newer) bringInLine(part, newer);
  }
  giveBack();
  show('live', 'live');
  tellTimes();
  showMarkAll();
}

/** Renews the page again and again while it is visible. */
async function keepUpToDate() {
  if (asking) return;
  clearTimeout(timer);
  if (document.visibilityState === 'hidden') return show('still', 'resting');
  asking = true;
  try {
    await refresh();
  } catch {
    show('lost', 'reconnecting…');
  }
  asking = false;
  timer = setTimeout(() => void keepUpToDate(), EVERY_MS);
}

sayOnce();
showMarkAll();
tellTimes();
setInterval(tellTimes, 1000);

if (renewed !== undefined) {
  document.addEventListener('visibilitychange', () => void keepUpToDate());
  void keepUpToDate();
}
