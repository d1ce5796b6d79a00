/** Every generation that is not over has a job, or gets one with the next sweep. */
import { afterEach, expect, test } from '@jest/globals';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

/** Deletes everything kept of these queues, as an operator's obliterate or a lost disk would. */
async function obliterate(...queues: string[]): Promise<void> {
  for (const queue of queues) {
    const pattern = queue === 'poll' ? 'poll*' : `${queue}:*`;
    const keys = await bed.redis.keys(`${bed.prefix}:${pattern}`);
    if (keys.length > 0) await bed.redis.del(...keys);
  }
}

test('a generation whose submit job was lost between record and queue is submitted', async () => {
  bed = await createTestbed();
  const { id } = await bed.enqueue('lost before it began');
  await obliterate('submit');
  await bed.work();
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('all queues obliterated in the middle of the flow cost time only', async () => {
  bed = await createTestbed();
  await bed.work();
  const ids: string[] = [];
  for (const script of ['duration=600ms', 'duration=1s', 'submit=502-after', 'video=503*2']) {
    ids.push((await bed.enqueue(`in the middle [sim: ${script}]`, { onUnconfirmed: 'fail' })).id);
  }
  await bed.reaches(ids[0]!, 'generating');
  await obliterate('submit', 'poll', 'archive', 'sweep');
  const ends = await Promise.all(ids.map((id) => bed.reelhaul.waitFor(id)));
  expect(ends.map(({ state }) => state)).toEqual(['succeeded', 'succeeded', 'failed', 'succeeded']);
  expect(bed.simulator.ledger().totals.submits).toBe(4);
});

test('a job that is left in no list is written again', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_BACKOFF_MS: '600000' } });
  const worker = await bed.work();
  // Its archive job waits long for the next try.
  const { id } = await bed.enqueue('orphaned [sim: duration=0, video=503*1]');
  await until(
    async () => (await bed.redis.zrem(`${bed.prefix}:archive:delayed`, id)) === 1,
    'the archive job to be delayed',
  );
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  await worker.close();
});

test('a generation whose poll job is in no list is polled again', async () => {
  bed = await createTestbed();
  await bed.work();
  const { id } = await bed.enqueue('in no list [sim: duration=2s]');
  await bed.reaches(id, 'generating');
  await until(
    async () => (await bed.redis.zrem(`${bed.prefix}:poll:delayed`, id)) === 1,
    'the poll to be planned',
  );
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('nor does it stay out because a worker whose clock is ahead wrote it last', async () => {
  bed = await createTestbed();
  await bed.work();
  const { id } = await bed.enqueue('of tomorrow [sim: duration=2s, progress=none]');
  await bed.reaches(id, 'generating');
  await until(
    async () => (await bed.redis.zrem(`${bed.prefix}:poll:delayed`, id)) === 1,
    'the poll to be planned',
  );
  await bed.redis.hset(`${bed.prefix}:g:${id}`, 'updatedAt', Date.now() + 3_600_000);
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('queued generations that no list holds any more get their jobs again, and keep their time', async () => {
  bed = await createTestbed();
  const { id } = await bed.enqueue('later', { delayMs: 3_600_000 });
  const marker = await bed.enqueue('now');
  const lists = ['submit:*', 'queue-*', 'scheduled', 'parked*', 'over-budget'];
  for (const list of lists) {
    const keys = await bed.redis.keys(`${bed.prefix}:${list}`);
    if (keys.length > 0) await bed.redis.del(...keys);
  }
  await bed.work();
  expect((await bed.reelhaul.waitFor(marker.id)).state).toBe('succeeded');
  await until(async () => (await bed.redis.zscore(`${bed.prefix}:submit:delayed`, id)) !== null, 'its job');
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'queued', attempts: { submit: 0 } });
});

test('what has been over for RETENTION_MS is forgotten, its files stay', async () => {
  bed = await createTestbed({ environment: { RETENTION_MS: '1000', IDEMPOTENCY_TTL_MS: '1000' } });
  await bed.work();
  const { id } = await bed.enqueue('to be forgotten');
  await bed.reelhaul.waitFor(id);
  await until(
    async () => (await bed.redis.exists(`${bed.prefix}:g:${id}`, `${bed.prefix}:answers:${id}`)) === 0,
    'the record to be forgotten',
  );
  await expect(bed.reelhaul.get(id)).rejects.toMatchObject({ code: 'not_found' });
  expect((await bed.reelhaul.list()).generations).toEqual([]);
});

test('a job that a wrong clock delayed for more than a day is written again', async () => {
  bed = await createTestbed();
  const { id } = await bed.enqueue('put off', { delayMs: 100 });
  const inThreeDays = (Date.now() + 3 * 86_400_000) * 0x1000;
  await bed.redis.zadd(`${bed.prefix}:submit:delayed`, inThreeDays, id);
  await bed.work();
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('a part of the sweep that fails stops no other, and the sweep is told as done', async () => {
  bed = await createTestbed();
  // Not a sorted set: whatever reads it fails.
  await bed.redis.set(`${bed.prefix}:notifications-owed`, 'broken');
  const { id } = await bed.enqueue('lost before it began');
  await obliterate('submit');
  await bed.work();
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  await until(async () => (await bed.redis.exists(`${bed.prefix}:swept`)) === 1, 'the sweep to be noted');
});

test('records of a newer version stop nothing: they are left out of lists, and the others go on', async () => {
  bed = await createTestbed();
  const newer = await Promise.all(Array.from({ length: 8 }, (_, i) => bed.enqueue(`newer ${i}`)));
  for (const { id } of newer) await bed.redis.hset(`${bed.prefix}:g:${id}`, 'v', 99);
  const { id } = await bed.enqueue('of today');
  await bed.work();
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  expect((await bed.reelhaul.list()).generations.map((one) => one.id)).toEqual([id]);
});
