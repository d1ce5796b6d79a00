/** When to ask next: what holds whatever is known, and what knowing something is worth. Pure; no clock, no dice. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import {
  BLANK_FORECAST,
  expectedRestMs,
  firstPollDelayMs,
  forecastOf,
  markOf,
  nextPollDelayMs,
  NO_EXPERIENCE,
  notVisibleDelayMs,
  PROGRESS_UNIT_MS,
  SAFETY_CEILING,
  safetyPollDelayMs,
  soonestPollMs,
  type Forecast,
  type ScheduleSettings,
  type Sighting,
} from '../../src/polling/schedule.js';
import { BUCKETS, EMPTY, logNormal } from '../../src/polling/histogram.js';
import { createDice, firstDay } from '../bench/polling/distributions.js';
import { fixed, learning, type Policy } from '../bench/polling/policies.js';
import { simulate, type RunningAt } from '../bench/polling/simulation.js';

const settings: ScheduleSettings = { firstDelayMs: 5000, minIntervalMs: 5000, maxIntervalMs: 60_000 };
/** A ceiling so high that only the schedule itself decides. */
const unbounded: ScheduleSettings = { ...settings, maxIntervalMs: 3_600_000 };

const sighting = (ageMs: number, more: Partial<Sighting> = {}): Sighting => ({
  ageMs,
  queued: false,
  startedAgeMs: null,
  mark: null,
  timesTold: false,
  hintedAgoMs: null,
  ...more,
});

/** What is known after two hundred tasks of about three minutes. */
const narrow = forecastOf({
  ...NO_EXPERIENCE,
  total: { finished: logNormal(180_000, 0.15, 200), censored: new Map() },
});

/** Any weights at all, also absurd ones. */
const weights = fc
  .array(fc.tuple(fc.nat(BUCKETS - 1), fc.double({ min: 0, max: 1e6, noNaN: true })), { maxLength: 40 })
  .map((entries) => new Map(entries));
const histogram = fc.record({ finished: weights, censored: weights });
const forecasts: fc.Arbitrary<Forecast> = fc
  .record({ total: histogram, run: histogram, progress: histogram, related: histogram })
  .map(({ related, ...experience }) => forecastOf(experience, related));
const ages = fc.double({ min: 0, max: 1e10, noNaN: true });
const dice = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const sightings: fc.Arbitrary<Sighting> = fc.record({
  ageMs: ages,
  queued: fc.boolean(),
  startedAgeMs: fc.option(ages),
  mark: fc.option(
    fc.record({
      progress: fc.double({ min: 0.01, max: 99.99, noNaN: true }),
      ageMs: fc.double({ min: 1, max: 1e10, noNaN: true }),
    }),
  ),
  timesTold: fc.boolean(),
  hintedAgoMs: fc.option(ages),
});
const bounds: fc.Arbitrary<ScheduleSettings> = fc
  .record({ firstDelayMs: fc.nat(1e6), minIntervalMs: fc.integer({ min: 1, max: 1e6 }), more: fc.nat(1e7) })
  .map(({ firstDelayMs, minIntervalMs, more }) => ({
    firstDelayMs,
    minIntervalMs,
    maxIntervalMs: minIntervalMs + more,
  }));

describe('whatever is known and seen', () => {
  test('no wait is below the floor or above the ceiling, and each is a whole number', () => {
    fc.assert(
      fc.property(sightings, forecasts, bounds, dice, (seen, forecast, limits, roll) => {
        const wait = nextPollDelayMs(seen, forecast, limits, roll);
        expect(Number.isInteger(wait)).toBe(true);
        expect(wait).toBeGreaterThanOrEqual(limits.minIntervalMs);
        expect(wait).toBeLessThanOrEqual(limits.maxIntervalMs);
      }),
      { numRuns: 300 },
    );
  });

  test('a safety poll keeps the floor and its own ceiling', () => {
    fc.assert(
      fc.property(ages, forecasts, bounds, dice, (ageMs, forecast, limits, roll) => {
        const wait = safetyPollDelayMs(ageMs, forecast, limits, roll);
        expect(Number.isInteger(wait)).toBe(true);
        expect(wait).toBeGreaterThanOrEqual(limits.minIntervalMs);
        expect(wait).toBeLessThanOrEqual(SAFETY_CEILING * limits.maxIntervalMs);
      }),
    );
  });

  test('a higher roll of the dice never shortens a wait', () => {
    fc.assert(
      fc.property(sightings, forecasts, bounds, dice, dice, (seen, forecast, limits, a, b) => {
        const [low, high] = a < b ? [a, b] : [b, a];
        expect(nextPollDelayMs(seen, forecast, limits, low)).toBeLessThanOrEqual(
          nextPollDelayMs(seen, forecast, limits, high),
        );
      }),
    );
  });

  test('a callback’s hint never lengthens a wait', () => {
    fc.assert(
      fc.property(sightings, forecasts, bounds, dice, ages, (seen, forecast, limits, roll, hintedAgoMs) => {
        const without = nextPollDelayMs({ ...seen, hintedAgoMs: null }, forecast, limits, roll);
        const hinted = nextPollDelayMs({ ...seen, hintedAgoMs }, forecast, limits, roll);
        expect(hinted).toBeLessThanOrEqual(without);
      }),
    );
  });
});

describe('what has been learnt', () => {
  test('nothing is asked before the earliest plausible finish, but for the visibility check', () => {
    const wait = nextPollDelayMs(sighting(5000), narrow, unbounded, 0);
    expect(5000 + wait).toBeGreaterThan(115_000);
    expect(5000 + wait).toBeLessThan(150_000);
  });

  test('the ceiling holds there as well', () => {
    expect(nextPollDelayMs(sighting(5000), narrow, settings, 0.5)).toBe(60_000);
  });

  test('around the median polls are dense: at the floor and up to a fifth above', () => {
    expect(nextPollDelayMs(sighting(180_000), narrow, settings, 0)).toBe(5000);
    expect(nextPollDelayMs(sighting(180_000), narrow, settings, 0.999)).toBeLessThanOrEqual(6000);
  });

  test('past everything seen they are sparse: an eighth of the age', () => {
    expect(nextPollDelayMs(sighting(400_000), narrow, unbounded, 0.5)).toBe(50_000);
  });

  test('between two modes they are sparse, and dense again at the second', () => {
    const finished = logNormal(90_000, 0.05, 120);
    for (const [bucket, weight] of logNormal(300_000, 0.05, 80))
      finished.set(bucket, (finished.get(bucket) ?? 0) + weight);
    const bimodal = forecastOf({ ...NO_EXPERIENCE, total: { finished, censored: new Map() } });
    expect(nextPollDelayMs(sighting(92_000), bimodal, unbounded, 0)).toBe(5000);
    const wait = nextPollDelayMs(sighting(130_000), bimodal, unbounded, 0);
    expect(130_000 + wait).toBeGreaterThan(240_000);
    expect(130_000 + wait).toBeLessThan(290_000);
    expect(nextPollDelayMs(sighting(300_000), bimodal, unbounded, 0)).toBe(5000);
  });

  test('an end that is told, near and sharp is aimed at: the poll comes right after it, not somewhere in an interval', () => {
    const run = { finished: logNormal(40_000, 0.02, 200), censored: new Map() };
    const total = { finished: logNormal(42_000, 0.2, 200), censored: new Map() };
    const sharp = forecastOf({ ...NO_EXPERIENCE, run, total });
    const ends = [0, 0.25, 0.5, 0.75, 0.999].map((roll) => {
      const seen = sighting(20_000, { startedAgeMs: 2000, timesTold: true });
      return 20_000 + nextPollDelayMs(seen, sharp, settings, roll);
    });
    // Nearly all end from 40 to 44 s after acceptance.
    expect(Math.min(...ends)).toBeGreaterThan(42_000);
    expect(Math.max(...ends)).toBeLessThan(45_500);
    const passed = nextPollDelayMs(
      sighting(43_000, { startedAgeMs: 2000, timesTold: true }),
      sharp,
      settings,
      0.5,
    );
    expect(passed).toBeGreaterThanOrEqual(5000);
    expect(passed).toBeLessThanOrEqual(6000);
  });

  test('tasks accepted together are not asked together', () => {
    const waits = [0, 0.25, 0.5, 0.75, 0.99].map((roll) =>
      nextPollDelayMs(sighting(5000), narrow, unbounded, roll),
    );
    expect(new Set(waits).size).toBe(waits.length);
    expect(new Set([0, 0.5, 0.9].map((roll) => firstPollDelayMs(narrow, settings, roll))).size).toBe(3);
  });
});

describe('the first look', () => {
  const lasting = (medianMs: number, weight = 100) =>
    forecastOf({
      ...NO_EXPERIENCE,
      total: { finished: logNormal(medianMs, 0.15, weight), censored: new Map() },
    });

  test('comes when it is set to, of a task that takes longer', () => {
    expect(firstPollDelayMs(BLANK_FORECAST, settings, 0)).toBe(5000);
    expect(firstPollDelayMs(narrow, settings, 0)).toBe(5000);
    expect(firstPollDelayMs(narrow, settings, 0.999)).toBeLessThanOrEqual(6000);
    expect(firstPollDelayMs(lasting(12_000), settings, 0)).toBe(5000);
    expect(firstPollDelayMs(lasting(2000), settings, 0)).toBe(5000);
  });

  test('waits for the likely end of a task that takes little longer', () => {
    const wait = firstPollDelayMs(lasting(8000), settings, 0);
    expect(wait).toBeGreaterThan(7000);
    expect(wait).toBeLessThan(8500);
    expect(firstPollDelayMs(lasting(8000, 2), settings, 0)).toBe(5000);
  });

  test('is never put off by more than one interval, nor beyond the ceiling', () => {
    fc.assert(
      fc.property(forecasts, bounds, dice, (forecast, limits, roll) => {
        const { firstDelayMs, minIntervalMs, maxIntervalMs } = limits;
        const wait = firstPollDelayMs(forecast, limits, roll);
        const check = firstDelayMs * 1.2;
        expect(Number.isInteger(wait)).toBe(true);
        expect(wait).toBeGreaterThanOrEqual(firstDelayMs);
        expect(wait).toBeLessThanOrEqual(
          Math.ceil(Math.max(check, Math.min(check + minIntervalMs, maxIntervalMs))),
        );
      }),
    );
  });
});

describe('before anything is known', () => {
  test('no wait is longer than what has passed', () => {
    for (const ageMs of [10_000, 20_000, 60_000]) {
      expect(nextPollDelayMs(sighting(ageMs), BLANK_FORECAST, unbounded, 0.5)).toBeLessThanOrEqual(ageMs);
    }
  });

  test('a kind that is new is taken for what the others were', () => {
    const related = { finished: logNormal(600_000, 0.1, 200), censored: new Map() };
    const forecast = forecastOf(NO_EXPERIENCE, related);
    expect(nextPollDelayMs(sighting(180_000), forecast, unbounded, 0)).toBeGreaterThan(120_000);
    expect(nextPollDelayMs(sighting(600_000), forecast, unbounded, 0)).toBe(5000);
  });
});

describe('what a task tells on the way', () => {
  const queueing = forecastOf({
    total: { finished: logNormal(900_000, 1, 200), censored: new Map() },
    run: { finished: logNormal(120_000, 0.1, 200), censored: new Map() },
    progress: { finished: logNormal(PROGRESS_UNIT_MS, 0.02, 200), censored: new Map() },
  });

  test('while it is queued, nothing is expected before the shortest work is done', () => {
    const wait = nextPollDelayMs(sighting(900_000, { queued: true }), queueing, unbounded, 0);
    expect(wait).toBeGreaterThan(80_000);
    expect(wait).toBeLessThan(115_000);
  });

  test('once its work has begun, that decides and not its age', () => {
    const begun = sighting(2_000_000, { startedAgeMs: 1_990_000 });
    const wait = nextPollDelayMs(begun, queueing, unbounded, 0);
    expect(wait).toBeGreaterThan(70_000);
    expect(wait).toBeLessThan(105_000);
    const due = sighting(2_110_000, { startedAgeMs: 1_990_000 });
    expect(nextPollDelayMs(due, queueing, unbounded, 0)).toBe(5000);
  });

  test('a progress report bends the schedule to what it promises', () => {
    const mark = { progress: 25, ageMs: 100_000 };
    expect(expectedRestMs(mark)).toBe(300_000);
    const wait = nextPollDelayMs(sighting(100_000, { mark }), queueing, unbounded, 0);
    expect(wait).toBeGreaterThan(250_000);
    expect(wait).toBeLessThan(300_000);
  });

  test('a promise that was not kept is forgotten: a task stuck near its end is not hammered', () => {
    const mark = { progress: 50, ageMs: 100_000 };
    const stuck = forecastOf({
      ...NO_EXPERIENCE,
      progress: { finished: logNormal(PROGRESS_UNIT_MS, 0.02, 200), censored: new Map() },
      total: { finished: logNormal(200_000, 0.1, 200), censored: new Map() },
    });
    expect(nextPollDelayMs(sighting(800_000, { mark }), stuck, unbounded, 0.5)).toBe(100_000);
  });

  test('progress that never meant anything is not believed', () => {
    const noise = forecastOf({
      total: { finished: logNormal(180_000, 0.1, 200), censored: new Map() },
      run: EMPTY,
      progress: { finished: logNormal(PROGRESS_UNIT_MS, 2, 200), censored: new Map() },
    });
    const mark = { progress: 20, ageMs: 10_000 };
    const seen = sighting(10_000, { mark });
    expect(nextPollDelayMs(seen, noise, unbounded, 0)).toBe(
      nextPollDelayMs(sighting(10_000), noise, unbounded, 0),
    );
  });

  test.each([
    [null, 3, null],
    [null, 12, { progress: 12, ageMs: 50 }],
    [{ progress: 12, ageMs: 20 }, 40, { progress: 40, ageMs: 50 }],
    [{ progress: 40, ageMs: 20 }, 40, { progress: 40, ageMs: 20 }],
    [{ progress: 40, ageMs: 20 }, 80, { progress: 40, ageMs: 20 }],
    [null, 80, { progress: 80, ageMs: 50 }],
    [null, 99, null],
    [{ progress: 40, ageMs: 20 }, null, { progress: 40, ageMs: 20 }],
  ])('of the report %j and a new one of %j it goes by %j', (mark, progress, expected) => {
    expect(markOf(mark, progress, 50)).toEqual(expected);
  });
});

describe('while callbacks arrive', () => {
  test('the first safety poll comes when most such tasks are over', () => {
    const wait = safetyPollDelayMs(0, narrow, settings, 0.5);
    expect(wait).toBeGreaterThan(210_000);
    expect(wait).toBeLessThan(240_000);
  });

  test('each further one when the task is half as old again', () => {
    expect(safetyPollDelayMs(400_000, narrow, settings, 0.5)).toBe(200_000);
  });

  test('a hint that the feed does not confirm is followed at the floor, and less and less', () => {
    const wait = (hintedAgoMs: number) =>
      nextPollDelayMs(sighting(10_000, { hintedAgoMs }), narrow, unbounded, 0);
    expect(wait(100)).toBe(5000);
    expect(wait(60_000)).toBe(15_000);
  });

  test('however many come, polls are a second apart', () => {
    expect(soonestPollMs(null, 10_000)).toBe(0);
    expect(soonestPollMs(9700, 10_000)).toBe(700);
    expect(soonestPollMs(8000, 10_000)).toBe(0);
    // Another replica's clock is ahead.
    expect(soonestPollMs(99_000, 10_000)).toBe(1000);
  });
});

test('a task that is not visible yet is looked for soon, below the floor at first', () => {
  expect(notVisibleDelayMs(0, settings, 0.5)).toBe(1000);
  expect(notVisibleDelayMs(8000, settings, 0.5)).toBe(2000);
  expect(notVisibleDelayMs(1_000_000, settings, 0.5)).toBe(5000);
});

test('with nothing learnt, progress and start times halve the polls of a fixed 6 s, at no later detection', () => {
  const seeds = Array.from({ length: 4 }, (_, i) => i + 1);
  const feed = { times: true, progress: true };
  const run = (create: (dice: () => number, runningAt: RunningAt) => Policy) => {
    const runs = seeds.map((seed) =>
      simulate(firstDay(300, createDice(seed)), (runningAt) => create(createDice(1000 + seed), runningAt)),
    );
    const delays = runs.flatMap((one) => one.delays).sort((a, b) => a - b);
    const quantile = (q: number) => delays[Math.floor(q * delays.length)]!;
    const polls = runs.reduce((sum, one) => sum + one.pollsPerTask, 0);
    return { polls, p50: quantile(0.5), p95: quantile(0.95) };
  };
  const usual = run((dice) => fixed(dice));
  const ours = run((dice, runningAt) => learning(feed, dice, runningAt));
  expect(ours.polls).toBeLessThanOrEqual(usual.polls / 2);
  expect(ours.p50).toBeLessThanOrEqual(usual.p50);
  expect(ours.p95).toBeLessThanOrEqual(usual.p95);
});
