/** Storage that cannot be used is waited for; it costs no attempt and leaves nothing half-written. */
import { chmod, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { afterEach, describe, expect, test } from '@jest/globals';
import { pino } from 'pino';
import { createHub } from '../../src/pipeline/context.js';
import { archive } from '../../workers/archive.js';
import { createContext } from '../../workers/context.js';
import { createTestbed, type Testbed } from '../support/testbed.js';
import { until } from '../support/until.js';

let bed: Testbed;
afterEach(() => bed.close());

test('a folder that is not there any more keeps the generation in archiving until it is back', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_ATTEMPTS: '1' } });
  const lines: string[] = [];
  await bed.work({ log: pino({ level: 'info' }, { write: (line) => void lines.push(line) }) });
  const { id } = await bed.enqueue('homeless [sim: duration=500ms]');
  await bed.reaches(id, 'generating');
  await rename(bed.archive, `${bed.archive}-away`);
  await writeFile(bed.archive, 'in the way');
  await bed.reaches(id, 'archiving');
  await until(async () => (await bed.reelhaul.get(id)).attempts.archive >= 1, 'a try');
  await until(() => bed.redis.zscore(`${bed.prefix}:archive:delayed`, id), 'the stage to wait');
  expect((await bed.reelhaul.get(id)).state).toBe('archiving');
  expect(lines.filter((line) => line.includes('"alarm":"storage"')).join('')).toContain(id);
  await rm(bed.archive);
  await rename(`${bed.archive}-away`, bed.archive);
  await bed.redis.zadd(`${bed.prefix}:archive:delayed`, 1, id);
  expect((await bed.reelhaul.waitFor(id)).state).toBe('succeeded');
});

test('an asset on a private host that is not allowed ends as asset_forbidden', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_ALLOW_HOSTS: '' } });
  await bed.work();
  const { id } = await bed.enqueue('private');
  expect((await bed.reelhaul.waitFor(id)).failure).toMatchObject({
    code: 'asset_forbidden',
    charge: 'charged',
  });
  expect(bed.simulator.ledger().totals.assetRequests).toBe(0);
});

test('more bytes than ARCHIVE_MAX_BYTES end as asset_too_large, and nothing is stored', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_MAX_BYTES: '1000' } });
  await bed.work();
  const { id } = await bed.enqueue('big');
  expect((await bed.reelhaul.waitFor(id)).failure).toMatchObject({ code: 'asset_too_large' });
  const stored = await readdir(bed.archive, { recursive: true });
  expect(stored.filter((name) => name.endsWith('.mp4'))).toEqual([]);
});

test('a file of somebody else under the same name is not replaced', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_KEY_TEMPLATE: '{generationId}' } });
  const { id } = await bed.enqueue('taken');
  await mkdir(`${bed.archive}/${id}`);
  await writeFile(`${bed.archive}/${id}/video.mp4`, 'mine');
  await chmod(`${bed.archive}/${id}/video.mp4`, 0o644);
  await bed.work();
  expect((await bed.reelhaul.waitFor(id)).failure).toMatchObject({ code: 'asset_invalid', retryable: true });
});

test.each(['404', '403', '410'])(
  'a link that answers %s until its file is on the host costs tries, not the video',
  async (status) => {
    bed = await createTestbed();
    await bed.work();
    const { id } = await bed.enqueue(`young [sim: young=300ms, young-status=${status}]`);
    expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', failure: null });
    expect(bed.simulator.ledger().totals.submits).toBe(1);
  },
);

test('a link that stays dead is asked again with backoff, up to the last try, and then said to be dead', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_ATTEMPTS: '4' } });
  await bed.work();
  const { id } = await bed.enqueue('dead [sim: video=404*forever]');
  const { failure, attempts } = await bed.reelhaul.waitFor(id);
  expect(failure).toMatchObject({ code: 'asset_expired', charge: 'charged' });
  expect(failure?.message).toContain('4 tries');
  expect(attempts.archive).toBe(4);
});

test.each([
  ['asset-auth=key, asset-host=relative'],
  ['asset-auth=key, asset-host=localhost:3000'],
  ['asset-auth=key, asset-host=gateway.internal'],
])("the gateway's own content link (%s) is fetched where the gateway is, with the key", async (script) => {
  bed = await createTestbed({ environment: { ARCHIVE_ALLOW_HOSTS: '' } });
  await bed.work();
  const { id } = await bed.enqueue(`own [sim: ${script}]`);
  // Poster and last frame lie elsewhere, on a private host that is not allowed.
  expect(await bed.reelhaul.waitFor(id)).toMatchObject({ state: 'succeeded', failure: null });
});

test.each([
  'content-encoding=aws-chunked',
  'content-encoding=gzip',
  'content-encoding=utf-8',
  'ranges=whole-206',
])('a video that is sent as %s is judged by its bytes', async (script) => {
  bed = await createTestbed();
  await bed.work();
  const { id } = await bed.enqueue(`labelled [sim: ${script}]`);
  const { assets, failure } = await bed.reelhaul.waitFor(id);
  expect(failure).toBeNull();
  expect(assets?.video.sha256).toBe(bed.simulator.ledger().tasks[0]!.assets.video.sha256);
});

test('names that come to too many bytes are cut, and the video is archived', async () => {
  const template = '{yyyy}/{tenant}_{metadata.title}_{generationId}';
  bed = await createTestbed({ environment: { ARCHIVE_KEY_TEMPLATE: template } });
  await bed.work();
  const options = { tenant: '東京'.repeat(40), metadata: { title: '動画'.repeat(80) } };
  const { id } = await bed.enqueue('long names', options);
  expect((await bed.reelhaul.waitFor(id)).assets?.video.key).toContain(id);
});

test('a host that switches protocols unasked takes no slot, and the worker stops', async () => {
  bed = await createTestbed({ environment: { ARCHIVE_CONCURRENCY: '1', ARCHIVE_ATTEMPTS: '2' } });
  const workers = await bed.work();
  const { id } = await bed.enqueue('switched [sim: video=101*forever]');
  const next = await bed.enqueue('next');
  expect((await bed.reelhaul.waitFor(id)).failure).toMatchObject({ code: 'archive_attempts_exhausted' });
  expect(await bed.reelhaul.waitFor(next.id)).toMatchObject({ state: 'succeeded' });
  await workers.close();
});

describe('the archive stage by itself', () => {
  /** A context whose storage does what the test wants, and a generation that waits in `archiving`. */
  async function prepare(prompt: string) {
    bed = await createTestbed({ environment: { ARCHIVE_ATTEMPTS: '2' } });
    const without = await bed.work({ stages: ['submit', 'poll'] });
    const { id } = await bed.enqueue(prompt);
    await bed.reaches(id, 'archiving');
    await without.close();
    const hub = createHub({ config: bed.config, log: pino({ level: 'silent' }), redis: bed.redis });
    const context = await createContext(hub);
    const close = async () => {
      context.ledger.close();
      context.provider.close();
      await context.storage.close();
      context.assetHosts.close();
      await context.queues.close();
    };
    return { id, context, close };
  }
  const { signal } = new AbortController();

  test('ends in a failure within its attempts whatever error it meets', async () => {
    const { id, context, close } = await prepare('odd');
    const put = () => Promise.reject(new TypeError('Cannot read properties of undefined'));
    const odd = { ...context, storage: { ...context.storage, put } };
    expect(await archive(odd, id, signal)).toMatchObject({ kind: 'snooze' });
    expect(await archive(odd, id, signal)).toEqual({ kind: 'done' });
    expect(await bed.reelhaul.get(id)).toMatchObject({
      state: 'failed',
      failure: { code: 'archive_attempts_exhausted', charge: 'charged', retryable: true },
    });
    await close();
  });

  test('tells when each asset and the manifest begin, which have time limits of their own', async () => {
    const { id, context, close } = await prepare('in steps');
    let steps = 0;
    expect(await archive(context, id, signal, () => (steps += 1))).toEqual({ kind: 'done' });
    expect(steps).toBe(4);
    await close();
  });

  test('that wakes up after another run succeeded leaves the manifest as that one wrote it', async () => {
    const { id, context, close } = await prepare('late');
    let manifest: Buffer | null = null;
    const late = {
      ...context,
      storage: {
        ...context.storage,
        async put(...args: Parameters<typeof context.storage.put>) {
          const [key] = args;
          if (key.endsWith('manifest.json') && manifest === null) {
            manifest = Buffer.alloc(0);
            // Another worker took the job, polled anew, and came to the end.
            const record = (await context.store.get(id))!;
            await context.store.amend(record, {
              answer: { at: 1, call: 'poll', httpStatus: 200, requestId: null, body: 'other', error: null },
            });
            expect(await archive(context, id, signal)).toEqual({ kind: 'done' });
            manifest = await readFile(`${bed.archive}/${key}`);
          }
          return context.storage.put(...args);
        },
      },
    };
    await archive(late, id, signal);
    expect((await bed.reelhaul.get(id)).state).toBe('succeeded');
    const [file] = (await readdir(bed.archive, { recursive: true })).filter((name) => name.endsWith('.json'));
    expect(await readFile(`${bed.archive}/${file}`)).toEqual(manifest);
    await close();
  });
});
