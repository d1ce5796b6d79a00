/**
 * Lets an asset stream through and looks at every byte of it: is it what it should be, and is it whole? Memory is flat
 * (one header and one piece), whatever the size. When something is wrong the stream errors, at the latest in place of
 * its end, so that a storage which publishes at the end publishes nothing.
 */
import { createHash } from 'node:crypto';
import { Transform } from 'node:stream';
import { AssetError } from '../provider/asset-error.js';
import { HEAD_BYTES, sniff, type AssetKind, type AssetType } from './sniff.js';
import { createStructureReader, invalid, type StructureReader } from './structure.js';

export interface VerifierOptions {
  readonly kind: AssetKind;
  /** How long the file is to be; null when nobody said. */
  readonly expectedBytes: number | null;
  /** More bytes than this are `tooLarge`. */
  readonly maxBytes: number;
}

export interface VerifiedFile {
  readonly contentType: string;
  /** Without the dot. */
  readonly extension: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface Verifier {
  /** Bytes in, the same bytes out. Errors with `AssetError` `invalid` or `tooLarge`. */
  readonly stream: Transform;
  /** What the first bytes say, before any of them comes out; rejects with the error of the stream. */
  readonly type: Promise<Pick<AssetType, 'contentType' | 'extension'>>;
  /** What came through. Only after the stream has ended. */
  readonly result: () => VerifiedFile;
}

export function createVerifier({ kind, expectedBytes, maxBytes }: VerifierOptions): Verifier {
  const hash = createHash('sha256');
  const head: Buffer[] = [];
  let sizeBytes = 0;
  let structure: StructureReader | null = null;
  let type: AssetType | null = null;
  let verified: VerifiedFile | null = null;
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
    hash.update(chunk);
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
    verified = {
      contentType: type!.contentType,
      extension: type!.extension,
      sizeBytes,
      sha256: hash.digest('hex'),
    };
    return rest;
  }

  const stream = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      attempt(() => look(chunk), done);
    },
    flush(done) {
      attempt(conclude, done);
    },
    destroy(error, done) {
      if (error) known.reject(error);
      else if (type === null) known.reject(invalid('The stream was closed before its first bytes.'));
      done(error);
    },
  });

  return {
    stream,
    type: known.promise,
    result: () => {
      if (verified === null) throw new Error('The file has not come through yet.');
      return verified;
    },
  };
}

/** Hands what `work` gives, or the error it throws, to a stream's callback. */
function attempt(work: () => Buffer | null, done: (error: Error | null, chunk?: Buffer) => void): void {
  let out: Buffer | null;
  try {
    out = work();
  } catch (error) {
    done(error as Error);
    return;
  }
  if (out === null) done(null);
  else done(null, out);
}

/** A promise that is settled from outside. Its rejection may go unheard: the stream says the same. */
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
