/** Callbacks are hints for polls, and bring the task id of a submit whose answer was lost. */
import { afterEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { pino } from 'pino';
import { readConfig } from '../../src/config/config.js';
import { startServer, type RunningServer } from '../../src/http/server.js';
import { createHub } from '../../src/pipeline/context.js';
import { callbackUrl } from '../../src/provider/callback.js';
import { freePort } from '../../src/cli/demo/redis-server.js';
import { createTestbed, redisUrl, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

const CALLBACK_SECRET = 'a secret for the tests';
let bed: Testbed;
let server: RunningServer;
let redis: Redis;
let publicUrl: string;

async function setUp(environment: Record<string, string> = {}): Promise<void> {
  const port = await freePort();
  publicUrl = `http://127.0.0.1:${port}`;
  bed = await createTestbed({
    environment: {
      PUBLIC_URL: publicUrl,
      CALLBACK_SECRET,
      PORT: String(port),
      UNCONFIRMED_WAIT_MS: '60000',
      ...environment,
    },
  });
  redis = new Redis(redisUrl());
  server = await startServer(
    createHub({ config: readConfig(bed.environment), log: pino({ level: 'silent' }), redis }),
  );
}

afterEach(async () => {
  await server.close();
  await redis.quit().catch(() => {});
  await bed.close();
});

const urlOf = (id: string) =>
  callbackUrl({ publicUrl, placeholderUrl: 'https://example.com', secret: CALLBACK_SECRET }, id);
const call = (url: string, body: unknown) =>
  fetch(url, { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) });

test('brings the task id of a submit whose answer was lost', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('lost answer [sim: submit=reset-after, callback-delay=200ms]');
  const generation = await bed.reelhaul.waitFor(id);
  expect(generation).toMatchObject({ state: 'succeeded', attempts: { submit: 1 }, charge: 'charged' });
  expect(bed.simulator.ledger().totals.submits).toBe(1);
});

test('one that comes before the submit’s answer is remembered, and used when that answer is lost', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('early [sim: submit=502-after, submit-delay=500ms, callback=early]');
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', otherTaskIds: [] });
  expect(bed.simulator.ledger().totals).toMatchObject({ submits: 1, bills: 1 });
});

test('one that comes after the policy fail revives the generation', async () => {
  await setUp({ UNCONFIRMED_WAIT_MS: '0', UNCONFIRMED_POLICY: 'fail' });
  await bed.work();
  const { id } = await bed.enqueue('given up [sim: submit=502-after, callback=lost]');
  await bed.reaches(id, 'failed');
  const { taskId } = bed.simulator.ledger().tasks[0]!;
  expect((await call(urlOf(id), { task_id: taskId, status: '3' })).status).toBe(204);
  expect(await bed.reaches(id, 'succeeded')).toMatchObject({ taskId, failure: null });
});

test('one that comes after an operator chose to resubmit saves the second bill', async () => {
  await setUp();
  const worker = await bed.work();
  const { id } = await bed.enqueue('in time [sim: submit=502-after, callback=lost]');
  await bed.reaches(id, 'unconfirmed');
  await worker.close();
  await bed.reelhaul.decide(id, { resubmit: true });
  const { taskId } = bed.simulator.ledger().tasks[0]!;
  await call(urlOf(id), { task_id: taskId });
  await bed.work();
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', taskId });
  expect(bed.simulator.ledger().totals.submits).toBe(1);
});

test('a second task id is kept beside the first and raises an alarm', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('doubled');
  const { taskId } = await bed.reelhaul.waitFor(id);
  for (let i = 0; i < 3; i++) await call(urlOf(id), { task_id: 'another-task', status: '3' });
  expect(await bed.reelhaul.get(id)).toMatchObject({
    taskId,
    otherTaskIds: ['another-task'],
    state: 'succeeded',
  });
  const events = await bed.redis.xrange(`${bed.prefix}:events`, '-', '+');
  expect(events.filter(([, fields]) => fields.includes('second_task'))).toHaveLength(1);
});

test('one about another task is no hint for the generation’s own', async () => {
  await setUp({
    POLL_FIRST_DELAY_MS: '3600000',
    POLL_MIN_INTERVAL_MS: '3600000',
    POLL_MAX_INTERVAL_MS: '3600000',
  });
  await bed.work();
  const { id } = await bed.enqueue('not this one [sim: duration=1h]');
  const { taskId } = await bed.reaches(id, 'generating');
  const planned = async () => Number(await bed.redis.zscore(`${bed.prefix}:poll:delayed`, id)) / 0x1000;
  await until(async () => (await planned()) > 0, 'the poll to be planned');
  for (let i = 0; i < 2; i++) await call(urlOf(id), { task_id: 'another-task', status: '3' });
  expect(await planned()).toBeGreaterThan(Date.now() + 900_000);
  expect(await bed.redis.hget(`${bed.prefix}:g:${id}`, 'hints')).toBeNull();
  await call(urlOf(id), { task_id: taskId, status: '3' });
  expect(await bed.redis.hget(`${bed.prefix}:g:${id}`, 'hints')).toBe('1');
});

test('one brings the next poll forward', async () => {
  await setUp({ POLL_FIRST_DELAY_MS: '3600000' });
  await bed.work();
  const { id } = await bed.enqueue('hurry');
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', attempts: { poll: 1 } });
});

test('the secret is changed without turning away what was made with the one before', async () => {
  await setUp({ CALLBACK_SECRET: `the secret of tomorrow,${CALLBACK_SECRET}` });
  const { id } = await bed.enqueue('made with either');
  const tomorrow = { publicUrl, placeholderUrl: 'https://example.com', secret: 'the secret of tomorrow' };
  expect((await call(urlOf(id), {})).status).toBe(204);
  expect((await call(callbackUrl(tomorrow, id), {})).status).toBe(204);
  expect((await call(callbackUrl({ ...tomorrow, secret: 'a third secret' }, id), {})).status).toBe(404);
  await bed.work();
  const lost = await bed.enqueue('lost answer [sim: submit=reset-after, callback-delay=200ms]');
  expect(await bed.reelhaul.waitFor(lost.id)).toMatchObject({ state: 'succeeded', charge: 'charged' });
  expect(bed.simulator.ledger().submits.map(({ callbackUrl: url }) => url)).toContain(
    callbackUrl(tomorrow, lost.id),
  );
});

test('a wrong token is refused before Redis is asked, and changes nothing', async () => {
  await setUp();
  const { id } = await bed.enqueue('guarded');
  const other = await bed.enqueue('other');
  // With Redis out of reach, whatever asks it ends as 503.
  redis.disconnect();
  const urls = [
    `${publicUrl}/callbacks/runway/${id}/wrong`,
    `${publicUrl}/callbacks/runway/not-an-id/wrong`,
    urlOf(id).replace(id, other.id),
  ];
  for (const url of urls) expect((await call(url, { task_id: 'x' })).status).toBe(404);
  expect((await call(urlOf(id), { task_id: 'x' })).status).toBe(503);
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'queued', taskId: null });
});

test.each([
  ['not JSON', '<html>'],
  ['nothing', ''],
  ['a list', '[1,2]'],
  ['no task id', '{"status":"3"}'],
  ['an absurd task id', JSON.stringify({ task_id: { a: 1 } })],
])('%s in the body does no harm', async (_, body) => {
  await setUp();
  const { id } = await bed.enqueue('robust');
  expect((await call(urlOf(id), body)).status).toBe(204);
  expect(await bed.reelhaul.get(id)).toMatchObject({ state: 'queued', taskId: null });
});

test('a huge body is refused, an unknown generation is harmless', async () => {
  await setUp();
  const { id } = await bed.enqueue('bounded');
  expect((await call(urlOf(id), 'x'.repeat(100_000))).status).toBe(413);
  const unknown = '01a20a20-0c17-742b-9fa6-1cb249bfb6b9';
  expect((await call(urlOf(unknown), { task_id: 'x' })).status).toBe(204);
  expect(await bed.redis.exists(`${bed.prefix}:g:${unknown}`)).toBe(0);
});

test('a generation that was never submitted takes no task id', async () => {
  await setUp();
  const { id } = await bed.enqueue('not yet', { delayMs: 3_600_000 });
  await call(urlOf(id), { task_id: 'made-up' });
  await until(async () => (await bed.reelhaul.get(id)).state === 'queued', 'the generation to stay queued');
  expect((await bed.reelhaul.get(id)).taskId).toBeNull();
});

test('a link to a stored file works without credentials, until it expires or is changed', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('linked');
  const { assets } = await bed.reelhaul.waitFor(id);
  const link = await bed.reelhaul.getAssetUrl(id, 'video');
  const response = await fetch(link, { headers: { range: 'bytes=0-99' } });
  expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([206, 100]);
  expect((await fetch(link)).headers.get('content-length')).toBe(String(assets!.video.sizeBytes));
  const later = link.replace(/expires=(\d+)/, (_, at: string) => `expires=${Number(at) + 1}`);
  const poster = link.replace('/video?', '/poster?');
  const old = await bed.reelhaul.getAssetUrl(id, 'video', { expiresInSeconds: -1 });
  for (const bad of [later, poster, old, link.slice(0, -2), link.split('?')[0]!])
    expect((await fetch(bad)).status).toBe(403);
});
