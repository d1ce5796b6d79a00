/**
 * Reads a file's structure while it streams by. A format is a generator that asks for what it needs next (a few bytes,
 * or to pass over many); the reader gives it these from the pieces of the stream. So the code of a format reads like its
 * specification, the pieces may have any size, and the reader keeps one header in memory, however large the file is.
 *
 * None of the libraries that were examined does this: mp4box keeps the sample tables and does not tell a truncated file, file-type
 * looks at the first bytes only, the rest want the whole file or a seekable one.
 */
import { AssetError } from '../outbound/asset-error.js';

type Want =
  /** These many bytes; for headers, so at most a few KB. */
  | { readonly kind: 'take'; readonly bytes: number; readonly of: string }
  /** These many bytes, or fewer at the end of the file. */
  | { readonly kind: 'takeUpTo'; readonly bytes: number }
  /** Pass over these many bytes. */
  | { readonly kind: 'skip'; readonly bytes: number; readonly of: string }
  /** Pass over everything up to and including this byte. */
  | { readonly kind: 'seek'; readonly byte: number; readonly of: string }
  /** Is this the end of the file? */
  | { readonly kind: 'atEnd' };

type Answer = Buffer | boolean | null;

/** A format: returns when all is well (what follows is ignored), throws `AssetError` `invalid` when not. */
export type Format = Generator<Want, void, Answer>;
/** A part of a format that comes to a value. */
export type Part<T> = Generator<Want, T, Answer>;

/** Where the format stands: bytes taken or passed so far. */
export interface Cursor {
  readonly position: number;
  /** Set by a format that is whole before the end of the file: where the bytes begin that are not part of it. */
  trailingFrom: number | null;
  /** Set by a format that is a picture. */
  picture: Picture | null;
}

export interface Picture {
  /** In pixels; 0 where the header does not say. */
  readonly width: number;
  readonly height: number;
  readonly animated: boolean;
}

/** The next `bytes` bytes. `of` completes "The file ends in the middle of …". */
export function* take(bytes: number, of: string): Part<Buffer> {
  return (yield { kind: 'take', bytes, of }) as Buffer;
}

export function* takeUpTo(bytes: number): Part<Buffer> {
  return (yield { kind: 'takeUpTo', bytes }) as Buffer;
}

export function* skip(bytes: number, of: string): Part<void> {
  if (bytes > 0) yield { kind: 'skip', bytes, of };
}

export function* seek(byte: number, of: string): Part<void> {
  yield { kind: 'seek', byte, of };
}

export function* atEnd(): Part<boolean> {
  return (yield { kind: 'atEnd' }) as boolean;
}

/** The error of a format that is not as it should be. */
export function invalid(message: string): AssetError {
  return new AssetError('invalid', message);
}

export interface StructureReader {
  /** @throws AssetError `invalid` as soon as something is wrong. */
  write(chunk: Buffer): void;
  /** @throws AssetError `invalid` when the file is not complete. */
  end(): void;
  /** How many bytes at the end are not part of the format. */
  trailingBytes(): number;
  /** What the format said of its picture; null before that, and of what is none. */
  picture(): Picture | null;
}

/** Starts reading a file as this format. */
export function createStructureReader(format: (cursor: Cursor) => Format): StructureReader {
  const cursor: { -readonly [key in keyof Cursor]: Cursor[key] } = {
    position: 0,
    trailingFrom: null,
    picture: null,
  };
  const parser = format(cursor);
  let held: Buffer = Buffer.alloc(0);
  let passed = 0;
  let want: Want | null = null;

  function answer(value: Answer): void {
    passed = 0;
    held = Buffer.alloc(0);
    const { done, value: next } = parser.next(value);
    want = done === true ? null : next;
  }
  answer(null);

  return {
    write(chunk) {
      let offset = 0;
      const forward = (bytes: number): void => {
        offset += bytes;
        cursor.position += bytes;
      };
      while (want !== null && offset < chunk.length) {
        const left = chunk.length - offset;
        switch (want.kind) {
          case 'take':
          case 'takeUpTo': {
            const bytes = Math.min(want.bytes - held.length, left);
            held = Buffer.concat([held, chunk.subarray(offset, offset + bytes)]);
            forward(bytes);
            if (held.length === want.bytes) answer(held);
            break;
          }
          case 'skip': {
            const bytes = Math.min(want.bytes - passed, left);
            passed += bytes;
            forward(bytes);
            if (passed === want.bytes) answer(null);
            break;
          }
          case 'seek': {
            const found = chunk.indexOf(want.byte, offset);
            forward(found === -1 ? left : found + 1 - offset);
            if (found !== -1) answer(null);
            break;
          }
          case 'atEnd':
            answer(false);
            break;
        }
      }
    },
    end() {
      for (;;) {
        if (want?.kind === 'atEnd') answer(true);
        else if (want?.kind === 'takeUpTo') answer(held);
        // Passing over "the rest" has no end of its own.
        else if (want?.kind === 'skip' && want.bytes === Number.POSITIVE_INFINITY) answer(null);
        else break;
      }
      if (want !== null)
        throw invalid(`The file ends at byte ${cursor.position}, in the middle of ${want.of}.`);
    },
    trailingBytes: () => (cursor.trailingFrom === null ? 0 : cursor.position - cursor.trailingFrom),
    picture: () => cursor.picture,
  };
}
