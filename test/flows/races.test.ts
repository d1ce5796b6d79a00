/**
 * Two things at once: commands that are sent twice because their reply was lost, decisions that meet stages, callbacks
 * that meet both. Found by trying to break the promise of one bill.
 */
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { advance } from '../../src/pipeline/advance.js';
import { createTestbed, type Testbed, type TestbedOptions } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

async function setUp(options?: TestbedOptions): Promise<void> {
  bed = await createTestbed(options);
  hub = createHub({ config: readConfig(bed.environment), log: pino({ level: 'silent' }), redis: bed.redis });
}
const totals = () => bed.simulator.ledger().totals;
const record = async (id: string) => (await hub.store.get(id))!;

describe('a command that is sent twice', () => {
  test('create does not set a generation back that has moved on', async () => {
    await setUp();
    const { id } = await bed.enqueue('once');
    await bed.work();
    const done = await bed.reelhaul.waitFor(id);
    const again = { id, tenant: 'default', idempotency: null, createdAt: done.createdAt, fields: {} };
    expect(await hub.store.create(again)).toMatchObject({ created: true });
    expect(await bed.reelhaul.get(id)).toEqual(done);
  });

  test('a transition that was decided in an earlier round is not made in a later one', async () => {
    await setUp({ environment: { UNCONFIRMED_WAIT_MS: '0' } });
    await bed.work();
    const { id } = await bed.enqueue('twice unclear [sim: submit=502-after*3]');
    await bed.reaches(id, 'unconfirmed');
    const stale = await record(id);
    await bed.reelhaul.decide(id, { resubmit: true });
    await until(() => totals().submits === 2, 'the second submit');
    await bed.reaches(id, 'unconfirmed');
    expect(await advance(hub, stale, 'queued')).toBe(false);
    expect(totals().submits).toBe(2);
  });
});

describe('an idempotency key', () => {
  test('of another generation is left alone when an old one of the same key ends again', async () => {
    await setUp({ environment: { IDEMPOTENCY_TTL_MS: '1000' } });
    const worker = await bed.work();
    const first = await bed.enqueue('k [sim: video=html*forever]', { idempotencyKey: 'k' });
    await hub.redis.set(`${bed.prefix}:unused`, '1');
    await bed.reelhaul.cancel(first.id).catch(() => {});
    await bed.reelhaul.waitFor(first.id);
    const key = `${bed.prefix}:idem:7:default:k`;
    await until(async () => (await bed.redis.exists(key)) === 0, 'the key to expire');
    await worker.close();
    const second = await bed.enqueue('another', { idempotencyKey: 'k' });
    const old = await record(first.id);
    await hub.store.amend(old, { live: false });
    expect(await bed.redis.pttl(key)).toBe(-1);
    expect((await bed.redis.get(key))!.startsWith(second.id)).toBe(true);
  });

  test('is kept while an expired generation is still checked', async () => {
    await setUp({
      environment: {
        IDEMPOTENCY_TTL_MS: '1000',
        GENERATION_DEADLINE_MS: '1',
        LATE_CHECK_INTERVAL_MS: '60000',
      },
    });
    await bed.work();
    const { id } = await bed.enqueue('late [sim: duration=1h]', { idempotencyKey: 'late' });
    await bed.reaches(id, 'expired');
    expect(await bed.redis.pttl(`${bed.prefix}:idem:7:default:late`)).toBe(-1);
  });

  test('whose generation is gone is free', async () => {
    await setUp();
    const first = await bed.enqueue('gone', { idempotencyKey: 'gone' });
    await bed.redis.del(`${bed.prefix}:g:${first.id}`);
    expect((await bed.enqueue('gone', { idempotencyKey: 'gone' })).id).not.toBe(first.id);
  });
});

describe('a 429', () => {
  test.each(['submit', 'poll'] as const)('of a %s holds everybody', async (call) => {
    await setUp({ environment: { SUBMIT_CONCURRENCY: '1', POLL_CONCURRENCY: '1' } });
    const ids: string[] = [];
    for (let i = 0; i < 10; i++)
      ids.push((await bed.enqueue(`held ${i} [sim: ${call}=429*forever, retry-after=60s]`)).id);
    const calls = () => (call === 'submit' ? totals().submits : totals().polls);
    await bed.work();
    await until(() => calls() > 0, 'the first call');
    await until(async () => (await bed.reelhaul.limits()).holdMs[call] > 0, 'everybody to be held');
    // Another process that starts now holds still as well: its sweep runs, its stages do not.
    await bed.work();
    const limiter = `${bed.prefix}:${call}:limiter`;
    await until(async () => (await bed.redis.pttl(limiter)) > 0, 'the queue to be held');
    expect(calls()).toBeLessThanOrEqual(2);
  });
});

describe('further task ids', () => {
  test('are not lost when a resubmit and a callback write at once', async () => {
    await setUp({ environment: { UNCONFIRMED_WAIT_MS: '60000' } });
    const worker = await bed.work();
    const { id } = await bed.enqueue('failed [sim: result=failed:INTERNAL]');
    const { taskId } = await bed.reelhaul.waitFor(id);
    await worker.close();
    await Promise.all([
      bed.reelhaul.retry(id, { allowRebill: true }),
      adoptTask(hub, id, 'late-one', { source: 'callback' }),
      adoptTask(hub, id, 'late-two', { source: 'callback' }),
    ]);
    const after = await bed.reelhaul.get(id);
    expect([after.taskId, ...after.otherTaskIds]).toEqual(
      expect.arrayContaining([taskId, 'late-one', 'late-two']),
    );
  });

  test('an operator may adopt one of them', async () => {
    await setUp({ environment: { UNCONFIRMED_WAIT_MS: '0' } });
    await bed.work();
    const { id } = await bed.enqueue('unclear [sim: submit=502-after]');
    await bed.reaches(id, 'unconfirmed');
    const [task] = bed.simulator.ledger().tasks;
    await bed.redis.hset(`${bed.prefix}:g:${id}`, 'otherTaskIds', JSON.stringify([task!.taskId]));
    await bed.reelhaul.decide(id, { adopt: task!.taskId });
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({
      state: 'succeeded',
      taskId: task!.taskId,
      otherTaskIds: [],
    });
  });
});

describe('a cancel while the submit is under way', () => {
  test('keeps a task that a callback had named', async () => {
    await setUp();
    const { id } = await bed.enqueue('hinted');
    await hub.store.transition(await record(id), 'submitting', {
      live: true,
      set: { submitNonce: 'n' },
      count: ['submitAttempts'],
    });
    await adoptTask(hub, id, 'hinted-task', { source: 'callback' });
    const { generation, mayBeBilled } = await bed.reelhaul.cancel(id);
    expect(generation).toMatchObject({ state: 'canceled', taskId: 'hinted-task', charge: 'possible' });
    expect(mayBeBilled).toBe(true);
  });

  test('notes the task when the answer brings one', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('too late [sim: submit-delay=500ms]');
    await until(() => totals().submits === 1, 'the submit to arrive');
    expect((await bed.reelhaul.cancel(id)).mayBeBilled).toBe(true);
    const noted = await until(async () => {
      const generation = await bed.reelhaul.get(id);
      return generation.taskId === null ? null : generation;
    }, 'the task to be noted');
    expect(noted).toMatchObject({ state: 'canceled', charge: 'charged' });
  });

  test('is not billed when the answer says so', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('never was [sim: submit=400*forever, submit-delay=500ms]');
    await until(() => totals().submits === 1, 'the submit to arrive');
    expect((await bed.reelhaul.cancel(id)).generation.charge).toBe('possible');
    await until(
      async () => (await bed.reelhaul.get(id)).charge === 'none',
      async () => `the charge to be cleared: ${JSON.stringify(await record(id))}`,
    );
  });
});

describe('a poll of an earlier round', () => {
  test('does not decide about the task of a later one', async () => {
    await setUp();
    const { id } = await bed.enqueue('rounds');
    const queued = await record(id);
    await hub.store.transition(queued, 'submitting', {
      live: true,
      set: { submitNonce: 'a' },
      count: ['submitAttempts'],
    });
    await adoptTask(hub, id, 'task-a', { source: 'submit' });
    const whilePolling = await record(id);
    await advance(hub, whilePolling, 'failed', {
      set: { failure: JSON.stringify({ code: 'task_failed', stage: 'poll' }) },
    });
    await bed.reelhaul.retry(id, { allowRebill: true });
    await hub.store.transition(await record(id), 'submitting', {
      live: true,
      set: { submitNonce: 'b' },
      count: ['submitAttempts'],
    });
    await adoptTask(hub, id, 'task-b', { source: 'submit' });
    expect(await advance(hub, whilePolling, 'failed')).toBe(false);
    expect(await bed.reelhaul.get(id)).toMatchObject({
      state: 'generating',
      taskId: 'task-b',
      otherTaskIds: ['task-a'],
    });
  });
});

test('a generation that is still checked late is not forgotten', async () => {
  await setUp({
    environment: {
      ...{
        RETENTION_MS: '1000',
        IDEMPOTENCY_TTL_MS: '1000',
        GENERATION_DEADLINE_MS: '1',
        LATE_CHECK_INTERVAL_MS: '300',
      },
    },
  });
  await bed.work();
  const { id } = await bed.enqueue('late [sim: duration=4s]');
  expect(await bed.reaches(id, 'succeeded')).toMatchObject({ late: true });
});

test('after the late check has ended, a callback still brings the video home', async () => {
  await setUp({
    environment: { GENERATION_DEADLINE_MS: '1', LATE_CHECK_FOR_MS: '0', LATE_CHECK_INTERVAL_MS: '20' },
  });
  await bed.work();
  const { id } = await bed.enqueue('very late [sim: duration=1s]');
  await until(
    async () => (await bed.reelhaul.get(id)).warnings.some(({ code }) => code === 'late_check_ended'),
    'the late check to end',
  );
  await until(() => bed.simulator.ledger().tasks[0]!.status === 'succeeded', 'the task to succeed');
  // While the job of the last poll is there, another one is not added.
  await until(async () => (await hub.queues.missing('poll', [id])).length === 1, 'the last poll to end');
  await hub.queues.hasten('poll', id);
  const generation = await bed.reaches(id, 'succeeded');
  expect(generation.warnings.filter(({ code }) => code === 'late_check_ended')).toHaveLength(1);
});
