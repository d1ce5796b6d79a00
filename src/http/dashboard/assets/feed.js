/**
 * The connection over which the server says what changed. It is open while the page is seen, since a browser opens only
 * a few to one host; when it was lost it comes back by itself, and then the page looks once, whatever it has missed.
 */

/** The browser gives up by itself only when it got an answer that is no stream, such as that of a proxy. */
const TRY_AGAIN_MS = 3000;

/**
 * @param {'live' | 'lost' | 'still'} state
 * @param {string} words
 */
export function show(state, words) {
  const shown = document.getElementById('connection');
  const said = shown?.querySelector('.said');
  if (!shown || !said || shown.dataset.state === state) return;
  shown.dataset.state = state;
  said.textContent = words;
}

/**
 * @param {string} address
 * @param {(change: { many?: boolean, ids?: string[] } | null) => void} onChange null: look, something may have been missed
 * @returns {() => boolean} is it connected just now?
 */
export function follow(address, onChange) {
  /** @type {EventSource | null} */
  let source = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  function open() {
    clearTimeout(timer);
    source = new EventSource(address);
    source.addEventListener('hello', () => {
      show('live', 'live');
      onChange(null);
    });
    source.addEventListener('changed', (event) => onChange(JSON.parse(event.data)));
    source.addEventListener('error', () => {
      show('lost', 'reconnecting…');
      if (source?.readyState !== EventSource.CLOSED) return;
      onChange(null);
      timer = setTimeout(open, TRY_AGAIN_MS);
    });
  }

  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
    show('still', 'resting');
  }

  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'hidden') close();
    else if (source === null) open();
  });
  // A page that is put aside would hold its connection open; coming back it opens one again.
  addEventListener('pagehide', close);
  addEventListener('pageshow', () => {
    if (source === null) open();
  });
  open();
  return () => source?.readyState === EventSource.OPEN;
}
