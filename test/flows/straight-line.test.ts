/** From `enqueue` to a verified file, on real parts. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { createTestbed, type Testbed, type TestbedOptions } from '../support/testbed.js';

let bed: Testbed;
afterEach(() => bed.close());

async function setUp(options?: TestbedOptions): Promise<Testbed> {
  bed = await createTestbed(options);
  return bed;
}

test('a generation ends as a verified file with a manifest beside it', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('a paper boat', { metadata: { order: 7 } });
  const generation = await bed.reelhaul.waitFor(id);

  expect(generation).toMatchObject({
    state: 'succeeded',
    charge: 'charged',
    failure: null,
    late: false,
    progress: 100,
    attempts: { submit: 1, archive: 1 },
    request: { prompt: 'a paper boat', model: 'gen4', ratio: '1280:720' },
    metadata: { order: 7 },
  });
  const { video, poster, lastFrame } = generation.assets!;
  const task = bed.simulator.ledger().tasks[0]!;
  expect(generation.taskId).toBe(task.taskId);
  for (const [asset, expected] of [
    [video, task.assets.video],
    [poster!, task.assets.poster],
    [lastFrame!, task.assets.lastFrame],
  ] as const) {
    const bytes = await readFile(join(bed.archive, asset.key));
    expect(bytes).toHaveLength(asset.sizeBytes);
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(asset.sha256);
    expect(asset).toMatchObject({ sha256: expected.sha256, sizeBytes: expected.sizeBytes });
  }
  const manifest = JSON.parse(await readFile(join(bed.archive, video.key, '..', 'manifest.json'), 'utf8'));
  expect(manifest).toMatchObject({
    generationId: id,
    taskId: task.taskId,
    assets: { video: { sha256: video.sha256 } },
  });
});

test('a generation leaves no job behind, and its answers can be read', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('fog over a forest');
  await bed.reelhaul.waitFor(id);
  const answers = await bed.reelhaul.answers(id);
  expect(answers.map(({ call, httpStatus }) => [call, httpStatus])).toEqual([
    ['submit', 200],
    ['poll', 200],
  ]);
  expect(JSON.stringify(answers)).not.toContain(bed.environment['COMETAPI_KEY']);
  const jobs = await bed.redis.keys(`${bed.prefix.replaceAll(/[[\]]/g, '\\$&')}:poll:${id}`);
  expect(jobs).toEqual([]);
});

test('waiting for the next poll holds no worker slot', async () => {
  await setUp({ environment: { POLL_CONCURRENCY: '1', POLL_MIN_INTERVAL_MS: '100' } });
  await bed.work();
  const slow = await bed.enqueue('a slow one [sim: duration=3s]');
  await bed.reaches(slow.id, 'generating');
  const { id } = await bed.enqueue('a quick one [sim: duration=0]');
  const [quick, last] = await Promise.all([bed.reelhaul.waitFor(id), bed.reelhaul.waitFor(slow.id)]);
  expect([quick.state, last.state]).toEqual(['succeeded', 'succeeded']);
  expect(quick.finishedAt).toBeLessThan(last.finishedAt!);
  expect(last.attempts.poll).toBeGreaterThan(2);
});

test('the failure of a task is told with the provider’s words, and never resubmitted', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('forbidden fruit [sim: result=failed:SAFETY.INPUT.TEXT]');
  const generation = await bed.reelhaul.waitFor(id);
  expect(generation).toMatchObject({
    state: 'failed',
    failure: { code: 'task_failed', stage: 'poll', retryable: false },
  });
  expect(bed.simulator.ledger().totals.submits).toBe(1);
});

test('a deadline ends our patience only: a late success is adopted and marked late', async () => {
  await setUp({ environment: { GENERATION_DEADLINE_MS: '100', LATE_CHECK_INTERVAL_MS: '100' } });
  await bed.work();
  const { id } = await bed.enqueue('a slow one [sim: duration=1s]');
  const expired = await bed.reaches(id, 'expired');
  expect(expired.failure).toMatchObject({ code: 'deadline_exceeded', charge: 'charged' });
  expect(await bed.reaches(id, 'succeeded')).toMatchObject({ late: true, failure: null });
});

test('a task that never becomes visible expires as task_not_found', async () => {
  await setUp({
    environment: { GENERATION_DEADLINE_MS: '300', LATE_CHECK_FOR_MS: '0', LATE_CHECK_INTERVAL_MS: '50' },
  });
  await bed.work();
  const { id } = await bed.enqueue('a ghost [sim: visible-after=never]');
  expect((await bed.reaches(id, 'expired')).failure).toMatchObject({ code: 'task_not_found' });
});

test.each([
  ['poll=500*3', 'errors of the provider'],
  ['poll=401*2', 'a refused key'],
  ['poll=html*2', 'HTML with 200'],
  ['poll=garbage>reset>empty>business', 'garbage, resets, nothing and business errors'],
  ['visible-after=200ms', 'a task that is not visible at once'],
  ['shape=B', 'shape B'],
  ['shape=O', 'shape O'],
  ['no-url=2', 'a success without a URL at first'],
  ['url-in=fail_reason', 'a URL in fail_reason'],
  ['outer=failed', 'a gateway that timed out while the task succeeded'],
  ['video=expired', 'a dead link'],
  ['video=html', 'an error page instead of the video'],
  ['video=truncated', 'a truncated video'],
  ['video=drop', 'a download that breaks'],
])('%s: %s do not lose the video', async (script) => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue(`hard luck [sim: ${script}]`);
  const generation = await bed.reelhaul.waitFor(id);
  expect(generation.failure).toBeNull();
  expect(generation.assets!.video.sha256).toBe(bed.simulator.ledger().tasks[0]!.assets.video.sha256);
  expect(bed.simulator.ledger().totals).toMatchObject({ submits: 1, tasksCreated: 1, leakedKeys: 0 });
});

test.each([
  ['video=expired:404*forever', 'asset_expired'],
  ['video=html*forever', 'asset_invalid'],
  ['video=503*forever', 'archive_attempts_exhausted'],
  ['no-url=forever', 'no_asset_url'],
])('%s ends as %s, billed once', async (script, code) => {
  await setUp({ environment: { ARCHIVE_ATTEMPTS: '2', NO_URL_GRACE_MS: '100' } });
  await bed.work();
  const { id } = await bed.enqueue(`no luck [sim: ${script}]`);
  const generation = await bed.reelhaul.waitFor(id);
  expect(generation).toMatchObject({
    state: 'failed',
    failure: { code, retryable: true, charge: 'charged' },
  });
  expect(bed.simulator.ledger().totals.submits).toBe(1);
});

test('a failed archive can be redriven without a bill', async () => {
  await setUp({ environment: { ARCHIVE_ATTEMPTS: '1' } });
  await bed.work();
  const { id } = await bed.enqueue('try again [sim: video=503]');
  expect((await bed.reelhaul.waitFor(id)).failure).toMatchObject({ code: 'archive_attempts_exhausted' });
  await bed.reelhaul.retry(id);
  expect((await bed.reaches(id, 'succeeded')).assets!.video.sizeBytes).toBeGreaterThan(0);
  expect(bed.simulator.ledger().totals.submits).toBe(1);
});

test('a missing poster is a warning, not a failure', async () => {
  await setUp();
  await bed.work();
  const { id } = await bed.enqueue('no poster [sim: poster=404*forever]');
  const generation = await bed.reelhaul.waitFor(id);
  expect(generation).toMatchObject({ state: 'succeeded', assets: { poster: null } });
  expect(generation.warnings.map(({ code }) => code)).toContain('poster_lost');
});
