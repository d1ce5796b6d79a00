import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { countWorkers } from '../../src/telemetry/presence.js';
import { createKeys } from '../../src/store/keys.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
beforeEach(async () => {
  bed = await createTestbed();
});
afterEach(() => bed.close());

const count = () => countWorkers({ redis: bed.redis, keys: createKeys(bed.prefix), now: Date.now });

test('each stage that has a worker is told, and a worker that stops in order is missed at once', async () => {
  const all = await bed.work();
  const some = await bed.work({ stages: ['submit', 'poll'] });
  const both = { submit: 2, poll: 2, archive: 1, notify: 1 };
  await until(async () => JSON.stringify(await count()) === JSON.stringify(both), 'both to be announced');
  await all.close();
  expect(await count()).toEqual({ submit: 1, poll: 1, archive: 0, notify: 0 });
  await some.close();
  expect(await count()).toEqual({ submit: 0, poll: 0, archive: 0, notify: 0 });
});

test('a worker that is killed is missed when its announcement has run out', async () => {
  const worker = bed.spawnWorker();
  await until(async () => (await count()).submit === 1, 'the worker to be announced');
  worker.child.kill('SIGKILL');
  await until(async () => (await count()).submit === 0, 'the worker to be missed');
});
