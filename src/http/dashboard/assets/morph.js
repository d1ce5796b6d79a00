/**
 * Changes the page to what the server says, with as few changes as possible: focus, unfolded details and ticked boxes stay,
 * and a video plays on.
 */

/** Attributes that the reader changed, and the server does not know. */
const OWN = new Set(['open', 'hidden']);

/** @param {Node} node */
const keyOf = (node) => (node instanceof Element && node.id !== '' ? node.id : null);

/**
 * @param {Node} a
 * @param {Node} b
 */
function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
}

/**
 * @param {Element} shown
 * @param {Element} newer
 */
function copyAttributes(shown, newer) {
  for (const { name } of [...shown.attributes])
    if (!newer.hasAttribute(name) && !OWN.has(name)) shown.removeAttribute(name);
  for (const { name, value } of newer.attributes)
    if (!OWN.has(name) && shown.getAttribute(name) !== value) shown.setAttribute(name, value);
}

/**
 * @param {Element} shown
 * @param {Element} newer
 */
export function bringInLine(shown, newer) {
  const kept = shown.getAttribute('data-keep');
  if (kept !== null && kept === newer.getAttribute('data-keep')) return;
  copyAttributes(shown, newer);
  // times.js writes the text of an instant.
  if (shown.localName === 'time') return;

  /** @type {Map<string, ChildNode>} */
  const byKey = new Map();
  for (const child of shown.childNodes) {
    const key = keyOf(child);
    if (key !== null) byKey.set(key, child);
  }
  const wantedKeys = new Set([...newer.childNodes].map(keyOf));
  /** @type {ChildNode | null} */
  let at = shown.firstChild;
  for (const wanted of [...newer.childNodes]) {
    // Removed elements first: moving an element that stays would take the focus from it.
    while (at !== null && keyOf(at) !== null && !wantedKeys.has(keyOf(at))) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
    const key = keyOf(wanted);
    const known = key === null ? null : (byKey.get(key) ?? null);
    if (known !== null && known !== at && alike(known, wanted)) {
      shown.insertBefore(known, at);
      at = known;
    }
    if (at !== null && alike(at, wanted)) {
      if (at instanceof Element && wanted instanceof Element) bringInLine(at, wanted);
      else if (at.nodeValue !== wanted.nodeValue) at.nodeValue = wanted.nodeValue;
      at = at.nextSibling;
    } else shown.insertBefore(document.importNode(wanted, true), at);
  }
  while (at !== null) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
