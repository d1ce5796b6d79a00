/**
 * How long a visitor waits for an answer. Without this limit, a page would hang for as long as Redis hangs. The work of the
 * request goes on after the visitor got the error.
 */
import type { MiddlewareHandler } from 'hono';
import { timeout } from 'hono/timeout';
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
  const reading = timeout(readMs, () => new HttpError(503, 'unavailable', TOO_LATE.reading));
  const acting = timeout(actMs, () => new HttpError(503, 'unavailable', TOO_LATE.acting));
  return (c, next) => (READING.has(c.req.method) ? reading : acting)(c, next);
}
