/**
 * Erasing: nothing that an app or the provider said of a generation stays, its money does, and nothing revives it.
 * By hand, for more generations: `ERASE_GENERATIONS=100`.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { createLogger } from '../../src/telemetry/logger.js';
import { notifySecrets } from '../../src/outbound/notify-secrets.js';
import { callbackUrl } from '../../src/provider/callback.js';
import { createHub } from '../../src/pipeline/context.js';
import { startApi, type TestApi } from '../support/api.js';
import { SECRET, startReceiver, type Receiver } from '../support/receiver.js';
import { textsIn } from '../support/redis-texts.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const GENERATIONS = Number(process.env['ERASE_GENERATIONS'] ?? 7);
const TENANT = 'planted-tenant';
const CALLBACK_SECRET = 'a secret for the tests';

let bed: Testbed;
let api: TestApi | null = null;
let receiver: Receiver | null = null;
afterEach(async () => {
  await api?.close();
  await bed.close();
  await receiver?.close();
  api = receiver = null;
});

async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return Promise.all(files.map(async (file) => `${file}\n${await readFile(file, 'latin1')}`));
}

/** A folder that goes while it is looked at is looked at again. */
const noFiles = () =>
  filesIn(bed.archive).then(
    (files) => files.length === 0,
    () => false,
  );

const found = (planted: readonly string[], texts: readonly string[]) =>
  planted.filter((word) => texts.some((text) => text.includes(word)));

/** How each fares, with what it leaves behind. */
const FATES = [
  '',
  'submit=rejected:planted-code*forever',
  'result=failed:PLANTED_FAILURE',
  'video=garbage*forever',
  'poster=404*forever',
  'submit=with-id:500',
  'callback=every',
];

/** Twenty words of an app in one order. */
function order(i: number): { words: string[]; enqueued: Parameters<Testbed['reelhaul']['enqueue']> } {
  const words = Array.from({ length: 20 }, (_, n) => `planted-${i}-${n}-word`);
  const word = (n: number) => words[n]!;
  const nested = Object.fromEntries(words.slice(9).map((one, n) => [`${one}-key`, [one, { n }]]));
  return {
    words,
    enqueued: [
      {
        prompt: `${word(0)} ${word(1)} [sim: ${FATES[i % FATES.length]!}]`.replace('[sim: ]', ''),
        image: `https://${word(2)}.example.com/${word(3)}.png?${word(4)}=${word(5)}`,
      },
      {
        tenant: TENANT,
        idempotencyKey: word(6),
        metadata: { name: word(7), ...nested },
        notifyUrl: `${receiver!.url}/${word(8)}`,
        notifyOn: 'progress',
      },
    ],
  };
}

test('nothing of it is left in Redis, storage, logs and metrics; the money of the day is', async () => {
  receiver = await startReceiver(notifySecrets([SECRET], TENANT)[0]);
  // Some notifications are given up, and stay.
  receiver.answer(...Array.from({ length: GENERATIONS }, () => ({ status: 410 })));
  bed = await createTestbed({
    environment: {
      ARCHIVE_KEY_TEMPLATE: '{tenant}/{metadata.name}/{generationId}',
      ARCHIVE_ATTEMPTS: '2',
      NOTIFY_SECRET: SECRET,
      NOTIFY_ALLOW_HOSTS: '127.0.0.1',
      PRICES: '{"*":0.25}',
    },
  });
  api = await startApi(bed);
  let lines = '';
  const log = createLogger({ level: 'trace', secrets: [], write: (line) => void (lines += line) });
  await bed.work({ log });
  const orders = Array.from({ length: GENERATIONS }, (_, i) => order(i));
  const ids = await Promise.all(
    orders.map(async ({ enqueued }) => (await bed.reelhaul.enqueue(...enqueued)).id),
  );
  const ends = await Promise.all(ids.map((id) => bed.reelhaul.waitFor(id)));
  expect(new Set(ends.map(({ state }) => state))).toEqual(new Set(['succeeded', 'failed']));
  await until(
    async () => (await bed.redis.zcard(`${bed.prefix}:notifications-owed`)) === 0,
    'all to be told',
  );
  const planted = orders.flatMap(({ words }) => words);
  const answers = [
    ...bed.simulator.ledger().tasks.map(({ taskId }) => taskId),
    'planted-code',
    'PLANTED_FAILURE',
  ];
  const everywhere = async () => [
    ...(await textsIn(bed.redis, bed.prefix)),
    ...(await filesIn(bed.archive)),
    await (await fetch(`${api!.url}/metrics`)).text(),
  ];
  expect(found([...planted, ...answers, TENANT], await everywhere())).toEqual([
    ...planted,
    ...answers,
    TENANT,
  ]);
  const before = await bed.reelhaul.spend();

  const first = await bed.reelhaul.erase(ids[0]!);
  expect(first).toMatchObject({
    id: ids[0],
    state: 'succeeded',
    charge: 'charged',
    createdAt: ends[0]!.createdAt,
  });
  expect(first.bills).toEqual([{ at: ends[0]!.submittedAt, bill: 'charged', amount: 0.25 }]);
  expect(await bed.reelhaul.eraseTenant(TENANT)).toEqual({ erased: GENERATIONS - 1, kept: 0 });
  await until(async () => (await bed.reelhaul.erase(ids.at(-1)!)).filesErased, 'the files to be removed');
  await until(noFiles, 'all files to be removed');
  await until(
    async () => (await bed.redis.exists(`${bed.prefix}:erasing`, `${bed.prefix}:erasing-files`)) === 0,
    'the erasing to end',
  );

  // Hosts that failed are remembered for a day, without anything else of an address; task ids are in logs, tenants too.
  expect(found([...planted, ...answers, TENANT], await everywhere())).toEqual([]);
  expect(found(planted, [lines])).toEqual([]);
  expect(await bed.reelhaul.spend()).toMatchObject({ charged: before.charged, possible: before.possible });
  expect((await bed.reelhaul.list()).generations).toEqual([]);
  for (const id of ids)
    await expect(bed.reelhaul.get(id)).rejects.toMatchObject({ code: 'not_found', message: /was erased at/ });
});

test('what may still be billed is erased only when that is accepted; a late callback revives nothing', async () => {
  bed = await createTestbed({
    environment: { PRICES: '{"*":1}', CALLBACK_SECRET, PUBLIC_URL: 'http://127.0.0.1:1' },
  });
  await bed.work();
  const waiting = await bed.enqueue('later', { delayMs: 3_600_000 });
  const running = await bed.enqueue('running [sim: duration=1h]', { idempotencyKey: 'k' });
  const doubtful = await bed.enqueue('doubtful [sim: submit=502-after, callback=lost]');
  const given = await bed.enqueue('given up [sim: submit=502-after, callback=lost]', {
    onUnconfirmed: 'fail',
  });
  await bed.reaches(running.id, 'generating');
  await bed.reaches(doubtful.id, 'unconfirmed');
  await bed.reaches(given.id, 'failed');
  const all = [waiting, running, doubtful, given].map(({ id }) => id);
  for (const id of all) await expect(bed.reelhaul.erase(id)).rejects.toMatchObject({ code: 'may_be_billed' });
  expect(await bed.reelhaul.eraseTenant('default')).toEqual({ erased: 0, kept: 4 });
  expect((await bed.reelhaul.list()).generations).toHaveLength(4);

  const spent = await bed.reelhaul.spend();
  expect((await bed.reelhaul.limits()).inFlight).toBe(3);
  const stubs = await Promise.all(all.map((id) => bed.reelhaul.erase(id, { evenIfBilled: true })));
  expect(stubs.map(({ state, charge }) => `${state} ${charge}`)).toEqual([
    'queued none',
    'generating charged',
    'unconfirmed possible',
    'failed possible',
  ]);
  expect(await bed.reelhaul.spend()).toEqual(spent);
  // Their tasks may live, and go on to take their slots.
  expect((await bed.reelhaul.limits()).inFlight).toBe(3);

  api = await startApi(bed);
  for (const { generationId, taskId } of bed.simulator.ledger().tasks) {
    const publicUrl = api.url;
    const url = callbackUrl({ publicUrl, placeholderUrl: '', secret: CALLBACK_SECRET }, generationId!);
    const answer = await fetch(url, {
      method: 'POST',
      body: JSON.stringify({ task_id: taskId, status: '3' }),
    });
    expect(answer.status).toBe(204);
  }
  for (const id of all) await expect(bed.reelhaul.get(id)).rejects.toMatchObject({ code: 'not_found' });
  expect((await bed.reelhaul.list()).generations).toEqual([]);
  // The key is free again: the same order is a new generation, and a bill of its own.
  expect((await bed.enqueue('running [sim: duration=1h]', { idempotencyKey: 'k' })).id).not.toBe(running.id);
});

test('an archive run that is under way leaves no file, and its wait is told', async () => {
  bed = await createTestbed();
  await bed.work();
  const { id } = await bed.enqueue('slow [sim: duration=0, video=slow:1s]');
  await bed.reaches(id, 'archiving');
  const wait = bed.reelhaul.waitFor(id);
  await bed.reelhaul.erase(id, { evenIfBilled: true });
  await expect(wait).rejects.toMatchObject({ code: 'not_found' });
  await until(async () => (await bed.reelhaul.erase(id)).filesErased, 'the run to find it erased');
  expect(await filesIn(bed.archive)).toEqual([]);
});

test('the sweep finishes what a crash interrupted', async () => {
  bed = await createTestbed();
  const workers = await bed.work();
  const { id } = await bed.enqueue('half erased');
  await bed.reelhaul.waitFor(id);
  await workers.close();
  const { store } = createHub({
    config: bed.config,
    log: createLogger({ level: 'silent', secrets: [] }),
    redis: bed.redis,
  });
  await store.eraser.erase(id, { evenIfBilled: false });
  expect(await filesIn(bed.archive)).toHaveLength(4);
  await bed.work();
  await until(async () => (await bed.reelhaul.erase(id)).filesErased, 'the files to be removed');
  expect(await filesIn(bed.archive)).toEqual([]);
  await until(
    async () => (await bed.redis.exists(`${bed.prefix}:erasing`)) === 0,
    'the events to be removed',
  );
  const events = await bed.redis.xrange(`${bed.prefix}:events`, '-', '+');
  expect(events.map(([, fields]) => fields.slice(0, 4))).toEqual([['id', id, 'type', 'erased']]);
});

test('files go after FILES_RETENTION_MS, and the stub after RETENTION_MS', async () => {
  bed = await createTestbed({
    environment: { FILES_RETENTION_MS: '1000', RETENTION_MS: '4000', IDEMPOTENCY_TTL_MS: '4000' },
  });
  await bed.work();
  const { id } = await bed.enqueue('for a second');
  await bed.reelhaul.waitFor(id);
  await until(noFiles, 'the files to be removed');
  await until(
    async () => (await bed.redis.exists(`${bed.prefix}:erased:${id}`, `${bed.prefix}:erased`)) === 0,
    'the stub to be forgotten',
  );
  await expect(bed.reelhaul.erase(id)).rejects.toMatchObject({ code: 'not_found' });
});
