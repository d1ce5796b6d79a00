/**
 * bull-board draws some of its buttons as pictures only. Here they get the names that people who hear the page, or whose
 * pointer rests on a button, need; the rest of it is left as it is.
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
  // The one picture that is no such icon is the mark of Redis.
  return known ?? called ?? 'Redis';
}

function nameAll() {
  for (const control of document.querySelectorAll('button, a')) {
    if (!(control instanceof HTMLElement)) continue;
    const named = ['aria-label', 'aria-labelledby', 'title'].some((name) => control.hasAttribute(name));
    // What is seen: the style inside a picture is text as well.
    if (named || control.innerText.trim() || !control.querySelector('svg')) continue;
    const name = nameOf(control);
    control.setAttribute('aria-label', name);
    control.setAttribute('title', name);
  }
  // A name that says something else than what is seen there; the text alone says it.
  for (const link of document.querySelectorAll('main a[aria-label]'))
    if (link instanceof HTMLElement && link.innerText.trim()) link.removeAttribute('aria-label');
  // A column of buttons has no title there.
  for (const head of document.querySelectorAll('th:empty')) head.setAttribute('role', 'presentation');
  for (const svg of document.querySelectorAll('svg[role=img]:not([aria-hidden])')) {
    svg.removeAttribute('role');
    svg.setAttribute('aria-hidden', 'true');
  }
  // They stand right below the page's own heading.
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
