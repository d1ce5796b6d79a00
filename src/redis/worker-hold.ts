/**
 * Reasons why a worker must take no jobs although Redis answers. BullMQ runs delayed jobs by the clock of the worker: a
 * worker whose clock is wrong would run them too early, or write delays that end too late. Such a worker says so once,
 * takes nothing, and goes on by itself when the reason is gone.
 */
import type { Logger } from 'pino';
import type { RedisClock } from './clock.js';

export interface WorkerHold {
  /** Looks now: why no job may be taken, or null. From memory alone. */
  check(): string | null;
  /** Calls `listener` with every change of the reason. */
  onChange(listener: (reason: string | null) => void): void;
  close(): void;
}

export const MAX_SKEW_MS = 5000;
/** The hold ends a little below its limit, so that a clock that creeps along the limit is told once. */
const RIGHT_AGAIN_MS = 4000;
const CHECK_EVERY_MS = 1000;

/** What is wrong with this process' own clock; null when it is close enough to that of Redis. */
export function clockProblem(skewMs: number, limitMs: number = MAX_SKEW_MS): string | null {
  if (Math.abs(skewMs) <= limitMs) return null;
  const off = `${(Math.abs(skewMs) / 1000).toFixed(1)} s ${skewMs > 0 ? 'ahead of' : 'behind'}`;
  return `the clock of this machine is ${off} that of Redis; at most ${MAX_SKEW_MS / 1000} s are allowed`;
}

export function createWorkerHold({
  clock,
  log,
}: {
  readonly clock: Pick<RedisClock, 'skewMs'>;
  readonly log: Pick<Logger, 'error' | 'warn'>;
}): WorkerHold {
  const listeners: ((reason: string | null) => void)[] = [];
  let told: string | null = null;

  function check(): string | null {
    const reason = clockProblem(clock.skewMs(), told === null ? MAX_SKEW_MS : RIGHT_AGAIN_MS);
    const changed = (reason === null) !== (told === null);
    told = reason;
    if (!changed) return reason;
    if (reason === null) log.warn('the clock of this machine is right again; this worker takes jobs again');
    else
      log.error(
        { alarm: 'clock', skewMs: clock.skewMs() },
        `this worker takes no jobs: ${reason}. Set it, or the clock of the Redis server, with NTP`,
      );
    for (const listener of listeners) listener(reason);
    return reason;
  }

  check();
  const timer = setInterval(check, CHECK_EVERY_MS).unref();
  return {
    check,
    onChange: (listener) => void listeners.push(listener),
    close: () => clearInterval(timer),
  };
}
