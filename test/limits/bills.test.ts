/** Bills over time: other days, other prices, refunds, and tasks that come to light when all seemed settled. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { createHub, type Hub } from '../../src/pipeline/context.js';
import { adoptTask } from '../../src/pipeline/adopt-task.js';
import { serveHttp, stopAll } from '../provider/servers.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
let hub: Hub;

beforeEach(async () => {
  bed = await createTestbed({
    environment: { PRICES: '{"*":0.5}', BUDGET_PER_DAY: '0.5', OVER_BUDGET: 'fail' },
  });
  hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
});
afterEach(async () => {
  await hub.queues.close();
  await bed.close();
  await stopAll();
});

const DAY_MS = 86_400_000;
const record = async (id: string) => (await hub.store.get(id))!;
const tasks = () => bed.simulator.ledger().tasks;
const bills = () => bed.simulator.ledger().totals.bills;
const worksWith = (environment: Record<string, string>) =>
  bed.work({ config: readConfig({ ...bed.environment, ...environment }) });
const calledBack = (id: string, taskId: string) => adoptTask(hub, id, taskId, { source: 'callback' });
/** What a callback or an operator named is charged once the provider showed it. */
const becomes = (charged: number, possible: number, day?: string) =>
  until(
    async () => JSON.stringify(await spent(day)) === JSON.stringify({ charged, possible }),
    async () => `${charged} charged, ${possible} possible; it is ${JSON.stringify(await spent(day))}`,
  );
const spent = async (day?: string) => {
  const { charged, possible } = await bed.reelhaul.spend(day === undefined ? {} : { day });
  return { charged, possible };
};

/** As if the submit had left the day before: what was spent since then stands on that day. @returns that day. */
async function midnightPasses(id: string): Promise<string> {
  const key = `${bed.prefix}:g:${id}`;
  const submits = JSON.parse((await bed.redis.hget(key, 'submits')) ?? '[]') as { at: number }[];
  const day = Math.floor(submits[0]!.at / DAY_MS);
  await bed.redis.rename(`${bed.prefix}:spend:${day}`, `${bed.prefix}:spend:${day - 1}`);
  const earlier = submits.map((submit) => ({ ...submit, at: submit.at - DAY_MS }));
  await bed.redis.hset(key, 'submits', JSON.stringify(earlier));
  return new Date((day - 1) * DAY_MS).toISOString().slice(0, 10);
}

/** Does the budget of today have room for one more? */
async function hasRoom(): Promise<boolean> {
  const { id } = await bed.enqueue('one more');
  return (await bed.reelhaul.waitFor(id)).failure?.code !== 'budget_exceeded';
}

describe('a submit that left before midnight', () => {
  test.each([
    ['accepted', 'submit-delay=1500ms', 'succeeded', 0.5],
    ['surely not accepted', 'submit=rejected, submit-delay=1500ms', 'failed', 0],
  ] as const)('and is %s after it counts for the day on which it left', async (_, script, end, charged) => {
    await bed.work();
    const { id } = await bed.enqueue(`late [sim: ${script}]`);
    await bed.reaches(id, 'submitting');
    const yesterday = await midnightPasses(id);
    expect((await bed.reelhaul.waitFor(id)).state).toBe(end);
    expect(await spent(yesterday)).toEqual({ charged, possible: 0 });
    expect(await spent()).toEqual({ charged: 0, possible: 0 });
    expect(await hasRoom()).toBe(true);
  });

  test('and is refunded after it is given back to the day on which it left', async () => {
    await bed.work();
    const { id } = await bed.enqueue('refunded [sim: result=failed, shape=O, duration=2s]');
    await bed.reaches(id, 'generating');
    const yesterday = await midnightPasses(id);
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'failed', charge: 'refunded' });
    expect(await spent(yesterday)).toEqual({ charged: 0, possible: 0 });
    expect(await spent()).toEqual({ charged: 0, possible: 0 });
  });

  test('and stays unconfirmed, is submitted again, and is found: each bill on the day of its own submit', async () => {
    await bed.work();
    const { id } = await bed.enqueue('found late [sim: submit=502-after]');
    await bed.reaches(id, 'unconfirmed');
    const yesterday = await midnightPasses(id);
    expect(await spent(yesterday)).toEqual({ charged: 0, possible: 0.5 });
    await bed.reelhaul.decide(id, { resubmit: true });
    expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
    expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
    expect(await calledBack(id, tasks()[0]!.taskId)).toBe('second');
    await becomes(0.5, 0, yesterday);
    expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
    expect(bills()).toBe(2);
  });
});

describe('a refund', () => {
  test.each([
    ['makes room in the budget', 'O', true],
    ['that nobody confirmed makes none', 'W', false],
  ])('%s', async (_, shape, room) => {
    await bed.work();
    const { id } = await bed.enqueue(`failed [sim: result=failed, shape=${shape}]`);
    expect((await bed.reelhaul.waitFor(id)).state).toBe('failed');
    expect(await hasRoom()).toBe(room);
  });
});

describe('the price', () => {
  test('is that of the worker that submits, and stays what was reserved, whatever others have in their tables', async () => {
    const worker = await worksWith({ BUDGET_PER_DAY: '', PRICES: '{"*":2}' });
    const { id } = await bed.enqueue('reserved [sim: submit=502-after, duration=1h]');
    await bed.reaches(id, 'unconfirmed');
    await worker.close();
    const later = await bed.enqueue('queued at the old price');
    await worksWith({ BUDGET_PER_DAY: '' });
    await bed.reelhaul.waitFor(later.id);
    expect(await spent()).toEqual({ charged: 0.5, possible: 2 });
    await bed.reelhaul.decide(id, { adopt: tasks()[0]!.taskId });
    await becomes(2.5, 0);
  });
});

/** A provider that accepts everything, and then says of each task what is next in `said`, the last again and again. */
async function provider(...said: Record<string, unknown>[]): Promise<Record<string, string>> {
  let submits = 0;
  const reply = (response: ServerResponse, body: unknown) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  const read = async (request: IncomingMessage) => {
    let text = '';
    for await (const piece of request) text += String(piece);
    return JSON.parse(text) as Record<string, unknown>;
  };
  const url = await serveHttp((request, response) => {
    void read(request).then(({ task_id }) => {
      if (request.url?.endsWith('/generate'))
        reply(response, { code: 200, data: { task_id: `task-${++submits}` } });
      else reply(response, { code: 200, data: { task_id, ...(said.length > 1 ? said.shift() : said[0]) } });
    });
  });
  return { COMETAPI_BASE_URL: url };
}

test('a second task of a failed one that cost nothing is charged all the same', async () => {
  await worksWith(await provider({ status: '2', point: '0', refund: '0' }, { status: '1' }));
  const { id } = await bed.enqueue('cost nothing');
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'failed', charge: 'none' });
  expect(await spent()).toEqual({ charged: 0, possible: 0 });
  expect(await calledBack(id, 'another')).toBe('second');
  await becomes(0.5, 0);
});

test.each([
  ['silently', {}],
  ['with a refund', { refund: '5' }],
  ['for nothing', { point: '0' }],
])('a task that failed %s and succeeded after all is charged', async (_, billing) => {
  await worksWith(
    await provider(
      { status: '2', ...billing },
      { status: '3', video_url: 'https://example.com/v.mp4', point: '5', refund: '0' },
    ),
  );
  const { id } = await bed.enqueue('not failed after all');
  expect((await bed.reelhaul.waitFor(id)).state).toBe('failed');
  await bed.reelhaul.retry(id);
  const archiving = await until(async () => {
    const now = await bed.reelhaul.get(id);
    return now.progress === 100 && now;
  }, 'the success');
  expect(await spent()).toEqual({ charged: 0.5, possible: 0 });
  expect(archiving.charge).toBe('charged');
});

test('each of several unconfirmed submits is charged once when its task is found', async () => {
  await worksWith({ BUDGET_PER_DAY: '' });
  const { id } = await bed.enqueue('found late [sim: submit=502-after*2, duration=1h]');
  for (const submits of [1, 2]) {
    await until(
      async () =>
        (await record(id)).state === 'unconfirmed' && (await record(id)).attempts.submit === submits,
      'unconfirmed',
    );
    await bed.reelhaul.decide(id, { resubmit: true });
  }
  await bed.reaches(id, 'generating');
  expect(await spent()).toEqual({ charged: 0.5, possible: 1 });
  await calledBack(id, tasks()[0]!.taskId);
  await becomes(1, 0.5);
  await calledBack(id, tasks()[1]!.taskId);
  await becomes(1.5, 0);
  expect(bills()).toBe(3);
});

test('a second task takes nothing from what is still doubtful of one that failed before', async () => {
  await worksWith({ BUDGET_PER_DAY: '' });
  const { id } = await bed.enqueue('failed once [sim: result=failed:INTERNAL, shape=W]');
  await bed.reelhaul.waitFor(id);
  await bed.reelhaul.retry(id, { allowRebill: true });
  await until(async () => {
    const { state, attempts } = await record(id);
    return state === 'failed' && attempts.submit === 2;
  }, 'the second to fail');
  await calledBack(id, 'another');
  expect(await spent()).toEqual({ charged: 0, possible: 1 });
});
