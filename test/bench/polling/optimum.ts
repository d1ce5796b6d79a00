/**
 * What is possible: schedules that know the distribution, found by dynamic programming over poll times on a grid. A poll
 * at `t` after one at `s` is made by every task that outlives `s`; it finds those that end between the two.
 *
 * - `bestAges`: the least mean delay for a given number of polls (Lagrange, bisected);
 * - `fewestPolls`: a lower bound on the polls of *any* schedule that keeps the floor and has a median and a 95th
 *   percentile of the delay no worse than given: the maximum of the dual, which no schedule can be below.
 */
import { SETTINGS } from './policies.js';

const STEP_S = 0.5;
const FLOOR_STEPS = SETTINGS.minIntervalMs / 1000 / STEP_S;
/** No schedule that is worth anything waits longer between two polls. */
const LONGEST_STEPS = 400 / STEP_S;

/** One stratum: how many of its tasks are over by each step of the grid. */
export interface Stratum {
  /** Share of all tasks. */
  readonly share: number;
  /** Cumulative distribution at 0, 1, 2 … steps; the last is 1. */
  readonly over: Float64Array;
  /** Cumulative first moment, in seconds. */
  readonly moment: Float64Array;
}

/** A histogram of a large sample, in seconds. The last thousandth is left out: there polls go on every minute. */
export function stratumOf(samplesS: readonly number[], share: number): Stratum {
  const sorted = [...samplesS].sort((a, b) => a - b);
  const lastS = sorted[Math.floor(0.999 * (sorted.length - 1))] ?? 0;
  const steps = Math.ceil(lastS / STEP_S) + 1;
  const over = new Float64Array(steps + 1);
  const moment = new Float64Array(steps + 1);
  for (const s of sorted) over[Math.min(steps, Math.max(1, Math.ceil(s / STEP_S)))]! += 1 / sorted.length;
  for (let i = 1; i <= steps; i++) {
    moment[i] = moment[i - 1]! + over[i]! * (i - 0.5) * STEP_S;
    over[i] = over[i - 1]! + over[i]!;
  }
  return { share, over, moment };
}

type GapCost = (stratum: Stratum, from: number, to: number) => number;

/** The cheapest sequence of polls of one stratum: its cost, and its steps. */
function cheapest(
  stratum: Stratum,
  cost: GapCost,
): { readonly cost: number; readonly ages: readonly number[] } {
  const last = stratum.over.length - 1;
  const total = new Float64Array(last + 1);
  const next = new Int32Array(last + 1);
  for (let from = last - 1; from >= 0; from--) {
    total[from] = Infinity;
    for (let to = from + FLOOR_STEPS; to <= from + LONGEST_STEPS; to++) {
      const end = Math.min(to, last);
      const sum = cost(stratum, from, end) + total[end]!;
      if (sum < total[from]!) {
        total[from] = sum;
        next[from] = end;
      }
      if (to >= last) break;
    }
  }
  const ages: number[] = [];
  for (let at = 0; at < last; at = next[at]!) ages.push(next[at]! * STEP_S);
  return { cost: total[0]!, ages };
}

function pollsOf({ over }: Stratum, ages: readonly number[]): number {
  return [0, ...ages.slice(0, -1)].reduce((sum, age) => sum + 1 - over[Math.round(age / STEP_S)]!, 0);
}

/** The ages, per stratum, at which `pollsPerTask` polls find the ends soonest on average. */
export function bestAges(strata: readonly Stratum[], pollsPerTask: number): readonly (readonly number[])[] {
  const at = (price: number) =>
    strata.map(
      (stratum) =>
        cheapest(stratum, ({ over, moment }, from, to) => {
          const delay = to * STEP_S * (over[to]! - over[from]!) - (moment[to]! - moment[from]!);
          return price * (1 - over[from]!) + delay;
        }).ages,
    );
  let [cheap, dear] = [0.001, 1000];
  for (let i = 0; i < 24; i++) {
    const price = Math.sqrt(cheap * dear);
    const polls = at(price).reduce((sum, ages, s) => sum + strata[s]!.share * pollsOf(strata[s]!, ages), 0);
    if (polls > pollsPerTask) cheap = price;
    else dear = price;
  }
  return at(dear);
}

/** A lower bound on the polls per task of any schedule whose delays have this median and 95th percentile, in seconds. */
export function fewestPolls(strata: readonly Stratum[], p50: number, p95: number): number {
  const late = ({ over }: Stratum, from: number, to: number, delayS: number) => {
    const step = to - delayS / STEP_S;
    if (step <= from) return 0;
    const whole = Math.floor(step);
    return over[whole]! + (over[whole + 1]! - over[whole]!) * (step - whole) - over[from]!;
  };
  const dual = (median: number, tail: number) =>
    strata.reduce((sum, stratum) => {
      const { cost } = cheapest(
        stratum,
        (s, from, to) => 1 - s.over[from]! + median * late(s, from, to, p50) + tail * late(s, from, to, p95),
      );
      return sum + stratum.share * cost;
    }, 0) -
    0.5 * median -
    0.05 * tail;

  // Concave in both prices: climb with shrinking steps. Wherever it stops, the bound holds.
  let best = { median: 10, tail: 100, value: dual(10, 100) };
  for (let factor = 3; factor > 1.02;) {
    const { median, tail } = best;
    const tries = [
      [median * factor, tail],
      [median / factor, tail],
      [median, tail * factor],
      [median, tail / factor],
    ] as const;
    const found = tries.map(([m, t]) => ({ median: m, tail: t, value: dual(m, t) }));
    const top = found.reduce((a, b) => (b.value > a.value ? b : a));
    if (top.value > best.value) best = top;
    else factor = Math.sqrt(factor);
  }
  return best.value;
}
