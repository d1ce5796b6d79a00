/** A task that an operator or a callback names: it counts once the provider showed it, and a wrong one can be corrected. */
import { afterEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
});

async function setUp(environment: Record<string, string> = {}): Promise<void> {
  bed = await createTestbed({
    environment: { PRICES: '{"*":0.5}', NOT_VISIBLE_GRACE_MS: '0', UNCONFIRMED_WAIT_MS: '0', ...environment },
  });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  await bed.work();
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
