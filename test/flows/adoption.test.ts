/** A task that an operator or a callback names: it counts once the provider showed it, and a wrong one can be corrected. */
import { afterEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { fail } from '../../src/pipeline/advance.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

async function setUp(environment: Record<string, string> = {}, works = true): Promise<void> {
  bed = await createTestbed({
    environment: { PRICES: '{"*":0.5}', NOT_VISIBLE_GRACE_MS: '0', UNCONFIRMED_WAIT_MS: '0', ...environment },
  });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  if (works) await bed.work();
}

const spent = async () => {
  const { charged, possible } = await bed.reelhaul.spend();
  return { charged, possible };
};
const taskOf = (id: string) =>
  bed.simulator.ledger().submits.find(({ prompt }) => prompt?.startsWith(`${id} `))!.taskIds[0]!;
/** Unconfirmed, and its task exists at the provider. */
async function unclear(name: string, script = 'submit=502-after'): Promise<string> {
  const { id } = await bed.enqueue(`${name} [sim: ${script}, callback=lost]`);
  await bed.reaches(id, 'unconfirmed');
  return id;
}

test('a made-up task of a rejected order costs nothing, and ends in a failure that says so', async () => {
  await setUp();
  const { id } = await bed.enqueue('rejected [sim: submit=rejected]');
  await bed.reaches(id, 'failed');
  await bed.reelhaul.decide(id, { adopt: 'made-up' });
  expect(await spent()).toEqual({ charged: 0, possible: 0 });
  const failed = await until(async () => {
    const now = await bed.reelhaul.get(id);
    return now.failure?.code === 'submission_unconfirmed' && now;
  }, 'the adoption to be withdrawn');
  expect(failed).toMatchObject({ state: 'failed', taskId: null, otherTaskIds: [], charge: 'none' });
  expect(await bed.redis.hexists(`${bed.prefix}:tasks`, 'made-up')).toBe(0);
});

test('a task that the provider does not know leaves it unconfirmed, and the right one can be adopted', async () => {
  await setUp();
  const id = await unclear('typo');
  await bed.reelhaul.decide(id, { adopt: 'typo' });
  await until(async () => (await bed.reelhaul.get(id)).taskId === null, 'the adoption to be withdrawn');
  expect(await bed.reaches(id, 'unconfirmed')).toMatchObject({ charge: 'possible' });
  await bed.reelhaul.decide(id, { adopt: taskOf('typo') });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
  expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
});

test('a task that shows another request is withdrawn, and its own generation can adopt it', async () => {
  await setUp();
  const [mine, theirs] = [
    await unclear('mine', 'submit=502-after, shape=O'),
    await unclear('theirs', 'submit=502-after, shape=O'),
  ];
  const task = taskOf('theirs');
  await bed.reelhaul.decide(mine, { adopt: task });
  await until(async () => (await bed.reelhaul.get(mine)).taskId === null, 'the adoption to be withdrawn');
  expect(await bed.reaches(mine, 'unconfirmed')).toMatchObject({ assets: null, charge: 'possible' });
  await bed.reelhaul.decide(theirs, { adopt: task });
  expect(await bed.reelhaul.waitFor(theirs)).toMatchObject({ state: 'succeeded', taskId: task });
});

test('another decision corrects a wrong one before the provider has shown anything', async () => {
  await setUp({ NOT_VISIBLE_GRACE_MS: '600000' });
  const id = await unclear('hasty');
  expect(await bed.reelhaul.decide(id, { adopt: 'wrong' })).toMatchObject({
    charge: 'possible',
    taskId: 'wrong',
  });
  await bed.reelhaul.decide(id, { adopt: taskOf('hasty') });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', otherTaskIds: [] });
  expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
});

test('the task of another generation is refused, whichever state both are in', async () => {
  await setUp();
  const { id: owner } = await bed.enqueue('owner');
  const { taskId } = await bed.reaches(owner, 'succeeded');
  const id = await unclear('thief');
  await expect(bed.reelhaul.decide(id, { adopt: taskId! })).rejects.toMatchObject({ code: 'state_conflict' });
  expect(await adoptTask(hub, id, taskId!, { source: 'callback' })).toBe('refused');
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'unconfirmed', taskId: null });
});

test('a forged callback is charged for nothing, and forgotten; one of a task that exists is charged', async () => {
  await setUp();
  const { id } = await bed.enqueue('doubled [sim: submit=double, callback=lost]');
  await bed.reaches(id, 'succeeded');
  for (let i = 0; i < 20; i++) await adoptTask(hub, id, `forged-${i}`, { source: 'callback' });
  expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
  await until(async () => (await bed.reelhaul.get(id)).otherTaskIds.length === 0, 'them to be forgotten');
  expect(await bed.redis.hlen(`${bed.prefix}:tasks`)).toBe(1);
  await adoptTask(hub, id, taskOf('doubled'), { source: 'callback' });
  await until(async () => (await spent()).charged === 1, 'the second task to be charged');
  await until(async () => (await bed.redis.zcard(`${bed.prefix}:live`)) === 0, 'nothing to be due');
});

test('a callback of a task that does not exist revives nothing, and the task of a later one is followed', async () => {
  await setUp();
  const id = await unclear('forged at');
  await adoptTask(hub, id, 'forged', { source: 'callback' });
  await until(async () => (await bed.reelhaul.get(id)).taskId === null, 'it to be withdrawn');
  await adoptTask(hub, id, taskOf('forged at'), { source: 'callback' });
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
});

/** The generation went on with its second task; the first, whose answer was lost, is named while it is `archiving`. */
async function namedWhileArchiving(script: string): Promise<string> {
  const workers = await bed.work({ stages: ['submit', 'poll'] });
  const { id } = await bed.enqueue(`resubmitted [sim: submit=502-after, callback=lost, ${script}]`);
  await bed.reaches(id, 'unconfirmed');
  await bed.reelhaul.decide(id, { resubmit: true });
  await bed.reaches(id, 'archiving');
  await workers.close();
  expect(await adoptTask(hub, id, taskOf('resubmitted'), { source: 'callback' })).toBe('second');
  // A crash between the change and its job.
  await hub.queues.forget('poll', id);
  return id;
}

const isSettled = (id: string) => async () =>
  (await bed.redis.zscore(`${bed.prefix}:live`, id)) === null && (await bed.reelhaul.get(id));

test.each([
  ['succeeds', '', 'succeeded'],
  ['fails', 'video=404*forever', 'failed'],
  ['is canceled', '', 'canceled'],
] as const)(
  'a task of an earlier submit is charged although the generation %s with another one',
  async (_how, script, state) => {
    await setUp({ UNCONFIRMED_WAIT_MS: '600000', ARCHIVE_ATTEMPTS: '2' }, false);
    const id = await namedWhileArchiving(script === '' ? 'poster=ok' : script);
    if (state === 'canceled') await bed.reelhaul.cancel(id);
    else {
      const archiving = await bed.work({ stages: ['archive'] });
      await bed.reaches(id, state);
      await archiving.close();
    }
    await bed.work();
    await until(async () => (await spent()).possible === 0, 'both tasks to be known');
    expect(await spent()).toEqual({ charged: 1, possible: 0 });
    await until(isSettled(id), 'nothing to be due');
  },
);

test('a named task that the provider never showed is asked for although another submit was allowed, and canceled', async () => {
  await setUp({ UNCONFIRMED_WAIT_MS: '600000' }, false);
  const submitting = await bed.work({ stages: ['submit'] });
  const { id } = await bed.enqueue('given up [sim: submit=502-after*forever, callback=lost]');
  await bed.reaches(id, 'unconfirmed');
  await submitting.close();
  await bed.reelhaul.decide(id, { adopt: taskOf('given up') });
  const generating = (await hub.store.get(id))!;
  const failure = { code: 'task_failed', message: 'said so', stage: 'poll', retryable: true } as const;
  await fail(hub, generating, failure);
  await hub.queues.forget('poll', id);
  await bed.reelhaul.retry(id, { allowRebill: true });
  await bed.reelhaul.cancel(id);
  await bed.work();
  await until(async () => (await spent()).charged === 0.5, 'the task to be charged');
  const canceled = await until(isSettled(id), 'nothing to be due');
  expect(canceled).toMatchObject({ state: 'canceled', taskId: null, otherTaskIds: [taskOf('given up')] });
});

test('while a named task is not visible yet it is asked for, also after the late check of the other has ended', async () => {
  await setUp({
    NOT_VISIBLE_GRACE_MS: '600000',
    GENERATION_DEADLINE_MS: '1',
    LATE_CHECK_FOR_MS: '0',
    LATE_CHECK_INTERVAL_MS: '20',
  });
  const { id } = await bed.enqueue('late [sim: submit=double, duration=1h, callback=lost, visible-after=1s]');
  await bed.reaches(id, 'expired');
  await adoptTask(hub, id, taskOf('late'), { source: 'callback' });
  await until(
    async () => (await bed.reelhaul.get(id)).warnings.some(({ code }) => code === 'late_check_ended'),
    'the late check to end',
  );
  await hub.queues.forget('poll', id);
  await until(async () => (await spent()).charged === 1, 'the second task to be charged');
  await until(isSettled(id), 'nothing to be due');
});

test('a task that was named, and is not known after the deadline, is withdrawn', async () => {
  await setUp({ NOT_VISIBLE_GRACE_MS: '400', GENERATION_DEADLINE_MS: '1', LATE_CHECK_INTERVAL_MS: '20' });
  const id = await unclear('never shown');
  await bed.reelhaul.decide(id, { adopt: 'never-shown' });
  const failed = await bed.reaches(id, 'failed');
  expect(failed).toMatchObject({
    taskId: null,
    charge: 'possible',
    failure: { code: 'submission_unconfirmed' },
  });
  await until(isSettled(id), 'nothing to be due');
});

test.each(['canceled', 'expired'] as const)(
  'a task that was named for one that is %s is asked for until the provider answers',
  async (state) => {
    await setUp({ GENERATION_DEADLINE_MS: '1', LATE_CHECK_FOR_MS: '0', LATE_CHECK_INTERVAL_MS: '20' });
    const id = await unclear('away');
    await bed.simulator.startOutage({ mode: '503', durationMs: 600_000 });
    if (state === 'canceled') {
      await bed.reelhaul.cancel(id);
      await adoptTask(hub, id, taskOf('away'), { source: 'callback' });
    } else {
      await bed.reelhaul.decide(id, { adopt: taskOf('away') });
      await bed.reaches(id, 'expired');
    }
    const { attempts } = await bed.reelhaul.get(id);
    const polled = async () => (await bed.reelhaul.get(id)).attempts.poll > attempts.poll + 2;
    await until(polled, 'polls while the provider is away');
    expect(await spent()).toEqual({ charged: 0, possible: 0.5 });
    await bed.simulator.endOutage();
    await until(async () => (await spent()).charged === 0.5, 'the task to be charged');
    await until(isSettled(id), 'nothing to be due');
  },
);
