/** Every end is told at least once under one id, and nothing that goes wrong with it touches the generation. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { until } from '../support/until.js';

let bed: Testbed;
let receiver: Receiver;

async function setUp(environment: Record<string, string> = {}): Promise<void> {
  bed = await createTestbed({
    environment: {
      NOTIFY_SECRET: SECRET,
      NOTIFY_ALLOW_HOSTS: '127.0.0.1',
      NOTIFY_BACKOFF_MS: '20',
      ...environment,
    },
  });
}
beforeEach(async () => {
  receiver = await startReceiver();
});
afterEach(async () => {
  await bed.close();
  await receiver.close();
});

const types = () => receiver.received.map(({ body }) => body.type);
const ids = () => new Set(receiver.received.map(({ id }) => id));
const comes = (type: string) =>
  until(
    () => receiver.received.find(({ body }) => body.type === type),
    `${type} to come; got ${types().join()}`,
  );
const settled = (id: string) =>
  until(
    async () => (await bed.reelhaul.notifications(id)).every(({ dead }) => dead),
    'all notifications to be delivered or dead',
  );
const dead = (id: string) =>
  until(async () => (await bed.reelhaul.notifications(id)).find((n) => n.dead), 'a dead notification');

describe('an end is told', () => {
  test('signed, with the generation as it is at every door', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('told', { notifyUrl: receiver.url, metadata: { order: 7 } });
    const { body, headers } = await comes('generation.succeeded');
    await settled(id);
    const generation = await bed.reelhaul.get(id);
    expect(generation.attempts.notify).toBe(1);
    expect(body.data).toEqual({ ...generation, attempts: { ...generation.attempts, notify: 0 } });
    expect(Date.parse(body.timestamp)).toBe(generation.finishedAt);
    expect(headers['content-type']).toBe('application/json');
    expect(receiver.received).toHaveLength(1);
  });

  test('also when it failed, and when it was canceled', async () => {
    await setUp();
    await bed.work();
    await bed.enqueue('bad [sim: submit=rejected*forever]', { notifyUrl: receiver.url });
    expect((await comes('generation.failed')).body.data.failure?.code).toBe('request_rejected');
    const { id } = await bed.enqueue('later', { notifyUrl: receiver.url, delayMs: 3_600_000 });
    await bed.reelhaul.cancel(id);
    expect((await comes('generation.canceled')).body.data.id).toBe(id);
  });

  test('a late success after expired is told once more, exactly once, and expired says what was then', async () => {
    await setUp({ GENERATION_DEADLINE_MS: '60', LATE_CHECK_INTERVAL_MS: '30' });
    await bed.work();
    const { id } = await bed.enqueue('late [sim: duration=600ms]', { notifyUrl: receiver.url });
    expect((await comes('generation.expired')).body.data).toMatchObject({ id, state: 'expired' });
    expect((await comes('generation.succeeded')).body.data).toMatchObject({ state: 'succeeded', late: true });
    await settled(id);
    expect(types()).toEqual(['generation.expired', 'generation.succeeded']);
    expect(ids().size).toBe(2);
  });

  test('two failures of one generation are two notifications', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('twice bad [sim: submit=rejected*forever]', { notifyUrl: receiver.url });
    await comes('generation.failed');
    await bed.reelhaul.retry(id);
    await until(() => ids().size === 2, 'a second notification');
    await settled(id);
    expect(types()).toEqual(['generation.failed', 'generation.failed']);
  });

  test('nothing is owed for a generation without notifyUrl', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('silent');
    await bed.reelhaul.waitFor(id);
    expect(await bed.reelhaul.notifications(id)).toEqual([]);
    expect(await bed.redis.exists(`${bed.prefix}:notifications-owed`)).toBe(0);
  });

  test('progress is told when asked for; what was overtaken is left out, and the end comes once', async () => {
    await setUp();
    await bed.work();
    const { id } = await bed.enqueue('steps [sim: duration=600ms]', {
      notifyUrl: receiver.url,
      notifyOn: 'progress',
    });
    await comes('generation.succeeded');
    await settled(id);
    expect(types()).toContain('generation.progress');
    expect(types().filter((type) => type === 'generation.succeeded')).toHaveLength(1);
    expect(types().at(-1)).toBe('generation.succeeded');
  });
});

describe('a receiver that does not take it', () => {
  test('is tried again under the same id, and the generation stays as it is', async () => {
    await setUp();
    receiver.answer({ status: 500 }, { status: 429, headers: { 'retry-after': '0' } }, { status: 404 });
    await bed.work();
    const { id } = await bed.enqueue('stubborn', { notifyUrl: receiver.url });
    const finished = await bed.reelhaul.waitFor(id);
    await until(() => receiver.received.length === 4, 'four tries');
    await settled(id);
    expect(ids().size).toBe(1);
    const { attempts, ...rest } = await bed.reelhaul.get(id);
    expect(attempts.notify).toBe(4);
    const { attempts: _, ...before } = finished;
    expect(rest).toEqual(before);
  });

  test('after the last try it is dead: listed, counted, and sent again under its old id when redriven', async () => {
    await setUp({ NOTIFY_ATTEMPTS: '2' });
    receiver.answer({ status: 500 }, { status: 500 });
    await bed.work();
    const { id } = await bed.enqueue('dead', { notifyUrl: receiver.url });
    const given = await dead(id);
    expect(given).toMatchObject({ type: 'generation.succeeded', attempts: 2, nextAttemptAt: null });
    expect(given.lastError).toContain('500');
    expect(await bed.reelhaul.deadNotifications()).toEqual({
      notifications: [given],
      generations: 1,
      cursor: null,
    });
    expect((await bed.reelhaul.get(id)).state).toBe('succeeded');
    expect(await bed.reelhaul.retryNotification(id)).toBe(1);
    await until(() => receiver.received.length === 3, 'the redriven one');
    await settled(id);
    expect(ids().size).toBe(1);
    expect((await bed.reelhaul.deadNotifications()).generations).toBe(0);
    expect(await bed.reelhaul.retryNotification(id)).toBe(0);
  });

  test('that says 410 Gone is not tried again', async () => {
    await setUp();
    receiver.answer({ status: 410 });
    await bed.work();
    const { id } = await bed.enqueue('gone', { notifyUrl: receiver.url });
    expect(await dead(id)).toMatchObject({ attempts: 1 });
    expect(receiver.received).toHaveLength(1);
  });

  test('that redirects is not followed', async () => {
    await setUp({ NOTIFY_ATTEMPTS: '1' });
    const other = await startReceiver();
    receiver.answer({ status: 307, headers: { location: other.url } });
    await bed.work();
    const { id } = await bed.enqueue('elsewhere', { notifyUrl: receiver.url });
    expect((await dead(id)).lastError).toContain('redirects are not followed');
    expect(other.received).toEqual([]);
    await other.close();
  });

  test('that says nothing costs one time-out', async () => {
    await setUp({ NOTIFY_ATTEMPTS: '1', NOTIFY_TIMEOUT_MS: '100' });
    const { createServer } = await import('node:net');
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    await bed.work();
    const { port } = silent.address() as { port: number };
    const { id } = await bed.enqueue('silence', { notifyUrl: `http://127.0.0.1:${port}/` });
    expect((await dead(id)).lastError).toContain('no answer within 100 ms');
    silent.close();
  });
});

test.each([
  'http://127.0.0.1:PORT/hook',
  'http://localhost:PORT/hook',
  'http://[::ffff:127.0.0.1]:PORT/hook',
])(
  'the private address %s is not connected to unless allowed, and that is said at once',
  async (template) => {
    await setUp({ NOTIFY_ALLOW_HOSTS: '' });
    await bed.work();
    const notifyUrl = template.replace('PORT', new URL(receiver.url).port);
    const { id } = await bed.enqueue('inside', { notifyUrl });
    const { lastError, attempts } = await dead(id);
    expect(lastError).toContain('NOTIFY_ALLOW_HOSTS');
    expect(attempts).toBe(1);
    expect(receiver.received).toEqual([]);
    expect((await bed.reelhaul.get(id)).state).toBe('succeeded');
  },
);

test('without a secret nothing is sent unsigned; it waits', async () => {
  await setUp({ NOTIFY_SECRET: '' });
  await bed.work();
  const { id } = await bed.enqueue('no secret', { notifyUrl: receiver.url });
  await until(
    async () => (await bed.reelhaul.notifications(id))[0]?.lastError?.includes('NOTIFY_SECRET'),
    'the reason to be kept',
  );
  expect(receiver.received).toEqual([]);
});

test('while a secret is replaced, the old and the new one verify', async () => {
  const fresh = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;
  await setUp({ NOTIFY_SECRET: `${fresh},${SECRET}` });
  await bed.work();
  await bed.enqueue('rotated', { notifyUrl: receiver.url });
  const { headers, body } = await comes('generation.succeeded');
  expect(new Webhook(fresh).verify(JSON.stringify(body), headers as Record<string, string>)).toEqual(body);
});

test('a job lost between the end and its telling is written again by the sweep, and tells once', async () => {
  await setUp();
  const without = await bed.work({ stages: ['submit', 'poll', 'archive'] });
  const { id } = await bed.enqueue('lost job', { notifyUrl: receiver.url });
  await bed.reelhaul.waitFor(id);
  await without.close();
  const keys = await bed.redis.keys(`${bed.prefix.replaceAll(/[{}]/g, '?')}:notify:*`);
  expect(keys.length).toBeGreaterThan(0);
  await bed.redis.unlink(...keys);
  await bed.work();
  await comes('generation.succeeded');
  await settled(id);
  expect(receiver.received).toHaveLength(1);
});

test('two workers that deliver at the same time use one id and settle once', async () => {
  await setUp();
  const { createHub } = await import('../../src/pipeline/context.js');
  const { notify } = await import('../../workers/notify.js');
  const { pino } = await import('pino');
  const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
  const { id } = await bed.enqueue('raced', { notifyUrl: receiver.url, delayMs: 3_600_000 });
  await bed.reelhaul.cancel(id);
  const { signal } = new AbortController();
  await Promise.all([notify(hub, id, signal), notify(hub, id, signal)]);
  expect(ids().size).toBe(1);
  expect((await bed.reelhaul.get(id)).attempts.notify).toBe(1);
  expect(await bed.reelhaul.notifications(id)).toEqual([]);
  await hub.queues.close();
});

test.each([
  ['ftp://example.com/', 'http or https'],
  ['not a url', 'http or https'],
  ['https://me:pw@example.com/', 'without user name'],
])('a notifyUrl such as %s is refused before anything is stored', async (notifyUrl, words) => {
  await setUp();
  await expect(bed.enqueue('x', { notifyUrl })).rejects.toThrow(words);
  expect((await bed.reelhaul.list()).generations).toEqual([]);
});
