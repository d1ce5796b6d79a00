/**
 * Reads the source of a `put`: counts and hashes what comes, ends it when the signal aborts, and remembers whether it was
 * the source that failed. A driver needs to know: the source's error (a failed download, a failed verification) goes to
 * the caller as it is, while an error of its own becomes a `StorageError`; and both may be called ECONNRESET.
 */
import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { asError, StorageError } from '../errors.js';

/** What a source came to. */
export interface Measured {
  readonly sizeBytes: number;
  readonly sha256: string;
}

export interface Meter {
  /** The bytes, once. Leaving the loop early destroys the source. */
  chunks(): AsyncGenerator<Buffer, void, undefined>;
  /** Only after the last chunk. */
  measured(): Measured;
  /** Throws the reason of the abort or the error of the source, if there is one. */
  throwIfSourceFailed(): void;
  /** However it ended: lets go of the source and the signal. */
  dispose(): void;
}

export function createMeter(source: Readable, signal: AbortSignal | undefined): Meter {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let sha256: string | null = null;
  let failure: { readonly error: unknown } | null = null;

  const onAbort = (): void => void source.destroy(asError(signal?.reason));
  signal?.addEventListener('abort', onAbort, { once: true });
  // It may fail while it is not read; the next read gets the error.
  source.on('error', ignore);

  return {
    async *chunks() {
      const iterator = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
      try {
        for (;;) {
          // Around this line only: what the reader throws at the `yield` is no failure of the source.
          const next = await iterator.next().catch((error: unknown) => {
            failure = { error };
            throw error;
          });
          if (next.done === true) break;
          sizeBytes += next.value.length;
          hash.update(next.value);
          yield next.value;
        }
        sha256 = hash.digest('hex');
      } finally {
        source.destroy();
      }
    },
    measured: () => {
      if (sha256 === null) throw new StorageError('The writing ended before its source did.', true);
      return { sizeBytes, sha256 };
    },
    throwIfSourceFailed: () => {
      if (signal?.aborted === true) throw signal.reason;
      if (failure !== null) throw failure.error;
    },
    dispose: () => {
      signal?.removeEventListener('abort', onAbort);
      source.destroy();
    },
  };
}

function ignore(): void {}
