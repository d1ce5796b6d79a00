/** Storage that cannot be used is waited for; it costs no attempt and leaves nothing half-written. */
import { chmod, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { afterEach, expect, test } from '@jest/globals';
import { pino } from 'pino';
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
