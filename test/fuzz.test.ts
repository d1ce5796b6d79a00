/** Bad input in general: a short run of `npm run fuzz`. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { fuzz } from './fuzz/fuzz.js';
import { createTestbed, type Testbed } from './support/testbed.js';

let bed: Testbed;
beforeAll(async () => {
  bed = await createTestbed();
});
afterAll(() => bed.close());

test('random bytes, sizes, depths and speeds against every route: no answer is a mistake of ours, and the server lives', async () => {
  const { id } = await bed.enqueue('fuzzed', { delayMs: 3_600_000 });
  const seed = Date.now() % 1_000_000;
  const { statuses, failed, figures } = await fuzz({
    cases: 800,
    seed,
    atOnce: 8,
    environment: bed.environment,
    generationId: id,
  });
  expect({ seed, failed, unforeseen: figures.at(-1)?.unforeseen }).toEqual({
    seed,
    failed: [],
    unforeseen: [],
  });
  expect(Object.values(statuses).reduce((sum, count) => sum + count, 0)).toBe(800);
});
