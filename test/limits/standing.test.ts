/** How our key stands with the provider, as several processes tell it. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createStanding, type Standing } from '../../src/limits/standing.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

let bed: Testbed;
let standing: Standing;

beforeEach(async () => {
  bed = await createTestbed();
  standing = createStanding({ redis: bed.redis, prefix: bed.prefix, probeMs: 60_000, dice: () => 0.5 });
});
afterEach(() => bed.close());

test('the longest Retry-After of calls that were under way together holds', async () => {
  await standing.slowDown('submit', null);
  expect(await standing.slowDown('submit', 600_000)).toBe(600_000);
  expect(await standing.slowDown('submit', 5000)).toBeGreaterThan(500_000);
  expect(await standing.slowDown('submit', null)).toBeGreaterThan(500_000);
  expect(await standing.holdMs('submit')).toBeGreaterThan(500_000);
  expect(await standing.holdMs('poll')).toBe(0);
});

test('also when their answers come at the same moment', async () => {
  await standing.slowDown('poll', null);
  await Promise.all([600_000, 300_000, 60_000].map((ms) => standing.slowDown('poll', ms)));
  expect(await standing.holdMs('poll')).toBeGreaterThan(500_000);
});
