/** What forms do beyond sending themselves. */

/** Shows once what was just done: it is removed from the address, so that reloading the page does not show it again. */
export function sayOnce() {
  if (!document.querySelector('[data-once]')) return;
  const address = new URL(location.href);
  for (const name of ['done', 'n', 'left']) address.searchParams.delete(name);
  history.replaceState(null, '', address);
}

/** Shows the buttons that tick every box of their form, which need this script. */
export function showMarkAll() {
  for (const button of document.querySelectorAll('button[data-mark-all]')) button.removeAttribute('hidden');
}

document.addEventListener('click', ({ target }) => {
  if (!(target instanceof HTMLButtonElement) || !target.matches('[data-mark-all]')) return;
  const boxes = [...(target.form?.querySelectorAll('input') ?? [])].filter(({ type }) => type === 'checkbox');
  const all = boxes.every(({ checked }) => checked);
  for (const box of boxes) box.checked = !all;
});
