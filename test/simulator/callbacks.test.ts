import http from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { startSimulator, type Ledger, type Simulator } from '../../src/simulator/simulator.js';
import { submit } from './visitor.js';

interface Received {
  readonly path: string;
  readonly text: string;
}

let simulator: Simulator;
let receiver: http.Server;
let received: Received[];
let callbackUrl: string;

beforeEach(async () => {
  simulator = await startSimulator();
  received = [];
  receiver = http.createServer((request, response) => {
    const pieces: Buffer[] = [];
    request.on('data', (piece: Buffer) => pieces.push(piece));
    request.on('end', () => {
      received.push({ path: request.url ?? '', text: Buffer.concat(pieces).toString('utf8') });
      response.writeHead(204).end();
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as AddressInfo;
  callbackUrl = `http://127.0.0.1:${port}/callbacks/runway/0195-gen/s3cret`;
});

afterEach(async () => {
  await simulator.close();
  receiver.closeAllConnections();
  await new Promise((resolve) => {
    receiver.close(resolve);
  });
});

/** Waits until so many callbacks are done with. */
function done(count: number): Promise<Ledger> {
  return simulator.waitUntil((ledger) => {
    const callbacks = ledger.tasks.flatMap((task) => task.callbacks);
    return callbacks.filter(({ doneAt }) => doneAt !== null).length >= count && ledger;
  });
}

const bodies = (): Record<string, unknown>[] =>
  received.map(({ text }) => JSON.parse(text) as Record<string, unknown>);

test('the end of a task is posted as the old form, bare', async () => {
  await submit(simulator, 'a fox [sim: duration=50ms]', { callbackUrl });
  const { tasks } = await done(1);
  expect(received[0]?.path).toBe('/callbacks/runway/0195-gen/s3cret');
  expect(bodies()).toEqual([
    {
      task_id: tasks[0]?.taskId,
      status: '3',
      prompt: 'a fox [sim: duration=50ms]',
      prompt_en: 'a fox [sim: duration=50ms]',
      video_url: expect.stringContaining('/video.mp4'),
      poster: expect.stringContaining('/poster.jpg'),
      last_frame: expect.stringContaining('/last-frame.jpg'),
      msg: null,
      point: '320',
      refund: '0',
      create_time: expect.any(String),
      update_time: expect.any(String),
    },
  ]);
  expect(tasks[0]).toMatchObject({
    generationId: '0195-gen',
    callbacks: [{ kind: 'final', status: '3', httpStatus: 204, error: null }],
  });
});

test('a failure is posted with its code', async () => {
  await submit(simulator, 'a fox [sim: duration=0, result=failed:INTERNAL]', { callbackUrl });
  await done(1);
  expect(bodies()).toMatchObject([{ status: '2', failureCode: 'INTERNAL', refund: '320', video_url: '' }]);
});

test.each([
  ['double', ['3', '3']],
  ['out-of-order', ['3', '1']],
  ['every', ['0', '1', '3']],
  ['every+double', ['0', '0', '1', '1', '3', '3']],
])('callback=%s posts %j', async (mode, statuses) => {
  await submit(simulator, `a fox [sim: duration=500ms, callback=${mode}]`, { callbackUrl });
  await done(statuses.length);
  const posted = bodies().map(({ status }) => String(status));
  // Two copies leave at once: the second one may arrive behind the next status.
  expect(mode === 'every+double' ? posted.toSorted((a, b) => a.localeCompare(b)) : posted).toEqual(statuses);
});

test('a lost callback is never posted', async () => {
  await submit(simulator, 'a fox [sim: duration=0, callback=lost]', { callbackUrl });
  await submit(simulator, 'an owl [sim: duration=50ms]', { callbackUrl });
  await done(1);
  expect(bodies()).toMatchObject([{ prompt: 'an owl [sim: duration=50ms]' }]);
});

test('a wrong token goes to the right address', async () => {
  await submit(simulator, 'a fox [sim: duration=0, callback=wrong-token]', { callbackUrl });
  await done(1);
  expect(received[0]?.path).toBe('/callbacks/runway/0195-gen/wrong-token');
});

test('garbage is no JSON', async () => {
  await submit(simulator, 'a fox [sim: duration=0, callback=garbage]', { callbackUrl });
  const { tasks } = await done(1);
  expect(received.map(({ text }) => text)).toEqual(['{"task_id": "']);
  expect(tasks[0]?.callbacks).toMatchObject([{ kind: 'garbage', status: null }]);
});

test('an early callback arrives before the answer of the submit', async () => {
  await submit(simulator, 'a fox [sim: duration=1h, callback=early]', { callbackUrl });
  expect(bodies()).toMatchObject([{ status: '1', task_id: simulator.ledger().tasks[0]?.taskId }]);
  expect(simulator.ledger().tasks[0]?.callbacks).toMatchObject([{ kind: 'early', httpStatus: 204 }]);
});

test('a lost answer leaves the callback as the only way to learn the task id', async () => {
  expect(
    (await submit(simulator, 'a fox [sim: submit=reset-after, duration=0]', { callbackUrl })).status,
  ).toBeNull();
  await done(1);
  expect(bodies()[0]?.task_id).toBe(simulator.ledger().submits[0]?.taskIds[0]);
});

test('a doubled submit posts two task ids for one generation', async () => {
  await submit(simulator, 'a fox [sim: submit=double, duration=0]', { callbackUrl });
  await done(2);
  expect(new Set(bodies().map((body) => body.task_id)).size).toBe(2);
  expect(simulator.ledger().totals).toMatchObject({
    maxBillsPerGeneration: 2,
    maxBilledSubmitsPerGeneration: 1,
  });
});

test('a callback can be late', async () => {
  await submit(simulator, 'a fox [sim: duration=0, callback-delay=120ms]', { callbackUrl });
  const { tasks } = await done(1);
  const [callback] = tasks[0]?.callbacks ?? [];
  expect((callback?.at ?? 0) - (tasks[0]?.finishesAt ?? 0)).toBeGreaterThanOrEqual(115);
});

test('a placeholder URL is never called', async () => {
  await submit(simulator, 'a fox [sim: duration=0]', { callbackUrl: 'https://example.com/webhook' });
  const { tasks } = await done(1);
  expect(tasks[0]?.callbacks).toMatchObject([
    { httpStatus: null, error: 'not posted: this host is not allowed' },
  ]);
});

test('a receiver that is not there is entered as an error', async () => {
  // Port 1 is never listened on.
  const nobody = 'http://127.0.0.1:1/callbacks/runway/g/t';
  await submit(simulator, 'a fox [sim: duration=0]', { callbackUrl: nobody });
  const { tasks } = await done(1);
  expect(tasks[0]?.callbacks[0]?.error).toContain('ECONNREFUSED');
});

test('a reset forgets callbacks that are planned', async () => {
  await submit(simulator, 'a fox [sim: duration=600ms]', { callbackUrl });
  simulator.reset();
  await submit(simulator, 'an owl [sim: duration=650ms]', { callbackUrl });
  await done(1);
  expect(bodies()).toMatchObject([{ prompt: 'an owl [sim: duration=650ms]' }]);
});
