/** Nothing that a caller waits for outlives its limit or its abort. */
import { describe, expect, test } from '@jest/globals';
import { withinLimit } from '../../src/outbound/limit.js';

const never = new Promise<string>(() => {});
const tooLong = () => new Error('too long');

describe('work with a hard limit', () => {
  test('comes to what it comes to', async () => {
    const { signal } = new AbortController();
    await expect(withinLimit(60_000, signal, () => Promise.resolve('ok'), tooLong)).resolves.toBe('ok');
    const broken = new Error('broken');
    await expect(withinLimit(60_000, signal, () => Promise.reject(broken), tooLong)).rejects.toBe(broken);
  });

  test('that never settles is left at the limit', async () => {
    const { signal } = new AbortController();
    let inner: AbortSignal | undefined;
    const waiting = withinLimit(
      10,
      signal,
      (given) => {
        inner = given;
        return never;
      },
      tooLong,
    );
    await expect(waiting).rejects.toThrow('too long');
    expect(inner?.aborted).toBe(true);
  });

  test('that never settles is left when the caller aborts', async () => {
    const job = new AbortController();
    const waiting = withinLimit(60_000, job.signal, () => never, tooLong);
    job.abort(new Error('shutting down'));
    await expect(waiting).rejects.toThrow('shutting down');
  });

  test('that ends because of the abort is told by the reason, and success counts although late', async () => {
    const job = new AbortController();
    const onAbort = (signal: AbortSignal, then: () => void) => signal.addEventListener('abort', then);
    const failing = withinLimit(
      60_000,
      job.signal,
      (signal) => new Promise((_, reject) => onAbort(signal, () => reject(new Error('AbortError')))),
      tooLong,
    );
    const late = withinLimit(
      60_000,
      job.signal,
      (signal) => new Promise((resolve) => onAbort(signal, () => resolve('late'))),
      tooLong,
    );
    job.abort(new Error('the lock was lost'));
    await expect(failing).rejects.toThrow('the lock was lost');
    await expect(late).resolves.toBe('late');
  });
});
