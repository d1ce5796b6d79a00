/**
 * This replica fails while others do not: it has lost its own connection to the target. It lets one call leave after 1 s and then
 * one every 5 s, so that other replicas take the jobs.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Target } from './gate-contract.js';

const MAX_REMEMBERED = 1000;
const FIRST_MS = 1000;
const EVERY_MS = 5000;

export function createAlone() {
  /** When the next call may leave, by the process' own monotonic clock. */
  const nextAt = new Map<Target, number>();
  return {
    begin(target: Target) {
      if (nextAt.has(target)) return;
      if (nextAt.size >= MAX_REMEMBERED) nextAt.clear();
      nextAt.set(target, performance.now() + FIRST_MS);
    },
    end: (target: Target) => nextAt.delete(target),
    /** Waits for the next turn of this replica. False when it is too far away, or one of the signals ended the wait. */
    async turn(target: Target, signals: readonly AbortSignal[]): Promise<boolean> {
      const at = nextAt.get(target);
      if (at === undefined) return true;
      const signal = AbortSignal.any([...signals]);
      const waitMs = at - performance.now();
      const isFar = waitMs > EVERY_MS;
      if (!isFar) nextAt.set(target, Math.max(at, performance.now()) + EVERY_MS);
      await sleep(Math.min(waitMs, EVERY_MS), undefined, { signal }).catch(() => {});
      return !signal.aborted && (!isFar || !nextAt.has(target));
    },
  };
}
