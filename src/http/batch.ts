/**
 * The body of a batch, taken apart without parsing it whole: 16 MiB of nested arrays as one `JSON.parse` would hold the
 * event loop for seconds and take a gigabyte. The text of each item is found first, in slices between which other
 * requests are answered; then each item is bounded and parsed by itself.
 */
import { setImmediate as otherRequests } from 'node:timers/promises';
import { z } from 'zod';
import { InvalidInputError } from '../errors.js';
import { check, MAX_BODY_BYTES } from './bodies.js';
import { HttpError } from './problems.js';
import { MAX_BATCH } from './schemas.js';

/** So many characters are looked at in one go: about a millisecond. */
const SLICE_CHARS = 256 * 1024;
/** Containers and commas beside the items; a valid body has one list and no other field. */
const MAX_BESIDE = 100;
const HEADLINE = 'Nothing was enqueued';

const frameSchema = z.strictObject({ items: z.array(z.unknown()) });
const malformed = () => new HttpError(400, 'malformed_json', 'Expected a body that is JSON.');
const tooMany = () =>
  new InvalidInputError(HEADLINE, [{ path: 'items', message: `expected 1 to ${MAX_BATCH} items` }]);

/** Finds the elements of the lists directly within the outermost object, with one pass over the text. */
class Splitter {
  readonly #text: string;
  #at = 0;
  #depth = 0;
  #inString = false;
  #beside = 0;
  #itemFrom = 0;
  #frameFrom = 0;
  /** The text without what is within the lists. */
  frame = '';
  items: string[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  /** Looks at the next slice. @returns false when that was the last one */
  step(): boolean {
    const end = Math.min(this.#at + SLICE_CHARS, this.#text.length);
    while (this.#at < end) {
      this.#look(this.#text.charCodeAt(this.#at));
      this.#at += 1;
    }
    if (this.#at < this.#text.length) return true;
    this.frame += this.#text.slice(this.#frameFrom);
    return false;
  }

  #look(char: number): void {
    if (this.#inString) {
      if (char === 0x5c) this.#at += 1;
      else if (char === 0x22) this.#inString = false;
    } else if (char === 0x22) this.#inString = true;
    else if (char === 0x5b || char === 0x7b) this.#open();
    else if (char === 0x5d || char === 0x7d) this.#close();
    else if (char === 0x2c) this.#comma();
  }

  #open(): void {
    this.#depth += 1;
    if (this.#depth !== 2) return;
    this.#countBeside();
    this.items = [];
    this.#itemFrom = this.#at + 1;
    this.frame += this.#text.slice(this.#frameFrom, this.#at + 1);
  }

  #close(): void {
    this.#depth -= 1;
    if (this.#depth !== 1) return;
    this.#endItem();
    if (this.items.length === 1 && this.items[0]!.trim() === '') this.items = [];
    this.#frameFrom = this.#at;
  }

  #comma(): void {
    if (this.#depth === 1) this.#countBeside();
    else if (this.#depth === 2) this.#endItem();
  }

  #endItem(): void {
    if (this.items.length === MAX_BATCH) throw tooMany();
    this.items.push(this.#text.slice(this.#itemFrom, this.#at));
    this.#itemFrom = this.#at + 1;
  }

  #countBeside(): void {
    if (++this.#beside > MAX_BESIDE)
      throw new InvalidInputError(HEADLINE, [{ path: '', message: 'expected { "items": [ … ] }' }]);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw malformed();
  }
}

/**
 * The text of each item.
 * @throws HttpError when the whole is no JSON; InvalidInputError when it is no batch
 */
export async function splitBatch(text: string): Promise<string[]> {
  const splitter = new Splitter(text);
  while (splitter.step()) await otherRequests();
  const { items, frame } = splitter;
  check(frameSchema, parse(frame), HEADLINE);
  if (items.length === 0) throw tooMany();
  return items;
}

/** Its items in groups: between two of them other requests are answered. */
export function* sliced(items: readonly string[]): Generator<readonly string[]> {
  let from = 0;
  let chars = 0;
  for (const [i, { length }] of items.entries()) {
    if (i > from && (chars + length > SLICE_CHARS || i - from === 50)) {
      yield items.slice(from, i);
      from = i;
      chars = 0;
    }
    chars += length;
  }
  yield items.slice(from);
}

/**
 * One item; null when it is larger than one generation may be, and was not looked into.
 * @throws HttpError when it is no JSON
 */
export function parseItem(text: string): { readonly body: unknown } | null {
  return Buffer.byteLength(text) > MAX_BODY_BYTES ? null : { body: parse(text) };
}

/** @throws HttpError when one of them is no JSON: then nothing of the batch is enqueued */
export async function checkSyntax(items: readonly string[]): Promise<void> {
  for (const slice of sliced(items)) {
    for (const text of slice) parseItem(text);
    await otherRequests();
  }
}
