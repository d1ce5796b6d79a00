/** A user of bull-board pauses or obliterates a queue: it is told or heals, and nothing is lost. */
import { afterEach, expect, test } from '@jest/globals';
import { Queue } from 'bullmq';
import { pino } from 'pino';
import { createOps } from '../../src/http/health-routes.js';
import { createHub } from '../../src/pipeline/context.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let closing: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closing.toReversed()) await close();
  closing = [];
  await bed.close();
});

function openQueue(name: string): Queue {
  const queue = new Queue(name, { connection: bed.redis, prefix: bed.prefix });
  closing.push(() => queue.close());
  return queue;
}

test('a queue that is paused by hand makes workers unready until it is resumed, and nothing is lost', async () => {
  bed = await createTestbed();
  const workers = await bed.work();
  const polls = openQueue('poll');
  await polls.pause();
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  closing.push(() => hub.queues.close());
  const { health } = createOps(hub, createMetrics(), () => workers.vitals());
  const { id } = await bed.enqueue('paused');
  await bed.reaches(id, 'generating');
  expect(await health.ready()).toEqual(['the queue poll is paused by hand: resume it on /dashboard/queues']);
  expect(health.alive()).toEqual([]);
  await polls.resume();
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  await until(async () => (await health.ready()).length === 0, 'the worker to be ready');
});

test('a deadline that passes while polls are paused by hand is kept', async () => {
  bed = await createTestbed({ environment: { GENERATION_DEADLINE_MS: '1000' } });
  const polls = openQueue('poll');
  await polls.pause();
  await bed.work();
  const { id } = await bed.enqueue('paused for long');
  await bed.reaches(id, 'expired');
  await polls.resume();
  await bed.reaches(id, 'succeeded');
});

test.each(['poll', 'archive', 'notify', 'sweep'])(
  'a %s queue that is obliterated fills itself again',
  async (name) => {
    bed = await createTestbed();
    await bed.work();
    const ids = await Promise.all(
      Array.from(
        { length: 10 },
        async (_, i) => (await bed.enqueue(`obliterated ${i} [sim: duration=1s]`)).id,
      ),
    );
    await bed.reaches(ids[5]!, 'generating');
    await openQueue(name).obliterate({ force: true });
    for (const id of ids)
      expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { submit: 1 } });
  },
);
