/** What limits and prices can be set to, and what is refused. */
import { describe, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/config.js';
import { ConfigError } from '../../src/errors.js';
import type { GenerationRequest } from '../../src/generation/request.js';
import { priceOf } from '../../src/generation/price.js';

describe('the price', () => {
  const request = (model: string, seconds?: 5 | 10) =>
    ({
      model,
      prompt: 'x',
      ratio: '1280:720',
      options: seconds ? { seconds } : undefined,
    }) as GenerationRequest;
  const table = { gen4: { '5': 0.32, '*': 0.5 }, gen3: 0.1, '*': 0.9 };

  test.each([
    [request('gen4', 5), 320_000],
    [request('gen4', 10), 500_000],
    [request('gen4'), 320_000],
    [request('gen3', 10), 100_000],
    [request('anything'), 900_000],
    [request('constructor'), 900_000],
  ])('of %j is %i millionths', (asked, price) => {
    expect(priceOf(asked, table)).toBe(price);
  });

  test('of a length that its model does not name is that of the outer *', () => {
    const prices = { gen4: { '5': 0.32, '10': 0.64 }, gen3: { '10': 1 }, '*': 0.5 };
    expect(priceOf(request('gen4'), prices)).toBe(320_000);
    expect(priceOf(request('gen3'), prices)).toBe(500_000);
    expect(priceOf(request('gen3'), { gen3: { '10': 1 }, '*': { '5': 2, '*': 3 } })).toBe(2_000_000);
  });

  test('is not guessed where the table says nothing', () => {
    expect(priceOf(request('gen4', 10), { gen4: { '5': 1 } })).toBeNull();
    expect(priceOf(request('constructor'), {})).toBeNull();
  });
});

test.each([
  ['MAX_IN_FLIGHT', '0'],
  ['MAX_IN_FLIGHT', '-1'],
  ['MAX_IN_FLIGHT', '1e9'],
  ['MAX_IN_FLIGHT_PER_TENANT', '2.5'],
  ['PROVIDER_RATE_MAX', '99999999999999'],
  ['PROVIDER_RATE_WINDOW_MS', '1'],
  ['BUDGET_PER_DAY', '-3'],
  ['BUDGET_PER_DAY', 'Infinity'],
  ['BUDGET_PER_DAY', '0.00000001'],
  ['TENANTS', '[1]'],
  ['TENANTS', '{"acme":{"weight":0}}'],
  ['TENANTS', '{"acme":{"weight":-1}}'],
  ['TENANTS', '{"acme":{"weight":1e-300}}'],
  ['TENANTS', '{"acme":{"weight":1e400}}'],
  ['TENANTS', '{"acme":{"weight":NaN}}'],
  ['TENANTS', '{"acme":{"weight":null}}'],
  ['TENANTS', '{"acme":{"weight":"3"}}'],
  ['TENANTS', '{"acme":{"maxInFlight":0}}'],
  ['TENANTS', '{"acme":{"budgetPerDay":-1}}'],
  ['TENANTS', '{"acme":{"wieght":3}}'],
  ['TENANTS', '{"":{}}'],
  ['TENANTS', '{"__proto__":{"maxInFlight":2}}'],
  ['PRICES', 'free'],
  ['PRICES', '{"gen4":-1}'],
  ['PRICES', '{"gen4":{"five":1}}'],
  ['PRICES', '{"gen4":{"05":1}}'],
  ['PRICES', '{"gen4":0.0000004}'],
  ['PRICES', '{"gen4":{"5":1e-9}}'],
  ['PRICES', '{"gen4":1e400}'],
])('%s=%s is refused with what was expected', (name, value) => {
  try {
    readConfig({ [name]: value });
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).problems).toContainEqual({
      path: name,
      message: expect.stringContaining('expected'),
    });
    return;
  }
  throw new Error('it was taken');
});

test('a budget without a price table is refused', () => {
  expect(() => readConfig({ BUDGET_PER_DAY: '5' })).toThrow(/PRICES/);
});
