/**
 * Where somebody is with the keyboard, across a look at what is new. Should the very thing be gone, the next one of its
 * part takes its place, so that nobody is thrown back to the top of the page.
 */

const FOCUSABLE = 'a[href], button, input:not([type=hidden]), summary, video, [tabindex]';

/** @returns {() => void} to be called when the page is new */
export function rememberFocus() {
  const focused = document.activeElement;
  const part = focused?.closest('[data-live]') ?? null;
  if (!focused || !part) return () => {};
  const place = [...part.querySelectorAll(FOCUSABLE)].indexOf(focused);
  return () => {
    if (focused.isConnected) return;
    const left = [...part.querySelectorAll(FOCUSABLE)];
    const order = [
      ...left.slice(place),
      ...left.slice(0, place).toReversed(),
      document.getElementById('content'),
    ];
    for (const one of order) {
      // What is folded away takes no focus.
      if (one instanceof HTMLElement) one.focus({ preventScroll: true });
      if (document.activeElement === one) return;
    }
  };
}
