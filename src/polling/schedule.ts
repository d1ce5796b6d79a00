/**
 * When to ask the provider next: pure functions of what was seen of a task, what is known of tasks of its kind, and
 * dice. The rules come from the provider notes (timing): Runway asks for no faster than one poll in 5 s per task, its
 * own SDK polls every 6 s. How the figures here were found, and what they are worth, is in `docs/polling.md`.
 */
import {
  curveOf,
  denseFrom,
  EMPTY,
  logNormal,
  quantileAfter,
  survivalAt,
  type Curve,
  type Histogram,
} from './histogram.js';

export interface ScheduleSettings {
  /** From acceptance to the first look, which tells whether the task is visible; of short tasks it may come later. */
  readonly firstDelayMs: number;
  /** The floor. */
  readonly minIntervalMs: number;
  /** The ceiling. */
  readonly maxIntervalMs: number;
}

const JITTER = 0.15;

/** Spreads a wait by ±15 %, so that tasks submitted together are not polled together. `dice` is in [0, 1). */
export function jittered(delayMs: number, dice: number): number {
  return Math.round(delayMs * (1 - JITTER + 2 * JITTER * dice));
}

// ---- what is known of tasks of a kind ----

/** What finished tasks of one kind leave behind: three histograms. */
export interface Experience {
  /** From acceptance to the end. */
  readonly total: Histogram;
  /** From the start of the work to the end; only of tasks whose start was seen. */
  readonly run: Histogram;
  /** How long it really took from a progress report, in units of `PROGRESS_UNIT_MS` per expected duration. */
  readonly progress: Histogram;
}

export const NO_EXPERIENCE: Experience = { total: EMPTY, run: EMPTY, progress: EMPTY };

/** The same, read as curves. */
export interface Forecast {
  readonly total: Curve;
  readonly run: Curve;
  readonly progress: Curve;
  /** False while next to nothing is known, and most of it is assumed. */
  readonly isKnown: boolean;
}

/** A task that takes exactly as long as its progress promised is written down as this. */
export const PROGRESS_UNIT_MS = 100_000;

/** Assumed before anything is known: 104, 291 and 359 s were seen (provider notes). */
const ASSUMED_MEDIAN_MS = 180_000;
const ASSUMED_SIGMA = 0.6;
/** The assumption weighs as much as so many tasks, and nothing any more once there are `KNOWN_AFTER` real ones. */
const ASSUMED_WEIGHT = 6;
const KNOWN_AFTER = 48;
/** Progress is taken to be linear until tasks say otherwise: so far off its promise, as the deviation of the logarithm. */
const ASSUMED_PROGRESS_SIGMA = 0.06;

/** With so few tasks behind it, a curve is not asked. */
const ASK_FROM = 8;

/** @param related what is known of all kinds together: what a kind that is new is taken for. */
export function forecastOf({ total, run, progress }: Experience, related: Histogram = EMPTY): Forecast {
  const assume = (known: Histogram, assumed: ReadonlyMap<number, number>) => {
    const scale = (doubtOf(known) * ASSUMED_WEIGHT) / (sumOf(assumed) || 1);
    return new Map([...assumed].map(([bucket, weight]) => [bucket, weight * scale]));
  };
  const general = new Map(related.finished);
  const assumedWeight = doubtOf(related) * ASSUMED_WEIGHT;
  for (const [bucket, weight] of logNormal(ASSUMED_MEDIAN_MS, ASSUMED_SIGMA, assumedWeight)) {
    general.set(bucket, (general.get(bucket) ?? 0) + weight);
  }
  return {
    total: curveOf(total, assume(total, general)),
    run: curveOf(run),
    progress: curveOf(
      progress,
      logNormal(PROGRESS_UNIT_MS, ASSUMED_PROGRESS_SIGMA, doubtOf(progress) * ASK_FROM),
    ),
    isKnown: sumOf(total.finished) + sumOf(related.finished) >= ASK_FROM,
  };
}

const doubtOf = ({ finished }: Histogram) => Math.max(0, 1 - sumOf(finished) / KNOWN_AFTER);

const sumOf = (weights: ReadonlyMap<number, number>) => [...weights.values()].reduce((sum, w) => sum + w, 0);

/** What is forecast before anything is known. */
export const BLANK_FORECAST: Forecast = forecastOf(NO_EXPERIENCE);

/** A progress report that a forecast can start from. */
export interface ProgressMark {
  /** Percent, above 0 and below 100. */
  readonly progress: number;
  /** When it was first seen, from acceptance. */
  readonly ageMs: number;
}

/** Earlier ones are too coarse, later ones come too late to be of use. */
const MARK_FROM = 10;
const MARK_UNTIL = 60;
const MARK_AT_ALL_UNTIL = 90;

/** The report to go by, of the one so far and a new one: the last up to 60 %, or the first after it. */
export function markOf(
  mark: ProgressMark | null,
  progress: number | null,
  ageMs: number,
): ProgressMark | null {
  if (progress === null || progress < MARK_FROM || progress === mark?.progress || !(ageMs > 0)) return mark;
  const useful = progress <= (mark === null ? MARK_AT_ALL_UNTIL : MARK_UNTIL);
  return useful ? { progress, ageMs } : mark;
}

/** How long a task takes from such a report on, if it goes on as it began. */
export function expectedRestMs({ progress, ageMs }: ProgressMark): number {
  return (ageMs * (100 - progress)) / progress;
}

// ---- one task ----

/** A task as it was seen last. Ages count from acceptance, in milliseconds. */
export interface Sighting {
  readonly ageMs: number;
  /** The provider says that its work has not begun. */
  readonly queued: boolean;
  /** When the work began; null when that is not known. */
  readonly startedAgeMs: number | null;
  readonly mark: ProgressMark | null;
  /** The provider tells when the work began, and so will tell when it ended. */
  readonly timesTold: boolean;
  /** How long ago a callback said that it may be over; null when none did. */
  readonly hintedAgoMs: number | null;
}

/** Where looking is dense, waits are this much longer than the floor, by the dice: 5 to 6 s instead of 5 s. */
const DENSE_SPREAD = 0.2;
/** Past everything known: an eighth of the age, so that a finish is noticed within 12 % of it. */
const FRACTION_OF_AGE = 1 / 8;
/** A curve that so few of its own tasks outlived says nothing about this one. */
const OUTLIVED = 0.03;
/** How much vaguer a curve may be that knows more of the task: a small sample looks sharper than it is. */
const VAGUER = 2;
/** After a callback that the feed does not confirm yet, waits grow with the time since it came. */
const FRACTION_OF_HINT = 1 / 4;

/** A curve seen from a task: it began at `fromAgeMs`, and a millisecond of it takes `scale` real ones. */
interface Outlook {
  readonly curve: Curve;
  readonly fromAgeMs: number;
  readonly scale: number;
}

/** The wait before the next poll of a task that is not finished: never below the floor, never above the ceiling. */
export function nextPollDelayMs(
  seen: Sighting,
  forecast: Forecast,
  settings: ScheduleSettings,
  dice: number,
): number {
  const { ageMs, queued, hintedAgoMs } = seen;
  const { minIntervalMs: floor, maxIntervalMs: ceiling } = settings;
  const denseMs = floor * (1 + DENSE_SPREAD * dice);
  const tailMs = jittered(Math.max(2 * floor, ageMs * FRACTION_OF_AGE), dice);
  const outlook = chooseOutlook(seen, forecast);
  let wait = tailMs;
  if (outlook !== null) {
    // Between polls that are far apart an end is known only when it is told, and only a curve of known ends stays sharp.
    const intervalMs = floor * (1 + DENSE_SPREAD / 2);
    wait =
      (seen.timesTold && isSharp(outlook, ageMs, intervalMs)
        ? bestWaitMs(outlook, ageMs, intervalMs, dice)
        : untilDense(outlook, ageMs, denseMs, dice)) ?? tailMs;
  }
  if (queued && forecast.run.weight >= ASK_FROM) {
    // It has yet to begin: nothing can be there before the shortest work is done.
    const begun = { curve: forecast.run, fromAgeMs: ageMs, scale: 1 };
    wait = Math.max(wait, untilDense(begun, ageMs, denseMs, dice) ?? 0);
  }
  // An assumption may be far off: until it is replaced, no wait is longer than what has passed.
  if (!forecast.isKnown) wait = Math.min(wait, jittered(Math.max(2 * floor, ageMs), dice));
  wait = Math.min(wait, hintedPollDelayMs(hintedAgoMs, settings, dice));
  return clamp(wait, floor, ceiling);
}

/**
 * The best informed outlook that still says something about this task: by its progress, by when its work began, by
 * its age. One that was much vaguer than the age alone when it began is not believed; null when none has anything to say.
 */
function chooseOutlook({ ageMs, startedAgeMs, mark }: Sighting, forecast: Forecast): Outlook | null {
  const { total, run, progress } = forecast;
  const byAge: Outlook = { curve: total, fromAgeMs: 0, scale: 1 };
  const better: Outlook[] = [];
  if (mark !== null && progress.weight >= ASK_FROM) {
    const scale = expectedRestMs(mark) / PROGRESS_UNIT_MS;
    better.push({ curve: progress, fromAgeMs: mark.ageMs, scale });
  }
  if (startedAgeMs !== null && run.weight >= ASK_FROM) {
    better.push({ curve: run, fromAgeMs: startedAgeMs, scale: 1 });
  }
  const believed = better.find(
    (outlook) =>
      !isOutlived(outlook, ageMs) &&
      vaguenessMs(outlook, outlook.fromAgeMs) <= VAGUER * vaguenessMs(byAge, outlook.fromAgeMs),
  );
  return believed ?? (isOutlived(byAge, ageMs) ? null : byAge);
}

const along = ({ fromAgeMs, scale }: Outlook, ageMs: number) => Math.max(0, ageMs - fromAgeMs) / scale;

function isOutlived(outlook: Outlook, ageMs: number): boolean {
  return survivalAt(outlook.curve, along(outlook, ageMs)) < OUTLIVED;
}

/** Real milliseconds between the earliest and the latest tenth of what was to be expected at that age. */
function vaguenessMs(outlook: Outlook, ageMs: number): number {
  if (isOutlived(outlook, ageMs)) return Infinity;
  const since = along(outlook, ageMs);
  const { curve, scale } = outlook;
  return (quantileAfter(curve, since, 0.9) - quantileAfter(curve, since, 0.1)) * scale;
}

/** Real milliseconds until an outlook is worth looking densely; `denseMs` when it is now, null when it is over. */
function untilDense(outlook: Outlook, ageMs: number, denseMs: number, dice: number): number | null {
  const since = along(outlook, ageMs);
  const from = denseFrom(outlook.curve, since);
  if (from === null) return null;
  // Somewhere in the first dense interval, so that tasks accepted together are not asked together.
  return Math.max(denseMs, (from - since) * outlook.scale + denseMs * dice);
}

/**
 * An end is aimed at when it is known to within so many dense intervals, and when nearly all such tasks end within so many: a
 * curve has steps of 5 %, so that it cannot tell a later end well enough.
 */
const SHARP = { within: 1.5, near: 6 };
/** A poll is worth so many dense intervals of delay. */
const POLL_WORTH = 0.25;
/** Waits are compared in such steps, over so many dense intervals; what costs so little more is as good, and the dice choose. */
const AIM = { step: 0.1, over: 3, asGood: 0.02 };

function isSharp(outlook: Outlook, ageMs: number, intervalMs: number): boolean {
  const { curve, scale } = outlook;
  const since = along(outlook, ageMs);
  return (
    vaguenessMs(outlook, ageMs) < SHARP.within * intervalMs &&
    (quantileAfter(curve, since, 0.9) - since) * scale < SHARP.near * intervalMs
  );
}

/**
 * The wait after which a sharp end is found soonest for the fewest polls, `intervalMs` or longer; null when nothing is left of
 * the outlook. Of polls after s, s + d, s + 2d …, and S(t) the chance that the task still runs after t, the expected delay
 * is s·S(0) + d·Σ S(s + k·d) and a constant, and the polls are Σ S(s + k·d).
 */
function bestWaitMs(outlook: Outlook, ageMs: number, intervalMs: number, dice: number): number | null {
  const since = along(outlook, ageMs);
  const from = denseFrom(outlook.curve, since);
  if (from === null) return null;
  const earliest = Math.max(1, ((from - since) * outlook.scale) / intervalMs);
  const runs = (intervals: number) =>
    survivalAt(outlook.curve, along(outlook, ageMs + intervals * intervalMs));
  const waits = Array.from({ length: AIM.over / AIM.step }, (_, i) => earliest + i * AIM.step);
  const costs = waits.map((wait) => {
    let cost = wait * runs(0);
    // The outlook is sharp: after so many intervals nothing is left of it.
    for (let k = 0; k < 4 * AIM.over; k++) cost += (1 + POLL_WORTH) * runs(wait + k);
    return cost;
  });
  const best = Math.min(...costs) + AIM.asGood * runs(0);
  const good = waits.filter((_, i) => costs[i]! <= best);
  return good[Math.floor(dice * good.length)]! * intervalMs;
}

function clamp(delayMs: number, floor: number, ceiling: number): number {
  return Math.max(floor, Math.min(Math.round(delayMs), ceiling));
}

/** When so many of its kind are finished, the first look of a short task finds the most ends for the least delay. */
const FIRST_QUANTILE = 0.4;

/**
 * The wait from acceptance to the first poll: the visibility check. Of tasks that are likely to end within one interval
 * after it, it is put off until then: a look at 5 s would only keep the floor from looking at 8 s.
 */
export function firstPollDelayMs(
  { total, isKnown }: Forecast,
  { firstDelayMs, minIntervalMs, maxIntervalMs }: ScheduleSettings,
  dice: number,
): number {
  const spread = 1 + DENSE_SPREAD * dice;
  const check = firstDelayMs * spread;
  const likely = isKnown ? quantileAfter(total, 0, FIRST_QUANTILE) * spread : 0;
  const isShort = likely > check && likely <= Math.min(check + minIntervalMs, maxIntervalMs);
  return Math.round(isShort ? likely : check);
}

// ---- while callbacks arrive ----

/** A safety poll comes when so many of its kind are finished: it costs one poll of twelve tasks. */
const SAFETY_QUANTILE = 0.92;
/** While callbacks arrive the ceiling is so many times higher. */
export const SAFETY_CEILING = 10;

/** The wait before the next safety poll of a task whose end a callback should tell. `ageMs` is 0 at acceptance. */
export function safetyPollDelayMs(
  ageMs: number,
  { total }: Forecast,
  { minIntervalMs, maxIntervalMs }: ScheduleSettings,
  dice: number,
): number {
  const due = quantileAfter(total, 0, SAFETY_QUANTILE);
  // The first where most are finished, each further one when the task is half as old again.
  const wait = ageMs < due * (1 - JITTER) ? due - ageMs : ageMs / 2;
  return clamp(jittered(wait, dice), minIntervalMs, SAFETY_CEILING * maxIntervalMs);
}

/** The longest wait while a callback's word stands against the provider's feed; without one, any is short enough. */
export function hintedPollDelayMs(
  hintedAgoMs: number | null,
  { minIntervalMs }: ScheduleSettings,
  dice: number,
): number {
  if (hintedAgoMs === null) return Infinity;
  return Math.round(Math.max(minIntervalMs * (1 + DENSE_SPREAD * dice), hintedAgoMs * FRACTION_OF_HINT));
}

/** However many callbacks come, they bring forward one poll in so long. */
const HINTED_AT_MOST_EVERY_MS = 1000;

/** How long a poll that a callback asks for has to wait, when the last one began at `polledAt`. */
export function soonestPollMs(polledAt: number | null, now: number): number {
  if (polledAt === null) return 0;
  return Math.min(HINTED_AT_MOST_EVERY_MS, Math.max(0, polledAt + HINTED_AT_MOST_EVERY_MS - now));
}

// ---- what is no matter of experience ----

/** Where experience is no guide (a success without its video): waits grow with what they wait for, up to the ceiling. */
export function easingDelayMs(sinceMs: number, settings: ScheduleSettings, dice: number): number {
  const wanted = jittered(Math.max(settings.minIntervalMs, sinceMs * FRACTION_OF_AGE), dice);
  return clamp(wanted, settings.minIntervalMs, settings.maxIntervalMs);
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
