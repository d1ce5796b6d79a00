/** What a generation costs, by the price table of the operator: the provider publishes no prices (provider notes). */
import { secondsOf, type WrittenRequest } from './request.js';

/**
 * Model → price of one generation, or seconds → price; `*` stands for every model or length that is not named, and an
 * outer `*` also for a length that its model does not name. In any currency, the same for all.
 */
export type Prices = Readonly<Record<string, number | Readonly<Record<string, number>>>>;

/** Money is counted in whole millionths, so that a long sum is exact. */
export const MILLIONTHS = 1_000_000;
export const inMillionths = (amount: number | null): number | null =>
  amount === null ? null : Math.round(amount * MILLIONTHS);

/** In millionths; null when the table does not say. A table without entries knows no prices at all. */
export function priceOf(request: Pick<WrittenRequest, 'model' | 'options'>, prices: Prices): number | null {
  const seconds = String(secondsOf(request));
  const priceIn = (entry: Prices[string] | undefined) =>
    typeof entry === 'object' ? (entry[seconds] ?? entry['*']) : entry;
  const own = Object.hasOwn(prices, request.model) ? priceIn(prices[request.model]) : undefined;
  const price = own ?? priceIn(prices['*']);
  return price === undefined ? null : Math.round(price * MILLIONTHS);
}

/** Says of which request the table says nothing. */
export const unknownPrice = (request: Pick<WrittenRequest, 'model' | 'options'>): string =>
  `PRICES says nothing about ${request.model} of ${secondsOf(request)} s, and a budget is set.`;
