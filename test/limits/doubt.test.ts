/** A cap of one while nobody knows, or nobody wants to know: the slot is free when its task surely is gone, and then at once. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;

/** Longer than a test: a slot that is free before it was freed by what happened. */
const PATIENCE_MS = 600_000;

beforeEach(async () => {
  bed = await createTestbed({
    environment: { MAX_IN_FLIGHT: '1', GENERATION_DEADLINE_MS: String(PATIENCE_MS), PRICES: '{"*":0.5}' },
  });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
});
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

const worksWith = (environment: Record<string, string> = {}) =>
  bed.work({ config: readConfig({ ...bed.environment, ...environment }) });
const inFlight = async () => (await hub.limits.counts()).inFlight;
const submits = () => bed.simulator.ledger().totals.submits;
const taskIds = () => bed.simulator.ledger().tasks.map(({ taskId }) => taskId);
/** When the slots that time frees are free, in minutes from now. */
const freeIn = async () =>
  (await bed.redis.zrange(`${bed.prefix}:in-flight`, '0', '-1', 'WITHSCORES'))
    .filter((_, i) => i % 2 === 1)
    .map((at) => Math.round((Number(at) - Date.now()) / 60_000));
/** The patience with all of them ends now. */
const patienceEnds = async () => {
  for (const key of [`${bed.prefix}:in-flight`, `${bed.prefix}:in-flight:default`])
    for (const name of await bed.redis.zrange(key, '0', '-1')) await bed.redis.zadd(key, Date.now(), name);
};

describe('an unconfirmed submit', () => {
  test.each([
    ['held', { UNCONFIRMED_POLICY: 'hold' }, null],
    ['given up by policy', { UNCONFIRMED_POLICY: 'fail' }, null],
    ['given up by an operator', {}, (id: string) => bed.reelhaul.decide(id, { giveUp: true })],
    ['canceled', {}, (id: string) => bed.reelhaul.cancel(id)],
  ] as const)('that is %s keeps its slot for as long as a task may live', async (_, environment, decide) => {
    await worksWith(environment);
    const { id } = await bed.enqueue('doubtful [sim: submit=502-after, duration=1h]');
    await bed.reaches(id, 'unconfirmed');
    const next = await bed.enqueue('next');
    await decide?.(id);
    if ('UNCONFIRMED_POLICY' in environment)
      await until(
        async () => (await bed.redis.zscore(`${bed.prefix}:live`, id)) === null,
        'the policy to be followed',
      );
    expect(await inFlight()).toBe(1);
    expect(await freeIn()).toEqual([PATIENCE_MS / 60_000]);
    expect(submits()).toBe(1);
    await patienceEnds();
    expect((await bed.reelhaul.waitFor(next.id)).state).toBe('succeeded');
  });

  test.each([
    [
      'by policy',
      { UNCONFIRMED_POLICY: 'resubmit', SUBMIT_TIMEOUT_MS: '2000', UNCONFIRMED_WAIT_MS: '2000' },
      null,
    ],
    ['by an operator', {}, (id: string) => bed.reelhaul.decide(id, { resubmit: true })],
  ] as const)('that is submitted again %s waits for its own slot first', async (_, environment, decide) => {
    await worksWith(environment);
    const { id } = await bed.enqueue('doubtful [sim: submit=502-after, duration=100ms]');
    await bed.reaches(id, 'unconfirmed');
    await decide?.(id);
    await bed.reaches(id, 'queued');
    expect(await inFlight()).toBe(1);
    expect(await freeIn()).toEqual([PATIENCE_MS / 60_000]);
    expect(submits()).toBe(1);
    await patienceEnds();
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(await inFlight()).toBe(0);
  });

  test('whose task an operator brings is counted once, and frees its slot with its end', async () => {
    await worksWith();
    const { id } = await bed.enqueue('found [sim: submit=502-after, duration=2s]');
    await bed.reaches(id, 'unconfirmed');
    const next = await bed.enqueue('next');
    await bed.reelhaul.decide(id, { adopt: taskIds()[0]! });
    expect(await inFlight()).toBe(1);
    expect((await bed.reelhaul.waitFor(next.id)).state).toBe('succeeded');
    expect(bed.simulator.ledger().totals.maxTasksInFlight).toBe(1);
    expect(await inFlight()).toBe(0);
  });

  test('that was given up, and whose task a callback brings, is counted once', async () => {
    await worksWith({ UNCONFIRMED_POLICY: 'fail' });
    const { id } = await bed.enqueue('revived [sim: submit=502-after, duration=200ms]');
    await bed.reaches(id, 'failed');
    expect(await adoptTask(hub, id, taskIds()[0]!, { source: 'callback' })).toBe('adopted');
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(await inFlight()).toBe(0);
  });
});

test('a second task that comes to light takes no slot from its generation, and no room from the budget but its own', async () => {
  await worksWith({ BUDGET_PER_DAY: '1', OVER_BUDGET: 'fail' });
  const { id } = await bed.enqueue('doubled [sim: submit=double, duration=2s]');
  await bed.reaches(id, 'generating');
  const [first = '', second = ''] = taskIds();
  expect((await bed.reelhaul.get(id)).taskId).toBe(second);
  expect(await adoptTask(hub, id, first, { source: 'callback' })).toBe('second');
  expect(await adoptTask(hub, id, first, { source: 'callback' })).toBe('known');
  expect(await inFlight()).toBe(1);
  const { id: next } = await bed.enqueue('no room');
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
  expect((await bed.reelhaul.waitFor(next)).failure?.code).toBe('budget_exceeded');
  expect(await inFlight()).toBe(0);
  expect(await bed.reelhaul.spend()).toMatchObject({ charged: 1, possible: 0 });
  expect(bed.simulator.ledger().totals.bills).toBe(2);
});

describe('a cancel', () => {
  test('while the submit is under way keeps slot and money, and the answer charges it', async () => {
    await worksWith();
    const { id } = await bed.enqueue('canceled [sim: submit-delay=1500ms, duration=1h]');
    await bed.reaches(id, 'submitting');
    await bed.reelhaul.cancel(id);
    expect(await inFlight()).toBe(1);
    expect(await bed.reelhaul.spend()).toMatchObject({ charged: 0, possible: 0.5 });
    await until(async () => (await bed.reelhaul.get(id)).charge === 'charged', 'the answer');
    expect(await freeIn()).toEqual([PATIENCE_MS / 60_000]);
    expect(await bed.reelhaul.spend()).toMatchObject({ charged: 0.5, possible: 0 });
  });

  test('of a task in a hurry keeps its slot for as long as any task may live', async () => {
    await worksWith();
    const { id } = await bed.enqueue('in a hurry [sim: duration=1h]', { deadlineMs: 120_000 });
    await bed.reaches(id, 'generating');
    await bed.reelhaul.cancel(id);
    expect(await freeIn()).toEqual([PATIENCE_MS / 60_000]);
  });

  test('of a task that the provider does not know takes no slot again', async () => {
    await worksWith({ GENERATION_DEADLINE_MS: '1', NOT_VISIBLE_GRACE_MS: '0' });
    const { id } = await bed.enqueue('never seen [sim: visible-after=never]');
    await bed.reaches(id, 'expired');
    expect(await inFlight()).toBe(0);
    await bed.reelhaul.cancel(id);
    expect(await inFlight()).toBe(0);
  });

  test('of an expired task leaves its slot for as long as it was to be looked at', async () => {
    await worksWith({ GENERATION_DEADLINE_MS: '1', LATE_CHECK_FOR_MS: '600000' });
    const { id } = await bed.enqueue('late [sim: duration=1h]');
    await bed.reaches(id, 'expired');
    await bed.reelhaul.cancel(id);
    expect(await freeIn()).toEqual([10]);
  });
});

describe('a task that was not visible by its deadline', () => {
  const expires = async (environment: Record<string, string>, script: string) => {
    await worksWith({ GENERATION_DEADLINE_MS: '1', LATE_CHECK_INTERVAL_MS: '50', ...environment });
    const { id } = await bed.enqueue(`not seen [sim: ${script}]`);
    expect((await bed.reaches(id, 'expired')).failure?.code).toBe('task_not_found');
    return id;
  };

  test('keeps its slot while the provider may only not show it yet', async () => {
    const id = await expires({}, 'visible-after=5s, duration=6s');
    expect(await inFlight()).toBe(1);
    const next = await bed.enqueue('next [sim: duration=1500ms]');
    for (const one of [id, next.id]) expect((await bed.reaches(one, 'succeeded')).late).toBe(true);
    expect(bed.simulator.ledger().totals.maxTasksInFlight).toBe(1);
  });

  test('frees it once it surely is not there', async () => {
    await expires({ NOT_VISIBLE_GRACE_MS: '500' }, 'visible-after=never');
    await until(async () => (await inFlight()) === 0, 'the slot to be free');
  });
});

test('the task of a canceled generation is followed until it ends: its slot is free then, and its refund is seen', async () => {
  await worksWith();
  const { id } = await bed.enqueue('canceled [sim: result=failed, shape=O, duration=1s]');
  await bed.reaches(id, 'generating');
  await bed.reelhaul.cancel(id);
  expect(await inFlight()).toBe(1);
  await until(async () => (await inFlight()) === 0, 'the slot to be free');
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'canceled', charge: 'refunded' });
  expect(await bed.reelhaul.spend()).toMatchObject({ charged: 0, possible: 0 });
});
