/** The schedules that the polling simulation compares, all behind one interface. */
import {
  firstPollDelayMs,
  forecastOf,
  markOf,
  nextPollDelayMs,
  type Forecast,
  type ProgressMark,
  type ScheduleSettings,
} from '../../../src/polling/schedule.js';
import {
  HALF_LIFE_AT_LEAST_MS,
  HALF_LIFE_AT_MOST_MS,
  HALF_LIFE_LESSONS,
  lessonOfEnd,
  type Lesson,
} from '../../../src/polling/observation.js';
import type { Histogram } from '../../../src/polling/histogram.js';
import type { SimulatedTask } from './distributions.js';

/** As the script LEARN (src/polling/duration-stats.ts): how many half-lives pass between two lessons that come `sinceMs` apart. */
function forgottenBetween(sinceMs: number): number {
  const since = Math.max(0, sinceMs);
  return Math.min(1 / HALF_LIFE_LESSONS, since / HALF_LIFE_AT_LEAST_MS) + since / HALF_LIFE_AT_MOST_MS;
}

export const SETTINGS: ScheduleSettings = { firstDelayMs: 5000, minIntervalMs: 5000, maxIntervalMs: 60_000 };

/** What the simulated feed says beside "pending" and "succeeded". */
export interface Feed {
  /** QUEUED or IN_PROGRESS, and `start_time` and `finish_time`. */
  readonly times: boolean;
  /** Whole percents, linear in time. */
  readonly progress: boolean;
}

/** One task under one policy. */
export interface Watch {
  /** The next wait in ms. `atMs` is the clock. Called once at acceptance and after each pending poll. */
  next(atMs: number): number;
  /** A poll found it finished. */
  over(atMs: number): void;
}

export interface Policy {
  watch(task: SimulatedTask): Watch;
}

/** Runway's own SDK: 6 s ± 1.5 s. */
export const fixed = (dice: () => number): Policy => ({
  watch: () => ({ next: () => 4500 + 3000 * dice(), over: () => {} }),
});

/** From the floor by a half more each time up to the ceiling. */
export const backoff = (dice: () => number): Policy => ({
  watch() {
    let wait = SETTINGS.minIntervalMs / 1.5;
    return {
      next() {
        wait = Math.min(wait * 1.5, SETTINGS.maxIntervalMs);
        return wait * (0.85 + 0.3 * dice());
      },
      over: () => {},
    };
  },
});

/** Polls at given ages, in seconds; after the last one every minute. */
export const atAges = (agesOf: (task: SimulatedTask) => readonly number[]): Policy => ({
  watch(task) {
    const ages = agesOf(task);
    let i = -1;
    let last = 0;
    return {
      next() {
        i++;
        const age = ages[i] ?? last + 60;
        const wait = (age - last) * 1000;
        last = age;
        return wait;
      },
      over: () => {},
    };
  },
});

/** A sketch in memory, with the arithmetic of the one in Redis. */
function createSketch() {
  const weights = {
    total: new Map<number, number>(),
    run: new Map<number, number>(),
    progress: new Map<number, number>(),
  };
  let clock = 0;
  let lastAt: number | null = null;
  return {
    learn(lesson: Lesson, atMs: number) {
      clock += lastAt === null ? 0 : forgottenBetween(atMs - lastAt);
      lastAt = atMs;
      for (const part of ['total', 'run', 'progress'] as const) {
        for (const [bucket, share] of lesson[part])
          weights[part].set(bucket, (weights[part].get(bucket) ?? 0) + share * 2 ** clock);
      }
    },
    read(running: ReadonlyMap<number, number>) {
      const histogram = (
        part: keyof typeof weights,
        censored: ReadonlyMap<number, number> = new Map(),
      ): Histogram => ({
        finished: new Map([...weights[part]].map(([b, w]) => [b, w / 2 ** clock])),
        censored,
      });
      return { total: histogram('total', running), run: histogram('run'), progress: histogram('progress') };
    },
  };
}

/** The schedule that learns, reading its sketch anew every `refreshMs`, as a worker does. */
export function learning(
  feed: Feed,
  dice: () => number,
  runningAt: (atMs: number) => ReadonlyMap<number, number>,
  refreshMs = 5000,
): Policy {
  const sketch = createSketch();
  let forecast: Forecast | null = null;
  let readAt = -Infinity;
  const current = (atMs: number): Forecast => {
    if (forecast === null || atMs - readAt >= refreshMs) {
      forecast = forecastOf(sketch.read(runningAt(atMs)));
      readAt = atMs;
    }
    return forecast;
  };
  return {
    watch(task) {
      const acceptedAt = task.submittedAtS * 1000;
      const startedAge = task.queuedS * 1000;
      const endAge = startedAge + task.runS * 1000;
      let polls = 0;
      let lastPollAge = 0;
      let mark: ProgressMark | null = null;
      let queued = false;
      let started: number | null = null;
      return {
        next(atMs) {
          if (polls++ === 0) return firstPollDelayMs(current(atMs), SETTINGS, dice());
          const ageMs = atMs - acceptedAt;
          lastPollAge = ageMs;
          if (feed.times) {
            queued = ageMs < startedAge;
            started = queued ? null : startedAge;
          }
          if (feed.progress) mark = markOf(mark, Math.floor((100 * ageMs) / endAge), ageMs);
          return nextPollDelayMs(
            { ageMs, queued, startedAgeMs: started, mark, timesTold: started !== null, hintedAgoMs: null },
            current(atMs),
            SETTINGS,
            dice(),
          );
        },
        over(atMs) {
          const ageMs = atMs - acceptedAt;
          const lesson = lessonOfEnd({
            ageMs,
            lastPollAgeMs: lastPollAge,
            toldEndAgeMs: feed.times ? Math.floor(endAge / 1000) * 1000 + 999 : null,
            startedAgeMs: feed.times ? startedAge : null,
            wasQueued: queued,
            mark,
          });
          sketch.learn(lesson, atMs);
        },
      };
    },
  };
}
