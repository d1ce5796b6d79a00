/**
 * What is remembered of how long tasks take, and what follows from it: pure functions over a histogram with logarithmic
 * buckets. Finished tasks are events; tasks that were only seen to last so long (canceled, given up, still running) are
 * censored: they count as "not finished by then" and as nothing more (the estimate of Kaplan and Meier, per bucket).
 */

/** Everything shorter is in the first bucket, everything longer than about six hours in the last. */
const FIRST_EDGE_MS = 1000;
const RATIO = 1.05;
export const BUCKETS = 205;

/** Upper edges in milliseconds; the last is open. */
const EDGES: readonly number[] = Array.from(
  { length: BUCKETS },
  (_, bucket) => FIRST_EDGE_MS * RATIO ** bucket,
);

/** Which bucket holds this duration. */
export function bucketOf(durationMs: number): number {
  if (!(durationMs > FIRST_EDGE_MS)) return 0;
  return Math.min(BUCKETS - 1, Math.ceil(Math.log(durationMs / FIRST_EDGE_MS) / Math.log(RATIO) - 1e-9));
}

/** Where a bucket begins, in milliseconds. */
export function startOf(bucket: number): number {
  return bucket <= 0 ? 0 : EDGES[Math.min(bucket, BUCKETS) - 1]!;
}

/** Shares of one event that lies somewhere in (`fromMs`, `toMs`], each instant as likely as any other. */
export function spread(fromMs: number, toMs: number): (readonly [bucket: number, share: number])[] {
  const from = Math.max(0, Math.min(fromMs, toMs));
  const width = toMs - from;
  const last = bucketOf(toMs);
  if (!(width > 0)) return [[last, 1]];
  const shares: (readonly [number, number])[] = [];
  for (let bucket = bucketOf(from); bucket <= last; bucket++) {
    const begin = Math.max(from, startOf(bucket));
    const end = bucket === BUCKETS - 1 ? toMs : Math.min(toMs, startOf(bucket + 1));
    if (end > begin) shares.push([bucket, (end - begin) / width]);
  }
  return shares;
}

/** Weights per bucket; absent buckets weigh nothing. */
export type Weights = ReadonlyMap<number, number>;

export interface Histogram {
  readonly finished: Weights;
  /** Seen to last at least this long. */
  readonly censored: Weights;
}

export const EMPTY: Histogram = { finished: new Map(), censored: new Map() };

/** A histogram read as a distribution, with the stretches of time in which looking is worth its cost. */
export interface Curve {
  /** How many finished tasks stand behind it, those of an assumption included. */
  readonly weight: number;
  /** Chance to last until the start of each bucket; one more entry for the end of the last. */
  readonly survival: readonly number[];
  /** Is a finish in this bucket likely enough, per second of looking, to look densely? */
  readonly dense: readonly boolean[];
}

/**
 * Share of the finishes that is left to the sparse stretches. Of all schedules that see the rest densely, those are the
 * cheapest that leave out the lowest hazards: a second of looking costs what is still running, and finds the hazard.
 */
const LEFT_OUT = 0.04;
/** Hazards are compared over so many buckets to both sides, or else the noise of a small sample is compared. */
const SMOOTHED = 3;

/**
 * Reads a histogram.
 * @param assumed a distribution to start from, worth as many tasks as its weights sum up to.
 */
export function curveOf({ finished, censored }: Histogram, assumed: Weights = new Map()): Curve {
  const events = Array.from({ length: BUCKETS }, (_, b) => (finished.get(b) ?? 0) + (assumed.get(b) ?? 0));
  const lost = Array.from({ length: BUCKETS }, (_, b) => censored.get(b) ?? 0);

  let atRisk = sum(events) + sum(lost);
  const survival = [1];
  const mass: number[] = [];
  const exposure: number[] = [];
  for (let b = 0; b < BUCKETS; b++) {
    // A censored task was there for about half of the bucket it was last seen in.
    const exposed = atRisk - lost[b]! / 2;
    const hazard = exposed > 1e-9 ? Math.min(1, events[b]! / exposed) : 0;
    mass.push(survival[b]! * hazard);
    survival.push(survival[b]! * (1 - hazard));
    exposure.push(survival[b]! - (survival[b]! * hazard) / 2);
    atRisk = Math.max(0, atRisk - events[b]! - lost[b]!);
  }
  return { weight: sum(events), survival, dense: denseBuckets(mass, exposure) };
}

/** Leaves out the buckets with the lowest hazard until they hold `LEFT_OUT` of the mass. */
function denseBuckets(mass: readonly number[], exposure: readonly number[]): boolean[] {
  const rates = mass.map((_, b) => {
    let found = 0;
    let looked = 0;
    for (let i = Math.max(0, b - SMOOTHED); i <= Math.min(BUCKETS - 1, b + SMOOTHED); i++) {
      const near = SMOOTHED + 1 - Math.abs(i - b);
      found += near * mass[i]!;
      looked += near * exposure[i]! * (startOf(i + 1) - startOf(i));
    }
    return looked > 0 ? found / looked : 0;
  });
  const total = sum(mass);
  const dense = mass.map(() => true);
  let left = LEFT_OUT * total + 1e-12;
  for (const b of [...mass.keys()].sort((x, y) => rates[x]! - rates[y]!)) {
    if (mass[b]! > left) break;
    left -= mass[b]!;
    dense[b] = false;
  }
  return dense;
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);

/** Chance to last longer than this. */
export function survivalAt({ survival }: Curve, durationMs: number): number {
  const b = bucketOf(durationMs);
  if (b === BUCKETS - 1) return survival[BUCKETS]!;
  const [from, to] = [startOf(b), startOf(b + 1)];
  const share = Math.min(1, Math.max(0, (durationMs - from) / (to - from)));
  return survival[b]! + (survival[b + 1]! - survival[b]!) * share;
}

/** By when a share `q` of those that last longer than `sinceMs` has finished; Infinity when that is not known. */
export function quantileAfter(curve: Curve, sinceMs: number, q: number): number {
  const wanted = survivalAt(curve, sinceMs) * (1 - q);
  for (let b = bucketOf(sinceMs); b < BUCKETS - 1; b++) {
    const [before, after] = [curve.survival[b]!, curve.survival[b + 1]!];
    if (after > wanted) continue;
    const share = before > after ? (before - wanted) / (before - after) : 1;
    return Math.max(sinceMs, startOf(b) + (startOf(b + 1) - startOf(b)) * share);
  }
  return Infinity;
}

/** Where looking densely begins: `sinceMs` itself when it is in such a stretch, null when none follows. */
export function denseFrom(curve: Curve, sinceMs: number): number | null {
  for (let b = bucketOf(sinceMs); b < BUCKETS; b++) {
    if (curve.dense[b]) return Math.max(sinceMs, startOf(b));
  }
  return null;
}

/** A log-normal distribution as weights that sum up to `weight`. `sigma` is the deviation of the logarithm. */
export function logNormal(medianMs: number, sigma: number, weight: number): Map<number, number> {
  const density = Array.from({ length: BUCKETS }, (_, b) => {
    const middle = FIRST_EDGE_MS * RATIO ** (b - 0.5);
    return Math.exp(-0.5 * (Math.log(middle / medianMs) / sigma) ** 2);
  });
  const total = sum(density);
  return new Map(density.map((d, b) => [b, (weight * d) / total]));
}
