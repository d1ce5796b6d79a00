/**
 * Every timer of one simulator in one place: none keeps the process alive, all of them are gone after `clear()`.
 */

export interface Timers {
  /** Runs `task` after `delayMs`, unless cleared before. Returns a function that cancels it. */
  after(delayMs: number, task: () => void): () => void;
  /** Waits `delayMs`; after `clear()` the promise stays unsettled; nothing awaits it any more. */
  sleep(delayMs: number): Promise<void>;
  clear(): void;
}

/** The longest delay a Node timer takes (about 24.8 days); longer ones would fire at once. */
const MAX_DELAY_MS = 2 ** 31 - 1;

export function createTimers(): Timers {
  const pending = new Set<NodeJS.Timeout>();

  function after(delayMs: number, task: () => void): () => void {
    const timer = setTimeout(
      () => {
        pending.delete(timer);
        task();
      },
      Math.min(Math.max(0, delayMs), MAX_DELAY_MS),
    );
    timer.unref();
    pending.add(timer);
    return () => {
      clearTimeout(timer);
      pending.delete(timer);
    };
  }

  return {
    after,
    sleep: (delayMs) =>
      new Promise((resolve) => {
        after(delayMs, resolve);
      }),
    clear() {
      for (const timer of pending) clearTimeout(timer);
      pending.clear();
    },
  };
}
