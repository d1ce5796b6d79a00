/** What a generation costs, by the price table of the operator: the provider publishes no prices (provider notes). */
import type { GenerationRequest } from './request.js';

/**
 * Model → price of one generation, or seconds → price; `*` stands for every model or length that is not named. In any
 * currency, the same for all.
 */
export type Prices = Readonly<Record<string, number | Readonly<Record<string, number>>>>;

/** Money is counted in whole millionths, so that a long sum is exact. */
export const MILLIONTHS = 1_000_000;
export const inMillionths = (amount: number | null): number | null =>
  amount === null ? null : Math.round(amount * MILLIONTHS);

/** In millionths; null when the table does not say. A table without entries knows no prices at all. */
export function priceOf({ model, options }: GenerationRequest, prices: Prices): number | null {
  const entry = Object.hasOwn(prices, model) ? prices[model] : prices['*'];
  const price = typeof entry === 'object' ? (entry[String(options?.seconds ?? '')] ?? entry['*']) : entry;
  return price === undefined ? null : Math.round(price * MILLIONTHS);
}
