/**
 * The page, kept up to date: whenever the server says that something changed, the page is asked for anew and what it
 * shows is brought in line, part by part. The server's HTML is the only truth; without this script everything still
 * works, only not by itself.
 */
import { follow, show } from './feed.js';
import { rememberFocus } from './focus.js';
import { bringInLine } from './morph.js';
import { showMarkAll, sayOnce } from './forms.js';
import { tellTimes } from './times.js';

/**
 * Progress and figures change without an event of their own: a page looks again at least this often, that of one
 * generation, which is cheap, more often than one of everything.
 */
const LOOK_AGAIN_MS = { one: 2000, all: 5000 };
/** However much happens, the page asks for itself no more often. */
const AT_MOST_EVERY_MS = 1000;

/** The server may be below a path of its host. @param {string} page */
const addressOf = (page) => new URL(`../../${page}`, import.meta.url).pathname;

const { follow: followed = '', build = '' } = document.documentElement.dataset;
/** What is shown: the server answers in a line when it would send the same again. */
let { tag = '' } = document.documentElement.dataset;

let isConnected = () => false;
let askedAt = 0;
let asking = false;
let again = false;

/** What is shown is right again. */
function showLive() {
  if (isConnected()) show('live', 'live');
}

async function refresh() {
  const headers = { accept: 'text/html', 'if-none-match': `"${tag}"` };
  const response = await fetch(location.href, { headers, cache: 'no-store' });
  if (response.status === 304) return showLive();
  if (new URL(response.url).pathname === addressOf('login') || response.status === 401)
    return location.reload();
  const fresh = new DOMParser().parseFromString(await response.text(), 'text/html');
  // An error page has no parts; the old ones stay until the next look, and are said to be old.
  if (!response.ok || fresh.documentElement.dataset.follow === undefined) return show('lost', 'out of date');
  if (fresh.documentElement.dataset.build !== build && !document.activeElement?.closest('form'))
    return location.reload();
  ({ tag = '' } = fresh.documentElement.dataset);
  const giveBack = rememberFocus();
  for (const part of document.querySelectorAll('[data-live]')) {
    const newer = part.id === '' ? null : fresh.getElementById(part.id);
    if (newer) bringInLine(part, newer);
  }
  giveBack();
  showLive();
  tellTimes();
  showMarkAll();
}

/** At once when it was quiet, later when it was not; what comes in between is one look. */
async function lookSoon() {
  again = true;
  if (asking) return;
  asking = true;
  while (again) {
    const wait = askedAt + AT_MOST_EVERY_MS - Date.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    again = false;
    askedAt = Date.now();
    try {
      await refresh();
    } catch {
      // The connection is gone: the feed notices as well, and looks once it is back.
    }
  }
  asking = false;
}

sayOnce();
showMarkAll();
tellTimes();
setInterval(tellTimes, 1000);

if (followed !== '') {
  isConnected = follow(addressOf('events'), (change) => {
    if (change === null || followed === 'all' || change.many || change.ids?.includes(followed))
      void lookSoon();
  });
  setInterval(
    () => {
      if (document.visibilityState === 'visible') void lookSoon();
    },
    LOOK_AGAIN_MS[followed === 'all' ? 'all' : 'one'],
  );
}
