/** Awaiting a state: looks again and again until it is there. The limit only bounds a failing test. */
import { setTimeout as pause } from 'node:timers/promises';

const LOOK_EVERY_MS = 15;
const GIVE_UP_AFTER_MS = 90_000;

/**
 * Resolves with the first answer of `look` that is neither null, undefined nor false.
 * @param awaited what was waited for, said when it never came.
 */
export async function until<T>(
  look: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  awaited: (() => Promise<string>) | string,
  giveUpAfterMs = GIVE_UP_AFTER_MS,
): Promise<T> {
  const giveUpAt = Date.now() + giveUpAfterMs;
  for (;;) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    if (Date.now() > giveUpAt)
      throw new Error(`waited in vain for ${typeof awaited === 'string' ? awaited : await awaited()}`);
    await pause(LOOK_EVERY_MS);
  }
}
