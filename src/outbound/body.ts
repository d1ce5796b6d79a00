/**
 * The bytes of a download as one stream. A body that breaks midway is resumed from the byte reached, if the host supports
 * ranges and gave a strong validator (RFC 9110, 13.1.5), so that bytes of two different files are never joined. Without
 * one the caller starts anew. Bytes are passed on by events, without a promise or a copy for each chunk, because every byte
 * of every video takes this path.
 */
import { Readable } from 'node:stream';
import { asError } from '../errors.js';
import { AssetError } from './asset-error.js';
import { LONGEST_TIMER_MS } from './limit.js';
import { shown } from './link.js';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly stream: Readable;
  readonly url: URL;
}

/** Where to go on after a broken body. */
export interface Continuation {
  readonly fromByte: number;
  readonly validator: string;
}

export interface BodyOptions {
  /** `Content-Length` of the first answer; null when the host did not say. */
  readonly expectedBytes: number | null;
  readonly maxBytes: number;
  /** How often the body may be resumed; each time at least one byte must have come. */
  readonly maxResumes: number;
  /** Longest wait for the next piece; time without a reader does not count. */
  readonly idleTimeoutMs: number;
  /** Aborted with the reason for which the download ends; aborted by the stream when it is destroyed early. */
  readonly ended: AbortController;
  /** Asks for the rest: an answer that goes on exactly there. */
  readonly goOn: (from: Continuation) => Promise<Answer>;
}

export interface Body {
  readonly stream: Readable;
  /** How often the body was resumed so far. */
  readonly resumes: () => number;
}

const HELD_BYTES = 64 * 1024;

/** Errors with an `AssetError`, or with the reason of `ended`. */
export function readBody(first: Answer, options: BodyOptions): Body {
  const { expectedBytes, maxBytes, maxResumes, idleTimeoutMs, ended, goOn } = options;
  const validator = strongValidator(first);
  let received = 0;
  let resumes = 0;
  let whole = false;
  let current: Piece;

  const stream = new Readable({
    highWaterMark: HELD_BYTES,
    read: () => current.want(),
    destroy(error, done) {
      current.drop();
      // Ends the request that may be waited for; its outcome no longer matters.
      if (!whole) ended.abort(error);
      done(error);
    },
  });
  ended.signal.addEventListener('abort', () => stream.destroy(asError(ended.signal.reason)), { once: true });

  function take(answer: Answer): void {
    const receivedBefore = received;
    current = readPiece(answer.stream, idleTimeoutMs, {
      take(chunk) {
        received += chunk.length;
        if (received <= maxBytes) return stream.push(chunk);
        const message = `${shown(answer.url)} sent more than the limit of ${maxBytes} bytes.`;
        stream.destroy(new AssetError('tooLarge', message));
        return false;
      },
      end(broken) {
        if (stream.destroyed) return;
        if (broken === null && (expectedBytes === null || received === expectedBytes)) {
          whole = true;
          stream.push(null);
        } else if (validator === null || resumes >= maxResumes || received === receivedBefore) {
          stream.destroy(brokenOff(answer.url, broken));
        } else {
          resumes += 1;
          resume(validator).catch((error: unknown) => stream.destroy(asError(error)));
        }
      },
    });
  }

  async function resume(validator: string): Promise<void> {
    const answer = await goOn({ fromByte: received, validator });
    if (stream.destroyed || isAboutAnother(answer, validator, expectedBytes)) {
      answer.stream.destroy();
      throw new AssetError('unavailable', `${shown(answer.url)} changed while it was being read.`);
    }
    take(answer);
    current.want();
  }

  function brokenOff(url: URL, broken: unknown): AssetError {
    const of = expectedBytes === null ? '' : ` of ${expectedBytes}`;
    const message = `${shown(url)} broke off at byte ${received}${of}: ${codeOf(broken)}.`;
    return new AssetError('unavailable', message, { cause: broken });
  }

  take(first);
  return { stream, resumes: () => resumes };
}

/** One answer's part of the body. */
interface Piece {
  want(): void;
  drop(): void;
}

interface PieceReader {
  /** False: no more for now. */
  take(chunk: Buffer): boolean;
  /** Once: null at its end, or why it broke. */
  end(broken: unknown): void;
}

function readPiece(source: Readable, idleTimeoutMs: number, reader: PieceReader): Piece {
  let over = false;
  let idle: NodeJS.Timeout | null = null;
  const rest = (): void => {
    if (idle) clearTimeout(idle);
    idle = null;
  };
  const end = (broken: unknown): void => {
    if (over) return;
    over = true;
    rest();
    source.destroy();
    reader.end(broken);
  };
  source.pause();
  source.on('data', (chunk: Buffer) => {
    if (over) return;
    idle?.refresh();
    if (reader.take(chunk)) return;
    source.pause();
    rest();
  });
  source.once('end', () => end(null));
  // It may fail more than once, and at any time.
  source.on('error', end);
  source.once('close', () => end(Object.assign(new Error('The connection closed.'), { code: 'ECONNRESET' })));
  return {
    want() {
      if (over) return;
      idle ??= setTimeout(
        () => end(Object.assign(new Error('The host sent nothing more.'), { code: 'ETIMEDOUT' })),
        Math.min(idleTimeoutMs, LONGEST_TIMER_MS),
      );
      source.resume();
    },
    drop() {
      over = true;
      rest();
      source.destroy();
    },
  };
}

/**
 * What proves that a later answer is about the very same bytes: a strong ETag, else a Last-Modified that is at least a
 * minute older than the answer (RFC 9110, 8.8.2.2). Null when there is none, or when the host says it has no ranges.
 */
function strongValidator({ headers }: Answer): string | null {
  if (text(headers['accept-ranges'])?.trim().toLowerCase() === 'none') return null;
  const etag = text(headers['etag']);
  if (etag !== null && /^"[^"]*"$/.test(etag)) return etag;
  if (etag !== null) return null;
  const modified = text(headers['last-modified']);
  const modifiedAt = Date.parse(modified ?? '');
  const sentAt = Date.parse(text(headers['date']) ?? '');
  return sentAt - modifiedAt >= 60_000 ? modified : null;
}

/** Does this 206 contradict what the first answer said? A host that takes `If-Range` wrongly is found here. */
function isAboutAnother({ headers }: Answer, validator: string, expectedBytes: number | null): boolean {
  const said = text(headers[validator.startsWith('"') ? 'etag' : 'last-modified']);
  const total = /\/(\d+)$/.exec(text(headers['content-range']) ?? '')?.[1];
  return (
    (said !== null && said !== validator) ||
    (total !== undefined && expectedBytes !== null && Number(total) !== expectedBytes)
  );
}

export function text(header: unknown): string | null {
  return typeof header === 'string' ? header : null;
}

/** What a transport error is called. Not by class: errors of the platform may come from another realm than ours. */
export function codeOf(error: unknown): string {
  if (error === null) return 'fewer bytes than announced';
  const { code, message } = error as { code?: unknown; message?: unknown };
  return typeof code === 'string' ? code : typeof message === 'string' ? message : 'unknown';
}
