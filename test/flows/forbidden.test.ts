/** Orders that the provider always forbids, and orders of another tenant that it would take. */
import { afterEach, expect, test } from '@jest/globals';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

test('ten that are always forbidden keep five good ones waiting for one probe, and fail after a few probes of their own', async () => {
  bed = await createTestbed({ environment: { REFUSED_PROBE_MS: '1000', SUBMIT_CONCURRENCY: '4' } });
  const bad: string[] = [];
  for (let i = 0; i < 10; i++)
    bad.push((await bed.enqueue(`bad ${i} [sim: submit=403*forever]`, { tenant: 'bad' })).id);
  await bed.work();
  await until(async () => (await bed.reelhaul.limits()).refused, 'the key to be taken for refused');
  const before = bed.simulator.ledger().totals.submits;
  const good: string[] = [];
  for (let i = 0; i < 5; i++) good.push((await bed.enqueue(`good ${i}`, { tenant: 'good' })).id);
  for (const id of good) expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  const since = bed.simulator.ledger().submits.slice(before);
  // Those that were under way as it began, and a probe that left before the good ones were there.
  const probes = since.findIndex(({ prompt }) => prompt?.startsWith('good'));
  expect(probes).toBeLessThanOrEqual(5);
  for (const id of bad) expect((await bed.reelhaul.waitFor(id)).failure?.code).toBe('request_rejected');
  expect(bed.simulator.ledger().totals.submits).toBeLessThanOrEqual(10 * 4 + 5);
});
