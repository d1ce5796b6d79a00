/** Slots at the provider: each is freed when its task is surely gone, and not before. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import type { State } from '../../src/generation/states.js';
import type { Change } from '../../src/generation/change.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { withPost } from '../../src/generation/submits.js';
import { limitsOf, type InForce } from '../../src/limits/settings.js';
import { createTestbed, type Testbed } from '../support/testbed.js';

let bed: Testbed;
let hub: Hub;
const hubs: Hub[] = [];
const hubWith = (environment: Record<string, string> = {}): Hub => {
  const config = readConfig({ ...bed.environment, ...environment });
  const made = createHub({ config, log: pino({ level: 'silent' }), redis: bed.redis });
  hubs.push(made);
  return made;
};

beforeEach(async () => {
  bed = await createTestbed();
  hub = hubWith();
});
afterEach(async () => {
  await Promise.all(hubs.splice(0).map(({ queues }) => queues.close()));
  await bed.close();
});

const publish = (limits: Partial<InForce>, of = hub) =>
  of.limits.publish({ ...limitsOf(bed.config), ...limits });
const inFlight = async () => (await hub.limits.counts()).inFlight;

/** Brings a generation from state to state, as the stages would. */
async function move(
  id: string,
  states: readonly State[],
  change: Partial<Change> = {},
  by = hub,
): Promise<void> {
  for (const to of states) {
    const record = (await by.store.get(id))!;
    const begun =
      to === 'submitting'
        ? { submits: withPost(record.submits, { at: by.now(), price: null, nonce: 'n' }) }
        : {};
    expect(await by.store.transition(record, to, { live: true, ...begun, ...change })).not.toBeNull();
  }
}

test.each(['canceled', 'failed'] as const)(
  'a task whose generation is %s before its submit takes no slot',
  async (end) => {
    await publish({ maxInFlight: 1 });
    const first = await bed.enqueue('first');
    await move(first.id, [end]);
    expect(await inFlight()).toBe(0);
  },
);

test('a submit that was canceled under way holds no slot once it was surely not accepted', async () => {
  await publish({ maxInFlight: 1 });
  await bed.work({ config: readConfig({ ...bed.environment, MAX_IN_FLIGHT: '1' }) });
  const first = await bed.enqueue('first [sim: submit=rejected, submit-delay=1s]');
  const second = await bed.enqueue('second');
  await bed.reaches(first.id, 'submitting');
  await bed.reelhaul.cancel(first.id);
  expect((await bed.reelhaul.waitFor(second.id)).state).toBe('succeeded');
});

test('a process with less patience than the workers frees no slot early', async () => {
  await publish({ maxInFlight: 1 });
  const hasty = hubWith({ GENERATION_DEADLINE_MS: '1' });
  const { id } = await bed.enqueue('doubtful');
  await move(id, ['submitting', 'unconfirmed']);
  await move(id, ['canceled'], {}, hasty);
  expect(await inFlight()).toBe(1);
});

test('a task found before its generation was submitted again holds one slot, and frees it with its end', async () => {
  await publish({ maxInFlight: 3 });
  const { id } = await bed.enqueue('found late');
  await move(id, ['submitting', 'unconfirmed']);
  await move(id, ['queued']);
  expect(await inFlight()).toBe(1);
  await move(id, ['generating']);
  expect(await inFlight()).toBe(1);
  await move(id, ['archiving']);
  expect(await inFlight()).toBe(0);
});
