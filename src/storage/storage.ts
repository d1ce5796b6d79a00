/**
 * Where finished files live. One interface, one contract suite (`test/storage/contract.ts`), several drivers.
 * A key is a relative path with `/` between its parts, never starting with `/` nor holding `..`, `.` or empty parts.
 *
 * Methods throw `StorageError` (storage cannot be used), `StorageConflictError` (another file is there) and
 * `InvalidInputError` (the key makes no sense).
 */
import type { Readable } from 'node:stream';
import type { StorageError } from '../errors.js';

export interface PutOptions {
  readonly contentType: string;
  /** Aborts the write; nothing stays visible. */
  readonly signal?: AbortSignal;
  /**
   * Another `put` into the same folder follows before anything relies on this one, so that flushing the folder once, then,
   * makes both safe from a power cut. Default false: this file is safe when its `put` resolves.
   */
  readonly moreFollows?: boolean;
}

export interface StoredFile {
  readonly key: string;
  readonly sizeBytes: number;
  /** Hex digest of the bytes as stored. */
  readonly sha256: string;
}

export interface Storage {
  /** For logs and messages: no credentials in it. */
  readonly description: string;
  /**
   * Streams `source` to `key`. The file becomes visible only when `source` ended well and every byte is down; when
   * `source` errors (a failed verification does) or `signal` aborts, nothing stays and `put` rejects with that very
   * error or reason. A file with the same bytes already there is kept; one with other bytes is never replaced:
   * `StorageConflictError`. However it ends, `source` is destroyed.
   */
  put(key: string, source: Readable, options: PutOptions): Promise<StoredFile>;
  /** Size of what is stored there; null when nothing is. */
  stat(key: string): Promise<{ sizeBytes: number } | null>;
  /** Reads it back, whole or from `start` to `end` (both inclusive, bytes). Nothing there: `StorageError`. */
  read(key: string, range?: { start: number; end: number }): Promise<Readable>;
  /** Removes it; no error when it is not there. */
  remove(key: string): Promise<void>;
  /** Writes, reads and removes a probe file; throws `StorageError` with what to do when storage cannot be used. */
  probe(): Promise<void>;
  /**
   * Removes what writers left behind that died midway (never visible, but it takes room), if it is older than
   * `olderThanMs` by the storage's own clock. That must be longer than any write may take, since other replicas may be
   * writing. Gives the number of things removed. What cannot be tidied, such as uploads that the credentials may not
   * list, is told to `report` and stops nothing else.
   */
  removeAbandoned(olderThanMs: number, report?: (problem: StorageError) => void): Promise<number>;
  /** A link to the file that works for a while without credentials. Only drivers that can give one have this. */
  urlFor?(key: string, options: { readonly expiresInSeconds: number }): Promise<string>;
  close(): Promise<void>;
}
