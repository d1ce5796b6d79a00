/**
 * The pace of following: puts together what is known of one task, of tasks of its kind, and of callbacks, and asks the
 * schedule. Learning is a side line: when it fails, the schedule knows less, and nothing else happens.
 */
import type { Logger } from 'pino';
import type { Config } from '../config/config.js';
import type { Arrivals } from './callback-trust.js';
import type { Durations } from './duration-stats.js';
import type { Lesson } from './observation.js';
import {
  firstPollDelayMs,
  nextPollDelayMs,
  safetyPollDelayMs,
  type ScheduleSettings,
  type Sighting,
} from './schedule.js';

export interface Pacing {
  readonly settings: ScheduleSettings;
  /** From acceptance to the first poll, in milliseconds. */
  firstDelayMs(kind: string | null): Promise<number>;
  /**
   * From a poll that found the task unfinished to the next. `callback`: its submit gave an address of ours, so that a
   * callback may come.
   */
  nextDelayMs(kind: string | null, seen: Sighting, callback: boolean): Promise<number>;
  /** A task is over, or followed no more. `hinted`: had a callback said so? Null when that says nothing. */
  learn(kind: string | null, lesson: Lesson, hinted: boolean | null): Promise<void>;
  /** A callback came for a task that was found finished without it. */
  learnArrival(): Promise<void>;
}

export interface PacingDeps {
  readonly config: Pick<
    Config,
    'PUBLIC_URL' | 'POLL_FIRST_DELAY_MS' | 'POLL_MIN_INTERVAL_MS' | 'POLL_MAX_INTERVAL_MS'
  >;
  readonly durations: Durations;
  readonly arrivals: Arrivals;
  readonly dice: () => number;
  readonly log: Logger;
}

export function createPacing({ config, durations, arrivals, dice, log }: PacingDeps): Pacing {
  const settings: ScheduleSettings = {
    firstDelayMs: config.POLL_FIRST_DELAY_MS,
    minIntervalMs: config.POLL_MIN_INTERVAL_MS,
    maxIntervalMs: config.POLL_MAX_INTERVAL_MS,
  };
  const reachable = config.PUBLIC_URL !== '';
  const isRelaxed = async () => reachable && (await arrivals.areTrusted());

  async function quietly(learning: Promise<void>): Promise<void> {
    try {
      await learning;
    } catch (error) {
      log.warn({ err: error }, 'the schedule could not learn from a task');
    }
  }

  return {
    settings,

    async firstDelayMs(kind) {
      const [forecast, relaxed] = await Promise.all([durations.forecast(kind), isRelaxed()]);
      if (relaxed) return safetyPollDelayMs(0, forecast, settings, dice());
      return firstPollDelayMs(forecast, settings, dice());
    },

    async nextDelayMs(kind, seen, callback) {
      const forecast = await durations.forecast(kind);
      const usual = nextPollDelayMs(seen, forecast, settings, dice());
      // After a hint that the feed does not confirm yet, it will do so soon.
      if (!callback || seen.hintedAgoMs !== null || !(await isRelaxed())) return usual;
      return Math.max(usual, safetyPollDelayMs(seen.ageMs, forecast, settings, dice()));
    },

    async learn(kind, lesson, hinted) {
      await quietly(durations.learn(kind, lesson));
      if (reachable && hinted !== null) await quietly(arrivals.note(hinted));
    },

    async learnArrival() {
      await quietly(arrivals.note(true));
    },
  };
}
