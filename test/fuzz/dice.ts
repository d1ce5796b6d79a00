/** Random choices that a seed repeats: a case that found something is made again. */
export interface Dice {
  /** From 0 to below 1. */
  next(): number;
  /** A whole number from `min` to `max`. */
  whole(min: number, max: number): number;
  /** Mostly small, sometimes up to `max`: every order of magnitude is as likely. */
  size(max: number): number;
  chance(share: number): boolean;
  pick<T>(from: readonly T[]): T;
  bytes(length: number): Buffer;
}

export function createDice(seed: number): Dice {
  let state = seed >>> 0;
  // mulberry32
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const whole = (min: number, max: number) => min + Math.floor(next() * (max - min + 1));
  return {
    next,
    whole,
    size: (max) => Math.floor(Math.exp(next() * Math.log(max + 1))) - 1,
    chance: (share) => next() < share,
    pick: (from) => from[whole(0, from.length - 1)]!,
    bytes: (length) => Buffer.from(Array.from({ length }, () => whole(0, 255))),
  };
}
