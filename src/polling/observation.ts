/**
 * What a task that is over, or no longer followed, teaches about how long tasks take, and how quickly that is forgotten:
 * pure functions. The end of a task is only known to lie between two polls, unless the provider tells it.
 */
import { expectedRestMs, PROGRESS_UNIT_MS, type ProgressMark } from './schedule.js';
import { spread } from './histogram.js';

/** What was seen of a task by the time it is learnt from. Ages count from acceptance, in milliseconds. */
export interface Course {
  /** Now: the end was seen, or the following given up. */
  readonly ageMs: number;
  /** The last poll before this one, which found it unfinished; 0 when there was none. */
  readonly lastPollAgeMs: number;
  /** The end as the provider tells it. */
  readonly toldEndAgeMs: number | null;
  readonly startedAgeMs: number | null;
  /** The last poll before this one found it queued. */
  readonly wasQueued: boolean;
  readonly mark: ProgressMark | null;
}

type Shares = readonly (readonly [bucket: number, share: number])[];

/** Shares per bucket of each histogram; empty where nothing is learnt. */
export interface Lesson {
  /** False: censored, it was only seen to last so long. */
  readonly finished: boolean;
  readonly total: Shares;
  readonly run: Shares;
  readonly progress: Shares;
}

/** Times of the provider are whole seconds. */
const TOLD_RESOLUTION_MS = 1000;
/** A told end this far outside of the two polls it must lie between comes from a wrong clock. */
const BELIEVED_WITHIN_MS = 3000;

/** An end that may lie anywhere in so long, and in more than half of the whole time, was not seen. */
const UNSEEN_WITHIN_MS = 120_000;

/** What a task teaches whose end was seen just now. */
export function lessonOfEnd(course: Course): Lesson {
  const { ageMs, lastPollAgeMs, toldEndAgeMs: told, startedAgeMs, mark } = course;
  const believed =
    told !== null && told > lastPollAgeMs - BELIEVED_WITHIN_MS && told < ageMs + BELIEVED_WITHIN_MS;
  const to = believed ? Math.max(0, Math.min(told, ageMs)) : ageMs;
  const from = believed ? Math.max(0, to - TOLD_RESOLUTION_MS) : lastPollAgeMs;

  if (to - from > Math.max(UNSEEN_WITHIN_MS, to / 2)) return lessonOfGivingUp({ ageMs: from, startedAgeMs });

  let run: Shares = [];
  if (startedAgeMs !== null) run = spread(from - startedAgeMs, Math.max(0, to - startedAgeMs));
  else if (course.wasQueued) run = spread(0, ageMs - lastPollAgeMs);

  const asPromised = (atMs: number, by: ProgressMark) =>
    (Math.max(0, atMs - by.ageMs) * PROGRESS_UNIT_MS) / expectedRestMs(by);
  const progress = mark === null ? [] : spread(asPromised(from, mark), asPromised(to, mark));
  return { finished: true, total: spread(from, to), run, progress };
}

/** What a task teaches that is no longer followed: it takes longer than this. */
export function lessonOfGivingUp({ ageMs, startedAgeMs }: Pick<Course, 'ageMs' | 'startedAgeMs'>): Lesson {
  const run = startedAgeMs === null ? [] : spread(ageMs - startedAgeMs, ageMs - startedAgeMs);
  return { finished: false, total: spread(ageMs, ageMs), run, progress: [] };
}

// ---- forgetting ----

/** A lesson weighs half after so many further ones … */
export const HALF_LIFE_LESSONS = 64;
/** … but not before so long, or a crowd in flight would be measured by a moment's finishers … */
export const HALF_LIFE_AT_LEAST_MS = 300_000;
/** … and at the latest after so long. */
export const HALF_LIFE_AT_MOST_MS = 24 * 3_600_000;
