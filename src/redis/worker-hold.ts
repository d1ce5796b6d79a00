/**
 * Reasons why a worker must take no jobs although Redis answers:
 *
 * - its clock is wrong. BullMQ runs delayed jobs by the clock of the worker, so it would run them too early, or write
 *   delays that end too late;
 * - another version has written data of another layout.
 *
 * Such a worker says so once, takes nothing, and goes on by itself when the reason is gone.
 */
import type { Logger } from 'pino';
import type { RedisClock } from './clock.js';
import type { RedisConnection } from './connect.js';
import { layoutProblem } from './layout.js';

export interface WorkerHold {
  /** Looks now: why no job may be taken, or null. From memory alone. */
  check(): string | null;
  /** Calls `listener` with every change of the reason. */
  onChange(listener: (reason: string | null) => void): void;
  close(): void;
}

export interface WorkerHoldDeps {
  readonly clock: Pick<RedisClock, 'skewMs'>;
  readonly redis: RedisConnection;
  readonly prefix: string;
  readonly log: Pick<Logger, 'error' | 'warn'>;
}

export const MAX_SKEW_MS = 5000;
/** The hold ends a little below its limit, so that a clock that creeps along the limit is told once. */
const RIGHT_AGAIN_MS = 4000;
const CHECK_EVERY_MS = 1000;
const LAYOUT_EVERY_MS = 10_000;

/** What is wrong with this process' own clock; null when it is close enough to that of Redis. */
export function clockProblem(skewMs: number, limitMs: number = MAX_SKEW_MS): string | null {
  if (Math.abs(skewMs) <= limitMs) return null;
  const off = `${(Math.abs(skewMs) / 1000).toFixed(1)} s ${skewMs > 0 ? 'ahead of' : 'behind'}`;
  return `the clock of this machine is ${off} that of Redis; at most ${MAX_SKEW_MS / 1000} s are allowed`;
}

export function createWorkerHold({ clock, redis, prefix, log }: WorkerHoldDeps): WorkerHold {
  const listeners: ((reason: string | null) => void)[] = [];
  let told: string | null = null;
  let layout: string | null = null;

  function tell(reason: string | null, ofClock: string | null): void {
    if (reason === null) log.warn('what kept this worker from taking jobs is over; it takes jobs again');
    else if (ofClock === null) log.error({ alarm: 'layout' }, `this worker takes no jobs: ${reason}`);
    else
      log.error(
        { alarm: 'clock', skewMs: clock.skewMs() },
        `this worker takes no jobs: ${reason}. Set it, or the clock of the Redis server, with NTP`,
      );
  }

  function check(): string | null {
    const ofClock = clockProblem(clock.skewMs(), told === null ? MAX_SKEW_MS : RIGHT_AGAIN_MS);
    const reason = ofClock ?? layout;
    const changed = (reason === null) !== (told === null);
    told = reason;
    if (!changed) return reason;
    tell(reason, ofClock);
    for (const listener of listeners) listener(reason);
    return reason;
  }

  /** While Redis is away, nothing new is known. */
  function lookAtLayout(): void {
    layoutProblem(redis, prefix).then(
      (problem) => {
        layout = problem;
        check();
      },
      () => {},
    );
  }

  check();
  const timers = [setInterval(check, CHECK_EVERY_MS), setInterval(lookAtLayout, LAYOUT_EVERY_MS)];
  for (const timer of timers) timer.unref();
  // Behind a new connection may be another server, or one with the data of another day.
  redis.on('ready', lookAtLayout);
  return {
    check,
    onChange: (listener) => void listeners.push(listener),
    close() {
      for (const timer of timers) clearInterval(timer);
      redis.off('ready', lookAtLayout);
    },
  };
}
