/** Who is next: turns between tenants, priorities within one, and the caps, on a real Redis. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import type { EnqueueItem } from '../../src/pipeline/enqueue.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import type { InForce, TenantLimits } from '../../src/limits/line.js';
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

const NONE: InForce = {
  maxInFlight: null,
  tenantMaxInFlight: null,
  rateMax: null,
  rateWindowMs: 60_000,
  budgetPerDay: null,
  tenantBudgetPerDay: null,
  tenants: {},
};

const publish = (limits: Partial<InForce> = {}) => hub.line.publish({ ...NONE, ...limits });
const items = (tenant: string, count: number, options: Partial<EnqueueItem> = {}): EnqueueItem[] =>
  Array.from({ length: count }, (_, i) => ({
    request: { prompt: `${tenant} ${i}`, image },
    tenant,
    ...options,
  }));

/** Lets generations in and begins them, `count` in all; who they were, in order. */
async function serve(count: number): Promise<{ tenant: string; priority: number; id: string }[]> {
  const served: { tenant: string; priority: number; id: string }[] = [];
  const jobs: string[] = await hub.line.ready();
  while (served.length < count) {
    jobs.push(...((await hub.line.letIn(null))?.generationIds ?? []));
    const id = jobs.shift();
    if (id === undefined) break;
    const record = (await hub.store.get(id))!;
    if (record.state !== 'queued') continue;
    expect(await hub.line.begin(record)).toMatchObject({ kind: 'go', probe: false });
    await hub.store.transition(record, 'submitting', { live: true });
    served.push({ tenant: record.tenant, priority: record.priority, id });
  }
  return served;
}

/** Its task is over: the slot is free. */
async function finish(id: string): Promise<void> {
  const submitting = (await hub.store.get(id))!;
  await hub.store.transition(submitting, 'failed', { live: false, taskGone: true });
}

const tenantsOf = (served: readonly { tenant: string }[]) => served.map(({ tenant }) => tenant);

describe('turns', () => {
  test('a tenant with a thousand waiting delays the first of another by a handful', async () => {
    await publish();
    await bed.reelhaul.enqueueMany(items('big', 1000));
    await bed.enqueue('small', { tenant: 'small' });
    expect(tenantsOf(await serve(20)).indexOf('small')).toBeLessThanOrEqual(9);
  });

  test('tenants with very unequal backlogs are served alike', async () => {
    await publish();
    for (const [i, count] of [400, 200, 50, 30].entries())
      await bed.reelhaul.enqueueMany(items(`tenant ${i}`, count));
    const served = tenantsOf(await serve(108)).slice(8);
    const counts = [0, 1, 2, 3].map((i) => served.filter((tenant) => tenant === `tenant ${i}`).length);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(8);
  });

  test('those that have begun and wait keep a newcomer waiting no longer than a handful', async () => {
    await publish();
    await bed.reelhaul.enqueueMany(items('big', 100));
    // As with many workers that all wait for a call of the budget.
    for (let looks = 0; looks < 10; looks++) {
      for (const id of await hub.line.ready()) await hub.line.begin((await hub.store.get(id))!);
      await hub.line.letIn(null);
    }
    expect((await hub.line.counts()).ready).toBe(16);
  });

  test('a weight of three is worth three turns', async () => {
    await publish({ tenants: { heavy: { weight: 3 } } });
    await bed.reelhaul.enqueueMany([...items('heavy', 200), ...items('light', 200)]);
    const served = tenantsOf(await serve(88)).slice(8);
    const heavy = served.filter((tenant) => tenant === 'heavy').length;
    expect(heavy).toBeGreaterThanOrEqual(57);
    expect(heavy).toBeLessThanOrEqual(63);
  });

  test('who was away for long has saved up no turns', async () => {
    await publish();
    await bed.reelhaul.enqueueMany([...items('steady', 100), ...items('returning', 1)]);
    await serve(50);
    await bed.reelhaul.enqueueMany(items('returning', 40));
    const served = tenantsOf(await serve(28)).slice(8);
    expect(served.filter((tenant) => tenant === 'returning').length).toBeLessThanOrEqual(11);
  });

  test('a name that is also a word of ours is a tenant like any other', async () => {
    await publish({ tenants: { clock: { weight: 2 } } });
    for (const tenant of ['clock', 'line', '__proto__', 'a:b']) await bed.enqueue('odd', { tenant });
    expect(new Set(tenantsOf(await serve(4)))).toEqual(new Set(['clock', 'line', '__proto__', 'a:b']));
  });
});

describe('within a tenant', () => {
  test('a lower number goes first, and none at all before every number', async () => {
    // Not published yet: nobody is let in before all stand in line.
    for (const priority of [9, 2, 5]) await bed.enqueue(`number ${priority}`, { priority });
    await bed.enqueue('none');
    await publish();
    expect((await serve(4)).map(({ priority }) => priority)).toEqual([0, 2, 5, 9]);
  });

  test('the last in order is served all the same while others keep coming before it', async () => {
    const { id } = await bed.enqueue('patient', { priority: 1000 });
    await bed.reelhaul.enqueueMany(items('default', 200, { priority: 1 }));
    await publish();
    const served = (await serve(60)).map((one) => one.id);
    expect(served).toContain(id);
  });
});

describe('caps', () => {
  test('nobody is let in before a worker has written the limits', async () => {
    await bed.enqueue('waits');
    expect(await hub.line.letIn(null)).toBeNull();
    expect(await hub.line.ready()).toEqual([]);
    await publish();
    expect((await hub.line.letIn(null))?.generationIds).toHaveLength(1);
  });

  test('no more are let in than may be at the provider, and one for each that leaves', async () => {
    await publish({ maxInFlight: 3 });
    await bed.reelhaul.enqueueMany(items('default', 10));
    const first = await serve(10);
    expect(first).toHaveLength(3);
    expect(await hub.line.counts()).toMatchObject({ inFlight: 3, inLine: 7 });
    await finish(first[0]!.id);
    expect(await serve(10)).toHaveLength(1);
  });

  test('a tenant at its own cap lets others pass, and goes on when it has a slot', async () => {
    const tenants: Record<string, TenantLimits> = { wide: { maxInFlight: 5 } };
    await publish({ tenantMaxInFlight: 1, tenants });
    await bed.reelhaul.enqueueMany([...items('narrow', 5), ...items('wide', 9)]);
    const first = await serve(20);
    expect(tenantsOf(first).sort()).toEqual(['narrow', 'wide', 'wide', 'wide', 'wide', 'wide']);
    await finish(first.find(({ tenant }) => tenant === 'narrow')!.id);
    await hub.line.letIn({ tenant: 'narrow' });
    expect(tenantsOf(await serve(20))).toEqual(['narrow']);
  });

  test.each([
    ['unconfirmed', 'queued', 1],
    ['unconfirmed', 'failed', 1],
    ['generating', 'canceled', 1],
    ['generating', 'expired', 1],
    ['generating', 'failed', 0],
    ['generating', 'archiving', 0],
  ] as const)('from %s to %s leaves %i at the provider', async (from, to, left) => {
    await publish({ maxInFlight: 1 });
    const { id } = await bed.enqueue('in flight');
    await serve(1);
    const change = { live: true, set: { submittedAt: Date.now(), acceptedAt: Date.now() } };
    await hub.store.transition((await hub.store.get(id))!, from, change);
    const place = { afterMs: 3_600_000 };
    await hub.store.transition((await hub.store.get(id))!, to, { live: to !== 'failed', place });
    expect(await hub.line.counts()).toMatchObject({ inFlight: left });
    const { id: next } = await bed.enqueue('next');
    await hub.line.letIn(null);
    expect((await hub.line.ready()).includes(next)).toBe(left === 0);
  });

  test('a job that is lost between its turn and the queue is added again, and holds one slot', async () => {
    await publish({ maxInFlight: 1 });
    const { id } = await bed.enqueue('lost');
    await bed.enqueue('behind it');
    await hub.queues.forget('submit', id);
    await bed.redis.zadd(`${bed.prefix}:ready`, 0, id);
    expect((await hub.line.letIn(null))?.generationIds).toEqual([id]);
    expect(await hub.line.counts()).toMatchObject({ inFlight: 1, inLine: 1 });
  });

  test('a job of before stands in line like everybody', async () => {
    const { id } = await bed.enqueue('written by an older version');
    await bed.redis.del(`${bed.prefix}:line:default`, `${bed.prefix}:line`);
    expect(await hub.line.begin({ id, tenant: 'default', priority: 0 })).toEqual({ kind: 'inLine' });
    await publish();
    expect(await serve(1)).toMatchObject([{ id }]);
  });

  test('a stray job brings nobody forward whose time has not come', async () => {
    await publish();
    const { id } = await bed.enqueue('later', { delayMs: 3_600_000 });
    expect(await hub.line.begin({ id, tenant: 'default', priority: 0 })).toEqual({ kind: 'inLine' });
    expect(await hub.line.counts()).toMatchObject({ inLine: 0, scheduled: 1 });
    expect(await serve(1)).toEqual([]);
  });

  test('who is put off to a deadline that is now is not taken up again in the same breath', async () => {
    await publish();
    const { id } = await bed.enqueue('over budget');
    await hub.line.putOff({ id, tenant: 'default' }, Date.now() - 5000);
    expect(await hub.line.letIn(null)).toMatchObject({ generationIds: [] });
  });

  test('other limits of a new worker hold at once', async () => {
    await publish({ tenantMaxInFlight: 1 });
    await bed.reelhaul.enqueueMany(items('default', 4));
    expect(await serve(10)).toHaveLength(1);
    await publish({ tenantMaxInFlight: 3 });
    await hub.line.letIn('all');
    expect(await serve(10)).toHaveLength(2);
  });

  test('and at once for each of many tenants', async () => {
    const tenants = Array.from({ length: 100 }, (_, i) => `tenant ${i}`);
    await publish({ tenantMaxInFlight: 1 });
    await bed.reelhaul.enqueueMany(tenants.flatMap((tenant) => items(tenant, 2)));
    expect(await serve(200)).toHaveLength(100);
    await publish({ tenantMaxInFlight: 2 });
    expect(await serve(200)).toHaveLength(100);
  });

  test.each([
    ['all', { maxInFlight: 10 }, { maxInFlight: 4 }],
    ['a tenant', { tenantMaxInFlight: 10 }, { tenantMaxInFlight: 4 }],
  ])('a lower cap for %s sends back who had its turn and is too much now', async (_, before, after) => {
    await publish(before);
    await bed.reelhaul.enqueueMany(items('default', 20));
    const served = await serve(3);
    await hub.line.letIn(null);
    const ready = await hub.line.ready();
    expect(ready).toHaveLength(7);
    await publish(after);
    const turns = [];
    for (const id of ready) turns.push((await hub.line.begin((await hub.store.get(id))!)).kind);
    expect(turns.filter((kind) => kind === 'go')).toHaveLength(1);
    expect(await hub.line.counts()).toMatchObject({ inFlight: 4, ready: 1, inLine: 16 });
    await finish(served[0]!.id);
    await until(async () => (await hub.line.counts()).ready === 2, 'the next to have its turn');
  });

  test('a slot that time frees is seen at once, whosever of many tenants it is', async () => {
    const tenants = Array.from({ length: 100 }, (_, i) => `tenant ${i}`);
    await publish({ tenantMaxInFlight: 1 });
    await bed.reelhaul.enqueueMany(tenants.flatMap((tenant) => items(tenant, 2)));
    const served = await serve(200);
    const { id, tenant } = served[37]!;
    const submitting = (await hub.store.get(id))!;
    await hub.store.transition(submitting, 'canceled', { live: false });
    for (const lingering of ['lingering', `lingering:${tenant}`])
      await bed.redis.zadd(`${bed.prefix}:${lingering}`, Date.now() + 200, id);
    // Others look at what lives at the provider as well, and take nothing from whoever gives out the turns.
    const due = (await hub.line.letIn(null))!;
    expect(due.dueMs).toBeLessThanOrEqual(200);
    await until(async () => (await hub.line.counts()).inFlight === 99, 'the slot to be free');
    const { generationIds } = (await hub.line.letIn(null))!;
    expect(await Promise.all(generationIds.map(async (next) => (await hub.store.get(next))!.tenant))).toEqual(
      [tenant],
    );
  });

  test.each(['*', 'a:b', '{x}', '100 %', '\u{1F3AC}', 'x'.repeat(128)])(
    'a tenant called %j has its slot again as soon as it is free, whoever else waits',
    async (name) => {
      const tenants = Array.from({ length: 40 }, (_, i) => `!${i}`);
      await publish({ tenants: { [name]: { maxInFlight: 1 } }, tenantMaxInFlight: 1 });
      await bed.reelhaul.enqueueMany([...tenants, name].flatMap((tenant) => items(tenant, 2)));
      const served = await serve(100);
      expect(served).toHaveLength(41);
      await finish(served.find(({ tenant }) => tenant === name)!.id);
      await hub.line.letIn({ tenant: name });
      expect(tenantsOf(await serve(100))).toEqual([name]);
    },
  );

  test('a slot whose freeing nobody told of is found in few looks among many tenants', async () => {
    const tenants = Array.from({ length: 100 }, (_, i) => `tenant ${i}`);
    await publish({ tenantMaxInFlight: 1 });
    await bed.reelhaul.enqueueMany(tenants.flatMap((tenant) => items(tenant, 2)));
    const freed = (await serve(200)).filter((_, i) => i % 10 === 5);
    for (const { id, tenant } of freed)
      await bed.redis.zrem(hub.store.keys.tenantState(tenant, 'submitting'), id);
    for (let looks = 0; looks < 6; looks++) await hub.line.letIn('all');
    expect((await hub.line.counts()).tenantsCapped).toBe(90);
  });
});
