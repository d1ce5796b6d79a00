/** How long the tasks of the polling simulation take: distributions, each with what the feed could tell on the way. */

/** A small generator (mulberry32), so that a run can be repeated. */
export function createDice(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Seconds. `queuedS` is the part before the provider begins. */
interface Span {
  readonly queuedS: number;
  readonly runS: number;
}

export interface SimulatedTask extends Span {
  readonly submittedAtS: number;
  /** Tasks of one stratum have one distribution; whoever knows everything knows the stratum. */
  readonly stratum: number;
  /** From when on that distribution counts: 0, or the start of the work where the queue is the subject. */
  readonly sinceS: number;
}

export interface Distribution {
  readonly name: string;
  readonly about: string;
  make(count: number, dice: () => number): SimulatedTask[];
}

const SUBMITTED_EVERY_S = 4;

function normal(dice: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - dice())) * Math.cos(2 * Math.PI * dice());
}
/** A duration; the median's unit is the result's. */
export const logNormal = (dice: () => number, median: number, sigma: number) =>
  median * Math.exp(sigma * normal(dice));

/** A twentieth of a task is queue, unless the queue is the subject. */
const QUEUED_SHARE = 0.05;
const whole = (totalS: number): Span => ({
  queuedS: totalS * QUEUED_SHARE,
  runS: totalS * (1 - QUEUED_SHARE),
});

function poisson(count: number, dice: () => number): number[] {
  let at = 0;
  return Array.from({ length: count }, () => (at += -Math.log(1 - dice()) * SUBMITTED_EVERY_S));
}

const steady = (name: string, about: string, drawS: (dice: () => number) => number): Distribution => ({
  name,
  about,
  make: (count, dice) =>
    poisson(count, dice).map((submittedAtS) => ({
      submittedAtS,
      stratum: 0,
      sinceS: 0,
      ...whole(drawS(dice)),
    })),
});

/** A provider with so many places, whose queue backs up when `slowedFromS` … `slowedToS` halves them. */
function backedUp(count: number, dice: () => number): SimulatedTask[] {
  const arrivals = poisson(count, dice);
  const from = arrivals[Math.floor(count / 4)]!;
  const places = Math.ceil((1.25 * 150) / SUBMITTED_EVERY_S);
  const freeAt: number[] = Array.from({ length: places }, () => 0);
  return arrivals.map((submittedAtS) => {
    // For an hour, the places that are taken stay so for twice as long after the work: the queue grows.
    const slowed = submittedAtS >= from && submittedAtS < from + 3600;
    const runS = logNormal(dice, 150, 0.15);
    let place = 0;
    for (let i = 1; i < places; i++) if (freeAt[i]! < freeAt[place]!) place = i;
    const startS = Math.max(submittedAtS, freeAt[place]!);
    freeAt[place] = startS + runS * (slowed ? 2 : 1);
    const queuedS = startS - submittedAtS;
    return { submittedAtS, stratum: 0, sinceS: queuedS, queuedS, runS };
  });
}

const DRIFT_PERIOD_S = 7200;
const STRATA_OF_DRIFT = 24;

function drifting(count: number, dice: () => number): SimulatedTask[] {
  return poisson(count, dice).map((submittedAtS) => {
    const phase = (submittedAtS % DRIFT_PERIOD_S) / DRIFT_PERIOD_S;
    const medianS = 200 - 100 * Math.cos(2 * Math.PI * phase);
    const stratum = Math.floor(phase * STRATA_OF_DRIFT);
    return { submittedAtS, stratum, sinceS: 0, ...whole(logNormal(dice, medianS, 0.15)) };
  });
}

const FIRST_DAY_TASKS = 300;

/** So few tasks, and so close together, that most of them are accepted before one has ended. */
export function firstDay(count: number, dice: () => number): SimulatedTask[] {
  return Array.from({ length: Math.min(count, FIRST_DAY_TASKS) }, (_, i) => ({
    submittedAtS: i / 5,
    stratum: 0,
    sinceS: 0,
    ...whole(logNormal(dice, 60, 0.35)),
  }));
}

export const DISTRIBUTIONS: readonly Distribution[] = [
  steady('narrow', 'log-normal, median 180 s, sigma 0.15', (dice) => logNormal(dice, 180, 0.15)),
  steady('wide', 'log-normal, median 180 s, sigma 0.5', (dice) => logNormal(dice, 180, 0.5)),
  steady('bimodal', '60 % around 90 s, 40 % around 300 s, sigma 0.1 each', (dice) =>
    logNormal(dice, dice() < 0.6 ? 90 : 300, 0.1),
  ),
  {
    name: 'drifting',
    about: 'log-normal, sigma 0.15, the median wanders from 100 s to 300 s and back in two hours',
    make: drifting,
  },
  steady('heavy tail', 'Pareto from 90 s on, exponent 2', (dice) =>
    Math.min(90 / Math.sqrt(1 - dice()), 1700),
  ),
  {
    name: 'backed up',
    about: 'work log-normal, median 150 s, sigma 0.15; for an hour the queue in front of it grows',
    make: backedUp,
  },
  {
    name: 'first day',
    about: 'nothing learnt: 300 tasks, five a second, log-normal, median 60 s, sigma 0.35',
    make: firstDay,
  },
];
