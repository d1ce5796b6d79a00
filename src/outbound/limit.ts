/**
 * Hard limits for work that calls out. A socket, DNS or a file system can hang in a way that none of its own time-outs
 * ends. The caller goes on all the same, so that a call that hangs takes no job slot for ever.
 */

import { asError } from '../errors.js';

/** How long aborted work may take to end by itself: then its own error is known, and it leaves nothing behind. */
const GRACE_MS = 1000;
/** The longest delay of a timer of Node, 24.8 days: a longer one runs at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Runs `work` with a signal that aborts when `signal` does or when `limitMs` is over. Settles at the latest a second
 * after that: with what `work` came to, else with the reason of the abort or with `tooLong()`.
 */
export async function withinLimit<T>(
  limitMs: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  tooLong: () => Error,
): Promise<T> {
  signal.throwIfAborted();
  const inner = new AbortController();
  let limit: NodeJS.Timeout | undefined;
  let grace: NodeJS.Timeout | undefined;
  let onAbort = (): void => {};
  const over = new Promise<never>((_resolve, reject) => {
    const end = (reason: unknown): void => {
      if (inner.signal.aborted) return;
      inner.abort(reason);
      grace = setTimeout(() => reject(asError(reason)), GRACE_MS);
    };
    onAbort = () => end(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    limit = setTimeout(() => end(tooLong()), Math.min(limitMs, LONGEST_TIMER_MS));
  });
  try {
    return await Promise.race([work(inner.signal), over]);
  } catch (error) {
    // What the work says of an abort ("aborted") tells less than its reason.
    throw inner.signal.aborted ? inner.signal.reason : error;
  } finally {
    clearTimeout(limit);
    clearTimeout(grace);
    signal.removeEventListener('abort', onAbort);
  }
}

/** Resolves with null when `promise` takes longer, or fails. */
export async function within<T>(timeoutMs: number, promise: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, timeoutMs, null);
  });
  try {
    return await Promise.race([promise.catch(() => null), late]);
  } finally {
    clearTimeout(timer);
  }
}
