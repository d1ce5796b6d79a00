/** What tasks teach: pure, and honest about what is not known. */
import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { lessonOfEnd, lessonOfGivingUp, type Course } from '../../src/polling/observation.js';
import { PROGRESS_UNIT_MS } from '../../src/polling/schedule.js';
import {
  bucketOf,
  BUCKETS,
  curveOf,
  denseFrom,
  logNormal,
  quantileAfter,
  spread,
  startOf,
  survivalAt,
} from '../../src/polling/histogram.js';

const course = (more: Partial<Course>): Course => ({
  ageMs: 100_000,
  lastPollAgeMs: 94_000,
  toldEndAgeMs: null,
  startedAgeMs: null,
  wasQueued: false,
  mark: null,
  ...more,
});
const totalOf = (shares: readonly (readonly [number, number])[]) => shares.reduce((sum, [, s]) => sum + s, 0);
const rangeOf = (shares: readonly (readonly [number, number])[]) => [
  startOf(shares[0]![0]),
  startOf(shares.at(-1)![0] + 1),
];

describe('buckets', () => {
  test('every duration has one, and lies within it', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 2e7, noNaN: true }), (ms) => {
        const bucket = bucketOf(ms);
        expect(startOf(bucket)).toBeLessThanOrEqual(ms + 1e-6);
        expect(ms).toBeLessThanOrEqual(startOf(bucket + 1) + 1e-6);
      }),
    );
    expect(bucketOf(Infinity)).toBe(BUCKETS - 1);
    expect(bucketOf(NaN)).toBe(0);
  });

  test('what is spread adds up to one', () => {
    const edge = fc.double({ min: -1e5, max: 1e8, noNaN: true });
    fc.assert(
      fc.property(edge, edge, (a, b) => {
        expect(totalOf(spread(Math.min(a, b), Math.max(a, b)))).toBeCloseTo(1, 6);
      }),
    );
  });
});

describe('a finished task', () => {
  test('ended somewhere between the last two polls', () => {
    const { finished, total } = lessonOfEnd(course({}));
    expect(finished).toBe(true);
    const [from, to] = rangeOf(total);
    expect(from).toBeLessThanOrEqual(94_000);
    expect(to).toBeGreaterThanOrEqual(100_000);
    expect(totalOf(total)).toBeCloseTo(1);
  });

  test('is believed about its end when that lies between them', () => {
    const { total } = lessonOfEnd(course({ lastPollAgeMs: 10_000, toldEndAgeMs: 60_000 }));
    expect(total.map(([bucket]) => bucket)).toEqual(spread(59_000, 60_000).map(([bucket]) => bucket));
  });

  test.each([-1_000_000, 10_000, 150_000, 3_600_000_000])(
    'is not believed when a wrong clock says %d',
    (toldEndAgeMs) => {
      expect(lessonOfEnd(course({ toldEndAgeMs }))).toEqual(lessonOfEnd(course({})));
    },
  );

  test('whose end nobody looked for teaches only that it lasted until then', () => {
    const { finished, total } = lessonOfEnd(course({ ageMs: 9_000_000, lastPollAgeMs: 60_000 }));
    expect(finished).toBe(false);
    expect(total).toEqual(spread(60_000, 60_000));
  });

  test('teaches how long its work took, when its start was seen', () => {
    const { run } = lessonOfEnd(course({ startedAgeMs: 40_000 }));
    expect(rangeOf(run)[1]).toBeLessThan(66_000);
    expect(lessonOfEnd(course({})).run).toEqual([]);
  });

  test('that was queued at the poll before worked at most since then', () => {
    expect(rangeOf(lessonOfEnd(course({ wasQueued: true })).run)[0]).toBe(0);
  });

  test('teaches how far its progress could be trusted', () => {
    const { progress } = lessonOfEnd(course({ toldEndAgeMs: 98_000, mark: { progress: 50, ageMs: 49_000 } }));
    const [from, to] = rangeOf(progress);
    expect(from).toBeLessThan(PROGRESS_UNIT_MS);
    expect(to! * 1.06).toBeGreaterThan(PROGRESS_UNIT_MS);
  });
});

describe('censored tasks', () => {
  test('say that it takes longer, and not that it ends', () => {
    const { finished, total } = lessonOfGivingUp({ ageMs: 500_000, startedAgeMs: null });
    expect([finished, total]).toEqual([false, [[bucketOf(500_000), 1]]]);
  });

  test('move the estimate to where it belongs', () => {
    // Of a hundred tasks that take 100 s or 300 s, the long ones are still running: only the short ones have finished.
    const finished = new Map([[bucketOf(100_000), 50]]);
    const naive = curveOf({ finished, censored: new Map() });
    const honest = curveOf({ finished, censored: new Map([[bucketOf(200_000), 50]]) });
    expect(survivalAt(naive, 150_000)).toBeCloseTo(0);
    expect(survivalAt(honest, 150_000)).toBeCloseTo(0.5);
    expect(quantileAfter(honest, 150_000, 0.5)).toBe(Infinity);
  });
});

describe('a curve', () => {
  const weights = fc
    .array(fc.tuple(fc.nat(BUCKETS - 1), fc.double({ min: 0, max: 1e6, noNaN: true })), { maxLength: 30 })
    .map((entries) => new Map(entries));

  test('falls from one, and never below nothing', () => {
    fc.assert(
      fc.property(weights, weights, (finished, censored) => {
        const { survival } = curveOf({ finished, censored });
        expect(survival[0]).toBe(1);
        survival.reduce((before, after) => {
          expect(after).toBeLessThanOrEqual(before);
          expect(after).toBeGreaterThanOrEqual(0);
          return after;
        });
      }),
    );
  });

  test('leaves at most a twentieth of the finishes to the sparse stretches', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 20_000, max: 2_000_000 }),
        fc.double({ min: 0.05, max: 1, noNaN: true }),
        (medianMs, sigma) => {
          const { dense, survival } = curveOf({
            finished: logNormal(medianMs, sigma, 100),
            censored: new Map(),
          });
          const sparse = dense.reduce((sum, is, b) => sum + (is ? 0 : survival[b]! - survival[b + 1]!), 0);
          expect(sparse).toBeLessThan(0.05);
        },
      ),
    );
  });

  test('of nothing is no reason to look', () => {
    expect(denseFrom(curveOf({ finished: new Map(), censored: new Map() }), 0)).toBeNull();
  });
});
