/** Awaiting a state: looks again and again until it is there. The limit only bounds a failing test. */
import { setTimeout as pause } from 'node:timers/promises';

const LOOK_EVERY_MS = 15;
const GIVE_UP_AFTER_MS = 90_000;
/** A look takes no longer, unless Redis or this process stands still. */
const LONGEST_LOOK_MS = 1000;

/**
 * Resolves with the first answer of `look` that is neither null, undefined nor false. Time in which Redis or this process stood
 * still does not count: the answer of then is older than what is awaited.
 * @param awaited what was waited for, said when it never came.
 */
export async function until<T>(
  look: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  awaited: (() => Promise<string>) | string,
  giveUpAfterMs = GIVE_UP_AFTER_MS,
): Promise<T> {
  let giveUpAt = Date.now() + giveUpAfterMs;
  for (;;) {
    const beganAt = Date.now();
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    giveUpAt += Math.max(0, Date.now() - beganAt - LONGEST_LOOK_MS);
    if (Date.now() > giveUpAt)
      throw new Error(`waited in vain for ${typeof awaited === 'string' ? awaited : await awaited()}`);
    await pause(LOOK_EVERY_MS);
  }
}
