/** The API key is changed while generations are on their way: docs/secrets.md. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { readConfig } from '../../src/config/config.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
beforeEach(async () => {
  bed = await createTestbed({ environment: { COMETAPI_KEY: 'the-key-of-yesterday' } });
});
afterEach(() => bed.close());

test('tasks of the old key are followed with the new one, and what the old one was refused meanwhile fails nothing', async () => {
  const before = await bed.work();
  const submitted = await bed.enqueue('on its way [sim: poll=401*3]');
  await bed.reaches(submitted.id, 'generating');
  const held = await bed.enqueue('behind it [sim: submit=401]');
  await until(async () => (await bed.reelhaul.limits()).refused, 'the refusal');
  await before.close();
  await bed.work({ config: readConfig({ ...bed.environment, COMETAPI_KEY: 'the-key-of-today' }) });
  for (const { id } of [submitted, held])
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
  expect(bed.simulator.ledger().totals).toMatchObject({ tasksCreated: 2, bills: 2 });
});
