/**
 * Reproducible random numbers: each comes from the seed and the names of what is being decided. No state and no
 * order of arrival, so that two runs with one seed and the same prompts meet the same faults whatever else differs.
 */
import { createHash } from 'node:crypto';

function digest(seed: number, parts: readonly (string | number)[]): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([seed, ...parts]))
    .digest();
}

/** A number in [0, 1) for this seed and these names. */
export function roll(seed: number, ...parts: (string | number)[]): number {
  return digest(seed, parts).readUIntBE(0, 6) / 2 ** 48;
}

/** A normally distributed number (mean 0, deviation 1) for this seed and these names. */
export function rollNormal(seed: number, ...parts: (string | number)[]): number {
  // Box-Muller; 1 - u keeps the logarithm away from zero.
  const radius = Math.sqrt(-2 * Math.log(1 - roll(seed, ...parts, 'radius')));
  return radius * Math.cos(2 * Math.PI * roll(seed, ...parts, 'angle'));
}

/** A task id as the provider's look: text of 24 hexadecimal digits, or 15 decimal digits where ids are numbers. */
export function rollTaskId(seed: number, kind: 'string' | 'number', ...parts: (string | number)[]): string {
  const bytes = digest(seed, ['task', ...parts]);
  if (kind === 'string') return `rw${bytes.toString('hex', 0, 12)}`;
  // Below 2^53, so that a JSON number keeps every digit; the first digit is never 0.
  return String(100_000_000_000_000 + (bytes.readUIntBE(0, 6) % 900_000_000_000_000));
}
