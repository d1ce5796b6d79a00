/**
 * Keeps the keyboard focus when the page is renewed. If the focused element is gone, the next one of its part gets the
 * focus, so that the reader does not start again at the top of the page.
 */

const FOCUSABLE = 'a[href], button, input:not([type=hidden]), summary, video, [tabindex]';

/** @returns {() => void} to be called when the page was renewed */
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
      // A folded element takes no focus.
      if (one instanceof HTMLElement) one.focus({ preventScroll: true });
      if (document.activeElement === one) return;
    }
  };
}
