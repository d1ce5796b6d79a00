/**
 * bull-board draws some of its buttons as pictures only. This script gives each of them a name, for screen readers and as a
 * tooltip, and changes nothing else.
 */

/** By the icon of a button. @type {Readonly<Record<string, string>>} */
const NAMES = {
  maximize: 'Full screen',
  settings: 'Settings',
  'circle-user': 'More: back to the dashboard',
  'ellipsis-vertical': 'More',
  'corner-up-left': 'Promote',
  clock: 'Reschedule',
  files: 'Duplicate',
  pencil: 'Update data',
  'trash-2': 'Remove',
  copy: 'Copy',
  'rotate-cw': 'Retry',
  x: 'Close',
};

/** @param {Element} control */
function nameOf(control) {
  const icons = [...control.querySelectorAll('svg')].flatMap((svg) => [...svg.classList]);
  const known = icons.map((icon) => NAMES[icon.replace('lucide-', '')]).find((name) => name !== undefined);
  const called = icons
    .find((icon) => icon.startsWith('lucide-'))
    ?.replace('lucide-', '')
    .replaceAll('-', ' ');
  // The only other picture is the logo of Redis.
  return known ?? called ?? 'Redis';
}

function nameAll() {
  for (const control of document.querySelectorAll('button, a')) {
    if (!(control instanceof HTMLElement)) continue;
    const named = ['aria-label', 'aria-labelledby', 'title'].some((name) => control.hasAttribute(name));
    // The visible text: `textContent` would hold the style inside a picture.
    if (named || control.innerText.trim() || !control.querySelector('svg')) continue;
    const name = nameOf(control);
    control.setAttribute('aria-label', name);
    control.setAttribute('title', name);
  }
  // These names contradict the visible text, which is enough.
  for (const link of document.querySelectorAll('main a[aria-label]'))
    if (link instanceof HTMLElement && link.innerText.trim()) link.removeAttribute('aria-label');
  // A column of buttons has no title there.
  for (const head of document.querySelectorAll('th:empty')) head.setAttribute('role', 'presentation');
  for (const svg of document.querySelectorAll('svg[role=img]:not([aria-hidden])')) {
    svg.removeAttribute('role');
    svg.setAttribute('aria-hidden', 'true');
  }
  // They follow the heading of the page, which has level 1.
  for (const heading of document.querySelectorAll('main h5')) heading.setAttribute('aria-level', '2');
  const logo = document.querySelector('header a:has(> img)');
  logo?.querySelector('img')?.setAttribute('alt', '');
  const title = logo?.querySelector('span');
  title?.setAttribute('role', 'heading');
  title?.setAttribute('aria-level', '1');
}

let asked = false;
new MutationObserver(() => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    nameAll();
  });
}).observe(document.documentElement, { childList: true, subtree: true });
nameAll();
