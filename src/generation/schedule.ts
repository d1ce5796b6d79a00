/**
 * When to ask the provider next: pure functions of how long a task has been going on, and dice. The provider refreshes
 * a task about every 15 s and asks for no faster than one poll in 5 s (provider notes, timing).
 */

export interface ScheduleSettings {
  readonly firstDelayMs: number;
  readonly minIntervalMs: number;
  readonly maxIntervalMs: number;
}

/** Waits get longer as a task gets older: about an eighth of its age, so that a finish is noticed within 12 % of it. */
const FRACTION_OF_AGE = 1 / 8;
const JITTER = 0.15;

/** Spreads a wait by ±15 %, so that tasks submitted together are not polled together. `dice` is in [0, 1). */
export function jittered(delayMs: number, dice: number): number {
  return Math.round(delayMs * (1 - JITTER + 2 * JITTER * dice));
}

/** The wait before the next poll of a task that is `ageMs` old, in milliseconds. */
export function nextPollDelayMs(ageMs: number, settings: ScheduleSettings, dice: number): number {
  const wanted = jittered(Math.max(settings.minIntervalMs, ageMs * FRACTION_OF_AGE), dice);
  return Math.min(Math.max(wanted, settings.minIntervalMs), settings.maxIntervalMs);
}

/** Doubling from `baseMs` up to `maxMs`, spread by the dice over its upper half. `failures` counts from 1. */
export function backoffMs(failures: number, baseMs: number, maxMs: number, dice: number): number {
  const full = Math.min(maxMs, baseMs * 2 ** Math.min(failures - 1, 30));
  return Math.round(full * (0.5 + dice / 2));
}

/** Wait of a task that the provider does not show yet: short at first, since it usually appears within seconds. */
export function notVisibleDelayMs(ageMs: number, settings: ScheduleSettings, dice: number): number {
  return Math.max(1, Math.min(jittered(Math.max(1000, ageMs / 4), dice), settings.minIntervalMs));
}
