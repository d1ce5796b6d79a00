/** JSON as the provider sends it: whole numbers keep their digits, and what is not JSON is no error. */

/**
 * The text with every integer too big for a double in quotes, so that its digits survive `JSON.parse`: a task id cut
 * to 2^53 would be the task of another request. Expects valid JSON, hence the simple scan: strings, and what lies between.
 */
function quoteBigIntegers(json: string): string {
  let quoted = '';
  let copied = 0;
  let i = 0;
  while (i < json.length) {
    const character = json.charAt(i);
    if (character === '"') {
      i += 1;
      while (json.charAt(i) !== '"') i += json.charAt(i) === '\\' ? 2 : 1;
      i += 1;
    } else if (/[-\d]/.test(character)) {
      const start = i;
      while (/[-+.\deE]/.test(json.charAt(i))) i += 1;
      const number = json.slice(start, i);
      if (/^-?\d+$/.test(number) && !Number.isSafeInteger(Number(number))) {
        quoted += `${json.slice(copied, start)}"${number}"`;
        copied = i;
      }
    } else i += 1;
  }
  return quoted + json.slice(copied);
}

/** The JSON value of a body; undefined when it is not JSON. A byte order mark is forgiven. */
export function parseJson(text: string): unknown {
  const json = text.startsWith('\uFEFF') ? text.slice(1) : text;
  try {
    const value: unknown = JSON.parse(json);
    return /\d{16}/.test(json) ? (JSON.parse(quoteBigIntegers(json)) as unknown) : value;
  } catch {
    return undefined;
  }
}
