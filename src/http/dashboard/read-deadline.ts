/**
 * How long a visitor waits. A Redis that hangs, rather than being gone, answers nothing for as long as it hangs, and so
 * would every page: the visitor is told instead. What was begun goes on; only nobody waits for it any more.
 */
import type { MiddlewareHandler } from 'hono';
import { READING } from '../access.js';
import { HttpError } from '../problems.js';

const READ_MS = 10_000;
/** A hundred decisions in bulk take their time. */
const ACT_MS = 60_000;

const TOO_LATE = {
  reading: 'Redis does not answer in time just now. The page comes back by itself.',
  acting: 'There was no answer in time, so it is not known whether this was done. Look at the page again.',
} as const;

export function patience({ readMs = READ_MS, actMs = ACT_MS } = {}): MiddlewareHandler {
  return async (c, next) => {
    const reads = READING.has(c.req.method);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      const error = new HttpError(503, 'unavailable', reads ? TOO_LATE.reading : TOO_LATE.acting);
      timer = setTimeout(reject, reads ? readMs : actMs, error);
    });
    try {
      await Promise.race([next(), late]);
    } finally {
      clearTimeout(timer);
    }
  };
}
