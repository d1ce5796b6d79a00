/**
 * The bell of the timetable: whoever puts a poll there that is due sooner than the others rings it, and one worker that has
 * room looks. It hangs in Redis, since who rings and who hears are different processes.
 */
import { duplicatePatiently, type RedisConnection } from '../redis/connect.js';

/** How long one `BZPOPMIN` waits, in seconds. */
const WAIT_FOR_WAKE_S = 5;
const AFTER_ERROR_MS = 1000;

export interface Listener {
  /** Has it room for what it may be woken for? */
  readonly heeds: () => boolean;
  /** Wakes somebody else instead. */
  readonly passOn: () => Promise<void>;
  readonly onError: (error: unknown) => void;
}

export interface Bell {
  /** Until it rings, and at most so long. */
  wait(longestMs: number): Promise<void>;
  /** Rings after so long, or before. */
  ringIn(delayMs: number): void;
  close(): void;
}

/** Waits at Redis, on a connection of its own, until somebody puts something on the timetable that is due sooner. */
export function listen(redis: RedisConnection, key: string, { heeds, passOn, onError }: Listener): Bell {
  const connection = duplicatePatiently(redis);
  // The connection that it was made from tells of outages.
  connection.on('error', () => {});
  let asking = false;
  let closed = false;
  let ringsAt = Infinity;
  let timer: NodeJS.Timeout | undefined;
  let wakeUp: (() => void) | null = null;

  /** It may ring while its listener is busy: then the next wait ends at once. */
  function ringIn(delayMs: number): void {
    const at = performance.now() + delayMs;
    if (at >= ringsAt) return;
    ringsAt = at;
    if (wakeUp !== null) setTimer(wakeUp);
  }

  function setTimer(ring: () => void): void {
    clearTimeout(timer);
    timer = setTimeout(ring, Math.max(0, ringsAt - performance.now()));
  }

  /** One question at a time: it goes on while nobody waits for its answer. */
  async function ask(): Promise<void> {
    if (asking || closed) return;
    asking = true;
    try {
      if ((await connection.bzpopmin(key, WAIT_FOR_WAKE_S)) !== null) {
        if (heeds()) ringIn(0);
        else await passOn();
      }
    } catch (error) {
      if (closed) return;
      onError(error);
      await delay(AFTER_ERROR_MS).over;
    } finally {
      asking = false;
    }
    if (wakeUp !== null) void ask();
  }

  return {
    ringIn,
    async wait(longestMs) {
      if (closed) return;
      ringIn(longestMs);
      void ask();
      await new Promise<void>((resolve) => {
        wakeUp = resolve;
        setTimer(resolve);
      });
      wakeUp = null;
      ringsAt = Infinity;
    },
    close() {
      closed = true;
      clearTimeout(timer);
      wakeUp?.();
      connection.disconnect();
    },
  };
}

/** A timer that can be taken back; `clear` says whether it had run out. */
export function delay(delayMs: number): { readonly over: Promise<'over'>; clear(): boolean } {
  let isOver = false;
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<'over'>((resolve) => {
    timer = setTimeout(
      () => {
        isOver = true;
        resolve('over');
      },
      Math.max(0, delayMs),
    );
  });
  return {
    over,
    clear() {
      clearTimeout(timer);
      return isOver;
    },
  };
}
