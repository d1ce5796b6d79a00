/** Slots at the provider: each is freed when its task is surely gone, not before, and whoever waits hears of it. */
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import type { State } from '../../src/generation/states.js';
import type { Change } from '../../src/generation/change.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

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

const publish = (limits: { maxInFlight?: number; tenantMaxInFlight?: number }, of = hub) =>
  of.line.publish({
    maxInFlight: null,
    tenantMaxInFlight: null,
    rateMax: null,
    rateWindowMs: 60_000,
    budgetPerDay: null,
    tenantBudgetPerDay: null,
    tenants: {},
    ...limits,
  });
const inFlight = async () => (await hub.line.counts()).inFlight;
const hasTurn = (id: string) =>
  until(async () => (await hub.line.ready()).includes(id), `${id} to have its turn`);

/** Brings a generation from state to state, as the stages would. */
async function move(
  id: string,
  states: readonly State[],
  change: Partial<Change> = {},
  by = hub,
): Promise<void> {
  for (const to of states) {
    const record = (await by.store.get(id))!;
    if (to === 'submitting') await by.line.begin(record);
    const set = to === 'submitting' ? { submittedAt: Date.now() } : {};
    expect(await by.store.transition(record, to, { live: true, ...change, set })).toBe(true);
  }
}

test.each(['canceled', 'failed'] as const)(
  'a turn that ends before its submit, since the generation is %s, is the next one’s at once',
  async (end) => {
    await publish({ maxInFlight: 1 });
    const first = await bed.enqueue('first');
    const second = await bed.enqueue('second');
    await hasTurn(first.id);
    // No worker looks at the line by its own clock here: only the end itself can bring the second its turn.
    await move(first.id, [end]);
    await hasTurn(second.id);
  },
);

test('a slot freed just when all tenants are looked at is not forgotten among many', async () => {
  await publish({ tenantMaxInFlight: 1 });
  const tenants = Array.from({ length: 200 }, (_, i) => `tenant ${i}`);
  const first = await Promise.all(tenants.map((tenant) => bed.enqueue('first', { tenant })));
  for (let begun = 0; begun < tenants.length;) {
    await hub.dispatch.soon();
    for (const id of await hub.line.ready()) {
      await move(id, ['submitting']);
      begun += 1;
    }
  }
  const second = await bed.enqueue('second', { tenant: 'tenant 7' });
  await Promise.all(tenants.map((tenant) => bed.enqueue('second', { tenant })));
  await hub.dispatch.soon();
  expect((await hub.line.counts()).tenantsCapped).toBe(200);
  const quiet = hubWith();
  const record = (await quiet.store.get(first[7]!.id))!;
  await bed.redis.zrem(hub.store.keys.tenantState('tenant 7', 'submitting'), record.id);
  const stop = await hub.dispatch.keep(() => {
    void hub.dispatch.soon();
    void hub.dispatch.soon({ tenant: 'tenant 7' });
    return Promise.resolve();
  });
  await stop();
  expect(await hub.line.ready()).toContain(second.id);
});

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

test('a worker whose clock is an hour behind frees no slot early', async () => {
  await publish({ maxInFlight: 1 });
  const late = createHub({
    config: readConfig({ ...bed.environment, GENERATION_DEADLINE_MS: '60000' }),
    log: pino({ level: 'silent' }),
    redis: bed.redis,
    clock: { now: () => Date.now() - 3_600_000, dice: Math.random },
  });
  hubs.push(late);
  const { id } = await bed.enqueue('doubtful');
  await hasTurn(id);
  const record = (await late.store.get(id))!;
  await late.line.begin(record);
  await late.store.transition(record, 'submitting', { live: true, set: { submittedAt: late.now() } });
  await late.store.transition((await late.store.get(id))!, 'unconfirmed', { live: true });
  expect(await inFlight()).toBe(1);
});

test('a task found before its generation was submitted again holds one slot, and frees it with its end', async () => {
  await publish({ maxInFlight: 3 });
  const { id } = await bed.enqueue('found late');
  await move(id, ['submitting', 'unconfirmed']);
  await move(id, ['queued'], { count: ['resubmits'], place: { afterMs: 3_600_000 } });
  expect(await inFlight()).toBe(1);
  await move(id, ['generating']);
  expect(await inFlight()).toBe(1);
  await move(id, ['archiving']);
  expect(await inFlight()).toBe(0);
});
