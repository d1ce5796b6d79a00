/** A newer reelhaul reads what an older one wrote; an older one leaves alone what a newer one wrote. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { NewerRecordError } from '../../src/errors.js';
import { RECORD_VERSION } from '../../src/store/read-record.js';
import { STATES, type State } from '../../src/generation/states.js';
import { createHub } from '../../src/pipeline/context.js';
import { loadStoredData, type StoredData } from '../fixtures/stored-data.js';
import { startApi } from '../support/api.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { createTestbed, image, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const folder = fileURLToPath(new URL('../fixtures', import.meta.url));
const fixtures = readdirSync(folder).filter((name) => /^stored-data-v\d+\.json$/.test(name));

let bed: Testbed;
let receiver: Receiver | null = null;
afterEach(async () => {
  await bed.close();
  await receiver?.close();
  receiver = null;
});

test('there is a fixture of every version that was ever written', () => {
  expect(fixtures.sort()).toEqual(
    Array.from({ length: RECORD_VERSION }, (_, i) => `stored-data-v${i + 1}.json`).sort(),
  );
  bed = { close: async () => {} } as Testbed;
});

describe.each(fixtures)('%s', (name) => {
  const data = JSON.parse(readFileSync(`${folder}/${name}`, 'utf8')) as StoredData;
  const id = (of: string) => data.generations[of]!;

  async function load(environment: Record<string, string> = {}): Promise<void> {
    receiver = await startReceiver();
    bed = await createTestbed({
      environment: {
        NOTIFY_SECRET: SECRET,
        NOTIFY_ALLOW_HOSTS: '127.0.0.1',
        RETENTION_MS: String(365 * 24 * 3_600_000),
        LATE_CHECK_FOR_MS: String(365 * 24 * 3_600_000),
        ...environment,
      },
    });
    const hosts = { provider: new URL(bed.simulator.url).host, receiver: new URL(receiver.url).host };
    await loadStoredData(bed.redis, bed.prefix, data, hosts);
  }

  test('every state can be read, listed and found as it was', async () => {
    await load();
    const counts = await bed.reelhaul.count(STATES);
    for (const state of STATES) {
      expect([state, counts[state]! > 0]).toEqual([state, true]);
      const { generations } = await bed.reelhaul.list({ state });
      expect(generations).toHaveLength(counts[state]!);
      for (const generation of generations) {
        expect(generation.state).toBe(state);
        expect(generation.request.prompt).not.toBe('');
        expect(generation.createdAt).toBeLessThan(data.at);
      }
    }
    for (const of of Object.keys(data.generations).filter((known) =>
      (STATES as readonly string[]).includes(known),
    ))
      expect((await bed.reelhaul.get(id(of))).state).toBe(of);
    expect(await bed.reelhaul.get(id('succeeded'))).toMatchObject({
      tenant: 'acme',
      idempotencyKey: 'order-1',
      charge: 'charged',
      assets: { video: { contentType: 'video/mp4' } },
    });
    expect((await bed.reelhaul.get(id('failed'))).failure).toMatchObject({ code: 'request_rejected' });
    expect((await bed.reelhaul.get(id('failed'))).metadata).toEqual({ order: 2 });
    expect((await bed.reelhaul.answers(id('unconfirmed')))[0]).toMatchObject({ httpStatus: 502 });
    expect((await bed.reelhaul.notifications(id('owed'))).every(({ dead }) => !dead)).toBe(true);
    expect((await bed.reelhaul.deadNotifications()).generations).toBe(1);
    const again = await bed.reelhaul.enqueue(
      { prompt: 'queued', image },
      { tenant: 'acme', idempotencyKey: 'order-9', priority: 5 },
    );
    expect(again.id).toBe(id('queued'));
  });

  test('what was learnt of durations is still known', async () => {
    await load();
    const clock = { now: () => data.at, dice: () => 0.5 };
    const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis, clock });
    const known = await hub.durations.forecast('gen4::1280:720');
    const unknown = await hub.durations.forecast('never::seen');
    expect(JSON.stringify(known)).not.toBe(JSON.stringify(unknown));
    await hub.queues.close();
  });

  test('workers of today go on where those of then were killed', async () => {
    await load({ ARCHIVE_ATTEMPTS: '1' });
    const polledThen = (await bed.reelhaul.get(id('generating'))).attempts.poll;
    await bed.work();
    const reaches = (of: string, state: State) => bed.reaches(id(of), state);
    // Its job was held by a worker that is dead; nobody knows what became of its request.
    await reaches('submitting', 'unconfirmed');
    await reaches('queued', 'succeeded');
    // It is followed further: at what times, and with what end, depends on when this is run.
    await until(
      async () => (await bed.reelhaul.get(id('generating'))).attempts.poll > polledThen,
      'the task to be polled',
    );
    // The links of then are dead.
    expect((await reaches('archiving', 'failed')).failure).toMatchObject({
      stage: 'archive',
      charge: 'charged',
    });
    expect((await bed.reelhaul.decide(id('unconfirmed'), { giveUp: true })).failure?.code).toBe(
      'submission_unconfirmed',
    );
    expect((await bed.reelhaul.retry(id('failed'))).state).toBe('queued');
    await reaches('failed', 'failed');
    // Its time came long after the fixture was made.
    await reaches('later', 'succeeded');
    await bed.reelhaul.retryNotification(id('owed'));
    expect(await bed.reelhaul.retryNotification(id('dead'))).toBe(1);
    expect(bed.simulator.ledger().totals.submits).toBe(3);
  });
});

describe('a record of a newer version', () => {
  const newer = String(RECORD_VERSION + 1);
  async function enqueueNewer(): Promise<string> {
    bed = await createTestbed();
    const { id } = await bed.enqueue('from the future', { delayMs: 1 });
    await bed.redis.hset(`${bed.prefix}:g:${id}`, { v: newer, state: 'rendering' });
    return id;
  }

  test('is refused by its name, by every way of reading it', async () => {
    const id = await enqueueNewer();
    await expect(bed.reelhaul.get(id)).rejects.toThrow(NewerRecordError);
    await expect(bed.reelhaul.get(id)).rejects.toThrow(
      `Generation ${id} was written by a newer reelhaul (record version ${newer}, known is ${RECORD_VERSION}). Upgrade reelhaul here.`,
    );
    await expect(bed.reelhaul.cancel(id)).rejects.toThrow(NewerRecordError);
    await expect(bed.reelhaul.waitFor(id)).rejects.toThrow(NewerRecordError);
    const api = await startApi(bed);
    expect(await api.ask('GET', `/v1/generations/${id}`)).toMatchObject({
      status: 503,
      body: { code: 'newer_record' },
    });
    await api.close();
  });

  test('is left as it is by workers and sweep, among those that a newer sweep looks after', async () => {
    const id = await enqueueNewer();
    const key = `${bed.prefix}:g:${id}`;
    const before = await bed.redis.hgetall(key);
    await bed.work();
    const other = await bed.enqueue('of today');
    await bed.reaches(other.id, 'succeeded');
    const firstSweep = Number(await until(() => bed.redis.get(`${bed.prefix}:swept`), 'a sweep'));
    await until(async () => Number(await bed.redis.get(`${bed.prefix}:swept`)) > firstSweep, 'another sweep');
    expect(await bed.redis.hgetall(key)).toEqual(before);
    expect(await bed.redis.zscore(`${bed.prefix}:live`, id)).toBe('0');
    expect(bed.simulator.ledger().totals.submits).toBe(1);
  });

  test('that is generating is not polled', async () => {
    bed = await createTestbed();
    const { id } = await bed.enqueue('from the future');
    const key = `${bed.prefix}:g:${id}`;
    await bed.redis.hset(key, { v: newer, state: 'generating', taskId: 'task-of-tomorrow' });
    const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
    const before = await bed.redis.hgetall(key);
    await expect(hub.following.begin(id)).rejects.toThrow(NewerRecordError);
    expect(await bed.redis.hgetall(key)).toEqual(before);
    await hub.queues.close();
  });
});
