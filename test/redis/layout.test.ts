import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createReelhaul } from '../../src/reelhaul.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(() => bed.close());

test.each(['shards', 'line-clock', 'polls-wake'])(
  'data of the layout before is refused, by its key %s, and left as it is',
  async (name) => {
    await bed.redis.del(`${bed.prefix}:layout`);
    await bed.redis.set(`${bed.prefix}:${name}`, '1');
    const refusal = new RegExp(
      `the data under ${bed.prefix} has the layout of an older reelhaul.*another REDIS_PREFIX, or remove`,
    );
    await expect(createReelhaul({ config: bed.config })).rejects.toThrow(refusal);
    await expect(bed.work()).rejects.toThrow(refusal);
    expect(await bed.redis.exists(`${bed.prefix}:layout`)).toBe(0);
  },
);

test('data of a later layout is refused', async () => {
  await bed.redis.set(`${bed.prefix}:layout`, '2');
  await expect(createReelhaul({ config: bed.config })).rejects.toThrow(
    /layout 2, which a newer reelhaul wrote; this one reads layout 1\. Upgrade reelhaul here/,
  );
});

test('a worker stops taking jobs when another version takes over the data, and goes on when that is undone', async () => {
  const worker = await bed.work();
  await bed.redis.set(`${bed.prefix}:layout`, '2');
  await until(
    () => worker.vitals().every(({ heldBecause }) => heldBecause?.includes('layout 2')),
    'it to stop',
  );
  const { id } = await bed.enqueue('written by the version before');
  await bed.redis.set(`${bed.prefix}:layout`, '1');
  await bed.reaches(id, 'succeeded');
});

test('a Redis that came back empty gets its layout again', async () => {
  await bed.work();
  await bed.redis.del(`${bed.prefix}:layout`);
  await until(async () => (await bed.redis.get(`${bed.prefix}:layout`)) === '1', 'the layout to be there');
});
