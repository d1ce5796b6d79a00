/** A generation that waits says what for and until when, and one that is followed when it is asked about next. */
import { afterEach, expect, test } from '@jest/globals';
import type { WaitCode } from '../../src/reelhaul.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

const waitsFor = (id: string, code: WaitCode) =>
  until(
    async () => {
      const found = await bed.reelhaul.outlook(id);
      return found.waitsBecause?.code === code ? { ...found, wait: found.waitsBecause } : null;
    },
    async () => `${code}; it is ${JSON.stringify(await bed.reelhaul.outlook(id))}`,
  );

test('no worker, the app’s own time, the caps of key and tenant, and those before it', async () => {
  bed = await createTestbed({ environment: { MAX_IN_FLIGHT: '2', MAX_IN_FLIGHT_PER_TENANT: '1' } });
  const first = await bed.enqueue('first [sim: duration=1h]', { tenant: 'a' });
  const parked = await bed.enqueue('parked [sim: duration=1h]', { tenant: 'a' });
  expect((await waitsFor(parked.id, 'no_worker')).ahead).toBe(1);
  const runAt = Date.now() + 3_600_000;
  const scheduled = await bed.enqueue('scheduled', { runAt });
  expect((await waitsFor(scheduled.id, 'scheduled')).wait.untilAt).toBe(runAt);
  await bed.work();
  await bed.reaches(first.id, 'generating');
  await waitsFor(parked.id, 'tenant_cap');
  const second = await bed.enqueue('second [sim: duration=1h]', { tenant: 'b' });
  await bed.reaches(second.id, 'generating');
  const full = await bed.enqueue('full', { tenant: 'c' });
  expect((await waitsFor(full.id, 'in_flight_cap')).wait.message).toBe('2 of 2 tasks are in flight.');
});

test('a budget, and a poll that is due', async () => {
  bed = await createTestbed({ environment: { PRICES: '{"*":1}', BUDGET_PER_DAY: '1' } });
  await bed.work();
  const { id } = await bed.enqueue('paid [sim: duration=1h]');
  await bed.reaches(id, 'generating');
  const poor = await bed.enqueue('not paid');
  const { wait } = await waitsFor(poor.id, 'budget');
  expect(wait.untilAt! % 86_400_000).toBe(0);
  const { nextPollAt, waitsBecause } = await bed.reelhaul.outlook(id);
  expect(nextPollAt).toBeGreaterThan(Date.now() - 60_000);
  expect(waitsBecause).toBeNull();
  await until(async () => (await bed.reelhaul.limits()).nextPollAt, 'a delayed poll');
  await bed.reelhaul.cancel(poor.id);
  expect(await bed.reelhaul.outlook(poor.id)).toMatchObject({ waitsBecause: null, nextPollAt: null });
});

test('a refused key, an unknown submit, and a queue that was paused by hand', async () => {
  bed = await createTestbed({ environment: { REFUSED_PROBE_MS: '600000' } });
  await bed.work();
  const { id } = await bed.enqueue('followed [sim: duration=1h]');
  const doubtful = await bed.enqueue('doubtful [sim: submit=502-after]');
  await bed.reaches(id, 'generating');
  await waitsFor(doubtful.id, 'unconfirmed');
  const refused = await bed.enqueue('refused [sim: submit=401*forever]');
  await waitsFor(refused.id, 'refused');
  await bed.redis.hset(`${bed.prefix}:poll:meta`, 'paused', 1);
  expect((await waitsFor(id, 'paused')).nextPollAt).toBeNull();
});
