/**
 * Passes an asset on and checks every byte of it: is it a file of the expected kind, and is it complete? Memory is flat
 * (one header and one piece), whatever the size. When something is wrong the stream errors, at the latest in place of
 * its end, so that a storage which publishes at the end publishes nothing. The storage computes the
 * checksum over the bytes that it writes: a second hash here would be the most expensive part of archiving a video.
 */
import { Readable } from 'node:stream';
import { AssetError } from '../outbound/asset-error.js';
import { HEAD_BYTES, sniff, type AssetKind, type AssetType } from './sniff.js';
import { createStructureReader, invalid, type Picture, type StructureReader } from './structure.js';

/** Bytes that are held between source and storage. */
const HELD_BYTES = 64 * 1024;

export interface VerifierOptions {
  readonly kind: AssetKind;
  /** How long the file is to be; null when it is not known. */
  readonly expectedBytes: number | null;
  /** More bytes than this are `tooLarge`. */
  readonly maxBytes: number;
}

export interface Verified {
  /** The same bytes. Errors with `AssetError` `invalid` or `tooLarge`, or as the source does. Destroying it ends the source. */
  readonly stream: Readable;
  /** What the first bytes say, before any of them comes out; rejects with the error of the stream. */
  readonly type: Promise<Pick<AssetType, 'contentType' | 'extension'>>;
  /** How many bytes came through so far. */
  readonly sizeBytes: () => number;
  /** How many bytes at the end are not part of the format; only at the end. */
  readonly trailingBytes: () => number;
  /** Only at the end: size of an image; null of a video. */
  readonly picture: () => Picture | null;
}

/** Begins to read `source` at once, up to what the stream holds. */
export function verify(source: Readable, { kind, expectedBytes, maxBytes }: VerifierOptions): Verified {
  const head: Buffer[] = [];
  let sizeBytes = 0;
  let structure: StructureReader | null = null;
  let type: AssetType | null = null;
  const known = createOpenPromise<AssetType>();

  /** The first bytes are there: tells the type and looks at them. */
  function begin(): Buffer {
    const bytes = Buffer.concat(head);
    head.length = 0;
    type = sniff(bytes.subarray(0, HEAD_BYTES), kind);
    const { format } = type;
    structure = createStructureReader((cursor) => format(cursor, expectedBytes));
    structure.write(bytes);
    known.resolve(type);
    return bytes;
  }

  function look(chunk: Buffer): Buffer | null {
    sizeBytes += chunk.length;
    if (sizeBytes > maxBytes) throw new AssetError('tooLarge', `The file has more than ${maxBytes} bytes.`);
    if (structure !== null) {
      structure.write(chunk);
      return chunk;
    }
    head.push(chunk);
    return sizeBytes < HEAD_BYTES ? null : begin();
  }

  function conclude(): Buffer | null {
    const rest = structure === null ? begin() : null;
    if (expectedBytes !== null && sizeBytes !== expectedBytes) {
      throw invalid(`Expected ${expectedBytes} bytes, got ${sizeBytes}.`);
    }
    structure!.end();
    return rest;
  }

  /** Passes on what `work` gives. A stream that holds enough lets the source wait. */
  function pass(work: () => Buffer | null): void {
    if (stream.destroyed) return;
    try {
      const bytes = work();
      if (bytes !== null && !stream.push(bytes)) source.pause();
    } catch (error) {
      stream.destroy(error as Error);
    }
  }

  let ended = false;
  const stream = new Readable({
    highWaterMark: HELD_BYTES,
    read() {
      source.resume();
    },
    destroy(error, done) {
      if (error) known.reject(error);
      else if (type === null) known.reject(invalid('The stream was closed before its first bytes.'));
      source.destroy();
      done(error);
    },
  });
  // It may break before it is read; the next read gets the error.
  stream.on('error', () => {});
  source.on('data', (chunk: Buffer) => pass(() => look(chunk)));
  // Also one that was read from before, which does not begin by itself.
  source.resume();
  source.once('end', () => {
    ended = true;
    pass(conclude);
    stream.push(null);
  });
  source.once('error', (error: Error) => stream.destroy(error));
  source.once('close', () => {
    if (!ended && !stream.destroyed) stream.destroy(invalid('The stream was closed before its end.'));
  });

  return {
    stream,
    type: known.promise,
    sizeBytes: () => sizeBytes,
    trailingBytes: () => structure?.trailingBytes() ?? 0,
    picture: () => structure?.picture() ?? null,
  };
}

/** A promise that is settled from outside. Nothing has to await its rejection: the stream reports the same error. */
function createOpenPromise<T>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: Error) => void;
} {
  const settle: { resolve?: (value: T) => void; reject?: (error: Error) => void } = {};
  const promise = new Promise<T>((resolve, reject) => Object.assign(settle, { resolve, reject }));
  promise.catch(() => {});
  return { promise, resolve: (value) => settle.resolve?.(value), reject: (error) => settle.reject?.(error) };
}
