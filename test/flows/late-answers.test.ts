/**
 * The answer to a POST that comes while a later POST of the same generation is under way: a worker that froze was taken
 * for dead, its submit was called unconfirmed, and an operator had it submitted again. Each POST has its own task and bill.
 */
import { afterAll, expect, test } from '@jest/globals';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const beds: Testbed[] = [];
afterAll(() => Promise.all(beds.map((bed) => bed.close())));

/** Two POSTs are out at once, the first of them by a worker that lost its lock. */
async function twice(script: string) {
  const bed = await createTestbed({
    environment: {
      JOB_LOCK_MS: '3000',
      PRICES: '{"*":0.5}',
      MAX_IN_FLIGHT: '9',
      UNCONFIRMED_WAIT_MS: '120000',
    },
  });
  beds.push(bed);
  const ledger = () => bed.simulator.ledger();
  await Promise.all([bed.work(), bed.work()]);
  const { id } = await bed.enqueue(`twice [sim: duration=100ms, submit-delay=5s, ${script}]`);
  await until(() => ledger().totals.submits === 1, 'the first POST');
  await bed.redis.del(`${bed.prefix}:submit:${id}:lock`);
  await bed.reaches(id, 'unconfirmed');
  await bed.reelhaul.decide(id, { resubmit: true });
  await until(() => ledger().totals.submits === 2, 'the second POST');
  return {
    ledger,
    ended: () => bed.reelhaul.waitFor(id),
    spend: () => bed.reelhaul.spend(),
    noSlots: () =>
      until(async () => (await bed.redis.zcard(`${bed.prefix}:in-flight`)) === 0, 'the slots to be free'),
    submits: async () =>
      JSON.parse((await bed.redis.hget(`${bed.prefix}:g:${id}`, 'submits')) ?? '[]') as {
        readonly bill: string;
        readonly taskId?: string;
      }[],
  };
}

test.concurrent('each names its own task: two tasks, two bills, the second is followed', async () => {
  const { ledger, ended, spend, submits } = await twice('submit=ok');
  await until(async () => (await submits()).every(({ taskId }) => taskId), 'both answers');
  const [first, second] = ledger().submits.map(({ taskIds }) => taskIds[0]);
  expect(await ended()).toMatchObject({ state: 'succeeded', taskId: second, otherTaskIds: [first] });
  expect((await submits()).map(({ bill, taskId }) => [bill, taskId])).toEqual([
    ['charged', first],
    ['charged', second],
  ]);
  expect(await spend()).toMatchObject({ charged: 1, possible: 0 });
});

test.concurrent(
  'the second surely was not accepted: the first task is followed, one bill, one slot',
  async () => {
    const { ledger, ended, spend, noSlots } = await twice('submit=ok>429');
    const [first] = ledger().submits[0]!.taskIds;
    expect(await ended()).toMatchObject({ state: 'succeeded', taskId: first, otherTaskIds: [] });
    await noSlots();
    expect(await spend()).toMatchObject({ charged: 0.5, possible: 0 });
    expect(ledger().totals).toMatchObject({ submits: 2, bills: 1 });
  },
);

test.concurrent('the first surely was not accepted: nothing of it stays in doubt', async () => {
  const { ended, spend, noSlots } = await twice('submit=429>ok');
  expect(await ended()).toMatchObject({ state: 'succeeded', otherTaskIds: [] });
  await noSlots();
  expect(await spend()).toMatchObject({ charged: 0.5, possible: 0 });
});

test.concurrent(
  'the answer to the second is lost: the first task is followed, the second stays in doubt',
  async () => {
    const { ended, spend, submits } = await twice('submit=ok>502');
    expect((await ended()).state).toBe('succeeded');
    expect((await submits()).map(({ bill }) => bill)).toEqual(['charged', 'possible']);
    expect(await spend()).toMatchObject({ charged: 0.5, possible: 0.5 });
  },
);
