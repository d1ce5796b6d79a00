/** One run of the submit stage beside what others do at the same moment. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { withPost } from '../../src/generation/submits.js';
import { limitsOf } from '../../src/limits/settings.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import type { Outcome } from '../../src/queue/runner.js';
import { createContext, type Context } from '../../workers/context.js';
import { submit } from '../../workers/submit.js';
import { createTestbed, realRedis, type Testbed } from '../support/testbed.js';

let bed: Testbed;
let hub: Hub;
let context: Context;
/** How far the clock of this worker is ahead. */
let aheadMs = 0;

async function works(environment: Record<string, string> = {}): Promise<void> {
  const config = readConfig({ ...bed.environment, ...environment });
  const clock = { now: () => Date.now() + aheadMs, dice: () => 0.5 };
  hub = createHub({ config, log: pino({ level: 'silent' }), redis: bed.redis, clock });
  await hub.limits.publish(limitsOf(config));
  context = await createContext(hub);
}

beforeEach(async () => {
  aheadMs = 0;
  bed = await createTestbed();
});
afterEach(async () => {
  context.ledger.close();
  await hub.queues.close();
  await bed.close();
});

const run = (id: string) => submit(context, id, new AbortController().signal);
const totals = () => bed.simulator.ledger().totals;
const record = async (id: string) => (await hub.store.get(id))!;

/** The job is delayed as the stage said, and what it wants to look at after that is looked at. */
async function isDelayed(id: string, outcome: Outcome): Promise<boolean> {
  if (outcome.kind !== 'snooze') throw new Error(`expected a snooze, got ${outcome.kind}`);
  await hub.queues.forget('submit', id);
  await hub.queues.remind('submit', { generationId: id, delayMs: outcome.delayMs });
  await outcome.afterwards?.();
  return (await bed.redis.zscore(`${bed.prefix}:submit:delayed`, id)) !== null;
}

/** As a worker leaves it that began a submit and died. */
async function beginAndDie(id: string): Promise<void> {
  const begun = await record(id);
  await hub.store.transition(begun, 'submitting', {
    live: true,
    set: { submitNonce: 'n', submittedAt: Date.now() },
    submits: withPost(begun.submits, { at: Date.now(), price: null, nonce: 'n' }),
    count: ['submitAttempts'],
  });
}

describe('a wake-up is not lost while the job that it is for runs', () => {
  test.each(['MAX_IN_FLIGHT_PER_TENANT', 'BUDGET_PER_DAY'])('%s has room again', async (limit) => {
    await works({ [limit]: '1', PRICES: '{"*":1}' });
    const first = await bed.enqueue('first');
    await beginAndDie(first.id);
    await bed.redis.hset(`${bed.prefix}:spend:${Math.floor(Date.now() / 86_400_000)}`, 'charged', '1000000');
    const second = await bed.enqueue('second');
    const waits = await run(second.id);
    expect(await isDelayed(second.id, waits)).toBe(true);
    await bed.redis.del(`${bed.prefix}:in-flight:default`);
    await bed.redis.del(`${bed.prefix}:spend:${Math.floor(Date.now() / 86_400_000)}`);
    expect(await isDelayed(second.id, waits)).toBe(false);
  });

  test('an unconfirmed one is decided', async () => {
    await works({ UNCONFIRMED_WAIT_MS: '60000' });
    const { id } = await bed.enqueue('unclear');
    await beginAndDie(id);
    const found = await run(id);
    expect(await isDelayed(id, found)).toBe(true);
    const waits = await run(id);
    await bed.reelhaul.decide(id, { resubmit: true });
    for (const outcome of [found, waits]) expect(await isDelayed(id, outcome)).toBe(false);
  });
});

describe('a resubmit by policy', () => {
  test('waits until the first call is surely over, whatever the wait for a callback is, and takes a new turn', async () => {
    await works({ UNCONFIRMED_WAIT_MS: '0', SUBMIT_TIMEOUT_MS: '90000' });
    const { id } = await bed.enqueue('unclear', { onUnconfirmed: 'resubmit' });
    for (let i = 0; i < 3; i++) await bed.enqueue(`other ${i}`);
    await beginAndDie(id);
    await run(id);
    const early = await run(id);
    expect(early).toMatchObject({ kind: 'snooze' });
    expect(early.kind === 'snooze' && early.delayMs).toBeGreaterThan(80_000);
    aheadMs = 91_000;
    expect(await run(id)).toEqual({ kind: 'requeue', priority: 5 });
    expect(await record(id)).toMatchObject({ state: 'queued', turn: 4 });
  });
});

test('a worker that froze between the begin of a submit and its call does not make the call', async () => {
  await works();
  const { id } = await bed.enqueue('frozen');
  const { store } = context;
  context = {
    ...context,
    store: {
      ...store,
      async beginSubmit(...given) {
        const begun = await store.beginSubmit(...given);
        aheadMs += hub.config.JOB_LOCK_MS + 1;
        return begun;
      },
    },
  };
  expect(await run(id)).toMatchObject({ kind: 'snooze', delayMs: 0 });
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'queued', charge: 'none' });
  expect(totals().submits).toBe(0);
});

test('a submit whose begin was written although Redis answered with an error is not unconfirmed', async () => {
  await works();
  const { id } = await bed.enqueue('begun twice [sim: duration=100ms]');
  const { store } = context;
  const failing: Context = {
    ...context,
    store: {
      ...store,
      async beginSubmit(...given) {
        await store.beginSubmit(...given);
        throw new Error('MOVED 1 127.0.0.1:1');
      },
    },
  };
  await expect(submit(failing, id, new AbortController().signal)).rejects.toThrow('MOVED');
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'queued', charge: 'none' });
  expect(await run(id)).toMatchObject({ kind: 'done' });
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'generating' });
  expect(totals().submits).toBe(1);
});

// The embedded server takes minutes for it, in which it answers no other test.
(realRedis ? test : test.skip)('limits of ten thousand tenants are published', async () => {
  await works();
  const tenants = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, i) => [`tenant-${i}`, { weight: 2, budgetPerDay: 1 }]),
  );
  await hub.limits.publish({ ...limitsOf(bed.config), tenants });
  expect(await bed.redis.hlen(`${bed.prefix}:limits:tenants`)).toBe(10_000);
  expect(await bed.redis.hlen(`${bed.prefix}:limits:budgets`)).toBe(10_000);
});
