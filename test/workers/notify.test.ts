/** Every end is told at least once under one id, and nothing that goes wrong with it touches the generation. */
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import { notifySecrets } from '../../src/outbound/notify-secrets.js';
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
    const { id } = await bed.enqueue('late [sim: duration=3s]', { notifyUrl: receiver.url });
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

describe('receivers of several tenants', () => {
  /** Answers as it is told, and counts. */
  async function peer(onConnection: (socket: Socket) => void) {
    let connections = 0;
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      connections += 1;
      sockets.add(socket);
      socket.on('error', () => {});
      onConnection(socket);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return {
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`,
      connections: () => connections,
      close: () => {
        for (const socket of sockets) socket.destroy();
        server.close();
      },
    };
  }
  const endNow = async (notifyUrl: string, tenant: string) => {
    const { id } = await bed.enqueue('over at once', { notifyUrl, tenant, delayMs: 3_600_000 });
    await bed.reelhaul.cancel(id);
    return id;
  };

  test('each is signed with a secret of its own, which nobody else can derive, and says whose it is', async () => {
    await setUp();
    const acme = await startReceiver(notifySecrets([SECRET], 'ácme')[0]);
    await bed.work();
    await endNow(acme.url, 'ácme');
    await until(() => acme.received.length === 1, 'the notification of the tenant');
    expect(acme.received[0]!.headers['webhook-tenant']).toBe('%C3%A1cme');
    expect(acme.received[0]!.body.data.tenant).toBe('ácme');
    // Sent by another tenant to this receiver: it does not verify.
    const id = await endNow(acme.url, 'mallory');
    const [{ lastError }] = await until(async () => {
      const tried = await bed.reelhaul.notifications(id);
      return tried[0]?.lastError ? (tried as [(typeof tried)[0]]) : null;
    }, 'a try');
    expect(lastError).toContain('400');
    expect(acme.received).toHaveLength(1);
    await acme.close();
  });

  test('a receiver that says nothing delays nobody else', async () => {
    await setUp({ NOTIFY_CONCURRENCY: '4', NOTIFY_TIMEOUT_MS: '30000' });
    const silent = await peer(() => {});
    for (let i = 0; i < 40; i += 1) await endNow(silent.url, 'slow');
    await bed.work();
    await until(() => silent.connections() > 0, 'the slow tenant to be told first');
    const id = await endNow(receiver.url, 'default');
    await comes('generation.canceled');
    await settled(id);
    // Its share of the slots, and no more.
    expect(silent.connections()).toBeLessThanOrEqual(2);
    silent.close();
  });

  test('a host that is away is asked by one at a time, which costs the others no tries', async () => {
    await setUp({ NOTIFY_TIMEOUT_MS: '100', BREAKER_FAILURES: '3', BREAKER_PROBE_MS: '60000' });
    const silent = await peer(() => {});
    const ids: string[] = [];
    for (let i = 0; i < 30; i += 1) ids.push(await endNow(silent.url, 'slow'));
    await bed.work();
    const id = await endNow(receiver.url, 'default');
    await settled(id);
    const waiting = async () => {
      const all = await Promise.all(ids.map((one) => bed.reelhaul.notifications(one)));
      return all.flat().filter(({ attempts }) => attempts === 0).length;
    };
    await until(
      async () => (await bed.redis.zcard(`${bed.prefix}:notify:delayed`)) === ids.length,
      'all to wait',
    );
    expect(await waiting()).toBeGreaterThan(0);
    silent.close();
  });

  test('an answer of 101 is a failed try, and every slot comes free again', async () => {
    await setUp({ NOTIFY_CONCURRENCY: '2', NOTIFY_ATTEMPTS: '1', BREAKER_FAILURES: '1000' });
    const switching = await peer((socket) =>
      socket.once('data', () =>
        socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n'),
      ),
    );
    const ids: string[] = [];
    for (let i = 0; i < 6; i += 1) ids.push(await endNow(switching.url, 'trap'));
    const workers = await bed.work();
    for (const id of ids) await dead(id);
    await endNow(receiver.url, 'default');
    await comes('generation.canceled');
    await workers.close();
    switching.close();
  });

  test('a failure says nothing of addresses and ports; the log does', async () => {
    await setUp({ NOTIFY_ALLOW_HOSTS: '127.0.0.1', NOTIFY_ATTEMPTS: '1' });
    const resetting = await peer((socket) => socket.destroy());
    const closed = await peer(() => {});
    closed.close();
    const lines: string[] = [];
    const { pino } = await import('pino');
    await bed.work({ log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }) });
    const errors: (string | null)[] = [];
    for (const url of [resetting.url, closed.url, 'http://no-such-host.invalid/'])
      errors.push((await dead(await endNow(url, 'scanner'))).lastError);
    expect(new Set(errors).size).toBe(1);
    const inside = await dead(await endNow('http://10.1.2.3/', 'scanner'));
    expect(inside.lastError).not.toContain('private');
    expect(lines.join()).toMatch(/ECONNREFUSED/);
    expect(lines.join()).toMatch(/10\.1\.2\.3 is at 10\.1\.2\.3/);
    resetting.close();
  });
});
