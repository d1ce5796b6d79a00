/** The submit queue: every queued generation is a job, tenants take turns by weight, priorities and caps hold. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { withPost } from '../../src/generation/submits.js';
import { STAGES, type Stage } from '../../src/generation/states.js';
import { limitsOf, type InForce } from '../../src/limits/settings.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import type { EnqueueItem } from '../../src/pipeline/enqueue.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;

beforeEach(async () => {
  bed = await createTestbed();
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
});
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

const publish = (limits: Partial<InForce> = {}) => hub.limits.publish({ ...limitsOf(bed.config), ...limits });
const items = (tenant: string, count: number, options: Partial<EnqueueItem> = {}): EnqueueItem[] =>
  Array.from({ length: count }, (_, i) => ({
    request: { prompt: `${tenant} ${i}`, image },
    tenant,
    ...options,
  }));
const worksWith = (environment: Record<string, string>, stages: readonly Stage[] = STAGES) =>
  bed.work({ config: readConfig({ ...bed.environment, ...environment }), stages });

/** Lets one worker slot submit `count` generations; who they were, in order. */
async function serve(count: number, environment: Record<string, string> = {}): Promise<string[]> {
  const worker = await worksWith({ SUBMIT_CONCURRENCY: '1', ...environment }, ['submit']);
  await until(() => bed.simulator.ledger().totals.submits >= count, `${count} submits`);
  await worker.close();
  return bed.simulator
    .ledger()
    .tasks.slice(0, count)
    .map(({ prompt }) => prompt);
}
const tenantsOf = (prompts: readonly string[]) => prompts.map((prompt) => prompt.split(' ')[0]!);
const shareOf = (tenant: string, prompts: readonly string[]) =>
  tenantsOf(prompts).filter((one) => one === tenant).length;

test('every queued generation is a job of the submit queue, with and without a worker', async () => {
  await bed.reelhaul.enqueueMany(items('a', 60));
  expect((await hub.queues.counts('submit')).waiting).toBe(60);
  await bed.enqueue('later', { delayMs: 3_600_000 });
  expect((await hub.queues.counts('submit')).delayed).toBe(1);
  expect(await hub.limits.counts()).toMatchObject({ inLine: 60, scheduled: 1 });
});

describe('turns', () => {
  test('a newcomer behind a thousand of another tenant waits for a handful of submits', async () => {
    await publish();
    await bed.reelhaul.enqueueMany(items('big', 1000));
    await bed.enqueue('new 0', { tenant: 'new' });
    expect(tenantsOf(await serve(10))).toContain('new');
  });

  test('tenants with very unequal backlogs are served alike', async () => {
    await publish();
    await bed.reelhaul.enqueueMany([...items('a', 200), ...items('b', 20), ...items('c', 60)]);
    const served = await serve(45);
    for (const tenant of ['a', 'b', 'c']) {
      expect(shareOf(tenant, served)).toBeGreaterThanOrEqual(13);
      expect(shareOf(tenant, served)).toBeLessThanOrEqual(17);
    }
  });

  test('a weight of three is worth three turns', async () => {
    const tenants = { heavy: { weight: 3 } };
    await publish({ tenants });
    await bed.reelhaul.enqueueMany([...items('light', 100), ...items('heavy', 100)]);
    const served = await serve(40, { TENANTS: JSON.stringify(tenants) });
    expect(shareOf('heavy', served)).toBeGreaterThanOrEqual(27);
    expect(shareOf('heavy', served)).toBeLessThanOrEqual(33);
  });

  test('a tenant that was away for long has saved up no turns', async () => {
    await publish();
    await bed.reelhaul.enqueueMany(items('busy', 100));
    await serve(30);
    await bed.reelhaul.enqueueMany(items('idle', 20));
    const served = (await serve(60)).slice(31);
    expect(shareOf('busy', served)).toBeGreaterThanOrEqual(8);
  });

  test('generations that come due together have the turns of newcomers', async () => {
    await publish();
    await bed.reelhaul.enqueueMany(items('scheduled', 30, { delayMs: 300 }));
    await bed.reelhaul.enqueueMany(items('steady', 30));
    await until(async () => (await hub.limits.counts()).scheduled === 0, 'their time');
    const served = await serve(24);
    expect(shareOf('steady', served)).toBeGreaterThanOrEqual(8);
  });
});

describe('within a tenant', () => {
  test('no priority comes first, then 1, 2, 3', async () => {
    await publish();
    await bed.enqueue('three', { priority: 3 });
    await bed.enqueue('two', { priority: 2 });
    await bed.enqueue('one', { priority: 1 });
    await bed.enqueue('none');
    expect(await serve(4)).toEqual(['none', 'one', 'two', 'three']);
  });

  test('a low priority is served all the same while others keep coming before it', async () => {
    await publish();
    await bed.enqueue('last 0', { priority: 9 });
    await bed.reelhaul.enqueueMany(items('default', 60, { priority: 1, tenant: 'default' }));
    expect((await serve(40)).includes('last 0')).toBe(true);
  });

  test('a priority is worth no turn of another tenant', async () => {
    await publish();
    await bed.reelhaul.enqueueMany([...items('a', 40, { priority: 5 }), ...items('b', 40)]);
    await bed.reelhaul.enqueueMany(items('a', 40, { priority: 1 }));
    const served = await serve(30);
    expect(shareOf('a', served)).toBeGreaterThanOrEqual(13);
    expect(shareOf('a', served)).toBeLessThanOrEqual(17);
  });
});

describe('caps', () => {
  test('nothing is submitted before a worker has written the limits', async () => {
    const { id } = await bed.enqueue('early');
    expect((await hub.store.turns.turn(id))?.verdict).toEqual({ kind: 'unpublished' });
  });

  test('no more are in flight than may be, and one for each that leaves', async () => {
    await worksWith({ MAX_IN_FLIGHT: '3' });
    const ids = (await bed.reelhaul.enqueueMany(items('a', 12))).map((one) => one.ok && one.generation.id);
    for (const id of ids) await bed.reelhaul.waitFor(String(id));
    expect(bed.simulator.ledger().totals.maxTasksInFlight).toBeLessThanOrEqual(3);
    expect((await hub.limits.counts()).inFlight).toBe(0);
  });

  test('a tenant at its own cap lets others pass, and goes on when one of its tasks ends', async () => {
    await worksWith({ MAX_IN_FLIGHT_PER_TENANT: '1', SUBMIT_CONCURRENCY: '1' });
    const slow = await bed.enqueue('slow [sim: duration=5s]', { tenant: 'a' });
    const second = await bed.enqueue('second', { tenant: 'a' });
    await until(async () => (await hub.limits.counts()).capped === 1, 'the second to wait for its tenant');
    expect((await hub.limits.counts()).tenantsCapped).toBe(1);
    const { id } = await bed.enqueue('other', { tenant: 'b' });
    const [first, after, other] = await Promise.all(
      [slow.id, second.id, id].map((one) => bed.reelhaul.waitFor(one)),
    );
    expect([first, after, other].map((one) => one?.state)).toEqual(['succeeded', 'succeeded', 'succeeded']);
    expect(other!.submittedAt).toBeLessThan(after!.submittedAt!);
  });

  test('a generation whose tenant has room again, and whose promotion was lost, goes on with the sweep', async () => {
    await publish({ tenantMaxInFlight: 1 });
    const [first, second] = [await bed.enqueue('first'), await bed.enqueue('second')];
    const record = (await hub.store.get(first.id))!;
    await hub.store.transition(record, 'submitting', {
      live: true,
      submits: withPost([], { at: Date.now(), price: null, nonce: 'n' }),
    });
    expect((await hub.store.turns.turn(second.id))?.verdict.kind).toBe('capped');
    const lost = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
    await lost.queues.close();
    await lost.store.transition((await lost.store.get(first.id))!, 'failed', { live: false, taskGone: true });
    await worksWith({ MAX_IN_FLIGHT_PER_TENANT: '1' });
    expect((await bed.reelhaul.waitFor(second.id)).state).toBe('succeeded');
  });

  test('other limits of a new worker hold at once', async () => {
    const before = await worksWith({ MAX_IN_FLIGHT_PER_TENANT: '1' });
    await bed.enqueue('slow [sim: duration=1h]');
    const second = await bed.enqueue('second');
    await until(async () => (await hub.limits.counts()).capped === 1, 'the cap');
    await worksWith({ MAX_IN_FLIGHT_PER_TENANT: '2' });
    expect((await bed.reelhaul.waitFor(second.id)).state).toBe('succeeded');
    await before.close();
  });

  test('the deadline is asked when the submit begins, after every wait', async () => {
    await publish();
    const { id } = await bed.enqueue('late', { deadlineMs: 1000 });
    const record = (await hub.store.get(id))!;
    await bed.redis.hset(`${bed.prefix}:g:${id}`, 'deadlineAt', Date.now() - 1);
    const begun = await hub.store.beginSubmit(
      record,
      { live: true, submits: withPost([], { at: Date.now(), price: null, nonce: 'n' }) },
      { price: null, unpriced: 'allow' },
    );
    expect(begun).toEqual({ kind: 'overdue' });
  });
});

test.each(['*', 'a:b', '{x}', '100 %', '\u{1F3AC}', 'x'.repeat(128)])(
  'a tenant may be called %s',
  async (tenant) => {
    await worksWith({ TENANTS: JSON.stringify({ [tenant]: { weight: 2, maxInFlight: 1 } }) });
    const { id } = await bed.enqueue('named', { tenant });
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  },
);
