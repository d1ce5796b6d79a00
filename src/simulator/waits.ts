/** Waits until the ledger meets a condition, for tests that must not sleep. */
import type { Ledger } from './ledger.js';
import type { LedgerBook } from './ledger-book.js';
import type { Timers } from './timers.js';

/** Conditions that depend on the clock alone raise no entry; this often they are looked at all the same. */
const RECHECK_MS = 20;
/** Reading the ledger of thousands of tasks takes a while: between two reads it rests this many times as long. */
const REST_PER_COST = 10;

export interface WaitDeps {
  readonly ledger: LedgerBook;
  readonly timers: Timers;
  readonly now: () => number;
  /** Aborted when there is nothing more to wait for. */
  readonly closing: AbortSignal;
}

/**
 * Resolves with what `condition` finds (anything but null, undefined or false), now or after some entry; rejects after
 * `timeoutMs`, when the condition throws, and when the simulator is closed.
 */
export function waitForLedger<T>(
  condition: (ledger: Ledger) => T | null | undefined | false,
  timeoutMs: number,
  deps: WaitDeps,
): Promise<T> {
  const { ledger, timers, now, closing } = deps;
  return new Promise((resolve, reject) => {
    let cancelRecheck: (() => void) | null = null;
    const cancelTimeout = timers.after(timeoutMs, () => {
      stop();
      reject(new Error(`The simulator's ledger did not come to what was waited for in ${timeoutMs} ms.`));
    });
    let lookedAtMs = -Infinity;
    let restMs = 0;
    const unsubscribe = ledger.subscribe(() => {
      // Else the planned look is soon enough.
      if (performance.now() - lookedAtMs >= restMs) check();
    });

    const onClosing = (): void => {
      stop();
      reject(closing.reason);
    };
    closing.addEventListener('abort', onClosing, { once: true });

    function stop(): void {
      closing.removeEventListener('abort', onClosing);
      cancelTimeout();
      cancelRecheck?.();
      unsubscribe();
    }

    function check(): void {
      cancelRecheck?.();
      const startedAtMs = performance.now();
      try {
        const found = condition(ledger.snapshot(now()));
        if (found !== null && found !== undefined && found !== false) {
          stop();
          resolve(found);
          return;
        }
      } catch (error) {
        stop();
        reject(error);
        return;
      }
      lookedAtMs = performance.now();
      restMs = (lookedAtMs - startedAtMs) * REST_PER_COST;
      cancelRecheck = timers.after(Math.max(RECHECK_MS, restMs), check);
    }

    check();
  });
}
